//! Images by way of the catalogue, command by command against real servers: registered by query, out of files, and
//! sealed at once; got into a viewer; killed in their midst, resumed and undone; withdrawn; and what is said where
//! somebody is down (`docs/src/commands/mdm-images.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dicom_net::{Arrival, Taken, Uid, Wanted};
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::pacs::{FakePacs, Fault, OURS, Orthanc, THEIRS, pacs};
use hydra_tests::{Ended, files_under};
use hydra_xtask::dicom::{INVENTED, Patient, ct_slice, ct_study};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| {
    SharedGrid::up(&GridOptions {
        catalog: true,
        ..GridOptions::default()
    })
});

/// Another patient who does not exist.
const OTHER: Patient = Patient {
    name: "Kuhnert^Ottilie",
    id: "KH-0048-1980",
    born: "19800101",
    institution: "St. Nowhere's Hospital",
};
const NO_PACS: u16 = 9;

fn dimse(port: u16) -> String {
    format!("method = \"c-get\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
}

/// The hospital's desk, which is alice's, and a collection of hers. The number makes the secret that identifiers are
/// drawn with, and so the names of keys.
fn hospital(number: u8, collection: &str, pacs: &str) -> Desk {
    let mut desk = GRID.desk("alice");
    desk.write("secret", [number; 32]);
    fs::create_dir(desk.path("se")).unwrap();
    let config = desk.write(
        "recall.toml",
        format!("[pacs]\n{pacs}[deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n"),
    );
    desk.set("DICOM_RECALL_CONFIG", config.to_str().unwrap());
    let _ = desk.run_words("mdm-mkdir", &["-p", collection]).exits(0);
    let _ = desk.run_words("mdm-schema", &["--images", collection]).exits(0);
    desk
}

/// A folder with the files of a study.
fn files(desk: &Desk, patient: &Patient, number: u128) -> PathBuf {
    for (place, file) in ct_study(patient, number).into_iter().enumerate() {
        desk.write(&format!("in/{number}/{place}.dcm"), file);
    }
    desk.path(&format!("in/{number}"))
}

fn register(desk: &Desk, into: &str, more: &[&str]) -> Ended {
    desk.run_words("mdm-register", &[&["--into", into], more].concat())
}

fn count(desk: &Desk, collection: &str, query: &str) -> u64 {
    let counted = desk.run_words("mdm-find", &["--count", collection, query]).exits(0);
    counted.stdout.trim().parse().unwrap()
}

/// The registrations that are not at their end.
fn open(desk: &Desk) -> Vec<String> {
    let listed = desk.run("mdm-register --list --json").exits(0);
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["id"].as_str().unwrap().to_owned()
    };
    listed.stdout.lines().map(id).collect()
}

fn only(mut all: Vec<String>) -> String {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn peer_orthanc_a_query_registers_what_a_pacs_finds_by_either_protocol_as_from_files() {
    let _whole = GRID.whole();
    let orthanc = Orthanc::start();
    orthanc.load(&ct_study(&INVENTED, 88_200));
    orthanc.load(&ct_study(&OTHER, 88_201));
    let web = format!("method = \"wado-rs\"\ndicomweb = \"{}\"\n", orthanc.dicomweb());
    let columns = "modality,body_part,manufacturer,rows,columns,frames,slice_thickness,patient_sex,age_group,study_year,\
                   sop_class,study_uid,series_uid,instance_uid,patient_name,patient_id,birth_date,study_date,\
                   accession_number,institution,referring_physician,original_instance_uid";
    let table = |desk: &Desk, collection: &str| {
        let words = ["--csv", "--columns", columns, collection, "ORDER BY instance_uid"];
        desk.run_words("mdm-find", &words).exits(0).stdout
    };
    let query = format!("PatientID={},Modality=CT,StudyDate=20260101-", INVENTED.id);

    let by_dimse = hospital(11, "/myvo/by-dimse", &dimse(orthanc.port));
    let _ = register(&by_dimse, "/myvo/by-dimse", &["--query", &query])
        .exits(0)
        .prints("registered 3 images under 2 new keys, 0 already registered\n");
    let by_web = hospital(11, "/myvo/by-web", &web);
    let _ = register(&by_web, "/myvo/by-web", &["--query", &query])
        .exits(0)
        .prints("registered 3 images under 0 new keys, 0 already registered\n");
    let by_file = hospital(11, "/myvo/by-file", &dimse(NO_PACS));
    let folder = files(&by_file, &INVENTED, 88_200);
    let _ = register(&by_file, "/myvo/by-file", &[folder.to_str().unwrap()])
        .exits(0)
        .prints("registered 3 images under 0 new keys, 0 already registered\n");
    let told = table(&by_dimse, "/myvo/by-dimse");
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.contains("CT,CHEST,") && told.contains(",65-69,2026,"), "{told}");
    assert_eq!(told, table(&by_web, "/myvo/by-web"));
    assert_eq!(told, table(&by_file, "/myvo/by-file"));

    // what C-FIND left out comes from the file
    let folder = files(&by_dimse, &INVENTED, 88_200);
    let _ = register(&by_dimse, "/myvo/by-dimse", &[folder.to_str().unwrap()])
        .exits(0)
        .prints("registered 0 images under 0 new keys, 3 already registered\n");
    assert_eq!(count(&by_dimse, "/myvo/by-dimse", "transfer_syntax IS NULL"), 0);

    // again, by a query that no list of processes shows
    for desk in [(&by_dimse, "/myvo/by-dimse"), (&by_web, "/myvo/by-web")] {
        let words = format!("mdm-register --into {} --query -", desk.1);
        let again = desk.0.feed(&words, query.replace(',', "\n").as_bytes()).exits(0);
        let _ = again.prints("registered 0 images under 0 new keys, 3 already registered\n");
        for nothing in ["PatientID=KH-9999", "PatientID=KH-0047-1961,ModalitiesInStudy=MR"] {
            let _ = register(desk.0, desk.1, &["--query", nothing])
                .exits(74)
                .says("there is nothing of what was asked for");
        }
        let _ = register(desk.0, desk.1, &["--query", "PatientName"]).exits(2);
        assert!(open(desk.0).is_empty());
    }
    // a study by its identifier, of the other patient
    let _ = register(&by_web, "/myvo/by-web", &["2.25.88201"])
        .exits(0)
        .prints("registered 3 images under 2 new keys");
    assert_eq!(count(&by_web, "/myvo/by-web", "patient_name LIKE 'kuhn%'"), 3);
}

#[test]
fn a_pacs_that_tells_nothing_of_the_patient_is_asked_for_the_image() {
    let _whole = GRID.whole();
    let images = ct_study(&INVENTED, 88_250);
    let terse = FakePacs::start(&images, &images[0], Fault::None);
    let alice = hospital(38, "/myvo/terse", &dimse(terse.port));
    let _ = register(&alice, "/myvo/terse", &["2.25.88250"])
        .exits(0)
        .prints("registered 3 images");
    assert_eq!(terse.gets.load(Ordering::Acquire), 2, "once for each series");
    assert_eq!(count(&alice, "/myvo/terse", "patient_name LIKE 'feld%'"), 3);
}

/// Seals a file into the desk's storage; its path in the catalogue and the file there.
fn sealed(desk: &Desk, collection: &str, file: &Path, name: &str) -> (String, PathBuf) {
    let place = desk.path(&format!("se/{name}"));
    let url = format!("file://{}", place.display());
    let done = register(desk, collection, &["--seal", file.to_str().unwrap(), &url]).exits(0);
    let mut words = done.stdout.split([' ', ',', '\n']);
    let path = words.find(|word| word.starts_with(collection)).unwrap();
    assert!(done.stdout.ends_with(&format!(", at {url}\n")), "{done:?}");
    (path.to_owned(), place)
}

#[test]
fn peer_orthanc_an_image_goes_into_a_viewer_out_of_memory() {
    let _whole = GRID.whole();
    let viewer = Orthanc::start();
    let mut alice = hospital(12, "/myvo/viewed", &dimse(NO_PACS));
    let image = ct_slice(&INVENTED, [88_210, 88_211, 88_212, 9]);
    let file = alice.write("0.dcm", &image);
    let (path, _) = sealed(&alice, "/myvo/viewed", &file, "0.eds");
    fs::create_dir(alice.path("tmp")).unwrap();
    let tmp = alice.path("tmp").to_str().unwrap().to_owned();
    alice.set("TMPDIR", &tmp);
    let before = alice.names();
    let to = format!("dicom://{THEIRS}@127.0.0.1:{}", viewer.port);
    let _ = alice
        .run_words("mdm-get", &["--to", &to, &path])
        .exits(0)
        .prints("sent 1 image\n");
    assert_eq!(alice.names(), before);
    assert!(files_under(&alice.path("tmp")).is_empty());
    let shown = alice.run_words("mdm-show", &["--json", &path]).exits(0).json();
    let attributes = &shown["entries"][0]["attributes"];
    let uid = |name: &str| Uid::new(attributes[name].as_str().unwrap()).unwrap();
    let wanted = Wanted {
        study: uid("study_uid"),
        series: Some(uid("series_uid")),
        instances: vec![uid("instance_uid")],
    };
    let mut came = Vec::new();
    let mut sink = |_: &Arrival, file: &mut dyn std::io::Read| {
        file.read_to_end(&mut came).unwrap();
        Taken::Kept
    };
    pacs(viewer.port).get(&wanted, &[], &mut sink).unwrap();
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    for telling in [INVENTED.name, INVENTED.id, INVENTED.institution, "2.25.88212"] {
        assert!(
            has(&image, telling.as_bytes()) && !has(&came, telling.as_bytes()),
            "{telling}"
        );
    }
    assert!(has(&came, &image[image.len() - 512 * 512 * 2..]), "its pixels came");
    // by a query as well; a viewer that is not there is named, and that it may be tried again
    let query = [
        "--query",
        "modality = 'CT'",
        "--from",
        "/myvo/viewed",
        "--to",
        &to,
        "/myvo/viewed",
    ];
    let _ = alice.run_words("mdm-get", &query).exits(0).prints("sent 1 image\n");
    let nobody = format!("dicom://{THEIRS}@127.0.0.1:{NO_PACS}");
    let _ = alice
        .run_words("mdm-get", &["--to", &nobody, &path])
        .exits(74)
        .says(&format!("127.0.0.1:{NO_PACS}"));
    // whoever may not open it sends nothing
    let bob = GRID.desk("bob");
    let _ = bob.run_words("mdm-get", &["--to", &to, &path]).exits(77);
}

#[test]
fn what_is_sealed_now_is_got_resumed_and_taken_away_again() {
    let mut broken = GRID.alone();
    let alice = hospital(13, "/myvo/sealed", &dimse(NO_PACS));
    let image = |number: u128| {
        let slice = ct_slice(&INVENTED, [88_220, 88_221, number, 9]);
        alice.write(&format!("{number}.dcm"), slice)
    };
    let (path, place) = sealed(&alice, "/myvo/sealed", &image(1), "1.eds");
    let _ = alice
        .run_words("mdm-get", &[&path, "got"])
        .exits(0)
        .prints("got 1 image");
    let got = files_under(&alice.path("got")).into_values().next().unwrap();
    assert_eq!(&got[128..132], b"DICM");
    let first = fs::read(&place).unwrap();
    let url = |name: &str| format!("file://{}", alice.path(&format!("se/{name}")).display());
    let (one, again, taken) = (alice.path("1.dcm"), url("1.eds"), url("taken.eds"));
    // where something else is nothing is put, and nothing begins
    alice.write("se/taken.eds", "theirs");
    let _ = register(&alice, "/myvo/sealed", &["--seal", one.to_str().unwrap(), &taken])
        .exits(73)
        .says("taken.eds");
    assert_eq!(alice.read("se/taken.eds"), b"theirs");
    assert!(open(&alice).is_empty());

    // of another series, so that a key has to be made while a store is away
    let other = alice.write("2.dcm", ct_slice(&INVENTED, [88_220, 88_222, 2, 9]));
    let words = ["--seal", other.to_str().unwrap(), &url("2.eds")];
    broken.kill(3);
    let failed = register(&alice, "/myvo/sealed", &words).exits(75);
    let id = only(open(&alice));
    let _ = failed.says(&format!("mdm-register --resume {id}"));
    broken.start_again();
    let _ = alice
        .run_words("mdm-register", &["--resume", &id])
        .exits(0)
        .prints("/2.eds");
    assert!(open(&alice).is_empty());
    assert_eq!(count(&alice, "/myvo/sealed", "status = 'online'"), 2);

    // one that ended after its file was there: the file goes with it, and nobody else's does
    let third = image(3);
    for (name, is_ours) in [("3.eds", true), ("4.eds", false)] {
        let words = ["--seal", third.to_str().unwrap(), &url(name)];
        broken.kill(2);
        broken.kill(3);
        let _ = register(&alice, "/myvo/sealed", &words).exits(75);
        let there = if is_ours { first.clone() } else { b"theirs".to_vec() };
        alice.write(&format!("se/{name}"), &there);
        broken.start_again();
        let id = only(open(&alice));
        if !is_ours {
            let _ = alice.run_words("mdm-register", &["--resume", &id]).exits(73).says(name);
        }
        let _ = alice
            .run_words("mdm-register", &["--undo", &id])
            .exits(0)
            .prints("undone: ");
        assert_eq!(alice.path(&format!("se/{name}")).exists(), !is_ours);
        assert_eq!(count(&alice, "/myvo/sealed", ""), 2);
    }
    assert_eq!(alice.read("se/4.eds"), b"theirs");
    // sealed once more where it is already, and taken back: what was there before stays
    broken.kill(2);
    broken.kill(3);
    let _ = register(&alice, "/myvo/sealed", &["--seal", one.to_str().unwrap(), &again]).exits(75);
    broken.start_again();
    let id = only(open(&alice));
    let _ = alice
        .run_words("mdm-register", &["--undo", &id])
        .exits(0)
        .prints("undone: took back 0 names and 0 keys");
    assert_eq!(fs::read(&place).unwrap(), first);
    let _ = alice.run_words("mdm-get", &[&path, "got-again"]).exits(0);
    // and once more without an accident: the same bytes
    let _ = register(&alice, "/myvo/sealed", &["--seal", one.to_str().unwrap(), &again])
        .exits(0)
        .prints("sealed anew");
    assert_eq!(fs::read(&place).unwrap(), first);
}

fn start(desk: &Desk, collection: &str, folder: &Path) -> Child {
    let words = ["--into", collection, "--key-per", "instance", folder.to_str().unwrap()];
    desk.start("mdm-register", &words)
}

/// Takes up what is left of a registration that ended as by a power cut.
fn resumed_or_undone(desk: &Desk, collection: &str, folder: &Path, is_resumed: bool) {
    let images = files_under(folder).len() as u64;
    let Some(id) = open(desk).pop() else {
        let count = count(desk, collection, "");
        assert!(count == 0 || count == images, "{count}");
        return;
    };
    if is_resumed {
        let _ = desk
            .run_words("mdm-register", &["--resume", &id])
            .exits(0)
            .prints("registered ");
    } else {
        let undone = desk.run_words("mdm-register", &["--undo", &id]);
        if undone.code == Some(0) {
            assert_eq!(count(desk, collection, ""), 0);
            let listed = desk.run_words("mdm-ls", &["-R", collection]).exits(0);
            assert_eq!(listed.stdout, "", "no directory is left either");
            // as if it had never been: no key is there, either
            let words = ["--key-per", "instance", folder.to_str().unwrap()];
            let said = format!("registered {images} images under {images} new keys, 0 already registered\n");
            let _ = register(desk, collection, &words).exits(0).prints(&said);
        } else {
            let _ = undone.exits(1).says("is at its end");
        }
    }
    assert!(open(desk).is_empty());
    let found = desk
        .run_words("mdm-find", &["--columns", "key_id", collection])
        .exits(0);
    let keys: Vec<&str> = found.stdout.lines().skip(1).collect();
    assert_eq!(keys.len() as u64, images);
    for key in keys {
        let _ = desk.run_words("eds-key-status", &[key]).exits(0);
    }
}

#[test]
fn killed_at_any_moment_a_registration_is_resumed_or_undone_whole() {
    let _whole = GRID.whole();
    for (round, wait) in [20, 60, 100, 140, 180, 240, 320, 450].into_iter().enumerate() {
        let collection = format!("/myvo/killed-{round}");
        let alice = hospital(20, &collection, &dimse(NO_PACS));
        let folder = files(&alice, &INVENTED, 88_300 + round as u128);
        let mut child = start(&alice, &collection, &folder);
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        resumed_or_undone(&alice, &collection, &folder, round % 2 == 0);
    }
}

#[test]
fn killed_while_its_keys_are_made_it_leaves_none_that_is_not_known() {
    for (number, is_resumed) in [(31, true), (32, false)] {
        let collection = format!("/myvo/killed-keys-{number}");
        let mut broken = GRID.alone();
        let alice = hospital(number, &collection, &dimse(NO_PACS));
        let folder = files(&alice, &INVENTED, 88_400);
        broken.hang(2);
        let mut child = start(&alice, &collection, &folder);
        while open(&alice).is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // two stores have their shares by now, pending, and the third may have what waits for it
        std::thread::sleep(Duration::from_millis(700));
        child.kill().unwrap();
        child.wait().unwrap();
        broken.start_again();
        resumed_or_undone(&alice, &collection, &folder, is_resumed);
    }
}

#[test]
fn two_registrations_of_one_study_at_once_both_end_well() {
    let _whole = GRID.whole();
    let alice = hospital(33, "/myvo/twice", &dimse(NO_PACS));
    let folder = files(&alice, &INVENTED, 88_500);
    let both = [
        start(&alice, "/myvo/twice", &folder),
        start(&alice, "/myvo/twice", &folder),
    ];
    let mut new = 0;
    for child in both {
        let output = child.wait_with_output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        let number = out.strip_prefix("registered ").and_then(|rest| rest.split(' ').next());
        new += number.and_then(|number| number.parse::<u64>().ok()).unwrap();
    }
    assert_eq!((new, count(&alice, "/myvo/twice", "")), (3, 3));
    assert!(open(&alice).is_empty());
}

#[test]
fn what_changed_before_it_is_resumed_is_registered_as_it_is_now() {
    let mut broken = GRID.alone();
    let alice = hospital(34, "/myvo/changed", &dimse(NO_PACS));
    let folder = files(&alice, &INVENTED, 88_510);
    broken.kill(1);
    let words = ["--into", "/myvo/changed", "in/88510"];
    let _ = alice.run_words("mdm-register", &words).exits(75);
    broken.start_again();
    let id = only(open(&alice));
    // one image says something else by now, one is gone, and one cannot be read any more
    let mut bytes = alice.read("in/88510/0.dcm");
    let at = bytes.windows(5).position(|window| window == b"CHEST").unwrap();
    bytes[at..at + 5].copy_from_slice(b"HEART");
    alice.write("in/88510/0.dcm", bytes);
    fs::remove_file(folder.join("1.dcm")).unwrap();
    let whole = alice.read("in/88510/2.dcm");
    alice.write("in/88510/2.dcm", &whole[..400]);
    let resumed = alice.run_words("mdm-register", &["--resume", &id]).exits(1);
    let _ = resumed
        .prints("registered 1 image under 1 new key, 0 already registered\n")
        .says("image 2 of 2 was not registered: `")
        .says("in/88510/2.dcm`: ")
        .says("1 of 2 images not registered");
    assert!(open(&alice).is_empty());
    let found = alice
        .run_words("mdm-find", &["--columns", "body_part", "/myvo/changed"])
        .exits(0);
    assert_eq!(found.stdout, "body_part\nHEART\n");
    let listed = alice.run("mdm-ls -R /myvo/changed").exits(0);
    assert_eq!(
        listed.stdout.lines().count(),
        3,
        "study, series and image: {}",
        listed.stdout
    );
    let known = alice.run("dicom-recall ls -c recall.toml").exits(0);
    assert_eq!(known.stdout.lines().count(), 1, "{}", known.stdout);
}

#[test]
fn a_patient_is_withdrawn_with_all_of_it_or_nothing_yet() {
    let mut broken = GRID.alone();
    let alice = hospital(35, "/myvo/kept", &dimse(NO_PACS));
    let _ = alice.run("mdm-mkdir /myvo/second").exits(0);
    let _ = alice.run("mdm-schema --images /myvo/second").exits(0);
    let (hers, his) = (files(&alice, &INVENTED, 88_600), files(&alice, &OTHER, 88_601));
    let (hers, his) = (hers.to_str().unwrap(), his.to_str().unwrap());
    let _ = register(&alice, "/myvo/kept", &[hers, his])
        .exits(0)
        .prints("registered 6 images under 4 new keys");
    let (_, place) = sealed(&alice, "/myvo/kept", &alice.path("in/88600/0.dcm"), "0.eds");
    // the same study under other names: the same keys
    let _ = register(&alice, "/myvo/second", &[hers])
        .exits(0)
        .prints("registered 3 images under 0 new keys");
    let withdraw = |more: &[&str]| {
        let words = ["--config", "recall.toml", "--from", "/myvo/kept"];
        alice.run_words("mdm-withdraw", &[&words, more].concat())
    };
    let _ = withdraw(&["--yes", INVENTED.id])
        .exits(1)
        .says("/myvo/second/")
        .says("files more; nothing was removed")
        .says("--from DIR");
    let both = ["--from", "/myvo/second", INVENTED.id];
    let dry = withdraw(&[&["--dry-run"], &both[..]].concat()).exits(0);
    assert_eq!(dry.stdout.lines().filter(|line| line.starts_with("name ")).count(), 6);
    assert_eq!(dry.stdout.lines().filter(|line| line.starts_with("key ")).count(), 2);
    assert_eq!(count(&alice, "/myvo/kept", ""), 6);
    // without a person to ask nothing goes
    let _ = withdraw(&both).exits(2).says("--yes");
    // as long as one store is away its share is there: nothing else goes
    let yes = [&["--yes"], &both[..]].concat();
    broken.kill(2);
    let _ = withdraw(&yes).exits(75).says("copies and names are left");
    assert_eq!(count(&alice, "/myvo/kept", ""), 6);
    assert!(place.exists());
    broken.start_again();
    let _ = withdraw(&yes)
        .exits(0)
        .prints("removed 2 keys, 6 names; left: 0 keys, 0 names, 0 copies")
        .prints("a backup of the catalogue could bring names and attributes back");
    assert!(!place.exists());
    assert_eq!(count(&alice, "/myvo/kept", ""), 3);
    assert_eq!(count(&alice, "/myvo/kept", &format!("patient_id = '{}'", OTHER.id)), 3);
    let known = alice.run("dicom-recall ls -c recall.toml").exits(0);
    assert_eq!(known.stdout.lines().count(), 3, "{}", known.stdout);
    // there is nothing any more, and no word tells that there was
    let _ = withdraw(&yes).exits(77).says("there is nothing of this patient");
    // his stay whole
    let found = alice.run("mdm-find --columns key_id /myvo/kept").exits(0);
    for key in found.stdout.lines().skip(1) {
        let _ = alice.run_words("eds-key-status", &[key]).exits(0);
    }
}

/// What the catalogue says of a file.
fn shown(desk: &Desk, path: &str) -> serde_json::Value {
    desk.run_words("mdm-show", &["--json", path]).exits(0).json()["entries"][0].clone()
}

#[test]
fn a_withdrawal_believes_nobody_who_may_only_write_names() {
    let _whole = GRID.whole();
    let alice = hospital(38, "/myvo/believed", &dimse(NO_PACS));
    let folder = files(&alice, &INVENTED, 88_900);
    let _ = register(&alice, "/myvo/believed", &[folder.to_str().unwrap()]).exits(0);
    let (path, place) = sealed(&alice, "/myvo/believed", &alice.path("in/88900/0.dcm"), "0.eds");
    let key = shown(&alice, &path)["key_id"].as_str().unwrap().to_owned();
    // what is in an archive keeps its copy
    let _ = alice
        .run_words("lcg-del", &["-a", &format!("lfn:{path}")])
        .exits(1)
        .says("keeps its replicas");
    assert!(place.exists());
    // sealed anew under a key of which the catalogue knows nothing, with NEW left out at first
    let file = place.to_str().unwrap();
    let _ = alice
        .run_words("eds-key-rotate", &[&key, file, file])
        .exits(2)
        .says("is a file");
    let _ = alice
        .run_words("eds-key-rotate", &[&key, "/myvo/turned-38", file])
        .exits(0);

    // somebody writes other keys and files into a name: a thesis with its key, and notes
    alice.write("plain", "a thesis");
    let _ = alice.run("eds-key-register /myvo/thesis-38").exits(0);
    let _ = alice.run("eds-encrypt /myvo/thesis-38 plain thesis.eds").exits(0);
    alice.write("notes", "notes");
    let found = alice.run("mdm-find /myvo/believed").exits(0);
    let alone = found
        .stdout
        .lines()
        .find(|other| shown(&alice, other)["key_id"] != *key);
    let other = alone.unwrap().to_owned();
    let own = shown(&alice, &other)["key_id"].as_str().unwrap().to_owned();
    let url = |name: &str| format!("file://{}", alice.path(name).display());
    let (thesis, notes) = (url("thesis.eds"), url("notes"));
    let set = [
        "--key-id",
        "/myvo/thesis-38",
        "--add-replica",
        &thesis,
        "--add-replica",
        &notes,
    ];
    let _ = alice
        .run_words("mdm-set", &[&[other.as_str()], &set[..]].concat())
        .exits(0);

    let withdraw = |more: &[&str]| {
        let words = ["--yes", "--from", "/myvo/believed", INVENTED.id];
        alice.run_words("mdm-withdraw", &[&words, more].concat())
    };
    let _ = withdraw(&[])
        .exits(1)
        .says("key `/myvo/thesis-38` is left: nothing but the catalogue says")
        .says("thesis.eds` is left: it is sealed under `/myvo/thesis-38`, and is another image")
        .says("notes` is left: it is no file that is sealed")
        .says(&format!("name `{other}` is left"))
        .prints("removed 2 keys, 2 names; left: 1 key, 1 name, 0 copies that nothing opens, 2 files");
    assert!(!place.exists());
    for gone in [&key, "/myvo/turned-38"] {
        let _ = alice.run_words("eds-key-status", &[gone]).prints("removed");
    }
    // the hospital's registry knows the key that it had
    let _ = withdraw(&["--config", "recall.toml"])
        .exits(1)
        .prints("removed 1 key, 1 name; left: 1 key, 0 names");
    let _ = alice.run_words("eds-key-status", &[&own]).prints("removed");
    assert_eq!(count(&alice, "/myvo/believed", ""), 0);
    let _ = alice.run("eds-decrypt thesis.eds opened").exits(0);
    assert_eq!(alice.read("notes"), b"notes");
}

#[test]
fn what_is_there_is_got_again_unless_it_is_the_image_and_nothing_goes_through_links() {
    let _whole = GRID.whole();
    let alice = hospital(39, "/myvo/there", &dimse(NO_PACS));
    let file = alice.write("0.dcm", ct_slice(&INVENTED, [88_950, 88_951, 88_952, 9]));
    let (path, _) = sealed(&alice, "/myvo/there", &file, "0.eds");
    let guid = shown(&alice, &path)["guid"].as_str().unwrap().to_owned();
    let guid = format!("guid:{}", guid.trim_start_matches("guid:"));
    let get = |more: &[&str]| alice.run_words("mdm-get", &[more, &[&path, "got"]].concat());
    let _ = alice
        .run_words("mdm-get", &[&guid, "got"])
        .exits(0)
        .prints("got 1 image\n");
    let _ = alice.run_words("mdm-ls", &[&guid]).exits(0).prints(&path);
    let _ = alice.run_words("mdm-find", &[&path]).exits(2).says("is a file");
    let _ = get(&[]).exits(0).prints("got 0 images, 1 already there\n");
    let got = alice
        .path("got")
        .join(path.rsplit('/').next().unwrap().to_owned() + ".dcm");
    let whole = fs::read(&got).unwrap();
    fs::write(&got, &whole[..whole.len() - 1]).unwrap();
    let _ = get(&[]).exits(73).says("differs or may differ");
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&got, bytes).unwrap();
    let _ = get(&["--force"]).exits(0).prints("got 1 image\n");
    assert!(fs::read(&got).unwrap() == whole);
    let mine = alice.write("mine", "mine");
    fs::remove_file(&got).unwrap();
    std::os::unix::fs::symlink(&mine, &got).unwrap();
    for more in [&[][..], &["--force"]] {
        let _ = get(more).exits(73).says("is no regular file");
    }
    assert_eq!(alice.read("mine"), b"mine");
}

#[test]
fn what_would_show_a_patient_or_register_others_is_refused() {
    let _whole = GRID.whole();
    let images = ct_study(&INVENTED, 88_800);
    let deaf = FakePacs::start(&images, &images[0], Fault::None);
    let alice = hospital(37, "/myvo/refused", &dimse(deaf.port));
    // a PACS that passes over what it is asked for, and does not say whose studies it answers with
    let _ = register(&alice, "/myvo/refused", &["--query", "PatientID=KH-0001"])
        .exits(2)
        .says("does not go by `PatientID`");
    let _ = register(&alice, "/myvo/refused", &["--query", "StudyInstanceUID=2.25.88800"])
        .exits(2)
        .says("StudyInstanceUID");
    let folder = files(&alice, &INVENTED, 88_800);
    let folder = folder.to_str().unwrap();
    let _ = register(&alice, "/myvo/refused", &["--most", "2", "2.25.88800"])
        .exits(2)
        .says("more than 2 images");
    // directories that have not the attributes of images, or have one in the other half
    let _ = alice.run("mdm-mkdir -p /myvo/no-schema /myvo/other-half").exits(0);
    let _ = alice
        .run("mdm-schema --add patient_name:string /myvo/other-half")
        .exits(0);
    for (directory, says) in [
        ("/myvo/no-schema", "has no attribute `patient_id`"),
        ("/myvo/other-half", "`patient_name` is of the other half"),
    ] {
        let _ = register(&alice, directory, &[folder])
            .exits(78)
            .says(says)
            .says(&format!("mdm-schema --images {directory}"));
        assert_eq!(alice.run(&format!("mdm-ls -R {directory}")).exits(0).stdout, "");
    }
    assert!(open(&alice).is_empty());
    // two images that would be one file
    let (first, _) = sealed(&alice, "/myvo/refused", &alice.path("in/88800/0.dcm"), "0.eds");
    let copy = first.replace("/refused/", "/refused/copy-");
    let _ = alice
        .run_words("mdm-mkdir", &["-p", copy.rsplit_once('/').unwrap().0])
        .exits(0);
    let _ = alice
        .run_words(
            "lcg-cr",
            &[
                "-d",
                &format!("file://{}", alice.path("se/x").display()),
                "-l",
                &format!("lfn:{copy}"),
                "se/0.eds",
            ],
        )
        .exits(0);
    let _ = alice
        .run_words("mdm-get", &[&first, &copy, "both"])
        .exits(2)
        .says("would be one file");
    assert!(!alice.path("both").exists());
}

#[test]
fn whoever_is_down_is_named_and_nothing_is_left_behind() {
    let mut broken = GRID.alone();
    let alice = hospital(36, "/myvo/bad-days", &dimse(NO_PACS));
    let folder = files(&alice, &INVENTED, 88_700);
    let folder = folder.to_str().unwrap();
    let (path, place) = sealed(&alice, "/myvo/bad-days", &alice.path("in/88700/0.dcm"), "0.eds");
    let get = |folder: &str| alice.run_words("mdm-get", &[&path, folder]);
    let no_files = |folder: &str| assert!(!alice.path(folder).exists() || files_under(&alice.path(folder)).is_empty());

    broken.kill_catalog();
    for (name, words) in [
        ("mdm-find", vec!["/myvo/bad-days"]),
        ("mdm-get", vec![&path, "down"]),
        ("mdm-show", vec![&path]),
        ("mdm-register", vec!["--into", "/myvo/bad-days", folder]),
        ("mdm-withdraw", vec!["--yes", "--from", "/myvo/bad-days", INVENTED.id]),
    ] {
        let _ = alice.run_words(name, &words).exits(75).says("refused the connection");
    }
    no_files("down");
    assert!(open(&alice).is_empty());
    broken.start_again();

    // one key store: what is there is found and opened, and a new key waits for it
    broken.kill(1);
    assert_eq!(count(&alice, "/myvo/bad-days", ""), 1);
    let _ = get("one-down").exits(0);
    let _ = register(&alice, "/myvo/bad-days", &["--key-per", "instance", folder])
        .exits(75)
        .says("store")
        .says("--resume");
    assert_eq!(count(&alice, "/myvo/bad-days", ""), 3, "for their owner");
    broken.kill(2);
    let _ = get("two-down").exits(75).says("1 of the 2 shares");
    no_files("two-down");
    broken.start_again();
    let id = only(open(&alice));
    let _ = alice
        .run_words("mdm-register", &["--resume", &id])
        .exits(1)
        .says("is taken by something else");
    assert!(open(&alice).is_empty());

    // the PACS
    let _ = register(&alice, "/myvo/bad-days", &["--query", "PatientID=1"])
        .exits(74)
        .says("127.0.0.1:9");
    let _ = register(&alice, "/myvo/bad-days", &["1.2.3"])
        .exits(74)
        .says("127.0.0.1:9");
    assert!(open(&alice).is_empty());

    // the file: altered, then gone
    let mut bytes = fs::read(&place).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&place, bytes).unwrap();
    let _ = get("altered").exits(65);
    fs::remove_file(&place).unwrap();
    let _ = get("gone").exits(74).says("0.eds");
    no_files("altered");
    no_files("gone");
}
