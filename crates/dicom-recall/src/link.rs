//! The daemon's end of the line to the agent beside the storage element ([`crate::line`]): entries, what is wanted and
//! what became of it, and sealed files, several side by side. While there is no line, nothing is fetched.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::daemon::Wake;
use crate::database::DatabaseError;
use crate::destination::{Destination, Hashing, Placer, SealInto};
use crate::engine::Item;
use crate::errors::chain;
use crate::line::{
    self, Frame, FromDaemon, FromPlace, LONGEST_PIECE, LineError, MOST_ENTRIES, News, PING_S, Reason, SILENCE_S,
    VERSION,
};
use crate::pipeline::{InstanceError, Sealed};
use crate::queue::{Asked, Queue, Request, State};
use crate::registry::{Registry, Which};
use crate::transport::{Dialer, Door, End, LineConfig, TransportError};

/// Frames that wait to be sent, at most: a few pieces.
const OUTGOING: usize = 8;
/// How often changes by others are looked for.
const LOOK: Duration = Duration::from_millis(400);
/// Wants that come together are asked for together: how long is waited for more of them.
const GATHER: Duration = Duration::from_millis(15);
/// How long is waited before the agent is dialled again, at first and at most.
const REDIAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(20);
/// How many may be at the door at once, the agent among them.
const CALLERS: usize = 16;
/// Bytes of the longest name.
const LONGEST_NAME: usize = 255;
/// How long the agent may take to be told of what was registered.
const TELLING: Duration = Duration::from_secs(20);
/// How long the agent may take to put a file into its place.
const PLACING: Duration = Duration::from_secs(300);

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It does not come about.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It was there and broke.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

type Verdict = Result<(), Reason>;

/// Transfers that wait for the agent's word, with the names of their files; none any more once the line broke.
type Transfers = Arc<Mutex<Option<Open>>>;
type Open = HashMap<u32, (String, Sender<Verdict>)>;

/// What the agent said, with its place in the order of all that it said over this line.
type Heard = (u64, FromPlace);

/// When the agent said last of a name that it is in its place: whatever it wanted before that it has.
type Settled = Arc<Mutex<HashMap<String, u64>>>;

/// What the agent says to be on disk.
#[derive(Default)]
struct Listing {
    /// What was known to be there before it was asked. Of that, whatever it does not name is gone; what another line
    /// places meanwhile stays.
    before: BTreeSet<String>,
    /// What it has named so far.
    said: BTreeSet<String>,
}

/// A line that is up.
#[derive(Clone)]
struct Up {
    number: u64,
    outgoing: mpsc::Sender<Vec<u8>>,
    transfers: Transfers,
    next: Arc<AtomicU32>,
    /// A newer line took its place.
    replaced: Arc<Notify>,
    /// The agent was told all that was registered when it greeted, so that it knows what is offered.
    is_told: Arc<AtomicBool>,
    /// Up to which change it was told.
    told: Arc<ToldUpTo>,
    /// The agent has said what is on disk, and that is in the registry: what is placed from now on is newer.
    has_listed: Arc<AtomicBool>,
}

/// Up to which change the agent was told; none once the line broke.
struct ToldUpTo {
    change: Mutex<Option<i64>>,
    changed: Condvar,
}

impl ToldUpTo {
    fn set(&self, change: Option<i64>) {
        *lock(&self.change) = change;
        self.changed.notify_all();
    }

    /// Waits until it was told of `change`; whether it was.
    fn reaches(&self, change: i64, longest: Duration) -> bool {
        let is_open = |told: &mut Option<i64>| told.is_some_and(|told| told < change);
        let waited = self.changed.wait_timeout_while(lock(&self.change), longest, is_open);
        let told = waited.unwrap_or_else(PoisonError::into_inner).0;
        told.is_some_and(|told| told >= change)
    }
}

/// The daemon's end of the line, or that of whoever places what it has and recalls nothing.
pub struct Link {
    line: LineConfig,
    registry: Arc<dyn Registry>,
    /// What is wanted; without it the line is for placing only.
    queue: Option<Arc<Queue>>,
    wake: Arc<Wake>,
    told: Notify,
    up: Mutex<Option<Up>>,
    lines: Mutex<u64>,
    /// After so long the agent is to show its certificate anew: it may have run out, or have been revoked.
    line_for: Duration,
    spool: PathBuf,
}

impl Link {
    /// A line as `line` says, which is up some time after [`Link::keep_up`] runs. What the agent wants is asked of
    /// `queue`; without one it is told that this end places only.
    pub(crate) fn new(
        line: LineConfig,
        registry: Arc<dyn Registry>,
        queue: Option<Arc<Queue>>,
        wake: Arc<Wake>,
    ) -> Self {
        Self {
            line,
            registry,
            queue,
            wake,
            told: Notify::new(),
            up: Mutex::new(None),
            lines: Mutex::new(0),
            line_for: Duration::from_secs(line::LINE_S),
            spool: std::env::temp_dir(),
        }
    }

    /// Whether the agent is there, knows what may be offered, and has said what it has.
    pub fn is_up(&self) -> bool {
        let is_ready = |up: &Up| up.is_told.load(Ordering::Acquire) && up.has_listed.load(Ordering::Acquire);
        self.up().as_ref().is_some_and(is_ready)
    }

    /// Something changed that the agent is to be told.
    pub fn tell(&self) {
        self.told.notify_one();
    }

    fn up(&self) -> MutexGuard<'_, Option<Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials or listens, again and again, for as long as it is polled.
    ///
    /// # Errors
    /// Where it cannot even begin to.
    pub async fn keep_up(self: Arc<Self>) -> Result<(), LinkError> {
        match End::open(&self.line).await? {
            End::Dialer(dialer) => self.dial(&dialer).await,
            End::Door(door) => {
                tracing::info!(address = %door.address()?, "listening for the agent");
                self.accept(&door).await;
            }
        }
        Ok(())
    }

    async fn dial(self: &Arc<Self>, dialer: &Dialer) {
        let mut pause = REDIAL.0;
        loop {
            let lines = self.count();
            let ended = async { self.converse(dialer.dial().await?).await };
            tell(ended.await);
            if self.count() > lines {
                pause = REDIAL.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(REDIAL.1);
        }
    }

    /// How many lines there have been.
    fn count(&self) -> u64 {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: &Arc<Self>, door: &Door) {
        let callers = Arc::new(Semaphore::new(CALLERS));
        loop {
            let permit = Arc::clone(&callers).acquire_owned().await;
            match door.accept().await {
                Ok(knock) => {
                    let link = Arc::clone(self);
                    tokio::spawn(async move {
                        let ended = async { link.converse(knock.let_in().await?).await };
                        tell(ended.await);
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(reason = %chain(&error), "cannot accept a connection");
                    sleep(REDIAL.0).await;
                }
            }
        }
    }

    // --- the conversation

    /// Speaks with the agent until the line breaks. A newer line takes the place of an older one.
    async fn converse<S>(self: &Arc<Self>, stream: S) -> Result<(), LinkError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let registry = Arc::clone(&self.registry);
        let is_listed = self.queue.is_some();
        let before = blocking(move || if is_listed { registry.on_disk() } else { Ok(Vec::new()) });
        let before = before.await?.into_iter().collect();
        let hello = FromDaemon::Hello {
            version: VERSION,
            registry: self.registry.id().to_owned(),
            places_only: self.queue.is_none(),
        };
        let greeted = timeout(GREETING, async {
            line::write(&mut writer, &line::message(&hello)).await?;
            line::read::<FromPlace>(&mut reader).await
        });
        let upto = match greeted.await.map_err(|_| LineError::Silent)?? {
            Frame::Message(FromPlace::Hello { version, .. }) if version != VERSION => {
                return Err(LineError::Version(version).into());
            }
            Frame::Message(FromPlace::Hello { registry, upto, .. }) => {
                let is_ours = registry.as_deref() == Some(self.registry.id());
                if is_ours { upto } else { 0 }
            }
            _ => return Err(LineError::NoHello.into()),
        };
        let registry = Arc::clone(&self.registry);
        blocking(move || registry.tell_anew(upto)).await?;
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let (heard, events) = mpsc::channel(MOST_ENTRIES);
        let (unknown, settled) = (Mutex::new(Vec::new()), Settled::default());
        let up = self.raise(outgoing.clone(), upto);
        tracing::info!(line = up.number, "the line to the agent is up");
        metrics::gauge!("recall_line_up").set(1.0);
        let ended = tokio::select! {
            ended = send(&mut writer, frames) => ended.map_err(LinkError::from),
            ended = self.hear(&mut reader, &up, heard, &settled) => ended.map_err(LinkError::from),
            ended = self.heed((events, before), &unknown, &settled, &up) => ended.map_err(LinkError::from),
            ended = self.say(outgoing, upto, &unknown, &up) => ended,
            () = up.replaced.notified() => Ok(()),
            () = self.grow_old(&up) => Ok(()),
        };
        self.lower(&up);
        tracing::warn!(line = up.number, "the line to the agent is down");
        ended
    }

    /// Waits until the line is old and nothing is on its way; at most as long again.
    async fn grow_old(&self, up: &Up) {
        sleep(self.line_for).await;
        let is_idle = || transfers(&up.transfers).as_ref().is_none_or(HashMap::is_empty);
        let idle = async {
            while !is_idle() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(self.line_for, idle).await;
        tracing::info!(
            line = up.number,
            "the line is old: the other end is to show anew who it is"
        );
    }

    fn raise(&self, outgoing: mpsc::Sender<Vec<u8>>, upto: i64) -> Up {
        let number = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            *lines += 1;
            *lines
        };
        let up = Up {
            number,
            outgoing,
            transfers: Arc::new(Mutex::new(Some(HashMap::new()))),
            next: Arc::default(),
            replaced: Arc::default(),
            is_told: Arc::default(),
            told: Arc::new(ToldUpTo {
                change: Mutex::new(Some(upto)),
                changed: Condvar::new(),
            }),
            has_listed: Arc::default(),
        };
        if let Some(older) = self.up().replace(up.clone()) {
            older.replaced.notify_one();
        }
        up
    }

    fn lower(&self, up: &Up) {
        let mut current = self.up();
        if current.as_ref().is_some_and(|current| current.number == up.number) {
            *current = None;
            metrics::gauge!("recall_line_up").set(0.0);
        }
        drop(current);
        // whoever waits for a word on a transfer, or to go on, finds that none comes
        *transfers(&up.transfers) = None;
        up.told.set(None);
    }

    /// Reads what the agent says; what is about transfers is handed on at once, the rest in turn.
    async fn hear(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        up: &Up,
        heard: mpsc::Sender<Heard>,
        settled: &Settled,
    ) -> Result<(), LineError> {
        for number in 0.. {
            let read = timeout(Duration::from_secs(SILENCE_S), line::read::<FromPlace>(reader)).await;
            let Frame::Message(message) = read.map_err(|_| LineError::Silent)?? else {
                return Err(LineError::Strange);
            };
            match message {
                FromPlace::Placed { transfer } => {
                    let noted = |name| lock(settled).insert(name, number);
                    verdict(up, transfer, Ok(()), noted);
                }
                FromPlace::NotPlaced { transfer, reason } => verdict(up, transfer, Err(reason), |_| None),
                FromPlace::Ping => {}
                FromPlace::Hello { .. } => return Err(LineError::Strange),
                ref other if !is_fit(other) => return Err(LineError::Strange),
                other => heard.send((number, other)).await.map_err(|_| LineError::Closed)?,
            }
        }
        Ok(())
    }

    /// Does what the agent says, as much at once as it has said.
    async fn heed(
        self: &Arc<Self>,
        (mut events, before): (mpsc::Receiver<Heard>, BTreeSet<String>),
        unknown: &Mutex<Vec<String>>,
        settled: &Settled,
        up: &Up,
    ) -> Result<(), LineError> {
        let mut listing = Listing {
            before,
            ..Listing::default()
        };
        loop {
            let mut heard = Vec::new();
            if events.recv_many(&mut heard, MOST_ENTRIES).await == 0 {
                return Err(LineError::Closed);
            }
            if heard.iter().any(|(_, one)| matches!(one, FromPlace::Want { .. })) {
                sleep(GATHER).await;
                while let Ok(more) = events.try_recv() {
                    heard.push(more);
                }
            }
            let heard = timely(heard, &mut lock(settled));
            let has_listed = heard
                .iter()
                .any(|one| matches!(one, FromPlace::OnDisk { last: true, .. }));
            let link = Arc::clone(self);
            let listed = std::mem::take(&mut listing);
            let done = tokio::task::spawn_blocking(move || link.do_all(heard, listed)).await;
            match done {
                Ok(Ok((left, strangers))) => {
                    listing = left;
                    unknown.lock().unwrap_or_else(PoisonError::into_inner).extend(strangers);
                    up.has_listed.fetch_or(has_listed, Ordering::AcqRel);
                }
                // the agent says it again over the next line
                Ok(Err(error)) => {
                    tracing::error!(reason = %chain(&error), "the database cannot be used");
                    return Err(LineError::Closed);
                }
                Err(_) => return Err(LineError::Closed),
            }
            self.tell();
            self.wake.wake();
        }
    }

    /// Answers what was listed of which not all was said yet, and names that nobody registered.
    fn do_all(&self, heard: Vec<FromPlace>, mut listing: Listing) -> Result<(Listing, Vec<String>), DatabaseError> {
        let mut wants: Vec<Vec<String>> = vec![Vec::new(); 4];
        let (mut unwanted, mut evicted) = (Vec::new(), Vec::new());
        for message in heard {
            match message {
                FromPlace::Want { name, priority } => wants[usize::from(priority.min(3))].push(name),
                FromPlace::Unwant { name } => {
                    wants.iter_mut().for_each(|names| names.retain(|other| *other != name));
                    unwanted.push(name);
                }
                FromPlace::Evicted { name } => evicted.push(name),
                FromPlace::OnDisk { names, last } => {
                    // only what is registered, once: however much is said, it ends somewhere
                    listing.said.extend(
                        self.registry
                            .find(&Which::Names(&names))?
                            .into_iter()
                            .map(|one| one.name),
                    );
                    if last {
                        let Listing { before, said } = std::mem::take(&mut listing);
                        let gone: Vec<String> = before.difference(&said).cloned().collect();
                        self.registry.set_on_disk(&gone, false)?;
                        let new: Vec<String> = said.difference(&before).cloned().collect();
                        self.registry.set_on_disk(&new, true)?;
                    }
                }
                _ => {}
            }
        }
        self.registry.set_on_disk(&evicted, false)?;
        let Some(queue) = &self.queue else {
            return Ok((listing, Vec::new()));
        };
        if !unwanted.is_empty() {
            queue.unwant(&unwanted, queue.now_ms())?;
        }
        let mut unknown = Vec::new();
        for (priority, names) in (0u8..).zip(wants).filter(|(_, names)| !names.is_empty()) {
            // whoever wants it does not have it
            self.registry.set_on_disk(&names, false)?;
            let asked = queue.ask(&names, priority, queue.now_ms())?;
            let strangers = names
                .into_iter()
                .zip(asked)
                .filter(|(_, asked)| *asked == Asked::Unknown);
            unknown.extend(strangers.map(|(name, _)| name));
        }
        Ok((listing, unknown))
    }

    /// Says what changed: entries, what became of wants, what is to be evicted.
    async fn say(
        self: &Arc<Self>,
        outgoing: mpsc::Sender<Vec<u8>>,
        mut upto: i64,
        unknown: &Mutex<Vec<String>>,
        up: &Up,
    ) -> Result<(), LinkError> {
        let queue = self.queue.clone();
        let mut seen = blocking(move || queue.map_or(Ok(0), |queue| queue.last_change())).await?;
        loop {
            let (registry, queue) = (Arc::clone(&self.registry), self.queue.clone());
            let looked = blocking(move || {
                let (entries, last) = registry.changes(upto, MOST_ENTRIES)?;
                if !entries.is_empty() {
                    registry.set_told(last)?;
                }
                let requests = queue.map_or(Ok(Vec::new()), |queue| queue.changes(seen, MOST_ENTRIES))?;
                Ok((entries, last, requests, registry.evictions()?))
            });
            let (entries, last, requests, evictions) = looked.await?;
            let strangers = std::mem::take(&mut *unknown.lock().unwrap_or_else(PoisonError::into_inner));
            let is_more = entries.len() == MOST_ENTRIES || requests.len() == MOST_ENTRIES;
            let mut messages = Vec::new();
            if !entries.is_empty() {
                upto = last;
                messages.push(FromDaemon::Entries { entries, upto });
            }
            for request in requests {
                seen = request.change;
                if let Some(news) = news(&request) {
                    let name = request.name;
                    messages.push(FromDaemon::News { name, news });
                }
            }
            messages.extend(strangers.into_iter().map(|name| FromDaemon::News {
                name,
                news: News::Failed {
                    reason: Reason::Unknown,
                },
            }));
            let (is_evicting, told) = (!evictions.is_empty(), evictions.clone());
            messages.extend(evictions.into_iter().map(|name| FromDaemon::Evict { name }));
            for message in messages {
                let sent = outgoing.send(line::message(&message)).await;
                sent.map_err(|_| LineError::Closed)?;
            }
            // whatever is offered from now on comes behind it
            up.told.set(Some(upto));
            if is_evicting {
                let registry = Arc::clone(&self.registry);
                blocking(move || registry.forget_evictions(&told)).await?;
            }
            if !is_more {
                if !up.is_told.swap(true, Ordering::AcqRel) {
                    self.wake.wake();
                }
                let _ = timeout(LOOK, self.told.notified()).await;
            }
        }
    }
}

/// What the agent is told of a request; that a file is in its place it knows itself.
fn news(request: &Request) -> Option<News> {
    let reason = request.reason.unwrap_or(Reason::Other);
    match request.state {
        State::Queued => Some(News::Queued),
        State::Running => Some(News::Started),
        State::Waiting => Some(News::Waiting { reason }),
        State::Failed | State::Cancelled => Some(News::Failed { reason }),
        State::Placed => None,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, LinkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(LineError::Closed.into()),
    }
}

/// Sends what there is to send, and something now and then where there is nothing.
async fn send(writer: &mut (impl AsyncWrite + Unpin), mut frames: mpsc::Receiver<Vec<u8>>) -> Result<(), LineError> {
    let ping = line::message(&FromDaemon::Ping);
    loop {
        let frame = match timeout(Duration::from_secs(PING_S), frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(LineError::Closed),
            Err(_) => ping.clone(),
        };
        // an agent that takes nothing for so long is none
        let sent = timeout(Duration::from_secs(SILENCE_S), line::write(writer, &frame)).await;
        sent.map_err(|_| LineError::Silent)??;
    }
}

/// Of what was heard, what still counts: a want is over if the file came to its place after it was said, for whatever
/// reason it was sent, and what was evicted before that is there again.
fn timely(heard: Vec<Heard>, settled: &mut HashMap<String, u64>) -> Vec<FromPlace> {
    let last = heard.last().map_or(0, |(number, _)| *number);
    let counts = |(number, message): &Heard| match message {
        FromPlace::Want { name, .. } | FromPlace::Evicted { name } => {
            settled.get(name).is_none_or(|placed| placed < number)
        }
        _ => true,
    };
    let timely = heard.into_iter().filter(counts).map(|(_, message)| message).collect();
    // nothing that was said before these is still to be heard
    settled.retain(|_, placed| *placed > last);
    timely
}

/// Whether a message is no longer than what is registered could make it.
fn is_fit(message: &FromPlace) -> bool {
    let fits = |name: &String| name.len() <= LONGEST_NAME;
    match message {
        FromPlace::OnDisk { names, .. } => names.len() <= MOST_ENTRIES && names.iter().all(fits),
        FromPlace::Want { name, .. } | FromPlace::Unwant { name } | FromPlace::Evicted { name } => fits(name),
        _ => true,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn transfers(transfers: &Transfers) -> MutexGuard<'_, Option<Open>> {
    transfers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn verdict(up: &Up, transfer: u32, verdict: Verdict, note: impl FnOnce(String) -> Option<u64>) {
    let waiting = transfers(&up.transfers)
        .as_mut()
        .and_then(|open| open.remove(&transfer));
    if let Some((name, waiting)) = waiting {
        note(name);
        // whoever gave up waiting has abandoned it
        let _ = waiting.send(verdict);
    }
}

fn tell(ended: Result<(), LinkError>) {
    if let Err(error) = ended {
        tracing::warn!(reason = %chain(&error), "no line to the agent");
    }
}

// --- files over the line

impl Destination for Link {
    fn placer(&self) -> Box<dyn Placer + '_> {
        Box::new(OverLine {
            link: self,
            finished: Vec::new(),
        })
    }

    fn spool(&self) -> &Path {
        &self.spool
    }

    fn is_away(&self) -> bool {
        self.up().is_none()
    }

    fn takes_only_registered(&self) -> bool {
        true
    }

    fn tell_registered(&self) -> Result<(), InstanceError> {
        let away = || InstanceError::NotTaken(Reason::Storage);
        let up = self.up().clone().ok_or_else(away)?;
        let change = self.registry.last_change().map_err(|error| {
            tracing::error!(reason = %chain(&error), "the database cannot be used");
            away()
        })?;
        self.tell();
        up.told.reaches(change, TELLING).then_some(()).ok_or_else(away)
    }

    fn take_away(&self, registry: &dyn Registry, names: &[String]) -> Result<(), DatabaseError> {
        registry.wish_evicted(names)
    }
}

/// Files of one thread of which the agent has not said yet that they are in their place.
struct OverLine<'a> {
    link: &'a Link,
    finished: Vec<(usize, Transfer, String)>,
}

impl Placer for OverLine<'_> {
    fn place(&mut self, number: usize, item: &Item, seal: &mut SealInto<'_>) -> Result<Sealed, InstanceError> {
        let away = || InstanceError::NotTaken(Reason::Storage);
        let up = self.link.up().clone().ok_or_else(away)?;
        let mut transfer = Transfer::offer(up, &item.target.name, item.expected.size).ok_or_else(away)?;
        let mut hashing = Hashing::new(Some(&mut transfer));
        let sealed = seal(&mut hashing);
        let sha256 = hashing.finish();
        let sealed = sealed.map_err(|error| match transfer.refused {
            Some(reason) => InstanceError::NotTaken(reason),
            None => error,
        })?;
        item.expected.check(sealed.sealed.file_bytes, Some(&sha256))?;
        transfer
            .finish(sealed.sealed.file_bytes, &sha256)
            .map_err(InstanceError::NotTaken)?;
        self.finished.push((number, transfer, sha256));
        Ok(sealed)
    }

    fn finish(&mut self) -> Vec<(usize, Result<Option<String>, InstanceError>)> {
        let finished = std::mem::take(&mut self.finished).into_iter();
        let wait = |(number, transfer, sha256): (usize, Transfer, String)| {
            let taken = transfer.wait().map_err(InstanceError::NotTaken);
            (number, taken.map(|()| Some(sha256)))
        };
        finished.map(wait).collect()
    }
}

/// A file on its way. Dropped before it was finished it is abandoned.
struct Transfer {
    up: Up,
    number: u32,
    piece: Vec<u8>,
    verdict: Receiver<Verdict>,
    /// Why it is not taken, if that is known.
    refused: Option<Reason>,
    is_finished: bool,
}

impl Transfer {
    /// None where the line is down.
    fn offer(up: Up, name: &str, size: Option<u64>) -> Option<Self> {
        let number = up.next.fetch_add(1, Ordering::Relaxed);
        let (sender, verdict) = channel();
        transfers(&up.transfers)
            .as_mut()?
            .insert(number, (name.to_owned(), sender));
        let transfer = Self {
            up,
            number,
            piece: Vec::with_capacity(LONGEST_PIECE),
            verdict,
            refused: None,
            is_finished: false,
        };
        let offer = FromDaemon::Offer {
            transfer: number,
            name: name.to_owned(),
            size,
        };
        transfer.send(line::message(&offer)).ok()?;
        Some(transfer)
    }

    fn send(&self, frame: Vec<u8>) -> Result<(), Reason> {
        self.up.outgoing.blocking_send(frame).map_err(|_| Reason::Storage)
    }

    /// Sends the piece that is full, unless the agent has said meanwhile that it does not want more.
    fn send_piece(&mut self) -> Result<(), Reason> {
        match self.verdict.try_recv() {
            Ok(Err(reason)) => return Err(reason),
            // in its place before it was whole: nonsense
            Ok(Ok(())) | Err(TryRecvError::Disconnected) => return Err(Reason::Storage),
            Err(TryRecvError::Empty) => {}
        }
        if !self.piece.is_empty() {
            self.send(line::piece(self.number, &self.piece))?;
            self.piece.clear();
        }
        Ok(())
    }

    fn finish(&mut self, size: u64, sha256: &str) -> Result<(), Reason> {
        self.send_piece()?;
        let finish = FromDaemon::Finish {
            transfer: self.number,
            size,
            sha256: sha256.to_owned(),
        };
        self.send(line::message(&finish))?;
        self.is_finished = true;
        Ok(())
    }

    /// Waits for the agent's word.
    fn wait(&self) -> Verdict {
        match self.verdict.recv_timeout(PLACING) {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Reason::Storage),
        }
    }
}

impl Write for Transfer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == LONGEST_PIECE {
            self.send_piece().map_err(|reason| {
                self.refused = Some(reason);
                io::Error::other(reason.text())
            })?;
        }
        let count = bytes.len().min(LONGEST_PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(open) = transfers(&self.up.transfers).as_mut() {
            open.remove(&self.number);
        }
        if !self.is_finished {
            let abandon = FromDaemon::Abandon { transfer: self.number };
            let _ = self.send(line::message(&abandon));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Rules;
    use crate::registry::LocalRegistry;
    use crate::registry::tests::{Make, on_files, sample};
    use crate::transport::{Address, Role};

    /// A daemon's end, with three files registered of which the first two are on disk; their names.
    fn link(make: Make<'_>, line_for: Duration) -> (Arc<Link>, Vec<String>) {
        let database = make();
        let registry = LocalRegistry::new(Arc::clone(&database));
        let files = [11, 12, 21].map(sample);
        registry.add(&files).unwrap();
        let names = files.map(|one| one.name).to_vec();
        registry.set_on_disk(&names[..2], true).unwrap();
        let line = LineConfig {
            address: Address::Unix(PathBuf::new()),
            role: Role::Connect,
            security: None,
            mode: 0,
        };
        let queue = Arc::new(Queue::new(database, Rules::default()));
        let mut link = Link::new(line, Arc::new(registry), Some(queue), Arc::default());
        link.line_for = line_for;
        (Arc::new(link), names)
    }

    /// Greets as an agent does, and says what is on disk once `meanwhile` happened.
    async fn greet(stream: &mut tokio::io::DuplexStream, on_disk: &[String], meanwhile: impl FnOnce()) {
        let say = |message: &FromPlace| line::message(message);
        let hello = FromPlace::Hello {
            version: VERSION,
            registry: None,
            upto: 0,
        };
        line::write(stream, &say(&hello)).await.unwrap();
        let heard = line::read::<FromDaemon>(stream).await.unwrap();
        assert!(matches!(heard, Frame::Message(FromDaemon::Hello { .. })), "{heard:?}");
        meanwhile();
        let names = on_disk.to_vec();
        let listed = FromPlace::OnDisk { names, last: true };
        line::write(stream, &say(&listed)).await.unwrap();
    }

    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn what_another_line_places_meanwhile_is_not_taken_for_gone() {
        on_files(|make| {
            let (link, names) = link(make, Duration::from_secs(60));
            run(async {
                let (ours, mut theirs) = tokio::io::duplex(1 << 16);
                let conversing = Arc::clone(&link);
                tokio::spawn(async move { conversing.converse(ours).await });
                let placed = || link.registry.set_on_disk(&names[2..], true).unwrap();
                greet(&mut theirs, &names[..1], placed).await;
                while !link.is_up() {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            let mut on_disk = link.registry.on_disk().unwrap();
            on_disk.sort();
            assert_eq!(on_disk, [names[0].as_str(), names[2].as_str()]);
        });
    }

    #[test]
    fn an_old_line_ends_though_the_other_end_goes_on() {
        on_files(|make| {
            let (link, names) = link(make, Duration::from_millis(20));
            run(async {
                let (ours, mut theirs) = tokio::io::duplex(1 << 16);
                let greeted = greet(&mut theirs, &names, || {});
                let (ended, ()) = tokio::join!(link.converse(ours), greeted);
                ended.unwrap();
                assert!(!link.is_up());
            });
        });
    }

    #[test]
    fn what_was_wanted_before_it_came_is_not_wanted_any_more() {
        let want = |name: &str| FromPlace::Want {
            name: name.to_owned(),
            priority: 1,
        };
        let mut settled = HashMap::from([("/a".to_owned(), 3), ("/b".to_owned(), 3), ("/late".to_owned(), 9)]);
        let evicted = |name: &str| FromPlace::Evicted { name: name.to_owned() };
        let heard = vec![
            (1, want("/a")),
            (1, evicted("/a")),
            (2, want("/c")),
            (4, want("/b")),
            (4, evicted("/b")),
        ];
        assert_eq!(timely(heard, &mut settled), [want("/c"), want("/b"), evicted("/b")]);
        // only what may still be overtaken is remembered
        assert_eq!(settled, HashMap::from([("/late".to_owned(), 9)]));
    }
}
