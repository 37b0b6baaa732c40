//! What a command says: results on standard output, everything else on standard error, little when quiet.

use std::io::IsTerminal;

use hydra_cli::output::{print_json, print_line, tell, warn};
use hydra_cli::verbosity::Verbosity;
use hydra_cli::{Failure, printable};

use crate::args::Manners;

/// How a command speaks. Cheap to copy around.
#[derive(Debug, Clone, Copy, Default)]
pub struct Voice {
    /// Only errors and warnings.
    pub quiet: bool,
    /// Results as JSON.
    pub json: bool,
    /// Standard output carries data: results go to standard error.
    pub data_on_stdout: bool,
}

impl Voice {
    /// As the options say; the log begins here.
    pub fn new(manners: &Manners) -> Self {
        Self {
            json: manners.json,
            ..Self::of(manners.verbosity)
        }
    }

    /// As the options of a command without `--json` say; the log begins here.
    pub fn of(verbosity: Verbosity) -> Self {
        verbosity.start_log();
        Self {
            quiet: verbosity.quiet,
            json: false,
            data_on_stdout: false,
        }
    }

    /// A result in words, for people; nothing with `--json` or `--quiet`.
    ///
    /// # Errors
    /// Where standard output cannot be written; a reader that went away is no error.
    pub fn result(self, line: &str) -> Result<(), Failure> {
        if self.data_on_stdout {
            self.note(line);
        } else if !self.quiet && !self.json {
            print_line(&printable(line))?;
        }
        Ok(())
    }

    /// A result for programs; nothing without `--json`.
    ///
    /// # Errors
    /// As for [`Voice::result`].
    pub fn json(self, value: &serde_json::Value) -> Result<(), Failure> {
        if self.json { print_json(value) } else { Ok(()) }
    }

    /// What is good to know, on standard error; nothing when quiet.
    pub fn note(self, line: &str) {
        if !self.quiet {
            tell(line);
        }
    }

    /// What the user should look at even when quiet.
    pub fn warning(self, line: &str) {
        warn(line);
    }

    /// The likely next command, only for people at a terminal.
    pub fn hint(self, line: &str) {
        if !self.quiet && !self.json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            tell(&format!("hint: {line}"));
        }
    }
}
