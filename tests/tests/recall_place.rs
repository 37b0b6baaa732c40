//! The agent beside the storage element, as a process, with the hospital's end of the line played by a script.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use dicom_recall::ask::{Answer, Ask, Progress, Refusal, Wish};
use dicom_recall::line::{self, FromDaemon, FromPlace, News, Reason};
use dicom_recall::transport::{End, LineTable};
use hydra_tests::door::wait_for;
use hydra_tests::hospital::{Conversation, Daemon, Place, Script, entry, known, sha256};
use hydra_tests::small_disk::SmallDisk;
use hydra_tests::{program, run};
use serde_json::json;
use testgrid::pki::{Pki, PkiOptions};

const NAME: &str = "/eds/2.25.1/2.25.2/2.25.3.dcm.eds";

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Agent and conversation, with these files registered.
fn talk(place: &Place, files: &[(&str, &[u8])]) -> Conversation {
    let mut line = Conversation::begin(&place.path("line"), "one");
    line.on_disk();
    let entries = files.iter().map(|(name, bytes)| entry(name, bytes)).collect();
    line.say(&FromDaemon::Entries { entries, upto: 1 });
    for (name, _) in files {
        known(place, name);
    }
    line
}

fn parts(place: &Place) -> usize {
    fs::read_dir(place.path("se/.eds-parts")).unwrap().count()
}

fn failed(reason: Reason) -> Answer {
    Answer::Failed { reason }
}

#[track_caller]
fn refusal(answer: &Answer) -> Refusal {
    match answer {
        Answer::Refused { refusal, .. } => *refusal,
        other => panic!("{other:?}"),
    }
}

fn prepare(place: &Place, request: &str, names: &[&str]) -> Answer {
    let wish = |name: &&str| Wish {
        name: (*name).to_owned(),
        lifetime_s: Some(3600),
    };
    place.ask(&Ask::Prepare {
        request: Some(request.to_owned()),
        owner: None,
        files: names.iter().map(wish).collect(),
        priority: 1,
    })
}

fn progress(place: &Place, request: &str) -> Vec<(Progress, Option<Reason>, bool)> {
    let asked = place.ask(&Ask::Request {
        request: request.to_owned(),
        owner: None,
    });
    let Answer::Request { status } = asked else {
        panic!("{asked:?}");
    };
    status
        .files
        .iter()
        .map(|file| (file.progress, file.reason, file.on_disk))
        .collect()
}

#[test]
fn a_file_is_placed_if_it_is_the_one_that_was_registered() {
    let place = Place::start("");
    let good = bytes(700_000);
    let mut line = talk(&place, &[(NAME, &good)]);
    let before = place.stat(NAME);
    assert!(!before.on_disk && before.available && !before.wanted);
    assert_eq!((before.size, before.sha256), (Some(700_000), Some(sha256(&good))));
    // the folders are there for listings
    wait_for("the folder", || place.file("/eds/2.25.1/2.25.2").is_dir());

    // one byte less, one byte more, another byte, and another file altogether than was announced
    let mut other = good.clone();
    other[5] ^= 1;
    let longer: Vec<u8> = good.iter().chain(b"x").copied().collect();
    for (transfer, wrong) in [(1, &good[..good.len() - 1]), (2, &longer), (3, &other)] {
        line.send(transfer, NAME, wrong);
        let answer = line.finish(transfer, wrong);
        let reason = Reason::Changed;
        assert_eq!(answer, Some(FromPlace::NotPlaced { transfer, reason }));
    }
    line.send(4, NAME, &good);
    let reason = Reason::Changed;
    assert_eq!(
        line.finish(4, &other),
        Some(FromPlace::NotPlaced { transfer: 4, reason })
    );
    assert!(!place.file(NAME).exists());
    // the announced length is refused before anything is sent
    let size = Some(5);
    let name = NAME.to_owned();
    line.say(&FromDaemon::Offer {
        transfer: 5,
        name,
        size,
    });
    assert_eq!(line.hear(), Some(FromPlace::NotPlaced { transfer: 5, reason }));
    line.pieces(5, &good);
    // nobody registered it
    line.send(6, "/eds/2.25.9", &good);
    let reason = Reason::Unknown;
    assert_eq!(line.hear(), Some(FromPlace::NotPlaced { transfer: 6, reason }));
    // given up half way
    line.send(7, NAME, &good[..300_000]);
    line.say(&FromDaemon::Abandon { transfer: 7 });

    line.send(8, NAME, &good);
    assert_eq!(line.finish(8, &good), Some(FromPlace::Placed { transfer: 8 }));
    assert_eq!(fs::read(place.file(NAME)).unwrap(), good);
    assert_eq!(parts(&place), 0);
    assert!(place.stat(NAME).on_disk);
}

#[test]
fn several_files_come_at_once_and_one_that_fails_does_so_alone() {
    let place = Place::start("");
    let files: Vec<(String, Vec<u8>)> = (0..9)
        .map(|number| (format!("/eds/{number}"), bytes(300_000 + number)))
        .collect();
    let known: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let mut line = talk(&place, &known);
    for (transfer, (name, bytes)) in (0..).zip(&files) {
        line.send(transfer, name, &bytes[..100_000]);
    }
    for (transfer, (_, bytes)) in (0..).zip(&files) {
        line.pieces(transfer, &bytes[100_000..]);
    }
    for (transfer, (_, bytes)) in (0..).zip(&files) {
        let mut bytes = bytes.clone();
        bytes[0] ^= u8::from(transfer == 4);
        line.say(&FromDaemon::Finish {
            transfer,
            size: bytes.len() as u64,
            sha256: sha256(&bytes),
        });
    }
    let answers: Vec<FromPlace> = (0..9).map(|_| line.hear().unwrap()).collect();
    for transfer in 0..9 {
        let reason = Reason::Changed;
        let expected = match transfer {
            4 => FromPlace::NotPlaced { transfer, reason },
            _ => FromPlace::Placed { transfer },
        };
        assert!(answers.contains(&expected), "{expected:?} in {answers:?}");
    }
}

#[test]
fn a_hundred_who_wait_for_a_file_are_one_want() {
    let place = Place::start("");
    let good = bytes(1000);
    let mut line = talk(&place, &[(NAME, &good)]);
    let waiters: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(place.path("ask")).unwrap();
            let ask = Ask::Stage {
                name: NAME.to_owned(),
                path: Some(place.file(NAME)),
                deadline_s: 60,
            };
            writeln!(stream, "{}", serde_json::to_string(&ask).unwrap()).unwrap();
            stream
        })
        .collect();
    let want = FromPlace::Want {
        name: NAME.to_owned(),
        priority: 2,
    };
    assert_eq!(line.hear(), Some(want));
    wait_for("the want", || place.stat(NAME).wanted);
    line.send(1, NAME, &good);
    // no other want came before it
    assert_eq!(line.finish(1, &good), Some(FromPlace::Placed { transfer: 1 }));
    for mut stream in waiters {
        let mut answer = [0; 18];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"{\"answer\":\"done\"}\n");
    }
    // and who comes later has it at once, with nothing said on the line
    assert_eq!(place.stage(NAME, 60), Answer::Done);
    line.say(&FromDaemon::Evict { name: NAME.to_owned() });
    let name = NAME.to_owned();
    assert_eq!(line.hear(), Some(FromPlace::Evicted { name }));
    assert!(!place.file(NAME).exists() && !place.stat(NAME).on_disk);
}

#[test]
fn who_waits_is_told_why_it_does_not_come() {
    let place = Place::start("");
    let mut daemon = Daemon::start(&place);
    daemon.has(entry(NAME, b"x"), Script::Fail(Reason::Missing));
    daemon.has(entry("/eds/waits", b"x"), Script::Wait(Reason::Pacs));
    known(&place, "/eds/waits");
    assert_eq!(place.stage(NAME, 60), failed(Reason::Missing));
    assert_eq!(place.stat(NAME).reason, Some(Reason::Missing));
    // it is asked for again, and comes
    daemon.will(NAME, Script::Send(b"x".to_vec()));
    assert_eq!(place.stage(NAME, 60), Answer::Done);
    assert_eq!(place.stat(NAME).reason, None);
    assert_eq!(place.stage("/eds/none", 60), failed(Reason::Unknown));
    // what is tried again is waited for as long as is said, and then its reason is told
    assert_eq!(place.stage("/eds/waits", 1), failed(Reason::Pacs));
    assert!(place.stat("/eds/waits").wanted);
    // bytes that are not what was registered never are delivered
    daemon.has(entry("/eds/wrong", b"registered"), Script::Send(b"other text".to_vec()));
    known(&place, "/eds/wrong");
    assert_eq!(place.stage("/eds/wrong", 60), failed(Reason::Changed));
    assert!(!place.file("/eds/wrong").exists());
}

#[test]
fn a_line_that_is_cut_leaves_nothing_half_done_and_is_taken_up_again() {
    let place = Place::start("");
    let good = bytes(600_000);
    let mut line = talk(&place, &[(NAME, &good)]);
    prepare(&place, "r", &[NAME]);
    assert!(matches!(line.hear(), Some(FromPlace::Want { .. })));
    line.send(1, NAME, &good[..400_000]);
    wait_for("a part", || parts(&place) == 1);
    drop(line);
    wait_for("no part", || parts(&place) == 0);
    wait_for("no line", || !place.stat(NAME).available);
    let status = place.stat(NAME);
    assert!(status.registered && status.wanted && status.size == Some(600_000));
    // while nobody is there a file is waited for, and comes as soon as somebody is
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| place.stage(NAME, 60));
        let mut line = Conversation::begin(&place.path("line"), "one");
        assert!(matches!(&line.hello, FromPlace::Hello { upto: 1, registry: Some(registry), .. } if registry == "one"));
        assert!(line.on_disk().is_empty());
        // a stage is more urgent than a prepare: said once or twice, as they come
        assert!(matches!(line.hear(), Some(FromPlace::Want { .. })));
        line.send(2, NAME, &good);
        loop {
            match line.finish(2, &good) {
                Some(FromPlace::Placed { transfer: 2 }) => break,
                Some(FromPlace::Want { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        waiting.join().unwrap()
    });
    assert_eq!(waiting, Answer::Done);
    assert_eq!(progress(&place, "r"), [(Progress::Completed, None, true)]);
    wait_for("no line", || {
        Conversation::begin(&place.path("line"), "one").on_disk() == [NAME]
    });
}

#[test]
fn who_only_places_is_told_nothing_that_is_wanted_and_makes_nothing_available() {
    let place = Place::start("");
    let good = bytes(300_000);
    let mut line = Conversation::begin_as(&place.path("line"), "one", true);
    let entries = vec![entry(NAME, &good)];
    line.say(&FromDaemon::Entries { entries, upto: 1 });
    known(&place, NAME);
    assert!(!place.stat(NAME).available, "nobody recalls it");
    prepare(&place, "r", &[NAME]);
    // neither what is on disk nor the want was said: the first word is that on the file
    line.send(1, NAME, &good);
    assert_eq!(line.finish(1, &good), Some(FromPlace::Placed { transfer: 1 }));
    assert_eq!(progress(&place, "r"), [(Progress::Completed, None, true)]);
    let mut daemon = Conversation::begin(&place.path("line"), "one");
    assert_eq!(daemon.on_disk(), [NAME]);
    // what goes both are told
    let (name, force) = (NAME.to_owned(), true);
    let names = vec![name.clone()];
    assert!(matches!(
        place.ask(&Ask::Evict { names, force }),
        Answer::Evicted { .. }
    ));
    for line in [&mut line, &mut daemon] {
        assert_eq!(line.hear(), Some(FromPlace::Evicted { name: name.clone() }));
    }
    assert!(place.stat(NAME).available);
    drop(daemon);
    wait_for("the daemon's end", || !place.stat(NAME).available);
}

#[test]
fn killed_in_the_middle_it_forgets_nothing_that_it_promised() {
    let mut place = Place::start("");
    let good = bytes(500_000);
    let mut line = talk(&place, &[(NAME, &good), ("/eds/b", b"b")]);
    prepare(&place, "r", &[NAME, "/eds/b", "/eds/none"]);
    line.send(1, "/eds/b", b"b");
    // wants first, in the order of the request
    assert!(matches!(line.hear(), Some(FromPlace::Want { name, .. }) if name == NAME));
    assert!(matches!(line.hear(), Some(FromPlace::Want { name, .. }) if name == "/eds/b"));
    assert_eq!(line.finish(1, b"b"), Some(FromPlace::Placed { transfer: 1 }));
    line.send(2, NAME, &good[..300_000]);
    wait_for("a part", || parts(&place) == 1);
    place.kill();
    assert_eq!(parts(&place), 1);
    assert!(!place.file(NAME).exists());
    place.restart();
    assert_eq!(parts(&place), 0);
    let submitted = (Progress::Submitted, None, false);
    let unknown = (Progress::Failed, Some(Reason::Unknown), false);
    assert_eq!(
        progress(&place, "r"),
        [submitted, (Progress::Completed, None, true), unknown]
    );
    let mut line = Conversation::begin(&place.path("line"), "one");
    assert_eq!(line.on_disk(), ["/eds/b"]);
    assert!(matches!(line.hear(), Some(FromPlace::Want { name, .. }) if name == NAME));
    line.send(1, NAME, &good);
    assert_eq!(line.finish(1, &good), Some(FromPlace::Placed { transfer: 1 }));
    assert_eq!(fs::read(place.file(NAME)).unwrap(), good);
    // ended in good order it takes its socket away
    assert_eq!(place.stop(), Some(0));
    assert!(!place.path("ask").exists());
}

#[test]
fn requests_are_kept_cancelled_and_forgotten() {
    let place = Place::start("");
    let mut line = talk(&place, &[("/eds/a", b"a"), ("/eds/b", b"b")]);
    let request = |request: &str| request.to_owned();
    prepare(&place, "r", &["/eds/a", "/eds/b"]);
    prepare(&place, "s", &["/eds/b"]);
    assert!(matches!(line.hear(), Some(FromPlace::Want { .. })));
    assert!(matches!(line.hear(), Some(FromPlace::Want { .. })));
    let name = "/eds/a".to_owned();
    let news = News::Started;
    line.say(&FromDaemon::News { name, news });
    wait_for("its start", || progress(&place, "r")[0].0 == Progress::Started);
    // a file that is not of it: nothing is done
    let names = Some(vec!["/eds/a".to_owned(), "/eds/c".to_owned()]);
    let (owner, r) = (None, request("r"));
    assert_eq!(
        refusal(&place.ask(&Ask::Cancel {
            request: r,
            owner,
            names
        })),
        Refusal::NotOfRequest
    );
    let (owner, r, names) = (None, request("r"), None);
    assert_eq!(
        place.ask(&Ask::Cancel {
            request: r,
            owner,
            names
        }),
        Answer::Done
    );
    // the other request waits for the second file still
    let name = "/eds/a".to_owned();
    assert_eq!(line.hear(), Some(FromPlace::Unwant { name }));
    let cancelled = (Progress::Cancelled, None, false);
    assert_eq!(progress(&place, "r"), [cancelled, cancelled]);
    let (owner, s) = (None, request("s"));
    assert_eq!(place.ask(&Ask::Forget { request: s, owner }), Answer::Done);
    let name = "/eds/b".to_owned();
    assert_eq!(line.hear(), Some(FromPlace::Unwant { name }));
    let (owner, s) = (None, request("s"));
    assert_eq!(
        refusal(&place.ask(&Ask::Request { request: s, owner })),
        Refusal::NoRequest
    );
    let Answer::Requests { requests } = place.ask(&Ask::Requests { owner: None }) else {
        panic!("requests");
    };
    assert_eq!(requests.len(), 1);
    // one that belongs to somebody is nobody else's
    let files = vec![Wish {
        name: "/eds/a".to_owned(),
        lifetime_s: None,
    }];
    let (owner, alice) = (Some("/CN=alice".to_owned()), Some("/CN=alice".to_owned()));
    let answer = place.ask(&Ask::Prepare {
        request: None,
        owner,
        files,
        priority: 0,
    });
    let Answer::Accepted { request } = answer else {
        panic!("{answer:?}");
    };
    let (bob, theirs) = (Some("/CN=bob".to_owned()), request.clone());
    assert_eq!(
        refusal(&place.ask(&Ask::Request {
            request: theirs,
            owner: bob
        })),
        Refusal::NoRequest
    );
    assert!(matches!(
        place.ask(&Ask::Request { request, owner: alice }),
        Answer::Request { .. }
    ));
}

#[test]
fn what_a_request_holds_is_evicted_by_force_only() {
    let place = Place::start("");
    let mut daemon = Daemon::start(&place);
    daemon.has(entry("/eds/a", b"a"), Script::Send(b"a".to_vec()));
    known(&place, "/eds/a");
    prepare(&place, "r", &["/eds/a"]);
    wait_for("the file", || place.stat("/eds/a").on_disk);
    wait_for("its request", || progress(&place, "r")[0].0 == Progress::Completed);
    let evict = |force| {
        let names = vec!["/eds/a".to_owned(), "/eds/none".to_owned(), "/../x".to_owned()];
        place.ask(&Ask::Evict { names, force })
    };
    let evicted = |names: &[&str]| Answer::Evicted {
        names: names.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(evict(false), evicted(&[]));
    let (request, names) = ("r".to_owned(), vec!["/eds/a".to_owned()]);
    assert_eq!(
        place.ask(&Ask::Release {
            request,
            owner: None,
            names
        }),
        Answer::Done
    );
    assert_eq!(evict(false), evicted(&["/eds/a"]));
    // and recalled again it is the same
    prepare(&place, "r", &["/eds/a"]);
    wait_for("the file", || place.stat("/eds/a").on_disk);
    wait_for("its request", || progress(&place, "r")[0].0 == Progress::Completed);
    assert_eq!(evict(true), evicted(&["/eds/a"]));
    assert_eq!(daemon.wanted("/eds/a"), 2);
    // a file that nobody registered is not ours to remove
    fs::write(place.file("/eds/none"), "theirs").unwrap();
    assert_eq!(evict(true), evicted(&[]));
    // and one of another length than was registered is not the one
    fs::write(place.file("/eds/a"), "much longer").unwrap();
    assert!(!place.stat("/eds/a").on_disk);
}

#[test]
fn names_are_taken_as_they_are_or_not_at_all() {
    let place = Place::start("");
    let mut daemon = Daemon::start(&place);
    let odd = "/eds/$(touch x) `id`;'\"|& *.eds";
    daemon.has(entry(odd, b"odd"), Script::Send(b"odd".to_vec()));
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(place.file("/eds")).unwrap();
    std::os::unix::fs::symlink(&outside, place.file("/eds/link")).unwrap();
    let long = format!("/eds/{}", "x".repeat(300));
    // a daemon that lies is not believed either
    for bad in ["/eds/../../outside/x", "/eds/a\nb", "eds", "", &long] {
        daemon.has(entry(bad, b"x"), Script::Send(b"x".to_vec()));
    }
    daemon.has(entry("/eds/link/x", b"x"), Script::Send(b"x".to_vec()));
    known(&place, "/eds/link/x");
    assert_eq!(place.stage(odd, 60), Answer::Done);
    assert_eq!(fs::read(place.file(odd)).unwrap(), b"odd");
    for bad in ["/eds/../../outside/x", "/eds/a\nb", "eds", "", &long] {
        assert!(!place.stat(bad).registered, "{bad}");
        assert_eq!(refusal(&place.stage(bad, 60)), Refusal::Unfit, "{bad}");
    }
    assert_eq!(place.stage("/eds/link/x", 60), failed(Reason::Storage));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // a request takes them, and says so file by file
    assert!(matches!(
        prepare(&place, "r", &["/eds/../x", &long, odd]),
        Answer::Accepted { .. }
    ));
    let unknown = (Progress::Failed, Some(Reason::Unknown), false);
    assert_eq!(
        progress(&place, "r"),
        [unknown, unknown, (Progress::Completed, None, true)]
    );
    // whoever looks for the file elsewhere than it will be would wait for ever
    let (name, path) = (odd.to_owned(), Some("/other/place".into()));
    let answer = place.ask(&Ask::Stage {
        name,
        path,
        deadline_s: 60,
    });
    assert_eq!(refusal(&answer), Refusal::Unfit);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let full = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(full.path(), "256k") else {
        return;
    };
    let place = Place::start(&format!("root = {:?}\n", full.path()));
    let (small, large) = (bytes(50_000), bytes(400_000));
    let mut line = talk(&place, &[("/eds/large", &large), ("/eds/small", &small)]);
    line.send(1, "/eds/large", &large);
    let reason = Reason::Storage;
    let answer = line.finish(1, &large);
    line.send(2, "/eds/small", &small);
    let after = line.finish(2, &small);
    let left = fs::read_dir(full.path().join(".eds-parts")).unwrap().count();
    drop(place);
    let is_unmounted = disk.unmount();
    assert_eq!(answer, Some(FromPlace::NotPlaced { transfer: 1, reason }));
    assert_eq!(after, Some(FromPlace::Placed { transfer: 2 }));
    assert_eq!(left, 0);
    assert!(is_unmounted);
}

#[test]
fn a_file_that_is_lost_is_told() {
    let place = Place::start("[evict]\nmost_bytes = 1000000\n");
    let mut line = talk(&place, &[("/eds/a", b"a"), ("/eds/b", b"b")]);
    line.send(1, "/eds/a", b"a");
    assert_eq!(line.finish(1, b"a"), Some(FromPlace::Placed { transfer: 1 }));
    fs::remove_file(place.file("/eds/a")).unwrap();
    // what comes has the agent look through what there is
    line.send(2, "/eds/b", b"b");
    let heard = [line.finish(2, b"b"), line.hear()];
    let name = "/eds/a".to_owned();
    assert!(heard.contains(&Some(FromPlace::Evicted { name })), "{heard:?}");
    assert!(heard.contains(&Some(FromPlace::Placed { transfer: 2 })), "{heard:?}");
}

#[test]
fn requests_that_are_over_make_room_for_others() {
    let place = Place::start("[limits]\nrequests = 2\n");
    let mut daemon = Daemon::start(&place);
    for name in ["/eds/a", "/eds/b"] {
        daemon.has(entry(name, b"a"), Script::Send(b"a".to_vec()));
        known(&place, name);
    }
    daemon.has(entry("/eds/waits", b"a"), Script::Wait(Reason::Pacs));
    known(&place, "/eds/waits");
    prepare(&place, "waits", &["/eds/waits"]);
    let ask = |request: &str, name: &str| {
        place.ask(&Ask::Prepare {
            request: Some(request.to_owned()),
            owner: None,
            files: vec![Wish {
                name: name.to_owned(),
                lifetime_s: None,
            }],
            priority: 1,
        })
    };
    for number in 0..4 {
        let (request, name) = (format!("r{number}"), ["/eds/a", "/eds/b"][number % 2]);
        let answer = ask(&request, name);
        assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
        wait_for("the file", || progress(&place, &request)[0].0 == Progress::Completed);
    }
    // what somebody waits for is not forgotten
    assert_ne!(progress(&place, "waits")[0].0, Progress::Completed);
    prepare(&place, "waits2", &["/eds/waits"]);
    assert_eq!(refusal(&ask("one more", "/eds/a")), Refusal::TooMuch);
}

#[test]
fn another_registry_begins_anew_and_two_at_once_are_one_too_many() {
    let place = Place::start("");
    let mut line = talk(&place, &[("/eds/a", b"a")]);
    // a second daemon of the same registry is welcome, one of another is not
    let mut second = Conversation::begin(&place.path("line"), "one");
    assert!(second.on_disk().is_empty());
    let mut other = Conversation::begin(&place.path("line"), "two");
    assert_eq!(other.hear(), None);
    line.send(1, "/eds/a", b"a");
    assert_eq!(line.finish(1, b"a"), Some(FromPlace::Placed { transfer: 1 }));
    drop((line, second));
    wait_for("no line", || {
        !matches!(place.ask(&Ask::About), Answer::About { connected: true, .. })
    });
    let mut other = Conversation::begin(&place.path("line"), "two");
    // it is there, but nobody registered it: it is not taken away either
    assert_eq!(other.on_disk(), ["/eds/a"]);
    assert!(!place.stat("/eds/a").registered);
    assert!(place.file("/eds/a").exists());
    let entries = vec![entry("/eds/a", b"b")];
    other.say(&FromDaemon::Entries { entries, upto: 1 });
    // registered again as something else: the old bytes are not it
    let name = "/eds/a".to_owned();
    assert_eq!(other.hear(), Some(FromPlace::Evicted { name }));
    assert!(!place.stat("/eds/a").on_disk);
}

#[test]
fn what_is_not_understood_is_refused_and_nothing_breaks() {
    let place = Place::start("limits = { clients = 3 }\n");
    let answer = |line: &[u8]| {
        let mut stream = UnixStream::connect(place.path("ask")).unwrap();
        stream.write_all(line).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // whoever is refused before it was read sees the answer, and then a connection that broke
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    for bad in [&b"{}\n"[..], b"\n", b"\xff\xff\n", b"{\"ask\":\"list\"}\n", b"[[[[[[\n"] {
        assert!(answer(bad).contains("\"refusal\":\"unreadable\""), "{bad:?}");
    }
    assert_eq!(answer(b"{\"ask\":\"requests\",\"owner\":null}"), "");
    let held: Vec<UnixStream> = (0..3)
        .map(|_| UnixStream::connect(place.path("ask")).unwrap())
        .collect();
    wait_for("a refusal", || answer(b"").contains("too_much"));
    drop(held);
    wait_for("an answer", || {
        answer(b"{\"ask\":\"about\"}\n").contains("\"entries\":0")
    });
    // a line that talks nonsense is dropped, and the next one is good
    for bad in [&b"\0\0\0\x01\x09"[..], b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(place.path("line")).unwrap();
        stream.write_all(bad).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
    }
    let mut line = Conversation::begin(&place.path("line"), "one");
    assert!(line.on_disk().is_empty());
}

#[test]
fn over_tls_nobody_but_the_peer_gets_in_and_nobody_but_it_is_dialed() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    let line = |role: &str, host: &str, peer: &str| {
        let (certificate, key) = pki.host(host);
        json!({
            "certificate": certificate, "key": key, "authorities": pki.certificates(),
            "peer": pki.host_dn(peer).unwrap(), "listen": null, "connect": null, role: "127.0.0.1:0",
        })
    };
    let toml = |table: &serde_json::Value| {
        let keys = table.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        let lines = keys.map(|(key, value)| format!("{key} = {value}\n"));
        format!("[line]\n{}", lines.collect::<String>())
    };
    let place = Place::start(&toml(&line("listen", "keystore1", "keystore2")));
    let port = |text: &str| {
        let (_, rest) = text.split_once("\"address\":\"127.0.0.1:")?;
        rest.split_once('"').map(|(port, _)| port.to_owned())
    };
    wait_for("its port", || port(&place.log()).is_some());
    let port = port(&place.log()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let greeted = |ours: &str, peer: &str| {
        let mut table = line("connect", ours, peer);
        table["connect"] = format!("localhost:{port}").into();
        let table: LineTable = serde_json::from_value(table).unwrap();
        let mut faults = Vec::new();
        let config = table.check(&mut faults, "place", folder.path()).unwrap();
        runtime.block_on(async {
            let End::Dialer(dialer) = End::open(&config).await.unwrap() else {
                panic!("it dials");
            };
            let mut stream = dialer.dial().await.map_err(|error| error.to_string())?;
            let (version, registry) = (line::VERSION, "tls".to_owned());
            let places_only = false;
            let hello = line::message(&FromDaemon::Hello {
                version,
                registry,
                places_only,
            });
            line::write(&mut stream, &hello)
                .await
                .map_err(|error| error.to_string())?;
            let answer = line::read::<FromPlace>(&mut stream).await;
            answer.map(|_| ()).map_err(|error| error.to_string())
        })
    };
    assert_eq!(greeted("keystore2", "keystore1"), Ok(()));
    // another host of the same authority is not let in, and one that is dialed by mistake is not talked to
    assert!(greeted("keystore3", "keystore1").is_err());
    let error = greeted("keystore2", "keystore3").unwrap_err();
    assert!(error.contains("the other end is"), "{error}");
    wait_for("it in the log", || place.log().contains("the other end is"));
}

#[test]
fn dcache_gets_exactly_the_registered_bytes_or_nothing() {
    let place = Place::start("");
    let mut daemon = Daemon::start(&place);
    let good = bytes(300_000);
    daemon.has(entry(NAME, &good), Script::Fail(Reason::Pacs));
    known(&place, NAME);
    let file = place.path("pool");
    let socket = format!("-socket={}", place.path("ask").display());
    let hsm = |arguments: &[&str]| {
        run(Command::new(program("dicom-recall"))
            .arg("hsm")
            .args(arguments)
            .arg(&socket))
        .code
    };
    let get = |size: usize| {
        let info = format!("-si=size={size};new=false;stored=true;sClass=eds:data;cClass=-;hsm=dicom;");
        let uri = "-uri=dicom://PACS/?store=2.25.1&group=2.25.2&bfid=2.25.3";
        hsm(&[
            "get",
            "0000A1",
            file.to_str().unwrap(),
            &info,
            uri,
            "-command=/usr/libexec/eds/dcache-hsm",
        ])
    };
    assert_eq!(get(good.len()), Some(30));
    daemon.will(NAME, Script::Send(good.clone()));
    assert_eq!(get(good.len() - 1), Some(30));
    assert!(!file.exists());
    assert_eq!(get(good.len()), Some(0));
    assert_eq!(fs::read(&file).unwrap(), good);
    assert_eq!(hsm(&["put", "0000A1", file.to_str().unwrap(), "-si=size=1;"]), Some(30));
    assert_eq!(
        hsm(&["remove", "-uri=dicom://PACS/?store=2.25.1&group=2.25.2&bfid=2.25.3"]),
        Some(0)
    );
    daemon.end();
    drop(place);
    assert_eq!(get(good.len()), Some(30));
}

#[test]
fn what_is_long_unused_or_too_much_goes_and_the_rest_stays() {
    let mut place = Place::start("");
    let mut daemon = Daemon::start(&place);
    for name in ["/eds/a", "/eds/b", "/eds/held", "/eds/new"] {
        daemon.has(entry(name, b"12345"), Script::Send(b"12345".to_vec()));
        known(&place, name);
        assert_eq!(place.stage(name, 60), Answer::Done);
    }
    prepare(&place, "r", &["/eds/held"]);
    for (name, ago) in [("/eds/a", 900), ("/eds/b", 600), ("/eds/held", 1000)] {
        let file = fs::File::options().write(true).open(place.file(name)).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(ago);
        let times = fs::FileTimes::new().set_modified(then).set_accessed(then);
        file.set_times(times).unwrap();
    }
    daemon.end();
    assert_eq!(place.stop(), Some(0));
    // nobody is on the line: what is old stays, what is too much does not
    place.set("[evict]\nafter_s = 1\nmost_bytes = 15\n");
    place.restart();
    wait_for("one file less", || !place.file("/eds/a").exists());
    for name in ["/eds/b", "/eds/held", "/eds/new"] {
        assert!(place.file(name).exists(), "{name}");
    }
    assert_eq!(place.stat("/eds/a").size, Some(5));
}

#[test]
fn whoever_runs_the_storage_element_sees_what_the_agent_knows() {
    let place = Place::start("");
    let mut daemon = Daemon::start(&place);
    daemon.has(entry("/eds/a", b"12345"), Script::Send(b"12345".to_vec()));
    daemon.has(entry("/eds/b", b"123"), Script::Wait(Reason::Key));
    known(&place, "/eds/b");
    let socket = place.path("ask");
    let ours = |words: &[&str]| {
        let mut command = Command::new(program("dicom-recall"));
        run(command.args(words).arg("--agent").arg(&socket))
    };
    assert_eq!(ours(&["ls", "/eds"]).exits(0).stdout, "/eds/a\n/eds/b\n");
    prepare(&place, "r", &["/eds/a", "/eds/b"]);
    wait_for("both", || {
        place.stat("/eds/a").on_disk && place.stat("/eds/b").reason.is_some()
    });
    let stat = ours(&["stat", "/eds/a", "/eds/b"]).exits(0);
    let text = "on disk             5 /eds/a\nnearline            3 /eds/b  wanted  its key cannot be had now\n";
    assert_eq!(stat.stdout, text);
    assert_eq!(ours(&["stat", "/eds/none"]).code, Some(77));
    let _ = ours(&["requests"])
        .exits(0)
        .prints("r  1 of 2 files\n  completed  /eds/a\n  submitted  /eds/b\n");
    let first = ours(&["requests", "--json"]).exits(0).json();
    assert_eq!(
        (&first["request"], &first["files"][0]["on_disk"]),
        (&json!("r"), &json!(true))
    );
    let _ = ours(&["evict", "/eds/a"]).exits(1).says("are held");
    let _ = ours(&["cancel", "r"]).exits(0);
    let _ = ours(&["cancel", "--all"]).exits(2);
    let _ = ours(&["cancel", "s"]).exits(1).says("there is no such request");
    // what XRootD is told of names, files and folders
    let rss = |words: &[&str]| {
        let mut command = Command::new(program("dicom-recall"));
        run(command.arg("rss").arg("--socket").arg(&socket).args(words)).stdout
    };
    assert_eq!(rss(&["exists", "/eds/b"]), "0\n");
    let time = "1700000000 1700000000 1700000000";
    assert_eq!(
        rss(&["statx", "/eds/b"]),
        format!("0\n- rw-r--r-- 1 0 0 {time} 3 4096 1\n")
    );
    assert_eq!(rss(&["statx", "/eds"]), "0\nd rwxr-xr-x 2 0 0 0 0 0 4096 4096 8\n");
    assert_eq!(rss(&["dlist", "/eds"]), "0\na\nb\n");
    assert_eq!(rss(&["statx", "/ed"]), "-2\n");
    assert_eq!(rss(&["rm", "/eds/b"]), "-1\n");
    daemon.end();
    drop(place);
    assert_eq!(rss(&["statx", "/eds/b"]), "-5\n");
}

#[test]
fn files_that_were_refused_do_not_fill_up_the_line() {
    let place = Place::start("");
    let good = bytes(300_000);
    let mut line = talk(&place, &[(NAME, &good)]);
    // more than may be open at once; of what is refused nothing else is said
    for transfer in 1..=300 {
        let (name, size) = (NAME.to_owned(), Some(5));
        line.say(&FromDaemon::Offer { transfer, name, size });
        let reason = Reason::Changed;
        assert_eq!(line.hear(), Some(FromPlace::NotPlaced { transfer, reason }));
    }
    line.send(301, NAME, &good);
    assert_eq!(line.finish(301, &good), Some(FromPlace::Placed { transfer: 301 }));
}

#[test]
fn what_was_registered_anew_is_not_served_from_old_bytes() {
    let place = Place::start("");
    let old = bytes(1000);
    let mut line = talk(&place, &[(NAME, &old)]);
    line.send(1, NAME, &old);
    assert_eq!(line.finish(1, &old), Some(FromPlace::Placed { transfer: 1 }));
    // gone and there again, of which only the end is told; nobody knows yet what it will be
    let again = line::Entry {
        registered_at: entry(NAME, &old).registered_at + 1,
        size: None,
        sha256: None,
        ..entry(NAME, &old)
    };
    line.say(&FromDaemon::Entries {
        entries: vec![again],
        upto: 2,
    });
    assert_eq!(line.hear(), Some(FromPlace::Evicted { name: NAME.to_owned() }));
    assert!(!place.file(NAME).exists() && !place.stat(NAME).on_disk);
}

#[test]
fn the_answer_to_an_old_cancel_is_not_taken_for_one_to_a_new_wish() {
    let place = Place::start("");
    let good = bytes(1000);
    let mut line = talk(&place, &[(NAME, &good)]);
    let name = NAME.to_owned();
    let _ = prepare(&place, "old", &[NAME]);
    let want = line.hear();
    assert!(matches!(want, Some(FromPlace::Want { .. })), "{want:?}");
    let cancelled = place.ask(&Ask::Cancel {
        request: "old".to_owned(),
        owner: None,
        names: None,
    });
    assert_eq!(cancelled, Answer::Done);
    assert_eq!(line.hear(), Some(FromPlace::Unwant { name: name.clone() }));
    let _ = prepare(&place, "new", &[NAME]);
    assert!(matches!(line.hear(), Some(FromPlace::Want { .. })));
    let reason = Reason::Cancelled;
    line.say(&FromDaemon::News {
        name,
        news: News::Failed { reason },
    });
    assert!(
        matches!(line.hear(), Some(FromPlace::Want { .. })),
        "it is said once more"
    );
    assert_eq!(progress(&place, "new"), [(Progress::Submitted, None, false)]);
    line.send(1, NAME, &good);
    assert_eq!(line.finish(1, &good), Some(FromPlace::Placed { transfer: 1 }));
    assert_eq!(progress(&place, "new"), [(Progress::Completed, None, true)]);
}
