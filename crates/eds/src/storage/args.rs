//! The command lines of `eds-put`, `eds-get` and `eds-rm`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser};
use hydra_cli::command::Example;

use crate::args::{Manners, Stores};
use crate::slice::ByteRange;

/// How long to wait for a storage element.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage elements")]
pub struct Patience {
    /// Give a transfer up when nothing moves for so long
    #[arg(long, value_name = "SECONDS", default_value_t = storage_url::IDLE.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_timeout: u64,
}

impl Patience {
    /// As a span of time.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_timeout)
    }
}

/// Seal a file and put it on a storage element, under a new key of its own
///
/// The key is registered first; if the file does not get there whole, the key is removed again and so is what was sent.
/// URL begins with https:, davs:, root:, gsiftp:, srm: or file:. LOCAL may be `-`, standard input.
#[derive(Debug, Parser)]
#[command(name = "eds-put")]
pub struct Put {
    /// The file to seal
    #[arg(value_name = "LOCAL")]
    pub local: OsString,
    /// Where to put it
    #[arg(value_name = "URL")]
    pub url: String,
    /// The name of the key; without it, the path in the URL
    #[arg(short = 'i', long, value_name = "KEY_ID")]
    pub key_id: Option<String>,
    /// KEY_ID is registered already: use it, and register nothing
    #[arg(long, requires = "key_id")]
    pub existing_key: bool,
    /// Replace a file that is there; a failure may cost the old one
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Get a sealed file from a storage element and open it on the way
///
/// The file's header names its key. Nothing that does not verify is ever handed out; LOCAL appears whole or not at all.
/// `-` is standard output. A file of gLite's tools has no header: its key is the one that is called like the path in
/// URL, or KEY_ID, and must be for such files.
#[derive(Debug, Parser)]
#[command(name = "eds-get")]
pub struct Get {
    /// Where the file is
    #[arg(value_name = "URL")]
    pub url: String,
    /// The opened file
    #[arg(value_name = "LOCAL")]
    pub local: OsString,
    /// The name of the key, where the file's header has an old one or none
    #[arg(short = 'i', long, value_name = "KEY_ID")]
    pub key_id: Option<String>,
    /// Only these bytes of the opened file: FIRST-LAST, FIRST- or -COUNT, from 0
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    pub range: Option<ByteRange>,
    /// Replace LOCAL if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Remove a sealed file from a storage element, and then its key
///
/// The file goes first: if the key cannot be removed after it, the command says so and nothing is unreadable. A key
/// that other files are sealed under must stay: --keep-key.
#[derive(Debug, Parser)]
#[command(name = "eds-rm")]
pub struct Remove {
    /// Where the file is
    #[arg(value_name = "URL")]
    pub url: String,
    /// The name of the key, where the file's header has an old one or none
    #[arg(short = 'i', long, value_name = "KEY_ID", conflicts_with = "keep_key")]
    pub key_id: Option<String>,
    /// Remove the file alone
    #[arg(long)]
    pub keep_key: bool,
    #[command(flatten)]
    pub patience: Patience,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `eds-put`.
pub const PUT_EXAMPLES: &[Example] = &[
    Example {
        says: "Seal a file into a storage element; its key is called /myvo/scans/17",
        command: "eds-put scan.dcm https://se.example.org/myvo/scans/17",
    },
    Example {
        says: "The same by XRootD, under a name of your own for the key",
        command: "eds-put --key-id /myvo/keys/17 scan.dcm root://se.example.org//myvo/scans/17",
    },
];

/// Uses of `eds-get`.
pub const GET_EXAMPLES: &[Example] = &[
    Example {
        says: "Get a file and open it",
        command: "eds-get https://se.example.org/myvo/scans/17 scan.dcm",
    },
    Example {
        says: "Only its first 132 bytes, to standard output",
        command: "eds-get --range 0-131 https://se.example.org/myvo/scans/17 -",
    },
];

/// Uses of `eds-rm`.
pub const REMOVE_EXAMPLES: &[Example] = &[
    Example {
        says: "Remove a file and its key, for ever",
        command: "eds-rm https://se.example.org/myvo/scans/17",
    },
    Example {
        says: "Remove a file whose key other files need",
        command: "eds-rm --keep-key https://se.example.org/myvo/scans/17",
    },
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_line_is_sound() {
        Put::command().debug_assert();
        Get::command().debug_assert();
        Remove::command().debug_assert();
    }
}
