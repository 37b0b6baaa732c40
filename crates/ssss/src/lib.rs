//! Split a secret over people or places, and join it again: the commands `ssss-split` and `ssss-join`.
//!
//! Both programs answer to the five `glite-ssss-*` names of gLite too, told by `argv[0]`, with the operands, output and
//! exit codes of the originals. See `docs/src/commands/ssss.md` and `docs/src/commands/glite.md`.

mod glite;
mod join;
mod log;
mod split;

use std::process::ExitCode;

pub use join::JoinArguments;
pub use split::SplitArguments;

/// Every `glite-*` name, and the program that a link of that name leads to.
pub const GLITE_NAMES: &[(&str, &str)] = &[
    ("glite-ssss-split-passwd", "ssss-split"),
    ("glite-ssss-join-passwd", "ssss-join"),
    ("glite-ssss-split-key", "ssss-split"),
    ("glite-ssss-join-key", "ssss-join"),
    ("glite-ssss-generate-key", "ssss-split"),
];

/// What a program is where it is not called by one of the [`GLITE_NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `ssss-split`
    Split,
    /// `ssss-join`
    Join,
}

/// The whole of a program: reads the arguments, does its work, answers the exit code. The name that it was called by
/// counts, so that one binary with links serves as both; `own` where that is neither.
pub fn main(own: Command) -> ExitCode {
    hydra_cli::harden();
    let arguments: Vec<_> = std::env::args_os().collect();
    let called = hydra_cli::called_as(&arguments);
    if let Some(tool) = glite::Tool::named(&called) {
        return tool.run(&arguments);
    }
    let command = match called.as_str() {
        "ssss-split" => Command::Split,
        "ssss-join" => Command::Join,
        _ => own,
    };
    match command {
        Command::Split => hydra_cli::command::run(split::EXAMPLES, |arguments| split::run(&arguments)),
        Command::Join => hydra_cli::command::run(join::EXAMPLES, |arguments| join::run(&arguments)),
    }
}
