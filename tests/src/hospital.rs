//! The hospital's end of a line to an agent, as a script plays it: a single conversation that a test leads itself, or a
//! daemon that sends what it was given to whoever wants it. And the agent, as a process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dicom_recall::ask;
use dicom_recall::line::{self, Entry, Frame, FromDaemon, FromPlace, News, Reason};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::door::wait_for;
use crate::program;
use crate::site::{give, unprivileged};

/// SHA-256 as the line has it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The entry of a file whose bytes are known.
pub fn entry(name: &str, bytes: &[u8]) -> Entry {
    Entry {
        name: name.to_owned(),
        size: Some(bytes.len() as u64),
        sha256: Some(sha256(bytes)),
        registered_at: 1_700_000_000,
        gone: false,
    }
}

/// An agent as a process, in a folder of its own.
pub struct Place {
    folder: TempDir,
    child: Option<Child>,
    more: String,
    /// Whether it runs as the servers' user.
    is_unprivileged: bool,
    /// Where strace writes what it gives to the system and gets from it.
    trace: Option<TempDir>,
}

impl Place {
    /// Starts one that waits for its daemon on a Unix socket; `more` is added to its configuration.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(more: &str) -> Self {
        Self::begin(false, false, more)
    }

    /// As [`Self::start`], but as the user that servers of storage elements run as in tests.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_unprivileged(more: &str) -> Self {
        Self::begin(true, false, more)
    }

    /// As [`Self::start_unprivileged`], with strace over it from its first call on.
    ///
    /// # Panics
    /// If it does not come up, or may not be watched.
    pub fn start_watched(more: &str) -> Self {
        Self::begin(true, true, more)
    }

    fn begin(is_unprivileged: bool, is_watched: bool, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("se")).expect("a folder");
        if is_unprivileged {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode can be set");
            give(folder.path());
            give(&folder.path().join("se"));
        }
        let mut place = Self {
            folder,
            child: None,
            more: more.to_owned(),
            is_unprivileged,
            trace: is_watched.then(|| tempfile::tempdir().expect("a temporary folder")),
        };
        place.restart();
        place
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        let (global, tables) = match self.more.find('[') {
            Some(at) => self.more.split_at(at),
            None => (self.more.as_str(), ""),
        };
        let line = if tables.contains("[line]") {
            ""
        } else {
            "[line]\nlisten = \"unix:line\"\n"
        };
        let root = if global.contains("root =") {
            ""
        } else {
            "root = \"se\"\n"
        };
        let config = format!("{root}database = \"place.sqlite\"\nlog = \"debug\"\n{global}{line}");
        let ask = if tables.contains("[ask]") {
            ""
        } else {
            "[ask]\nsocket = \"ask\"\n"
        };
        fs::write(self.path("place.toml"), format!("{config}{ask}{tables}")).expect("it can be written");
        let mut command = match self.is_unprivileged {
            true => unprivileged(program("dicom-recall")),
            false => Command::new(program("dicom-recall")),
        };
        if let Some(trace) = &self.trace {
            command = watched(&command, &trace.path().join("thread"));
        }
        let log = fs::File::options().create(true).append(true).open(self.path("log"));
        let mut child = command
            .arg("place")
            .arg(self.path("place.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the agent starts");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut said).expect("it says something");
        assert!(said.starts_with("listening on "), "{said}{}", self.log());
        self.child = Some(child);
    }

    /// Has another configuration from its next start on.
    pub fn set(&mut self, more: &str) {
        more.clone_into(&mut self.more);
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as an operator does; its exit code.
    ///
    /// # Panics
    /// If it does not run.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::TERM).expect("it is ours");
        child.wait().expect("it ends").code()
    }

    /// Kills it, and answers what it gave to the system and got from it, as strace wrote it down: of each thread, what
    /// went by each call over each file descriptor.
    ///
    /// # Panics
    /// If it was not watched, or strace may not watch here.
    pub fn traced(&mut self) -> Vec<Vec<u8>> {
        self.kill();
        let folder = self.trace.as_ref().expect("it is watched").path().to_owned();
        let threads = || {
            let entries = fs::read_dir(&folder).expect("a folder").map(Result::unwrap);
            entries.map(|entry| fs::read_to_string(entry.path()).expect("a trace"))
        };
        assert!(
            threads().count() > 0,
            "strace watched nothing, is ptrace refused? {}",
            self.log()
        );
        wait_for("strace's last word", || {
            threads().all(|thread| thread.trim_end().ends_with("+++"))
        });
        let mut all = Vec::new();
        for thread in threads() {
            assert!(!thread.contains("\"..."), "strace cut something short");
            let mut streams: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
            for line in thread.lines() {
                // every second part stands between quotes, a call may have several
                let mut parts = line.split('"');
                let stream = streams.entry(parts.next().unwrap_or("")).or_default();
                for part in parts.step_by(2) {
                    let bytes = part.split("\\x").skip(1);
                    stream.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
                }
            }
            all.extend(streams.into_values());
        }
        all
    }

    /// Something in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the file of a name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path(&format!("se{name}"))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Asks it.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn ask(&self, ask: &ask::Ask) -> ask::Answer {
        let mut agent = ask::Agent::connect(&self.path("ask")).expect("it listens");
        agent.ask(ask).expect("it answers")
    }

    /// What it says of a name.
    ///
    /// # Panics
    /// If it says something else.
    pub fn stat(&self, name: &str) -> ask::FileStatus {
        let names = vec![name.to_owned()];
        match self.ask(&ask::Ask::Stat { names }) {
            ask::Answer::Files { files } if files.len() == 1 => files.into_iter().next().expect("one file"),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a file and waits.
    pub fn stage(&self, name: &str, deadline_s: u64) -> ask::Answer {
        self.ask(&ask::Ask::Stage {
            name: name.to_owned(),
            path: None,
            deadline_s,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command with strace over it and its threads, each with a file of its own. The command stays our child.
fn watched(command: &Command, prefix: &Path) -> Command {
    let mut watched = Command::new("strace");
    // whatever carries bytes or names; all bytes, as digits
    watched.args([
        "-D",
        "-ff",
        "-xx",
        "-s",
        "2097152",
        "-e",
        "trace=%desc,%file,%network,%process",
        "-o",
    ]);
    watched.arg(prefix).arg(command.get_program()).args(command.get_args());
    watched
}

/// A conversation with an agent that listens on a Unix socket.
pub struct Conversation {
    stream: UnixStream,
    /// What the agent said of itself first.
    pub hello: FromPlace,
}

impl Conversation {
    /// Dials and greets, as the daemon of a registry.
    ///
    /// # Panics
    /// If that fails.
    pub fn begin(socket: &Path, registry: &str) -> Self {
        Self::begin_as(socket, registry, false)
    }

    /// As [`Self::begin`]; `places_only` as somebody who recalls nothing.
    ///
    /// # Panics
    /// If that fails.
    pub fn begin_as(socket: &Path, registry: &str, places_only: bool) -> Self {
        let mut stream = UnixStream::connect(socket).expect("the agent listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket");
        let hello = line::message(&FromDaemon::Hello {
            version: line::VERSION,
            registry: registry.to_owned(),
            places_only,
        });
        stream.write_all(&hello).expect("it is taken");
        let hello = match next(&mut stream) {
            Some(Frame::Message(hello @ FromPlace::Hello { .. })) => hello,
            other => panic!("{other:?}"),
        };
        Self { stream, hello }
    }

    /// A second handle, for another thread.
    ///
    /// # Panics
    /// If there is none.
    pub fn writer(&self) -> UnixStream {
        self.stream.try_clone().expect("a socket can be cloned")
    }

    /// Says something.
    ///
    /// # Panics
    /// If the line is gone.
    pub fn say(&mut self, message: &FromDaemon) {
        self.stream.write_all(&line::message(message)).expect("it is taken");
    }

    /// What the agent says next, pings aside; none where the line ended.
    ///
    /// # Panics
    /// If nothing comes.
    pub fn hear(&mut self) -> Option<FromPlace> {
        loop {
            match next(&mut self.stream)? {
                Frame::Message(FromPlace::Ping) => {}
                Frame::Message(message) => return Some(message),
                Frame::Piece { .. } => panic!("an agent sends no files"),
            }
        }
    }

    /// The names that it says are on disk, which it does first.
    ///
    /// # Panics
    /// If it says something else.
    pub fn on_disk(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match self.hear() {
                Some(FromPlace::OnDisk { names, last }) => {
                    all.extend(names);
                    if last {
                        all.sort();
                        return all;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Offers a file and sends its pieces, without the end.
    pub fn send(&mut self, transfer: u32, name: &str, bytes: &[u8]) {
        self.say(&FromDaemon::Offer {
            transfer,
            name: name.to_owned(),
            size: None,
        });
        self.pieces(transfer, bytes);
    }

    /// Pieces.
    ///
    /// # Panics
    /// If the line is gone.
    pub fn pieces(&mut self, transfer: u32, bytes: &[u8]) {
        for piece in bytes.chunks(line::LONGEST_PIECE) {
            self.stream
                .write_all(&line::piece(transfer, piece))
                .expect("it is taken");
        }
    }

    /// The end of a file, and what the agent makes of it.
    pub fn finish(&mut self, transfer: u32, bytes: &[u8]) -> Option<FromPlace> {
        self.say(&FromDaemon::Finish {
            transfer,
            size: bytes.len() as u64,
            sha256: sha256(bytes),
        });
        self.hear()
    }
}

fn next(stream: &mut UnixStream) -> Option<Frame<FromPlace>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the agent says nothing"),
        Err(_) => return None,
    }
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(line::parse(&frame).expect("the agent says what can be read"))
}

/// What a scripted daemon does for a file that is wanted.
#[derive(Debug, Clone)]
pub enum Script {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Says that it failed.
    Fail(Reason),
    /// Says that it waits, and nothing more.
    Wait(Reason),
}

#[derive(Default)]
struct Scripts {
    files: BTreeMap<String, Script>,
    /// Every want, in order.
    wanted: Vec<String>,
    delay: Duration,
}

/// A daemon on a thread of its own that does what it was told for each file.
pub struct Daemon {
    scripts: Arc<Mutex<Scripts>>,
    say: Arc<Mutex<UnixStream>>,
    change: i64,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Connects to an agent.
    ///
    /// # Panics
    /// If it cannot.
    pub fn start(place: &Place) -> Self {
        let mut line = Conversation::begin(&place.path("line"), "scripted");
        let FromPlace::Hello { upto, .. } = line.hello else {
            panic!("no greeting");
        };
        let scripts = Arc::new(Mutex::new(Scripts::default()));
        // whole files, one after the other
        let say = Arc::new(Mutex::new(line.writer()));
        let to = Arc::clone(&say);
        let is_over = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&scripts), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut names = BTreeMap::new();
            line.stream.set_read_timeout(None).expect("a socket");
            while let Some(message) = line.hear() {
                let name = match message {
                    FromPlace::Want { name, .. } => name,
                    // what is not taken is given up, as a daemon does with what is not what was registered
                    FromPlace::NotPlaced { transfer, reason } => {
                        let name: String = names.get(&transfer).cloned().expect("it is of a transfer of ours");
                        let news = News::Failed { reason };
                        let _ = lock(&to).write_all(&line::message(&FromDaemon::News { name, news }));
                        continue;
                    }
                    _ => continue,
                };
                let (script, delay) = {
                    let mut scripts = lock(&shared);
                    scripts.wanted.push(name.clone());
                    (scripts.files.get(&name).cloned(), scripts.delay)
                };
                let transfer = u32::try_from(names.len()).expect("few files") + 1;
                names.insert(transfer, name.clone());
                let to = Arc::clone(&to);
                let frames = frames(transfer, &name, script);
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    let _ = lock(&to).write_all(&frames);
                });
            }
            assert!(over.load(Ordering::Relaxed), "the agent hung up");
        });
        Self {
            scripts,
            say,
            change: upto,
            is_over,
            thread: Some(thread),
        }
    }

    /// Registers a file, and says what is done when it is wanted.
    pub fn has(&mut self, entry: Entry, script: Script) {
        lock(&self.scripts).files.insert(entry.name.clone(), script);
        self.change += 1;
        let upto = self.change;
        self.say(&FromDaemon::Entries {
            entries: vec![entry],
            upto,
        });
    }

    /// Does something else for a file from now on.
    pub fn will(&self, name: &str, script: Script) {
        lock(&self.scripts).files.insert(name.to_owned(), script);
    }

    /// Takes its time from now on.
    pub fn slow(&self, delay: Duration) {
        lock(&self.scripts).delay = delay;
    }

    /// How often a file was wanted.
    pub fn wanted(&self, name: &str) -> usize {
        let scripts = lock(&self.scripts);
        scripts.wanted.iter().filter(|wanted| *wanted == name).count()
    }

    /// Says something on the line.
    ///
    /// # Panics
    /// If the line is gone.
    pub fn say(&self, message: &FromDaemon) {
        lock(&self.say).write_all(&line::message(message)).expect("it is taken");
    }

    /// Cuts the line.
    pub fn end(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = lock(&self.say).shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frames(transfer: u32, name: &str, script: Option<Script>) -> Vec<u8> {
    let name = name.to_owned();
    let news = |news| {
        line::message(&FromDaemon::News {
            name: name.clone(),
            news,
        })
    };
    match script {
        None => news(News::Failed {
            reason: Reason::Unknown,
        }),
        Some(Script::Fail(reason)) => news(News::Failed { reason }),
        Some(Script::Wait(reason)) => news(News::Waiting { reason }),
        Some(Script::Send(bytes)) => {
            let mut frames = news(News::Started);
            frames.extend(line::message(&FromDaemon::Offer {
                transfer,
                name: name.clone(),
                size: None,
            }));
            for piece in bytes.chunks(line::LONGEST_PIECE) {
                frames.extend(line::piece(transfer, piece));
            }
            frames.extend(line::message(&FromDaemon::Finish {
                transfer,
                size: bytes.len() as u64,
                sha256: sha256(&bytes),
            }));
            frames
        }
    }
}

/// Waits until the agent knows a name.
pub fn known(place: &Place, name: &str) {
    wait_for(name, || place.stat(name).registered);
}
