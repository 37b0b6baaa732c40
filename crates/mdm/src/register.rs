//! `mdm-register`: gives images of a PACS names, keys and a place in the catalogue, without copying them. The steps
//! themselves are in [`crate::steps`]; the command is described in `docs/src/commands/mdm-images.md`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Parser, ValueEnum};
use dicom_deid::Profile;
use dicom_net::Wanted;
use dicom_recall::CONFIG;
use dicom_recall::catalogued::{Catalogued, Registration, State};
use dicom_recall::config::Config;
use dicom_recall::database::random_id;
use dicom_recall::keys::Keys;
use dicom_recall::ledger::{database_failure, open_or_make};
use dicom_recall::names::{KeyPer, Template};
use dicom_recall::now::{config_failure, wanted};
use dicom_recall::pipeline::{self, Target};
use dicom_recall::registry::{Instance, LocalRegistry};
use dicom_recall::secret;
use dicom_recall::source::Source;
use eds::args::{Manners, Stores};
use eds::failure::{self, Because};
use eds::session::{Session, overrides, timestamp};
use eds::storage::{Remote, args::Patience, failed, storage_url};
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::output::{counted, warn};
use hydra_cli::progress::Progress;
use hydra_cli::signals::{OnSignal, on_signal};
use hydra_cli::{Code, Failure, secret_input};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{LocalError, RemoveError};
use hydra_core::keystore::wire::ProblemKind;
use hydra_core::sealed::Header;
use mdm_catalog::client::CatalogClient;
use mdm_catalog::wire::{AttributeDefinition, Attributes, Change, Entry, Kind, NewEntry, Status};
use mdm_catalog::{LogicalName, image};
use serde_json::{Value as Json, json};
use storage_url::{Before, PutOptions, StorageError, StorageUrl};

use crate::connection::Catalog;
use crate::halves::Halves;
use crate::headers::{self, Query, Told};
use crate::steps::{KeyStores, Note, Planned, Steps, Summary};

/// The longest header of a sealed file.
const HEADER: usize = 552;
/// How long a query may be.
const LONGEST_QUERY: usize = 64 * 1024;

/// Register images with the catalogue, without copying them
///
/// WHAT is a study, series or instance by the PACS's own identifiers, or a file or folder of what the PACS has.
#[derive(Debug, Parser)]
#[command(name = "mdm-register")]
pub struct Register {
    /// What to register: STUDY, STUDY/SERIES, STUDY/SERIES/INSTANCE, or files and folders
    #[arg(value_name = "WHAT")]
    pub what: Vec<String>,
    /// Register the studies that fit: PatientID=…,StudyDate=…,Modality=MR; `-` reads it from standard input, a line
    /// each
    #[arg(long, value_name = "QUERY")]
    pub query: Option<String>,
    /// Refuse where the PACS has more images of what is asked for
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub most: usize,
    /// The directory of the catalogue that they go to
    #[arg(long, value_name = "LFN")]
    pub into: Option<String>,
    /// The configuration of dicom-recall
    #[arg(short, long, value_name = "FILE", env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    #[command(flatten)]
    pub catalog: Catalog,
    /// Register a key for each series or for each instance [default: as configured]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub key_per: Option<KeyPer>,
    /// Seal FILE and put it at URL now, instead of leaving it where it is
    #[arg(long, num_args = 2, value_names = ["FILE", "URL"], conflicts_with_all = ["what", "query"])]
    pub seal: Option<Vec<String>>,
    /// List registrations that are not at their end
    #[arg(long, conflicts_with_all = ["what", "query", "seal", "into"])]
    pub list: bool,
    /// Go on with a registration
    #[arg(long, value_name = "ID", conflicts_with_all = ["what", "query", "seal", "into", "list"])]
    pub resume: Option<String>,
    /// Take back a registration that is not at its end
    #[arg(long, value_name = "ID", conflicts_with_all = ["what", "query", "seal", "into", "list", "resume"])]
    pub undo: Option<String>,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-register`.
pub const EXAMPLES: &[Example] = &[
    Example {
        says: "Register a study, and leave it where it is",
        command: "mdm-register --into /myvo/images 1.2.840.113619.2.1",
    },
    Example {
        says: "Register what a query finds, by a query that nobody sees in a list of processes",
        command: "mdm-register --into /myvo/images --query -",
    },
];

/// `mdm-register`.
///
/// # Errors
/// What was in the way. What is not at its end is listed, to be resumed or undone.
pub fn register(args: &Register) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let is_new = !args.list && args.undo.is_none() && args.resume.is_none();
    // What is wrong with the arguments is told before anything is looked for.
    let asked = is_new.then(|| asked(args)).transpose()?;
    let mut config = Config::read(&args.config).map_err(config_failure)?;
    let database = open_or_make(&config)?;
    let catalogued = Catalogued::new(Arc::clone(&database));
    if args.list {
        return list(&catalogued, voice);
    }
    let registry = LocalRegistry::new(database);
    if let Some(id) = &args.undo {
        let known = known(&catalogued, id, true)?;
        let desk = Desk::open(args, config, voice)?;
        return desk.undo(&known, &catalogued, &registry);
    }
    let (id, selection, into) = match &args.resume {
        Some(id) => {
            let known = known(&catalogued, id, false)?;
            let selection = Selection::of(&known.what)?;
            (id.clone(), selection, known.into)
        }
        None => {
            let (selection, into) = asked.ok_or_else(nothing_named)?;
            (random_id::<16>().map_err(database_failure)?, selection, into)
        }
    };
    let into = LogicalName::typed(&into).map_err(|error| usage_error(format!("`{into}`: {error}")))?;
    if let Some(key_per) = args.key_per.or(selection.key_per) {
        config.names = Template::parse(&config.name_text, key_per)
            .map_err(|error| Failure::new(Code::Usage, error).advise("`name` under [seal] in the configuration"))?;
        config.key_per = key_per;
    }
    let desk = Desk::open(args, config, voice)?;
    let schema = desk.catalog.schema(&into)?;
    let schema = usable(&into, schema.attributes)?;
    if let Some(sealing) = selection.seal {
        return desk.seal(&id, sealing, &into, &schema, (&catalogued, &registry));
    }
    let told = desk.find(&selection)?;
    desk.register(&id, &selection, told, &into, &schema, (&catalogued, &registry))
}

/// What to register, and below which directory.
fn asked(args: &Register) -> Result<(Selection, String), Failure> {
    let into = args.into.clone().ok_or_else(|| usage_error("--into LFN is needed"))?;
    Ok((Selection::typed(args)?, into))
}

fn nothing_named() -> Failure {
    usage_error("name what to register: STUDY, --query or files")
}

/// What can be done with a registration that is not at its end.
fn advised(failure: Failure, catalogued: &Catalogued, id: &str) -> Failure {
    match catalogued.registration(id) {
        Ok(Some(known)) if known.state != State::Open => failure,
        _ => failure.advise(format!("mdm-register --resume {id}, or --undo {id}")),
    }
}

/// The attributes of images that a directory has, each in its half: a value of the other half would be shown to those
/// that it is kept from.
fn usable(into: &LogicalName, there: Vec<AttributeDefinition>) -> Result<BTreeSet<String>, Failure> {
    let wrong = |what: String| Failure::new(Code::Config, what).advise(format!("mdm-schema --images {into}"));
    let mut names = BTreeSet::new();
    for one in there {
        let name = one.name.to_ascii_lowercase();
        let Some(half) = image::half(&name) else { continue };
        if half != one.half {
            return Err(wrong(format!("`{name}` is of the other half in `{into}`")));
        }
        if name == "patient_id" && !one.indexed {
            return Err(wrong(format!("`patient_id` is not indexed in `{into}`")));
        }
        names.insert(name);
    }
    let needed = ["patient_id", "original_instance_uid", "instance_uid"];
    match needed.into_iter().find(|need| !names.contains(*need)) {
        Some(need) => Err(wrong(format!(
            "`{into}` has no attribute `{need}`, or you may not write it"
        ))),
        None => Ok(names),
    }
}

fn known(catalogued: &Catalogued, id: &str, is_undoing: bool) -> Result<Registration, Failure> {
    let found = catalogued.registration(id).map_err(database_failure)?;
    match found {
        Some(known) if known.state == State::Open || is_undoing && known.state == State::Undone => Ok(known),
        Some(known) => {
            let text = format!("registration `{id}` is {}", known.state.word());
            Err(Failure::new(Code::Failed, text).advise("mdm-register --list"))
        }
        None => {
            let text = format!("there is no registration `{id}` here");
            Err(Failure::new(Code::Failed, text).advise("mdm-register --list"))
        }
    }
}

fn list(catalogued: &Catalogued, voice: Voice) -> Result<(), Failure> {
    let open = catalogued.open_registrations().map_err(database_failure)?;
    for one in &open {
        let seconds = std::time::Duration::from_secs(one.began_at.unsigned_abs());
        let began = timestamp(std::time::SystemTime::UNIX_EPOCH + seconds);
        voice.result(&format!("{} began {began}, into {}", one.id, one.into))?;
        voice.json(&json!({ "id": one.id, "into": one.into, "began_at": began }))?;
    }
    if open.is_empty() {
        voice.note("all registrations are at their end");
    } else {
        voice.hint("mdm-register --resume ID, or --undo ID");
    }
    Ok(())
}

/// What is to be registered, as it can be read again.
#[derive(Default)]
struct Selection {
    what: Vec<String>,
    query: Option<String>,
    seal: Option<Sealing>,
    key_per: Option<KeyPer>,
}

/// A path as it can be found from another folder, too.
fn from_anywhere(path: &str) -> String {
    let absolute = std::path::absolute(path)
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok());
    absolute.unwrap_or_else(|| path.to_owned())
}

/// A file that is sealed now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sealing {
    file: String,
    url: String,
    /// Its path in the catalogue, once that is known.
    path: String,
    /// The key that it is sealed under.
    key_id: String,
    /// Whether there was nothing at the URL before.
    was_free: bool,
    /// Whether it was in the catalogue before, and nowhere sealed yet.
    was_nearline: bool,
}

impl Sealing {
    fn json(&self) -> Json {
        json!({
            "file": self.file, "url": self.url, "path": self.path, "key_id": self.key_id,
            "was_free": self.was_free, "was_nearline": self.was_nearline,
        })
    }

    fn of(value: &Json) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let is = |name: &str| value[name].as_bool().unwrap_or(false);
        Some(Self {
            file: text("file")?,
            url: text("url")?,
            path: text("path")?,
            key_id: text("key_id")?,
            was_free: is("was_free"),
            was_nearline: is("was_nearline"),
        })
    }
}

impl Selection {
    fn typed(args: &Register) -> Result<Self, Failure> {
        let query = match args.query.as_deref() {
            Some("-") => {
                let read = secret_input::read_all(&secret_input::Source::from_operand(None), LONGEST_QUERY);
                let bytes = read.map_err(|error| Failure::new(Code::Io, error))?;
                let text = std::str::from_utf8(&bytes).map_err(|_| usage_error("the query is no UTF-8"))?;
                Some(text.trim().to_owned())
            }
            other => other.map(|query| query.replace(',', "\n")),
        };
        let seal = match args.seal.as_deref() {
            Some([file, url]) => Some(Sealing {
                file: from_anywhere(file),
                url: url.clone(),
                ..Sealing::default()
            }),
            _ => None,
        };
        if args.what.is_empty() && query.is_none() && seal.is_none() {
            return Err(nothing_named());
        }
        let what = args.what.iter().map(|what| match Path::new(what).exists() {
            true => from_anywhere(what),
            false => what.clone(),
        });
        Ok(Self {
            what: what.collect(),
            query,
            seal,
            key_per: args.key_per,
        })
    }

    fn text(&self) -> String {
        let seal = self.seal.as_ref().map(Sealing::json);
        let key_per = self
            .key_per
            .and_then(|key_per| Some(key_per.to_possible_value()?.get_name().to_owned()));
        json!({ "what": self.what, "query": self.query, "seal": seal, "key_per": key_per }).to_string()
    }

    fn of(text: &str) -> Result<Self, Failure> {
        let value: Json = serde_json::from_str(text)
            .map_err(|_| Failure::new(Code::Failed, "what was registered was not written by this version"))?;
        let text = |value: &Json| value.as_str().map(str::to_owned);
        Ok(Self {
            what: value["what"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text)
                .collect(),
            query: text(&value["query"]),
            seal: Sealing::of(&value["seal"]),
            key_per: text(&value["key_per"]).and_then(|word| KeyPer::from_str(&word, false).ok()),
        })
    }
}

/// The key stores as they are.
struct OurStores {
    session: Arc<Session>,
    keys: Keys,
}

/// A key and a registration of it, as they were noted.
fn noted(key_id: &str, registration_id: &str) -> Result<(KeyId, RegistrationId), Failure> {
    let wrong = |error: String| Failure::new(Code::Failed, format!("key `{key_id}`: {error}"));
    let registration = registration_id
        .parse()
        .map_err(|error: hydra_core::ids::IdError| wrong(error.to_string()))?;
    Ok((
        KeyId::new(key_id).map_err(|error| wrong(error.to_string()))?,
        registration,
    ))
}

impl KeyStores for OurStores {
    fn ensure(&self, key_id: &str, noted: &BTreeSet<String>, note: Note<'_>) -> Result<Option<String>, Failure> {
        let noted = noted.iter().filter_map(|id| id.parse().ok()).collect();
        let note = |id: RegistrationId| note(&id.to_string()).map_err(|error| LocalError::Note(Box::new(error)));
        let ours = self.keys.registered_noted(key_id, &noted, note)?;
        Ok(ours.map(|registration| registration.to_string()))
    }

    fn is_there(&self, key_id: &str, registration_id: &str) -> Result<Option<bool>, Failure> {
        let (key_id, registration) = noted(key_id, registration_id)?;
        self.keys.is_there(&key_id, |id| id == registration)
    }

    fn unregister(&self, key_id: &str, registration_id: &str) -> Result<(), Failure> {
        let (key_id, registration) = noted(key_id, registration_id)?;
        let removed = self.session.hydra.unregister(&key_id, Some(registration));
        match self.session.wait(removed) {
            Ok(_) | Err(RemoveError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure::remove(error)),
        }
    }
}

struct Desk<'a> {
    args: &'a Register,
    voice: Voice,
    config: Config,
    profile: Profile,
    catalog: CatalogClient,
    stores: OurStores,
}

impl<'a> Desk<'a> {
    fn open(args: &'a Register, config: Config, voice: Voice) -> Result<Self, Failure> {
        let catalog = args.catalog.open_beside(config.catalog.as_deref())?;
        let session = Arc::new(Session::open(&args.stores)?);
        let secret = secret::secret(&session, &config.secret)?;
        let profile = Profile::new(config.deid.clone(), &secret);
        let keys = Keys::lasting(Arc::clone(&session), voice);
        Ok(Self {
            args,
            voice,
            config,
            profile,
            catalog,
            stores: OurStores { session, keys },
        })
    }

    /// The headers of all that is meant; each image once.
    fn find(&self, selection: &Selection) -> Result<Vec<Told>, Failure> {
        let mut all = Vec::new();
        let mut wanteds: Vec<Wanted> = Vec::new();
        for what in &selection.what {
            let path = Path::new(what);
            if path.exists() {
                let files = headers::files(path).map_err(|error| {
                    let text = format!("cannot read `{}`", path.display());
                    Failure::new(Code::Io, Because::new(text, error))
                })?;
                all.extend(files.iter().map(|file| headers::of_file(file, &self.profile)));
            } else {
                wanteds.push(wanted(what)?);
            }
        }
        let query = selection.query.as_deref().map(Query::parse).transpose();
        let query = query.map_err(|error| usage_error(format!("--query: {error}")))?;
        if query.is_some() || !wanteds.is_empty() {
            let source = Source::open(&self.config.pacs)?;
            for wanted in &wanteds {
                all.extend(headers::of_pacs(&source, &self.profile, wanted)?);
                self.bounded(&all)?;
            }
            if let Some(query) = &query {
                let (studies, unfit) = query.studies(&source, self.args.most)?;
                if unfit > 0 {
                    self.voice.warning(&format!(
                        "{} answered with {unfit} other studies, which do not fit the query and are left out",
                        source.peer()
                    ));
                }
                for wanted in studies {
                    let told = headers::of_pacs(&source, &self.profile, &wanted)?;
                    let is_meant = |one: &Told| one.halves.as_ref().map_or(true, |halves| query.means(halves));
                    all.extend(told.into_iter().filter(is_meant));
                    self.bounded(&all)?;
                }
            }
        }
        let mut seen = BTreeSet::new();
        all.retain(|one| one.ids.as_ref().is_none_or(|ids| seen.insert(ids.instance.clone())));
        if all.is_empty() {
            let text = "there is nothing of what was asked for";
            return Err(Failure::new(Code::Io, text).advise("the identifiers, and whether the PACS shows us them"));
        }
        Ok(all)
    }

    fn bounded(&self, all: &[Told]) -> Result<(), Failure> {
        if all.len() <= self.args.most {
            return Ok(());
        }
        let text = format!("more than {} were found", counted(self.args.most, "image"));
        Err(Failure::new(Code::Usage, text).advise("fewer at once, or --most N"))
    }

    fn register(
        &self,
        id: &str,
        selection: &Selection,
        told: Vec<Told>,
        into: &LogicalName,
        schema: &BTreeSet<String>,
        (catalogued, registry): (&Catalogued, &LocalRegistry),
    ) -> Result<(), Failure> {
        let which: Vec<String> = told.iter().map(|one| which(one, &self.profile)).collect();
        let (mut planned, mut numbers, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (number, one) in (1..).zip(told) {
            let one = one.halves.and_then(|halves| {
                let ids = one.ids.ok_or_else(|| "it has no identifiers".to_owned())?;
                let names = (&self.config.names, self.config.key_per);
                let instance = Instance::named(ids, one.class, &self.profile, names.0, names.1);
                let entry = self.entry(id, &instance, halves, into, schema)?;
                Ok(Planned { instance, entry })
            });
            match one {
                Ok(one) => {
                    planned.push(one);
                    numbers.push(number);
                }
                Err(why) => failed.push((number, why)),
            }
        }
        let mut summary = Summary::default();
        if !planned.is_empty() {
            catalogued
                .begin(id, &selection.text(), into.as_str())
                .map_err(database_failure)?;
            let bars = Bars::new(self.args.manners.verbosity.quiet || self.args.manners.json);
            let progress = |name: &str, done: usize, of: usize| bars.set(name, done, of);
            let steps = Steps {
                names: &self.catalog,
                keys: &self.stores,
                registry,
                catalogued,
                progress: &progress,
                take_back: &|| Ok(()),
            };
            let what = format!("images into {into}");
            let _told = tell_on_signal(id);
            let registered = steps.register(id, &what, &planned);
            drop(bars);
            summary = registered.map_err(|failure| advised(failure, catalogued, id))?;
            failed.extend(
                summary
                    .failed
                    .iter()
                    .map(|(number, why)| (numbers[*number], why.clone())),
            );
        }
        self.tell(&summary, &planned, failed, &which)
    }

    fn entry(
        &self,
        id: &str,
        instance: &Instance,
        halves: Halves,
        into: &LogicalName,
        schema: &BTreeSet<String>,
    ) -> Result<NewEntry, String> {
        let new = &instance.new;
        let path = into
            .join(&new.study)
            .and_then(|path| path.join(&new.series))
            .and_then(|path| path.join(&new.instance))
            .map_err(|error| error.to_string())?;
        let attributes: Attributes = halves
            .into_attributes()
            .into_iter()
            .filter(|(name, _)| schema.contains(name))
            .collect();
        let mut replicas = vec![self.replica(instance)];
        replicas.extend(self.config.doors.iter().map(|door| at_door(door, &instance.name)));
        Ok(NewEntry {
            path,
            kind: Kind::File,
            parents: true,
            guid: None,
            operation: Some(id.to_owned()),
            size: None,
            adler32: None,
            sha256: None,
            key_id: Some(instance.key_id.clone()),
            status: Some(Status::Nearline),
            replicas,
            attributes,
        })
    }

    /// Where the PACS has it.
    fn replica(&self, instance: &Instance) -> String {
        let place = match (&self.config.pacs.dimse, &self.config.pacs.web) {
            (Some(dimse), _) => format!("{}@{}:{}", dimse.called, dimse.host, dimse.port),
            (None, Some(web)) => {
                let rest = web.url.split_once("://").map_or(web.url.as_str(), |(_, rest)| rest);
                rest.split('/').next().unwrap_or_default().to_owned()
            }
            (None, None) => "pacs".to_owned(),
        };
        let ids = &instance.original;
        format!("dicom://{place}/{}/{}/{}", ids.study, ids.series, ids.instance)
    }

    fn tell(
        &self,
        summary: &Summary,
        planned: &[Planned],
        mut failed: Vec<(usize, String)>,
        which: &[String],
    ) -> Result<(), Failure> {
        let voice = self.voice;
        let all = which.len();
        failed.sort();
        let bad: BTreeSet<usize> = summary.failed.iter().map(|(number, _)| *number).collect();
        for (number, one) in planned.iter().enumerate() {
            if !bad.contains(&number) {
                let (path, key_id) = (&one.entry.path, &one.instance.key_id);
                voice.json(
                    &json!({ "state": "registered", "path": path, "name": one.instance.name, "key_id": key_id }),
                )?;
            }
        }
        for (number, why) in &failed {
            let which = &which[number - 1];
            voice.warning(&format!("image {number} of {all} was not registered: {which}: {why}"));
            voice.json(&json!({ "state": "failed", "number": number, "image": which, "error": why }))?;
        }
        voice.result(&format!(
            "registered {} under {}, {} already registered",
            counted(summary.new, "image"),
            counted(summary.keys, "new key"),
            summary.known
        ))?;
        for other in &summary.open_elsewhere {
            voice.warning(&format!(
                "some of them belong to registration {other}, which is not at its end"
            ));
            voice.note(&format!("  try: mdm-register --resume {other}"));
        }
        if failed.is_empty() {
            voice.hint("find them with: mdm-find DIR QUERY");
            return Ok(());
        }
        let text = format!("{} of {} not registered", failed.len(), counted(all, "image"));
        Err(Failure::new(Code::Failed, text))
    }

    fn undo(&self, known: &Registration, catalogued: &Catalogued, registry: &LocalRegistry) -> Result<(), Failure> {
        let sealing = Selection::of(&known.what).ok().and_then(|selection| selection.seal);
        let steps = Steps {
            names: &self.catalog,
            keys: &self.stores,
            registry,
            catalogued,
            progress: &|_, _, _| {},
            take_back: &|| sealing.as_ref().map_or(Ok(()), |sealing| self.take_away(sealing)),
        };
        let taken = steps.undo(&known.id)?;
        self.voice.result(&format!(
            "undone: took back {} and {}",
            counted(taken.names, "name"),
            counted(taken.keys, "key")
        ))?;
        self.voice
            .json(&json!({ "id": known.id, "names": taken.names, "keys": taken.keys }))
    }

    /// The entry at a path, where one is there that is shown.
    fn shown(&self, path: &str) -> Result<Option<Entry>, Failure> {
        match self.catalog.show_one(path) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.kind() == Some(ProblemKind::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn remote(&self) -> Result<Remote, Failure> {
        Ok(Remote::open(&overrides(&self.args.stores), self.args.patience.idle())?)
    }

    /// Removes a file that a registration put somewhere, unless something was there before; and its URL from an entry
    /// that was there before, for what is its own goes with it.
    fn take_away(&self, sealing: &Sealing) -> Result<(), Failure> {
        if !sealing.was_free {
            return Ok(());
        }
        let url = storage_url(&sealing.url)?;
        let shown = self.shown(&sealing.path)?;
        if shown.is_some_and(|entry| entry.replicas.contains(&sealing.url)) {
            self.catalog.change_one(&Change {
                path: sealing.path.clone(),
                remove_replicas: vec![sealing.url.clone()],
                status: sealing.was_nearline.then_some(Status::Nearline),
                ..Change::default()
            })?;
        }
        let remote = self.remote()?;
        let removed = remote.session.wait(async {
            match held(&remote, &url, &sealing.key_id).await? {
                Held::Nothing => Ok(true),
                Held::Ours => remote.storage.remove(&url).await.map(|()| true),
                Held::Another => Ok(false),
            }
        });
        match removed {
            Ok(true) | Err(StorageError::NotFound { .. }) => Ok(()),
            Ok(false) => {
                let text = format!("what is at `{url}` is not sealed under this registration's key: it stays");
                self.voice.warning(&text);
                Ok(())
            }
            Err(error) => {
                let text = format!("the sealed file is left at `{url}`");
                let failure = failed(error);
                let error = Because::new(text, failure.error);
                Err(Failure::new(failure.code, error).advise("the same command again"))
            }
        }
    }

    /// Seals a file and puts it somewhere now. The entry is there before the bytes are, so that they can be found.
    fn seal(
        &self,
        id: &str,
        mut sealing: Sealing,
        into: &LogicalName,
        schema: &BTreeSet<String>,
        (catalogued, registry): (&Catalogued, &LocalRegistry),
    ) -> Result<(), Failure> {
        let url = storage_url(&sealing.url)?;
        let file = PathBuf::from(&sealing.file);
        let told = headers::of_file(&file, &self.profile);
        let refused = |why: String| Failure::new(Code::Damaged, format!("`{}`: {why}", file.display()));
        let halves = told.halves.map_err(refused)?;
        let ids = told.ids.ok_or_else(|| refused("it has no identifiers".to_owned()))?;
        let instance = Instance::named(ids, told.class, &self.profile, &self.config.names, self.config.key_per);
        let mut entry = self.entry(id, &instance, halves, into, schema).map_err(refused)?;
        entry.replicas.clear();
        let (name, path) = (instance.name.clone(), entry.path.to_string());
        let planned = Planned { instance, entry };
        planned.instance.key_id.clone_into(&mut sealing.key_id);
        if self.args.resume.is_none() {
            self.look_before(&mut sealing, &url, &path)?;
        }
        let selection = Selection {
            seal: Some(sealing.clone()),
            ..Selection::default()
        };
        catalogued
            .begin(id, &selection.text(), into.as_str())
            .map_err(database_failure)?;
        let steps = Steps {
            names: &self.catalog,
            keys: &self.stores,
            registry,
            catalogued,
            progress: &|_, _, _| {},
            take_back: &|| self.take_away(&sealing),
        };
        let _told = tell_on_signal(id);
        let made = (|| {
            let begun = steps.begin_one(id, &planned)?;
            let done = self.put(&planned.instance.key_id, &name, &planned.instance.new, &file, &url)?;
            self.catalog.change_one(&Change {
                path: path.clone(),
                size: Some(done.size),
                adler32: Some(done.adler32),
                sha256: Some(done.sha256),
                status: Some(Status::Online),
                add_replicas: vec![url.to_string()],
                ..Change::default()
            })?;
            steps.commit(id)?;
            Ok(begun)
        })();
        let is_new: bool = made.map_err(|failure: Failure| advised(failure, catalogued, id))?;
        self.voice
            .json(&json!({ "state": "registered", "path": path, "url": url.to_string() }))?;
        let word = if is_new { "registered" } else { "sealed anew" };
        self.voice.result(&format!("{word} {path}, at {url}"))
    }

    /// What is to be known of the places of a file before anything is done, so that it can be taken back. Only what an
    /// earlier registration put there is replaced.
    fn look_before(&self, sealing: &mut Sealing, url: &StorageUrl, path: &str) -> Result<(), Failure> {
        sealing.url = url.to_string();
        path.clone_into(&mut sealing.path);
        let known = self.shown(path)?;
        let is_ours = known
            .as_ref()
            .is_some_and(|entry| entry.replicas.contains(&sealing.url));
        sealing.was_free = !is_ours;
        sealing.was_nearline = known.is_some_and(|entry| entry.status == Some(Status::Nearline));
        if !is_ours {
            let remote = self.remote()?;
            let free = remote.session.wait(remote.storage.look(url, false));
            free.map_err(not_there)?;
        }
        Ok(())
    }

    fn put(
        &self,
        key_id: &str,
        name: &str,
        new: &dicom_recall::names::Ids,
        file: &Path,
        url: &StorageUrl,
    ) -> Result<Put, Failure> {
        let bytes = std::fs::read(file).map(zeroize::Zeroizing::new);
        let bytes = bytes.map_err(|error| {
            let text = format!("cannot read `{}`", file.display());
            Failure::new(Code::Io, Because::new(text, error))
        })?;
        let key = self.stores.keys.key(key_id)?;
        let target = Target {
            name: name.to_owned(),
            new: new.clone(),
        };
        let mut sealed = Vec::new();
        let mut plain = pipeline::Wiping(zeroize::Zeroizing::default());
        pipeline::whole(&self.profile, &key, &target, &bytes, &mut sealed, &mut plain)
            .map_err(|error| Failure::new(error.code(), error))?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sealed);
        let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let size = sealed.len() as u64;
        let remote = self.remote()?;
        let stored = remote.session.wait(async {
            // reproducible: what an earlier run put there is the same
            let before = match held(&remote, url, key_id).await.map_err(failed)? {
                Held::Nothing => Before::Absent,
                Held::Ours => Before::There,
                Held::Another => return Err(not_there(StorageError::Exists { url: url.to_string() })),
            };
            let options = PutOptions {
                overwrite: before == Before::There,
                bytes: Some(size),
                stop: None,
            };
            let source = Box::new(Cursor::new(sealed));
            let put = remote.storage.put(url, source, &options, before).await;
            put.map_err(|error| failed(error.error))
        })?;
        Ok(Put {
            size,
            adler32: format!("{:08x}", stored.adler32),
            sha256,
        })
    }
}

/// What is at a place of a file.
enum Held {
    Nothing,
    /// Sealed under the key.
    Ours,
    Another,
}

/// Why a file cannot be put somewhere; nothing is ever replaced but what this registration put there.
fn not_there(error: StorageError) -> Failure {
    match error {
        StorageError::Exists { .. } => Failure::new(Code::CannotCreate, error).advise("another URL"),
        other => failed(other),
    }
}

/// What one is called where it is told: by its file, or by its new identifiers. The original ones name a patient.
fn which(told: &Told, profile: &Profile) -> String {
    match (&told.file, &told.ids) {
        (Some(file), _) => format!("`{}`", file.display()),
        (None, Some(ids)) => {
            let [study, series, instance] = [&ids.study, &ids.series, &ids.instance].map(|uid| profile.uid(uid));
            format!("{study}/{series}/{instance}, as it is called de-identified")
        }
        (None, None) => "it has no identifiers".to_owned(),
    }
}

/// While this is held, whoever ends the command is told that a registration is open.
fn tell_on_signal(id: &str) -> Option<OnSignal> {
    let id = id.to_owned();
    let tell = move || {
        warn(&format!("registration {id} is not at its end"));
        hydra_cli::output::tell(&format!("  try: mdm-register --resume {id}, or --undo {id}"));
    };
    on_signal(tell).ok()
}

async fn held(remote: &Remote, url: &StorageUrl, key_id: &str) -> Result<Held, StorageError> {
    let mut download = match remote.storage.get(url, 0).await {
        Ok(download) => download,
        Err(StorageError::NotFound { .. }) => return Ok(Held::Nothing),
        Err(error) => return Err(error),
    };
    let mut start = Vec::new();
    while start.len() < HEADER {
        let Some(bytes) = download.chunk().await? else { break };
        start.extend_from_slice(&bytes);
    }
    start.truncate(HEADER);
    let header = Header::decode(&start).ok();
    let is_ours = header
        .and_then(|header| header.key_id)
        .is_some_and(|held| held.as_str() == key_id);
    Ok(if is_ours { Held::Ours } else { Held::Another })
}

struct Put {
    size: u64,
    adler32: String,
    sha256: String,
}

/// The URL of a file at a door of the storage element.
pub(crate) fn at_door(door: &str, name: &str) -> String {
    let door = door.trim_end_matches('/');
    // behind the host of `root:` comes a path that itself begins with a slash
    let between = if door.starts_with("root:") { "/" } else { "" };
    format!("{door}{between}{name}")
}

/// Bars of progress, one for each step.
struct Bars {
    is_silent: bool,
    bars: Mutex<BTreeMap<String, Progress>>,
}

impl Bars {
    fn new(is_silent: bool) -> Self {
        Self {
            is_silent,
            bars: Mutex::default(),
        }
    }

    fn set(&self, name: &str, done: usize, of: usize) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars
            .entry(name.to_owned())
            .or_insert_with(|| Progress::count(name, of as u64, self.is_silent));
        bar.set(done as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_selected_reads_back() {
        let selection = Selection {
            what: vec!["1.2/1.3".to_owned()],
            query: Some("PatientID=\"x\"".to_owned()),
            seal: None,
            key_per: Some(KeyPer::Instance),
        };
        let again = Selection::of(&selection.text()).unwrap();
        assert_eq!(
            (again.what, again.query, again.seal, again.key_per),
            (selection.what, selection.query, None, Some(KeyPer::Instance))
        );
        let seal = Some(Sealing {
            file: "a b".to_owned(),
            url: "https://h/x".to_owned(),
            path: "/myvo/x".to_owned(),
            key_id: "/eds/x".to_owned(),
            was_free: true,
            was_nearline: false,
        });
        let selection = Selection {
            seal: seal.clone(),
            ..Selection::default()
        };
        assert_eq!(Selection::of(&selection.text()).unwrap().seal, seal);
        assert!(Selection::of("no json").is_err());
    }

    #[test]
    fn doors_and_names_make_urls() {
        let name = "/eds/1/2/3.dcm.eds";
        assert_eq!(at_door("root://se:1094/", name), "root://se:1094//eds/1/2/3.dcm.eds");
        assert_eq!(
            at_door("https://se/webdav", name),
            "https://se/webdav/eds/1/2/3.dcm.eds"
        );
    }
}
