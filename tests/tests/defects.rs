//! The defects of gLite's tools, one test each: what they did wrong, ours must not (`docs/src/coming-from-glite.md`,
//! "Defects that are gone"). Those of permissions and of storage elements stand with the tests of these.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::fake::FakeStore;
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

const PLAIN: &[u8] = b"512 x 512 pixels";

fn desk() -> Desk {
    let desk = GRID.desk("alice");
    desk.write("plain", PLAIN);
    desk
}

/// A desk with a key and a file sealed under it.
fn sealed_under(key_id: &str) -> Desk {
    let desk = desk();
    let _ = desk.run_words("glite-eds-key-register", &["-q", key_id]).exits(0);
    let _ = desk
        .run_words("glite-eds-encrypt", &["-q", key_id, "plain", "sealed"])
        .exits(0);
    desk
}

/// Refused, and nothing that looks like a result.
fn refused(desk: &Desk, code: i32, lines: &[&str]) {
    for line in lines {
        let ended = desk.run(line).exits(code);
        assert!(!ended.stderr.is_empty(), "{line}: no reason");
        let hex = ended.stdout.split_whitespace().any(|word| {
            word.len() >= 4 && word.len().is_multiple_of(4) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        assert!(!hex, "{line} printed {}", ended.stdout);
    }
}

/// The field has no place for a group from fff1 on: the original changed such a key, and nobody noticed.
#[test]
fn d1_a_key_that_the_field_cannot_hold_is_refused() {
    let desk = desk();
    refused(
        &desk,
        1,
        &[
            "glite-ssss-split-key -q 3 2 fff1",
            "glite-ssss-split-key -q 3 2 0000ffff",
            "glite-ssss-split-key 3 2 fffe1234",
        ],
    );
    refused(
        &desk,
        2,
        &[
            "glite-ssss-join-key -q fff1 0000",
            "glite-ssss-join-passwd -q 0000 ffff",
        ],
    );
    let kept = desk
        .shell("glite-ssss-join-key -q $(glite-ssss-split-key -q 3 2 fff00000)")
        .exits(0);
    assert_eq!(kept.stdout, "fff00000\n");
}

/// The original crashed on the first two and read past its buffers on the others.
#[test]
fn d2_d3_shares_that_cannot_join_are_refused() {
    let desk = desk();
    refused(
        &desk,
        2,
        &[
            "glite-ssss-join-key NULL NULL",
            "glite-ssss-join-passwd -q NULL NULL NULL",
            // equal shares join to themselves: a length that is not there, no room for it, an odd tail
            "glite-ssss-join-passwd -q 7fff 7fff",
            "glite-ssss-join-passwd -q 0006736563 0006736563",
            "glite-ssss-join-passwd -q 00016101 00016101",
            "glite-ssss-join-key -q 1234 12345678",
        ],
    );
}

#[test]
fn d5_more_shares_than_the_field_has_are_refused() {
    let desk = desk();
    refused(
        &desk,
        1,
        &[
            "glite-ssss-split-key -q 65521 2 1234",
            "glite-ssss-split-passwd -q 4294967295 2 a",
            "glite-ssss-split-key -q 5 65521 1234",
            "glite-ssss-split-key -q 5 6 1234",
            "glite-ssss-split-key -q 5x 2 1234",
            "glite-ssss-split-key -q 0 0 1234",
        ],
    );
}

#[test]
fn d6_generated_keys_are_whole_or_refused() {
    let desk = desk();
    for wrong in ["0", "5", "-h", "x", "18446744073709551616"] {
        let _ = desk.run(&format!("glite-ssss-generate-key {wrong}")).exits(1);
    }
    let keys: Vec<String> = (0..8)
        .map(|_| desk.run("glite-ssss-generate-key 512").exits(0).stdout)
        .collect();
    let groups = || {
        let all = keys.iter().flat_map(|key| key.trim_end().as_bytes().chunks(4));
        all.map(|group| u16::from_str_radix(std::str::from_utf8(group).unwrap(), 16).unwrap())
    };
    assert_eq!(groups().count(), 8 * 128);
    assert!(groups().all(|group| group < 65521));
    // the original's groups were never negative as signed numbers: half of the values were missing
    assert!(groups().any(|group| group >= 0x8000));
}

#[test]
fn d7_d8_secrets_are_neither_logged_nor_needed_as_arguments() {
    let mut desk = desk();
    desk.set("GLITE_SSSS_LOG_LEVEL", "DEBUG");
    desk.set("GLITE_SSSS_LOG_FILE", &desk.path("log").to_string_lossy());
    let split = desk.feed("glite-ssss-split-passwd -q 3 2 -", b"rosebud").exits(0);
    let joined = desk
        .run(&format!("glite-ssss-join-passwd -q {}", split.stdout))
        .exits(0);
    assert_eq!(joined.stdout, "rosebud\n");
    let log = String::from_utf8(desk.read("log")).unwrap();
    assert!(!log.contains("rosebud") && !log.contains("726f7365"), "{log}");
    for share in split.stdout.split_whitespace() {
        assert!(!log.contains(share), "{log}");
    }
}

/// The original ended with 0 and left garbage, or the half that it had.
#[test]
fn d9_d10_d13_damage_and_wrong_keys_are_noticed_and_leave_no_output() {
    let _whole = GRID.whole();
    let desk = sealed_under("/defects/damage");
    let _ = desk.run("glite-eds-key-register -q /defects/other").exits(0);
    let good = desk.read("sealed");
    for (name, at) in [("header", 40), ("body", 560), ("end", good.len() - 1)] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        desk.write(name, &bad);
    }
    desk.write("cut", &good[..good.len() - 1]);
    desk.write("longer", [good.as_slice(), b"x"].concat());
    desk.write("out", b"what was there");
    for name in ["header", "body", "end", "cut", "longer"] {
        for out in ["out", "new"] {
            let _ = desk
                .run(&format!("glite-eds-decrypt /defects/damage {name} {out}"))
                .exits(255);
        }
    }
    let _ = desk.run("glite-eds-decrypt /defects/other sealed new").exits(255);
    assert_eq!(desk.read("out"), b"what was there");
    assert!(!desk.path("new").exists());
    // the original had one iv for all files of a key
    let _ = desk.run("glite-eds-encrypt -q /defects/damage plain again").exits(0);
    let again = desk.read("again");
    let differ = good[512..].iter().zip(&again[512..]).filter(|(a, b)| a != b).count();
    assert!(differ > 20, "{differ} bytes differ");
}

#[test]
fn d11_nothing_of_a_longer_old_file_stays() {
    let _whole = GRID.whole();
    let desk = sealed_under("/defects/tail");
    desk.write("out", vec![b'x'; 100_000]);
    let _ = desk.run("glite-eds-decrypt -q /defects/tail sealed out").exits(0);
    assert_eq!(desk.read("out"), PLAIN);
    let old = desk.read("sealed").len();
    desk.write("out", vec![b'x'; 100_000]);
    let _ = desk.run("glite-eds-encrypt -q /defects/tail plain out").exits(0);
    assert_eq!(desk.read("out").len(), old);
}

#[test]
fn d12_a_full_disk_is_a_failure() {
    let _whole = GRID.whole();
    let desk = sealed_under("/defects/full");
    for command in [
        "glite-eds-encrypt /defects/full plain",
        "glite-eds-decrypt /defects/full sealed",
    ] {
        let _ = desk
            .run(&format!("{command} /dev/full"))
            .exits(255)
            .says("No space left on device");
    }
}

/// The original gave its cipher a key of another length than it reads.
#[test]
fn d14_the_length_asked_for_is_the_length_used_or_refused() {
    let _whole = GRID.whole();
    let desk = desk();
    for bits in [32, 56, 128, 448] {
        let key_id = format!("/defects/bits-{bits}");
        let _ = desk
            .run(&format!("glite-eds-key-register -q -c bf-cbc -k {bits} {key_id}"))
            .exits(0);
        let _ = desk
            .run(&format!("glite-eds-encrypt -q {key_id} plain sealed"))
            .exits(0);
        let _ = desk.run(&format!("glite-eds-decrypt -q {key_id} sealed out")).exits(0);
        assert_eq!(desk.read("out"), PLAIN);
        let file = format!("key-{bits}");
        let _ = desk.run(&format!("eds-key-export {key_id} --raw {file}")).exits(0);
        assert_eq!(desk.read(&file).len(), bits / 8);
    }
    let _ = desk
        .run("glite-eds-key-register -c bf-cbc -k 456 /defects/bits")
        .exits(255);
}

/// The original left an entry behind where it failed midway, and once deleted the one that was there.
#[test]
fn d15_a_registration_that_fails_leaves_nothing_and_one_that_is_there_stays() {
    let desk = desk();
    let mut grid = GRID.alone();
    let _ = desk.run("glite-eds-key-register -q /defects/there").exits(0);
    let _ = desk.run("glite-eds-encrypt -q /defects/there plain sealed").exits(0);
    let _ = desk
        .run("glite-eds-key-register /defects/there")
        .exits(255)
        .says("Key already exists.");
    let _ = desk.run("glite-eds-decrypt -q /defects/there sealed out").exits(0);
    grid.kill(3);
    let _ = desk.run("glite-eds-key-register /defects/midway").exits(255);
    grid.start_again();
    let status = desk.run("eds-key-status --json /defects/midway");
    assert_ne!(status.json()["verdict"], "registered");
    let _ = desk.run("glite-eds-key-register /defects/midway").exits(0);
}

/// The original believed any certificate of an authority that it knew, whatever the name in it (D-17).
#[test]
fn d17_a_server_with_a_certificate_for_another_name_is_told_nothing() {
    let grid = GRID.whole();
    let pki = grid.pki().unwrap();
    let mut desk = desk();
    let third = grid.urls().remove(2);
    let settings = ["EDS_CONFIG", "GLITE_SD_SERVICES_XML"]
        .map(|name| (name, std::fs::read_to_string(desk.variable(name)).unwrap()));
    let with_third = |desk: &mut Desk, url: &str| {
        for (name, text) in &settings {
            let changed = text.replace(&third, url);
            assert_ne!(&changed, text);
            let path = desk.write(name, changed);
            desk.set(name, &path.to_string_lossy());
        }
    };
    // as good as the store's own, but for a VOMS server
    let folder = pki.directory().join("voms/myvo");
    let (certificate, key) = (folder.join("hostcert.pem"), folder.join("hostkey.pem"));
    let other = FakeStore::start("store3", &certificate, &key, &pki.certificates());
    with_third(&mut desk, &other.url());
    for (command, code) in [("eds-key-register", 75), ("glite-eds-key-register", 255)] {
        let _ = desk
            .run(&format!("{command} /defects/name"))
            .exits(code)
            .says("has a certificate that cannot be trusted");
    }
    for operation in ["about", "whoami", "create", "confirm", "undo"] {
        assert_eq!(other.requests(operation), 0, "{operation}");
    }
    // with a certificate of its own it is one
    let (certificate, key) = pki.host("keystore3");
    let own = FakeStore::start("store3", &certificate, &key, &pki.certificates());
    with_third(&mut desk, &own.url());
    let _ = desk.run("glite-eds-key-register /defects/name").exits(0);
    assert_eq!(own.requests("create"), 1);
}

/// Usage and version, which scripts look at, of every name.
#[test]
fn every_name_has_usage_version_and_manual_page() {
    let desk = desk();
    let originals = testgrid::ALIASES.iter().filter(|(name, _)| name.starts_with("glite-"));
    for (name, program) in originals {
        let version = desk.run(&format!("{name} -V")).exits(0);
        assert!(
            version.stdout.contains(env!("CARGO_PKG_VERSION")),
            "{name}: {}",
            version.stdout
        );
        let usage = desk.run(&format!("{name} -h"));
        let code = i32::from(*name == "glite-ssss-generate-key");
        let usage = usage.exits(code).prints(name);
        assert_eq!(usage.stderr, "", "{name}");
        let page = desk.run(&format!("{name} --generate man")).exits(0);
        let (name, program) = (name.replace('-', "\\-"), program.replace('-', "\\-"));
        for part in [
            format!(".SH NAME\n{name} \\- "),
            format!(".SH SYNOPSIS\n\\fB{name}\\fR "),
            format!(".SH \"SEE ALSO\"\n\\fB{program}\\fR(1)"),
        ] {
            assert!(page.stdout.contains(&part), "no `{part}` in {}", page.stdout);
        }
    }
}
