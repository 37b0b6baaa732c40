//! The `eds-*` commands against real stores: what works, what is refused, and how it is told
//! (`docs/src/commands/eds.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use hydra_core::key_id::KeyId;
use hydra_core::sealed::{self, Header, Input, Output, SealOptions};
use hydra_core::secret::Key;
use hydra_tests::desk::{Desk, SharedGrid};
use testgrid::GridOptions;
use testgrid::pki::{Authority, KeyKind, Validity};

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

const PLAIN: &[u8] = b"Feldmann^Rosalind, and 512 x 512 pixels";

/// A desk with a file to seal.
fn desk(user: &str) -> Desk {
    let desk = GRID.desk(user);
    desk.write("plain", PLAIN);
    desk
}

/// The same with a registered key and a file sealed under it.
fn sealed_under(key_id: &str) -> Desk {
    let desk = desk("alice");
    let _ = desk.run_words("eds-key-register", &[key_id]).exits(0);
    let _ = desk.run_words("eds-encrypt", &[key_id, "plain", "sealed"]).exits(0);
    desk
}

fn registration_of(desk: &Desk, key_id: &str) -> String {
    let status = desk.run_words("eds-key-status", &["--json", key_id]).exits(0).json();
    let id = &status["stores"][0]["entry"]["registration_id"];
    id.as_str().unwrap().to_owned()
}

#[test]
fn a_key_is_registered_and_seals_and_opens() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let registered = desk.run("eds-key-register /eds/round").exits(0);
    let id = registered
        .stdout
        .strip_prefix("registered /eds/round at 3 stores, registration ")
        .unwrap();
    assert_eq!(id.trim_end().len(), 32);
    assert_eq!(registered.stderr, "");
    let sealed = desk.run("eds-encrypt /eds/round plain sealed").exits(0);
    assert_eq!((sealed.stdout.as_str(), sealed.stderr.as_str()), ("", ""));
    assert_eq!(desk.read("sealed").len(), 512 + 40 + PLAIN.len() + 16);
    // named, and by the header alone, which prints what it used
    let opened = desk.run("eds-decrypt /eds/round sealed one").exits(0);
    assert_eq!(opened.stdout, "");
    let opened = desk.run("eds-decrypt sealed two").exits(0);
    assert_eq!(opened.stdout, "/eds/round\n");
    assert_eq!(desk.read("one"), PLAIN);
    assert_eq!(desk.read("two"), PLAIN);
    assert_eq!(
        fs::metadata(desk.path("one")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let cat = desk.run("eds-cat sealed").exits(0);
    assert_eq!(cat.stdout.as_bytes(), PLAIN);
    let through = desk.feed("eds-encrypt /eds/round - piped", PLAIN).exits(0);
    assert_eq!(through.stderr, "");
    assert_eq!(desk.run("eds-cat /eds/round piped").exits(0).stdout.as_bytes(), PLAIN);
    assert_eq!(desk.names(), ["one", "piped", "plain", "sealed", "two"]);
}

#[test]
fn results_come_as_json() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let registered = desk.run("eds-key-register --json /eds/json").exits(0).json();
    assert_eq!(registered["key_id"], "/eds/json");
    assert_eq!(registered["confirmed"].as_array().unwrap().len(), 3);
    assert_eq!(registered["missing"].as_array().unwrap().len(), 0);
    let id = &registered["registration_id"];
    let sealed = desk.run("eds-encrypt --json /eds/json plain sealed").exits(0).json();
    assert_eq!(
        (&sealed["key_id"], &sealed["registration_id"]),
        (&registered["key_id"], id)
    );
    assert_eq!(sealed["files"][0]["plaintext_bytes"], PLAIN.len());
    let opened = desk.run("eds-decrypt --json sealed opened").exits(0).json();
    assert_eq!(
        (&opened["key_id"], &opened["registration_id"]),
        (&registered["key_id"], id)
    );
    assert_eq!(opened["files"][0]["output"], "opened");
    let status = desk.run("eds-key-status --json /eds/json").exits(0).json();
    assert_eq!(status["verdict"], "registered");
    for (number, store) in (1..).zip(status["stores"].as_array().unwrap()) {
        assert_eq!(store["store_id"], format!("store{number}"));
        assert_eq!(&store["entry"]["registration_id"], id);
        assert_eq!(store["entry"]["state"], "confirmed");
        assert_eq!(store["entry"]["cipher"], "eds-1");
        assert_eq!(
            (&store["entry"]["sharings"][0]["m"], &store["entry"]["sharings"][0]["n"]),
            (&2.into(), &3.into())
        );
    }
    let removed = desk.run("eds-key-unregister --json /eds/json").exits(0).json();
    assert_eq!(
        (&removed["key_id"], &removed["registration_id"]),
        (&registered["key_id"], id)
    );
    let status = desk.run("eds-key-status --json /eds/json").exits(77).json();
    assert_eq!(status["verdict"], "removed");
    assert_eq!(&status["stores"][2]["removed"][0]["registration_id"], id);
}

#[test]
fn a_key_id_is_registered_once() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/once");
    let _ = desk
        .run("eds-key-register /eds/once")
        .exits(73)
        .says("error: key id `/eds/once` is registered already\n  try: eds-key-status /eds/once");
    // the key there is still the one that sealed
    let _ = desk.run("eds-decrypt sealed opened").exits(0);
    let _ = GRID.desk("bob").run("eds-key-register /eds/once").exits(73);
}

#[test]
fn others_get_nothing() {
    let _whole = GRID.whole();
    let alice = sealed_under("/eds/private");
    let bob = desk("bob");
    fs::copy(alice.path("sealed"), bob.path("sealed")).unwrap();
    let refused = bob.run("eds-decrypt sealed opened").exits(77);
    let refused = refused
        .says("error: no key `/eds/private`, or not allowed to use it")
        .says("try: eds-whoami");
    assert!(!refused.stderr.contains("alice"), "{}", refused.stderr);
    let _ = bob.run("eds-encrypt /eds/private plain mine").exits(77);
    let _ = bob.run("eds-key-export /eds/private --raw key").exits(77);
    let _ = bob.run("eds-key-unregister /eds/private").exits(77);
    let _ = bob
        .run("eds-key-status /eds/private")
        .exits(77)
        .prints("/eds/private: unknown");
    let _ = bob.run("eds-key-repair /eds/private").exits(77);
    assert_eq!(bob.names(), ["plain", "sealed"]);
    let _ = alice.run("eds-decrypt sealed opened").exits(0);
}

#[test]
fn strangers_are_refused_by_every_store() {
    let _whole = GRID.whole();
    // of an authority that nobody trusts, and revoked
    for user in ["mallory", "dave"] {
        let _ = GRID
            .desk(user)
            .run("eds-key-register /eds/strange")
            .exits(78)
            .says("store1 refused the credential");
        for line in [
            "eds-check",
            "eds-key-status /eds/x",
            "eds-key-repair /eds/x",
            "eds-key-unregister /eds/x",
        ] {
            let _ = GRID.desk(user).run(line).exits(78).says("refused the credential");
        }
    }
}

#[test]
fn a_file_of_an_earlier_registration_is_refused() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/again");
    let _ = desk.run("eds-key-unregister /eds/again").exits(0);
    let _ = desk
        .run("eds-decrypt sealed opened")
        .exits(77)
        .says("error: key `/eds/again` was removed");
    let _ = desk.run("eds-key-register /eds/again").exits(0);
    let _ = desk.run("eds-encrypt /eds/again plain new").exits(0);
    let _ = desk
        .run("eds-decrypt sealed opened")
        .exits(65)
        .says("error: sealed under an earlier registration of key id `/eds/again`");
    assert_eq!(desk.names(), ["new", "plain", "sealed"]);
    let _ = desk.run("eds-decrypt new opened").exits(0);
}

#[test]
fn a_file_that_names_another_key_id_opens_with_a_warning() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/renamed");
    let _ = desk.run("eds-key-export /eds/renamed --raw key").exits(0);
    let header = Header::of_registration(
        KeyId::new("/eds/old-name").unwrap(),
        registration_of(&desk, "/eds/renamed").parse().unwrap(),
    );
    let key = Key::from_slice(&desk.read("key")).unwrap();
    let (from, to) = (Input::File(desk.path("plain")), Output::File(desk.path("old")));
    sealed::seal(&key, &header, &from, &to, &SealOptions::default()).unwrap();
    let _ = desk
        .run("eds-decrypt /eds/renamed old opened")
        .exits(0)
        .says("the file names its key `/eds/old-name`, and it is `/eds/renamed` here");
    assert_eq!(desk.read("opened"), PLAIN);
    // by the header alone it is not found
    let _ = desk.run("eds-cat old").exits(77);
}

#[test]
fn key_ids_are_looked_up_as_typed_and_in_canonical_form() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let _ = desk
        .run("eds-key-register lfn:///eds/canonical")
        .exits(0)
        .prints("registered /eds/canonical at");
    let _ = desk.run("eds-encrypt lfn:/eds/canonical plain sealed").exits(0);
    let _ = desk.run("eds-decrypt LFN://eds/canonical sealed one").exits(0);
    let _ = desk
        .run("eds-decrypt srm://se.example.org:8446/srm?SFN=/eds/canonical sealed two")
        .exits(0);
    let _ = desk.run("eds-key-status lfn:/eds/canonical").exits(0);
    let _ = desk
        .run("eds-key-unregister lfn:/eds/canonical")
        .exits(0)
        .prints("removed /eds/canonical,");
    assert_eq!(desk.read("one"), PLAIN);
    assert_eq!(desk.read("two"), PLAIN);
}

#[test]
fn any_text_that_is_a_key_id_works_and_no_other() {
    let _whole = GRID.whole();
    let desk = desk("alice");
    let longest = format!("/eds/{}", "x".repeat(395));
    let ids = [
        "/eds/with blank",
        "/eds/Prüfung/患者",
        "/eds/it's \"quoted\"",
        "bare-word",
        "/eds/-o",
        "/eds/100%",
        &longest,
    ];
    for key_id in ids {
        let _ = desk.run_words("eds-key-register", &[key_id]).exits(0);
        let _ = desk
            .run_words("eds-encrypt", &["-f", key_id, "plain", "sealed"])
            .exits(0);
        let opened = desk.run_words("eds-decrypt", &["-f", "sealed", "opened"]).exits(0);
        assert_eq!(opened.stdout, format!("{key_id}\n"));
        assert_eq!(desk.read("opened"), PLAIN);
        let _ = desk.run_words("eds-key-unregister", &[key_id]).exits(0);
    }
    let too_long = format!("{longest}x");
    for no_key_id in ["", "/eds/../x", "/eds/./x", "/eds//x", "/eds/", "/eds/a\nb", &too_long] {
        for command in [
            "eds-key-register",
            "eds-key-status",
            "eds-key-unregister",
            "eds-key-repair",
        ] {
            // what is there under a strange name can still be asked for, and removed
            let code = if command == "eds-key-register"
                || no_key_id.contains('\n')
                || no_key_id.len() > 400
                || no_key_id.is_empty()
            {
                2
            } else {
                77
            };
            let _ = desk.run_words(command, &[no_key_id]).exits(code);
        }
    }
}

#[test]
fn an_exported_key_opens_without_stores() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/escrow");
    let _ = desk
        .run("eds-key-export /eds/escrow --raw key")
        .exits(0)
        .says("whoever has");
    let _ = desk
        .run("eds-key-export /eds/escrow --tink-keyset keyset.json")
        .exits(0);
    assert_eq!(desk.read("key").len(), 32);
    for name in ["key", "keyset.json"] {
        assert_eq!(
            fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let opened = desk
            .run(&format!("eds-cat --store https://127.0.0.1:1 --key-file {name} sealed"))
            .exits(0);
        assert_eq!(opened.stdout.as_bytes(), PLAIN);
    }
    let before = desk.read("key");
    let _ = desk.run("eds-key-export /eds/escrow --raw key").exits(73);
    assert_eq!(desk.read("key"), before);
}

#[test]
fn many_files_are_opened_with_one_fetch_for_each_key() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/many/0");
    let names: Vec<String> = (0..20).map(|number| format!("in/{number}")).collect();
    for name in &names {
        desk.write(name, format!("contents of {name}"));
    }
    for folder in ["sealed-files", "opened-files"] {
        fs::create_dir(desk.path(folder)).unwrap();
    }
    for key in 1..4 {
        let _ = desk.run(&format!("eds-key-register /eds/many/{key}")).exits(0);
    }
    for (key, files) in names.chunks(5).enumerate() {
        let line = format!("eds-encrypt /eds/many/{key} --out-dir sealed-files {}", files.join(" "));
        let _ = desk.run(&line).exits(0).says("sealed 5 files");
    }
    let sealed: Vec<String> = (0..20).map(|number| format!("sealed-files/{number}.eds")).collect();
    let opened = desk
        .run(&format!("eds-decrypt -vv --out-dir opened-files {}", sealed.join(" ")))
        .exits(0);
    assert_eq!(opened.stdout, "/eds/many/0\n/eds/many/1\n/eds/many/2\n/eds/many/3\n");
    // four keys, two shares each; a hedged question more may have been asked
    let answers = opened.stderr.matches("answered").count();
    assert!((8..=12).contains(&answers), "{answers} answers: {}", opened.stderr);
    for name in &names {
        let opened = name.replace("in/", "opened-files/");
        assert_eq!(desk.read(&opened), desk.read(name));
    }
    // one key that is gone keeps the files of the other from nothing
    let _ = desk.run("eds-key-unregister /eds/many/0").exits(0);
    let line = format!("eds-decrypt -f --out-dir opened-files {} {}", sealed[0], sealed[19]);
    let _ = desk
        .run(&line)
        .exits(77)
        .says("key `/eds/many/0` was removed")
        .says("1 of 2 files were not opened");
}

#[test]
fn with_one_store_down_keys_are_read_but_not_made() {
    let desk = {
        let _whole = GRID.whole();
        sealed_under("/eds/down")
    };
    let mut grid = GRID.alone();
    grid.kill(2);
    let _ = desk.run("eds-decrypt sealed opened").exits(0);
    let _ = desk.run("eds-encrypt /eds/down plain more").exits(0);
    let _ = desk
        .run("eds-key-register /eds/down-too")
        .exits(75)
        .says("`/eds/down-too` was not registered: 2 of the 3 stores needed")
        .says("  cause: store2 refused the connection");
    let status = desk.run("eds-key-status /eds/down").exits(75);
    assert!(status.stdout.starts_with("/eds/down: degraded\n"), "{status:?}");
    let _ = status.prints("  store2: refused the connection");
    let _ = desk.run("eds-check").exits(75).says("2 of 3 stores are ready");
    let _ = desk.run("eds-whoami").exits(75).prints("/CN=alice");
    // a removal that one store has not heard of: gone for readers, and finished by the same command
    let _ = desk
        .run("eds-key-unregister /eds/down")
        .exits(75)
        .says("no longer readable")
        .says("try: eds-key-unregister /eds/down again");
    assert_ne!(desk.run("eds-cat sealed").code, Some(0));
    grid.start_again();
    let _ = desk.run("eds-key-unregister /eds/down").exits(0);
    let _ = desk
        .run("eds-key-status /eds/down")
        .exits(77)
        .prints("/eds/down: removed");
    // nothing was left behind by the registration that failed
    let _ = desk.run("eds-key-register /eds/down-too").exits(0);
}

#[test]
fn with_two_stores_down_nothing_is_read() {
    let desk = {
        let _whole = GRID.whole();
        sealed_under("/eds/two-down")
    };
    let mut grid = GRID.alone();
    grid.kill(1);
    grid.kill(3);
    let _ = desk
        .run("eds-decrypt sealed opened")
        .exits(75)
        .says("error: cannot read key `/eds/two-down`: ")
        .says("  cause: store1 refused the connection")
        .says("  cause: store3 refused the connection")
        .says("  try: eds-key-status /eds/two-down");
    let _ = desk.run("eds-key-status /eds/two-down").exits(75).prints("unclear");
    let _ = desk
        .run("eds-key-unregister /eds/two-down")
        .exits(75)
        .says("still readable");
    assert_eq!(desk.names(), ["plain", "sealed"]);
}

#[test]
fn more_stores_than_needed_let_a_key_be_registered_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let options = GridOptions {
        stores: 4,
        ..GridOptions::default()
    };
    let mut grid = testgrid::Grid::up(&directory.path().join("grid"), &options).unwrap();
    let mut desk = desk("alice");
    for (name, value) in grid.variables().unwrap() {
        desk.set(name, &value);
    }
    grid.kill(4).unwrap();
    let _ = desk.run("eds-key-register /eds/degraded").exits(75);
    let registered = desk.run("eds-key-register --allow-degraded /eds/degraded").exits(0);
    let _ = registered
        .prints("registered /eds/degraded at 3 stores")
        .says("warning: not registered at store4 yet");
    let _ = desk.run("eds-encrypt /eds/degraded plain sealed").exits(0);
    grid.start(4).unwrap();
    let _ = desk
        .run("eds-key-status /eds/degraded")
        .exits(75)
        .prints("store4: nothing");
    let _ = desk.run("eds-decrypt sealed opened").exits(0);
}

#[test]
fn stores_see_who_asks() {
    let _whole = GRID.whole();
    let mut desk = desk("alice");
    let dn = GRID.whole().pki().unwrap().user_dn("alice").unwrap().to_owned();
    let who = desk.run("eds-whoami").exits(0);
    let seen = format!("{dn} by proxy, /myvo, /myvo/physicians, /myvo/physicians/Role=radiologist");
    assert_eq!(
        who.stdout,
        format!("{dn}\n  store1: {seen}\n  store2: {seen}\n  store3: {seen}\n")
    );
    let who = desk.run("eds-whoami --json").exits(0).json();
    assert_eq!(who["dn"], dn);
    assert_eq!(who["kind"], "proxy");
    assert_eq!(who["stores"][1]["dn"], dn);
    let check = desk.run("eds-check").exits(0);
    let check = check
        .prints("  threshold: 2 of 3 (EDS_CONFIG ")
        .prints(&format!("  name: {dn}\n"));
    let _ = check.prints(" left)\n").prints(", id store3, version ");
    let check = desk.run("eds-check --json").exits(0).json();
    assert_eq!(check["config"]["threshold"], 2);
    assert_eq!(check["config"]["stores"].as_array().unwrap().len(), 3);
    assert_eq!(check["credential"]["dn"], dn);
    assert_eq!(check["stores"][0]["id"], "store1");
    assert!(check["stores"][0]["took_ms"].is_u64());
    // carol is in no VO
    let carol = GRID.desk("carol").run("eds-whoami --json").exits(0).json();
    assert_eq!(carol["stores"][0]["fqans"], serde_json::json!([]));
    // a certificate with its key, where there is no proxy
    let (certificate, key) = GRID.whole().pki().unwrap().user("alice");
    desk.unset("X509_USER_PROXY");
    desk.set("X509_USER_CERT", &certificate.to_string_lossy());
    desk.set("X509_USER_KEY", &key.to_string_lossy());
    // unless the machine has a proxy at the usual place
    let who = desk.run("eds-whoami --json").json();
    if who["origin"]
        .as_str()
        .is_some_and(|origin| origin.contains("X509_USER_CERT"))
    {
        assert_eq!(who["stores"][0]["method"], "certificate");
    }
}

#[test]
fn stores_named_by_options_are_used_instead() {
    let _whole = GRID.whole();
    let mut desk = desk("alice");
    desk.unset("EDS_CONFIG");
    desk.unset("GLITE_SD_PLUGIN");
    let _ = desk
        .run("eds-key-register /eds/options")
        .exits(78)
        .says("no key stores are configured");
    let urls: Vec<String> = desk
        .variable("STORE_URLS")
        .split(' ')
        .map(|url| format!("--store {url}"))
        .collect();
    let _ = desk
        .run(&format!(
            "eds-key-register --threshold 3 {} /eds/options",
            urls.join(" ")
        ))
        .exits(0);
    let status = desk
        .run(&format!("eds-key-status --json {} /eds/options", urls.join(" ")))
        .exits(0)
        .json();
    assert_eq!(status["stores"][0]["entry"]["sharings"][0]["m"], 3);
}

#[test]
fn credentials_that_cannot_be_used_are_refused_before_anybody_is_asked() {
    let mut desk = desk("alice");
    let authority = Authority::new("/DC=org/CN=some").unwrap();
    let over = Validity {
        from: 1_700_000_000,
        to: 1_700_003_600,
    };
    let expired = authority.user_with("/DC=org/CN=late", KeyKind::Ec, over).unwrap();
    let usable = authority.user("/DC=org/CN=usual").unwrap();
    let cases = [
        (
            "expired",
            expired.credential_pem().into_bytes(),
            0o600,
            "of /DC=org/CN=late expired at 2023-11-14T23:13:20Z, ",
        ),
        ("garbage", b"no certificate".to_vec(), 0o600, "garbage"),
        ("empty", Vec::new(), 0o600, "empty"),
        (
            "exposed",
            usable.credential_pem().into_bytes(),
            0o644,
            "  try: chmod 600 ",
        ),
    ];
    for (name, contents, mode, says) in cases {
        let path = desk.write(name, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        desk.set("X509_USER_PROXY", &path.to_string_lossy());
        for line in [
            "eds-key-register /eds/x",
            "eds-whoami",
            "eds-check",
            "eds-encrypt /eds/x plain out",
        ] {
            let _ = desk.run(line).exits(78).says(says);
        }
    }
    let missing = desk.path("missing").to_string_lossy().into_owned();
    desk.set("X509_USER_PROXY", &missing);
    let _ = desk.run("eds-key-register /eds/x").exits(78).says("missing");
    let _ = desk.run("eds-check").exits(78).prints("threshold: 2 of 3");
}

#[test]
fn a_range_reads_only_what_it_covers() {
    let _whole = GRID.whole();
    let desk = sealed_under("/eds/range");
    let range = |range: &str| desk.run(&format!("eds-cat --range {range} sealed"));
    assert_eq!(range("0-7").exits(0).stdout.as_bytes(), &PLAIN[..8]);
    assert_eq!(range("9-").exits(0).stdout.as_bytes(), &PLAIN[9..]);
    assert_eq!(range("-6").exits(0).stdout.as_bytes(), &PLAIN[PLAIN.len() - 6..]);
    assert_eq!(range("1000-").exits(0).stdout, "");
    let _ = range("9-3").exits(2).says("a range is FIRST-LAST");
    let _ = desk.feed("eds-cat --range 0-7 -", &desk.read("sealed")).exits(2);
    // damage elsewhere is none of a range's business; under it, nothing is written
    let _ = desk.run("eds-encrypt --key-file my.key --new-key plain small").exits(0);
    let large = vec![b'x'; 300_000];
    desk.write("large", &large);
    let _ = desk.run("eds-encrypt --key-file my.key large large.eds").exits(0);
    let mut damaged = desk.read("large.eds");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    desk.write("damaged", &damaged);
    let range = |range: &str| desk.run(&format!("eds-cat --key-file my.key --range {range} damaged"));
    assert_eq!(range("0-1023").exits(0).stdout.as_bytes(), &large[..1024]);
    assert_eq!(range("-1024").exits(0).stdout.as_bytes(), &large[..1024]);
    let refused = range("140000-160000").exits(65);
    assert_eq!(refused.stdout, "");
}
