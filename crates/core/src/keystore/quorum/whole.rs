//! What is asked of all stores at once: status and removing (`docs/src/protocol-walkthrough.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    Action, Desk, Event, Machine, Message, Place, Round, Rule, Said, Stores, describe_said, problem_of, status_of,
};
use crate::ids::RegistrationId;
use crate::key_id::KeyId;
use crate::keystore::outcome::{EntryStatus, HeldStatus, KeyStatus, RemoveError, StoreFault, StoreStatus, Verdict};
use crate::keystore::wire::{DescribeAnswer, DescribedEntry, OfKeyId, OfRegistration, ProblemKind, State, Status};

/// How often a store that stays silent is asked to remove or to confirm.
const TRIES: u8 = 2;

pub(super) fn describe_all(desk: &mut Desk, key_id: &KeyId, actions: &mut Vec<Action>) -> Round {
    let message = || Message::Describe(OfKeyId { key_id: key_id.clone() });
    let places = 0..desk.stores.count();
    Round::start(desk, actions, 1, places.map(|place| (place, message())))
}

/// What the stores that answered describe.
fn described(round: &Round) -> BTreeMap<Place, &DescribeAnswer> {
    let answers = round.results.iter().filter_map(|(place, result)| match result {
        Ok(Said::Describe(answer)) => Some((*place, answer.as_ref())),
        _ => None,
    });
    answers.collect()
}

pub(super) fn entries(round: &Round) -> BTreeMap<Place, &DescribedEntry> {
    let described = described(round).into_iter();
    described
        .filter_map(|(place, answer)| Some((place, answer.entry.as_ref()?)))
        .collect()
}

pub(super) fn tombstones(round: &Round) -> BTreeMap<RegistrationId, BTreeSet<Place>> {
    let mut found: BTreeMap<RegistrationId, BTreeSet<Place>> = BTreeMap::new();
    for (place, answer) in described(round) {
        for tombstone in &answer.tombstones {
            found.entry(tombstone.registration_id).or_default().insert(place);
        }
    }
    found
}

/// Stores whose answer is of no use, and why; those that have nothing for the caller among them.
fn unhelpful(desk: &Desk, round: &Round) -> Vec<StoreFault> {
    let results = round.results.iter();
    results
        .filter(|(_, result)| !matches!(result, Ok(Said::Describe(_))))
        .map(|(place, result)| desk.stores.fault(*place, describe_said(result)))
        .collect()
}

pub(super) fn step(desk: &mut Desk, round: &mut Round, event: Event, actions: &mut Vec<Action>) -> bool {
    round.handle(desk, event, actions);
    if desk.late() {
        round.close(actions);
    }
    round.over()
}

pub(super) fn wake_at(desk: &Desk, round: &Round) -> Duration {
    round.wake_at().map_or(desk.deadline, |at| at.min(desk.deadline))
}

// --- status -----------------------------------------------------------------------------------------------------------

/// The state machine of `status`.
pub struct AskStatus {
    desk: Desk,
    key_id: KeyId,
    threshold: u8,
    round: Option<Round>,
}

impl AskStatus {
    /// Asks all stores about `key_id`; `threshold` is m where no store tells.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, threshold: u8) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            threshold,
            round: None,
        }
    }

    /// What was learnt of store ids.
    pub fn stores(&self) -> &Stores {
        &self.desk.stores
    }

    fn status(&self, round: Round) -> KeyStatus {
        let stores = round.results.into_iter().map(|(place, result)| StoreStatus {
            store: self.desk.stores.label(place).to_owned(),
            store_id: self.desk.stores.id(place).cloned(),
            held: match (result, self.desk.stores.twin(place)) {
                (Ok(_), Some(twin)) => Err(self.desk.stores.fault(place, twin)),
                (Ok(Said::Describe(answer)), None) => Ok(held(*answer)),
                (Ok(Said::Problem(problem)), None) if problem.kind == ProblemKind::NotFound => {
                    Ok(HeldStatus::default())
                }
                (other, _) => Err(self.desk.stores.fault(place, describe_said(&other))),
            },
        });
        let stores: Vec<StoreStatus> = stores.collect();
        KeyStatus {
            key_id: self.key_id.clone(),
            verdict: verdict(&stores, self.threshold),
            stores,
        }
    }
}

fn held(answer: DescribeAnswer) -> HeldStatus {
    let entry = answer.entry.map(|entry| EntryStatus {
        constants: entry.constants,
        state: entry.state,
        restored: entry.restored,
        sharings: entry
            .sharings
            .into_iter()
            .map(|held| (held.sharing, held.state))
            .collect(),
        permissions: entry.permissions,
        created: entry.created,
        pending_seconds: entry.pending_seconds,
    });
    HeldStatus {
        entry,
        tombstones: answer.tombstones,
    }
}

/// What the answers of all stores mean together; `threshold` is m where no store tells.
pub fn verdict(stores: &[StoreStatus], threshold: u8) -> Verdict {
    let held: Vec<&HeldStatus> = stores.iter().filter_map(|store| store.held.as_ref().ok()).collect();
    let entries: Vec<&EntryStatus> = held.iter().filter_map(|held| held.entry.as_ref()).collect();
    // The registration that most stores have; of two with as many, the one that more have confirmed.
    let mut registrations: BTreeMap<RegistrationId, (usize, usize)> = BTreeMap::new();
    for entry in &entries {
        let count = registrations.entry(entry.constants.registration_id).or_default();
        count.0 += 1;
        count.1 += usize::from(entry.state == State::Confirmed);
    }
    let Some((registration, (_, confirmed))) = registrations.into_iter().max_by_key(|(_, count)| *count) else {
        let threshold = usize::from(threshold.max(1));
        return if held.iter().any(|held| !held.tombstones.is_empty()) {
            Verdict::Removed
        } else if held.len() + threshold > stores.len() {
            Verdict::Unknown
        } else {
            Verdict::Unclear
        };
    };
    let tombstones = held.iter().flat_map(|held| &held.tombstones);
    if tombstones
        .into_iter()
        .any(|tombstone| tombstone.registration_id == registration)
    {
        return Verdict::Removed;
    }
    let of_it = entries
        .iter()
        .filter(|entry| entry.constants.registration_id == registration);
    let waiting = of_it.clone().any(|entry| entry.state != State::Confirmed);
    let sharings = of_it.flat_map(|entry| &entry.sharings).map(|(sharing, _)| sharing);
    let highest = sharings.max_by_key(|sharing| sharing.order());
    let (m, n) = highest.map_or((threshold.into(), stores.len()), |sharing| {
        (usize::from(sharing.m), usize::from(sharing.n))
    });
    match confirmed {
        0 if held.len() == stores.len() => Verdict::Pending,
        0 => Verdict::Unclear,
        confirmed if confirmed >= n => Verdict::Registered,
        confirmed if confirmed >= m && !waiting => Verdict::Degraded,
        // those that are silent may well have confirmed it too
        confirmed if !waiting && confirmed + (stores.len() - held.len()) >= m => Verdict::Unclear,
        _ => Verdict::Unfinished,
    }
}

impl Machine for AskStatus {
    type Outcome = KeyStatus;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<KeyStatus> {
        let round = describe_all(&mut self.desk, &self.key_id, actions);
        if round.over() {
            return Some(self.status(round));
        }
        self.round = Some(round);
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<KeyStatus> {
        self.desk.now = now;
        let mut round = self.round.take()?;
        if step(&mut self.desk, &mut round, event, actions) {
            return Some(self.status(round));
        }
        self.round = Some(round);
        None
    }

    fn wake_at(&self) -> Option<Duration> {
        self.round.as_ref().map(|round| wake_at(&self.desk, round))
    }
}

// --- remove -----------------------------------------------------------------------------------------------------------

/// The state machine of `unregister`.
pub struct Remove {
    desk: Desk,
    key_id: KeyId,
    registration: Option<RegistrationId>,
    threshold: u8,
    phase: RemovePhase,
}

enum RemovePhase {
    New,
    Look(Round),
    Remove(RegistrationId, Round),
}

impl Remove {
    /// Removes that registration of `key_id`; without one, the one that the stores have.
    pub fn new(
        stores: Stores,
        deadline: Duration,
        key_id: KeyId,
        registration: Option<RegistrationId>,
        threshold: u8,
    ) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            registration,
            threshold,
            phase: RemovePhase::New,
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

    fn send(&mut self, registration_id: RegistrationId, actions: &mut Vec<Action>) {
        let remove = OfRegistration {
            key_id: self.key_id.clone(),
            registration_id,
        };
        let messages = (0..self.desk.stores.count()).map(|place| (place, Message::Remove(remove.clone())));
        let messages: Vec<_> = messages.collect();
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        self.phase = RemovePhase::Remove(registration_id, round);
    }

    /// Which registration is meant: the only one that no store has a tombstone of, else one whose removal is
    /// unfinished.
    fn meant(&self, round: &Round) -> Result<RegistrationId, RemoveError> {
        let mut holders: BTreeMap<RegistrationId, Vec<Place>> = BTreeMap::new();
        for (place, entry) in entries(round) {
            let registration = entry.constants.registration_id;
            holders.entry(registration).or_default().push(place);
        }
        let removed = tombstones(round);
        let living: Vec<RegistrationId> = holders.keys().filter(|id| !removed.contains_key(id)).copied().collect();
        match (&living[..], holders.len()) {
            ([only], _) => return Ok(*only),
            ([], 1) => return holders.into_keys().next().ok_or_else(|| self.not_found(round)),
            ([], 0) => {}
            _ => {
                let label = |(id, places): (RegistrationId, Vec<Place>)| (id, self.desk.stores.labels(places));
                return Err(RemoveError::Ambiguous {
                    key_id: self.key_id.clone(),
                    registrations: holders.into_iter().map(label).collect(),
                });
            }
        }
        // Nobody shows an entry. Where somebody stays silent, a removal seen elsewhere may not have reached it.
        let silent = round
            .results
            .values()
            .any(|result| !matches!(result, Ok(Said::Describe(_))));
        let all = described(round).into_values().flat_map(|answer| &answer.tombstones);
        match all.max_by(|a, b| a.at.cmp(&b.at)) {
            Some(latest) if silent => Ok(latest.registration_id),
            _ => Err(self.not_found(round)),
        }
    }

    fn not_found(&self, round: &Round) -> RemoveError {
        let key_id = self.key_id.clone();
        let faults = unhelpful(&self.desk, round);
        let n = self.desk.stores.count();
        let nothing = |result: &&Result<Said, String>| {
            matches!(result, Ok(Said::Describe(_))) || problem_of(result) == Some(ProblemKind::NotFound)
        };
        let answered = round.results.values().filter(nothing).count();
        // So few answered that the key may well be readable at the others.
        if answered + usize::from(self.threshold) <= n {
            return RemoveError::Incomplete {
                key_id,
                removed: 0,
                total: n,
                readable: true,
                faults,
            };
        }
        RemoveError::NotFound { key_id, faults }
    }

    fn removed(&self, registration_id: RegistrationId, round: &Round) -> Result<RegistrationId, RemoveError> {
        let n = self.desk.stores.count();
        // `other`: another registration lives there, but the tombstone of this one stands.
        let gone = |result: &Result<Said, String>| matches!(status_of(result), Some(Status::Ok | Status::Other));
        let removed = round.results.values().filter(|result| gone(result)).count();
        let enough = (n + 1).saturating_sub(usize::from(self.threshold.max(1)));
        let all = if self.desk.rules.hold(Rule::RemoveAll) {
            n
        } else {
            enough
        };
        if removed >= all {
            return Ok(registration_id);
        }
        let others = round.results.iter().filter(|(_, result)| !gone(result));
        let faults = others.map(|(place, result)| self.desk.stores.fault(*place, describe_said(result)));
        let key_id = self.key_id.clone();
        let denied = round
            .results
            .values()
            .filter(|result| problem_of(result) == Some(ProblemKind::NotFound));
        if denied.count() >= enough {
            let faults = faults.collect();
            return Err(RemoveError::NotFound { key_id, faults });
        }
        Err(RemoveError::Incomplete {
            key_id,
            removed,
            total: n,
            readable: removed < enough,
            faults: faults.collect(),
        })
    }
}

impl Machine for Remove {
    type Outcome = Result<RegistrationId, RemoveError>;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        match self.registration {
            Some(registration) => self.send(registration, actions),
            None => self.phase = RemovePhase::Look(describe_all(&mut self.desk, &self.key_id, actions)),
        }
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        match std::mem::replace(&mut self.phase, RemovePhase::New) {
            RemovePhase::New => None,
            RemovePhase::Look(mut round) => {
                if !step(&mut self.desk, &mut round, event, actions) {
                    self.phase = RemovePhase::Look(round);
                    return None;
                }
                match self.meant(&round) {
                    Ok(registration) => {
                        self.send(registration, actions);
                        None
                    }
                    Err(error) => Some(Err(error)),
                }
            }
            RemovePhase::Remove(registration, mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return Some(self.removed(registration, &round));
                }
                self.phase = RemovePhase::Remove(registration, round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            RemovePhase::New => None,
            RemovePhase::Look(round) | RemovePhase::Remove(_, round) => Some(wake_at(&self.desk, round)),
        }
    }
}
