//! Repairing what a client left behind: a removal that enough stores remember is finished, a registration that some store
//! has confirmed too, and one that nobody confirmed is taken back (`docs/src/protocol-walkthrough.md`).
//!
//! It never does more than its caller may at each store, and never deletes a confirmed share but to finish a removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::whole::{describe_all, entries, step, tombstones, wake_at};
use super::{
    Action, Desk, Event, Machine, Message, Place, Round, Rule, Said, Stores, describe_said, problem_of, status_of,
};
use crate::ids::RegistrationId;
use crate::key_id::KeyId;
use crate::keystore::outcome::{RepairError, RepairOptions, RepairReport, StoreFault};
use crate::keystore::wire::{Confirm, DescribedEntry, OfRegistration, ProblemKind, Sharing, State, Status, Undo};

/// How often a store that stays silent is asked to do something.
const TRIES: u8 = 2;
/// For how long a registration is left to whoever began it. Courtesy: a repair is as safe before.
const COURTESY_SECONDS: u64 = 15 * 60;

/// The state machine of `repair`.
pub struct Repair {
    desk: Desk,
    key_id: KeyId,
    min_threshold: u8,
    options: RepairOptions,
    found: Found,
    phase: Phase,
}

enum Phase {
    New,
    Look(Round),
    Act(BTreeMap<Place, Act>, Round),
    Stop(Unconfirmed, Round),
}

/// What was found, and what came of it so far.
#[derive(Default)]
struct Found {
    /// Stores that have it confirmed.
    whole: BTreeSet<Place>,
    /// Stores that have an entry.
    holders: BTreeSet<Place>,
    /// Registrations that no store has confirmed, to be stopped.
    unconfirmed: Vec<Unconfirmed>,
    done: Vec<(Place, &'static str)>,
    faults: Vec<(Place, String)>,
    /// Some registration was confirmed somewhere.
    confirmed: bool,
    /// Something of the key id was shown.
    seen: bool,
    /// Some store did not say what it has.
    silent: bool,
}

/// A registration that no store has confirmed, and what is there.
struct Unconfirmed {
    registration: RegistrationId,
    held: BTreeMap<Place, (Sharing, State)>,
}

/// What is being done at a store.
#[derive(Clone, Copy)]
enum Act {
    ConfirmPending,
    ConfirmStopped,
    Remove,
    Undo,
}

impl Act {
    fn done(self) -> &'static str {
        match self {
            Self::ConfirmPending => "confirmed what was pending",
            Self::ConfirmStopped => "confirmed what was stopped",
            Self::Remove => "finished the removal",
            Self::Undo => "took back what nobody confirmed",
        }
    }
}

impl Repair {
    /// Repairs `key_id`; `min_threshold` is the lowest m that a sharing may have.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, min_threshold: u8, options: RepairOptions) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            min_threshold,
            options,
            found: Found::default(),
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

    fn confirm(&self, registration_id: RegistrationId, sharing: &Sharing) -> Message {
        Message::Confirm(Confirm {
            key_id: self.key_id.clone(),
            registration_id,
            sharing: sharing.clone(),
            force: true,
        })
    }

    fn of(&self, registration_id: RegistrationId) -> OfRegistration {
        OfRegistration {
            key_id: self.key_id.clone(),
            registration_id,
        }
    }

    /// Everybody has answered, or the time is over.
    fn looked(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Result<RepairReport, RepairError>> {
        let entries = entries(round);
        let removed = tombstones(round);
        self.found.seen = !entries.is_empty() || !removed.is_empty();
        self.found.holders = entries.keys().copied().collect();
        for (place, result) in &round.results {
            match result {
                Ok(Said::Describe(answer)) if answer.entry.is_some() => {}
                Ok(Said::Describe(_)) => self.found.faults.push((*place, "has no share of it".to_owned())),
                other => {
                    self.found.silent |= problem_of(other) != Some(ProblemKind::NotFound);
                    self.found.faults.push((*place, describe_said(other)));
                }
            }
        }
        let mut acts = BTreeMap::new();
        let registrations: BTreeSet<RegistrationId> =
            entries.values().map(|entry| entry.constants.registration_id).collect();
        for registration in registrations {
            let of_it = entries
                .iter()
                .filter(|(_, entry)| entry.constants.registration_id == registration);
            let holders: Vec<(Place, &DescribedEntry)> = of_it.map(|(place, entry)| (*place, *entry)).collect();
            let tombstones = removed
                .get(&registration)
                .filter(|_| self.desk.rules.hold(Rule::RepairTombstone));
            match tombstones {
                Some(places) => self.finish_removal(registration, places, &holders, &mut acts),
                None => self.plan(registration, &holders, &mut acts),
            }
        }
        self.act(acts, actions)
    }

    /// A removal that so many stores remember that one of them is honest is finished; else the owner must say it again.
    fn finish_removal(
        &mut self,
        registration: RegistrationId,
        tombstones: &BTreeSet<Place>,
        holders: &[(Place, &DescribedEntry)],
        acts: &mut BTreeMap<Place, (Act, Message)>,
    ) {
        let n = self.desk.stores.count();
        let enough = match self.desk.rules.hold(Rule::TombstoneCount) {
            true => (n + 1).saturating_sub(usize::from(self.min_threshold.max(1))).max(1),
            false => 1,
        };
        for (place, _) in holders {
            if tombstones.len() >= enough {
                acts.insert(*place, (Act::Remove, Message::Remove(self.of(registration))));
                continue;
            }
            let of = tombstones.first().map_or("?", |place| self.desk.stores.label(*place));
            let reason = format!("has a registration whose removal {of} remembers: unregister it again");
            self.found.faults.push((*place, reason));
        }
    }

    fn plan(
        &mut self,
        registration: RegistrationId,
        holders: &[(Place, &DescribedEntry)],
        acts: &mut BTreeMap<Place, (Act, Message)>,
    ) {
        let any = !self.desk.rules.hold(Rule::RepairConfirmed);
        let confirmed: Vec<&Sharing> = holders
            .iter()
            .filter(|(_, entry)| entry.state == State::Confirmed || any)
            .flat_map(|(_, entry)| &entry.sharings)
            .filter(|held| held.state == State::Confirmed || any)
            .map(|held| &held.sharing)
            .collect();
        if confirmed.is_empty() {
            self.plan_unconfirmed(registration, holders);
            return;
        }
        self.found.confirmed = true;
        for (place, entry) in holders {
            if entry.state == State::Confirmed {
                self.found.whole.insert(*place);
                continue;
            }
            let same = entry.sharings.iter().find(|held| confirmed.contains(&&held.sharing));
            match same {
                Some(held) => {
                    let message = self.confirm(registration, &held.sharing);
                    acts.insert(*place, (confirming(entry.state), message));
                }
                None => {
                    let reason = "has another sharing than was confirmed".to_owned();
                    self.found.faults.push((*place, reason));
                }
            }
        }
    }

    /// Only where all have answered can it be that nobody has confirmed it.
    fn plan_unconfirmed(&mut self, registration: RegistrationId, holders: &[(Place, &DescribedEntry)]) {
        let young = holders.iter().find_map(|(place, entry)| {
            let seconds = entry.pending_seconds.unwrap_or(0);
            (seconds < COURTESY_SECONDS).then_some((*place, seconds))
        });
        match young.filter(|_| !self.options.now) {
            _ if self.found.silent => {
                let reason = "has a registration that no store which answered has confirmed";
                let faults = holders.iter().map(|(place, _)| (*place, reason.to_owned()));
                self.found.faults.extend(faults);
            }
            Some((place, seconds)) => {
                let reason = format!("has a registration that has been pending for {seconds} s and may be under way");
                self.found.faults.push((place, reason));
            }
            None => {
                let held = holders.iter().filter_map(|(place, entry)| {
                    let sharing = entry.sharings.first()?.sharing.clone();
                    Some((*place, (sharing, entry.state)))
                });
                let held = held.collect();
                self.found.unconfirmed.push(Unconfirmed { registration, held });
            }
        }
    }

    fn act(
        &mut self,
        acts: BTreeMap<Place, (Act, Message)>,
        actions: &mut Vec<Action>,
    ) -> Option<Result<RepairReport, RepairError>> {
        let kinds = acts.iter().map(|(place, (act, _))| (*place, *act)).collect();
        let messages = acts.into_iter().map(|(place, (_, message))| (place, message));
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        if round.over() {
            return self.go_on(actions);
        }
        self.phase = Phase::Act(kinds, round);
        None
    }

    fn acted(&mut self, acts: &BTreeMap<Place, Act>, round: &Round) {
        for (place, result) in &round.results {
            let Some(act) = acts.get(place) else {
                continue;
            };
            let gone = matches!(act, Act::Remove | Act::Undo);
            match status_of(result) {
                Some(Status::Ok) => {
                    self.found.done.push((*place, act.done()));
                    if gone {
                        self.found.holders.remove(place);
                        self.found.faults.retain(|(of, _)| of != place);
                    } else {
                        self.found.whole.insert(*place);
                    }
                }
                // What is to be gone is gone.
                Some(Status::Unknown | Status::Other) if gone => {
                    self.found.holders.remove(place);
                }
                _ => self.found.faults.push((*place, describe_said(result))),
            }
        }
    }

    /// The next registration that nobody has confirmed is stopped, or all is done.
    fn go_on(&mut self, actions: &mut Vec<Action>) -> Option<Result<RepairReport, RepairError>> {
        let Some(next) = self.found.unconfirmed.pop() else {
            return Some(self.outcome());
        };
        if !self.desk.rules.hold(Rule::StopFirst) {
            let acts = self.undo(&next);
            return self.act(acts, actions);
        }
        let messages = (0..self.desk.stores.count()).map(|place| (place, Message::Stop(self.of(next.registration))));
        let messages: Vec<_> = messages.collect();
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        self.phase = Phase::Stop(next, round);
        None
    }

    fn undo(&self, of: &Unconfirmed) -> BTreeMap<Place, (Act, Message)> {
        let undo = Undo {
            key_id: self.key_id.clone(),
            registration_id: of.registration,
            sharing: None,
        };
        let undo = |place: &Place| (*place, (Act::Undo, Message::Undo(undo.clone())));
        of.held.keys().map(undo).collect()
    }

    /// Stopping and confirming race at each store. All stopped: nobody confirmed it, and nobody can any more. One had it
    /// confirmed: somebody may have sealed with it, so it is finished. Any silent: that is not known, and all stays.
    fn stopped(
        &mut self,
        of: &Unconfirmed,
        round: &Round,
        actions: &mut Vec<Action>,
    ) -> Option<Result<RepairReport, RepairError>> {
        let with = |status: Status| {
            let found = round
                .results
                .iter()
                .filter(move |(_, result)| status_of(result) == Some(status));
            found.map(|(place, _)| *place).collect::<BTreeSet<Place>>()
        };
        let (stopped, confirmed) = (with(Status::Ok), with(Status::Confirmed));
        if stopped.len() == self.desk.stores.count() {
            let acts = self.undo(of);
            return self.act(acts, actions);
        }
        let others = round.results.iter();
        let others = others.filter(|(place, _)| !stopped.contains(place) && !confirmed.contains(place));
        self.found
            .faults
            .extend(others.map(|(place, result)| (*place, describe_said(result))));
        if confirmed.is_empty() {
            return self.go_on(actions);
        }
        self.found.confirmed = true;
        self.found.whole.extend(&confirmed);
        let held = of.held.iter().filter(|(place, _)| stopped.contains(place));
        let acts = held.map(|(place, (sharing, state))| {
            let message = self.confirm(of.registration, sharing);
            (*place, (confirming(*state), message))
        });
        let acts = acts.collect();
        self.act(acts, actions)
    }

    fn outcome(&mut self) -> Result<RepairReport, RepairError> {
        let key_id = self.key_id.clone();
        let mut found = std::mem::take(&mut self.found);
        found.faults.sort_by_key(|(place, _)| *place);
        let free = found.holders.is_empty() && !found.silent;
        if free {
            // That a store has nothing is as it should be now.
            found.faults.clear();
        }
        let stores = &self.desk.stores;
        let faults: Vec<StoreFault> = found
            .faults
            .into_iter()
            .map(|(place, reason)| stores.fault(place, reason))
            .collect();
        if !found.confirmed && found.done.is_empty() {
            return Err(match found.seen {
                true => RepairError::NotConfirmed { key_id, faults },
                false => RepairError::NotFound { key_id, faults },
            });
        }
        Ok(RepairReport {
            done: found
                .done
                .into_iter()
                .map(|(place, what)| (stores.label(place).to_owned(), what.to_owned()))
                .collect(),
            faults,
            whole: found.whole.len() == stores.count(),
            free,
        })
    }
}

fn confirming(before: State) -> Act {
    match before {
        State::Stopped => Act::ConfirmStopped,
        _ => Act::ConfirmPending,
    }
}

impl Machine for Repair {
    type Outcome = Result<RepairReport, RepairError>;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.phase = Phase::Look(describe_all(&mut self.desk, &self.key_id, actions));
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        match std::mem::replace(&mut self.phase, Phase::New) {
            Phase::New => None,
            Phase::Look(mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.looked(&round, actions);
                }
                self.phase = Phase::Look(round);
                None
            }
            Phase::Act(acts, mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    self.acted(&acts, &round);
                    return self.go_on(actions);
                }
                self.phase = Phase::Act(acts, round);
                None
            }
            Phase::Stop(of, mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.stopped(&of, &round, actions);
                }
                self.phase = Phase::Stop(of, round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::New => None,
            Phase::Look(round) | Phase::Act(_, round) | Phase::Stop(_, round) => Some(wake_at(&self.desk, round)),
        }
    }
}
