//! `testgrid`: see `docs/src/commands/testgrid.md`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hydra_cli::command::{self, Example};
use hydra_cli::{Code, Failure, output};
use testgrid::{Grid, GridError, GridOptions};

/// Make a throw-away grid on this machine: authorities, users, key stores and a catalogue on loopback
#[derive(Debug, Parser)]
#[command(name = "testgrid")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a grid in DIR and start it; DIR/env is to be sourced
    Up(Up),
    /// Kill store N (SIGKILL)
    Kill(One),
    /// Halt store N (SIGSTOP)
    Stop(One),
    /// Let store N go on (SIGCONT)
    Cont(One),
    /// Start store N again, on the same port
    Start(One),
    /// Make certificates and proxies anew, of a grid whose own ran out; stores that run are started again
    Renew {
        /// The grid's directory
        dir: PathBuf,
    },
    /// End all stores and the catalogue; DIR stays
    Down {
        /// The grid's directory
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Up {
    /// A directory that is empty or not there yet
    dir: PathBuf,
    /// How many key stores
    #[arg(long, value_name = "N", default_value_t = 3)]
    stores: usize,
    /// How many of them join a key
    #[arg(long, value_name = "M", default_value_t = 2)]
    threshold: usize,
    /// Take the certificates and proxies of this directory, laid out like a test grid's, instead of making them
    #[arg(long, value_name = "PKIDIR")]
    pki: Option<PathBuf>,
    /// Leave the catalogue out
    #[arg(long)]
    no_catalog: bool,
}

#[derive(Debug, Args)]
struct One {
    /// The grid's directory
    dir: PathBuf,
    /// Which store, from 1
    #[arg(value_name = "N")]
    number: usize,
}

const EXAMPLES: &[Example] = &[
    Example {
        says: "A grid of three stores, two of which join a key",
        command: "testgrid up grid",
    },
    Example {
        says: "Use it in this shell",
        command: ". grid/env",
    },
    Example {
        says: "Kill the second store",
        command: "testgrid kill grid 2",
    },
    Example {
        says: "Its proxies ran out: make new ones",
        command: "testgrid renew grid",
    },
    Example {
        says: "End it",
        command: "testgrid down grid",
    },
];

fn main() -> ExitCode {
    command::run::<Arguments>(EXAMPLES, |arguments| run(&arguments.verb))
}

fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Up(up) => {
            let options = GridOptions {
                stores: up.stores,
                threshold: up.threshold,
                pki: up.pki.clone(),
                catalog: !up.no_catalog,
                ..GridOptions::default()
            };
            let mut grid = Grid::up(&up.dir, &options).map_err(failure)?;
            grid.keep();
            output::print(told(&grid).as_bytes())
        }
        Verb::Kill(one) => Grid::open(&one.dir)
            .and_then(|mut grid| grid.kill(one.number))
            .map_err(failure),
        Verb::Stop(one) => Grid::open(&one.dir)
            .and_then(|mut grid| grid.stop(one.number))
            .map_err(failure),
        Verb::Cont(one) => Grid::open(&one.dir)
            .and_then(|mut grid| grid.cont(one.number))
            .map_err(failure),
        Verb::Start(one) => Grid::open(&one.dir)
            .and_then(|mut grid| grid.start(one.number))
            .map_err(failure),
        Verb::Renew { dir } => Grid::open(dir).and_then(|mut grid| grid.renew()).map_err(failure),
        Verb::Down { dir } => Grid::open(dir).and_then(|mut grid| grid.down()).map_err(failure),
    }
}

fn told(grid: &Grid) -> String {
    let mut text = String::new();
    for (index, url) in grid.urls().iter().enumerate() {
        text.push_str(&format!("store {} {url}\n", index + 1));
    }
    if let Some(url) = grid.catalog_url() {
        text.push_str(&format!("catalog {url}\n"));
    }
    text + &format!("source {}\n", grid.env_file().display())
}

fn failure(error: GridError) -> Failure {
    if let GridError::NotReady { log, .. } | GridError::CatalogNotReady { log } = &error {
        // What a store says in its last lines is what its user needs; if standard error is closed, nobody does.
        let _ = writeln!(std::io::stderr(), "{log}");
    }
    let code = match &error {
        GridError::Numbers { .. } | GridError::NoStore { .. } => Code::Usage,
        GridError::NotEmpty(_) => Code::CannotCreate,
        GridError::File { .. } => Code::Io,
        GridError::NoGrid(_) | GridError::GivenPki(_) | GridError::TooFewHosts { .. } | GridError::Pki(_) => {
            Code::Config
        }
        _ => Code::Failed,
    };
    Failure::new(code, error)
}
