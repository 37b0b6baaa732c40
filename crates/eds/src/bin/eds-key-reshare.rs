//! The command `eds-key-reshare`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-key-reshare")
}
