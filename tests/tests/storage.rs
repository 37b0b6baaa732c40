//! Sealed files on storage elements (`docs/src/storage.md`): the commands against a WebDAV door that misbehaves on
//! command, and against the real XRootD and GridFTP servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::LazyLock;

use hydra_tests::Ended;
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::door::{Door, Way, wait_for};
use hydra_tests::site::{Fabric, GridFtp, Xrootd};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// A grid with RSA keys for the servers that know no others.
struct Site {
    grid: SharedGrid,
    fabric: Fabric,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let fabric = Fabric::make();
    let options = GridOptions {
        pki: Some(fabric.pki.directory().to_owned()),
        ..GridOptions::default()
    };
    Site {
        grid: SharedGrid::up(&options),
        fabric,
    }
});

impl Site {
    fn desk(&self, proxy: &std::path::Path) -> Desk {
        let mut desk = self.grid.desk("alice");
        desk.set("X509_USER_PROXY", &proxy.to_string_lossy());
        // a server that was killed is not waited for
        desk.set("XRD_CONNECTIONWINDOW", "2");
        desk.set("XRD_CONNECTIONRETRY", "1");
        desk.write("plain", plaintext());
        desk
    }

    fn alice(&self) -> Desk {
        self.desk(&self.fabric.alice)
    }
}

/// Some segments of something that does not look like ciphertext.
fn plaintext() -> Vec<u8> {
    (0..500_000_u32).map(|n| b'a' + (n % 23) as u8).collect()
}

fn desk() -> Desk {
    let desk = GRID.desk("alice");
    desk.write("plain", plaintext());
    desk
}

fn door() -> Door {
    let grid = GRID.whole();
    let pki = grid.pki().unwrap();
    let (certificate, key) = pki.host("se");
    Door::start(&certificate, &key, &pki.certificates())
}

/// The verdict of `eds-key-status`.
fn verdict(desk: &Desk, key_id: &str) -> String {
    let status = desk.run(&format!("eds-key-status --json {key_id}"));
    status.json()["verdict"].as_str().unwrap().to_owned()
}

/// A key that was taken back, or never was.
fn assert_no_key(desk: &Desk, key_id: &str) {
    let verdict = verdict(desk, key_id);
    assert!(verdict == "removed" || verdict == "unknown", "{key_id}: {verdict}");
}

fn has_plaintext(bytes: &[u8]) -> bool {
    let piece = &plaintext()[..23];
    bytes.windows(23).any(|window| window == piece)
}

#[test]
fn a_file_is_put_got_and_removed() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/round/trip");
    let put = desk.run(&format!("eds-put --json plain {url}?authz=a-token")).exits(0);
    assert!(!put.stderr.contains("a-token") && !put.stdout.contains("a-token"));
    let put = put.json();
    let stored = door.file("/round/trip").unwrap();
    assert!(!has_plaintext(&stored));
    // called like the file, as nobody said otherwise
    assert_eq!(put["key_id"], "/round/trip");
    assert_eq!(put["file_bytes"], stored.len());
    assert_eq!(put["plaintext_bytes"], plaintext().len());
    assert_eq!(put["checksum_compared"], true);
    assert_eq!(verdict(&desk, "/round/trip"), "registered");

    let _ = desk
        .run(&format!("eds-get {url} opened"))
        .exits(0)
        .prints("/round/trip\n");
    assert_eq!(desk.read("opened"), plaintext());
    let _ = desk.run(&format!("eds-get {url} opened")).exits(73);
    let shown = desk.run(&format!("eds-get -q {url} -")).exits(0);
    assert_eq!(shown.stdout.as_bytes(), plaintext());
    // what lies there is an ordinary sealed file
    desk.write("copy", stored);
    let _ = desk.run("eds-decrypt copy opened-here").exits(0);
    assert_eq!(desk.read("opened-here"), plaintext());

    let removed = desk.run(&format!("eds-rm {url}")).exits(0);
    assert!(removed.stdout.contains("and key /round/trip"), "{removed:?}");
    assert_eq!(door.file("/round/trip"), None);
    assert_eq!(verdict(&desk, "/round/trip"), "removed");
    let _ = desk.run(&format!("eds-get {url} again")).exits(74).says("is not there");
    assert_eq!(desk.names(), ["copy", "opened", "opened-here", "plain"]);
}

#[test]
fn standard_input_and_empty_files_go_too() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/from/stdin");
    let _ = desk.feed(&format!("eds-put - {url}"), &plaintext()).exits(0);
    let _ = desk.run(&format!("eds-get {url} opened")).exits(0);
    assert_eq!(desk.read("opened"), plaintext());
    desk.write("empty", b"");
    let url = door.url("/from/empty");
    let _ = desk.run(&format!("eds-put empty {url}")).exits(0);
    let _ = desk.run(&format!("eds-get {url} nothing")).exits(0);
    assert_eq!(desk.read("nothing"), b"");
}

#[test]
fn a_key_may_have_a_name_of_its_own_or_be_there_already() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let put = |options: &str, path: &str| desk.run(&format!("eds-put {options} plain {}", door.url(path)));
    let _ = put("--key-id /names/own", "/names/1").exits(0);
    // a key is made for one file, unless told otherwise
    let again = put("--key-id /names/own", "/names/2").exits(73);
    let _ = again.says("is registered already");
    assert_eq!(door.file("/names/2"), None);
    let _ = put("--key-id /names/own --existing-key", "/names/2").exits(0);
    let _ = put("--key-id /names/none --existing-key", "/names/3").exits(77);
    // one of two files under a key goes, the key stays
    let _ = desk
        .run(&format!("eds-rm --keep-key {}", door.url("/names/1")))
        .exits(0);
    let _ = desk.run(&format!("eds-get {} opened", door.url("/names/2"))).exits(0);
    assert_eq!(verdict(&desk, "/names/own"), "registered");
    // a failed put under a key that was there leaves it there
    door.behave(Way::CutUploadAfter(100_000));
    let _ = put("--key-id /names/own --existing-key", "/names/4").exits(74);
    assert_eq!(verdict(&desk, "/names/own"), "registered");
    assert_eq!(door.file("/names/4"), None);
}

#[test]
fn a_server_that_sends_on_gets_no_byte_of_the_file() {
    let (desk, front, back) = (desk(), door(), door());
    let _whole = GRID.whole();
    front.behave(Way::SendOn(back.url("")));
    let url = front.url("/sent/on");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    assert_eq!(front.taken(), 0);
    assert!(back.file("/sent/on").is_some());
    let _ = desk.run(&format!("eds-get {url} opened")).exits(0);
    assert_eq!(desk.read("opened"), plaintext());
    let _ = desk.run(&format!("eds-rm {url}")).exits(0);
    assert_eq!(back.file("/sent/on"), None);
    // round in circles, and out of encryption
    front.behave(Way::SendOn(front.url("")));
    let _ = desk.run(&format!("eds-put plain {url}2")).exits(74).says("in circles");
    front.behave(Way::SendOn("http://localhost:1".into()));
    let _ = desk.run(&format!("eds-put plain {url}2")).exits(74).says("not https:");
    assert_no_key(&desk, "/sent/on2");
}

#[test]
fn what_is_not_stored_leaves_neither_key_nor_part() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    for (number, way, code, says) in [
        (1, Way::Refuse, 77, "is refused to you"),
        (2, Way::Full, 74, "there is no room"),
        (3, Way::CutUploadAfter(200_000), 74, "broke off"),
        (4, Way::HangAfter(200_000), 74, "nothing moved for 1 s"),
        (5, Way::OtherChecksum, 65, "Adler-32"),
    ] {
        let path = format!("/undone/{number}");
        door.behave(way);
        let line = format!("eds-put --idle-timeout 1 plain {}", door.url(&path));
        let ended = desk.run(&line).exits(code).says(says);
        assert!(!ended.stderr.contains("may be left"), "{ended:?}");
        assert_eq!(door.file(&path), None, "{number}");
        assert_no_key(&desk, &path);
    }
    // an input that is not there is told before a key is made
    let _ = desk.run(&format!("eds-put none {}", door.url("/undone/6"))).exits(74);
    assert_eq!(verdict(&desk, "/undone/6"), "unknown");
}

#[test]
fn what_cannot_be_undone_is_named() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/left/1");
    door.behave(Way::HangAfter(100_000));
    let mut child = desk.start("eds-put", &["--idle-timeout", "2", "plain", &url]);
    wait_for("the transfer to begin", || {
        door.taken() > 0 && door.file("/left/1").is_some()
    });
    door.behave(Way::RefuseRemoval);
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(74), "{said}");
    assert!(
        said.contains("a part of the file may be left at") && said.contains("eds-rm --keep-key"),
        "{said}"
    );
    assert!(door.file("/left/1").is_some());
    assert_no_key(&desk, "/left/1");
}

#[test]
fn a_file_that_is_there_is_left_alone_unless_forced() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/there/1");
    door.set_file("/there/1", "somebody else's");
    let _ = desk
        .run(&format!("eds-put plain {url}"))
        .exits(73)
        .says("exists already");
    assert_eq!(door.file("/there/1").unwrap(), b"somebody else's");
    assert_eq!(verdict(&desk, "/there/1"), "unknown");
    let _ = desk.run(&format!("eds-put --force plain {url}")).exits(0);
    let _ = desk.run(&format!("eds-get {url} opened")).exits(0);
    assert_eq!(desk.read("opened"), plaintext());
}

#[test]
fn a_signal_undoes_what_was_begun() {
    use rustix::process::Signal;
    let desk = desk();
    let _whole = GRID.whole();
    for (path, signal, number) in [("/signal/1", Signal::TERM, 15), ("/signal/2", Signal::INT, 2)] {
        // what is taken is counted anew
        let door = door();
        let url = door.url(path);
        let mut command = desk.command("eds-put");
        command.args(["-", &url]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&plaintext()).unwrap();
        wait_for("the transfer to begin", || door.taken() > 0);
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        // a shell says 128 and the number
        assert_eq!(ended.status.signal(), Some(number), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("was stopped"));
        assert_eq!(door.file(path), None);
        assert_no_key(&desk, path);
    }
}

#[test]
fn what_comes_back_damaged_or_in_part_is_never_an_output() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/damage/1");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    let good = door.file("/damage/1").unwrap();
    let get = || desk.run(&format!("eds-get --idle-timeout 1 {url} opened"));
    for (way, says) in [
        (Way::CutDownloadAfter(300_000), "broke off"),
        (Way::CutDownloadAfter(100), "broke off"),
        (Way::HangDownloadAfter(300_000), "nothing moved for 1 s"),
        (Way::Refuse, "You may not"),
    ] {
        door.behave(way.clone());
        let code = if way == Way::Refuse { 77 } else { 74 };
        let _ = get().exits(code).says(says);
    }
    door.behave(Way::Honest);
    let mut altered = good.clone();
    altered[300_000] ^= 1;
    let cut = good[..512 + 2 * 65_536].to_vec();
    let longer = [good.as_slice(), b"x"].concat();
    let beginning = format!("{url}` is damaged");
    for (bytes, says) in [
        (altered.clone(), beginning.as_str()),
        (cut, &beginning),
        (longer, &beginning),
        (good[..100].to_vec(), "has no header that can be read"),
        (b"a page for people".to_vec(), "has no header that can be read"),
        (Vec::new(), "has no header that can be read"),
    ] {
        door.set_file("/damage/1", bytes);
        let _ = get().exits(65).says(says);
    }
    // what went to standard output before the damage was verified, and is counted
    door.set_file("/damage/1", altered);
    let partial = desk.run(&format!("eds-get -q {url} -")).exits(65);
    assert!(partial.stderr.contains("got only the first 262"), "{}", partial.stderr);
    assert_eq!(partial.stdout.as_bytes(), &plaintext()[..partial.stdout.len()]);
    assert_eq!(desk.names(), ["plain"]);
}

#[test]
fn a_range_is_got_alone() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/range/1");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    let ranges = |says: &str| {
        for (range, expected) in [
            ("0-0", 0..1),
            ("65479-65481", 65_479..65_482),
            ("400000-", 400_000..500_000),
            ("499999-999999", 499_999..500_000),
            ("500000-", 500_000..500_000),
            ("100-300099", 100..300_100),
        ] {
            let ended = desk.run(&format!("eds-get -q --range {range} {url} -")).exits(0);
            assert_eq!(ended.stdout.as_bytes(), &plaintext()[expected], "{range}, {says}");
        }
    };
    ranges("by ranges");
    let before = door.requests().len();
    let _ = desk.run(&format!("eds-get --range 10-19 {url} piece")).exits(0);
    assert_eq!(desk.read("piece"), &plaintext()[10..20]);
    // one look, one for the header, which serves the first segments too
    assert_eq!(door.requests()[before..], ["HEAD /range/1", "GET /range/1"]);
    door.behave(Way::WholeFile);
    ranges("by a server without ranges");
    door.behave(Way::Honest);
    let mut altered = door.file("/range/1").unwrap();
    altered[100_000] ^= 1;
    door.set_file("/range/1", altered);
    let _ = desk
        .run(&format!("eds-get --range 65500-65600 {url} bad"))
        .exits(65)
        .says("segment 1");
    let _ = desk.run(&format!("eds-get --range 0-9 {url} good")).exits(0);
    assert_eq!(desk.names(), ["good", "piece", "plain"]);
    let _ = desk.run(&format!("eds-get --range 9-0 {url} none")).exits(2);
}

/// Runs a command whose standard output nobody reads.
fn unread(desk: &Desk, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = desk.start("eds-get", arguments);
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/seen/1");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    let nothing_wrong = (Some(0), String::new());
    assert_eq!(unread(&desk, &["-q", &url, "-"]), nothing_wrong);
    assert_eq!(unread(&desk, &["-q", "--range", "0-400000", &url, "-"]), nothing_wrong);
}

/// A temporary file with a part of the plaintext was left.
#[test]
fn a_range_that_a_signal_ends_leaves_no_output() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/range/signal");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    door.behave(Way::HangDownloadAfter(200_000));
    let mut child = desk.start("eds-get", &["--range", "0-400000", &url, "piece"]);
    wait_for("the output to begin", || desk.names().len() > 1);
    assert!(child.try_wait().unwrap().is_none());
    terminate(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(15), "{ended:?}");
    assert_eq!(desk.names(), ["plain"]);
}

#[test]
fn a_range_replaces_what_a_link_leads_to_and_leaves_the_link() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/range/link");
    let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
    desk.write("real", "old");
    std::os::unix::fs::symlink("real", desk.path("link")).unwrap();
    let _ = desk.run(&format!("eds-get --force --range 0-9 {url} link")).exits(0);
    assert_eq!(desk.read("real"), &plaintext()[..10]);
    assert!(desk.path("link").is_symlink());
}

fn terminate(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// Puts shell scripts in the place of programs that speak to storage elements.
fn with_programs(desk: &mut Desk, scripts: &[(&str, &str)]) {
    use std::os::unix::fs::PermissionsExt;
    for (name, script) in scripts {
        let path = desk.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", desk.path("bin").display());
    desk.set("PATH", &path);
}

/// The key was taken back, and the file was neither taken away nor spoken of.
#[test]
fn a_file_that_was_sent_and_cannot_be_looked_at_is_taken_away_or_named() {
    const NOT_THERE: &str = "{ echo '[3011] no such file' >&2; exit 54; }";
    const LOST: &str = "{ echo '[FATAL] Connection error' >&2; exit 51; }";
    let mut desk = desk();
    let _whole = GRID.whole();
    for (number, copy, look, remove, left) in [
        // the server dies behind the last byte, or in the middle
        (1, "cat >there", LOST, "rm there", false),
        (
            2,
            &*format!("head -c 100000 >there; {LOST}"),
            "echo 'Size: 1'",
            "rm there",
            false,
        ),
        (3, "cat >there", LOST, LOST, true),
    ] {
        let looks = format!("test -e there || {NOT_THERE}; {look}");
        let xrdfs = format!("case $2 in stat) {looks};; rm) {remove};; esac");
        with_programs(&mut desk, &[("xrdcp", copy), ("xrdfs", &xrdfs)]);
        let key_id = format!("/sent/unseen/{number}");
        let ended = desk.run(&format!("eds-put --key-id {key_id} plain root://se.example.org//x"));
        assert_eq!(ended.code, Some(74), "{ended:?}");
        assert_eq!(ended.stderr.contains("may be left"), left, "{ended:?}");
        assert_eq!(desk.path("there").exists(), left, "{ended:?}");
        assert_no_key(&desk, &key_id);
    }
}

#[test]
fn what_is_stored_and_cannot_be_compared_is_said() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    door.behave(Way::RefuseLook);
    let put = desk
        .run(&format!("eds-put --json plain {}", door.url("/unseen/1")))
        .exits(0);
    assert_eq!(put.json()["checksum_compared"], false);
    let _ = put.says("cannot compare what was stored");
}

/// They are in a group of their own, which no signal of a terminal reaches, and wait for days.
#[test]
fn a_signal_ends_the_programs_that_were_started_too() {
    let mut desk = desk();
    let _whole = GRID.whole();
    with_programs(
        &mut desk,
        &[("gfal-cat", "echo $$ >pid.part; mv pid.part pid; exec sleep 1000")],
    );
    let child = desk.start("eds-get", &["gsiftp://se.example.org/x", "opened"]);
    wait_for("the program to start", || desk.path("pid").exists());
    let number = String::from_utf8(desk.read("pid")).unwrap();
    terminate(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(15), "{ended:?}");
    wait_for("the program to end", || {
        // one that nobody waits for stays as a zombie where there is no init
        let state = fs::read_to_string(format!("/proc/{}/stat", number.trim()));
        state.map_or(true, |state| state.contains(") Z "))
    });
}

#[test]
fn a_removal_that_cannot_be_whole_does_not_take_the_key_first() {
    let (desk, bob, door) = (desk(), GRID.desk("bob"), door());
    let url = door.url("/rm/1");
    {
        let _whole = GRID.whole();
        let _ = desk.run(&format!("eds-put plain {url}")).exits(0);
        // the storage element keeps it: the key stays, and the file can be read
        door.behave(Way::RefuseRemoval);
        let _ = desk.run(&format!("eds-rm {url}")).exits(77).says("It stays.");
        assert_eq!(verdict(&desk, "/rm/1"), "registered");
        door.behave(Way::Honest);
        let _ = desk.run(&format!("eds-get {url} opened")).exits(0);
        // bob may remove files there, and knows nothing of the key
        let _ = bob.run(&format!("eds-rm {url}")).exits(77).says("nothing was removed");
        assert!(door.file("/rm/1").is_some());
    }
    {
        let mut grid = GRID.alone();
        grid.kill(1);
        grid.kill(2);
        let _ = desk.run(&format!("eds-rm {url}")).exits(75).says("nothing was removed");
        assert!(door.file("/rm/1").is_some());
        grid.start_again();
        // with one store down the file goes, and what is left of the key is named
        grid.kill(3);
        let _ = desk
            .run(&format!("eds-rm {url}"))
            .exits(75)
            .says("is removed, but its key `/rm/1` is not");
        assert_eq!(door.file("/rm/1"), None);
        grid.start_again();
    }
    let _whole = GRID.whole();
    let _ = desk.run("eds-key-unregister /rm/1").exits(0);
    // a file whose key is gone can still be taken away
    door.set_file("/rm/2", door_file_without_key(&desk, &door));
    let _ = desk
        .run(&format!("eds-rm {}", door.url("/rm/2")))
        .exits(0)
        .prints("had been removed before");
    door.set_file("/rm/3", "no sealed file");
    let _ = desk
        .run(&format!("eds-rm {}", door.url("/rm/3")))
        .exits(65)
        .says("eds-rm --keep-key");
    let _ = desk.run(&format!("eds-rm --keep-key {}", door.url("/rm/3"))).exits(0);
    assert_eq!(door.file("/rm/3"), None);
}

fn door_file_without_key(desk: &Desk, door: &Door) -> Vec<u8> {
    let _ = desk.run(&format!("eds-put plain {}", door.url("/rm/gone"))).exits(0);
    let _ = desk.run("eds-key-unregister /rm/gone").exits(0);
    door.file("/rm/gone").unwrap()
}

#[test]
fn what_cannot_be_reached_or_run_says_what_is_missing() {
    let (mut desk, other) = (desk(), door());
    let _whole = GRID.whole();
    let line = "eds-put plain https://localhost:1/gone/1";
    let _ = desk.run(line).exits(74).says("cannot be reached");
    assert_eq!(verdict(&desk, "/gone/1"), "unknown");
    for (wrong, says) in [
        ("ftp://h/x", "`ftp:` is not one of"),
        ("http://h/x", "use https: or davs:"),
        ("lfn:/myvo/x", "needs a catalogue"),
        ("https://me:pw@h/x", "https://…@h/x"),
        ("/myvo/x", "does not begin with"),
    ] {
        let ended = desk.run(&format!("eds-put plain {wrong}")).exits(2).says(says);
        assert!(!ended.stderr.contains("me:pw"));
    }
    desk.set("PATH", "/nowhere");
    let _ = desk
        .run("eds-get root://localhost:1//x opened")
        .exits(78)
        .says("apt-get install xrootd-client");
    let _ = desk
        .run("eds-get gsiftp://localhost/x opened")
        .exits(78)
        .says("apt-get install gfal2-util-scripts");
    let token = desk.run("eds-get root://localhost:1//x?authz=secret opened").exits(2);
    assert!(
        token.stderr.contains("may be a token") && !token.stderr.contains("secret"),
        "{token:?}"
    );
    // a server that is not who it says
    let url = other.url("/x").replace("localhost", "127.0.0.2");
    let _ = desk
        .run(&format!("eds-get {url} opened"))
        .exits(74)
        .says("cannot be reached");
    assert_eq!(desk.names(), ["plain"]);
}

#[test]
fn files_of_this_machine_have_urls_too() {
    let desk = desk();
    let _whole = GRID.whole();
    let url = format!("file://{}", desk.path("there").display());
    let _ = desk.run(&format!("eds-put --key-id /local/1 plain {url}")).exits(0);
    let _ = desk.run(&format!("eds-put --key-id /local/2 plain {url}")).exits(73);
    let _ = desk.run(&format!("eds-get {url} opened")).exits(0);
    assert_eq!(desk.read("opened"), plaintext());
    let piece = desk.run(&format!("eds-get -q --range 7-99 {url} -")).exits(0);
    assert_eq!(piece.stdout.as_bytes(), &plaintext()[7..100]);
    let _ = desk.run(&format!("eds-rm {url}")).exits(0);
    assert_eq!(desk.names(), ["opened", "plain"]);
}

#[test]
fn the_originals_names_take_urls_where_logical_names_stood() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/glite/put/1");
    let put = desk
        .run(&format!("glite-eds-put -i lfn:/glite/put/id plain {url}"))
        .exits(0);
    let expected = format!(
        "\nTransfer Completed:\n\n  LFN  : {url}\n  ID   : /glite/put/id\n  File : plain\n\n  \
         Bytes read    : 500000\n  Bytes written : {}\n",
        door.file("/glite/put/1").unwrap().len()
    );
    assert_eq!((put.stdout.as_str(), put.stderr.as_str()), (expected.as_str(), ""));
    desk.write("opened", "an old file");
    let _ = desk
        .run(&format!("glite-eds-get {url} opened"))
        .exits(0)
        .prints("Transfer Completed:");
    assert_eq!(desk.read("opened"), plaintext());
    let _ = desk
        .run(&format!("glite-eds-rm {url}"))
        .exits(0)
        .prints("Unlink Completed:");
    assert_eq!(door.file("/glite/put/1"), None);
    for (line, says) in [
        ("glite-eds-put plain lfn:/grid/myvo/x".to_owned(), "needs a catalogue"),
        ("glite-eds-put plain /grid/myvo/x".to_owned(), "https:, davs:, root:"),
        ("glite-eds-get guid:0f3c opened".to_owned(), "needs a catalogue"),
        (
            "glite-eds-rm lfn:/grid/myvo/x".to_owned(),
            "Error during glite_eds_unregister",
        ),
        (
            format!("glite-eds-put -c idea-cbc plain {url}"),
            "cipher `idea-cbc` is unknown",
        ),
        (
            format!("glite-eds-put -c bf-cbc -k 8 plain {url}"),
            "whole bytes, not 8",
        ),
        (format!("glite-eds-put -k 128 plain {url}"), "256 bits where no cipher"),
        (format!("glite-eds-get {url} none"), "is not there"),
        ("glite-eds-put plain".to_owned(), "Usage: glite-eds-put"),
    ] {
        let ended = desk.run(&line).exits(255).says(says);
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(desk.names(), ["opened", "plain"]);
}

const NO_INTEGRITY: &str = "files of the original have no integrity";

/// D-20: with `-c` and without `-i` the original's put failed.
#[test]
fn d20_files_of_the_originals_ciphers_are_put_got_and_removed_also_without_a_key_id() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    for (cipher, options) in [("bf-cbc", "-c bf-cbc -k 192"), ("aes-256-cbc", "-c aes-256-cbc")] {
        let path = format!("/d20/{cipher}");
        let url = door.url(&path);
        let put = desk.run(&format!("glite-eds-put {options} plain {url}")).exits(0);
        let stored = door.file(&path).unwrap();
        let block = if cipher == "bf-cbc" { 8 } else { 16 };
        assert_eq!(stored.len(), 500_000 / block * block + block);
        assert!(!has_plaintext(&stored));
        let put = put.prints(&format!("  ID   : {path}\n")).says(NO_INTEGRITY);
        assert_eq!(put.stderr.matches(NO_INTEGRITY).count(), 1, "{}", put.stderr);
        // what lies there is what the original's encrypt makes, and its decrypt takes
        desk.write("copy", &stored);
        let _ = desk.run(&format!("glite-eds-encrypt -q {path} plain here")).exits(0);
        assert_eq!(desk.read("here"), stored);
        let _ = desk.run(&format!("glite-eds-decrypt -q {path} copy opened")).exits(0);
        assert_eq!(desk.read("opened"), plaintext());
        desk.write("opened", "an old file");
        let got = desk.run(&format!("glite-eds-get {url} opened")).exits(0);
        let _ = got.prints(&format!("  ID   : {path}\n")).says(NO_INTEGRITY);
        assert_eq!(desk.read("opened"), plaintext());
        let got = desk.run(&format!("eds-get --force {url} opened")).exits(0);
        let _ = got.prints(&format!("{path}\n")).says(NO_INTEGRITY);
        assert_eq!(desk.read("opened"), plaintext());
        let shown = desk.run(&format!("eds-get -q {url} -")).exits(0);
        assert_eq!(shown.stdout.as_bytes(), plaintext());
        let removed = desk.run(&format!("glite-eds-rm {url}")).exits(0);
        let _ = removed.prints(&format!("  ID   : {path}\n"));
        assert_eq!(door.file(&path), None);
        assert_eq!(verdict(&desk, &path), "removed");
    }
}

#[test]
fn keys_of_the_originals_ciphers_serve_puts_under_their_own_name() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let _ = desk.run("glite-eds-key-register -q -c des-ede3-cbc /old/key").exits(0);
    let url = door.url("/old/1");
    let put = desk
        .run(&format!("eds-put --key-id /old/key --existing-key plain {url}"))
        .exits(0);
    let _ = put.says(NO_INTEGRITY);
    // the file does not name its key, and none is called like it
    let _ = desk
        .run(&format!("eds-get {url} opened"))
        .exits(65)
        .says("not a sealed file");
    let _ = desk.run(&format!("eds-rm {url}")).exits(65).says("eds-rm --keep-key");
    let got = desk
        .run(&format!("eds-get --json -i /old/key {url} opened"))
        .exits(0)
        .json();
    assert_eq!(
        (&got["key_id"], &got["plaintext_bytes"]),
        (&"/old/key".into(), &500_000.into())
    );
    assert_eq!(desk.read("opened"), plaintext());
    // a key of our suite opens nothing without its mark, whatever the user says, nor the other way round
    let _ = desk.run("eds-key-register /old/new").exits(0);
    let _ = desk
        .run(&format!("eds-get -i /old/new {url} forged"))
        .exits(65)
        .says("not a sealed file");
    let _ = desk.run(&format!("eds-rm -i /old/new {url}")).exits(65);
    let sealed = door.url("/old/2");
    let _ = desk.run(&format!("eds-put --key-id /old/two plain {sealed}")).exits(0);
    let _ = desk.run(&format!("eds-get -i /old/key {sealed} forged")).exits(65);
    assert!(!desk.path("forged").exists());
    let _ = desk.run(&format!("eds-rm -i /old/key {url}")).exits(0);
    assert_eq!(door.file("/old/1"), None);
    assert_eq!(verdict(&desk, "/old/key"), "removed");
}

#[test]
fn a_file_of_the_original_that_comes_in_part_is_never_an_output() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/old/cut");
    // wherever it is cut at a block, what is there ends like a whole file: nothing in it says that more is missing
    desk.write("tricky", vec![1; 600_000]);
    let _ = desk
        .run(&format!("glite-eds-put -q -c aes-128-cbc tricky {url}"))
        .exits(0);
    for way in [Way::CutDownloadAfter(320_000), Way::HangDownloadAfter(320_000)] {
        door.behave(way);
        for to in ["opened", "-"] {
            let got = desk.run(&format!("eds-get -q --idle-timeout 1 {url} {to}")).exits(74);
            assert_eq!(got.stdout, "");
        }
    }
    door.behave(Way::Honest);
    let stored = door.file("/old/cut").unwrap();
    door.set_file("/old/cut", stored[..stored.len() - 1].to_vec());
    let _ = desk.run(&format!("eds-get {url} opened")).exits(65).says("is damaged");
    assert_eq!(desk.names(), ["plain", "tricky"]);
}

#[test]
fn an_upload_under_a_cipher_of_the_original_that_fails_leaves_neither_key_nor_part() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    for (number, options) in [(1, "-c bf-cbc"), (2, "-u")] {
        let path = format!("/old/undone/{number}");
        door.behave(Way::CutUploadAfter(100_000));
        let url = door.url(&path);
        let _ = desk.run(&format!("glite-eds-put {options} plain {url}")).exits(255);
        assert_eq!(door.file(&path), None);
        assert_no_key(&desk, &path);
        door.behave(Way::Honest);
    }
}

/// What the original was asked for with `-u`: a key, and the file as it is.
#[test]
fn a_file_that_is_not_to_be_encrypted_has_a_key_all_the_same_and_is_warned_about() {
    let (desk, door) = (desk(), door());
    let _whole = GRID.whole();
    let url = door.url("/plain/1");
    let put = desk.run(&format!("glite-eds-put -q -u plain {url}")).exits(0);
    let _ = put.says("is not encrypted");
    assert_eq!(door.file("/plain/1").unwrap(), plaintext());
    assert_eq!(verdict(&desk, "/plain/1"), "registered");
    // it is no sealed file, and nobody is told that it was one
    let _ = desk
        .run(&format!("glite-eds-get {url} opened"))
        .exits(255)
        .says("not a sealed file");
    let _ = desk.run(&format!("eds-get {url} opened")).exits(65);
    assert!(!desk.path("opened").exists());
    let _ = desk.run(&format!("eds-rm {url}")).exits(65);
    let _ = desk.run(&format!("glite-eds-rm {url}")).exits(0);
    assert_eq!(door.file("/plain/1"), None);
    assert_eq!(verdict(&desk, "/plain/1"), "removed");
}

/// What every real storage element must do with a file at `url`.
fn round_trip(desk: &Desk, url: &str, key_id: &str) {
    let put = desk
        .run(&format!("eds-put --json --key-id {key_id} plain {url}"))
        .exits(0)
        .json();
    assert_eq!(put["checksum_compared"], true, "{url}");
    let _ = desk
        .run(&format!("eds-put --key-id {key_id}-2 plain {url}"))
        .exits(73)
        .says("exists already");
    assert_eq!(verdict(desk, &format!("{key_id}-2")), "unknown");
    let _ = desk.run(&format!("eds-get --force {url} opened")).exits(0);
    assert_eq!(desk.read("opened"), plaintext());
    let piece = desk.run(&format!("eds-get -q --range 100000-100099 {url} -")).exits(0);
    assert_eq!(piece.stdout.as_bytes(), &plaintext()[100_000..100_100]);
    let _ = desk.run(&format!("eds-rm {url}")).exits(0);
    assert_eq!(verdict(desk, key_id), "removed");
    let _ = desk
        .run(&format!("eds-get --force {url} opened"))
        .exits(74)
        .says("is not there");
}

/// A put that fails must leave no key; answers how it ended.
fn failed_put(desk: &Desk, url: &str, key_id: &str, code: i32) -> Ended {
    let ended = desk
        .run(&format!("eds-put --idle-timeout 30 --key-id {key_id} plain {url}"))
        .exits(code);
    assert_no_key(desk, key_id);
    ended
}

#[test]
fn peer_xrootd_stores_and_gives_files_through_both_doors() {
    let (desk, xrootd) = (SITE.alice(), Xrootd::start(&SITE.fabric));
    round_trip(&desk, &xrootd.https("/myvo/https"), "/xrootd/https");
    round_trip(&desk, &xrootd.root("/myvo/root"), "/xrootd/root");
    for url in [xrootd.https("/refused/x"), xrootd.root("/refused/x")] {
        let _ = failed_put(&desk, &url, "/xrootd/refused", 77).says("permission denied");
    }
    // a stranger at the storage element
    let bob = SITE.desk(&SITE.fabric.bob);
    let _ = failed_put(&bob, &xrootd.https("/myvo/bob"), "/xrootd/bob", 77);
    // in by one door, out by the other, and altered in between
    let (https, root) = (xrootd.https("/myvo/x"), xrootd.root("/myvo/x"));
    let _ = desk.run(&format!("eds-put --key-id /xrootd/x plain {root}")).exits(0);
    let _ = desk.run(&format!("eds-get {https} by-the-other")).exits(0);
    assert_eq!(desk.read("by-the-other"), plaintext());
    let on_disk = xrootd.on_disk("/myvo/x");
    let mut bytes = fs::read(&on_disk).unwrap();
    assert!(!has_plaintext(&bytes));
    bytes[200_000] ^= 1;
    fs::write(&on_disk, &bytes).unwrap();
    for url in [&https, &root] {
        let _ = desk.run(&format!("eds-get {url} altered")).exits(65).says("is damaged");
    }
    fs::write(&on_disk, &bytes[..300_000]).unwrap();
    for url in [&https, &root] {
        let _ = desk.run(&format!("eds-get {url} altered")).exits(65);
    }
    assert!(!desk.path("altered").exists());
}

#[test]
fn peer_xrootd_that_hangs_or_dies_is_told_and_undone() {
    let (desk, mut xrootd) = (SITE.alice(), Xrootd::start(&SITE.fabric));
    for (number, url) in [(1, xrootd.https("/myvo/hang")), (2, xrootd.root("/myvo/hang"))] {
        let key_id = format!("/xrootd/hang-{number}");
        let (child, _stdin) = begun(&desk, &url, &key_id, &xrootd.on_disk("/myvo/hang"));
        xrootd.hang();
        drop(_stdin);
        let said = child.wait_with_output().unwrap();
        xrootd.go_on();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(74), "{text}");
        assert!(
            text.contains("nothing moved for 3 s") && text.contains("may be left at"),
            "{text}"
        );
        assert_no_key(&desk, &key_id);
        let _ = desk.run(&format!("eds-rm --keep-key {url}")).exits(0);
    }
    let url = xrootd.https("/myvo/killed");
    let (child, mut stdin) = begun(&desk, &url, "/xrootd/killed", &xrootd.on_disk("/myvo/killed"));
    xrootd.kill();
    // it may be gone before it took all
    let _ = stdin.write_all(&plaintext());
    drop(stdin);
    let said = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(74), "{text}");
    assert!(text.contains("may be left at"), "{text}");
    assert_no_key(&desk, "/xrootd/killed");
    let _ = failed_put(&desk, &xrootd.root("/myvo/down"), "/xrootd/down", 74).says("cannot be reached");
}

/// A put whose file has begun to lie at the storage element, and waits for more.
fn begun(
    desk: &Desk,
    url: &str,
    key_id: &str,
    on_disk: &std::path::Path,
) -> (std::process::Child, std::process::ChildStdin) {
    let mut command = desk.command("eds-put");
    command.args(["--idle-timeout", "3", "--key-id", key_id, "-", url]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&plaintext()).unwrap();
    wait_for("the transfer to begin", || on_disk.exists());
    (child, stdin)
}

#[test]
fn peer_gridftp_stores_and_gives_files() {
    let (desk, mut server) = (SITE.alice(), GridFtp::start(&SITE.fabric));
    round_trip(&desk, &server.url("x"), "/gridftp/x");
    let forbidden = server
        .url("x")
        .replace(&server.on_disk("x").display().to_string(), "/root/x");
    let _ = failed_put(&desk, &forbidden, "/gridftp/refused", 77);
    let bob = SITE.desk(&SITE.fabric.bob);
    let _ = failed_put(&bob, &server.url("bob"), "/gridftp/bob", 77);
    let url = server.url("y");
    let _ = desk.run(&format!("eds-put --key-id /gridftp/y plain {url}")).exits(0);
    let mut bytes = fs::read(server.on_disk("y")).unwrap();
    assert!(!has_plaintext(&bytes));
    bytes[200_000] ^= 1;
    fs::write(server.on_disk("y"), bytes).unwrap();
    let _ = desk.run(&format!("eds-get {url} altered")).exits(65).says("is damaged");
    assert!(!desk.path("altered").exists());
    server.kill();
    let _ = failed_put(&desk, &server.url("z"), "/gridftp/down", 74).says("cannot be reached");
}
