//! Chores of this repository, as commands of cargo: `cargo demo`, `cargo verify`, `cargo dist`, `cargo bench-report`.
//!
//! Each builds the workspace first, and uses only binaries that lie beside its own and have its own version.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to the person who typed it"
)]

pub mod bench;
pub mod bench_recall;
pub mod bench_store;
pub mod chore;
pub mod demo;
pub mod demo_pacs;
pub mod demo_story;
pub mod dicom;
pub mod dist;
pub mod names;
pub mod peers;
mod scene;
mod server;
pub mod suite;
pub mod verify;
pub mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::chore::ChoreError;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Show the main job: three key stores, an image sealed, a store killed, the image opened, and refused to another
    Demo {
        /// The file to seal; without it a CT slice of an invented patient is written
        #[arg(conflicts_with_all = ["pacs", "story"])]
        file: Option<PathBuf>,
        /// Show another job: images in a PACS (Orthanc) come to a storage element (XRootD) when somebody asks for them
        #[arg(long)]
        pacs: bool,
        /// Show all of it: registered without copying, found by a researcher, recalled, identified, withdrawn
        #[arg(long, conflicts_with = "pacs")]
        story: bool,
        /// Keep the grid's folder (keys, logs, sealed file) for a look afterwards
        #[arg(long)]
        keep: bool,
    },
    /// Check everything: format, lints, manual, licences, and all tests
    Verify {
        /// Leave out what needs more than Rust and a C compiler, and say what that was
        #[arg(long)]
        no_peers: bool,
        /// Run only the tests whose name contains this, and nothing else
        filter: Option<String>,
    },
    /// Lay out what is installed: programs with their other names, man pages, completions, unit, examples
    Dist {
        /// A folder that does not exist yet, or is empty
        dir: PathBuf,
        /// Copy programs under their other names, where links cannot be kept
        #[arg(long)]
        copies: bool,
    },
    /// Measure sealing, opening, fetching keys and recalling against rivals, in the same run, as ratios
    Bench(bench::Sizes),
}

/// What `main` does: reads the command line, does the chore, prints why it could not.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  cause: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<(), ChoreError> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Demo { keep, story: true, .. } => demo_story::run(&workspace, keep),
        Chore::Demo { keep, pacs: true, .. } => demo_pacs::run(&workspace, keep),
        Chore::Demo { file, keep, .. } => demo::run(&workspace, file.as_deref(), keep),
        Chore::Verify { no_peers, filter } => verify::run(&workspace, no_peers, filter.as_deref()),
        Chore::Dist { dir, copies } => dist::run(&workspace, &dir, copies),
        Chore::Bench(sizes) => bench::run(&workspace, &sizes),
    }
}
