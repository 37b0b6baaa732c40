//! What every command of Hydra EDS has: exit codes, errors with advice, names by `argv[0]`, a hardened process.
//!
//! A command's `main` is a few lines: [`harden`], then [`command::run`], which parses, calls one verb and exits with what
//! came of it. Errors print
//! as three kinds of line on standard error: `error:` what went wrong, `  cause:` each source of it, `  try:` what to do.

pub mod command;
pub mod config_file;
pub mod manual;
pub mod output;
pub mod progress;
pub mod secret_input;
pub mod signals;
pub mod verbosity;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes, after sysexits(3). The `glite-*` names keep the original's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Damaged data.
    Damaged = 65,
    /// Output or key id exists, or cannot be made.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Too few stores, or done at some only: try again later.
    TryLater = 75,
    /// No such key, or not allowed.
    NotAllowed = 77,
    /// Configuration or credential.
    Config = 78,
    /// What the original's file and key commands exit with on every failure.
    Glite = 255,
}

/// The table of exit codes as it stands in every `--help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0   done
  1   failed
  2   wrong usage
  65  damaged data
  73  output or key id exists, or cannot be made
  74  reading or writing failed
  75  too few stores, or done at some only: try again later
  77  no such key, or not allowed
  78  configuration or credential";

/// Why a command ends without success: what its user sees, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong; its sources are printed as causes.
    pub error: Box<dyn Error + Send + Sync>,
    /// What to try, a command or a sentence; printed on lines of their own.
    pub advice: Vec<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(code: Code, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code,
            error: error.into(),
            advice: Vec::new(),
        }
    }

    /// Adds a line of advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// The lines for standard error, each source once.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("error: {}", printable(&self.error.to_string()))];
        let mut source = self.error.source();
        while let Some(cause) = source {
            lines.push(format!("  cause: {}", printable(&cause.to_string())));
            source = cause.source();
        }
        lines.extend(self.advice.iter().map(|advice| format!("  try: {}", printable(advice))));
        lines
    }
}

/// Names in messages come from outside: control characters, which a terminal would obey, are shown escaped.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_unseen(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character is not seen, and turns or hides what stands beside it: a name could be read as another one.
fn is_unseen(c: char) -> bool {
    let ranges = [
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
    ];
    matches!(c, '\u{61c}' | '\u{feff}') || ranges.iter().any(|range| range.contains(&c))
}

/// Prints a failure to standard error, coloured on terminals only (`NO_COLOR` is obeyed), and gives the exit code.
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut stderr = anstream::stderr().lock();
            let bold = anstyle::AnsiColor::Red.on_default().bold();
            for (number, line) in failure.lines().iter().enumerate() {
                let written = match line.strip_prefix("error: ") {
                    Some(rest) if number == 0 => writeln!(stderr, "{bold}error:{bold:#} {rest}"),
                    _ => writeln!(stderr, "{line}"),
                };
                if written.is_err() {
                    break;
                }
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

/// The name under which a program was called, without folders: `argv[0]` decides which of its commands it is.
pub fn called_as(arguments: &[OsString]) -> String {
    let path = arguments.first().map(Path::new).and_then(Path::file_name);
    path.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Keeps secrets out of core dumps and away from other processes of the user: call first in `main`.
///
/// Failure is no reason to stop: some containers forbid it.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `a\nb`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failure_prints_error_causes_and_advice_on_lines_of_their_own() {
        let failure = Failure::new(Code::Io, Outer(std::io::Error::other("disk gone"))).advise("df -h");
        assert_eq!(
            failure.lines(),
            ["error: cannot read `a\\nb`", "  cause: disk gone", "  try: df -h"]
        );
    }

    #[test]
    fn the_name_called_is_the_last_component() {
        assert_eq!(called_as(&["/usr/bin/glite-eds-get".into()]), "glite-eds-get");
        assert_eq!(called_as(&[]), "");
    }
}
