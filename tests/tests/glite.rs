//! The `glite-eds-*` names against real stores: command lines written for the original, letter for letter
//! (`docs/src/commands/glite.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::sync::LazyLock;

use hydra_tests::desk::{Desk, SharedGrid};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

const PLAIN: &[u8] = b"512 x 512 pixels";

fn desk(user: &str) -> Desk {
    let desk = GRID.desk(user);
    desk.write("my-file", PLAIN);
    desk
}

/// What is printed after a file was sealed or opened.
fn done(verb: &str, key_id: &str, from: &str, to: &str) -> String {
    format!("\nFile '{from}' has been {verb} \n\twith key '{key_id}' \n\tand written to '{to}'.\n")
}

#[test]
fn the_slides_run_as_they_stand() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    // cp for lcg-cr and lcg-cp
    let ended = desk
        .shell(
            "glite-eds-key-register /myvo/home/secret\n\
             glite-eds-encrypt my-file secret\n\
             cp secret storage-element\n\
             rm secret\n\
             cp storage-element secret\n\
             glite-eds-decrypt /myvo/home/secret my-new-file\n\
             cmp my-file my-new-file\n\
             glite-eds-key-unregister /myvo/home/secret\n",
        )
        .exits(0);
    let expected = "A key has been generated and registered for ID '/myvo/home/secret'\n".to_owned()
        + &done("successfully encrypted", "/myvo/home/secret", "my-file", "secret")
        + &done("succesfully decrypted", "/myvo/home/secret", "secret", "my-new-file")
        + "The key has been unregistered for ID '/myvo/home/secret'\n";
    assert_eq!(ended.stdout, expected);
    assert_eq!(ended.stderr, "");
    assert_eq!(desk.read("my-new-file"), PLAIN);
    assert!(
        !desk
            .read("storage-element")
            .windows(PLAIN.len())
            .any(|window| window == PLAIN)
    );
}

#[test]
fn three_operands_are_key_in_out() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let _ = desk.run("glite-eds-key-register -q lfn:/glite/three").exits(0);
    // outputs of mktemp are replaced
    desk.write(
        "sealed",
        "an old file that is longer than what comes into its place: nothing of it may stay",
    );
    desk.write("opened", vec![b'x'; 5000]);
    let sealed = desk.run("glite-eds-encrypt lfn:/glite/three my-file sealed").exits(0);
    assert_eq!(
        sealed.stdout,
        done("successfully encrypted", "lfn:/glite/three", "my-file", "sealed")
    );
    let opened = desk.run("glite-eds-decrypt /glite/three sealed opened -q").exits(0);
    assert_eq!((opened.stdout.as_str(), opened.stderr.as_str()), ("", ""));
    assert_eq!(desk.read("opened"), PLAIN);
    let _ = desk.run("glite-eds-decrypt /glite/three sealed /dev/null").exits(0);
    let _ = desk.run("glite-eds-encrypt /glite/three my-file /dev/null").exits(0);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    // the same file for the other family of names
    let _ = desk.run("eds-decrypt sealed again").exits(0).prints("/glite/three\n");
    assert_eq!(desk.read("again"), PLAIN);
}

#[test]
fn failures_have_the_words_and_the_code_of_the_original() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let bob = GRID.desk("bob");
    let _ = desk.run("glite-eds-key-register /glite/words").exits(0);
    let _ = desk.run("glite-eds-encrypt -q /glite/words my-file sealed").exits(0);
    for (line, says) in [
        (
            "glite-eds-key-register /glite/words",
            "Error during glite_eds_register: Key already exists.",
        ),
        (
            "glite-eds-key-register -c nonsense /glite/other",
            "Error during glite_eds_register: cipher `nonsense` is unknown here",
        ),
        (
            "glite-eds-key-register -k 128 /glite/other",
            "Error during glite_eds_register: keys have 256 bits",
        ),
        (
            "glite-eds-key-register /glite/../other",
            "Error during glite_eds_register: `/glite/../other` is no key id",
        ),
        (
            "glite-eds-key-unregister /glite/none",
            "Error during glite_eds_unregister: Key does not exist. (entry could not be found)",
        ),
        (
            "glite-eds-encrypt -q /glite/none my-file x",
            "Error during glite_eds_encrypt_init: Key does not exist.",
        ),
        (
            "glite-eds-decrypt /glite/none sealed x",
            "Error during glite_eds_decrypt_init: Key does not exist.",
        ),
        (
            "glite-eds-encrypt /glite/words none x",
            "Cannot Open Local Input File none. Error is \"No such file or directory (code: 2)\"",
        ),
        (
            "glite-eds-decrypt /glite/words sealed no/x",
            "Cannot Open Local Output File no/x. Error is \"No such file or directory (code: 2)\"",
        ),
        (
            "glite-eds-decrypt /glite/words x",
            "Cannot Open Local Input File words.",
        ),
        ("glite-eds-encrypt my-file", "Usage: glite-eds-encrypt"),
        ("glite-eds-decrypt -x a b c", "Usage: glite-eds-decrypt"),
    ] {
        let ended = desk.run(line).exits(255).says(says);
        assert_eq!(ended.stdout, "", "{line}");
    }
    assert_eq!(desk.names(), ["my-file", "sealed"]);
    // not bob's: the words cover both, as the stores tell nobody which it is
    fs::copy(desk.path("sealed"), bob.path("sealed")).unwrap();
    let _ = bob
        .run("glite-eds-decrypt /glite/words sealed x")
        .exits(255)
        .says("User not authorized.");
    // the key that was refused to be registered again still opens
    let _ = desk.run("glite-eds-decrypt /glite/words sealed x").exits(0);
    // a file of an earlier registration
    let _ = desk.run("glite-eds-key-unregister -q /glite/words").exits(0);
    let _ = desk.run("glite-eds-key-register -q /glite/words").exits(0);
    let _ = desk
        .run("glite-eds-decrypt /glite/words sealed y")
        .exits(255)
        .says("earlier registration");
    // damage, which the original did not see
    let mut bytes = desk.read("sealed");
    let _ = bytes.pop();
    desk.write("sealed", bytes);
    let _ = desk.run("glite-eds-decrypt /glite/words sealed y").exits(255);
    assert_eq!(desk.names(), ["my-file", "sealed", "x"]);
}

#[test]
fn two_operands_take_only_keys_that_the_caller_owns() {
    let _whole = GRID.whole();
    let mut alice = desk("alice");
    // bob plants keys of names that alice might use
    let bob = desk("bob");
    for key_id in ["planted", "/glite/bob/planted", "/glite/bob/shared-name"] {
        let _ = bob.run(&format!("glite-eds-key-register -q {key_id}")).exits(0);
    }
    let none = alice.run("glite-eds-encrypt my-file planted").exits(255);
    let _ = none
        .says("no key of yours is named like 'planted'")
        .says("try: glite-eds-encrypt ID my-file planted");
    assert_eq!(alice.names(), ["my-file"]);
    let sealed_with = |alice: &Desk, line: &str, key_id: &str| {
        let _ = alice.run(line).exits(0).prints(&format!("with key '{key_id}'"));
    };
    let _ = alice.run("glite-eds-key-register -q /glite/one/shared-name").exits(0);
    sealed_with(
        &alice,
        "glite-eds-encrypt my-file shared-name",
        "/glite/one/shared-name",
    );
    // a second one of that name: no guess
    let _ = alice.run("glite-eds-key-register -q /glite/two/shared-name").exits(0);
    let before = alice.read("shared-name");
    let _ = alice
        .run("glite-eds-encrypt my-file shared-name")
        .exits(255)
        .says("more than one key of yours is named like 'shared-name'")
        .says("  try: glite-eds-encrypt /glite/one/shared-name my-file shared-name")
        .says("  try: glite-eds-encrypt /glite/two/shared-name my-file shared-name");
    assert_eq!(alice.read("shared-name"), before);
    // but the home folder of the catalogue decides, and so does the exact name
    alice.set("LFC_HOME", "/glite/two");
    sealed_with(
        &alice,
        "glite-eds-encrypt my-file shared-name",
        "/glite/two/shared-name",
    );
    let _ = alice.run("glite-eds-key-register -q shared-name").exits(0);
    sealed_with(&alice, "glite-eds-encrypt my-file shared-name", "shared-name");
}

#[test]
fn services_xml_alone_is_configuration_enough() {
    let _whole = GRID.whole();
    let mut desk = desk("alice");
    desk.unset("EDS_CONFIG");
    let _ = desk.run("glite-eds-key-register /glite/services").exits(0);
    let _ = desk.run("glite-eds-encrypt /glite/services my-file sealed").exits(0);
    let _ = desk.run("glite-eds-decrypt /glite/services sealed opened").exits(0);
    assert_eq!(desk.read("opened"), PLAIN);
    // two of three by the original's rule
    let check = desk.run("eds-check").exits(0);
    let _ = check.prints("threshold: 2 of 3");
    desk.set("GLITE_SD_PLUGIN", "bdii");
    let _ = desk
        .run("glite-eds-key-unregister /glite/services")
        .exits(255)
        .says("GLITE_SD_PLUGIN is `bdii`: only `file` is supported");
    desk.set("GLITE_SD_PLUGIN", "file");
    let _ = desk.run("glite-eds-key-unregister /glite/services").exits(0);
}

#[test]
fn one_store_down_stops_registering_and_not_reading() {
    let desk = desk("alice");
    let mut grid = GRID.alone();
    let _ = desk.run("glite-eds-key-register -q /glite/down").exits(0);
    let _ = desk.run("glite-eds-encrypt -q /glite/down my-file sealed").exits(0);
    grid.kill(1);
    let _ = desk.run("glite-eds-decrypt -q /glite/down sealed opened").exits(0);
    let _ = desk
        .run("glite-eds-key-register /glite/down-too")
        .exits(255)
        .says("Error during glite_eds_register: HTTP error")
        .says("store1 refused the connection");
    let _ = desk
        .run("glite-eds-key-unregister /glite/down")
        .exits(255)
        .says("Error during glite_eds_unregister: HTTP error");
    grid.kill(2);
    let _ = desk.run("glite-eds-decrypt -q /glite/down sealed opened").exits(255);
    grid.start_again();
    let _ = desk.run("glite-eds-key-register -q /glite/down-too").exits(0);
}
