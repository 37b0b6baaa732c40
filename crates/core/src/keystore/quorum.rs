//! What a client of n key stores does with their answers: state machines without I/O, clocks or random numbers.
//!
//! A [`Machine`] is told what happened ([`Event`]) and the time since it began, and says what to send ([`Action`]) and
//! when it wants to be woken; in the end it has an outcome. The network runs it in [`super::fanout`], the property
//! tests in memory. The rules are those of `docs/src/protocol-walkthrough.md`.

pub mod change;
mod read;
mod register;
mod repair;
mod reshare;
mod survey;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::StoreId;
use crate::keystore::outcome::StoreFault;
use crate::keystore::wire::{
    About, Change, Changed, Confirm, Create, DescribeAnswer, DropBelow, OfKeyId, OfRegistration, Problem, ProblemKind,
    Put, ReadAnswer, Status, Undo,
};

pub use change::Change as ChangePermissions;
pub use read::{Read, ReadOptions};
pub use register::{Dealt, Register};
pub use repair::Repair;
pub use reshare::{NewSharing, Reshare, Retire};
pub use whole::{AskStatus, Remove, verdict};

/// A store: its place in the configuration, from 0.
pub type Place = usize;
/// The number of a request of one machine.
pub type RequestNo = u64;

/// What is sent to one store.
#[derive(Debug)]
pub enum Message {
    /// Who it is and what it speaks.
    About,
    /// A pending entry.
    Create(Box<Create>),
    /// Entry and sharing become confirmed.
    Confirm(Confirm),
    /// A pending entry is kept from being confirmed, also one that is still to come.
    Stop(OfRegistration),
    /// Takes back what is not confirmed.
    Undo(Undo),
    /// Deletes the entry, leaves a tombstone.
    Remove(OfRegistration),
    /// Hands out shares.
    Read(OfKeyId),
    /// Tells the same without shares.
    Describe(OfKeyId),
    /// Replaces the permission record that it names.
    Change(Box<Change>),
    /// Adds or replaces one sharing, or brings back an entry.
    Put(Box<Put>),
    /// Deletes sharings below a confirmed one.
    Drop(DropBelow),
}

impl Message {
    /// The same message for a second try; none for `create`, which is never sent twice under one registration.
    pub(crate) fn again(&self) -> Option<Self> {
        Some(match self {
            Self::Create(_) => return None,
            Self::About => Self::About,
            Self::Confirm(confirm) => Self::Confirm(confirm.clone()),
            Self::Stop(stop) => Self::Stop(stop.clone()),
            Self::Undo(undo) => Self::Undo(undo.clone()),
            Self::Remove(remove) => Self::Remove(remove.clone()),
            Self::Read(read) => Self::Read(read.clone()),
            Self::Describe(describe) => Self::Describe(describe.clone()),
            // A store that has done it already knows it by its change id.
            Self::Change(change) => Self::Change(change.clone()),
            Self::Put(put) => Self::Put(Box::new(put.copy())),
            Self::Drop(drop) => Self::Drop(drop.clone()),
        })
    }
}

/// What a store said to a message.
#[derive(Debug)]
pub enum Said {
    /// To `about`.
    About(Box<About>),
    /// To whatever changes an entry.
    Changed(Box<Changed>),
    /// To `read`.
    Read(ReadAnswer),
    /// To `describe`.
    Describe(Box<DescribeAnswer>),
    /// Refused.
    Problem(Box<Problem>),
}

/// An answer, and the id that the store claims in it.
#[derive(Debug)]
pub struct Heard {
    /// Who says so.
    pub store: StoreId,
    /// What.
    pub said: Said,
}

/// No answer that could be used; whether the store did what was asked is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// What happened, as a predicate: `gave no answer in 5 s`.
    pub reason: String,
    /// The store does not take the caller's credential, which trying again does not change.
    pub credential_refused: bool,
}

impl Silence {
    /// No answer, for a reason that may pass.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            credential_refused: false,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A request ended.
    Heard(RequestNo, Result<Heard, Silence>),
    /// The time that the machine asked to be woken at has come.
    Woken,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Send this; tell what comes of it as an [`Event::Heard`] of that number.
    Send(RequestNo, Place, Message),
    /// The answer is no longer needed.
    Cancel(RequestNo),
}

/// One operation of one client over all of its stores.
pub trait Machine {
    /// What comes of it in the end.
    type Outcome;

    /// The first step. `actions` are to be done in order; an outcome ends the machine and all of its requests.
    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome>;

    /// The next step, `now` being the time since the start.
    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome>;

    /// When to be woken, as a time since the start, if nothing is heard before.
    fn wake_at(&self) -> Option<Duration>;
}

/// The stores of a client: labels for messages, ids as pinned by the configuration and as claimed in answers.
#[derive(Debug, Clone)]
pub struct Stores {
    labels: Vec<String>,
    pinned: Vec<Option<StoreId>>,
    claimed: Vec<Option<StoreId>>,
    /// Those that do not take the caller's credential, in this operation.
    refusing: BTreeSet<Place>,
}

impl Stores {
    /// Labels and pinned ids, in the order of the configuration.
    pub fn new(stores: impl IntoIterator<Item = (String, Option<StoreId>)>) -> Self {
        let (labels, pinned): (Vec<_>, Vec<_>) = stores.into_iter().unzip();
        let claimed = vec![None; labels.len()];
        Self {
            labels,
            pinned,
            claimed,
            refusing: BTreeSet::new(),
        }
    }

    /// n.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The label of a store.
    pub fn label(&self, place: Place) -> &str {
        self.labels.get(place).map_or("?", String::as_str)
    }

    /// Its id, pinned or claimed.
    pub fn id(&self, place: Place) -> Option<&StoreId> {
        let pinned = self.pinned.get(place).and_then(Option::as_ref);
        pinned.or_else(|| self.claimed.get(place).and_then(Option::as_ref))
    }

    /// What the store calls itself in an answer.
    ///
    /// # Errors
    /// Another id than the one pinned, or than it claimed before.
    pub fn claim(&mut self, place: Place, claimed: &StoreId) -> Result<(), String> {
        if let Some(pinned) = self.pinned.get(place).and_then(Option::as_ref)
            && pinned != claimed
        {
            return Err(format!("claims the id `{claimed}`, but `{pinned}` is pinned"));
        }
        match self.claimed.get_mut(place) {
            Some(Some(before)) if before != claimed => {
                Err(format!("claims the id `{claimed}`, before it was `{before}`"))
            }
            Some(slot) => {
                *slot = Some(claimed.clone());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Why the store's claim cannot be believed: another one goes by the same id, and the configuration pins neither.
    pub fn twin(&self, place: Place) -> Option<String> {
        let id = self.id(place)?;
        if self.pinned.get(place).is_some_and(Option::is_some) {
            return None;
        }
        let other = (0..self.count()).find(|other| *other != place && self.id(*other) == Some(id))?;
        Some(format!("claims the id `{id}`, as {} does", self.label(other)))
    }

    /// Takes over what another copy has learnt of ids.
    pub fn learn(&mut self, other: &Self) {
        for (mine, theirs) in self.claimed.iter_mut().zip(&other.claimed) {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
    }

    fn fault(&self, place: Place, reason: impl Into<String>) -> StoreFault {
        StoreFault {
            store: self.label(place).to_owned(),
            reason: reason.into(),
            credential_refused: self.refusing.contains(&place),
        }
    }

    fn labels(&self, places: impl IntoIterator<Item = Place>) -> Vec<String> {
        places.into_iter().map(|place| self.label(place).to_owned()).collect()
    }
}

/// The rules that can be taken away one by one, in tests only, to see that each is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A degraded registration needs max(m+1, floor(n/2)+1) stores.
    Majority,
    /// Any other registration seen makes ours fail, also a degraded one.
    Clash,
    /// After the first confirm nothing is undone.
    NeverUndo,
    /// Shares are joined only within one sharing.
    WithinSharing,
    /// A joined key must pass the check value.
    #[cfg(test)]
    CheckValue,
    /// More than m shares correct errors.
    CorrectErrors,
    /// Sharings under the client's minimum threshold are refused.
    MinThreshold,
    /// Sealing needs m confirmed shares.
    SealConfirmed,
    /// Where none joins, all are asked again.
    AskAgain,
    /// Sealing with a key that nothing but its shares proves waits for all of them.
    CompareAll,
    /// Opening takes pending shares too.
    OpenPending,
    /// Opening takes only the file's own registration.
    OnlyItsRegistration,
    /// Removed is answered only when all n stores have said so.
    RemoveAll,
    /// A repair finishes only what some store has confirmed.
    RepairConfirmed,
    /// A repair confirms nothing that has a tombstone.
    RepairTombstone,
    /// A repair finishes a removal only where n-m+1 stores remember it.
    TombstoneCount,
    /// A repair stops a registration at all stores before it takes it back.
    StopFirst,
    /// Shares are made again only from so many that the polynomial is proven.
    ProveShares,
    /// Sharings of one registration that join to different keys are left alone.
    OneKey,
    /// Earlier sharings are dropped only when the highest one is everywhere.
    DropAfterAll,
    /// A repair spreads only the permission record that more than half of all stores hold.
    PermissionMajority,
    /// A later permission record is never overwritten unasked.
    PermissionLater,
    /// What was restored from a backup is opened only with the permissions of now.
    RestoredPermissions,
    /// A reshare goes on only when all stores took their new share.
    ReshareAll,
}

#[cfg(test)]
impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 24] = [
        Self::Majority,
        Self::Clash,
        Self::NeverUndo,
        Self::WithinSharing,
        Self::CheckValue,
        Self::CorrectErrors,
        Self::MinThreshold,
        Self::SealConfirmed,
        Self::AskAgain,
        Self::CompareAll,
        Self::OpenPending,
        Self::OnlyItsRegistration,
        Self::RemoveAll,
        Self::RepairConfirmed,
        Self::RepairTombstone,
        Self::TombstoneCount,
        Self::StopFirst,
        Self::ProveShares,
        Self::OneKey,
        Self::DropAfterAll,
        Self::PermissionMajority,
        Self::PermissionLater,
        Self::RestoredPermissions,
        Self::ReshareAll,
    ];
}

/// Which rules hold: all of them, but in tests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    pub(crate) off: Option<Rule>,
}

impl Rules {
    #[cfg(test)]
    fn hold(self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "in tests a rule can be taken away")]
    fn hold(self, _: Rule) -> bool {
        true
    }
}

/// What every machine has: its stores, its numbering of requests, and the end of its time.
struct Desk {
    stores: Stores,
    next: RequestNo,
    now: Duration,
    deadline: Duration,
    rules: Rules,
}

impl Desk {
    fn new(stores: Stores, deadline: Duration) -> Self {
        Self {
            stores,
            next: 0,
            now: Duration::ZERO,
            deadline,
            rules: Rules::default(),
        }
    }

    fn send(&mut self, to: Place, message: Message, actions: &mut Vec<Action>) -> RequestNo {
        self.next += 1;
        actions.push(Action::Send(self.next, to, message));
        self.next
    }

    fn late(&self) -> bool {
        self.now >= self.deadline
    }

    /// The answer, where the store may be who it claims to be.
    fn admit(&mut self, place: Place, result: Result<Heard, Silence>) -> Result<Heard, String> {
        let heard = match result {
            Ok(heard) => heard,
            Err(silence) => {
                if silence.credential_refused {
                    self.stores.refusing.insert(place);
                }
                return Err(silence.reason);
            }
        };
        self.stores.claim(place, &heard.store)?;
        Ok(heard)
    }
}

/// One message to several stores, with further tries where a store stays silent.
struct Round {
    waiting: BTreeMap<RequestNo, Try>,
    later: Vec<(Duration, Try)>,
    results: BTreeMap<Place, Result<Said, String>>,
}

struct Try {
    place: Place,
    left: u8,
    again: Option<Message>,
}

/// How long to wait before a store that stayed silent is asked again.
const PAUSE: Duration = Duration::from_millis(200);

impl Round {
    fn start(
        desk: &mut Desk,
        actions: &mut Vec<Action>,
        tries: u8,
        messages: impl IntoIterator<Item = (Place, Message)>,
    ) -> Self {
        let mut round = Self {
            waiting: BTreeMap::new(),
            later: Vec::new(),
            results: BTreeMap::new(),
        };
        for (place, message) in messages {
            round.send(desk, actions, place, tries.saturating_sub(1), message);
        }
        round
    }

    fn send(&mut self, desk: &mut Desk, actions: &mut Vec<Action>, place: Place, left: u8, message: Message) {
        let again = if left > 0 { message.again() } else { None };
        let request = desk.send(place, message, actions);
        self.waiting.insert(request, Try { place, left, again });
    }

    fn handle(&mut self, desk: &mut Desk, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Heard(request, result) => {
                let Some(mut tried) = self.waiting.remove(&request) else {
                    return;
                };
                let silent = result.is_err();
                let result = desk.admit(tried.place, result).map(|heard| heard.said);
                self.results.insert(tried.place, result);
                if silent && tried.again.is_some() {
                    tried.left = tried.left.saturating_sub(1);
                    self.later.push((desk.now + PAUSE, tried));
                }
            }
            Event::Woken => {
                let now = desk.now;
                let (due, later) = std::mem::take(&mut self.later)
                    .into_iter()
                    .partition(|(at, _)| *at <= now);
                self.later = later;
                for (_, tried) in <Vec<(Duration, Try)>>::into_iter(due) {
                    if let Some(message) = tried.again {
                        self.send(desk, actions, tried.place, tried.left, message);
                    }
                }
            }
        }
    }

    /// Whether this request is one of the round's, still without an answer.
    fn awaits(&self, request: RequestNo) -> bool {
        self.waiting.contains_key(&request)
    }

    fn over(&self) -> bool {
        self.waiting.is_empty() && self.later.is_empty()
    }

    fn wake_at(&self) -> Option<Duration> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// Ends the round: whoever has not answered is silent.
    fn close(&mut self, actions: &mut Vec<Action>) {
        for (request, tried) in std::mem::take(&mut self.waiting) {
            actions.push(Action::Cancel(request));
            self.results
                .entry(tried.place)
                .or_insert_with(|| Err("gave no answer in time".to_owned()));
        }
        self.later.clear();
    }
}

/// What a store's refusal says, as a predicate.
pub(crate) fn describe_problem(problem: &Problem) -> String {
    let what = match problem.kind {
        ProblemKind::NotFound => "has no such key, or does not show it to you",
        ProblemKind::NotAllowed => "lets nobody like you create this key id",
        ProblemKind::Invalid => "finds the request invalid",
        ProblemKind::Credential => "no longer accepts your credential",
        ProblemKind::Restored => "was restored from a backup and not repaired since",
        ProblemKind::TooLarge => "finds the request too large",
        ProblemKind::Limit => "has reached its limit for you",
        ProblemKind::Busy => "is too busy, or stopping",
        ProblemKind::StorageFull => "has no room left",
        ProblemKind::NoSuchOperation => "does not know this operation",
        ProblemKind::Internal => "failed; its log has the reason",
        _ => "refused",
    };
    match &problem.detail {
        Some(detail) => format!("{what}: {detail}"),
        None => what.to_owned(),
    }
}

/// What an answer of the protocol's table other than the one hoped for says, as a predicate.
fn describe_status(status: Status) -> &'static str {
    match status {
        Status::Ok => "has done so",
        Status::Exists => "has another registration of this key id",
        Status::Removed => "says that this registration was removed",
        Status::Stopped => "has stopped this registration",
        Status::Confirmed => "has this registration confirmed",
        Status::Unknown => "does not have this registration",
        Status::Older => "has a later sharing of this key",
        Status::Other => "has another registration of this key id",
        Status::Full => "has no room for another sharing of this key",
        Status::Conflict => "has another permission record",
    }
}

/// The predicate of an answer that is not what was hoped for.
fn describe_said(result: &Result<Said, String>) -> String {
    match result {
        Ok(Said::Changed(changed)) => describe_status(changed.status).to_owned(),
        Ok(Said::Problem(problem)) => describe_problem(problem),
        Ok(_) => "answered something else than was asked".to_owned(),
        Err(reason) => reason.clone(),
    }
}

/// The status of a change, where there is one.
fn status_of(result: &Result<Said, String>) -> Option<Status> {
    match result {
        Ok(Said::Changed(changed)) => Some(changed.status),
        _ => None,
    }
}

/// The kind of a refusal, where it is one.
fn problem_of(result: &Result<Said, String>) -> Option<ProblemKind> {
    match result {
        Ok(Said::Problem(problem)) => Some(problem.kind),
        _ => None,
    }
}
