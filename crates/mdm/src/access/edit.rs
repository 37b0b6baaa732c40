//! What a command line asks of permission records. No I/O.

use hydra_core::permissions::text::{AclEdit, Mode};
use hydra_core::permissions::{AclEntry, PermissionRecord, Permissions};

/// A change of a record, the same for every piece.
#[derive(Debug, Default)]
pub(super) struct Edit {
    pub(super) acl: Option<AclEdit>,
    pub(super) mode: Option<Mode>,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
}

impl Edit {
    /// The record as it shall be.
    pub(super) fn applied_to(&self, record: &PermissionRecord) -> PermissionRecord {
        let record = self
            .acl
            .as_ref()
            .map_or_else(|| record.clone(), |acl| acl.applied_to(record));
        let mut record = self
            .mode
            .as_ref()
            .map_or_else(|| record.clone(), |mode| mode.applied_to(&record));
        if let Some(owner) = &self.owner {
            record.owner.clone_from(owner);
        }
        if let Some(group) = &self.group {
            record.group.clone_from(group);
        }
        record
    }

    /// The same, but nobody gets anything that they had not: what names a patient is not given away by the way.
    pub(super) fn taking_only(&self, record: &PermissionRecord) -> PermissionRecord {
        let wanted = self
            .acl
            .as_ref()
            .map_or_else(|| record.clone(), |acl| acl.applied_to(record));
        let wanted = self
            .mode
            .as_ref()
            .map_or_else(|| wanted.clone(), |mode| mode.applied_to(&wanted));
        let left = |line: &AclEntry| {
            let now = wanted.acl.iter().find(|other| other.principal == line.principal)?;
            let permissions = both(line.permissions, now.permissions);
            (permissions != Permissions::NONE || now.permissions == line.permissions).then(|| AclEntry {
                principal: line.principal.clone(),
                permissions,
            })
        };
        PermissionRecord {
            user: both(record.user, wanted.user),
            group_permissions: both(record.group_permissions, wanted.group_permissions),
            other: both(record.other, wanted.other),
            acl: record.acl.iter().filter_map(left).collect(),
            ..record.clone()
        }
    }
}

fn both(one: Permissions, other: Permissions) -> Permissions {
    one.minus(one.minus(other))
}

#[cfg(test)]
mod tests {
    use hydra_core::ids::ChangeId;
    use proptest::prelude::*;

    use super::*;

    fn record(group: &str, acl: &[(&str, &str)]) -> PermissionRecord {
        let mut record = PermissionRecord::new("/CN=alice", Some("/myvo"), ChangeId::random().unwrap());
        record.group_permissions = group.parse().unwrap();
        record.acl = acl
            .iter()
            .map(|(principal, permissions)| AclEntry {
                principal: (*principal).into(),
                permissions: permissions.parse().unwrap(),
            })
            .collect();
        record
    }

    fn acl(set: &[&str], remove: &[&str]) -> Edit {
        let set = set.iter().map(|text| text.parse().unwrap()).collect();
        let remove = remove.iter().map(|text| (*text).to_owned()).collect();
        Edit {
            acl: Some(AclEdit::change(set, remove).unwrap()),
            ..Edit::default()
        }
    }

    #[test]
    fn taking_only_takes_and_never_gives() {
        let before = record("g", &[("/CN=bob", "lg"), ("/CN=eve", "lgs")]);
        let after = acl(&["/CN=carl:lg", "/CN=eve:l"], &["/CN=bob"]).taking_only(&before);
        assert_eq!(after.acl, record("g", &[("/CN=eve", "l")]).acl);
        let edit = Edit {
            mode: Some("g+ls,o=g".parse().unwrap()),
            owner: Some("/CN=mallory".into()),
            ..Edit::default()
        };
        assert!(edit.taking_only(&before).says_the_same_as(&before));
        assert_eq!(edit.applied_to(&before).owner, "/CN=mallory");
        let edit = Edit {
            mode: Some("g=-".parse().unwrap()),
            ..Edit::default()
        };
        assert_eq!(edit.taking_only(&before).group_permissions, Permissions::NONE);
    }

    proptest! {
        #[test]
        fn nobody_gains(mode in "[ugoa]{0,2}[-+=][pdrwlgs]{1,4}", set in "[pdrwlgs]{0,4}", held in "[pdrwlgs]{0,4}") {
            let before = record(&held, &[("/CN=bob", &held)]);
            let edit = Edit { mode: mode.parse().ok(), ..acl(&[&format!("/CN=bob:{set}"), "/CN=new:g"], &[]) };
            let after = edit.taking_only(&before);
            prop_assert_eq!(after.user.minus(before.user), Permissions::NONE);
            prop_assert_eq!(after.group_permissions.minus(before.group_permissions), Permissions::NONE);
            prop_assert_eq!(after.other.minus(before.other), Permissions::NONE);
            for line in &after.acl {
                prop_assert_eq!(&line.principal, "/CN=bob");
                prop_assert_eq!(line.permissions.minus(before.acl[0].permissions), Permissions::NONE);
            }
        }
    }
}
