//! Why something could not be done at a storage URL, and what is left there.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::{Scheme, StorageUrl};

/// An error that another library, or another program, told in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub(crate) String);

impl Reason {
    /// The last cause of an error, which is the one that says something.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Box<dyn Error + Send + Sync> {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        Box::new(Self(causes.last().map(ToString::to_string).unwrap_or_default()))
    }

    pub(crate) fn boxed(text: impl Into<String>) -> Box<dyn Error + Send + Sync> {
        Box::new(Self(text.into()))
    }
}

/// Why something could not be done at a storage URL. The URLs in it are without user and query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is a file already.
    #[error("`{url}` exists already")]
    Exists {
        /// Where.
        url: String,
    },
    /// There is no file.
    #[error("`{url}` is not there")]
    NotFound {
        /// Where.
        url: String,
    },
    /// The server does not let this user.
    #[error("`{url}` is refused to you")]
    Refused {
        /// Where.
        url: String,
        /// What the server says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No room.
    #[error("there is no room for `{url}`")]
    Full {
        /// Where.
        url: String,
        /// What the server says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection, or no server that can be trusted.
    #[error("`{url}` cannot be reached")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server neither took nor gave a byte.
    #[error("`{url}`: nothing moved for {}", seconds(*.idle))]
    Idle {
        /// Where.
        url: String,
        /// How long.
        idle: Duration,
    },
    /// The transfer ended before its time.
    #[error("the transfer of `{url}` broke off")]
    Broken {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server, or the program that talks to it, failed in another way.
    #[error("`{url}`: {what}")]
    Failed {
        /// Where.
        url: String,
        /// What it answered.
        what: String,
    },
    /// All of it was sent, and then the server did not say what became of it.
    #[error("`{url}` was sent, and cannot be looked at")]
    Unseen {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: Box<StorageError>,
    },
    /// What is there is not what was sent.
    #[error("`{url}` is not there as it was sent: its {what} is {found}, not {sent}")]
    Altered {
        /// Where.
        url: String,
        /// Checksum or size.
        what: &'static str,
        /// Of the file there.
        found: String,
        /// Of what was sent.
        sent: String,
    },
    /// Another program is needed.
    #[error("`{program}`, which `{url}` needs, cannot be run")]
    NoProgram {
        /// Where.
        url: String,
        /// Which.
        program: &'static str,
        /// The package of Debian that has it.
        package: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A token in the URL would be shown to every user of the machine.
    #[error("`{url}` has a query that may be a token, and would show it to all users of this machine")]
    Token {
        /// Where.
        url: String,
    },
    /// There is no credential, and the server wants one.
    #[error("`{url}` needs a credential and trust anchors")]
    NoCredential {
        /// Where.
        url: String,
    },
    /// A file on this machine.
    #[error("cannot {doing} `{url}`")]
    Local {
        /// Which.
        url: String,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was to be stored could not be read to its end.
    #[error("what was to be stored at `{url}` broke off")]
    Source {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller stopped it.
    #[error("the transfer of `{url}` was stopped")]
    Stopped {
        /// Where.
        url: String,
    },
}

impl StorageError {
    /// Whether the failure to put a file came so early that the server changed nothing.
    pub(crate) fn changed_nothing(&self, scheme: Scheme) -> bool {
        use StorageError::{Exists, NoCredential, NoProgram, NotFound, Refused, Token, Unreachable};
        match self {
            Exists { .. }
            | NotFound { .. }
            | Refused { .. }
            | NoProgram { .. }
            | Token { .. }
            | NoCredential { .. } => true,
            // other programs say so also of a connection that they lose in the middle
            Unreachable { .. } => scheme == Scheme::Https,
            _ => false,
        }
    }

    /// Of a file that was sent: all that was found out after is that it cannot be looked at.
    pub(crate) fn after_sending(self, url: &StorageUrl) -> Self {
        Self::Unseen {
            url: url.to_string(),
            source: Box::new(self),
        }
    }
}

/// What is left at a URL where a file was not stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum Remains {
    /// Nothing of ours.
    Nothing,
    /// Perhaps a part of the file: why it could not be taken away.
    Perhaps(Box<StorageError>),
}

/// Why a file was not stored, and what is left of it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct PutError {
    /// Why: all of it, with its causes.
    pub error: StorageError,
    /// What is left.
    pub remains: Remains,
}

fn seconds(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

/// What a server says, as one line that is not too long.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
