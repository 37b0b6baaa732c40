//! The `eds-getacl`, `eds-setacl` and `eds-chmod` commands: who may do what with a key, and whether that is in force.

use std::io::Read;
use std::path::Path;

use futures_util::StreamExt;
use futures_util::stream;
use hydra_cli::output::print;
use hydra_cli::{Code, Failure, printable};
use hydra_core::config::defaults::NewPermissions;
use hydra_core::key_id::{KeyId, KeyIdError};
use hydra_core::keystore::agreement::{
    Agreement, ChangeError, ChangeOptions, InForce, PermissionsChanged, PermissionsReport, RecordHeld,
};
use hydra_core::keystore::hydra::{Hydra, LocalError, StoreFault};
use hydra_core::permissions::text::{AclEdit, AclTextError, Listing, Mode, principal_to_remove, read_list};
use hydra_core::permissions::{AclEntry, PermissionRecord, check_principal};
use serde_json::{Value, json};

use crate::failure::{self, Because, quoted, refuse_credential, severity};
use crate::operands::{bad_key_id, meant_key_ids};
use crate::permission_args::{self, Chmod, GetAcl, SetAcl};
use crate::session::Session;
use crate::voice::Voice;

/// Key ids that are asked about at once: their requests share connections, and the stores write them to disk together.
pub const AT_ONCE: usize = 16;
/// The longest list of principals that is read, in bytes.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// A key id as it was typed, and the ones that may be meant by it.
pub struct Meant {
    /// As it was typed.
    pub typed: String,
    key_ids: Vec<KeyId>,
}

impl Meant {
    /// Reads what was typed.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(typed: &str) -> Result<Self, KeyIdError> {
        Ok(Self {
            typed: typed.to_owned(),
            key_ids: meant_key_ids(typed)?,
        })
    }
}

/// Runs `verb` for all of them, several at a time; answers in their order.
pub async fn for_each<A, T>(all: &[A], at_once: usize, verb: impl AsyncFn(&A) -> T) -> Vec<T> {
    let verb = &verb;
    let futures: Vec<_> = all.iter().map(|one| async move { verb(one).await }).collect();
    stream::iter(futures)
        .buffered(at_once.clamp(1, AT_ONCE))
        .collect()
        .await
}

/// The permissions of the first of the key ids that the stores show: what was typed, else its canonical form.
///
/// # Errors
/// As the client's `permissions`.
pub async fn report_first(hydra: &Hydra, meant: &Meant) -> Result<PermissionsReport, LocalError> {
    let mut first = None;
    for key_id in &meant.key_ids {
        let report = hydra.permissions(key_id).await?;
        if report.agreement != Agreement::Unknown {
            return Ok(report);
        }
        first = first.or(Some(report));
    }
    first.ok_or_else(|| LocalError::Config("no key id was given".into()))
}

/// Changes the permissions of the first of the key ids that the stores show.
///
/// # Errors
/// As the client's `change_permissions`, for the first of them.
pub async fn change_first(
    hydra: &Hydra,
    meant: &Meant,
    edit: impl Fn(&PermissionRecord) -> PermissionRecord,
    options: &ChangeOptions,
) -> Result<PermissionsChanged, ChangeError> {
    let mut first = None;
    for key_id in &meant.key_ids {
        match hydra.change_permissions(key_id, &edit, options.clone()).await {
            Err(error @ ChangeError::NotFound { .. }) => first = first.or(Some(error)),
            other => return other,
        }
    }
    let nothing_asked = || ChangeError::Local(LocalError::Config("no key id was given".into()));
    Err(first.unwrap_or_else(nothing_asked))
}

fn meant(typed: &[String]) -> Result<Vec<Meant>, Failure> {
    let one = |typed: &String| Meant::new(typed).map_err(|error| bad_key_id(typed, error));
    typed.iter().map(one).collect()
}

/// What the options of a registration say about the permissions of the key.
///
/// # Errors
/// [`Code::Usage`] where they do not parse.
pub fn new_permissions(args: &permission_args::NewPermissions) -> Result<NewPermissions, Failure> {
    let wrong = |option: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Code::Usage, Because::new(format!("option {option}"), error))
    };
    let checked = args.group.as_deref().map_or(Ok(()), check_principal);
    checked.map_err(|error| wrong("--group", error.into()))?;
    let mode = args.perms.as_deref().map(str::parse::<Mode>).transpose();
    let lines = args
        .acl
        .iter()
        .filter(|text| *text != "NONE")
        .map(|text| text.parse::<AclEntry>());
    let acl = lines.collect::<Result<Vec<_>, _>>();
    let acl = acl.map_err(|error| wrong("--acl", error.into()))?;
    Ok(NewPermissions {
        group: args.group.clone(),
        mode: mode.map_err(|error| wrong("--perms", error.into()))?,
        acl: (!args.acl.is_empty()).then_some(acl),
    })
}

// --- eds-getacl -------------------------------------------------------------------------------------------------------

/// `eds-getacl`.
///
/// # Errors
/// The worst of what was wrong with any of the keys; all that could be found out is printed.
pub fn getacl(args: &GetAcl) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let all = meant(&args.key_ids)?;
    let session = Session::open(&args.stores)?;
    let verb = async |one: &Meant| report_first(&session.hydra, one).await;
    let reports = session.wait(for_each(&all, AT_ONCE, verb));
    let mut told = Vec::new();
    let mut blocks = Vec::new();
    let mut failures = Vec::new();
    for (one, report) in all.iter().zip(reports) {
        let report = report.map_err(failure::local)?;
        blocks.extend(listings(&one.typed, &report, args.each_store));
        told.push(report_json(&report));
        match report.agreement {
            Agreement::Everywhere => {}
            Agreement::Majority if report.stores.iter().all(|(_, held)| agrees_or_silent(held, &report)) => {
                // what holds is known; who does not answer is no disagreement
                let silent = report.missing().join(", ");
                voice.warning(&format!("`{}`: no word from {silent}", printable(&one.typed)));
            }
            _ => failures.push(disagreement(&report)),
        }
    }
    if !args.manners.json {
        print(blocks.join("\n").as_bytes())?;
    }
    voice.json(&json!({ "keys": told }))?;
    worst(failures, all.len(), "are as they should be")
}

fn agrees_or_silent(held: &Result<RecordHeld, StoreFault>, report: &PermissionsReport) -> bool {
    let record = report.record.as_ref();
    held.as_ref().map_or(true, |held| {
        record.is_some_and(|record| held.record.says_the_same_as(record))
    })
}

/// What is printed of one key, each block with an empty line before the next.
fn listings(typed: &str, report: &PermissionsReport, each_store: bool) -> Vec<String> {
    let title = printable(typed);
    if !each_store && report.agreement == Agreement::Everywhere {
        let record = report.record.iter();
        return record
            .map(|record| format!("# ENTRY: {title}\n{}", Listing(record)))
            .collect();
    }
    if !each_store && let (Agreement::Majority, Some(record)) = (report.agreement, &report.record) {
        let missing = report.missing();
        let note = format!("# Missing at: {}\n", printable(&missing.join(", ")));
        return vec![format!("# ENTRY: {title}\n{note}{}", Listing(record))];
    }
    let held = report
        .stores
        .iter()
        .filter_map(|(_, held)| held.as_ref().ok())
        .map(|held| {
            let (store, version) = (printable(&held.store), held.record.version);
            let listing = Listing(&held.record);
            format!("# ENTRY: {title}\n# Store: {store}, version {version}\n{listing}")
        });
    held.collect()
}

/// What is wrong where not every store holds what holds.
pub fn disagreement(report: &PermissionsReport) -> Failure {
    let key_id = &report.key_id;
    let quoted_id = quoted(key_id.as_str());
    let faults: Vec<StoreFault> = report
        .stores
        .iter()
        .map(|(store, held)| fault_of(store, held))
        .collect();
    let failed = |code, text: String| Failure::new(code, Because::faults(text, &faults));
    match report.agreement {
        Agreement::Unknown => {
            let text = format!("no key `{key_id}`, or not allowed to see its permissions");
            failed(Code::NotAllowed, text).advise("eds-whoami")
        }
        Agreement::Unclear if refuse_credential(&faults) => failed(
            Code::Config,
            format!("too few stores answered to tell about `{key_id}`"),
        )
        .advise("eds-check"),
        Agreement::Unclear => failed(
            Code::TryLater,
            format!("too few stores answered to tell about `{key_id}`"),
        )
        .advise("eds-check"),
        Agreement::Everywhere | Agreement::Majority => {
            let text = format!("not every store holds the permissions that hold for `{key_id}`");
            failed(Code::TryLater, text).advise(format!("eds-key-repair {quoted_id}"))
        }
        Agreement::Overtaken | Agreement::Split => failed(
            Code::TryLater,
            format!("the stores disagree about the permissions of `{key_id}`"),
        )
        .advise(format!("eds-getacl --each-store {quoted_id}"))
        .advise(format!("eds-setacl --over STORE {quoted_id}, to make its record hold")),
    }
}

fn fault_of(store: &str, held: &Result<RecordHeld, StoreFault>) -> StoreFault {
    let reason = match held {
        Ok(held) => format!("holds version {}", held.record.version),
        Err(fault) => fault.reason.clone(),
    };
    StoreFault {
        credential_refused: held.as_ref().is_err_and(|fault| fault.credential_refused),
        ..StoreFault::new(store, reason)
    }
}

fn agreement_word(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Everywhere => "everywhere",
        Agreement::Majority => "majority",
        Agreement::Overtaken => "overtaken",
        Agreement::Split => "split",
        Agreement::Unclear => "unclear",
        Agreement::Unknown => "unknown",
    }
}

/// A record as commands print it.
pub fn record_json(record: &PermissionRecord) -> Value {
    let line = |line: &AclEntry| json!({ "principal": line.principal, "permissions": line.permissions.to_string() });
    json!({
        "owner": record.owner,
        "group": record.group,
        "user_permissions": record.user.to_string(),
        "group_permissions": record.group_permissions.to_string(),
        "other_permissions": record.other.to_string(),
        "acl": record.acl.iter().map(line).collect::<Vec<_>>(),
        "version": record.version,
    })
}

fn report_json(report: &PermissionsReport) -> Value {
    let stores = report.stores.iter().map(|(store, held)| match held {
        Ok(held) => json!({ "store": store, "permissions": record_json(&held.record) }),
        Err(fault) => json!({ "store": store, "fault": fault.reason }),
    });
    json!({
        "key_id": report.key_id.as_str(),
        "agreement": agreement_word(report.agreement),
        "permissions": report.record.as_ref().map(record_json),
        "effective": report.agreement == Agreement::Everywhere,
        "missing": if report.record.is_some() { report.missing() } else { Vec::new() },
        "stores": stores.collect::<Vec<_>>(),
    })
}

// --- eds-setacl and eds-chmod -----------------------------------------------------------------------------------------

/// `eds-setacl`.
///
/// # Errors
/// The worst of what was wrong with any of the keys.
pub fn setacl(args: &SetAcl) -> Result<(), Failure> {
    let acl = acl_edit(args)?;
    let given = [("--owner", &args.owner), ("--group", &args.group)];
    for (option, principal) in given {
        let checked = principal.as_deref().map_or(Ok(()), check_principal);
        checked.map_err(|error| Failure::new(Code::Usage, Because::new(format!("option {option}"), error)))?;
    }
    if acl.is_none() && args.owner.is_none() && args.group.is_none() && args.over.is_none() {
        return Err(hydra_cli::command::usage_error(
            "nothing to change: one of --modify, --delete, --exact, their files, --owner, --group or --over is needed",
        ));
    }
    let edit = |record: &PermissionRecord| {
        let mut record = acl
            .as_ref()
            .map_or_else(|| record.clone(), |acl| acl.applied_to(record));
        if let Some(owner) = &args.owner {
            record.owner.clone_from(owner);
        }
        if let Some(group) = &args.group {
            record.group.clone_from(group);
        }
        record
    };
    let voice = Voice::new(&args.manners);
    let all = meant(&args.key_ids)?;
    change_all(&Session::open(&args.stores)?, voice, &all, edit, args.over.as_deref())
}

/// `eds-chmod`.
///
/// # Errors
/// The worst of what was wrong with any of the keys.
pub fn chmod(args: &Chmod) -> Result<(), Failure> {
    let mode: Mode = args
        .mode
        .parse()
        .map_err(|error| Failure::new(Code::Usage, Because::new(format!("mode `{}`", args.mode), error)))?;
    let edit = |record: &PermissionRecord| mode.applied_to(record);
    let voice = Voice::new(&args.manners);
    let all = meant(&args.key_ids)?;
    change_all(&Session::open(&args.stores)?, voice, &all, edit, args.over.as_deref())
}

/// Reads a line that gives somebody something. `myvo/researchers`, without the slash in front, would be a principal
/// that nobody ever is.
///
/// # Errors
/// Wrong usage of `option`.
pub fn line_that_gives(option: &str, text: &str) -> Result<AclEntry, Failure> {
    let wrong = |error| Failure::new(Code::Usage, Because::new(format!("option {option}"), error));
    let entry: AclEntry = text.parse().map_err(wrong)?;
    let principal = &entry.principal;
    // other words are allowed: what is no DN, and has slashes all the same, was meant for a group
    if principal.contains('/') && !principal.starts_with('/') {
        let why = format!("option {option}: `{principal}` is neither a DN nor a group of a VO, which begin with `/`");
        let advice = format!("{option} {}", quoted(&format!("/{text}")));
        return Err(Failure::new(Code::Usage, why).advise(advice));
    }
    Ok(entry)
}

fn acl_edit(args: &SetAcl) -> Result<Option<AclEdit>, Failure> {
    let wrong =
        |option: &str, error: AclTextError| Failure::new(Code::Usage, Because::new(format!("option {option}"), error));
    let entry = |option: &'static str| move |text: &String| line_that_gives(option, text);
    let edit = if let Some(file) = &args.modify_file {
        let set = read_list(&read_text(file)?, str::parse).map_err(|error| in_file(file, error))?;
        AclEdit::change(set, Vec::new()).map_err(|error| in_file(file, error))?
    } else if let Some(file) = &args.delete_file {
        let remove = read_list(&read_text(file)?, principal_to_remove).map_err(|error| in_file(file, error))?;
        AclEdit::change(Vec::new(), remove).map_err(|error| in_file(file, error))?
    } else if let Some(file) = &args.exact_file {
        AclEdit::exact(read_list(&read_text(file)?, str::parse).map_err(|error| in_file(file, error))?)
    } else if !args.exact.is_empty() {
        let named = args.exact.iter().filter(|text| *text != "NONE");
        AclEdit::exact(named.map(entry("--exact")).collect::<Result<Vec<_>, _>>()?)
    } else if !args.modify.is_empty() || !args.delete.is_empty() {
        let set = args.modify.iter().map(entry("--modify")).collect::<Result<_, _>>()?;
        let principal = |text: &String| principal_to_remove(text).map_err(|error| wrong("--delete", error));
        let remove = args.delete.iter().map(principal).collect::<Result<_, _>>()?;
        AclEdit::change(set, remove).map_err(|error| wrong("--modify and --delete", error))?
    } else {
        return Ok(None);
    };
    Ok(Some(edit))
}

fn in_file(path: &Path, error: AclTextError) -> Failure {
    Failure::new(Code::Usage, Because::new(format!("list `{}`", path.display()), error))
}

/// Reads a list of principals; `-` is standard input.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let most = MAX_LIST_BYTES + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    let read = read.map_err(|error| {
        let what = format!("cannot read the list `{}`", path.display());
        Failure::new(Code::Io, Because::new(what, error))
    })?;
    if read as u64 > MAX_LIST_BYTES {
        let text = format!("the list `{}` is longer than {MAX_LIST_BYTES} bytes", path.display());
        return Err(Failure::new(Code::Usage, text));
    }
    Ok(text)
}

fn change_all(
    session: &Session,
    voice: Voice,
    all: &[Meant],
    edit: impl Fn(&PermissionRecord) -> PermissionRecord,
    over: Option<&str>,
) -> Result<(), Failure> {
    let options = ChangeOptions {
        over: over.map(str::to_owned),
        all_or_nothing: false,
    };
    let verb = async |one: &Meant| change_first(&session.hydra, one, &edit, &options).await;
    let outcomes = session.wait(for_each(all, AT_ONCE, verb));
    let mut told = Vec::new();
    let mut failures = Vec::new();
    for (one, outcome) in all.iter().zip(outcomes) {
        told.push(outcome_json(&one.typed, &outcome));
        match outcome {
            Ok(changed) => tell_changed(voice, session, &changed)?,
            Err(error) => failures.push(change_failure(error)),
        }
    }
    voice.json(&json!({ "keys": told }))?;
    worst(failures, all.len(), "have the permissions asked for")
}

fn tell_changed(voice: Voice, session: &Session, changed: &PermissionsChanged) -> Result<(), Failure> {
    let (key_id, n) = (&changed.key_id, session.hydra.config().stores.len());
    let verb = if changed.changed.is_empty() {
        "unchanged"
    } else {
        "changed"
    };
    let stores = if n == 1 { "the store" } else { "all stores" };
    voice.result(&format!("{verb} {key_id}, effective at {stores} ({n} of {n})"))?;
    let anybody = |permissions: hydra_core::permissions::Permissions| {
        permissions.contains(hydra_core::permissions::Permission::ChangePermissions)
    };
    let record = &changed.record;
    let bases = [record.user, record.group_permissions, record.other];
    let acl = record.acl.iter().map(|line| line.permissions);
    if !bases.into_iter().chain(acl).any(anybody) {
        voice.warning(&format!(
            "nobody may change the permissions of `{key_id}` any more, but administrators of the stores"
        ));
    }
    Ok(())
}

/// All failures but the last are told here, each as it is; of several, the last word is how many there were.
fn worst(mut failures: Vec<Failure>, all: usize, done: &str) -> Result<(), Failure> {
    if all <= 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let (failed, code) = (
        failures.len(),
        failures.iter().map(|one| one.code).max_by_key(|code| severity(*code)),
    );
    for one in failures {
        let _ = hydra_cli::exit(Err(one));
    }
    match code {
        None => Ok(()),
        Some(code) => Err(Failure::new(code, format!("{} of {all} keys {done}", all - failed))),
    }
}

fn outcome_json(typed: &str, outcome: &Result<PermissionsChanged, ChangeError>) -> Value {
    match outcome {
        Ok(changed) => json!({
            "key_id": changed.key_id.as_str(),
            "changed": !changed.changed.is_empty(),
            "effective": true,
            "missing": [],
            "permissions": record_json(&changed.record),
        }),
        Err(error) => {
            let faults = faults_of(error);
            let missing = faults
                .iter()
                .map(|fault| json!({ "store": fault.store, "reason": fault.reason }));
            let mut value = json!({
                "key_id": typed,
                "changed": matches!(error, ChangeError::InPart { .. }),
                "effective": false,
                "missing": missing.collect::<Vec<_>>(),
                "error": error.to_string(),
            });
            if let ChangeError::InPart {
                in_force, done, total, ..
            } = error
            {
                let InForce {
                    grants,
                    grant_holds,
                    revokes,
                    revocation_holds,
                } = *in_force;
                value["grant_effective"] = if grants { grant_holds.into() } else { Value::Null };
                value["revocation_effective"] = if revokes { revocation_holds.into() } else { Value::Null };
                value["done"] = (*done).into();
                value["total"] = (*total).into();
            }
            value
        }
    }
}

fn faults_of(error: &ChangeError) -> &[StoreFault] {
    match error {
        ChangeError::NotFound { faults, .. }
        | ChangeError::NotAllowed { faults, .. }
        | ChangeError::TooFew { faults, .. }
        | ChangeError::Disagree { faults, .. }
        | ChangeError::NoSuchStore { faults, .. }
        | ChangeError::Refused { faults, .. }
        | ChangeError::InPart { faults, .. }
        | ChangeError::Undone { faults, .. } => faults,
        _ => &[],
    }
}

/// Permissions that were not changed, or not everywhere.
pub fn change_failure(error: ChangeError) -> Failure {
    let text = error.to_string();
    match error {
        ChangeError::NotFound { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        ChangeError::NotAllowed { key_id, faults } => Failure::new(Code::NotAllowed, Because::faults(text, &faults))
            .advise(format!("eds-getacl {} and eds-whoami", quoted(key_id.as_str()))),
        ChangeError::TooFew { faults, .. } if refuse_credential(&faults) => failure::no_answers(text, &faults),
        ChangeError::TooFew { key_id, faults, .. } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!("eds-key-status {}", quoted(key_id.as_str()))),
        ChangeError::Disagree {
            key_id, held, faults, ..
        } => {
            let mut all: Vec<StoreFault> = held.iter().map(held_fault).collect();
            all.extend(faults);
            let key_id = quoted(key_id.as_str());
            Failure::new(Code::TryLater, Because::faults(text, &all))
                .advise(format!("eds-getacl --each-store {key_id}"))
                .advise("the same command with --over STORE, to go on from what that store holds")
        }
        ChangeError::NoSuchStore { faults, .. } => {
            Failure::new(Code::Failed, Because::faults(text, &faults)).advise("eds-check")
        }
        ChangeError::Refused { faults, .. } => Failure::new(Code::Failed, Because::faults(text, &faults)),
        ChangeError::Conflict { key_id, held, .. } => {
            let all: Vec<StoreFault> = held.iter().map(held_fault).collect();
            Failure::new(Code::TryLater, Because::faults(text, &all)).advise(format!(
                "eds-getacl {}, then the same command again if it is still wanted",
                quoted(key_id.as_str())
            ))
        }
        ChangeError::InPart { faults, .. } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise("the same command again, when those stores are back"),
        ChangeError::Undone { faults, .. } => {
            Failure::new(Code::TryLater, Because::faults(text, &faults)).advise("the same command again")
        }
        ChangeError::Local(error) => failure::local(error),
        _ => Failure::new(Code::Failed, text),
    }
}

fn held_fault(held: &RecordHeld) -> StoreFault {
    StoreFault::new(
        &held.store,
        format!("holds version {} ({})", held.record.version, held.record.change_id),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_is_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, vec![b'\n'; MAX_LIST_BYTES as usize]).unwrap();
        assert_eq!(read_text(&path).unwrap().len() as u64, MAX_LIST_BYTES);
        std::fs::write(&path, vec![b'\n'; MAX_LIST_BYTES as usize + 1]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().code, Code::Usage);
    }
}
