//! Repairing, resharing and rotating with real stores: some are down, lose their database or come back from an old
//! backup (`docs/src/repairing.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use hydra_tests::Ended;
use hydra_tests::desk::{Broken, Desk, SharedGrid};
use testgrid::GridOptions;

/// Four stores, of which any two join a key: one may be broken while another lacks something.
static GRID: LazyLock<SharedGrid> = LazyLock::new(|| {
    SharedGrid::up(&GridOptions {
        stores: 4,
        ..GridOptions::default()
    })
});

const PLAIN: &[u8] = b"Feldmann^Rosalind, and 512 x 512 pixels";

/// Alice's desk with a key and a file sealed under it.
fn sealed_under(key_id: &str) -> Desk {
    let desk = GRID.desk("alice");
    desk.write("plain", PLAIN);
    let _ = desk.run_words("eds-key-register", &[key_id]).exits(0);
    let _ = desk.run_words("eds-encrypt", &[key_id, "plain", "sealed.eds"]).exits(0);
    desk
}

#[track_caller]
fn opens(desk: &Desk, file: &str) {
    let _ = desk.run_words("eds-decrypt", &["--force", file, "opened"]).exits(0);
    assert_eq!(desk.read("opened"), PLAIN);
}

/// The configuration of a store, for its administrator's commands.
fn config_of(broken: &Broken<'_>, number: usize) -> String {
    let path = broken.grid().store_directory(number).join("hydra-keystore.toml");
    path.to_string_lossy().into_owned()
}

fn back_up(desk: &Desk, broken: &Broken<'_>, number: usize, to: &str) {
    let config = config_of(broken, number);
    let _ = desk.run_words("hydra-keystore", &["backup", &config, to]).exits(0);
}

/// Copies the database of a store that does not run, as somebody might who has not read the manual.
fn copy_database(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["keystore.db", "keystore.db-wal", "keystore.db-shm"] {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// Puts a backup in place of the database of a store, and starts the store again.
fn restore(desk: &Desk, broken: &mut Broken<'_>, number: usize, from: &str) {
    broken.kill(number);
    let config = config_of(broken, number);
    let _ = desk
        .run_words("hydra-keystore", &["restore", "--replace", &config, from])
        .exits(0);
    broken.start_again();
}

/// What the status says of a key at one store.
fn entry_at(status: &Ended, number: usize) -> serde_json::Value {
    status.json()["stores"][number - 1]["entry"].clone()
}

fn generations(status: &Ended) -> Vec<Vec<u64>> {
    let stores = status.json()["stores"].as_array().unwrap().clone();
    let of = |store: &serde_json::Value| {
        let sharings = store["entry"]["sharings"].as_array().cloned().unwrap_or_default();
        sharings
            .iter()
            .map(|sharing| sharing["generation"].as_u64().unwrap())
            .collect()
    };
    stores.iter().map(of).collect()
}

#[test]
fn a_store_that_was_down_at_the_registration_gets_its_share_later() {
    let desk = GRID.desk("alice");
    let mut broken = GRID.alone();
    desk.write("plain", PLAIN);
    broken.kill(3);
    let registered = desk.run("eds-key-register --allow-degraded /repair/down").exits(0);
    let _ = registered.says("try: eds-key-repair /repair/down");
    let _ = desk.run("eds-encrypt /repair/down plain sealed.eds").exits(0);
    // nothing can be given to a store that is still down
    let _ = desk.run("eds-key-repair /repair/down").exits(75).says("store3");
    broken.start_again();

    let would = desk.run("eds-key-repair --dry-run /repair/down").exits(75);
    assert_eq!(
        would.stdout,
        "/repair/down: store3: would give it the share that it lacks\n"
    );
    let status = desk.run("eds-key-status --json /repair/down").exits(75);
    assert!(entry_at(&status, 3).is_null(), "a dry run changed something");

    let repaired = desk.run("eds-key-repair /repair/down").exits(0);
    assert_eq!(
        repaired.stdout,
        "/repair/down: store3: gave it the share that it lacked\n/repair/down: registered\n"
    );
    let _ = desk.run("eds-key-repair --dry-run /repair/down").exits(0);
    broken.kill(1);
    broken.kill(2);
    opens(&desk, "sealed.eds");
    broken.start_again();
}

#[test]
fn a_store_that_lost_its_database_gets_every_share_back() {
    let desk = GRID.desk("alice");
    let mut broken = GRID.alone();
    back_up(&desk, &broken, 2, "before");
    desk.write("plain", PLAIN);
    for number in 0..12 {
        let key_id = format!("/repair/many/{number:02}");
        let _ = desk.run_words("eds-key-register", &[&key_id]).exits(0);
    }
    let _ = desk.run("eds-encrypt /repair/many/07 plain sealed.eds").exits(0);
    restore(&desk, &mut broken, 2, "before");

    let status = desk.run("eds-key-status --prefix /repair/many/").exits(75);
    assert!(status.stdout.contains("/repair/many/00: degraded\n"), "{status:?}");
    let _ = status.says("12 of 12 keys are not whole");
    // a run that was broken off goes on behind the last key that it told of
    let some = desk
        .run("eds-key-repair --json --prefix /repair/many/ --after /repair/many/09")
        .exits(0);
    let told: Vec<serde_json::Value> = some
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["key_id"], "/repair/many/10");
    assert_eq!(told[0]["whole"], true);
    let all = desk.run("eds-key-repair --prefix /repair/many/").exits(0);
    assert_eq!(
        all.stdout
            .matches(": store2: gave it the share that it lacked\n")
            .count(),
        10
    );
    let _ = all.says("12 keys are whole");
    let _ = desk.run("eds-key-status --all-owned").exits(0);
    broken.kill(1);
    broken.kill(4);
    opens(&desk, "sealed.eds");
    broken.start_again();
}

#[test]
fn an_old_backup_brings_back_neither_permissions_nor_keys() {
    let (desk, bob) = (GRID.desk("alice"), GRID.desk("bob"));
    let mut broken = GRID.alone();
    desk.write("plain", PLAIN);
    for key_id in ["/repair/shared", "/repair/removed", "/repair/again"] {
        let _ = desk.run_words("eds-key-register", &[key_id]).exits(0);
    }
    let _ = desk.run("eds-encrypt /repair/shared plain sealed.eds").exits(0);
    bob.write("sealed.eds", desk.read("sealed.eds"));
    let dn = broken.grid().pki().unwrap().user_dn("bob").unwrap().to_owned();
    let _ = desk
        .run_words("eds-setacl", &["--modify", &format!("{dn}:lg"), "/repair/shared"])
        .exits(0);
    opens(&bob, "sealed.eds");
    back_up(&desk, &broken, 1, "backup");
    broken.kill(2);
    copy_database(&broken.grid().store_directory(2), &desk.path("copy"));
    broken.start_again();
    let _ = desk
        .run_words("eds-setacl", &["--delete", &dn, "/repair/shared"])
        .exits(0);
    let _ = desk.run("eds-key-unregister /repair/removed").exits(0);
    let _ = desk.run("eds-key-unregister /repair/again").exits(0);
    let _ = desk.run("eds-key-register /repair/again").exits(0);
    let _ = bob.run("eds-decrypt --force sealed.eds opened").exits(77);

    // One store is restored as the manual says; and when that is repaired, another behind everybody's back.
    for number in [1, 2] {
        if number == 1 {
            restore(&desk, &mut broken, 1, "backup");
        } else {
            broken.kill(2);
            copy_database(&desk.path("copy"), &broken.grid().store_directory(2));
            broken.start_again();
        }
        let _ = bob.run("eds-decrypt --force sealed.eds opened").exits(77);
        let _ = desk.run("eds-encrypt /repair/removed plain never.eds").exits(77);
        let status = desk.run("eds-key-status --json /repair/shared");
        assert_eq!(entry_at(&status, number)["restored"], number == 1);
        assert_eq!(entry_at(&status, number)["permissions_version"], 2);

        let repaired = desk.run("eds-key-repair --all-owned").exits(0);
        let done = repaired.prints("/repair/removed: free\n");
        let name = format!("store{number}");
        let done = done.prints(&format!("/repair/shared: {name}: brought its permissions up to date\n"));
        let done = done.prints(&format!("/repair/again: {name}: finished the removal\n"));
        let _ = done.prints(&format!("/repair/again: {name}: gave it the share that it lacked\n"));
        let status = desk.run("eds-key-status --json /repair/shared").exits(0);
        let entry = entry_at(&status, number);
        assert_eq!(
            (&entry["restored"], &entry["permissions_version"]),
            (&false.into(), &3.into())
        );
        let _ = desk.run("eds-key-status /repair/removed").exits(77);
        let _ = desk.run("eds-key-status /repair/again").exits(0);
    }
    // the two that came back answer as all did before
    broken.kill(3);
    broken.kill(4);
    opens(&desk, "sealed.eds");
    let denied = bob.run("eds-decrypt --force sealed.eds opened").exits(75);
    let _ = denied.says("0 of the 2 shares needed");
    broken.start_again();
}

#[test]
fn a_key_is_reshared_to_another_threshold() {
    let desk = GRID.desk("alice");
    let mut broken = GRID.alone();
    desk.write("plain", PLAIN);
    let _ = desk.run("eds-key-register /repair/reshared").exits(0);
    let _ = desk.run("eds-encrypt /repair/reshared plain sealed.eds").exits(0);
    let reshared = desk.run("eds-key-reshare --threshold 3 /repair/reshared").exits(0);
    assert_eq!(
        reshared.stdout,
        "reshared /repair/reshared: 3 of 4 shares join, generation 2\n"
    );
    let status = desk.run("eds-key-status --json /repair/reshared").exits(0);
    assert_eq!(generations(&status), [[2], [2], [2], [2]]);
    opens(&desk, "sealed.eds");
    broken.kill(1);
    opens(&desk, "sealed.eds");
    // every store of the new sharing must be there
    let _ = desk.run("eds-key-reshare /repair/reshared").exits(75).says("store1");
    broken.kill(2);
    let _ = desk
        .run("eds-decrypt --force sealed.eds opened")
        .exits(75)
        .says("2 of the 3 shares needed");
    broken.start_again();
    let _ = desk.run("eds-key-reshare --threshold 2 /repair/reshared").exits(0);
    broken.kill(1);
    broken.kill(2);
    opens(&desk, "sealed.eds");
    broken.start_again();
    // the lower bound of the configuration holds
    let _ = desk
        .run("eds-key-reshare --threshold 1 /repair/reshared")
        .exits(78)
        .says("minimum threshold");
    let _ = desk.run("eds-key-reshare --threshold 5 /repair/reshared").exits(78);
}

#[test]
fn a_store_leaves_and_is_retired() {
    let desk = GRID.desk("alice");
    let mut broken = GRID.alone();
    desk.write("plain", PLAIN);
    let _ = desk.run("eds-key-register /repair/leave").exits(0);
    let _ = desk.run("eds-encrypt /repair/leave plain sealed.eds").exits(0);
    let _ = desk.run("eds-key-reshare --retire store4 /repair/leave").exits(75);
    let _ = desk
        .run("eds-key-reshare --leave store4 /repair/leave")
        .exits(0)
        .says("try: eds-key-reshare --retire store4 /repair/leave");
    let status = desk.run("eds-key-status --json /repair/leave");
    assert_eq!(generations(&status), [[2].as_slice(), &[2], &[2], &[1]]);
    let _ = desk.run("eds-key-reshare --retire store4 /repair/leave").exits(0);
    broken.kill(4);
    broken.kill(1);
    opens(&desk, "sealed.eds");
    broken.start_again();
    let _ = desk.run("eds-key-unregister /repair/leave").exits(0);
}

#[test]
fn only_who_may_write_shares_reshares_and_nobody_else_changes_anything() {
    let _whole = GRID.whole();
    let desk = sealed_under("/repair/rights");
    let bob = GRID.desk("bob");
    let _ = bob.run("eds-key-reshare /repair/rights").exits(77);
    let _ = bob.run("eds-key-repair /repair/rights").exits(77);
    let _ = bob
        .run("eds-key-rotate /repair/rights /repair/stolen nothing.eds")
        .exits(77);
    let status = desk.run("eds-key-status --json /repair/rights").exits(0);
    assert_eq!(generations(&status), [[1], [1], [1], [1]]);
    let _ = desk.run("eds-key-status /repair/stolen").exits(77);
}

/// What was done before was in the way.
#[test]
fn a_rotation_into_a_folder_goes_on_where_it_broke_off() {
    let _whole = GRID.whole();
    let desk = GRID.desk("alice");
    let _ = desk.run("eds-key-register /repair/into").exits(0);
    fs::create_dir(desk.path("out")).unwrap();
    for name in ["a", "b"] {
        desk.write(name, name);
        let _ = desk
            .run(&format!("eds-encrypt /repair/into {name} {name}.eds"))
            .exits(0);
    }
    let _ = desk
        .run("eds-key-rotate --out-dir out /repair/into /repair/into-2 a.eds none.eds")
        .exits(74);
    let done = desk.read("out/a.eds");
    let go_on = "eds-key-rotate --go-on --out-dir out /repair/into /repair/into-2 a.eds b.eds";
    let _ = desk.run(go_on).exits(0);
    assert_eq!(desk.read("out/a.eds"), done);
    let _ = desk.run("eds-decrypt out/b.eds opened").exits(0);
    assert_eq!(desk.read("opened"), b"b");
    // something else of that name is left alone
    desk.write("out/b.eds", &done);
    let _ = desk.run(go_on).exits(73);
    assert_eq!(desk.read("out/b.eds"), done);
}

#[test]
fn files_are_rotated_to_a_new_key_and_only_then_the_old_one_goes() {
    let _whole = GRID.whole();
    let desk = sealed_under("/repair/old");
    let _ = desk.run("eds-encrypt /repair/old plain second.eds").exits(0);
    let _ = desk.run("eds-encrypt --key-file k --new-key plain other.eds").exits(0);
    let before = desk.read("other.eds");
    // one file is of another key: the others turn, the old key stays
    let part = desk
        .run("eds-key-rotate --remove-old /repair/old /repair/new sealed.eds other.eds")
        .exits(65)
        .says("not sealed under `/repair/old`");
    let _ = part.says("the old key stays");
    assert_eq!(desk.read("other.eds"), before);
    let opened = desk.run("eds-decrypt --force sealed.eds opened").exits(0);
    assert_eq!(opened.stdout, "/repair/new\n");
    assert_eq!(desk.read("opened"), PLAIN);
    opens(&desk, "second.eds");
    // the name is taken now
    let _ = desk.run("eds-key-rotate /repair/old /repair/new second.eds").exits(73);
    let rest = desk
        .run("eds-key-rotate --go-on --remove-old --json /repair/old /repair/new sealed.eds second.eds")
        .exits(0);
    assert_eq!(rest.json()["files"].as_array().unwrap().len(), 1);
    assert_eq!(rest.json()["removed_old"], true);
    for file in ["sealed.eds", "second.eds"] {
        let opened = desk.run_words("eds-decrypt", &["--force", file, "opened"]).exits(0);
        assert_eq!(opened.stdout, "/repair/new\n");
        assert_eq!(desk.read("opened"), PLAIN);
    }
    let _ = desk.run("eds-key-status /repair/old").exits(77);
    assert_eq!(
        desk.names(),
        ["k", "opened", "other.eds", "plain", "sealed.eds", "second.eds"]
    );
}
