//! What each rule is there for: a short history for every one, which keeps its promise with the rule and breaks it
//! without. Nothing here is random.

mod repairing;
mod resharing;

use std::collections::VecDeque;
use std::time::Duration;

use super::super::outcome::{RemoveError, RepairError, RepairReport};
use super::super::store::Message as ToStore;
use super::super::wire::ReadAnswer;
use super::*;

type Registering = Result<Registered, RegisterError>;
type Fetching = Result<FetchedKey, FetchError>;

/// What becomes of a message.
enum Fate {
    Arrives,
    /// It never gets there.
    Lost,
    /// The store does what it is asked, and nobody hears of it.
    AnswerLost,
    /// The client dies before it sends it.
    ClientDies,
}

/// Stores that do what they are told, but for the lies.
struct Ground {
    m: u8,
    held: Vec<Held>,
    up: Vec<bool>,
    /// It answers, but only when its client waits for nothing else any more.
    slow: Option<Place>,
    lie: fn(&Self, Place, Said) -> Said,
    off: Option<Off>,
}

const FIRST: RegistrationId = RegistrationId([1; 16]);
const SECOND: RegistrationId = RegistrationId([51; 16]);

fn arrives(_: &mut Ground, _: Place, _: &Message) -> Fate {
    Fate::Arrives
}

fn by_name(place: Place) -> (String, Option<StoreId>) {
    (place.to_string(), Some(World::id(place)))
}

impl Ground {
    fn new(n: usize, m: u8, off: Option<Off>) -> Self {
        Self {
            m,
            held: (0..n).map(|_| Held::default()).collect(),
            up: vec![true; n],
            slow: None,
            lie: |_, _, said| said,
            off,
        }
    }

    fn rule(&self) -> Option<Rule> {
        match self.off {
            Some(Off::Machine(rule)) => Some(rule),
            _ => None,
        }
    }

    fn names(&self) -> Stores {
        Stores::new((0..self.held.len()).map(by_name))
    }

    fn ids(&self) -> Vec<StoreId> {
        (0..self.held.len()).map(World::id).collect()
    }

    fn tell(&mut self, place: Place, message: ToStore) -> Said {
        said(store::apply(
            &mut self.held[place],
            &context_of("/CN=alice", place, 0),
            message,
        ))
    }

    /// Runs a machine to its end, one message after the other; none where its client died.
    fn run<M: Machine>(
        &mut self,
        machine: &mut M,
        mut fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Option<M::Outcome> {
        let mut now = Duration::ZERO;
        let mut under_way: VecDeque<(RequestNo, Place, Message)> = VecDeque::new();
        let mut actions = Vec::new();
        let mut outcome = machine.start(&mut actions);
        for _ in 0..10_000 {
            if outcome.is_some() {
                return outcome;
            }
            for action in actions.drain(..) {
                match action {
                    Action::Send(request, place, message) => under_way.push_back((request, place, message)),
                    Action::Cancel(request) => under_way.retain(|(of, _, _)| *of != request),
                }
            }
            now += Duration::from_millis(1);
            let quick = under_way.iter().position(|(_, place, _)| Some(*place) != self.slow);
            let wake_at = machine.wake_at();
            let next = match quick {
                Some(at) => under_way.remove(at),
                None if wake_at.is_none_or(|at| at < TOTAL) => None,
                None => under_way.pop_front(),
            };
            let event = match next {
                None => {
                    now = now.max(wake_at?);
                    Event::Woken
                }
                Some((request, place, message)) => Event::Heard(request, self.send(place, message, &mut fate)?),
            };
            outcome = machine.handle(now, event, &mut actions);
        }
        panic!("a machine never ends");
    }

    /// What the client hears; none where it died.
    fn send(
        &mut self,
        place: Place,
        message: Message,
        fate: &mut impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Option<Result<Heard, Silence>> {
        let fate = fate(self, place, &message);
        let silence = |reason: &str| Some(Err(Silence::new(reason)));
        match fate {
            Fate::ClientDies => return None,
            Fate::Lost => return silence("gave no answer in 5 s"),
            _ if !self.up[place] => return silence("refused the connection"),
            Fate::Arrives | Fate::AnswerLost => {}
        }
        let message = for_store(message).unwrap();
        let honest = self.tell(place, message);
        if matches!(fate, Fate::AnswerLost) {
            return silence("gave no answer in 5 s");
        }
        let said = (self.lie)(self, place, honest);
        Some(Ok(Heard {
            store: World::id(place),
            said,
        }))
    }

    /// Registers; the first try is `first`, each further one the id after it.
    fn register(
        &mut self,
        first: RegistrationId,
        degraded: bool,
        fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Option<Registering> {
        let (m, fresh) = (self.m, self.off != Some(Off::FreshRegistration));
        let mut tries = 0;
        let deal = move |ids: &[StoreId]| -> Result<Dealt, LocalError> {
            let id = RegistrationId([first.0[0] + if fresh { tries } else { 0 }; 16]);
            tries += 1;
            let split = sharing::split_by_r(&key_id(), &constants(id), 1, m, ids, &key_of(id), &[100 + tries; 32]);
            Ok(dealt(id, split))
        };
        let pauses = vec![Duration::from_millis(100); 3];
        let mut machine = Register::new(self.names(), TOTAL, key_id(), self.m, degraded, deal)
            .try_again_after(pauses)
            .without(self.rule());
        self.run(&mut machine, fate)
    }

    fn registered(&mut self, registration: RegistrationId) {
        self.register(registration, false, arrives).unwrap().unwrap();
    }

    fn read(&mut self, purpose: Purpose, fate: impl FnMut(&mut Self, Place, &Message) -> Fate) -> Fetching {
        let options = ReadOptions {
            purpose,
            threshold: self.m,
            min_threshold: self.m,
            order: (0..self.held.len()).collect(),
            hedge: Duration::from_millis(100),
        };
        let mut machine = Read::new(self.names(), TOTAL, key_id(), options).without(self.rule());
        self.run(&mut machine, fate).unwrap()
    }

    fn seals(&mut self) -> bool {
        self.read(Purpose::Seal, arrives).is_ok()
    }

    fn opens(&mut self, registration: RegistrationId) -> bool {
        self.read(Purpose::Open(registration), arrives).is_ok()
    }

    fn remove(
        &mut self,
        registration: Option<RegistrationId>,
        fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Result<RegistrationId, RemoveError> {
        let mut machine = Remove::new(self.names(), TOTAL, key_id(), registration, self.m).without(self.rule());
        self.run(&mut machine, fate).unwrap()
    }

    fn repair(
        &mut self,
        now: bool,
        fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Result<RepairReport, RepairError> {
        let options = RepairOptions {
            now,
            ..RepairOptions::default()
        };
        self.repair_with(options, fate)
    }

    fn repair_with(
        &mut self,
        options: RepairOptions,
        fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Result<RepairReport, RepairError> {
        let mut machine = Repair::new(self.names(), TOTAL, key_id(), self.m, options).without(self.rule());
        self.run(&mut machine, fate).unwrap()
    }

    /// A reshare that reaches `places` only, and drops the old sharing there where it reaches all.
    fn reshare(&mut self, places: &[Place]) {
        let constants = constants(FIRST);
        let split = sharing::split_by_r(
            &key_id(),
            &constants,
            2,
            self.m,
            &self.ids(),
            &key_of(FIRST),
            &[200; 32],
        );
        let sharing = split.sharing;
        for (place, share) in split.shares.into_iter().enumerate() {
            if places.contains(&place) {
                self.tell(place, ToStore::Put(put(FIRST, sharing.clone(), share)));
            }
        }
        if places.len() < self.held.len() {
            return;
        }
        for place in places {
            let (key_id, registration_id, sharing) = (key_id(), FIRST, sharing.clone());
            self.tell(
                *place,
                ToStore::Confirm(Confirm {
                    key_id,
                    registration_id,
                    sharing,
                    force: false,
                }),
            );
        }
        for place in places {
            let (key_id, registration_id, below) = (key_id(), FIRST, sharing.clone());
            self.tell(
                *place,
                ToStore::Drop(DropBelow {
                    key_id,
                    registration_id,
                    below,
                }),
            );
        }
    }

    /// A confirmation that was under way arrives.
    fn confirm_first(&mut self, place: Place) {
        let entry = self.held[place].entry.as_ref().unwrap();
        let sharing = entry.sharings[0].sharing.clone();
        let (key_id, registration_id) = (key_id(), FIRST);
        self.tell(
            place,
            ToStore::Confirm(Confirm {
                key_id,
                registration_id,
                sharing,
                force: false,
            }),
        );
    }
}

fn key_of(registration: RegistrationId) -> [u8; 32] {
    [registration.0[0]; 32]
}

fn put(registration_id: RegistrationId, sharing: super::super::wire::Sharing, share: Share) -> Put {
    Put {
        key_id: key_id(),
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
        sharing,
        share,
        state: State::Pending,
        permissions: record(),
    }
}

fn dies_at_confirm(of: Place) -> impl FnMut(&mut Ground, Place, &Message) -> Fate {
    move |_, place, message| match message {
        Message::Confirm(_) if place == of => Fate::ClientDies,
        _ => Fate::Arrives,
    }
}

fn reaches(places: &'static [Place]) -> impl FnMut(&mut Ground, Place, &Message) -> Fate {
    move |_, place, _| match places.contains(&place) {
        true => Fate::Arrives,
        false => Fate::Lost,
    }
}

fn first_spoils(_: &Ground, place: Place, mut said: Said) -> Said {
    if let (0, Said::Read(ReadAnswer { entry: Some(entry), .. })) = (place, &mut said) {
        entry.sharings.iter_mut().for_each(spoil);
    }
    said
}

fn breach(broken: bool, what: &'static str) -> Option<&'static str> {
    broken.then_some(what)
}

/// The history that needs the rule: what it breaks, if it breaks something.
fn history(of: Off, off: Option<Off>) -> Option<&'static str> {
    let three = || Ground::new(3, 2, off);
    let Off::Machine(rule) = of else {
        return fresh_registration(three());
    };
    match rule {
        Rule::Majority => majority(Ground::new(5, 2, off)),
        Rule::Clash => clash(Ground::new(5, 2, off)),
        Rule::NeverUndo => never_undo(three()),
        Rule::WithinSharing => within_sharing(Ground::new(2, 2, off)),
        Rule::CheckValue => check_value(three()),
        Rule::CorrectErrors => correct_errors(three()),
        Rule::MinThreshold => min_threshold(three()),
        Rule::SealConfirmed => seal_confirmed(three()),
        Rule::CompareAll => compare_all(three()),
        Rule::AskAgain => ask_again(Ground::new(2, 2, off)),
        Rule::OpenPending => open_pending(three()),
        Rule::OnlyItsRegistration => only_its_registration(three()),
        Rule::RemoveAll => remove_all(three()),
        Rule::RepairConfirmed => repair_confirmed(three()),
        Rule::RepairTombstone => repair_tombstone(three()),
        Rule::TombstoneCount => tombstone_count(three()),
        Rule::StopFirst => stop_first(three()),
        Rule::ProveShares => repairing::prove_shares(Ground::new(5, 3, off)),
        Rule::OneKey => repairing::one_key(three()),
        Rule::DropAfterAll => repairing::drop_after_all(three()),
        Rule::PermissionMajority => repairing::permission_majority(three()),
        Rule::PermissionLater => repairing::permission_later(three()),
        Rule::ReshareAll => resharing::reshare_all(three()),
        Rule::RestoredPermissions => repairing::restored_permissions(three()),
    }
}

/// Two clients that reach two stores each, of five.
fn majority(mut ground: Ground) -> Option<&'static str> {
    let one = ground.register(FIRST, true, reaches(&[0, 1])).unwrap();
    let two = ground.register(SECOND, true, reaches(&[2, 3])).unwrap();
    breach(
        one.is_ok() && two.is_ok(),
        "two registrations of one key id were answered",
    )
}

/// A registration at three stores of five, one of which is restored to before it.
fn clash(mut ground: Ground) -> Option<&'static str> {
    ground.register(FIRST, true, reaches(&[0, 1, 2])).unwrap().unwrap();
    ground.held[0] = Held::default();
    let again = ground.register(SECOND, true, arrives).unwrap();
    breach(
        again.is_ok() && ground.opens(FIRST),
        "two registrations of one key id were answered",
    )
}

/// Two stores confirm, of which one is not heard, and one is not reached.
fn never_undo(mut ground: Ground) -> Option<&'static str> {
    let fate = |_: &mut Ground, place, message: &Message| match (message, place) {
        (Message::Confirm(_), 1) => Fate::AnswerLost,
        (Message::Confirm(_), 2) => Fate::Lost,
        _ => Fate::Arrives,
    };
    let unfinished = ground.register(FIRST, false, fate).unwrap();
    assert!(matches!(unfinished, Err(RegisterError::Unfinished { .. })));
    assert!(ground.seals());
    ground.up[1] = false;
    breach(!ground.opens(FIRST), "a key that was sealed under does not open")
}

/// One of two stores has a reshare's new sharing too.
fn within_sharing(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.reshare(&[1]);
    let key = ground.read(Purpose::Open(FIRST), arrives).unwrap();
    breach(!key.faults.is_empty(), "an honest store was named a liar")
}

fn check_value(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.lie = first_spoils;
    let key = ground.read(Purpose::Seal, arrives).unwrap();
    breach(key.key.expose() != key_of(FIRST), "a wrong key was accepted")
}

fn correct_errors(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.lie = first_spoils;
    breach(!ground.opens(FIRST), "a registered key does not open")
}

/// One store says that its share alone is enough, in a sharing of its own making.
fn min_threshold(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.lie = |ground, place, mut said| {
        if let (0, Said::Read(ReadAnswer { entry: Some(entry), .. })) = (place, &mut said) {
            let split = sharing::split_by_r(&key_id(), &entry.constants, 1, 1, &ground.ids(), &EVIL, &[0xee; 32]);
            entry.sharings[0].sharing = split.sharing;
            entry.sharings[0].share = split.shares.into_iter().next();
        }
        said
    };
    let key = ground.read(Purpose::Seal, arrives).unwrap();
    breach(key.key.expose() == EVIL, "a wrong key was accepted")
}

fn seal_confirmed(mut ground: Ground) -> Option<&'static str> {
    assert!(ground.register(FIRST, false, dies_at_confirm(0)).is_none());
    breach(ground.seals(), "sealed under what nobody has confirmed")
}

/// A key of the original, of which one store gives a wrong share; the one that could tell is slower than the hedge
/// delay.
fn compare_all(mut ground: Ground) -> Option<&'static str> {
    let right = repairing::imported(&mut ground, None);
    ground.lie = first_gives_another_number;
    ground.slow = Some(2);
    let sealing = ground.read(Purpose::Seal, arrives);
    breach(
        sealing.is_ok_and(|key| key.key.expose() != right),
        "a wrong key was accepted",
    )
}

fn first_gives_another_number(_: &Ground, place: Place, mut said: Said) -> Said {
    if let (0, Said::Read(ReadAnswer { entry: Some(entry), .. })) = (place, &mut said) {
        let share = entry.sharings[0].share.as_mut().unwrap();
        let mut bytes = share.data.0.expose().to_vec();
        // never one that the field does not have
        bytes[0] = bytes[0].wrapping_add(1) & 0x7f;
        share.data = ShareData(SecretBytes::new(bytes));
    }
    said
}

/// A reshare passes between the answers of the two stores.
fn ask_again(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    let mut passed = false;
    let fate = |ground: &mut Ground, place, _: &Message| {
        if place == 1 && !std::mem::replace(&mut passed, true) {
            ground.reshare(&[0, 1]);
        }
        Fate::Arrives
    };
    breach(
        ground.read(Purpose::Open(FIRST), fate).is_err(),
        "a registered key does not open",
    )
}

/// Its client died after the second of three confirmations, then one of the two is down.
fn open_pending(mut ground: Ground) -> Option<&'static str> {
    assert!(ground.register(FIRST, false, dies_at_confirm(2)).is_none());
    assert!(ground.seals());
    ground.up[1] = false;
    breach(!ground.opens(FIRST), "a key that was sealed under does not open")
}

fn only_its_registration(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.remove(Some(FIRST), arrives).unwrap();
    ground.registered(SECOND);
    breach(ground.opens(FIRST), "a file was opened under another registration")
}

/// One store is not reached by the removal, and another is restored to before it.
fn remove_all(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    let before = copy_held(&ground.held[0]);
    let removed = ground.remove(Some(FIRST), reaches(&[0, 1]));
    ground.held[0] = before;
    breach(removed.is_ok() && ground.opens(FIRST), "a removed key was read")
}

fn repair_confirmed(mut ground: Ground) -> Option<&'static str> {
    assert!(ground.register(FIRST, false, dies_at_confirm(0)).is_none());
    let young = ground.repair(false, arrives);
    breach(
        young.is_ok() || ground.seals(),
        "sealed under what nobody has confirmed",
    )
}

/// A removal that reached one store, of a registration that two had confirmed.
fn repair_tombstone(mut ground: Ground) -> Option<&'static str> {
    assert!(ground.register(FIRST, false, dies_at_confirm(2)).is_none());
    assert!(ground.remove(Some(FIRST), reaches(&[0])).is_err());
    assert!(!ground.seals());
    let _ = ground.repair(true, arrives);
    breach(ground.seals(), "a repair confirmed what is being removed")
}

/// One store claims a removal that nobody asked for.
fn tombstone_count(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.lie = |_, place, mut said| {
        if let (0, Said::Describe(answer)) = (place, &mut said) {
            answer.entry = None;
            answer.tombstones = vec![tombstone(FIRST)];
        }
        said
    };
    let _ = ground.repair(true, arrives);
    ground.lie = |_, _, said| said;
    breach(!ground.opens(FIRST), "a repair removed what nobody asked to remove")
}

/// The registration is confirmed at two stores just when a repair has seen it pending at all.
fn stop_first(mut ground: Ground) -> Option<&'static str> {
    assert!(ground.register(FIRST, false, dies_at_confirm(0)).is_none());
    let mut met = false;
    let fate = |ground: &mut Ground, _, message: &Message| {
        if !matches!(message, Message::Describe(_)) && !std::mem::replace(&mut met, true) {
            ground.confirm_first(0);
            ground.confirm_first(1);
        }
        Fate::Arrives
    };
    let _ = ground.repair(true, fate);
    assert!(ground.seals());
    ground.up[1] = false;
    breach(!ground.opens(FIRST), "a key that was sealed under does not open")
}

/// The first try meets another registration that goes away; its undo comes a second time when the second try has made
/// its entries.
fn fresh_registration(mut ground: Ground) -> Option<&'static str> {
    let other = sharing::split_by_r(&key_id(), &constants(SECOND), 1, 2, &ground.ids(), &[9; 32], &[9; 32]);
    let create = dealt(SECOND, other).creates.into_iter().nth(1).unwrap();
    ground.tell(1, ToStore::Create(create));
    let (mut creates, mut confirms) = (0, 0);
    let fate = |ground: &mut Ground, _, message: &Message| {
        match message {
            Message::Create(_) => {
                creates += 1;
                if creates == 4 {
                    ground.held[1] = Held::default();
                }
            }
            Message::Confirm(_) => {
                confirms += 1;
                if confirms == 1 {
                    let (key_id, registration_id) = (key_id(), FIRST);
                    let undo = super::super::wire::Undo {
                        key_id,
                        registration_id,
                        sharing: None,
                    };
                    ground.tell(2, ToStore::Undo(undo));
                }
            }
            _ => {}
        }
        Fate::Arrives
    };
    let registered = ground.register(FIRST, false, fate).unwrap();
    let kept = match registered {
        Ok(registered) => registered.registration_id,
        Err(RegisterError::Unfinished { .. }) => FIRST,
        Err(error) => panic!("{error}"),
    };
    assert!(ground.seals());
    ground.up[1] = false;
    breach(!ground.opens(kept), "a key that was sealed under does not open")
}

fn tombstone(registration_id: RegistrationId) -> Tombstone {
    Tombstone {
        registration_id,
        by: "/CN=alice".into(),
        at: "1970-01-01T00:00:00Z".into(),
    }
}

#[test]
fn every_rule_is_needed() {
    let all = Rule::ALL.map(Off::Machine).into_iter().chain([Off::FreshRegistration]);
    for of in all {
        assert_eq!(history(of, None), None, "with all rules, in the history for {of:?}");
        assert!(history(of, Some(of)).is_some(), "{of:?} taken away breaks nothing");
    }
}

/// Who opens waits for no slow store, and who seals for none that never answers: m shares are enough then.
#[test]
fn a_key_of_the_original_is_compared_with_a_slow_store_only_to_seal() {
    let mut ground = Ground::new(3, 2, None);
    let right = repairing::imported(&mut ground, None);
    ground.slow = Some(2);
    for purpose in [Purpose::OpenUnmarked, Purpose::Open(FIRST), Purpose::Seal] {
        let mut heard_of_slow = false;
        let key = ground.read(purpose, |_, place, _| {
            heard_of_slow |= place == 2;
            if place == 2 { Fate::Lost } else { Fate::Arrives }
        });
        assert_eq!(key.unwrap().key.expose(), right);
        assert_eq!(heard_of_slow, purpose == Purpose::Seal, "{purpose:?}");
    }
    ground.slow = None;
    ground.lie = first_gives_another_number;
    let refused = ground.read(Purpose::Seal, arrives).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, FetchError::Check { ref faults, .. } if faults.is_empty()),
        "{refused:?}"
    );
    // where so many agree that it is certain who does not, it is told
    let mut ground = Ground::new(4, 2, None);
    let _ = repairing::imported(&mut ground, None);
    ground.lie = first_gives_another_number;
    let Err(FetchError::Check { faults, .. }) = ground.read(Purpose::Seal, arrives) else {
        panic!("a key whose shares disagree was taken");
    };
    let named: Vec<_> = faults
        .iter()
        .map(|fault| (fault.store.as_str(), fault.reason.as_str()))
        .collect();
    assert_eq!(named, [("0", "gave a wrong share")]);
}

#[test]
fn a_pending_registration_that_nobody_confirmed_is_stopped_and_taken_back() {
    let mut ground = Ground::new(3, 2, None);
    assert!(ground.register(FIRST, false, dies_at_confirm(0)).is_none());
    let report = ground.repair(true, arrives).unwrap();
    assert!(report.free && !report.whole && report.faults.is_empty(), "{report:?}");
    assert_eq!(report.done.len(), 3);
    ground.registered(SECOND);
    // A late message of the first changes nothing any more.
    assert!(ground.opens(SECOND) && !ground.opens(FIRST));
}

#[test]
fn a_repair_that_does_not_reach_all_stores_takes_nothing_back() {
    let mut ground = Ground::new(3, 2, None);
    assert!(ground.register(FIRST, false, dies_at_confirm(0)).is_none());
    ground.up[2] = false;
    assert!(matches!(
        ground.repair(true, arrives),
        Err(RepairError::NotConfirmed { .. })
    ));
    ground.up[2] = true;
    // It answers, but not to `stop`: whether it has confirmed is not known.
    let fate = |_: &mut Ground, place, message: &Message| match message {
        Message::Stop(_) if place == 2 => Fate::Lost,
        _ => Fate::Arrives,
    };
    assert!(ground.repair(true, fate).is_err());
    assert!(ground.held.iter().all(|held| held.entry.is_some()));
    assert!(ground.repair(true, arrives).unwrap().free);
}

#[test]
fn a_removal_that_enough_stores_remember_is_finished() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    let half = ground.remove(Some(FIRST), reaches(&[0, 1]));
    assert!(matches!(
        half,
        Err(RemoveError::Incomplete {
            removed: 2,
            readable: false,
            ..
        })
    ));
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.free, "{report:?}");
    assert!(
        ground
            .held
            .iter()
            .all(|held| held.entry.is_none() && held.tombstones.len() == 1)
    );
}

#[test]
fn of_two_registrations_the_caller_says_which_to_remove() {
    let mut ground = Ground::new(3, 2, None);
    for (place, registration) in [(0, FIRST), (1, SECOND)] {
        let split = sharing::split_by_r(
            &key_id(),
            &constants(registration),
            1,
            2,
            &ground.ids(),
            &[9; 32],
            &[9; 32],
        );
        let create = dealt(registration, split).creates.into_iter().nth(place).unwrap();
        ground.tell(place, ToStore::Create(create));
    }
    let Err(RemoveError::Ambiguous { registrations, .. }) = ground.remove(None, arrives) else {
        panic!("one of two registrations was chosen");
    };
    assert_eq!(
        registrations,
        [(FIRST, vec!["0".to_owned()]), (SECOND, vec!["1".to_owned()])]
    );
    assert_eq!(ground.remove(Some(SECOND), arrives).unwrap(), SECOND);
    // With the other one gone, both crashed clients' leavings go by one repair.
    assert!(ground.repair(true, arrives).unwrap().free);
}

#[test]
fn enough_stores_that_have_nothing_are_not_kept_waiting_for_the_last() {
    let mut ground = Ground::new(3, 2, None);
    let mut asked = 0;
    let fate = |_: &mut Ground, _, _: &Message| {
        asked += 1;
        Fate::Arrives
    };
    let nothing = ground.read(Purpose::Seal, fate).map(|_| ()).unwrap_err();
    assert!(matches!(nothing, FetchError::NotFound { .. }), "{nothing:?}");
    assert!(asked <= 3);
}

/// Nobody answers: another store is asked after the hedge delay, and sooner where one store was quick.
#[test]
fn the_hedge_delay_follows_what_the_quickest_store_took() {
    let options = || ReadOptions {
        purpose: Purpose::Seal,
        threshold: 2,
        min_threshold: 2,
        order: vec![0, 1, 2],
        hedge: Duration::from_millis(100),
    };
    let places = |actions: &[Action]| -> Vec<Place> {
        let sent = actions.iter().filter_map(|action| match action {
            Action::Send(_, place, _) => Some(*place),
            Action::Cancel(_) => None,
        });
        sent.collect()
    };
    let ms = Duration::from_millis;
    let stores = || Stores::new((0..3).map(by_name));
    for (answered_at, wakes_at) in [(None, ms(100)), (Some(ms(2)), ms(20)), (Some(ms(10)), ms(40))] {
        let mut read = Read::new(stores(), TOTAL, key_id(), options());
        let mut actions = Vec::new();
        assert!(read.start(&mut actions).is_none());
        assert_eq!(places(&actions), [0, 1]);
        let Some(Action::Send(first, _, _)) = actions.first() else {
            panic!("nothing was sent");
        };
        let first = *first;
        actions.clear();
        if let Some(at) = answered_at {
            let mut ground = Ground::new(3, 2, None);
            ground.registered(FIRST);
            let said = ground.tell(0, ToStore::Read(super::super::wire::OfKeyId { key_id: key_id() }));
            let heard = Heard {
                store: World::id(0),
                said,
            };
            assert!(read.handle(at, Event::Heard(first, Ok(heard)), &mut actions).is_none());
            assert!(places(&actions).is_empty());
        }
        assert_eq!(read.wake_at(), Some(wakes_at));
        assert!(read.handle(wakes_at, Event::Woken, &mut actions).is_none());
        assert_eq!(places(&actions), [2], "answered at {answered_at:?}");
    }
}

/// Who has no right is told the same whether the key id is free or not, by every verb.
#[test]
fn outsiders_learn_nothing_from_any_verb() {
    let mut free = Ground::new(3, 2, None);
    let mut taken = Ground::new(3, 2, None);
    taken.registered(FIRST);
    let messages = || {
        let of = || OfRegistration {
            key_id: key_id(),
            registration_id: FIRST,
        };
        let ids: Vec<StoreId> = (0..3).map(World::id).collect();
        let split = sharing::split_by_r(&key_id(), &constants(FIRST), 1, 2, &ids, &key_of(FIRST), &[101; 32]);
        let sharing = split.sharing.clone();
        let share = split.shares.into_iter().next().unwrap();
        let (key_id, registration_id) = (key_id(), FIRST);
        let confirm = Confirm {
            key_id: key_id.clone(),
            registration_id,
            sharing: sharing.clone(),
            force: true,
        };
        let undo = super::super::wire::Undo {
            key_id: key_id.clone(),
            registration_id,
            sharing: None,
        };
        let of_key = || super::super::wire::OfKeyId {
            key_id: super::key_id(),
        };
        vec![
            ToStore::Read(of_key()),
            ToStore::Describe(of_key()),
            ToStore::Permissions(of_key()),
            ToStore::Stop(of()),
            ToStore::Remove(of()),
            ToStore::Confirm(confirm),
            ToStore::Undo(undo),
            ToStore::Drop(DropBelow {
                key_id,
                registration_id,
                below: sharing.clone(),
            }),
            ToStore::Put(put(FIRST, sharing, share)),
        ]
    };
    let mut context = context_of("/CN=eve", 0, 0);
    context.may_create = false;
    for (one, other) in messages().into_iter().zip(messages()) {
        let operation = one.operation();
        let to_free = store::apply(&mut free.held[0], &context, one);
        let to_taken = store::apply(&mut taken.held[0], &context, other);
        assert_eq!(answer_of(to_free), answer_of(to_taken), "{operation:?}");
    }
    assert!(taken.opens(FIRST), "an outsider changed something");
}

fn answer_of(reply: Reply) -> String {
    match reply {
        Reply::Permissions(outcome) => format!("{:?}", outcome.result),
        other => format!("{:?}", said(other)),
    }
}

#[test]
fn status_tells_unfinished_from_pending() {
    let verdict_after = |place: Option<Place>| {
        let mut ground = Ground::new(3, 2, None);
        match place {
            Some(place) => assert!(ground.register(FIRST, false, dies_at_confirm(place)).is_none()),
            None => ground.registered(FIRST),
        }
        let mut machine = AskStatus::new(ground.names(), TOTAL, key_id(), 2);
        ground.run(&mut machine, arrives).unwrap().verdict
    };
    assert_eq!(verdict_after(Some(0)), Verdict::Pending);
    assert_eq!(verdict_after(Some(1)), Verdict::Unfinished);
    assert_eq!(verdict_after(Some(2)), Verdict::Unfinished);
    assert_eq!(verdict_after(None), Verdict::Registered);
}
