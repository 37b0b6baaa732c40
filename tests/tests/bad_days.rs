//! Bad days with real stores and real files: stores that hang, processes that are killed, disks that are full, files
//! that are huge or lost their header (`docs/src/commands/eds.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::high_water_kib;
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// Far above what anything here takes, far below "for ever".
const PATIENCE: Duration = Duration::from_secs(60);

/// A desk with a key file, for what needs no store.
fn desk_with_key_file() -> Desk {
    let desk = GRID.desk("alice");
    desk.write("plain", b"pixels");
    let _ = desk.run("eds-encrypt --key-file key --new-key plain sealed").exits(0);
    desk
}

fn sparse(desk: &Desk, name: &str, bytes: u64) {
    File::create(desk.path(name)).unwrap().set_len(bytes).unwrap();
}

/// Waits until `there` holds; what never comes is a failure, not a hang.
fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_store_that_hangs_delays_nobody_who_opens_and_is_named_to_who_registers() {
    let mut desk = GRID.desk("alice");
    desk.write("plain", b"pixels");
    // whoever waited for the store that hangs, and not for the hedge delay alone, would wait for a minute
    let usual = desk.variable("EDS_CONFIG").to_owned();
    let deadlines = "\n[timeouts]\nrequest_ms = 60000\ntotal_ms = 120000\n";
    let patient = std::fs::read_to_string(&usual).unwrap() + deadlines;
    let patient = desk.write("patient.toml", patient).display().to_string();
    {
        let _whole = GRID.whole();
        let _ = desk.run("eds-key-register /bad/hangs").exits(0);
        let _ = desk.run("eds-encrypt /bad/hangs plain sealed").exits(0);
    }
    let mut grid = GRID.alone();
    for number in 1..=3 {
        grid.hang(number);
        let start = Instant::now();
        desk.set("EDS_CONFIG", &patient);
        let _ = desk.run(&format!("eds-decrypt sealed opened{number}")).exits(0);
        desk.set("EDS_CONFIG", &usual);
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        assert_eq!(desk.read(&format!("opened{number}")), b"pixels");
        let start = Instant::now();
        let _ = desk
            .run(&format!("eds-key-register /bad/hangs-{number}"))
            .exits(75)
            .says(&format!("store{number}"));
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        grid.start_again();
        // What it missed while it hung is a pending entry at the most: nobody can seal with it.
        assert_ne!(
            desk.run(&format!("eds-encrypt /bad/hangs-{number} plain none{number}"))
                .code,
            Some(0)
        );
    }
    assert!(
        !desk.names().iter().any(|name| name.starts_with("none")),
        "{:?}",
        desk.names()
    );
}

#[test]
fn a_file_that_lost_its_header_is_damaged_never_something_older() {
    let _whole = GRID.whole();
    let desk = GRID.desk("alice");
    desk.write("plain", vec![7; 1000]);
    let _ = desk.run("eds-key-register /bad/header").exits(0);
    let _ = desk.run("eds-encrypt /bad/header plain sealed").exits(0);
    let sealed = desk.read("sealed");
    desk.write("bare", &sealed[512..]);
    // As the original's raw CBC would be: whole blocks, no header.
    desk.write("blocks", &sealed[568..568 + 992]);
    let mut other_magic = sealed;
    other_magic[0] ^= 0x80;
    desk.write("magic", &other_magic);
    for name in ["bare", "blocks", "magic"] {
        for command in ["eds-decrypt", "glite-eds-decrypt"] {
            let code = if command.starts_with("glite") { 255 } else { 65 };
            let _ = desk.run(&format!("{command} /bad/header {name} opened")).exits(code);
        }
    }
    assert!(!desk.path("opened").exists());
}

#[test]
fn five_gibibytes_go_through_in_little_memory() {
    const BYTES: u64 = 5 << 30;
    let desk = desk_with_key_file();
    sparse(&desk, "huge", BYTES);
    let mut seal = desk.command("eds-encrypt");
    let mut seal = seal
        .args(["-q", "--key-file", "key", "huge", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut open = desk.command("eds-decrypt");
    let mut open = open
        .args(["-q", "--key-file", "key", "-", "-"])
        .stdin(seal.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut opened = open.stdout.take().unwrap();
    let mut piece = vec![0; 1 << 20];
    let (mut bytes, mut peak_kib) = (0, 0);
    loop {
        let read = opened.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        assert!(piece[..read].iter().all(|byte| *byte == 0));
        bytes += read as u64;
        if bytes % (256 << 20) < read as u64 {
            peak_kib = peak_kib.max(high_water_kib(seal.id())).max(high_water_kib(open.id()));
        }
    }
    assert!(seal.wait().unwrap().success() && open.wait().unwrap().success());
    assert_eq!(bytes, BYTES);
    assert!((1..32 * 1024).contains(&peak_kib), "{peak_kib} KiB");
}

#[test]
fn whatever_ends_a_command_midway_leaves_no_output() {
    for signal in ["KILL", "TERM", "INT"] {
        for replace in [false, true] {
            let desk = desk_with_key_file();
            let before = if replace { Some(b"old".to_vec()) } else { None };
            if let Some(old) = &before {
                desk.write("out", old);
            }
            let names = desk.names();
            // Its input comes from us and never ends: it is killed in the middle of its work.
            let mut command = desk.command("eds-encrypt");
            let child = command
                .args(["-q", "--force", "--key-file", "key", "-", "out"])
                .stdin(Stdio::piped());
            let mut child = child.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut input, &vec![1; 4 << 20]).unwrap();
            let id = child.id();
            wait_for("four mebibytes to be taken", || bytes_read(id) >= 3 << 20);
            end_by(signal, &mut child);
            assert_eq!(desk.names(), names, "{signal}");
            assert_eq!(std::fs::read(desk.path("out")).ok(), before, "{signal}");
        }
    }
}

/// Sends a signal and asserts that it was what ended the process: a shell then says 128 and its number.
fn end_by(signal: &str, child: &mut std::process::Child) {
    let killed = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let number = match signal {
        "INT" => 2,
        "KILL" => 9,
        _ => 15,
    };
    assert_eq!(child.wait().unwrap().signal(), Some(number), "{signal}");
}

#[test]
fn whatever_ends_an_opening_midway_leaves_no_plaintext() {
    let desk = desk_with_key_file();
    sparse(&desk, "large", 8 << 20);
    let _ = desk.run("eds-encrypt -q --key-file key large large.eds").exits(0);
    let sealed = desk.read("large.eds");
    for signal in ["TERM", "INT"] {
        for old in [None, Some(b"old".to_vec())] {
            let _ = std::fs::remove_file(desk.path("out"));
            if let Some(old) = &old {
                desk.write("out", old);
            }
            let names = desk.names();
            // the rest of the file never comes
            let mut command = desk.command("eds-decrypt");
            let child = command
                .args(["-q", "--force", "--key-file", "key", "-", "out"])
                .stdin(Stdio::piped());
            let mut child = child.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut input, &sealed[..4 << 20]).unwrap();
            let id = child.id();
            wait_for("three mebibytes to be taken", || bytes_read(id) >= 3 << 20);
            end_by(signal, &mut child);
            assert_eq!(desk.names(), names, "{signal}");
            assert_eq!(std::fs::read(desk.path("out")).ok(), old, "{signal}");
        }
    }
}

/// A script sees 128 and the number of the signal, whichever command it was.
#[test]
fn a_shell_sees_which_signal_ended_a_command() {
    let desk = desk_with_key_file();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        for command in ["eds-encrypt --key-file key - out", "eds-decrypt --key-file key - out"] {
            // the input stays open until the command has ended; an interrupt is ignored by what runs in the background
            // of a shell, so the command is in front and the signal comes from behind; `env` takes back what whoever
            // started the tests in the background left ignored
            let script = format!(
                "mkfifo fifo; sleep 60 >fifo & holder=$!
                 (while ! test -e started; do sleep 0.02; done; sleep 0.3; kill -s {signal} $(cat started)) &
                 code=0; sh -c 'echo $$ >started.new; mv started.new started; exec env --default-signal {command}' <fifo || code=$?
                 kill $holder; rm -f fifo started; echo $code"
            );
            let ended = desk.shell(&script).exits(0);
            assert_eq!(ended.stdout.trim(), code.to_string(), "{command}: {ended:?}");
            assert!(!desk.path("out").exists());
        }
    }
}

/// Bytes that a process has read, of /proc/PID/io (proc(5)), or for ever many when that is not for us to see.
fn bytes_read(id: u32) -> u64 {
    let counts = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("io"));
    let Ok(counts) = counts else { return u64::MAX };
    let line = counts.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let desk = desk_with_key_file();
    sparse(&desk, "large", 8 << 20);
    desk.write("old", b"old");
    // A file-size limit acts as a full disk does, for whoever is not root too. The unit is 512 or 1024 bytes.
    let line = "trap '' XFSZ; ulimit -f 1024; eds-encrypt --force --key-file key large";
    let full = desk.shell(&format!("{line} old")).exits(74);
    assert!(full.stderr.contains("old"), "{full:?}");
    let _ = desk.shell(&format!("{line} new")).exits(74);
    assert_eq!(desk.read("old"), b"old");
    assert_eq!(desk.names(), ["key", "large", "old", "plain", "sealed"]);
}

#[test]
fn a_store_killed_while_clients_register_keeps_what_it_answered() {
    let desk = GRID.desk("alice");
    let mut grid = GRID.alone();
    let registered: Vec<usize> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let desk = &desk;
                scope.spawn(move || {
                    let numbers = (worker * 25)..(worker * 25 + 25);
                    let done = |number: &usize| {
                        let ended = desk.run(&format!("eds-key-register -q /bad/many/{number}"));
                        // Registered, refused because a store is gone, or unfinished: nothing else may happen.
                        assert!(matches!(ended.code, Some(0 | 75)), "{ended:?}");
                        ended.code == Some(0)
                    };
                    numbers.filter(done).collect::<Vec<_>>()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        grid.kill(2);
        grid.start_again();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(!registered.is_empty());
    for number in registered {
        let status = desk.run(&format!("eds-key-status /bad/many/{number}")).exits(0);
        let _ = status.prints(&format!("/bad/many/{number}: registered"));
    }
}
