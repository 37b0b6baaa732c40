//! The command `eds-key-rotate`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-key-rotate")
}
