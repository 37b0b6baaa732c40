//! `dicom-recall daemon`: works off the queue. Each worker leases a series, has it recalled to wherever files go, and
//! says what came of it; whatever ends a daemon, the queue still has what was not done. What stays open between
//! recalls (PACS, session, keys for a minute, profile) is held here.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dicom_deid::{Profile, RefusalKind};
use dicom_net::Uid;
use eds::args::Stores;
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::{Code, Failure, output};
use hydra_core::sealed;

use crate::CONFIG;
use crate::catalogued::Catalogued;
use crate::config::{Config, Place};
use crate::database::{Database, DatabaseError, now_ms};
use crate::destination::{Destination, Folder};
use crate::door::{self, Ends};
use crate::engine::{Item, Recall, Series, Settled, Stop, Teller, Tools, Waiting};
use crate::errors::chain;
use crate::evict;
use crate::herald;
use crate::keys::Keys;
use crate::ledger::{database_failure, open_or_make};
use crate::line::Reason;
use crate::link::Link;
use crate::now::config_failure;
use crate::pipeline::InstanceError;
use crate::queue::{Job, Outcome, Owner, Queue, Request};
use crate::register::item_of;
use crate::registry::{Instance, LocalRegistry, Recorded, Registry, Which};
use crate::secret;
use crate::source::{Source, SourceError};

/// How often a worker with nothing to do looks.
const LOOK: Duration = Duration::from_millis(400);
/// For how long a key is held.
const KEYS_FOR: Duration = Duration::from_secs(60);
/// For how long a session is: whoever renews the credential is noticed then.
const SESSION_FOR: Duration = Duration::from_secs(600);
/// How often the daemon looks after its leases and its folder, at most.
const ROUND: Duration = Duration::from_secs(5);
/// How often it looks for what may be taken away.
const EVICTING: Duration = Duration::from_secs(30);
/// What nobody wrote to for so long is left over.
const LEFT_FOR: Duration = Duration::from_secs(600);
/// How long recalls have to end after the daemon was told to.
const LAST_WORD: Duration = Duration::from_secs(15);

/// `dicom-recall daemon`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration
    #[arg(env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    #[command(flatten)]
    pub stores: Stores,
}

/// Why a daemon cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nowhere to put files.
    #[error("no place for files is configured")]
    NoPlace,
    /// The folder is none.
    #[error("`{}` is no folder to put files into", .0.display())]
    NoFolder(PathBuf),
    /// The operating system does not let it.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
}

/// What is held between recalls.
#[derive(Default)]
struct Held {
    session: Option<(Instant, Arc<Session>)>,
    keys: Option<HeldKeys>,
    profile: Option<Arc<Profile>>,
}

/// Keys, each fetched when it was first wanted.
struct HeldKeys {
    since: Instant,
    /// The same in seconds since 1970.
    since_s: i64,
    keys: Arc<Keys>,
}

impl HeldKeys {
    fn serve(&self, registered_s: i64) -> bool {
        serves(self.since.elapsed(), self.since_s, registered_s)
    }
}

/// Whether keys of that age, held since `since_s`, are good for what was registered at `registered_s`: what was withdrawn
/// and registered again may have another key of the same name.
fn serves(age: Duration, since_s: i64, registered_s: i64) -> bool {
    age <= KEYS_FOR && since_s > registered_s
}

/// Has workers look at once.
#[derive(Default)]
pub(crate) struct Wake {
    count: Mutex<u64>,
    woken: Condvar,
}

impl Wake {
    /// There is something to do.
    pub(crate) fn wake(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.woken.notify_all();
    }

    /// Waits until there is something to do since `seen`, or for a while.
    fn wait(&self, seen: &mut u64, longest: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.woken.wait_timeout_while(count, longest, |count| *count == *seen);
        *seen = *waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Where files go.
enum To {
    Folder(Folder),
    Agent(Arc<Link>),
}

/// A daemon at work.
struct Daemon {
    config: Config,
    stores: Stores,
    database: Arc<Database>,
    registry: Arc<dyn Registry>,
    queue: Arc<Queue>,
    owner: Owner,
    source: Source,
    to: To,
    held: Mutex<Held>,
    /// Outcomes that could not be written.
    unsettled: Mutex<Vec<(String, Outcome)>>,
    waiting: Waiting,
    cancel: AtomicBool,
    wake: Arc<Wake>,
}

/// `dicom-recall daemon`.
///
/// # Errors
/// Why it could not start. Whatever happens later, it goes on until it is told to end.
pub fn daemon(args: &Serve) -> Result<(), Failure> {
    let config = Config::read(&args.config).map_err(config_failure)?;
    let start = |error| Failure::new(Code::Failed, StartError::Start(error));
    hydra_service::log::start(&config.log).map_err(|error| Failure::new(Code::Config, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(start)?;
    let daemon = Arc::new(Daemon::open(config, args.stores.clone())?);
    runtime.block_on(serve(&daemon))
}

async fn serve(daemon: &Arc<Daemon>) -> Result<(), Failure> {
    let start = |error| Failure::new(Code::Failed, StartError::Start(error));
    let mut ends = Ends::watch()?;
    if let Some(address) = daemon.config.monitor {
        // not the daemon itself: its session has a runtime, which must not end inside of this one
        let queue = Arc::clone(&daemon.queue);
        door::serve_monitor(address, Arc::new(move || queue.last_change().is_ok())).await?;
    }
    let link = keep_line(daemon);
    tokio::pin!(link);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..daemon.config.workers {
        threads.push(daemon.thread("worker", Daemon::work).map_err(start)?);
    }
    threads.push(daemon.thread("keeper", Daemon::keep).map_err(start)?);
    if let To::Folder(_) = &daemon.to {
        threads.push(daemon.thread("evictor", Daemon::keep_room).map_err(start)?);
    }
    if daemon.config.catalog.is_some() {
        threads.push(daemon.thread("herald", Daemon::tell_catalog).map_err(start)?);
    }
    tracing::info!(daemon = daemon.owner.id, pacs = daemon.source.peer(), "started");
    output::print_line("started")?;
    tokio::select! {
        () = ends.come() => {}
        failure = &mut link => return Err(failure),
    }
    tracing::info!("stopping");
    let daemon = Arc::clone(daemon);
    // what is on the line may still get to its place
    let ended = tokio::select! {
        ended = tokio::task::spawn_blocking(move || daemon.end(&threads)) => ended,
        failure = link => return Err(failure),
    };
    ended.map_err(|error| Failure::new(Code::Failed, StartError::Start(std::io::Error::other(error))))?
}

/// Keeps the line up; ends only where that cannot even begin.
async fn keep_line(daemon: &Arc<Daemon>) -> Failure {
    if let To::Agent(link) = &daemon.to
        && let Err(error) = Arc::clone(link).keep_up().await
    {
        return Failure::new(Code::Config, error);
    }
    std::future::pending().await
}

impl Daemon {
    fn open(config: Config, stores: Stores) -> Result<Self, Failure> {
        let to = match &config.place {
            None => {
                return Err(Failure::new(Code::Config, StartError::NoPlace).advise("[place] in the configuration"));
            }
            Some(Place::Folder(root)) if !root.is_dir() => {
                return Err(Failure::new(Code::Config, StartError::NoFolder(root.clone())));
            }
            Some(Place::Folder(root)) => Some(Folder::new(root, true, true)),
            Some(Place::Agent(_)) => None,
        };
        let database = open_or_make(&config)?;
        let registry: Arc<dyn Registry> = Arc::new(LocalRegistry::new(Arc::clone(&database)));
        let queue = Arc::new(Queue::new(Arc::clone(&database), config.rules));
        let wake: Arc<Wake> = Arc::default();
        let to = match (to, &config.place) {
            (Some(folder), _) => To::Folder(folder),
            (None, Some(Place::Agent(line))) => {
                let (registry, queue) = (Arc::clone(&registry), Arc::clone(&queue));
                To::Agent(Arc::new(Link::new(
                    line.clone(),
                    registry,
                    Some(queue),
                    Arc::clone(&wake),
                )))
            }
            (None, _) => return Err(Failure::new(Code::Config, StartError::NoPlace)),
        };
        let owner = Owner::new(database.file()).map_err(database_failure)?;
        let source = Source::open(&config.pacs)?;
        source.listen()?;
        let daemon = Self {
            registry,
            queue,
            database,
            owner,
            source,
            to,
            stores,
            config,
            held: Mutex::default(),
            unsettled: Mutex::default(),
            waiting: Waiting::default(),
            cancel: AtomicBool::new(false),
            wake,
        };
        daemon.bury().map_err(database_failure)?;
        // what cannot work at all is told at once; stores that are down may be up later
        match daemon.hold(0) {
            Err(failure) if failure.code != Code::TryLater => Err(failure),
            _ => Ok(daemon),
        }
    }

    fn thread(self: &Arc<Self>, name: &str, work: fn(&Self)) -> std::io::Result<JoinHandle<()>> {
        let daemon = Arc::clone(self);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&daemon))
    }

    fn is_over(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// Ends recalls and gives back what was not done.
    fn end(&self, threads: &[JoinHandle<()>]) -> Result<(), Failure> {
        self.cancel.store(true, Ordering::Release);
        self.source.stop();
        self.waiting.wake();
        self.wake.wake();
        let until = Instant::now() + LAST_WORD;
        while Instant::now() < until && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        sealed::remove_temporary_files();
        self.queue
            .give_back(&self.owner.id, self.queue.now_ms())
            .map(|_| ())
            .map_err(database_failure)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Profile and keys for what was registered at that time at the latest, as they are held or anew.
    fn hold(&self, registered_s: i64) -> Result<(Arc<Profile>, Arc<Keys>), Failure> {
        let mut held = self.held();
        let is_old = |since: &Instant, longest| since.elapsed() > longest;
        if held
            .session
            .as_ref()
            .is_none_or(|(since, _)| is_old(since, SESSION_FOR))
        {
            held.session = Some((Instant::now(), Arc::new(Session::open(&self.stores)?)));
            held.keys = None;
        }
        let Some((_, session)) = &held.session else {
            return Err(Failure::new(Code::Failed, "no session"));
        };
        let session = Arc::clone(session);
        let profile = match &held.profile {
            Some(profile) => Arc::clone(profile),
            None => {
                let secret = secret::secret(&session, &self.config.secret)?;
                let profile = Arc::new(Profile::new(self.config.deid.clone(), &secret));
                held.profile = Some(Arc::clone(&profile));
                profile
            }
        };
        let keys = match &held.keys {
            Some(held) if held.serve(registered_s) => Arc::clone(&held.keys),
            _ => {
                let keys = Arc::new(Keys::registered(session, Voice::default()));
                held.keys = Some(HeldKeys {
                    since: Instant::now(),
                    since_s: now_ms() / 1000,
                    keys: Arc::clone(&keys),
                });
                keys
            }
        };
        Ok((profile, keys))
    }

    /// The credential may have been renewed, or the stores configured otherwise.
    fn let_go(&self) {
        let mut held = self.held();
        (held.session, held.keys) = (None, None);
    }

    fn destination(&self) -> &dyn Destination {
        match &self.to {
            To::Folder(folder) => folder,
            To::Agent(link) => &**link,
        }
    }

    /// Takes back the leases of daemons that are known to be dead.
    fn bury(&self) -> Result<(), DatabaseError> {
        let Some(file) = self.database.file() else {
            return Ok(());
        };
        for owner in self.queue.owners()? {
            if owner != self.owner.id && Owner::is_dead(file, &owner) {
                let count = self.queue.give_back(&owner, self.queue.now_ms())?;
                tracing::info!(daemon = owner, count, "took back what a dead daemon had leased");
            }
        }
        Ok(())
    }

    // --- the keeper

    /// Looks after leases and old requests until the daemon ends.
    fn keep(&self) {
        let lease = Duration::from_millis(self.config.rules.lease_ms.unsigned_abs() / 3);
        if let Some(Place::Folder(root)) = &self.config.place {
            let root = root.clone();
            // another daemon may be writing there; whatever is large takes its time, and nobody waits for it
            std::thread::spawn(move || {
                // what was left a moment ago is old enough the second time
                for pause in [Duration::ZERO, LEFT_FOR + ROUND] {
                    std::thread::sleep(pause);
                    let removed = evict::remove_leftovers(&root, LEFT_FOR);
                    if removed > 0 {
                        tracing::info!(removed, "removed what a dead daemon left unfinished");
                    }
                }
            });
        }
        self.again_and_again(lease.min(ROUND), Self::round);
    }

    /// Takes files away by the rules until the daemon ends: a folder that answers slowly must not cost the leases.
    fn keep_room(&self) {
        self.again_and_again(EVICTING, Self::evict);
    }

    fn again_and_again(&self, every: Duration, work: fn(&Self) -> Result<(), DatabaseError>) {
        let mut next = Instant::now();
        while !self.is_over() {
            if Instant::now() >= next {
                next = Instant::now() + every;
                if let Err(error) = work(self) {
                    tracing::error!(reason = %chain(&error), "the database cannot be used");
                }
            }
            std::thread::sleep(Duration::from_millis(50).min(every));
        }
    }

    /// Tells the catalogue what became of what stands in it.
    fn tell_catalog(&self) {
        let Some(url) = &self.config.catalog else { return };
        let catalogued = Catalogued::new(Arc::clone(&self.database));
        herald::run(&catalogued, &mut herald::Catalog::new(url), &self.cancel);
    }

    fn round(&self) -> Result<(), DatabaseError> {
        self.database.look_at_clock()?;
        let now = self.queue.now_ms();
        let late = std::mem::take(&mut *self.unsettled());
        if let Err(error) = self.queue.settle(&self.owner.id, &late, now) {
            self.unsettled().extend(late);
            return Err(error);
        }
        self.queue.renew(&self.owner.id, now)?;
        self.bury()?;
        self.queue.tidy(now)?;
        for (state, count) in self.queue.counts()? {
            metrics::gauge!("recall_requests", "state" => state.word()).set(count as f64);
        }
        Ok(())
    }

    fn evict(&self) -> Result<(), DatabaseError> {
        match &self.to {
            To::Folder(folder) => evict::by_rules(folder, &*self.registry, &self.queue, self.config.evict),
            To::Agent(_) => Ok(()),
        }
    }

    // --- a worker

    /// Works off the queue until the daemon ends.
    fn work(&self) {
        let mut seen = 0;
        while !self.is_over() {
            if !self.has_place() {
                self.hold_all();
                self.wake.wait(&mut seen, LOOK);
                continue;
            }
            match self.queue.lease(&self.owner.id, self.queue.now_ms()) {
                Ok(Some(job)) => self.job(&job),
                Ok(None) => self.wake.wait(&mut seen, LOOK),
                Err(error) => {
                    tracing::error!(reason = %chain(&error), "the queue cannot be read");
                    self.wake.wait(&mut seen, LOOK);
                }
            }
        }
    }

    /// Whether files can be put into their place now.
    fn has_place(&self) -> bool {
        match &self.to {
            To::Folder(_) => true,
            To::Agent(link) => link.is_up(),
        }
    }

    /// While the agent is away nothing is fetched.
    fn hold_all(&self) {
        if let Err(error) = self.queue.hold(Reason::Storage, self.queue.now_ms()) {
            tracing::error!(reason = %chain(&error), "the queue cannot be written");
        }
    }

    fn job(&self, job: &Job) {
        // a fault of ours in one series must not end the worker, with the series leased for as long as the daemon lives
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.try_job(job))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::error!(reason = %chain(&error), "the database cannot be used");
                Outcome::Untried
            }
            Err(_) => {
                tracing::error!("a series could not be worked on: a fault of this program");
                Outcome::Again(Reason::Other)
            }
        };
        self.settle(job.requests.iter().map(|one| (one.name.clone(), outcome)));
    }

    fn settle(&self, outcomes: impl IntoIterator<Item = (String, Outcome)>) {
        let outcomes: Vec<(String, Outcome)> = outcomes.into_iter().collect();
        for (name, outcome) in &outcomes {
            tell(name, *outcome);
        }
        if let Err(error) = self.queue.settle(&self.owner.id, &outcomes, self.queue.now_ms()) {
            tracing::error!(reason = %chain(&error), "the queue cannot be written");
            // said again by the keeper, which renews their leases
            self.unsettled().extend(outcomes);
        }
        self.tell_agent();
    }

    fn unsettled(&self) -> MutexGuard<'_, Vec<(String, Outcome)>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_agent(&self) {
        if let To::Agent(link) = &self.to {
            link.tell();
        }
    }

    fn try_job(&self, job: &Job) -> Result<(), DatabaseError> {
        self.tell_agent();
        let names: Vec<String> = job.requests.iter().map(|one| one.name.clone()).collect();
        let registered = self.registry.find(&Which::Names(&names))?;
        let is_whole = self.registry.count(&job.study, &job.series)? == registered.len() as u64;
        let (there, wanted): (Vec<Instance>, Vec<Instance>) =
            registered.into_iter().partition(|one| self.is_there(one));
        let of = |instances: &[Instance], outcome| -> Vec<(String, Outcome)> {
            instances.iter().map(|one| (one.name.clone(), outcome)).collect()
        };
        if !there.is_empty() {
            let names: Vec<String> = there.iter().map(|one| one.name.clone()).collect();
            self.registry.set_on_disk(&names, true)?;
            if let To::Folder(folder) = &self.to {
                // whoever asked for it just now has yet to read it
                let used = std::fs::FileTimes::new().set_accessed(std::time::SystemTime::now());
                for name in &names {
                    let touched = std::fs::File::open(folder.path(name)).and_then(|file| file.set_times(used));
                    if let Err(error) = touched {
                        tracing::debug!(name, reason = %error, "its time of access cannot be set");
                    }
                }
            }
        }
        self.settle(of(&there, Outcome::Placed));
        let is_known = |request: &&Request| there.iter().chain(&wanted).any(|one| one.name == request.name);
        let unknown = job.requests.iter().filter(|request| !is_known(request));
        self.settle(unknown.map(|one| (one.name.clone(), Outcome::Failed(Reason::Unknown))));
        if wanted.is_empty() {
            return Ok(());
        }
        let registered_s = wanted.iter().map(|one| one.registered_at).max().unwrap_or_default();
        let (profile, keys) = match self.hold(registered_s) {
            Ok(held) => held,
            Err(failure) => {
                tracing::warn!(reason = %chain(&*failure.error), "keys cannot be had");
                self.let_go();
                self.settle(of(&wanted, Outcome::Trouble(Reason::Key)));
                return Ok(());
            }
        };
        let (Ok(study), Ok(series)) = (Uid::new(&job.study), Uid::new(&job.series)) else {
            self.settle(of(&wanted, Outcome::Failed(Reason::Other)));
            return Ok(());
        };
        self.recall(&profile, &keys, (&study, series), is_whole && there.is_empty(), &wanted);
        Ok(())
    }

    /// Whether what was asked for is in its place already.
    fn is_there(&self, instance: &Instance) -> bool {
        match &self.to {
            To::Folder(folder) => {
                let metadata = std::fs::metadata(folder.path(&instance.name));
                let is_right = |bytes| instance.size == Some(bytes) && instance.sha256.is_some();
                // one that was registered anew is compared by its digest
                instance.on_disk && metadata.is_ok_and(|metadata| metadata.is_file() && is_right(metadata.len()))
            }
            To::Agent(_) => instance.on_disk,
        }
    }

    fn recall(
        &self,
        profile: &Profile,
        keys: &Keys,
        (study, series): (&Uid, Uid),
        is_whole: bool,
        wanted: &[Instance],
    ) {
        let items: Vec<Item> = wanted.iter().filter_map(item_of).collect();
        if items.len() < wanted.len() {
            let unfit = wanted.iter().filter(|one| item_of(one).is_none());
            self.settle(unfit.map(|one| (one.name.clone(), Outcome::Failed(Reason::Other))));
        }
        let told = Told {
            daemon: self,
            names: items.iter().map(|item| item.target.name.clone()).collect(),
            open: Mutex::new(items.iter().map(|item| item.target.name.clone()).collect()),
            has_broken: AtomicBool::new(false),
        };
        let tools = Tools {
            profile,
            keys,
            destination: self.destination(),
            waiting: &self.waiting,
            cancel: &self.cancel,
        };
        let order = Series {
            series,
            items: (0..items.len()).collect(),
            is_whole,
        };
        let (count, began) = (items.len(), Instant::now());
        metrics::counter!("recall_fetches_total").increment(1);
        let recall = Recall::new(tools, &told, items);
        let stopped = recall.run(&self.source, study, &[order], 1);
        let outcome = match stopped {
            Ok(()) => Outcome::Untried,
            Err(Stop::Pacs(failure)) => {
                tracing::warn!(reason = %chain(&*failure.error), "the PACS does not give");
                Outcome::Trouble(Reason::Pacs)
            }
            Err(Stop::Key(failure)) => {
                tracing::warn!(reason = %chain(&*failure.error), "keys cannot be had");
                self.let_go();
                Outcome::Trouble(Reason::Key)
            }
            Err(Stop::Place(failure)) => {
                tracing::warn!(reason = %chain(&*failure.error), "nothing can be placed");
                Outcome::Trouble(Reason::Storage)
            }
            Err(Stop::Told(failure)) => {
                tracing::error!(reason = %chain(&*failure.error), "the database cannot be used");
                Outcome::Untried
            }
        };
        let open = std::mem::take(&mut *told.open.lock().unwrap_or_else(PoisonError::into_inner));
        let left = open.len();
        self.settle(open.into_iter().map(|name| (name, outcome)));
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        metrics::histogram!("recall_seconds").record(began.elapsed().as_secs_f64());
        tracing::info!(files = count, left, took_ms, "a series was worked on");
    }
}

/// Tells the queue.
struct Told<'a> {
    daemon: &'a Daemon,
    names: Vec<String>,
    /// Of which nothing was told.
    open: Mutex<std::collections::BTreeSet<String>>,
    /// Whether the PACS broke off.
    has_broken: AtomicBool,
}

impl Teller for Told<'_> {
    fn settled(&self, done: Vec<Settled>) -> Result<(), Failure> {
        let mut files = Vec::new();
        let mut outcomes = Vec::new();
        for (number, result) in done {
            let name = self.names[number].clone();
            match result {
                Ok(done) => {
                    metrics::counter!("recall_sealed_bytes_total").increment(done.file_bytes);
                    for flag in &done.deid.flags {
                        tracing::warn!(name, flag = flag.name(), "should be looked at");
                    }
                    files.push((name, done.file_bytes, done.sha256.unwrap_or_default()));
                }
                Err(error) => {
                    let outcome = outcome(&error, self.has_broken.load(Ordering::Acquire));
                    tracing::warn!(name, reason = %chain(&error), "not placed");
                    outcomes.push((name, outcome));
                }
            }
        }
        outcomes.extend(self.placed(&files).map_err(database_failure)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, _) in &outcomes {
            open.remove(name);
        }
        drop(open);
        self.daemon.settle(outcomes);
        Ok(())
    }

    fn strange(&self, count: usize) {
        tracing::warn!(count, "the PACS sent instances that nobody asked for");
    }

    fn again(&self, error: &SourceError) {
        tracing::warn!(reason = %chain(error), "the PACS broke off, and is asked again");
    }

    fn broke(&self, error: SourceError) {
        self.has_broken.store(true, Ordering::Release);
        tracing::warn!(reason = %chain(&error), "the PACS broke off");
    }
}

impl Told<'_> {
    /// Records what was placed.
    fn placed(&self, files: &[(String, u64, String)]) -> Result<Vec<(String, Outcome)>, DatabaseError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let registry = &*self.daemon.registry;
        let recorded = registry.record_placed(files)?;
        // it was registered otherwise meanwhile
        let wrong = files.iter().zip(&recorded).filter(|(_, one)| **one != Recorded::Same);
        let wrong: Vec<String> = wrong.map(|((name, ..), _)| name.clone()).collect();
        if !wrong.is_empty() {
            self.daemon.destination().take_away(registry, &wrong)?;
        }
        let outcome = |recorded: Recorded| match recorded {
            Recorded::Same => Outcome::Placed,
            Recorded::Other => Outcome::Failed(Reason::Changed),
            Recorded::Unknown => Outcome::Failed(Reason::Unknown),
        };
        let names = files.iter().map(|(name, ..)| name.clone());
        Ok(names.zip(recorded.into_iter().map(outcome)).collect())
    }
}

/// What an instance that was not placed means for its request.
fn outcome(error: &InstanceError, has_broken: bool) -> Outcome {
    match error {
        InstanceError::Missing if has_broken => Outcome::Trouble(Reason::Pacs),
        InstanceError::Missing | InstanceError::NotSent => Outcome::Again(Reason::Missing),
        InstanceError::Strange(_) => Outcome::Again(Reason::Refused),
        InstanceError::Refused(refusal) if refusal.kind() == RefusalKind::Io => Outcome::Again(Reason::Pacs),
        InstanceError::Refused(refusal) => Outcome::Refused(refusal.name()),
        InstanceError::Identity | InstanceError::Changed => Outcome::Failed(Reason::Changed),
        InstanceError::Key(_, Code::TryLater | Code::Config) => Outcome::Trouble(Reason::Key),
        InstanceError::Key(..) => Outcome::Failed(Reason::Key),
        InstanceError::NotTaken(Reason::Storage) | InstanceError::Folder(_) => Outcome::Trouble(Reason::Storage),
        // registered here, and not heard of there yet
        InstanceError::NotTaken(Reason::Unknown) => Outcome::Again(Reason::Unknown),
        InstanceError::NotTaken(reason) => Outcome::Failed(*reason),
        InstanceError::Seal(sealed::SealError::Output(_) | sealed::SealError::Spool { .. }) => {
            Outcome::Trouble(Reason::Storage)
        }
        InstanceError::Seal(_) => Outcome::Again(Reason::Other),
        InstanceError::Exists => Outcome::Failed(Reason::Storage),
    }
}

fn tell(name: &str, outcome: Outcome) {
    let (result, reason) = match outcome {
        Outcome::Placed => ("placed", None),
        Outcome::Again(reason) | Outcome::Trouble(reason) => ("waiting", Some(reason)),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Refused(_) => ("failed", Some(Reason::Refused)),
        Outcome::Untried => ("untried", None),
    };
    let reason = reason.map_or("", Reason::word);
    metrics::counter!("recall_files_total", "result" => result, "reason" => reason).increment(1);
    tracing::info!(name, result, reason, "done with");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_serve_what_was_registered_before_they_were_held() {
        let now = 1_800_000_000;
        assert!(serves(KEYS_FOR, now, now - 1));
        // perhaps after
        assert!(!serves(Duration::ZERO, now, now));
        assert!(!serves(Duration::ZERO, now, now + 5));
        assert!(!serves(KEYS_FOR + Duration::from_millis(1), now, 0));
    }

    #[test]
    fn what_went_wrong_decides_whether_it_is_tried_again() {
        let key = |code| InstanceError::Key(String::new(), code);
        let table = [
            (InstanceError::Missing, false, Outcome::Again(Reason::Missing)),
            (InstanceError::Missing, true, Outcome::Trouble(Reason::Pacs)),
            (InstanceError::Identity, false, Outcome::Failed(Reason::Changed)),
            (InstanceError::Changed, false, Outcome::Failed(Reason::Changed)),
            (key(Code::TryLater), false, Outcome::Trouble(Reason::Key)),
            (key(Code::NotAllowed), false, Outcome::Failed(Reason::Key)),
            (
                InstanceError::NotTaken(Reason::Storage),
                false,
                Outcome::Trouble(Reason::Storage),
            ),
            (
                InstanceError::NotTaken(Reason::Changed),
                false,
                Outcome::Failed(Reason::Changed),
            ),
        ];
        for (error, has_broken, expected) in table {
            assert_eq!(outcome(&error, has_broken), expected, "{error}");
        }
    }

    #[test]
    fn whoever_waits_is_woken_and_nothing_is_missed() {
        let (wake, mut seen) = (Wake::default(), 0);
        wake.wake();
        wake.wait(&mut seen, Duration::from_secs(60));
        assert_eq!(seen, 1);
        wake.wait(&mut seen, Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| wake.wake());
            let mut seen = seen;
            wake.wait(&mut seen, Duration::from_secs(60));
            assert_eq!(seen, 2);
        });
    }
}
