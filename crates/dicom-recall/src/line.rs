//! The line between the daemon in the hospital and the agent beside the storage element: what is said on it, and how
//! it is framed. Who dials does not matter; what is said is the same over mutual TLS and over a Unix socket
//! (`docs/src/formats/recall-line.md`).
//!
//! A frame is a length of four bytes, big-endian, of what follows it, then a byte of kind, then the content: a message
//! in JSON, or a piece of a sealed file behind the number of its transfer. Nothing on the line names a patient, an
//! original identifier, a PACS or a key store.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of what is said; both ends must speak the same.
pub const VERSION: u32 = 1;
/// The longest frame, without its length.
pub const LONGEST_FRAME: usize = 1024 * 1024;
/// The longest piece of a file that is sent.
pub const LONGEST_PIECE: usize = 256 * 1024;
/// The most entries in one message: names are 255 bytes at most, so that they fit into a frame.
pub const MOST_ENTRIES: usize = 1000;
/// An end that has nothing to say says [`FromDaemon::Ping`] or [`FromPlace::Ping`] this often, in seconds.
pub const PING_S: u64 = 10;
/// After so long without a frame, in seconds, the line counts as cut.
pub const SILENCE_S: u64 = 45;
/// After so long, in seconds, the daemon ends a line over which nothing is on its way, and after twice that any line:
/// the next one shows anew who is at its ends.
pub const LINE_S: u64 = 3600;

const MESSAGE: u8 = 0;
const PIECE: u8 = 1;

/// What the agent may know of a registered instance: enough to answer for it, nothing that identifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name of its sealed file.
    pub name: String,
    /// Exactly how long that file is, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of that file (FIPS 180-4), 64 hexadecimal digits, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When it was registered, in seconds since 1970.
    pub registered_at: i64,
    /// Whether it is registered no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// Why a recall did not succeed, in a word that programs may act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Nobody registered that name.
    Unknown,
    /// The PACS does not answer, or broke off.
    Pacs,
    /// The PACS has it no more.
    Missing,
    /// Its key cannot be had: too few stores, or not allowed.
    Key,
    /// De-identification refused it, or it is damaged.
    Refused,
    /// What came out is not what was registered.
    Changed,
    /// There is no room at the storage element, or it cannot be written there.
    Storage,
    /// It was cancelled.
    Cancelled,
    /// It took too long.
    Deadline,
    /// Anything else.
    Other,
}

impl Reason {
    /// The word on the line and in databases.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pacs => "pacs",
            Self::Missing => "missing",
            Self::Key => "key",
            Self::Refused => "refused",
            Self::Changed => "changed",
            Self::Storage => "storage",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::Other => "other",
        }
    }

    /// What a client at the storage element is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "nothing of that name is registered",
            Self::Pacs => "the archive does not answer",
            Self::Missing => "the archive does not have it any more",
            Self::Key => "its key cannot be had now",
            Self::Refused => "it cannot be de-identified",
            Self::Changed => "what came is not what was registered",
            Self::Storage => "it cannot be written at the storage element",
            Self::Cancelled => "it was cancelled",
            Self::Deadline => "it took too long",
            Self::Other => "it failed",
        }
    }
}

/// What became of something that the agent wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum News {
    /// It is in the durable queue now: the agent need not ask again.
    Queued,
    /// It is being fetched.
    Started,
    /// It did not come this time, and will be tried again.
    Waiting {
        /// Why.
        reason: Reason,
    },
    /// It will not come unless it is asked for again.
    Failed {
        /// Why.
        reason: Reason,
    },
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromDaemon {
    /// The first thing on the line.
    Hello {
        /// Must be [`VERSION`].
        version: u32,
        /// Which registry the entries are of: where the agent knows another one, it forgets what it knows.
        registry: String,
        /// Whether this end only places what it has: it recalls nothing, and is told of nothing that is wanted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        places_only: bool,
    },
    /// Entries that changed, in the order of their changes.
    Entries {
        /// At most [`MOST_ENTRIES`].
        entries: Vec<Entry>,
        /// The number of the last change among them.
        upto: i64,
    },
    /// What became of a want.
    News {
        /// The name of the sealed file.
        name: String,
        /// What.
        news: News,
    },
    /// A sealed file comes: its pieces follow under this number, which no other open transfer of the line has.
    Offer {
        /// The number.
        transfer: u32,
        /// The name of the file.
        name: String,
        /// How long it is, where that is known already.
        size: Option<u64>,
    },
    /// All pieces were sent: the file may be placed if it is this one, and what was registered.
    Finish {
        /// The number.
        transfer: u32,
        /// How long it is.
        size: u64,
        /// Its SHA-256, 64 hexadecimal digits.
        sha256: String,
    },
    /// The rest will not come; nothing of it is to be left.
    Abandon {
        /// The number.
        transfer: u32,
    },
    /// The bytes are not needed any more.
    Evict {
        /// The name of the file.
        name: String,
    },
    /// Nothing.
    Ping,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromPlace {
    /// The first thing on the line.
    Hello {
        /// Must be [`VERSION`].
        version: u32,
        /// The registry that the agent's entries are of, if it has any.
        registry: Option<String>,
        /// The number of the last change that it knows.
        upto: i64,
    },
    /// Files that are on disk, said once after the hello; what was not said is not there.
    OnDisk {
        /// At most [`MOST_ENTRIES`].
        names: Vec<String>,
        /// Whether it is the last such message.
        last: bool,
    },
    /// Somebody wants this file. Said again after each hello until it is there or failed: news may have been lost.
    Want {
        /// Its name.
        name: String,
        /// From 0, not urgent, to 3.
        priority: u8,
    },
    /// Nobody wants it any more.
    Unwant {
        /// Its name.
        name: String,
    },
    /// It is in its place, flushed, and is what was announced and registered.
    Placed {
        /// The number of the transfer.
        transfer: u32,
    },
    /// It is not in its place, and nothing of it is left; pieces of it that still come are dropped.
    NotPlaced {
        /// The number of the transfer.
        transfer: u32,
        /// Why not: [`Reason::Changed`], [`Reason::Storage`], [`Reason::Unknown`] or [`Reason::Cancelled`].
        reason: Reason,
    },
    /// Its bytes are on disk no more.
    Evicted {
        /// Its name.
        name: String,
    },
    /// Nothing.
    Ping,
}

/// What comes out of the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<M> {
    /// A message.
    Message(M),
    /// A piece of a file; only the daemon sends them.
    Piece {
        /// Of which transfer.
        transfer: u32,
        /// At most [`LONGEST_PIECE`], and at least one.
        bytes: Vec<u8>,
    },
}

/// Why the line cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The other end is gone.
    #[error("the other end hung up")]
    Closed,
    /// Reading or writing failed.
    #[error("the line broke")]
    Io(#[source] io::Error),
    /// Nothing came for too long.
    #[error("nothing was heard for {SILENCE_S} s")]
    Silent,
    /// The other end is to show anew who it is.
    #[error("it is too old")]
    Old,
    /// A frame that is none.
    #[error("a frame of {0} bytes was announced, {LONGEST_FRAME} are allowed")]
    TooLong(u32),
    /// A kind that is none, or a piece that is none.
    #[error("a frame that is none of ours came")]
    Strange,
    /// A message that is none.
    #[error("a message that cannot be read came")]
    Unreadable(#[source] serde_json::Error),
    /// Said at the wrong time.
    #[error("something else than a greeting came first")]
    NoHello,
    /// Another version.
    #[error("the other end speaks version {0}, we speak {VERSION}")]
    Version(u32),
}

/// Reads the next frame; a deadline is the caller's.
///
/// # Errors
/// Where there is none that can be read: the line is of no use afterwards.
pub async fn read<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame<M>, LineError> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(LineError::Closed),
        Err(error) => return Err(LineError::Io(error)),
    };
    let bytes = length as usize;
    if bytes > LONGEST_FRAME {
        return Err(LineError::TooLong(length));
    }
    let mut frame = vec![0; bytes];
    from.read_exact(&mut frame).await.map_err(LineError::Io)?;
    parse(&frame)
}

/// Reads the content of a frame, behind its length.
///
/// # Errors
/// Where it is none of ours.
pub fn parse<M: DeserializeOwned>(frame: &[u8]) -> Result<Frame<M>, LineError> {
    match frame {
        [MESSAGE, message @ ..] => serde_json::from_slice(message)
            .map(Frame::Message)
            .map_err(LineError::Unreadable),
        [PIECE, a, b, c, d, bytes @ ..] if (1..=LONGEST_PIECE).contains(&bytes.len()) => Ok(Frame::Piece {
            transfer: u32::from_be_bytes([*a, *b, *c, *d]),
            bytes: bytes.to_vec(),
        }),
        _ => Err(LineError::Strange),
    }
}

/// The frame of a message.
///
/// # Panics
/// Never: messages are plain data.
pub fn message(message: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, MESSAGE];
    // plain data with string keys always has a JSON text
    let written = serde_json::to_writer(&mut frame, message);
    debug_assert!(written.is_ok());
    with_length(frame)
}

/// The frame of a piece of at most [`LONGEST_PIECE`] bytes.
pub fn piece(transfer: u32, bytes: &[u8]) -> Vec<u8> {
    debug_assert!((1..=LONGEST_PIECE).contains(&bytes.len()));
    let mut frame = Vec::with_capacity(9 + bytes.len());
    frame.extend_from_slice(&[0, 0, 0, 0, PIECE]);
    frame.extend_from_slice(&transfer.to_be_bytes());
    frame.extend_from_slice(bytes);
    with_length(frame)
}

fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Writes a frame and sees it off.
///
/// # Errors
/// [`LineError::Io`].
pub async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), LineError> {
    to.write_all(frame).await.map_err(LineError::Io)?;
    to.flush().await.map_err(LineError::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut bytes: &[u8]) -> Result<Frame<FromDaemon>, LineError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut bytes))
    }

    #[test]
    fn what_is_written_is_read() {
        let hello = FromDaemon::Hello {
            version: VERSION,
            registry: "r".to_owned(),
            places_only: false,
        };
        // as an agent reads it from a daemon that does not know the word
        assert!(!String::from_utf8(message(&hello)).unwrap().contains("places_only"));
        assert_eq!(read_all(&message(&hello)).unwrap(), Frame::Message(hello));
        let read = read_all(&piece(7, b"sealed")).unwrap();
        let bytes = b"sealed".to_vec();
        assert_eq!(read, Frame::Piece { transfer: 7, bytes });
        let longest = piece(1, &vec![1; LONGEST_PIECE]);
        assert!(read_all(&longest).is_ok());
    }

    #[test]
    fn as_many_entries_as_may_be_fit_into_a_frame() {
        let entry = Entry {
            name: "/".repeat(255),
            size: Some(u64::MAX),
            sha256: Some("0".repeat(64)),
            registered_at: i64::MAX,
            gone: true,
        };
        let entries = FromDaemon::Entries {
            entries: vec![entry; MOST_ENTRIES],
            upto: i64::MAX,
        };
        assert!(message(&entries).len() - 4 <= LONGEST_FRAME);
    }

    #[test]
    fn frames_that_are_none_are_refused() {
        assert!(matches!(read_all(b""), Err(LineError::Closed)));
        assert!(matches!(read_all(b"\0\0\0\x02\0"), Err(LineError::Io(_))));
        assert!(matches!(read_all(b"\0\0\0\0"), Err(LineError::Strange)));
        assert!(matches!(read_all(b"\0\0\0\x01\x02"), Err(LineError::Strange)));
        assert!(matches!(read_all(b"\0\0\0\x05\x01\0\0\0\0"), Err(LineError::Strange)));
        assert!(matches!(read_all(b"\0\0\0\x03\0{}"), Err(LineError::Unreadable(_))));
        assert!(matches!(read_all(b"\xff\xff\xff\xff"), Err(LineError::TooLong(_))));
    }
}
