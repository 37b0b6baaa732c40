//! A real XRootD in front of an agent, with the hospital's end of the line played by a script: what clients see of
//! files that are nearline, by every door, and each trap that XRootD has for whoever recalls.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use dicom_recall::line::Reason;
use hydra_tests::door::wait_for;
use hydra_tests::hospital::{Daemon, Place, Script, entry, known};
use hydra_tests::site::{Fabric, Staging, Xrootd};
use hydra_tests::{Ended, run};
use serde_json::Value;

static FABRIC: LazyLock<Fabric> = LazyLock::new(Fabric::make);

/// An agent with a daemon, and XRootD in front of it.
struct Element {
    xrootd: Xrootd,
    daemon: Daemon,
    place: Place,
    out: tempfile::TempDir,
}

/// No two files are alike.
fn bytes(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(525_209 + name.len()).collect()
}

impl Element {
    fn start(staging: Staging) -> Self {
        let place = Place::start_unprivileged("");
        let daemon = Daemon::start(&place);
        let xrootd = Xrootd::nearline(&FABRIC, &place, staging);
        Self {
            xrootd,
            daemon,
            place,
            out: tempfile::tempdir().unwrap(),
        }
    }

    /// Registers a file that comes when it is wanted.
    fn has(&mut self, name: &str) {
        self.daemon.has(entry(name, &bytes(name)), Script::Send(bytes(name)));
        known(&self.place, name);
    }

    fn xrdfs(&self, arguments: &[&str]) -> Ended {
        run(quick("xrdfs").arg(self.xrootd.address()).args(arguments))
    }

    /// Size and flags.
    fn stat(&self, name: &str) -> (u64, String) {
        let ended = self.xrdfs(&["stat", name]).exits(0);
        let field = |field: &str| {
            let line = ended.stdout.lines().find(|line| line.starts_with(field));
            line.unwrap_or_else(|| panic!("{ended:?}"))
                .split_once(':')
                .unwrap()
                .1
                .trim()
                .to_owned()
        };
        (field("Size").parse().unwrap(), field("Flags"))
    }

    fn is_offline(&self, name: &str) -> bool {
        self.stat(name).1.contains("Offline")
    }

    fn xrdcp(&self, name: &str) -> Ended {
        let to = self.out.path().join("xrdcp");
        let _ = fs::remove_file(&to);
        run(quick("xrdcp").args(["-s", "-f", &self.xrootd.root(name)]).arg(&to))
    }

    #[track_caller]
    fn comes_by_xrdcp(&self, name: &str) {
        let ended = self.xrdcp(name);
        assert_eq!(
            ended.code,
            Some(0),
            "{ended:?} {} {}",
            self.xrootd.said(),
            self.place.log()
        );
        assert!(
            fs::read(self.out.path().join("xrdcp")).unwrap() == bytes(name),
            "{name}: other bytes"
        );
    }

    fn curl(&self, name: &str, more: &[&str]) -> (Ended, Vec<u8>) {
        let to = self.out.path().join("curl");
        let _ = fs::remove_file(&to);
        let ended = run(Command::new("curl")
            .args(["-sSf", "--max-time", "60", "--capath"])
            .arg(FABRIC.pki.certificates())
            .args(more)
            .arg("-o")
            .arg(&to)
            .arg(self.xrootd.https(name)));
        (ended, fs::read(&to).unwrap_or_default())
    }

    fn fail_file(&self, name: &str) -> std::path::PathBuf {
        let path = format!("fail{}.fail", self.place.file(name).display());
        self.xrootd.path(&path)
    }

    fn query(&self, request: &str, names: &[&str]) -> Value {
        let ended = self.xrdfs(&[&["query", "prepare", request], names].concat()).exits(0);
        let text = ended.stdout.trim().trim_end_matches('\0');
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    fn prepare(&self, names: &[&str]) -> String {
        let ended = self.xrdfs(&[&["prepare", "-s"], names].concat()).exits(0);
        ended.stdout.trim().to_owned()
    }
}

/// Clients try for minutes what is refused at once, unless told not to.
fn quick(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("XRD_CONNECTIONWINDOW", "5")
        .env("XRD_CONNECTIONRETRY", "2")
        .env("XRD_STREAMERRORWINDOW", "5")
        .env("XRD_REQUESTTIMEOUT", "60");
    command
}

#[test]
fn peer_a_nearline_file_comes_by_every_door_and_is_the_same_again() {
    let mut element = Element::start(Staging::Sync);
    let [a, b, c, d] = ["/eds/1/2/a.eds", "/eds/1/2/b.eds", "/eds/1/2/c.eds", "/eds/1/2/d.eds"];
    for name in [a, b, c] {
        element.has(name);
    }
    // nobody knows how long this one will be
    let unknown = dicom_recall::line::Entry {
        size: None,
        sha256: None,
        ..entry(d, b"")
    };
    element.daemon.has(unknown, Script::Send(bytes(d)));
    known(&element.place, d);
    element.daemon.slow(Duration::from_millis(300));
    let before = element.stat(a);
    assert_eq!(before.0, bytes(a).len() as u64);
    assert!(before.1.contains("Offline"), "{before:?}");
    assert_eq!(element.stat(d).0, 0);
    assert_ne!(element.xrdfs(&["stat", "/eds/1/2/none"]).code, Some(0));
    // folders are there although their files are not
    let _ = element.xrdfs(&["ls", "/eds"]).exits(0).prints("/eds/1");

    element.comes_by_xrdcp(a);
    assert!(element.stat(a).0 == bytes(a).len() as u64 && !element.is_offline(a));
    let (ended, got) = element.curl(b, &[]);
    assert!(ended.code == Some(0) && got == bytes(b), "{ended:?}");
    let (ended, got) = element.curl(c, &["-r", "5-20"]);
    assert!(ended.code == Some(0) && got == bytes(c)[5..21], "{ended:?} {got:?}");
    let (ended, got) = element.curl(d, &[]);
    assert!(ended.code == Some(0) && got == bytes(d), "{ended:?}");
    assert_eq!(element.stat(d).0, bytes(d).len() as u64);

    let _ = element.xrdfs(&["prepare", "-e", a]).exits(0);
    wait_for("its eviction", || element.is_offline(a));
    assert!(!element.place.file(a).exists());
    element.comes_by_xrdcp(a);
    assert_eq!(element.daemon.wanted(a), 2);
}

#[test]
fn peer_a_recall_that_fails_ends_its_clients_and_is_tried_again_when_asked_for() {
    let mut element = Element::start(Staging::Sync);
    let name = "/eds/1/2/a.eds";
    element
        .daemon
        .has(entry(name, &bytes(name)), Script::Fail(Reason::Missing));
    known(&element.place, name);
    let ended = element.xrdcp(name);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(element.fail_file(name).exists());
    let (ended, _) = element.curl(name, &[]);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    // other bytes than were registered come to nobody
    let wrong = bytes("/eds/1/2/z.eds");
    assert_eq!(wrong.len(), bytes(name).len());
    element.daemon.will(name, Script::Send(wrong));
    // XRootD holds a failure against a file for a while
    wait_for("another try", || {
        let (ended, _) = element.curl(name, &[]);
        assert_ne!(ended.code, Some(0), "{ended:?}");
        element.daemon.wanted(name) == 2
    });
    assert!(!element.place.file(name).exists());
    element.daemon.will(name, Script::Send(bytes(name)));
    wait_for("the right file", || element.curl(name, &[]).0.code == Some(0));
    element.comes_by_xrdcp(name);
    assert!(!element.fail_file(name).exists());
    // the agent is away: an error, not an endless wait
    let other = "/eds/1/2/b.eds";
    element.has(other);
    element.daemon.end();
    element.place.kill();
    assert_ne!(element.xrdcp(other).code, Some(0));
}

#[test]
fn peer_files_are_prepared_in_one_go_and_no_request_is_lost() {
    let mut element = Element::start(Staging::Sync);
    let names: Vec<String> = (0..23).map(|number| format!("/eds/1/2/{number}.eds")).collect();
    for name in &names {
        element.has(name);
    }
    element.daemon.slow(Duration::from_millis(500));
    let [a, b, c] = [&names[20], &names[21], &names[22]].map(String::as_str);
    let request = element.prepare(&[a, b, c, "/eds/1/2/none"]);
    let online = |answer: &Value| {
        let responses = answer["responses"].as_array().unwrap();
        responses
            .iter()
            .map(|file| file["online"].as_bool().unwrap())
            .collect::<Vec<_>>()
    };
    let mut first = Value::Null;
    wait_for("the request", || {
        first = element.query(&request, &[a, b, c]);
        first["responses"][0]["requested"] == true
    });
    assert_eq!(first["request_id"], request.as_str());
    assert_eq!(first["responses"][1]["path"], b);
    wait_for("three files", || {
        online(&element.query(&request, &[a, b, c])) == [true; 3]
    });
    let last = element.query(&request, &[a, "/eds/1/2/none", &names[0]]);
    let file = |number: usize| &last["responses"][number];
    assert_eq!(file(1)["path_exists"], false);
    assert_eq!(file(1)["error_text"], Reason::Unknown.text());
    assert_eq!(
        (&file(2)["requested"], &file(2)["path_exists"]),
        (&false.into(), &true.into())
    );
    assert_eq!(
        element.query("never-heard-of", &[a])["responses"][0]["requested"],
        false
    );

    // more requests than XRootD runs programs for, while the storage element is killed and started again
    let requests: Vec<String> = names[..20].iter().map(|name| element.prepare(&[name])).collect();
    wait_for("the requests", || {
        names[..20].iter().all(|name| element.daemon.wanted(name) == 1)
    });
    element.xrootd.kill();
    element.xrootd.restart();
    wait_for("twenty files", || {
        names[..20].iter().all(|name| element.place.stat(name).on_disk)
    });
    assert_eq!(online(&element.query(&requests[0], &[&names[0]])), [true]);
    element.comes_by_xrdcp(&names[7]);
}

#[test]
fn peer_one_process_for_all_files_says_when_they_are_there_and_why_not() {
    let mut element = Element::start(Staging::Async);
    let [a, b] = ["/eds/1/2/a.eds", "/eds/1/2/b.eds"];
    element.has(a);
    element.daemon.has(entry(b, &bytes(b)), Script::Fail(Reason::Refused));
    known(&element.place, b);
    element.comes_by_xrdcp(a);
    let ended = element.xrdcp(b);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains(Reason::Refused.text()), "{ended:?}");
    assert_eq!(element.daemon.wanted(a), 1);
}
