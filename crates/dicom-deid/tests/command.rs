//! The program as a process: files, folders, streams, refusals, what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("secret", [7; 32]);
        place.write("in.dcm", file(EXPLICIT, ct()));
        place
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dicom-deid"));
        command.args(line.split(' ')).current_dir(self.0.path());
        command
    }

    fn run(&self, line: &str, code: i32) -> Output {
        let output = self.command(line).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        for value in ["Feldmann", "Rosalind", "0047"] {
            assert!(!has(&said, value), "{line} says {value}");
        }
        output
    }
}

fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(paths_in(&path));
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

fn files_in(folder: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = paths_in(folder).into_iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_file_becomes_another_and_none_is_overwritten() {
    let place = Place::new();
    let _ = place.run("--secret-file secret in.dcm out.dcm", 0);
    let first = place.read("out.dcm");
    assert!(!has(&first, "Feldmann"));
    let said = place.run("--secret-file secret in.dcm out.dcm", 73);
    assert!(has(&said.stderr, "exists already"));
    assert_eq!(place.read("out.dcm"), first);
    let _ = place.run("--secret-file secret in.dcm in.dcm", 73);
    let _ = place.run("check in.dcm out.dcm", 0);
    let left = place.run("check in.dcm in.dcm", 65);
    assert!(has(&left.stdout, "(0010,0010) PatientName"));
}

#[test]
fn streams_give_the_same_bytes() {
    let place = Place::new();
    let _ = place.run("--secret-file secret in.dcm out.dcm", 0);
    let mut child = place
        .command("--secret-file secret - -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&place.read("in.dcm")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, place.read("out.dcm"));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let place = Place::new();
    place.write("burned.dcm", file(EXPLICIT, with(ct(), el(0x28, 0x301, "CS", "YES"))));
    // after the pixels, when everything before is already written
    let tail = [file(EXPLICIT, ct()), b"Feldmann^Rosalind".to_vec()].concat();
    place.write("tail.dcm", &tail);
    for (input, reason) in [("burned.dcm", "burned-in annotation"), ("tail.dcm", "no DICOM follow")] {
        let said = place.run(
            &format!("--secret-file secret --private-out private {input} out.dcm"),
            65,
        );
        assert!(has(&said.stderr, reason), "{said:?}");
        assert!(!place.has("out.dcm"));
        assert_eq!(place.read("private"), b"");
        let said = place.run(&format!("--secret-file secret {input} -"), 65);
        assert_eq!(said.stdout, b"");
    }
    let said = place.run("--secret-file secret --flag-instead --json burned.dcm out.dcm", 0);
    assert!(has(&said.stdout, r#""flags":["burned-in"]"#));
    assert!(has(&said.stderr, "burned-in annotation"));
    let names = files_in(place.0.path());
    assert_eq!(
        names,
        ["burned.dcm", "in.dcm", "out.dcm", "private", "secret", "tail.dcm"]
    );
}

#[test]
fn a_folder_becomes_a_tree_of_new_uids_and_one_bad_object_fails_alone() {
    let place = Place::new();
    std::fs::create_dir_all(place.0.path().join("in/deep")).unwrap();
    place.write("in/Feldmann.dcm", file(EXPLICIT, ct()));
    place.write(
        "in/deep/b.dcm",
        file(IMPLICIT, with(ct(), el(8, 0x18, "UI", "1.3.6.1.4.1.99999.2"))),
    );
    place.write("in/deep/c.txt", "no image");
    // the input's name is on the command's own terminal, so it may be said here
    let output = place
        .command("--secret-file secret --json --private-out private in out")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(has(&output.stderr, "1 of 3 objects were refused"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    let names = files_in(&place.0.path().join("out"));
    assert_eq!(names.len(), 2);
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("2.25.") && name.ends_with(".dcm"))
    );
    let private = String::from_utf8(place.read("private")).unwrap();
    assert_eq!(private.lines().count(), 2);
    for line in private.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["original"]["patient"], "KH-0047-1961");
        assert!(names.contains(&format!("{}.dcm", line["new"]["sop"].as_str().unwrap())));
    }
    let mode = std::fs::metadata(place.0.path().join("private"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_folder_gives_the_same_on_one_processor_and_on_several() {
    let place = Place::new();
    std::fs::create_dir_all(place.0.path().join("in/deep")).unwrap();
    for number in 0..60 {
        // one in seven is refused, and the last are instances that came before under another name
        let bytes = match number {
            n if n % 7 == 3 => file(EXPLICIT, with(ct(), el(0x28, 0x301, "CS", "YES"))),
            n => {
                let syntax = if n % 2 == 0 { EXPLICIT } else { IMPLICIT };
                let uid = format!("1.3.6.1.4.1.99999.{}", n.min(55));
                file(syntax, with(ct(), el(8, 0x18, "UI", &uid)))
            }
        };
        let folder = if number % 3 == 0 { "in/deep" } else { "in" };
        place.write(&format!("{folder}/{number:02}.dcm"), bytes);
    }
    let run = |wrapper: &[&str], number: u32| {
        let program = [env!("CARGO_BIN_EXE_dicom-deid")];
        let words: Vec<&str> = wrapper.iter().chain(&program).copied().collect();
        let line = format!("--secret-file secret --json --private-out private{number} in out");
        let output = Command::new(words[0])
            .args(&words[1..])
            .args(line.split(' '))
            .current_dir(place.0.path())
            .output()
            .unwrap();
        let private = place.read(&format!("private{number}"));
        let out = place.0.path().join("out");
        let written: Vec<(String, Vec<u8>)> = paths_in(&out)
            .into_iter()
            .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
            .collect();
        std::fs::remove_dir_all(out).unwrap();
        (output, private, written)
    };
    let (alone, private, written) = run(&["taskset", "-c", "0"], 1);
    assert_eq!(alone.status.code(), Some(73), "{alone:?}");
    assert!(
        has(&alone.stderr, "9 of 60 objects were refused, 3 failed"),
        "{alone:?}"
    );
    assert_eq!(written.len(), 48);
    for number in 2..5 {
        let (other, other_private, other_written) = run(&[], number);
        assert_eq!(other, alone);
        assert!(other_private == private && other_written == written, "{number}");
    }
}

#[test]
fn the_private_half_never_mixes_with_what_goes_out_or_came_in() {
    let place = Place::new();
    std::fs::create_dir_all(place.0.path().join("in")).unwrap();
    place.write("in/a.dcm", file(EXPLICIT, ct()));
    let before = place.read("in.dcm");
    for (options, objects) in [
        ("--private-out out.dcm", "in.dcm out.dcm"),
        ("--private-out in/../out.dcm", "in.dcm out.dcm"),
        ("--private-out in.dcm", "in.dcm out.dcm"),
        ("--private-out out", "in out"),
        ("--private-out out/private", "in out"),
        ("", "in in/../in"),
    ] {
        let line = format!("--secret-file secret {options} {objects}").replace("  ", " ");
        let _ = place.run(&line, 2);
        assert!(!place.has("out.dcm") && !place.has("out"), "{line}");
    }
    // what is there already, and is none
    place.write("notes", "see below");
    for other in ["notes", "in/a.dcm"] {
        let said = place.run(
            &format!("--secret-file secret --private-out {other} in.dcm out.dcm"),
            74,
        );
        assert!(has(&said.stderr, "no private half"), "{said:?}");
    }
    assert!(!place.has("out.dcm"));
    let untouched = [place.read("in.dcm"), place.read("in/a.dcm"), place.read("notes")];
    assert_eq!(untouched, [before.clone(), before, b"see below".to_vec()]);
    // a folder once more: what is there is told by a word, and the private half says nothing of it
    let _ = place.run("--secret-file secret --private-out lines in out", 0);
    let lines = place.read("lines");
    let again = place.run("--secret-file secret --json --private-out lines in out", 73);
    assert!(has(&again.stdout, r#""refused":"exists""#), "{again:?}");
    assert_eq!(place.read("lines"), lines);
    // another file of it goes on, and nobody else can read it any more
    place.write("private", "{}\n");
    let _ = place.run("--secret-file secret --private-out private in.dcm out.dcm", 0);
    let private = std::fs::metadata(place.0.path().join("private")).unwrap();
    assert_eq!(private.permissions().mode() & 0o777, 0o600);
    assert_eq!(String::from_utf8(place.read("private")).unwrap().lines().count(), 2);
    assert!(!has(&place.read("out.dcm"), "Feldmann"));
}

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    let place = Place::new();
    let _ = place.run("in.dcm out.dcm", 2);
    let _ = place.run("--secret-file secret in.dcm", 2);
    let _ = place.run("--secret-file secret --secret-key /k in.dcm out.dcm", 2);
    let _ = place.run("--secret-file secret --option nonsense in.dcm out.dcm", 2);
    let both = "--option retain-full-dates --option retain-modified-dates";
    let said = place.run(&format!("--secret-file secret {both} in.dcm out.dcm"), 2);
    assert!(has(&said.stderr, "cannot be set together"));
    place.write("short", [7; 31]);
    let said = place.run("--secret-file short in.dcm out.dcm", 78);
    assert!(has(&said.stderr, "at least 32 bytes"));
    let _ = place.run("--secret-file secret nothing.dcm out.dcm", 74);
    assert!(!place.has("out.dcm"));
}

#[test]
fn explain_shows_rules_and_no_values() {
    let place = Place::new();
    let said = place.run("explain --option retain-uids in.dcm", 0);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        text.contains("removed  (0018,1000) LO DeviceSerialNumber (table E.1-1: X/Z/D)"),
        "{text}"
    );
    assert!(
        text.contains("(0020,000D) UI StudyInstanceUID (table E.1-1, retain-uids: K)"),
        "{text}"
    );
    let said = place.run("--version", 0);
    assert!(has(&said.stdout, "PS3.15 2026c"));
}
