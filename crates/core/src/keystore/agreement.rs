//! What stores say about permissions, and what came of changing them (`docs/src/permissions.md`).
//!
//! Made by the machine of [`super::quorum::change`] and from a key's status; [`super::outcome`] has the other verbs.

use std::collections::BTreeMap;

use super::outcome::{KeyStatus, LocalError, StoreFault};
use super::quorum::change::{Base, base};
use crate::ids::RegistrationId;
use crate::key_id::KeyId;
use crate::permissions::{PermissionRecord, Permissions};

/// How to change permissions.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions {
    /// Label or id of the store whose record is the one to change, where they disagree.
    pub over: Option<String>,
    /// Changes nothing unless every store shows the entry, and takes back what a change that then broke off has
    /// granted.
    pub all_or_nothing: bool,
}

/// A change that every store holds.
#[derive(Debug, Clone)]
pub struct PermissionsChanged {
    /// The key id.
    pub key_id: KeyId,
    /// Of this registration.
    pub registration_id: RegistrationId,
    /// What held before.
    pub before: PermissionRecord,
    /// What holds now; the same where there was nothing to change.
    pub record: PermissionRecord,
    /// Labels of the stores that a message changed.
    pub changed: Vec<String>,
}

/// One store's permission record.
#[derive(Debug, Clone)]
pub struct RecordHeld {
    /// The store's label.
    pub store: String,
    /// Of this registration.
    pub registration_id: RegistrationId,
    /// The record.
    pub record: PermissionRecord,
}

/// What of a change is in force while only some stores hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// The change gives somebody something.
    pub grants: bool,
    /// So many stores hold it that those can use it.
    pub grant_holds: bool,
    /// The change takes something from somebody.
    pub revokes: bool,
    /// So few stores lack it that those can no longer use it.
    pub revocation_holds: bool,
}

impl InForce {
    /// In words, as a clause: `the grant holds already, the revocation does not hold yet`.
    pub fn words(self) -> String {
        let part = |there: bool, name: &str, holds: bool| {
            let state = if holds { "holds already" } else { "does not hold yet" };
            there.then(|| format!("the {name} {state}"))
        };
        let parts = [
            part(self.grants, "grant", self.grant_holds),
            part(self.revokes, "revocation", self.revocation_holds),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Why permissions were not changed at every store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// No such key, or the caller may not see its permissions.
    #[error("no key `{key_id}`, or not allowed to see its permissions")]
    NotFound {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// The caller sees the permissions, but may not change them.
    #[error("not allowed to change the permissions of `{key_id}`")]
    NotAllowed {
        /// The key id.
        key_id: KeyId,
        /// Who said so.
        faults: Vec<StoreFault>,
    },
    /// So few stores show the entry that it is not known what holds. Nothing was changed.
    #[error("the permissions of `{key_id}` were not changed: {have} of the {need} stores needed")]
    TooFew {
        /// The key id.
        key_id: KeyId,
        /// Stores that show it.
        have: usize,
        /// Stores needed.
        need: usize,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// The stores disagree, and it takes somebody to decide. Nothing was changed.
    #[error("the stores disagree about the permissions of `{key_id}`")]
    Disagree {
        /// The key id.
        key_id: KeyId,
        /// What each holds.
        held: Vec<RecordHeld>,
        /// A store holds a later record than more than half do: a change that may have died half-way.
        overtaken: bool,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// The store that is to decide was not there. Nothing was changed.
    #[error("`{store}` does not show the permissions of `{key_id}`")]
    NoSuchStore {
        /// The key id.
        key_id: KeyId,
        /// As it was named.
        store: String,
        /// Who was no help.
        faults: Vec<StoreFault>,
    },
    /// No store took the change, and none can have.
    #[error("the stores refuse these permissions for `{key_id}`")]
    Refused {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// Somebody else changed the permissions at the same time, and that change won.
    #[error("somebody else changed the permissions of `{key_id}` at the same time")]
    Conflict {
        /// The key id.
        key_id: KeyId,
        /// What the others hold now.
        held: Vec<RecordHeld>,
        /// Labels of stores that hold this change until the other one reaches them.
        mine: Vec<String>,
    },
    /// Some stores hold the change, others do not.
    #[error("the permissions of `{key_id}` were changed at {done} of {total} stores{}", after_comma(*.in_force))]
    InPart {
        /// The key id.
        key_id: KeyId,
        /// How many stores hold it.
        done: usize,
        /// Of how many.
        total: usize,
        /// What is in force.
        in_force: InForce,
        /// The stores that miss it, and why.
        faults: Vec<StoreFault>,
    },
    /// A change that broke off was taken back as far as it granted something.
    #[error("the permissions of `{key_id}` were not changed at every store: {}", undone_words(*.revocation_stays, .left))]
    Undone {
        /// The key id.
        key_id: KeyId,
        /// What it took from somebody stays so at the stores that it reached.
        revocation_stays: bool,
        /// Labels of stores that may still hold the grant.
        left: Vec<String>,
        /// What was wrong with the stores that it did not reach.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

fn after_comma(in_force: InForce) -> String {
    let words = in_force.words();
    if words.is_empty() { words } else { format!(", {words}") }
}

fn undone_words(revocation_stays: bool, left: &[String]) -> String {
    let undone = if left.is_empty() {
        "what it granted was taken back".to_owned()
    } else {
        format!("what it granted may still hold at {}", left.join(", "))
    };
    let stays = if revocation_stays {
        ", what it revoked stays revoked where it was reached"
    } else {
        ""
    };
    format!("{undone}{stays}")
}

/// What the answers of all stores mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Every store holds the same.
    Everywhere,
    /// More than half hold the same; the others hold an older record, none, or do not answer.
    Majority,
    /// As before, but a store holds a later record: a change that may have died half-way.
    Overtaken,
    /// No more than half hold the same.
    Split,
    /// So few stores answered that it is not known.
    Unclear,
    /// No such key, or the caller may not see its permissions.
    Unknown,
}

/// Who may do what with a key, as its stores say.
#[derive(Debug)]
pub struct PermissionsReport {
    /// The key id.
    pub key_id: KeyId,
    /// What each holds, or why that is not known; in the order of the configuration.
    pub stores: Vec<(String, Result<RecordHeld, StoreFault>)>,
    /// In short.
    pub agreement: Agreement,
    /// What more than half hold.
    pub record: Option<PermissionRecord>,
}

impl PermissionsReport {
    /// Reads it out of a key's status.
    pub fn of(status: KeyStatus) -> Self {
        let n = status.stores.len();
        let mut silent = 0;
        let stores: Vec<(String, Result<RecordHeld, StoreFault>)> = status
            .stores
            .into_iter()
            .map(|store| {
                let held = match store.held {
                    Ok(held) => held.entry.map(|entry| RecordHeld {
                        store: store.store.clone(),
                        registration_id: entry.constants.registration_id,
                        record: entry.permissions,
                    }),
                    Err(fault) => {
                        silent += 1;
                        return (store.store, Err(fault));
                    }
                };
                let nothing = || StoreFault::new(&store.store, "has no such key, or does not show it to you");
                (store.store.clone(), held.ok_or_else(nothing))
            })
            .collect();
        let (agreement, record) = agreement(n, silent, stores.iter().filter_map(|(_, held)| held.as_ref().ok()));
        Self {
            key_id: status.key_id,
            stores,
            agreement,
            record,
        }
    }

    /// Labels of the stores that do not hold what holds.
    pub fn missing(&self) -> Vec<&str> {
        let lacks = |held: &Result<RecordHeld, StoreFault>| match (held, &self.record) {
            (Ok(held), Some(record)) => !held.record.says_the_same_as(record),
            _ => true,
        };
        let stores = self.stores.iter().filter(|(_, held)| lacks(held));
        stores.map(|(store, _)| store.as_str()).collect()
    }
}

fn agreement<'r>(
    n: usize,
    silent: usize,
    held: impl Iterator<Item = &'r RecordHeld> + Clone,
) -> (Agreement, Option<PermissionRecord>) {
    let count = held.clone().count();
    let Some(registration) = most_common(held.clone().map(|held| held.registration_id)) else {
        let unclear = silent * 2 > n;
        return (
            if unclear {
                Agreement::Unclear
            } else {
                Agreement::Unknown
            },
            None,
        );
    };
    let of_it = held.filter(|held| held.registration_id == registration);
    match base(n, of_it.clone().map(|held| &held.record)) {
        Base::Settled(record) => {
            let same = of_it.filter(|held| held.record.says_the_same_as(record)).count();
            let agreement = if same == n {
                Agreement::Everywhere
            } else {
                Agreement::Majority
            };
            (agreement, Some(record.clone()))
        }
        Base::Overtaken { majority, .. } => (Agreement::Overtaken, Some(majority.clone())),
        Base::Split if count * 2 <= n && (count + silent) * 2 > n => (Agreement::Unclear, None),
        Base::Split => (Agreement::Split, None),
    }
}

/// What most of them are; of as many, the greatest.
pub(crate) fn most_common<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(one, _)| one)
}

/// Who is meant by a part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who<'r> {
    Owner(&'r str),
    Group(&'r str),
    Other,
    Principal(&'r str),
}

fn parts(record: &PermissionRecord) -> BTreeMap<Who<'_>, Permissions> {
    let mut parts = BTreeMap::new();
    let mut add = |who, permissions: Permissions| {
        let slot = parts.entry(who).or_insert(Permissions::NONE);
        *slot = slot.union(permissions);
    };
    add(Who::Owner(&record.owner), record.user);
    add(Who::Group(&record.group), record.group_permissions);
    add(Who::Other, record.other);
    for line in &record.acl {
        add(Who::Principal(&line.principal), line.permissions);
    }
    parts
}

/// Everything that some part of `new` (owner, group, other, a principal) gives beyond what the same part of `old` gave.
pub fn gained(old: &PermissionRecord, new: &PermissionRecord) -> Permissions {
    let before = parts(old);
    let had = |who: &Who<'_>| before.get(who).copied().unwrap_or(Permissions::NONE);
    let gains = parts(new)
        .into_iter()
        .map(|(who, permissions)| permissions.minus(had(&who)));
    gains.fold(Permissions::NONE, Permissions::union)
}

/// Whether some part of `new` gives more than the same part of `old` gave.
pub fn grants_more(old: &PermissionRecord, new: &PermissionRecord) -> bool {
    gained(old, new) != Permissions::NONE
}

/// What is left of `new` when everything that it gives beyond `old` is taken out; a new owner or group is given up as a
/// whole. What `new` takes away stays away.
#[must_use]
pub fn without_grants(old: &PermissionRecord, new: &PermissionRecord) -> PermissionRecord {
    let both = |one: Permissions, other: Permissions| one.minus(one.minus(other));
    let before = parts(old);
    let mut left = new.clone();
    (left.owner, left.user) = match new.owner == old.owner {
        true => (new.owner.clone(), both(new.user, old.user)),
        false => (old.owner.clone(), old.user),
    };
    (left.group, left.group_permissions) = match new.group == old.group {
        true => (new.group.clone(), both(new.group_permissions, old.group_permissions)),
        false => (old.group.clone(), old.group_permissions),
    };
    left.other = both(new.other, old.other);
    for line in &mut left.acl {
        let had = before.get(&Who::Principal(&line.principal)).copied();
        line.permissions = both(line.permissions, had.unwrap_or(Permissions::NONE));
    }
    // a principal that came with the grant goes with it
    left.acl
        .retain(|line| before.contains_key(&Who::Principal(&line.principal)));
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChangeId;
    use crate::permissions::AclEntry;

    fn set(text: &str) -> Permissions {
        text.parse().unwrap()
    }

    fn record(group: &str, acl: &[(&str, &str)]) -> PermissionRecord {
        let line = |(principal, letters): &(&str, &str)| AclEntry {
            principal: (*principal).to_owned(),
            permissions: set(letters),
        };
        PermissionRecord {
            group_permissions: set(group),
            acl: acl.iter().map(line).collect(),
            ..PermissionRecord::new("/CN=alice", Some("/myvo"), ChangeId([1; 16]))
        }
    }

    #[test]
    fn a_change_grants_where_any_part_gives_more() {
        let old = record("l", &[("bob", "g"), ("eve", "l")]);
        for (new, grants, revokes) in [
            (record("lg", &[("bob", "g"), ("eve", "l")]), true, false),
            (record("", &[("bob", "g"), ("eve", "l")]), false, true),
            (record("l", &[("bob", "g")]), false, true),
            (record("l", &[("bob", "d"), ("eve", "l")]), true, true),
            // the order of lines and a line said twice mean nothing
            (record("l", &[("eve", "l"), ("bob", "g"), ("bob", "g")]), false, false),
            // a line that grants nothing is no grant
            (record("l", &[("bob", "g"), ("eve", "l"), ("new", "")]), false, false),
        ] {
            assert_eq!(
                (grants_more(&old, &new), grants_more(&new, &old)),
                (grants, revokes),
                "{new:?}"
            );
        }
        let mut given = old.clone();
        given.owner = "/CN=bob".into();
        assert!(grants_more(&old, &given) && grants_more(&given, &old));
    }

    #[test]
    fn taking_grants_back_keeps_what_was_revoked() {
        let old = record("lg", &[("bob", "g"), ("eve", "lg")]);
        let new = record("ls", &[("eve", "ld"), ("new", "g")]);
        let left = without_grants(&old, &new);
        assert!(left.says_the_same_as(&record("l", &[("eve", "l")])), "{left:?}");
        assert!(!grants_more(&old, &left));
        // nothing was granted: nothing to take back
        let revoked = record("l", &[("eve", "l")]);
        assert!(without_grants(&old, &revoked).says_the_same_as(&revoked));
        // nothing was revoked: as it was
        let granted = record("lgs", &[("bob", "g"), ("eve", "lg"), ("new", "g")]);
        assert!(without_grants(&old, &granted).says_the_same_as(&old));
        let mut given = new;
        given.owner = "/CN=bob".into();
        assert_eq!(without_grants(&old, &given).owner, "/CN=alice");
    }
}
