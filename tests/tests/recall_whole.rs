//! From the PACS to a client of the storage element with everything real between: Orthanc, key stores, daemon, agent
//! and XRootD. And what the storage element's side learns meanwhile: nothing that opens a file, and nobody's name.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::LazyLock;

use dicom_recall::ask::Answer;
use hydra_core::keystore::wire::{Answers, ItemResult, ReadAnswer};
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::door::wait_for;
use hydra_tests::hospital::{Place, known};
use hydra_tests::pacs::{FakePacs, Fault, OURS, Orthanc, THEIRS};
use hydra_tests::run;
use hydra_tests::site::{Fabric, Staging, Xrootd};
use hydra_xtask::dicom::{INVENTED, ct_slice, ct_study};
use serde_json::Value;
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// Three slices of a series.
fn series() -> Vec<Vec<u8>> {
    [88_000_101, 88_000_102, 88_000_103]
        .map(|image| ct_slice(&INVENTED, [88_000, 88_000_011, image, 9]))
        .to_vec()
}

/// Ends with this.
struct Hospital(Child);

impl Hospital {
    fn start(desk: &Desk) -> Self {
        let mut child = desk.start("dicom-recall", &["daemon", "recall.toml"]);
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert_eq!(said, "started\n");
        // nobody reads what it logs, and it must not wait for that
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Hospital {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A word, or bytes, that must not be somewhere.
type Needle = (&'static str, Vec<u8>);

/// Which of the needles are in some bytes.
fn found<'a>(needles: &'a [Needle], bytes: &[u8]) -> Vec<&'a str> {
    let has = |needle: &&Needle| bytes.windows(needle.1.len()).any(|window| window == needle.1);
    needles.iter().filter(has).map(|(what, _)| *what).collect()
}

/// Which are in the memory of a process, as whoever administers its machine can look.
fn in_memory(needles: &[Needle], pid: u32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or("");
        // what can be written to: the program's own text is the same everywhere
        if !rights.starts_with("rw") || name.starts_with("[v") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            all.extend(found(needles, &bytes).into_iter().map(str::to_owned));
        }
    }
    all
}

fn in_files(needles: &[Needle], folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            all.extend(in_files(needles, &entry.path()));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            let place = entry.path();
            all.extend(
                found(needles, &bytes)
                    .iter()
                    .map(|what| format!("{what} in {}", place.display())),
            );
        }
    }
    all
}

/// The share of a key that a store hands out, as its bytes and as it is on the wire.
fn share(desk: &Desk, store: &str, key: &str) -> [Vec<u8>; 2] {
    let proxy = desk.variable("X509_USER_PROXY");
    let asked = serde_json::json!({ "items": [{ "key_id": key }] }).to_string();
    let ended = run(Command::new("curl")
        .args([
            "-sS",
            "--capath",
            desk.variable("X509_CERT_DIR"),
            "--cert",
            proxy,
            "--key",
            proxy,
        ])
        .args(["-H", "Content-Type: application/json", "-d", &asked])
        .arg(format!("{}/v1/entries/read", store.trim_end_matches('/'))))
    .exits(0);
    let text = &ended.json()["items"][0]["entry"]["sharings"][0]["share"]["data"];
    let text = text.as_str().unwrap_or_else(|| panic!("{ended:?}")).as_bytes().to_vec();
    let answers: Answers<ReadAnswer> = serde_json::from_str(&ended.stdout).unwrap();
    let Some(ItemResult::Done(answer)) = answers.items.into_iter().next().map(|answer| answer.result) else {
        panic!("{ended:?}");
    };
    let share = answer.entry.unwrap().sharings.remove(0).share.unwrap();
    [share.data.0.expose().to_vec(), text]
}

#[test]
fn peer_a_recall_goes_the_whole_way_and_the_storage_element_learns_nothing() {
    let whole = GRID.whole();
    let fabric = Fabric::make();
    let orthanc = Orthanc::start();
    orthanc.load(&series());
    let mut place = Place::start_watched("");
    let desk = GRID.desk("alice");
    desk.write("secret", [7; 32]);
    let (port, line) = (orthanc.port, place.path("line"));
    desk.write(
        "recall.toml",
        format!(
            "[pacs]\nmethod = \"c-get\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
             [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n[queue]\nfirst_wait_s = 0.05\n\
             [place]\nconnect = \"unix:{}\"\n",
            line.display()
        ),
    );
    let _ = desk
        .run("dicom-recall register --exact-size -c recall.toml 2.25.88000")
        .exits(0);
    let listed = desk.run("dicom-recall ls --json -c recall.toml").exits(0);
    let listed: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let hospital = Hospital::start(&desk);
    names.iter().for_each(|name| known(&place, name));
    let xrootd = Xrootd::nearline(&fabric, &place, Staging::Sync);
    let xrdfs = |arguments: &[&str]| run(Command::new("xrdfs").arg(xrootd.address()).args(arguments));
    let stat = xrdfs(&["stat", names[0]]).exits(0);
    assert!(stat.stdout.contains("Offline"), "{stat:?}");
    assert!(stat.stdout.contains(&listed[0]["size"].to_string()), "{stat:?}");

    let copied = desk.path("copied");
    let xrdcp = || {
        run(Command::new("xrdcp")
            .args(["-s", "-f", &xrootd.root(names[0])])
            .arg(&copied))
    };
    let _ = xrdcp().exits(0);
    let first = fs::read(&copied).unwrap();
    assert_eq!(listed[0]["sha256"], hydra_tests::hospital::sha256(&first));
    let _ = desk.run("eds-decrypt copied opened").exits(0);
    let opened = desk.read("opened");
    let image = series().swap_remove(0);
    // where it is most its own: elsewhere an image may be as even as unused memory
    let pieces = image[image.len() / 2..].chunks(64);
    let pixels = pieces.max_by_key(|piece| piece.iter().collect::<BTreeSet<_>>().len());
    let pixels = pixels.unwrap().to_vec();
    assert!(found(&[("pixels", pixels.clone())], &opened) == ["pixels"]);

    let prepared = xrdfs(&["prepare", "-s", names[1], names[2]]).exits(0);
    wait_for("two files", || names.iter().all(|name| place.stat(name).on_disk));
    let query = xrdfs(&["query", "prepare", prepared.stdout.trim(), names[1]]).exits(0);
    assert!(query.stdout.contains("\"online\":true"), "{query:?}");

    let _ = xrdfs(&["prepare", "-e", names[0]]).exits(0);
    wait_for("its eviction", || !place.stat(names[0]).on_disk);
    let _ = xrdcp().exits(0);
    assert!(fs::read(&copied).unwrap() == first, "recalled again it is another file");

    // what the storage element's administrator can look at: memory, files, logs, what goes over any line
    let key = names[0].rsplit_once('/').unwrap().0;
    let _ = desk.run(&format!("eds-key-export {key} --raw key")).exits(0);
    let text = |what: &'static str, text: &str| (what, text.as_bytes().to_vec());
    let mut needles = vec![
        text("name", INVENTED.name),
        text("a part of the name", "Rosalind"),
        text("patient id", INVENTED.id),
        text("institution", INVENTED.institution),
        text("physician", "Ohnesorg"),
        text("original identifier", "2.25.88000"),
        ("key", desk.read("key")),
        ("pixels", pixels),
    ];
    for store in whole.urls() {
        let [bytes, text] = share(&desk, &store, key);
        assert!(bytes.len() >= 16, "{store} gives a share");
        needles.extend([("share", bytes), ("share in base64", text)]);
    }
    assert!(!found(&needles, &opened).contains(&"name"));
    assert_eq!(found(&needles, &image).len(), 7, "the needles are those of the image");
    if rustix::process::geteuid().is_root() {
        let there = in_memory(&[text("a sealed file's name", names[0])], place.pid());
        assert!(!there.is_empty(), "its memory can be looked at");
        assert_eq!(in_memory(&needles, place.pid()), Vec::<String>::new());
    } else {
        eprintln!("not run: looking into a process's memory needs root");
    }
    assert_eq!(in_files(&needles, &place.path("")), Vec::<String>::new());
    assert_eq!(in_files(&needles, &xrootd.path("")), Vec::<String>::new());
    let traced = place.traced();
    let seen = |needle: &Needle| {
        let needle = std::slice::from_ref(needle);
        traced.iter().filter(|stream| !found(needle, stream).is_empty()).count()
    };
    // it is all there: names, and the bytes of files
    assert!(seen(&text("a sealed file's name", names[0])) > 0, "{}", place.log());
    let middle = first[first.len() / 2..][..64].to_vec();
    assert!(seen(&("sealed bytes", middle)) > 0, "{}", place.log());
    let there: Vec<&str> = needles
        .iter()
        .filter(|one| seen(one) > 0)
        .map(|(what, _)| *what)
        .collect();
    assert_eq!(there, Vec::<&str>::new());
    drop(hospital);
}

#[test]
fn a_registry_that_was_put_back_from_its_backup_tells_the_agent_all_that_is_new() {
    let _whole = GRID.whole();
    let studies = [88_001, 88_002, 88_003].map(|study| ct_study(&INVENTED, study));
    let fake = FakePacs::start(&studies.concat(), &series()[0], Fault::None);
    let place = Place::start("");
    let desk = GRID.desk("alice");
    desk.write("secret", [7; 32]);
    let text = format!(
        "[pacs]\nmethod = \"c-get\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\nport = {}\n\
         [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n\
         [place]\nconnect = \"unix:{}\"\n",
        fake.port,
        place.path("line").display()
    );
    desk.write("recall.toml", text);
    // the names of a study that is registered now
    let register = |study: &str| -> Vec<String> {
        let command = format!("dicom-recall register --json -c recall.toml 2.25.{study}");
        let ended = desk.run(&command).exits(0);
        let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .map(|one: Value| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let told = |names: &[String]| {
        let hospital = Hospital::start(&desk);
        names.iter().for_each(|name| known(&place, name));
        hospital
    };
    drop(told(&register("88001")));
    // a command that ends well leaves all of it in the one file
    let _ = desk.run("dicom-recall ls -c recall.toml").exits(0);
    let backup = desk.read("recall.db");
    drop(told(&register("88002")));
    for more in ["-wal", "-shm"] {
        let _ = fs::remove_file(desk.path(&format!("recall.db{more}")));
    }
    desk.write("recall.db", backup);
    let names = register("88003");
    let _hospital = told(&names);
    assert_eq!(place.stage(&names[0], 60), Answer::Done);
}
