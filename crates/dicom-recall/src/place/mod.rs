//! The agent beside the storage element: it knows what is registered, holds what is on disk, asks the daemon for what
//! somebody wants, and puts what comes in its place. It sees sealed bytes only, and holds nothing that opens them
//! (`docs/src/storage-element.md`).

use std::collections::{BTreeMap, HashMap};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eds::failure::Because;
use hydra_cli::{Code, Failure, output};
use hydra_core::sealed::NewFile;
use tokio::sync::{mpsc, watch};

use crate::ask::{Answer, Ask, FileStatus, Progress, Refusal, RequestStatus, Wish};
use crate::config::Evict;
use crate::door::{self, Ends};
use crate::errors::chain;
use crate::line::{Entry, FromPlace, News, Reason};
use crate::names;
use crate::now::config_failure;

mod args;
pub mod config;
pub mod files;
mod line_end;
pub mod mirror;
mod server;

pub use args::Place;
use config::PlaceConfig;
use files::{Part, PlaceError, Root};
use mirror::{Begin, Mirror, MirrorError, WantState};

/// How often files are looked through for what is to go.
const SWEEP: Duration = Duration::from_secs(60);
/// For so long a file is not evicted for want of room, in seconds.
const JUST_PLACED_S: i64 = 60;
/// The most files in an answer.
const MOST_LISTED: usize = 10_000;
/// The longest name of a request, or of who made it.
const LONGEST_WORD: usize = 255;

/// `dicom-recall place`.
///
/// # Errors
/// What is in the way of serving.
pub fn place(args: &Place) -> Result<(), Failure> {
    let config = PlaceConfig::read(&args.config).map_err(config_failure)?;
    hydra_service::log::start(&config.log).map_err(|error| Failure::new(Code::Config, error))?;
    let started = |error: std::io::Error| Failure::new(Code::Failed, Because::new("cannot start", error));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(started)?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

async fn serve(config: PlaceConfig) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let agent = Arc::new(Agent::open(config)?);
    if let Some(address) = agent.config.monitor {
        let agent = Arc::clone(&agent);
        door::serve_monitor(address, Arc::new(move || agent.mirror().is_well())).await?;
    }
    let ends_of_lines = line_end::open(&agent.config).await?;
    let asks = server::open(&agent.config).await?;
    let mut tasks = vec![
        tokio::spawn(server::serve(Arc::clone(&agent), asks)),
        tokio::spawn(sweep(Arc::clone(&agent))),
    ];
    let lines = ends_of_lines.into_iter();
    tasks.extend(lines.map(|end| tokio::spawn(line_end::keep(Arc::clone(&agent), end))));
    if let Some(folder) = &agent.config.fail_folder
        && let Err(error) = NewFile::under(folder)
    {
        let folder = folder.display();
        tracing::warn!(%folder, reason = %chain(&error), "what failed cannot be noted for XRootD");
    }
    tracing::info!(socket = %agent.config.socket.display(), "listening");
    output::print_line(&format!("listening on {}", agent.config.socket.display()))?;
    ends.come().await;
    tracing::info!("stopping");
    for task in tasks {
        task.abort();
    }
    let _ = std::fs::remove_file(&agent.config.socket);
    Ok(())
}

async fn sweep(agent: Arc<Agent>) {
    loop {
        let sweeping = Arc::clone(&agent);
        let swept = tokio::task::spawn_blocking(move || sweeping.sweep()).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(reason = %chain(&error), "cannot look through the files");
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = agent.crowded.notified() => {}
        }
    }
}

/// The clock, in seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What came of a file that somebody waits for.
type Outcome = Option<Result<(), Reason>>;

/// A line to a daemon that is up.
struct Line {
    registry: String,
    /// Nothing is recalled over it.
    places_only: bool,
    say: mpsc::UnboundedSender<FromPlace>,
}

/// Everything that lines and askers share.
struct Agent {
    config: PlaceConfig,
    root: Arc<Root>,
    mirror: Mutex<Mirror>,
    lines: Mutex<BTreeMap<u64, Line>>,
    /// Held while a daemon is let in.
    greeting: tokio::sync::Mutex<()>,
    waiting: Mutex<HashMap<String, watch::Sender<Outcome>>>,
    /// There may be too much on disk.
    crowded: tokio::sync::Notify,
}

impl Agent {
    fn open(config: PlaceConfig) -> Result<Self, Failure> {
        let root = Root::open(&config.root).map_err(|error| Failure::new(Code::Config, error))?;
        let mut mirror = Mirror::open(&config.database).map_err(database_failure)?;
        // a restored or older database is put right by what is there
        let mut found = Vec::new();
        root.walk(&mut |name, size| found.push((name, size)));
        mirror.found(&found).map_err(database_failure)?;
        Ok(Self {
            config,
            root: Arc::new(root),
            mirror: Mutex::new(mirror),
            lines: Mutex::default(),
            greeting: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
            crowded: tokio::sync::Notify::new(),
        })
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<u64, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to every daemon that is there; one that is not learns it when it comes. What is wanted is not for
    /// who places only.
    fn say(&self, message: &FromPlace) {
        let is_for_all = matches!(message, FromPlace::Evicted { .. });
        for line in self.lines().values().filter(|line| is_for_all || !line.places_only) {
            let _ = line.say.send(message.clone());
        }
    }

    /// Whether a daemon is there that recalls what is wanted.
    fn is_connected(&self) -> bool {
        self.lines().values().any(|line| !line.places_only)
    }

    fn say_want(&self, name: &str, priority: u8) {
        self.say(&FromPlace::Want {
            name: name.to_owned(),
            priority,
        });
    }

    /// Tells everybody who waits for a file.
    fn tell(&self, name: &str, outcome: Result<(), Reason>) {
        if let Some(sender) = self.waiting().remove(name) {
            sender.send_replace(Some(outcome));
        }
    }

    /// How long the file of an entry is, if it is there and is that file as far as its length tells.
    fn there(&self, mirror: &Mirror, name: &str, entry: Option<&Entry>) -> Result<Option<u64>, MirrorError> {
        let Some(size) = self.root.size_of(name) else {
            return Ok(None);
        };
        let expected = match entry.and_then(|entry| entry.size) {
            Some(size) => Some(size),
            None => mirror.file(name)?.map(|(size, _)| size),
        };
        Ok(expected.is_none_or(|expected| expected == size).then_some(size))
    }

    fn status(&self, mirror: &Mirror, name: &str, is_up: bool) -> Result<FileStatus, MirrorError> {
        let fit = names::check(name).is_ok();
        let entry = if fit { mirror.entry(name)? } else { None };
        let there = if fit {
            self.there(mirror, name, entry.as_ref())?
        } else {
            None
        };
        let want = mirror.want(name)?;
        let placed = if there.is_some() { mirror.file(name)? } else { None };
        let sha256 = entry.as_ref().and_then(|entry| entry.sha256.clone());
        Ok(FileStatus {
            name: name.to_owned(),
            registered: entry.is_some(),
            size: there.or(entry.as_ref().and_then(|entry| entry.size)),
            sha256: sha256.or(placed.and_then(|(_, sha256)| sha256)),
            registered_at: entry.as_ref().map(|entry| entry.registered_at),
            on_disk: there.is_some(),
            available: there.is_some() || (is_up && entry.is_some()),
            wanted: want.as_ref().is_some_and(|want| want.state != WantState::Failed),
            reason: want.and_then(|want| want.reason),
        })
    }

    /// Answers what need not be waited for; [`Ask::Stage`] is [`Self::stage`]'s.
    fn answer(&self, ask: Ask) -> Answer {
        let answered = match ask {
            Ask::About => self.about(),
            Ask::Stat { names } => self.stat(&names),
            Ask::List { prefix, after, limit } => self.list(&prefix, after.as_deref(), limit),
            Ask::Stage { .. } => Ok(refused(Refusal::Unreadable, "waiting is asked for elsewhere")),
            Ask::Prepare {
                request,
                owner,
                files,
                priority,
            } => self.prepare(request, owner.as_deref(), files, priority),
            Ask::Request { request, owner } => {
                let status = self.mirror().request(&request, owner.as_deref());
                status.map(|status| Answer::Request {
                    status: self.looked_at(status),
                })
            }
            Ask::Requests { owner } => {
                let requests = self.mirror().requests(owner.as_deref());
                requests.map(|requests| Answer::Requests {
                    requests: requests.into_iter().map(|request| self.looked_at(request)).collect(),
                })
            }
            Ask::Cancel { request, owner, names } => {
                let cancelled = self
                    .mirror()
                    .cancel(&request, owner.as_deref(), names.as_deref(), now());
                cancelled.map(|unwanted| self.unwant(&unwanted))
            }
            Ask::Forget { request, owner } => {
                let cancelled = self.mirror().forget(&request, owner.as_deref(), now());
                cancelled.map(|unwanted| self.unwant(&unwanted))
            }
            Ask::Release { request, owner, names } => {
                let released = self.mirror().release(&request, owner.as_deref(), &names);
                released.map(|()| Answer::Done)
            }
            Ask::Evict { names, force } => self.evict(&names, force).map(|names| Answer::Evicted { names }),
        };
        answered.unwrap_or_else(|error| match error {
            MirrorError::Refused(refusal) => refused(refusal, &error.to_string()),
            error => {
                tracing::error!(reason = %chain(&error), "the database failed");
                refused(Refusal::Database, "the agent's database cannot be written or read")
            }
        })
    }

    fn about(&self) -> Result<Answer, MirrorError> {
        let entries = self.mirror().count()?;
        Ok(Answer::About {
            root: self.config.root.clone(),
            fail_folder: self.config.fail_folder.clone(),
            connected: self.is_connected(),
            entries,
        })
    }

    fn stat(&self, names: &[String]) -> Result<Answer, MirrorError> {
        if names.len() > self.config.limits.files {
            return Ok(too_much(self.config.limits.files));
        }
        let is_up = self.is_connected();
        let mirror = self.mirror();
        let files = names.iter().map(|name| self.status(&mirror, name, is_up));
        Ok(Answer::Files {
            files: files.collect::<Result<_, _>>()?,
        })
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Answer, MirrorError> {
        let is_up = self.is_connected();
        let mirror = self.mirror();
        let names = mirror.list(prefix, after, limit.min(MOST_LISTED))?;
        let files = names.iter().map(|name| self.status(&mirror, name, is_up));
        Ok(Answer::Files {
            files: files.collect::<Result<_, _>>()?,
        })
    }

    fn looked_at(&self, mut status: RequestStatus) -> RequestStatus {
        let mirror = self.mirror();
        for file in &mut status.files {
            let entry = mirror.entry(&file.name).ok().flatten();
            file.on_disk = matches!(self.there(&mirror, &file.name, entry.as_ref()), Ok(Some(_)));
        }
        status
    }

    fn prepare(
        &self,
        request: Option<String>,
        owner: Option<&str>,
        files: Vec<Wish>,
        priority: u8,
    ) -> Result<Answer, MirrorError> {
        let limits = &self.config.limits;
        if files.len() > limits.files {
            return Ok(too_much(limits.files));
        }
        let request = request.unwrap_or_else(random_name);
        for (what, word) in [("request", Some(request.as_str())), ("owner", owner)] {
            if word.is_some_and(|word| !is_word(word)) {
                return Ok(refused(Refusal::Unfit, &format!("that is no name of a {what}")));
            }
        }
        if files.is_empty() || files.iter().any(|wish| wish.name.len() > 16 * LONGEST_WORD) || priority > 3 {
            return Ok(refused(
                Refusal::Unfit,
                "no files, a name that is far too long, or no such priority",
            ));
        }
        let mut mirror = self.mirror();
        if mirror.count_requests()? >= limits.requests && mirror.make_room(now())? == 0 {
            return Ok(refused(
                Refusal::TooMuch,
                &format!("{} requests are remembered", limits.requests),
            ));
        }
        let mut begins = Vec::with_capacity(files.len());
        for wish in files {
            let entry = match names::check(&wish.name) {
                Ok(()) => mirror.entry(&wish.name)?,
                Err(_) => None,
            };
            let (progress, reason) = match entry {
                None => (Progress::Failed, Some(Reason::Unknown)),
                Some(entry) => match self.there(&mirror, &wish.name, Some(&entry))? {
                    Some(_) => (Progress::Completed, None),
                    None => (Progress::Submitted, None),
                },
            };
            begins.push(Begin {
                name: wish.name,
                lifetime_s: wish.lifetime_s,
                progress,
                reason,
            });
        }
        let told = mirror.prepare(&request, owner, &begins, priority, now())?;
        for name in told {
            self.say_want(&name, priority);
        }
        drop(mirror);
        Ok(Answer::Accepted { request })
    }

    /// No request waits for these; where nobody else does, the daemon is told.
    fn unwant(&self, names: &[String]) -> Answer {
        for name in names {
            // with the mirror in hand: whoever asks anew comes before all of this or after it
            let mut mirror = self.mirror();
            if self.waiting().contains_key(name) || mirror.is_awaited(name).unwrap_or(true) {
                continue;
            }
            if let Err(error) = mirror.unwant(name) {
                tracing::warn!(reason = %chain(&error), "the database failed");
            }
            self.say(&FromPlace::Unwant { name: name.clone() });
        }
        Answer::Done
    }

    /// Begins to wait for a file: what is there already is the answer, else what came of it comes by the receiver.
    fn stage(&self, name: &str, path: Option<&std::path::Path>) -> Result<watch::Receiver<Outcome>, Answer> {
        if let Err(error) = names::check(name) {
            return Err(refused(Refusal::Unfit, &format!("the name is none: {error}")));
        }
        let ours = self.root.path_of(name);
        if path.is_some_and(|path| path != ours) {
            let text = format!(
                "the file is asked for at another place than `{}`: the agent's root and the storage element's differ",
                ours.display()
            );
            return Err(refused(Refusal::Unfit, &text));
        }
        let waited = self.try_stage(name);
        waited.unwrap_or_else(|error| {
            tracing::error!(reason = %chain(&error), "the database failed");
            Err(refused(
                Refusal::Database,
                "the agent's database cannot be written or read",
            ))
        })
    }

    fn try_stage(&self, name: &str) -> Result<Result<watch::Receiver<Outcome>, Answer>, MirrorError> {
        let mut mirror = self.mirror();
        let Some(entry) = mirror.entry(name)? else {
            return Ok(Err(Answer::Failed {
                reason: Reason::Unknown,
            }));
        };
        if let Some(size) = self.there(&mirror, name, Some(&entry))? {
            mirror.is_there(name, size, now())?;
            return Ok(Err(Answer::Done));
        }
        // before it is wanted, and with the mirror in hand, so that its coming is not missed
        let receiver = match self.waiting().entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(known) => known.get().subscribe(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(watch::channel(None).0).subscribe(),
        };
        let is_new = mirror.want_it(name, 2, now())?;
        if is_new {
            self.say_want(name, 2);
        }
        drop(mirror);
        Ok(Ok(receiver))
    }

    /// Somebody waits no more.
    fn leave(&self, name: &str, receiver: watch::Receiver<Outcome>) {
        let mut waiting = self.waiting();
        drop(receiver);
        if waiting.get(name).is_some_and(|sender| sender.receiver_count() == 0) {
            waiting.remove(name);
        }
    }

    /// Why a file did not come within the time that somebody waited.
    fn late(&self, name: &str) -> Reason {
        let want = self.mirror().want(name).ok().flatten();
        want.and_then(|want| want.reason).unwrap_or(Reason::Deadline)
    }

    /// A daemon greets: its registry is ours from now on, unless another daemon with another one is there.
    fn greet(&self, registry: &str) -> Result<bool, MirrorError> {
        // the lock of the lines is not held over the database
        let is_other = self.lines().values().any(|line| line.registry != registry);
        if is_other {
            return Ok(false);
        }
        self.mirror().greet(registry)?;
        Ok(true)
    }

    fn entries(&self, entries: &[Entry], upto: i64) -> Result<(), MirrorError> {
        let fit: Vec<Entry> = entries
            .iter()
            .filter(|entry| names::check(&entry.name).is_ok())
            .cloned()
            .collect();
        if fit.len() < entries.len() {
            tracing::warn!(
                entries = entries.len() - fit.len(),
                "entries with names that are none are left out"
            );
        }
        // off the disk before it is remembered that they were told of
        let stale = self.mirror().stale(&fit, upto)?;
        for name in &stale {
            self.take_away(name)?;
        }
        self.mirror().apply(&fit, upto)?;
        // what nobody wrote down, because the database was lost
        for entry in fit.iter().filter(|entry| !entry.gone) {
            if let Some(size) = self.root.size_of(&entry.name) {
                let mut mirror = self.mirror();
                if mirror.file(&entry.name)?.is_none() && entry.size.is_none_or(|other| other == size) {
                    mirror.is_there(&entry.name, size, now())?;
                }
            }
        }
        let mut last = "";
        for entry in fit.iter().filter(|entry| !entry.gone) {
            let folder = entry.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            if folder != last {
                // a storage element lists the folders that are there; that it cannot is no reason to forget the entry
                if let Err(error) = self.root.make_folders(&entry.name) {
                    tracing::warn!(name = entry.name, reason = %error, "its folder cannot be made");
                }
                last = folder;
            }
        }
        for entry in entries.iter().filter(|entry| entry.gone) {
            let reason = Reason::Unknown;
            self.news(&entry.name, &News::Failed { reason })?;
        }
        Ok(())
    }

    fn news(&self, name: &str, news: &News) -> Result<(), MirrorError> {
        let mut mirror = self.mirror();
        let is_cancelled = matches!(
            news,
            News::Failed {
                reason: Reason::Cancelled
            }
        );
        if is_cancelled && mirror.want(name)?.is_some_and(|want| want.state == WantState::Asked) {
            // of before it was asked for anew; said once more, for the two may have crossed
            self.say_want(name, 2);
            return Ok(());
        }
        mirror.news(name, news, now())?;
        drop(mirror);
        if let News::Failed { reason } = news {
            tracing::info!(name, reason = reason.word(), "not recalled");
            metrics::counter!("recall_failed", "reason" => reason.word()).increment(1);
            self.tell(name, Err(*reason));
        }
        Ok(())
    }

    /// Whether a file that is offered may come, and what it has to be.
    fn offered(&self, name: &str, size: Option<u64>) -> Result<Entry, Reason> {
        if names::check(name).is_err() {
            return Err(Reason::Unknown);
        }
        let entry = self.mirror().entry(name).map_err(|_| Reason::Storage)?;
        let entry = entry.ok_or(Reason::Unknown)?;
        match (entry.size, size) {
            (Some(registered), Some(offered)) if registered != offered => Err(Reason::Changed),
            _ => Ok(entry),
        }
    }

    /// Gives a file its name, if it is the right one.
    fn finish(&self, part: Part, entry: &Entry, size: u64, sha256: &str) -> Result<(), PlaceError> {
        // what was registered may have changed while it came
        let entry = self
            .mirror()
            .entry(&entry.name)
            .ok()
            .flatten()
            .ok_or(PlaceError::Changed)?;
        let announced = files::Expected {
            size: Some(size),
            sha256: Some(sha256),
        };
        let registered = files::Expected {
            size: entry.size,
            sha256: entry.sha256.as_deref(),
        };
        let (size, sha256) = part.finish(&entry.name, &[announced, registered])?;
        // it may have changed while it was flushed; whoever changes it from now on finds it among the files
        let mut mirror = self.mirror();
        let is_it = |registered: Entry| {
            registered.registered_at == entry.registered_at
                && registered.size.is_none_or(|other| other == size)
                && registered
                    .sha256
                    .is_none_or(|other| other.eq_ignore_ascii_case(&sha256))
        };
        if !mirror.entry(&entry.name).ok().flatten().is_some_and(is_it) {
            let _ = self.root.remove(&entry.name);
            return Err(PlaceError::Changed);
        }
        // the name is there, so whoever looks finds it; a database that fails is put right at the next start
        if let Err(error) = mirror.placed(&entry.name, size, &sha256, now()) {
            tracing::error!(name = entry.name, reason = %chain(&error), "the database failed");
        }
        drop(mirror);
        tracing::info!(name = entry.name, size, "placed");
        metrics::counter!("recall_placed").increment(1);
        metrics::counter!("recall_placed_bytes").increment(size);
        self.tell(&entry.name, Ok(()));
        if self.config.evict.most_bytes.is_some() {
            self.crowded.notify_one();
        }
        Ok(())
    }

    /// Takes files off the disk; only those that can be had again. Answers which.
    fn evict(&self, names: &[String], force: bool) -> Result<Vec<String>, MirrorError> {
        let mut evicted = Vec::new();
        for name in names {
            let may = {
                let mirror = self.mirror();
                // a file that nobody registers any more is ours if we wrote it down
                let is_ours = mirror.entry(name)?.is_some() || mirror.file(name)?.is_some();
                is_ours && (force || !mirror.is_held(name, now())?)
            };
            if may && self.take_away(name)? {
                evicted.push(name.clone());
            }
        }
        Ok(evicted)
    }

    fn take_away(&self, name: &str) -> Result<bool, MirrorError> {
        let removed = self.root.remove(name).unwrap_or_else(|error| {
            tracing::warn!(name, reason = %error, "it cannot be taken off the disk");
            false
        });
        if removed || self.root.size_of(name).is_none() {
            self.mirror().lost(name)?;
        }
        if removed {
            tracing::info!(name, "evicted");
            metrics::counter!("recall_evicted").increment(1);
            self.say(&FromPlace::Evicted { name: name.to_owned() });
        }
        Ok(removed)
    }

    /// Takes off the disk what was not used for long, or what is too much; forgets what is long over.
    fn sweep(&self) -> Result<(), MirrorError> {
        let remember = i64::try_from(self.config.limits.remember_s).unwrap_or(i64::MAX);
        self.mirror().prune(now().saturating_sub(remember))?;
        let known = self.mirror().files()?;
        let mut there: Vec<(i64, u64, String)> = Vec::new();
        for (name, _) in known {
            match self.root.stat(&name) {
                Some((size, used)) => there.push((used, size, name)),
                None => {
                    // somebody else took it away: whoever counts on it is told
                    self.mirror().lost(&name)?;
                    tracing::warn!(name, "it is not on the disk any more");
                    self.say(&FromPlace::Evicted { name });
                }
            }
        }
        metrics::gauge!("recall_entries").set(to_f64(self.mirror().count()?));
        metrics::gauge!("recall_files_on_disk").set(to_f64(there.len() as u64));
        let bytes: u64 = there.iter().map(|(_, size, _)| size).sum();
        metrics::gauge!("recall_bytes_on_disk").set(to_f64(bytes));
        there.sort();
        let mirror = self.mirror();
        let now = now();
        let mut free = Vec::with_capacity(there.len());
        for file in there {
            if !mirror.is_held(&file.2, now)? {
                free.push(file);
            }
        }
        drop(mirror);
        // what is evicted while no daemon is there could not be had again for now: that waits, unless room is short
        let can_wait = !self.is_connected();
        for name in to_evict(&free, bytes, &self.config.evict, now, can_wait) {
            self.evict(&[name], false)?;
        }
        Ok(())
    }
}

/// What is to go of the files that nobody holds, with their last use and length, the longest unused first; `bytes` are
/// on disk in all. Whoever waited for a file that came just now has yet to open it.
fn to_evict(free: &[(i64, u64, String)], mut bytes: u64, rules: &Evict, now: i64, can_wait: bool) -> Vec<String> {
    let after = rules.after_s.map(|after_s| i64::try_from(after_s).unwrap_or(i64::MAX));
    let mut gone = Vec::new();
    for (used, size, name) in free {
        let unused = now.saturating_sub(*used);
        let is_old = !can_wait && after.is_some_and(|after| unused >= after);
        let is_too_much = rules.most_bytes.is_some_and(|most| bytes > most) && unused >= JUST_PLACED_S;
        if is_old || is_too_much {
            bytes -= size;
            gone.push(name.clone());
        }
    }
    gone
}

/// For gauges, which are floating point.
#[allow(clippy::cast_precision_loss, reason = "a gauge of 2^53 and more may be off by one")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

fn refused(refusal: Refusal, text: &str) -> Answer {
    Answer::Refused {
        refusal,
        text: text.to_owned(),
    }
}

fn too_much(files: usize) -> Answer {
    refused(Refusal::TooMuch, &format!("at most {files} files at once"))
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= LONGEST_WORD && !word.chars().any(char::is_control)
}

/// A name for a request that has none.
fn random_name() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // never seen; names need to be different, not secret
        bytes[..4].copy_from_slice(&process::id().to_be_bytes());
        bytes[8..].copy_from_slice(&now().to_be_bytes());
    }
    crate::database::hex(&bytes)
}

fn database_failure(error: MirrorError) -> Failure {
    let code = match error {
        MirrorError::NotOurs(_) => Code::Config,
        _ => Code::Io,
    };
    Failure::new(code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_must() {
        let files = [
            (100, 5, "/a".to_owned()),
            (200, 5, "/b".to_owned()),
            (390, 5, "/c".to_owned()),
        ];
        let rules = |after_s, most_bytes| Evict { after_s, most_bytes };
        let gone = |rules: &Evict, can_wait| to_evict(&files, 20, rules, 400, can_wait);
        assert!(gone(&rules(None, None), false).is_empty());
        assert_eq!(gone(&rules(Some(200), None), false), ["/a", "/b"]);
        assert!(gone(&rules(Some(200), None), true).is_empty());
        assert_eq!(gone(&rules(None, Some(15)), true), ["/a"]);
        assert_eq!(gone(&rules(None, Some(14)), true), ["/a", "/b"]);
        // the last came just now
        assert_eq!(gone(&rules(None, Some(0)), true), ["/a", "/b"]);
    }
}
