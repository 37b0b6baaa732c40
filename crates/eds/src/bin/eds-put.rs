//! The command `eds-put`: see `docs/src/commands/eds.md`.

fn main() -> std::process::ExitCode {
    eds::run("eds-put")
}
