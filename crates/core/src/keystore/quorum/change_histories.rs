//! Random histories of permission changes, in memory: several clients at once against the stores' own rules, messages
//! lost, doubled, late and out of order, clients that die. Everything follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Action, Event, Heard, Machine, Message, Place, RequestNo, Said, Silence, Stores};
use super::Change;
use crate::ids::{ChangeId, CheckValue, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::agreement::{ChangeError, ChangeOptions, PermissionsChanged, grants_more};
use crate::keystore::store::{self, Context, Held, Reply, StoredEntry, StoredSharing};
use crate::keystore::wire::{CIPHER_EDS1, Constants, ItemResult, Sharing, State};
use crate::permissions::{AclEntry, Caller, PermissionRecord, Permissions};

const ALICE: &str = "/CN=alice";
const M: u8 = 2;
const TOTAL: Duration = Duration::from_secs(15);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

type Edit = Box<dyn Fn(&PermissionRecord) -> PermissionRecord>;

fn key_id() -> KeyId {
    KeyId::new("/myvo/k").unwrap()
}

fn context(place: Place) -> Context {
    Context {
        caller: Caller {
            dn: ALICE.into(),
            fqans: Vec::new(),
            administrator: false,
        },
        may_create: false,
        recovery: false,
        at_limit: false,
        acl_limit: 100,
        store: id(place),
        now: 1,
    }
}

fn id(place: Place) -> StoreId {
    format!("s{place}").parse().unwrap()
}

fn set(text: &str) -> Permissions {
    text.parse().unwrap()
}

/// Bob has `g` and eve `l`, by the first record.
fn first() -> PermissionRecord {
    let line = |principal: &str, letters| AclEntry {
        principal: principal.into(),
        permissions: set(letters),
    };
    PermissionRecord {
        acl: vec![line("bob", "g"), line("eve", "l")],
        ..PermissionRecord::new(ALICE, None, ChangeId([1; 16]))
    }
}

fn edit(kind: usize) -> Edit {
    let line = |record: &PermissionRecord, principal: &str, letters: &str| {
        let mut record = record.clone();
        record.acl.retain(|line| line.principal != principal);
        record.acl.push(AclEntry {
            principal: principal.into(),
            permissions: set(letters),
        });
        record
    };
    match kind {
        // a grant, a revocation, both, and nothing at all
        0 => Box::new(move |record| line(record, "carol", "g")),
        1 => Box::new(move |record| line(record, "bob", "")),
        2 => Box::new(move |record| line(&line(record, "bob", ""), "carol", "g")),
        3 => Box::new(PermissionRecord::clone),
        // the right to change goes, with an answer lost it must still be known as done
        _ => Box::new(move |record| PermissionRecord {
            user: set("drwlgs"),
            ..line(record, "bob", "")
        }),
    }
}

struct Client {
    machine: Change<Edit>,
    outcome: Option<Result<PermissionsChanged, ChangeError>>,
    dead: bool,
}

enum Flight {
    /// `late`: nobody waits for the answer any more.
    Request {
        client: usize,
        request: RequestNo,
        place: Place,
        message: Message,
        late: bool,
    },
    Answer {
        client: usize,
        request: RequestNo,
        result: Result<Heard, Silence>,
    },
}

struct World {
    random: Random,
    stores: Vec<Held>,
    clients: Vec<Client>,
    flights: Vec<Flight>,
    now: Duration,
    /// How often things go wrong, in percent.
    faults: u64,
    /// What was answered done at all stores.
    promised: Vec<PermissionRecord>,
    seed: u64,
}

impl World {
    fn new(seed: u64, n: usize, faults: u64) -> Self {
        let stores: Vec<StoreId> = (0..n).map(id).collect();
        let held = |_| Held {
            entry: Some(StoredEntry {
                constants: Constants {
                    registration_id: RegistrationId([9; 16]),
                    cipher: CIPHER_EDS1.into(),
                    key_bits: 256,
                    iv: String::new(),
                },
                state: State::Confirmed,
                restored: false,
                record: first(),
                placed_by: ALICE.into(),
                created: 0,
                changed: 0,
                sharings: vec![StoredSharing {
                    sharing: Sharing {
                        generation: 1,
                        m: M,
                        n: u8::try_from(n).unwrap(),
                        stores: stores.clone(),
                        check: Some(CheckValue([1; 32])),
                    },
                    state: State::Confirmed,
                    share: None,
                }],
            }),
            ..Held::default()
        };
        Self {
            random: Random(seed),
            stores: (0..n).map(held).collect(),
            clients: Vec::new(),
            flights: Vec::new(),
            now: Duration::ZERO,
            faults,
            promised: Vec::new(),
            seed,
        }
    }

    fn record(&self, place: Place) -> &PermissionRecord {
        &self.stores[place].entry.as_ref().unwrap().record
    }

    fn begin(&mut self, kind: usize, all_or_nothing: bool) {
        let names = (0..self.stores.len()).map(|place| (format!("s{place}"), None));
        let number = u8::try_from(2 * self.clients.len() + 2).unwrap();
        // change ids decide between two at once, so they are drawn, too
        let mut drawn = |last| {
            let mut bytes = [number + last; 16];
            bytes[0] = self.random.next().to_le_bytes()[0];
            ChangeId(bytes)
        };
        let ids = [drawn(0), drawn(1)];
        let options = ChangeOptions {
            all_or_nothing,
            ..ChangeOptions::default()
        };
        let deadline = self.now + TOTAL;
        let mut machine = Change::new(Stores::new(names), deadline, key_id(), edit(kind), M, options, ids);
        let mut actions = Vec::new();
        assert!(machine.start(&mut actions).is_none());
        self.clients.push(Client {
            machine,
            outcome: None,
            dead: false,
        });
        self.act(self.clients.len() - 1, actions);
    }

    fn act(&mut self, client: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(request, place, message) => self.flights.push(Flight::Request {
                    client,
                    request,
                    place,
                    message,
                    late: false,
                }),
                Action::Cancel(cancelled) => {
                    for flight in &mut self.flights {
                        if let Flight::Request {
                            client: of,
                            request,
                            late,
                            ..
                        } = flight
                            && (*of, *request) == (client, cancelled)
                        {
                            *late = true;
                        }
                    }
                }
            }
        }
    }

    fn tell(&mut self, client: usize, event: Event) {
        let of = &mut self.clients[client];
        if of.dead || of.outcome.is_some() {
            return;
        }
        let mut actions = Vec::new();
        let outcome = of.machine.handle(self.now, event, &mut actions);
        if let Some(outcome) = outcome {
            self.trace(|| format!("client {client} ends: {outcome:?}"));
            if let Ok(changed) = &outcome {
                self.promised.push(changed.record.clone());
            }
            self.clients[client].outcome = Some(outcome);
        }
        self.act(client, actions);
        self.check();
    }

    /// What is promised holds: at every store that record or one that says the same, or a later one.
    fn check(&self) {
        for promised in &self.promised {
            for place in 0..self.stores.len() {
                let held = self.record(place);
                assert!(
                    held.version > promised.version
                        || held.version == promised.version && held.says_the_same_as(promised),
                    "seed {}: s{place} holds {held:?}, promised was {promised:?}",
                    self.seed
                );
            }
        }
    }

    fn ask(&mut self, place: Place, message: Message) -> Said {
        fn of<T>(result: ItemResult<T>, said: impl FnOnce(T) -> Said) -> Said {
            match result {
                ItemResult::Done(answer) => said(answer),
                ItemResult::Problem { problem } => Said::Problem(Box::new(problem)),
            }
        }
        let message = match message {
            Message::Describe(describe) => store::Message::Describe(describe),
            Message::Change(change) => store::Message::Change(*change),
            other => unreachable!("{other:?}"),
        };
        let before = self.record(place).clone();
        let sent = format!("{message:?}");
        let reply = store::apply(&mut self.stores[place], &context(place), message);
        let after = self.record(place);
        self.trace(|| format!("s{place}: {sent} makes {after:?}"));
        assert!(
            after == &before || after.version >= before.version,
            "seed {}: s{place} went back from {before:?} to {after:?}",
            self.seed
        );
        self.check();
        match reply {
            Reply::Changed(outcome) => of(outcome.result, |answer| Said::Changed(Box::new(answer))),
            Reply::Describe(outcome) => of(outcome.result, |answer| Said::Describe(Box::new(answer))),
            other => unreachable!("{other:?}"),
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let at = self.random.below(self.flights.len());
        match self.flights.swap_remove(at) {
            Flight::Request {
                client,
                request,
                place,
                message,
                late,
            } => {
                let fault = self.random.chance(self.faults);
                let kind = self.random.below(4);
                if fault && kind == 0 && !late {
                    // the client gives up waiting; the message arrives some time, or never
                    let result = Err(silence());
                    self.flights.push(Flight::Answer {
                        client,
                        request,
                        result,
                    });
                    if self.random.chance(50) {
                        self.flights.push(Flight::Request {
                            client,
                            request,
                            place,
                            message,
                            late: true,
                        });
                    }
                    return;
                }
                if fault && kind == 1 {
                    let message = message.again().unwrap();
                    self.flights.push(Flight::Request {
                        client,
                        request,
                        place,
                        message,
                        late: true,
                    });
                }
                let said = self.ask(place, message);
                if !late {
                    let lost = fault && kind == 2;
                    let heard = Heard { store: id(place), said };
                    let result = if lost { Err(silence()) } else { Ok(heard) };
                    self.flights.push(Flight::Answer {
                        client,
                        request,
                        result,
                    });
                }
            }
            Flight::Answer {
                client,
                request,
                result,
            } => {
                if self.random.chance(self.faults / 8) {
                    self.clients[client].dead = true;
                }
                self.tell(client, Event::Heard(request, result));
            }
        }
    }

    /// Until everybody has ended and nothing is under way, late messages included.
    fn run(&mut self) {
        for _ in 0..20_000 {
            while !self.flights.is_empty() {
                self.step();
            }
            let waiting = |client: &Client| client.outcome.is_none() && !client.dead;
            let Some(client) = self.clients.iter().position(waiting) else {
                return;
            };
            let at = self.clients[client].machine.wake_at().unwrap_or(self.now);
            self.now = self.now.max(at);
            self.tell(client, Event::Woken);
        }
        panic!("seed {}: a client does not end", self.seed);
    }

    /// `HYDRA_SEED=17 cargo test -p hydra-eds-core change::histories -- --nocapture` tells one history as it goes.
    fn trace(&self, what: impl Fn() -> String) {
        if std::env::var("HYDRA_SEED").is_ok_and(|seed| seed.parse() == Ok(self.seed)) {
            eprintln!("{:?} {}", self.now, what());
        }
    }

    fn outcome(&self, client: usize) -> Option<&Result<PermissionsChanged, ChangeError>> {
        self.clients[client].outcome.as_ref()
    }

    fn records(&self) -> BTreeMap<Place, &PermissionRecord> {
        (0..self.stores.len())
            .map(|place| (place, self.record(place)))
            .collect()
    }
}

fn silence() -> Silence {
    Silence::new("gave no answer")
}

fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("HYDRA_SEED").ok().and_then(|text| text.parse().ok()) {
        return seed..seed + 1;
    }
    let count = std::env::var("HYDRA_HISTORIES").ok().and_then(|text| text.parse().ok());
    0..count.unwrap_or(1_500)
}

#[test]
fn what_was_answered_done_holds_whatever_others_do_at_the_same_time() {
    let (mut done, mut conflicts, mut in_part) = (0, 0, 0);
    for seed in seeds() {
        let n = 1 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, n, [0, 10, 40][usize::try_from(seed % 3).unwrap()]);
        for _ in 0..2 + seed % 3 {
            let kind = world.random.below(4);
            let strict = world.random.chance(30);
            world.begin(kind, strict);
            for _ in 0..world.random.below(12) {
                if !world.flights.is_empty() {
                    world.step();
                }
            }
        }
        world.run();
        for client in 0..world.clients.len() {
            match world.outcome(client) {
                Some(Ok(_)) => done += 1,
                Some(Err(ChangeError::Conflict { .. })) => conflicts += 1,
                Some(Err(ChangeError::InPart { .. })) => in_part += 1,
                _ => {}
            }
        }
    }
    // the histories are of all kinds
    assert!(
        done > 100 && conflicts > 100 && in_part > 50,
        "{done} {conflicts} {in_part}"
    );
}

#[test]
fn of_two_at_once_one_wins_and_the_other_is_told() {
    let mut lost = 0;
    for seed in seeds() {
        let n = 1 + usize::try_from(seed % 6).unwrap();
        let mut world = World::new(seed, n, 0);
        world.begin(0, false);
        world.begin(1, false);
        world.run();
        let ended = [0, 1].map(|client| world.outcome(client).unwrap());
        let won = ended.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(won >= 1, "seed {seed}, {n} stores: {ended:?}");
        for outcome in ended {
            if let Err(error) = outcome {
                let told = matches!(error, ChangeError::Conflict { .. } | ChangeError::Disagree { .. });
                assert!(told, "seed {seed}: {error:?}");
                lost += 1;
            }
        }
        let records = world.records();
        assert!(
            records.values().all(|record| record.same_as(records[&0])),
            "seed {seed}: {records:?}"
        );
    }
    assert!(lost > 100);
}

#[test]
fn the_same_change_once_more_finishes_what_broke_off() {
    let mut broken = 0;
    for seed in seeds() {
        let n = 1 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, n, 40);
        let kind = world.random.below(3);
        let strict = world.random.chance(50);
        world.begin(kind, strict);
        world.run();
        broken += usize::from(!matches!(world.outcome(0), Some(Ok(_))));
        world.faults = 0;
        world.begin(kind, strict);
        world.run();
        let outcome = world.outcome(1).unwrap();
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}, {:?}", world.records());
        let wanted = edit(kind)(&first());
        for record in world.records().values() {
            assert!(record.says_the_same_as(&wanted), "seed {seed}: {record:?}");
        }
    }
    assert!(broken > 100);
}

#[test]
fn what_is_said_to_be_in_force_is() {
    let (mut granted, mut revoked, mut undone) = (0, 0, 0);
    for seed in seeds() {
        let n = 1 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, n, 40);
        let kind = [0, 1, 2, 4][world.random.below(4)];
        let strict = world.random.chance(50);
        world.begin(kind, strict);
        world.run();
        let new = edit(kind)(&first());
        let records = world.records();
        let with = |record: &PermissionRecord| records.values().filter(|held| held.says_the_same_as(record)).count();
        match world.outcome(0) {
            Some(Ok(_)) => assert_eq!(with(&new), n),
            Some(Err(ChangeError::InPart { in_force, .. })) => {
                if in_force.grants && in_force.grant_holds {
                    assert!(with(&new) >= usize::from(M).min(n), "seed {seed}");
                    granted += 1;
                }
                if in_force.revokes && in_force.revocation_holds {
                    assert!(with(&first()) < usize::from(M).min(n), "seed {seed}: {records:?}");
                    revoked += 1;
                }
            }
            Some(Err(ChangeError::Undone { left, .. })) => {
                for (place, held) in &records {
                    let told = left.contains(&format!("s{place}"));
                    assert!(
                        told || !grants_more(&first(), held),
                        "seed {seed}: s{place} holds {held:?}"
                    );
                }
                undone += 1;
            }
            Some(Err(ChangeError::TooFew { .. } | ChangeError::NotFound { .. })) => assert_eq!(with(&first()), n),
            // dead, and with one message lost an answer may be lost for good
            other => assert!(other.is_none() || kind == 4, "seed {seed}: {other:?}"),
        }
    }
    assert!(
        granted > 20 && revoked > 20 && undone > 5,
        "{granted} {revoked} {undone}"
    );
}
