//! What a repair has to do, as functions of what was found: no messages are sent here and nothing is remembered.
//!
//! The rules stand in `docs/src/protocol-walkthrough.md`, under repairing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::change::{Base, base};
use super::super::survey::{Held, Highest, Survey, View};
use super::super::{Message, Place, Rule, Rules, Stores};
use crate::ids::RegistrationId;
use crate::key_id::KeyId;
use crate::keystore::outcome::RepairOptions;
use crate::keystore::sharing::{self, Offer};
use crate::keystore::wire::{Change, Confirm, DropBelow, HeldSharing, OfRegistration, Put, Sharing, State, Undo};
use crate::permissions::PermissionRecord;

/// For how long a registration is left to whoever began it. Courtesy: a repair is as safe before.
const COURTESY_SECONDS: u64 = 15 * 60;

/// What can be done at a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    ConfirmPending,
    ConfirmStopped,
    Remove,
    Undo,
    GiveShare,
    ReplaceShare,
    Reopen,
    Permissions,
    Drop,
}

impl Deed {
    /// When it was done; of a dry run, when it would be.
    pub(super) fn words(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::ConfirmPending, false) => "confirmed what was pending",
            (Self::ConfirmPending, true) => "would confirm what is pending",
            (Self::ConfirmStopped, false) => "confirmed what was stopped",
            (Self::ConfirmStopped, true) => "would confirm what is stopped",
            (Self::Remove, false) => "finished the removal",
            (Self::Remove, true) => "would finish the removal",
            (Self::Undo, false) => "took back what nobody confirmed",
            (Self::Undo, true) => "would take back what nobody confirmed",
            (Self::GiveShare, false) => "gave it the share that it lacked",
            (Self::GiveShare, true) => "would give it the share that it lacks",
            (Self::ReplaceShare, false) => "replaced its damaged share",
            (Self::ReplaceShare, true) => "would replace its damaged share",
            (Self::Reopen, false) => "opened what was restored from a backup",
            (Self::Reopen, true) => "would open what was restored from a backup",
            (Self::Permissions, false) => "brought its permissions up to date",
            (Self::Permissions, true) => "would bring its permissions up to date",
            (Self::Drop, false) => "dropped its shares of earlier sharings",
            (Self::Drop, true) => "would drop its shares of earlier sharings",
        }
    }

    /// The entry is not there afterwards.
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Remove | Self::Undo)
    }
}

/// What is to be done, by store, and what cannot be, in words.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) acts: BTreeMap<Place, (Deed, Message)>,
    pub(super) faults: Vec<(Place, String)>,
}

/// What every step is about.
pub(super) struct About<'a> {
    pub(super) stores: &'a Stores,
    pub(super) survey: &'a Survey,
    pub(super) key_id: &'a KeyId,
    pub(super) registration: RegistrationId,
    pub(super) rules: Rules,
}

impl About<'_> {
    fn entries(&self) -> impl Iterator<Item = (Place, &View)> {
        self.survey.entries(self.registration)
    }

    fn of(&self) -> OfRegistration {
        OfRegistration {
            key_id: self.key_id.clone(),
            registration_id: self.registration,
        }
    }

    fn confirm(&self, sharing: &Sharing) -> Message {
        Message::Confirm(Confirm {
            key_id: self.key_id.clone(),
            registration_id: self.registration,
            sharing: sharing.clone(),
            force: true,
        })
    }

    pub(super) fn stop(&self) -> Message {
        Message::Stop(self.of())
    }
}

// --- removals -----------------------------------------------------------------------------------------------------------

/// A removal that `enough` stores remember, so many that one of them is honest, is finished; else the owner must say it
/// again.
pub(super) fn finish_removal(about: &About<'_>, tombstones: &BTreeSet<Place>, enough: usize) -> Plan {
    let mut plan = Plan::default();
    for (place, _) in about.entries() {
        if tombstones.len() >= enough {
            plan.acts.insert(place, (Deed::Remove, Message::Remove(about.of())));
            continue;
        }
        let of = tombstones.first().map_or("?", |place| about.stores.label(*place));
        let reason = format!("has a registration whose removal {of} remembers: unregister it again");
        plan.faults.push((place, reason));
    }
    plan
}

// --- what nobody has confirmed ------------------------------------------------------------------------------------------

/// Why a registration that no store has confirmed is left alone, if it is. Only where all have answered can it be that
/// nobody has confirmed it.
pub(super) fn leave_unconfirmed(about: &About<'_>, now: bool) -> Option<Vec<(Place, String)>> {
    if about.survey.silent() {
        let reason = "has a registration that no store which answered has confirmed";
        return Some(about.entries().map(|(place, _)| (place, reason.to_owned())).collect());
    }
    let young = about.entries().find_map(|(place, view)| {
        let seconds = view.pending_seconds.unwrap_or(0);
        (seconds < COURTESY_SECONDS).then_some((place, seconds))
    });
    let (place, seconds) = young.filter(|_| !now)?;
    let reason = format!("has a registration that has been pending for {seconds} s and may be under way");
    Some(vec![(place, reason)])
}

pub(super) fn undo(about: &About<'_>) -> Plan {
    let undo = Undo {
        key_id: about.key_id.clone(),
        registration_id: about.registration,
        sharing: None,
    };
    let undo = |(place, _)| (place, (Deed::Undo, Message::Undo(undo.clone())));
    Plan {
        acts: about.entries().map(undo).collect(),
        faults: Vec::new(),
    }
}

// --- permissions --------------------------------------------------------------------------------------------------------

/// The record that counts: of the store that the caller names, else the one that more than half of all stores hold.
pub(super) fn settled(about: &About<'_>, options: &RepairOptions) -> Option<PermissionRecord> {
    let records = || about.entries().filter_map(|(_, view)| view.record.as_ref());
    if let Some(over) = &options.over {
        let mut entries = about.entries();
        let named = entries.find(|(place, _)| about.stores.label(*place) == over);
        return named.and_then(|(_, view)| view.record.clone());
    }
    if !about.rules.hold(Rule::PermissionMajority) {
        return records().max_by_key(|record| record.version).cloned();
    }
    match base(about.stores.count(), records()) {
        Base::Settled(record) | Base::Overtaken { majority: record, .. } => Some(record.clone()),
        Base::Split => None,
    }
}

/// Stores with an earlier record get the one that counts. A later one may be a revocation that died half-way: it is
/// told and left, but where the caller said which counts.
pub(super) fn even_out(about: &About<'_>, settled: Option<&PermissionRecord>, options: &RepairOptions) -> Plan {
    let mut plan = Plan::default();
    let Some(majority) = settled else {
        plan.faults = match &options.over {
            Some(over) => no_record(about, over),
            None => disagreeing(about),
        };
        return plan;
    };
    for (place, view) in about.entries() {
        let Some(record) = &view.record else {
            continue;
        };
        if record == majority {
            continue;
        }
        if record.version > majority.version && options.over.is_none() && about.rules.hold(Rule::PermissionLater) {
            if !record.says_the_same_as(majority) {
                let reason = format!(
                    "has permissions of version {} where most have {}: set them again, or say which store counts",
                    record.version, majority.version
                );
                plan.faults.push((place, reason));
            }
            continue;
        }
        let change = Change {
            key_id: about.key_id.clone(),
            registration_id: about.registration,
            if_version: record.version,
            if_change_id: record.change_id,
            permissions: majority.clone(),
        };
        plan.acts
            .insert(place, (Deed::Permissions, Message::Change(Box::new(change))));
    }
    plan
}

fn no_record(about: &About<'_>, over: &str) -> Vec<(Place, String)> {
    let named = (0..about.stores.count()).filter(|place| about.stores.label(*place) == over);
    named
        .map(|place| (place, "does not show the permissions that are to count".to_owned()))
        .collect()
}

fn disagreeing(about: &About<'_>) -> Vec<(Place, String)> {
    let records: Vec<(Place, &PermissionRecord)> = about
        .entries()
        .filter_map(|(place, view)| Some((place, view.record.as_ref()?)))
        .collect();
    let agree = records.windows(2).all(|two| two[0].1.says_the_same_as(two[1].1));
    if agree {
        return Vec::new();
    }
    let reason = |(place, record): (Place, &PermissionRecord)| {
        let text = format!(
            "has permissions of version {}, and no more than half of the stores have the same: set them again",
            record.version
        );
        (place, text)
    };
    records.into_iter().map(reason).collect()
}

// --- shares -------------------------------------------------------------------------------------------------------------

/// What a repair of the shares comes to.
#[derive(Default)]
pub(super) struct Shares {
    pub(super) plan: Plan,
    /// Stores that have it as it should be.
    pub(super) whole: BTreeSet<Place>,
    /// Of those, the ones whose share the caller could not see.
    pub(super) unseen: BTreeSet<Place>,
    /// Stores that the sharing lists and no configured store is.
    pub(super) strangers: Vec<String>,
}

impl Shares {
    fn fault(&mut self, place: Place, reason: impl Into<String>) {
        self.plan.faults.push((place, reason.into()));
    }

    fn act(&mut self, place: Place, deed: Deed, message: Message) {
        self.plan.acts.insert(place, (deed, message));
    }
}

const TOO_FEW_TO_MAKE: &str = "too few others are left to make it again: reshare the key";

/// The highest sharing that joins is put or confirmed wherever its list says that it should be and it is not.
pub(super) fn complete(about: &About<'_>, highest: &Highest, majority: Option<&PermissionRecord>) -> Shares {
    let mut shares = Shares::default();
    if highest.contested && about.rules.hold(Rule::OneKey) {
        let reason = "has one of two sharings that join to different keys: nothing was touched";
        for (place, _) in about.entries() {
            shares.fault(place, reason);
        }
        return shares;
    }
    for (at, id) in highest.sharing.stores.iter().enumerate() {
        let place = (0..about.stores.count()).find(|place| about.stores.id(*place) == Some(id));
        let (Some(place), Ok(index)) = (place, u8::try_from(at + 1)) else {
            if !about.survey.silent() {
                shares.strangers.push(id.to_string());
            }
            continue;
        };
        complete_at(about, highest, majority, (place, index), &mut shares);
    }
    shares
}

fn complete_at(
    about: &About<'_>,
    highest: &Highest,
    majority: Option<&PermissionRecord>,
    (place, index): (Place, u8),
    shares: &mut Shares,
) {
    let view = match about.survey.held.get(&place) {
        Some(Held::Nothing(nothing)) => {
            let put = majority.and_then(|record| put(about, highest, index, record));
            match put {
                Some(put) => shares.act(place, Deed::GiveShare, put),
                None if majority.is_none() => {
                    let reason = format!("{nothing}, and no more than half of the stores have the same permissions");
                    shares.fault(place, reason);
                }
                None => shares.fault(place, format!("{nothing}, and {TOO_FEW_TO_MAKE}")),
            }
            return;
        }
        Some(Held::Entry(view)) if view.constants == highest.constants => view,
        Some(Held::Entry(view)) => {
            let what = match view.constants.registration_id == about.registration {
                true => "has it with another cipher, key length or iv",
                false => "has another registration of this key id",
            };
            shares.fault(place, what);
            return;
        }
        Some(Held::Unknown(_)) | None => return,
    };
    let up_to_date = match (&view.record, majority) {
        (Some(record), Some(majority)) => record.says_the_same_as(majority),
        _ => false,
    };
    if view.restored && !up_to_date && about.rules.hold(Rule::RestoredPermissions) {
        shares.fault(
            place,
            "was restored from a backup, and what permissions the key has now is not settled",
        );
        return;
    }
    let record = view.record.as_ref().or(majority);
    let put = record.and_then(|record| put(about, highest, index, record));
    let good = highest.joined.on.contains(&place);
    let held = view.sharing(&highest.sharing);
    let deed = deed(view, held);
    if deed == Deed::ReplaceShare && (good || !view.read) {
        shares.whole.insert(place);
        if !good {
            shares.unseen.insert(place);
        }
        return;
    }
    match (put, held) {
        (_, Some(_)) if good => shares.act(place, deed, about.confirm(&highest.sharing)),
        (Some(put), _) => shares.act(place, deed, put),
        (None, Some(_)) if !view.read => shares.act(place, deed, about.confirm(&highest.sharing)),
        (None, Some(HeldSharing { share: Some(_), .. })) => {
            shares.fault(place, format!("gave a wrong share, and {TOO_FEW_TO_MAKE}"));
        }
        (None, _) => shares.fault(place, format!("has lost its share, and {TOO_FEW_TO_MAKE}")),
    }
}

fn deed(view: &View, held: Option<&HeldSharing>) -> Deed {
    match held {
        _ if view.restored => Deed::Reopen,
        None => Deed::GiveShare,
        Some(_) if view.state == State::Stopped => Deed::ConfirmStopped,
        Some(held) if view.state == State::Pending || held.state == State::Pending => Deed::ConfirmPending,
        Some(_) => Deed::ReplaceShare,
    }
}

/// The share that belongs at `index`, made again; none where those at hand do not prove it.
fn put(about: &About<'_>, highest: &Highest, index: u8, record: &PermissionRecord) -> Option<Message> {
    let Highest {
        constants,
        sharing,
        joined,
        ..
    } = highest;
    if !joined.proves_shares(sharing) && about.rules.hold(Rule::ProveShares) {
        return None;
    }
    let offers = about.survey.offers(about.stores, constants, sharing);
    let on = offers.into_iter().filter(|offer| joined.on.contains(&offer.from));
    // Two stores may claim one index; the arithmetic needs m different ones.
    let by_index: BTreeMap<u8, Offer<'_>> = on.map(|offer| (offer.share.index, offer)).collect();
    let enough: Vec<Offer<'_>> = by_index.into_values().take(usize::from(sharing.m)).collect();
    let share = sharing::recompute(sharing, &enough, index)?;
    Some(Message::Put(Box::new(Put {
        key_id: about.key_id.clone(),
        registration_id: constants.registration_id,
        cipher: constants.cipher.clone(),
        key_bits: constants.key_bits,
        iv: constants.iv.clone(),
        sharing: sharing.clone(),
        share,
        state: State::Confirmed,
        permissions: record.clone(),
    })))
}

/// Nothing joins, but some store has it confirmed: what is pending or stopped of the same sharing is confirmed.
pub(super) fn confirm_all(about: &About<'_>) -> Shares {
    let mut shares = Shares::default();
    let confirmed: Vec<&Sharing> = about
        .survey
        .confirmed(about.registration)
        .into_iter()
        .map(|(_, sharing)| sharing)
        .collect();
    for (place, view) in about.entries() {
        let same = view.sharings.iter().find(|held| confirmed.contains(&&held.sharing));
        match (view.state, same) {
            (State::Confirmed, _) if view.restored => {
                shares.fault(place, "was restored from a backup and not repaired since");
            }
            (State::Confirmed, _) => {
                shares.whole.insert(place);
                shares.unseen.insert(place);
            }
            (_, Some(held)) => shares.act(place, deed(view, same), about.confirm(&held.sharing)),
            (_, None) => shares.fault(place, "has another sharing than was confirmed"),
        }
    }
    shares
}

/// The highest sharing is everywhere: what is ordered before it can go.
pub(super) fn drop_earlier(about: &About<'_>, highest: &Highest) -> Plan {
    let order = highest.sharing.order();
    let drop = DropBelow {
        key_id: about.key_id.clone(),
        registration_id: about.registration,
        below: highest.sharing.clone(),
    };
    let listed = |place: &Place| {
        let id = about.stores.id(*place);
        id.is_some_and(|id| highest.sharing.stores.contains(id))
    };
    let old = about
        .entries()
        .filter(|(place, view)| listed(place) && view.sharings.iter().any(|held| held.sharing.order() < order));
    Plan {
        acts: old
            .map(|(place, _)| (place, (Deed::Drop, Message::Drop(drop.clone()))))
            .collect(),
        faults: Vec::new(),
    }
}
