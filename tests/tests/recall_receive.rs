//! `dicom-recall receive` with real senders: dcmtk's storescu and dcmsend, curl and our own client, against the built
//! program, real key stores, and PACS that do and do not take what is sent on.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use dicom_net::dataset::FileMeta;
use dicom_net::{
    AeTitle, Arrival, Deadlines, Dicomweb, NetError, Receiver, ReceiverOptions, Slots, Status, Stop, Taken, Uid,
    WebError, WebOptions,
};
use dicom_recall::ask::{Answer, Ask};
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::door::wait_for;
use hydra_tests::hospital::{Place, sha256};
use hydra_tests::pacs::{FakePacs, Fault, OURS, THEIRS, folder_of, free_port, options};
use hydra_tests::{Ended, run};
use hydra_xtask::dicom::{INVENTED, ct_slice};
use serde_json::Value;
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// Slices of one series; the number keeps the keys of tests apart.
fn slices(number: u128, count: u128) -> Vec<Vec<u8>> {
    let slice = |image| ct_slice(&INVENTED, [number, number * 100, number * 1000 + image, 9]);
    (0..count).map(slice).collect()
}

/// A PACS that takes what is stored, or answers with a status of the test's choice.
struct TakingPacs {
    port: u16,
    stop: Arc<Stop>,
    /// What it took: instance and the number of the association.
    took: Arc<Mutex<Vec<Uid>>>,
    associations: Arc<Mutex<usize>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TakingPacs {
    fn start(status: Option<Status>) -> Self {
        let receiver = ReceiverOptions::new(AeTitle::new(THEIRS).unwrap());
        let receiver = Receiver::listen("127.0.0.1:0", receiver).unwrap();
        let (port, stop) = (receiver.address().port(), Arc::new(receiver.stop()));
        let (took, associations): (Arc<Mutex<Vec<Uid>>>, Arc<Mutex<usize>>) = Default::default();
        let (taking, counting, ending) = (Arc::clone(&took), Arc::clone(&associations), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            receiver.receive_each(&ending, Duration::from_millis(100), &|_| {
                *counting.lock().unwrap() += 1;
                let taking = Arc::clone(&taking);
                Box::new(move |arrival: &Arrival, file: &mut dyn Read| {
                    if std::io::copy(file, &mut std::io::sink()).is_err() {
                        return Taken::Dropped;
                    }
                    if let Some(status) = status {
                        return Taken::Refused(status);
                    }
                    taking.lock().unwrap().push(arrival.identity.instance.clone());
                    Taken::Kept
                })
            });
        });
        Self {
            port,
            stop,
            took,
            associations,
            thread: Some(thread),
        }
    }

    fn took(&self) -> Vec<Uid> {
        self.took.lock().unwrap().clone()
    }
}

impl Drop for TakingPacs {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The program, receiving.
struct Receiving {
    desk: Desk,
    child: Child,
    /// For C-STORE.
    port: u16,
    /// For STOW-RS.
    web: u16,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Receiving {
    fn start(then: &str, pacs_port: u16, more: &str) -> Self {
        Self::start_with(then, pacs_port, |_| "folder = \"se\"".to_owned(), more)
    }

    /// With what stands under `[place]`.
    fn start_with(then: &str, pacs_port: u16, place: impl FnOnce(&Desk) -> String, more: &str) -> Self {
        let desk = GRID.desk("alice");
        desk.write("secret", [7; 32]);
        fs::create_dir(desk.path("se")).unwrap();
        let place = place(&desk);
        let config = format!(
            "[pacs]\nmethod = \"c-get\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"127.0.0.1\"\n\
             port = {pacs_port}\n[pacs.deadlines]\nconnect_s = 5\nassociation_s = 10\nunit_s = 10\n\
             [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n[place]\n{place}\n\
             [receive]\nthen = \"{then}\"\nlisten = \"127.0.0.1:0\"\ncallers = [\"MODALITY\"]\n\
             stow = \"127.0.0.1:0\"\n{more}\n"
        );
        desk.write("recall.toml", config);
        let mut command = desk.command("dicom-recall");
        command.args(["receive", "recall.toml"]);
        let log = fs::File::create(desk.path("log")).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = || {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            let port = line.split("127.0.0.1:").nth(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse::<u16>().unwrap()
            });
            port.unwrap_or_else(|| panic!("`{line}`: {}", String::from_utf8_lossy(&desk.read("log"))))
        };
        let (port, web) = (port(), port());
        Self { desk, child, port, web }
    }

    fn log(&self) -> String {
        String::from_utf8(self.desk.read("log")).unwrap()
    }

    /// What `dicom-recall ls` says, a line of JSON for each.
    fn registered(&self) -> Vec<Value> {
        let ended = self.desk.run("dicom-recall ls --json --config recall.toml");
        let ended = ended.exits(0);
        let lines = ended.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn storescu(&self, caller: &str, files: &[PathBuf]) -> Ended {
        let mut command = std::process::Command::new("storescu");
        command
            .args(["-v", "-aet", caller, "-aec", OURS, "127.0.0.1", &self.port.to_string()])
            .args(files);
        run(&mut command)
    }

    /// Our own C-STORE, which says the status.
    fn store(&self, file: &[u8]) -> Result<(), NetError> {
        let mut options = options(self.port);
        options.calling = AeTitle::new("MODALITY").unwrap();
        options.called = AeTitle::new(OURS).unwrap();
        dicom_net::Pacs::new(options).store(&mut &*file)
    }

    fn status(&self, file: &[u8]) -> u16 {
        match self.store(file) {
            Ok(()) => 0,
            Err(NetError::Status { status, .. }) => status.0,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.desk.path("se")];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Nothing of the patient, and no original identifier, in the log.
    #[track_caller]
    fn names_nobody(&self, originals: &[&str]) {
        let log = self.log();
        for secret in [INVENTED.name, INVENTED.id, "Feldmann"].iter().chain(originals) {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

fn meta(file: &[u8]) -> FileMeta {
    FileMeta::read(file).unwrap().0
}

#[test]
fn a_hundred_images_in_one_association_go_on_to_the_pacs_and_are_registered() {
    let _whole = GRID.whole();
    let pacs = TakingPacs::start(None);
    let receiving = Receiving::start("nearline", pacs.port, "");
    let files = slices(4001, 100);
    let (_folder, paths) = folder_of(&files);
    let _ = receiving.storescu("MODALITY", &paths).exits(0);
    let sent: BTreeSet<Uid> = files.iter().map(|file| meta(file).instance).collect();
    assert_eq!(pacs.took().into_iter().collect::<BTreeSet<_>>(), sent);
    assert_eq!(
        *pacs.associations.lock().unwrap(),
        1,
        "one association carries them all"
    );
    let registered = receiving.registered();
    assert_eq!(registered.len(), 100);
    assert!(registered.iter().all(|line| line["on_disk"] == false), "{registered:?}");
    assert!(receiving.files().is_empty());
    // again: nothing is registered twice
    assert_eq!(receiving.status(&files[0]), 0);
    assert_eq!(receiving.registered().len(), 100);
    receiving.names_nobody(&["2.25.4001"]);
    // its key is there
    let key_id = registered[0]["key_id"].as_str().unwrap().to_owned();
    let _ = receiving.desk.run_words("eds-key-status", &[&key_id]).exits(0);
}

#[test]
fn images_that_the_pacs_did_not_get_are_neither_taken_nor_registered() {
    let _whole = GRID.whole();
    let file = &slices(4002, 1)[0];
    let receiving = Receiving::start("nearline", free_port(), "");
    assert_eq!(receiving.status(file), 0xa700, "the PACS is down");
    let full = TakingPacs::start(Some(Status(0xa7ff)));
    let second = Receiving::start("nearline", full.port, "");
    assert_eq!(second.status(file), 0xa7ff, "what the PACS says is passed on");
    for receiving in [&receiving, &second] {
        assert_eq!(receiving.registered().len(), 0);
        receiving.names_nobody(&["2.25.4002"]);
    }
    // whoever is not on the list does not come in
    let (_folder, paths) = folder_of(std::slice::from_ref(file));
    let ended = receiving.storescu("STRANGER", &paths);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("Calling AE Title Not Recognized"), "{ended:?}");
}

#[test]
fn images_are_sealed_at_once_and_success_means_that_they_can_be_opened() {
    let _whole = GRID.whole();
    let receiving = Receiving::start("seal", free_port(), "");
    let files = slices(4003, 3);
    let (_folder, paths) = folder_of(&files);
    let _ = receiving.storescu("MODALITY", &paths).exits(0);
    let placed = receiving.files();
    let registered = receiving.registered();
    assert_eq!((placed.len(), registered.len()), (3, 3));
    for line in &registered {
        let name = line["name"].as_str().unwrap().trim_start_matches('/');
        let path = receiving.desk.path("se").join(name);
        assert_eq!(line["size"].as_u64().unwrap(), fs::metadata(&path).unwrap().len());
        assert!(line["sha256"].is_string() && line["on_disk"] == true, "{line}");
        let opened = receiving.desk.path("opened.dcm");
        let _ = fs::remove_file(&opened);
        let path = path.to_string_lossy().into_owned();
        let _ = receiving.desk.run_words("eds-decrypt", &[&path, "opened.dcm"]).exits(0);
        let bytes = fs::read(opened).unwrap();
        let pixels = &files[0][files[0].len() - 512 * 512 * 2..];
        assert!(bytes.len() > pixels.len() && !has(&bytes, INVENTED.name.as_bytes()));
    }
    // the same again is the same file; the same identifiers with other pixels are not
    assert_eq!(receiving.status(&files[0]), 0);
    let mut other = files[0].clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    assert_eq!(receiving.status(&other), 0xa900);
    assert_eq!(receiving.files(), placed);
    receiving.names_nobody(&["2.25.4003"]);
}

/// Whether the line to the agent came up so many times.
fn is_up(log: &str, times: usize) -> bool {
    log.matches("the line to the agent is up").count() >= times
}

#[test]
fn images_are_sealed_at_once_and_placed_by_the_agent_at_the_storage_element() {
    let _whole = GRID.whole();
    let mut place = Place::start("");
    let line = place.path("line");
    let connect = |_: &Desk| format!("connect = \"unix:{}\"", line.display());
    let receiving = Receiving::start_with("seal", free_port(), connect, "");
    wait_for("the line", || is_up(&receiving.log(), 1));
    let mut files = slices(4014, 4);
    let (_folder, paths) = folder_of(&files[..3]);
    let _ = receiving.storescu("MODALITY", &paths).exits(0);
    let registered = receiving.registered();
    assert_eq!(registered.len(), 3);
    assert!(receiving.files().is_empty(), "they are at the agent");
    for line in &registered {
        let path = place.file(line["name"].as_str().unwrap());
        let sealed = fs::read(&path).unwrap();
        assert_eq!(line["size"].as_u64().unwrap(), sealed.len() as u64);
        assert_eq!(line["sha256"].as_str().unwrap(), sha256(&sealed));
        assert_eq!(line["on_disk"], true);
    }
    let name = registered[0]["name"].as_str().unwrap();
    let path = place.file(name).to_string_lossy().into_owned();
    let _ = receiving.desk.run_words("eds-decrypt", &[&path, "opened.dcm"]).exits(0);
    assert!(!has(&receiving.desk.read("opened.dcm"), INVENTED.name.as_bytes()));

    // the same again, the same with other pixels, a broken one
    assert_eq!(receiving.status(&files[0]), 0);
    let mut other = files[0].clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    assert_eq!(receiving.status(&other), 0xa900);
    assert_eq!(receiving.status(&files[3][..files[3].len() / 2]), 0xc000);
    assert_eq!(receiving.registered().len(), 3);
    let parts = || fs::read_dir(place.path("se/.eds-parts")).unwrap().count();
    wait_for("nothing half", || parts() == 0);

    // what goes at the storage element can be sent again
    let names = vec![name.to_owned()];
    assert_eq!(
        place.ask(&Ask::Evict {
            names: names.clone(),
            force: true
        }),
        Answer::Evicted { names }
    );
    let count_there = || {
        receiving
            .registered()
            .iter()
            .filter(|line| line["on_disk"] == true)
            .count()
    };
    wait_for("what is gone to be noted", || count_there() == 2);
    for file in &files[..3] {
        assert_eq!(receiving.status(file), 0);
    }
    assert_eq!(receiving.registered(), registered);

    // without the agent nothing is taken, nothing registered; with it again it is
    place.kill();
    let last = files.pop().unwrap();
    assert_eq!(receiving.status(&last), 0xa700);
    assert_eq!(receiving.registered().len(), 3);
    place.restart();
    wait_for("the line again", || is_up(&receiving.log(), 2));
    assert_eq!(receiving.status(&last), 0);
    assert_eq!((receiving.registered().len(), count_there()), (4, 4));
    receiving.names_nobody(&["2.25.4014"]);
    assert!(!place.log().contains("Feldmann"), "{}", place.log());
}

#[test]
fn an_agent_that_dials_takes_what_is_sealed_at_once_and_has_it_recalled_later() {
    let _whole = GRID.whole();
    let files = slices(4015, 2);
    let pacs = FakePacs::start(&files, &files[0], Fault::None);
    let listen = |desk: &Desk| format!("listen = \"unix:{}\"", desk.path("daemon-line").display());
    let receiving = Receiving::start_with("seal", pacs.port, listen, "place_listen = \"unix:own-line\"");
    let end = |name: &str| format!("\"unix:{}\"", receiving.desk.path(name).display());
    let (first, second) = (end("daemon-line"), end("own-line"));
    let place = Place::start(&format!("[line]\nconnect = {first}\nalso_connect = [{second}]\n"));
    wait_for("the line", || is_up(&receiving.log(), 1));
    for file in &files {
        assert_eq!(receiving.status(file), 0);
    }
    let registered = receiving.registered();
    let names: Vec<String> = registered
        .iter()
        .map(|line| line["name"].as_str().unwrap().to_owned())
        .collect();
    let sealed = fs::read(place.file(&names[0])).unwrap();
    assert_eq!(registered[0]["sha256"].as_str().unwrap(), sha256(&sealed));
    assert!(!place.stat("/eds/none").available);

    // now with the daemon: what was evicted it has again from the PACS, and it is the same file
    let log = fs::File::create(receiving.desk.path("daemon-log")).unwrap();
    let mut command = receiving.desk.command("dicom-recall");
    let mut daemon = command
        .args(["daemon", "recall.toml"])
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let force = true;
    let evicted = place.ask(&Ask::Evict {
        names: names.clone(),
        force,
    });
    assert_eq!(evicted, Answer::Evicted { names: names.clone() });
    assert!(!place.file(&names[0]).exists());
    let staged = place.stage(&names[0], 60);
    let daemon_log = String::from_utf8(receiving.desk.read("daemon-log")).unwrap();
    assert_eq!(staged, Answer::Done, "{daemon_log}");
    assert!(fs::read(place.file(&names[0])).unwrap() == sealed);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_for("the daemon's end", || !place.stat(&names[1]).available);
    // the other line is up still
    for file in &files {
        assert_eq!(receiving.status(file), 0);
    }
    assert!(place.stat(&names[1]).on_disk);
}

#[test]
fn a_key_that_is_registered_anew_is_used_within_the_same_association() {
    let _whole = GRID.whole();
    let receiving = Receiving::start("seal", free_port(), "keys_s = 0");
    let files = slices(4013, 2);
    let mut options = options(receiving.port);
    options.calling = AeTitle::new("MODALITY").unwrap();
    options.called = AeTitle::new(OURS).unwrap();
    let mut storing = dicom_net::Pacs::new(options).storing();
    storing.store(&mut files[0].as_slice()).unwrap();
    let first = receiving.files();
    let key_id = receiving.registered()[0]["key_id"].as_str().unwrap().to_owned();
    let _ = receiving.desk.run_words("eds-key-unregister", &[&key_id]).exits(0);
    storing.store(&mut files[1].as_slice()).unwrap();
    let both = receiving.files();
    let second = both.difference(&first).next().unwrap();
    let second = second.to_string_lossy().into_owned();
    let _ = receiving
        .desk
        .run_words("eds-decrypt", &[&second, "opened.dcm"])
        .exits(0);
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn broken_images_full_disks_and_associations_that_drop_leave_nothing() {
    let _whole = GRID.whole();
    let receiving = Receiving::start("seal", free_port(), "");
    let file = slices(4004, 1).remove(0);
    let mut rest = file.as_slice();
    let (head, start) = FileMeta::read(&mut rest).unwrap();
    let cut = [start.as_slice(), &rest[..rest.len() / 2]].concat();
    assert_eq!(receiving.status(&cut), 0xc000, "cut within its pixels");
    let short = [start.as_slice(), &rest[..30]].concat();
    assert_eq!(receiving.status(&short), 0xc000, "cut within its head");
    let mut renamed = head;
    renamed.instance = Uid::new("2.25.4004999").unwrap();
    let renamed = [renamed.encode().as_slice(), rest].concat();
    assert_eq!(receiving.status(&renamed), 0xa900, "announced as another");
    // the connection ends in the midst of an image
    let mut endless = file[..file.len() / 2].chain(Broken);
    let mut options = options(receiving.port);
    options.calling = AeTitle::new("MODALITY").unwrap();
    options.called = AeTitle::new(OURS).unwrap();
    let error = dicom_net::Pacs::new(options).store(&mut endless);
    assert!(matches!(error, Err(NetError::Source { .. })), "{error:?}");
    assert!(receiving.files().is_empty() && receiving.registered().is_empty());
    // there is no room for its folder
    let _ = fs::remove_dir_all(receiving.desk.path("se/eds"));
    fs::write(receiving.desk.path("se/eds"), "in the way").unwrap();
    assert_eq!(receiving.status(&file), 0xa700);
    fs::remove_file(receiving.desk.path("se/eds")).unwrap();
    assert!(receiving.registered().is_empty());
    // and after all that it is taken
    assert_eq!(receiving.status(&file), 0);
    assert_eq!((receiving.files().len(), receiving.registered().len()), (1, 1));
    receiving.names_nobody(&["2.25.4004"]);
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("no more"))
    }
}

#[test]
fn without_enough_key_stores_nothing_is_taken() {
    let mut broken = GRID.alone();
    broken.kill(1);
    broken.kill(2);
    let pacs = TakingPacs::start(None);
    let receiving = Receiving::start("nearline", pacs.port, "");
    let file = slices(4005, 1).remove(0);
    assert_eq!(receiving.status(&file), 0xa700);
    assert!(pacs.took().is_empty() && receiving.registered().is_empty());
    broken.start_again();
    assert_eq!(receiving.status(&file), 0);
    assert_eq!((pacs.took().len(), receiving.registered().len()), (1, 1));
}

fn part(file: &[u8]) -> Vec<u8> {
    [
        b"--b\r\nContent-Type: application/dicom\r\n\r\n".as_slice(),
        file,
        b"\r\n",
    ]
    .concat()
}

/// STOW-RS by curl: status and answer.
fn stow(receiving: &Receiving, path: &str, kind: &str, body: &[u8]) -> (u16, Value) {
    let file = receiving.desk.write("body", body);
    let mut command = std::process::Command::new("curl");
    command
        .args([
            "-sS",
            "-i",
            "-H",
            "Accept: application/dicom+json",
            "-H",
            "Expect:",
            "-H",
        ])
        .arg(format!("Content-Type: {kind}"))
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg(format!("http://127.0.0.1:{}{path}", receiving.web));
    let ended = run(&mut command);
    let status = ended.stdout.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = ended.stdout.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null))
}

const KIND: &str = "multipart/related; type=\"application/dicom\"; boundary=b";

#[test]
fn images_come_by_stow_too_each_with_its_own_word() {
    let _whole = GRID.whole();
    let receiving = Receiving::start("seal", free_port(), "");
    let files = slices(4006, 2);
    // our own client, as it is used towards PACS
    let web = Dicomweb::new(WebOptions {
        url: format!("http://127.0.0.1:{}", receiving.web),
        tls: None,
        authorization: None,
        deadlines: Deadlines::default(),
        slots: Slots::new(1),
    })
    .unwrap();
    let study = Uid::new("2.25.4006").unwrap();
    web.store(&study, &files[0]).unwrap();
    assert_eq!(receiving.files().len(), 1);
    let other = web.store(&Uid::new("2.25.1").unwrap(), &files[1]);
    assert!(matches!(other, Err(WebError::Status { status: 409, .. })), "{other:?}");

    let body = [
        part(&files[1]),
        part(b"no image"),
        part(&files[1][..files[1].len() / 2]),
        b"--b--\r\n".to_vec(),
    ];
    let (status, told) = stow(&receiving, "/studies", KIND, &body.concat());
    assert_eq!(status, 202, "{told}");
    let sent = meta(&files[1]).instance;
    assert_eq!(told["00081199"]["Value"][0]["00081155"]["Value"][0], sent.as_str());
    assert_eq!(told["00081198"]["Value"][0]["00081197"]["Value"][0], 0xc000);
    assert_eq!(told["0008119A"]["Value"][0]["00081197"]["Value"][0], 0xc000);
    assert_eq!((receiving.files().len(), receiving.registered().len()), (2, 2));

    let third = slices(4007, 1).remove(0);
    for (kind, body, expected) in [
        ("application/dicom", third.clone(), 415),
        (KIND, b"--b--\r\n".to_vec(), 400),
        (KIND, part(&third)[..200_000].to_vec(), 400),
    ] {
        assert_eq!(stow(&receiving, "/studies", kind, &body).0, expected, "{kind}");
    }
    assert_eq!(stow(&receiving, "/studies/x", KIND, &part(&third)).0, 400);
    assert_eq!(stow(&receiving, "/elsewhere", KIND, b"x").0, 404);
    // a body that is announced longer than it is
    let mut line = TcpStream::connect(("127.0.0.1", receiving.web)).unwrap();
    let head = format!("POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: {KIND}\r\nContent-Length: 900000\r\n\r\n");
    line.write_all(head.as_bytes()).unwrap();
    line.write_all(&part(&third)[..300_000]).unwrap();
    line.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = line.read_to_string(&mut answer);
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!((receiving.files().len(), receiving.registered().len()), (2, 2));
    receiving.names_nobody(&["2.25.4006", "2.25.4007"]);
}

#[test]
fn a_signal_ends_it_and_faults_of_the_configuration_are_told_at_once() {
    let _whole = GRID.whole();
    let receiving = Receiving::start("nearline", free_port(), "");
    let pid = rustix::process::Pid::from_child(&receiving.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut receiving = receiving;
    assert_eq!(receiving.child.wait().unwrap().code(), Some(0));
    let text = fs::read_to_string(receiving.desk.path("recall.toml")).unwrap();
    let bad = text
        .replace("nearline", "somewhere")
        .replace("callers = [\"MODALITY\"]", "associations = 0")
        .replace("stow = \"127.0.0.1:0\"", "stow = \"0.0.0.0:0\"");
    receiving.desk.write("bad.toml", bad);
    let ended = receiving.desk.run("dicom-recall receive bad.toml").exits(78);
    for words in [
        "`receive.then` `somewhere`",
        "`receive.callers`",
        "`receive.associations`",
        "only on loopback",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    // beside a daemon that listens for the agent there is a line of one's own
    for (place, own, words) in [
        ("listen = \"unix:a\"", "", "`receive.place_listen` is missing"),
        (
            "listen = \"unix:a\"",
            "place_listen = \"unix:a\"",
            "where the daemon listens",
        ),
        (
            "connect = \"unix:a\"",
            "place_listen = \"unix:b\"",
            "is for `seal` with `place.listen`",
        ),
    ] {
        let bad = text
            .replace("folder = \"se\"", place)
            .replace("then = \"nearline\"", &format!("then = \"seal\"\n{own}"));
        receiving.desk.write("bad.toml", bad);
        let _ = receiving
            .desk
            .run("dicom-recall receive bad.toml")
            .exits(78)
            .says(words);
    }
}
