//! What a client gives to new keys: group, permissions and ACL, for all of them or by prefix of the key id
//! (`docs/src/configuration.md`).

use crate::ids::ChangeId;
use crate::key_id::KeyId;
use crate::permissions::text::{AclEdit, Mode};
use crate::permissions::{AclEntry, PermissionRecord};

/// What is said about the permissions of a new key; the rest is as it would be without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPermissions {
    /// The group, in place of the caller's first FQAN.
    pub group: Option<String>,
    /// Applied to `user pdrwl-gs, group --------, other --------`.
    pub mode: Option<Mode>,
    /// The ACL.
    pub acl: Option<Vec<AclEntry>>,
}

impl NewPermissions {
    /// This, and what it does not say from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            group: self.group.or(other.group),
            mode: self.mode.or(other.mode),
            acl: self.acl.or(other.acl),
        }
    }

    /// The first record of a key of `owner`, whose first FQAN is `fqan`.
    pub fn record(&self, owner: &str, fqan: Option<&str>, change_id: ChangeId) -> PermissionRecord {
        let mut record = PermissionRecord::new(owner, self.group.as_deref().or(fqan), change_id);
        if let Some(mode) = &self.mode {
            record = mode.applied_to(&record);
        }
        if let Some(acl) = &self.acl {
            record = AclEdit::exact(acl.iter().cloned()).applied_to(&record);
        }
        record
    }
}

/// The defaults of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// For all keys.
    pub all: NewPermissions,
    /// For keys whose id begins so.
    pub prefixes: Vec<(String, NewPermissions)>,
}

impl Defaults {
    /// What is said for `key_id`: each part by the longest prefix that says something about it.
    pub fn for_key(&self, key_id: &KeyId) -> NewPermissions {
        let begins = |(prefix, _): &&(String, NewPermissions)| key_id.as_str().starts_with(prefix.as_str());
        let mut fitting: Vec<_> = self.prefixes.iter().filter(begins).collect();
        fitting.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let said = fitting.into_iter().map(|(_, said)| said.clone());
        said.chain([self.all.clone()])
            .fold(NewPermissions::default(), NewPermissions::or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(group: Option<&str>, mode: Option<&str>, acl: Option<&str>) -> NewPermissions {
        NewPermissions {
            group: group.map(str::to_owned),
            mode: mode.map(|mode| mode.parse().unwrap()),
            acl: acl.map(|lines| lines.split_whitespace().map(|line| line.parse().unwrap()).collect()),
        }
    }

    fn told(defaults: &Defaults, key_id: &str) -> String {
        let record =
            defaults
                .for_key(&KeyId::new(key_id).unwrap())
                .record("/CN=alice", Some("/myvo"), ChangeId([1; 16]));
        let acl: Vec<String> = record.acl.iter().map(ToString::to_string).collect();
        format!("{} {} {}", record.group, record.group_permissions, acl.join(" "))
    }

    #[test]
    fn the_longest_prefix_that_says_something_decides_each_part() {
        let defaults = Defaults {
            all: said(Some("/myvo/radiology"), Some("g+lg"), Some("/myvo/Role=auditor:l")),
            prefixes: vec![
                ("/myvo/trial/".into(), said(None, Some("g=-"), None)),
                ("/myvo/trial/7/".into(), said(Some("/myvo/seven"), None, Some(""))),
            ],
        };
        assert_eq!(
            told(&defaults, "/myvo/x"),
            "/myvo/radiology ----l-g- /myvo/Role=auditor:----l---"
        );
        assert_eq!(
            told(&defaults, "/myvo/trial/1"),
            "/myvo/radiology -------- /myvo/Role=auditor:----l---"
        );
        assert_eq!(told(&defaults, "/myvo/trial/7/x"), "/myvo/seven -------- ");
        assert_eq!(told(&Defaults::default(), "/myvo/x"), "/myvo -------- ");
    }
}
