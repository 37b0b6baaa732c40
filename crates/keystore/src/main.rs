//! `hydra-keystore`: see `docs/src/commands/hydra-keystore.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hydra_keystore::main()
}
