//! De-identification of DICOM objects by PS3.15 Annex E: the Basic Profile and its options, for one object after
//! another as it streams by. The manual is `docs/src/de-identification.md`; the command is
//! `docs/src/commands/dicom-deid.md`.
//!
//! ```
//! use dicom_deid::{Options, Profile, ProfileOption, Secret};
//!
//! let options = Options::new([ProfileOption::RetainModifiedDates])?;
//! let secret = Secret::new(&[7; 32])?; // in earnest: the 32 bytes of a registered key
//! let profile = Profile::new(options, &secret);
//! let refused = profile.deidentify(&b"no DICOM at all"[..], Vec::new());
//! assert!(refused.is_err());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! What is written before a [`Refusal`] must be dropped. [`Report`] has both halves: [`Report::to_json`] for everybody,
//! [`Report::to_private_json`] for the private side alone.

mod apart;
mod check;
#[cfg(feature = "command")]
pub mod command;
mod comments;
mod content;
mod csv;
mod dates;
mod element;
mod engine;
mod explain;
mod header;
mod iod;
mod meta;
mod needles;
mod options;
mod pixels;
mod private;
mod profile;
mod read;
mod refusal;
mod report;
mod review;
mod secret;
#[cfg(feature = "command")]
mod side_by_side;
mod syntax;
mod table;
mod text;

pub use apart::{is_inside, is_same};
pub use check::{Finding, check};
pub use element::{Tag, Vr};
pub use explain::{Line, explain};
pub use header::{Header, Side};
pub use options::{Options, OptionsError, ProfileOption, UnknownOption};
pub use profile::{PROFILE_VERSION, Profile};
pub use read::Limits;
pub use refusal::{Flag, Refusal, RefusalKind};
pub use report::{Counts, Ids, OldValue, Original, Outcome, PrivateHalf, Report};
pub use secret::{Secret, SecretError};
pub use table::EDITION;
