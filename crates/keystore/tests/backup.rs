//! Backups and what comes of them: of one moment, whole or not there, in quarantine once restored; with real kills.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Client, PROGRAM, config, grid, key, of, run};
use hydra_keystore::database;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_is_in_quarantine_until_confirmed_or_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = grid(folder.path(), "");
    let config = config(&grid);
    let (alice, bob) = (Client::new(&grid, "alice").await, Client::new(&grid, "bob").await);
    for key_id in ["/q/1", "/q/2", "/q/3", "/q/gone"] {
        alice.register(key_id).await;
    }
    let file = folder.path().join("backup.db");
    let file = file.to_str().unwrap();
    let (code, out, error) = run(&["backup", &config, file]);
    assert!(
        code == 0 && out.starts_with("ok: 4 entries, 0 tombstones, 0 stop marks\nhydra-audit-head-1:"),
        "{out}{error}"
    );
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Path::new(&format!("{file}-wal")).exists());
    let (code, _, error) = run(&["backup", &config, file]);
    assert!(code == 73 && error.contains("is there already"), "{error}");

    assert_eq!(alice.said("remove", of("/q/gone")).await, "ok");
    alice.register("/q/later").await;
    assert!(
        run(&["restore", &config, file, "--replace"]).0 == 75,
        "the store is serving"
    );
    grid.terminate(1).unwrap();
    let (code, _, error) = run(&["restore", &config, file]);
    assert!(code == 73 && error.contains("--replace"), "{error}");
    let (code, out, error) = run(&["restore", &config, file, "--replace"]);
    assert!(
        code == 0 && out.contains("4 entries") && out.contains("in quarantine"),
        "{out}{error}"
    );
    grid.start(1).unwrap();

    let alice = Client::new(&grid, "alice").await;
    assert_eq!(alice.get("/v1/about").await.unwrap()["restored"], true);
    for key_id in ["/q/1", "/q/gone"] {
        assert_eq!(alice.said("read", key(key_id)).await, "!restored");
        assert_eq!(bob.said("read", key(key_id)).await, "!not-found");
    }
    assert_eq!(alice.said("read", key("/q/later")).await, "!not-found");
    let described = alice.post("describe", &json!([key("/q/1")])).await.unwrap().remove(0);
    assert_eq!(
        (&described["entry"]["restored"], &described["status"]),
        (&json!(true), &json!("ok"))
    );
    // All else as ever; what is new is not in quarantine.
    alice.register("/q/new").await;
    assert_eq!(alice.said("read", key("/q/new")).await, "ok");
    assert_eq!(alice.said("remove", of("/q/gone")).await, "ok");
    assert_eq!(alice.said("confirm", alice.confirm("/q/1")).await, "ok");
    assert_eq!(alice.said("read", key("/q/1")).await, "ok");
    let (_, out, _) = run(&["open", &config]);
    assert_eq!(out, "/q/2\n/q/3\n");
    let (code, out, _) = run(&["open", &config, "/q/2"]);
    assert_eq!((code, out.as_str()), (0, "ok: 1 opened\n"));
    assert_eq!(alice.said("read", key("/q/2")).await, "ok");
    assert_eq!(alice.said("read", key("/q/3")).await, "!restored");
    let (code, _, error) = run(&["open", &config, "/q/2"]);
    assert!(code == 77 && error.contains("is not in quarantine"), "{error}");
    assert_eq!(run(&["open", &config, "--all"]).1, "ok: 1 opened\n");
    assert_eq!(alice.said("read", key("/q/3")).await, "ok");
    assert_eq!(alice.get("/v1/about").await.unwrap()["restored"], false);
    // The store's own lines follow those of the command that wrote beside it.
    alice.register("/q/after").await;
    let (code, _, error) = run(&["audit", "verify", &config]);
    assert_eq!(code, 0, "{error}");
    let (_, lines, _) = run(&["audit", "show", &config]);
    for words in [
        "\"restore\"",
        "\"open\"",
        "the quarantine of 1 entries ended",
        "local user ",
    ] {
        assert!(lines.contains(words), "{words} in {lines}");
    }
    // What was there before the restore lies beside it, with the key that came later.
    let aside = replaced(&grid.store_directory(1)).remove(0);
    let aside = rusqlite::Connection::open(aside).unwrap();
    let query = "SELECT count(*) FROM entries WHERE key_id = '/q/later'";
    assert_eq!(aside.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

fn replaced(folder: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().unwrap().contains(".replaced-"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_store_at_work_is_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(folder.path(), "");
    let alice = Client::new(&grid, "alice").await;
    // Both of a pair are made in one request, which is one commit.
    let writer = async {
        for pair in 0..150 {
            let items = json!([
                alice.create(&format!("/pair/{pair}/a")),
                alice.create(&format!("/pair/{pair}/b"))
            ]);
            assert!(
                alice
                    .post("create", &items)
                    .await
                    .unwrap()
                    .iter()
                    .all(|item| item["status"] == "ok")
            );
        }
    };
    let (config, to) = (config(&grid), folder.path().join("backup.db"));
    let name = to.to_str().unwrap().to_owned();
    let backup = tokio::task::spawn_blocking(move || run(&["backup", &config, &name]));
    let ((), backed_up) = tokio::join!(writer, backup);
    let (code, _, error) = backed_up.unwrap();
    assert_eq!(code, 0, "{error}");
    let copy = rusqlite::Connection::open(&to).unwrap();
    let halves = "SELECT count(*) FROM entries GROUP BY substr(key_id, 1, length(key_id) - 2) HAVING count(*) <> 2";
    assert!(!copy.prepare(halves).unwrap().exists([]).unwrap());
}

#[test]
fn what_is_no_whole_backup_of_this_store_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let make = |name: &str, id: &str| {
        let (code, config, error) = run(&["init", &at(name), "--store-id", id]);
        assert_eq!(code, 0, "{error}");
        // There is no host certificate on this machine.
        let config = config.trim_end().to_owned();
        let text = std::fs::read_to_string(&config).unwrap();
        for name in ["hostcert.pem", "hostkey.pem"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let text = text.replace("/etc/grid-security/certificates", folder.path().to_str().unwrap());
        let text = text.replace("/etc/grid-security", folder.path().to_str().unwrap());
        std::fs::write(&config, text).unwrap();
        config
    };
    let (ours, other_id, other_key) = (make("ours", "ks-a"), make("other", "ks-b"), make("same-id", "ks-a"));
    let backup = |config: &str, name: &str| {
        let (code, _, error) = run(&["backup", config, &at(name)]);
        assert_eq!(code, 0, "{error}");
        std::fs::read(at(name)).unwrap()
    };
    let whole = backup(&ours, "whole.db");
    backup(&other_id, "other-id.db");
    backup(&other_key, "other-key.db");
    let flipped: Vec<u8> = {
        let mut bytes = whole.clone();
        // Where the first page says where its rows are.
        bytes[100..120].iter_mut().for_each(|byte| *byte ^= 0x55);
        bytes
    };
    let audit_changed = {
        std::fs::write(at("audit.db"), &whole).unwrap();
        let raw = rusqlite::Connection::open(at("audit.db")).unwrap();
        let line = database::AuditLine {
            at: 1,
            dn: "/CN=x",
            operation: "x",
            key_id: "x",
            outcome: "x",
        };
        let head = database::audit_head(&raw).unwrap();
        database::audit(&raw, &head, &line).unwrap();
        raw.execute_batch("DROP TRIGGER audit_is_not_changed; UPDATE audit SET dn = '/CN=y'")
            .unwrap();
        drop(raw);
        std::fs::read(at("audit.db")).unwrap()
    };
    std::fs::write(at("short.db"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("flipped.db"), flipped).unwrap();
    std::fs::write(at("audit.db"), audit_changed).unwrap();
    std::fs::write(at("text.db"), "no database").unwrap();
    std::fs::write(at("copied.db"), &whole).unwrap();
    std::fs::write(at("copied.db-wal"), "x").unwrap();
    let database = folder.path().join("ours/keystore.db");
    let before = std::fs::read(&database).unwrap();
    for (name, expected, words) in [
        ("other-id.db", 78, "belongs to store `ks-b`"),
        ("other-key.db", 78, "data key 1 does not open"),
        ("short.db", 65, "damaged"),
        ("flipped.db", 65, "damaged"),
        ("audit.db", 65, "changed at line 1"),
        ("text.db", 65, "damaged"),
        ("copied.db", 65, "-wal"),
        ("missing.db", 74, "missing.db"),
    ] {
        let (code, _, error) = run(&["restore", &ours, &at(name), "--replace"]);
        assert!(code == expected && error.contains(words), "{name}: {code} {error}");
        assert!(std::fs::read(&database).unwrap() == before, "{name}");
    }
    assert!(replaced(&folder.path().join("ours")).is_empty());
    // Put there by hand, a backup is not served: it would not be in quarantine.
    std::fs::write(&database, &whole).unwrap();
    let error = database::open_writer(&database, &"ks-a".parse().unwrap(), 0).unwrap_err();
    assert!(matches!(error, database::DatabaseError::IsBackup { .. }), "{error}");
    let (code, out, error) = run(&["restore", &ours, &at("whole.db")]);
    assert!(code == 0 && out.contains("0 entries"), "{out}{error}");
    assert!(database::open_writer(&database, &"ks-a".parse().unwrap(), 0).is_ok());
}

/// Runs the program, and kills it after a while, unless it was done by then.
fn killed(arguments: &[&str], after: Duration) -> bool {
    let mut command = Command::new(PROGRAM);
    let mut child = command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let _ = child.kill();
    !child.wait().unwrap().success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_or_restore_leaves_the_old_or_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = grid(folder.path(), "");
    let config = config(&grid);
    let alice = Client::new(&grid, "alice").await;
    let mut number = 0;
    let mut fill = async |batches: usize| {
        for _ in 0..batches {
            let items: Vec<_> = (0..100)
                .map(|n| alice.create(&format!("/kill/{}", number + n)))
                .collect();
            number += 100;
            assert!(
                alice
                    .post("create", &json!(items))
                    .await
                    .unwrap()
                    .iter()
                    .all(|item| item["status"] == "ok")
            );
        }
    };
    fill(10).await;
    let path = folder.path().join("backup.db");
    let name = path.to_str().unwrap();
    let mut wait = Duration::ZERO;
    // Later each time, until it is done before it is killed.
    while killed(&["backup", &config, name], wait) {
        if path.exists() {
            break;
        }
        wait += Duration::from_millis(4);
    }
    let backup = std::fs::read(&path).unwrap();
    let count = |path: &Path| {
        let raw = rusqlite::Connection::open(path).unwrap();
        assert_eq!(
            raw.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
                .unwrap(),
            "ok"
        );
        raw.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(&path), 1000);
    fill(1).await;
    grid.kill(1).unwrap();

    let database = grid.store_directory(1).join("keystore.db");
    let mut wait = Duration::ZERO;
    loop {
        let done = !killed(&["restore", &config, name, "--replace"], wait);
        match count(&database) {
            1100 => assert!(!done),
            1000 => break,
            other => panic!("{other} entries"),
        }
        wait += Duration::from_millis(4);
    }
    assert!(std::fs::read(&path).unwrap() == backup);
    assert!(
        replaced(&grid.store_directory(1))
            .iter()
            .any(|path| count(path) == 1100)
    );
    let (code, _, error) = run(&["audit", "verify", &config]);
    assert_eq!(code, 0, "{error}");
    grid.start(1).unwrap();
    let alice = Client::new(&grid, "alice").await;
    assert_eq!(alice.said("read", key("/kill/7")).await, "!restored");
}
