//! `cargo demo`, `cargo verify`, `cargo dist`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hydra_xtask::main()
}
