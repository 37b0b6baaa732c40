//! Random histories of the key protocol, in memory: the machines of [`super::quorum`] against the very rules of
//! [`super::store`], under fake time.
//!
//! Messages are lost, doubled, delayed and reordered; clients with different rights act at once and die; stores go
//! down, are restored from an earlier state, or lie, also together. What must hold is checked by name
//! ([`World::violate`], in [`promises`]). Everything follows from the seed. `docs/src/protocol-walkthrough.md` lists
//! the invariants.

mod chance;
mod clients;
mod promises;
mod scenarios;
mod stores;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use self::chance::Random;
use self::clients::{Ended, Product, Regrant, Run};
use self::stores::{NOBODY, SimStore, copy, copy_held, for_store, said, spoil};
use super::outcome::{
    FetchError, FetchedKey, KeyStatus, LocalError, Purpose, RegisterError, Registered, RepairOptions, ReshareOptions,
    Reshared, Verdict,
};
use super::quorum::change::{Base, base};
use super::quorum::{
    Action, AskStatus, Dealt, Event, Heard, Machine, Message, NewSharing, Place, Read, ReadOptions, Register, Remove,
    Repair, RequestNo, Reshare, Rule, Said, Silence, Stores,
};
use super::sharing::{self, Split};
use super::store::{self, Context, Held, Reply, StoredEntry, StoredSharing};
use super::wire::{
    About, CIPHER_EDS1, Change, Confirm, Constants, Create, DropBelow, Entry, HeldSharing, ItemResult, Limits, OfKeyId,
    OfRegistration, Put, Scheme, Share, ShareData, Sharing, State, Status, Tombstone, VERSION,
};
use crate::ids::{ChangeId, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::permissions::{AclEntry, Caller, PermissionRecord};
use crate::secret::SecretBytes;

const TOTAL: Duration = Duration::from_secs(15);
const REQUEST: Duration = Duration::from_secs(5);
const EVIL: [u8; 32] = [0xee; 32];
/// Who registers; the only one whom a creation rule admits.
const ALICE: &str = "/CN=alice";
/// Who may list, use and share what alice registers, until she takes it back.
const BOB: &str = "/CN=bob";
/// Who has no right to anything.
const EVE: &str = "/CN=eve";

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

/// The record that histories begin with.
fn shared_record() -> PermissionRecord {
    PermissionRecord {
        acl: vec![line(BOB)],
        ..record()
    }
}

fn line(principal: &str) -> AclEntry {
    AclEntry {
        principal: principal.to_owned(),
        permissions: "plg".parse().unwrap(),
    }
}

fn dealt(registration_id: RegistrationId, split: Split) -> Dealt {
    dealt_with(registration_id, split, &record())
}

fn dealt_with(registration_id: RegistrationId, split: Split, record: &PermissionRecord) -> Dealt {
    let create = |share| Create {
        key_id: key_id(),
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
        sharing: split.sharing.clone(),
        share,
        permissions: record.clone(),
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
        may_create: dn == ALICE,
        recovery: false,
        at_limit: false,
        acl_limit: 100,
        store: World::id(place),
        now,
    }
}

struct Client {
    run: Box<dyn Run>,
    began: Duration,
    /// Its messages are not lost and do not take long.
    reliable: bool,
    who: &'static str,
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
        who: &'static str,
        sent: Message,
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
    /// The configuration of every client pins the ids of the stores.
    pinned: bool,
    /// Liars give shares that are wrong together.
    liars_agree: bool,
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
    /// The highest m of its sharings.
    highest_m: Rc<RefCell<BTreeMap<RegistrationId, u8>>>,
    /// Reshares that were answered done: the generation, and when the last of them began.
    reshared: BTreeMap<RegistrationId, (u32, Duration)>,
    /// Whom somebody gave a permission after the registration: nothing is said of those.
    granted: BTreeSet<&'static str>,
    /// When the revocation that was answered done at all stores began, and when it ended.
    revoked: BTreeMap<(RegistrationId, &'static str), (Duration, Duration)>,
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
        let (pinned, liars_agree) = (random.chance(30), random.chance(30));
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
            pinned,
            liars_agree,
            violations: Vec::new(),
            told: false,
            keys: Rc::default(),
            took: BTreeMap::new(),
            registered: BTreeMap::new(),
            whole: BTreeSet::new(),
            failed: BTreeSet::new(),
            sealed: BTreeMap::new(),
            removal_asked: BTreeSet::new(),
            highest_m: Rc::default(),
            reshared: BTreeMap::new(),
            granted: BTreeSet::new(),
            revoked: BTreeMap::new(),
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
        let pin = |place| self.pinned.then(|| Self::id(place));
        Stores::new((0..self.n).map(|place| (place.to_string(), pin(place))))
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    // --- starting clients ---------------------------------------------------------------------------------------------

    fn client(&mut self, who: &'static str, run: impl Run + 'static, reliable: bool) {
        self.client_that(who, run, reliable, false, Rc::default());
    }

    fn client_that(
        &mut self,
        who: &'static str,
        run: impl Run + 'static,
        reliable: bool,
        repairs: bool,
        drawn: Rc<RefCell<Vec<RegistrationId>>>,
    ) {
        self.next_client += 1;
        let number = self.next_client;
        let client = Client {
            who,
            repairs,
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
            Ok(dealt_with(registration_id, split, &shared_record()))
        };
        let pauses = [200, 400, 800].map(|longest| self.random.ms(50, longest)).to_vec();
        let machine = Register::new(self.names(), TOTAL, key_id(), self.m, degraded, deal)
            .try_again_after(pauses)
            .without(self.rule());
        self.client_that(ALICE, Product(machine, Ended::Registered), false, false, drawn);
    }

    /// A key of the original: every store has found the same entry in its dump, with a share of another field and
    /// without a check value. Nobody lies then: nothing would tell.
    fn import(&mut self) {
        let registration_id = RegistrationId(self.random.bytes());
        // the original's groups of two bytes stay below its prime
        let key: [u8; 32] = self.random.bytes::<32>().map(|byte| byte & 0x7f);
        let n = u8::try_from(self.n).unwrap();
        let sharing = Sharing {
            generation: 0,
            m: self.m,
            n,
            stores: self.ids(),
            check: None,
        };
        let parts = crate::shamir::glite::split_bytes(&key, n.into(), self.m.into()).unwrap();
        for (place, data) in parts.into_iter().enumerate() {
            self.stores[place].liar = false;
            let put = Put {
                key_id: key_id(),
                registration_id,
                cipher: CIPHER_EDS1.into(),
                key_bits: 256,
                iv: String::new(),
                sharing: sharing.clone(),
                share: Share {
                    scheme: Scheme::Gf65521,
                    index: u8::try_from(place + 1).unwrap(),
                    m: self.m,
                    n,
                    data: ShareData(data),
                },
                state: State::Confirmed,
                permissions: shared_record(),
            };
            store::put(&mut self.stores[place].held, &context_of(ALICE, place, 0), put);
        }
        self.keys.borrow_mut().insert(registration_id, key);
        self.took.insert(registration_id, (0..self.n).collect());
        self.registered.insert(registration_id, self.now);
        self.whole.insert(registration_id);
    }

    fn start_read(&mut self, who: &'static str, purpose: Purpose, reliable: bool) {
        let options = ReadOptions {
            purpose,
            threshold: self.m,
            min_threshold: self.m,
            order: self.random.order(self.n),
            hedge: Duration::from_millis(100),
        };
        let machine = Read::new(self.names(), TOTAL, key_id(), options).without(self.rule());
        let ended = move |outcome| Ended::Read(purpose, outcome);
        self.client(who, Product(machine, ended), reliable);
    }

    fn start_remove(&mut self, who: &'static str, registration: Option<RegistrationId>) {
        let machine = Remove::new(self.names(), TOTAL, key_id(), registration, self.m).without(self.rule());
        let ended = |outcome: Result<_, _>| Ended::Removed(outcome.ok());
        self.client(who, Product(machine, ended), false);
    }

    fn start_repair(&mut self, who: &'static str, reliable: bool) {
        let options = RepairOptions {
            now: reliable || self.random.chance(50),
            ..RepairOptions::default()
        };
        let machine = Repair::new(self.names(), TOTAL, key_id(), self.m, options).without(self.rule());
        self.client_that(
            who,
            Product(machine, |_| Ended::Repaired),
            reliable,
            true,
            Rc::default(),
        );
    }

    fn start_reshare(&mut self, who: &'static str) {
        let most = u8::try_from(self.n).unwrap();
        let threshold = self.m + u8::try_from(self.random.below(usize::from(most - self.m) + 1)).unwrap();
        let options = ReshareOptions {
            threshold: Some(threshold).filter(|_| self.random.chance(50)),
            leave: Vec::new(),
        };
        let highest_m = Rc::clone(&self.highest_m);
        let mut random = Random(self.random.next());
        let deal = move |new: &NewSharing<'_>| -> Result<Split, LocalError> {
            let mut highest_m = highest_m.borrow_mut();
            let highest = highest_m.entry(new.constants.registration_id).or_default();
            *highest = new.m.max(*highest);
            let (m, generation, key) = (new.m, new.generation, new.key.expose());
            let r = random.bytes();
            Ok(sharing::split_by_r(
                &key_id(),
                new.constants,
                generation,
                m,
                new.stores,
                key,
                &r,
            ))
        };
        let machine = Reshare::new(self.names(), TOTAL, key_id(), self.m, options, deal).without(self.rule());
        let ended = |outcome: Result<_, _>| Ended::Reshared(outcome.ok());
        self.client(who, Product(machine, ended), false);
    }

    /// Alice takes bob's permissions away, or gives carol some; bob tries to give himself what he has lost.
    fn start_change(&mut self) {
        let (who, edit): (&'static str, fn(&mut PermissionRecord)) = match self.random.below(4) {
            0 | 1 => (ALICE, |record| record.acl.retain(|line| line.principal != BOB)),
            2 => (ALICE, |record| record.acl.push(line("/CN=carol"))),
            _ => (BOB, |record| {
                record.acl.push(line(BOB));
            }),
        };
        // What bob does when all is taken from him everywhere must come to nothing.
        let held = self.stores.iter().filter_map(|store| store.held.entry.as_ref());
        let mut held = held.map(|entry| entry.constants.registration_id);
        if who == BOB && !held.all(|registration| self.revoked.contains_key(&(registration, BOB))) {
            self.granted.insert(BOB);
        }
        let run = Regrant {
            n: self.n,
            edit,
            change_id: ChangeId(self.random.bytes()),
            registration: None,
            next: 0,
            waiting: BTreeMap::new(),
            records: BTreeMap::new(),
            good: 0,
        };
        self.client(who, run, false);
    }

    fn start_status(&mut self) {
        let machine = AskStatus::new(self.names(), TOTAL, key_id(), self.m);
        self.client(ALICE, Product(machine, Ended::Status), true);
    }

    fn start_something(&mut self) {
        let known: Vec<RegistrationId> = self.registered.keys().copied().collect();
        let some = |random: &mut Random| known.get(random.below(known.len().max(1))).copied();
        let anybody = [ALICE, ALICE, BOB, EVE][self.random.below(4)];
        match self.random.below(16) {
            0..=2 => {
                let degraded = self.random.chance(50);
                self.start_register(degraded);
            }
            3 | 4 => self.start_read(anybody, Purpose::Seal, false),
            5..=7 => {
                if let Some(registration) = some(&mut self.random) {
                    self.start_read(ALICE, Purpose::Open(registration), true);
                }
            }
            8 => {
                if let Some(registration) = some(&mut self.random) {
                    self.start_read(anybody, Purpose::Open(registration), false);
                }
            }
            9 => {
                let named = self.random.chance(70);
                let registration = some(&mut self.random).filter(|_| named);
                // alice alone would often remove everything
                let who = [ALICE, ALICE, EVE][self.random.below(3)];
                self.start_remove(who, registration);
            }
            10 | 11 => self.start_repair(anybody, false),
            12 | 13 => self.start_change(),
            _ => {
                let who = [ALICE, ALICE, ALICE, BOB][self.random.below(4)];
                self.start_reshare(who);
            }
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
        let (reliable, who) = (client.reliable, client.who);
        client.waiting.extend(sent.iter().map(|(request, _, _)| *request));
        for (request, place, message) in sent {
            self.send((number, who), request, place, message, reliable);
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

    fn send(
        &mut self,
        (client, who): (usize, &'static str),
        request: RequestNo,
        place: Place,
        sent: Message,
        reliable: bool,
    ) {
        if let Message::Remove(remove) = &sent
            && who == ALICE
        {
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
                who,
                sent: copy(&sent),
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
            who,
            sent,
            answered: true,
        };
        self.at(after, arrives);
    }

    fn arrives(
        &mut self,
        (client, who): (usize, &'static str),
        request: RequestNo,
        place: Place,
        sent: Message,
        answered: bool,
    ) {
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
            Message::Create(create) => Some(create.registration_id),
            _ => None,
        };
        let what = self.told.then(|| format!("{who}: {sent:?}"));
        let said = self.store_says(place, who, sent);
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
            let claimed = match self.stores[place].liar && self.random.chance(3) {
                true => self.random.below(self.n),
                false => place,
            };
            let result = Ok(Heard {
                store: Self::id(claimed),
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

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives {
                client,
                request,
                place,
                who,
                sent,
                answered,
            } => self.arrives((client, who), request, place, sent, answered),
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
                // as the manual says, or behind everybody's back
                let quarantine = self.random.chance(50);
                let store = &mut self.stores[place];
                store.held = copy_held(&store.snapshots[which]);
                store.rolled = Some(now);
                if let Some(entry) = store.held.entry.as_mut().filter(|_| quarantine) {
                    entry.restored = true;
                }
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

    fn run(mut self) -> Vec<String> {
        if self.told {
            let liars: Vec<bool> = self.stores.iter().map(|store| store.liar).collect();
            println!("n = {}, m = {}, liars: {liars:?}", self.n, self.m);
        }
        match self.m > 1 && self.random.chance(10) {
            true => self.import(),
            false => self.start_register(false),
        }
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
            self.start_repair(ALICE, true);
            self.settle();
        }
        self.last_look();
        self.violations.sort();
        self.violations.dedup();
        self.violations
    }
}

/// How many histories a test run goes through: less than a minute on two cores.
const HISTORIES: u64 = 100_000;

/// `HYDRA_HISTORIES` asks for another number, and `HYDRA_WITHOUT` takes a rule away by its name in [`Rule`], to see
/// which history needs it first: the test then fails with its seed. `HYDRA_SEED` asks for one history, told as it goes.
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let seeds = seeds.clone().skip(thread).step_by(threads);
            scope.spawn(move || {
                for seed in seeds {
                    let mut world = World::new(seed, off);
                    world.told = only.is_some();
                    let violations = world.run();
                    assert!(violations.is_empty(), "seed {seed}: {violations:?}");
                }
            });
        }
    });
}
