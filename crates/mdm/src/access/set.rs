//! `mdm-setacl`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use eds::args::{Manners, Stores};
use eds::failure::Because;
use eds::permissions::{AT_ONCE, Meant, change_failure, change_first, for_each, line_that_gives};
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::{Code, Failure};
use hydra_core::ids::ChangeId;
use hydra_core::keystore::agreement::ChangeOptions;
use hydra_core::keystore::wire::ProblemKind;
use hydra_core::permissions::text::{AclEdit, AclTextError, Mode, principal_to_remove};
use hydra_core::permissions::{AclEntry, PermissionRecord, check_principal};
use mdm_catalog::wire::{Answer, Kind, PermissionsChange, Records};
use mdm_catalog::{CatalogClient, CatalogError};
use serde_json::json;

use super::edit::Edit;
use super::{KeyStores, Piece};
use crate::connection::{Catalog, done, entry_names, worst};

/// How often a change is made anew that somebody else's came before.
const ATTEMPTS: usize = 3;

/// Change who may do what with files: with name, halves and key at once
///
/// A PRINCIPAL is a DN or a group or role of a VO. PERMS are letters of pdrwlxgs; of the name l sees it, r reads where
/// replicas are, w changes, d removes; of a half g reads and s writes; of the key g opens files; p changes permissions.
/// Without --part the change is made to the name, the anonymous half and the key, and the identifying half only loses
/// what the change takes away: it gives nobody anything unless you name it. --owner needs --part where you have the
/// identifying half.
#[derive(Debug, Parser)]
#[command(name = "mdm-setacl")]
pub struct SetAcl {
    /// Logical file names, or `guid:…`
    #[arg(value_name = "LFN", required = true)]
    pub names: Vec<String>,
    /// Give a principal these permissions, in place of those it has in the ACL; may be repeated
    #[arg(short, long, value_name = "PRINCIPAL:PERMS", conflicts_with = "exact")]
    pub modify: Vec<String>,
    /// Take a principal out of the ACL; may be repeated
    #[arg(short, long, value_name = "PRINCIPAL", conflicts_with = "exact")]
    pub delete: Vec<String>,
    /// Make the ACL exactly this; may be repeated, `NONE` empties it
    #[arg(short = 'x', long, value_name = "PRINCIPAL:PERMS")]
    pub exact: Vec<String>,
    /// What owner, group and others may, as for eds-chmod: g+lrg, o=-
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Give it to another owner
    #[arg(long, value_name = "DN")]
    pub owner: Option<String>,
    /// Give it to another group
    #[arg(long, value_name = "FQAN")]
    pub group: Option<String>,
    /// Change these, with commas between them, and nothing else
    #[arg(long = "part", value_name = "PARTS", value_enum, value_delimiter = ',')]
    pub parts: Vec<Piece>,
    /// Also everything below directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-setacl`.
pub const SETACL_EXAMPLES: &[Example] = &[
    Example {
        says: "Let a role find, fetch and open a file",
        command: "mdm-setacl -m /myvo/Role=reader:lrg /myvo/images/17",
    },
    Example {
        says: "Take it back, everywhere",
        command: "mdm-setacl -d /myvo/Role=reader /myvo/images/17",
    },
    Example {
        says: "Let a role read whose images these are",
        command: "mdm-setacl --part identifying -m /myvo/Role=physician:g /myvo/images/17",
    },
];

/// An entry that is changed.
struct Target {
    path: String,
    records: Records,
    key_id: Option<String>,
    /// What became of each piece.
    outcomes: Vec<(Piece, Outcome)>,
}

/// What became of one piece.
enum Outcome {
    Changed,
    Unchanged,
    Failed(Failure),
}

/// `mdm-setacl`.
///
/// # Errors
/// What was not changed, piece by piece; the same command again finishes what is open.
pub fn setacl(args: &SetAcl) -> Result<(), Failure> {
    let edit = edit(args)?;
    let voice = Voice::new(&args.manners);
    let names = entry_names(&args.names)?;
    let client = args.catalog.open()?;
    let mut failures = Vec::new();
    let mut targets = targets(&client, &names, args.recursive, &mut failures)?;
    refuse_half_given(args, &targets)?;
    let stores = KeyStores::new(&args.stores);
    // first the keys: what is taken from somebody is out of reach then, whatever the catalogue does
    if includes(args, Piece::Key) {
        change_keys(&stores, &mut targets, &edit);
    }
    change_records(&client, args, &mut targets, &edit)?;
    let all = targets.len() + failures.len();
    let mut told = Vec::new();
    for target in targets {
        told.push(target.in_json());
        match target.judge() {
            Ok(line) => voice.result(&line)?,
            Err(failure) => failures.push(failure),
        }
    }
    voice.json(&json!({ "entries": told }))?;
    worst(failures, all, "have the permissions asked for")
}

/// Whoever gives a name away may not reach the identifying half any more, and the new owner never could: whether that
/// goes, too, has to be said before.
fn refuse_half_given(args: &SetAcl, targets: &[Target]) -> Result<(), Failure> {
    let Some(owner) = args.owner.as_ref().filter(|_| args.parts.is_empty()) else {
        return Ok(());
    };
    let stays = |target: &&Target| {
        let identifying = target.records.identifying.as_ref();
        identifying.is_some_and(|record| record.owner != *owner)
    };
    let Some(target) = targets.iter().find(stays) else {
        return Ok(());
    };
    let text = format!(
        "whether the identifying half of `{}` gets the new owner, too, has to be said; nothing was changed",
        target.path
    );
    Err(Failure::new(Code::Usage, text)
        .advise("--part name,anonymous,identifying,key, to give whose images these are away, too")
        .advise("--part name,anonymous,key, to keep that"))
}

fn includes(args: &SetAcl, piece: Piece) -> bool {
    args.parts.is_empty() || args.parts.contains(&piece)
}

fn edit(args: &SetAcl) -> Result<Edit, Failure> {
    let usage = |option: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Code::Usage, Because::new(format!("option {option}"), error))
    };
    let line = |option: &'static str| move |text: &String| line_that_gives(option, text);
    let acl = if args.exact.is_empty() {
        let set: Vec<AclEntry> = args.modify.iter().map(line("--modify")).collect::<Result<_, _>>()?;
        let principal = |text: &String| principal_to_remove(text).map_err(|error| usage("--delete", error.into()));
        let remove: Vec<String> = args.delete.iter().map(principal).collect::<Result<_, _>>()?;
        let change = AclEdit::change(set, remove);
        let change = change.map_err(|error: AclTextError| usage("--modify and --delete", error.into()))?;
        (!args.modify.is_empty() || !args.delete.is_empty()).then_some(change)
    } else {
        let named = args.exact.iter().filter(|text| *text != "NONE");
        Some(AclEdit::exact(
            named.map(line("--exact")).collect::<Result<Vec<_>, _>>()?,
        ))
    };
    for (option, principal) in [("--owner", &args.owner), ("--group", &args.group)] {
        let checked = principal.as_deref().map_or(Ok(()), check_principal);
        checked.map_err(|error| usage(option, error.into()))?;
    }
    let mode = args.mode.as_deref().map(str::parse::<Mode>).transpose();
    let edit = Edit {
        acl,
        mode: mode.map_err(|error| usage("--mode", error.into()))?,
        owner: args.owner.clone(),
        group: args.group.clone(),
    };
    if edit.acl.is_none() && edit.mode.is_none() && edit.owner.is_none() && edit.group.is_none() {
        return Err(usage_error(
            "nothing to change: one of --modify, --delete, --exact, --mode, --owner or --group is needed",
        ));
    }
    Ok(edit)
}

fn targets(
    client: &CatalogClient,
    names: &[String],
    recursive: bool,
    failures: &mut Vec<Failure>,
) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, answer) in names.iter().zip(client.show(names)?) {
        let entry = match done(name, answer) {
            Ok(entry) => entry,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let below = (recursive && entry.kind == Kind::Directory).then(|| client.list_all(&entry.path, true));
        for entry in std::iter::once(Ok(entry)).chain(below.into_iter().flatten()) {
            let entry = entry?;
            if seen.insert(entry.path.to_string()) {
                targets.push(Target {
                    path: entry.path.to_string(),
                    records: entry.records,
                    key_id: entry.key_id,
                    outcomes: Vec::new(),
                });
            }
        }
    }
    Ok(targets)
}

/// Changes the keys of all targets, each key once.
fn change_keys(stores: &KeyStores<'_>, targets: &mut [Target], edit: &Edit) {
    let mut all: Vec<Meant> = Vec::new();
    for target in targets.iter_mut() {
        let Some(key_id) = &target.key_id else { continue };
        match Meant::new(key_id) {
            Ok(meant) if !all.iter().any(|known| known.typed == meant.typed) => all.push(meant),
            Ok(_) => {}
            Err(error) => {
                let failure = Failure::new(Code::Failed, Because::new(format!("`{key_id}` is no key id"), error));
                target.outcomes.push((Piece::Key, Outcome::Failed(failure)));
                target.key_id = None;
            }
        }
    }
    if all.is_empty() {
        return;
    }
    let mut outcomes: BTreeMap<String, Result<bool, (Code, String)>> = BTreeMap::new();
    match stores.session() {
        Err(reason) => {
            let failed = all
                .into_iter()
                .map(|meant| (meant.typed, Err((Code::Config, reason.clone()))));
            outcomes.extend(failed);
        }
        Ok(session) => {
            let options = ChangeOptions {
                over: None,
                all_or_nothing: false,
            };
            let applied = |record: &PermissionRecord| edit.applied_to(record);
            let verb = async |one: &Meant| change_first(&session.hydra, one, applied, &options).await;
            let changed = session.wait(for_each(&all, AT_ONCE, verb));
            let changed = changed.into_iter().map(|changed| match changed {
                Ok(changed) => Ok(!changed.changed.is_empty()),
                Err(error) => {
                    let failure = change_failure(error);
                    Err((failure.code, one_line(&failure)))
                }
            });
            outcomes.extend(all.into_iter().map(|meant| meant.typed).zip(changed));
        }
    }
    for target in targets {
        let outcome = target.key_id.as_ref().and_then(|key_id| outcomes.get(key_id));
        let Some(outcome) = outcome else { continue };
        let outcome = match outcome {
            Ok(true) => Outcome::Changed,
            Ok(false) => Outcome::Unchanged,
            Err((code, text)) => Outcome::Failed(Failure::new(*code, text.clone())),
        };
        target.outcomes.push((Piece::Key, outcome));
    }
}

/// A failure with its causes in one sentence.
fn one_line(failure: &Failure) -> String {
    let mut text = failure.error.to_string();
    let mut cause = failure.error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Changes what the catalogue holds, in as few requests as it takes: halves, and then names.
fn change_records(client: &CatalogClient, args: &SetAcl, targets: &mut [Target], edit: &Edit) -> Result<(), Failure> {
    let mut halves: Vec<(usize, Piece)> = Vec::new();
    let mut names = Vec::new();
    for (number, target) in targets.iter_mut().enumerate() {
        for piece in [Piece::Anonymous, Piece::Identifying, Piece::Name] {
            if !includes(args, piece) {
                continue;
            }
            let open = if piece == Piece::Name { &mut names } else { &mut halves };
            if piece.of(&target.records).is_some() {
                open.push((number, piece));
            } else if args.parts.contains(&piece) {
                let text = format!("the {} half of `{}` is not shown to you", piece.word(), target.path);
                target
                    .outcomes
                    .push((piece, Outcome::Failed(Failure::new(Code::NotAllowed, text))));
            }
        }
    }
    // whoever gives a name away may not reach its halves any more, nor what lies below it
    names.reverse();
    change_open(client, args, targets, edit, halves)?;
    change_open(client, args, targets, edit, names)
}

/// Changes these, and again what somebody else changed meanwhile.
fn change_open(
    client: &CatalogClient,
    args: &SetAcl,
    targets: &mut [Target],
    edit: &Edit,
    mut open: Vec<(usize, Piece)>,
) -> Result<(), Failure> {
    for attempt in 1..=ATTEMPTS {
        if open.is_empty() {
            break;
        }
        open = change_once(client, args, targets, edit, open, attempt == ATTEMPTS)?;
        if open.is_empty() {
            break;
        }
        let numbers: BTreeSet<usize> = open.iter().map(|(number, _)| *number).collect();
        let paths: Vec<String> = numbers.iter().map(|number| targets[*number].path.clone()).collect();
        for (number, answer) in numbers.into_iter().zip(client.show(&paths)?) {
            if let Answer::Done(entry) = answer {
                targets[number].records = entry.records;
            }
        }
    }
    Ok(())
}

/// One round; answers what somebody else came before.
fn change_once(
    client: &CatalogClient,
    args: &SetAcl,
    targets: &mut [Target],
    edit: &Edit,
    open: Vec<(usize, Piece)>,
    last: bool,
) -> Result<Vec<(usize, Piece)>, Failure> {
    let mut asked = Vec::new();
    let mut changes = Vec::new();
    for (number, piece) in open {
        let target = &mut targets[number];
        let (Some(before), Some(part)) = (piece.of(&target.records), piece.part()) else {
            continue;
        };
        let gives = piece != Piece::Identifying || args.parts.contains(&piece);
        let mut record = if gives {
            edit.applied_to(before)
        } else {
            edit.taking_only(before)
        };
        if record.says_the_same_as(before) {
            // what only takes, and has nothing to take, says nothing of what was asked for
            if gives || edit.applied_to(before).says_the_same_as(before) {
                target.outcomes.push((piece, Outcome::Unchanged));
            }
            continue;
        }
        record.version = before.version + 1;
        record.change_id = ChangeId::random().map_err(|error| Failure::new(Code::Failed, error))?;
        asked.push((number, piece));
        changes.push(PermissionsChange {
            path: target.path.clone(),
            part,
            record,
            recursive: false,
        });
    }
    let answers = match client.change_permissions(&changes) {
        Ok(answers) => answers,
        Err(error) => {
            // what became of each is not known: the same command again finds out
            let (code, text) = (Failure::from(error), "not known to be changed");
            for (number, piece) in asked {
                let failure = Failure::new(code.code, format!("{text}: {}", code.error));
                targets[number].outcomes.push((piece, Outcome::Failed(failure)));
            }
            return Ok(Vec::new());
        }
    };
    let mut again = Vec::new();
    for ((number, piece), answer) in asked.into_iter().zip(answers) {
        let outcome = match answer {
            Answer::Done(_) => Outcome::Changed,
            Answer::Problem(problem) if problem.kind == ProblemKind::Conflict && !last => {
                again.push((number, piece));
                continue;
            }
            Answer::Problem(problem) => {
                let path = targets[number].path.clone();
                Outcome::Failed(CatalogError::refused(path, problem).into())
            }
        };
        targets[number].outcomes.push((piece, outcome));
    }
    Ok(again)
}

impl Target {
    fn pieces(&self, is: fn(&Outcome) -> bool) -> Vec<&'static str> {
        let mut pieces: Vec<Piece> = self
            .outcomes
            .iter()
            .filter(|(_, outcome)| is(outcome))
            .map(|(piece, _)| *piece)
            .collect();
        pieces.sort();
        pieces.into_iter().map(Piece::word).collect()
    }

    fn in_json(&self) -> serde_json::Value {
        let error = |outcome: &Outcome| match outcome {
            Outcome::Failed(failure) => Some(one_line(failure)),
            _ => None,
        };
        let piece = |(piece, outcome): &(Piece, Outcome)| {
            json!({
                "part": piece.word(),
                "changed": matches!(outcome, Outcome::Changed),
                "effective": !matches!(outcome, Outcome::Failed(_)),
                "error": error(outcome),
            })
        };
        json!({
            "path": self.path,
            "key_id": self.key_id,
            "parts": self.outcomes.iter().map(piece).collect::<Vec<_>>(),
        })
    }

    /// One answer for all pieces.
    fn judge(self) -> Result<String, Failure> {
        let changed = self.pieces(|outcome| matches!(outcome, Outcome::Changed));
        let in_force = self.pieces(|outcome| !matches!(outcome, Outcome::Failed(_)));
        let path = self.path;
        let failed: Vec<(Piece, Failure)> = self
            .outcomes
            .into_iter()
            .filter_map(|(piece, outcome)| match outcome {
                Outcome::Failed(failure) => Some((piece, failure)),
                _ => None,
            })
            .collect();
        if failed.is_empty() {
            return Ok(if changed.is_empty() {
                format!("unchanged {path}")
            } else {
                format!("changed {path}: {}", changed.join(", "))
            });
        }
        let worst = failed.iter().map(|(_, failure)| failure.code);
        let worst = worst
            .max_by_key(|code| eds::failure::severity(*code))
            .unwrap_or(Code::Failed);
        let causes = failed
            .iter()
            .rev()
            .fold(None, |cause: Option<Box<Because>>, (piece, failure)| {
                let text = format!("{}: {}", piece.word(), one_line(failure));
                Some(Box::new(match cause {
                    Some(cause) => Because::new(text, cause),
                    None => Because::alone(text),
                }))
            });
        let (text, code) = if in_force.is_empty() {
            (format!("the permissions of `{path}` were not changed"), worst)
        } else {
            let done = in_force.join(", ");
            (
                format!("the permissions of `{path}` are changed in part: in force for {done}"),
                Code::TryLater,
            )
        };
        let error = match causes {
            Some(cause) => Because::new(text, cause),
            None => Because::alone(text),
        };
        Err(Failure::new(code, error).advise("the same command again, which finishes it; mdm-getacl shows what holds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(outcomes: Vec<(Piece, Outcome)>) -> Target {
        let record = PermissionRecord::new("/CN=a", None, ChangeId::random().unwrap());
        Target {
            path: "/myvo/x".into(),
            records: Records {
                name: record.clone(),
                anonymous: record,
                identifying: None,
            },
            key_id: None,
            outcomes,
        }
    }

    #[test]
    fn one_answer_tells_each_part() {
        let done = target(vec![(Piece::Key, Outcome::Changed), (Piece::Name, Outcome::Changed)]);
        assert_eq!(done.judge().unwrap(), "changed /myvo/x: name, key");
        assert_eq!(
            target(vec![(Piece::Name, Outcome::Unchanged)]).judge().unwrap(),
            "unchanged /myvo/x"
        );
        let refused = || Outcome::Failed(Failure::new(Code::NotAllowed, "not yours"));
        let failure = target(vec![(Piece::Key, refused()), (Piece::Name, Outcome::Unchanged)])
            .judge()
            .unwrap_err();
        assert_eq!(failure.code, Code::TryLater);
        let lines = failure.lines();
        assert_eq!(
            lines[0],
            "error: the permissions of `/myvo/x` are changed in part: in force for name"
        );
        assert_eq!(lines[1], "  cause: key: not yours");
        let failure = target(vec![(Piece::Key, refused()), (Piece::Name, refused())])
            .judge()
            .unwrap_err();
        assert_eq!(failure.code, Code::NotAllowed);
        assert_eq!(failure.lines().len(), 4);
    }
}
