//! `dicom-recall` end to end: from a PACS to sealed files on a real grid, with good and bad PACS.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::door::wait_for;
use hydra_tests::pacs::{Dcmqrscp, FakePacs, Fault, OURS, Orthanc, THEIRS, free_port, load};
use hydra_tests::{Ended, files_under};
use hydra_xtask::dicom::{INVENTED, Patient, ct_slice, ct_study};
use serde_json::Value;
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// A study of two series with two slices and one; the number keeps the keys of tests apart.
fn study(number: u128) -> Vec<Vec<u8>> {
    ct_study(&INVENTED, number)
}

fn study_name(number: u128) -> String {
    format!("2.25.{number}")
}

fn series_name(number: u128, series: u128) -> String {
    format!("2.25.{number}/2.25.{}", number * 100 + series)
}

/// A desk with the secret, a configuration for the PACS at `port`, and a folder to put files into.
fn desk(pacs: &str) -> Desk {
    let desk = GRID.desk("alice");
    desk.write("secret", [7; 32]);
    configure(&desk, "recall.toml", pacs);
    fs::create_dir(desk.path("se")).unwrap();
    desk
}

fn configure(desk: &Desk, name: &str, pacs: &str) {
    let text = format!(
        "[pacs]\n{pacs}\n[pacs.deadlines]\nconnect_s = 20\nassociation_s = 2\nunit_s = 2\n\
         [deid]\nsecret_file = \"secret\"\n"
    );
    desk.write(name, text);
}

fn dimse(method: &str, port: u16) -> String {
    format!("method = \"{method}\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\nport = {port}")
}

fn now(desk: &Desk, what: &str, more: &[&str]) -> Ended {
    let mut arguments = vec!["now", "--config", "recall.toml", "--json"];
    arguments.extend(more);
    arguments.push(what);
    if !more.contains(&"other") {
        arguments.push("se");
    }
    desk.run_words("dicom-recall", &arguments)
}

/// The lines of an answer.
fn lines(ended: &Ended) -> Vec<Value> {
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_state<'a>(lines: &'a [Value], state: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["state"] == state).collect()
}

/// Neither what was said nor any file has anything of the patient, or an original identifier.
#[track_caller]
fn names_nobody(ended: &Ended, placed: &BTreeMap<PathBuf, Vec<u8>>, originals: &[&str]) {
    let mut secrets = vec![INVENTED.name, INVENTED.id, INVENTED.born, "Feldmann", "Ohnesorg"];
    secrets.extend(originals);
    for secret in secrets {
        let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(
            !ended.stdout.contains(secret) && !ended.stderr.contains(secret),
            "{secret}: {ended:?}"
        );
        for (path, bytes) in placed {
            assert!(
                !has(path.to_string_lossy().as_bytes()) && !has(bytes),
                "{secret} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn peer_a_series_comes_from_orthanc_by_every_method_and_is_the_same_file() {
    let _whole = GRID.whole();
    let orthanc = Orthanc::start();
    let sent = study(1001);
    orthanc.load(&sent);
    let desk = desk(&dimse("c-get", orthanc.port));
    let what = series_name(1001, 11);
    let ended = now(&desk, &what, &[]).exits(0);
    let told = lines(&ended);
    assert_eq!(of_state(&told, "placed").len(), 2, "{ended:?}");
    let placed = files_under(&desk.path("se"));
    assert_eq!(placed.len(), 2);
    let originals = ["2.25.1001", "2.25.100111", "2.25.1001101"];
    names_nobody(&ended, &placed, &originals);
    for line in &told {
        let name = line["name"].as_str().unwrap();
        assert_eq!(line["file"].as_str().unwrap(), format!("se{name}"));
        assert_eq!(line["key_id"].as_str().unwrap(), name.rsplit_once('/').unwrap().0);
        let bytes = &placed[Path::new(name.trim_start_matches('/'))];
        assert_eq!(line["file_bytes"], bytes.len());
    }

    // the other ways, into other folders, under the same key: the same bytes
    let listen = format!(
        "{}\nlisten = \"127.0.0.1:{}\"",
        dimse("c-move", orthanc.port),
        orthanc.move_port
    );
    let web = format!("method = \"wado-rs\"\ndicomweb = \"{}\"", orthanc.dicomweb());
    for (name, pacs) in [("move", listen), ("web", web)] {
        configure(&desk, "recall.toml", &pacs);
        fs::create_dir(desk.path(name)).unwrap();
        let ended = desk
            .run_words("dicom-recall", &["now", "-c", "recall.toml", &what, name])
            .exits(0);
        assert!(
            ended.stdout.contains("placed 2 of 2 instances under 1 key"),
            "{ended:?}"
        );
        assert!(files_under(&desk.path(name)) == placed, "{name}: other bytes");
        names_nobody(&ended, &placed, &originals);
    }

    // opened, they are images that other programs read, and say that they name nobody
    let first = told[0]["file"].as_str().unwrap();
    let _ = desk.run_words("eds-decrypt", &[first, "opened.dcm"]).exits(0);
    let dump = Command::new("dcmdump").arg(desk.path("opened.dcm")).output().unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(
        dump.status.success() && text.contains("PatientIdentityRemoved") && text.contains("[YES]"),
        "{text}"
    );
    assert!(text.contains("CTImageStorage") && text.contains("PixelData"), "{text}");
    for secret in [INVENTED.name, INVENTED.id, "Ohnesorg", originals[2]] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let judged = Command::new("dciodvfy").arg(desk.path("opened.dcm")).output().unwrap();
    let judgement = String::from_utf8_lossy(&judged.stderr).into_owned() + &String::from_utf8_lossy(&judged.stdout);
    assert!(!judgement.contains("Error"), "{judgement}");
    // whoever has no right to the key has ciphertext
    let mut bob = GRID.desk("bob");
    bob.write("stolen.eds", desk.read(first));
    let _ = bob.run("eds-decrypt stolen.eds out").exits(77);
    bob.unset("X509_USER_PROXY");

    checks(&desk, &orthanc);
    a_key_for_each_instance_and_a_registered_secret(&desk, &orthanc);
}

#[test]
fn check_tries_what_a_daemon_needs_too() {
    let _whole = GRID.whole();
    let desk = desk(&dimse("c-get", free_port()));
    let pacs = String::from_utf8(desk.read("recall.toml")).unwrap();
    let check = |settings: &str| {
        desk.write("checked.toml", format!("{pacs}{settings}"));
        desk.run("dicom-recall check checked.toml")
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let settings = format!(
        "[registry]\ndatabase = \"nowhere/recall.db\"\n[place]\nconnect = \"unix:line\"\n\
         [receive]\nthen = \"nearline\"\nlisten = \"{address}\"\ncallers = [\"CT1\"]\n"
    );
    let ended = check(&settings);
    for words in [
        "failed  registry: ",
        "is not there",
        "failed  place: cannot reach or open `unix:",
        &format!("ok      receive: {address} is in use"),
    ] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
    let _agent = std::os::unix::net::UnixListener::bind(desk.path("line")).unwrap();
    let ended = check(&settings);
    assert!(ended.stdout.contains("unix:line answers"), "{ended:?}");
    let tls = "certificate = \"none\"\nkey = \"none\"";
    let ended = check(&format!(
        "[place]\nconnect = \"localhost:1\"\npeer = \"/CN=x\"\n{tls}\n"
    ));
    assert!(
        ended.stdout.contains("failed  place: cannot use our certificate"),
        "{ended:?}"
    );
    let _ = check(&format!("[place]\nconnect = \"localhost:1\"\npeer = \"x\"\n{tls}\n"))
        .exits(78)
        .says("`place.peer`: `x` is no DN");
}

fn checks(desk: &Desk, orthanc: &Orthanc) {
    configure(desk, "recall.toml", &dimse("c-get", orthanc.port));
    let ended = desk.run("dicom-recall check recall.toml").exits(0);
    for part in [
        "pacs: PACS@127.0.0.1",
        "CT Image",
        "3 of 3 are ready, 2 are needed",
        "secret: can be read",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    configure(desk, "down.toml", &dimse("c-get", free_port()));
    fs::remove_file(desk.path("secret")).unwrap();
    let ended = desk.run("dicom-recall check down.toml");
    assert!(
        ended.stdout.contains("failed  pacs: cannot connect to PACS@127.0.0.1"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("failed  secret: cannot read the secret"),
        "{ended:?}"
    );
    let _ = ended.exits(74).says("2 of 5 checks failed");
    desk.write("secret", [7; 32]);
    desk.write("bad.toml", "[pacs]\nmethod = \"fax\"\n");
    let _ = desk
        .run("dicom-recall check bad.toml")
        .exits(78)
        .says("`[deid]` is missing");
}

fn a_key_for_each_instance_and_a_registered_secret(desk: &Desk, orthanc: &Orthanc) {
    let _ = desk.run("eds-key-register /myvo/recall/deid-secret").exits(0);
    let pacs = dimse("c-get", orthanc.port);
    let text = format!(
        "[pacs]\n{pacs}\n[deid]\nsecret_key = \"/myvo/recall/deid-secret\"\n\
         [seal]\nname = \"/other/{{instance}}\"\nkey_per = \"instance\"\n"
    );
    desk.write("recall.toml", text);
    fs::create_dir(desk.path("each")).unwrap();
    let arguments = [
        "now",
        "--json",
        "-c",
        "recall.toml",
        "--private-out",
        "private",
        "2.25.1001",
        "each",
    ];
    let ended = desk.run_words("dicom-recall", &arguments).exits(0);
    let told = lines(&ended);
    assert_eq!(of_state(&told, "placed").len(), 3, "{ended:?}");
    let keys: std::collections::BTreeSet<&str> = told.iter().map(|line| line["key_id"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(told.iter().all(|line| line["key_id"] == line["name"]));
    let private = String::from_utf8(desk.read("private")).unwrap();
    assert_eq!(private.lines().count(), 3);
    assert!(private.contains(INVENTED.name) && private.contains("2.25.1001101"));
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(desk.path("private")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = desk.run_words("dicom-recall", &arguments);
    assert!(again.stderr.contains("`private`"), "{again:?}");
    let _ = again.exits(73);
}

#[test]
fn peer_a_study_comes_from_dcmqrscp() {
    let _whole = GRID.whole();
    let server = Dcmqrscp::start();
    load(server.port, &study(1002));
    let desk = desk(&dimse("c-get", server.port));
    let ended = now(&desk, &study_name(1002), &[]).exits(0);
    assert_eq!(of_state(&lines(&ended), "placed").len(), 3, "{ended:?}");
    assert_eq!(files_under(&desk.path("se")).len(), 3);
}

fn from_fake(number: u128, fault: Fault, more: &[&str]) -> (Ended, Desk) {
    let other = ct_slice(&INVENTED, [number + 1, 21, 201, 9]);
    let fake = FakePacs::start(&study(number), &other, fault);
    let desk = desk(&dimse("c-get", fake.port));
    let ended = now(&desk, &study_name(number), more);
    names_nobody(&ended, &files_under(&desk.path("se")), &[]);
    (ended, desk)
}

#[test]
fn what_a_pacs_breaks_off_is_asked_for_again_and_then_told() {
    let _whole = GRID.whole();
    let (ended, desk) = from_fake(1010, Fault::DropAt(1), &["--attempts", "1"]);
    let told = lines(&ended);
    // the first of each series comes: the second of the first one is broken off
    assert_eq!(
        (of_state(&told, "placed").len(), of_state(&told, "failed").len()),
        (2, 1),
        "{ended:?}"
    );
    assert_eq!(files_under(&desk.path("se")).len(), 2);
    let _ = ended
        .says("did not come from the PACS")
        .says("closed the connection")
        .exits(74);
    // asked for alone, it is the first
    let (ended, desk) = from_fake(1011, Fault::DropAt(1), &[]);
    assert_eq!(of_state(&lines(&ended), "placed").len(), 3, "{ended:?}");
    assert_eq!(files_under(&desk.path("se")).len(), 3);
    let _ = ended.says("asking again").exits(0);
}

#[test]
fn a_key_that_another_run_uses_stays_when_the_run_that_registered_it_fails() {
    let _whole = GRID.whole();
    let other = study(1)[0].clone();
    let stalling = FakePacs::start(&study(1026), &other, Fault::StallAt(0));
    let good = FakePacs::start(&study(1026), &other, Fault::None);
    let desk = desk(&dimse("c-get", stalling.port));
    configure(&desk, "good.toml", &dimse("c-get", good.port));
    fs::create_dir(desk.path("other")).unwrap();
    let what = series_name(1026, 11);
    let first = ["now", "-c", "recall.toml", "--attempts", "1", &what, "se"];
    let mut first = desk.start("dicom-recall", &first);
    // it has the key when it asks for the instances
    wait_for("the first to ask", || stalling.gets.load(Ordering::Acquire) > 0);
    let second = ["now", "-c", "good.toml", "--json", &what, "other"];
    let second = desk.run_words("dicom-recall", &second).exits(0);
    assert_eq!(first.wait().unwrap().code(), Some(74));
    assert!(files_under(&desk.path("se")).is_empty());
    let file = lines(&second)[0]["file"].as_str().unwrap().to_owned();
    let _ = desk.run_words("eds-decrypt", &[&file, "opened.dcm"]).exits(0);
}

#[test]
fn a_pacs_that_stalls_is_given_up_at_the_deadline() {
    let _whole = GRID.whole();
    let (ended, desk) = from_fake(1012, Fault::StallAt(1), &["--attempts", "1"]);
    assert_eq!(files_under(&desk.path("se")).len(), 2);
    let _ = ended.says("nothing more in 2 s").exits(74);
}

#[test]
fn another_instance_is_not_taken_for_what_was_asked() {
    let _whole = GRID.whole();
    let (ended, desk) = from_fake(1013, Fault::OtherAt(1), &[]);
    assert_eq!(
        of_state(&lines(&ended), "placed").len(),
        3,
        "asked for alone it is the first: {ended:?}"
    );
    assert_eq!(files_under(&desk.path("se")).len(), 3);
    for fault in [Fault::OtherAt(0), Fault::MisnamedAt(0), Fault::BrokenAt(0)] {
        let (ended, desk) = from_fake(1014, fault, &[]);
        let told = lines(&ended);
        // the first of each series is never what it should be
        assert!(of_state(&told, "placed").len() <= 1, "{fault:?}: {ended:?}");
        assert_eq!(files_under(&desk.path("se")).len(), of_state(&told, "placed").len());
        assert!(matches!(ended.code, Some(65 | 74)), "{fault:?}: {ended:?}");
    }
    let (ended, _desk) = from_fake(1015, Fault::TwiceAt(0), &[]);
    assert_eq!(of_state(&lines(&ended), "placed").len(), 3, "{ended:?}");
}

#[test]
fn a_broken_instance_fails_alone() {
    let _whole = GRID.whole();
    let mut held = study(1016);
    // the head is whole, the pixels are not
    let length = held[1].len();
    held[1].truncate(length - 1000);
    let fake = FakePacs::start(&held, &held[0], Fault::None);
    let desk = desk(&dimse("c-get", fake.port));
    let ended = now(&desk, &study_name(1016), &[]);
    let told = lines(&ended);
    assert_eq!(
        (of_state(&told, "placed").len(), of_state(&told, "failed").len()),
        (2, 1),
        "{ended:?}"
    );
    assert_eq!(of_state(&told, "failed")[0]["code"], 65);
    assert_eq!(files_under(&desk.path("se")).len(), 2);
    names_nobody(&ended, &files_under(&desk.path("se")), &["2.25.1016"]);
    let _ = ended.exits(65).says("1 of 3 instances not placed");
}

#[test]
fn a_large_instance_flows_through_and_a_broken_one_leaves_nothing() {
    let _whole = GRID.whole();
    let large = |number: u128, cut: usize| {
        let slice = ct_slice(&INVENTED, [number, number * 100 + 11, number * 1000 + 101, 9]);
        let pixels = 512 * 512 * 2;
        let mut file = slice[..slice.len() - pixels].to_vec();
        let at = file.len() - 4;
        // eighty times the rows and pixels: forty megabytes
        let rows = b"\x28\0\x10\0US\x02\0";
        let found = file.windows(8).position(|bytes| bytes == rows).unwrap() + 8;
        file[found..found + 2].copy_from_slice(&u16::to_le_bytes(80 * 512));
        file[at..].copy_from_slice(&u32::try_from(80 * pixels).unwrap().to_le_bytes());
        for _ in 0..80 {
            file.extend_from_slice(&slice[slice.len() - pixels..]);
        }
        file.truncate(file.len() - cut);
        file
    };
    let whole = large(1017, 0);
    let fake = FakePacs::start(std::slice::from_ref(&whole), &whole, Fault::None);
    let desk = desk(&dimse("c-get", fake.port));
    let ended = now(&desk, &study_name(1017), &[]).exits(0);
    let placed = files_under(&desk.path("se"));
    assert_eq!(placed.len(), 1);
    assert!(placed.values().all(|bytes| bytes.len() > 40_000_000));
    let file = lines(&ended)[0]["file"].as_str().unwrap().to_owned();
    let _ = desk.run_words("eds-decrypt", &[&file, "opened.dcm"]).exits(0);
    let opened = desk.read("opened.dcm");
    assert!(opened.ends_with(&whole[whole.len() - 1_000_000..]));
    let _ = now(&desk, &study_name(1017), &["--force"]).exits(0);
    assert!(files_under(&desk.path("se")) == placed, "the same bytes again");

    let cut = large(1018, 777);
    let fake = FakePacs::start(std::slice::from_ref(&cut), &cut, Fault::None);
    let desk = self::desk(&dimse("c-get", fake.port));
    let ended = now(&desk, &study_name(1018), &[]);
    assert!(files_under(&desk.path("se")).is_empty(), "{ended:?}");
    let _ = ended.exits(65);
}

#[test]
fn a_pacs_that_cannot_be_used_is_told_with_what_to_try() {
    let _whole = GRID.whole();
    let (ended, _desk) = from_fake(1020, Fault::Refuse, &[]);
    let _ = ended
        .exits(78)
        .says("refused the association: it does not know our title")
        .says("try:");
    let (ended, _desk) = from_fake(1021, Fault::NoRole, &[]);
    let _ = ended.exits(78).says("it grants no role").says("c-move");
    let desk = desk(&dimse("c-get", free_port()));
    let _ = now(&desk, "2.25.1022", &[])
        .exits(74)
        .says("cannot connect to PACS@127.0.0.1");
    assert!(files_under(&desk.path("se")).is_empty());
    let fake = FakePacs::start(&[], &study(1023)[0], Fault::None);
    let desk = self::desk(&dimse("c-get", fake.port));
    let _ = now(&desk, "2.25.1023", &[])
        .exits(74)
        .says("has nothing of what was asked for");
    let _ = now(&desk, "../etc", &[]).exits(2);
    let _ = now(&desk, "2.25.1023", &["--private-out", "se/private"])
        .exits(2)
        .says("must not be where the sealed files go");
    assert!(!desk.path("se/private").exists());
    let _ = desk
        .run("dicom-recall now -c recall.toml 1.2 nowhere")
        .exits(73)
        .says("is no folder");
}

#[test]
fn a_file_that_is_there_is_left_alone_and_not_fetched() {
    let _whole = GRID.whole();
    let fake = FakePacs::start(&study(1024), &study(1)[0], Fault::None);
    let desk = desk(&dimse("c-get", fake.port));
    let what = series_name(1024, 11);
    let ended = now(&desk, &what, &[]).exits(0);
    let first = lines(&ended)[0]["file"].as_str().unwrap().to_owned();
    let placed = files_under(&desk.path("se"));
    fs::write(desk.path(&first), "theirs").unwrap();
    let ended = now(&desk, &what, &[]);
    assert_eq!(of_state(&lines(&ended), "failed").len(), 2, "{ended:?}");
    assert_eq!(desk.read(&first), b"theirs");
    let _ = ended.exits(73).says("exists already");
    fs::remove_file(desk.path(&first)).unwrap();
    let ended = now(&desk, &what, &[]);
    assert_eq!(of_state(&lines(&ended), "placed").len(), 1, "{ended:?}");
    assert!(
        files_under(&desk.path("se")) == placed,
        "a file that was lost comes back with its bytes"
    );
    let _ = now(&desk, &what, &["--force"]).exits(0);
}

#[test]
fn without_stores_nothing_is_placed_and_with_enough_of_them_it_goes_on() {
    let fake = FakePacs::start(&study(1025), &study(1)[0], Fault::None);
    let desk = desk(&dimse("c-get", fake.port));
    let what = series_name(1025, 11);
    let _ = now(&desk, &what, &[]).exits(0);
    let placed = files_under(&desk.path("se"));
    let mut broken = GRID.alone();
    broken.kill(1);
    let _ = now(&desk, &what, &["--force"]).exits(0);
    assert!(files_under(&desk.path("se")) == placed);
    broken.kill(2);
    let ended = now(&desk, &what, &["--force"]);
    assert!(files_under(&desk.path("se")) == placed, "{ended:?}");
    let _ = ended.exits(75);
}

/// Somebody else, examined twice.
const ANOTHER: Patient = Patient {
    name: "Mustermann^Erika",
    id: "KH-7",
    born: "19640812",
    institution: "St. Nowhere's Hospital",
};

/// A study with its day and its modality changed, both of the same length.
fn changed(patient: &Patient, number: u128, date: &str, modality: &str) -> Vec<Vec<u8>> {
    let element = |modality: &str| [b"\x08\0\x60\0CS\x02\0".as_slice(), modality.as_bytes()].concat();
    let replace = |file: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        file[at..at + to.len()].copy_from_slice(to);
    };
    let mut files = ct_study(patient, number);
    for file in &mut files {
        replace(file, b"20260301", date.as_bytes());
        replace(file, &element("CT"), &element(modality));
    }
    files
}

#[test]
fn peer_studies_that_fit_a_query_are_registered_and_no_others() {
    let _whole = GRID.whole();
    let (orthanc, dcmqrscp) = (Orthanc::start(), Dcmqrscp::start());
    let studies = [
        ct_study(&INVENTED, 1101),
        changed(&ANOTHER, 1102, "20200615", "MR"),
        changed(&ANOTHER, 1103, "20201231", "CT"),
        changed(&ANOTHER, 1104, "20210101", "MR"),
    ];
    for port in [orthanc.port, dcmqrscp.port] {
        load(port, &studies.concat());
    }
    let query = "PatientID=KH-7,StudyDate=20200101-20201231,ModalitiesInStudy=MR";
    let web = format!("method = \"wado-rs\"\ndicomweb = \"{}\"", orthanc.dicomweb());
    for pacs in [dimse("c-get", orthanc.port), web, dimse("c-get", dcmqrscp.port)] {
        let desk = registering(&pacs);
        let register = |more: &[&str]| {
            let words = [&["register", "-c", "recall.toml"], more].concat();
            desk.run_words("dicom-recall", &words)
        };
        let dry = register(&["--dry-run", "--query", query]).exits(0);
        let would = "would register 3 instances of 2 series in 1 studies, 0 already registered";
        assert!(dry.stdout.contains(would), "{pacs}: {dry:?}");
        assert!(!desk.path("recall.db").exists(), "nothing is made");
        // more keys, less, and what is more than was meant
        for (query, instances) in [
            ("PatientID=KH-7", 9),
            ("PatientName=Muster*", 9),
            ("StudyDate=-20201231", 6),
            ("StudyDate=20210101-,PatientSex=F", 6),
            ("AccessionNumber=A-2026-0311,ModalitiesInStudy=CT", 6),
        ] {
            let told = register(&["--dry-run", "--query", query]);
            let expected = format!("would register {instances} instances");
            assert!(told.stdout.contains(&expected), "{pacs}: {query}: {told:?}");
        }
        let many = register(&["--query", "PatientID=KH-7", "--most", "8"]).exits(2);
        assert!(many.stderr.contains("more than 8 instances fit the query"), "{many:?}");
        let many = register(&["--query", "PatientID=KH-7", "--most", "2"]).exits(2);
        assert!(many.stderr.contains("more than 2 studies that fit"), "{many:?}");
        let none = register(&["--query", "PatientID=KH-8"]).exits(74);
        assert!(none.stderr.contains("has nothing that fits the query"), "{none:?}");
        // nothing was registered until now; a file keeps patients out of the list of processes
        desk.write(
            "query",
            "# one of hers\nPatientID=KH-7\nStudyDate=20200101-20201231\nModalitiesInStudy=MR\n",
        );
        let done = register(&["--query-file", "query"]).exits(0);
        assert!(done.stdout.contains("registered 3 instances"), "{done:?}");
        names_nobody(&done, &BTreeMap::new(), &["2.25.1102", ANOTHER.name, ANOTHER.id]);
        let dry = register(&["--dry-run", "--json", "--query", query, "2.25.1101"]).exits(0);
        let told = &lines(&dry)[0];
        assert_eq!(
            (&told["instances"], &told["known"], &told["studies"]),
            (&6.into(), &3.into(), &2.into())
        );
        let all = desk.run("dicom-recall ls --json --original -c recall.toml").exits(0);
        assert!(
            lines(&all).iter().all(|line| line.to_string().contains("2.25.1102")),
            "{all:?}"
        );
    }
}

fn registering(pacs: &str) -> Desk {
    let desk = desk(pacs);
    let text = String::from_utf8(desk.read("recall.toml")).unwrap();
    desk.write("recall.toml", format!("{text}[registry]\ndatabase = \"recall.db\"\n"));
    desk
}

#[test]
fn what_is_no_query_and_who_does_not_go_by_one_is_refused() {
    // answers whatever it has, and says nothing of the patient
    let fake = FakePacs::start(&study(1110), &study(1)[0], Fault::None);
    let desk = registering(&dimse("c-get", fake.port));
    let register = |query: &str| desk.run_words("dicom-recall", &["register", "-c", "recall.toml", "--query", query]);
    let ended = register("PatientID=KH-7").exits(2);
    assert!(ended.stderr.contains("does not go by `PatientID`"), "{ended:?}");
    for (query, words) in [
        ("PatientID=*", "everything would fit"),
        ("Patient=KH-7", "cannot be looked for by `Patient`"),
        ("StudyDate=2020", "a date is YYYYMMDD"),
    ] {
        let ended = register(query).exits(2);
        assert!(
            ended.stderr.contains(words) && !ended.stderr.contains("KH-7"),
            "{ended:?}"
        );
    }
    let _ = desk.run("dicom-recall register -c recall.toml").exits(2);
    assert!(!desk.path("recall.db").exists());
}

#[test]
fn no_key_is_made_for_a_name_that_is_taken() {
    let _whole = GRID.whole();
    let fake = FakePacs::start(&study(1112), &study(1)[0], Fault::None);
    let desk = registering(&dimse("c-get", fake.port));
    let register = |more: &[&str]| {
        let what = study_name(1112);
        let words = [&["register", "-c", "recall.toml", "--json"], more, &[what.as_str()]].concat();
        desk.run_words("dicom-recall", &words)
    };
    let ended = register(&[]).exits(0);
    let names: Vec<String> = of_state(&lines(&ended), "new")
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    let ended = register(&["--key-per", "instance"]).exits(73);
    assert_eq!(of_state(&lines(&ended), "taken").len(), 3, "{ended:?}");
    for name in &names {
        let _ = desk.run_words("eds-key-status", &[name]).exits(77);
    }
    assert_eq!(names.len(), 3);
}
