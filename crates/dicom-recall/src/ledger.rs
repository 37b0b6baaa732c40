//! The commands that look into the registry and the queue, and ask for things: `ls`, `stat`, `request`, `requests`,
//! `cancel`, `retry`, `unregister`. They open the database beside a daemon, which notices within half a second.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eds::args::Manners;
use eds::session::timestamp;
use eds::voice::Voice;
use hydra_cli::output::counted;
use hydra_cli::{Code, Failure};
use mdm_catalog::config::DatabaseSource;
use mdm_catalog::database as kit;
use serde_json::{Value, json};

use crate::CONFIG;
use crate::config::{Config, Place};
use crate::database::{Database, DatabaseError};
use crate::destination::Folder;
use crate::evict;
use crate::line::Reason;
use crate::now::{config_failure, wanted};
use crate::queue::{Asked, Queue, Request as Asking, State};
use crate::receive::{ReceiveConfig, Then};
use crate::registry::{Instance, LocalRegistry, Registry, Which};
use crate::se;

/// How often somebody who waits looks.
const LOOK: Duration = Duration::from_millis(100);
/// How many names are listed at once.
const PAGE: usize = 1000;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct Configured {
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
}

/// At a storage element, the agent beside it is asked instead.
#[derive(Debug, clap::Args)]
pub struct AtAgent {
    /// Ask the agent beside a storage element, at its socket, and not the registry
    #[arg(long, value_name = "SOCKET")]
    pub agent: Option<PathBuf>,
}

/// `dicom-recall ls`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// What names begin with
    #[arg(default_value = "")]
    pub prefix: String,
    /// Say sizes, digests and whether they are on disk, too
    #[arg(short, long)]
    pub long: bool,
    /// Say the PACS's own identifiers, too: they must not leave the hospital
    #[arg(long)]
    pub original: bool,
    #[command(flatten)]
    pub at: AtAgent,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// `dicom-recall request`.
#[derive(Debug, clap::Args)]
pub struct Request {
    /// What to recall: names, or the PACS's own identifiers, STUDY[/SERIES[/INSTANCE]]
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,
    /// How urgent it is, from 0 to 3
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub priority: u8,
    /// Wait so many seconds for all of it to be in its place
    #[arg(short, long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// A state to look for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum StateName {
    Queued,
    Running,
    Waiting,
    Placed,
    Failed,
    Cancelled,
}

/// `dicom-recall requests`.
#[derive(Debug, clap::Args)]
pub struct Requests {
    /// Only those of this state; `failed` is the list of what was given up
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Option<StateName>,
    #[command(flatten)]
    pub at: AtAgent,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// What `cancel`, `retry` and `unregister` are about.
#[derive(Debug, clap::Args)]
pub struct Meant {
    /// Names, or the PACS's own identifiers, STUDY[/SERIES[/INSTANCE]]
    #[arg(value_name = "WHAT", required_unless_present = "all")]
    pub what: Vec<String>,
    /// All that can be meant: what is open for `cancel`, what failed for `retry`
    #[arg(long, conflicts_with = "what")]
    pub all: bool,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// `dicom-recall cancel`.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    #[command(flatten)]
    pub meant: Meant,
    #[command(flatten)]
    pub at: AtAgent,
}

/// `dicom-recall unregister`.
#[derive(Debug, clap::Args)]
pub struct Unregister {
    /// Names, or the PACS's own identifiers, STUDY[/SERIES[/INSTANCE]]
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// `dicom-recall evict`.
#[derive(Debug, clap::Args)]
pub struct TakeAway {
    /// Names, or the PACS's own identifiers, STUDY[/SERIES[/INSTANCE]]
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,
    #[command(flatten)]
    pub at: AtAgent,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// `dicom-recall stat`.
#[derive(Debug, clap::Args)]
pub struct Stat {
    /// Names, or the PACS's own identifiers, STUDY[/SERIES[/INSTANCE]]
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,
    /// Say the PACS's own identifiers, too: they must not leave the hospital
    #[arg(long)]
    pub original: bool,
    #[command(flatten)]
    pub at: AtAgent,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub manners: Manners,
}

/// A database that cannot be used, as a failure.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn database_failure(error: DatabaseError) -> Failure {
    let code = match &error {
        DatabaseError::Kit(error) | DatabaseError::Open { source: error, .. } => match error {
            kit::DatabaseError::NotOurs { .. } | kit::DatabaseError::Newer { .. } => Code::Config,
            _ => Code::Io,
        },
        DatabaseError::Row { .. } => Code::Io,
        DatabaseError::Random => Code::Failed,
        _ => Code::Config,
    };
    let is_missing = matches!(error, DatabaseError::Missing { .. });
    let failure = Failure::new(code, error);
    if is_missing {
        failure.advise("dicom-recall register")
    } else {
        failure
    }
}

fn configured_database(config: &Config) -> Result<&DatabaseSource, Failure> {
    config.database.as_ref().ok_or_else(|| {
        Failure::new(Code::Config, "no registry is configured")
            .advise("`database = \"/var/lib/eds/recall.db\"` under [registry] in the configuration")
    })
}

/// Opens the configured database, and makes it where there is none.
///
/// # Errors
/// Where none is configured, or it cannot be used.
pub fn open_or_make(config: &Config) -> Result<Arc<Database>, Failure> {
    let database = Database::open_or_make(configured_database(config)?).map_err(database_failure)?;
    Ok(Arc::new(database))
}

/// Registry and queue as the commands see them.
pub struct Ledger {
    /// The configuration.
    pub config: Config,
    /// What is registered.
    pub registry: LocalRegistry,
    /// What is asked for.
    pub queue: Queue,
    voice: Voice,
}

impl Ledger {
    /// Opens what is configured.
    ///
    /// # Errors
    /// Where nothing is, or it cannot be used.
    pub fn open(configured: &Configured, manners: &Manners) -> Result<Self, Failure> {
        let voice = Voice::new(manners);
        let config = Config::read(&configured.config).map_err(config_failure)?;
        let database = Database::open(configured_database(&config)?).map_err(database_failure)?;
        let database = Arc::new(database);
        Ok(Self {
            registry: LocalRegistry::new(Arc::clone(&database)),
            queue: Queue::new(database, config.rules),
            config,
            voice,
        })
    }

    /// The registered instances that are meant by names, or by original identifiers.
    ///
    /// # Errors
    /// Where something is not registered.
    pub fn meant(&self, what: &[String]) -> Result<Vec<Instance>, Failure> {
        let (mut meant, mut seen) = (Vec::new(), HashSet::new());
        for text in what {
            let found = if text.starts_with('/') {
                self.registry.find(&Which::Names(std::slice::from_ref(text)))
            } else {
                let wanted = wanted(text)?;
                let series = wanted.series.as_ref().map(ToString::to_string);
                let instance = wanted.instances.first().map(ToString::to_string);
                self.registry.find(&Which::Original {
                    study: wanted.study.as_str(),
                    series: series.as_deref(),
                    instance: instance.as_deref(),
                })
            };
            let found = found.map_err(database_failure)?;
            if found.is_empty() {
                let text = format!("nothing is registered as `{text}`");
                return Err(Failure::new(Code::NotAllowed, text).advise("dicom-recall ls"));
            }
            // each once, however often and by whatever it is meant
            meant.extend(found.into_iter().filter(|one| seen.insert(one.name.clone())));
        }
        Ok(meant)
    }

    fn names(&self, what: &[String]) -> Result<Vec<String>, Failure> {
        Ok(self.meant(what)?.into_iter().map(|one| one.name).collect())
    }
}

/// `dicom-recall ls`.
///
/// # Errors
/// Where the registry cannot be read.
pub fn list(args: &List) -> Result<(), Failure> {
    if let Some(socket) = &args.at.agent {
        refuse_original(args.original)?;
        return se::ls(socket, &args.prefix, args.long, Voice::new(&args.manners));
    }
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let mut after: Option<String> = None;
    loop {
        let which = Which::Prefix {
            prefix: &args.prefix,
            after: after.as_deref(),
            limit: PAGE,
        };
        let found = ledger.registry.find(&which).map_err(database_failure)?;
        for one in &found {
            ledger.voice.json(&instance_json(one, args.original))?;
            ledger.voice.result(&instance_line(one, args.long, args.original))?;
        }
        match found.last() {
            Some(last) if found.len() == PAGE => after = Some(last.name.clone()),
            _ => return Ok(()),
        }
    }
}

/// Whoever asks for what the agent does not know is told so.
fn refuse_original(original: bool) -> Result<(), Failure> {
    if original {
        return Err(hydra_cli::command::usage_error(
            "--original is for the hospital: an agent knows no identifiers of the PACS",
        ));
    }
    Ok(())
}

fn instance_json(one: &Instance, original: bool) -> Value {
    let mut json = json!({
        "name": one.name,
        "key_id": one.key_id,
        "size": one.size,
        "sha256": one.sha256,
        "profile": one.profile,
        "registered_at": one.registered_at,
        "on_disk": one.on_disk,
    });
    if original {
        json["original"] = json!({
            "study": one.original.study,
            "series": one.original.series,
            "instance": one.original.instance,
        });
    }
    json
}

fn instance_line(one: &Instance, long: bool, original: bool) -> String {
    let mut line = String::new();
    if long {
        let place = if one.on_disk { "disk" } else { "pacs" };
        let size = one.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let sha256 = one
            .sha256
            .as_deref()
            .map_or("-", |digest| &digest[..digest.len().min(16)]);
        line = format!("{place}  {size:>12}  {sha256:<16}  ");
    }
    line.push_str(&one.name);
    if original {
        let ids = &one.original;
        line.push_str(&format!("  {}/{}/{}", ids.study, ids.series, ids.instance));
    }
    line
}

/// `dicom-recall request`.
///
/// # Errors
/// Where something is not registered; with `--wait`, where not all of it came.
pub fn request(args: &Request) -> Result<(), Failure> {
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let names = ledger.names(&args.what)?;
    let asked = ledger
        .queue
        .ask_here(&names, args.priority, ledger.queue.now_ms())
        .map_err(database_failure)?;
    let new = asked.iter().filter(|asked| **asked == Asked::Queued).count();
    let Some(wait) = args.wait else {
        for (name, asked) in names.iter().zip(&asked) {
            let state = match asked {
                Asked::Queued | Asked::Unknown => State::Queued,
                Asked::Open(state) => *state,
            };
            ledger.voice.json(&json!({ "name": name, "state": state.word() }))?;
        }
        let open = names.len() - new;
        ledger
            .voice
            .result(&format!("asked for {}, {open} already asked for", counted(new, "file")))?;
        ledger.voice.hint("see how far they are with: dicom-recall requests");
        return Ok(());
    };
    let end = Instant::now() + Duration::from_secs(wait.min(31_536_000));
    loop {
        let requests = ledger.queue.of(&names).map_err(database_failure)?;
        let open = requests.iter().filter(|one| one.state.is_open()).count();
        if open == 0 || Instant::now() >= end {
            return told(&ledger, &requests, names.len(), open);
        }
        std::thread::sleep(LOOK);
    }
}

fn told(ledger: &Ledger, requests: &[Asking], all: usize, open: usize) -> Result<(), Failure> {
    for request in requests {
        ledger.voice.json(&request_json(request))?;
        if request.state != State::Placed {
            let why = why(request).map_or_else(String::new, |why| format!(": {why}"));
            ledger
                .voice
                .warning(&format!("`{}` is {}{why}", request.name, request.state.word()));
        }
    }
    let placed = requests.iter().filter(|one| one.state == State::Placed).count();
    ledger
        .voice
        .result(&format!("placed {placed} of {}", counted(all, "file")))?;
    if placed == all {
        return Ok(());
    }
    let text = format!("{} of {} not placed", all - placed, counted(all, "file"));
    let code = if open > 0 { Code::TryLater } else { worst(requests) };
    Err(Failure::new(code, text).advise("dicom-recall requests"))
}

fn worst(requests: &[Asking]) -> Code {
    let code = |reason: Reason| match reason {
        Reason::Refused | Reason::Changed => Code::Damaged,
        Reason::Key => Code::TryLater,
        Reason::Storage => Code::CannotCreate,
        Reason::Pacs | Reason::Missing => Code::Io,
        _ => Code::Failed,
    };
    let codes = requests
        .iter()
        .filter(|one| one.state != State::Placed)
        .map(|one| one.reason.map_or(Code::Failed, code));
    codes
        .max_by_key(|code| eds::failure::severity(*code))
        .unwrap_or(Code::Failed)
}

/// `dicom-recall stat`.
///
/// # Errors
/// Where something is not registered.
pub fn stat(args: &Stat) -> Result<(), Failure> {
    if let Some(socket) = &args.at.agent {
        refuse_original(args.original)?;
        return se::stat(socket, &args.what, Voice::new(&args.manners));
    }
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    for one in ledger.meant(&args.what)? {
        let asked = ledger
            .queue
            .of(std::slice::from_ref(&one.name))
            .map_err(database_failure)?;
        let mut json = instance_json(&one, args.original);
        json["request"] = asked.first().map_or(Value::Null, request_json);
        ledger.voice.json(&json)?;
        ledger.voice.result(&instance_line(&one, true, args.original))?;
        if let Some(request) = asked.first() {
            ledger.voice.result(&format!("  {}", request_line(request)))?;
        }
    }
    Ok(())
}

/// `dicom-recall evict`.
///
/// # Errors
/// Where something is not registered, or the bytes cannot be taken away.
pub fn evict(args: &TakeAway) -> Result<(), Failure> {
    if let Some(socket) = &args.at.agent {
        return se::evict(socket, &args.what, false, Voice::new(&args.manners));
    }
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let names = ledger.names(&args.what)?;
    let (done, what) = match &ledger.config.place {
        Some(Place::Folder(root)) => {
            let folder = Folder::new(root, true, true);
            let busy = evict::in_use(&ledger.queue, &names).map_err(database_failure)?;
            let idle: Vec<String> = names.into_iter().filter(|name| !busy.contains(name)).collect();
            let gone = evict::take_away(&folder, &ledger.registry, &idle).map_err(database_failure)?;
            (gone.len(), "evicted")
        }
        _ => {
            ledger.registry.wish_evicted(&names).map_err(database_failure)?;
            (names.len(), "asked the agent to evict")
        }
    };
    ledger.voice.json(&json!({ "evicted": done }))?;
    ledger.voice.result(&format!("{what} {}", counted(done, "file")))
}

/// `dicom-recall requests`.
///
/// # Errors
/// Where the queue cannot be read.
pub fn requests(args: &Requests) -> Result<(), Failure> {
    if let Some(socket) = &args.at.agent {
        return se::requests(socket, Voice::new(&args.manners));
    }
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let state = args.state.map(|state| match state {
        StateName::Queued => State::Queued,
        StateName::Running => State::Running,
        StateName::Waiting => State::Waiting,
        StateName::Placed => State::Placed,
        StateName::Failed => State::Failed,
        StateName::Cancelled => State::Cancelled,
    });
    for request in ledger.queue.list(state, usize::MAX).map_err(database_failure)? {
        ledger.voice.json(&request_json(&request))?;
        ledger.voice.result(&request_line(&request))?;
    }
    Ok(())
}

fn request_json(request: &Asking) -> Value {
    json!({
        "name": request.name,
        "state": request.state.word(),
        "reason": request.reason.map(Reason::word),
        "refusal": request.refusal,
        "priority": request.priority,
        "tries": request.tries,
        "created_at": request.created_at / 1000,
        "changed_at": request.changed_at / 1000,
        "next_try_at": (request.state == State::Waiting).then_some(request.next_try_at / 1000),
    })
}

/// Why it did not succeed, for people.
fn why(request: &Asking) -> Option<String> {
    let text = request.reason?.text();
    Some(match &request.refusal {
        Some(refusal) => format!("{text}: {refusal}"),
        None => text.to_owned(),
    })
}

fn request_line(request: &Asking) -> String {
    let at = |ms: i64| {
        let since = Duration::from_millis(ms.unsigned_abs());
        timestamp(std::time::SystemTime::UNIX_EPOCH + since)
    };
    let mut line = format!(
        "{:<9}  {}  {}",
        request.state.word(),
        at(request.created_at),
        request.name
    );
    if let Some(why) = why(request).filter(|_| request.state != State::Cancelled) {
        line.push_str(&format!("  {why}"));
        match request.tries {
            0 => {}
            1 => line.push_str(" (tried once)"),
            tries => line.push_str(&format!(" (tried {tries} times)")),
        }
    }
    if request.state == State::Waiting {
        line.push_str(&format!(", next at {}", at(request.next_try_at)));
    }
    line
}

/// `dicom-recall cancel`.
///
/// # Errors
/// Where something is not registered, or the queue cannot be changed.
pub fn cancel(args: &Cancel) -> Result<(), Failure> {
    if let Some(socket) = &args.at.agent {
        if args.meant.all {
            return Err(hydra_cli::command::usage_error(
                "with --agent requests are named one by one",
            ));
        }
        return se::cancel(socket, &args.meant.what, Voice::new(&args.meant.manners));
    }
    let args = &args.meant;
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let names = ledger.meant_or(args, State::is_open)?;
    let done = ledger
        .queue
        .cancel(&names, ledger.queue.now_ms())
        .map_err(database_failure)?;
    ledger.voice.json(&json!({ "cancelled": done }))?;
    ledger.voice.result(&format!("cancelled {}", counted(done, "request")))
}

/// `dicom-recall retry`.
///
/// # Errors
/// Where something is not registered, or the queue cannot be changed.
pub fn retry(args: &Meant) -> Result<(), Failure> {
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let names = ledger.meant_or(args, |state| state == State::Failed)?;
    let done = ledger
        .queue
        .retry(&names, ledger.queue.now_ms())
        .map_err(database_failure)?;
    ledger.voice.json(&json!({ "retried": done }))?;
    ledger
        .voice
        .result(&format!("to be tried again: {}", counted(done, "request")))
}

/// `dicom-recall unregister`.
///
/// # Errors
/// Where something is not registered, or the registry cannot be changed.
pub fn unregister(args: &Unregister) -> Result<(), Failure> {
    let ledger = Ledger::open(&args.configured, &args.manners)?;
    let names = ledger.names(&args.what)?;
    if may_be_only_copies(&ledger.config) {
        let text = "the agent takes the files off its disk, and what was pushed and sealed may be nowhere else";
        return Err(Failure::new(Code::NotAllowed, text)
            .advise("`receive.pacs_has_them = true` in the configuration, where something else gives it to the PACS"));
    }
    ledger
        .queue
        .cancel(&names, ledger.queue.now_ms())
        .map_err(database_failure)?;
    let done = ledger.registry.remove(&names).map_err(database_failure)?;
    ledger.voice.json(&json!({ "unregistered": done }))?;
    ledger
        .voice
        .result(&format!("unregistered {}", counted(done, "instance")))?;
    ledger
        .voice
        .hint("their keys stay, because files may be sealed under them");
    Ok(())
}

/// Whether what an agent takes off its disk may be nowhere else.
fn may_be_only_copies(config: &Config) -> bool {
    let is_only = |one: &ReceiveConfig| one.then == Then::Seal && !one.pacs_has_them;
    matches!(config.place, Some(Place::Agent(_))) && config.receive.as_ref().is_some_and(is_only)
}

impl Ledger {
    fn meant_or(&self, args: &Meant, all: impl Fn(State) -> bool) -> Result<Vec<String>, Failure> {
        if !args.all {
            return self.names(&args.what);
        }
        let requests = self.queue.list(None, usize::MAX).map_err(database_failure)?;
        let meant = requests.into_iter().filter(|one| all(one.state));
        Ok(meant.map(|one| one.name).collect())
    }
}
