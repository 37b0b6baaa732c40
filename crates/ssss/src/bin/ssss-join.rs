//! `ssss-join`, and the `glite-ssss-*` names by `argv[0]`: see `docs/src/commands/ssss.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssss::main(ssss::Command::Join)
}
