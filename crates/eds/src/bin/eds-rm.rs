//! The command `eds-rm`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-rm")
}
