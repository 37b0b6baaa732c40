//! The command `eds-decrypt`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-decrypt")
}
