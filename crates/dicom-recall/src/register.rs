//! `dicom-recall register`: gives names and keys to what lies in the PACS, so that it can be asked for. Nothing is
//! copied.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dicom_deid::Profile;
use dicom_net::{Found, Query, QueryError, Uid, Wanted};
use eds::args::{Manners, Stores};
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::output::counted;
use hydra_cli::{Code, Failure};
use mdm_catalog::config::DatabaseSource;
use serde_json::json;

use crate::CONFIG;
use crate::config::Config;
use crate::database::{Database, DatabaseError};
use crate::destination::{Expected, Nowhere};
use crate::engine::{Item, Recall, Series, Settled, Teller, Tools, Waiting, worse};
use crate::errors::chain;
use crate::keys::Keys;
use crate::ledger::{database_failure, open_or_make};
use crate::names::{Ids, KeyPer, Template};
use crate::now::{config_failure, nothing_found, wanted};
use crate::pipeline::Target;
use crate::registry::{Added, Instance, LocalRegistry, Registry, Which};
use crate::secret;
use crate::source::{Source, SourceError};

/// Keys that are registered side by side.
const KEYS_AT_ONCE: usize = 4;
/// The longest file with a query.
const LONGEST_QUERY: u64 = 64 * 1024;
/// What to do where more fits than was meant.
pub(crate) const NARROWER: &str = "a query that fits less, --dry-run to see how much it is, or --most N";

/// `dicom-recall register`.
#[derive(Debug, clap::Args)]
pub struct Register {
    /// What to register, by the PACS's own identifiers: STUDY, STUDY/SERIES or STUDY/SERIES/INSTANCE
    #[arg(value_name = "STUDY[/SERIES[/INSTANCE]]", required_unless_present_any = ["query", "query_file"])]
    pub what: Vec<String>,
    /// Register every study that fits, for example StudyDate=20200101-20201231,ModalitiesInStudy=MR; may be repeated
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub query: Vec<String>,
    /// The same from a file, one KEY=VALUE a line, so that no patient is named on the command line; - is standard input
    #[arg(long, value_name = "FILE")]
    pub query_file: Option<PathBuf>,
    /// With a query: refuse where more instances fit
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub most: usize,
    /// Say how much it would be, and register nothing
    #[arg(long, conflicts_with = "exact_size")]
    pub dry_run: bool,
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    /// Register a key for each series or for each instance [default: as configured]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub key_per: Option<KeyPer>,
    /// Fetch, de-identify and seal once without keeping anything, to know size and digest beforehand
    #[arg(long)]
    pub exact_size: bool,
    /// How often to ask the PACS for what did not come, with --exact-size
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// What a registration needs beside its arguments.
struct Desk<'a> {
    voice: Voice,
    config: &'a Config,
    profile: &'a Profile,
    source: &'a Source,
    registry: &'a dyn Registry,
}

/// `dicom-recall register`.
///
/// # Errors
/// What was in the way; what was registered until then stays so.
pub fn register(args: &Register) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let wanted: Vec<Wanted> = args.what.iter().map(|what| wanted(what)).collect::<Result<_, _>>()?;
    let queries = queries(args)?;
    let config = config_with(args)?;
    let source = Source::open(&config.pacs)?;
    let meant = Meant {
        voice,
        source: &source,
        most: args.most,
    };
    // nothing is made for what cannot be found
    let found = meant.find(&wanted, &queries)?;
    if args.dry_run {
        return dry_run(voice, &config, &found);
    }
    let database = open_or_make(&config)?;
    let registry = LocalRegistry::new(Arc::clone(&database));
    let session = Arc::new(Session::open(&args.stores)?);
    let secret = secret::secret(&session, &config.secret)?;
    let profile = Profile::new(config.deid.clone(), &secret);
    drop(secret);
    let desk = Desk {
        voice,
        config: &config,
        profile: &profile,
        source: &source,
        registry: &registry,
    };
    let named = found.iter().map(|(study, found)| desk.named(study, found));
    let instances: BTreeMap<String, Instance> = named.map(|one| (one.name.clone(), one)).collect();
    let instances: Vec<Instance> = instances.into_values().collect();
    let keys = Keys::lasting(Arc::clone(&session), voice);
    let new_keys = desk.keys(&keys, &instances)?;
    let entered = desk.enter(&instances, new_keys);
    if args.exact_size {
        let names: Vec<String> = instances.into_iter().map(|one| one.name).collect();
        desk.measure(&keys, &names, args.attempts)?;
    }
    entered
}

/// Studies may be looked for by what names a patient, which other users must not see in a list of processes.
fn queries(args: &Register) -> Result<Vec<Query>, Failure> {
    let usage = |error: QueryError| hydra_cli::command::usage_error(format!("the query cannot be used: {error}"));
    let parsed = args.query.iter().map(|text| Query::parse(text).map_err(usage));
    let mut queries: Vec<Query> = parsed.collect::<Result<_, _>>()?;
    if let Some(path) = &args.query_file {
        let file: Box<dyn Read> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdin()),
            false => Box::new(File::open(path).map_err(|error| unread(path, error))?),
        };
        let mut text = String::new();
        let read = file.take(LONGEST_QUERY).read_to_string(&mut text);
        read.map_err(|error| unread(path, error))?;
        queries.push(Query::parse_lines(&text).map_err(usage)?);
    }
    Ok(queries)
}

fn unread(path: &Path, error: std::io::Error) -> Failure {
    let text = format!("cannot read the query in `{}`", path.display());
    Failure::new(Code::Io, eds::failure::Because::new(text, error))
}

/// What the PACS has, by study.
type FoundAll = BTreeSet<(Uid, Found)>;

/// Finds what is meant.
struct Meant<'a> {
    voice: Voice,
    source: &'a Source,
    most: usize,
}

impl Meant<'_> {
    fn find(&self, wanted: &[Wanted], queries: &[Query]) -> Result<FoundAll, Failure> {
        let mut all = FoundAll::new();
        for wanted in wanted {
            let found = self.source.find(wanted)?;
            if found.is_empty() {
                return Err(nothing_found(self.source));
            }
            all.extend(found.into_iter().map(|found| (wanted.study.clone(), found)));
        }
        for query in queries {
            self.of_query(query, &mut all)?;
        }
        Ok(all)
    }

    fn of_query(&self, query: &Query, all: &mut FoundAll) -> Result<(), Failure> {
        let found = self.source.studies_that_fit(query, self.most)?;
        if found.unfit > 0 {
            self.voice.warning(&format!(
                "{} answered with {} other studies, which do not fit the query and are left out",
                self.source.peer(),
                found.unfit
            ));
        }
        let mut count = 0;
        for study in found.studies {
            let wanted = Wanted {
                study,
                series: None,
                instances: Vec::new(),
            };
            let found = self.source.find(&wanted)?;
            count += found.len();
            if count > self.most {
                let text = format!("more than {} instances fit the query", self.most);
                return Err(Failure::new(Code::Usage, text).advise(NARROWER));
            }
            all.extend(found.into_iter().map(|found| (wanted.study.clone(), found)));
        }
        if count == 0 {
            let text = format!("{} has nothing that fits the query", self.source.peer());
            return Err(Failure::new(Code::Io, text).advise("the query, and whether the PACS lets our title see it"));
        }
        Ok(())
    }
}

/// Says how much would be registered. Neither stores nor secret are needed, and nothing is made.
fn dry_run(voice: Voice, config: &Config, found: &FoundAll) -> Result<(), Failure> {
    let studies: BTreeSet<&Uid> = found.iter().map(|(study, _)| study).collect();
    let series: BTreeSet<(&Uid, &Uid)> = found.iter().map(|(study, found)| (study, &found.series)).collect();
    let mut known = 0;
    let made = |source: &&DatabaseSource| source.file().is_none_or(Path::exists);
    if let Some(source) = config.database.as_ref().filter(made) {
        let registry = LocalRegistry::new(Arc::new(Database::open(source).map_err(database_failure)?));
        for study in &studies {
            let which = Which::Original {
                study: study.as_str(),
                series: None,
                instance: None,
            };
            let registered = registry.find(&which).map_err(database_failure)?;
            let registered: BTreeSet<String> = registered.into_iter().map(|one| one.original.instance).collect();
            let of_study = found.iter().filter(|(of, _)| of == *study);
            known += of_study
                .filter(|(_, found)| registered.contains(found.instance.as_str()))
                .count();
        }
    }
    voice.json(&json!({
        "state": "dry-run",
        "studies": studies.len(),
        "series": series.len(),
        "instances": found.len(),
        "known": known,
    }))?;
    voice.result(&format!(
        "would register {} of {} series in {} studies, {known} already registered",
        counted(found.len() - known, "instance"),
        series.len(),
        studies.len()
    ))
}

fn config_with(args: &Register) -> Result<Config, Failure> {
    let mut config = Config::read(&args.config).map_err(config_failure)?;
    if let Some(key_per) = args.key_per {
        config.names = Template::parse(&config.name_text, key_per)
            .map_err(|error| Failure::new(Code::Usage, error).advise("`name` under [seal] in the configuration"))?;
        config.key_per = key_per;
    }
    Ok(config)
}

impl Desk<'_> {
    fn named(&self, study: &Uid, found: &Found) -> Instance {
        let original = Ids {
            study: study.to_string(),
            series: found.series.to_string(),
            instance: found.instance.to_string(),
        };
        let class = found.class.as_ref().map(ToString::to_string);
        Instance::named(original, class, self.profile, &self.config.names, self.config.key_per)
    }

    /// Has a key for each that can be registered; answers how many there were none before.
    fn keys(&self, keys: &Keys, instances: &[Instance]) -> Result<usize, Failure> {
        let all: Vec<String> = instances.iter().map(|one| one.name.clone()).collect();
        let known = self.registry.find(&Which::Names(&all)).map_err(database_failure)?;
        let known: BTreeMap<&str, &Instance> = known.iter().map(|one| (one.name.as_str(), one)).collect();
        // no key is made for a name that is taken
        let is_free = |one: &&Instance| known.get(one.name.as_str()).is_none_or(|known| known.is_same(one));
        let names: BTreeSet<&str> = instances
            .iter()
            .filter(is_free)
            .map(|one| one.key_id.as_str())
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let (next, new) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failed: Mutex<Option<Failure>> = Mutex::new(None);
        let work = || {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                match keys.ensure(name) {
                    Ok(is_new) => {
                        new.fetch_add(usize::from(is_new), Ordering::Relaxed);
                    }
                    Err(failure) => {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(failure);
                        next.store(names.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..KEYS_AT_ONCE.min(names.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(new.into_inner()),
        }
    }

    /// Finds out how long the files of these are, and their digests, where that is not known.
    fn measure(&self, keys: &Keys, names: &[String], attempts: u32) -> Result<(), Failure> {
        let registered = self.registry.find(&Which::Names(names)).map_err(database_failure)?;
        let mut studies: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
        for one in registered.into_iter().filter(|one| one.sha256.is_none()) {
            studies.entry(one.original.study.clone()).or_default().push(one);
        }
        let all: usize = studies.values().map(Vec::len).sum();
        let (waiting, cancel, nowhere) = (Waiting::default(), AtomicBool::new(false), Nowhere::new());
        let tools = Tools {
            profile: self.profile,
            keys,
            destination: &nowhere,
            waiting: &waiting,
            cancel: &cancel,
        };
        let mut measured = 0;
        let mut worst = None;
        for (study, instances) in &studies {
            let Ok(study) = Uid::new(study) else { continue };
            let told = Measured {
                desk: self,
                names: instances.iter().map(|one| one.name.clone()).collect(),
                count: Mutex::default(),
            };
            let (items, series) = orders(self.registry, instances).map_err(database_failure)?;
            let recall = Recall::new(tools, &told, items);
            let ran = recall.run(self.source, &study, &series, attempts);
            drop(recall);
            let (count, code) = told.count.into_inner().unwrap_or_else(PoisonError::into_inner);
            measured += count;
            worst = code.map_or(worst, |code| Some(worse(worst, code)));
            ran?;
        }
        self.voice
            .result(&format!("measured {measured} of {}", counted(all, "file")))?;
        match worst {
            Some(code) => {
                let text = format!("{} of {} not measured", all - measured, counted(all, "file"));
                Err(Failure::new(code, text).advise("the same command again: it goes on"))
            }
            None => Ok(()),
        }
    }

    /// Enters them into the registry.
    fn enter(&self, instances: &[Instance], new_keys: usize) -> Result<(), Failure> {
        let added = self.registry.add(instances).map_err(database_failure)?;
        let mut taken = 0;
        for (instance, added) in instances.iter().zip(&added) {
            let state = match added {
                Added::New => "new",
                Added::Known => "known",
                Added::Taken => {
                    taken += 1;
                    self.voice.warning(&format!(
                        "`{}` is registered already, for another instance or under another key",
                        instance.name
                    ));
                    "taken"
                }
            };
            self.voice.json(&json!({
                "state": state,
                "name": instance.name,
                "key_id": instance.key_id,
                "size": instance.size,
                "sha256": instance.sha256,
            }))?;
        }
        let new = added.iter().filter(|added| **added == Added::New).count();
        let known = added.len() - new - taken;
        self.voice.result(&format!(
            "registered {} and {}, {known} already registered",
            counted(new, "instance"),
            counted(new_keys, "key")
        ))?;
        if taken > 0 {
            let text = format!("{taken} of {} not registered", counted(added.len(), "instance"));
            return Err(
                Failure::new(Code::CannotCreate, text).advise("dicom-recall unregister, or another `seal.name`")
            );
        }
        self.voice.hint("ask for them with: dicom-recall request STUDY");
        Ok(())
    }
}

/// What to recall of registered instances of one study, by series.
///
/// # Errors
/// [`DatabaseError`]
pub(crate) fn orders(
    registry: &dyn Registry,
    instances: &[Instance],
) -> Result<(Vec<Item>, Vec<Series>), DatabaseError> {
    let mut items = Vec::new();
    let mut by_series: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (instance, item) in instances.iter().filter_map(|one| Some((one, item_of(one)?))) {
        by_series
            .entry(&instance.original.series)
            .or_default()
            .push(items.len());
        items.push(item);
    }
    let study = instances.first().map_or("", |one| one.original.study.as_str());
    let mut series = Vec::new();
    for (name, items) in by_series {
        let Ok(uid) = Uid::new(name) else { continue };
        series.push(Series {
            series: uid,
            is_whole: registry.count(study, name)? == items.len() as u64,
            items,
        });
    }
    Ok((items, series))
}

/// What a registered instance is to become, if its identifiers are some.
pub(crate) fn item_of(instance: &Instance) -> Option<Item> {
    Some(Item {
        instance: Uid::new(&instance.original.instance).ok()?,
        class: instance.class.as_deref().and_then(|class| Uid::new(class).ok()),
        key: instance.key_id.clone(),
        target: Target {
            name: instance.name.clone(),
            new: instance.new.clone(),
        },
        expected: Expected {
            size: instance.size,
            sha256: instance.sha256.clone(),
        },
    })
}

/// Records what files are.
struct Measured<'a> {
    desk: &'a Desk<'a>,
    names: Vec<String>,
    /// How many, and what went wrong with others.
    count: Mutex<(usize, Option<Code>)>,
}

impl Teller for Measured<'_> {
    fn settled(&self, done: Vec<Settled>) -> Result<(), Failure> {
        let mut files = Vec::new();
        let mut worst = None;
        for (number, result) in done {
            let name = &self.names[number];
            match result {
                Ok(done) => files.push((name.clone(), done.file_bytes, done.sha256.unwrap_or_default())),
                Err(error) => {
                    worst = Some(worse(worst, error.code()));
                    self.desk.voice.warning(&format!("`{name}`: {}", chain(&error)));
                }
            }
        }
        self.desk.registry.record(&files).map_err(database_failure)?;
        for (name, size, sha256) in &files {
            let state = "measured";
            let line = json!({ "state": state, "name": name, "size": size, "sha256": sha256 });
            self.desk.voice.json(&line)?;
        }
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.0 += files.len();
        count.1 = worst.map_or(count.1, |code| Some(worse(count.1, code)));
        Ok(())
    }

    fn strange(&self, count: usize) {
        self.desk.voice.warning(&format!(
            "the PACS sent {count} instances that nobody asked for; they were refused"
        ));
    }

    fn again(&self, error: &SourceError) {
        self.desk.voice.warning(&format!("{error}, asking again"));
    }

    fn broke(&self, error: SourceError) {
        let failure = Failure::from(error);
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.1 = Some(worse(count.1, failure.code));
        drop(count);
        let _ = hydra_cli::exit(Err(failure));
    }
}
