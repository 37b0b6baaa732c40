//! Resharing a key: a new sharing goes to all stores as pending, is confirmed at all, and only then the shares of
//! earlier ones are dropped (`docs/src/protocol-walkthrough.md`). Until the first confirm all is taken back where a
//! store refuses; after it nothing is, and a repair goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change::{Base, base};
use super::survey::{Held, Highest, Look, Survey, View};
use super::whole::{step, wake_at};
use super::{
    Action, Desk, Event, Machine, Message, Place, Round, Rule, Said, Stores, describe_said, problem_of, status_of,
};
use crate::ids::{RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::outcome::{LocalError, ReshareError, ReshareOptions, Reshared, StoreFault};
use crate::keystore::sharing::Split;
use crate::keystore::wire::{
    Confirm, Constants, DropBelow, OfRegistration, ProblemKind, Put, Sharing, State, Status, Undo,
};
use crate::permissions::PermissionRecord;
use crate::secret::SecretBytes;

/// How often a store that stays silent is asked to do something.
const TRIES: u8 = 3;
/// A generation this far above the one that joined is some store's invention.
const FAR: u32 = 16;

/// What a new sharing is made of.
pub struct NewSharing<'a> {
    /// Registration, cipher, key length, iv.
    pub constants: &'a Constants,
    /// One above all that were seen.
    pub generation: u32,
    /// How many shares join.
    pub m: u8,
    /// In order of index.
    pub stores: &'a [StoreId],
    /// What is split.
    pub key: &'a SecretBytes,
}

/// The state machine of `reshare`.
pub struct Reshare<D> {
    desk: Desk,
    key_id: KeyId,
    min_threshold: u8,
    options: ReshareOptions,
    deal: D,
    /// How long each step may take.
    span: Duration,
    job: Option<Job>,
    phase: Phase,
}

enum Phase {
    New,
    Look(Look),
    Put(Round),
    Undo(Round, ReshareError),
    Confirm(Round),
    Drop(Round),
}

/// What is being done.
struct Job {
    constants: Constants,
    sharing: Sharing,
    /// The stores of the new sharing.
    places: Vec<Place>,
    /// Those that were in no sharing of the key before.
    newcomers: BTreeSet<Place>,
    /// Stores that keep shares of earlier sharings and are in no new one.
    leavers: Vec<String>,
    was_verified: bool,
}

type Ended = Result<Reshared, ReshareError>;

impl<D: FnMut(&NewSharing<'_>) -> Result<Split, LocalError>> Reshare<D> {
    /// Reshares `key_id` over all of `stores` but those that leave; `deal` splits the key with fresh random numbers.
    pub fn new(
        stores: Stores,
        deadline: Duration,
        key_id: KeyId,
        min_threshold: u8,
        options: ReshareOptions,
        deal: D,
    ) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            min_threshold,
            options,
            deal,
            span: deadline,
            job: None,
            phase: Phase::New,
        }
    }

    /// What was learnt of store ids.
    pub fn stores(&self) -> &Stores {
        &self.desk.stores
    }

    #[cfg(test)]
    pub(crate) fn without(mut self, rule: Option<Rule>) -> Self {
        self.desk.rules.off = rule;
        self
    }

    fn extend(&mut self) {
        self.desk.deadline = self.desk.now + self.span;
    }

    fn leaves(&self, place: Place) -> bool {
        let label = self.desk.stores.label(place);
        self.options.leave.iter().any(|leaver| leaver == label)
    }

    // --- looking --------------------------------------------------------------------------------------------------------

    fn looked(&mut self, look: Look, actions: &mut Vec<Action>) -> Option<Ended> {
        let survey = Survey::of(&self.desk, look);
        let prepared = self.prepare(&survey);
        let (job, split, record) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Some(Err(error)),
        };
        let shares = job.places.iter().copied().zip(split.shares);
        let put = |(place, share)| {
            let put = Put {
                key_id: self.key_id.clone(),
                registration_id: job.constants.registration_id,
                cipher: job.constants.cipher.clone(),
                key_bits: job.constants.key_bits,
                iv: job.constants.iv.clone(),
                sharing: job.sharing.clone(),
                share,
                state: State::Pending,
                permissions: record.clone(),
            };
            (place, Message::Put(Box::new(put)))
        };
        let messages: Vec<(Place, Message)> = shares.map(put).collect();
        self.extend();
        self.phase = Phase::Put(Round::start(&mut self.desk, actions, TRIES, messages));
        self.job = Some(job);
        None
    }

    fn prepare(&mut self, survey: &Survey) -> Result<(Job, Split, PermissionRecord), ReshareError> {
        let key_id = || self.key_id.clone();
        let places: Vec<Place> = (0..self.desk.stores.count())
            .filter(|place| !self.leaves(*place))
            .collect();
        let registration = self.registration(survey)?;
        let least = self.min_threshold;
        let highest = survey.highest(&self.desk.stores, &self.key_id, registration, least);
        let Some(highest) = highest.filter(|highest| !highest.contested) else {
            return Err(ReshareError::Unreadable {
                key_id: key_id(),
                faults: self.faults(survey, |place, held| self.unreadable(survey, registration, place, held)),
            });
        };
        let faults = self.faults(survey, |place, held| self.not_ready(&highest, place, held));
        if !faults.is_empty() {
            return Err(ReshareError::NotReady {
                key_id: key_id(),
                faults,
            });
        }
        let records = survey
            .entries(registration)
            .filter_map(|(_, view)| view.record.as_ref());
        let record = match base(self.desk.stores.count(), records) {
            Base::Settled(record) => record.clone(),
            Base::Overtaken { .. } | Base::Split => {
                return Err(ReshareError::Permissions { key_id: key_id() });
            }
        };
        let ids: Vec<StoreId> = places
            .iter()
            .filter_map(|place| self.desk.stores.id(*place).cloned())
            .collect();
        let m = self.options.threshold.unwrap_or(highest.sharing.m);
        self.check_threshold(m, ids.len())?;
        let generation = next_generation(survey, &highest)
            .ok_or_else(|| LocalError::Config("the key has been reshared too often".to_owned()))?;
        let split = (self.deal)(&NewSharing {
            constants: &highest.constants,
            generation,
            m,
            stores: &ids,
            key: &highest.joined.key,
        })?;
        let listed = |place: &Place| {
            let id = self.desk.stores.id(*place);
            id.is_some_and(|id| highest.sharing.stores.contains(id))
        };
        let keeps = |place: &Place| matches!(survey.held.get(place), Some(Held::Entry(_)));
        let all = 0..self.desk.stores.count();
        let leavers = all.filter(|place| !places.contains(place) && keeps(place));
        let strangers = highest.sharing.stores.iter().filter(|id| {
            let known = |place| self.desk.stores.id(place) == Some(*id);
            !(0..self.desk.stores.count()).any(known)
        });
        let strangers: Vec<String> = strangers.map(ToString::to_string).collect();
        let leavers = leavers.map(|place| self.desk.stores.label(place).to_owned());
        let job = Job {
            sharing: split.sharing.clone(),
            newcomers: places.iter().copied().filter(|place| !listed(place)).collect(),
            leavers: leavers.chain(strangers).collect(),
            was_verified: highest.joined.verified,
            constants: highest.constants,
            places,
        };
        Ok((job, split, record))
    }

    /// The one registration that there is, and that nobody is removing.
    fn registration(&self, survey: &Survey) -> Result<RegistrationId, ReshareError> {
        let confirmed = |of: &RegistrationId| !survey.confirmed(*of).is_empty();
        let living: Vec<RegistrationId> = survey.registrations().into_iter().filter(confirmed).collect();
        match living.as_slice() {
            [only] if survey.tombstones.contains_key(only) => Err(ReshareError::Removed {
                key_id: self.key_id.clone(),
            }),
            [only] => Ok(*only),
            _ => Err(ReshareError::NotFound {
                key_id: self.key_id.clone(),
                faults: self.faults(survey, |_, held| match held {
                    Held::Entry(_) if living.is_empty() => Some("has it unconfirmed".to_owned()),
                    Held::Entry(_) => Some("has one of two registrations".to_owned()),
                    Held::Nothing(reason) | Held::Unknown(reason) => Some(reason.clone()),
                }),
            }),
        }
    }

    fn faults(&self, survey: &Survey, fault: impl Fn(Place, &Held) -> Option<String>) -> Vec<StoreFault> {
        let faults = survey.held.iter();
        let faults = faults.filter_map(|(place, held)| Some(self.desk.stores.fault(*place, fault(*place, held)?)));
        faults.collect()
    }

    fn unreadable(&self, survey: &Survey, of: RegistrationId, place: Place, held: &Held) -> Option<String> {
        match held {
            Held::Nothing(reason) | Held::Unknown(reason) => Some(reason.clone()),
            Held::Entry(view) if view.restored => Some("was restored from a backup and not repaired since".to_owned()),
            Held::Entry(view) if !view.read => Some("does not hand out its share to you".to_owned()),
            Held::Entry(view) if view.sharings.iter().all(|held| held.sharing.m < self.min_threshold) => Some(format!(
                "has shares of which fewer join than the {} that the configuration asks for",
                self.min_threshold
            )),
            Held::Entry(_) => {
                let here = survey.entries(of).any(|(of, _)| of == place);
                (!here).then(|| "has another registration of this key id".to_owned())
            }
        }
    }

    /// What keeps a store of the new sharing from taking part: it must have the key as it should be, or nothing of it.
    fn not_ready(&self, highest: &Highest, place: Place, held: &Held) -> Option<String> {
        if self.leaves(place) {
            return None;
        }
        let view = match held {
            Held::Nothing(_) if self.desk.stores.id(place).is_none() => {
                return Some("does not tell its id".to_owned());
            }
            Held::Nothing(_) => return None,
            Held::Unknown(reason) => return Some(reason.clone()),
            Held::Entry(view) => view,
        };
        if view.constants != highest.constants {
            return Some("has another registration of this key id".to_owned());
        }
        if view.restored {
            return Some("was restored from a backup: repair the key first".to_owned());
        }
        // Leavings of a reshare that died may lie about; what the others have confirmed may not be pending here.
        let unfinished = view.state != State::Confirmed && view.sharing(&highest.sharing).is_some();
        unfinished.then(|| "has not confirmed it: repair the key first".to_owned())
    }

    fn check_threshold(&self, m: u8, n: usize) -> Result<(), LocalError> {
        let fault = |text: String| Err(LocalError::Config(text));
        if m == 0 || usize::from(m) > n || n > 255 {
            return fault(format!("a threshold of {m} does not fit {n} stores"));
        }
        if m < self.min_threshold {
            return fault(format!(
                "a threshold of {m} is below the minimum threshold of {}",
                self.min_threshold
            ));
        }
        Ok(())
    }

    // --- doing it -------------------------------------------------------------------------------------------------------

    /// One message to every store of the new sharing.
    fn all(&mut self, message: impl Fn(&Job, &KeyId, Place) -> Message, actions: &mut Vec<Action>) -> Round {
        let (job, key_id) = (&self.job, &self.key_id);
        let messages: Vec<(Place, Message)> = job
            .iter()
            .flat_map(|job| job.places.iter().map(|place| (*place, message(job, key_id, *place))))
            .collect();
        self.extend();
        Round::start(&mut self.desk, actions, TRIES, messages)
    }

    fn put(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Ended> {
        let faults = self.refusals(round);
        if faults.is_empty() || !self.desk.rules.hold(Rule::ReshareAll) {
            return self.confirm(actions);
        }
        let denied = round
            .results
            .values()
            .any(|result| problem_of(result) == Some(ProblemKind::NotFound));
        let error = ReshareError::Refused {
            key_id: self.key_id.clone(),
            denied,
            faults,
        };
        // A newcomer has an entry only for this sharing; where there was one before, only the sharing goes.
        let undo = |job: &Job, key_id: &KeyId, place: Place| {
            let sharing = (!job.newcomers.contains(&place)).then(|| job.sharing.clone());
            Message::Undo(Undo {
                key_id: key_id.clone(),
                registration_id: job.constants.registration_id,
                sharing,
            })
        };
        let round = self.all(undo, actions);
        self.phase = Phase::Undo(round, error);
        None
    }

    fn confirm(&mut self, actions: &mut Vec<Action>) -> Option<Ended> {
        let confirm = |job: &Job, key_id: &KeyId, _: Place| {
            Message::Confirm(Confirm {
                key_id: key_id.clone(),
                registration_id: job.constants.registration_id,
                sharing: job.sharing.clone(),
                force: false,
            })
        };
        let round = self.all(confirm, actions);
        self.phase = Phase::Confirm(round);
        None
    }

    fn confirmed(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Ended> {
        let faults = self.refusals(round);
        if !faults.is_empty() && self.desk.rules.hold(Rule::DropAfterAll) {
            return Some(Err(self.unfinished(faults)));
        }
        let drop = |job: &Job, key_id: &KeyId, _: Place| {
            Message::Drop(DropBelow {
                key_id: key_id.clone(),
                registration_id: job.constants.registration_id,
                below: job.sharing.clone(),
            })
        };
        let round = self.all(drop, actions);
        self.phase = Phase::Drop(round);
        None
    }

    fn dropped(&mut self, round: &Round) -> Ended {
        let faults = self.refusals(round);
        if !faults.is_empty() {
            return Err(self.unfinished(faults));
        }
        let Some(job) = self.job.take() else {
            return Err(self.unfinished(Vec::new()));
        };
        Ok(Reshared {
            registration_id: job.constants.registration_id,
            generation: job.sharing.generation,
            m: job.sharing.m,
            stores: job
                .places
                .iter()
                .map(|place| self.desk.stores.label(*place).to_owned())
                .collect(),
            left: job.leavers,
            was_verified: job.was_verified,
        })
    }

    fn unfinished(&self, faults: Vec<StoreFault>) -> ReshareError {
        ReshareError::Unfinished {
            key_id: self.key_id.clone(),
            faults,
        }
    }

    /// Stores that did not say ok.
    fn refusals(&self, round: &Round) -> Vec<StoreFault> {
        let refused = |result: &&Result<Said, String>| status_of(result) != Some(Status::Ok);
        let refused = round.results.iter().filter(|(_, result)| refused(result));
        refused
            .map(|(place, result)| self.desk.stores.fault(*place, describe_said(result)))
            .collect()
    }
}

/// One above all generations that were seen, but for those that are out of all proportion.
fn next_generation(survey: &Survey, highest: &Highest) -> Option<u32> {
    let joined = highest.sharing.generation;
    let views = survey.entries(highest.constants.registration_id);
    let generations =
        views.flat_map(|(_, view): (Place, &View)| view.sharings.iter().map(|held| held.sharing.generation));
    let near = generations.filter(|generation| *generation <= joined.saturating_add(FAR));
    near.max().unwrap_or(joined).max(joined).checked_add(1)
}

impl<D: FnMut(&NewSharing<'_>) -> Result<Split, LocalError>> Machine for Reshare<D> {
    type Outcome = Ended;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.phase = Phase::Look(Look::start(&mut self.desk, &self.key_id, actions));
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        match std::mem::replace(&mut self.phase, Phase::New) {
            Phase::New => None,
            Phase::Look(mut look) => {
                if look.step(&mut self.desk, event, actions) {
                    return self.looked(look, actions);
                }
                self.phase = Phase::Look(look);
                None
            }
            Phase::Put(mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.put(&round, actions);
                }
                self.phase = Phase::Put(round);
                None
            }
            Phase::Undo(mut round, error) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return Some(Err(error));
                }
                self.phase = Phase::Undo(round, error);
                None
            }
            Phase::Confirm(mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.confirmed(&round, actions);
                }
                self.phase = Phase::Confirm(round);
                None
            }
            Phase::Drop(mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return Some(self.dropped(&round));
                }
                self.phase = Phase::Drop(round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::New => None,
            Phase::Look(look) => Some(look.wake_at(&self.desk)),
            Phase::Put(round) | Phase::Undo(round, _) | Phase::Confirm(round) | Phase::Drop(round) => {
                Some(wake_at(&self.desk, round))
            }
        }
    }
}

// --- retiring a store -------------------------------------------------------------------------------------------------

/// The state machine of `retire`: what one store that left keeps of a key is deleted, once the others have it all.
pub struct Retire {
    desk: Desk,
    key_id: KeyId,
    min_threshold: u8,
    place: Place,
    phase: RetirePhase,
}

enum RetirePhase {
    New,
    Look(Look),
    Remove(RegistrationId, Round),
}

impl Retire {
    /// Deletes what the store at `place` keeps of `key_id`.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, min_threshold: u8, place: Place) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            min_threshold,
            place,
            phase: RetirePhase::New,
        }
    }

    /// What was learnt of store ids.
    pub fn stores(&self) -> &Stores {
        &self.desk.stores
    }

    fn looked(&mut self, look: Look, actions: &mut Vec<Action>) -> Option<Result<RegistrationId, ReshareError>> {
        let survey = Survey::of(&self.desk, look);
        let registration = match self.may_go(&survey) {
            Ok(registration) => registration,
            Err(error) => return Some(Err(error)),
        };
        let remove = Message::Remove(OfRegistration {
            key_id: self.key_id.clone(),
            registration_id: registration,
        });
        self.desk.deadline += self.desk.now;
        let round = Round::start(&mut self.desk, actions, TRIES, [(self.place, remove)]);
        self.phase = RetirePhase::Remove(registration, round);
        None
    }

    /// Which registration can be deleted there: one whose highest sharing does without the store, and is everywhere.
    fn may_go(&self, survey: &Survey) -> Result<RegistrationId, ReshareError> {
        let stores = &self.desk.stores;
        let key_id = || self.key_id.clone();
        let registration = match survey.held.get(&self.place) {
            Some(Held::Entry(view)) => view.constants.registration_id,
            Some(Held::Nothing(reason) | Held::Unknown(reason)) => {
                let faults = vec![stores.fault(self.place, reason.clone())];
                return Err(ReshareError::NotFound {
                    key_id: key_id(),
                    faults,
                });
            }
            None => {
                return Err(ReshareError::NotFound {
                    key_id: key_id(),
                    faults: Vec::new(),
                });
            }
        };
        let not_ready = |faults: Vec<StoreFault>| ReshareError::NotReady {
            key_id: key_id(),
            faults,
        };
        let highest = survey.highest(stores, &self.key_id, registration, self.min_threshold);
        let Some(highest) = highest.filter(|highest| !highest.contested) else {
            return Err(ReshareError::Unreadable {
                key_id: key_id(),
                faults: Vec::new(),
            });
        };
        let id = stores.id(self.place);
        if id.is_none_or(|id| highest.sharing.stores.contains(id)) {
            let reason = "has a share of the sharing of now: reshare the key without it first";
            return Err(not_ready(vec![stores.fault(self.place, reason)]));
        }
        let holds = |id: &&StoreId| {
            let mut entries = survey.entries(registration);
            entries.any(|(place, view)| stores.id(place) == Some(*id) && view.has_confirmed(&highest.sharing))
        };
        let missing = highest.sharing.stores.iter().filter(|id| !holds(id));
        let faults: Vec<StoreFault> = missing
            .map(|id| StoreFault::new(id.to_string(), "does not show that it has the sharing of now"))
            .collect();
        match faults.is_empty() {
            true => Ok(registration),
            false => Err(not_ready(faults)),
        }
    }

    fn removed(&self, registration: RegistrationId, round: &Round) -> Result<RegistrationId, ReshareError> {
        let result = round.results.get(&self.place);
        match result.and_then(status_of) {
            Some(Status::Ok) => Ok(registration),
            _ => Err(ReshareError::Refused {
                key_id: self.key_id.clone(),
                denied: result.and_then(problem_of) == Some(ProblemKind::NotFound),
                faults: result
                    .map(|result| self.desk.stores.fault(self.place, describe_said(result)))
                    .into_iter()
                    .collect(),
            }),
        }
    }
}

impl Machine for Retire {
    type Outcome = Result<RegistrationId, ReshareError>;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.phase = RetirePhase::Look(Look::start(&mut self.desk, &self.key_id, actions));
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        match std::mem::replace(&mut self.phase, RetirePhase::New) {
            RetirePhase::New => None,
            RetirePhase::Look(mut look) => {
                if look.step(&mut self.desk, event, actions) {
                    return self.looked(look, actions);
                }
                self.phase = RetirePhase::Look(look);
                None
            }
            RetirePhase::Remove(registration, mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return Some(self.removed(registration, &round));
                }
                self.phase = RetirePhase::Remove(registration, round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            RetirePhase::New => None,
            RetirePhase::Look(look) => Some(look.wake_at(&self.desk)),
            RetirePhase::Remove(_, round) => Some(wake_at(&self.desk, round)),
        }
    }
}
