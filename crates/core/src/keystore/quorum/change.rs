//! Changing permissions: which record holds where stores disagree, and bringing a new one to all of them
//! (`docs/src/protocol-walkthrough.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::whole::{describe_all, entries, step, wake_at};
use super::{Action, Desk, Event, Machine, Message, Place, Round, Said, Stores, describe_said, problem_of, status_of};
use crate::ids::{ChangeId, RegistrationId};
use crate::key_id::KeyId;
use crate::keystore::agreement::{
    ChangeError, ChangeOptions, InForce, PermissionsChanged, RecordHeld, grants_more, most_common, without_grants,
};
use crate::keystore::outcome::StoreFault;
use crate::keystore::wire::{self, DescribedEntry, ProblemKind, Status};
use crate::permissions::PermissionRecord;

/// Which permission record of one registration holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base<'r> {
    /// More than half of the stores say this, and none says something else in a later version.
    Settled(&'r PermissionRecord),
    /// More than half say one thing, but a store says another in a later version: a change that died half-way, which
    /// may be a revocation. Nobody may overwrite it unasked.
    Overtaken {
        /// What more than half say.
        majority: &'r PermissionRecord,
        /// The latest of the others.
        latest: &'r PermissionRecord,
    },
    /// No more than half of the stores say the same.
    Split,
}

/// Which of the records `held` by those of `n` stores that answered is the one that counts.
///
/// Records that say the same count together, whatever their version: a grant that was undone at one store has a later
/// version there and says what all say. Of those, the one that most stores hold is answered, of as many the earliest,
/// so that no single store makes versions grow.
pub fn base<'r>(n: usize, held: impl IntoIterator<Item = &'r PermissionRecord>) -> Base<'r> {
    let held: Vec<&PermissionRecord> = held.into_iter().collect();
    let votes = |record: &PermissionRecord| held.iter().filter(|other| other.says_the_same_as(record)).count();
    let Some(one) = held.iter().copied().find(|record| votes(record) * 2 > n) else {
        return Base::Split;
    };
    let (ours, others): (Vec<&PermissionRecord>, Vec<&PermissionRecord>) =
        held.iter().partition(|record| record.says_the_same_as(one));
    let holders = |record: &PermissionRecord| ours.iter().filter(|other| other.same_as(record)).count();
    let earliest_of_most = |record: &&PermissionRecord| (holders(record), std::cmp::Reverse(record.version));
    let majority = ours.iter().copied().max_by_key(earliest_of_most).unwrap_or(one);
    match others.into_iter().max_by_key(|record| record.version) {
        Some(latest) if latest.version > majority.version => Base::Overtaken { majority, latest },
        _ => Base::Settled(majority),
    }
}

/// How often a store that stays silent is asked to change its record.
const TRIES: u8 = 2;
/// How often a record that a store turns out to hold is replaced: by then somebody else is at work there.
const TURNS: u8 = 5;
/// How long stores that stayed silent before are waited for when a grant is taken back.
const UNDO_GRACE: Duration = Duration::from_secs(2);

/// The state machine of a change: asks all stores what they hold, and brings the edited record to each, in place of the
/// very record that it holds.
pub struct Change<E> {
    desk: Desk,
    key_id: KeyId,
    edit: E,
    options: ChangeOptions,
    /// m where no store tells.
    threshold: u8,
    /// Of the change, and of its undoing.
    change_ids: [ChangeId; 2],
    phase: Phase,
}

enum Phase {
    New,
    Look(Round),
    Send(Round, Box<Work>),
}

/// A change under way.
struct Work {
    registration_id: RegistrationId,
    /// The record that was edited.
    before: PermissionRecord,
    /// The record that all stores are to hold.
    record: PermissionRecord,
    /// The lowest and the highest m that a store tells of.
    m: (usize, usize),
    /// What each store was last seen to hold.
    held: BTreeMap<Place, PermissionRecord>,
    /// Who holds the record.
    done: BTreeSet<Place>,
    /// Who was made to.
    changed: BTreeSet<Place>,
    /// Who may hold it, for all that is known, and why that is not known.
    unclear: BTreeMap<Place, String>,
    /// Who does not, and why.
    refused: BTreeMap<Place, String>,
    /// Who said that they have no such entry for the caller.
    denied: BTreeSet<Place>,
    /// What those hold that somebody else changed meanwhile.
    rivals: BTreeMap<Place, PermissionRecord>,
    turns: u8,
    undoing: Option<Undoing>,
}

/// A grant is being taken back.
struct Undoing {
    /// Where it may hold.
    reached: BTreeSet<Place>,
    revocation_stays: bool,
    faults: Vec<StoreFault>,
}

impl<E: Fn(&PermissionRecord) -> PermissionRecord> Change<E> {
    /// Changes what `key_id` has into what `edit` makes of it (but version and change id, which are set here);
    /// `threshold` is m where no store tells, `change_ids` are random.
    pub fn new(
        stores: Stores,
        deadline: Duration,
        key_id: KeyId,
        edit: E,
        threshold: u8,
        options: ChangeOptions,
        change_ids: [ChangeId; 2],
    ) -> Self {
        Self {
            desk: Desk::new(stores, deadline),
            key_id,
            edit,
            options,
            threshold,
            change_ids,
            phase: Phase::New,
        }
    }

    /// What was learnt of store ids.
    pub fn stores(&self) -> &Stores {
        &self.desk.stores
    }

    /// Everybody has answered, or the time is over.
    fn looked(&mut self, round: &Round, actions: &mut Vec<Action>) -> Option<Result<PermissionsChanged, ChangeError>> {
        let mut work = match self.plan(round) {
            Ok(work) => work,
            Err(error) => return Some(Err(error)),
        };
        let new = work.record.change_id == self.change_ids[0];
        let up_to_date = |record: &PermissionRecord| match new {
            true => record.same_as(&work.record),
            // an earlier record that says the same could still be overrun by a late message
            false => record.says_the_same_as(&work.record) && record.version >= work.record.version,
        };
        let (done, targets): (Vec<Place>, Vec<Place>) = work
            .held
            .keys()
            .copied()
            .partition(|place| up_to_date(&work.held[place]));
        work.done.extend(done);
        self.send(work, &targets, actions)
    }

    /// What is to become of what the stores hold.
    fn plan(&self, round: &Round) -> Result<Box<Work>, ChangeError> {
        let n = self.desk.stores.count();
        let mut faults = Vec::new();
        let mut silent = 0;
        for (place, result) in &round.results {
            let twin = self.desk.stores.twin(*place);
            let reason = match result {
                _ if twin.is_some() => twin.unwrap_or_default(),
                Ok(Said::Describe(answer)) if answer.entry.is_some() => continue,
                Ok(Said::Describe(_)) => "has no such key any more".to_owned(),
                other => {
                    silent += usize::from(problem_of(other) != Some(ProblemKind::NotFound));
                    describe_said(other)
                }
            };
            faults.push(self.desk.stores.fault(*place, reason));
        }
        let shown: BTreeMap<Place, &DescribedEntry> = entries(round)
            .into_iter()
            .filter(|(place, _)| self.desk.stores.twin(*place).is_none())
            .collect();
        let key_id = self.key_id.clone();
        let registration_of = |entry: &&DescribedEntry| entry.constants.registration_id;
        let Some(registration_id) = most_common(shown.values().map(registration_of)) else {
            return Err(match silent * 2 > n {
                true => self.too_few(0, n / 2 + 1, faults),
                false => ChangeError::NotFound { key_id, faults },
            });
        };
        let (of_it, others): (BTreeMap<Place, &DescribedEntry>, BTreeMap<_, _>) = shown
            .into_iter()
            .partition(|(_, entry)| entry.constants.registration_id == registration_id);
        let other = |place: &Place| {
            self.desk
                .stores
                .fault(*place, "has another registration of this key id")
        };
        faults.extend(others.keys().map(other));
        if self.options.all_or_nothing && of_it.len() < n {
            return Err(self.too_few(of_it.len(), n, faults));
        }
        let held: BTreeMap<Place, PermissionRecord> = of_it
            .iter()
            .map(|(place, entry)| (*place, entry.permissions.clone()))
            .collect();
        let (before, record) = self.decide(registration_id, &held, faults)?;
        let refused = round.results.iter().filter(|(place, _)| !held.contains_key(place));
        Ok(Box::new(Work {
            registration_id,
            m: self.thresholds(of_it.values().copied()),
            refused: refused
                .map(|(place, _)| (*place, self.reason_of(round, *place)))
                .collect(),
            denied: BTreeSet::new(),
            before,
            record,
            held,
            done: BTreeSet::new(),
            changed: BTreeSet::new(),
            unclear: BTreeMap::new(),
            rivals: BTreeMap::new(),
            turns: TURNS,
            undoing: None,
        }))
    }

    /// Why a store that showed nothing of use did not.
    fn reason_of(&self, round: &Round, place: Place) -> String {
        match (self.desk.stores.twin(place), round.results.get(&place)) {
            (Some(twin), _) => twin,
            (None, Some(Ok(Said::Describe(answer)))) if answer.entry.is_some() => {
                "has another registration of this key id".to_owned()
            }
            (None, Some(Ok(Said::Describe(_)))) => "has no such key any more".to_owned(),
            (None, Some(other)) => describe_said(other),
            (None, None) => "was not asked".to_owned(),
        }
    }

    fn too_few(&self, have: usize, need: usize, faults: Vec<StoreFault>) -> ChangeError {
        ChangeError::TooFew {
            key_id: self.key_id.clone(),
            have,
            need,
            faults,
        }
    }

    /// The record that is edited, and the one that all are to hold.
    fn decide(
        &self,
        registration_id: RegistrationId,
        held: &BTreeMap<Place, PermissionRecord>,
        faults: Vec<StoreFault>,
    ) -> Result<(PermissionRecord, PermissionRecord), ChangeError> {
        let n = self.desk.stores.count();
        let disagree = |overtaken, faults| ChangeError::Disagree {
            key_id: self.key_id.clone(),
            held: self.told(registration_id, held),
            overtaken,
            faults,
        };
        let (base, decided) = match &self.options.over {
            Some(name) => match held.iter().find(|(place, _)| self.is_called(**place, name)) {
                Some((_, record)) => (record, true),
                None => {
                    return Err(ChangeError::NoSuchStore {
                        key_id: self.key_id.clone(),
                        store: name.clone(),
                        faults,
                    });
                }
            },
            None if held.len() * 2 <= n => return Err(self.too_few(held.len(), n / 2 + 1, faults)),
            None => match base(n, held.values()) {
                Base::Settled(record) => (record, false),
                other => {
                    let overtaken = matches!(other, Base::Overtaken { .. });
                    return self.either_way(held).ok_or_else(|| disagree(overtaken, faults));
                }
            },
        };
        let mut record = (self.edit)(base);
        if !decided && record.says_the_same_as(base) {
            return Ok((base.clone(), base.clone()));
        }
        record.version = next_version(base, held.values());
        record.change_id = self.change_ids[0];
        Ok((base.clone(), record))
    }

    /// Where the same comes of whatever a store holds, it does not matter which of it holds: so the same change once
    /// more goes on with what it began.
    fn either_way(&self, held: &BTreeMap<Place, PermissionRecord>) -> Option<(PermissionRecord, PermissionRecord)> {
        let mut wanted = held.values().map(&self.edit);
        let mut record = wanted.next()?;
        if !wanted.all(|other| other.says_the_same_as(&record)) {
            return None;
        }
        let others = held.values().filter(|held| !held.says_the_same_as(&record));
        let before = others.min_by_key(|held| held.version)?.clone();
        let (begun, others): (Vec<_>, Vec<_>) = held.values().partition(|held| held.says_the_same_as(&record));
        // What is there already is spread only over what is earlier: of two of one version the other one may have won.
        let latest = begun.into_iter().max_by_key(|held| held.version);
        if let Some(latest) = latest.filter(|latest| others.iter().all(|other| other.version < latest.version)) {
            return Some((before, latest.clone()));
        }
        record.version = next_version(&before, held.values());
        record.change_id = self.change_ids[0];
        Some((before, record))
    }

    fn is_called(&self, place: Place, name: &str) -> bool {
        let id = self.desk.stores.id(place);
        self.desk.stores.label(place) == name || id.is_some_and(|id| id.as_str() == name)
    }

    fn told(&self, registration_id: RegistrationId, held: &BTreeMap<Place, PermissionRecord>) -> Vec<RecordHeld> {
        let told = held.iter().map(|(place, record)| RecordHeld {
            store: self.desk.stores.label(*place).to_owned(),
            registration_id,
            record: record.clone(),
        });
        told.collect()
    }

    /// One store may lie about m, so both ends are taken: no grant is said to hold too early, and no revocation.
    fn thresholds<'e>(&self, entries: impl Iterator<Item = &'e DescribedEntry>) -> (usize, usize) {
        let n = self.desk.stores.count();
        let highest = |entry: &'e DescribedEntry| {
            entry
                .sharings
                .iter()
                .map(|held| &held.sharing)
                .max_by_key(|s| s.order())
        };
        let told: Vec<usize> = entries
            .filter_map(highest)
            .map(|sharing| usize::from(sharing.m).clamp(1, n.max(1)))
            .collect();
        let own = usize::from(self.threshold.max(1));
        let least = told.iter().copied().min().unwrap_or(own);
        (least, told.into_iter().max().unwrap_or(own))
    }

    /// Each store gets the record in place of the very one that it holds.
    fn send(
        &mut self,
        mut work: Box<Work>,
        targets: &[Place],
        actions: &mut Vec<Action>,
    ) -> Option<Result<PermissionsChanged, ChangeError>> {
        work.turns = work.turns.saturating_sub(1);
        let message = |place: &Place| {
            let held = work.held.get(place)?;
            let change = wire::Change {
                key_id: self.key_id.clone(),
                registration_id: work.registration_id,
                if_version: held.version,
                if_change_id: held.change_id,
                permissions: work.record.clone(),
            };
            Some((*place, Message::Change(Box::new(change))))
        };
        let messages: Vec<_> = targets.iter().filter_map(message).collect();
        let round = Round::start(&mut self.desk, actions, TRIES, messages);
        if round.over() {
            return self.ended(work, actions);
        }
        self.phase = Phase::Send(round, work);
        None
    }

    fn sent(
        &mut self,
        round: &Round,
        mut work: Box<Work>,
        actions: &mut Vec<Action>,
    ) -> Option<Result<PermissionsChanged, ChangeError>> {
        for (place, result) in &round.results {
            work.hear(*place, result);
        }
        let targets = work.overruled(self.desk.stores.count());
        if !targets.is_empty() && work.turns > 0 && !self.desk.late() {
            for place in &targets {
                work.rivals.remove(place);
            }
            return self.send(work, &targets, actions);
        }
        self.ended(work, actions)
    }

    /// Nothing more can be done: what came of it, unless something is to be taken back.
    fn ended(
        &mut self,
        mut work: Box<Work>,
        actions: &mut Vec<Action>,
    ) -> Option<Result<PermissionsChanged, ChangeError>> {
        if let Some(undoing) = work.undoing.take() {
            return Some(Err(self.undone(&work, undoing)));
        }
        let stores = &self.desk.stores;
        let n = stores.count();
        let key_id = self.key_id.clone();
        if work.done.len() == n {
            return Some(Ok(PermissionsChanged {
                key_id,
                registration_id: work.registration_id,
                before: work.before,
                record: work.record,
                changed: stores.labels(work.changed),
            }));
        }
        if !work.rivals.is_empty() {
            return Some(Err(ChangeError::Conflict {
                key_id,
                held: self.told(work.registration_id, &work.rivals),
                mine: stores.labels(work.done),
            }));
        }
        let faults = self.faults(&work);
        if work.done.is_empty() && work.unclear.is_empty() {
            let all_denied = work.held.keys().all(|place| work.denied.contains(place));
            return Some(Err(match all_denied {
                true => ChangeError::NotAllowed { key_id, faults },
                false => ChangeError::Refused { key_id, faults },
            }));
        }
        if self.options.all_or_nothing && grants_more(&work.before, &work.record) {
            return self.undo(work, faults, actions);
        }
        Some(Err(ChangeError::InPart {
            key_id,
            done: work.done.len(),
            total: n,
            in_force: work.in_force(n),
            faults,
        }))
    }

    fn faults(&self, work: &Work) -> Vec<StoreFault> {
        let reasons: BTreeMap<Place, &String> = work
            .refused
            .iter()
            .chain(&work.unclear)
            .map(|(place, reason)| (*place, reason))
            .collect();
        let faults = reasons
            .into_iter()
            .map(|(place, reason)| self.desk.stores.fault(place, reason));
        faults.collect()
    }

    /// Takes back what was granted, by a later record: one with the old version could be overrun by a late message.
    fn undo(
        &mut self,
        mut work: Box<Work>,
        faults: Vec<StoreFault>,
        actions: &mut Vec<Action>,
    ) -> Option<Result<PermissionsChanged, ChangeError>> {
        let left = without_grants(&work.before, &work.record);
        let granted = std::mem::replace(&mut work.record, left);
        work.record.version = granted.version.saturating_add(1);
        work.record.change_id = self.change_ids[1];
        let reached: BTreeSet<Place> = work.done.iter().chain(work.unclear.keys()).copied().collect();
        for place in &reached {
            work.held.insert(*place, granted.clone());
        }
        work.undoing = Some(Undoing {
            reached: reached.clone(),
            revocation_stays: !work.record.says_the_same_as(&work.before),
            faults,
        });
        work.done.clear();
        work.unclear.clear();
        work.turns = TURNS;
        self.desk.deadline = self.desk.deadline.max(self.desk.now + UNDO_GRACE);
        let targets: Vec<Place> = reached.into_iter().collect();
        self.send(work, &targets, actions)
    }

    fn undone(&self, work: &Work, undoing: Undoing) -> ChangeError {
        // where another change came later, ours is gone
        let settled = |place: &Place| work.done.contains(place) || work.rivals.contains_key(place);
        let left = undoing.reached.into_iter().filter(|place| !settled(place));
        ChangeError::Undone {
            key_id: self.key_id.clone(),
            revocation_stays: undoing.revocation_stays,
            left: self.desk.stores.labels(left),
            faults: undoing.faults,
        }
    }
}

impl Work {
    fn hear(&mut self, place: Place, result: &Result<Said, String>) {
        self.unclear.remove(&place);
        if problem_of(result) == Some(ProblemKind::NotFound) {
            self.denied.insert(place);
        }
        match (result, status_of(result)) {
            (_, Some(Status::Ok)) => {
                self.done.insert(place);
                self.changed.insert(place);
                self.held.insert(place, self.record.clone());
            }
            (Ok(Said::Changed(changed)), Some(Status::Conflict)) if changed.permissions.is_some() => {
                let Some(held) = changed.permissions.clone() else {
                    return;
                };
                if held == self.record {
                    self.done.insert(place);
                } else {
                    self.rivals.insert(place, held.clone());
                }
                self.held.insert(place, held);
            }
            (Err(reason), _) => {
                self.unclear.insert(place, reason.clone());
            }
            // a store that failed may have done it before
            _ if problem_of(result) == Some(ProblemKind::Internal) => {
                self.unclear.insert(place, describe_said(result));
            }
            _ => {
                self.refused.insert(place, describe_said(result));
            }
        }
    }

    /// Of the stores that turned out to hold another record, those where ours takes its place: it is later, or of
    /// several changes at once ours has won. More than half of the stores make a winner. Where no change has them, it
    /// is the one with the greatest change id of those that reached a store; for this every store must have been heard,
    /// so that all judge by the same, and one wins.
    fn overruled(&self, n: usize) -> Vec<Place> {
        let ours = self.record.version;
        if self.rivals.values().any(|rival| rival.version > ours) {
            return Vec::new();
        }
        let (equal, older): (Vec<_>, Vec<_>) = self.rivals.iter().partition(|(_, rival)| rival.version == ours);
        let equal: Vec<&PermissionRecord> = equal.into_iter().map(|(_, rival)| rival).collect();
        // A store that held an earlier record may have got a rival since: whether we win is seen when it has been
        // asked.
        if !equal.is_empty() && !older.is_empty() {
            return older.into_iter().map(|(place, _)| *place).collect();
        }
        if !equal.is_empty() && self.done.len() * 2 <= n {
            let all_heard = self.done.len() + self.rivals.len() == n;
            let votes = |rival: &PermissionRecord| equal.iter().filter(|other| other.same_as(rival)).count();
            let rival_won = equal.iter().any(|rival| votes(rival) * 2 > n);
            let greatest = equal.iter().all(|rival| self.record.change_id > rival.change_id);
            if !all_heard || rival_won || !greatest || self.done.is_empty() {
                return Vec::new();
            }
        }
        self.rivals.keys().copied().collect()
    }

    fn in_force(&self, n: usize) -> InForce {
        let others = self.held.iter().filter(|(place, _)| !self.done.contains(place));
        let old: Vec<&PermissionRecord> = others.map(|(_, record)| record).chain([&self.before]).collect();
        let (least, most) = self.m;
        InForce {
            grants: old.iter().any(|old| grants_more(old, &self.record)),
            grant_holds: self.done.len() >= most,
            revokes: old.iter().any(|old| grants_more(&self.record, old)),
            revocation_holds: n - self.done.len() < least,
        }
    }
}

/// One more than every version seen. A store that claims one beyond all counting is passed over: only its own record is
/// then behind.
fn next_version<'r>(base: &PermissionRecord, held: impl Iterator<Item = &'r PermissionRecord>) -> u64 {
    let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    let seen = held.map(|record| record.version).max().unwrap_or(base.version);
    let next = seen.max(base.version).saturating_add(1);
    if next <= most {
        next
    } else {
        base.version.saturating_add(1)
    }
}

impl<E: Fn(&PermissionRecord) -> PermissionRecord> Machine for Change<E> {
    type Outcome = Result<PermissionsChanged, ChangeError>;

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
            Phase::Send(mut round, work) => {
                if step(&mut self.desk, &mut round, event, actions) {
                    return self.sent(&round, work, actions);
                }
                self.phase = Phase::Send(round, work);
                None
            }
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::New => None,
            Phase::Look(round) | Phase::Send(round, _) => Some(wake_at(&self.desk, round)),
        }
    }
}

#[cfg(test)]
#[path = "change_histories.rs"]
mod histories;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChangeId;

    /// A record of this version and change id that gives everybody these letters.
    fn record(version: u64, id: u8, other: &str) -> PermissionRecord {
        PermissionRecord {
            version,
            change_id: ChangeId([id; 16]),
            other: other.parse().unwrap(),
            ..PermissionRecord::new("/CN=alice", None, ChangeId([id; 16]))
        }
    }

    #[test]
    fn more_than_half_of_all_stores_decide_not_of_those_that_answered() {
        let (old, new) = (record(1, 1, ""), record(2, 2, "g"));
        let two = [new.clone(), new.clone()];
        assert_eq!(base(3, &two), Base::Settled(&new));
        assert_eq!(base(4, &two), Base::Split);
        assert_eq!(base(2, [&old, &new]), Base::Split);
        assert_eq!(base(1, [&old]), Base::Settled(&old));
        assert_eq!(base(3, []), Base::Split);
        // an old record at a minority is behind, and one of the same version lost
        assert_eq!(base(3, [&old, &new, &new]), Base::Settled(&new));
        assert_eq!(base(3, [&record(2, 3, "d"), &new, &new]), Base::Settled(&new));
    }

    #[test]
    fn a_later_record_at_a_minority_is_never_passed_over() {
        let (old, new) = (record(1, 1, "g"), record(2, 2, ""));
        let (majority, latest) = (&old, &new);
        assert_eq!(base(3, [&new, &old, &old]), Base::Overtaken { majority, latest });
        let later = record(7, 3, "l");
        let expected = Base::Overtaken {
            majority: &old,
            latest: &later,
        };
        assert_eq!(base(5, [&new, &later, &old, &old, &old]), expected);
    }

    #[test]
    fn records_that_say_the_same_are_of_one_mind() {
        // a grant that reached one store and was undone there
        let (old, undone) = (record(1, 1, ""), record(3, 3, ""));
        assert_eq!(base(3, [&undone, &old, &old]), Base::Settled(&old));
        assert_eq!(base(2, [&undone, &old]), Base::Settled(&old));
        // a liar cannot make versions grow, nor give its own content to a known change id
        assert_eq!(base(2, [&record(u64::MAX, 9, ""), &old]), Base::Settled(&old));
        assert_eq!(base(3, [&record(1, 1, "g"), &old, &old]), Base::Settled(&old));
        assert_eq!(base(2, [&record(1, 1, "g"), &old]), Base::Split);
    }
}
