//! Permissions as people write them: modes (`g+lg,o=-`), lines of an ACL (`PRINCIPAL:PERMS`), lists of them, and the
//! listing of a record. The grammar is the original's (`docs/src/permissions.md`). No I/O.

use std::fmt;
use std::str::FromStr;

use super::{AclEntry, PermissionRecord, Permissions, PermissionsError, PrincipalError, check_principal};

/// Why a text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// A clause without `+`, `-` or `=`, or with something else than `u`, `g`, `o`, `a` before it.
    #[error("`{0}` is no clause of a mode: [ugoa]*[+-=][pdrwlxgs-]+")]
    Clause(String),
    /// A letter that is no permission.
    #[error("mode `{clause}`")]
    Letter {
        /// The clause.
        clause: String,
        /// The letter.
        #[source]
        source: PermissionsError,
    },
}

/// What a clause of a mode does with the letters behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clause {
    user: bool,
    group: bool,
    other: bool,
    operator: Operator,
    permissions: Permissions,
}

/// A change of what owner, group and others may: clauses that are applied from left to right. The ACL stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode(Vec<Clause>);

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        text.split(',').map(Clause::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Clause {
    fn parse(text: &str) -> Result<Self, ModeError> {
        let wrong = || ModeError::Clause(text.to_owned());
        let at = text.find(['+', '-', '=']).ok_or_else(wrong)?;
        let (subjects, rest) = text.split_at(at);
        let mut letters = rest.chars();
        let operator = match letters.next() {
            Some('+') => Operator::Add,
            Some('-') => Operator::Remove,
            _ => Operator::Set,
        };
        let letters = letters.as_str();
        if letters.is_empty() || !subjects.chars().all(|subject| "ugoa".contains(subject)) {
            return Err(wrong());
        }
        let permissions = letters.parse().map_err(|source| ModeError::Letter {
            clause: text.to_owned(),
            source,
        })?;
        let names = |subject| subjects.is_empty() || subjects.contains('a') || subjects.contains(subject);
        Ok(Self {
            user: names('u'),
            group: names('g'),
            other: names('o'),
            operator,
            permissions,
        })
    }

    fn apply(self, to: &mut Permissions) {
        *to = match self.operator {
            Operator::Add => to.union(self.permissions),
            Operator::Remove => to.minus(self.permissions),
            Operator::Set => self.permissions,
        };
    }
}

impl Mode {
    /// The record with this mode applied.
    #[must_use]
    pub fn applied_to(&self, record: &PermissionRecord) -> PermissionRecord {
        let mut record = record.clone();
        for clause in &self.0 {
            let parts = [
                (clause.user, &mut record.user),
                (clause.group, &mut record.group_permissions),
                (clause.other, &mut record.other),
            ];
            for (_, part) in parts.into_iter().filter(|(named, _)| *named) {
                clause.apply(part);
            }
        }
        record
    }
}

/// Why a text is no line of an ACL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclTextError {
    /// No colon with permissions behind it.
    #[error("`{}` is not PRINCIPAL:PERMS, with letters of pdrwlxgs or `-` behind the last colon", shortened(.0))]
    Form(String),
    /// A principal that no store takes.
    #[error("`{}` names no principal", shortened(.text))]
    Principal {
        /// The line.
        text: String,
        /// The rule that it breaks.
        #[source]
        source: PrincipalError,
    },
    /// A principal that could not stand in a list.
    #[error("`{}`: a principal begins neither with `#` nor with a blank, else a list would lose it", shortened(.0))]
    Start(String),
    /// A line of a list.
    #[error("line {line}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: Box<AclTextError>,
    },
    /// One principal in two places of one change.
    #[error("`{}` is named twice", shortened(.0))]
    Twice(String),
}

/// A text of any length as it fits into a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The last colon counts, as DNs have colons too; what stands behind it must be letters of permissions, or nothing.
impl FromStr for AclEntry {
    type Err = AclTextError;

    fn from_str(text: &str) -> Result<Self, AclTextError> {
        let form = || AclTextError::Form(text.to_owned());
        let (principal, letters) = text.rsplit_once(':').ok_or_else(form)?;
        let permissions = letters.parse().map_err(|_| form())?;
        Ok(Self {
            principal: checked(principal)?,
            permissions,
        })
    }
}

fn checked(principal: &str) -> Result<String, AclTextError> {
    check_principal(principal).map_err(|source| AclTextError::Principal {
        text: principal.to_owned(),
        source,
    })?;
    if principal.starts_with(['#', ' ']) {
        return Err(AclTextError::Start(principal.to_owned()));
    }
    Ok(principal.to_owned())
}

/// The principal that is to go: `PRINCIPAL` or `PRINCIPAL:PERMS`, whose letters mean nothing but must be some.
///
/// # Errors
/// No principal, or a colon with something else behind it; a DN that has a colon is written with one more at its end.
pub fn principal_to_remove(text: &str) -> Result<String, AclTextError> {
    if text.contains(':') {
        return text.parse::<AclEntry>().map(|entry| entry.principal);
    }
    checked(text)
}

/// The lines of a list that count, each with its number: up to the first empty one, without leading blanks, without
/// those that begin with `#`.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = (1..).zip(text.lines().map(|line| line.trim_start_matches([' ', '\t'])));
    numbered
        .take_while(|(_, line)| !line.is_empty())
        .filter(|(_, line)| !line.starts_with('#'))
}

/// Reads a list, as a listing of permissions prints it.
///
/// # Errors
/// The first line that is none.
pub fn read_list<T>(text: &str, read: impl Fn(&str) -> Result<T, AclTextError>) -> Result<Vec<T>, AclTextError> {
    let at = |line, source| AclTextError::Line {
        line,
        source: Box::new(source),
    };
    lines(text)
        .map(|(line, text)| read(text).map_err(|source| at(line, source)))
        .collect()
}

/// A change of an ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclEdit {
    /// Some lines are set, others go.
    Change {
        /// These principals get these permissions, and no others.
        set: Vec<AclEntry>,
        /// These principals go.
        remove: Vec<String>,
    },
    /// The ACL is this, and nothing else.
    Exact(Vec<AclEntry>),
}

impl AclEdit {
    /// A change that names each principal once.
    ///
    /// # Errors
    /// [`AclTextError::Twice`].
    pub fn change(set: Vec<AclEntry>, remove: Vec<String>) -> Result<Self, AclTextError> {
        let mut named: Vec<&str> = set.iter().map(|entry| entry.principal.as_str()).collect();
        named.extend(remove.iter().map(String::as_str));
        named.sort_unstable();
        if let Some(twice) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(AclTextError::Twice(twice[0].to_owned()));
        }
        Ok(Self::Change { set, remove })
    }

    /// An exact list; a principal that stands there twice gets what both lines say, as stores read it.
    pub fn exact(list: impl IntoIterator<Item = AclEntry>) -> Self {
        let mut exact: Vec<AclEntry> = Vec::new();
        for entry in list {
            match exact.iter_mut().find(|known| known.principal == entry.principal) {
                Some(known) => known.permissions = known.permissions.union(entry.permissions),
                None => exact.push(entry),
            }
        }
        Self::Exact(exact)
    }

    /// The record with this change applied. Lines keep their places, new ones come last.
    #[must_use]
    pub fn applied_to(&self, record: &PermissionRecord) -> PermissionRecord {
        let mut record = record.clone();
        match self {
            Self::Exact(list) => record.acl.clone_from(list),
            Self::Change { set, remove } => {
                record.acl.retain(|line| !remove.contains(&line.principal));
                for entry in set {
                    let mut lines = record.acl.iter().map(|line| &line.principal);
                    match lines.position(|principal| *principal == entry.principal) {
                        Some(place) => {
                            record.acl[place].permissions = entry.permissions;
                            let mut at = 0;
                            record.acl.retain(|line| {
                                at += 1;
                                at <= place + 1 || line.principal != entry.principal
                            });
                        }
                        None => record.acl.push(entry.clone()),
                    }
                }
            }
        }
        record
    }
}

/// A record as the original lists it, but for its first line, which names the entry: owner, group, base permissions,
/// then a line for each principal. Feeds back into a list.
pub struct Listing<'r>(pub &'r PermissionRecord);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        writeln!(f, "# User: {}", OneLine(&record.owner))?;
        writeln!(f, "# Group: {}", OneLine(&record.group))?;
        writeln!(
            f,
            "# Base perms: user {}, group {}, other {}",
            record.user, record.group_permissions, record.other
        )?;
        let mut lines = record.acl.iter();
        lines.try_for_each(|line| writeln!(f, "{}:{}", OneLine(&line.principal), line.permissions))
    }
}

/// A name from a store, which may be a lie with line breaks in it, on one line.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ChangeId;

    fn set(text: &str) -> Permissions {
        text.parse().unwrap()
    }

    fn record() -> PermissionRecord {
        PermissionRecord::new("/CN=alice", Some("/myvo"), ChangeId([1; 16]))
    }

    fn line(principal: &str, letters: &str) -> AclEntry {
        AclEntry {
            principal: principal.to_owned(),
            permissions: set(letters),
        }
    }

    /// User, group and other after a mode.
    fn after(mode: &str) -> String {
        let record = mode.parse::<Mode>().unwrap().applied_to(&record());
        format!("{} {} {}", record.user, record.group_permissions, record.other)
    }

    #[test]
    fn modes_are_applied_from_left_to_right() {
        for (mode, expected) in [
            ("g+lg", "pdrwl-gs ----l-g- --------"),
            ("+l", "pdrwl-gs ----l--- ----l---"),
            ("a+l", "pdrwl-gs ----l--- ----l---"),
            ("go=gl,o-g", "pdrwl-gs ----l-g- ----l---"),
            ("=-", "-------- -------- --------"),
            ("u=-", "-------- -------- --------"),
            ("u-pd", "--rwl-gs -------- --------"),
            ("u--p-d", "--rwl-gs -------- --------"),
            ("ugo=p,g+d,uu-p", "-------- pd------ p-------"),
            ("g=x+l", ""),
        ] {
            if expected.is_empty() {
                assert!(mode.parse::<Mode>().is_err(), "{mode}");
            } else {
                assert_eq!(after(mode), expected, "{mode}");
            }
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for wrong in [
            "", ",", "g", "g+", "g+l,", "755", "x+l", "g+lq", "u g+l", "+", "-", "g+L", "ü+l",
        ] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_colon_parts_a_principal_from_its_permissions() {
        for (text, expected) in [
            ("/CN=bob:gl", line("/CN=bob", "lg")),
            ("/CN=host/h:8443:g", line("/CN=host/h:8443", "g")),
            ("/myvo/Role=reader:--------", line("/myvo/Role=reader", "")),
            ("a:", line("a", "")),
            ("Jane \"J\" Doe:g", line("Jane \"J\" Doe", "g")),
        ] {
            assert_eq!(text.parse::<AclEntry>(), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "bob",
            ":g",
            "bob:q",
            "/CN=h:8443",
            "a\nb:g",
            "a\0:g",
            "#a:g",
            " a:g",
        ] {
            assert!(wrong.parse::<AclEntry>().is_err(), "{wrong:?}");
        }
        let long = format!("{}:g", "x".repeat(65_536));
        let error = long.parse::<AclEntry>().unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn what_goes_may_be_named_with_or_without_letters() {
        assert_eq!(principal_to_remove("bob").as_deref(), Ok("bob"));
        assert_eq!(principal_to_remove("bob:gl").as_deref(), Ok("bob"));
        assert_eq!(principal_to_remove("/CN=h:8443:").as_deref(), Ok("/CN=h:8443"));
        assert!(principal_to_remove("bob:what").is_err());
        assert!(principal_to_remove("").is_err());
    }

    #[test]
    fn a_list_ends_at_its_first_empty_line() {
        let text = "# ENTRY: /k\n  /CN=bob:g\n\t# a remark\n/myvo:l\n\nnonsense\n";
        let list = read_list(text, str::parse::<AclEntry>);
        assert_eq!(list, Ok(vec![line("/CN=bob", "g"), line("/myvo", "l")]));
        let wrong = read_list("a:g\nb\n", str::parse::<AclEntry>).unwrap_err();
        assert_eq!(wrong.to_string(), "line 2");
        assert_eq!(read_list("", str::parse::<AclEntry>), Ok(vec![]));
        assert_eq!(
            read_list("a\nb:g\n", principal_to_remove),
            Ok(vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn changes_keep_the_other_lines() {
        let mut before = record();
        before.acl = vec![line("a", "g"), line("b", "l"), line("a", "d")];
        let edit = AclEdit::change(vec![line("a", "s"), line("c", "g")], vec!["b".into(), "absent".into()]).unwrap();
        assert_eq!(edit.applied_to(&before).acl, [line("a", "s"), line("c", "g")]);
        assert_eq!(edit.applied_to(&edit.applied_to(&before)), edit.applied_to(&before));
        let exact = AclEdit::exact([line("z", "g"), line("z", "l")]);
        assert_eq!(exact.applied_to(&before).acl, [line("z", "lg")]);
        assert!(AclEdit::exact([]).applied_to(&before).acl.is_empty());
        let twice = AclEdit::change(vec![line("a", "s")], vec!["a".into()]);
        assert_eq!(twice, Err(AclTextError::Twice("a".into())));
        assert!(AclEdit::change(vec![line("a", "s"), line("a", "s")], vec![]).is_err());
    }

    #[test]
    fn a_listing_is_the_originals_and_keeps_lies_on_one_line() {
        let mut listed = record();
        listed.acl = vec![line("/CN=bob", "rg"), line("x\n/CN=eve", "g")];
        let expected = "# User: /CN=alice\n# Group: /myvo\n\
                        # Base perms: user pdrwl-gs, group --------, other --------\n\
                        /CN=bob:--r---g-\nx\\n/CN=eve:------g-\n";
        assert_eq!(Listing(&listed).to_string(), expected);
    }

    fn any_permissions() -> impl Strategy<Value = Permissions> {
        any::<u8>().prop_map(Permissions)
    }

    proptest! {
        #[test]
        fn a_listed_acl_reads_back_as_it_was(
            acl in prop::collection::vec(("[^\\p{Cc}# ][^\\p{Cc}]{0,40}", any_permissions()), 0..8),
        ) {
            let mut listed = record();
            listed.acl = acl
                .into_iter()
                .map(|(principal, permissions)| AclEntry { principal, permissions })
                .collect();
            let text = Listing(&listed).to_string();
            let list = read_list(&text, str::parse::<AclEntry>);
            // a principal that begins with a tab or other blank is cut by whoever reads lists
            prop_assert_eq!(list, Ok(listed.acl));
        }

        #[test]
        fn setting_and_clearing_a_mode_is_what_it_says(bits in any_permissions(), subject in "[ugoa]{0,3}") {
            let set = format!("{subject}={bits}").parse::<Mode>().unwrap().applied_to(&record());
            let all = subject.is_empty() || subject.contains('a');
            prop_assert_eq!(set.user, if all || subject.contains('u') { bits } else { record().user });
            prop_assert_eq!(set.other, if all || subject.contains('o') { bits } else { Permissions::NONE });
            let added = format!("+{bits}").parse::<Mode>().unwrap().applied_to(&record());
            prop_assert_eq!(added.user, record().user.union(bits));
            let taken = format!("a-{bits}").parse::<Mode>().unwrap().applied_to(&record());
            prop_assert_eq!(taken.user, record().user.minus(bits));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Mode>();
            let _ = principal_to_remove(&text);
            if let Ok(entry) = text.parse::<AclEntry>() {
                prop_assert_eq!(entry.to_string().parse::<AclEntry>(), Ok(entry));
            }
        }
    }
}
