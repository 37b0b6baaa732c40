//! `mdm-withdraw`: whoever withdraws consent has their images go: first the keys, with which all copies of the bytes are
//! noise, then the copies that are known, and last names and attributes, so that whatever ends it in between can be found
//! and done again (`docs/src/commands/mdm-images.md`).

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use dicom_recall::catalogued::Catalogued;
use dicom_recall::config::{Config, Place};
use dicom_recall::destination::Folder;
use dicom_recall::evict;
use dicom_recall::ledger::{database_failure, open_or_make};
use dicom_recall::now::config_failure;
use dicom_recall::queue::Queue;
use dicom_recall::registry::{LocalRegistry, Registry};
use eds::args::{Manners, Stores};
use eds::failure::{self, severity};
use eds::session::{overrides, timestamp};
use eds::storage::{Remote, args::Patience, failed};
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::output::counted;
use hydra_cli::{Code, Failure, secret_input};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{RemoveError, Verdict};
use mdm_catalog::LogicalName;
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{Answer, Entry, Lookup, MAX_ITEMS, Removal};
use serde_json::json;
use storage_url::{StorageError, StorageUrl};

use crate::connection::Catalog;
use crate::copies::{Told, is_copy};
use crate::get::found;
use crate::register::at_door;

/// The longest identifier of a patient that is read.
const LONGEST_ID: usize = 4096;
/// So many of those that a key opens too are named.
const NAMED: usize = 10;
const DAY: Duration = Duration::from_secs(86_400);

/// Withdraw a patient: their images' keys, copies, names and attributes
///
/// What was removed cannot be brought back but from backups, until the day that is told at the end.
#[derive(Debug, Parser)]
#[command(name = "mdm-withdraw")]
pub struct Withdraw {
    /// The hospital's number of the patient; `-` reads it from standard input
    #[arg(value_name = "PATIENT_ID")]
    pub patient: String,
    /// The directory of the catalogue that is searched; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    pub from: Vec<String>,
    /// The configuration of dicom-recall, so that nothing of it is recalled any more
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-withdraw`.
pub const EXAMPLES: &[Example] = &[Example {
    says: "Say what would go",
    command: "mdm-withdraw --from /myvo/images --dry-run -",
}];

/// What is to go.
struct Plan {
    entries: Vec<Entry>,
    keys: BTreeSet<String>,
    /// Keys that files are sealed under too which are not meant, and those.
    shared: BTreeMap<String, Vec<LogicalName>>,
    replicas: BTreeSet<String>,
}

/// `mdm-withdraw`.
///
/// # Errors
/// What was in the way; what is left is named, and the same command goes on with it.
pub fn withdraw(args: &Withdraw) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let patient = patient(&args.patient)?;
    let typed = |text: &String| LogicalName::typed(text).map_err(|error| usage_error(format!("`{text}`: {error}")));
    let from: Vec<LogicalName> = args.from.iter().map(typed).collect::<Result<_, _>>()?;
    if !args.yes && !args.dry_run && !std::io::stdin().is_terminal() {
        return Err(usage_error(
            "without a terminal nobody can be asked: --yes, or --dry-run",
        ));
    }
    let config = args
        .config
        .as_deref()
        .map(Config::read)
        .transpose()
        .map_err(config_failure)?;
    let configured = config.as_ref().and_then(|config| config.catalog.as_deref());
    let catalog = CatalogClient::open(args.catalog.url.as_deref().or(configured))?;
    let plan = plan(&catalog, &patient, &from)?;
    if plan.entries.is_empty() {
        let from = args.from.join(", ");
        let text = format!("there is nothing of this patient in {from}, or it is not shown to you");
        return Err(Failure::new(Code::NotAllowed, text).advise("eds-whoami"));
    }
    plan.tell(voice, args.dry_run)?;
    plan.refuse_shared(voice)?;
    if args.dry_run {
        return Ok(());
    }
    if !args.yes && !is_meant()? {
        return Err(Failure::new(Code::Failed, "nothing was removed"));
    }
    let remote = Remote::open(&overrides(&args.stores), args.patience.idle())?;
    let going = Going {
        voice,
        catalog: &catalog,
        remote: &remote,
        plan: &plan,
    };
    going.keys()?;
    let recalled = config.as_ref().map(|config| going.recall(config)).transpose()?;
    let recalled = recalled.unwrap_or_default();
    let mut left = recalled.left;
    left.extend(going.replicas(&recalled.at_doors));
    going.names()?;
    going.prove(&patient, &from, &left)
}

fn patient(typed: &str) -> Result<String, Failure> {
    let text = if typed == "-" {
        let read = secret_input::read_all(&secret_input::Source::from_operand(None), LONGEST_ID);
        let bytes = read.map_err(|error| Failure::new(Code::Io, error))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| usage_error("the number is no UTF-8"))?
    } else {
        typed.to_owned()
    };
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(usage_error("name a patient"));
    }
    Ok(text.to_owned())
}

/// A text as a query has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The names of a patient's images in these directories, each once. A refusal names the directory: the query has the
/// patient's number in it.
fn of_patient(catalog: &CatalogClient, patient: &str, from: &[LogicalName]) -> Result<Vec<String>, CatalogError> {
    let query = format!("patient_id = {}", quoted(patient));
    let mut names = BTreeSet::new();
    for from in from {
        names.extend(found(catalog, &query, from).map_err(|error| match error {
            CatalogError::Refused { problem, .. } => CatalogError::refused(from.as_str(), *problem),
            other => other,
        })?);
    }
    Ok(names.into_iter().collect())
}

fn plan(catalog: &CatalogClient, patient: &str, from: &[LogicalName]) -> Result<Plan, Failure> {
    let names = of_patient(catalog, patient, from)?;
    let mut plan = Plan {
        entries: Vec::new(),
        keys: BTreeSet::new(),
        shared: BTreeMap::new(),
        replicas: BTreeSet::new(),
    };
    for some in names.chunks(MAX_ITEMS) {
        for (name, answer) in some.iter().zip(catalog.show(some)?) {
            match answer {
                Answer::Done(entry) => plan.entries.push(entry),
                Answer::Problem(problem) => return Err(CatalogError::refused(name, problem).into()),
            }
        }
    }
    let own: BTreeSet<&str> = plan.entries.iter().map(|entry| entry.path.as_str()).collect();
    for entry in &plan.entries {
        plan.keys.extend(entry.key_id.clone());
        plan.replicas.extend(entry.replicas.iter().cloned());
    }
    for key_id in &plan.keys {
        // wherever they are: a key opens what lies beside this directory, too
        let under = catalog.lookup(&Lookup {
            key_id: Some(key_id.clone()),
            ..Lookup::default()
        })?;
        let others = under.into_iter().filter(|entry| !own.contains(entry.path.as_str()));
        let others: Vec<LogicalName> = others.map(|entry| entry.path).collect();
        if !others.is_empty() {
            plan.shared.insert(key_id.clone(), others);
        }
    }
    Ok(plan)
}

impl Plan {
    fn tell(&self, voice: Voice, dry_run: bool) -> Result<(), Failure> {
        for key_id in &self.keys {
            voice.result(&format!("key {key_id}"))?;
        }
        for url in &self.replicas {
            // the hospital's own images stay where they are
            if !url.starts_with("dicom:") {
                voice.result(&format!("replica {url}"))?;
            }
        }
        for entry in &self.entries {
            voice.result(&format!("name {}", entry.path))?;
        }
        if dry_run {
            let names: Vec<&LogicalName> = self.entries.iter().map(|entry| &entry.path).collect();
            voice.json(&json!({ "keys": self.keys, "replicas": self.replicas, "names": names }))?;
        }
        Ok(())
    }

    fn refuse_shared(&self, voice: Voice) -> Result<(), Failure> {
        let Some((key_id, others)) = self.shared.iter().next() else {
            return Ok(());
        };
        for path in others.iter().take(NAMED) {
            voice.note(&format!("key {key_id} opens {path} too"));
        }
        let count = others.len();
        let text = format!("key `{key_id}` opens {count} files more; nothing was removed");
        Err(Failure::new(Code::Failed, text)
            .advise("--from DIR with their directory too, where they are this patient's")
            .advise("eds-key-rotate where they are somebody else's, so that they have another key"))
    }
}

/// Registers files no more and takes them off the disk; answers those that stay. Whatever is placed meanwhile was either
/// there in time to be taken away, or is taken away by who placed it, to whom nobody registers it any more: that is why
/// the registry comes first. An agent takes away what is registered no more.
fn unplaced(registry: &dyn Registry, place: Option<&Place>, names: &[String]) -> Result<Vec<String>, Failure> {
    registry.remove(names).map_err(database_failure)?;
    let Some(Place::Folder(root)) = place else {
        return Ok(Vec::new());
    };
    let folder = Folder::new(root, true, true);
    evict::take_away(&folder, registry, names).map_err(database_failure)?;
    let stays = names.iter().map(|name| folder.path(name)).filter(|path| path.exists());
    Ok(stays.map(|path| path.display().to_string()).collect())
}

/// Whether a person says yes.
fn is_meant() -> Result<bool, Failure> {
    let broken = |error| Failure::new(Code::Io, eds::failure::Because::new("cannot ask", error));
    let mut err = std::io::stderr();
    write!(err, "Remove all of it? [yes/no] ")
        .and_then(|()| err.flush())
        .map_err(broken)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(broken)?;
    Ok(matches!(line.trim(), "yes" | "y"))
}

struct Going<'a> {
    voice: Voice,
    catalog: &'a CatalogClient,
    remote: &'a Remote,
    plan: &'a Plan,
}

/// What became of recall's own copies.
#[derive(Default)]
struct Recalled {
    /// Their URLs at its doors.
    at_doors: BTreeSet<String>,
    /// Files that could not be taken away.
    left: Vec<String>,
}

impl Going<'_> {
    /// The keys, before anything else: as long as one is there nothing else goes.
    fn keys(&self) -> Result<(), Failure> {
        let mut worst: Option<Code> = None;
        let mut left = 0;
        for name in &self.plan.keys {
            let key_id = KeyId::new(name).map_err(|error| {
                Failure::new(Code::Failed, eds::failure::Because::new(format!("key `{name}`"), error))
            })?;
            let hydra = &self.remote.session.hydra;
            let removed = match self.remote.session.wait(hydra.unregister(&key_id, None)) {
                Ok(_) => Ok(()),
                // removed before, or never there: the stores say which
                Err(error @ RemoveError::NotFound { .. }) => match self.is_gone(&key_id)? {
                    true => Ok(()),
                    false => Err(failure::remove(error)),
                },
                Err(error) => Err(failure::remove(error)),
            };
            if let Err(failure) = removed {
                left += 1;
                if worst.is_none_or(|code| severity(failure.code) > severity(code)) {
                    worst = Some(failure.code);
                }
                let _ = hydra_cli::exit(Err(failure));
            }
        }
        match worst {
            None => Ok(()),
            Some(code) => {
                let text = format!(
                    "{left} of {} keys are not removed everywhere; copies and names are left",
                    self.plan.keys.len()
                );
                Err(Failure::new(code, text).advise("the same command again"))
            }
        }
    }

    fn is_gone(&self, key_id: &KeyId) -> Result<bool, Failure> {
        let status = self.remote.session.wait(self.remote.session.hydra.status(key_id));
        let status = status.map_err(failure::local)?;
        // what is not shown may be there: only a tombstone says that it is gone
        Ok(status.verdict == Verdict::Removed)
    }

    /// Nothing of it is recalled any more, and what was recalled goes off the disk.
    fn recall(&self, config: &Config) -> Result<Recalled, Failure> {
        let mut recalled = Recalled::default();
        let database = open_or_make(config)?;
        let catalogued = Catalogued::new(Arc::clone(&database));
        let registry = LocalRegistry::new(Arc::clone(&database));
        // what has another path by now, or none, is known by its key, which opens nothing of others
        let mut names = BTreeSet::new();
        for key_id in &self.plan.keys {
            names.extend(catalogued.names_under(key_id).map_err(database_failure)?);
        }
        for entry in &self.plan.entries {
            names.extend(catalogued.name_at(entry.path.as_str()).map_err(database_failure)?);
        }
        let names: Vec<String> = names.into_iter().collect();
        let queue = Queue::new(database, config.rules);
        queue.cancel(&names, queue.now_ms()).map_err(database_failure)?;
        recalled.left = unplaced(&registry, config.place.as_ref(), &names)?;
        catalogued.forget(&names).map_err(database_failure)?;
        self.voice
            .note(&format!("{} no longer recalled", counted(names.len(), "file")));
        let at_doors = config
            .doors
            .iter()
            .flat_map(|door| names.iter().map(|name| at_door(door, name)));
        recalled.at_doors = at_doors.collect();
        for path in &recalled.left {
            self.voice.warning(&format!("`{path}` is left, unreadable"));
        }
        Ok(recalled)
    }

    /// The copies. What cannot be removed is noise without its key; it is named.
    fn replicas(&self, recalled: &BTreeSet<String>) -> Vec<String> {
        let mut left = Vec::new();
        let told = Told {
            keys: self.plan.keys.iter().map(String::as_str).collect(),
            size: None,
            adler32: None,
        };
        for text in &self.plan.replicas {
            // recall takes these away itself; the hospital's own stay
            if text.starts_with("dicom:") || recalled.contains(text) {
                continue;
            }
            let may_go = |url: StorageUrl| match url.local_path() {
                Some(path) if !is_copy(&path, &told) => Err("it is no file that these keys sealed".to_owned()),
                _ => Ok(url),
            };
            let removed = StorageUrl::parse(text)
                .map_err(|error| error.to_string())
                .and_then(may_go)
                .and_then(|url| match self.remote.session.wait(self.remote.storage.remove(&url)) {
                    Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(failed(error).error.to_string()),
                });
            if let Err(why) = removed {
                self.voice.warning(&format!("`{text}` is left, unreadable: {why}"));
                left.push(text.clone());
            }
        }
        left
    }

    fn names(&self) -> Result<(), Failure> {
        let removal = |entry: &Entry| Removal {
            path: entry.path.to_string(),
            recursive: false,
            unreplicated: false,
        };
        let removals: Vec<Removal> = self.plan.entries.iter().map(removal).collect();
        let answers = self.catalog.remove(&removals)?;
        for (removal, answer) in removals.iter().zip(answers) {
            if let Answer::Problem(problem) = answer
                && problem.kind != hydra_core::keystore::wire::ProblemKind::NotFound
            {
                let failure: Failure = CatalogError::refused(&removal.path, problem).into();
                return Err(failure.advise("the same command again"));
            }
        }
        Ok(())
    }

    /// Looks again, and says what is left and for how long.
    fn prove(&self, patient: &str, from: &[LogicalName], left: &[String]) -> Result<(), Failure> {
        let names = of_patient(self.catalog, patient, from)?;
        let mut keys = Vec::new();
        for name in &self.plan.keys {
            let Ok(key_id) = KeyId::new(name) else { continue };
            if !self.is_gone(&key_id)? {
                keys.push(name.clone());
            }
        }
        let voice = self.voice;
        voice.result(&format!(
            "removed {}, {}; left: {}, {}, {} that nothing opens",
            counted(self.plan.keys.len() - keys.len(), "key"),
            counted(self.plan.entries.len().saturating_sub(names.len()), "name"),
            counted(keys.len(), "key"),
            counted(names.len(), "name"),
            match left.len() {
                1 => "1 copy".to_owned(),
                copies => format!("{copies} copies"),
            },
        ))?;
        let until = self.backups(voice)?;
        voice.json(&json!({
            "removed": { "keys": self.plan.keys, "names": self.plan.entries.len() },
            "left": { "keys": keys, "names": names, "replicas": left },
            "catalogue_backups_until": until,
        }))?;
        if keys.is_empty() && names.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Code::Failed, "not all of it is gone").advise("the same command again"))
    }

    fn backups(&self, voice: Voice) -> Result<Option<String>, Failure> {
        let about = self.catalog.about()?;
        let until = about.backups_kept_days.map(|days| {
            let at = timestamp(SystemTime::now() + DAY * days);
            at.split('T').next().unwrap_or_default().to_owned()
        });
        match &until {
            Some(day) => voice.result(&format!(
                "until {day} a backup of the catalogue could bring names and attributes back"
            ))?,
            None => voice.result("how long backups of the catalogue are kept, its administrator has not said")?,
        }
        voice.note("key stores do not say how long their backups are kept: ask their administrators");
        Ok(until)
    }
}

#[cfg(test)]
mod tests {
    use dicom_recall::database::DatabaseError;
    use dicom_recall::line::Entry as LineEntry;
    use dicom_recall::registry::{Added, Instance, Recorded, Which};

    use super::*;

    /// A registry of a daemon that puts a file into its place just before that is registered no more.
    struct Quick(PathBuf);

    impl Registry for Quick {
        fn id(&self) -> &str {
            unreachable!()
        }

        fn add(&self, _: &[Instance]) -> Result<Vec<Added>, DatabaseError> {
            unreachable!()
        }

        fn find(&self, _: &Which<'_>) -> Result<Vec<Instance>, DatabaseError> {
            unreachable!()
        }

        fn count(&self, _: &str, _: &str) -> Result<u64, DatabaseError> {
            unreachable!()
        }

        fn changes(&self, _: i64, _: usize) -> Result<(Vec<LineEntry>, i64), DatabaseError> {
            unreachable!()
        }

        fn last_change(&self) -> Result<i64, DatabaseError> {
            unreachable!()
        }

        fn set_told(&self, _: i64) -> Result<(), DatabaseError> {
            unreachable!()
        }

        fn tell_anew(&self, _: i64) -> Result<(), DatabaseError> {
            unreachable!()
        }

        fn record(&self, _: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
            unreachable!()
        }

        fn record_placed(&self, _: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
            unreachable!()
        }

        fn set_on_disk(&self, _: &[String], _: bool) -> Result<(), DatabaseError> {
            Ok(())
        }

        fn on_disk(&self) -> Result<Vec<String>, DatabaseError> {
            unreachable!()
        }

        fn wish_evicted(&self, _: &[String]) -> Result<(), DatabaseError> {
            unreachable!()
        }

        fn evictions(&self) -> Result<Vec<String>, DatabaseError> {
            unreachable!()
        }

        fn forget_evictions(&self, _: &[String]) -> Result<(), DatabaseError> {
            unreachable!()
        }

        fn remove(&self, names: &[String]) -> Result<usize, DatabaseError> {
            std::fs::write(&self.0, "sealed").unwrap();
            Ok(names.len())
        }
    }

    #[test]
    fn what_is_placed_while_it_is_withdrawn_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.eds");
        let place = Place::Folder(folder.path().to_owned());
        let names = ["/image.eds".to_owned()];
        let left = unplaced(&Quick(path.clone()), Some(&place), &names).unwrap();
        assert!(left.is_empty() && !path.exists());
    }

    #[test]
    fn patients_are_quoted_and_none_is_wrong_usage() {
        assert_eq!(quoted("O'Brien"), "'O''Brien'");
        assert_eq!(patient(" KH-1 ").unwrap(), "KH-1");
        assert_eq!(patient("").unwrap_err().code, Code::Usage);
        assert_eq!(patient("a\nb").unwrap_err().code, Code::Usage);
    }
}
