//! DICOM on the wire against other people's programs (Orthanc, dcmtk) and a PACS that misbehaves.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_net::association::{Acceptance, Association, Message};
use dicom_net::command::{Command as Dimse, Field, Status, element};
use dicom_net::dataset::{FileMeta, syntax};
use dicom_net::{
    AeTitle, Arrival, Deadlines, Dicomweb, MoveDestination, NetError, Pacs, Receiver, ReceiverOptions, Retrieved,
    Slots, StrangeInstance, Taken, Uid, Waiting, Wanted, WebOptions, contexts,
};
use hydra_tests::door::wait_for;
use hydra_tests::pacs::{
    Dcmqrscp, FakePacs, Fault, OURS, Orthanc, THEIRS, folder_of, free_port, load, options, pacs, single,
};
use hydra_xtask::dicom::{INVENTED, ct_slice};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn numbered(number: u128) -> Uid {
    uid(&format!("2.25.{number}"))
}

/// A study of two series, with two slices and one.
fn study() -> Vec<Vec<u8>> {
    [(11, 101), (11, 102), (12, 103)]
        .map(|(series, image)| ct_slice(&INVENTED, [1, series, image, 9]))
        .to_vec()
}

fn other() -> Vec<u8> {
    ct_slice(&INVENTED, [2, 21, 201, 9])
}

fn wanted(series: Option<u128>, instances: &[u128]) -> Wanted {
    Wanted {
        study: numbered(1),
        series: series.map(numbered),
        instances: instances.iter().copied().map(numbered).collect(),
    }
}

/// The data set of a file, without what is in front of it.
fn data_set(file: &[u8]) -> (FileMeta, Vec<u8>) {
    let mut rest = file;
    let (meta, _) = FileMeta::read(&mut rest).unwrap();
    (meta, rest.to_vec())
}

/// What came, by instance: its arrival and its whole file.
type Came = BTreeMap<Uid, (Arrival, Vec<u8>)>;

fn collect<E>(retrieve: impl FnOnce(&mut dicom_net::Sink<'_>) -> Result<Retrieved, E>) -> (Result<Retrieved, E>, Came) {
    let mut came = Came::new();
    let retrieved = retrieve(&mut |arrival: &Arrival, file: &mut dyn Read| {
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_err() {
            return Taken::Dropped;
        }
        came.insert(arrival.identity.instance.clone(), (arrival.clone(), bytes));
        Taken::Kept
    });
    (retrieved, came)
}

/// Every instance that came is one of `files`, bit for bit, and no other.
#[track_caller]
fn same(came: &Came, files: &[&Vec<u8>]) {
    assert_eq!(came.len(), files.len());
    for file in files {
        let (meta, data) = data_set(file);
        let (arrival, bytes) = &came[&meta.instance];
        let (came_meta, came_data) = data_set(bytes);
        assert_eq!(came_meta, meta);
        assert_eq!(arrival.transfer_syntax, meta.transfer_syntax);
        assert!(came_data == data, "{}: other bytes", meta.instance);
    }
}

#[test]
fn peer_orthanc_answers_finds_and_gets_bit_for_bit() {
    let orthanc = Orthanc::start();
    let files = study();
    orthanc.load(&files);
    orthanc.load(&[other()]);
    let pacs = pacs(orthanc.port);
    pacs.echo().unwrap();
    let offer = pacs.offer(&[uid(CT)]).unwrap();
    assert!(
        offer
            .classes
            .iter()
            .any(|(class, syntaxes)| *class == uid(CT) && *syntaxes > 10),
        "{offer:?}"
    );

    let found = pacs.instances(&wanted(None, &[])).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|one| (one.series.clone(), one.instance.clone()))
        .collect();
    let expected = [(11, 101), (11, 102), (12, 103)].map(|(series, image)| (numbered(series), numbered(image)));
    assert_eq!(names, expected);
    assert!(found.iter().all(|one| one.class == Some(uid(CT))));
    assert_eq!(pacs.instances(&wanted(Some(11), &[102])).unwrap().len(), 1);
    assert_eq!(pacs.instances(&wanted(Some(77), &[])).unwrap(), []);

    let (retrieved, came) = collect(|sink| pacs.get(&wanted(Some(11), &[]), &[uid(CT)], sink));
    let retrieved = retrieved.unwrap();
    assert_eq!(retrieved.kept.len(), 2);
    assert!(
        retrieved.strange.is_empty() && retrieved.failed_count == 0,
        "{retrieved:?}"
    );
    same(&came, &[&files[0], &files[1]]);
    // without classes, a whole study, one instance, nothing
    let (_, came) = collect(|sink| pacs.get(&wanted(None, &[]), &[], sink));
    same(&came, &files.iter().collect::<Vec<_>>());
    let (_, came) = collect(|sink| pacs.get(&wanted(Some(12), &[103]), &[uid(CT)], sink));
    same(&came, &[&files[2]]);
    let (nothing, came) = collect(|sink| pacs.get(&wanted(Some(77), &[]), &[uid(CT)], sink));
    // some PACS say that there is nothing, some that they cannot
    let is_nothing = match &nothing {
        Ok(nothing) => nothing.kept.is_empty(),
        Err(error) => matches!(error, NetError::Status { operation: "C-GET", .. }),
    };
    assert!(came.is_empty() && is_nothing, "{nothing:?}");
    moves(&orthanc, &files);
    compressed(&orthanc);
    web(&orthanc, &files);
}

fn moves(orthanc: &Orthanc, files: &[Vec<u8>]) {
    let receiver = ReceiverOptions::new(AeTitle::new(OURS).unwrap());
    let destination = MoveDestination::listen(&format!("127.0.0.1:{}", orthanc.move_port), receiver).unwrap();
    let pacs = pacs(orthanc.port);
    for _ in 0..2 {
        let (retrieved, came) = collect(|sink| pacs.fetch_by_move(&wanted(Some(11), &[]), &destination, sink));
        assert_eq!(retrieved.unwrap().kept.len(), 2);
        same(&came, &[&files[0], &files[1]]);
    }
    moves_at_once(orthanc.port, &destination, files);
    let mut unknown = options(orthanc.port);
    unknown.calling = AeTitle::new("NOBODY").unwrap();
    let destination = MoveDestination::listen("127.0.0.1:0", ReceiverOptions::new(unknown.calling.clone())).unwrap();
    let (refused, _) = collect(|sink| Pacs::new(unknown).fetch_by_move(&wanted(Some(11), &[]), &destination, sink));
    assert!(
        matches!(
            refused,
            Err(NetError::Status {
                operation: "C-MOVE",
                ..
            })
        ),
        "{refused:?}"
    );
}

/// Both series of the study, some times, with one title and one port.
fn moves_at_once(port: u16, destination: &MoveDestination, files: &[Vec<u8>]) {
    let mut options = options(port);
    options.slots = Slots::new(2);
    let pacs = Pacs::new(options);
    let fetch = |series, files: &[&Vec<u8>]| {
        for _ in 0..3 {
            let (retrieved, came) = collect(|sink| pacs.fetch_by_move(&wanted(Some(series), &[]), destination, sink));
            let retrieved = retrieved.unwrap();
            assert!(retrieved.strange.is_empty(), "{retrieved:?}");
            same(&came, files);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| fetch(11, &[&files[0], &files[1]]));
        scope.spawn(|| fetch(12, &[&files[2]]));
    });
}

/// Takes a request to move.
fn moving(listener: &TcpListener) -> (Association, Message) {
    let (tcp, _) = listener.accept().unwrap();
    let (mut association, _) = Association::accept(tcp, None, options(0).deadlines, |request| {
        let mut contexts = contexts::accept(&request.contexts);
        for (answer, proposed) in contexts.iter_mut().zip(&request.contexts) {
            // other services than storage too
            (answer.result, answer.transfer_syntax) = (0, proposed.transfer_syntaxes.first().cloned());
        }
        let roles = Vec::new();
        Ok(Acceptance { contexts, roles })
    })
    .unwrap();
    let message = association.expect().unwrap();
    assert_eq!(message.command.field(), Field::MoveRequest);
    association.small_data().unwrap();
    (association, message)
}

fn moved((mut association, message): (Association, Message), count: u16) {
    let mut reply = Dimse::reply(&message.command, Status::SUCCESS);
    reply.set_number(element::COMPLETED, count);
    association.send(message.context, reply, None).unwrap();
    assert!(association.receive().unwrap().is_none(), "released");
}

#[test]
fn moves_at_once_are_told_apart_by_what_comes() {
    let files = study();
    let ours = AeTitle::new(OURS).unwrap();
    let destination = MoveDestination::listen("127.0.0.1:0", ReceiverOptions::new(ours.clone())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut asking = options(listener.local_addr().unwrap().port());
    asking.slots = Slots::new(2);
    let asking = Pacs::new(asking);
    let mut sending = options(destination.address().port());
    (sending.calling, sending.called) = (sending.called, ours);
    let fetch = |series| collect(|sink| asking.fetch_by_move(&wanted(Some(series), &[]), &destination, sink));
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(11));
        let one = moving(&listener);
        let second = scope.spawn(|| fetch(12));
        let two = moving(&listener);
        let id = |(_, message): &(Association, Message)| message.command.number(element::MESSAGE_ID).unwrap();
        assert_ne!(id(&one), id(&two));
        // over one association, in turns, and without a word of who asked
        let mut storing = Pacs::new(sending).storing();
        for file in [&files[2], &files[0]] {
            storing.store(&mut file.as_slice()).unwrap();
        }
        assert!(storing.store(&mut other().as_slice()).is_err(), "nobody's");
        moved(two, 1);
        // this PACS has its last word before its last instance
        moved(one, 2);
        storing.store(&mut files[1].as_slice()).unwrap();
        let done = (first.join().unwrap(), second.join().unwrap());
        // nobody asks any more
        assert!(storing.store(&mut files[1].as_slice()).is_err());
        done
    });
    for ((retrieved, came), files) in [(first, &files[..2]), (second, &files[2..])] {
        let retrieved = retrieved.unwrap();
        assert!(retrieved.strange.is_empty(), "{retrieved:?}");
        same(&came, &files.iter().collect::<Vec<_>>());
    }
}

/// Takes so many instances, and then wants no more.
fn some_of<E>(
    most: usize,
    retrieve: impl FnOnce(&mut dicom_net::Sink<'_>) -> Result<Retrieved, E>,
) -> (Result<Retrieved, E>, usize) {
    let mut count = 0;
    let retrieved = retrieve(&mut |_: &Arrival, file: &mut dyn Read| {
        if count == most {
            return Taken::Stop;
        }
        count += 1;
        std::io::copy(file, &mut std::io::sink()).unwrap();
        Taken::Kept
    });
    (retrieved, count)
}

#[test]
fn a_pacs_is_told_to_end_what_nobody_wants_any_more() {
    let files = study();
    let fake = FakePacs::start(&files, &other(), Fault::None);
    let (retrieved, count) = some_of(1, |sink| pacs(fake.port).get(&wanted(None, &[]), &[uid(CT)], sink));
    assert!(matches!(retrieved, Err(NetError::Stopped { .. })), "{retrieved:?}");
    assert_eq!((count, fake.cancels.load(Ordering::Acquire)), (1, 1));
    let (retrieved, count) = some_of(9, |sink| pacs(fake.port).get(&wanted(None, &[]), &[uid(CT)], sink));
    assert_eq!(retrieved.unwrap().kept.len(), count);
    assert_eq!(
        (count, fake.cancels.load(Ordering::Acquire)),
        (3, 1),
        "not without need"
    );

    // one that says nothing yet, and from the outside
    let quiet = FakePacs::start(&files, &other(), Fault::Waits);
    let asking = pacs(quiet.port);
    let retrieved = std::thread::scope(|scope| {
        let getting = scope.spawn(|| some_of(9, |sink| asking.get(&wanted(None, &[]), &[uid(CT)], sink)).0);
        while quiet.gets.load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        asking.clone().stop();
        getting.join().unwrap()
    });
    assert!(matches!(retrieved, Err(NetError::Stopped { .. })), "{retrieved:?}");
    assert_eq!(quiet.cancels.load(Ordering::Acquire), 1);
    let (again, _) = some_of(9, |sink| asking.get(&wanted(None, &[]), &[uid(CT)], sink));
    assert!(matches!(again, Err(NetError::Stopped { .. })), "{again:?}");
    assert_eq!(quiet.gets.load(Ordering::Acquire), 1, "none begins any more");
}

#[test]
fn a_move_that_nobody_wants_any_more_is_told_to_end() {
    let files = study();
    let ours = AeTitle::new(OURS).unwrap();
    let destination = MoveDestination::listen("127.0.0.1:0", ReceiverOptions::new(ours.clone())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let asking = pacs(listener.local_addr().unwrap().port());
    let mut sending = options(destination.address().port());
    (sending.calling, sending.called) = (sending.called, ours);
    let (retrieved, count) = std::thread::scope(|scope| {
        let fetch = || some_of(1, |sink| asking.fetch_by_move(&wanted(None, &[]), &destination, sink));
        let fetching = scope.spawn(fetch);
        let (mut association, message) = moving(&listener);
        let mut storing = Pacs::new(sending).storing();
        storing.store(&mut files[0].as_slice()).unwrap();
        assert!(storing.store(&mut files[1].as_slice()).is_err());
        let cancel = association.expect().unwrap().command;
        assert_eq!(cancel.field(), Field::CancelRequest);
        assert_eq!(
            cancel.answers(message.command.number(element::MESSAGE_ID).unwrap()),
            Ok(())
        );
        association.reply(&message, Status::CANCELLED).unwrap();
        assert!(association.receive().unwrap().is_none(), "released");
        fetching.join().unwrap()
    });
    assert!(matches!(retrieved, Err(NetError::Stopped { .. })), "{retrieved:?}");
    assert_eq!(count, 1);
}

/// An instance in JPEG lossless comes as it is stored, by every way.
fn compressed(orthanc: &Orthanc) {
    let plain = ct_slice(&INVENTED, [3, 31, 301, 9]);
    let (folder, paths) = folder_of(&[plain]);
    let packed = folder.path().join("packed.dcm");
    let made = Command::new("dcmcjpeg")
        .arg("+e1")
        .arg(&paths[0])
        .arg(&packed)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let packed = std::fs::read(packed).unwrap();
    let (meta, _) = data_set(&packed);
    assert_ne!(meta.transfer_syntax, uid(syntax::EXPLICIT_LITTLE));
    orthanc.load(std::slice::from_ref(&packed));
    let study = Wanted {
        study: numbered(3),
        series: Some(numbered(31)),
        instances: Vec::new(),
    };
    let pacs = pacs(orthanc.port);
    let (_, came) = collect(|sink| pacs.get(&study, std::slice::from_ref(&meta.class), sink));
    same(&came, &[&packed]);
    let (_, came) = collect(|sink| service(orthanc).retrieve(&study, sink));
    same(&came, &[&packed]);
}

fn service(orthanc: &Orthanc) -> Dicomweb {
    let deadlines = options(0).deadlines;
    let options = WebOptions {
        url: orthanc.dicomweb(),
        tls: None,
        authorization: None,
        deadlines,
        slots: single(),
    };
    Dicomweb::new(options).unwrap()
}

fn web(orthanc: &Orthanc, files: &[Vec<u8>]) {
    let web = service(orthanc);
    web.echo().unwrap();
    let found = web.instances(&wanted(None, &[])).unwrap();
    assert_eq!(found, pacs(orthanc.port).instances(&wanted(None, &[])).unwrap());
    assert_eq!(web.instances(&wanted(Some(77), &[])).unwrap(), []);
    let (retrieved, came) = collect(|sink| web.retrieve(&wanted(None, &[]), sink));
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    same(&came, &files.iter().collect::<Vec<_>>());
    let (retrieved, came) = collect(|sink| web.retrieve(&wanted(Some(11), &[102, 777]), sink));
    assert_eq!(retrieved.unwrap().failed, [numbered(777)]);
    same(&came, &[&files[1]]);
    let new = ct_slice(&INVENTED, [4, 41, 401, 9]);
    web.store(&numbered(4), &new).unwrap();
    let stored = Wanted {
        study: numbered(4),
        series: None,
        instances: Vec::new(),
    };
    let (_, came) = collect(|sink| web.retrieve(&stored, sink));
    same(&came, &[&new]);
    assert!(web.store(&numbered(4), b"no DICOM").is_err());
}

#[test]
fn peer_dcmqrscp_gets_and_moves() {
    let server = Dcmqrscp::start();
    let files = study();
    load(server.port, &files);
    let pacs = pacs(server.port);
    pacs.echo().unwrap();
    assert_eq!(pacs.instances(&wanted(None, &[])).unwrap().len(), 3);
    let (retrieved, came) = collect(|sink| pacs.get(&wanted(Some(11), &[]), &[uid(CT)], sink));
    assert_eq!(retrieved.unwrap().kept.len(), 2);
    same(&came, &[&files[0], &files[1]]);
    let address = format!("127.0.0.1:{}", server.move_port);
    let destination = MoveDestination::listen(&address, ReceiverOptions::new(AeTitle::new(OURS).unwrap())).unwrap();
    let (retrieved, came) = collect(|sink| pacs.fetch_by_move(&wanted(None, &[]), &destination, sink));
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    same(&came, &files.iter().collect::<Vec<_>>());
    moves_at_once(server.port, &destination, &files);
    ends_on_request(&server, &destination);
}

/// It stops sending when it is told to, and says so.
fn ends_on_request(server: &Dcmqrscp, destination: &MoveDestination) {
    let slices: Vec<Vec<u8>> = (0..20)
        .map(|image| ct_slice(&INVENTED, [6, 61, 600 + image, 9]))
        .collect();
    load(server.port, &slices);
    let wanted = Wanted {
        study: numbered(6),
        series: Some(numbered(61)),
        instances: Vec::new(),
    };
    let pacs = pacs(server.port);
    let sent_until_released = |before: usize| {
        wait_for("the release", || {
            server.log()[before..].contains("I: Association Release")
        });
        server.log()[before..].matches("Store SCU RQ").count()
    };
    let before = server.log().len();
    let (retrieved, _) = some_of(2, |sink| pacs.get(&wanted, &[uid(CT)], sink));
    assert!(matches!(retrieved, Err(NetError::Stopped { .. })), "{retrieved:?}");
    assert_eq!(sent_until_released(before), 3);
    assert!(server.log()[before..].contains("Received C-Cancel RQ"));
    let before = server.log().len();
    let (retrieved, _) = some_of(2, |sink| pacs.fetch_by_move(&wanted, destination, sink));
    assert!(matches!(retrieved, Err(NetError::Stopped { .. })), "{retrieved:?}");
    let sent = sent_until_released(before);
    assert!(sent < slices.len(), "{sent}");
}

#[test]
fn peer_dcmsend_is_received_and_strangers_are_refused() {
    let mut receiving = ReceiverOptions::new(AeTitle::new(OURS).unwrap());
    receiving.callers = vec![AeTitle::new("FRIEND").unwrap()];
    let receiver = Receiver::listen("127.0.0.1:0", receiving).unwrap();
    let port = receiver.address().port().to_string();
    let stop = receiver.stop();
    let files = study();
    let (_folder, paths) = folder_of(&files);
    let came = Mutex::new(Came::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            receiver.receive(&stop, &|arrival, file| {
                let mut bytes = Vec::new();
                if file.read_to_end(&mut bytes).is_err() {
                    return Taken::Dropped;
                }
                came.lock()
                    .unwrap()
                    .insert(arrival.identity.instance.clone(), (arrival.clone(), bytes));
                Taken::Kept
            });
        });
        let send = |ours: &str, theirs: &str| {
            let mut send = Command::new("dcmsend");
            send.args(["--aetitle", theirs, "--call", ours, "127.0.0.1", &port])
                .args(&paths);
            send.output().unwrap()
        };
        let sent = send(OURS, "FRIEND");
        let echoed = Command::new("echoscu")
            .args(["-aet", "FRIEND", "-aec", OURS, "127.0.0.1", &port])
            .output();
        let strangers = [send(OURS, "STRANGER"), send("ANOTHER", "FRIEND")];
        stop.now();
        assert!(sent.status.success(), "{sent:?}");
        assert!(echoed.unwrap().status.success());
        assert!(strangers.iter().all(|sent| !sent.status.success()), "{strangers:?}");
    });
    same(&came.into_inner().unwrap(), &files.iter().collect::<Vec<_>>());
}

fn from_fake(fault: Fault) -> (Result<Retrieved, NetError>, Came) {
    let fake = FakePacs::start(&study(), &other(), fault);
    let mut options = options(fake.port);
    options.deadlines = Deadlines {
        association: Duration::from_millis(500),
        unit: Duration::from_millis(500),
        ..options.deadlines
    };
    let pacs = Pacs::new(options);
    collect(|sink| pacs.get(&wanted(None, &[]), &[uid(CT)], sink))
}

#[test]
fn a_pacs_that_does_what_it_should_is_understood() {
    let files = study();
    let (retrieved, came) = from_fake(Fault::None);
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    same(&came, &files.iter().collect::<Vec<_>>());
}

#[test]
fn a_pacs_that_is_down_hangs_refuses_or_speaks_something_else_is_named() {
    let gone = pacs(free_port());
    let error = gone.echo().unwrap_err();
    assert!(matches!(error, NetError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("PACS@127.0.0.1:"), "{error}");
    let failed = |fault| from_fake(fault).0.unwrap_err();
    let hung = failed(Fault::Hang);
    assert!(
        matches!(
            hung,
            NetError::Late {
                waiting: Waiting::Association,
                ..
            }
        ),
        "{hung:?}"
    );
    let refused = failed(Fault::Refuse);
    assert!(
        refused
            .to_string()
            .ends_with("refused the association: it does not know our title"),
        "{refused}"
    );
    assert!(matches!(failed(Fault::NoRole), NetError::NoRole { .. }));
    assert!(matches!(failed(Fault::Nonsense), NetError::Protocol { .. }));
}

#[test]
fn what_came_before_a_connection_broke_or_stalled_is_kept() {
    let files = study();
    for (fault, broke) in [(Fault::DropAt(1), true), (Fault::StallAt(1), false)] {
        let (retrieved, came) = from_fake(fault);
        let error = retrieved.unwrap_err();
        let expected = match error {
            NetError::Closed { .. } => broke,
            NetError::Late {
                waiting: Waiting::Data, ..
            } => !broke,
            _ => false,
        };
        assert!(expected, "{fault:?}: {error:?}");
        same(&came, &[&files[0]]);
    }
}

#[test]
fn another_instance_than_was_asked_for_is_nobodys() {
    let files = study();
    type Expected = fn(&StrangeInstance) -> bool;
    let cases: [(Fault, Expected); 4] = [
        (Fault::OtherAt(1), |strange| {
            matches!(strange, StrangeInstance::NotAsked(_))
        }),
        (Fault::MisnamedAt(1), |strange| {
            matches!(strange, StrangeInstance::Announced(_))
        }),
        (Fault::BrokenAt(1), |strange| {
            matches!(strange, StrangeInstance::Broken(_))
        }),
        (Fault::TwiceAt(1), |strange| matches!(strange, StrangeInstance::Twice)),
    ];
    for (fault, is_expected) in cases {
        let (retrieved, came) = from_fake(fault);
        let retrieved = retrieved.unwrap();
        assert_eq!(retrieved.strange.len(), 1, "{fault:?}: {retrieved:?}");
        assert!(is_expected(&retrieved.strange[0].1), "{fault:?}: {retrieved:?}");
        let expected = if fault == Fault::TwiceAt(1) {
            vec![&files[0], &files[1], &files[2]]
        } else {
            vec![&files[0], &files[2]]
        };
        same(&came, &expected);
    }
    let (retrieved, came) = from_fake(Fault::FailAt(0));
    assert_eq!(retrieved.unwrap().failed, [numbered(101)]);
    same(&came, &[&files[1], &files[2]]);
}

#[test]
fn there_are_never_more_associations_than_allowed() {
    let fake = FakePacs::start(&study(), &other(), Fault::None);
    let mut options = options(fake.port);
    options.slots = single();
    let pacs = Pacs::new(options);
    // counted on our side: the other sees the end of one only after ours
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fetch = || {
        let retrieved = pacs.get(
            &wanted(None, &[]),
            &[uid(CT)],
            &mut |_: &Arrival, file: &mut dyn Read| {
                most.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                let read = std::io::copy(file, &mut std::io::sink());
                std::thread::sleep(Duration::from_millis(2));
                now.fetch_sub(1, Ordering::AcqRel);
                read.map_or(Taken::Dropped, |_| Taken::Kept)
            },
        );
        assert_eq!(retrieved.unwrap().kept.len(), 3);
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(fetch))));
    assert_eq!(most.load(Ordering::Acquire), 1);
}

#[test]
fn an_instance_that_nobody_reads_does_not_stop_the_others() {
    let fake = FakePacs::start(&study(), &other(), Fault::None);
    let mut seen = 0;
    let retrieved = pacs(fake.port).get(&wanted(None, &[]), &[uid(CT)], &mut |_: &Arrival, _: &mut dyn Read| {
        seen += 1;
        if seen == 1 { Taken::Dropped } else { Taken::Kept }
    });
    let retrieved = retrieved.unwrap();
    assert_eq!((seen, retrieved.kept.len()), (3, 2));
    assert_eq!(retrieved.failed, [numbered(101)]);
    let stopped = pacs(fake.port).get(&wanted(None, &[]), &[uid(CT)], &mut |_: &Arrival, _: &mut dyn Read| {
        Taken::Stop
    });
    assert!(matches!(stopped, Err(NetError::Stopped { .. })), "{stopped:?}");
}

#[test]
fn shared_slots_are_given_back() {
    let slots = Arc::new(single());
    let fake = FakePacs::start(&study(), &other(), Fault::Refuse);
    for _ in 0..3 {
        let mut options = options(fake.port);
        options.slots = (*slots).clone();
        options.deadlines.whole = Duration::from_secs(30);
        assert!(matches!(Pacs::new(options).echo(), Err(NetError::Refused { .. })));
    }
}

/// A DICOMweb service that says to each request what it is told to: status, body and what it waits before.
struct Canned {
    port: u16,
}

type Says = dyn Fn(&str, &str) -> (u16, String) + Send + Sync;

impl Canned {
    /// `says` gets the first line and the value of `Authorization`.
    fn start(says: Box<Says>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let _ = Self::converse(tcp, &says);
            }
        });
        Self { port }
    }

    fn converse(tcp: std::net::TcpStream, says: &Says) -> std::io::Result<()> {
        use std::io::{BufRead as _, Write as _};
        let mut reader = std::io::BufReader::new(tcp);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line != "\r\n" {
                head.push(line);
                continue;
            }
            let value = |name: &str| {
                let found = head.iter().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                });
                found.unwrap_or_default()
            };
            let length: u64 = value("content-length").parse().unwrap_or(0);
            std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink())?;
            let (status, body) = says(&head[0], &value("authorization"));
            let kind = "application/dicom+json";
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
            reader.get_mut().write_all(answer.as_bytes())?;
            head.clear();
        }
    }

    fn service(&self, authorization: Option<dicom_net::Authorization>) -> Dicomweb {
        let options = WebOptions {
            url: format!("http://127.0.0.1:{}/dicom-web", self.port),
            tls: None,
            authorization,
            deadlines: options(0).deadlines,
            slots: single(),
        };
        Dicomweb::new(options).unwrap()
    }
}

#[test]
fn an_instance_is_stored_when_the_service_says_so() {
    let file = ct_slice(&INVENTED, [4, 41, 401, 9]);
    let (meta, _) = data_set(&file);
    let list = |name: &str| {
        let item = format!("{{\"00081155\":{{\"vr\":\"UI\",\"Value\":[\"{}\"]}}}}", meta.instance);
        format!("{{\"{name}\":{{\"vr\":\"SQ\",\"Value\":[{item}]}}}}")
    };
    for (status, body, is_stored) in [
        (200, list("00081199"), true),
        // stored, with a warning
        (202, list("00081199"), true),
        (200, String::new(), true),
        // it says 200 and means none of it
        (200, list("00081198"), false),
        (202, list("00081198"), false),
        (202, String::new(), false),
        (200, "{}".to_owned(), false),
        (409, list("00081198"), false),
    ] {
        let said = body.clone();
        let canned = Canned::start(Box::new(move |_, _| (status, said.clone())));
        let stored = canned.service(None).store(&numbered(4), &file);
        assert_eq!(stored.is_ok(), is_stored, "{status} {body}: {stored:?}");
    }
}

#[test]
fn a_service_may_give_fewer_instances_than_it_was_asked_for() {
    let canned = Canned::start(Box::new(|line, _| {
        let offset = line.split("offset=").nth(1).unwrap_or("0");
        let offset: usize = offset.split(['&', ' ']).next().unwrap_or("0").parse().unwrap_or(0);
        let one = |number: usize| {
            format!(
                "{{\"0020000E\":{{\"vr\":\"UI\",\"Value\":[\"2.25.11\"]}},\
                 \"00080018\":{{\"vr\":\"UI\",\"Value\":[\"2.25.{number}\"]}}}}"
            )
        };
        let page: Vec<String> = (101..106).skip(offset).take(2).map(one).collect();
        (200, format!("[{}]", page.join(",")))
    }));
    let found = canned.service(None).instances(&wanted(None, &[])).unwrap();
    assert_eq!(found.len(), 5);
}

#[test]
fn nothing_is_missing_where_there_is_no_service() {
    let nowhere = Canned::start(Box::new(|_, _| (404, String::new())));
    let service = nowhere.service(None);
    assert!(service.echo().is_err());
    let (retrieved, _) = collect(|sink| service.retrieve(&wanted(Some(11), &[101]), sink));
    assert!(retrieved.is_err());
    let empty = Canned::start(Box::new(|line, _| match line.contains("/studies?") {
        true => (200, "[]".to_owned()),
        false => (404, String::new()),
    }));
    let service = empty.service(None);
    service.echo().unwrap();
    let (retrieved, _) = collect(|sink| service.retrieve(&wanted(Some(11), &[101]), sink));
    assert_eq!(retrieved.unwrap().failed, [numbered(101)]);
}

#[test]
fn a_renewed_token_is_used_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first").unwrap();
    let good = Arc::new(Mutex::new("Bearer first"));
    let wanted_token = Arc::clone(&good);
    let canned = Canned::start(Box::new(move |_, token| match token == *wanted_token.lock().unwrap() {
        true => (200, "[]".to_owned()),
        false => (401, String::new()),
    }));
    let token = path.clone();
    let service = canned.service(Some(Arc::new(move || {
        Ok(format!("Bearer {}", std::fs::read_to_string(&token)?))
    })));
    service.echo().unwrap();
    *good.lock().unwrap() = "Bearer second";
    assert!(service.echo().is_err());
    std::fs::write(&path, "second").unwrap();
    service.echo().unwrap();
}

#[test]
fn a_fault_in_one_association_closes_no_other() {
    let mut receiving = ReceiverOptions::new(AeTitle::new(THEIRS).unwrap());
    receiving.most_associations = 1;
    let receiver = Receiver::listen("127.0.0.1:0", receiving).unwrap();
    let port = receiver.address().port();
    let stop = receiver.stop();
    let file = ct_slice(&INVENTED, [4, 41, 401, 9]);
    let faults = Mutex::new(1);
    let (first, second) = std::thread::scope(|scope| {
        scope.spawn(|| {
            receiver.receive(&stop, &|_, file| {
                let _ = std::io::copy(file, &mut std::io::sink());
                let mut faults = faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if *faults > 0 {
                    *faults -= 1;
                    panic!("a fault on purpose");
                }
                Taken::Kept
            });
        });
        let store = || pacs(port).store(&mut file.as_slice());
        let first = store();
        // the place of the one that failed becomes free in a moment
        let second = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            store().is_ok()
        });
        stop.now();
        (first, second)
    });
    assert!(first.is_err());
    assert!(second);
}
