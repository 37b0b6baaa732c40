//! `dicom-recall`: see `docs/src/commands/dicom-recall.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dicom_recall::main()
}
