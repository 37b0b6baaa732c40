//! What the commands say before any store is asked: configuration, credentials, key ids, and the `glite-eds-*` names.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::fs;

use common::Place;

/// A folder with a configuration of three stores that nobody listens at.
fn configured() -> Place {
    let mut place = Place::new();
    let stores: String = (1..=3)
        .map(|port| format!("[[store]]\nurl = \"https://127.0.0.1:{port}\"\n"))
        .collect();
    let path = place.write("eds.toml", format!("threshold = 2\n{stores}"));
    place.set("EDS_CONFIG", path.to_str().unwrap());
    place
}

#[test]
fn without_configuration_the_places_looked_at_are_told() {
    let place = Place::new();
    place.write("in", "x");
    for line in [
        "eds-key-register /k",
        "eds-key-status /k",
        "eds-encrypt /k in out",
        "eds-key-export /k --raw f",
    ] {
        place
            .run(line)
            .code(78)
            .says("no key stores are configured")
            .says("EDS_CONFIG")
            .says("/etc/eds/config.toml");
    }
    assert_eq!(place.names(), ["in"]);
}

#[test]
fn a_configuration_tells_all_its_faults() {
    let mut place = Place::new();
    let path = place.write("bad.toml", "treshold = 2\n[[store]]\nurl = \"http://x\"\n");
    place.set("EDS_CONFIG", path.to_str().unwrap());
    let ran = place
        .run("eds-key-status /k")
        .code(78)
        .says("bad.toml")
        .says("line 1: unknown key `treshold`");
    ran.says("line 3: `http://x`");
}

#[test]
fn options_name_stores_too() {
    let place = Place::new();
    place
        .run("eds-key-status --store http://x /k")
        .code(78)
        .says("option --store")
        .says("`http://x`");
    place
        .run("eds-key-status --store https://x --threshold 2 /k")
        .code(78)
        .says("threshold 2 (options)");
}

#[test]
fn a_missing_credential_says_where_it_should_be() {
    let place = configured();
    place
        .run("eds-key-register /k")
        .code(78)
        .says("X509_USER_PROXY names")
        .says("no-proxy");
}

#[test]
fn a_credential_that_is_none_is_refused() {
    let mut place = configured();
    let proxy = place.write("proxy.pem", "no PEM at all");
    place.set("X509_USER_PROXY", proxy.to_str().unwrap());
    place.run("eds-whoami").code(78).says("proxy.pem");
    let exposed = place.write(
        "exposed.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    fs::set_permissions(&exposed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    place.set("X509_USER_PROXY", exposed.to_str().unwrap());
    place.run("eds-key-register /k").code(78).says("exposed.pem");
}

#[test]
fn check_tells_the_configuration_even_without_a_credential() {
    let place = configured();
    let ran = place.run("eds-check").code(78).says("X509_USER_PROXY");
    let out = ran.out();
    assert!(out.contains("threshold: 2 of 3 (EDS_CONFIG "), "{out}");
    let both = Place::new()
        .run("eds-check")
        .code(78)
        .says("no key stores")
        .says("X509_USER_PROXY");
    assert!(both.stdout.is_empty());
}

#[test]
fn key_ids_that_break_a_rule_are_wrong_usage() {
    let place = configured();
    let long = "x".repeat(401);
    let bad: [(&str, &str); 6] = [
        ("", "1 to 400 bytes"),
        (&long, "401"),
        ("/a\nb", "control characters"),
        ("/a/../b", "`..`"),
        ("/a//b", "empty segment"),
        ("/a/", "empty segment"),
    ];
    for (key_id, says) in bad {
        let ran = place.run_words("eds-key-register", &[key_id]).code(2).says(says);
        assert!(
            !ran.stderr.trim_end().contains('\n') || !ran.stderr.contains("\nb"),
            "{}",
            ran.stderr
        );
    }
    // such ids may have been imported, so only the rules of headers hold for looking up
    place.run_words("eds-key-status", &["/a//b"]).code(78);
    place.run_words("eds-key-status", &["/a\nb"]).code(2);
    let longest = "x".repeat(400);
    for good in ["/a b/ü/'quoted'/\"x\"", longest.as_str(), "lfn:/a", "word"] {
        place
            .run_words("eds-key-register", &[good])
            .code(78)
            .says("X509_USER_PROXY");
    }
}

#[test]
fn an_export_never_replaces_a_file() {
    let place = configured();
    place.write("f", "old");
    place
        .run("eds-key-export /k --raw f")
        .code(73)
        .says("never overwritten");
    assert_eq!(place.read("f"), b"old");
}

#[test]
fn glite_names_have_the_originals_usage_version_and_codes() {
    let place = Place::new();
    // those about permissions are a family with other words: `tests/permissions.rs` of the whole has them
    let of_permissions = ["glite-eds-getacl", "glite-eds-setacl", "glite-eds-chmod"];
    for (name, _) in eds::GLITE_NAMES
        .iter()
        .filter(|(name, _)| !of_permissions.contains(name))
    {
        let help = place.run(&format!("{name} -h")).code(0);
        assert!(help.out().starts_with(&format!("Usage: {name} ")), "{}", help.out());
        assert_eq!(help.stderr, "");
        let version = place.run(&format!("{name} x -V")).code(0).out();
        assert_eq!(version, format!("{name} Version {} by (C) EGEE\n", hydra_core::VERSION));
        for line in [
            format!("{name} -x"),
            name.to_string(),
            format!("{name} 1 2 3 4"),
            format!("{name} --help"),
        ] {
            let wrong = place.run(&line).code(255);
            assert!(
                wrong.stdout.is_empty() && wrong.stderr.starts_with("Usage: "),
                "{line}: {}",
                wrong.stderr
            );
        }
    }
}

#[test]
fn glite_register_refuses_ciphers_and_other_lengths() {
    let place = configured();
    place
        .run("glite-eds-key-register -c nonsense ID")
        .code(255)
        .says("Error during glite_eds_register: cipher `nonsense` is unknown here");
    place
        .run("glite-eds-key-register -c bf-cbc -k x ID")
        .code(255)
        .says("Error during glite_eds_register: `x` is no number of bits");
    place
        .run("glite-eds-key-register -k 128 ID")
        .code(255)
        .says("Error during glite_eds_register: keys have 256 bits");
    place
        .run("glite-eds-key-register -k 256 -t ID")
        .code(255)
        .says("Error during glite_eds_register: X509_USER_PROXY");
    place
        .run("glite-eds-key-register -q a/../b")
        .code(255)
        .says("Error during glite_eds_register: `a/../b` is no key id");
}

#[test]
fn glite_names_report_in_the_originals_words() {
    let place = configured();
    place.write("in", "x");
    place
        .run("glite-eds-encrypt ID in out")
        .code(255)
        .says("Error during glite_eds_encrypt_init: X509_USER_PROXY");
    place
        .run("glite-eds-encrypt in secret")
        .code(255)
        .says("Error during glite_eds_encrypt_init: ");
    let missing = "Cannot Open Local Input File none. Error is \"No such file or directory (code: 2)\"";
    place.run("glite-eds-decrypt -q ID none out").code(255).says(missing);
    place
        .run("glite-eds-decrypt /myvo/none out")
        .code(255)
        .says(missing)
        .says("glite-eds-decrypt /myvo/none IN OUT");
    // without a mark only the key can tell whether it is a file of the original; with one, it is damaged
    place
        .run("glite-eds-decrypt ID in out")
        .code(255)
        .says("Error during glite_eds_decrypt_init: X509_USER_PROXY");
    place.write("damaged", b"\x89EDS\r\n\x1a\n and no header");
    place
        .run("glite-eds-decrypt ID damaged out")
        .code(255)
        .says("Error during glite_eds_decrypt_final: ");
    assert_eq!(place.names(), ["damaged", "eds.toml", "in"]);
}

#[test]
fn glite_names_read_services_xml_first() {
    let mut place = configured();
    let broken = place.write("services.xml", "<services/>");
    place.set("GLITE_SD_PLUGIN", "file");
    place.set("GLITE_SD_SERVICES_XML", broken.to_str().unwrap());
    place.run("glite-eds-key-register ID").code(255).says("services.xml");
    place.run("eds-key-register ID").code(78).says("X509_USER_PROXY");
}
