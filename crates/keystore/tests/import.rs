//! Keys of an original Hydra, out of made dumps of three databases with every trap that those have.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use hydra_core::ids::StoreId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::sharing::{self, Offer};
use hydra_core::keystore::store::{Held, StoredEntry};
use hydra_core::permissions::Caller;
use hydra_core::secret::Key;
use hydra_keystore::backup::Store;
use hydra_keystore::database;
use hydra_keystore::legacy::dump::{self, Dump, DumpError};
use hydra_keystore::legacy::{self, Plan, PlanError, Report, Skip};

const STORES: [&str; 3] = ["ks-a", "ks-b", "ks-c"];
const KEY: &str = "00112233445566778899aabbccddeeff";

fn read(name: &str) -> Dump {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps").join(name);
    dump::read(std::fs::File::open(path).unwrap()).unwrap()
}

fn plan(own: &str) -> Plan {
    let stores = STORES.iter().map(|id| id.parse().unwrap()).collect();
    Plan::new(stores, own.parse().unwrap(), 10).unwrap()
}

struct Made {
    folder: tempfile::TempDir,
    id: StoreId,
    key: Key,
}

impl Made {
    fn new(id: &str) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), Key::random().unwrap());
        let id = id.parse().unwrap();
        database::create(&folder.path().join("db"), &id, &key, 1).unwrap();
        Self { folder, id, key }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn import(&self, dumps: Vec<Dump>, plan: &Plan, dry: bool) -> Report {
        let path = self.path();
        let store = Store {
            database: &path,
            id: &self.id,
            key: &self.key,
        };
        legacy::import(&store, legacy::candidates(dumps, plan), plan, dry, 2_000_000_000).unwrap()
    }

    fn held(&self, key_id: &str) -> Held {
        let connection = database::open_reader(&self.path()).unwrap();
        let keys = database::data_keys(&connection, &self.key).unwrap();
        database::load(&connection, &keys, &KeyId::imported(key_id).unwrap(), |_| true).unwrap()
    }

    fn entry(&self, key_id: &str) -> StoredEntry {
        self.held(key_id).entry.unwrap()
    }
}

fn all_dumps() -> Vec<Dump> {
    ["a.sql", "b.sql", "c.sql"].map(read).into()
}

#[test]
fn three_stores_import_alone_and_their_shares_join() {
    let stores = STORES.map(Made::new);
    for (store, name) in stores.iter().zip(["a.sql", "b.sql", "c.sql"]) {
        // Nobody needs to see the shares of others.
        let report = store.import(vec![read(name)], &plan(store.id.as_str()), false);
        assert!(report.imported >= 4, "{report:?}");
    }
    let cases = [
        ("/myvo/home/secret", KEY, "bf-cbc", "0102030405060708"),
        (
            "/myvo/it's \\ über",
            "123412341234123412341234123412341234123412341234",
            "des-ede3-cbc",
            "a0a1a2a3a4a5a6a7",
        ),
        (
            "/myvo/scans/a_b",
            "eeeeeeee0123456789abcdef0123456789abcdef0123456789abcdef00000001",
            "aes-256-cbc",
            "000102030405060708090a0b0c0d0e0f",
        ),
    ];
    for (key_id, key, cipher, iv) in cases {
        let entries = stores.each_ref().map(|store| store.entry(key_id));
        let constants = &entries[0].constants;
        assert_eq!((constants.cipher.as_str(), constants.iv.as_str()), (cipher, iv));
        let sharing = &entries[0].sharings[0].sharing;
        assert!(
            entries
                .iter()
                .all(|entry| entry.constants == *constants && entry.sharings[0].sharing == *sharing)
        );
        assert!(
            entries.iter().all(|entry| entry.record == entries[0].record),
            "one record, one change id"
        );
        for pair in [[0, 1], [1, 2], [2, 0]] {
            let offers = pair.map(|from| Offer {
                from,
                store: &stores[from].id,
                share: entries[from].sharings[0].share.as_ref().unwrap(),
            });
            let joined = sharing::join(&KeyId::imported(key_id).unwrap(), constants, sharing, &offers).unwrap();
            assert_eq!(data_encoding::HEXLOWER.encode(joined.key.expose()), key);
            assert!(!joined.verified);
        }
    }
}

#[test]
fn what_cannot_be_imported_as_it_was_is_reported() {
    let store = Made::new("ks-b");
    let report = store.import(all_dumps(), &plan("ks-b"), false);
    let said = |key_id: &str| {
        let found = report.skipped.iter().find(|(name, _)| name == key_id);
        found.map(|(_, skip)| skip.clone()).unwrap()
    };
    assert_eq!(said("/myvo/alone"), Skip::TooFew { have: 1, need: 2 });
    assert_eq!(said("/myvo/iv"), Skip::Disagree("iv"));
    assert_eq!(said("/myvo/twice"), Skip::TwoShares(1));
    let both = vec!["/myvo/Case".to_owned(), "/myvo/case".to_owned()];
    assert_eq!(
        (said("/myvo/Case"), said("/myvo/case")),
        (Skip::Spellings(both.clone()), Skip::Spellings(both))
    );
    assert_eq!(
        said("/myvo/bits"),
        Skip::Bits {
            said: "192".into(),
            has: 128
        }
    );
    assert_eq!(said("/myvo/nokey"), Skip::NoKey);
    assert_eq!(said("/myvo/elsewhere"), Skip::Schema("other".into()));
    assert_eq!((report.imported, report.present, report.skipped.len()), (3, 0, 8));
    // Keys of removed entries, which the original left in its tables (D-22), are never brought back.
    assert_eq!((report.orphan_keys, report.orphan_acl), (3, 6));

    let entry = store.entry("/myvo/home/secret");
    let record = &entry.record;
    assert_eq!(record.owner, "/O=Utopia/OU=Radiology/CN=Alice Example");
    assert_eq!(record.group, "/myvo");
    // l and x are the other way round in the original's database, and eight bits are a negative number.
    assert_eq!(record.user.to_string(), "pdrwl-gs");
    let acl: Vec<_> = record
        .acl
        .iter()
        .map(|line| format!("{}:{}", line.principal, line.permissions))
        .collect();
    assert_eq!(
        acl,
        [
            "/O=Utopia/CN=Bob Example/emailAddress=bob@example.org:----l-g-",
            "/myvo:----lx--"
        ]
    );
    assert_eq!(entry.created, 1_257_847_201);
    assert_eq!(entry.placed_by, "hydra-keystore import-legacy");
    let caller = Caller {
        dn: record.owner.clone(),
        fqans: Vec::new(),
        administrator: false,
    };
    assert!(caller.is(&record.owner));
    let connection = database::open_reader(&store.path()).unwrap();
    let everybody = database::list(&connection, database::Range::Prefix("/"), Some(&["/myvo"]), None, 10).unwrap();
    assert_eq!(everybody.len(), 1, "the ACL is in the index of lists");
}

#[test]
fn importing_again_changes_nothing_and_a_dry_run_nothing_at_all() {
    let store = Made::new("ks-b");
    let lines = || {
        let connection = database::open_reader(&store.path()).unwrap();
        database::audit_rows(&connection, 0, 100).unwrap().len()
    };
    let dry = store.import(all_dumps(), &plan("ks-b"), true);
    assert_eq!((dry.imported, lines()), (3, 0));
    assert!(store.held("/myvo/home/secret").entry.is_none());
    let first = store.import(all_dumps(), &plan("ks-b"), false);
    assert_eq!((first.imported, first.present, lines()), (3, 0, 3));
    let again = store.import(all_dumps(), &plan("ks-b"), false);
    assert_eq!((again.imported, again.present, lines()), (0, 3, 3));
    assert_eq!(again.skipped, first.skipped);
    // Under another order of stores it would be another sharing.
    let turned = Plan::new(
        ["ks-c", "ks-b", "ks-a"].map(|id| id.parse().unwrap()).into(),
        "ks-b".parse().unwrap(),
        10,
    );
    let turned = store.import(all_dumps(), &turned.unwrap(), false);
    assert_eq!(
        turned.skipped.iter().filter(|(_, skip)| *skip == Skip::Differs).count(),
        3
    );
}

#[test]
fn what_was_removed_since_is_not_brought_back() {
    let store = Made::new("ks-b");
    store.import(all_dumps(), &plan("ks-b"), false);
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    raw.execute_batch(
        "INSERT INTO tombstones(key_id, registration_id, removed_by, removed_at)
             SELECT key_id, registration_id, '/CN=x', 1 FROM entries WHERE key_id = '/myvo/home/secret';
         DELETE FROM listable; DELETE FROM entries;",
    )
    .unwrap();
    drop(raw);
    let report = store.import(all_dumps(), &plan("ks-b"), false);
    assert_eq!(report.imported, 2);
    assert!(report.skipped.contains(&("/myvo/home/secret".into(), Skip::Removed)));
}

#[test]
fn shares_of_other_stores_are_told_from_ours() {
    let store = Made::new("ks-c");
    let report = store.import(vec![read("a.sql")], &plan("ks-c"), false);
    assert_eq!(report.imported, 0);
    let skip = &report
        .skipped
        .iter()
        .find(|(name, _)| name == "/myvo/home/secret")
        .unwrap()
        .1;
    assert_eq!(
        *skip,
        Skip::NotOurs {
            own: 3,
            found: "1".into()
        }
    );
    let two = Plan::new(
        ["ks-c", "ks-b"].map(|id| id.parse().unwrap()).into(),
        "ks-c".parse().unwrap(),
        10,
    )
    .unwrap();
    let report = store.import(vec![read("c.sql")], &two, false);
    assert!(report.imported == 0 && !report.skipped.is_empty());
    let unknown = Plan::new(vec!["ks-a".parse().unwrap()], "ks-b".parse().unwrap(), 10);
    assert!(matches!(unknown, Err(PlanError::NotThere(_))));
    let twice = Plan::new(
        vec!["ks-a".parse().unwrap(), "ks-a".parse().unwrap()],
        "ks-a".parse().unwrap(),
        10,
    );
    assert!(matches!(twice, Err(PlanError::Stores)));
}

/// A dump of the first schemas: whole keys, no columns for shares.
const OLD: &str = "CREATE TABLE t_meta_vers (major int, minor int, patch int);
    CREATE TABLE t_principal (principal_id int, principal_name varchar(250));
    CREATE TABLE t_entry (entry_id int, entry_name varchar(250), owner_id int, user_perm tinyint, group_perm tinyint,
        other_perm tinyint, primary key (entry_id));
    CREATE TABLE eds (entry_id int, edscipher varchar(50), edskey varchar(200), edsiv varchar(200), edskeyinfo text);
    INSERT INTO t_meta_vers VALUES (1,1,0);
    insert into t_principal values (1,'/CN=a');
    INSERT INTO t_entry VALUES (1,'old',1,-1,0,0);
    INSERT INTO eds VALUES (1,'BF-CBC',x'4646464630303031','0102030405060708',NULL);";

#[test]
fn a_whole_key_of_the_first_schemas_is_a_sharing_of_one() {
    let store = Made::new("ks-b");
    let dump = dump::read(OLD.as_bytes()).unwrap();
    let report = store.import(vec![dump], &plan("ks-b"), false);
    assert_eq!((report.imported, report.skipped.as_slice()), (1, &[][..]));
    let entry = store.entry("old");
    let stored = &entry.sharings[0];
    assert_eq!(
        (stored.sharing.m, stored.sharing.n, stored.sharing.stores.as_slice()),
        (1, 1, &[store.id.clone()][..])
    );
    assert_eq!(entry.record.user.to_string(), "pdrwlxgs");
    let offer = Offer {
        from: 0,
        store: &store.id,
        share: stored.share.as_ref().unwrap(),
    };
    let joined = sharing::join(
        &KeyId::imported("old").unwrap(),
        &entry.constants,
        &stored.sharing,
        &[offer],
    )
    .unwrap();
    // A group above the field's prime: a key that was never split may have one.
    assert_eq!(joined.key.expose(), [0xff, 0xff, 0x00, 0x01]);
}

#[test]
fn dumps_that_are_none_are_refused_and_say_where() {
    let tables = OLD.split("INSERT").next().unwrap();
    let refused = |text: &str| {
        dump::read(text.as_bytes())
            .err()
            .map(|error| error.to_string())
            .unwrap()
    };
    for (text, words) in [
        ("", "no table `t_entry`"),
        ("SELECT 1;", "statement `SELECT`"),
        ("UPDATE eds SET edskey = '';", "line 1: a statement `UPDATE`"),
        (
            "\n\nINSERT INTO eds VALUES (1);",
            "line 3: the columns of `eds` are not named",
        ),
        (
            "INSERT INTO eds (entry_id, x) VALUES (1,2);",
            "`eds` has no column `edscipher`",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1);",
            "as many values",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,'a'),(1,'b');",
            "two rows of `t_principal`",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,now());",
            "a value is a text",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES ('x','a');",
            "a number does not read",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,NULL);",
            "NULL stands",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) SELECT 1,2;",
            "inserted as VALUES",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,0xabc);",
            "hex digits",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,'a",
            "ends inside of a text",
        ),
        (
            "INSERT INTO t_principal (principal_id, principal_name) VALUES (1,'a\\",
            "ends inside of a text",
        ),
        ("/* never", "ends inside of a comment"),
        ("`never", "ends inside of a name"),
        ("'text';", "begins with a word"),
        ("CREATE TABLE eds (a int", "ends inside of a table's columns"),
        ("CREATE TABLE eds (a int); CREATE TABLE eds (a int);", "a second time"),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}: {said}");
    }
    let long = format!(
        "INSERT INTO t_schema (schema_id, schema_name) VALUES (1,'{}');",
        "x".repeat(70_000)
    );
    assert!(refused(&long).contains("too long"));
    let second = format!("{OLD} USE other; INSERT INTO eds (entry_id) VALUES (2);");
    assert!(refused(&second).contains("second time"));
    let newer = format!("{tables} INSERT INTO t_meta_vers VALUES (2,0,0);");
    assert!(matches!(
        dump::read(newer.as_bytes()),
        Err(DumpError::Version { major: 2, minor: 0 })
    ));
    // Of other tables anything may be there, of any length.
    let others = format!(
        "{OLD} INSERT INTO `x`.`log` VALUES (now(), 'a\\'b''c;', \"{}\", -1.5e3);",
        "y".repeat(200_000)
    );
    assert_eq!(dump::read(others.as_bytes()).unwrap().keys.len(), 1);
    let escapes = "INSERT INTO t_principal (principal_id, principal_name) VALUES (-7,_utf8'a''b\\\"\\\\\\n\\%\\q');";
    let read = dump::read(format!("{OLD} {escapes}").as_bytes()).unwrap();
    assert_eq!(read.principals[&-7], b"a'b\"\\\n\\%q");
}
