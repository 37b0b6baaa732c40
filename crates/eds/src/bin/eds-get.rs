//! The command `eds-get`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-get")
}
