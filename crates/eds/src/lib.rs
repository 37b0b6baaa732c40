//! Encrypted data storage: the verbs behind the `eds-*` commands and their `glite-eds-*` aliases.
//!
//! Each binary's `main` is one call of [`run`]. What a command does lies in a module of its own, so that tests and
//! other programs call the same verb: [`keys`] (register, unregister, export), [`status`], [`repair`] (repair,
//! reshare), [`rotate`], [`encrypt`], [`decrypt`], [`permissions`] (getacl, setacl, chmod), [`storage`] (put, get, rm),
//! [`check`] (check, whoami); [`legacy`] is about keys and files of the original. [`glite`] and [`glite_permissions`]
//! speak the original's operands, words and exit codes over the same verbs. The commands are described in
//! `docs/src/commands/eds.md` and `docs/src/commands/glite.md`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

use hydra_cli::{Code, Failure, manual};

pub mod args;
pub mod check;
pub mod decrypt;
pub mod encrypt;
pub mod failure;
mod getopt;
pub mod glite;
pub mod glite_permissions;
pub mod key_file;
pub mod keys;
pub mod legacy;
mod many;
pub mod operands;
pub mod permission_args;
pub mod permissions;
pub mod repair;
pub mod rotate;
pub mod session;
pub mod slice;
pub mod status;
pub mod storage;
pub mod voice;
mod work;

/// The commands of this crate, each a binary of this name.
pub const NAMES: &[&str] = &[
    "eds-cat",
    "eds-check",
    "eds-chmod",
    "eds-decrypt",
    "eds-encrypt",
    "eds-getacl",
    "eds-get",
    "eds-key-export",
    "eds-key-register",
    "eds-key-repair",
    "eds-key-reshare",
    "eds-key-rotate",
    "eds-key-status",
    "eds-key-unregister",
    "eds-setacl",
    "eds-put",
    "eds-rm",
    "eds-whoami",
];

/// Names of the original, each with the binary that answers to it (told by `argv[0]`, so a link is enough).
pub const GLITE_NAMES: &[(&str, &str)] = &[
    ("glite-eds-chmod", "eds-chmod"),
    ("glite-eds-decrypt", "eds-decrypt"),
    ("glite-eds-encrypt", "eds-encrypt"),
    ("glite-eds-getacl", "eds-getacl"),
    ("glite-eds-key-register", "eds-key-register"),
    ("glite-eds-key-unregister", "eds-key-unregister"),
    ("glite-eds-setacl", "eds-setacl"),
    ("glite-eds-get", "eds-get"),
    ("glite-eds-put", "eds-put"),
    ("glite-eds-rm", "eds-rm"),
];

/// Runs what the process was called by: one of the [`NAMES`] or their aliases, so that one binary with links serves as
/// all of them; `name` where it was called by anything else. For `main`, and nothing else.
pub fn run(name: &str) -> ExitCode {
    hydra_cli::harden();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = hydra_cli::called_as(&arguments);
    let name = NAMES.iter().find(|known| **known == called).unwrap_or(&name);
    if manual::is_asked_for(&arguments)
        && let Some(page) = glite_manual(&called)
    {
        return hydra_cli::exit(page.and_then(|page| hydra_cli::output::print(&page)));
    }
    if let Some(command) = glite::Command::called(&called) {
        return glite::run(command, &called, arguments.get(1..).unwrap_or_default());
    }
    if let Some(command) = glite_permissions::Command::called(&called) {
        return glite_permissions::run(command, &called, arguments.get(1..).unwrap_or_default());
    }
    if let Some(command) = storage::glite::Command::called(&called) {
        return storage::glite::run(command, &called, arguments.get(1..).unwrap_or_default());
    }
    hydra_cli::exit(args::parse(name, arguments).and_then(|command| command.map_or(Ok(()), dispatch)))
}

/// The manual page of one of the [`GLITE_NAMES`], made of what it prints as usage, whichever module answers to it.
fn glite_manual(called: &str) -> Option<Result<Vec<u8>, Failure>> {
    let (name, program) = GLITE_NAMES.iter().find(|(name, _)| *name == called)?;
    let changes_permissions = ["-getacl", "-setacl", "-chmod"].iter().any(|end| name.ends_with(end));
    let failed = if changes_permissions { "1" } else { "255" };
    let page = own_usage(name).and_then(|usage| {
        let alias = manual::Alias {
            name,
            program,
            usage: &usage,
            exit_codes: &[("0", "done"), (failed, "anything else")],
        };
        alias.page()
    });
    Some(page.map_err(|error| Failure::new(Code::Failed, error)))
}

fn own_usage(name: &str) -> std::io::Result<String> {
    let mut own = std::process::Command::new(std::env::current_exe()?);
    let answer = own.arg0(name).arg("-h").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

fn dispatch(command: args::Command) -> Result<(), Failure> {
    match command {
        args::Command::Cat(args) => decrypt::cat(&args),
        args::Command::Check(args) => check::check(&args),
        args::Command::Chmod(args) => permissions::chmod(&args),
        args::Command::Decrypt(args) => decrypt::decrypt(&args),
        args::Command::Encrypt(args) => encrypt::encrypt(&args),
        args::Command::GetAcl(args) => permissions::getacl(&args),
        args::Command::SetAcl(args) => permissions::setacl(&args),
        args::Command::Export(args) => keys::export(&args),
        args::Command::Get(args) => storage::get::get(&args),
        args::Command::Put(args) => storage::put::put(&args),
        args::Command::Register(args) => keys::register(&args),
        args::Command::Remove(args) => storage::remove::remove(&args),
        args::Command::Repair(args) => repair::repair(&args),
        args::Command::Reshare(args) => repair::reshare(&args),
        args::Command::Rotate(args) => rotate::rotate(&args),
        args::Command::Status(args) => status::status(&args),
        args::Command::Unregister(args) => keys::unregister(&args),
        args::Command::Whoami(args) => check::whoami(&args),
    }
}
