//! The command line of `dicom-recall place`.

#![allow(
    missing_docs,
    reason = "a doc comment on a group would become the help of the whole command"
)]

use std::path::PathBuf;

/// `dicom-recall place`.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The configuration
    #[arg(env = "DICOM_RECALL_PLACE_CONFIG", default_value = crate::PLACE_CONFIG)]
    pub config: PathBuf,
}
