//! What the storage element's programs ask of the agent beside it, over its Unix socket: one line of JSON each way. The
//! hooks of XRootD and dCache, `dicom-recall serve` and the commands at the storage element are clients of it
//! (`docs/src/formats/recall-line.md`).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::line::Reason;

/// The longest line: a request of some thousands of names.
pub const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// How long the agent may take to answer what it need not wait for.
/// XRootD waits 15 s for a hook that may ask twice.
pub const ANSWER: Duration = Duration::from_secs(6);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// What the agent serves: answered by [`Answer::About`].
    About,
    /// What is known of these names: answered by [`Answer::Files`], in the same order.
    Stat {
        /// Which.
        names: Vec<String>,
    },
    /// Names under a prefix, in order: answered by [`Answer::Files`].
    List {
        /// What they begin with; all where it is empty.
        prefix: String,
        /// Only those behind this one.
        after: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// Have this file on disk: answered by [`Answer::Done`] once it is there, or by [`Answer::Failed`].
    Stage {
        /// Which.
        name: String,
        /// Where the asker will look for it, checked against where it will be.
        path: Option<PathBuf>,
        /// How long the asker waits, in seconds.
        deadline_s: u64,
    },
    /// Have these files on disk some time, whoever waits: answered by [`Answer::Accepted`] as soon as that is durable.
    Prepare {
        /// The request's name, where the asker has given it one; else it is given one.
        request: Option<String>,
        /// Who asks: a DN, or a program. Requests of others are neither shown nor changed where it is given.
        owner: Option<String>,
        /// Which, and for how long they should stay once they are there.
        files: Vec<Wish>,
        /// From 0, not urgent, to 3.
        priority: u8,
    },
    /// What became of a request: answered by [`Answer::Request`].
    Request {
        /// Which.
        request: String,
        /// Only if it is this one's.
        owner: Option<String>,
    },
    /// Every request that is not forgotten: answered by [`Answer::Requests`].
    Requests {
        /// Only this one's.
        owner: Option<String>,
    },
    /// Wait no more for these files of a request: answered by [`Answer::Done`]. If one of them is not of it, nothing is
    /// done.
    Cancel {
        /// Which.
        request: String,
        /// Only if it is this one's.
        owner: Option<String>,
        /// Which of its files; all where there is none.
        names: Option<Vec<String>>,
    },
    /// Cancel a request and know nothing of it afterwards: answered by [`Answer::Done`].
    Forget {
        /// Which.
        request: String,
        /// Only if it is this one's.
        owner: Option<String>,
    },
    /// A request needs these files no longer: answered by [`Answer::Done`].
    Release {
        /// Which.
        request: String,
        /// Only if it is this one's.
        owner: Option<String>,
        /// Which of its files.
        names: Vec<String>,
    },
    /// Take these files off the disk, where no request holds them: answered by [`Answer::Evicted`].
    Evict {
        /// Which.
        names: Vec<String>,
        /// Also those that a request holds.
        force: bool,
    },
}

/// A file that is wished for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// For how long it should stay on disk once it is there, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Which.
    pub name: String,
    /// Whether it is registered.
    pub registered: bool,
    /// Exactly how long it is or will be, where that is known.
    pub size: Option<u64>,
    /// Its SHA-256, where that is known.
    pub sha256: Option<String>,
    /// When it was registered, in seconds since 1970.
    pub registered_at: Option<i64>,
    /// Whether its bytes are here.
    pub on_disk: bool,
    /// Whether it can be had now: it is on disk, or the daemon can be reached.
    pub available: bool,
    /// Whether somebody waits for it.
    pub wanted: bool,
    /// Why it did not come the last time.
    pub reason: Option<Reason>,
}

/// How far a file of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It waits.
    Submitted,
    /// It is being fetched.
    Started,
    /// It is, or was, on disk.
    Completed,
    /// It did not come.
    Failed,
    /// It is not waited for any more.
    Cancelled,
}

/// A file of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFile {
    /// Which.
    pub name: String,
    /// How far.
    pub progress: Progress,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// Whether it is on disk now.
    pub on_disk: bool,
    /// When its fetching began, in seconds since 1970.
    pub started_at: Option<i64>,
    /// When that ended, well or not.
    pub finished_at: Option<i64>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its name.
    pub request: String,
    /// When it came, in seconds since 1970.
    pub created_at: i64,
    /// Its files, in the order of the request.
    pub files: Vec<RequestFile>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Done,
    /// What the agent serves.
    About {
        /// The folder that names start from.
        root: PathBuf,
        /// Where XRootD looks for what failed, where that is configured.
        fail_folder: Option<PathBuf>,
        /// Whether the daemon can be reached.
        connected: bool,
        /// How many entries are known.
        entries: u64,
    },
    /// What is known of names.
    Files {
        /// In the order of the question.
        files: Vec<FileStatus>,
    },
    /// A request is durable.
    Accepted {
        /// Its name.
        request: String,
    },
    /// A request.
    Request {
        /// How far it is.
        status: RequestStatus,
    },
    /// Requests, the newest first: of very large ones not all.
    Requests {
        /// How far they are.
        requests: Vec<RequestStatus>,
    },
    /// What was taken off the disk.
    Evicted {
        /// Of which files.
        names: Vec<String>,
    },
    /// A file does not come.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// The question cannot be answered.
    Refused {
        /// Why.
        refusal: Refusal,
        /// In words.
        text: String,
    },
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// It is none of ours.
    Unreadable,
    /// There is no such request, or not of this owner.
    NoRequest,
    /// A file is not of that request.
    NotOfRequest,
    /// A name, number or path that cannot be meant.
    Unfit,
    /// Too much at once, or too much waits already.
    TooMuch,
    /// The agent's database cannot be written or read.
    Database,
}

/// Why the agent cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there, or we may not.
    #[error("the agent at `{}` cannot be reached", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It broke off, or took too long.
    #[error("the agent at `{}` did not answer", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
    /// An answer that is none.
    #[error("the agent at `{}` gave an answer that cannot be read", path.display())]
    Strange {
        /// Where.
        path: PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
}

/// A connection to the agent.
pub struct Agent {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Agent {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`AskError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let stream = connect_in_time(path).map_err(|source| AskError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// Asks, and waits for the answer: [`ANSWER`], and beyond it what the question itself says.
    ///
    /// # Errors
    /// [`AskError::Broken`] and [`AskError::Strange`]; the connection is of no use afterwards.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, AskError> {
        let wait = match ask {
            Ask::Stage { deadline_s, .. } => ANSWER.saturating_add(Duration::from_secs(*deadline_s)),
            _ => ANSWER,
        };
        let answered = self.exchange(ask, wait).map_err(|source| AskError::Broken {
            path: self.path.clone(),
            source,
        })?;
        serde_json::from_slice(&answered).map_err(|source| AskError::Strange {
            path: self.path.clone(),
            source,
        })
    }

    fn exchange(&mut self, ask: &Ask, wait: Duration) -> io::Result<Vec<u8>> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut answer)?;
        if answer.last() == Some(&b'\n') {
            Ok(answer)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// Connects, or not within [`ANSWER`]: an agent that was stopped has a full door at which one would wait for ever.
fn connect_in_time(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux has this hold for connecting, too (unix(7), socket(7))
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWER))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answered_with(reply: &'static [u8]) -> Result<Answer, AskError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            stream.get_mut().write_all(reply).unwrap();
            serde_json::from_str::<Ask>(&line).unwrap()
        });
        let ask = Ask::Requests { owner: None };
        let answer = Agent::connect(&path).unwrap().ask(&ask);
        assert_eq!(server.join().unwrap(), ask);
        answer
    }

    #[test]
    fn a_line_is_asked_and_a_line_is_the_answer() {
        assert_eq!(answered_with(b"{\"answer\":\"done\"}\n").unwrap(), Answer::Done);
        assert!(matches!(
            answered_with(b"{\"answer\":\"done\"}"),
            Err(AskError::Broken { .. })
        ));
        assert!(matches!(answered_with(b"{}\n"), Err(AskError::Strange { .. })));
    }

    #[test]
    fn nobody_there_is_told_with_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let error = Agent::connect(&path).err().unwrap();
        assert!(error.to_string().contains("socket"), "{error}");
    }
}
