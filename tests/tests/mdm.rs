//! The commands of the catalogue against a real one, with three key stores beside it: names, attributes, searches; the
//! permissions of name, halves and key at once; the `lcg-*` names and `mdcli` (`docs/src/commands/mdm.md`,
//! `docs/src/commands/lcg.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use hydra_tests::desk::{Desk, SharedGrid};
use hydra_xtask::dicom::{INVENTED, ct_slice};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| {
    SharedGrid::up(&GridOptions {
        catalog: true,
        ..GridOptions::default()
    })
});

const PLAIN: &[u8] = b"512 x 512 pixels";

/// A desk with a folder `se` where new files go.
fn desk(user: &str) -> Desk {
    let mut desk = GRID.desk(user);
    std::fs::create_dir(desk.path("se")).unwrap();
    let folder = format!("file://{}", desk.path("se").display());
    desk.set("VO_MYVO_DEFAULT_SE", &folder);
    desk
}

fn dn(user: &str) -> String {
    let told = GRID.desk(user).run("eds-whoami --json").exits(0).json();
    told["dn"].as_str().unwrap().to_owned()
}

/// alice with a sealed and registered file.
fn alice_with(name: &str) -> Desk {
    let alice = desk("alice");
    alice.write("plain", PLAIN);
    let _ = alice.run_words("eds-key-register", &[name]).exits(0);
    let _ = alice.run_words("eds-encrypt", &[name, "plain", "sealed"]).exits(0);
    let _ = alice.run_words("lcg-cr", &["-l", name, "file:sealed"]).exits(1);
    let _ = alice
        .run_words("lcg-cr", &["-l", &format!("lfn:{name}"), "sealed"])
        .exits(0);
    alice
}

#[test]
fn the_originals_transcript_runs_whole() {
    let _whole = GRID.whole();
    let alice = desk("alice");
    alice.write("my-file", PLAIN);
    let script = "
        glite-eds-key-register /myvo/home/secret
        glite-eds-encrypt my-file secret
        lcg-cr secret lfn://myvo/home/secret
        rm secret
        lcg-cp lfn://myvo/home/secret secret
        glite-eds-decrypt /myvo/home/secret my-new-file
    ";
    let ended = alice.shell(script).exits(0);
    assert_eq!(alice.read("my-new-file"), PLAIN);
    let guid = ended.stdout.lines().find(|line| line.starts_with("guid:")).unwrap();
    let shown = alice.run("mdm-show --json lfn:/myvo/home/secret").exits(0).json();
    let entry = &shown["entries"][0];
    assert_eq!(entry["key_id"], "/myvo/home/secret");
    assert_eq!(entry["size"], alice.read("secret").len());
    assert_eq!(entry["status"], "online");
    assert_eq!(alice.run("lcg-lg lfn:/myvo/home/secret").exits(0).stdout.trim(), guid);
    let _ = alice
        .run_words("lcg-la", &[guid])
        .exits(0)
        .prints("lfn:/myvo/home/secret\n");
    // nobody else sees that there is such a name, in the same words as for one that there is not
    let carol = desk("carol");
    let hidden = carol.run("lcg-cp lfn:/myvo/home/secret x").exits(1);
    let absent = carol.run("lcg-cp lfn:/myvo/home/absent x").exits(1);
    assert_eq!(hidden.stderr.replace("secret", "absent"), absent.stderr);
    assert_eq!(carol.names(), ["se"]);
}

#[test]
fn names_and_attributes_are_made_found_and_removed() {
    let _whole = GRID.whole();
    let alice = desk("alice");
    let _ = alice.run("mdm-mkdir /myvo/browse/a").exits(77);
    let _ = alice
        .run("mdm-mkdir -p /myvo/browse/a")
        .exits(0)
        .prints("made /myvo/browse/a\n");
    let _ = alice.run("mdm-mkdir /myvo/browse/a").exits(73).says("is there already");
    let _ = alice.run("mdm-mkdir -p /myvo/browse/a").exits(0);
    let _ = alice
        .run("mdm-schema --images /myvo/browse")
        .exits(0)
        .prints("patient_name");
    let _ = alice
        .run("mdm-schema --add note:string /myvo/browse")
        .exits(0)
        .prints("note");
    for (number, modality) in [(1, "MR"), (2, "MR"), (3, "CT")] {
        let file = format!("/myvo/browse/a/{number}");
        let line = format!("addentry {file} modality {modality} rows {}", number * 256);
        let words: Vec<&str> = line.split(' ').collect();
        let _ = alice.run_words("mdcli", &words).exits(0);
    }
    let _ = alice
        .run_words(
            "mdm-set",
            &["/myvo/browse/a/1", "note=it's \"quoted\", 'so'; DROP TABLE entries"],
        )
        .exits(0);
    let found = alice
        .run_words("mdm-find", &["/myvo/browse", "modality = 'MR' ORDER BY rows DESC"])
        .exits(0);
    assert_eq!(found.stdout, "/myvo/browse/a/2\n/myvo/browse/a/1\n");
    let first = alice
        .run_words(
            "mdm-find",
            &["-n", "1", "/myvo/browse", "modality = 'MR' ORDER BY rows DESC"],
        )
        .exits(0);
    assert_eq!(first.stdout, "/myvo/browse/a/2\n");
    let csv = [
        "--csv",
        "--columns",
        "name,Rows,note",
        "/myvo/browse",
        "note IS NOT NULL",
    ];
    let csv = alice.run_words("mdm-find", &csv).exits(0);
    let row = "/myvo/browse/a/1,256,\"it's \"\"quoted\"\", 'so'; DROP TABLE entries\"\r\n";
    assert!(csv.stdout.ends_with(row), "{}", csv.stdout);
    let _ = alice
        .run_words("mdm-find", &["--count", "/myvo/browse"])
        .exits(0)
        .prints("3\n");
    let _ = alice.run_words("mdm-find", &["/myvo/browse", "modality ="]).exits(2);
    let _ = alice
        .run_words("mdm-find", &["/myvo/browse", "nothing = 1"])
        .exits(2)
        .says("nothing");
    let _ = alice
        .run("mdm-set /myvo/browse/a/1 rows=many")
        .exits(2)
        .says("an integer");
    let listed = alice.run("mdm-ls /myvo/browse").exits(0);
    assert_eq!(listed.stdout, "a/\n");
    let listed = alice.run("mdm ls -R /myvo/browse").exits(0);
    assert_eq!(listed.stdout.lines().count(), 4, "{}", listed.stdout);
    let _ = alice
        .run("mdm-show /myvo/browse/a/3")
        .exits(0)
        .prints("rows               768");
    let _ = alice
        .run("mdm-set /myvo/browse/a/3 --rename /myvo/browse/a/4 modality=")
        .exits(0);
    let _ = alice
        .run("mdm-show /myvo/browse/a/3")
        .exits(77)
        .says("is not there, or not shown to you");
    let _ = alice.run("mdm-rm /myvo/browse/a").exits(73);
    let _ = alice
        .run("mdm-rm -r /myvo/browse")
        .exits(0)
        .prints("removed /myvo/browse, 5 entries\n");
    let _ = alice.run("mdm-ls /myvo/browse").exits(77);
}

#[test]
fn permissions_of_all_four_are_changed_and_shown_together() {
    let _whole = GRID.whole();
    let name = "/myvo/together/17";
    let alice = alice_with(name);
    let (bob, bob_dn) = (desk("bob"), dn("bob"));
    let _ = bob.run_words("mdm-show", &[name]).exits(77);
    for directory in ["/myvo", "/myvo/together"] {
        let words = ["--part", "name", "-m", &format!("{bob_dn}:lr"), directory];
        let _ = alice.run_words("mdm-setacl", &words).exits(0);
    }
    let grant = ["-m", &format!("{bob_dn}:lrg"), name];
    let changed = alice.run_words("mdm-setacl", &grant).exits(0);
    assert_eq!(changed.stdout, format!("changed {name}: name, anonymous, key\n"));
    let again = alice.run_words("mdm-setacl", &grant).exits(0);
    assert_eq!(again.stdout, format!("unchanged {name}\n"));
    // he finds it, fetches it and opens it
    let _ = bob.run_words("lcg-cp", &[&format!("lfn:{name}"), "sealed"]).exits(0);
    let _ = bob.run("eds-decrypt sealed opened").exits(0);
    assert_eq!(bob.read("opened"), PLAIN);
    let listed = alice.run_words("mdm-getacl", &[name]).exits(0);
    let line = format!("--r-l-g-    --r-l-g-    --------    --r-l-g-    {bob_dn}\n");
    assert!(listed.stdout.contains(&line), "{}", listed.stdout);
    assert!(!listed.stdout.contains("but not"), "{}", listed.stdout);
    // what does not fit is named
    let _ = alice.run_words("eds-setacl", &["-d", &bob_dn, name]).exits(0);
    let _ = alice
        .run_words("mdm-getacl", &[name])
        .exits(0)
        .prints(&format!("# {bob_dn} may read the name but not use the key"));
    // and taken back, everywhere
    let taken = alice.run_words("mdm-setacl", &["-d", &bob_dn, name]).exits(0);
    assert_eq!(taken.stdout, format!("changed {name}: name, anonymous\n"));
    let _ = bob.run_words("mdm-show", &[name]).exits(77);
    let _ = bob.run("eds-decrypt --force sealed opened").exits(77);
    // a group without its slash is nobody
    for command in ["mdm-setacl", "eds-setacl"] {
        let _ = alice
            .run_words(command, &["-m", "myvo/researchers:lrg", name])
            .exits(2)
            .says("--modify /myvo/researchers:lrg");
    }
    // the identifying half gives nothing by the way, and takes
    let named = ["--part", "identifying", "-m", &format!("{bob_dn}:g"), name];
    let _ = alice.run_words("mdm-setacl", &named).exits(0).prints(": identifying\n");
    let taken = alice.run_words("mdm-setacl", &["-d", &bob_dn, name]).exits(0);
    assert_eq!(taken.stdout, format!("changed {name}: identifying\n"));
    // and goes to another owner only if it is said, with the name as the last
    let owner = ["--owner", &bob_dn, name];
    let _ = alice
        .run_words("mdm-setacl", &owner)
        .exits(2)
        .says("has to be said; nothing was changed");
    let all = ["--part", "name,anonymous,identifying"];
    let given = alice.run_words("mdm-setacl", &[&all, &owner[..]].concat()).exits(0);
    assert_eq!(given.stdout, format!("changed {name}: name, anonymous, identifying\n"));
    let _ = bob
        .run_words(
            "mdm-setacl",
            &["--part", "identifying", "-m", &format!("{bob_dn}:g"), name],
        )
        .exits(0);
}

#[test]
fn a_change_that_stays_in_part_is_told_and_finished_by_the_same_command() {
    let name = "/myvo/in-part/17";
    let mut broken = GRID.alone();
    let alice = alice_with(name);
    let grant = ["-m", "/myvo/researchers:lrg", name];
    broken.kill(3);
    let _ = alice
        .run_words("mdm-setacl", &grant)
        .exits(75)
        .says("are changed in part: in force for name, anonymous")
        .says("cause: key: ");
    broken.start_again();
    let _ = alice.run_words("mdm-setacl", &grant).exits(0).prints(": key\n");
    let listed = alice.run_words("mdm-getacl", &[name]).exits(0);
    assert!(
        listed
            .stdout
            .contains("--r-l-g-    --r-l-g-    --------    --r-l-g-    /myvo/researchers"),
        "{listed:?}"
    );
}

#[test]
fn replicas_are_made_listed_and_removed() {
    let _whole = GRID.whole();
    let name = "/myvo/replicas/17";
    let alice = alice_with(name);
    let lfn = format!("lfn:{name}");
    std::fs::create_dir(alice.path("se2")).unwrap();
    let second = format!("file://{}/copy", alice.path("se2").display());
    let _ = alice
        .run_words("lcg-rep", &["-v", "-b", "--vo", "myvo", "-d", &second, &lfn])
        .exits(0);
    assert_eq!(alice.read("se2/copy"), alice.read("sealed"));
    let listed = alice.run_words("lcg-lr", &[&lfn]).exits(0);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert!(listed.stdout.contains(&second), "{}", listed.stdout);
    // a replica stands for its file, to those who may see where its replicas are
    for command in ["lcg-lr", "lcg-la", "lcg-lg"] {
        let by_name = alice.run_words(command, &[&lfn]).exits(0).stdout;
        assert_eq!(
            alice.run_words(command, &[&second]).exits(0).stdout,
            by_name,
            "{command}"
        );
    }
    let _ = GRID
        .desk("carol")
        .run_words("lcg-la", &[&second])
        .exits(1)
        .says("is no replica of a file that is shown to you");
    let third = format!("file://{}/copy3", alice.path("se2").display());
    let _ = alice.run_words("lcg-rep", &["-d", &third, &second]).exits(0);
    assert_eq!(alice.read("se2/copy3"), alice.read("sealed"));
    let _ = alice.run_words("lcg-del", &[&third]).exits(0);
    assert!(!alice.path("se2/copy3").exists() && alice.path("se2/copy").exists());
    let _ = alice.run_words("lcg-la", &[&third]).exits(1);
    let _ = alice.run_words("lcg-lr", &["file:copy"]).exits(1);
    // what was changed on its way is not taken: the other replica is
    let first = std::fs::read_dir(alice.path("se"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&first).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    alice.write("se2/copy", alice.read("sealed"));
    let _ = alice.run_words("lcg-cp", &[&lfn, "fetched"]).exits(0);
    assert_eq!(alice.read("fetched"), alice.read("sealed"));
    let _ = alice.run_words("mdm-rm", &[name]).exits(73);
    let _ = alice.run("mdm-rm -r /myvo/replicas").exits(73).says("has replicas");
    let _ = alice.run_words("lcg-del", &[&lfn]).exits(1).says("-a and -s");
    let _ = alice.run_words("lcg-del", &["-a", &lfn]).exits(0);
    let _ = alice
        .run_words("lcg-lr", &[&lfn])
        .exits(1)
        .says("is not there, or not shown to you");
    assert!(!first.exists() && !alice.path("se2/copy").exists());
    // a name that is taken keeps its file, and the new one is taken away again
    let _ = alice.run_words("lcg-cr", &["sealed", &lfn]).exits(0);
    let _ = alice
        .run_words("lcg-cr", &["sealed", &lfn])
        .exits(1)
        .says("is there already");
    assert_eq!(std::fs::read_dir(alice.path("se")).unwrap().count(), 1);
}

#[test]
fn a_tree_goes_whole_or_not_at_all() {
    let _whole = GRID.whole();
    let (alice, bob) = (desk("alice"), desk("bob"));
    let left = || alice.run("mdm-ls -R /myvo/tree").exits(0).stdout;
    for directory in ["a", "b"] {
        let _ = alice
            .run_words("mdm-mkdir", &["-p", &format!("/myvo/tree/{directory}")])
            .exits(0);
    }
    for name in ["/myvo/tree/a/2", "/myvo/tree/b/3"] {
        let _ = alice.run_words("mdcli", &["addentry", name]).exits(0);
    }
    // What bob makes in her directory is his, and nothing that she sees.
    for directory in ["/myvo/tree", "/myvo/tree/b"] {
        let words = ["--part", "name", "-m", &format!("{}:lrw", dn("bob")), directory];
        let _ = alice.run_words("mdm-setacl", &words).exits(0);
    }
    let _ = bob.run("mdm-mkdir /myvo/tree/b/his").exits(0);
    assert_eq!(left().lines().count(), 4, "{}", left());
    let all = alice.run("mdm-rm -r /myvo/tree").exits(77);
    let all = all.says("`/myvo/tree` is not allowed to you: something below it is not yours to remove");
    assert_eq!((all.stdout.as_str(), left().lines().count()), ("", 4));
    // nor is hers his, where he may only make names
    let _ = bob.run("mdm-rm -r /myvo/tree/b").exits(77).says("needs `d`");
    // A file with a replica: named, and left with all beside it.
    alice.write("plain", PLAIN);
    let _ = alice.run("eds-key-register /myvo/tree/a/1").exits(0);
    let _ = alice.run("eds-encrypt /myvo/tree/a/1 plain sealed").exits(0);
    let _ = alice.run("lcg-cr sealed lfn:/myvo/tree/a/1").exits(0);
    let _ = alice
        .run("mdm-rm /myvo/tree/a")
        .exits(73)
        .says("the directory is not empty");
    let kept = alice.run("mdm-rm -r /myvo/tree/a /myvo/tree/b/3").exits(73);
    let kept = kept.says("`/myvo/tree/a` is left: `/myvo/tree/a/1` in it has replicas");
    let kept = kept.says("  try: lcg-del -a").says("error: 1 of 2 are removed");
    assert_eq!(kept.stdout, "removed /myvo/tree/b/3\n");
    assert_eq!(left(), "/myvo/tree/a/\n/myvo/tree/a/1\n/myvo/tree/a/2\n/myvo/tree/b/\n");
    // By force the names go; what they led to stays, and opens.
    let forced = alice.run("mdm-rm -rf /myvo/tree/a /myvo/tree/none").exits(0);
    assert_eq!(forced.stdout, "removed /myvo/tree/a, 3 entries\n");
    let replica = std::fs::read_dir(alice.path("se")).unwrap().next().unwrap().unwrap();
    assert_eq!(std::fs::read(replica.path()).unwrap(), alice.read("sealed"));
    let _ = alice.run("eds-decrypt sealed opened").exits(0);
    assert_eq!(alice.read("opened"), PLAIN);
    // An administrator takes what is left, of whomever it is.
    let _ = bob.run("mdm-rm -r /myvo/tree").exits(77);
    let gone = desk("admin").run("mdm-rm -r --json /myvo/tree").exits(0).json();
    assert_eq!(gone["entries"][0]["removed"], 3);
    let _ = bob.run("mdm-ls /myvo/tree/b/his").exits(77);
    let _ = alice.run("mdm-rm -r /").exits(2).says("cannot be removed");
}

#[test]
fn transcripts_hold() {
    let _whole = GRID.whole();
    let alice = desk("alice");
    alice.write("plain", PLAIN);
    let expected = include_str!("../transcripts/catalogue.txt");
    let mut actual = String::new();
    for block in expected.split_inclusive("\n\n") {
        let Some(line) = block.lines().next().and_then(|line| line.strip_prefix("$ ")) else {
            actual.push_str(block);
            continue;
        };
        let ended = alice.shell(&format!(
            "offline() {{ env -u MDM_CATALOG -u EDS_CONFIG \"$@\"; }}; exec 2>&1; {line}"
        ));
        let code = match ended.code {
            Some(0) => String::new(),
            code => format!("? {}\n", code.unwrap()),
        };
        let end = if block.ends_with("\n\n") { "\n" } else { "" };
        let said = ended.stdout.replace(&alice.path("").display().to_string(), "~/");
        actual.push_str(&format!("$ {line}\n{code}{said}{end}"));
    }
    assert!(actual == expected, "the transcripts are now:\n{actual}");
}

#[test]
fn every_command_explains_itself_and_refuses_what_it_does_not_know() {
    let alice = GRID.desk("alice");
    for name in mdm::names() {
        let wrong = if name.starts_with("mdm-") { 2 } else { 1 };
        let explained = alice.run_words(name, &["--help"]).exits(0);
        assert!(explained.stderr.is_empty(), "{name}: {explained:?}");
        let _ = explained.prints(&format!("Usage: {name}"));
        let refused = alice.run_words(name, &["--no-such-option"]).exits(wrong);
        assert!(
            !refused.stderr.is_empty() && refused.stdout.is_empty(),
            "{name}: {refused:?}"
        );
        // mdm-ls alone has something to do without being told what
        if name != "mdm-ls" {
            let _ = alice.run_words(name, &[]).exits(wrong);
        }
    }
}

#[test]
fn a_turl_is_the_doors_url() {
    let _whole = GRID.whole();
    let alice = desk("alice");
    let surl = format!("file://{}/x", alice.path("se").display());
    let _ = alice
        .run_words("lcg-gt", &[&surl, "rfio", "file"])
        .exits(0)
        .prints(&surl);
    let _ = alice
        .run_words("lcg-gt", &[&surl, "rfio"])
        .exits(1)
        .says("has no door for rfio");
    let _ = alice.run_words("lcg-gt", &[&surl]).exits(1).says("Usage: lcg-gt");
}

#[test]
fn commands_of_amga_run_as_they_did() {
    let _whole = GRID.whole();
    let alice = desk("alice");
    let _ = alice.run("mdm-mkdir -p /myvo").exits(0);
    let script = r#"
        mdcli createdir /myvo/jobs
        mdcli addattr /myvo/jobs owner 'varchar(20)' cpus int
        mdcli addentry /myvo/jobs/1 owner koblitz cpus 4
        mdcli addentry /myvo/jobs/2 owner "O'Hara" cpus 2
        mdcli listattr /myvo/jobs
        mdcli find /myvo/jobs 'like(/myvo/jobs:owner, "ko%") and cpus > 2'
        mdcli find /myvo/jobs 'owner = "O'"'"'Hara"'
        mdcli getattr /myvo/jobs/1 owner cpus
        mdcli setattr /myvo/jobs/1 cpus 8
        mdcli selectattr /myvo/jobs:owner /myvo/jobs:cpus 'cpus > 4'
        mdcli listentries /myvo/jobs
        mdcli rm /myvo/jobs/2
        mdcli rm /myvo/jobs/1
        mdcli dir /myvo/jobs
        mdcli rmdir /myvo/jobs
    "#;
    let ended = alice.shell(script).exits(0);
    let printed: Vec<&str> = ended.stdout.lines().collect();
    let expected = [
        "owner",
        "text",
        "cpus",
        "int", // listattr
        "/myvo/jobs/1",
        "/myvo/jobs/2", // find
        "1",
        "koblitz",
        "4", // getattr
        "koblitz",
        "8", // selectattr
        "/myvo/jobs/1",
        "/myvo/jobs/2", // listentries
    ];
    assert_eq!(printed, expected);
    let _ = alice.run("mdcli getattr /myvo/jobs/1 owner").exits(1).says("Error: 1 ");
    let _ = alice.run("mdcli frobnicate").exits(1).says("Error: 3 ");
    let _ = alice.run("mdcli createdir /myvo").exits(1).says("Error: 16 ");
    let nonsense = ["find", "/myvo", "nonsense = 1"];
    let _ = alice.run_words("mdcli", &nonsense).exits(1).says("Error: 8 ");
    let _ = alice.run("mdcli whoami").exits(0).prints(&dn("alice"));
}

#[test]
fn without_a_catalogue_the_commands_say_so() {
    let mut alice = GRID.desk("alice");
    alice.set("MDM_CATALOG", "https://127.0.0.1:9");
    let _ = alice.run("mdm-ls /myvo").exits(75).says("refused the connection");
    let _ = alice.run("lcg-lr lfn:/myvo/x").exits(1).says("refused the connection");
    let _ = alice.run("mdcli dir /myvo").exits(1).says("Error: 9 ");
    alice.unset("MDM_CATALOG");
    let _ = alice.run("mdm-ls /myvo").exits(78).says("no catalogue is configured");
}

#[test]
fn a_broken_header_keeps_no_other_image_back() {
    /// More than one request takes.
    const IMAGES: u128 = 1010;
    /// Of a slice: its pixels, which nobody looks at.
    const PIXELS: usize = 512 * 512 * 2;
    let _whole = GRID.whole();
    let alice = desk("alice");
    std::fs::create_dir(alice.path("scans")).unwrap();
    let mut first = ct_slice(&INVENTED, [471_000, 471_001, 471_100, 9]);
    first.truncate(first.len() - PIXELS + 64);
    let scan = |number: u128| {
        let (from, to) = ("2.25.471100", format!("2.25.{}", 471_100 + number));
        let places = (0..first.len() - from.len()).filter(|at| first[*at..].starts_with(from.as_bytes()));
        let mut file = first.clone();
        for at in places {
            file[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        file
    };
    for number in 0..IMAGES {
        let mut file = scan(number);
        file.truncate(match number {
            // in the midst of an element
            500 => 701,
            501 => 140,
            _ => file.len(),
        });
        alice.write(&format!("scans/{number:04}.dcm"), file);
    }
    alice.write("secret", [7; 32]);
    std::fs::set_permissions(alice.path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let catalog = alice.variable("MDM_CATALOG").to_owned();
    alice.write(
        "recall.toml",
        format!(
            "[pacs]\nmethod = \"c-get\"\nae_title = \"HYDRA\"\naet = \"PACS\"\nhost = \"127.0.0.1\"\nport = 104\n\
             [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n\
             [place]\nconnect = \"unix:line.sock\"\n[catalog]\nurl = \"{catalog}\"\n"
        ),
    );
    let _ = alice.run("mdm-mkdir -p /myvo/many").exits(0);
    let _ = alice.run("mdm-schema --images /myvo/many").exits(0);
    let register = "mdm-register --config recall.toml --into /myvo/many scans";
    let first = alice.run(register).exits(1);
    let first = first.prints("registered 1008 images under 1 new key, 0 already registered");
    for number in [501, 502] {
        let words = format!("image {number} of {IMAGES} was not registered");
        assert!(first.stderr.contains(&words), "{}", first.stderr);
    }
    assert_eq!(
        first.stderr.matches("was not registered:").count(),
        2,
        "{}",
        first.stderr
    );
    assert!(!first.stderr.contains(INVENTED.name));
    let _ = alice.run("mdm-find --count /myvo/many").exits(0).prints("1008\n");
    let query = format!("patient_id = '{}'", INVENTED.id);
    let _ = alice
        .run_words("mdm-find", &["--count", "/myvo/many", &query])
        .exits(0)
        .prints("1008\n");
    let _ = alice
        .run("mdm-register --config recall.toml --list")
        .exits(0)
        .says("at their end");
    // When the files are mended, only they are new.
    for number in [500, 501] {
        alice.write(&format!("scans/{number:04}.dcm"), scan(number));
    }
    let _ = alice
        .run(register)
        .exits(0)
        .prints("registered 2 images under 0 new keys, 1008 already registered");
}
