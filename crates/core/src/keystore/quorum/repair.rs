//! Making a key whole again: what a client left half-done is finished or taken back, what a store lost, or has from an
//! old backup, is brought up to date (`docs/src/protocol-walkthrough.md`). What is to be done is decided in [`plan`].
//!
//! It never does more than its caller may at each store, and never deletes a confirmed share but to finish a removal,
//! or below a sharing that is whole.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::plan::{About, Deed, Plan, Shares};
use super::survey::{Held, Highest, Look, Survey};
use super::whole::{step, wake_at};
use super::{Action, Desk, Event, Machine, Message, Place, Round, Rule, Stores, describe_said, status_of};
use crate::ids::RegistrationId;
use crate::key_id::KeyId;
use crate::keystore::outcome::{RepairError, RepairOptions, RepairReport, StoreFault};
use crate::keystore::wire::{State, Status};
use crate::permissions::PermissionRecord;

/// How often a store that stays silent is asked to do something.
const TRIES: u8 = 2;

/// The state machine of `repair`.
pub struct Repair {
    desk: Desk,
    key_id: KeyId,
    min_threshold: u8,
    options: RepairOptions,
    /// How long each step may take.
    span: Duration,
    survey: Survey,
    /// Registrations that were seen to.
    seen_to: BTreeSet<RegistrationId>,
    task: Task,
    found: Found,
    phase: Phase,
}

enum Phase {
    New,
    Look(Look),
    Act(BTreeMap<Place, Deed>, Round, Next),
    Stop(Round),
}

/// The registration that is being repaired.
struct Task {
    registration: RegistrationId,
    highest: Option<Highest>,
    majority: Option<PermissionRecord>,
    whole: BTreeSet<Place>,
    unseen: BTreeSet<Place>,
    /// Stores of its sharing that nobody is here.
    strangers: Vec<String>,
}

impl Task {
    fn of(registration: RegistrationId) -> Self {
        Self {
            registration,
            highest: None,
            majority: None,
            whole: BTreeSet::new(),
            unseen: BTreeSet::new(),
            strangers: Vec::new(),
        }
    }
}

/// What comes after a round.
#[derive(Clone, Copy)]
enum Next {
    Registration,
    Permissions,
    Shares,
    Drops,
    Done,
}

/// What came of it so far.
#[derive(Default)]
struct Found {
    done: Vec<(Place, Deed)>,
    faults: Vec<(Place, String)>,
    /// Some registration was confirmed somewhere.
    confirmed: bool,
    /// Something of the key id was shown.
    seen: bool,
    /// A removal could not be finished.
    half_removed: bool,
    /// Some registration is at every store of its sharing.
    whole: BTreeSet<Place>,
    complete: bool,
    strangers: Vec<String>,
    lost: Option<Vec<String>>,
    unchecked: bool,
    unverified: bool,
}

type Ended = Result<RepairReport, RepairError>;

impl Repair {
    /// Repairs `key_id`; `min_threshold` is the lowest m that a sharing may have.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, min_threshold: u8, options: RepairOptions) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            min_threshold,
            options,
            span: deadline,
            survey: Survey::default(),
            seen_to: BTreeSet::new(),
            task: Task::of(RegistrationId::ZERO),
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

    fn about(&self) -> About<'_> {
        About {
            stores: &self.desk.stores,
            survey: &self.survey,
            key_id: &self.key_id,
            registration: self.task.registration,
            rules: self.desk.rules,
        }
    }

    // --- what comes next ------------------------------------------------------------------------------------------------

    /// Everybody has answered, or the time is over.
    fn looked(&mut self, look: Look, actions: &mut Vec<Action>) -> Option<Ended> {
        self.survey = Survey::of(&self.desk, look);
        self.survey.all_count = !self.desk.rules.hold(Rule::RepairConfirmed);
        self.found.seen = !self.survey.registrations().is_empty() || !self.survey.tombstones.is_empty();
        self.go(Next::Registration, actions)
    }

    /// Goes on until messages are under way, or all is done. In a dry run none ever are.
    fn go(&mut self, next: Next, actions: &mut Vec<Action>) -> Option<Ended> {
        let mut next = next;
        loop {
            let (plan, after) = match next {
                Next::Registration => match self.next_registration() {
                    None => return Some(self.outcome()),
                    Some(registration) => {
                        self.task = Task::of(registration);
                        self.begin(actions)?
                    }
                },
                Next::Permissions => (self.permissions(), Next::Shares),
                Next::Shares => (self.shares(), Next::Drops),
                Next::Drops => (self.drops(), Next::Done),
                Next::Done => {
                    self.end_of_task();
                    next = Next::Registration;
                    continue;
                }
            };
            self.found.faults.extend(plan.faults);
            if self.options.dry_run {
                for (place, (deed, _)) in plan.acts {
                    self.did(place, deed);
                }
            } else if !plan.acts.is_empty() {
                self.act(plan.acts, after, actions);
                return None;
            }
            next = after;
        }
    }

    /// What is being removed, then what nobody has confirmed, and only then the rest, which finds those places free.
    fn next_registration(&mut self) -> Option<RegistrationId> {
        let class = |of: &RegistrationId| match (self.is_removed(*of), self.survey.confirmed(*of).is_empty()) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let registrations = self.survey.registrations();
        let left = registrations.difference(&self.seen_to).copied();
        let next = left.min_by_key(class)?;
        self.seen_to.insert(next);
        Some(next)
    }

    fn is_removed(&self, of: RegistrationId) -> bool {
        self.desk.rules.hold(Rule::RepairTombstone) && self.survey.tombstones.contains_key(&of)
    }

    /// None where `stop` is under way.
    fn begin(&mut self, actions: &mut Vec<Action>) -> Option<(Plan, Next)> {
        let registration = self.task.registration;
        if self.is_removed(registration) {
            return Some((self.removal(), Next::Registration));
        }
        if !self.survey.confirmed(registration).is_empty() {
            self.found.confirmed = true;
            return Some((Plan::default(), Next::Permissions));
        }
        if let Some(faults) = plan::leave_unconfirmed(&self.about(), self.options.now) {
            let acts = BTreeMap::new();
            return Some((Plan { acts, faults }, Next::Registration));
        }
        if self.options.dry_run || !self.desk.rules.hold(Rule::StopFirst) {
            return Some((plan::undo(&self.about()), Next::Registration));
        }
        let stop = self.about().stop();
        let messages = (0..self.desk.stores.count()).filter_map(|place| Some((place, stop.again()?)));
        let messages: Vec<(Place, Message)> = messages.collect();
        self.extend();
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        self.phase = Phase::Stop(round);
        None
    }

    fn removal(&mut self) -> Plan {
        let n = self.desk.stores.count();
        let enough = match self.desk.rules.hold(Rule::TombstoneCount) {
            true => (n + 1).saturating_sub(usize::from(self.min_threshold.max(1))).max(1),
            false => 1,
        };
        let none = BTreeSet::new();
        let tombstones = self.survey.tombstones.get(&self.task.registration);
        let plan = plan::finish_removal(&self.about(), tombstones.unwrap_or(&none), enough);
        self.found.half_removed |= !plan.faults.is_empty();
        plan
    }

    /// Before the shares: what was restored from a backup is opened only with the permissions of now.
    fn permissions(&mut self) -> Plan {
        self.task.majority = plan::settled(&self.about(), &self.options);
        plan::even_out(&self.about(), self.task.majority.as_ref(), &self.options)
    }

    fn shares(&mut self) -> Plan {
        let registration = self.task.registration;
        let least = self.min_threshold;
        let highest = self
            .survey
            .highest(&self.desk.stores, &self.key_id, registration, least);
        let shares = match &highest {
            Some(highest) => plan::complete(&self.about(), highest, self.task.majority.as_ref()),
            None => {
                self.why_nothing_joins();
                plan::confirm_all(&self.about())
            }
        };
        let Shares {
            plan,
            whole,
            unseen,
            strangers,
        } = shares;
        self.found.unverified |= highest.as_ref().is_some_and(|highest| !highest.joined.verified);
        self.task = Task {
            highest,
            whole,
            unseen,
            strangers,
            majority: self.task.majority.take(),
            registration,
        };
        plan
    }

    fn why_nothing_joins(&mut self) {
        let confirmed = self.survey.confirmed(self.task.registration);
        let low = confirmed.iter().all(|(_, sharing)| sharing.m < self.min_threshold);
        if !self.survey.reads || confirmed.is_empty() {
            self.found.unchecked = true;
            return;
        }
        if low {
            let reason = format!(
                "has shares of which fewer join than the {} that the configuration asks for",
                self.min_threshold
            );
            let entries = self.survey.entries(self.task.registration);
            self.found
                .faults
                .extend(entries.map(|(place, _)| (place, reason.clone())));
            return;
        }
        let stores = &self.desk.stores;
        let out_of_reach = self.survey.held.iter().filter(|(_, held)| match held {
            Held::Unknown(_) => true,
            Held::Entry(view) => view.restored,
            Held::Nothing(_) => false,
        });
        let mut unless: Vec<String> = out_of_reach.map(|(place, _)| stores.label(*place).to_owned()).collect();
        if unless.is_empty() {
            let known = |id| (0..stores.count()).any(|place| stores.id(place) == Some(id));
            let listed = confirmed.iter().flat_map(|(_, sharing)| &sharing.stores);
            let strangers: BTreeSet<String> = listed.filter(|id| !known(*id)).map(ToString::to_string).collect();
            unless.extend(strangers);
        }
        self.found.lost = Some(unless);
    }

    /// Only where every share of the highest sharing is known to be good.
    fn drops(&mut self) -> Plan {
        let task = &self.task;
        let one_key = |highest: &&Highest| !highest.contested || !self.desk.rules.hold(Rule::OneKey);
        let Some(highest) = task.highest.as_ref().filter(one_key) else {
            return Plan::default();
        };
        let n = highest.sharing.stores.len();
        let everywhere = task.whole.len() == n && task.unseen.is_empty();
        if everywhere || !self.desk.rules.hold(Rule::DropAfterAll) {
            return plan::drop_earlier(&self.about(), highest);
        }
        Plan::default()
    }

    fn end_of_task(&mut self) {
        let task = std::mem::replace(&mut self.task, Task::of(RegistrationId::ZERO));
        let n = match &task.highest {
            Some(highest) => highest.sharing.stores.len(),
            None => {
                let confirmed = self.survey.confirmed(task.registration);
                let n = confirmed.first().map(|(_, sharing)| sharing.stores.len());
                n.unwrap_or(self.desk.stores.count())
            }
        };
        self.found.complete |= task.whole.len() >= n;
        self.found.unchecked |= !task.unseen.is_empty();
        self.found.whole.extend(task.whole);
        self.found.strangers.extend(task.strangers);
    }

    // --- doing it -------------------------------------------------------------------------------------------------------

    /// Each step has the whole time again: a hung store must not take it from the steps that follow.
    fn extend(&mut self) {
        self.desk.deadline = self.desk.now + self.span;
    }

    fn act(&mut self, acts: BTreeMap<Place, (Deed, Message)>, after: Next, actions: &mut Vec<Action>) {
        self.extend();
        let deeds = acts.iter().map(|(place, (deed, _))| (*place, *deed)).collect();
        let messages = acts.into_iter().map(|(place, (_, message))| (place, message));
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        self.phase = Phase::Act(deeds, round, after);
    }

    fn acted(&mut self, deeds: &BTreeMap<Place, Deed>, round: &Round) {
        for (place, result) in &round.results {
            let Some(deed) = deeds.get(place) else {
                continue;
            };
            match status_of(result) {
                Some(Status::Ok) => self.did(*place, *deed),
                // What is to be gone is gone.
                Some(Status::Unknown | Status::Other) if deed.ends() => self.gone(*place),
                _ => self.found.faults.push((*place, describe_said(result))),
            }
        }
    }

    fn did(&mut self, place: Place, deed: Deed) {
        self.found.done.push((place, deed));
        match deed {
            Deed::Remove | Deed::Undo => self.gone(place),
            Deed::Permissions => {
                if let Some(Held::Entry(view)) = self.survey.held.get_mut(&place) {
                    view.record.clone_from(&self.task.majority);
                }
            }
            Deed::Drop => {}
            _ => {
                self.task.whole.insert(place);
            }
        }
    }

    fn gone(&mut self, place: Place) {
        let nothing = Held::Nothing("has no share of it".to_owned());
        self.survey.held.insert(place, nothing);
    }

    /// Stopping and confirming race at each store. All stopped: nobody confirmed it, and nobody can any more. One had
    /// it confirmed: somebody may have sealed with it, so it is finished. Any silent: that is not known, and all stays.
    fn stopped(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Ended> {
        let with = |status: Status| {
            let found = round.results.iter();
            let found = found.filter(move |(_, result)| status_of(result) == Some(status));
            found.map(|(place, _)| *place).collect::<BTreeSet<Place>>()
        };
        let (stopped, confirmed) = (with(Status::Ok), with(Status::Confirmed));
        if stopped.len() == self.desk.stores.count() {
            let plan = plan::undo(&self.about());
            self.act(plan.acts, Next::Registration, actions);
            return None;
        }
        let others = round.results.iter();
        let others = others.filter(|(place, _)| !stopped.contains(place) && !confirmed.contains(place));
        let others = others.map(|(place, result)| (*place, describe_said(result)));
        self.found.faults.extend(others);
        if confirmed.is_empty() {
            return self.go(Next::Registration, actions);
        }
        self.found.confirmed = true;
        for place in confirmed {
            if let Some(Held::Entry(view)) = self.survey.held.get_mut(&place) {
                view.state = State::Confirmed;
                view.sharings.iter_mut().for_each(|held| held.state = State::Confirmed);
            }
        }
        self.go(Next::Permissions, actions)
    }

    // --- what came of it ------------------------------------------------------------------------------------------------

    fn outcome(&mut self) -> Ended {
        let key_id = self.key_id.clone();
        let found = std::mem::take(&mut self.found);
        let free = self.survey.registrations().is_empty() && !self.survey.silent();
        let mut faults = found.faults;
        for (place, held) in &self.survey.held {
            match held {
                Held::Unknown(reason) => faults.push((*place, reason.clone())),
                Held::Nothing(reason) if !free && !found.complete && !found.whole.contains(place) => {
                    if !faults.iter().any(|(of, _)| of == place) {
                        faults.push((*place, reason.clone()));
                    }
                }
                Held::Nothing(_) | Held::Entry(_) => {}
            }
        }
        faults.sort_by_key(|(place, _)| *place);
        let stores = &self.desk.stores;
        let named = faults.into_iter().map(|(place, reason)| stores.fault(place, reason));
        let strangers = found
            .strangers
            .into_iter()
            .map(|store| StoreFault::new(store, "should have a share of it and is no store of the configuration"));
        let faults: Vec<StoreFault> = named.chain(strangers).collect();
        if !found.confirmed && found.done.is_empty() {
            return Err(match found.seen {
                _ if found.half_removed => RepairError::HalfRemoved { key_id, faults },
                true => RepairError::NotConfirmed { key_id, faults },
                false => RepairError::NotFound { key_id, faults },
            });
        }
        let dry_run = self.options.dry_run;
        let words = |(place, deed): &(Place, Deed)| (stores.label(*place).to_owned(), deed.words(dry_run).to_owned());
        let as_it_is = !dry_run || found.done.is_empty();
        Ok(RepairReport {
            done: found.done.iter().map(words).collect(),
            whole: found.complete && faults.is_empty() && as_it_is,
            faults,
            free: free && as_it_is,
            lost: found.lost,
            unchecked: found.unchecked,
            unverified: found.unverified,
        })
    }
}

impl Machine for Repair {
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
            Phase::Act(deeds, mut round, after) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    self.acted(&deeds, &round);
                    return self.go(after, actions);
                }
                self.phase = Phase::Act(deeds, round, after);
                None
            }
            Phase::Stop(mut round) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.stopped(&round, actions);
                }
                self.phase = Phase::Stop(round);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::New => None,
            Phase::Look(look) => Some(look.wake_at(&self.desk)),
            Phase::Act(_, round, _) | Phase::Stop(round) => Some(wake_at(&self.desk, round)),
        }
    }
}
