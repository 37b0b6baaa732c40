//! What every chore has: its error, and running a program with its output kept.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Why a chore stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoreError {
    /// A program could not be started at all.
    #[error("cannot start `{program}`")]
    Start {
        /// What was to be run.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program ended otherwise than it should.
    #[error("`{command}` ended with {status}\n{output}")]
    Ended {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// All that it printed.
        output: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// Read, write, make, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One of our programs is missing, or of another version.
    #[error("`{}` {fault}: run `cargo build --workspace --bins`", path.display())]
    Program {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// What was to be shown did not happen.
    #[error("{0}")]
    NotAsPromised(String),
    /// Something from outside this repository is missing, and what to type to get it.
    #[error("{missing}\n  try: {remedy}")]
    Missing {
        /// What is missing.
        missing: String,
        /// The one command that brings it.
        remedy: String,
    },
    /// Steps or tests failed; each was told where it failed.
    #[error("{0} failed")]
    Failed(usize),
    /// The user asked to stop.
    #[error("stopped on request")]
    Interrupted,
}

/// Names the file in an I/O error.
pub fn on(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChoreError {
    let path = path.to_owned();
    move |source| ChoreError::File { doing, path, source }
}

/// A command line as a person would type it, for messages only.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args()).map(|word| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$`\\*?;&|<>()".contains(c)) {
            // a query has single quotes of its own, and nothing that double ones would not keep
            match word.contains('\'') && !word.contains(|c: char| "\"$`\\!".contains(c)) {
                true => format!("\"{word}\""),
                false => format!("'{}'", word.replace('\'', r"'\''")),
            }
        } else {
            word.into_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs a program without input and keeps what it prints.
pub fn output(command: &mut Command) -> Result<Output, ChoreError> {
    command.stdin(Stdio::null());
    command.output().map_err(|source| ChoreError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })
}

/// Runs a program that must succeed, and gives its standard output.
pub fn succeed(command: &mut Command) -> Result<String, ChoreError> {
    let output = output(command)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(ended(command, &output))
    }
}

/// The error of a program that ended otherwise than it should.
pub fn ended(command: &Command, output: &Output) -> ChoreError {
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.push_str(&String::from_utf8_lossy(&output.stderr));
    ChoreError::Ended {
        command: shown(command),
        status: output.status.to_string(),
        output: all,
    }
}

/// Is there a program of this name on the search path?
pub fn on_path(program: &str) -> bool {
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
