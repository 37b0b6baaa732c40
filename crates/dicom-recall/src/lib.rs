//! From the PACS to the storage element: instances are fetched, de-identified, sealed and placed as they arrive, with
//! bounded memory and no plaintext on disk. The command is described in `docs/src/commands/dicom-recall.md`.
//!
//! [`now`] does it once, [`check`] says what would be in the way, [`daemon`] does what is asked for: what is registered
//! stands in the [`registry`], what is asked for in the [`queue`], and the [`engine`] does the work for all of them.
//! [`source`] is the PACS, [`pipeline`] what is done to each instance, [`keys`] under what. [`mod@line`] and [`ask`]
//! are what daemon, agent and storage element say to each other, [`place`] is that agent; [`hooks`] and [`hsm`] are
//! what XRootD and dCache call.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hydra_cli::command::{self, Example};

pub use crate::args::{Check, Now};

mod args;
pub mod ask;
pub mod catalogued;
pub mod check;
pub mod config;
pub mod daemon;
pub mod database;
pub mod destination;
pub mod door;
pub mod engine;
pub mod errors;
pub mod evict;
mod herald;
pub mod hooks;
pub mod hsm;
pub mod intake;
pub mod keys;
pub mod ledger;
pub mod line;
pub mod link;
pub mod names;
pub mod now;
pub mod pipeline;
pub mod place;
pub mod queue;
pub mod receive;
pub mod register;
pub mod registry;
pub mod se;
pub mod secret;
pub mod serve;
pub mod source;
pub mod stow;
pub mod tape;
pub mod transport;

/// Where the configuration is looked for where no option and no variable says.
pub const CONFIG: &str = "/etc/eds/dicom-recall.toml";
/// Where the agent's configuration is looked for where no operand and no variable says.
pub const PLACE_CONFIG: &str = "/etc/eds/place.toml";
/// Where the agent listens for the programs of the storage element, unless told otherwise.
pub const SOCKET: &str = "/run/eds/place.sock";

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
    /// Serve a storage element: put in its place what the daemon sends, ask it for what somebody wants
    Place(place::Place),
    /// Serve the WLCG Tape REST API beside a storage element, until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Give names and keys to a study, a series or an instance, so that it can be asked for
    Register(register::Register),
    /// Register these no more
    Unregister(ledger::Unregister),
    /// Work off what is asked for, until told to end
    Daemon(daemon::Serve),
    /// Take images that are pushed, by C-STORE and STOW-RS, until told to end
    Receive(receive::Receive),
    /// List what is registered
    Ls(ledger::List),
    /// Say what is known of these
    Stat(ledger::Stat),
    /// Take the bytes of these off the storage element
    Evict(ledger::TakeAway),
    /// Ask for files by name, or by study, series or instance
    Request(ledger::Request),
    /// List what was asked for, and how far it is
    Requests(ledger::Requests),
    /// Wait no more for these
    Cancel(ledger::Cancel),
    /// Try again what was given up
    Retry(ledger::Meant),
    /// For XRootD's `oss.rsscmd`: say what is known of a name
    Rss(hooks::Rss),
    /// For XRootD's `oss.stagecmd sync`: wait until a file is there
    Stage(hooks::Stage),
    /// For XRootD's `oss.stagecmd async |`: answer requests from standard input
    Queue(hooks::Queue),
    /// For XRootD's `libXrdOfsPrepGPI.so`: take requests for several files, and answer for them
    Prep(hooks::Prep),
    /// For dCache's pools: get a file
    Hsm(hsm::Hsm),
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
    let mut has_hsm_failed = false;
    let ended = command::run::<Arguments>(&EXAMPLES, |arguments| match arguments.verb {
        Verb::Now(arguments) => now::now(&arguments),
        Verb::Check(arguments) => check::check(&arguments),
        Verb::Place(arguments) => place::place(&arguments),
        Verb::Serve(arguments) => serve::serve(&arguments),
        Verb::Register(arguments) => register::register(&arguments),
        Verb::Unregister(arguments) => ledger::unregister(&arguments),
        Verb::Daemon(arguments) => daemon::daemon(&arguments),
        Verb::Receive(arguments) => receive::receive(&arguments),
        Verb::Ls(arguments) => ledger::list(&arguments),
        Verb::Stat(arguments) => ledger::stat(&arguments),
        Verb::Evict(arguments) => ledger::evict(&arguments),
        Verb::Request(arguments) => ledger::request(&arguments),
        Verb::Requests(arguments) => ledger::requests(&arguments),
        Verb::Cancel(arguments) => ledger::cancel(&arguments),
        Verb::Retry(arguments) => ledger::retry(&arguments),
        Verb::Rss(arguments) => hooks::rss(&arguments),
        Verb::Stage(arguments) => hooks::stage(&arguments),
        Verb::Queue(arguments) => hooks::queue(&arguments),
        Verb::Prep(arguments) => hooks::prep(&arguments),
        Verb::Hsm(arguments) => hsm::hsm(&arguments).inspect_err(|_| has_hsm_failed = true),
    });
    if has_hsm_failed {
        return ExitCode::from(hsm::FAILED);
    }
    ended
}

#[cfg(test)]
#[path = "../../catalog/src/database/postgres/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod postgres_server;
