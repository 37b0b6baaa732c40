//! The command `eds-key-unregister`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-key-unregister")
}
