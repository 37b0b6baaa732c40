//! The program `mdm`, by whatever name it is called (`docs/src/commands/mdm.md`).

use std::process::ExitCode;

fn main() -> ExitCode {
    mdm::run()
}
