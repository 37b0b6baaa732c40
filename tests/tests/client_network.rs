//! The library's client against key stores over TLS: real ones as processes, and ones that misbehave on command.
//!
//! What each fault is called, how long it is waited for at most, and that nothing goes on behind a verb's back. Times
//! are set so that a wait that should not be would last a minute: the tests look at what happened, not at clocks, but
//! for that one generous bound.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grid_identity::Credential;
use hydra_core::config::defaults::Defaults;
use hydra_core::config::{ClientConfig, CrlPolicy, StoreEndpoint, Timeouts, Trust, TrustAnchors};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{
    FetchError, Hydra, Purpose, RegisterError, RegisterOptions, RemoveError, RepairError, RepairOptions, Verdict,
};
use hydra_core::keystore::wire::State;
use hydra_tests::fake::{FakeStore, Way};
use tempfile::TempDir;
use testgrid::pki::{Authority, Issued, Pki, PkiOptions, ProxyOptions, Validity};
use testgrid::{Grid, GridOptions};

/// No wait of the client that should not be is shorter than this.
const MINUTE: Duration = Duration::from_secs(60);
/// Far longer than anything here takes, far shorter than [`MINUTE`].
const WELL_BEFORE: Duration = Duration::from_secs(40);

/// One fabric for all tests of this file: keys take a while to make.
static FABRIC: LazyLock<(TempDir, Pki)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    (folder, pki)
});

fn pki() -> &'static Pki {
    &FABRIC.1
}

fn key_id() -> KeyId {
    KeyId::new("/network/key").unwrap()
}

fn fake(number: usize) -> FakeStore {
    let (certificate, key) = pki().host(&format!("keystore{number}"));
    FakeStore::start(&format!("store-{number}"), &certificate, &key, &pki().certificates())
}

fn three() -> Vec<FakeStore> {
    (1..=3).map(fake).collect()
}

fn patient() -> Timeouts {
    Timeouts {
        connect: MINUTE,
        request: MINUTE,
        total: MINUTE,
        hedge: Duration::from_millis(50),
    }
}

fn config(urls: &[String], timeouts: Timeouts) -> ClientConfig {
    let endpoint = |(place, url): (usize, &String)| StoreEndpoint {
        url: url.clone(),
        name: format!("number-{}", place + 1),
        id: None,
    };
    ClientConfig {
        stores: urls.iter().enumerate().map(endpoint).collect(),
        threshold: 2,
        min_threshold: 2,
        trust: Trust {
            anchors: TrustAnchors::Directory(pki().certificates()),
            crl: CrlPolicy::Require,
        },
        timeouts,
        defaults: Defaults::default(),
        sources: Vec::new(),
    }
}

fn urls(stores: &[FakeStore]) -> Vec<String> {
    stores.iter().map(FakeStore::url).collect()
}

fn client_as(user: &str, urls: &[String], timeouts: Timeouts) -> Hydra {
    let credential = Credential::from_file(&pki().working_proxy(user), None).unwrap();
    Hydra::new(config(urls, timeouts), &credential).unwrap()
}

fn client(stores: &[FakeStore], timeouts: Timeouts) -> Hydra {
    client_as("alice", &urls(stores), timeouts)
}

/// Runs a verb; it must not have waited for what nobody should wait for.
fn promptly<T>(verb: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(verb);
    assert!(began.elapsed() < WELL_BEFORE, "waited {:?}", began.elapsed());
    outcome
}

fn register(hydra: &Hydra) -> hydra_core::keystore::hydra::Registered {
    promptly(hydra.register(&key_id(), RegisterOptions::default())).unwrap()
}

/// What the status says is wrong with the third store.
fn fault_of_third(hydra: &Hydra) -> String {
    let status = promptly(hydra.status(&key_id())).unwrap();
    let third = status.stores.into_iter().nth(2).unwrap();
    third.held.unwrap_err().reason
}

// --- real stores ------------------------------------------------------------------------------------------------------

#[test]
fn real_stores_register_fetch_tell_and_remove() {
    let folder = tempfile::tempdir().unwrap();
    let options = GridOptions {
        pki: Some(pki().directory().to_owned()),
        commands: false,
        ..GridOptions::default()
    };
    let mut grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let alice = client_as("alice", &grid.urls(), patient());
    let bob = client_as("bob", &grid.urls(), patient());

    for check in promptly(alice.check()) {
        let (about, who) = check.answer.unwrap();
        assert_eq!(about.protocols, [1]);
        assert_eq!(Some(who.dn.as_str()), pki().user_dn("alice"));
    }

    let registered = register(&alice);
    assert_eq!(registered.confirmed, ["number-1", "number-2", "number-3"]);
    let again = promptly(alice.register(&key_id(), RegisterOptions::default())).unwrap_err();
    assert!(
        matches!(again, RegisterError::Exists { unfinished: false, .. }),
        "{again:?}"
    );
    let key = promptly(alice.fetch(&key_id(), Purpose::Seal)).unwrap();
    assert!(key.verified && key.faults.is_empty(), "{:?}", key.faults);
    let status = promptly(alice.status(&key_id())).unwrap();
    assert_eq!(status.verdict, Verdict::Registered);
    assert!(
        promptly(alice.repair(&key_id(), RepairOptions::default()))
            .unwrap()
            .whole
    );
    let own = promptly(alice.list_own("key")).unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].registration_id, registered.registration_id);

    // Whoever has no right learns what is told of a key id that is free.
    let opened = Purpose::Open(registered.registration_id);
    for refused in [
        promptly(bob.fetch(&key_id(), Purpose::Seal)),
        promptly(bob.fetch(&key_id(), opened)),
    ] {
        let Err(FetchError::NotFound { faults, .. }) = refused else {
            panic!("bob was not refused");
        };
        // Two of three decide; the third may not have been waited for.
        let known = |reason: &str| {
            reason == "has no such key, or does not show it to you" || reason.starts_with("had not answered after ")
        };
        assert!(faults.iter().all(|fault| known(&fault.reason)), "{faults:?}");
    }
    assert_eq!(promptly(bob.status(&key_id())).unwrap().verdict, Verdict::Unknown);
    assert!(matches!(
        promptly(bob.repair(&key_id(), RepairOptions::default())),
        Err(RepairError::NotFound { .. })
    ));
    assert!(matches!(
        promptly(bob.unregister(&key_id(), None)),
        Err(RemoveError::NotFound { .. })
    ));
    assert!(promptly(bob.list_own("key")).unwrap().is_empty());

    // One of three killed: reading goes on, on connections that were open and on new ones.
    grid.kill(2).unwrap();
    for hydra in [&alice, &client_as("alice", &grid.urls(), patient())] {
        let read = promptly(hydra.fetch(&key_id(), opened)).unwrap();
        assert_eq!(read.key.expose(), key.key.expose());
    }
    let missing = promptly(alice.unregister(&key_id(), None)).unwrap_err();
    let RemoveError::Incomplete {
        removed: 2,
        readable: false,
        ref faults,
        ..
    } = missing
    else {
        panic!("{missing:?}");
    };
    assert_eq!(faults[0].store, "number-2");
    assert_eq!(faults[0].reason, "refused the connection");
    grid.start(2).unwrap();
    let alice = client_as("alice", &grid.urls(), patient());
    assert_eq!(
        promptly(alice.unregister(&key_id(), None)).unwrap(),
        registered.registration_id
    );
    let gone = promptly(alice.fetch(&key_id(), opened)).map(|_| ()).unwrap_err();
    assert!(matches!(gone, FetchError::Removed { .. }), "{gone:?}");
    assert_eq!(promptly(alice.status(&key_id())).unwrap().verdict, Verdict::Removed);
}

#[test]
fn a_halted_real_store_is_waited_for_no_longer_than_the_hedge_delay() {
    let folder = tempfile::tempdir().unwrap();
    let options = GridOptions {
        pki: Some(pki().directory().to_owned()),
        commands: false,
        ..GridOptions::default()
    };
    let mut grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let hydra = client_as("alice", &grid.urls(), patient());
    let opened = Purpose::Open(register(&hydra).registration_id);
    grid.stop(1).unwrap();
    for _ in 0..6 {
        promptly(hydra.fetch(&key_id(), opened)).unwrap();
        promptly(client_as("alice", &grid.urls(), patient()).fetch(&key_id(), opened)).unwrap();
    }
    grid.cont(1).unwrap();
}

// --- what is waited for -----------------------------------------------------------------------------------------------

#[test]
fn a_store_that_refuses_or_fails_is_not_waited_for() {
    let mut stores = three();
    // Where another store were asked only after the hedge delay, this would take a minute.
    let slow_hedge = Timeouts {
        hedge: MINUTE,
        ..patient()
    };
    let opened = Purpose::Open(register(&client(&stores, patient())).registration_id);
    for way in [Way::ServerError, Way::Garbage, Way::Page, Way::Flood, Way::Close] {
        stores[0].behave(way);
        // Whichever order is drawn.
        for _ in 0..4 {
            promptly(client(&stores, slow_hedge).fetch(&key_id(), opened)).unwrap();
        }
    }
    stores[0].kill();
    for _ in 0..4 {
        promptly(client(&stores, slow_hedge).fetch(&key_id(), opened)).unwrap();
    }
}

#[test]
fn a_hanging_store_costs_the_hedge_delay_and_its_request_is_dropped() {
    let stores = three();
    let hydra = client(&stores, patient());
    let opened = Purpose::Open(register(&hydra).registration_id);
    stores[1].behave(Way::HangOn("read"));
    // A fresh client asks in random order: at some time it asks the hanging one, and goes on without it.
    while stores[1].requests("read") == 0 {
        promptly(client(&stores, patient()).fetch(&key_id(), opened)).unwrap();
    }
    stores[1].wait_for_abandoned();
    for way in [Way::HangAfterAccept, Way::HangMidAnswer] {
        stores[1].behave(way);
        for _ in 0..4 {
            promptly(client(&stores, patient()).fetch(&key_id(), opened)).unwrap();
        }
    }
}

#[test]
fn a_verb_that_is_given_up_leaves_no_request_behind() {
    let stores = three();
    let hydra = client(&stores, patient());
    register(&hydra);
    for store in &stores {
        store.behave(Way::HangOn("read"));
    }
    promptly(async {
        let one = key_id();
        let fetch = hydra.fetch(&one, Purpose::Seal);
        assert!(tokio::time::timeout(Duration::from_millis(300), fetch).await.is_err());
    });
    let asked = stores.iter().filter(|store| store.requests("read") > 0);
    asked.for_each(FakeStore::wait_for_abandoned);
}

#[test]
fn each_deadline_is_kept_and_named() {
    let stores = three();
    let hydra = client(&stores, patient());
    register(&hydra);
    let short = Duration::from_millis(400);
    stores[2].behave(Way::HangAfterAccept);
    let connect = Timeouts {
        connect: short,
        ..patient()
    };
    assert_eq!(
        fault_of_third(&client(&stores, connect)),
        "made no connection in 400 ms"
    );
    let request = Timeouts {
        request: short,
        ..patient()
    };
    for way in [Way::HangOn("describe"), Way::HangMidAnswer] {
        stores[2].behave(way);
        assert_eq!(
            fault_of_third(&client(&stores, request)),
            "gave no answer in 400 ms",
            "{way:?}"
        );
    }
    stores[2].behave(Way::HangOn("describe"));
    let total = Timeouts {
        total: short,
        ..patient()
    };
    assert_eq!(fault_of_third(&client(&stores, total)), "gave no answer in time");
    // Nobody answers: reading ends at its deadline and says what there is.
    stores.iter().for_each(|store| store.behave(Way::HangOn("read")));
    let error = promptly(client(&stores, total).fetch(&key_id(), Purpose::Seal))
        .map(|_| ())
        .unwrap_err();
    let FetchError::TooFew {
        have: 0,
        need: 2,
        faults,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(faults.len(), 3);
    assert!(
        faults
            .iter()
            .all(|fault| fault.reason.starts_with("had not answered after "))
    );
}

// --- what faults are called -------------------------------------------------------------------------------------------

#[test]
fn every_fault_of_a_store_has_its_words() {
    let mut stores = three();
    let hydra = || client(&stores, patient());
    register(&hydra());
    for (way, words) in [
        (Way::ServerError, "answered 500"),
        (Way::Garbage, "answered something that is no JSON"),
        (Way::Page, "answered text/html; charset=utf-8 instead of JSON"),
        (Way::Flood, "answered more than 4 MiB"),
        (Way::Close, "closed the connection"),
        (Way::OtherId, "claims the id `store-1`, as number-1 does"),
    ] {
        stores[2].behave(way);
        assert_eq!(fault_of_third(&hydra()), words, "{way:?}");
    }
    stores[2].kill();
    assert_eq!(fault_of_third(&client(&stores, patient())), "refused the connection");
}

#[test]
fn wrong_shares_are_named_by_their_store_and_only_by_it() {
    let stores = three();
    let opened = Purpose::Open(register(&client(&stores, patient())).registration_id);
    for way in [Way::FlippedBit, Way::OtherShare] {
        stores[2].behave(way);
        let mut named = 0;
        for _ in 0..12 {
            let key = promptly(client(&stores, patient()).fetch(&key_id(), opened)).unwrap();
            for fault in &key.faults {
                assert_eq!(
                    (fault.store.as_str(), fault.reason.as_str()),
                    ("number-3", "gave a wrong share")
                );
                named += 1;
            }
        }
        assert!(named > 0, "{way:?} was never noticed in twelve readings");
    }
    stores[2].behave(Way::LoweredThreshold);
    for _ in 0..6 {
        let key = promptly(client(&stores, patient()).fetch(&key_id(), opened)).unwrap();
        let words = "offers shares of which 1 join, fewer than the 2 that the configuration asks for";
        assert!(
            key.faults
                .iter()
                .all(|fault| fault.store == "number-3" && fault.reason == words),
            "{:?}",
            key.faults
        );
    }
}

/// Where three shares of five join, two stores may lie: the key comes back, both are found, and nobody else is named.
#[test]
fn two_liars_of_five_are_found_both_and_nobody_else_is_named() {
    let stores: Vec<FakeStore> = (1..=5).map(fake).collect();
    // the honest ones must all be heard before anybody can be named for certain
    let waiting = Timeouts {
        hedge: MINUTE,
        ..patient()
    };
    let client = || {
        let mut config = config(&urls(&stores), waiting);
        (config.threshold, config.min_threshold) = (3, 3);
        let credential = Credential::from_file(&pki().working_proxy("alice"), None).unwrap();
        Hydra::new(config, &credential).unwrap()
    };
    let registered = register(&client());
    let opened = Purpose::Open(registered.registration_id);
    let right = promptly(client().fetch(&key_id(), opened)).unwrap();
    for (one, other, all_give_shares) in [
        (Way::FlippedBit, Way::OtherShare, true),
        (Way::OtherShare, Way::FlippedBit, true),
        // of four shares one is off: it could as well be that two others lie
        (Way::OtherShare, Way::ServerError, false),
        (Way::FlippedBit, Way::ShareIndex(9), false),
    ] {
        stores[1].behave(one);
        stores[4].behave(other);
        let mut named = std::collections::BTreeSet::new();
        for _ in 0..12 {
            let key = promptly(client().fetch(&key_id(), opened)).unwrap();
            assert!(key.key.expose() == right.key.expose(), "{one:?} {other:?}");
            named.extend(key.faults.into_iter().map(|fault| fault.store));
        }
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let expected: &[&str] = if all_give_shares {
            &["number-2", "number-5"]
        } else {
            &["number-5"]
        };
        assert_eq!(named, expected, "{one:?} {other:?}");
    }
}

#[test]
fn what_is_wrong_before_the_first_word_is_named_too() {
    let two: Vec<FakeStore> = (1..=2).map(fake).collect();
    let third = |url: String| {
        let mut all = urls(&two);
        all.push(url);
        fault_of_third(&client_as("alice", &all, patient()))
    };
    let folder = tempfile::tempdir().unwrap();
    let serve = |name: &str, issued: &Issued| {
        let (certificate, key) = (
            folder.path().join(format!("{name}.crt")),
            folder.path().join(format!("{name}.key")),
        );
        write_private(&certificate, &issued.certificate_pem());
        write_private(&key, &issued.key().pem());
        FakeStore::start("store-3", &certificate, &key, &pki().certificates())
    };
    let authority = pki().authority().unwrap();

    let elsewhere = serve(
        "elsewhere",
        &authority.host("/DC=org/CN=elsewhere", &["elsewhere.example"]).unwrap(),
    );
    let words = third(elsewhere.url());
    assert!(
        words.starts_with("has a certificate that cannot be trusted: "),
        "{words}"
    );
    assert!(words.contains("elsewhere") || words.contains("127.0.0.1"), "{words}");

    let stranger = Authority::new("/DC=org/DC=stranger/CN=CA").unwrap();
    let unknown = serve(
        "unknown",
        &stranger.host("/DC=org/DC=stranger/CN=ks", &["127.0.0.1"]).unwrap(),
    );
    let words = third(unknown.url());
    assert!(
        words.starts_with("has a certificate that cannot be trusted: "),
        "{words}"
    );

    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = plain.accept().unwrap();
        let _ = socket.read(&mut [0; 64]);
        let _ = socket.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    });
    let words = third(format!("https://{address}"));
    assert!(words.starts_with("does not speak TLS as it should: "), "{words}");
    let _ = TcpStream::connect(address);
    thread.join().unwrap();
}

fn write_private(path: &PathBuf, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_credential_that_the_stores_refuse_is_blamed_and_not_the_stores() {
    let stores = three();
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::new("/DC=org/DC=stranger/CN=CA").unwrap();
    let unknown = stranger.user("/DC=org/DC=stranger/CN=mallory").unwrap();
    let now = Validity::lasting(Duration::ZERO);
    let past = Validity {
        from: now.from - 7200,
        to: now.to - 3600,
    };
    let alice = pki().authority().unwrap().user("/DC=org/DC=hydragrid/CN=once").unwrap();
    let expired = alice
        .proxy(&ProxyOptions {
            validity: past,
            ..ProxyOptions::default()
        })
        .unwrap();
    for (name, issued, alert) in [
        ("unknown", &unknown, "UnknownCA"),
        ("expired", &expired, "CertificateExpired"),
    ] {
        let path = folder.path().join(name);
        write_private(&path, &issued.credential_pem());
        let credential = Credential::from_file(&path, None).unwrap();
        let hydra = Hydra::new(config(&urls(&stores), patient()), &credential).unwrap();
        assert_eq!(
            fault_of_third(&hydra),
            format!("refused the credential (TLS alert {alert})"),
            "{name}"
        );
    }
}

#[test]
fn twins_and_false_ids_are_refused_and_pins_settle_who_is_who() {
    let stores = three();
    register(&client(&stores, patient()));
    stores[2].behave(Way::OtherId);
    // Without pins nobody can tell which of the two is the true one; with them it is the pinned one.
    let error =
        promptly(client(&stores, patient()).register(&KeyId::new("/network/two").unwrap(), RegisterOptions::default()));
    assert!(error.is_err(), "{error:?}");
    let mut pinned = config(&urls(&stores), patient());
    for (place, store) in pinned.stores.iter_mut().enumerate() {
        store.id = Some(format!("store-{}", place + 1).parse().unwrap());
    }
    let credential = Credential::from_file(&pki().proxy("alice-plain"), None).unwrap();
    let hydra = Hydra::new(pinned.clone(), &credential).unwrap();
    assert_eq!(
        fault_of_third(&hydra),
        "claims the id `store-1`, but `store-3` is pinned"
    );
    let status = promptly(hydra.status(&key_id())).unwrap();
    assert!(status.stores[0].held.is_ok());
    pinned.stores[1].id = pinned.stores[0].id.clone();
    let Err(error) = Hydra::new(pinned, &credential) else {
        panic!("two stores pinned to one id were taken");
    };
    assert_eq!(error.to_string(), "two stores are pinned to the id `store-1`");
}

// --- registering in bad weather ---------------------------------------------------------------------------------------

#[test]
fn a_registration_that_misses_a_store_is_undone_at_the_others() {
    let stores = three();
    for way in [Way::ServerError, Way::HangOn("create"), Way::LoseAnswerTo("create")] {
        stores[2].behave(way);
        let hydra = client(
            &stores,
            Timeouts {
                request: Duration::from_millis(400),
                ..patient()
            },
        );
        // The ids are known, so that it is `create` that fails.
        let error = promptly(hydra.register(&key_id(), RegisterOptions::default())).unwrap_err();
        let RegisterError::TooFewStores { need: 3, faults, .. } = error else {
            panic!("{way:?}: {error:?}");
        };
        assert_eq!(faults.len(), 1, "{way:?}");
        assert_eq!(faults[0].store, "number-3");
        assert_eq!(stores[0].state(key_id().as_str()), None, "{way:?}");
        assert_eq!(stores[1].state(key_id().as_str()), None, "{way:?}");
    }
}

#[test]
fn a_registration_confirmed_in_part_is_unfinished_and_repair_finishes_it() {
    let stores = three();
    stores[2].behave(Way::HangOn("confirm"));
    let hydra = client(
        &stores,
        Timeouts {
            request: Duration::from_millis(300),
            ..patient()
        },
    );
    let error = promptly(hydra.register(&key_id(), RegisterOptions::default())).unwrap_err();
    let RegisterError::Unfinished {
        confirmed: 2,
        total: 3,
        ref faults,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(faults[0].reason, "gave no answer in 300 ms");
    assert_eq!(stores[2].requests("confirm"), 3, "a silent store is asked three times");
    assert_eq!(stores[2].state(key_id().as_str()), Some(State::Pending));
    stores[2].behave(Way::Honest);
    let report = promptly(hydra.repair(&key_id(), RepairOptions::default())).unwrap();
    assert!(report.whole, "{report:?}");
    assert_eq!(stores[2].state(key_id().as_str()), Some(State::Confirmed));
    assert_eq!(promptly(hydra.status(&key_id())).unwrap().verdict, Verdict::Registered);
}

#[test]
fn a_registration_that_nobody_confirmed_is_taken_back_by_a_repair() {
    let stores = three();
    stores.iter().for_each(|store| store.behave(Way::HangOn("confirm")));
    let hydra = client(&stores, patient());
    promptly(async {
        let one = key_id();
        let register = hydra.register(&one, RegisterOptions::default());
        tokio::select! {
            outcome = register => panic!("{outcome:?}"),
            () = async {
                while stores.iter().any(|store| store.requests("confirm") == 0) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            } => {}
        }
    });
    stores.iter().for_each(|store| store.behave(Way::Honest));
    assert_eq!(promptly(hydra.status(&key_id())).unwrap().verdict, Verdict::Pending);
    let young = promptly(hydra.repair(&key_id(), RepairOptions::default())).unwrap_err();
    assert!(matches!(young, RepairError::NotConfirmed { .. }), "{young:?}");
    let report = promptly(hydra.repair(
        &key_id(),
        RepairOptions {
            now: true,
            ..RepairOptions::default()
        },
    ))
    .unwrap();
    assert!(report.free && report.done.len() == 3, "{report:?}");
    register(&hydra);
}
