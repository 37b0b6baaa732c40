//! The command lines of `dicom-recall now` and `dicom-recall check`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::path::PathBuf;

use eds::args::{Manners, Stores};

use crate::CONFIG;
use crate::names::KeyPer;

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
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// `dicom-recall check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration
    #[arg(env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}
