//! `mdm-catalog`: see `docs/src/commands/mdm-catalog.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mdm_catalog::main()
}
