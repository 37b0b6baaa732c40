//! The agent's end of the line: greets, takes entries and files, says what is wanted. A line that breaks leaves nothing
//! half done, and is taken up again (`docs/src/formats/recall-line.md`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hydra_cli::{Code, Failure};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::config::PlaceConfig;
use super::files::Part;
use super::{Agent, Line};
use crate::errors::chain;
use crate::line::{
    self, Entry, Frame, FromDaemon, FromPlace, LINE_S, LineError, MOST_ENTRIES, PING_S, Reason, SILENCE_S,
};
use crate::transport::{Dialer, Door, End, Stream, TransportError};

/// A line that a daemon leaves up for so long: its certificate may have run out, or have been revoked.
const OLDEST: Duration = Duration::from_secs(3 * LINE_S);
/// For the other end's greeting.
const HELLO: Duration = Duration::from_secs(20);
/// Between attempts to reach the daemon, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Lines at once: several daemons may work on one queue.
const MOST_LINES: usize = 8;
/// Connections at once that have not shown yet who they are: they take no line's place.
const MOST_KNOCKS: usize = 256;
/// Files at once on a line.
const MOST_TRANSFERS: usize = 256;

/// Our ends of all lines: where we dial there may be several.
pub(super) async fn open(config: &PlaceConfig) -> Result<Vec<End>, Failure> {
    let mut ends = Vec::with_capacity(config.lines.len());
    for line in &config.lines {
        let end = End::open(line).await;
        ends.push(end.map_err(|error| Failure::new(Code::Config, error))?);
    }
    Ok(ends)
}

/// Keeps the line up, for ever.
pub(super) async fn keep(agent: Arc<Agent>, end: End) {
    match end {
        End::Dialer(dialer) => keep_dialing(&agent, &dialer).await,
        End::Door(door) => keep_listening(&agent, &door).await,
    }
}

async fn keep_dialing(agent: &Arc<Agent>, dialer: &Dialer) {
    let mut wait = AGAIN.0;
    loop {
        match dialer.dial().await {
            Ok(stream) => {
                // a daemon that greets and breaks off at once is not to be dialed without end
                if attend(agent, stream).await {
                    wait = AGAIN.0;
                }
            }
            Err(error) => not_reached(&error),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn keep_listening(agent: &Arc<Agent>, door: &Door) {
    if let Ok(address) = door.address() {
        tracing::info!(%address, "waiting for the daemon");
    }
    let lines = Arc::new(tokio::sync::Semaphore::new(MOST_LINES));
    let knocks = Arc::new(tokio::sync::Semaphore::new(MOST_KNOCKS));
    loop {
        let knock = match door.accept().await {
            Ok(knock) => knock,
            Err(error) => {
                not_reached(&error);
                tokio::time::sleep(AGAIN.0).await;
                continue;
            }
        };
        let Ok(at_door) = Arc::clone(&knocks).try_acquire_owned() else {
            continue;
        };
        let (agent, lines) = (Arc::clone(agent), Arc::clone(&lines));
        tokio::spawn(async move {
            match knock.let_in().await {
                Ok(stream) => {
                    drop(at_door);
                    if let Ok(_permit) = lines.try_acquire_owned() {
                        attend(&agent, stream).await;
                    }
                }
                Err(error) => not_reached(&error),
            }
        });
    }
}

fn not_reached(error: &TransportError) {
    metrics::counter!("recall_line_failed").increment(1);
    tracing::warn!(reason = %chain(error), "no line to the daemon");
}

/// Attends to a line until it breaks; whether it came as far as both greetings.
async fn attend(agent: &Arc<Agent>, stream: Stream) -> bool {
    let mut session = match Session::greet(agent, stream).await {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(reason = %chain(&error), "no line to the daemon");
            return false;
        }
    };
    tracing::info!("the line to the daemon is up");
    let error = session.listen().await;
    tracing::warn!(reason = %chain(&error), "the line to the daemon broke");
    true
}

/// The task that writes, and the place among the lines, end with this.
struct Registered<'a> {
    agent: &'a Arc<Agent>,
    number: u64,
    writer: tokio::task::JoinHandle<()>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let left = {
            let mut lines = self.agent.lines();
            lines.remove(&self.number);
            lines.len()
        };
        metrics::gauge!("recall_lines").set(super::to_f64(left as u64));
        self.writer.abort();
    }
}

/// A file that comes, as far as it is there, and what it has to be.
struct Transfer {
    part: Part,
    entry: Entry,
}

impl Agent {
    /// Says what is on disk. Answers it.
    fn say_files(&self, say: &mpsc::UnboundedSender<FromPlace>) -> Result<Vec<String>, super::MirrorError> {
        let files = self.mirror().files()?;
        let names: Vec<String> = files
            .into_iter()
            .filter(|(name, size)| self.root.size_of(name) == Some(*size))
            .map(|(name, _)| name)
            .collect();
        let mut pieces = names.chunks(MOST_ENTRIES).peekable();
        if pieces.peek().is_none() {
            let (names, last) = (Vec::new(), true);
            let _ = say.send(FromPlace::OnDisk { names, last });
        }
        while let Some(piece) = pieces.next() {
            let (names, last) = (piece.to_vec(), pieces.peek().is_none());
            let _ = say.send(FromPlace::OnDisk { names, last });
        }
        Ok(names)
    }
}

struct Session<'a> {
    agent: &'a Arc<Agent>,
    from: tokio::io::ReadHalf<Stream>,
    say: mpsc::UnboundedSender<FromPlace>,
    transfers: HashMap<u32, Transfer>,
    _registered: Registered<'a>,
}

impl<'a> Session<'a> {
    async fn greet(agent: &'a Arc<Agent>, stream: Stream) -> Result<Self, LineError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (mut from, mut to) = tokio::io::split(stream);
        let known = block_in_place(|| agent.mirror().registry()).map_err(database)?;
        let (registry, upto) = known.map_or((None, 0), |(id, upto)| (Some(id), upto));
        let hello = FromPlace::Hello {
            version: line::VERSION,
            registry,
            upto,
        };
        let greeted = async {
            line::write(&mut to, &line::message(&hello)).await?;
            line::read::<FromDaemon>(&mut from).await
        };
        let (registry, places_only) = match timeout(HELLO, greeted).await.map_err(|_| LineError::Silent)?? {
            Frame::Message(FromDaemon::Hello { version, .. }) if version != line::VERSION => {
                return Err(LineError::Version(version));
            }
            Frame::Message(FromDaemon::Hello {
                registry, places_only, ..
            }) => (registry, places_only),
            _ => return Err(LineError::NoHello),
        };
        // one after the other, so that of two registries only one is let in
        let greeting = agent.greeting.lock().await;
        if !block_in_place(|| agent.greet(&registry)).map_err(database)? {
            let other = "a daemon with another registry is there";
            return Err(LineError::Io(std::io::Error::other(other)));
        }
        let (say, said) = mpsc::unbounded_channel();
        // its pings tell the other end that we are there while the files are looked at
        let writer = tokio::spawn(write_all(to, said));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // said first, and looked at again once the line hears of what goes meanwhile
        let there = match places_only {
            true => Vec::new(),
            false => block_in_place(|| agent.say_files(&say)).map_err(database)?,
        };
        let line = Line {
            registry,
            places_only,
            say: say.clone(),
        };
        let lines = {
            let mut lines = agent.lines();
            lines.insert(number, line);
            lines.len()
        };
        drop(greeting);
        metrics::gauge!("recall_lines").set(super::to_f64(lines as u64));
        let session = Self {
            agent,
            from,
            say,
            transfers: HashMap::new(),
            _registered: Registered { agent, number, writer },
        };
        if !places_only {
            block_in_place(|| session.begin(there))?;
        }
        Ok(session)
    }

    /// Everything that is wanted: also what the daemon knew, for it may have missed an answer or we its news.
    fn begin(&self, there: Vec<String>) -> Result<(), LineError> {
        for name in there {
            if self.agent.root.size_of(&name).is_none() {
                self.say(FromPlace::Evicted { name });
            }
        }
        let wants = self.agent.mirror().wants().map_err(database)?;
        for (name, priority) in wants {
            self.say(FromPlace::Want { name, priority });
        }
        Ok(())
    }

    fn say(&self, message: FromPlace) {
        // where the writer is gone the reader notices as well
        let _ = self.say.send(message);
    }

    /// Takes what comes, until nothing does.
    async fn listen(&mut self) -> LineError {
        let began = Instant::now();
        loop {
            if began.elapsed() > OLDEST {
                return LineError::Old;
            }
            let frame = match timeout(Duration::from_secs(SILENCE_S), line::read(&mut self.from)).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return error,
                Err(_) => return LineError::Silent,
            };
            // the line waits while the disk does: what the daemon sends is held back by it
            if let Err(error) = block_in_place(|| self.take(frame)) {
                return error;
            }
        }
    }

    fn take(&mut self, frame: Frame<FromDaemon>) -> Result<(), LineError> {
        match frame {
            Frame::Piece { transfer, bytes } => self.piece(transfer, &bytes),
            Frame::Message(FromDaemon::Hello { .. }) => return Err(LineError::NoHello),
            Frame::Message(FromDaemon::Entries { entries, upto }) => {
                self.agent.entries(&entries, upto).map_err(database)?;
            }
            Frame::Message(FromDaemon::News { name, news }) => {
                self.agent.news(&name, &news).map_err(database)?;
            }
            Frame::Message(FromDaemon::Offer { transfer, name, size }) => self.offer(transfer, &name, size),
            Frame::Message(FromDaemon::Finish { transfer, size, sha256 }) => self.finish(transfer, size, sha256),
            Frame::Message(FromDaemon::Abandon { transfer }) => drop(self.transfers.remove(&transfer)),
            Frame::Message(FromDaemon::Evict { name }) => {
                // the hospital's word stands above what a request holds
                self.agent.evict(&[name], true).map_err(database)?;
            }
            Frame::Message(FromDaemon::Ping) => {}
        }
        Ok(())
    }

    fn offer(&mut self, transfer: u32, name: &str, size: Option<u64>) {
        let begun = if self.transfers.len() >= MOST_TRANSFERS {
            Err(Reason::Storage)
        } else {
            self.agent.offered(name, size).and_then(|entry| {
                let part = self.agent.root.part().map_err(|error| {
                    tracing::warn!(name, reason = %chain(&error), "not placed");
                    error.reason()
                })?;
                Ok(Transfer { part, entry })
            })
        };
        match begun {
            Ok(begun) => drop(self.transfers.insert(transfer, begun)),
            Err(reason) => self.refuse(transfer, reason),
        }
    }

    fn refuse(&mut self, transfer: u32, reason: Reason) {
        metrics::counter!("recall_not_placed", "reason" => reason.word()).increment(1);
        // pieces and the end of what is not known are dropped
        self.transfers.remove(&transfer);
        self.say(FromPlace::NotPlaced { transfer, reason });
    }

    fn piece(&mut self, transfer: u32, bytes: &[u8]) {
        let Some(Transfer { part, entry }) = self.transfers.get_mut(&transfer) else {
            return;
        };
        let is_too_long = entry.size.is_some_and(|size| part.size() + bytes.len() as u64 > size);
        let written = if is_too_long {
            Err(Reason::Changed)
        } else {
            part.write(bytes).map_err(|error| {
                tracing::warn!(name = entry.name, reason = %chain(&error), "not placed");
                error.reason()
            })
        };
        if let Err(reason) = written {
            self.refuse(transfer, reason);
        }
    }

    fn finish(&mut self, transfer: u32, size: u64, sha256: String) {
        let Some(Transfer { part, entry }) = self.transfers.remove(&transfer) else {
            return;
        };
        let (agent, say) = (Arc::clone(self.agent), self.say.clone());
        // flushing takes its time: other files go on meanwhile
        tokio::task::spawn_blocking(move || {
            let answer = match agent.finish(part, &entry, size, &sha256) {
                Ok(()) => FromPlace::Placed { transfer },
                Err(error) => {
                    let reason = error.reason();
                    metrics::counter!("recall_not_placed", "reason" => reason.word()).increment(1);
                    tracing::warn!(name = entry.name, reason = %chain(&error), "not placed");
                    FromPlace::NotPlaced { transfer, reason }
                }
            };
            let _ = say.send(answer);
        });
    }
}

fn database(error: super::MirrorError) -> LineError {
    LineError::Io(std::io::Error::other(error))
}

/// Writes what is said, and a ping where nothing is.
async fn write_all(mut to: tokio::io::WriteHalf<Stream>, mut said: mpsc::UnboundedReceiver<FromPlace>) {
    loop {
        let message = match timeout(Duration::from_secs(PING_S), said.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(_) => FromPlace::Ping,
        };
        let mut frames = line::message(&message);
        while frames.len() < line::LONGEST_PIECE {
            match said.try_recv() {
                Ok(message) => frames.extend(line::message(&message)),
                Err(_) => break,
            }
        }
        let written = timeout(Duration::from_secs(SILENCE_S), line::write(&mut to, &frames)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    // so that the other end, and our reader, see the end
    let _ = to.shutdown().await;
}
