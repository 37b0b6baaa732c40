//! `dicom-recall daemon` end to end: from what is asked for to sealed files, with daemons that die, PACS that are down,
//! and a line to an agent that is played here.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use dicom_recall::database::Database;
use dicom_recall::line::{self, Entry, Frame, FromDaemon, FromPlace, News, Reason};
use dicom_recall::registry::{LocalRegistry, Recorded, Registry};
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::pacs::{FakePacs, Fault, OURS, Orthanc, THEIRS, free_port};
use hydra_tests::small_disk::SmallDisk;
use hydra_tests::{DEADLINE, Ended, files_under, high_water_kib};
use hydra_xtask::dicom::{INVENTED, ct_slice, ct_study};
use mdm_catalog::config::DatabaseSource;
use serde_json::Value;
use testgrid::GridOptions;

#[path = "../../crates/catalog/src/database/postgres/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod postgres;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// A study of two series with two slices and one; the number keeps the keys of tests apart.
fn study(number: u128) -> Vec<Vec<u8>> {
    ct_study(&INVENTED, number)
}

fn study_name(number: u128) -> String {
    format!("2.25.{number}")
}

/// A desk with the secret, a configuration for the PACS at `port`, and a folder to put files into.
fn desk(port: u16) -> Desk {
    let desk = GRID.desk("alice");
    desk.write("secret", [7; 32]);
    configure(&desk, port, "folder = \"se\"");
    fs::create_dir(desk.path("se")).unwrap();
    desk
}

fn configure(desk: &Desk, port: u16, place: &str) {
    let text = format!(
        "[pacs]\nmethod = \"c-get\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         [pacs.deadlines]\nconnect_s = 20\nassociation_s = 20\nunit_s = 60\n\
         [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n\
         [queue]\nfirst_wait_s = 0.05\nlongest_wait_s = 0.2\nattempts = 2\nlease_s = 20\n[place]\n{place}\n"
    );
    desk.write("recall.toml", text);
}

fn recall(desk: &Desk, line: &str) -> Ended {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend(["-c", "recall.toml"]);
    desk.run_words("dicom-recall", &words)
}

fn json_lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A daemon that runs; it is killed on drop.
struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(desk: &Desk) -> Self {
        let mut child = desk.start("dicom-recall", &["daemon", "recall.toml"]);
        let log = Arc::new(Mutex::new(String::new()));
        let (told, mut stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                told.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "started\n", "{}", log.lock().unwrap());
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The most memory that it ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let kib = high_water_kib(self.child.id());
        assert!(kib > 0, "it runs");
        kib / 1024
    }

    /// As a power cut would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As an administrator would.
    fn stop(mut self) -> String {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it is so.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The requests of a desk by their state.
fn states(desk: &Desk) -> BTreeMap<String, Vec<Value>> {
    let mut states: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in json_lines(&recall(desk, "requests --json").exits(0)) {
        states
            .entry(line["state"].as_str().unwrap().to_owned())
            .or_default()
            .push(line);
    }
    states
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn peer_what_is_registered_and_asked_for_is_placed_and_evicted_and_comes_again() {
    let _whole = GRID.whole();
    let orthanc = Orthanc::start();
    orthanc.load(&study(2001));
    let desk = desk(orthanc.port);
    let what = study_name(2001);
    let _ = recall(&desk, &format!("request {what}")).exits(78).says("no database");
    let _ = desk
        .run("dicom-recall check recall.toml")
        .exits(0)
        .prints("not made yet")
        .prints("place: files can be put into");
    let _ = recall(&desk, &format!("register {what}"))
        .exits(0)
        .prints("registered 3 instances and 2 keys, 0 already registered");
    let _ = recall(&desk, &format!("register {what}"))
        .exits(0)
        .prints("registered 0 instances and 0 keys, 3 already registered");
    let listed = json_lines(&recall(&desk, "ls --json").exits(0));
    assert!(
        listed.len() == 3
            && listed
                .iter()
                .all(|one| one["size"].is_null() && one["original"].is_null())
    );
    // what `now` makes under the same keys
    fs::create_dir(desk.path("now")).unwrap();
    let _ = recall(&desk, &format!("now {what} now")).exits(0);
    let expected = files_under(&desk.path("now"));

    let daemon = Daemon::start(&desk);
    let _ = recall(&desk, &format!("request --wait 60 {what}"))
        .exits(0)
        .prints("placed 3 of 3 files");
    assert!(
        files_under(&desk.path("se")) == expected,
        "other bytes than `now` makes"
    );
    let listed = json_lines(&recall(&desk, "ls --json").exits(0));
    for one in &listed {
        let path = Path::new(one["name"].as_str().unwrap().trim_start_matches('/'));
        assert_eq!(one["sha256"], sha256(&expected[path]));
        assert_eq!(one["size"], expected[path].len());
        assert_eq!(one["on_disk"], true);
    }
    let name = listed[0]["name"].as_str().unwrap();
    let _ = recall(&desk, &format!("evict {name}"))
        .exits(0)
        .prints("evicted 1 file\n");
    assert_eq!(files_under(&desk.path("se")).len(), 2);
    let _ = recall(&desk, &format!("request --wait 60 {name}")).exits(0);
    assert!(files_under(&desk.path("se")) == expected, "other bytes the second time");
    // asked for while it is there, it is not fetched
    let _ = recall(&desk, &format!("request --wait 60 {name}")).exits(0);
    let _ = recall(&desk, "request /eds/nothing")
        .exits(77)
        .says("nothing is registered");

    let log = daemon.stop();
    by_moves(&desk, &orthanc, &what);
    assert!(files_under(&desk.path("se")) == expected, "other bytes by C-MOVE");
    let database = fs::read(desk.path("recall.db")).unwrap();
    for secret in [INVENTED.name, INVENTED.id, "Ohnesorg", "2.25.2001101", "2.25.200111"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let has = |secret: &str| database.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!has(INVENTED.name) && !has(INVENTED.id));
    let _ = recall(&desk, &format!("unregister {what}")).exits(0);
    assert!(recall(&desk, "ls").exits(0).stdout.is_empty());
}

/// All of it once more, by C-MOVE, and four series at once: two workers have the PACS send to one title.
fn by_moves(desk: &Desk, orthanc: &Orthanc, what: &str) {
    let config = fs::read_to_string(desk.path("recall.toml")).unwrap();
    let config_once = config.replace("attempts = 2", "attempts = 1");
    let ours = format!(
        "method = \"c-move\"\nassociations = 2\nlisten = \"127.0.0.1:{}\"",
        orthanc.move_port
    );
    desk.write("recall.toml", config_once.replace("method = \"c-get\"", &ours));
    let _ = recall(desk, &format!("evict {what}")).exits(0);
    assert!(files_under(&desk.path("se")).is_empty());
    let series =
        |number: u128| (0..5_u128).map(move |image| [2002, 200_200 + number, 2_002_000 + 10 * number + image, 9]);
    let twenty: Vec<Vec<u8>> = (0..4)
        .flat_map(series)
        .map(|numbers| ct_slice(&INVENTED, numbers))
        .collect();
    orthanc.load(&twenty);
    let daemon = Daemon::start(desk);
    // whoever only looks needs no port of the daemon's
    let other = study_name(2002);
    let _ = recall(desk, &format!("register {other}"))
        .exits(0)
        .prints("registered 20 instances and 4 keys");
    let _ = desk.run("dicom-recall check recall.toml").exits(0);
    let _ = recall(desk, &format!("now {what} now")).exits(78).says("pacs.listen");
    let _ = recall(desk, &format!("request --wait 60 {what} {other}"))
        .exits(0)
        .prints("placed 23 of 23 files");
    let log = daemon.stop();
    assert!(!log.contains("nobody asked for"), "{log}");
    let _ = recall(desk, &format!("evict {other}")).exits(0);
    let _ = recall(desk, &format!("unregister {other}")).exits(0);
    desk.write("recall.toml", config);
}

#[test]
fn a_daemon_that_is_killed_loses_nothing_and_leaves_nothing_half() {
    let _whole = GRID.whole();
    let stalling = FakePacs::start(&study(2010), &study(1)[0], Fault::StallAt(1));
    let desk = desk(stalling.port);
    let what = study_name(2010);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let daemon = Daemon::start(&desk);
    let _ = recall(&desk, &format!("request {what}")).exits(0);
    // one series hangs in its second instance
    until(
        || states(&desk).get("placed").is_some_and(|placed| placed.len() == 2),
        || daemon.log(),
    );
    daemon.kill();
    let before = files_under(&desk.path("se"));
    assert_eq!(before.len(), 2, "{:?}", before.keys());
    assert_eq!(states(&desk)["running"].len(), 1);

    let good = FakePacs::start(&study(2010), &study(1)[0], Fault::None);
    configure(&desk, good.port, "folder = \"se\"");
    let daemon = Daemon::start(&desk);
    // long before the lease of the dead one would fall back
    let _ = recall(&desk, &format!("request --wait 15 {what}")).exits(0);
    let after = files_under(&desk.path("se"));
    assert_eq!(after.len(), 3, "{:?}", after.keys());
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes));
    assert_eq!(
        good.gets.load(Ordering::Acquire),
        1,
        "what was placed is not fetched again"
    );
    let _ = daemon.stop();
}

#[test]
fn two_daemons_share_a_queue_and_many_wishes_are_one_fetch() {
    let _whole = GRID.whole();
    let slices: Vec<Vec<u8>> = (0..6)
        .map(|series| ct_slice(&INVENTED, [2020, 202_000 + series, 2_020_000 + series, 9]))
        .collect();
    let fake = FakePacs::start(&slices, &slices[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2020);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let name = json_lines(&recall(&desk, "ls --json"))[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let hundred = vec![name.as_str(); 100].join(" ");
    // named a hundred times, and asked for many times
    let _ = recall(&desk, &format!("request {hundred}"))
        .exits(0)
        .prints("asked for 1 file, 0 already");
    for _ in 0..20 {
        let _ = recall(&desk, &format!("request {name}"))
            .exits(0)
            .prints("asked for 0 files, 1 already");
    }
    let daemons = [Daemon::start(&desk), Daemon::start(&desk)];
    let _ = recall(&desk, &format!("request --wait 60 {hundred}")).exits(0);
    assert_eq!(fake.gets.load(Ordering::Acquire), 1);
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    assert_eq!(files_under(&desk.path("se")).len(), 6);
    assert_eq!(fake.gets.load(Ordering::Acquire), 6, "each series once");
    let mut marks = desk.names();
    marks.retain(|name| name.ends_with(".daemon"));
    assert_eq!(marks.len(), 2);
    for daemon in daemons {
        let _ = daemon.stop();
    }
    assert!(!desk.names().iter().any(|name| name.ends_with(".daemon")));
}

#[test]
fn peer_postgres_is_shared_by_daemons_of_several_machines_also_when_one_is_killed() {
    let _whole = GRID.whole();
    let server = postgres::Server::start(&["fsync=off"]);
    let url = server.database("recall");
    let slices: Vec<Vec<u8>> = (0..8)
        .map(|series| ct_slice(&INVENTED, [2025, 202_500 + series, 2_025_000 + series, 9]))
        .collect();
    let stalling = FakePacs::start(&slices, &slices[0], Fault::StallAt(0));
    let good = FakePacs::start(&slices, &slices[0], Fault::None);
    let quiet = FakePacs::start(&slices, &slices[0], Fault::Waits);
    // three machines: they have the database and the folder in common, and no file beside
    let desks = [desk(stalling.port), desk(good.port), desk(quiet.port)];
    let folder = desks[0].path("se");
    for (desk, lease_s) in desks.iter().zip([3, 3, 6000]) {
        let config = fs::read_to_string(desk.path("recall.toml")).unwrap();
        let config = config
            .replace("recall.db", &url)
            .replace("lease_s = 20", &format!("lease_s = {lease_s}"))
            .replace("folder = \"se\"", &format!("folder = {folder:?}"));
        desk.write("recall.toml", config);
    }
    let [one, other, third] = &desks;
    let what = study_name(2025);
    let _ = recall(other, &format!("register {what}"))
        .exits(0)
        .prints("registered 8 instances");
    let _ = other
        .run("dicom-recall check recall.toml")
        .exits(0)
        .prints("registry: postgres://");
    // one that is ended while it waits for its PACS gives back what it had leased for long
    let leaving = Daemon::start(third);
    let _ = recall(third, &format!("request {what}")).exits(0);
    until(|| quiet.gets.load(Ordering::Acquire) == 2, || leaving.log());
    let log = leaving.stop();
    let left = states(other);
    assert_eq!((left["queued"].len(), left.len()), (8, 1), "{log}");
    assert_eq!(quiet.cancels.load(Ordering::Acquire), 2, "{log}");

    let dying = Daemon::start(one);
    // it leases what it has workers for, and hangs
    until(
        || states(one).get("running").is_some_and(|running| running.len() == 2),
        || dying.log(),
    );
    let living = Daemon::start(other);
    until(
        || states(other).get("placed").is_some_and(|placed| placed.len() >= 6),
        || living.log(),
    );
    dying.kill();
    let _ = recall(other, &format!("request --wait 60 {what}")).exits(0);
    assert_eq!(files_under(&folder).len(), 8);
    assert_eq!(good.gets.load(Ordering::Acquire), 8, "each series once");
    assert_eq!(stalling.gets.load(Ordering::Acquire), 2);
    for line in json_lines(&recall(one, "ls --json").exits(0)) {
        assert!(line["on_disk"] == true && line["sha256"].is_string(), "{line}");
    }
    assert!(
        !desks
            .iter()
            .any(|desk| desk.names().iter().any(|name| name.contains(".daemon")))
    );
    let _ = living.stop();
}

#[test]
fn a_pacs_that_is_down_is_waited_for_and_what_was_cancelled_is_not() {
    let _whole = GRID.whole();
    let held = study(2030);
    let (first, port) = (FakePacs::start(&held, &held[0], Fault::None), free_port());
    let desk = desk(first.port);
    let what = study_name(2030);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    configure(&desk, port, "folder = \"se\"");
    let daemon = Daemon::start(&desk);
    let _ = recall(&desk, &format!("request {what}")).exits(0);
    let is_waiting = || {
        let states = states(&desk);
        let waiting = states.get("waiting");
        waiting.is_some_and(|all| all.len() == 3 && all.iter().all(|one| one["reason"] == "pacs" && one["tries"] != 0))
    };
    until(is_waiting, || daemon.log());
    let names = json_lines(&recall(&desk, "ls --json"));
    let cancelled = names[0]["name"].as_str().unwrap();
    let _ = recall(&desk, &format!("cancel {cancelled}"))
        .exits(0)
        .prints("cancelled 1");
    let up = FakePacs::start_at(port, &held, &held[0], Fault::None);
    until(
        || states(&desk).get("placed").is_some_and(|placed| placed.len() == 2),
        || daemon.log(),
    );
    assert_eq!(files_under(&desk.path("se")).len(), 2);
    assert_eq!(states(&desk)["cancelled"].len(), 1);
    let _ = recall(&desk, &format!("retry {cancelled}"))
        .exits(0)
        .prints("1 request\n");
    let _ = recall(&desk, &format!("request --wait 60 {cancelled}")).exits(0);
    assert!(up.gets.load(Ordering::Acquire) >= 2);
    assert_eq!(files_under(&desk.path("se")).len(), 3);
}

/// Has a desk's configuration end with this.
fn add_settings(desk: &Desk, more: &str) {
    let config = fs::read_to_string(desk.path("recall.toml")).unwrap();
    desk.write("recall.toml", config + more);
}

#[test]
fn what_is_long_unused_or_too_much_is_evicted_and_comes_again() {
    let _whole = GRID.whole();
    let fake = FakePacs::start(&study(2035), &study(1)[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2035);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let daemon = Daemon::start(&desk);
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    let _ = daemon.stop();
    let all = files_under(&desk.path("se"));
    let paths: Vec<_> = all.keys().map(|path| desk.path("se").join(path)).collect();
    let used = |path: &Path, hours: u64| {
        let then = std::time::SystemTime::now() - Duration::from_secs(hours * 3600);
        let times = fs::FileTimes::new().set_modified(then).set_accessed(then);
        fs::File::open(path).unwrap().set_times(times).unwrap();
    };
    used(&paths[0], 30);
    used(&paths[1], 20);
    used(&paths[2], 40);
    let config = desk.read("recall.toml");
    let on_disk = || {
        let listed = json_lines(&recall(&desk, "ls --json").exits(0));
        listed.iter().filter(|one| one["on_disk"] == true).count()
    };
    add_settings(&desk, "[evict]\nafter_s = 90000\n");
    let daemon = Daemon::start(&desk);
    until(|| on_disk() == 1, || daemon.log());
    assert!(files_under(&desk.path("se")).keys().eq(all.keys().skip(1).take(1)));
    // whoever asks for all of it has all of it again, and for a while: what was there was used just now
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    assert!(files_under(&desk.path("se")) == all, "other bytes");
    let _ = daemon.stop();
    // the least recently used go first, and no more of them than must
    used(&paths[0], 3);
    used(&paths[1], 4);
    used(&paths[2], 2);
    desk.write("recall.toml", config);
    let room = all.values().map(Vec::len).sum::<usize>() - 1;
    add_settings(&desk, &format!("[evict]\nmost_bytes = {room}\n"));
    let daemon = Daemon::start(&desk);
    until(|| on_disk() == 2, || daemon.log());
    assert!(!paths[1].exists() && paths[0].exists() && paths[2].exists());
    let log = daemon.stop();
    assert_eq!(log.matches("\"evicted\"").count(), 1, "{log}");
}

#[test]
fn a_disk_that_is_full_is_waited_for() {
    use rustix::process::{Resource, Rlimit, prlimit};

    let _whole = GRID.whole();
    let fake = FakePacs::start(&study(2036), &study(1)[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2036);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    fs::create_dir(desk.path("now")).unwrap();
    let _ = recall(&desk, &format!("now {what} now")).exits(0);
    let expected = files_under(&desk.path("now"));
    // no room for the database
    let daemon = Daemon::start(&desk);
    let limited = |current| Rlimit { current, maximum: None };
    prlimit(Some(daemon.pid()), Resource::Fsize, limited(Some(4096))).unwrap();
    let _ = recall(&desk, &format!("request {what}")).exits(0);
    until(|| daemon.log().contains("the queue cannot be"), || daemon.log());
    assert!(files_under(&desk.path("se")).is_empty());
    prlimit(Some(daemon.pid()), Resource::Fsize, limited(None)).unwrap();
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    assert!(files_under(&desk.path("se")) == expected, "other bytes");
    // no room for the files
    let _ = recall(&desk, &format!("evict {what}")).exits(0);
    let full = desk.path("se");
    let Some(disk) = SmallDisk::mount(&full, "768k") else {
        return;
    };
    let _ = recall(&desk, &format!("request {what}")).exits(0);
    let is_waiting = || {
        let states = states(&desk);
        states
            .get("waiting")
            .is_some_and(|all| all.iter().any(|one| one["reason"] == "storage"))
    };
    until(is_waiting, || daemon.log());
    let has_room = disk.resize("64m");
    let came = recall(&desk, &format!("request --wait 60 {what}"));
    let files = files_under(&full);
    let log = daemon.stop();
    assert!(disk.unmount() && has_room);
    let _ = came.exits(0);
    assert!(files == expected, "other bytes: {:?}\n{log}", files.keys());
}

/// Sets the value of the first element that begins so.
fn set_value(file: &mut [u8], element: &[u8], value: &[u8]) {
    let at = file
        .windows(element.len())
        .position(|window| window == element)
        .unwrap();
    let at = at + element.len();
    file[at..at + value.len()].copy_from_slice(value);
}

const PIXELS: &[u8] = b"\xe0\x7f\x10\0OW\0\0";

/// So many images of one series, each of a few pixels.
fn many_small(study: u128, count: u128) -> Vec<Vec<u8>> {
    let first = study * 1_000_000;
    let mut small = ct_slice(&INVENTED, [study, study * 100, first, 9]);
    set_value(&mut small, b"\x28\0\x10\0US\x02\0", &[8, 0]);
    set_value(&mut small, b"\x28\0\x11\0US\x02\0", &[8, 0]);
    set_value(&mut small, PIXELS, &128_u32.to_le_bytes());
    let pixels = small.windows(PIXELS.len()).position(|window| window == PIXELS).unwrap();
    small.truncate(pixels + PIXELS.len() + 4 + 128);
    let name = study_name(first).into_bytes();
    let places: Vec<usize> = (0..small.len()).filter(|at| small[*at..].starts_with(&name)).collect();
    let image = |number: u128| {
        let mut image = small.clone();
        for at in &places {
            image[*at..*at + name.len()].copy_from_slice(study_name(first + number).as_bytes());
        }
        image
    };
    (0..count).map(image).collect()
}

/// A number that somebody who measures can set.
fn measured(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn a_series_of_many_instances_comes_as_a_whole_in_bounded_memory() {
    let _whole = GRID.whole();
    let count = measured("HYDRA_MANY_INSTANCES", 600);
    let held = many_small(2037, u128::from(count));
    let fake = FakePacs::start(&held, &study(1)[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2037);
    let _ = recall(&desk, &format!("register {what}"))
        .exits(0)
        .prints(&format!("registered {count} instances and 1 key"));
    let daemon = Daemon::start(&desk);
    let began = Instant::now();
    let _ = recall(&desk, &format!("request --wait 3600 {what}"))
        .exits(0)
        .prints(&format!("placed {count} of {count} files"));
    println!(
        "{count} instances in {:?}, at most {} MiB",
        began.elapsed(),
        daemon.peak_mib()
    );
    assert_eq!(fake.gets.load(Ordering::Acquire), 1);
    assert_eq!(files_under(&desk.path("se")).len() as u64, count);
    assert!(daemon.peak_mib() < 192, "{} MiB", daemon.peak_mib());
    let _ = daemon.stop();
}

#[test]
fn an_instance_of_any_length_comes_in_bounded_memory() {
    let _whole = GRID.whole();
    let more = measured("HYDRA_LONG_INSTANCE", 192 * 1024 * 1024);
    let mut long = study(2038).swap_remove(2);
    let pixels = u64::from(512_u16) * 512 * 2;
    let length = u32::try_from(pixels + more).unwrap();
    set_value(&mut long, PIXELS, &length.to_le_bytes());
    let fake = FakePacs::start(&[long], &study(1)[0], Fault::Longer(more));
    let desk = desk(fake.port);
    let what = study_name(2038);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let daemon = Daemon::start(&desk);
    let began = Instant::now();
    let _ = recall(&desk, &format!("request --wait 3600 {what}")).exits(0);
    println!(
        "{more} bytes in {:?}, at most {} MiB",
        began.elapsed(),
        daemon.peak_mib()
    );
    let listed = json_lines(&recall(&desk, "ls --json").exits(0));
    assert!(listed[0]["size"].as_u64().unwrap() > more);
    assert!(daemon.peak_mib() < 128, "{} MiB", daemon.peak_mib());
    let _ = daemon.stop();
}

#[test]
fn bad_instances_missing_keys_and_changed_files_fail_alone_and_are_told() {
    let _whole = GRID.whole();
    let mut held = study(2040);
    held.push(ct_slice(&INVENTED, [2040, 204_013, 2_040_104, 9]));
    held.push(ct_slice(&INVENTED, [2040, 204_014, 2_040_105, 9]));
    // the head is whole, the pixels are not
    let length = held[1].len();
    held[1].truncate(length - 1000);
    let fake = FakePacs::start(&held, &held[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2040);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let listed = json_lines(&recall(&desk, "ls --json --original").exits(0));
    let of = |series: &str| {
        let found = listed.iter().find(|one| one["original"]["series"] == series);
        found
            .map(|one| {
                (
                    one["name"].as_str().unwrap().to_owned(),
                    one["key_id"].as_str().unwrap().to_owned(),
                )
            })
            .unwrap()
    };
    let (keyless, key_id) = of("2.25.204013");
    let _ = desk.run_words("eds-key-unregister", &[&key_id]).exits(0);
    // something else was registered for this one
    let (changed, _) = of("2.25.204014");
    let registry = LocalRegistry::new(Arc::new(
        Database::open(&DatabaseSource::File(desk.path("recall.db"))).unwrap(),
    ));
    let recorded = registry.record(&[(changed.clone(), 4711, "0".repeat(64))]).unwrap();
    assert_eq!(recorded, [Recorded::Same]);

    let daemon = Daemon::start(&desk);
    let ended = recall(&desk, &format!("request --json --wait 60 {what}"));
    let reasons: Vec<(String, String)> = json_lines(&ended)
        .iter()
        .filter(|one| one["state"] == "failed")
        .map(|one| {
            (
                one["name"].as_str().unwrap().to_owned(),
                one["reason"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(reasons.len(), 3, "{ended:?} {}", daemon.log());
    assert!(reasons.contains(&(keyless, "key".to_owned())), "{reasons:?}");
    assert!(
        reasons.contains(&(changed.clone(), "changed".to_owned())),
        "{reasons:?}"
    );
    assert_eq!(
        reasons.iter().filter(|(_, reason)| reason == "refused").count(),
        1,
        "{reasons:?}"
    );
    let placed = files_under(&desk.path("se"));
    assert_eq!(placed.len(), 2, "{:?}", placed.keys());
    assert!(!placed.contains_key(Path::new(changed.trim_start_matches('/'))));
    let _ = ended.exits(65);
    let failed = json_lines(&recall(&desk, "requests --state failed --json"));
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().any(|one| one["refusal"] == "truncated"), "{failed:?}");
    let _ = recall(&desk, "requests --state failed").prints(": truncated (tried once)");
    let log = daemon.stop();
    assert!(log.contains("cut off at byte"), "with its cause: {log}");
    assert!(!log.contains(INVENTED.name) && !log.contains("2.25.2040101"), "{log}");
}

/// The other end of the line, played by the test.
struct Agent {
    runtime: tokio::runtime::Runtime,
    stream: tokio::net::UnixStream,
    upto: i64,
    entries: BTreeMap<String, Entry>,
    registry: String,
}

impl Agent {
    /// Waits for the daemon to dial, and greets it.
    fn accept(listener: &std::os::unix::net::UnixListener, known: Option<(String, i64)>, on_disk: &[String]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let entered = runtime.enter();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        drop(entered);
        let mut agent = Self {
            runtime,
            stream,
            upto: 0,
            entries: BTreeMap::new(),
            registry: String::new(),
        };
        let Frame::Message(FromDaemon::Hello { version, registry, .. }) = agent.read() else {
            panic!("no greeting");
        };
        assert_eq!(version, line::VERSION);
        agent.registry = registry;
        let (registry, upto) = known.map_or((None, 0), |(registry, upto)| (Some(registry), upto));
        agent.upto = upto;
        let version = line::VERSION;
        agent.say(&FromPlace::Hello {
            version,
            registry,
            upto,
        });
        let names = on_disk.to_vec();
        agent.say(&FromPlace::OnDisk { names, last: true });
        agent
    }

    fn read(&mut self) -> Frame<FromDaemon> {
        let stream = &mut self.stream;
        let read = async { tokio::time::timeout(DEADLINE, line::read::<FromDaemon>(stream)).await };
        self.runtime.block_on(read).expect("in time").unwrap()
    }

    fn say(&mut self, message: &FromPlace) {
        let frame = line::message(message);
        self.runtime.block_on(line::write(&mut self.stream, &frame)).unwrap();
    }

    fn want(&mut self, name: &str) {
        let name = name.to_owned();
        self.say(&FromPlace::Want { name, priority: 2 });
    }

    /// The next message that is no ping; entries are taken in on the way.
    fn next(&mut self) -> Frame<FromDaemon> {
        loop {
            match self.read() {
                Frame::Message(FromDaemon::Entries { entries, upto }) => {
                    assert!(upto > self.upto && !entries.is_empty());
                    self.upto = upto;
                    self.entries
                        .extend(entries.into_iter().map(|entry| (entry.name.clone(), entry)));
                }
                Frame::Message(FromDaemon::Ping) => {}
                other => return other,
            }
        }
    }

    /// Reads until a file was sent whole; answers its transfer, its name and its bytes, and the news on the way.
    fn file(&mut self) -> (u32, String, Vec<u8>, Vec<(String, News)>) {
        let (mut offered, mut bytes, mut news) = (None, Vec::new(), Vec::new());
        loop {
            match self.next() {
                Frame::Message(FromDaemon::News { name, news: one }) => news.push((name, one)),
                Frame::Message(FromDaemon::Offer { transfer, name, .. }) => offered = Some((transfer, name)),
                Frame::Piece { transfer, bytes: piece } => {
                    assert_eq!(Some(transfer), offered.as_ref().map(|(transfer, _)| *transfer));
                    bytes.extend(piece);
                }
                Frame::Message(FromDaemon::Finish {
                    transfer,
                    size,
                    sha256: digest,
                }) => {
                    assert_eq!((size, digest), (bytes.len() as u64, sha256(&bytes)));
                    let (offered, name) = offered.unwrap();
                    assert_eq!(transfer, offered);
                    return (transfer, name, bytes, news);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next news of this name that says so.
    fn news(&mut self, of: &str, is_so: impl Fn(&News) -> bool) {
        loop {
            if let Frame::Message(FromDaemon::News { name, news }) = self.next()
                && name == of
                && is_so(&news)
            {
                return;
            }
        }
    }
}

#[test]
fn an_agent_gets_what_it_wants_and_says_what_became_of_it() {
    let _whole = GRID.whole();
    let fake = FakePacs::start(&study(2050), &study(1)[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2050);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    fs::create_dir(desk.path("now")).unwrap();
    let _ = recall(&desk, &format!("now {what} now")).exits(0);
    let expected: BTreeMap<String, Vec<u8>> = files_under(&desk.path("now"))
        .into_iter()
        .map(|(path, bytes)| (format!("/{}", path.display()), bytes))
        .collect();
    let names: Vec<String> = expected.keys().cloned().collect();
    let gets = fake.gets.load(Ordering::Acquire);

    configure(&desk, fake.port, "connect = \"unix:line\"");
    let daemon = Daemon::start(&desk);
    // while the agent is away nothing is fetched
    let _ = recall(&desk, &format!("request {}", names[2])).exits(0);
    until(
        || {
            states(&desk)
                .get("waiting")
                .is_some_and(|all| all[0]["reason"] == "storage")
        },
        || daemon.log(),
    );
    let _ = recall(&desk, &format!("cancel {}", names[2])).exits(0);
    assert_eq!(fake.gets.load(Ordering::Acquire), gets);

    let listener = std::os::unix::net::UnixListener::bind(desk.path("line")).unwrap();
    let mut agent = Agent::accept(&listener, None, &[]);
    agent.want(&names[0]);
    agent.want("/eds/nobody/knows");
    let (transfer, name, bytes, mut news) = agent.file();
    assert!(name == names[0] && bytes == expected[&name], "{name}");
    let listed: Vec<&String> = agent.entries.keys().collect();
    assert_eq!(listed, names.iter().collect::<Vec<_>>());
    assert!(agent.entries.values().all(|entry| entry.size.is_none() && !entry.gone));
    // it has no room for it this time
    let reason = Reason::Storage;
    agent.say(&FromPlace::NotPlaced { transfer, reason });
    let (transfer, name, bytes, more) = agent.file();
    assert!(name == names[0] && bytes == expected[&name]);
    news.extend(more);
    for expected in [
        (&*names[0], News::Started),
        (&*names[0], News::Waiting { reason }),
        (
            "/eds/nobody/knows",
            News::Failed {
                reason: Reason::Unknown,
            },
        ),
    ] {
        assert!(
            news.contains(&(expected.0.to_owned(), expected.1.clone())),
            "{expected:?}: {news:?}"
        );
    }
    agent.say(&FromPlace::Placed { transfer });
    let _ = recall(&desk, &format!("request --wait 30 {name}")).exits(0);

    // the line is cut in the midst of a file
    agent.want(&names[1]);
    while !matches!(agent.next(), Frame::Piece { .. }) {}
    let known = (agent.registry.clone(), agent.upto);
    drop(agent);
    let mut agent = Agent::accept(&listener, Some(known), &names[..1]);
    agent.want(&names[1]);
    let (transfer, name, bytes, _) = agent.file();
    assert!(name == names[1] && bytes == expected[&name]);
    agent.say(&FromPlace::Placed { transfer });
    let _ = recall(&desk, &format!("request --wait 30 {name}")).exits(0);
    // what is on disk is known to be, and what it is
    let of = |name: &str| {
        let listed = json_lines(&recall(&desk, &format!("ls --json {name}")).exits(0));
        (listed[0]["on_disk"].clone(), listed[0]["sha256"].clone())
    };
    assert_eq!(of(&names[0]), (true.into(), sha256(&expected[&names[0]]).into()));
    until(|| of(&names[1]).0 == true, || daemon.log());
    let evict = |agent: &mut Agent| {
        let _ = recall(&desk, &format!("evict {}", names[0]))
            .exits(0)
            .prints("asked the agent");
        assert_eq!(of(&names[0]).0, false, "what is to go is not there");
        loop {
            if let Frame::Message(FromDaemon::Evict { name }) = agent.next() {
                assert_eq!(name, names[0]);
                return FromPlace::Evicted { name };
            }
        }
    };
    // asked for again before the agent has said that it took it away
    let evicted = evict(&mut agent);
    let _ = recall(&desk, &format!("request {}", names[0])).exits(0);
    let (transfer, name, bytes, _) = agent.file();
    assert!(name == names[0] && bytes == expected[&name]);
    agent.say(&evicted);
    agent.say(&FromPlace::Placed { transfer });
    let _ = recall(&desk, &format!("request --wait 30 {name}")).exits(0);
    assert_eq!(of(&name).0, true);
    let evicted = evict(&mut agent);
    agent.say(&evicted);
    // what the hospital gives up the agent is told, and what it does not want any more is not fetched
    agent.want(&names[2]);
    let (transfer, name, ..) = agent.file();
    assert_eq!(name, names[2]);
    let reason = Reason::Changed;
    agent.say(&FromPlace::NotPlaced { transfer, reason });
    agent.news(&names[2], |news| *news == News::Failed { reason });
    let _ = daemon.stop();
}

#[test]
fn sizes_are_known_beforehand_and_a_store_too_few_is_waited_for() {
    let fake = FakePacs::start(&study(2060), &study(1)[0], Fault::None);
    let desk = desk(fake.port);
    let what = study_name(2060);
    let whole = GRID.whole();
    let _ = recall(&desk, &format!("register --exact-size {what}"))
        .exits(0)
        .prints("measured 3 of 3 files");
    assert!(files_under(&desk.path("se")).is_empty());
    let known: BTreeMap<String, (u64, String)> = json_lines(&recall(&desk, "ls --json").exits(0))
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap().to_owned();
            (text("name"), (one["size"].as_u64().unwrap(), text("sha256")))
        })
        .collect();
    let gets = fake.gets.load(Ordering::Acquire);
    let _ = recall(&desk, &format!("register --exact-size {what}"))
        .exits(0)
        .prints("measured 0 of 0 files");
    assert_eq!(
        fake.gets.load(Ordering::Acquire),
        gets,
        "what is known is not measured again"
    );
    drop(whole);

    let mut broken = GRID.alone();
    broken.kill(1);
    broken.kill(2);
    let daemon = Daemon::start(&desk);
    let _ = recall(&desk, &format!("request {what}")).exits(0);
    let is_waiting = || {
        let waiting = states(&desk).remove("waiting").unwrap_or_default();
        waiting.len() == 3 && waiting.iter().all(|one| one["reason"] == "key" && one["tries"] != 0)
    };
    until(is_waiting, || daemon.log());
    assert_eq!(
        fake.gets.load(Ordering::Acquire),
        gets,
        "without a key nothing is fetched"
    );
    broken.start_again();
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    let placed = files_under(&desk.path("se"));
    assert_eq!(placed.len(), 3);
    for (path, bytes) in &placed {
        let (size, digest) = &known[&format!("/{}", path.display())];
        assert_eq!((bytes.len() as u64, sha256(bytes)), (*size, digest.clone()));
    }
    let _ = daemon.stop();
}

#[test]
fn daemon_and_agent_find_each_other_over_mutual_tls() {
    let whole = GRID.whole();
    let pki = whole.pki().unwrap();
    let fake = FakePacs::start(&study(2070), &study(1)[0], Fault::None);
    let (desk, port) = (desk(fake.port), free_port());
    let end = |host: &str, peer: &str| {
        let (certificate, key) = pki.host(host);
        format!(
            "peer = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\nauthorities = \"{}\"\n",
            pki.host_dn(peer).unwrap(),
            certificate.display(),
            key.display(),
            pki.certificates().display()
        )
    };
    let connect = format!("connect = \"localhost:{port}\"\n");
    let place = format!(
        "root = \"se\"\ndatabase = \"place.db\"\n[line]\nlisten = \"127.0.0.1:{port}\"\n{}[ask]\nsocket = \"ask\"\n",
        end("se", "keystore1")
    );
    desk.write("place.toml", place);
    let what = study_name(2070);
    let _ = recall(&desk, &format!("register {what}")).exits(0);
    let names: Vec<String> = json_lines(&recall(&desk, "ls --json").exits(0))
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();

    let mut agent = desk.start("dicom-recall", &["place", "place.toml"]);
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    // whoever is not the daemon that the agent was told of is not let in
    configure(&desk, fake.port, &format!("{connect}{}", end("keystore2", "se")));
    let stranger = Daemon::start(&desk);
    until(|| stranger.log().contains("no line to the agent"), || stranger.log());
    assert!(!stranger.log().contains("is up"), "{}", stranger.log());
    let _ = stranger.stop();

    configure(&desk, fake.port, &format!("{connect}{}", end("keystore1", "se")));
    let daemon = Daemon::start(&desk);
    let stage = |name: &str| {
        let mut asked = dicom_recall::ask::Agent::connect(&desk.path("ask")).unwrap();
        let name = name.to_owned();
        let (path, deadline_s) = (None, 60);
        asked
            .ask(&dicom_recall::ask::Ask::Stage { name, path, deadline_s })
            .unwrap()
    };
    // what is registered has to get there first
    until(|| stage(&names[0]) == dicom_recall::ask::Answer::Done, || daemon.log());
    let reason = Reason::Unknown;
    assert_eq!(stage("/eds/nobody/knows"), dicom_recall::ask::Answer::Failed { reason });
    let _ = recall(&desk, &format!("request --wait 60 {what}")).exits(0);
    let placed = files_under(&desk.path("se"));
    assert_eq!(placed.len(), 3, "{:?}", placed.keys());
    for one in json_lines(&recall(&desk, "ls --json").exits(0)) {
        let path = Path::new(one["name"].as_str().unwrap().trim_start_matches('/'));
        assert_eq!(one["sha256"], sha256(&placed[path]));
    }
    let _ = daemon.stop();
    agent.kill().unwrap();
    agent.wait().unwrap();
    the_agent_dials(&desk, &fake, &end, &names);
}

/// The same line the other way round: the daemon listens over TLS, and a stranger who dials it is not let in.
fn the_agent_dials(desk: &Desk, fake: &FakePacs, end: &dyn Fn(&str, &str) -> String, names: &[String]) {
    let port = free_port();
    let place = |ours: &str| {
        let text = format!(
            "root = \"se\"\ndatabase = \"place.db\"\n[line]\nconnect = \"localhost:{port}\"\n{}[ask]\nsocket = \"ask\"\n",
            end(ours, "keystore1")
        );
        desk.write("place.toml", text);
        let mut agent = desk.start("dicom-recall", &["place", "place.toml"]);
        let mut line = String::new();
        BufReader::new(agent.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        agent
    };
    let listen = format!("listen = \"127.0.0.1:{port}\"\n");
    configure(desk, fake.port, &format!("{listen}{}", end("keystore1", "se")));
    let daemon = Daemon::start(desk);
    let mut stranger = place("keystore2");
    until(|| daemon.log().contains("the other end is"), || daemon.log());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(!daemon.log().contains("is up"), "{}", daemon.log());

    let mut agent = place("se");
    let gets = fake.gets.load(Ordering::Acquire);
    fs::remove_file(desk.path("se").join(names[0].trim_start_matches('/'))).unwrap();
    let staged = |name: &str| {
        let mut asked = dicom_recall::ask::Agent::connect(&desk.path("ask")).unwrap();
        let (name, path, deadline_s) = (name.to_owned(), None, 60);
        asked
            .ask(&dicom_recall::ask::Ask::Stage { name, path, deadline_s })
            .unwrap()
    };
    until(|| staged(&names[0]) == dicom_recall::ask::Answer::Done, || daemon.log());
    assert_eq!(files_under(&desk.path("se")).len(), 3);
    assert_eq!(
        fake.gets.load(Ordering::Acquire),
        gets + 1,
        "only what was gone is fetched"
    );
    let _ = daemon.stop();
    agent.kill().unwrap();
    agent.wait().unwrap();
}
