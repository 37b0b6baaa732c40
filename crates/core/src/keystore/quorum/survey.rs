//! What all stores hold of one key id: what they describe and the shares that they hand out, put together, and the
//! highest sharing that joins from it. For repairing and resharing (`docs/src/protocol-walkthrough.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::whole::describe_all;
use super::{Action, Desk, Event, Message, Place, Round, Said, Stores, describe_said, problem_of};
use crate::ids::{RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::sharing::{self, Joined, Offer};
use crate::keystore::wire::{
    Constants, DescribedEntry, Entry, HeldSharing, OfKeyId, ProblemKind, Share, Sharing, State,
};
use crate::permissions::PermissionRecord;

/// Both questions to all stores, side by side.
pub(super) struct Look {
    describes: Round,
    reads: Round,
}

impl Look {
    pub(super) fn start(desk: &mut Desk, key_id: &KeyId, actions: &mut Vec<Action>) -> Self {
        let describes = describe_all(desk, key_id, actions);
        let places = 0..desk.stores.count();
        let read = |place| (place, Message::Read(OfKeyId { key_id: key_id.clone() }));
        let reads = Round::start(desk, actions, 1, places.map(read));
        Self { describes, reads }
    }

    /// True when everybody has answered, or the time is over.
    pub(super) fn step(&mut self, desk: &mut Desk, event: Event, actions: &mut Vec<Action>) -> bool {
        match event {
            Event::Heard(request, _) if self.describes.awaits(request) => self.describes.handle(desk, event, actions),
            Event::Heard(..) => self.reads.handle(desk, event, actions),
            Event::Woken => {
                self.describes.handle(desk, Event::Woken, actions);
                self.reads.handle(desk, Event::Woken, actions);
            }
        }
        if desk.late() {
            self.describes.close(actions);
            self.reads.close(actions);
        }
        self.describes.over() && self.reads.over()
    }

    pub(super) fn wake_at(&self, desk: &Desk) -> Duration {
        let rounds = [self.describes.wake_at(), self.reads.wake_at()];
        let first = rounds.into_iter().flatten().min();
        first.map_or(desk.deadline, |at| at.min(desk.deadline))
    }
}

/// What every store holds of one key id.
#[derive(Default)]
pub(super) struct Survey {
    /// By store; each of the configuration is there.
    pub(super) held: BTreeMap<Place, Held>,
    /// Which stores remember which removals.
    pub(super) tombstones: BTreeMap<RegistrationId, BTreeSet<Place>>,
    /// Some store let the caller see shares.
    pub(super) reads: bool,
    /// What is pending counts as confirmed: only in tests.
    pub(super) all_count: bool,
}

/// What one store holds.
pub(super) enum Held {
    /// An entry that it shows to the caller.
    Entry(Box<View>),
    /// Nothing, or nothing for the caller; in words.
    Nothing(String),
    /// It gave no answer that is of use; in words.
    Unknown(String),
}

/// An entry, as far as its store shows it.
pub(super) struct View {
    pub(super) constants: Constants,
    pub(super) state: State,
    /// In quarantine.
    pub(super) restored: bool,
    /// With shares where it hands them out.
    pub(super) sharings: Vec<HeldSharing>,
    /// Whether it handed out what shares it has.
    pub(super) read: bool,
    /// None where it did not say.
    pub(super) record: Option<PermissionRecord>,
    pub(super) pending_seconds: Option<u64>,
}

impl View {
    pub(super) fn sharing(&self, of: &Sharing) -> Option<&HeldSharing> {
        self.sharings.iter().find(|held| held.sharing == *of)
    }

    pub(super) fn has_confirmed(&self, of: &Sharing) -> bool {
        let confirmed = |held: &HeldSharing| held.state == State::Confirmed;
        self.state == State::Confirmed && self.sharing(of).is_some_and(confirmed)
    }
}

/// The highest sharing of a registration that joins and passes the check.
pub(super) struct Highest {
    pub(super) constants: Constants,
    pub(super) sharing: Sharing,
    pub(super) joined: Joined,
    /// Another sharing of the registration joins to another key: somebody who may write shares did that.
    pub(super) contested: bool,
}

impl Survey {
    /// Puts together what was answered.
    pub(super) fn of(desk: &Desk, look: Look) -> Self {
        let mut survey = Self::default();
        let Look {
            mut describes,
            mut reads,
        } = look;
        for place in 0..desk.stores.count() {
            let none = || Err("was not asked".to_owned());
            let described = describes.results.remove(&place).unwrap_or_else(none);
            let read = reads.results.remove(&place).unwrap_or_else(none);
            let held = match desk.stores.twin(place) {
                Some(twin) => Held::Unknown(twin),
                None => survey.take(place, described, read),
            };
            survey.held.insert(place, held);
        }
        survey
    }

    fn take(&mut self, place: Place, described: Result<Said, String>, read: Result<Said, String>) -> Held {
        let nothing = || Held::Nothing("has no share of it".to_owned());
        let (handed_out, restored) = match read {
            Ok(Said::Read(answer)) => {
                self.remember(place, answer.removed);
                self.reads |= answer.entry.is_some();
                (Ok(answer.entry), false)
            }
            other => (
                Err(describe_said(&other)),
                problem_of(&other) == Some(ProblemKind::Restored),
            ),
        };
        self.reads |= restored;
        match (described, handed_out) {
            (Ok(Said::Describe(answer)), handed_out) => {
                self.remember(
                    place,
                    answer.tombstones.iter().map(|tombstone| tombstone.registration_id),
                );
                let shares = handed_out.ok().flatten();
                match (answer.entry, shares) {
                    (Some(entry), shares) => Held::Entry(Box::new(View::of(entry, shares))),
                    // It came between the two answers.
                    (None, Some(entry)) => Held::Entry(Box::new(View::only_read(entry))),
                    (None, None) => nothing(),
                }
            }
            (_, Ok(Some(entry))) => Held::Entry(Box::new(View::only_read(entry))),
            (other, _) if problem_of(&other) == Some(ProblemKind::NotFound) => Held::Nothing(describe_said(&other)),
            (other, _) => Held::Unknown(describe_said(&other)),
        }
    }

    fn remember(&mut self, place: Place, removed: impl IntoIterator<Item = RegistrationId>) {
        for registration in removed {
            self.tombstones.entry(registration).or_default().insert(place);
        }
    }

    /// Entries of one registration.
    pub(super) fn entries(&self, of: RegistrationId) -> impl Iterator<Item = (Place, &View)> {
        self.held.iter().filter_map(move |(place, held)| match held {
            Held::Entry(view) if view.constants.registration_id == of => Some((*place, view.as_ref())),
            _ => None,
        })
    }

    pub(super) fn registrations(&self) -> BTreeSet<RegistrationId> {
        let of = |held: &Held| match held {
            Held::Entry(view) => Some(view.constants.registration_id),
            _ => None,
        };
        self.held.values().filter_map(of).collect()
    }

    /// Some store's part is not known.
    pub(super) fn silent(&self) -> bool {
        self.held.values().any(|held| matches!(held, Held::Unknown(_)))
    }

    /// Sharings that some store has confirmed, the highest first.
    pub(super) fn confirmed(&self, of: RegistrationId) -> Vec<(&Constants, &Sharing)> {
        let mut found: Vec<(&Constants, &Sharing)> = Vec::new();
        for (_, view) in self.entries(of) {
            for held in &view.sharings {
                let candidate = (&view.constants, &held.sharing);
                if (self.all_count || view.has_confirmed(&held.sharing)) && !found.contains(&candidate) {
                    found.push(candidate);
                }
            }
        }
        found.sort_by_key(|(_, sharing)| std::cmp::Reverse(sharing.order()));
        found
    }

    /// Shares of one sharing, whatever their state: that some store has it confirmed says that all were given one.
    pub(super) fn offers<'s>(&'s self, stores: &'s Stores, constants: &Constants, sharing: &Sharing) -> Vec<Offer<'s>> {
        let of_it = self.entries(constants.registration_id);
        let of_it = of_it.filter(|(_, view)| view.constants == *constants);
        let offer = |(place, view): (Place, &'s View)| {
            let share: &Share = view.sharing(sharing)?.share.as_ref()?;
            let store: &StoreId = stores.id(place)?;
            Some(Offer {
                from: place,
                store,
                share,
            })
        };
        of_it.filter_map(offer).collect()
    }

    /// The highest sharing with a confirmed share that joins, its m not below `min_threshold`.
    pub(super) fn highest(
        &self,
        stores: &Stores,
        key_id: &KeyId,
        of: RegistrationId,
        min_threshold: u8,
    ) -> Option<Highest> {
        let candidates = self.confirmed(of).into_iter();
        let candidates = candidates.filter(|(_, sharing)| sharing.m >= min_threshold);
        let mut joining = candidates.filter_map(|(constants, sharing)| {
            let offers = self.offers(stores, constants, sharing);
            let joined = sharing::join(key_id, constants, sharing, &offers).ok()?;
            Some((constants, sharing, joined))
        });
        let (constants, sharing, joined) = joining.next()?;
        let same = |other: &Joined| bool::from(joined.key.expose().ct_eq(other.key.expose()));
        let contested = joining.any(|(_, _, other)| !same(&other));
        Some(Highest {
            constants: constants.clone(),
            sharing: sharing.clone(),
            joined,
            contested,
        })
    }
}

impl View {
    fn of(described: DescribedEntry, handed_out: Option<Entry>) -> Self {
        let handed_out = handed_out.filter(|entry| entry.constants == described.constants);
        let read = handed_out.is_some();
        let mut shares = handed_out.map(|entry| entry.sharings).unwrap_or_default();
        let mut sharings = described.sharings;
        for held in &mut sharings {
            let given = shares.iter_mut().find(|given| given.sharing == held.sharing);
            held.share = given.and_then(|given| given.share.take());
        }
        Self {
            constants: described.constants,
            state: described.state,
            restored: described.restored,
            sharings,
            read,
            record: Some(described.permissions),
            pending_seconds: described.pending_seconds,
        }
    }

    fn only_read(entry: Entry) -> Self {
        Self {
            constants: entry.constants,
            state: entry.state,
            restored: false,
            sharings: entry.sharings,
            read: true,
            record: None,
            pending_seconds: None,
        }
    }
}
