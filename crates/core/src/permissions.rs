//! Who may do what with an entry: eight bits for owner, group and other, an ACL of principals, and one pure decision.
//!
//! The bits and their meaning are the original's (`docs/src/permissions.md`); the decision is a union: a request is
//! allowed if any part of the record that matches the caller grants it.

pub mod text;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ChangeId;

/// One permission bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Permission {
    /// `p`: change the permission record.
    ChangePermissions = 1,
    /// `d`: remove the entry.
    Remove = 2,
    /// `r`: read; without use for keys, kept for the original's scripts.
    Read = 4,
    /// `w`: write; likewise.
    Write = 8,
    /// `l`: list and describe the entry, see its permissions.
    List = 16,
    /// `x`: execute; likewise without use.
    Execute = 32,
    /// `g`: get metadata, which is: use the key.
    Use = 64,
    /// `s`: set metadata, which is: write shares.
    WriteShares = 128,
}

/// The letters in print order, with their bits.
const LETTERS: [(char, u8); 8] = [
    ('p', 1),
    ('d', 2),
    ('r', 4),
    ('w', 8),
    ('l', 16),
    ('x', 32),
    ('g', 64),
    ('s', 128),
];

/// A set of permission bits; prints as `pdrwl-gs`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "pdrwl-gs"))]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// No permission.
    pub const NONE: Self = Self(0);
    /// `pdrwl-gs`, what the owner of a new entry has.
    pub const OWNER_DEFAULT: Self = Self(0xff ^ 32);

    /// Whether `permission` is in the set.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & permission as u8 != 0
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LETTERS
            .iter()
            .try_for_each(|(letter, bit)| write!(f, "{}", if self.0 & bit != 0 { *letter } else { '-' }))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A letter that is no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no permission: the letters are pdrwlxgs")]
pub struct PermissionsError(pub char);

/// Any order, repeated letters, `-` for nothing.
impl FromStr for Permissions {
    type Err = PermissionsError;

    fn from_str(text: &str) -> Result<Self, PermissionsError> {
        text.chars()
            .filter(|letter| *letter != '-')
            .try_fold(Self::NONE, |set, letter| {
                let bit = LETTERS
                    .iter()
                    .find(|(known, _)| *known == letter)
                    .ok_or(PermissionsError(letter))?
                    .1;
                Ok(Self(set.0 | bit))
            })
    }
}

impl Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let set: Self = text.parse().map_err(serde::de::Error::custom)?;
        // Letters in any order are for people; what is sent and stored has one spelling.
        if set.to_string() != text {
            return Err(serde::de::Error::custom(
                "permissions are eight letters, as in `pdrwl-gs`",
            ));
        }
        Ok(set)
    }
}

/// The longest principal, in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 1024;

/// Why a text names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// Nothing, or too much.
    #[error("a principal has 1 to {MAX_PRINCIPAL_BYTES} bytes, this one has {0}")]
    Length(usize),
    /// A control character, a line break among them.
    #[error("a principal has no control characters")]
    Control,
}

/// Whether a store takes `text` as a principal: a DN, an FQAN or any other word.
///
/// # Errors
/// The rule that it breaks.
pub fn check_principal(text: &str) -> Result<(), PrincipalError> {
    if !(1..=MAX_PRINCIPAL_BYTES).contains(&text.len()) {
        return Err(PrincipalError::Length(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(PrincipalError::Control);
    }
    Ok(())
}

/// One line of an ACL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AclEntry {
    /// A DN in slash form, or an FQAN.
    pub principal: String,
    /// What it is granted.
    pub permissions: Permissions,
}

impl fmt::Display for AclEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.principal, self.permissions)
    }
}

/// The permission record of an entry. Two records are the same only if version *and* change id are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermissionRecord {
    /// DN of the owner.
    pub owner: String,
    /// FQAN of the group.
    pub group: String,
    /// What the owner may.
    pub user: Permissions,
    /// What members of the group may.
    pub group_permissions: Permissions,
    /// What everybody may whom the store's certificate authorities vouch for.
    pub other: Permissions,
    /// Further principals.
    pub acl: Vec<AclEntry>,
    /// Counts changes, from 1.
    pub version: u64,
    /// Drawn by whoever made the change.
    pub change_id: ChangeId,
}

/// The group of an entry whose owner has no FQAN.
pub const DEFAULT_GROUP: &str = "default-group";

impl PermissionRecord {
    /// The record of a new entry: `user pdrwl-gs, group --------, other --------`, no ACL, version 1.
    pub fn new(owner: impl Into<String>, group: Option<&str>, change_id: ChangeId) -> Self {
        Self {
            owner: owner.into(),
            group: group.unwrap_or(DEFAULT_GROUP).to_owned(),
            user: Permissions::OWNER_DEFAULT,
            group_permissions: Permissions::NONE,
            other: Permissions::NONE,
            acl: Vec::new(),
            version: 1,
            change_id,
        }
    }

    /// Whether the two let the same principals do the same, whatever their versions.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        (&self.owner, &self.group, &self.acl) == (&other.owner, &other.group, &other.acl)
            && (self.user, self.group_permissions, self.other) == (other.user, other.group_permissions, other.other)
    }

    /// Whether the two are one record: version and change id.
    pub fn same_as(&self, other: &Self) -> bool {
        self.version == other.version && self.change_id == other.change_id
    }
}

/// Who asks: a verified identity, reduced to what decisions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// DN of the end-entity certificate in slash form.
    pub dn: String,
    /// Verified FQANs, in order.
    pub fqans: Vec<String>,
    /// Whether the store's configuration names the caller an administrator.
    pub administrator: bool,
}

impl Caller {
    /// Whether `principal` is the caller's DN or one of the FQANs, byte for byte.
    pub fn is(&self, principal: &str) -> bool {
        self.dn == principal || self.fqans.iter().any(|fqan| fqan == principal)
    }
}

/// What the caller may do with an entry that has this record. `recovery` is the store's setting that lets its
/// administrators read shares.
pub fn granted(record: &PermissionRecord, caller: &Caller, recovery: bool) -> Permissions {
    let from_owner = if caller.dn == record.owner {
        record.user
    } else {
        Permissions::NONE
    };
    let in_group = caller.fqans.contains(&record.group);
    let from_group = if in_group {
        record.group_permissions
    } else {
        Permissions::NONE
    };
    let from_acl = record
        .acl
        .iter()
        .filter(|entry| caller.is(&entry.principal))
        .map(|entry| entry.permissions);
    let granted = from_acl.fold(from_owner.union(from_group).union(record.other), Permissions::union);
    if !caller.administrator {
        return granted;
    }
    // An administrator lists, removes and sees permissions; never the share, unless the store says recovery.
    let mut extra = Permission::ChangePermissions as u8 | Permission::Remove as u8 | Permission::List as u8;
    if recovery {
        extra |= Permission::Use as u8;
    }
    granted.union(Permissions(extra))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(dn: &str, fqans: &[&str]) -> Caller {
        Caller {
            dn: dn.into(),
            fqans: fqans.iter().map(|fqan| (*fqan).to_owned()).collect(),
            administrator: false,
        }
    }

    fn set(text: &str) -> Permissions {
        text.parse().unwrap()
    }

    #[test]
    fn letters_print_in_order_and_parse_in_any() {
        assert_eq!(set("sg-lwrdp").to_string(), "pdrwl-gs");
        assert_eq!(set("sg-lwrdp"), Permissions::OWNER_DEFAULT);
        assert_eq!("gq".parse::<Permissions>(), Err(PermissionsError('q')));
        assert_eq!(Permissions::NONE.to_string(), "--------");
    }

    #[test]
    fn a_grant_is_the_union_of_all_that_match() {
        let mut record = PermissionRecord::new("/CN=alice", Some("/myvo"), ChangeId([0; 16]));
        record.group_permissions = set("g");
        record.other = set("l");
        record.acl = vec![
            AclEntry {
                principal: "/CN=bob".into(),
                permissions: set("d"),
            },
            AclEntry {
                principal: "/myvo/x".into(),
                permissions: set("s"),
            },
        ];
        let cases = [
            (caller("/CN=alice", &[]), "pdrwl-gs"),
            (caller("/CN=alice", &["/myvo"]), "pdrwl-gs"),
            (caller("/CN=bob", &[]), "-d--l---"),
            (caller("/CN=bob", &["/myvo", "/myvo/x"]), "-d--l-gs"),
            (caller("/CN=eve", &["/myvo/y"]), "----l---"),
            (caller("/myvo", &[]), "----l---"),
        ];
        for (who, expected) in cases {
            assert_eq!(granted(&record, &who, false).to_string(), expected, "{who:?}");
        }
    }

    /// The parts of a record that can grant something.
    const PARTS: [&str; 5] = ["owner", "group", "other", "acl by DN", "acl by FQAN"];

    /// A record in which `parts` grant `letters` and nothing else grants anything.
    fn granting(parts: &[&str], letters: &str) -> PermissionRecord {
        let of = |part: &str| set(if parts.contains(&part) { letters } else { "" });
        let line = |principal: &str, permissions| AclEntry {
            principal: principal.into(),
            permissions,
        };
        PermissionRecord {
            user: of("owner"),
            group_permissions: of("group"),
            other: of("other"),
            acl: vec![
                line("/CN=nobody", set("pdrwlxgs")),
                line("/CN=named", of("acl by DN")),
                line("/myvo/Role=named", of("acl by FQAN")),
                line("/myvo/Role=nobody", set("pdrwlxgs")),
            ],
            ..PermissionRecord::new("/CN=owner", Some("/myvo"), ChangeId([0; 16]))
        }
    }

    /// Who matches which parts.
    fn callers() -> [(Caller, &'static [&'static str]); 9] {
        [
            (caller("/CN=owner", &[]), &["owner", "other"]),
            (caller("/CN=member", &["/other", "/myvo"]), &["group", "other"]),
            (caller("/CN=named", &[]), &["acl by DN", "other"]),
            (caller("/CN=x", &["/myvo/Role=named"]), &["acl by FQAN", "other"]),
            (caller("/CN=stranger", &["/Myvo", "/myvo/", "/CN=owner"]), &["other"]),
            (caller("/myvo", &[]), &["other"]),
            (caller("/CN=owner", &["/myvo"]), &["owner", "group", "other"]),
            (
                caller("/CN=named", &["/myvo/Role=named", "/myvo"]),
                &["acl by DN", "acl by FQAN", "group", "other"],
            ),
            (caller("/CN=owne", &["/myv", "/myvo/Role=name"]), &["other"]),
        ]
    }

    #[test]
    fn the_whole_table_of_decisions() {
        for bit in LETTERS.map(|(letter, _)| letter.to_string()) {
            for first in PARTS {
                for second in PARTS {
                    let record = granting(&[first, second], &bit);
                    for (who, matches) in callers() {
                        let expected = matches.contains(&first) || matches.contains(&second);
                        let expected = if expected { set(&bit) } else { Permissions::NONE };
                        let granted = granted(&record, &who, false);
                        assert_eq!(granted, expected, "{bit} by {first} and {second} for {who:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn different_bits_of_different_parts_add_up() {
        for (place, first) in PARTS.iter().enumerate() {
            for second in &PARTS[place + 1..] {
                let mut record = granting(&[first], "l");
                let more = granting(&[second], "g");
                record.user = record.user.union(more.user);
                record.group_permissions = record.group_permissions.union(more.group_permissions);
                record.other = record.other.union(more.other);
                for (line, more) in record.acl.iter_mut().zip(more.acl) {
                    line.permissions = line.permissions.union(more.permissions);
                }
                for (who, matches) in callers() {
                    let mut expected = Permissions::NONE;
                    for (part, bit) in [(first, "l"), (second, "g")] {
                        if matches.contains(part) {
                            expected = expected.union(set(bit));
                        }
                    }
                    assert_eq!(granted(&record, &who, false), expected, "{first}, {second}: {who:?}");
                }
            }
        }
    }

    #[test]
    fn a_denying_owner_entry_does_not_stop_a_granting_one() {
        let mut record = PermissionRecord::new("/CN=alice", None, ChangeId([0; 16]));
        record.user = Permissions::NONE;
        record.acl = vec![AclEntry {
            principal: "/CN=alice".into(),
            permissions: set("g"),
        }];
        assert_eq!(granted(&record, &caller("/CN=alice", &[]), false), set("g"));
    }

    #[test]
    fn an_administrator_never_gets_the_share_without_recovery() {
        let record = PermissionRecord::new("/CN=alice", None, ChangeId([0; 16]));
        let admin = Caller {
            administrator: true,
            ..caller("/CN=root", &[])
        };
        assert_eq!(granted(&record, &admin, false).to_string(), "pd--l---");
        assert_eq!(granted(&record, &admin, true).to_string(), "pd--l-g-");
    }
}
