//! What `up` says about programs that are missing, of another build, or fail: with stand-ins, so that it runs quickly.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use testgrid::{Grid, GridError, GridOptions};

fn stand_in(folder: &Path, script: &str) -> GridOptions {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("hydra-keystore");
    // Another process writes it: were it open for writing here, a child that another test starts just then would have
    // it open too for a moment, and nobody could run it (`ETXTBSY`).
    let mut writer = Command::new("sh");
    let written = writer
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            write!(child.stdin.take().unwrap(), "#!/bin/sh\n{script}\n")?;
            child.wait()
        });
    assert!(written.unwrap().success());
    GridOptions {
        programs: Some(folder.to_owned()),
        commands: false,
        ..GridOptions::default()
    }
}

const VERSION: &str = concat!(
    "[ \"$1\" = --version ] && { echo hydra-keystore ",
    env!("CARGO_PKG_VERSION"),
    "; exit 0; }"
);

#[test]
fn a_program_that_is_missing_or_of_another_version_is_named() {
    let place = tempfile::tempdir().unwrap();
    let options = GridOptions {
        programs: Some(place.path().to_owned()),
        ..GridOptions::default()
    };
    let error = Grid::up(&place.path().join("grid"), &options).unwrap_err().to_string();
    assert!(error.contains("hydra-keystore` is not there"), "{error}");
    let options = stand_in(&place.path().join("bin"), "echo hydra-keystore 0.0.1");
    let error = Grid::up(&place.path().join("grid"), &options).unwrap_err().to_string();
    assert!(error.contains("is of version 0.0.1"), "{error}");
}

#[test]
fn a_store_that_fails_shows_the_end_of_its_log() {
    let place = tempfile::tempdir().unwrap();
    let script = format!("{VERSION}\n[ \"$1\" = init ] && exit 0\necho 'error: no disk' >&2; exit 1");
    let options = stand_in(&place.path().join("bin"), &script);
    match Grid::up(&place.path().join("grid"), &options).unwrap_err() {
        GridError::NotReady { number: 1, log } => assert!(log.ends_with("error: no disk"), "{log}"),
        other => panic!("{other}"),
    }
    let script = format!("{VERSION}\necho 'error: no room' >&2; exit 74");
    let options = stand_in(&place.path().join("bin2"), &script);
    let error = Grid::up(&place.path().join("grid2"), &options).unwrap_err().to_string();
    assert_eq!(error, "cannot set up store 1: error: no room");
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let options = stand_in(&place.path().join("bin"), VERSION);
    assert!(matches!(Grid::up(place.path(), &options), Err(GridError::NotEmpty(_))));
}
