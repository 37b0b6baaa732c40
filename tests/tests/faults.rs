//! Bad days: stores that are down, slow or lying, clients that die half-way, and what the commands make of it.
//!
//! Three stores that misbehave on command (`hydra_tests::fake`), and the real commands as processes. Every command must
//! end by itself: `hydra_tests::run` fails those that do not.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use hydra_core::keystore::wire::State;
use hydra_tests::fake::{FakeStore, Way};
use hydra_tests::{Ended, program, run, start_piped};
use tempfile::TempDir;
use testgrid::pki::{Pki, PkiOptions};

const KEY_ID: &str = "/faults/key";
const PLAIN: &[u8] = b"Feldmann^Rosalind, and 512 x 512 pixels";

/// Exit codes of the commands.
const DONE: Option<i32> = Some(0);
const TRY_LATER: Option<i32> = Some(75);
const NOT_ALLOWED: Option<i32> = Some(77);

/// One fabric for all tests of this file: keys take a while to make.
static FABRIC: LazyLock<(TempDir, Pki)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    (folder, pki)
});

/// Three stores, two of them needed, and a folder for files.
struct Stores {
    stores: Vec<FakeStore>,
    folder: TempDir,
    config: PathBuf,
}

impl Stores {
    fn up() -> Self {
        let pki = &FABRIC.1;
        let start = |number: usize| {
            let (certificate, key) = pki.host(&format!("keystore{number}"));
            FakeStore::start(&format!("store-{number}"), &certificate, &key, &pki.certificates())
        };
        let stores: Vec<FakeStore> = (1..=3).map(start).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut text = "threshold = 2\n".to_owned();
        for (number, store) in (1..).zip(&stores) {
            text += &format!("[[store]]\nurl = \"{}\"\nname = \"number-{number}\"\n", store.url());
        }
        text += &format!("[trust]\nca_dir = \"{}\"\n", pki.certificates().display());
        // Shorter than by default, so that waiting for the silent ones does not take the tests long.
        text += "[timeouts]\nconnect_ms = 1000\nrequest_ms = 1500\ntotal_ms = 5000\nhedge_ms = 50\n";
        let config = folder.path().join("config.toml");
        std::fs::write(&config, text).unwrap();
        std::fs::write(folder.path().join("plain"), PLAIN).unwrap();
        Self { stores, folder, config }
    }

    /// Has commands wait longer for stores that are alive, however busy the machine.
    fn be_patient(&self) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let patient = text.replace("hedge_ms = 50", "hedge_ms = 1500");
        assert_ne!(patient, text);
        std::fs::write(&self.config, patient).unwrap();
    }

    /// With the key registered, and a file sealed under it.
    fn with_sealed_file() -> Self {
        let stores = Self::up();
        stores.must("eds-key-register", &[KEY_ID]);
        stores.must("eds-encrypt", &[KEY_ID, "plain", "sealed"]);
        stores
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(arguments).current_dir(self.folder.path());
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("EDS_CONFIG", &self.config);
        command.env("X509_USER_PROXY", FABRIC.1.proxy("alice-plain"));
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Ended {
        run(&mut self.command(name, arguments))
    }

    fn must(&self, name: &str, arguments: &[&str]) {
        let ended = self.run(name, arguments);
        assert_eq!(ended.code, DONE, "{name} {arguments:?}: {ended:?}");
    }

    fn third(&self) -> &FakeStore {
        &self.stores[2]
    }

    /// The sealed file opens to what was sealed.
    fn opens(&self) {
        let output = self.folder.path().join("opened");
        let _ = std::fs::remove_file(&output);
        let ended = self.run("eds-decrypt", &[KEY_ID, "sealed", "opened"]);
        assert_eq!(ended.code, DONE, "{ended:?}");
        assert_eq!(std::fs::read(output).unwrap(), PLAIN);
    }

    fn left_nothing(&self, name: &str) {
        let left: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        let known = ["config.toml", "plain", "sealed", "opened"];
        let strange: Vec<_> = left
            .iter()
            .filter(|left| !known.iter().any(|known| *left == known))
            .collect();
        assert!(strange.is_empty(), "{name} left {strange:?}");
    }
}

/// Every way in which one store may fail a reader.
const BAD_READS: &[Way] = &[
    Way::HangAfterAccept,
    Way::HangMidAnswer,
    Way::HangOn("read"),
    Way::ServerError,
    Way::Garbage,
    Way::FlippedBit,
    Way::OtherShare,
    Way::LoweredThreshold,
    Way::OldGeneration,
    Way::ShareIndex(0),
    Way::ShareIndex(1),
    Way::ShareIndex(4),
    Way::ShareIndex(255),
    Way::OtherId,
];

#[test]
fn one_bad_store_of_three_keeps_nobody_from_opening() {
    let stores = Stores::with_sealed_file();
    for way in BAD_READS {
        stores.third().behave(*way);
        // Which stores are asked first is drawn at random: once with the bad one among them is what counts.
        for _ in 0..4 {
            stores.opens();
        }
    }
    stores.third().behave(Way::Honest);
}

#[test]
fn a_dead_store_keeps_nobody_from_opening_or_sealing() {
    let mut stores = Stores::with_sealed_file();
    stores.stores[2].kill();
    for _ in 0..3 {
        stores.opens();
    }
    stores.must("eds-encrypt", &["--force", KEY_ID, "plain", "sealed"]);
    stores.opens();
}

/// The answer of the living stores counts: they refuse, and no other answer could change that.
#[test]
fn who_may_not_read_is_told_so_also_while_a_store_is_dead() {
    let mut stores = Stores::with_sealed_file();
    stores.be_patient();
    stores.stores[2].kill();
    for _ in 0..5 {
        let mut bob = stores.command("eds-decrypt", &[KEY_ID, "sealed", "stolen"]);
        bob.env("X509_USER_PROXY", FABRIC.1.proxy("bob-plain"));
        let ended = run(&mut bob);
        assert_eq!(ended.code, NOT_ALLOWED, "{ended:?}");
        stores.left_nothing("eds-decrypt");
    }
}

#[test]
fn with_two_bad_stores_nothing_opens_and_the_message_names_one() {
    let stores = Stores::with_sealed_file();
    for way in BAD_READS {
        stores.stores[1].behave(*way);
        stores.stores[2].behave(*way);
        let ended = stores.run("eds-decrypt", &[KEY_ID, "sealed", "stolen"]);
        assert_eq!(ended.code, TRY_LATER, "{way:?}: {ended:?}");
        let named = ended.stderr.contains("number-2") || ended.stderr.contains("number-3");
        // Two of three are more than may lie where two shares join: shares that contradict each other, and none that
        // proves another. Whoever named one might name the honest store, so nobody is.
        if [Way::FlippedBit, Way::OtherShare, Way::OldGeneration].contains(way) {
            assert!(ended.stderr.contains("do not join"), "{way:?}: {ended:?}");
            assert!(!ended.stderr.contains("wrong share"), "{way:?}: {ended:?}");
        } else {
            assert!(named, "{way:?}: no store is named: {ended:?}");
            // whose id is claimed by another is told too
            let innocent = *way == Way::OtherId || !ended.stderr.contains("number-1");
            assert!(innocent, "{way:?}: {ended:?}");
        }
        stores.left_nothing("eds-decrypt");
    }
}

#[test]
fn a_bad_store_fails_a_registration_by_name_and_leaves_the_key_id_free() {
    let stores = Stores::up();
    let ways = [
        Way::HangAfterAccept,
        Way::HangMidAnswer,
        Way::HangOn("create"),
        Way::ServerError,
        Way::Garbage,
        Way::OtherId,
    ];
    for (number, way) in ways.iter().enumerate() {
        let key_id = format!("/faults/bad-day-{number}");
        stores.third().behave(*way);
        let ended = stores.run("eds-key-register", &[&key_id]);
        assert!(ended.code != DONE, "{way:?}: {ended:?}");
        assert!(
            ended.stderr.contains("number-3"),
            "{way:?}: the store is not named: {ended:?}"
        );
        assert_eq!(
            stores.stores[0].state(&key_id),
            None,
            "{way:?}: the first store was not told to undo it"
        );
        stores.third().behave(Way::Honest);
        stores.must("eds-key-register", &[&key_id]);
    }
}

#[test]
fn a_lost_answer_to_create_is_no_registration_and_a_second_try_works() {
    let stores = Stores::up();
    stores.third().behave(Way::LoseAnswerTo("create"));
    let ended = stores.run("eds-key-register", &[KEY_ID]);
    assert!(ended.code != DONE && ended.stderr.contains("number-3"), "{ended:?}");
    stores.third().behave(Way::Honest);
    let status = stores.run("eds-key-status", &[KEY_ID]);
    let sealed = stores.run("eds-encrypt", &[KEY_ID, "plain", "never"]);
    assert!(sealed.code != DONE, "nobody may seal with it: {sealed:?}; {status:?}");
    stores.left_nothing("eds-encrypt");
}

#[test]
fn a_client_killed_before_the_first_confirmation_leaves_nothing_to_seal_with() {
    let stores = Stores::up();
    stores.third().behave(Way::HangOn("create"));
    let mut child = start_piped(&mut stores.command("eds-key-register", &[KEY_ID]));
    stores.third().wait_for("create");
    child.kill().unwrap();
    child.wait().unwrap();
    stores.third().behave(Way::Honest);
    let ended = stores.run("eds-encrypt", &[KEY_ID, "plain", "never"]);
    assert!(ended.code != DONE, "{ended:?}");
    stores.left_nothing("eds-encrypt");
}

#[test]
fn a_client_killed_after_the_first_confirmation_is_told_of_and_repaired() {
    let stores = Stores::up();
    stores.third().behave(Way::HangOn("confirm"));
    let mut child = start_piped(&mut stores.command("eds-key-register", &[KEY_ID]));
    stores.third().wait_for("confirm");
    while stores.stores[0].state(KEY_ID) != Some(State::Confirmed) {
        assert!(child.try_wait().unwrap().is_none() || stores.stores[0].state(KEY_ID) == Some(State::Confirmed));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    stores.third().behave(Way::Honest);
    assert_eq!(stores.third().state(KEY_ID), Some(State::Pending));

    let status = stores.run("eds-key-status", &[KEY_ID]);
    assert!(status.stdout.contains("unfinished"), "{status:?}");
    let again = stores.run("eds-key-register", &[KEY_ID]);
    assert!(
        again.code != DONE && again.stderr.contains("eds-key-repair"),
        "{again:?}"
    );
    stores.must("eds-key-repair", &[KEY_ID]);
    assert_eq!(stores.third().state(KEY_ID), Some(State::Confirmed));
    stores.must("eds-encrypt", &[KEY_ID, "plain", "sealed"]);
    stores.opens();
}

/// The original wrote past the end of its list of shares where a store said so (D-16).
#[test]
fn d16_a_share_of_an_index_that_is_not_its_stores_is_passed_over_and_the_store_is_named() {
    let mut stores = Stores::with_sealed_file();
    // without the first one, the reader needs the third
    stores.stores[0].kill();
    for index in [0, 1, 2, 4, 128, 255] {
        stores.third().behave(Way::ShareIndex(index));
        let ended = stores.run("eds-decrypt", &[KEY_ID, "sealed", "stolen"]);
        assert_eq!(ended.code, TRY_LATER, "{index}: {ended:?}");
        assert!(ended.stderr.contains("number-3"), "{index}: {ended:?}");
        stores.left_nothing("eds-decrypt");
    }
    stores.third().behave(Way::Honest);
    stores.opens();
}

/// What is printed behind `try:`, as it is to be typed.
fn advice(ended: &Ended) -> Vec<String> {
    let lines = ended
        .stderr
        .lines()
        .filter_map(|line| line.trim().strip_prefix("try: "));
    lines
        .map(|line| line.split([',', '(']).next().unwrap_or(line).trim().to_owned())
        .collect()
}

/// Types what was advised about the key, until nothing more is.
fn follow(stores: &Stores, mut ended: Ended) {
    for _ in 0..5 {
        let lines = advice(&ended);
        let Some(line) = lines.iter().find(|line| line.starts_with("eds-key-repair ")) else {
            return;
        };
        let words: Vec<&str> = line.split(' ').collect();
        ended = stores.run(words[0], &words[1..]);
    }
    panic!("the advice never ends: {ended:?}");
}

/// The store has the entry on its disk, and neither its answer nor the undoing got through.
#[test]
fn a_store_that_dies_between_creating_and_answering_is_told_of_and_what_is_advised_clears_the_way() {
    let stores = Stores::up();
    stores.third().behave(Way::DieAfter("create"));
    let ended = stores.run("eds-key-register", &[KEY_ID]);
    assert_eq!(ended.code, TRY_LATER, "{ended:?}");
    assert!(ended.stderr.contains("number-3"), "{ended:?}");
    assert_eq!(stores.third().state(KEY_ID), Some(State::Pending));
    assert_eq!(stores.stores[0].state(KEY_ID), None);
    // it is started again, with what it has
    stores.third().behave(Way::Honest);
    let again = stores.run("eds-key-register", &[KEY_ID]);
    if again.code != DONE {
        follow(&stores, again);
        stores.must("eds-key-register", &[KEY_ID]);
    }
    stores.must("eds-encrypt", &[KEY_ID, "plain", "sealed"]);
    stores.opens();
}

#[test]
fn a_store_that_dies_between_confirming_and_answering_is_told_of_and_what_is_advised_finishes() {
    let stores = Stores::up();
    stores.third().behave(Way::DieAfter("confirm"));
    let ended = stores.run("eds-key-register", &[KEY_ID]);
    assert_eq!(ended.code, TRY_LATER, "{ended:?}");
    assert!(ended.stderr.contains("number-3"), "{ended:?}");
    assert_eq!(advice(&ended), [format!("eds-key-repair {KEY_ID}")]);
    assert_eq!(stores.third().state(KEY_ID), Some(State::Confirmed));
    stores.third().behave(Way::Honest);
    // what is there is a whole key, and the same command again says so and changes nothing
    let again = stores.run("eds-key-register", &[KEY_ID]);
    assert_eq!(again.code, Some(73), "{again:?}");
    assert!(again.stderr.contains("is registered already"), "{again:?}");
    follow(&stores, ended);
    let status = stores.run("eds-key-status", &[KEY_ID]);
    assert_eq!(status.code, DONE, "{status:?}");
    assert!(status.stdout.contains("registered"), "{status:?}");
    stores.must("eds-encrypt", &[KEY_ID, "plain", "sealed"]);
    stores.opens();
}

/// It looked before the other changed them and sends what it made of that afterwards: it must not win unsaid.
#[test]
fn a_client_that_hangs_between_looking_and_changing_does_not_undo_what_was_changed_meanwhile() {
    let stores = Stores::with_sealed_file();
    let text = std::fs::read_to_string(&stores.config).unwrap();
    // long enough for whatever the other does meanwhile
    let patient = text.replace("total_ms = 5000", "total_ms = 60000");
    assert_ne!(patient, text);
    std::fs::write(&stores.config, patient).unwrap();
    let looked = |store: &FakeStore| store.requests("describe");
    let before: Vec<usize> = stores.stores.iter().map(looked).collect();
    // the last answer that it waits for never comes, so it is there when it is halted
    stores.third().behave(Way::HangOn("describe"));
    let mut hung = start_piped(&mut stores.command("eds-setacl", &["-m", "/CN=hung:g", KEY_ID]));
    while stores
        .stores
        .iter()
        .map(looked)
        .zip(&before)
        .any(|(now, before)| now <= *before)
    {
        assert!(hung.try_wait().unwrap().is_none(), "it did not wait");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(hung.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    stores.third().behave(Way::Honest);
    stores.must("eds-setacl", &["-m", "/CN=meanwhile:g", KEY_ID]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let output = hung.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("somebody else changed the permissions"), "{said}");
    let acl = stores.run("eds-getacl", &[KEY_ID]);
    assert_eq!(acl.code, DONE, "{acl:?}");
    assert!(acl.stdout.contains("/CN=meanwhile"), "{acl:?}");
    assert!(!acl.stdout.contains("/CN=hung"), "{acl:?}");
    // and the same once more is done
    stores.must("eds-setacl", &["-m", "/CN=hung:g", KEY_ID]);
    let acl = stores.run("eds-getacl", &[KEY_ID]).stdout;
    assert!(acl.contains("/CN=meanwhile") && acl.contains("/CN=hung"), "{acl}");
}

#[test]
fn a_removal_that_misses_a_store_says_so_and_is_finished_by_running_it_again() {
    let stores = Stores::with_sealed_file();
    stores.third().behave(Way::HangOn("remove"));
    let ended = stores.run("eds-key-unregister", &[KEY_ID]);
    assert_eq!(ended.code, TRY_LATER, "{ended:?}");
    assert!(ended.stderr.contains("number-3"), "{ended:?}");
    let opened = stores.run("eds-decrypt", &[KEY_ID, "sealed", "stolen"]);
    assert!(opened.code != DONE, "two of three forgot it: {opened:?}");
    stores.third().behave(Way::Honest);
    stores.must("eds-key-unregister", &[KEY_ID]);
    assert_eq!(stores.third().state(KEY_ID), None);
    stores.left_nothing("eds-key-unregister");
}

#[test]
fn a_key_that_one_store_plants_in_its_list_is_not_sealed_with() {
    let stores = Stores::up();
    stores.must("eds-key-register", &["/faults/secret"]);
    stores.third().behave(Way::PlantedInList);
    // two operands: the key is the caller's own one that is named like the output
    let glite = |output: &str| {
        let mut command = stores.command("eds-encrypt", &["plain", output]);
        std::os::unix::process::CommandExt::arg0(&mut command, "glite-eds-encrypt");
        run(&mut command)
    };
    let sealed = glite("secret");
    assert_eq!(sealed.code, DONE, "{sealed:?}");
    assert!(sealed.stdout.contains("'/faults/secret'"), "{sealed:?}");
    std::fs::remove_file(stores.folder.path().join("secret")).unwrap();
    let refused = glite("other");
    assert_eq!(refused.code, Some(255), "{refused:?}");
    assert!(!refused.stderr.contains("/planted/"), "{refused:?}");
    stores.left_nothing("glite-eds-encrypt");
}
