//! DICOM on the wire, useful alone: C-ECHO, C-FIND, C-GET, C-MOVE and C-STORE over associations (PS3.7, PS3.8) and
//! QIDO-RS, WADO-RS and STOW-RS over HTTP (PS3.18).
//!
//! Instances come in as streams and are never in memory as a whole. What came is held against what was asked for
//! before anybody gets it. Nothing here knows pixels, patients, or what becomes of an instance.
//!
//! ```no_run
//! use std::io::Read;
//!
//! use dicom_net::{Pacs, PacsOptions, Taken, Wanted};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pacs = Pacs::new(PacsOptions::new("HYDRA".parse()?, "PACS".parse()?, "pacs.example.org", 104));
//! let wanted = Wanted { study: "1.2.3".parse()?, series: None, instances: Vec::new() };
//! let retrieved = pacs.get(&wanted, &[], &mut |arrival, file| {
//!     let mut bytes = Vec::new();
//!     match file.read_to_end(&mut bytes) {
//!         Ok(_) => println!("{}: {} bytes", arrival.identity.instance, bytes.len()),
//!         Err(_) => return Taken::Dropped,
//!     }
//!     Taken::Kept
//! })?;
//! println!("{} instances", retrieved.kept.len());
//! # Ok(())
//! # }
//! ```

pub mod association;
pub mod command;
pub mod contexts;
pub mod dataset;
mod error;
mod intake;
pub mod json;
mod moves;
pub mod multipart;
mod pacs;
pub mod pdu;
mod query;
mod scp;
mod storage_classes;
pub mod stow;
mod tls;
mod uid;
mod web;
mod wire;

pub use association::Slots;
pub use command::Status;
pub use dataset::Identity;
pub use error::{NetError, Peer, ProtocolError, StrangeInstance, Waiting};
pub use intake::{Arrival, Retrieved, Sink, Taken, Wanted};
pub use moves::MoveDestination;
pub use pacs::{Found, Offer, Pacs, PacsOptions, Storing};
pub use query::{FoundStudies, Query, QueryError};
pub use scp::{Receiver, ReceiverOptions, Stop};
pub use storage_classes::STORAGE_CLASSES;
pub use tls::{TlsError, TlsFiles};
pub use uid::{AeTitle, TitleError, Uid, UidError};
pub use web::{Authorization, Dicomweb, WebError, WebOptions};
pub use wire::Deadlines;

/// Who we are to the other side (PS3.7, D.3.3.2): a UUID of this implementation under 2.25.
pub const IMPLEMENTATION: &str = "2.25.215467280176348923409562730895214613987";
/// Our version, up to 16 characters.
pub const IMPLEMENTATION_VERSION: &str = concat!("HYDRAEDS_", env!("CARGO_PKG_VERSION"));
