//! The command `eds-encrypt`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-encrypt")
}
