//! Permissions on a real grid: sharing a key with a group and taking it back, with stores that are down; the original's
//! commands letter for letter; strangers, crowds and nonsense (`docs/src/permissions.md`,
//! `docs/src/commands/glite.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use hydra_tests::desk::{Desk, SharedGrid};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

const PLAIN: &[u8] = b"512 x 512 pixels";

fn dn(user: &str) -> String {
    let told = GRID.desk(user).run("eds-whoami --json").exits(0).json();
    told["dn"].as_str().unwrap().to_owned()
}

/// alice with a new key and a file sealed under it.
fn alice_with(key_id: &str) -> Desk {
    let alice = GRID.desk("alice");
    alice.write("scan.dcm", PLAIN);
    let _ = alice.run_words("eds-key-register", &[key_id]).exits(0);
    let _ = alice
        .run_words("eds-encrypt", &[key_id, "scan.dcm", "scan.eds"])
        .exits(0);
    alice
}

/// Somebody who has got alice's sealed file.
fn with_file_of(alice: &Desk, user: &str) -> Desk {
    let desk = GRID.desk(user);
    desk.write("scan.eds", alice.read("scan.eds"));
    desk
}

fn opens(desk: &Desk) {
    let _ = desk.run("eds-decrypt --force scan.eds opened").exits(0);
    assert_eq!(desk.read("opened"), PLAIN);
}

fn is_refused(desk: &Desk) {
    let _ = desk.run("eds-decrypt --force scan.eds opened").exits(77);
}

#[test]
fn a_radiologist_shares_a_key_with_a_group_and_takes_it_back() {
    let _whole = GRID.whole();
    let key_id = "/radiology/trial-7";
    let alice = alice_with(key_id);
    let bob = with_file_of(&alice, "bob");
    let carol = with_file_of(&alice, "carol");
    is_refused(&bob);
    let listed = alice.run_words("eds-getacl", &[key_id]).exits(0);
    let owner = dn("alice");
    let base = "# Base perms: user pdrwl-gs, group --------, other --------\n";
    assert_eq!(
        listed.stdout,
        format!("# ENTRY: {key_id}\n# User: {owner}\n# Group: /myvo\n{base}")
    );
    // for bob's group
    let _ = alice
        .run_words("eds-setacl", &["-m", "/myvo/researchers:lg", key_id])
        .exits(0)
        .prints("changed /radiology/trial-7, effective at all stores (3 of 3)\n");
    opens(&bob);
    is_refused(&carol);
    let listed = bob.run_words("eds-getacl", &[key_id]).exits(0);
    assert!(listed.stdout.ends_with("/myvo/researchers:----l-g-\n"), "{listed:?}");
    // he uses it, and that is all
    for line in [
        format!("eds-setacl -m /myvo/researchers:lgpds {key_id}"),
        format!("eds-chmod o+g {key_id}"),
    ] {
        let _ = bob
            .run(&line)
            .exits(77)
            .says("not allowed to change the permissions of");
    }
    let _ = bob.run_words("eds-key-unregister", &[key_id]).exits(77);
    // said twice is said once
    let again = alice
        .run_words("eds-setacl", &["-m", "/myvo/researchers:gl", key_id])
        .exits(0);
    let _ = again.prints("unchanged /radiology/trial-7");
    // and back
    let _ = alice
        .run_words("eds-setacl", &["-d", "/myvo/researchers", key_id])
        .exits(0);
    is_refused(&bob);
    opens(&alice);
    // by the base permissions of the group that all of the VO are in
    let _ = alice.run_words("eds-chmod", &["g+g", key_id]).exits(0);
    opens(&bob);
    is_refused(&carol);
    let _ = alice.run_words("eds-chmod", &["g=-", key_id]).exits(0);
    is_refused(&bob);
    // one person of no VO, by name
    let line = format!("{}:g", dn("carol"));
    let _ = alice.run_words("eds-setacl", &["-m", &line, key_id]).exits(0);
    opens(&carol);
    is_refused(&bob);
}

#[test]
fn with_a_store_down_it_is_told_what_holds() {
    let key_id = "/radiology/in-part";
    let alice = alice_with(key_id);
    let bob = with_file_of(&alice, "bob");
    let mut grid = GRID.alone();
    for (change, in_force) in [
        ("g+lg", "the grant holds already"),
        ("g-lg", "the revocation holds already"),
    ] {
        grid.kill(3);
        let part = alice.run_words("eds-chmod", &["--json", change, key_id]).exits(75);
        let told = &part.json()["keys"][0];
        assert_eq!(told["effective"], false);
        assert_eq!((&told["done"], &told["total"]), (&2.into(), &3.into()));
        assert_eq!(told["missing"][0]["store"], "store3");
        let _ = part
            .says(&format!("were changed at 2 of 3 stores, {in_force}"))
            .says("  cause: store3 refused the connection");
        if change == "g+lg" {
            opens(&bob);
        } else {
            assert_ne!(bob.run("eds-decrypt --force scan.eds opened").code, Some(0));
        }
        grid.start_again();
        // the one that missed it
        let _ = alice
            .run_words("eds-getacl", &[key_id])
            .exits(75)
            .says("store3 holds version")
            .prints("# Missing at: store3\n");
        let again = alice.run_words("eds-chmod", &["--json", change, key_id]).exits(0);
        assert_eq!(again.json()["keys"][0]["effective"], true);
        let _ = alice.run_words("eds-getacl", &[key_id]).exits(0);
    }
    is_refused(&bob);
    // one that is silent is no disagreement
    grid.kill(1);
    let _ = alice
        .run_words("eds-getacl", &[key_id])
        .exits(0)
        .says("no word from store1")
        .prints("# Missing at: store1\n");
    // with two away nothing is changed
    grid.kill(2);
    let _ = alice
        .run_words("eds-chmod", &["o+g", key_id])
        .exits(75)
        .says("were not changed: 1 of the 2 stores needed");
    grid.start_again();
    let listed = alice.run_words("eds-getacl", &[key_id]).exits(0);
    let _ = listed.prints("other --------");
}

#[test]
fn the_original_changes_nothing_where_a_store_is_missing() {
    let key_id = "/radiology/all-or-nothing";
    let alice = alice_with(key_id);
    let mut grid = GRID.alone();
    grid.kill(2);
    let failed = alice.run_words("glite-eds-chmod", &["g+g", key_id]).exits(1);
    assert_eq!(failed.stdout, "");
    let _ = failed
        .says("ERROR Change failed on /radiology/all-or-nothing\n")
        .says("store2 refused the connection");
    let _ = alice
        .run_words("glite-eds-setacl", &["-m", "a:g", key_id])
        .exits(1)
        .says("ERROR Change failed on");
    let _ = alice
        .run_words("glite-eds-getacl", &[key_id])
        .exits(1)
        .says("ERROR Corrupted permissions for /radiology/all-or-nothing\n");
    grid.start_again();
    let listed = alice.run_words("glite-eds-getacl", &[key_id]).exits(0);
    let _ = listed.prints("group --------, other --------");
}

#[test]
fn stores_that_disagree_wait_for_a_word() {
    let key_id = "/radiology/disagree";
    let alice = alice_with(key_id);
    let urls: Vec<String> = alice.variable("STORE_URLS").split(' ').map(str::to_owned).collect();
    // what a client that died half-way leaves: one store with a later record
    let one = ["-s", &urls[0], "u-d", key_id];
    let _whole = GRID.whole();
    let _ = alice.run_words("glite-eds-chmod", &one).exits(0);
    let listed = alice.run_words("eds-getacl", &[key_id]).exits(75);
    let _ = listed
        .says("the stores disagree about the permissions")
        .prints("# Store: store1, version 2\n")
        .prints("# Store: store3, version 1\n");
    let _ = alice
        .run_words("eds-setacl", &["-m", "/myvo:g", key_id])
        .exits(75)
        .says("the stores disagree")
        .says("--over STORE");
    let _ = alice.run_words("glite-eds-getacl", &[key_id]).exits(1);
    // the same change goes on with what it began
    let _ = alice.run_words("eds-chmod", &["u-d", key_id]).exits(0);
    let _ = alice
        .run_words("eds-getacl", &[key_id])
        .exits(0)
        .prints("user p-rwl-gs");
    // and a store may be named
    let _ = alice
        .run_words("glite-eds-chmod", &["-s", &urls[0], "u-s", key_id])
        .exits(0);
    let _ = alice.run_words("eds-setacl", &["--over", "store9", key_id]).exits(1);
    let _ = alice.run_words("eds-setacl", &["--over", "store2", key_id]).exits(0);
    let _ = alice
        .run_words("eds-getacl", &[key_id])
        .exits(0)
        .prints("user p-rwl-gs");
}

#[test]
fn a_stranger_cannot_tell_denied_from_absent() {
    let _whole = GRID.whole();
    let (there, absent) = ("/radiology/closed", "/radiology/nobody");
    let _alice = alice_with(there);
    for user in ["bob", "carol"] {
        let desk = GRID.desk(user);
        for command in [
            "eds-getacl ID",
            "eds-getacl --json ID",
            "eds-setacl -m /myvo:g ID",
            "eds-setacl --json -x NONE ID",
            "eds-chmod a+g ID",
            "eds-setacl --over store1 ID",
            "glite-eds-getacl ID",
            "glite-eds-getacl -v ID",
            "glite-eds-setacl -m a:g ID",
            "glite-eds-chmod a+g ID",
        ] {
            let told = [there, absent].map(|key_id| {
                let ended = desk.run(&command.replace("ID", key_id));
                let neutral = |text: &str| text.replace(key_id, "ID");
                (ended.code, neutral(&ended.stdout), neutral(&ended.stderr))
            });
            assert_eq!(told[0], told[1], "{user}: {command}");
            assert_ne!(told[0].0, Some(0), "{user}: {command}");
        }
    }
}

#[test]
fn of_two_at_once_one_wins_and_nothing_is_lost_unsaid() {
    let _whole = GRID.whole();
    let key_id = "/radiology/at-once";
    let alice = alice_with(key_id);
    for _ in 0..5 {
        let lines = ["one:g", "two:g"];
        let running = lines.map(|line| alice.start("eds-setacl", &["-m", line, key_id]));
        let codes = running.map(|child| child.wait_with_output().unwrap().status.code());
        let listed = alice.run_words("eds-getacl", &[key_id]).exits(0).stdout;
        for (line, code) in lines.iter().zip(codes) {
            let there = listed.contains(&format!("{}------g-", &line[..4]));
            match code {
                Some(0) => assert!(there, "{line} was answered done: {listed}"),
                Some(75) => assert!(!there, "{line} was told to have lost: {listed}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(codes.contains(&Some(0)), "{codes:?}");
        let _ = alice.run_words("eds-setacl", &["-x", "NONE", key_id]).exits(0);
    }
}

#[test]
fn nonsense_and_crowds_are_refused_and_change_nothing() {
    let _whole = GRID.whole();
    let key_id = "/radiology/crowd";
    let alice = alice_with(key_id);
    let listed = || alice.run_words("eds-getacl", &[key_id]).exits(0).stdout;
    // 100 lines are what a store takes, 10,000 are refused by all
    let list = |count: usize| {
        (0..count)
            .map(|number| format!("/O=Grid/CN=user {number}:g\n"))
            .collect::<String>()
    };
    alice.write("hundred", list(100));
    alice.write("crowd", list(10_000));
    let before = listed();
    let _ = alice
        .run_words("eds-setacl", &["-X", "crowd", key_id])
        .exits(1)
        .says("the stores refuse these permissions")
        .says("an ACL has at most 100 lines");
    let _ = alice
        .run_words("glite-eds-setacl", &["-X", "crowd", key_id])
        .exits(1)
        .says("Change failed on");
    assert_eq!(listed(), before);
    let _ = alice.run_words("eds-setacl", &["-X", "hundred", key_id]).exits(0);
    assert_eq!(listed().lines().count(), 104);
    let _ = alice.run_words("eds-setacl", &["-m", "one more:g", key_id]).exits(1);
    let _ = alice.run_words("eds-setacl", &["-x", "NONE", key_id]).exits(0);
    // quotes and blanks are letters like others
    let quoted = r#"/O=Grid/CN=Jane "J" O'Neill, 100%"#;
    let _ = alice
        .run_words("eds-setacl", &["-m", &format!("{quoted}:g"), key_id])
        .exits(0);
    assert!(listed().ends_with(&format!("{quoted}:------g-\n")));
    let _ = alice.run_words("eds-setacl", &["-d", quoted, key_id]).exits(0);
    assert_eq!(listed(), before);
    // line breaks and 64 KiB are not; a NUL cannot even be typed, but may stand in a list
    let long = format!("{}:g", "x".repeat(65_536));
    for line in ["a\nb:g", long.as_str(), ":g", "bob", "#x:g"] {
        let _ = alice.run_words("eds-setacl", &["-m", line, key_id]).exits(2);
        let _ = alice.run_words("glite-eds-setacl", &["-m", line, key_id]).exits(1);
    }
    alice.write("nul", "a\0b:g\n");
    let _ = alice
        .run_words("eds-setacl", &["-M", "nul", key_id])
        .exits(2)
        .says("line 1");
    let _ = alice
        .feed(&format!("eds-setacl -M - {key_id}"), b"\xff\xfe:g\n")
        .exits(74);
    assert_eq!(listed(), before);
}

#[test]
fn owner_and_group_change_by_the_owners_hand_alone() {
    let _whole = GRID.whole();
    let key_id = "/radiology/given";
    let alice = alice_with(key_id);
    let bob = with_file_of(&alice, "bob");
    let (alices, bobs) = (dn("alice"), dn("bob"));
    // bob may change permissions, but that is not owning
    let _ = alice
        .run_words("eds-setacl", &["-m", &format!("{bobs}:plg"), key_id])
        .exits(0);
    let _ = bob
        .run_words("eds-setacl", &["--owner", &bobs, key_id])
        .exits(1)
        .says("only its owner gives a key to another owner or group");
    let _ = bob
        .run_words("eds-setacl", &["--group", "/myvo/researchers", key_id])
        .exits(1);
    let _ = bob.run_words("eds-chmod", &["o+l", key_id]).exits(0);
    let _ = alice
        .run_words("eds-setacl", &["--group", "/myvo/researchers", key_id])
        .exits(0);
    let _ = alice
        .run_words("eds-setacl", &["--owner", &bobs, "-x", "NONE", key_id])
        .exits(0);
    let listed = bob.run_words("eds-getacl", &[key_id]).exits(0);
    let _ = listed.prints(&format!("# User: {bobs}\n# Group: /myvo/researchers\n"));
    opens(&bob);
    is_refused(&alice);
    let _ = alice.run_words("eds-setacl", &["--owner", &alices, key_id]).exits(77);
}

#[test]
fn administrators_take_away_and_never_reach_the_key() {
    let _whole = GRID.whole();
    let key_id = "/radiology/administered";
    let alice = alice_with(key_id);
    let admin = with_file_of(&alice, "admin");
    let admins = dn("admin");
    let _ = alice
        .run_words("eds-setacl", &["-m", "/myvo/researchers:lg", key_id])
        .exits(0);
    is_refused(&admin);
    let _ = admin.run_words("eds-getacl", &[key_id]).exits(0);
    for words in [
        vec!["-m".to_owned(), format!("{admins}:g")],
        vec!["-m".to_owned(), format!("{admins}:p")],
        vec!["-m".to_owned(), format!("{admins}:s")],
        vec!["--owner".to_owned(), admins],
    ] {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.push(key_id);
        let _ = admin
            .run_words("eds-setacl", &words)
            .exits(1)
            .says("an administrator of the store grants nobody `p`, `g` or `s`");
    }
    let _ = admin
        .run_words("eds-setacl", &["-d", "/myvo/researchers", key_id])
        .exits(0);
    is_refused(&admin);
    opens(&alice);
}

#[test]
fn new_keys_get_what_configuration_and_options_say() {
    let _whole = GRID.whole();
    let mut alice = GRID.desk("alice");
    let config = std::fs::read_to_string(alice.variable("EDS_CONFIG")).unwrap();
    let defaults = "\n[defaults]\ngroup = \"/myvo/physicians\"\nperms = \"g+lg\"\nacl = [\"/myvo/Role=auditor:l\"]\n\
                    [[defaults.prefix]]\nprefix = \"/defaults/closed/\"\nperms = \"g=-\"\nacl = []\n";
    let path = alice.write("config.toml", format!("{config}{defaults}"));
    alice.set("EDS_CONFIG", &path.to_string_lossy());
    let listed = |key_id: &str| {
        let listed = alice.run_words("eds-getacl", &[key_id]).exits(0).stdout;
        listed.lines().skip(2).collect::<Vec<_>>().join("|")
    };
    let _ = alice.run("eds-key-register /defaults/open/1").exits(0);
    assert_eq!(
        listed("/defaults/open/1"),
        "# Group: /myvo/physicians|# Base perms: user pdrwl-gs, group ----l-g-, other --------\
         |/myvo/Role=auditor:----l---"
    );
    let _ = alice.run("eds-key-register /defaults/closed/1").exits(0);
    assert_eq!(
        listed("/defaults/closed/1"),
        "# Group: /myvo/physicians|# Base perms: user pdrwl-gs, group --------, other --------"
    );
    let _ = alice
        .run("eds-key-register --group /labvo --perms o+l --acl bob:g --acl eve:l /defaults/open/2")
        .exits(0);
    assert_eq!(
        listed("/defaults/open/2"),
        "# Group: /labvo|# Base perms: user pdrwl-gs, group --------, other ----l---|bob:------g-|eve:----l---"
    );
    let _ = alice.run("eds-key-register --perms 755 /defaults/open/3").exits(2);
    let _ = alice.run("eds-key-register --acl bob /defaults/open/3").exits(2);
    // who has no VO has the original's default group
    let _ = alice.run("eds-check").exits(0);
}

// --- the original's commands, letter for letter -----------------------------------------------------------------------

#[test]
fn getacl_prints_what_the_original_did() {
    let _whole = GRID.whole();
    let alice = GRID.desk("alice");
    for key_id in ["/gacl/one", "/gacl/two"] {
        let _ = alice.run_words("glite-eds-key-register", &["-q", key_id]).exits(0);
    }
    let set = alice
        .run_words("glite-eds-setacl", &["-m", "a:rg", "-m", "/CN=h:8443:l", "/gacl/one"])
        .exits(0);
    assert_eq!((set.stdout.as_str(), set.stderr.as_str()), ("", ""));
    let block = |typed: &str, acl: &str| {
        let owner = dn("alice");
        format!(
            "# ENTRY: {typed}\n# User: {owner}\n# Group: /myvo\n\
             # Base perms: user pdrwl-gs, group --------, other --------\n{acl}"
        )
    };
    let one = "a:--r---g-\n/CN=h:8443:----l---\n";
    // the id stands there as it was asked for; one empty line between ids
    let listed = alice.run("glite-eds-getacl lfn:/gacl/one /gacl/two").exits(0);
    let expected = format!("{}\n{}", block("lfn:/gacl/one", one), block("/gacl/two", ""));
    assert_eq!(
        (listed.stdout.as_str(), listed.stderr.as_str()),
        (expected.as_str(), "")
    );
    // it goes on after a failure
    let listed = alice.run("glite-eds-getacl /gacl/none /gacl/two").exits(1);
    assert_eq!(listed.stdout, block("/gacl/two", ""));
    let _ = listed.says("ERROR Missing permission for /gacl/none\n");
    let quiet = alice.run("glite-eds-getacl -q /gacl/none").exits(1);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    // -v: the endpoints first, then each store in turn
    let urls: Vec<&str> = alice.variable("STORE_URLS").split(' ').collect();
    let listed = alice.run("glite-eds-getacl -q -v /gacl/one").exits(0).stdout;
    let version = env!("CARGO_PKG_VERSION");
    let mut expected = String::new();
    for url in &urls {
        expected += &format!(
            "# Using endpoint {url}\n# - service version: {version}\n# - interface version: 1\n# - schema version: 1\n"
        );
    }
    let blocks = urls.iter().map(|url| {
        let listing = block("/gacl/one", one);
        listing.replace("# User", &format!("# ENDPOINT: {url}\n# User"))
    });
    expected += &blocks.collect::<Vec<_>>().join("\n");
    assert_eq!(listed, expected);
    // one endpoint, by its URL or its name
    for service in [urls[0], "store1"] {
        let listed = alice
            .run_words("glite-eds-getacl", &["-s", service, "/gacl/two"])
            .exits(0);
        assert_eq!(listed.stdout, block("/gacl/two", ""), "{service}");
    }
    let _ = alice
        .run("glite-eds-getacl -s store9 /gacl/two")
        .exits(1)
        .says("ERROR Service not found");
    // the listing feeds back, up to its first empty line
    let both = alice.run("glite-eds-getacl /gacl/one /gacl/two").exits(0).stdout;
    let _ = alice.feed("glite-eds-setacl -X - /gacl/two", both.as_bytes()).exits(0);
    let listed = alice.run("glite-eds-getacl /gacl/two").exits(0).stdout;
    assert_eq!(listed, block("/gacl/two", one));
}

#[test]
fn setacl_and_chmod_do_what_the_original_did() {
    let _whole = GRID.whole();
    let alice = GRID.desk("alice");
    for key_id in ["/sacl/one", "/sacl/two"] {
        let _ = alice.run_words("glite-eds-key-register", &["-q", key_id]).exits(0);
    }
    let acl = |key_id: &str| {
        let listed = alice.run_words("glite-eds-getacl", &[key_id]).exits(0).stdout;
        let lines: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
        lines.join(" ")
    };
    let base = |key_id: &str| {
        let listed = alice.run_words("glite-eds-getacl", &[key_id]).exits(0).stdout;
        listed.lines().nth(3).unwrap_or_default().to_owned()
    };
    let silent = |line: &str| {
        let ended = alice.run(line).exits(0);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""), "{line}");
    };
    // several ids at once, nothing is said without -v
    silent("glite-eds-setacl -m a:g -m b:l /sacl/one /sacl/two");
    // a second -m keeps the first; what is set on one id leaves the other alone
    silent("glite-eds-setacl -m c: /sacl/one");
    assert_eq!(acl("/sacl/one"), "a:------g- b:----l--- c:--------");
    assert_eq!(acl("/sacl/two"), "a:------g- b:----l---");
    silent("glite-eds-setacl -d a -d b:rw -d absent -m c:s /sacl/one");
    assert_eq!(acl("/sacl/one"), "c:-------s");
    silent("glite-eds-setacl -x z:gl-gl -x y:p /sacl/one -b 1 /sacl/two");
    assert_eq!(acl("/sacl/one"), "z:----l-g- y:p-------");
    assert_eq!(acl("/sacl/two"), acl("/sacl/one"));
    silent("glite-eds-setacl -x NONE /sacl/two");
    assert_eq!(acl("/sacl/two"), "");
    alice.write("set", "# a remark\n   m:g\nn:l\n\nnot read\n");
    silent("glite-eds-setacl -M set /sacl/two");
    assert_eq!(acl("/sacl/two"), "m:------g- n:----l---");
    alice.write("gone", "m\nn:l\n");
    silent("glite-eds-setacl -D gone /sacl/two");
    assert_eq!(acl("/sacl/two"), "");
    // -v says what was done, and nothing where nothing was
    let verbose = alice.run("glite-eds-setacl -v -m a:g /sacl/two").exits(0);
    assert!(verbose.stdout.starts_with("# Using endpoint https://"), "{verbose:?}");
    assert!(verbose.stdout.ends_with("\nChanged ACLs on /sacl/two\n"), "{verbose:?}");
    let unchanged = alice.run("glite-eds-setacl -v -m a:g /sacl/two").exits(0);
    assert!(!unchanged.stdout.contains("Changed"), "{unchanged:?}");
    let verbose = alice.run("glite-eds-chmod -v g+lg,o=l /sacl/one").exits(0);
    assert!(
        verbose.stdout.ends_with("\nChanged permissions on /sacl/one\n"),
        "{verbose:?}"
    );
    assert_eq!(
        base("/sacl/one"),
        "# Base perms: user pdrwl-gs, group ----l-g-, other ----l---"
    );
    assert_eq!(acl("/sacl/one"), "z:----l-g- y:p-------");
    silent("glite-eds-chmod g=- -b 0 /sacl/one /sacl/two");
    assert_eq!(
        base("/sacl/one"),
        "# Base perms: user pdrwl-gs, group --------, other ----l---"
    );
    // one that fails fails the whole, and the others are done all the same
    let failed = alice
        .run("glite-eds-setacl -v -b 1 -m q:g /sacl/none /sacl/two")
        .exits(1);
    let _ = failed
        .says("ERROR Missing permission for /sacl/none\n")
        .prints("Changed ACLs on /sacl/two\n");
    let quiet = alice.run("glite-eds-chmod -q o+g /sacl/none").exits(1);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn the_permission_family_has_its_own_manners() {
    let _whole = GRID.whole();
    let alice = GRID.desk("alice");
    for name in ["glite-eds-getacl", "glite-eds-setacl", "glite-eds-chmod"] {
        let help = alice.run_words(name, &["-h"]).exits(0);
        assert!(help.stdout.starts_with(&format!("Usage: {name} ")) && help.stderr.is_empty());
        let version = alice.run_words(name, &["-V"]).exits(0);
        assert_eq!(version.stdout, format!("{}\n", env!("CARGO_PKG_VERSION")));
        let unknown = alice.run_words(name, &["-z"]).exits(1);
        assert_eq!(
            (unknown.stdout.as_str(), unknown.stderr.as_str()),
            ("", "Unknown command line option\n")
        );
        let nothing = alice.run_words(name, &[]).exits(1);
        assert_eq!(nothing.stderr, "Illegal command line arguments\n");
    }
    for line in [
        "glite-eds-setacl /k",
        "glite-eds-setacl -m a:g",
        "glite-eds-setacl -m a:g -m a:l /k",
        "glite-eds-setacl -m a:g -d a /k",
        "glite-eds-setacl -m a:g -x b:g /k",
        "glite-eds-setacl -M f -D f /k",
        "glite-eds-setacl -m a:q /k",
        "glite-eds-setacl -d a:q /k",
        "glite-eds-setacl -m",
        "glite-eds-chmod g+g",
        "glite-eds-chmod -b many g+g /k",
    ] {
        let _ = alice.run(line).exits(1).says("Illegal command line arguments");
    }
    for mode in ["755", "g", "g+", "g+z", "x+g", ","] {
        let _ = alice
            .run_words("glite-eds-chmod", &[mode, "/k"])
            .exits(1)
            .says("Illegal mode argument");
    }
}
