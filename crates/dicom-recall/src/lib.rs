//! From the PACS to the storage element: instances are fetched, de-identified, sealed and placed as they arrive, with
//! bounded memory and no plaintext on disk. The command is described in `docs/src/commands/dicom-recall.md`.
//!
//! [`now`] does it once, [`check`] says what would be in the way. [`source`] is the PACS, [`pipeline`] what is done to
//! each instance, [`keys`] under what.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use eds::args::{Manners, Stores};
use hydra_cli::command::{self, Example};

use crate::names::KeyPer;

pub mod check;
pub mod config;
pub mod keys;
pub mod names;
pub mod now;
pub mod pipeline;
pub mod secret;
pub mod source;

/// Where the configuration is looked for where no option and no variable says.
pub const CONFIG: &str = "/etc/eds/dicom-recall.toml";

/// Fetches images from a PACS, de-identifies and seals them on the way to a storage element
#[derive(Debug, Parser)]
#[command(name = "dicom-recall", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch, de-identify, seal and place a study, a series or an instance now
    Now(Now),
    /// Try PACS, stores, credential and secret, and say what is wrong
    Check(Check),
}

/// `dicom-recall now`.
#[derive(Debug, clap::Args)]
pub struct Now {
    /// What to fetch, by the PACS's own identifiers: STUDY, STUDY/SERIES or STUDY/SERIES/INSTANCE
    #[arg(value_name = "STUDY[/SERIES[/INSTANCE]]")]
    pub what: String,
    /// Where names begin: the root of the storage element's files
    pub dir: PathBuf,
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    /// Register a key for each series or for each instance [default: as configured]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub key_per: Option<KeyPer>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
    /// Write what identifies the patients to a new file, a line for each instance: it must not leave the hospital
    #[arg(long, value_name = "FILE")]
    pub private_out: Option<PathBuf>,
    /// How often to ask the PACS for what did not come
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    #[command(flatten)]
    #[allow(
        missing_docs,
        reason = "a doc comment would become the help of every option in the group"
    )]
    pub stores: Stores,
    #[command(flatten)]
    #[allow(
        missing_docs,
        reason = "a doc comment would become the help of every option in the group"
    )]
    pub manners: Manners,
}

/// `dicom-recall check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration
    #[arg(env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    #[command(flatten)]
    #[allow(
        missing_docs,
        reason = "a doc comment would become the help of every option in the group"
    )]
    pub stores: Stores,
    #[command(flatten)]
    #[allow(
        missing_docs,
        reason = "a doc comment would become the help of every option in the group"
    )]
    pub manners: Manners,
}

const EXAMPLES: [Example; 2] = [
    Example {
        says: "say what is wrong before anything is fetched",
        command: "dicom-recall check /etc/eds/dicom-recall.toml",
    },
    Example {
        says: "bring a series to the folder that a storage element serves",
        command: "dicom-recall now 1.2.840.113619.2.1/1.2.840.113619.2.1.7 /srv/se",
    },
];

/// The whole program.
pub fn main() -> ExitCode {
    hydra_cli::harden();
    command::run::<Arguments>(&EXAMPLES, |arguments| match arguments.verb {
        Verb::Now(arguments) => now::now(&arguments),
        Verb::Check(arguments) => check::check(&arguments),
    })
}
