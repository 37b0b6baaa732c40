//! Registering a key: pending entries at all stores, then confirm; before the first confirm any failure is undone,
//! after it nothing ever is (`docs/src/protocol-walkthrough.md`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    Action, Desk, Event, Machine, Message, Place, Round, Rule, Said, Stores, describe_said, problem_of, status_of,
};
use crate::ids::{RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::outcome::{LocalError, RegisterError, Registered, StoreFault};
use crate::keystore::wire::{Confirm, Create, ProblemKind, Sharing, State, Status, Undo, VERSION};

/// A fresh key, split: what each store is to be told, in the order of the configuration.
pub struct Dealt {
    /// The registration drawn.
    pub registration_id: RegistrationId,
    /// How the key was split.
    pub sharing: Sharing,
    /// One message for each store.
    pub creates: Vec<Create>,
}

/// How often a store that stays silent is asked to confirm.
const CONFIRM_TRIES: u8 = 3;
/// How long stores that stayed silent before are waited for when a registration is undone.
const UNDO_GRACE: Duration = Duration::from_secs(1);

/// The state machine of `register`.
pub struct Register<D> {
    desk: Desk,
    key_id: KeyId,
    m: u8,
    degraded: bool,
    deal: D,
    /// Random pauses before it is tried again; their number is the number of further tries.
    pauses: Vec<Duration>,
    registration_id: RegistrationId,
    sharing: Option<Sharing>,
    phase: Phase,
}

enum Phase {
    New,
    Ids(Round),
    Create(Round),
    Undo { round: Round, until: Duration, then: After },
    Pause { until: Duration },
    Confirm(Round),
}

/// What follows when all is undone.
enum After {
    TryAgain(Duration),
    Fail(RegisterError),
}

impl<D: FnMut(&[StoreId]) -> Result<Dealt, LocalError>> Register<D> {
    /// `deal` draws a fresh key and registration and splits it over the stores named; `pauses` are random.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, m: u8, degraded: bool, deal: D) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            m,
            degraded,
            deal,
            pauses: Vec::new(),
            registration_id: RegistrationId::ZERO,
            sharing: None,
            phase: Phase::New,
        }
    }

    /// Tries again after each of `pauses` (drawn at random) where two registrations at once split the stores.
    #[must_use]
    pub fn try_again_after(mut self, mut pauses: Vec<Duration>) -> Self {
        pauses.reverse();
        self.pauses = pauses;
        self
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

    /// How many stores suffice.
    fn need(&self) -> usize {
        let n = self.desk.stores.count();
        let m = usize::from(self.m);
        match self.degraded {
            false => n,
            true if self.desk.rules.hold(Rule::Majority) => (m + 1).max(n / 2 + 1).min(n),
            true => m.min(n),
        }
    }

    /// The sharing names its stores, so all ids must be known before anything is sent.
    fn ids_known(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Result<Registered, RegisterError>> {
        let stores = &self.desk.stores;
        let fault = |place: Place| {
            let answer = round.results.get(&place);
            let reason = match answer {
                Some(Ok(Said::About(about))) if !about.protocols.contains(&VERSION) => {
                    format!("speaks versions {:?} of the protocol, not {VERSION}", about.protocols)
                }
                Some(Ok(Said::About(_))) | None => stores.twin(place)?,
                Some(other) if stores.id(place).is_some() => describe_said(other),
                Some(other) => format!("{}, and its id is not in the configuration", describe_said(other)),
            };
            Some(stores.fault(place, reason))
        };
        let faults: Vec<StoreFault> = (0..stores.count()).filter_map(fault).collect();
        if faults.is_empty() {
            return self.attempt(actions);
        }
        Some(Err(RegisterError::TooFewStores {
            key_id: self.key_id.clone(),
            have: stores.count() - faults.len(),
            need: self.need(),
            faults,
            left_pending: Vec::new(),
        }))
    }

    fn attempt(&mut self, actions: &mut Vec<Action>) -> Option<Result<Registered, RegisterError>> {
        let ids: Vec<StoreId> = (0..self.desk.stores.count())
            .filter_map(|place| self.desk.stores.id(place).cloned())
            .collect();
        let dealt = match (self.deal)(&ids) {
            Ok(dealt) => dealt,
            Err(error) => return Some(Err(error.into())),
        };
        self.registration_id = dealt.registration_id;
        self.sharing = Some(dealt.sharing);
        let messages = dealt
            .creates
            .into_iter()
            .map(|create| Message::Create(Box::new(create)));
        self.phase = Phase::Create(Round::start(&mut self.desk, actions, 1, messages.enumerate()));
        None
    }

    /// All have answered `create`, or the time is over.
    fn created(&mut self, round: &Round, actions: &mut Vec<Action>) {
        let with = |status: Status| -> BTreeSet<Place> {
            let found = round
                .results
                .iter()
                .filter(|(_, result)| status_of(result) == Some(status));
            found.map(|(place, _)| *place).collect()
        };
        let ok = with(Status::Ok);
        let exists = with(Status::Exists);
        let clash = !exists.is_empty() || !with(Status::Removed).is_empty() || !with(Status::Stopped).is_empty();
        let clash = clash && (self.desk.rules.hold(Rule::Clash) || !self.degraded);
        if !clash && ok.len() >= self.need() {
            self.confirm(&ok, actions);
            return;
        }
        let then = if !exists.is_empty() && !ok.is_empty() && !shown_confirmed(round) {
            self.pauses.pop().map(After::TryAgain)
        } else {
            None
        };
        let then = then.unwrap_or_else(|| After::Fail(self.refusal(round, &ok, &exists)));
        // Who said ok has a pending entry; who said nothing may have one.
        let touched = round.results.iter().filter(|(_, result)| {
            let unclear = result.is_err() || problem_of(result) == Some(ProblemKind::Internal);
            unclear || status_of(result) == Some(Status::Ok)
        });
        let undo = Undo {
            key_id: self.key_id.clone(),
            registration_id: self.registration_id,
            sharing: None,
        };
        let messages: Vec<_> = touched
            .map(|(place, _)| (*place, Message::Undo(undo.clone())))
            .collect();
        self.phase = Phase::Undo {
            round: Round::start(&mut self.desk, actions, 1, messages),
            until: self.desk.now + UNDO_GRACE,
            then,
        };
    }

    fn refusal(&self, round: &Round, ok: &BTreeSet<Place>, exists: &BTreeSet<Place>) -> RegisterError {
        let key_id = self.key_id.clone();
        if !exists.is_empty() {
            let unfinished = round.results.values().any(|result| match result {
                Ok(Said::Changed(changed)) => changed.state.is_some_and(|state| state != State::Confirmed),
                _ => false,
            });
            // Where others were free, the registration that we met is not everywhere.
            return RegisterError::Exists {
                key_id,
                unfinished: unfinished || !ok.is_empty(),
            };
        }
        let others = round.results.iter().filter(|(place, _)| !ok.contains(place));
        let faults = others
            .map(|(place, result)| self.desk.stores.fault(*place, describe_said(result)))
            .collect();
        let denied = round.results.values();
        let denied = denied
            .filter(|result| problem_of(result) == Some(ProblemKind::NotAllowed))
            .count();
        // Where all others coming back would not be enough, trying later does not help.
        if denied > self.desk.stores.count() - self.need() {
            return RegisterError::NotAllowed { key_id, faults };
        }
        RegisterError::TooFewStores {
            key_id,
            have: ok.len(),
            need: self.need(),
            faults,
            left_pending: Vec::new(),
        }
    }

    fn undone(&mut self, round: &Round, then: After) -> Option<Result<Registered, RegisterError>> {
        let left = round.results.iter().filter(|(_, result)| {
            let gone = matches!(status_of(result), Some(Status::Ok | Status::Unknown));
            !gone && problem_of(result) != Some(ProblemKind::NotFound)
        });
        let left = self.desk.stores.labels(left.map(|(place, _)| *place));
        match then {
            After::TryAgain(pause) if self.desk.now + pause < self.desk.deadline => {
                self.phase = Phase::Pause {
                    until: self.desk.now + pause,
                };
                None
            }
            After::TryAgain(_) => Some(Err(RegisterError::Exists {
                key_id: self.key_id.clone(),
                unfinished: true,
            })),
            After::Fail(mut error) => {
                if let RegisterError::TooFewStores { left_pending, .. } = &mut error {
                    *left_pending = left;
                }
                Some(Err(error))
            }
        }
    }

    fn confirm(&mut self, places: &BTreeSet<Place>, actions: &mut Vec<Action>) {
        let Some(sharing) = self.sharing.clone() else {
            return;
        };
        let confirm = Confirm {
            key_id: self.key_id.clone(),
            registration_id: self.registration_id,
            sharing,
            force: false,
        };
        let messages = places.iter().map(|place| (*place, Message::Confirm(confirm.clone())));
        self.phase = Phase::Confirm(Round::start(&mut self.desk, actions, CONFIRM_TRIES, messages));
    }

    /// From here on nothing is undone, whatever the stores said: somebody may have sealed with the key.
    fn confirmed(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Result<Registered, RegisterError>> {
        let stores = &self.desk.stores;
        let n = stores.count();
        let (done, others): (Vec<_>, Vec<_>) =
            (0..n).partition(|place| round.results.get(place).and_then(status_of) == Some(Status::Ok));
        let suffices = others.is_empty() || self.degraded && done.len() >= self.need();
        if suffices {
            return Some(Ok(Registered {
                registration_id: self.registration_id,
                confirmed: stores.labels(done),
                missing: stores.labels(others),
            }));
        }
        let fault = |place: Place| match round.results.get(&place) {
            Some(result) => stores.fault(place, describe_said(result)),
            None => stores.fault(place, "has no share of it"),
        };
        let error = RegisterError::Unfinished {
            key_id: self.key_id.clone(),
            confirmed: done.len(),
            total: n,
            faults: others.into_iter().map(fault).collect(),
        };
        if self.desk.rules.hold(Rule::NeverUndo) {
            return Some(Err(error));
        }
        let undo = Undo {
            key_id: self.key_id.clone(),
            registration_id: self.registration_id,
            sharing: None,
        };
        let messages = (0..n).map(|place| (place, Message::Undo(undo.clone())));
        self.phase = Phase::Undo {
            round: Round::start(&mut self.desk, actions, 1, messages),
            until: self.desk.now + UNDO_GRACE,
            then: After::Fail(error),
        };
        None
    }
}

/// Whether some store showed us that the other registration is confirmed, so that trying again is no use.
fn shown_confirmed(round: &Round) -> bool {
    round.results.values().any(|result| match result {
        Ok(Said::Changed(changed)) => changed.status == Status::Exists && changed.state == Some(State::Confirmed),
        _ => false,
    })
}

impl<D: FnMut(&[StoreId]) -> Result<Dealt, LocalError>> Machine for Register<D> {
    type Outcome = Result<Registered, RegisterError>;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        let unknown = (0..self.desk.stores.count()).filter(|place| self.desk.stores.id(*place).is_none());
        let messages: Vec<_> = unknown.map(|place| (place, Message::About)).collect();
        let round = Round::start(&mut self.desk, actions, 1, messages);
        if round.over() {
            return self.ids_known(&round, actions);
        }
        self.phase = Phase::Ids(round);
        None
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        let late = self.desk.late();
        match std::mem::replace(&mut self.phase, Phase::New) {
            Phase::New => None,
            Phase::Ids(mut round) => {
                round.handle(&mut self.desk, event, actions);
                if late {
                    round.close(actions);
                }
                if round.over() {
                    return self.ids_known(&round, actions);
                }
                self.phase = Phase::Ids(round);
                None
            }
            Phase::Create(mut round) => {
                round.handle(&mut self.desk, event, actions);
                if late {
                    round.close(actions);
                }
                if round.over() {
                    self.created(&round, actions);
                    return self.nothing_to_undo();
                }
                self.phase = Phase::Create(round);
                None
            }
            Phase::Undo { mut round, until, then } => {
                round.handle(&mut self.desk, event, actions);
                if now >= until {
                    round.close(actions);
                }
                if round.over() {
                    return self.undone(&round, then);
                }
                self.phase = Phase::Undo { round, until, then };
                None
            }
            Phase::Pause { until } if now >= until => self.attempt(actions),
            Phase::Pause { until } => {
                self.phase = Phase::Pause { until };
                None
            }
            Phase::Confirm(mut round) => {
                round.handle(&mut self.desk, event, actions);
                if late {
                    round.close(actions);
                }
                if round.over() {
                    return self.confirmed(&round, actions);
                }
                self.phase = Phase::Confirm(round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        let (round, own) = match &self.phase {
            Phase::New => return None,
            Phase::Ids(round) | Phase::Create(round) | Phase::Confirm(round) => (Some(round), self.desk.deadline),
            Phase::Undo { round, until, .. } => (Some(round), *until),
            Phase::Pause { until } => (None, *until),
        };
        Some(round.and_then(Round::wake_at).map_or(own, |at| at.min(own)))
    }
}

impl<D: FnMut(&[StoreId]) -> Result<Dealt, LocalError>> Register<D> {
    /// Where nobody took the entry there is nothing to wait for.
    fn nothing_to_undo(&mut self) -> Option<Result<Registered, RegisterError>> {
        match std::mem::replace(&mut self.phase, Phase::New) {
            Phase::Undo { round, then, .. } if round.over() => self.undone(&round, then),
            phase => {
                self.phase = phase;
                None
            }
        }
    }
}
