//! `dicom-deid`: see `docs/src/commands/dicom-deid.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dicom_deid::command::main()
}
