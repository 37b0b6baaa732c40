//! Why an exchange with a PACS failed. Errors name the PACS, never a patient: comments of the other side are left out,
//! because some put names into them.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::command::{CommandError, Status};
use crate::dataset::{DataError, Tag};
use crate::pdu::{PduError, Reject};
use crate::uid::Uid;

/// The other side: its title, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(Arc<str>);

impl Peer {
    /// By the words that people know it by.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A connection.
    Connection,
    /// The TLS handshake, or the answer to the request for an association.
    Association,
    /// The next data unit.
    Data,
    /// To be rid of a data unit.
    Sending,
    /// All of it: the deadline of the whole exchange.
    Whole,
    /// One of our own associations to end, when there are as many as there may be.
    Turn,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "no connection",
            Self::Association => "no answer to the request for an association",
            Self::Data => "nothing more",
            Self::Sending => "nothing taken",
            Self::Whole => "not done",
            Self::Turn => "no free association",
        })
    }
}

/// What the other side did that the protocol does not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// On the level of data units.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// On the level of messages.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// In an identifier.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Why an exchange over an association failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Its name has no address.
    #[error("no address for {peer}")]
    Address {
        /// Who.
        peer: Peer,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No connection.
    #[error("cannot connect to {peer}")]
    Connect {
        /// To whom.
        peer: Peer,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A deadline passed.
    #[error("{peer}: {waiting} in {seconds} s")]
    Late {
        /// Who was waited for.
        peer: Peer,
        /// What for.
        waiting: Waiting,
        /// How long.
        seconds: u64,
    },
    /// The TLS handshake failed, or the stream broke the rules of TLS.
    #[error("TLS with {peer} failed")]
    Tls {
        /// With whom.
        peer: Peer,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused the association.
    #[error("{peer} refused the association{}: {}",
        if .reject.is_transient { " for now" } else { "" }, .reject.words())]
    Refused {
        /// Who.
        peer: Peer,
        /// Why.
        reject: Reject,
    },
    /// It has no service of this kind.
    #[error("{peer} does not offer {service} to us")]
    NoService {
        /// Who.
        peer: Peer,
        /// What.
        service: &'static str,
    },
    /// It takes the association, but not the class of an instance.
    #[error("{peer} does not take instances of the SOP class {class} in the transfer syntax {transfer_syntax}")]
    NoContext {
        /// Who.
        peer: Peer,
        /// Which.
        class: Uid,
        /// As it is encoded.
        transfer_syntax: Uid,
    },
    /// It would not send instances over our association.
    #[error("{peer} does not send instances over an association of ours (it grants no role of a storage provider)")]
    NoRole {
        /// Who.
        peer: Peer,
    },
    /// It ended the association.
    #[error("{peer} aborted the association")]
    Aborted {
        /// Who.
        peer: Peer,
    },
    /// It released the association in the midst of something.
    #[error("{peer} released the association before it was done")]
    Released {
        /// Who.
        peer: Peer,
    },
    /// The connection ended.
    #[error("{peer} closed the connection")]
    Closed {
        /// Who.
        peer: Peer,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke")]
    Broken {
        /// To whom.
        peer: Peer,
        /// How.
        #[source]
        source: io::Error,
    },
    /// It does not speak DICOM as it should.
    #[error("{peer} does not speak DICOM as it should")]
    Protocol {
        /// Who.
        peer: Peer,
        /// What it did.
        #[source]
        source: ProtocolError,
    },
    /// It answered that it cannot.
    #[error("{peer} answered the {operation} with status {:04x}: {}", .status.0, .status.words())]
    Status {
        /// Who.
        peer: Peer,
        /// What was asked.
        operation: &'static str,
        /// The answer.
        status: Status,
    },
    /// More fits a query than was meant.
    #[error("{peer} has more than {most} studies that fit the query")]
    TooMany {
        /// Who.
        peer: Peer,
        /// How many were meant at most.
        most: usize,
    },
    /// It answered without a word of what was asked for.
    #[error("{peer} does not go by `{key}`, so that what it answers may be anything")]
    Ignored {
        /// Who.
        peer: Peer,
        /// What it passes over.
        key: &'static str,
    },
    /// Whoever was given the instances wants no more.
    #[error("the exchange with {peer} was stopped")]
    Stopped {
        /// With whom.
        peer: Peer,
    },
    /// Our own side cannot listen.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was to be sent cannot be read.
    #[error("the instance to send to {peer} cannot be read")]
    Source {
        /// To whom.
        peer: Peer,
        /// Why not.
        #[source]
        source: DataError,
    },
}

/// Why an instance that came in was not taken. The retrieval goes on without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StrangeInstance {
    /// The command, or the transfer, says another instance than the data set.
    #[error("its data set has another {0} than the message that announced it")]
    Announced(Tag),
    /// Not of what was asked for.
    #[error("its {0} is not what was asked for")]
    NotAsked(Tag),
    /// It came before.
    #[error("it came twice")]
    Twice,
    /// Its data set cannot be read.
    #[error("it is broken")]
    Broken(#[source] DataError),
}

impl StrangeInstance {
    /// What whoever sent it is told (PS3.4, B.2.3).
    pub fn status(&self) -> Status {
        match self {
            Self::Broken(_) => Status::NOT_UNDERSTOOD,
            _ => Status::MISMATCH,
        }
    }
}
