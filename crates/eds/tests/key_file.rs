//! `eds-encrypt`, `eds-decrypt` and `eds-cat` with key files, as processes: everything that needs no store.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use common::{Place, names_in};

const SEAL: &str = "eds-encrypt --key-file key --new-key";

fn mode(place: &Place, name: &str) -> u32 {
    fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777
}

/// A folder with a key, a plaintext `in` and its sealed form `in.eds`.
fn sealed() -> Place {
    let place = Place::new();
    place.write("in", "pixels".repeat(30_000));
    place.run(&format!("{SEAL} in in.eds")).code(0).silently();
    place
}

#[test]
fn a_new_key_seals_and_opens_and_nothing_is_said() {
    let place = sealed();
    place.run("eds-decrypt --key-file key in.eds out").code(0).silently();
    assert_eq!(place.read("out"), place.read("in"));
    assert_eq!(place.read("key").len(), 32);
    assert_eq!(mode(&place, "key"), 0o600);
    assert_eq!(mode(&place, "out"), 0o600);
    assert_eq!(place.names(), ["in", "in.eds", "key", "out"]);
    let header = &place.read("in.eds")[..512];
    assert!(
        header[16..508].iter().all(|byte| *byte == 0),
        "no registration, no key id"
    );
}

#[test]
fn an_empty_file_seals_and_opens() {
    let place = Place::new();
    place.write("in", "");
    place.run(&format!("{SEAL} in sealed")).code(0);
    assert_eq!(place.read("sealed").len(), 568);
    place.run("eds-decrypt -k key sealed out").code(0);
    assert!(place.read("out").is_empty());
}

#[test]
fn dashes_are_streams() {
    let place = sealed();
    let through = place.feed("eds-encrypt -k key - -", b"stream").code(0);
    assert_eq!(through.stderr, "");
    let back = place.feed("eds-decrypt -k key - -", &through.stdout).code(0);
    assert_eq!(back.stdout, b"stream");
    let seen = place.run("eds-cat --key-file key in.eds").code(0);
    assert_eq!(seen.stdout, place.read("in"));
    assert_eq!(
        place.feed("eds-cat --key-file key -", &through.stdout).code(0).stdout,
        b"stream"
    );
}

#[test]
fn outputs_are_never_replaced_unasked() {
    let place = sealed();
    let old = place.read("in.eds");
    place
        .run("eds-encrypt -k key in in.eds")
        .code(73)
        .says("`in.eds` exists already")
        .says("--force");
    assert_eq!(place.read("in.eds"), old);
    place.run("eds-encrypt -k key --force in in.eds").code(0);
    assert_ne!(place.read("in.eds"), old);
    place
        .run("eds-decrypt -k key in.eds in")
        .code(73)
        .says("`in` exists already");
    place.run("eds-decrypt -k key -f in.eds in").code(0);
}

#[test]
fn a_new_key_never_replaces_one() {
    let place = sealed();
    let key = place.read("key");
    place
        .run(&format!("{SEAL} in other.eds"))
        .code(73)
        .says("never overwritten");
    assert_eq!(place.read("key"), key);
    assert!(!place.exists("other.eds"));
}

#[test]
fn a_failed_sealing_leaves_neither_output_nor_new_key() {
    let place = Place::new();
    place.write("in", "x");
    place
        .run(&format!("{SEAL} none out"))
        .code(74)
        .says("cannot open `none`")
        .says("No such file");
    place
        .run(&format!("{SEAL} in nowhere/out"))
        .code(73)
        .says("cannot make `nowhere/out`");
    assert_eq!(place.names(), ["in"]);
}

#[test]
fn the_same_file_as_input_and_output_is_refused() {
    let place = sealed();
    let before = place.read("in");
    symlink("in", place.path("link")).unwrap();
    fs::hard_link(place.path("in"), place.path("hard")).unwrap();
    for out in ["in", "./in", "link", "hard"] {
        place
            .run(&format!("eds-encrypt -f -k key in {out}"))
            .code(2)
            .says("is the input itself");
        assert_eq!(place.read("in"), before, "{out}");
    }
}

#[test]
fn damage_is_65_and_leaves_nothing() {
    let place = sealed();
    let good = place.read("in.eds");
    let refused = |bytes: &[u8], says: &str| {
        place.write("bad", bytes);
        place
            .run("eds-decrypt -k key bad out")
            .code(65)
            .says("`bad`")
            .says(says);
        assert!(!place.exists("out"));
        place.feed("eds-decrypt -k key - out", bytes).code(65);
        assert!(!place.exists("out"));
    };
    refused(&good[..good.len() - 1], "segment");
    refused(&good[..512], "damaged");
    refused(&good[..100], "header");
    refused(b"", "header");
    refused(b"plain text without any header", "header");
    let mut flipped = good.clone();
    flipped[100_000] ^= 1;
    refused(&flipped, "segment 1");
    let mut header = good.clone();
    header[20] ^= 1;
    refused(&header, "checksum");
    // what is left when the header is cut off looks like the original's raw format: never taken for it
    refused(&good[512..], "not a sealed file");
}

#[test]
fn a_wrong_key_is_65() {
    let place = sealed();
    place.write("other", [7; 32]);
    place
        .run("eds-decrypt -k other in.eds out")
        .code(65)
        .says("sealed under another key");
    assert!(!place.exists("out"));
}

#[test]
fn cat_hands_out_verified_bytes_alone_and_says_how_many() {
    let place = sealed();
    let mut bad = place.read("in.eds");
    bad[100_000] ^= 1;
    place.write("bad", &bad);
    let ran = place
        .run("eds-cat -k key bad")
        .code(65)
        .says("first 65480 bytes")
        .says("segment 1");
    assert_eq!(ran.stdout, place.read("in")[..65480]);
}

#[test]
fn a_key_file_must_be_one() {
    let place = sealed();
    place.write("short", [1; 31]);
    place.write("hex", "00".repeat(32));
    place.write("json", "{\"primaryKeyId\":1}");
    place.run("eds-decrypt -k short in.eds out").code(78).says("31 bytes");
    place.run("eds-decrypt -k hex in.eds out").code(78).says("64 bytes");
    place
        .run("eds-decrypt -k json in.eds out")
        .code(78)
        .says("no usable keyset");
    place
        .run("eds-decrypt -k none in.eds out")
        .code(74)
        .says("cannot read key file `none`");
    assert!(!place.exists("out"));
}

#[test]
fn a_key_file_that_others_can_read_is_worth_a_warning() {
    let place = sealed();
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    place
        .run("eds-decrypt -q -k key in.eds out")
        .code(0)
        .says("warning: key file `key` can be read by others");
}

#[test]
fn many_files_go_into_a_folder_and_back() {
    let place = Place::new();
    fs::create_dir(place.path("sealed")).unwrap();
    fs::create_dir(place.path("opened")).unwrap();
    let names: Vec<String> = (0..150).map(|number| format!("slice {number}.dcm")).collect();
    for (number, name) in names.iter().enumerate() {
        place.write(name, vec![0x5a; number * 600]);
    }
    let mut words = vec!["--key-file", "key", "--new-key", "--out-dir", "sealed"];
    words.extend(names.iter().map(String::as_str));
    place.run_words("eds-encrypt", &words).code(0).says("sealed 150 files");
    assert_eq!(names_in(&place.path("sealed")).len(), 150);
    let list: String = names.iter().map(|name| format!("sealed/{name}.eds\n")).collect();
    place
        .feed("eds-decrypt -q -k key --out-dir opened --files-from -", list.as_bytes())
        .code(0)
        .silently();
    for name in &names {
        assert_eq!(place.read(&format!("opened/{name}")), place.read(name), "{name}");
    }
    let nul: String = names.iter().map(|name| format!("sealed/{name}.eds\0")).collect();
    place.write("list", nul);
    place
        .run("eds-decrypt -f -k key --out-dir opened --files-from list --null")
        .code(0);
}

#[test]
fn one_bad_file_of_many_does_not_stop_the_others() {
    let place = sealed();
    fs::create_dir(place.path("d")).unwrap();
    let sealed = place.read("in.eds");
    place.write("a.eds", &sealed);
    place.write("b.eds", &sealed[..sealed.len() - 5]);
    place.write("d/in", "old");
    let ran = place
        .run("eds-decrypt --json -k key --out-dir d a.eds b.eds none.eds in.eds")
        .code(65);
    assert!(
        ran.stderr.contains("`b.eds` is damaged") && ran.stderr.contains("`none.eds`"),
        "{}",
        ran.stderr
    );
    let ran = ran.says("`d/in` exists already").says("3 of 4 files were not opened");
    assert_eq!(names_in(&place.path("d")), ["a", "in"]);
    assert_eq!(place.read("d/in"), b"old");
    let told: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
    let codes: Vec<_> = told["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["code"].clone())
        .collect();
    assert_eq!(serde_json::json!(codes), serde_json::json!([null, 65, 74, 73]));
}

#[test]
fn an_output_folder_must_be_there() {
    let place = sealed();
    place
        .run("eds-encrypt -k key --out-dir d in")
        .code(73)
        .says("`d` is no folder")
        .says("mkdir d");
    assert!(!place.exists("d"));
}

#[test]
fn what_is_no_regular_file_is_written_directly() {
    let place = sealed();
    place.run("eds-decrypt -k key in.eds /dev/null").code(0);
    place.run("eds-encrypt -k key /dev/null empty.eds").code(0);
    place.run("eds-cat -k key empty.eds").code(0).silently();
}

#[test]
fn a_full_disk_is_74_and_leaves_nothing() {
    let place = sealed();
    place.run("eds-decrypt -k key in.eds /dev/full").code(74);
    let mut command = place.command("eds-cat");
    command
        .args(["-k", "key", "in.eds"])
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(command.output().unwrap().status.code(), Some(74));
}

#[test]
fn results_as_json() {
    let place = sealed();
    let told = place.run("eds-encrypt --json -k key in two.eds").code(0);
    let told: serde_json::Value = serde_json::from_str(&told.out()).unwrap();
    assert_eq!(
        told,
        serde_json::json!({
            "key_id": null,
            "registration_id": "0".repeat(32),
            "files": [{ "input": "in", "output": "two.eds", "plaintext_bytes": 180_000, "file_bytes": place.read("two.eds").len() }],
        })
    );
    place.run("eds-encrypt --json -k key in -").code(2).says("--json");
}

#[test]
fn wrong_usage_is_2() {
    let place = sealed();
    for line in [
        "eds-encrypt",
        "eds-encrypt /k in",
        "eds-encrypt -k key in",
        "eds-encrypt -k key a b c",
        "eds-encrypt --new-key in out",
        "eds-encrypt --colour in out",
        "eds-decrypt in.eds",
        "eds-decrypt -k key --key-id /k in.eds out",
        "eds-decrypt -k key --files-from list",
        "eds-cat",
        "eds-cat -k key a b",
        "eds-key-register",
        "eds-key-export /k",
        "eds-key-export /k --raw a --tink-keyset b",
        "eds-key-register --threshold 0 /k",
        "eds-key-unregister --registration 12 /k",
        "eds-check now",
    ] {
        let ran = place.run(line).code(2);
        assert!(
            ran.stdout.is_empty() && ran.stderr.starts_with("error: "),
            "{line}: {}",
            ran.stderr
        );
    }
    assert_eq!(place.names(), ["in", "in.eds", "key"]);
}

#[test]
fn a_file_sealed_under_a_key_file_says_so() {
    let place = sealed();
    place
        .run("eds-decrypt in.eds out")
        .code(2)
        .says("sealed under a key file")
        .says("--key-file FILE");
    assert!(!place.exists("out"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    place.write("in", vec![0; 4_000_000]);
    place.run(&format!("{SEAL} in in.eds")).code(0);
    let mut command = place.command("eds-cat");
    let mut child = command
        .args(["-k", "key", "in.eds"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut first).unwrap();
    drop(pipe);
    let done = child.wait_with_output().unwrap();
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{:?}", done.status);
}

#[test]
fn every_command_has_help_with_examples_and_exit_codes_and_a_version() {
    let place = Place::new();
    for name in eds::NAMES {
        let help = place.run(&format!("{name} --help")).code(0).out();
        assert!(
            help.contains("Exit codes:") && help.contains(&format!("    $ {name}")),
            "{help}"
        );
        let version = place.run(&format!("{name} --version")).code(0).out();
        assert_eq!(version, format!("{name} {}\n", hydra_core::VERSION));
        let page = place.run(&format!("{name} --generate man")).code(0).out();
        assert!(page.contains("EXIT STATUS"), "{page}");
    }
}
