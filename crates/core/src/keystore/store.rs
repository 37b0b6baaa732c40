//! What a store decides: the table of messages in `docs/src/formats/protocol.md`, one function for each, without I/O.
//!
//! Each function is given what the store holds under one key id ([`Held`]), who asks and by which rules ([`Context`]),
//! and the message. It changes `Held` and says how ([`Outcome`]), so that a database can follow and an in-memory store
//! runs the very rules that servers run. One rule stands above the table: whoever has no right to an entry is answered
//! what is answered where there is none, by the same path.

use super::agreement::gained;
use crate::ids::{CheckValue, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::wire::{
    self, CIPHER_EDS1, Change, Changed, Confirm, Constants, Create, DescribeAnswer, DescribedEntry, DropBelow, Entry,
    HeldSharing, ItemResult, MAX_SHARINGS, OfKeyId, OfRegistration, PermissionsAnswer, Problem, ProblemKind, Put,
    ReadAnswer, Scheme, Share, Sharing, State, Status, Tombstone, Undo,
};
use crate::permissions::{Caller, Permission, PermissionRecord, Permissions, check_principal, granted};

/// Everything that a store holds under one key id.
#[derive(Debug, Default)]
pub struct Held {
    /// At most one entry.
    pub entry: Option<StoredEntry>,
    /// For ever.
    pub tombstones: Vec<StoredTombstone>,
    /// For ever, but for a `put` of that registration.
    pub stop_marks: Vec<RegistrationId>,
}

/// An entry.
#[derive(Debug)]
pub struct StoredEntry {
    /// What never changes.
    pub constants: Constants,
    /// Pending, stopped or confirmed.
    pub state: State,
    /// In quarantine since a restore.
    pub restored: bool,
    /// Who may do what.
    pub record: PermissionRecord,
    /// DN of who brought it here, against whose limit it counts.
    pub placed_by: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub changed: u64,
    /// Up to [`MAX_SHARINGS`].
    pub sharings: Vec<StoredSharing>,
}

/// One sharing of an entry, with this store's share.
#[derive(Debug)]
pub struct StoredSharing {
    /// Which.
    pub sharing: Sharing,
    /// Pending or confirmed.
    pub state: State,
    /// None where the column on disk does not open.
    pub share: Option<Share>,
}

/// A removed registration.
#[derive(Debug, Clone)]
pub struct StoredTombstone {
    /// Which.
    pub registration_id: RegistrationId,
    /// DN of who removed it.
    pub by: String,
    /// Seconds since 1970.
    pub at: u64,
    /// The permission record that the entry had; none where nothing was.
    pub record: Option<PermissionRecord>,
}

/// Who asks, and by which rules.
#[derive(Debug, Clone)]
pub struct Context {
    /// The verified identity.
    pub caller: Caller,
    /// A creation rule admits the caller to this key id.
    pub may_create: bool,
    /// The store lets its administrators read shares.
    pub recovery: bool,
    /// The caller has as many entries and tombstones as the store allows.
    pub at_limit: bool,
    /// The most lines in an ACL.
    pub acl_limit: usize,
    /// What the store calls itself.
    pub store: StoreId,
    /// Seconds since 1970.
    pub now: u64,
}

/// What tells sharings of one registration apart on disk.
pub type SharingKey = (u32, Option<CheckValue>);

/// One thing that became different, for a database to follow; the new content is in [`Held`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An entry where none was; its sharings follow as effects of their own.
    NewEntry,
    /// State, record, quarantine or time of change.
    Entry,
    /// The entry with this registration is gone, its sharings too.
    EntryGone(RegistrationId),
    /// A sharing is new or has another share or state.
    Sharing(SharingKey),
    /// A sharing has another state, and the share that it had.
    SharingState(SharingKey),
    /// A sharing is gone.
    SharingGone(SharingKey),
    /// A tombstone is new.
    Tombstone(RegistrationId),
    /// A stop mark is new.
    StopMark(RegistrationId),
    /// A stop mark is gone.
    StopMarkGone(RegistrationId),
}

/// What came of a message.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the caller is told.
    pub result: ItemResult<T>,
    /// What is to be written before the caller is told.
    pub effects: Vec<Effect>,
    /// The caller lacked a right: for the log, not for the caller.
    pub denied: bool,
}

impl<T> Outcome<T> {
    fn done(answer: T) -> Self {
        Self {
            result: ItemResult::Done(answer),
            effects: Vec::new(),
            denied: false,
        }
    }

    fn problem(problem: Problem) -> Self {
        Self {
            result: ItemResult::Problem { problem },
            effects: Vec::new(),
            denied: false,
        }
    }

    fn not_found(denied: bool) -> Self {
        Self {
            denied,
            ..Self::problem(Problem::new(ProblemKind::NotFound))
        }
    }
}

impl Outcome<Changed> {
    fn status(status: Status) -> Self {
        Self::done(Changed::new(status))
    }

    fn ok(effects: Vec<Effect>) -> Self {
        Self {
            effects,
            ..Self::status(Status::Ok)
        }
    }

    fn unknown(denied: bool) -> Self {
        Self {
            denied,
            ..Self::status(Status::Unknown)
        }
    }
}

/// A message of the table.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant is the message of that name")]
pub enum Message {
    Create(Create),
    Confirm(Confirm),
    Stop(OfRegistration),
    Undo(Undo),
    Remove(OfRegistration),
    Read(OfKeyId),
    Describe(OfKeyId),
    Put(Put),
    Drop(DropBelow),
    Permissions(OfKeyId),
    Change(Change),
}

impl Message {
    /// The key id that it is about.
    pub fn key_id(&self) -> &KeyId {
        match self {
            Self::Create(message) => &message.key_id,
            Self::Confirm(message) => &message.key_id,
            Self::Stop(message) | Self::Remove(message) => &message.key_id,
            Self::Undo(message) => &message.key_id,
            Self::Read(message) | Self::Describe(message) | Self::Permissions(message) => &message.key_id,
            Self::Put(message) => &message.key_id,
            Self::Drop(message) => &message.key_id,
            Self::Change(message) => &message.key_id,
        }
    }

    /// Its operation.
    pub fn operation(&self) -> wire::Operation {
        match self {
            Self::Create(_) => wire::Operation::Create,
            Self::Confirm(_) => wire::Operation::Confirm,
            Self::Stop(_) => wire::Operation::Stop,
            Self::Undo(_) => wire::Operation::Undo,
            Self::Remove(_) => wire::Operation::Remove,
            Self::Read(_) => wire::Operation::Read,
            Self::Describe(_) => wire::Operation::Describe,
            Self::Put(_) => wire::Operation::Put,
            Self::Drop(_) => wire::Operation::Drop,
            Self::Permissions(_) => wire::Operation::Permissions,
            Self::Change(_) => wire::Operation::Change,
        }
    }
}

/// The answer to a message of whatever kind.
#[derive(Debug)]
pub enum Reply {
    /// To what changes an entry.
    Changed(Outcome<Changed>),
    /// To `read`.
    Read(Outcome<ReadAnswer>),
    /// To `describe`.
    Describe(Outcome<DescribeAnswer>),
    /// To `permissions`.
    Permissions(Outcome<PermissionsAnswer>),
}

/// Decides any message.
pub fn apply(held: &mut Held, context: &Context, message: Message) -> Reply {
    match message {
        Message::Create(message) => Reply::Changed(create(held, context, message)),
        Message::Confirm(message) => Reply::Changed(confirm(held, context, &message)),
        Message::Stop(message) => Reply::Changed(stop(held, context, &message)),
        Message::Undo(message) => Reply::Changed(undo(held, context, &message)),
        Message::Remove(message) => Reply::Changed(remove(held, context, &message)),
        Message::Read(_) => Reply::Read(read(held, context)),
        Message::Describe(_) => Reply::Describe(describe(held, context)),
        Message::Put(message) => Reply::Changed(put(held, context, message)),
        Message::Drop(message) => Reply::Changed(drop_below(held, context, &message)),
        Message::Permissions(_) => Reply::Permissions(permissions(held, context)),
        Message::Change(message) => Reply::Changed(change(held, context, message)),
    }
}

/// `create`: whom a creation rule admits makes a pending entry where the key id is free.
pub fn create(held: &mut Held, context: &Context, message: Create) -> Outcome<Changed> {
    // The rule goes by prefix and identity alone: refusing by it tells nothing of what is held.
    if !context.may_create {
        let outcome = Outcome::problem(Problem::new(ProblemKind::NotAllowed));
        return Outcome {
            denied: true,
            ..outcome
        };
    }
    if let Err(problem) = check_create(context, &message) {
        return Outcome::problem(problem);
    }
    let registration = message.registration_id;
    if held.tombstone(registration).is_some() {
        return Outcome::status(Status::Removed);
    }
    if let Some(entry) = &held.entry {
        let again = entry.constants.registration_id == registration
            && entry.record.owner == context.caller.dn
            && entry
                .sharings
                .iter()
                .any(|stored| stored.holds(&message.sharing, &message.share));
        return if again {
            Outcome::status(Status::Ok)
        } else {
            Outcome::done(exists(entry, context))
        };
    }
    if held.stop_marks.contains(&registration) {
        return Outcome::status(Status::Stopped);
    }
    if context.at_limit {
        return Outcome::problem(limit_of_entries());
    }
    let constants = Constants {
        registration_id: registration,
        cipher: message.cipher,
        key_bits: message.key_bits,
        iv: message.iv,
    };
    let stored = StoredSharing {
        sharing: message.sharing,
        state: State::Pending,
        share: Some(message.share),
    };
    Outcome::ok(held.place(context, constants, message.permissions, stored))
}

/// `confirm`: the owner or a holder of `s` confirms entry and sharing; a stopped entry only with force.
pub fn confirm(held: &mut Held, context: &Context, message: &Confirm) -> Outcome<Changed> {
    let removed = held.sees_tombstone(context, message.registration_id);
    let Some(entry) = held.entry_of(message.registration_id) else {
        return if removed {
            Outcome::status(Status::Removed)
        } else {
            Outcome::unknown(false)
        };
    };
    if !entry.owned_or(context, Permission::WriteShares) {
        return Outcome::unknown(true);
    }
    let top = entry.highest_confirmed();
    let Some(stored) = entry
        .sharings
        .iter_mut()
        .find(|stored| stored.sharing == message.sharing)
    else {
        return Outcome::status(Status::Unknown);
    };
    if entry.state == State::Stopped && !message.force {
        return Outcome::status(Status::Stopped);
    }
    if Some(message.sharing.order()) < top {
        return Outcome::status(Status::Older);
    }
    if entry.state == State::Confirmed && stored.state == State::Confirmed && !entry.restored {
        return Outcome::status(Status::Ok);
    }
    stored.state = State::Confirmed;
    entry.confirmed_at(context.now);
    Outcome::ok(vec![Effect::SharingState(message.sharing.order()), Effect::Entry])
}

/// `stop`: the owner or a holder of `d` keeps a pending entry from being confirmed; where nothing is, a mark does.
pub fn stop(held: &mut Held, context: &Context, message: &OfRegistration) -> Outcome<Changed> {
    let registration = message.registration_id;
    if let Some(entry) = held.entry_of(registration) {
        if !entry.owned_or(context, Permission::Remove) {
            return Outcome::not_found(true);
        }
        return match entry.state {
            State::Confirmed => Outcome::status(Status::Confirmed),
            State::Stopped => Outcome::status(Status::Ok),
            State::Pending => {
                entry.state = State::Stopped;
                entry.changed = context.now;
                Outcome::ok(vec![Effect::Entry])
            }
        };
    }
    if !context.may_create {
        return Outcome::not_found(true);
    }
    // A tombstone refuses a later create by itself.
    if held.stop_marks.contains(&registration) || held.tombstone(registration).is_some() {
        return Outcome::status(Status::Ok);
    }
    if context.at_limit {
        return Outcome::problem(limit_of_entries());
    }
    held.stop_marks.push(registration);
    Outcome::ok(vec![Effect::StopMark(registration)])
}

/// `undo`: the owner or a holder of `d` takes back what nobody confirmed; a holder of `s` takes back one sharing.
pub fn undo(held: &mut Held, context: &Context, message: &Undo) -> Outcome<Changed> {
    let registration = message.registration_id;
    let Some(entry) = held.entry_of(registration) else {
        return Outcome::unknown(false);
    };
    let Some(sharing) = &message.sharing else {
        if !entry.owned_or(context, Permission::Remove) {
            return Outcome::unknown(true);
        }
        if entry.state == State::Confirmed {
            return Outcome::status(Status::Confirmed);
        }
        held.entry = None;
        return Outcome::ok(vec![Effect::EntryGone(registration)]);
    };
    if !entry.grants(context, Permission::WriteShares) {
        return Outcome::unknown(true);
    }
    let Some(place) = entry.sharings.iter().position(|stored| stored.sharing == *sharing) else {
        return Outcome::status(Status::Ok);
    };
    if entry.sharings[place].state == State::Confirmed {
        return Outcome::status(Status::Confirmed);
    }
    // Before an entry is confirmed here its sharing may be confirmed elsewhere: only `undo` of the whole may end it.
    if entry.state != State::Confirmed {
        return Outcome::status(Status::Unknown);
    }
    entry.sharings.remove(place);
    entry.changed = context.now;
    Outcome::ok(vec![Effect::SharingGone(sharing.order()), Effect::Entry])
}

/// `remove`: a holder of `d` deletes the entry; where nothing is, whom a creation rule admits still leaves the
/// tombstone.
pub fn remove(held: &mut Held, context: &Context, message: &OfRegistration) -> Outcome<Changed> {
    let registration = message.registration_id;
    if let Some(entry) = held.entry_of(registration) {
        if !entry.grants(context, Permission::Remove) {
            return Outcome::not_found(true);
        }
        let record = entry.record.clone();
        held.entry = None;
        let gone = Effect::EntryGone(registration);
        return Outcome::ok(vec![gone, held.bury(context, registration, Some(record))]);
    }
    if let Some(tombstone) = held.tombstone(registration) {
        let entitled = context.may_create || tombstone.shows_to(context, Permission::Remove);
        return if entitled {
            Outcome::status(Status::Ok)
        } else {
            Outcome::not_found(true)
        };
    }
    if !context.may_create {
        return Outcome::not_found(true);
    }
    if context.at_limit {
        return Outcome::problem(limit_of_entries());
    }
    let status = if held.entry.is_some() {
        Status::Other
    } else {
        Status::Ok
    };
    let effect = held.bury(context, registration, None);
    Outcome {
        effects: vec![effect],
        ..Outcome::status(status)
    }
}

/// `read`: a holder of `g` gets every sharing held, and which registrations were removed.
pub fn read(held: &Held, context: &Context) -> Outcome<ReadAnswer> {
    let visible = held.entry_for(context, Permission::Use);
    if visible.is_some_and(|entry| entry.restored) {
        return Outcome::problem(Problem::new(ProblemKind::Restored));
    }
    let removed: Vec<_> = held
        .tombstones_for(context, Permission::Use)
        .map(|tombstone| tombstone.registration_id)
        .collect();
    if visible.is_none() && removed.is_empty() {
        return Outcome::not_found(held.entry.is_some());
    }
    let entry = visible.map(|entry| Entry {
        constants: entry.constants.clone(),
        state: entry.state,
        sharings: entry.sharings.iter().map(|stored| stored.answer(true)).collect(),
    });
    Outcome::done(ReadAnswer {
        status: Status::Ok,
        entry,
        removed,
    })
}

/// `describe`: a holder of `l` gets everything but the shares.
pub fn describe(held: &Held, context: &Context) -> Outcome<DescribeAnswer> {
    let visible = held.entry_for(context, Permission::List);
    let tombstones: Vec<_> = held
        .tombstones_for(context, Permission::List)
        .map(|tombstone| Tombstone {
            registration_id: tombstone.registration_id,
            by: tombstone.by.clone(),
            at: rfc3339(tombstone.at),
        })
        .collect();
    let shows_marks = visible.is_some() || context.may_create;
    let stop_marks = if shows_marks {
        held.stop_marks.clone()
    } else {
        Vec::new()
    };
    if visible.is_none() && tombstones.is_empty() && stop_marks.is_empty() {
        return Outcome::not_found(held.entry.is_some());
    }
    Outcome::done(DescribeAnswer {
        status: Status::Ok,
        entry: visible.map(|entry| entry.describe(context.now)),
        tombstones,
        stop_marks,
    })
}

/// `put`: a holder of `s` adds or replaces one sharing; where nothing is, whom a creation rule admits brings the entry
/// back.
pub fn put(held: &mut Held, context: &Context, message: Put) -> Outcome<Changed> {
    let registration = message.registration_id;
    let holds_right = held
        .entry_of(registration)
        .is_some_and(|entry| entry.grants(context, Permission::WriteShares));
    if !holds_right && !context.may_create && !held.sees_tombstone(context, registration) {
        return Outcome::not_found(true);
    }
    if held.tombstone(registration).is_some() {
        return Outcome::status(Status::Removed);
    }
    if let Err(problem) = check_put(context, &message) {
        return Outcome::problem(problem);
    }
    match &mut held.entry {
        Some(entry) if holds_right => {
            let mut outcome = put_into(entry, context, message);
            if !outcome.effects.is_empty() {
                outcome.effects.extend(held.lift_stop_mark(registration));
            }
            outcome
        }
        Some(entry) => Outcome {
            denied: entry.constants.registration_id == registration,
            ..Outcome::done(exists(entry, context))
        },
        None if context.at_limit => Outcome::problem(limit_of_entries()),
        None => put_anew(held, context, message),
    }
}

fn put_anew(held: &mut Held, context: &Context, message: Put) -> Outcome<Changed> {
    let registration = message.registration_id;
    let (constants, stored, record) = parts_of(message);
    let mut effects = held.place(context, constants, record, stored);
    effects.extend(held.lift_stop_mark(registration));
    Outcome::ok(effects)
}

fn put_into(entry: &mut StoredEntry, context: &Context, message: Put) -> Outcome<Changed> {
    let order = message.sharing.order();
    let (constants, new, _) = parts_of(message);
    if constants != entry.constants {
        return invalid("cipher, key length or iv are not those of the registration");
    }
    if Some(order) < entry.highest_confirmed() {
        return Outcome::status(Status::Older);
    }
    let mut effects = Vec::new();
    let place = entry.sharings.iter().position(|stored| stored.sharing.order() == order);
    if let Some(place) = place {
        let stored = &mut entry.sharings[place];
        if stored.sharing != new.sharing {
            return invalid("a sharing with this check value and another m, n or list of stores is held");
        }
        let pending_over_confirmed = stored.state == State::Confirmed && new.state == State::Pending;
        // What is confirmed stays so, and keeps its share, unless that is damaged: somebody may have sealed with it.
        let mut new = new;
        if pending_over_confirmed {
            if stored.share.is_some() {
                return Outcome::status(Status::Ok);
            }
            new.state = State::Confirmed;
        }
        *stored = new;
    } else {
        // In an entry that is not confirmed here, the pending sharing may be confirmed elsewhere: it gives no way.
        if entry.state == State::Confirmed && new.state == State::Pending {
            effects.extend(entry.give_way());
        }
        if entry.sharings.len() >= MAX_SHARINGS {
            return Outcome::status(Status::Full);
        }
        entry.sharings.push(new);
    }
    effects.extend([Effect::Sharing(order), Effect::Entry]);
    entry.changed = context.now;
    let confirmed = entry
        .sharings
        .iter()
        .any(|stored| stored.sharing.order() == order && stored.state == State::Confirmed);
    if confirmed {
        entry.confirmed_at(context.now);
    }
    Outcome::ok(effects)
}

fn parts_of(message: Put) -> (Constants, StoredSharing, PermissionRecord) {
    let constants = Constants {
        registration_id: message.registration_id,
        cipher: message.cipher,
        key_bits: message.key_bits,
        iv: message.iv,
    };
    let stored = StoredSharing {
        sharing: message.sharing,
        state: message.state,
        share: Some(message.share),
    };
    (constants, stored, message.permissions)
}

/// `drop`: a holder of `s` deletes the sharings ordered before one that is confirmed here.
pub fn drop_below(held: &mut Held, context: &Context, message: &DropBelow) -> Outcome<Changed> {
    let Some(entry) = held.entry_of(message.registration_id) else {
        return Outcome::unknown(false);
    };
    if !entry.grants(context, Permission::WriteShares) {
        return Outcome::unknown(true);
    }
    let stays = |stored: &StoredSharing| stored.sharing == message.below && stored.state == State::Confirmed;
    if !entry.sharings.iter().any(stays) {
        return Outcome::status(Status::Unknown);
    }
    let below = message.below.order();
    let orders = entry.sharings.iter().map(|stored| stored.sharing.order());
    let mut effects: Vec<_> = orders.filter(|order| *order < below).map(Effect::SharingGone).collect();
    if !effects.is_empty() {
        entry.sharings.retain(|stored| stored.sharing.order() >= below);
        entry.changed = context.now;
        effects.push(Effect::Entry);
    }
    Outcome::ok(effects)
}

/// `permissions`: a holder of `l` sees the record.
pub fn permissions(held: &Held, context: &Context) -> Outcome<PermissionsAnswer> {
    match held.entry_for(context, Permission::List) {
        None => Outcome::not_found(held.entry.is_some()),
        Some(entry) => Outcome::done(PermissionsAnswer {
            status: Status::Ok,
            registration_id: entry.constants.registration_id,
            permissions: entry.record.clone(),
        }),
    }
}

/// `change`: a holder of `p` by the record held replaces it, if it is the one that the message names.
pub fn change(held: &mut Held, context: &Context, message: Change) -> Outcome<Changed> {
    let Some(entry) = held.entry_of(message.registration_id) else {
        return Outcome::not_found(false);
    };
    // A lost answer is asked again, also by somebody who gave the right to change away with it. To whoever kept no
    // right at all the entry is not there.
    let knows_of_it = granted(&entry.record, &context.caller, context.recovery) != Permissions::NONE;
    if knows_of_it && entry.record == message.permissions {
        return Outcome::status(Status::Ok);
    }
    if !entry.grants(context, Permission::ChangePermissions) {
        return Outcome::not_found(true);
    }
    if let Err(problem) = check_record(context.acl_limit, &message.permissions) {
        return Outcome::problem(problem);
    }
    // Two contents under one change id are nobody's honest change.
    if entry.record.same_as(&message.permissions) {
        return invalid("another record with this version and change id is held");
    }
    if (entry.record.version, entry.record.change_id) != (message.if_version, message.if_change_id) {
        let mut conflict = Changed::new(Status::Conflict);
        conflict.permissions = Some(entry.record.clone());
        return Outcome::done(conflict);
    }
    if let Err(problem) = check_replacement(&context.caller, context.recovery, &entry.record, &message.permissions) {
        return Outcome {
            denied: true,
            ..Outcome::problem(problem)
        };
    }
    entry.record = message.permissions;
    entry.changed = context.now;
    Outcome::ok(vec![Effect::Entry])
}

impl Held {
    fn entry_of(&mut self, registration: RegistrationId) -> Option<&mut StoredEntry> {
        let entry = self.entry.as_mut();
        entry.filter(|entry| entry.constants.registration_id == registration)
    }

    fn entry_for(&self, context: &Context, permission: Permission) -> Option<&StoredEntry> {
        let entry = self.entry.as_ref();
        entry.filter(|entry| entry.grants(context, permission))
    }

    fn tombstone(&self, registration: RegistrationId) -> Option<&StoredTombstone> {
        let mut tombstones = self.tombstones.iter();
        tombstones.find(|tombstone| tombstone.registration_id == registration)
    }

    /// Seen by whom a creation rule admits, the remover, and who had the permission by the removed entry's record.
    fn tombstones_for<'a>(
        &'a self,
        context: &'a Context,
        permission: Permission,
    ) -> impl Iterator<Item = &'a StoredTombstone> {
        let tombstones = self.tombstones.iter();
        tombstones.filter(move |tombstone| context.may_create || tombstone.shows_to(context, permission))
    }

    fn sees_tombstone(&self, context: &Context, registration: RegistrationId) -> bool {
        self.tombstone(registration).is_some_and(|tombstone| {
            let seen = [Permission::WriteShares, Permission::Use, Permission::List];
            let mut seen = seen.iter().map(|permission| tombstone.shows_to(context, *permission));
            context.may_create || seen.any(|shows| shows)
        })
    }

    fn place(
        &mut self,
        context: &Context,
        constants: Constants,
        record: PermissionRecord,
        stored: StoredSharing,
    ) -> Vec<Effect> {
        let effects = vec![Effect::NewEntry, Effect::Sharing(stored.sharing.order())];
        self.entry = Some(StoredEntry {
            constants,
            state: stored.state,
            restored: false,
            record,
            placed_by: context.caller.dn.clone(),
            created: context.now,
            changed: context.now,
            sharings: vec![stored],
        });
        effects
    }

    fn bury(&mut self, context: &Context, registration: RegistrationId, record: Option<PermissionRecord>) -> Effect {
        self.tombstones.push(StoredTombstone {
            registration_id: registration,
            by: context.caller.dn.clone(),
            at: context.now,
            record,
        });
        Effect::Tombstone(registration)
    }

    fn lift_stop_mark(&mut self, registration: RegistrationId) -> Option<Effect> {
        let place = self.stop_marks.iter().position(|mark| *mark == registration)?;
        self.stop_marks.remove(place);
        Some(Effect::StopMarkGone(registration))
    }
}

impl StoredTombstone {
    fn shows_to(&self, context: &Context, permission: Permission) -> bool {
        let by_record =
            |record: &PermissionRecord| granted(record, &context.caller, context.recovery).contains(permission);
        self.by == context.caller.dn || self.record.as_ref().is_some_and(by_record)
    }
}

impl StoredEntry {
    /// Whether the caller has `permission` on this entry.
    pub fn grants(&self, context: &Context, permission: Permission) -> bool {
        granted(&self.record, &context.caller, context.recovery).contains(permission)
    }

    fn owned_or(&self, context: &Context, permission: Permission) -> bool {
        self.record.owner == context.caller.dn || self.grants(context, permission)
    }

    fn highest_confirmed(&self) -> Option<SharingKey> {
        let confirmed = self.sharings.iter().filter(|stored| stored.state == State::Confirmed);
        confirmed.map(|stored| stored.sharing.order()).max()
    }

    /// A repair that confirms also ends the quarantine of a restored entry.
    fn confirmed_at(&mut self, now: u64) {
        self.state = State::Confirmed;
        self.restored = false;
        self.changed = now;
    }

    /// Takes out the pending sharings.
    fn give_way(&mut self) -> Vec<Effect> {
        let pending = self.sharings.iter().filter(|stored| stored.state == State::Pending);
        let effects = pending
            .map(|stored| Effect::SharingGone(stored.sharing.order()))
            .collect();
        self.sharings.retain(|stored| stored.state != State::Pending);
        effects
    }

    fn pending_seconds(&self, now: u64) -> Option<u64> {
        (self.state != State::Confirmed).then(|| now.saturating_sub(self.created))
    }

    fn describe(&self, now: u64) -> DescribedEntry {
        DescribedEntry {
            constants: self.constants.clone(),
            state: self.state,
            restored: self.restored,
            sharings: self.sharings.iter().map(|stored| stored.answer(false)).collect(),
            permissions: self.record.clone(),
            created: rfc3339(self.created),
            changed: rfc3339(self.changed),
            pending_seconds: self.pending_seconds(now),
        }
    }
}

impl StoredSharing {
    fn holds(&self, sharing: &Sharing, share: &Share) -> bool {
        self.sharing == *sharing && self.share.as_ref().is_some_and(|held| held.same_as(share))
    }

    fn answer(&self, with_share: bool) -> HeldSharing {
        let share = self.share.as_ref().filter(|_| with_share);
        HeldSharing {
            sharing: self.sharing.clone(),
            state: self.state,
            share: share.map(Share::copy),
        }
    }
}

/// Which registration, its state and age are only for those who may list it.
fn exists(entry: &StoredEntry, context: &Context) -> Changed {
    let mut answer = Changed::new(Status::Exists);
    if entry.grants(context, Permission::List) {
        answer.registration_id = Some(entry.constants.registration_id);
        answer.state = Some(entry.state);
        answer.pending_seconds = entry.pending_seconds(context.now);
    }
    answer
}

fn limit_of_entries() -> Problem {
    Problem::new(ProblemKind::Limit).detail("you have as many entries here as this store allows")
}

fn invalid(detail: &str) -> Outcome<Changed> {
    Outcome::problem(Problem::new(ProblemKind::Invalid).detail(detail))
}

fn check_create(context: &Context, message: &Create) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemKind::Invalid).detail(detail));
    if let Err(error) = KeyId::new(message.key_id.as_str()) {
        return refuse(&error.to_string());
    }
    if message.permissions.owner != context.caller.dn {
        return refuse("the owner of a new entry is the caller");
    }
    if message.permissions.version != 1 {
        return refuse("the first permission record has version 1");
    }
    check_key(&message.cipher, message.key_bits, &message.iv, &message.share)?;
    check_sharing(context, &message.sharing, &message.share)?;
    check_record(context.acl_limit, &message.permissions)
}

fn check_put(context: &Context, message: &Put) -> Result<(), Problem> {
    if message.state == State::Stopped {
        return Err(Problem::new(ProblemKind::Invalid).detail("a sharing is pending or confirmed"));
    }
    check_key(&message.cipher, message.key_bits, &message.iv, &message.share)?;
    check_sharing(context, &message.sharing, &message.share)?;
    check_record(context.acl_limit, &message.permissions)
}

/// The longest key of any cipher, in bits, and the longest iv, in hex digits.
const MAX_KEY_BITS: u32 = 4096;
const MAX_IV_DIGITS: usize = 128;
/// Bytes of r behind the key in what is shared.
const R_BYTES: usize = super::sharing::R_LENGTH;

fn check_key(cipher: &str, key_bits: u32, iv: &str, share: &Share) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemKind::Invalid).detail(detail));
    let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !(1..=40).contains(&cipher.len()) || !cipher.bytes().all(name) {
        return refuse("a cipher is named in lower case, in 1 to 40 characters");
    }
    if cipher == CIPHER_EDS1 && (key_bits != 256 || !iv.is_empty()) {
        return refuse("`eds-1` has 256 key bits and no iv");
    }
    if !(8..=MAX_KEY_BITS).contains(&key_bits) || !key_bits.is_multiple_of(8) {
        return refuse("a key has 8 to 4096 bits, in whole bytes");
    }
    let hex = iv
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if iv.len() > MAX_IV_DIGITS || !iv.len().is_multiple_of(2) || !hex {
        return refuse("an iv is up to 64 bytes in lower-case hex");
    }
    let key_bytes = usize::try_from(key_bits / 8).unwrap_or(usize::MAX);
    let length = share.data.0.len();
    let fits = match share.scheme {
        Scheme::Gf256 => length == key_bytes + R_BYTES,
        // Groups of two bytes; how many there are is the original's business.
        Scheme::Gf65521 => (2..=2 * key_bytes + 2).contains(&length) && length.is_multiple_of(2),
    };
    if fits {
        Ok(())
    } else {
        refuse("the share is not as long as one of such a key")
    }
}

fn check_sharing(context: &Context, sharing: &Sharing, share: &Share) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemKind::Invalid).detail(detail));
    if sharing.m < 1 || sharing.m > sharing.n || usize::from(sharing.n) != sharing.stores.len() {
        return refuse("a sharing has 1 <= m <= n and n stores");
    }
    let mut stores: Vec<_> = sharing.stores.iter().collect();
    stores.sort_unstable();
    if stores.windows(2).any(|pair| pair[0] == pair[1]) {
        return refuse("a store stands twice in the list of stores");
    }
    if (share.m, share.n) != (sharing.m, sharing.n) {
        return refuse("m and n of the share are not those of the sharing");
    }
    let place = usize::from(share.index).checked_sub(1);
    if place.and_then(|place| sharing.stores.get(place)) != Some(&context.store) {
        return refuse("the share's index does not stand at this store's place in the list of stores");
    }
    let imported = share.scheme == Scheme::Gf65521;
    if imported != sharing.check.is_none() || (sharing.generation == 0) != imported {
        return refuse("a sharing has a generation from 1 and a check value, one of an imported key neither");
    }
    Ok(())
}

/// Owner and group change only by the owner's hand, or an administrator's, whoever else holds `p`. Who changes a record
/// as an administrator alone gives nobody what leads to the key: else one who administers m stores could read every
/// key.
///
/// # Errors
/// The problem to answer with.
pub fn check_replacement(
    caller: &Caller,
    recovery: bool,
    old: &PermissionRecord,
    new: &PermissionRecord,
) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemKind::Invalid).detail(detail));
    let given_away = old.owner != new.owner || old.group != new.group;
    if given_away && caller.dn != old.owner && !caller.administrator {
        return refuse("only its owner gives a key to another owner or group");
    }
    let ordinary = Caller {
        administrator: false,
        ..caller.clone()
    };
    let by_own_right = granted(old, &ordinary, recovery).contains(Permission::ChangePermissions);
    let leads_to_the_key = [Permission::ChangePermissions, Permission::Use, Permission::WriteShares];
    let gains = gained(old, new);
    if !by_own_right && !recovery && leads_to_the_key.iter().any(|one| gains.contains(*one)) {
        return refuse("an administrator of the store grants nobody `p`, `g` or `s`");
    }
    Ok(())
}

/// Whether a permission record can be kept at all.
///
/// # Errors
/// The problem to answer with.
pub fn check_record(acl_limit: usize, record: &PermissionRecord) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemKind::Invalid).detail(detail));
    if record.acl.len() > acl_limit {
        let detail = format!("an ACL has at most {acl_limit} lines here");
        return Err(Problem::new(ProblemKind::TooLarge).detail(detail));
    }
    let good = |principal: &str| check_principal(principal).is_ok();
    let mut principals = record.acl.iter().map(|line| line.principal.as_str());
    if !good(&record.owner) || !good(&record.group) || !principals.all(good) {
        return refuse("an owner, group or principal has 1 to 1024 bytes without control characters");
    }
    // Versions are kept as signed 64-bit numbers on disk.
    if record.version < 1 || i64::try_from(record.version).is_err() {
        return refuse("versions of permission records count from 1");
    }
    Ok(())
}

/// A time on the wire.
pub fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
