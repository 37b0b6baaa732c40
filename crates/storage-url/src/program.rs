//! Other people's programs at the other end of a pipe: started, fed, read, and ended if nothing moves.
//!
//! Whoever drops one of them ends it, and whatever it started with it. Nothing secret is in their arguments: the
//! credential goes by the environment.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::Reason;
use crate::{Access, Adler32, PIECE, Source, StorageError, StorageUrl, Stored};

/// What is kept of what a program says.
const SAYS_BYTES: usize = 16 * 1024;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// A failure that has no name of its own: the program's `words`, or that it said none.
    pub(crate) fn failed(&self, url: String, words: String) -> StorageError {
        let what = match (words.is_empty(), self.code) {
            (false, _) => words,
            (true, Some(code)) => format!("its program ended with {code}"),
            (true, None) => "its program ended with a signal".to_owned(),
        };
        StorageError::Failed { url, what }
    }
}

/// What a program's failure means.
pub(crate) type Explain = fn(&StorageUrl, &Ended) -> StorageError;

/// A program with its arguments.
pub(crate) struct Program<'a> {
    pub(crate) access: &'a Access,
    pub(crate) url: &'a StorageUrl,
    pub(crate) name: &'static str,
    /// The package of Debian that has it.
    pub(crate) package: &'static str,
    pub(crate) arguments: Vec<OsString>,
    /// Variables that it gets where the user has not set them.
    pub(crate) defaults: &'static [(&'static str, &'static str)],
    pub(crate) explain: Explain,
}

/// The groups of all programs that run now.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all programs that were started: for whoever ends the process on a signal, which would not reach them.
///
/// No program can be started or waited for after it, so that nobody tells of a transfer that broke off by this.
pub fn end_programs() {
    let groups = groups();
    for group in groups.iter() {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    std::mem::forget(groups);
}

/// A program that runs, and its group.
struct Running {
    child: Child,
    /// None once it was waited for: its number may be another's by then.
    group: Option<Pid>,
    stderr: Said,
}

impl Running {
    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.forget();
        Ok(status)
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn forget(&mut self) {
        if let Some(group) = self.group.take() {
            groups().retain(|other| *other != group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        self.forget();
    }
}

/// What is read of a stream while the program runs: the last of it.
struct Said {
    text: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Said {
    fn listen(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&text);
        let task = tokio::spawn(async move {
            let Some(mut stream) = stream else { return };
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..read]);
                let over = kept.len().saturating_sub(SAYS_BYTES);
                kept.drain(..over);
            }
        });
        Self { text, task }
    }

    /// All of it: the program has ended. What it left running may hold the stream open, and is not waited for.
    async fn end(&mut self) -> String {
        let _ = timeout(Duration::from_secs(1), &mut self.task).await;
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Program<'_> {
    fn start(&self, stdin: Stdio) -> Result<Running, StorageError> {
        if self.url.may_hold_token() {
            return Err(StorageError::Token {
                url: self.url.to_string(),
            });
        }
        let mut command = Command::new(self.name);
        command
            .args(&self.arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for (name, value) in self.defaults {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        for (name, path) in &self.access.environment {
            command.env(name, path);
        }
        tracing::debug!(program = self.name, url = %self.url, "starting");
        let mut groups = groups();
        let mut child = command.spawn().map_err(|source| StorageError::NoProgram {
            url: self.url.to_string(),
            program: self.name,
            package: self.package,
            source,
        })?;
        let number = child.id().and_then(|number| i32::try_from(number).ok());
        let group = number.and_then(Pid::from_raw);
        groups.extend(group);
        drop(groups);
        let stderr = Said::listen(child.stderr.take());
        Ok(Running { group, child, stderr })
    }

    fn idle(&self) -> StorageError {
        StorageError::Idle {
            url: self.url.to_string(),
            idle: self.access.idle,
        }
    }

    fn lost(&self, source: std::io::Error) -> StorageError {
        StorageError::Broken {
            url: self.url.to_string(),
            source: Box::new(source),
        }
    }

    async fn end(&self, running: &mut Running, stdout: &mut Said) -> Result<Ended, StorageError> {
        let status: ExitStatus = match timeout(self.access.idle, running.wait()).await {
            Ok(status) => status.map_err(|source| self.lost(source))?,
            Err(_) => return Err(self.idle()),
        };
        Ok(Ended {
            code: status.code(),
            stdout: stdout.end().await,
            stderr: running.stderr.end().await,
        })
    }

    /// Runs it to its end, which must come soon.
    pub(crate) async fn run(&self) -> Result<Ended, StorageError> {
        let mut running = self.start(Stdio::null())?;
        let mut stdout = Said::listen(running.child.stdout.take());
        let ended = self.end(&mut running, &mut stdout).await?;
        match ended.code {
            Some(0) => Ok(ended),
            _ => Err((self.explain)(self.url, &ended)),
        }
    }

    /// Gives it all that `source` has on its standard input.
    ///
    /// Where the source breaks off the program is killed before it sees the end: it would take a part for the whole.
    pub(crate) async fn feed(&self, mut source: Source) -> Result<Stored, StorageError> {
        let (mut stdin, mut running) = {
            let mut running = self.start(Stdio::piped())?;
            // in this order: whoever drops this future ends the program before it sees the end of its input
            (running.child.stdin.take(), running)
        };
        let mut stdout = Said::listen(running.child.stdout.take());
        let mut buffer = vec![0; PIECE];
        let (mut sum, mut bytes, mut all) = (Adler32::default(), 0, false);
        'all: loop {
            let read = source.read(&mut buffer).await;
            let read = read.map_err(|error| {
                running.kill();
                StorageError::Source {
                    url: self.url.to_string(),
                    source: error,
                }
            })?;
            let mut left = &buffer[..read];
            if left.is_empty() {
                all = true;
                break;
            }
            sum.update(left);
            bytes += read as u64;
            while let (false, Some(pipe)) = (left.is_empty(), &mut stdin) {
                match timeout(self.access.idle, pipe.write(left)).await {
                    Ok(Ok(written @ 1..)) => left = &left[written..],
                    // it will say why it wants no more
                    Ok(_) => break 'all,
                    Err(_) => {
                        running.kill();
                        return Err(self.idle());
                    }
                }
            }
        }
        drop(stdin);
        let ended = self.end(&mut running, &mut stdout).await?;
        match ended.code {
            Some(0) if all => Ok(Stored {
                bytes,
                adler32: sum.value(),
                checked: false,
            }),
            Some(0) => Err(StorageError::Broken {
                url: self.url.to_string(),
                source: Reason::boxed(format!("`{}` was content before it had all", self.name)),
            }),
            _ => Err((self.explain)(self.url, &ended)),
        }
    }

    /// Reads its standard output.
    pub(crate) fn read(&self) -> Result<Reading, StorageError> {
        let mut running = self.start(Stdio::null())?;
        let stdout = running.child.stdout.take();
        Ok(Reading {
            url: self.url.clone(),
            idle: self.access.idle,
            explain: self.explain,
            stdout,
            running,
        })
    }
}

/// A program whose output is being read.
pub(crate) struct Reading {
    url: StorageUrl,
    idle: Duration,
    explain: Explain,
    /// None at the end.
    stdout: Option<ChildStdout>,
    running: Running,
}

impl Reading {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        let idle = || StorageError::Idle {
            url: self.url.to_string(),
            idle: self.idle,
        };
        let lost = |source: std::io::Error| StorageError::Broken {
            url: self.url.to_string(),
            source: Box::new(source),
        };
        let Some(stdout) = &mut self.stdout else {
            return Ok(None);
        };
        let mut buffer = vec![0; PIECE];
        let read = match timeout(self.idle, stdout.read(&mut buffer)).await {
            Ok(read) => read.map_err(lost)?,
            Err(_) => return Err(idle()),
        };
        if read > 0 {
            buffer.truncate(read);
            return Ok(Some(buffer.into()));
        }
        self.stdout = None;
        let status = match timeout(self.idle, self.running.wait()).await {
            Ok(status) => status.map_err(lost)?,
            Err(_) => return Err(idle()),
        };
        if status.success() {
            return Ok(None);
        }
        let ended = Ended {
            code: status.code(),
            stdout: String::new(),
            stderr: self.running.stderr.end().await,
        };
        Err((self.explain)(&self.url, &ended))
    }
}
