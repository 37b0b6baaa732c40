//! `mdm-withdraw`: whoever withdraws consent has their images go: first the keys, with which all copies of the bytes
//! are noise, then the copies that are known, and last names and attributes, so that whatever ends it in between can be
//! found and done again (`docs/src/commands/mdm-images.md`). What may go is judged in `evidence`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use dicom_recall::catalogued::Catalogued;
use dicom_recall::config::{Config, Place, SecretSource};
use dicom_recall::destination::Folder;
use dicom_recall::evict;
use dicom_recall::ledger::{database_failure, open_or_make};
use dicom_recall::names::Ids;
use dicom_recall::now::config_failure;
use dicom_recall::queue::Queue;
use dicom_recall::registry::{Instance, LocalRegistry, Registry, Which};
use eds::args::{Manners, Stores};
use eds::failure::{self, quoted as word, severity};
use eds::operands::meant_key_ids;
use eds::permissions::for_each;
use eds::session::{overrides, timestamp};
use eds::storage::{Remote, args::Patience, failed};
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::output::counted;
use hydra_cli::{Code, Failure, secret_input};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{RemoveError, Verdict};
use hydra_core::keystore::wire::ProblemKind;
use mdm_catalog::LogicalName;
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{Answer, Attributes, Entry, Lookup, MAX_ITEMS, Removal, Value};
use serde_json::json;
use storage_url::{StorageError, StorageUrl};

use crate::connection::Catalog;
use crate::copies::{Found, look};
use crate::evidence::{self, Image, Judgement, Open, Proof, Untold};
use crate::get::{Bounds, check, expected, found, open_in_memory};
use crate::register::at_door;

/// The longest identifier of a patient that is read.
const LONGEST_ID: usize = 4096;
/// So many of those that a key opens too are named.
const NAMED: usize = 10;
/// So many copies are looked at side by side.
const LOOKS_AT_ONCE: usize = 8;
/// So many copies under a key that nothing else confirms are opened, until one of them is the image.
const OPENED: usize = 3;
/// What may be looked into of such a copy: whoever has `w` on a name chooses it.
const BOUNDS: Bounds = Bounds {
    bytes: 2 << 30,
    time: Duration::from_secs(600),
};
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
    /// With what is left.
    judgement: Judgement,
    /// Keys that files are sealed under too which are not meant, and those.
    shared: BTreeMap<String, Vec<LogicalName>>,
    /// Files of the storage element that recall takes away itself.
    at_doors: BTreeSet<String>,
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
    let catalog = args.catalog.open_beside(configured)?;
    let entries = entries(&catalog, &patient, &from)?;
    if entries.is_empty() {
        let from = args.from.join(", ");
        let text = format!("there is nothing of this patient in {from}, or it is not shown to you");
        return Err(Failure::new(Code::NotAllowed, text).advise("eds-whoami"));
    }
    let remote = Remote::open(&overrides(&args.stores), args.patience.idle())?;
    let plan = plan(&catalog, &remote, config.as_ref(), entries, voice)?;
    plan.tell(voice, args.dry_run)?;
    plan.refuse_shared(voice)?;
    if args.dry_run {
        return Ok(());
    }
    if plan.entries.is_empty() && plan.judgement.keys.is_empty() {
        return Err(Failure::new(
            Code::Failed,
            "nothing was removed: it would not be known of what",
        ));
    }
    if !args.yes && !is_meant()? {
        return Err(Failure::new(Code::Failed, "nothing was removed"));
    }
    let going = Going {
        voice,
        catalog: &catalog,
        remote: &remote,
        plan: &plan,
    };
    going.keys()?;
    let mut left = match &config {
        Some(config) => going.recall(config)?,
        None => Vec::new(),
    };
    left.extend(going.replicas());
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
fn of_patient(catalog: &CatalogClient, patient: &str, from: &[LogicalName]) -> Result<Vec<String>, Failure> {
    let query = format!("patient_id = {}", quoted(patient));
    let mut names = BTreeSet::new();
    for from in from {
        names.extend(found(catalog, &query, from).map_err(|error| match error {
            // an attribute that is not shown is refused as one that there is not
            CatalogError::Refused { problem, .. } if problem.kind == ProblemKind::Invalid => {
                let text = format!("`{from}` has no `patient_id`, or you may not read the identifying half there");
                Failure::new(Code::NotAllowed, text)
                    .advise(format!("mdm-getacl {}", word(from.as_str())))
                    .advise("eds-whoami")
            }
            CatalogError::Refused { problem, .. } => CatalogError::refused(from.as_str(), *problem).into(),
            other => other.into(),
        })?);
    }
    Ok(names.into_iter().collect())
}

fn entries(catalog: &CatalogClient, patient: &str, from: &[LogicalName]) -> Result<Vec<Entry>, Failure> {
    let names = of_patient(catalog, patient, from)?;
    let mut entries = Vec::new();
    for some in names.chunks(MAX_ITEMS) {
        for (name, answer) in some.iter().zip(catalog.show(some)?) {
            match answer {
                Answer::Done(entry) => entries.push(entry),
                Answer::Problem(problem) => return Err(CatalogError::refused(name, problem).into()),
            }
        }
    }
    Ok(entries)
}

fn plan(
    catalog: &CatalogClient,
    remote: &Remote,
    config: Option<&Config>,
    entries: Vec<Entry>,
    voice: Voice,
) -> Result<Plan, Failure> {
    let own: BTreeSet<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
    let registered = config.map_or_else(
        || Ok(entries.iter().map(|_| Vec::new()).collect()),
        |config| registered(config, &entries),
    )?;
    let mut at_doors = BTreeSet::new();
    for (config, instance) in config
        .iter()
        .flat_map(|config| registered.iter().flatten().map(move |one| (config, one)))
    {
        at_doors.extend(config.doors.iter().map(|door| at_door(door, &instance.name)));
    }
    let images = look_at(remote, config, entries, registered, &at_doors);
    let never = never(config)?;
    let mut proofs = BTreeMap::new();
    for one in evidence::open(&images, &never) {
        let proof = match never.contains(one.key_id) {
            true => Proof::Unknown("it is the one that new identifiers are made with".to_owned()),
            false => proof(remote, &one, voice)?,
        };
        proofs.insert(one.key_id.to_owned(), proof);
    }
    let mut judgement = evidence::judge(&images, &proofs).map_err(untold)?;
    let mut shared = BTreeMap::new();
    for key_id in &judgement.keys {
        // wherever they are: a key opens what lies beside this directory, too
        let under = catalog.lookup(&Lookup {
            key_id: Some(key_id.clone()),
            ..Lookup::default()
        })?;
        let others = under.into_iter().filter(|entry| !own.contains(entry.path.as_str()));
        let others: Vec<LogicalName> = others.map(|entry| entry.path).collect();
        if !others.is_empty() {
            shared.insert(key_id.clone(), others);
        }
    }
    let names = std::mem::take(&mut judgement.names);
    let (numbered, names) = (images.into_iter().enumerate(), BTreeSet::from_iter(names));
    let entries: Vec<Entry> = numbered
        .filter(|(number, _)| names.contains(number))
        .map(|(_, image)| image.entry)
        .collect();
    // those that are said to be there of what goes
    let said: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.replicas).collect();
    at_doors.retain(|url| said.contains(url));
    Ok(Plan {
        entries,
        judgement,
        shared,
        at_doors,
    })
}

/// What recall's registry has of each entry, by the name that it was catalogued under and by the PACS's identifiers.
fn registered(config: &Config, entries: &[Entry]) -> Result<Vec<Vec<Instance>>, Failure> {
    let database = open_or_make(config)?;
    let catalogued = Catalogued::new(Arc::clone(&database));
    let registry = LocalRegistry::new(database);
    let of = |entry: &Entry| {
        let name = catalogued.name_at(entry.path.as_str())?;
        let mut instances = registry.find(&Which::Names(&Vec::from_iter(name)))?;
        if let Some(ids) = original(&entry.attributes) {
            let which = Which::Original {
                study: &ids.study,
                series: Some(&ids.series),
                instance: Some(&ids.instance),
            };
            instances.extend(registry.find(&which)?);
        }
        Ok(instances)
    };
    entries
        .iter()
        .map(of)
        .collect::<Result<_, _>>()
        .map_err(database_failure)
}

fn original(attributes: &Attributes) -> Option<Ids> {
    let text = |name: &str| match attributes.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    Some(Ids {
        study: text("original_study_uid")?,
        series: text("original_series_uid")?,
        instance: text("original_instance_uid")?,
    })
}

/// Looks at all copies, but those that recall takes away itself, whatever they are.
fn look_at(
    remote: &Remote,
    config: Option<&Config>,
    entries: Vec<Entry>,
    registered: Vec<Vec<Instance>>,
    at_doors: &BTreeSet<String>,
) -> Vec<Image> {
    let folder = config.and_then(|config| match &config.place {
        Some(Place::Folder(root)) => Some(Folder::new(root, true, true)),
        _ => None,
    });
    let mut urls: Vec<(usize, String)> = Vec::new();
    let mut images = Vec::new();
    for (number, (entry, registered)) in entries.into_iter().zip(registered).enumerate() {
        // the hospital's own images stay where they are
        let is_looked_at = |url: &&String| !url.starts_with("dicom:") && !at_doors.contains(*url);
        urls.extend(
            entry
                .replicas
                .iter()
                .filter(is_looked_at)
                .map(|url| (number, url.clone())),
        );
        let in_folder = folder
            .iter()
            .flat_map(|folder| registered.iter().map(|one| folder.path(&one.name)));
        urls.extend(in_folder.map(|path| (number, file_url(&path))));
        images.push(Image {
            entry,
            registered: registered.into_iter().map(|one| one.key_id).collect(),
            found: Vec::new(),
        });
    }
    let one = async |(_, url): &(usize, String)| match StorageUrl::parse(url) {
        Ok(url) => look(&remote.storage, &url).await,
        Err(error) => Found::Unread(error.to_string()),
    };
    let found = remote.session.wait(for_each(&urls, LOOKS_AT_ONCE, one));
    for ((number, url), found) in urls.into_iter().zip(found) {
        images[number].found.push((url, found));
    }
    images
}

/// The URL of a file of this machine.
fn file_url(path: &Path) -> String {
    use std::fmt::Write;
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// Keys that no image has, whatever is said.
fn never(config: Option<&Config>) -> Result<BTreeSet<String>, Failure> {
    match config.map(|config| &config.secret) {
        Some(SecretSource::Key(typed)) => {
            let key_ids = meant_key_ids(typed).map_err(|error| Failure::new(Code::Config, error))?;
            Ok(key_ids.iter().map(ToString::to_string).collect())
        }
        _ => Ok(BTreeSet::new()),
    }
}

/// Opens copies under a key until one is the image that it is said to be.
fn proof(remote: &Remote, open: &Open<'_>, voice: Voice) -> Result<Proof, Failure> {
    let Ok(key_id) = KeyId::new(open.key_id) else {
        return Ok(Proof::Unknown("it is no key id".to_owned()));
    };
    if is_gone(remote, &key_id)? {
        return Ok(Proof::Gone);
    }
    let voice = Voice { quiet: true, ..voice };
    let mut proof = Proof::Unknown("there is no copy under it".to_owned());
    for (url, entry) in open.copies.iter().take(OPENED) {
        proof = match StorageUrl::parse(url) {
            Err(error) => Proof::Unknown(error.to_string()),
            Ok(_) if expected(entry).is_none() => {
                Proof::Unknown("the catalogue has no `instance_uid` of it".to_owned())
            }
            Ok(url) => match open_in_memory(remote, &url, Some(open.key_id), Some(BOUNDS), voice) {
                Err(failure) => Proof::Unknown(failure.error.to_string()),
                Ok(plain) if check(&plain, expected(entry)).is_ok() => Proof::Opens,
                Ok(_) => Proof::OpensOther,
            },
        };
        if proof == Proof::Opens {
            break;
        }
    }
    Ok(proof)
}

fn untold(untold: Untold) -> Failure {
    let Untold { url, key_id, why, path } = untold;
    let text = format!(
        "`{url}` is sealed under key `{key_id}`, and whether it is this patient's image cannot be told ({why}); nothing \
         was removed"
    );
    Failure::new(Code::Failed, text)
        .advise(format!(
            "mdm-set {} --remove-replica {}, where it is not",
            word(path.as_str()),
            word(&url)
        ))
        .advise(format!(
            "eds-key-unregister {}, where it is, then the same command again",
            word(&key_id)
        ))
}

fn is_gone(remote: &Remote, key_id: &KeyId) -> Result<bool, Failure> {
    let status = remote.session.wait(remote.session.hydra.status(key_id));
    let status = status.map_err(failure::local)?;
    // what is not shown may be there: only a tombstone says that it is gone
    Ok(status.verdict == Verdict::Removed)
}

impl Plan {
    fn tell(&self, voice: Voice, dry_run: bool) -> Result<(), Failure> {
        let judgement = &self.judgement;
        let replicas: BTreeSet<&String> = judgement.copies.union(&self.at_doors).collect();
        for key_id in &judgement.keys {
            voice.result(&format!("key {key_id}"))?;
        }
        for url in &replicas {
            voice.result(&format!("replica {url}"))?;
        }
        for entry in &self.entries {
            voice.result(&format!("name {}", entry.path))?;
        }
        self.tell_left(voice);
        if dry_run {
            let names: Vec<&LogicalName> = self.entries.iter().map(|entry| &entry.path).collect();
            let left = self.left_in_json();
            voice.json(&json!({ "keys": judgement.keys, "replicas": replicas, "names": names, "left": left }))?;
        }
        Ok(())
    }

    /// What is left whatever the answer is, and what can be done about it.
    fn tell_left(&self, voice: Voice) {
        let judgement = &self.judgement;
        for (key_id, path) in &judgement.doubtful {
            voice.warning(&format!(
                "key `{key_id}` is left: nothing but the catalogue says that `{path}` has it"
            ));
            let unregister = format!("eds-key-unregister {}", word(key_id));
            voice.note(&format!(
                "  try: {unregister}, where it is this patient's, then the same command again"
            ));
        }
        for (url, why) in &judgement.left {
            voice.warning(&format!("`{url}` is left: {why}"));
        }
        for (path, why) in &judgement.kept {
            voice.warning(&format!("name `{path}` is left: {why}"));
        }
        for (path, keys) in &judgement.unproven {
            voice.warning(&format!(
                "nothing but the catalogue says that `{path}` had key `{keys}`, which is removed"
            ));
        }
    }

    fn left_in_json(&self) -> serde_json::Value {
        let judgement = &self.judgement;
        let (keys, files) = (judgement.doubtful.keys(), judgement.left.keys());
        json!({
            "keys": keys.collect::<Vec<_>>(),
            "names": judgement.kept.keys().collect::<Vec<_>>(),
            "files": files.collect::<Vec<_>>(),
            "unproven": judgement.unproven.keys().collect::<Vec<_>>(),
        })
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
            .advise(
                "eds-key-rotate and mdm-set --key-id where they are somebody else's, so that they have another key",
            ))
    }
}

/// Registers files no more and takes them off the disk; answers those that stay. Whatever is placed meanwhile was
/// either there in time to be taken away, or is taken away by who placed it, to whom nobody registers it any more: that
/// is why the registry comes first. An agent takes away what is registered no more.
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

impl Going<'_> {
    /// The keys, before anything else: as long as one is there nothing else goes.
    fn keys(&self) -> Result<(), Failure> {
        let mut worst: Option<Code> = None;
        let mut left = 0;
        for name in &self.plan.judgement.keys {
            let key_id = KeyId::new(name).map_err(|error| {
                Failure::new(Code::Failed, eds::failure::Because::new(format!("key `{name}`"), error))
            })?;
            let hydra = &self.remote.session.hydra;
            let removed = match self.remote.session.wait(hydra.unregister(&key_id, None)) {
                Ok(_) => Ok(()),
                // removed before, or never there: the stores say which
                Err(error @ RemoveError::NotFound { .. }) => match is_gone(self.remote, &key_id)? {
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
                    self.plan.judgement.keys.len()
                );
                Err(Failure::new(code, text).advise("the same command again"))
            }
        }
    }

    /// Nothing of it is recalled any more, and what was recalled goes off the disk. Answers what could not be taken
    /// away.
    fn recall(&self, config: &Config) -> Result<Vec<String>, Failure> {
        let database = open_or_make(config)?;
        let catalogued = Catalogued::new(Arc::clone(&database));
        let registry = LocalRegistry::new(Arc::clone(&database));
        // what has another path by now, or none, is known by its key, which opens nothing of others
        let mut names = BTreeSet::new();
        for key_id in &self.plan.judgement.keys {
            names.extend(catalogued.names_under(key_id).map_err(database_failure)?);
        }
        for entry in &self.plan.entries {
            names.extend(catalogued.name_at(entry.path.as_str()).map_err(database_failure)?);
        }
        let names: Vec<String> = names.into_iter().collect();
        let queue = Queue::new(database, config.rules);
        queue.cancel(&names, queue.now_ms()).map_err(database_failure)?;
        let mut left = unplaced(&registry, config.place.as_ref(), &names)?;
        catalogued.forget(&names).map_err(database_failure)?;
        self.voice
            .note(&format!("{} no longer recalled", counted(names.len(), "file")));
        // what was not shown to be a copy is told already
        left.retain(|path| !self.plan.judgement.left.contains_key(&file_url(Path::new(path))));
        for path in &left {
            self.voice.warning(&format!("`{path}` is left, and nothing opens it"));
        }
        Ok(left)
    }

    /// The copies that were looked at. One that cannot be removed is noise without its key; it is named.
    fn replicas(&self) -> Vec<String> {
        let mut left = Vec::new();
        for text in &self.plan.judgement.copies {
            let removed = StorageUrl::parse(text)
                .map_err(|error| error.to_string())
                .and_then(|url| match self.remote.session.wait(self.remote.storage.remove(&url)) {
                    Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(failed(error).error.to_string()),
                });
            if let Err(why) = removed {
                self.voice
                    .warning(&format!("`{text}` is left, and nothing opens it: {why}"));
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
                && problem.kind != ProblemKind::NotFound
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
        let judgement = &self.plan.judgement;
        let mut keys = Vec::new();
        for name in &judgement.keys {
            let Ok(key_id) = KeyId::new(name) else { continue };
            if !is_gone(self.remote, &key_id)? {
                keys.push(name.clone());
            }
        }
        let voice = self.voice;
        let all = self.plan.entries.len() + judgement.kept.len();
        let others = match judgement.left.len() {
            0 => String::new(),
            files => format!(", {} that may be others", counted(files, "file")),
        };
        voice.result(&format!(
            "removed {}, {}; left: {}, {}, {} that nothing opens{others}",
            counted(judgement.keys.len() - keys.len(), "key"),
            counted(all.saturating_sub(names.len()), "name"),
            counted(keys.len() + judgement.doubtful.len(), "key"),
            counted(names.len(), "name"),
            match left.len() {
                1 => "1 copy".to_owned(),
                copies => format!("{copies} copies"),
            },
        ))?;
        let until = self.backups(voice)?;
        voice.json(&json!({
            "removed": { "keys": judgement.keys, "names": self.plan.entries.len() },
            "left": { "keys": keys, "names": names, "replicas": left },
            "doubtful": self.plan.left_in_json(),
            "catalogue_backups_until": until,
        }))?;
        if judgement.leaves_something() {
            let text = "what is left was not shown to be this patient's, or could not be looked at";
            return Err(
                Failure::new(Code::Failed, text).advise("look at what is named above, then the same command again")
            );
        }
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

    #[test]
    fn files_with_odd_names_have_urls() {
        for path in ["/srv/eds/2.25.1.dcm", "/srv/recall images/50%41/ü.eds", "/a#b?c/\u{1}"] {
            let url = StorageUrl::parse(&file_url(Path::new(path)));
            assert_eq!(url.unwrap().local_path().as_deref(), Some(Path::new(path)));
        }
    }

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
