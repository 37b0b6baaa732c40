//! What the manual promises about a life without this software, run with real Tink.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::process::Command;

use common::Place;
use eds::key_file::{Form, write};
use hydra_core::secret::Key;

/// The program of the manual, letter for letter.
fn program_of_the_manual() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/commands/eds.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("## Without this software").nth(1).unwrap();
    section
        .split("```python\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn peer_manual_python_opens_a_sealed_file() {
    let python = std::env::var("HYDRA_PEER_PYTHON");
    let python = python.expect("HYDRA_PEER_PYTHON must name a Python interpreter that has the package `tink`");
    let program = program_of_the_manual();
    let lines = program.lines().filter(|line| !line.is_empty()).count();
    assert!(lines <= 10, "the manual says ten lines, not {lines}");
    let place = Place::new();
    place.write("program.py", program);
    // the form that eds-key-export --tink-keyset writes
    write(&place.path("keyset.json"), &Key::random().unwrap(), Form::TinkKeyset).unwrap();
    for (number, bytes) in [0, 1, 65_480, 65_481, 300_000].into_iter().enumerate() {
        let sealed = format!("sealed-{number}");
        let plain: Vec<u8> = (0..=u8::MAX).cycle().take(bytes).collect();
        place.write("in", &plain);
        place
            .run(&format!("eds-encrypt --force --key-file keyset.json in {sealed}"))
            .code(0);
        let mut command = Command::new(&python);
        command
            .args(["program.py", "keyset.json", &sealed, "opened"])
            .current_dir(place.path(""));
        let ran = command.output().unwrap();
        assert!(
            ran.status.success(),
            "{bytes}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(place.read("opened") == plain, "{bytes} bytes");
    }
}
