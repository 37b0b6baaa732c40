//! Reading a key: ask as few stores as can be enough, another as soon as one fails or is slow, join within one sharing,
//! check, correct errors, and name whose share was wrong (`docs/src/protocol-walkthrough.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    Action, Desk, Event, Heard, Machine, Message, Place, RequestNo, Rule, Said, Silence, Stores, describe_problem,
};
use crate::ids::StoreId;
use crate::key_id::KeyId;
use crate::keystore::outcome::{FetchError, FetchedKey, Purpose, StoreFault};
use crate::keystore::sharing::{self, JoinError, Joined, Offer};
use crate::keystore::wire::{Constants, OfKeyId, ProblemKind, ReadAnswer, Sharing, State};

/// How often all stores are asked again where everybody answered and nothing joins: a reshare may have passed between
/// two answers.
const ROUNDS_AGAIN: u8 = 2;
/// A store is never called slow before this: a fresh connection takes some milliseconds on a busy machine.
const LEAST_HEDGE: Duration = Duration::from_millis(20);
/// A store that takes this many times as long as another did is slow.
const SLOWNESS: u32 = 4;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// What the key is wanted for.
    pub purpose: Purpose,
    /// m of the configuration: so many stores are asked first.
    pub threshold: u8,
    /// Sharings with a lower m are refused.
    pub min_threshold: u8,
    /// In which order to ask the stores: random, or the quickest first.
    pub order: Vec<Place>,
    /// When to ask another store beside a slow one, at the latest.
    pub hedge: Duration,
}

/// The state machine of `fetch`.
pub struct Read {
    desk: Desk,
    key_id: KeyId,
    options: ReadOptions,
    waiting: BTreeMap<RequestNo, Asked>,
    /// Latest answer or fault of each store that gave one in this round.
    given: BTreeMap<Place, Given>,
    /// Stores not asked in this round, the next one last.
    unasked: Vec<Place>,
    hedge: Duration,
    rounds: u8,
}

struct Asked {
    place: Place,
    at: Duration,
    slow: bool,
}

/// What a store gave.
enum Given {
    Answer {
        store: StoreId,
        answer: ReadAnswer,
    },
    /// It said that there is nothing, or nothing for the caller.
    Nothing(String),
    /// It was no help.
    Fault(String),
}

/// Shares on offer for one sharing of one registration, as their stores describe both.
struct Group<'a> {
    constants: &'a Constants,
    sharing: &'a Sharing,
    offers: Vec<Offer<'a>>,
}

impl Group<'_> {
    /// Different indices among the shares that fit.
    fn indices(&self) -> usize {
        let fitting = self
            .offers
            .iter()
            .filter(|offer| sharing::fits(self.constants, self.sharing, offer.store, offer.share));
        fitting.map(|offer| offer.share.index).collect::<BTreeSet<u8>>().len()
    }
}

impl Read {
    /// Reads `key_id`.
    pub fn new(stores: Stores, deadline: Duration, key_id: KeyId, options: ReadOptions) -> Self {
        let mut unasked = options.order.clone();
        unasked.reverse();
        Self {
            desk: Desk::new(stores, deadline),
            hedge: options.hedge,
            key_id,
            options,
            waiting: BTreeMap::new(),
            given: BTreeMap::new(),
            unasked,
            rounds: 0,
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

    fn ask(&mut self, place: Place, actions: &mut Vec<Action>) {
        let message = Message::Read(OfKeyId {
            key_id: self.key_id.clone(),
        });
        let request = self.desk.send(place, message, actions);
        let at = self.desk.now;
        let slow = false;
        self.waiting.insert(request, Asked { place, at, slow });
    }

    fn ask_next(&mut self, actions: &mut Vec<Action>) -> bool {
        let next = self.unasked.pop();
        if let Some(place) = next {
            self.ask(place, actions);
        }
        next.is_some()
    }

    fn heard(&mut self, request: RequestNo, result: Result<Heard, Silence>) {
        let Some(asked) = self.waiting.remove(&request) else {
            return;
        };
        if result.is_ok() {
            // What one store just took says what the others may take.
            let took = self.desk.now.saturating_sub(asked.at);
            self.hedge = self.hedge.min((took * SLOWNESS).max(LEAST_HEDGE));
        }
        let given = match self.desk.admit(asked.place, result) {
            Err(reason) => Given::Fault(reason),
            Ok(heard) => match heard.said {
                Said::Read(answer) => Given::Answer {
                    store: heard.store,
                    answer,
                },
                Said::Problem(problem) if problem.kind == ProblemKind::NotFound => {
                    Given::Nothing(describe_problem(&problem))
                }
                Said::Problem(problem) => Given::Fault(describe_problem(&problem)),
                _ => Given::Fault("answered something else than was asked".to_owned()),
            },
        };
        self.given.insert(asked.place, given);
    }

    /// All shares that serve the purpose, by sharing; the highest sharing first.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (place, given) in &self.given {
            let Given::Answer { store, answer } = given else {
                continue;
            };
            let Some(entry) = &answer.entry else {
                continue;
            };
            let constants = &entry.constants;
            if !self.serves(constants) {
                continue;
            }
            for held in &entry.sharings {
                let Some(share) = held
                    .share
                    .as_ref()
                    .filter(|_| self.may_use(entry.state, held.state, &held.sharing))
                else {
                    continue;
                };
                let same = |group: &&mut Group<'_>| {
                    let same = group.sharing == &held.sharing || !self.desk.rules.hold(Rule::WithinSharing);
                    group.constants == constants && same
                };
                let offer = Offer {
                    from: *place,
                    store,
                    share,
                };
                match groups.iter_mut().find(same) {
                    Some(group) => group.offers.push(offer),
                    None => groups.push(Group {
                        constants,
                        sharing: &held.sharing,
                        offers: vec![offer],
                    }),
                }
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.sharing.order()));
        groups
    }

    fn serves(&self, constants: &Constants) -> bool {
        match self.options.purpose {
            Purpose::Seal | Purpose::OpenUnmarked => true,
            Purpose::Open(wanted) => {
                constants.registration_id == wanted || !self.desk.rules.hold(Rule::OnlyItsRegistration)
            }
        }
    }

    fn may_use(&self, entry: State, held: State, sharing: &Sharing) -> bool {
        let confirmed = entry == State::Confirmed && held == State::Confirmed;
        let state = match self.options.purpose {
            Purpose::Seal | Purpose::OpenUnmarked => confirmed || !self.desk.rules.hold(Rule::SealConfirmed),
            Purpose::Open(_) => confirmed || self.desk.rules.hold(Rule::OpenPending),
        };
        let enough = sharing.m >= self.options.min_threshold || !self.desk.rules.hold(Rule::MinThreshold);
        state && enough
    }

    fn join(&self, group: &Group<'_>) -> Result<Joined, JoinError> {
        let Group {
            constants,
            sharing,
            offers,
        } = group;
        #[cfg(test)]
        if !self.desk.rules.hold(Rule::CheckValue) {
            return unchecked(sharing, offers);
        }
        let m = usize::from(sharing.m);
        let offers = match self.desk.rules.hold(Rule::CorrectErrors) {
            true => &offers[..],
            false => &offers[..offers.len().min(m)],
        };
        sharing::join(&self.key_id, constants, sharing, offers)
    }

    /// The key, where some sharing joins; and whether more shares may tell whose was wrong.
    fn fetched(&self) -> Option<(FetchedKey, bool)> {
        let groups = self.groups();
        let (group, joined) = groups
            .iter()
            .find_map(|group| self.join(group).ok().map(|joined| (group, joined)))?;
        let wrong: BTreeSet<Place> = joined.wrong.iter().copied().collect();
        let mut faults = self.faults();
        faults.retain(|(place, _)| !wrong.contains(place) && !joined.by.contains(place));
        faults.extend(wrong.iter().map(|place| (*place, "gave a wrong share".to_owned())));
        let twins = joined
            .by
            .iter()
            .filter_map(|place| Some((*place, self.desk.stores.twin(*place)?)));
        faults.extend(twins);
        let constants = group.constants.clone();
        let key = FetchedKey {
            key_id: self.key_id.clone(),
            constants,
            key: joined.key,
            verified: joined.verified,
            faults: self.name(faults),
        };
        Some((key, joined.unclear))
    }

    fn name(&self, faults: Vec<(Place, String)>) -> Vec<StoreFault> {
        let fault = |(place, reason)| self.desk.stores.fault(place, reason);
        faults.into_iter().map(fault).collect()
    }

    /// Why each store that answered, or failed to, was no help.
    fn faults(&self) -> Vec<(Place, String)> {
        let faults = self.given.iter();
        faults
            .filter_map(|(place, given)| Some((*place, self.no_help(*place, given)?)))
            .collect()
    }

    fn no_help(&self, place: Place, given: &Given) -> Option<String> {
        let (store, answer) = match given {
            Given::Fault(reason) | Given::Nothing(reason) => return Some(reason.clone()),
            Given::Answer { store, answer } => (store, answer),
        };
        if let Some(twin) = self.desk.stores.twin(place) {
            return Some(twin);
        }
        let Some(entry) = &answer.entry else {
            return Some("has a removal of this key id and nothing else".to_owned());
        };
        if !self.serves(&entry.constants) {
            let removed = matches!(self.options.purpose, Purpose::Open(wanted) if answer.removed.contains(&wanted));
            let what = if removed {
                "has another registration of this key id; this one was removed"
            } else {
                "has another registration of this key id"
            };
            return Some(what.to_owned());
        }
        let usable = |held: &&crate::keystore::wire::HeldSharing| self.may_use(entry.state, held.state, &held.sharing);
        let Some(held) = entry.sharings.iter().find(usable) else {
            let low = entry
                .sharings
                .iter()
                .find(|held| held.sharing.m < self.options.min_threshold);
            return Some(match low {
                Some(held) => format!(
                    "offers shares of which {} join, fewer than the {} that the configuration asks for",
                    held.sharing.m, self.options.min_threshold
                ),
                None => "has the registration unconfirmed".to_owned(),
            });
        };
        match &held.share {
            None => Some("has lost its share".to_owned()),
            Some(share) if !sharing::fits(&entry.constants, &held.sharing, store, share) => {
                Some("gave a share that does not fit its sharing".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Stores whose latest answer offers a share that serves.
    fn helpers(groups: &[Group<'_>]) -> usize {
        let places: BTreeSet<Place> = groups
            .iter()
            .flat_map(|group| group.offers.iter().map(|offer| offer.from))
            .collect();
        places.len()
    }

    /// What comes after an event: the key, a verdict, or more questions.
    fn advance(&mut self, actions: &mut Vec<Action>) -> Option<Result<FetchedKey, FetchError>> {
        if let Some((key, unclear)) = self.fetched() {
            // A proven key is there, and whose share was wrong is worth one hedge delay. But where nothing vouches for
            // the key except that all shares agree, those who seal wait for every store that may still answer: quick
            // liars would choose their key.
            while unclear && !self.desk.late() && self.ask_next(actions) {}
            let patient =
                !key.verified && self.options.purpose == Purpose::Seal && self.desk.rules.hold(Rule::CompareAll);
            let soon = self.waiting.values().any(|asked| patient || !asked.slow);
            return if unclear && soon && !self.desk.late() {
                None
            } else {
                Some(Ok(key))
            };
        }
        if self.desk.late() {
            return Some(Err(self.verdict()));
        }
        loop {
            let (helpers, have, need, refused) = {
                let groups = self.groups();
                let best = groups.iter().max_by_key(|group| group.indices());
                let have = best.map_or(0, Group::indices);
                let need = best.map_or(self.options.threshold, |group| group.sharing.m);
                // m shares that do not join: one at least is wrong, and another may tell which.
                let refused = have >= usize::from(need);
                (Self::helpers(&groups), have, usize::from(need), refused)
            };
            let open = self.unasked.len() + self.waiting.len();
            let least = usize::from(self.options.min_threshold.max(1));
            let quick = self.waiting.values().filter(|asked| !asked.slow).count();
            if helpers + open < least {
                // The key is out of reach. Why it is (not allowed, or too few stores) is worth one hedge delay.
                return if quick > 0 { None } else { Some(Err(self.verdict())) };
            }
            let wanted = if refused { 1 } else { need - have };
            if quick >= wanted {
                return None;
            }
            if self.ask_next(actions) {
                continue;
            }
            if quick > 0 {
                return None;
            }
            // Everybody was asked, and who is not slow has answered.
            if helpers >= least && self.rounds < ROUNDS_AGAIN && self.desk.rules.hold(Rule::AskAgain) {
                self.rounds += 1;
                self.ask_again(actions);
                return None;
            }
            if self.waiting.is_empty() {
                return Some(Err(self.verdict()));
            }
            return None;
        }
    }

    /// Everybody who is not being waited for is asked again.
    fn ask_again(&mut self, actions: &mut Vec<Action>) {
        let places: Vec<Place> = std::mem::take(&mut self.given).into_keys().collect();
        for place in places {
            self.ask(place, actions);
        }
    }

    /// Why there is no key, after all that was heard.
    fn verdict(&self) -> FetchError {
        let key_id = self.key_id.clone();
        let n = self.desk.stores.count();
        let blocking = (n + 1)
            .saturating_sub(usize::from(self.options.min_threshold.max(1)))
            .max(1);
        let votes = self.votes();
        let faults = || self.verdict_faults();
        if let Purpose::Open(wanted) = self.options.purpose {
            let against = votes.other + votes.removed + votes.nothing;
            if votes.other_here >= blocking || (against >= blocking && votes.other > votes.nothing.max(votes.removed)) {
                return FetchError::OtherRegistration { key_id, wanted };
            }
            if votes.removed >= blocking || (against >= blocking && votes.removed > votes.nothing) {
                return FetchError::Removed { key_id };
            }
        }
        if votes.nothing + votes.removed >= blocking {
            let faults = faults();
            return FetchError::NotFound { key_id, faults };
        }
        let groups = self.groups();
        let best = groups.iter().max_by_key(|group| group.indices());
        let have = best.map_or(0, Group::indices);
        let need = usize::from(best.map_or(self.options.threshold, |group| group.sharing.m));
        let confirmed_only = !matches!(self.options.purpose, Purpose::Open(_));
        if confirmed_only && votes.unconfirmed > 0 && have + votes.unconfirmed >= need {
            return FetchError::Unfinished { key_id };
        }
        let mut faults = faults();
        if have >= need {
            let wrong = best.filter(|group| group.sharing.check.is_none()).map(|group| {
                let Group {
                    constants,
                    sharing,
                    offers,
                } = group;
                sharing::wrong_of_imported(constants, sharing, offers)
            });
            let wrong = wrong
                .into_iter()
                .flatten()
                .map(|place| (place, "gave a wrong share".to_owned()));
            faults.extend(self.name(wrong.collect()));
            return FetchError::Check { key_id, faults };
        }
        FetchError::TooFew {
            key_id,
            have,
            need,
            faults,
        }
    }

    fn verdict_faults(&self) -> Vec<StoreFault> {
        let mut faults = self.faults();
        let waited = self.waiting.values().map(|asked| {
            let after = self.desk.now.saturating_sub(asked.at);
            (asked.place, format!("had not answered after {} ms", after.as_millis()))
        });
        faults.extend(waited);
        faults.sort_by_key(|(place, _)| *place);
        self.name(faults)
    }

    fn votes(&self) -> Votes {
        let mut votes = Votes::default();
        for given in self.given.values() {
            let answer = match given {
                Given::Nothing(_) => {
                    votes.nothing += 1;
                    continue;
                }
                Given::Fault(_) => continue,
                Given::Answer { answer, .. } => answer,
            };
            let serving = answer.entry.as_ref().filter(|entry| self.serves(&entry.constants));
            let removed = match self.options.purpose {
                Purpose::Open(wanted) => answer.removed.contains(&wanted),
                Purpose::Seal | Purpose::OpenUnmarked => !answer.removed.is_empty(),
            };
            votes.other_here += usize::from(serving.is_none() && answer.entry.is_some());
            match (serving, &answer.entry) {
                (Some(entry), _) if entry.state != State::Confirmed => votes.unconfirmed += 1,
                (Some(_), _) => {}
                (None, _) if removed => votes.removed += 1,
                (None, Some(_)) => votes.other += 1,
                (None, None) => votes.nothing += 1,
            }
        }
        votes
    }
}

/// How many stores said what, each counted once but for `other_here`.
#[derive(Default)]
struct Votes {
    /// Nothing there, or nothing for the caller.
    nothing: usize,
    /// A tombstone of the registration.
    removed: usize,
    /// Another registration, no tombstone of this one.
    other: usize,
    /// Another registration, with or without one.
    other_here: usize,
    /// The registration, pending or stopped.
    unconfirmed: usize,
}

/// What joining would be without the check value: the tests show the need for it.
#[cfg(test)]
fn unchecked(sharing: &Sharing, offers: &[Offer<'_>]) -> Result<Joined, JoinError> {
    let need = usize::from(sharing.m);
    let points: BTreeMap<u8, &crate::keystore::wire::Share> =
        offers.iter().map(|offer| (offer.share.index, offer.share)).collect();
    let points: Vec<(u8, &[u8])> = points
        .iter()
        .map(|(x, share)| (*x, share.data.0.expose()))
        .take(need)
        .collect();
    if points.len() < need {
        return Err(JoinError::TooFew {
            have: points.len(),
            need,
        });
    }
    let secret = crate::shamir::gf256::interpolate(&points, 0).map_err(|_| JoinError::Check)?;
    let key = secret.expose().get(..32).ok_or(JoinError::Check)?.to_vec();
    Ok(Joined {
        key: crate::secret::SecretBytes::new(key),
        verified: false,
        by: offers.iter().map(|offer| offer.from).collect(),
        on: Vec::new(),
        wrong: Vec::new(),
        unclear: false,
    })
}

impl Machine for Read {
    type Outcome = Result<FetchedKey, FetchError>;

    fn start(&mut self, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.advance(actions)
    }

    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> Option<Self::Outcome> {
        self.desk.now = now;
        if let Event::Heard(request, result) = event {
            self.heard(request, result);
        }
        let hedge = self.hedge;
        for asked in self.waiting.values_mut() {
            asked.slow = asked.slow || now.saturating_sub(asked.at) >= hedge;
        }
        let outcome = self.advance(actions)?;
        actions.extend(std::mem::take(&mut self.waiting).into_keys().map(Action::Cancel));
        Some(outcome)
    }

    fn wake_at(&self) -> Option<Duration> {
        let quick = self.waiting.values().filter(|asked| !asked.slow);
        let slow = quick.map(|asked| asked.at + self.hedge).min();
        Some(slow.map_or(self.desk.deadline, |at| at.min(self.desk.deadline)))
    }
}
