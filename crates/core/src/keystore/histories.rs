//! Random histories of the key protocol, in memory: the machines of [`super::quorum`] against the very rules of
//! [`super::store`], under fake time.
//!
//! Messages are lost, doubled, delayed and reordered; clients die; stores go down, are restored from an earlier state, or
//! lie. What must hold is checked by name ([`World::violate`]); a rule taken away must be found out. Everything follows
//! from the seed. `docs/src/protocol-walkthrough.md` lists the invariants.

mod scenarios;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::outcome::{FetchError, FetchedKey, LocalError, Purpose, RegisterError, Registered, RepairOptions};
use super::quorum::{
    Action, Dealt, Event, Heard, Machine, Message, Place, Read, ReadOptions, Register, Remove, Repair, RequestNo, Rule,
    Said, Silence, Stores,
};
use super::sharing::{self, Split};
use super::store::{self, Context, Held, Reply, StoredEntry, StoredSharing};
use super::wire::{
    About, CIPHER_EDS1, Confirm, Constants, Create, DropBelow, Entry, HeldSharing, ItemResult, Limits, OfRegistration,
    Put, ShareData, State, Status, Tombstone, VERSION,
};
use crate::ids::{ChangeId, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::permissions::{Caller, PermissionRecord};
use crate::secret::SecretBytes;

const TOTAL: Duration = Duration::from_secs(15);
const REQUEST: Duration = Duration::from_secs(5);
const EVIL: [u8; 32] = [0xee; 32];

/// SplitMix64: small, seeded, and good enough to choose what happens next.
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

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.next() % (most - least + 1))
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[3])
    }

    fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|last| order.swap(last, self.below(last + 1)));
        order
    }
}

/// What the rules that are not in the machines can be switched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Off {
    Machine(Rule),
    /// A registration that is tried again keeps its registration id.
    FreshRegistration,
}

fn key_id() -> KeyId {
    KeyId::new("/myvo/k").unwrap()
}

fn constants(registration_id: RegistrationId) -> Constants {
    Constants {
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
    }
}

fn record() -> PermissionRecord {
    PermissionRecord::new("/CN=alice", None, ChangeId([1; 16]))
}

fn dealt(registration_id: RegistrationId, split: Split) -> Dealt {
    let create = |share| Create {
        key_id: key_id(),
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
        sharing: split.sharing.clone(),
        share,
        permissions: record(),
    };
    Dealt {
        registration_id,
        creates: split.shares.into_iter().map(create).collect(),
        sharing: split.sharing,
    }
}

fn context_of(dn: &str, place: Place, now: u64) -> Context {
    Context {
        caller: Caller {
            dn: dn.into(),
            fqans: Vec::new(),
            administrator: false,
        },
        may_create: true,
        recovery: false,
        at_limit: false,
        acl_limit: 100,
        store: World::id(place),
        now,
    }
}

// --- stores -----------------------------------------------------------------------------------------------------------

struct SimStore {
    held: Held,
    up: bool,
    liar: bool,
    snapshots: Vec<Held>,
    /// When it was last restored from an earlier state.
    rolled: Option<Duration>,
}

fn copy_held(held: &Held) -> Held {
    let sharing = |held: &StoredSharing| StoredSharing {
        sharing: held.sharing.clone(),
        state: held.state,
        share: held.share.as_ref().map(super::wire::Share::copy),
    };
    let entry = |entry: &StoredEntry| StoredEntry {
        constants: entry.constants.clone(),
        state: entry.state,
        restored: entry.restored,
        record: entry.record.clone(),
        placed_by: entry.placed_by.clone(),
        created: entry.created,
        changed: entry.changed,
        sharings: entry.sharings.iter().map(sharing).collect(),
    };
    Held {
        entry: held.entry.as_ref().map(entry),
        tombstones: held.tombstones.clone(),
        stop_marks: held.stop_marks.clone(),
    }
}

fn copy_create(create: &Create) -> Create {
    Create {
        key_id: create.key_id.clone(),
        registration_id: create.registration_id,
        cipher: create.cipher.clone(),
        key_bits: create.key_bits,
        iv: create.iv.clone(),
        sharing: create.sharing.clone(),
        share: create.share.copy(),
        permissions: create.permissions.clone(),
    }
}

/// What travels: the machines' messages, and those of a reshare, which has no machine yet.
enum Sent {
    About,
    Create(Box<Create>),
    Other(Message),
}

impl Sent {
    fn of(message: Message) -> Self {
        match message {
            Message::About => Self::About,
            Message::Create(create) => Self::Create(create),
            other => Self::Other(other),
        }
    }

    fn copy(&self) -> Self {
        match self {
            Self::About => Self::About,
            Self::Create(create) => Self::Create(Box::new(copy_create(create))),
            Self::Other(message) => Self::Other(message.again().unwrap()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::About => "about".into(),
            Self::Create(create) => format!("create {}", create.registration_id),
            Self::Other(message) => format!("{message:?}"),
        }
    }

    /// As the store's rules take it.
    fn for_store(self) -> Option<store::Message> {
        Some(match self {
            Self::About => return None,
            Self::Create(create) => store::Message::Create(*create),
            Self::Other(message) => match message {
                Message::Confirm(confirm) => store::Message::Confirm(confirm),
                Message::Stop(stop) => store::Message::Stop(stop),
                Message::Undo(undo) => store::Message::Undo(undo),
                Message::Remove(remove) => store::Message::Remove(remove),
                Message::Read(read) => store::Message::Read(read),
                Message::Describe(describe) => store::Message::Describe(describe),
                Message::Change(change) => store::Message::Change(*change),
                Message::Put(put) => store::Message::Put(*put),
                Message::Drop(drop) => store::Message::Drop(drop),
                Message::About | Message::Create(_) => return None,
            },
        })
    }
}

fn said(reply: Reply) -> Said {
    fn of<T>(result: ItemResult<T>, said: impl FnOnce(T) -> Said) -> Said {
        match result {
            ItemResult::Done(answer) => said(answer),
            ItemResult::Problem { problem } => Said::Problem(Box::new(problem)),
        }
    }
    match reply {
        Reply::Changed(outcome) => of(outcome.result, |answer| Said::Changed(Box::new(answer))),
        Reply::Read(outcome) => of(outcome.result, Said::Read),
        Reply::Describe(outcome) => of(outcome.result, |answer| Said::Describe(Box::new(answer))),
        Reply::Permissions(_) => unreachable!("no history asks for permissions"),
    }
}

// --- clients ----------------------------------------------------------------------------------------------------------

/// How a client ended.
enum Ended {
    Registered(Result<Registered, RegisterError>),
    Read(Purpose, Result<FetchedKey, FetchError>),
    Removed(Option<RegistrationId>),
    Repaired,
    Reshared,
}

impl Ended {
    fn name(&self) -> String {
        match self {
            Self::Registered(outcome) => format!("{outcome:?}"),
            Self::Read(purpose, outcome) => {
                let outcome = outcome.as_ref().map(|key| key.constants.registration_id);
                format!("{purpose:?}: {outcome:?}")
            }
            Self::Removed(registration) => format!("removed {registration:?}"),
            Self::Repaired => "repaired".into(),
            Self::Reshared => "reshared".into(),
        }
    }
}

trait Run {
    fn start(&mut self, actions: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended>;
    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended>;
    fn wake_at(&self) -> Option<Duration>;
    fn repairs(&self) -> bool {
        false
    }
}

struct Product<M, F>(M, F);

/// A repair: it may remove only what somebody asked to remove.
struct Repairing(Repair);

fn sends(actions: Vec<Action>, to: &mut Vec<(RequestNo, Place, Sent)>) {
    for action in actions {
        if let Action::Send(request, place, message) = action {
            to.push((request, place, Sent::of(message)));
        }
    }
}

impl<M: Machine, F: Fn(M::Outcome) -> Ended> Run for Product<M, F> {
    fn start(&mut self, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.start(&mut actions);
        sends(actions, to);
        outcome.map(&self.1)
    }

    fn handle(&mut self, now: Duration, event: Event, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.handle(now, event, &mut actions);
        sends(actions, to);
        outcome.map(&self.1)
    }

    fn wake_at(&self) -> Option<Duration> {
        self.0.wake_at()
    }
}

impl Run for Repairing {
    fn start(&mut self, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.start(&mut actions);
        sends(actions, to);
        outcome.map(|_| Ended::Repaired)
    }

    fn handle(&mut self, now: Duration, event: Event, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.handle(now, event, &mut actions);
        sends(actions, to);
        outcome.map(|_| Ended::Repaired)
    }

    fn wake_at(&self) -> Option<Duration> {
        self.0.wake_at()
    }

    fn repairs(&self) -> bool {
        true
    }
}

/// A reshare as the protocol has it: put pending at all, confirm at all, drop below at all; any refusal stops it.
struct Reshare {
    n: usize,
    split: Option<Split>,
    registration: RegistrationId,
    sharing: super::wire::Sharing,
    phase: u8,
    next: RequestNo,
    waiting: BTreeSet<RequestNo>,
    good: usize,
}

impl Reshare {
    fn phase(&mut self, to: &mut Vec<(RequestNo, Place, Sent)>) {
        let mut shares = self.split.take().map(|split| split.shares.into_iter());
        for place in 0..self.n {
            let (key_id, registration_id, sharing) = (key_id(), self.registration, self.sharing.clone());
            let sent = match self.phase {
                0 => Sent::Other(Message::Put(Box::new(Put {
                    key_id,
                    registration_id,
                    cipher: CIPHER_EDS1.into(),
                    key_bits: 256,
                    iv: String::new(),
                    sharing,
                    share: shares.as_mut().and_then(Iterator::next).unwrap(),
                    state: State::Pending,
                    permissions: record(),
                }))),
                1 => Sent::Other(Message::Confirm(Confirm {
                    key_id,
                    registration_id,
                    sharing,
                    force: false,
                })),
                _ => Sent::Other(Message::Drop(DropBelow {
                    key_id,
                    registration_id,
                    below: sharing,
                })),
            };
            self.next += 1;
            self.waiting.insert(self.next);
            to.push((self.next, place, sent));
        }
        self.good = 0;
    }
}

impl Run for Reshare {
    fn start(&mut self, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        self.phase(to);
        None
    }

    fn handle(&mut self, _: Duration, event: Event, to: &mut Vec<(RequestNo, Place, Sent)>) -> Option<Ended> {
        let Event::Heard(request, result) = event else {
            return None;
        };
        if !self.waiting.remove(&request) {
            return None;
        }
        let ok = result.is_ok_and(|heard| matches!(heard.said, Said::Changed(changed) if changed.status == Status::Ok));
        self.good += usize::from(ok);
        if !self.waiting.is_empty() {
            return None;
        }
        self.phase += 1;
        if self.good < self.n || self.phase == 3 {
            return Some(Ended::Reshared);
        }
        self.phase(to);
        None
    }

    fn wake_at(&self) -> Option<Duration> {
        None
    }
}

struct Client {
    run: Box<dyn Run>,
    began: Duration,
    /// Its messages are not lost and do not take long.
    reliable: bool,
    /// It removes only what somebody asked to remove.
    repairs: bool,
    waiting: BTreeSet<RequestNo>,
    /// Registrations that it drew.
    drawn: Rc<RefCell<Vec<RegistrationId>>>,
    /// The world's count of disturbances when it began.
    disturbed: u64,
}

enum Happening {
    Arrives {
        client: usize,
        request: RequestNo,
        place: Place,
        sent: Sent,
        answered: bool,
    },
    Answer {
        client: usize,
        request: RequestNo,
        result: Result<Heard, Silence>,
    },
    Start,
    Crash,
    UpOrDown,
    Restore,
}

struct World {
    random: Random,
    off: Option<Off>,
    n: usize,
    m: u8,
    now: Duration,
    count: u64,
    stores: Vec<SimStore>,
    queue: BTreeMap<(Duration, u64), Happening>,
    clients: BTreeMap<usize, Client>,
    next_client: usize,
    calm: bool,
    disturbances: u64,
    violations: Vec<String>,
    /// Tells what happens as it does.
    told: bool,
    // the truth
    keys: Rc<RefCell<BTreeMap<RegistrationId, [u8; 32]>>>,
    /// Stores that took a share of it.
    took: BTreeMap<RegistrationId, BTreeSet<Place>>,
    registered: BTreeMap<RegistrationId, Duration>,
    /// Of those, the ones that all n stores confirmed.
    whole: BTreeSet<RegistrationId>,
    failed: BTreeSet<RegistrationId>,
    sealed: BTreeMap<RegistrationId, Duration>,
    removal_asked: BTreeSet<RegistrationId>,
    /// When the removal that was answered done began, and when it ended.
    removed: BTreeMap<RegistrationId, (Duration, Duration)>,
}

impl World {
    fn new(seed: u64, off: Option<Off>) -> Self {
        let mut random = Random(seed);
        let n = [2, 3, 3, 3, 4, 4, 5, 5][random.below(8)];
        let m = if n == 2 {
            1 + random.below(2)
        } else {
            2 + random.below(n - 2)
        };
        let most_liars = (m - 1).min(n - m);
        let liars: BTreeSet<usize> = match random.chance(40) && most_liars > 0 {
            true => random.order(n).into_iter().take(1 + random.below(most_liars)).collect(),
            false => BTreeSet::new(),
        };
        let calm = random.chance(30);
        let stores = (0..n).map(|place| SimStore {
            held: Held::default(),
            up: true,
            liar: liars.contains(&place),
            snapshots: vec![Held::default()],
            rolled: None,
        });
        Self {
            stores: stores.collect(),
            random,
            off,
            n,
            m: u8::try_from(m).unwrap(),
            now: Duration::ZERO,
            count: 0,
            queue: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            calm,
            disturbances: 0,
            violations: Vec::new(),
            told: false,
            keys: Rc::default(),
            took: BTreeMap::new(),
            registered: BTreeMap::new(),
            whole: BTreeSet::new(),
            failed: BTreeSet::new(),
            sealed: BTreeMap::new(),
            removal_asked: BTreeSet::new(),
            removed: BTreeMap::new(),
        }
    }

    fn violate(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn rule(&self) -> Option<Rule> {
        match self.off {
            Some(Off::Machine(rule)) => Some(rule),
            _ => None,
        }
    }

    fn id(place: Place) -> StoreId {
        format!("ks-{place}").parse().unwrap()
    }

    fn ids(&self) -> Vec<StoreId> {
        (0..self.n).map(Self::id).collect()
    }

    fn names(&self) -> Stores {
        Stores::new((0..self.n).map(|place| (place.to_string(), None)))
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    // --- starting clients ---------------------------------------------------------------------------------------------

    fn client(&mut self, run: impl Run + 'static, reliable: bool, drawn: Rc<RefCell<Vec<RegistrationId>>>) {
        self.next_client += 1;
        let number = self.next_client;
        let client = Client {
            repairs: run.repairs(),
            run: Box::new(run),
            began: self.now,
            reliable,
            waiting: BTreeSet::new(),
            drawn,
            disturbed: self.disturbances,
        };
        self.clients.insert(number, client);
        self.step(number, None);
    }

    fn start_register(&mut self, degraded: bool) {
        let drawn: Rc<RefCell<Vec<RegistrationId>>> = Rc::default();
        let (list, keys, m, off) = (Rc::clone(&drawn), Rc::clone(&self.keys), self.m, self.off);
        let mut random = Random(self.random.next());
        let deal = move |ids: &[StoreId]| -> Result<Dealt, LocalError> {
            let before = list.borrow().first().copied();
            let fresh = RegistrationId(random.bytes());
            let registration_id = before.filter(|_| off == Some(Off::FreshRegistration)).unwrap_or(fresh);
            list.borrow_mut().push(registration_id);
            let key = *keys
                .borrow_mut()
                .entry(registration_id)
                .or_insert_with(|| random.bytes());
            let split = sharing::split_by_r(&key_id(), &constants(registration_id), 1, m, ids, &key, &random.bytes());
            Ok(dealt(registration_id, split))
        };
        let pauses = [200, 400, 800].map(|longest| self.random.ms(50, longest)).to_vec();
        let machine = Register::new(self.names(), TOTAL, key_id(), self.m, degraded, deal)
            .try_again_after(pauses)
            .without(self.rule());
        self.client(Product(machine, Ended::Registered), false, drawn);
    }

    fn start_read(&mut self, purpose: Purpose, reliable: bool) {
        let options = ReadOptions {
            purpose,
            threshold: self.m,
            min_threshold: self.m,
            order: self.random.order(self.n),
            hedge: Duration::from_millis(100),
        };
        let machine = Read::new(self.names(), TOTAL, key_id(), options).without(self.rule());
        let ended = move |outcome| Ended::Read(purpose, outcome);
        self.client(Product(machine, ended), reliable, Rc::default());
    }

    fn start_remove(&mut self, registration: Option<RegistrationId>) {
        let machine = Remove::new(self.names(), TOTAL, key_id(), registration, self.m).without(self.rule());
        self.client(
            Product(machine, |outcome: Result<_, _>| Ended::Removed(outcome.ok())),
            false,
            Rc::default(),
        );
    }

    fn start_repair(&mut self, reliable: bool) {
        let options = RepairOptions {
            now: reliable || self.random.chance(50),
            ..RepairOptions::default()
        };
        let machine = Repair::new(self.names(), TOTAL, key_id(), self.m, options).without(self.rule());
        self.client(Repairing(machine), reliable, Rc::default());
    }

    fn start_reshare(&mut self) {
        let entries = self.stores.iter().filter_map(|store| store.held.entry.as_ref());
        let of_it = |entry: &&StoredEntry| self.registered.contains_key(&entry.constants.registration_id);
        let Some(entry) = entries.into_iter().find(of_it) else {
            return;
        };
        let registration = entry.constants.registration_id;
        let highest = entry
            .sharings
            .iter()
            .map(|held| held.sharing.generation)
            .max()
            .unwrap_or(1);
        let key = self.keys.borrow()[&registration];
        let r = self.random.bytes();
        let (m, ids) = (self.m, self.ids());
        let split = sharing::split_by_r(&key_id(), &constants(registration), highest + 1, m, &ids, &key, &r);
        let run = Reshare {
            n: self.n,
            registration,
            sharing: split.sharing.clone(),
            split: Some(split),
            phase: 0,
            next: 0,
            waiting: BTreeSet::new(),
            good: 0,
        };
        self.client(run, false, Rc::default());
    }

    fn start_something(&mut self) {
        let known: Vec<RegistrationId> = self.registered.keys().copied().collect();
        let some = |random: &mut Random| known.get(random.below(known.len().max(1))).copied();
        match self.random.below(12) {
            0..=2 => {
                let degraded = self.random.chance(50);
                self.start_register(degraded);
            }
            3 | 4 => self.start_read(Purpose::Seal, false),
            5..=7 => {
                if let Some(registration) = some(&mut self.random) {
                    self.start_read(Purpose::Open(registration), true);
                }
            }
            8 => {
                let named = self.random.chance(70);
                let registration = some(&mut self.random).filter(|_| named);
                self.start_remove(registration);
            }
            9 => self.start_repair(false),
            _ => self.start_reshare(),
        }
    }

    // --- running ------------------------------------------------------------------------------------------------------

    /// One step of a client: its start, or an event.
    fn step(&mut self, number: usize, event: Option<Event>) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let mut sent = Vec::new();
        let now = self.now - client.began;
        let ended = match event {
            None => client.run.start(&mut sent),
            Some(event) => client.run.handle(now, event, &mut sent),
        };
        let reliable = client.reliable;
        client.waiting.extend(sent.iter().map(|(request, _, _)| *request));
        for (request, place, message) in sent {
            self.send(number, request, place, message, reliable);
        }
        if self.told
            && let Some(ended) = &ended
        {
            println!("{:?} client {number} ends: {}", self.now, ended.name());
        }
        if let Some(ended) = ended
            && let Some(client) = self.clients.remove(&number)
        {
            self.ended(&client, ended);
        }
    }

    fn send(&mut self, client: usize, request: RequestNo, place: Place, sent: Sent, reliable: bool) {
        if let Sent::Other(Message::Remove(remove)) = &sent {
            let repairs = self.clients.get(&client).is_some_and(|client| client.repairs);
            if !repairs {
                self.removal_asked.insert(remove.registration_id);
            } else if !self.removal_asked.contains(&remove.registration_id) {
                self.violate("a repair removed what nobody asked to remove");
            }
        }
        let timeout = Err(Silence::new("gave no answer in 5 s"));
        let silence = Happening::Answer {
            client,
            request,
            result: timeout,
        };
        self.at(REQUEST, silence);
        let rough = !reliable && !self.calm;
        if rough && self.random.chance(5) {
            return;
        }
        if rough && self.random.chance(6) {
            let again = Happening::Arrives {
                client,
                request,
                place,
                sent: sent.copy(),
                answered: false,
            };
            let after = self.random.ms(1, 12_000);
            self.at(after, again);
        }
        let after = match rough && self.random.chance(8) {
            true => self.random.ms(50, 9_000),
            false => self.random.ms(1, 15),
        };
        let arrives = Happening::Arrives {
            client,
            request,
            place,
            sent,
            answered: true,
        };
        self.at(after, arrives);
    }

    fn arrives(&mut self, client: usize, request: RequestNo, place: Place, sent: Sent, answered: bool) {
        if !self.stores[place].up {
            let refused = Err(Silence::new("refused the connection"));
            if answered {
                let result = refused;
                self.at(
                    Duration::from_millis(1),
                    Happening::Answer {
                        client,
                        request,
                        result,
                    },
                );
            }
            return;
        }
        if self.random.chance(20) {
            let snapshot = copy_held(&self.stores[place].held);
            self.stores[place].snapshots.push(snapshot);
        }
        let created = match &sent {
            Sent::Create(create) => Some(create.registration_id),
            _ => None,
        };
        let what = self.told.then(|| sent.name());
        let said = self.store_says(place, sent);
        if let Some(what) = what {
            println!("{:?} client {client} to store {place}: {what}: {said:?}", self.now);
        }
        if let (Some(registration), Said::Changed(changed)) = (created, &said)
            && changed.status == Status::Ok
        {
            self.took.entry(registration).or_default().insert(place);
        }
        let reliable = self.clients.get(&client).is_some_and(|client| client.reliable);
        let lost = !reliable && !self.calm && self.random.chance(4);
        if answered && !lost {
            let result = Ok(Heard {
                store: Self::id(place),
                said,
            });
            let after = self.random.ms(0, 10);
            self.at(
                after,
                Happening::Answer {
                    client,
                    request,
                    result,
                },
            );
        }
    }

    fn store_says(&mut self, place: Place, sent: Sent) -> Said {
        let context = context_of("/CN=alice", place, self.now.as_secs());
        let Some(message) = sent.for_store() else {
            return Said::About(Box::new(About {
                store: Self::id(place),
                protocols: vec![VERSION],
                version: String::new(),
                restored: false,
                limits: Limits {
                    items: 100,
                    body_bytes: 1 << 20,
                    key_id_bytes: 400,
                    sharings: 4,
                    acl_entries: 100,
                },
            }));
        };
        let honest = said(store::apply(&mut self.stores[place].held, &context, message));
        match self.stores[place].liar {
            true => self.lie(place, honest),
            false => honest,
        }
    }

    fn lie(&mut self, place: Place, honest: Said) -> Said {
        let mode = self.random.below(7);
        match honest {
            Said::Changed(mut changed) => {
                changed.status = Status::Ok;
                Said::Changed(changed)
            }
            Said::Read(mut answer) => {
                let registration = answer.entry.as_ref().map(|entry| entry.constants.registration_id);
                match (mode, &mut answer.entry) {
                    (0, Some(entry)) => entry.sharings.iter_mut().for_each(spoil),
                    (1, entry) => *entry = Some(self.evil(place, registration, 1)),
                    (2, entry) => *entry = Some(self.evil(place, None, self.m)),
                    (3, entry) => *entry = None,
                    (4, _) => answer.removed.extend(registration),
                    (5, Some(entry)) => {
                        entry.state = State::Confirmed;
                        entry.sharings.iter_mut().for_each(|held| held.state = State::Confirmed);
                    }
                    _ => {}
                }
                Said::Read(answer)
            }
            Said::Describe(mut answer) => {
                if let (4 | 5, Some(entry)) = (mode, &answer.entry) {
                    answer.tombstones.push(Tombstone {
                        registration_id: entry.constants.registration_id,
                        by: "/CN=nobody".into(),
                        at: "2026-01-01T00:00:00Z".into(),
                    });
                }
                match (mode, &mut answer.entry) {
                    (0..=2, Some(entry)) => {
                        entry.state = State::Confirmed;
                        entry.sharings.iter_mut().for_each(|held| held.state = State::Confirmed);
                    }
                    (3, entry) => *entry = None,
                    _ => {}
                }
                Said::Describe(answer)
            }
            other => other,
        }
    }

    /// An entry of a key that the liar knows, in a sharing of its own making.
    fn evil(&mut self, place: Place, registration: Option<RegistrationId>, m: u8) -> Entry {
        let constants = constants(registration.unwrap_or(RegistrationId([0xee; 16])));
        let split = sharing::split_by_r(&key_id(), &constants, 1, m, &self.ids(), &EVIL, &[0xee; 32]);
        let share = split.shares.into_iter().nth(place);
        Entry {
            constants,
            state: State::Confirmed,
            sharings: vec![HeldSharing {
                sharing: split.sharing,
                state: State::Confirmed,
                share,
            }],
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives {
                client,
                request,
                place,
                sent,
                answered,
            } => self.arrives(client, request, place, sent, answered),
            Happening::Answer {
                client,
                request,
                result,
            } => {
                let known = self
                    .clients
                    .get_mut(&client)
                    .is_some_and(|client| client.waiting.remove(&request));
                if known {
                    self.step(client, Some(Event::Heard(request, result)));
                }
            }
            Happening::Start => self.start_something(),
            Happening::Crash => {
                let living: Vec<usize> = self.clients.keys().copied().collect();
                if let Some(number) = living.get(self.random.below(living.len().max(1))) {
                    self.clients.remove(number);
                }
            }
            Happening::UpOrDown => {
                self.disturbances += 1;
                let place = self.random.below(self.n);
                let down = self.stores.iter().filter(|store| !store.up).count();
                let may_fall = down + usize::from(self.m) < self.n;
                let store = &mut self.stores[place];
                store.up = !store.up || !may_fall;
            }
            Happening::Restore => {
                self.disturbances += 1;
                let place = self.random.below(self.n);
                let which = self.random.below(self.stores[place].snapshots.len());
                let now = self.now;
                let store = &mut self.stores[place];
                store.held = copy_held(&store.snapshots[which]);
                store.rolled = Some(now);
                if self.told {
                    println!("{now:?} store {place} is restored");
                }
            }
        }
    }

    /// Runs until nothing is left that may happen.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            let wakes = self.clients.iter().filter_map(|(number, client)| {
                let at = client.began + client.run.wake_at()?;
                Some((at.max(self.now), *number))
            });
            let wake = wakes.min();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (wake, next) {
                (Some((at, number)), next) if next.is_none_or(|next| at < next) => {
                    // A machine that is woken early or twice must not mind.
                    self.now = at;
                    self.step(number, Some(Event::Woken));
                }
                (_, Some(_)) => {
                    if let Some(((at, _), happening)) = self.queue.pop_first() {
                        self.now = at;
                        self.happens(happening);
                    }
                }
                _ => return,
            }
        }
        self.violate("a machine never ends");
    }

    // --- what must hold -----------------------------------------------------------------------------------------------

    fn suspects(&self, since: Duration) -> usize {
        let suspect = |store: &&SimStore| store.liar || store.rolled.is_some_and(|rolled| rolled >= since);
        self.stores.iter().filter(suspect).count()
    }

    fn liars(&self) -> bool {
        self.stores.iter().any(|store| store.liar)
    }

    /// At least m stores that took a share of it are honest, up and never were restored. Where not all n confirmed it,
    /// those that did must not all be liars or restored either, or nobody knows that it was ever more than pending.
    fn sound(&self, registration: RegistrationId) -> bool {
        let Some(took) = self.took.get(&registration) else {
            return false;
        };
        let good = |place: &&Place| {
            let store = &self.stores[**place];
            !store.liar && store.up && store.rolled.is_none()
        };
        let m = usize::from(self.m);
        let known = self.whole.contains(&registration) || self.suspects(Duration::ZERO) < m;
        known && took.iter().filter(good).count() >= m
    }

    fn ended(&mut self, client: &Client, ended: Ended) {
        match ended {
            Ended::Registered(outcome) => {
                let drawn = client.drawn.borrow();
                let last = drawn.last().copied();
                let kept = matches!(outcome, Ok(_) | Err(RegisterError::Unfinished { .. }));
                let failed = drawn.iter().filter(|id| !kept || Some(**id) != last);
                self.failed.extend(failed);
                if let (Ok(registered), Some(last)) = (outcome, last) {
                    if registered.missing.is_empty() {
                        self.whole.insert(last);
                    }
                    self.registered.insert(last, self.now);
                }
            }
            Ended::Read(purpose, Ok(key)) => self.read(client, purpose, &key),
            Ended::Read(Purpose::Open(registration), Err(error)) => {
                let since = self.registered.get(&registration).is_some_and(|at| *at < client.began);
                let expected = client.reliable
                    && client.disturbed == self.disturbances
                    && since
                    && !self.removal_asked.contains(&registration)
                    && self.sound(registration);
                if expected {
                    self.violate(format!("a registered key does not open: {error}"));
                }
            }
            Ended::Removed(Some(registration)) => {
                let times = (client.began, self.now);
                self.removed.entry(registration).or_insert(times);
            }
            _ => {}
        }
    }

    fn read(&mut self, client: &Client, purpose: Purpose, key: &FetchedKey) {
        let registration = key.constants.registration_id;
        let right = self
            .keys
            .borrow()
            .get(&registration)
            .is_some_and(|right| right == key.key.expose());
        if !right {
            self.violate("a wrong key was accepted");
        }
        if let Purpose::Open(wanted) = purpose
            && wanted != registration
        {
            self.violate("a file was opened under another registration");
        }
        for fault in &key.faults {
            let place: usize = fault.store.parse().unwrap();
            if fault.reason == "gave a wrong share" && !self.stores[place].liar {
                self.violate("an honest store was named a liar");
            }
        }
        if let Some((began, ended)) = self.removed.get(&registration).copied()
            && ended < client.began
            && self.suspects(began) < usize::from(self.m)
        {
            self.violate("a removed key was read");
        }
        if purpose == Purpose::Seal {
            self.sealed.entry(registration).or_insert(self.now);
            if self.failed.contains(&registration) && !self.liars() {
                self.violate("sealed under a registration that failed");
            }
        }
    }

    fn run(mut self) -> Vec<String> {
        if self.told {
            let liars: Vec<bool> = self.stores.iter().map(|store| store.liar).collect();
            println!("n = {}, m = {}, liars: {liars:?}", self.n, self.m);
        }
        self.start_register(false);
        let (things, span) = (2 + self.random.below(9), [2_000, 8_000, 40_000][self.random.below(3)]);
        for _ in 0..things {
            let after = self.random.ms(0, span);
            self.at(after, Happening::Start);
        }
        if !self.calm {
            for _ in 0..self.random.below(4) {
                let after = self.random.ms(0, span);
                self.at(after, Happening::UpOrDown);
            }
            for _ in 0..self.random.below(3) {
                let after = self.random.ms(0, span);
                self.at(after, Happening::Crash);
            }
        }
        if self.random.chance(40) {
            for _ in 0..=self.random.below(self.n - usize::from(self.m) + 1) {
                let after = self.random.ms(0, span);
                self.at(after, Happening::Restore);
            }
        }
        self.settle();
        // Calm weather: everybody is up, two repairs, then everything that was promised is looked at.
        self.calm = true;
        self.stores.iter_mut().for_each(|store| store.up = true);
        for _ in 0..2 {
            self.start_repair(true);
            self.settle();
        }
        self.last_look();
        self.violations.sort();
        self.violations.dedup();
        self.violations
    }

    fn last_look(&mut self) {
        let standing = self
            .registered
            .keys()
            .filter(|id| !self.removal_asked.contains(id))
            .count();
        if standing > 1 && !self.liars() && self.stores.iter().all(|store| store.rolled.is_none()) {
            self.violate("two registrations of one key id were answered");
        }
        let promised: BTreeSet<RegistrationId> = self.registered.keys().chain(self.sealed.keys()).copied().collect();
        for registration in promised {
            self.registered.entry(registration).or_insert(Duration::ZERO);
            self.start_read(Purpose::Open(registration), true);
            self.settle();
        }
        let removed: Vec<RegistrationId> = self.removed.keys().copied().collect();
        for registration in removed {
            self.start_read(Purpose::Open(registration), true);
            self.settle();
        }
        self.start_read(Purpose::Seal, true);
        self.settle();
    }
}

fn spoil(held: &mut HeldSharing) {
    if let Some(share) = &mut held.share {
        let mut bytes = share.data.0.expose().to_vec();
        bytes[0] ^= 0x55;
        share.data = ShareData(SecretBytes::new(bytes));
    }
}

/// How many histories a normal test run goes through: some seconds on two cores.
const HISTORIES: u64 = 20_000;

/// `HYDRA_HISTORIES` asks for another number, and `HYDRA_WITHOUT` takes a rule away by its name in [`Rule`], to see which
/// history needs it first: the test then fails with its seed. `HYDRA_SEED` asks for one history, told as it goes.
#[test]
fn no_history_breaks_an_invariant() {
    let asked = |name| std::env::var(name).ok();
    let count = asked("HYDRA_HISTORIES")
        .and_then(|count| count.parse().ok())
        .unwrap_or(HISTORIES);
    let off = asked("HYDRA_WITHOUT").map(|name| {
        let found = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
        found.map_or(Off::FreshRegistration, Off::Machine)
    });
    let only = asked("HYDRA_SEED").and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut world = World::new(seed, off);
        world.told = only.is_some();
        let violations = world.run();
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
    }
}
