//! The command `eds-key-repair`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-key-repair")
}
