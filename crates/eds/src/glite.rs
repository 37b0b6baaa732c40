//! The `glite-eds-*` names: the original's operands, words and exit codes over the verbs of this crate.
//!
//! What the original did is told in `docs/src/commands/glite.md`. Every failure, wrong usage too, exits with 255; the
//! results stand on standard output unless `-q`, failures on standard error even with it. OUT is replaced.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hydra_cli::output::print;
use hydra_cli::verbosity::Verbosity;
use hydra_cli::{Code, Failure, printable};
use hydra_core::config::load::{Overrides, Surroundings};
use hydra_core::key_id::canonical;
use hydra_core::keystore::hydra::{FetchError, Purpose, RegisterError, RegisterOptions, RemoveError};
use hydra_core::sealed::{
    Input, InputError, OpenError, OpenOptions, Opened, Output, OutputError, SealError, SealOptions,
};

use crate::keys::remove_first;
use crate::legacy::{NewKey, Opener, Sealer};
use crate::operands::{bad_key_id, meant_key_ids, new_key_id};
use crate::session::Session;
use crate::voice::Voice;
use crate::work::clean_up_on_signal;
use crate::{decrypt, failure, getopt, legacy};

/// The permission bits that the original gives a sealed file, before the umask.
const SEALED_MODE: u32 = 0o640;

/// A command of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `glite-eds-key-register`
    Register,
    /// `glite-eds-key-unregister`
    Unregister,
    /// `glite-eds-encrypt`
    Encrypt,
    /// `glite-eds-decrypt`
    Decrypt,
}

impl Command {
    /// The command of this name, if the original has it.
    pub fn called(name: &str) -> Option<Self> {
        Some(match name {
            "glite-eds-key-register" => Self::Register,
            "glite-eds-key-unregister" => Self::Unregister,
            "glite-eds-encrypt" => Self::Encrypt,
            "glite-eds-decrypt" => Self::Decrypt,
            _ => return None,
        })
    }

    /// Its options: letters, those with a value followed by a colon.
    fn options(self) -> &'static str {
        if self == Self::Register { "hVqvtc:k:" } else { "hVqv" }
    }

    /// What `-h` prints.
    pub(crate) fn usage(self, name: &str) -> String {
        let (operands, extra) = match self {
            Self::Register => (
                "[-c CIPHER] [-k BITS] ID",
                " -c CIPHER  make a key for a cipher of the original, whose files have no integrity\n\
                 \x20-k BITS    length of the key, where the cipher takes several (bf-cbc, cast5-cbc)\n\
                 \x20-t         accepted, no effect\n",
            ),
            Self::Unregister => ("ID", ""),
            Self::Encrypt => (
                "[ID] IN OUT",
                " ID    the key; without it, your own key that is named like OUT\n\
                 \x20IN    the file to encrypt\n\
                 \x20OUT   the encrypted file, replaced if it exists\n",
            ),
            Self::Decrypt => (
                "ID [IN] OUT",
                " ID    the key\n\
                 \x20IN    the encrypted file; without it, the last part of ID in this folder\n\
                 \x20OUT   the decrypted file, replaced if it exists\n",
            ),
        };
        format!(
            "Usage: {name} [-h] [-V] [-q] [-v] {operands}\n{extra} -h         print this and exit\n \
             -V         print the version and exit\n -q         print nothing but errors\n -v         print what happens\n"
        )
    }
}

/// A command line of the original, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) help: bool,
    pub(crate) version: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    pub(crate) cipher: Option<OsString>,
    pub(crate) bits: Option<OsString>,
    pub(crate) key_id: Option<OsString>,
    /// `-u`: not encrypted.
    pub(crate) plain: bool,
    pub(crate) operands: Vec<OsString>,
}

/// None where an option is unknown or lacks its value. Help and version are told right where they are met.
pub(crate) fn read_line(arguments: &[OsString], known: &str) -> Option<Line> {
    let read = getopt::read(arguments, known, "hV").ok()?;
    let mut line = Line {
        operands: read.operands,
        ..Line::default()
    };
    for (letter, value) in read.options {
        match letter {
            b'h' => line.help = true,
            b'V' => line.version = true,
            b'q' => line.quiet = true,
            // takes an earlier -q back
            b'v' => (line.quiet, line.verbose) = (false, true),
            b'c' => line.cipher = value,
            b'k' => line.bits = value,
            b'i' => line.key_id = value,
            b'u' => line.plain = true,
            _ => {}
        }
    }
    Some(line)
}

/// Why a command of the original failed: its own words, and what we know besides.
pub(crate) struct Trouble {
    pub(crate) words: String,
    pub(crate) more: Vec<String>,
}

impl Trouble {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            more: Vec::new(),
        }
    }

    /// `Error during FUNCTION: REASON`, then causes and advice.
    pub(crate) fn during(function: &str, reason: impl fmt::Display, failure: &Failure) -> Self {
        let more = failure.lines().into_iter().skip(1).collect();
        Self {
            words: format!("Error during {function}: {reason}"),
            more,
        }
    }

    /// The same, in the words of the failure itself.
    pub(crate) fn plain(function: &str, failure: &Failure) -> Self {
        Self::during(function, &failure.error, failure)
    }
}

/// Runs a command under its original name.
pub fn run(command: Command, name: &str, arguments: &[OsString]) -> ExitCode {
    let usage = command.usage(name);
    let Some(line) = read_line(arguments, command.options()) else {
        return wrong_usage(&usage);
    };
    if let Some(told) = introduced(&line, name, &usage) {
        return told;
    }
    let counts = match command {
        Command::Register | Command::Unregister => 1..=1,
        Command::Encrypt | Command::Decrypt => 2..=3,
    };
    if !counts.contains(&line.operands.len()) {
        return wrong_usage(&usage);
    }
    Verbosity {
        verbose: u8::from(line.verbose),
        quiet: line.quiet,
    }
    .start_log();
    let done = match command {
        Command::Register => register(&line),
        Command::Unregister => unregister(&line),
        Command::Encrypt => seal(&line),
        Command::Decrypt => open(&line),
    };
    end(done, line.quiet)
}

/// Prints usage or version, where that was asked for.
pub(crate) fn introduced(line: &Line, name: &str, usage: &str) -> Option<ExitCode> {
    if line.help {
        return Some(printed(usage));
    }
    let version = || printed(&format!("{name} Version {} by (C) EGEE\n", hydra_core::VERSION));
    line.version.then(version)
}

/// Prints what came of a command.
pub(crate) fn end(done: Result<String, Trouble>, quiet: bool) -> ExitCode {
    match done {
        Ok(_) if quiet => ExitCode::SUCCESS,
        Ok(words) => printed(&words),
        Err(trouble) => failed(&trouble),
    }
}

fn printed(text: &str) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = hydra_cli::exit(Err(failure));
            ExitCode::from(Code::Glite as u8)
        }
    }
}

pub(crate) fn wrong_usage(usage: &str) -> ExitCode {
    let _ = io::stderr().lock().write_all(usage.as_bytes());
    ExitCode::from(Code::Glite as u8)
}

fn failed(trouble: &Trouble) -> ExitCode {
    let mut stderr = io::stderr().lock();
    // nobody is left to tell where standard error is closed
    let _ = writeln!(stderr, "{}", printable(&trouble.words));
    for line in &trouble.more {
        let _ = writeln!(stderr, "{line}");
    }
    ExitCode::from(Code::Glite as u8)
}

fn register(line: &Line) -> Result<String, Trouble> {
    const FUNCTION: &str = "glite_eds_register";
    let new_key = asked_key(line).map_err(|reason| Trouble::new(format!("Error during {FUNCTION}: {reason}")))?;
    let typed = text(&line.operands[0], FUNCTION)?;
    let key_id = new_key_id(typed).map_err(|error| Trouble::plain(FUNCTION, &bad_key_id(typed, error)))?;
    let session = session(FUNCTION)?;
    if let Some(new_key) = &new_key {
        new_key.warn(Voice::default());
    }
    let registered = legacy::register(&session, &key_id, new_key.as_ref(), RegisterOptions::default());
    registered.map_err(|error| {
        let reason = register_reason(&error);
        Trouble::during(FUNCTION, reason, &failure::register(error))
    })?;
    Ok(format!("A key has been generated and registered for ID '{typed}'\n"))
}

/// What key `-c` and `-k` ask for; none: one of our suite.
pub(crate) fn asked_key(line: &Line) -> Result<Option<NewKey>, String> {
    let plain = |bits: &OsString| {
        let bits = bits.to_string_lossy();
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let number = bits.parse().ok().filter(|_| digits);
        number.ok_or_else(|| format!("`{bits}` is no number of bits"))
    };
    let bits = line.bits.as_ref().map(plain).transpose()?;
    match (&line.cipher, bits) {
        (Some(cipher), bits) => NewKey::asked(&cipher.to_string_lossy(), bits).map_err(|error| error.to_string()),
        (None, None | Some(256)) => Ok(None),
        (None, Some(bits)) => Err(format!(
            "keys have 256 bits where no cipher is asked for with -c, not {bits}"
        )),
    }
}

fn unregister(line: &Line) -> Result<String, Trouble> {
    const FUNCTION: &str = "glite_eds_unregister";
    let typed = text(&line.operands[0], FUNCTION)?;
    let key_ids = meant_key_ids(typed).map_err(|error| Trouble::plain(FUNCTION, &bad_key_id(typed, error)))?;
    let session = session(FUNCTION)?;
    remove_first(&session, &key_ids, None).map_err(|error| {
        let reason = remove_reason(&error);
        Trouble::during(FUNCTION, reason, &failure::remove(error))
    })?;
    Ok(format!("The key has been unregistered for ID '{typed}'\n"))
}

fn seal(line: &Line) -> Result<String, Trouble> {
    const FUNCTION: &str = "glite_eds_encrypt_init";
    let session = session(FUNCTION)?;
    let (typed, from, to) = match line.operands.as_slice() {
        [key_id, from, to] => (text(key_id, FUNCTION)?.to_owned(), from, to),
        [from, to] => (own_key_named(&session, to, from)?, from, to),
        _ => return Err(Trouble::new("Error: wrong number of operands")),
    };
    let voice = Voice {
        quiet: line.quiet,
        ..Voice::default()
    };
    let key_ids = meant_key_ids(&typed).map_err(|error| Trouble::plain(FUNCTION, &bad_key_id(&typed, error)))?;
    let fetched = session.fetch(&key_ids, Purpose::Seal);
    let sealing = Sealer::of(fetched.map_err(|error| fetch_trouble(FUNCTION, error))?, voice)
        .map_err(|failure| Trouble::plain(FUNCTION, &failure))?;
    let _cleaning = clean_up_on_signal();
    let options = SealOptions {
        overwrite: true,
        mode: SEALED_MODE,
        ..SealOptions::default()
    };
    let (input, output) = (Input::File(from.into()), Output::File(to.into()));
    sealing
        .seal(&input, &output, &options)
        .map_err(|error| seal_trouble(error, from, to))?;
    Ok(done("successfully encrypted", &typed, from, to))
}

fn open(line: &Line) -> Result<String, Trouble> {
    const FUNCTION: &str = "glite_eds_decrypt_init";
    let (typed, from, to) = match line.operands.as_slice() {
        [key_id, from, to] => (text(key_id, FUNCTION)?, PathBuf::from(from), to),
        [key_id, to] => {
            let typed = text(key_id, FUNCTION)?;
            (typed, file_named_like(typed)?, to)
        }
        _ => return Err(Trouble::new("Error: wrong number of operands")),
    };
    let key_ids = meant_key_ids(typed).map_err(|error| Trouble::plain(FUNCTION, &bad_key_id(typed, error)))?;
    let opened = Opened::open(&Input::File(from.clone())).map_err(|error| open_trouble(error, &from, to))?;
    let header = match &opened {
        Opened::Sealed(input) => Some(input.header().clone()),
        Opened::Raw(_) => None,
    };
    let session = session(FUNCTION)?;
    let purpose = header
        .as_ref()
        .map_or(Purpose::OpenUnmarked, |header| Purpose::Open(header.registration_id));
    let fetched = session
        .fetch(&key_ids, purpose)
        .map_err(|error| fetch_trouble(FUNCTION, error))?;
    let voice = Voice {
        quiet: line.quiet,
        ..Voice::default()
    };
    match &header {
        Some(header) => decrypt::remark(&fetched, header, voice),
        None => decrypt::remark_raw(&fetched, voice),
    }
    let opener = Opener::of(&fetched).map_err(|failure| Trouble::plain(FUNCTION, &failure))?;
    let opening = opener
        .with(opened)
        .map_err(|failure| Trouble::plain(FUNCTION, &failure))?;
    let _cleaning = clean_up_on_signal();
    let options = OpenOptions {
        overwrite: true,
        ..OpenOptions::default()
    };
    opening
        .unseal(&Output::File(to.into()), &options)
        .map_err(|error| open_trouble(error, &from, to))?;
    // the word as the original spells it
    Ok(done("succesfully decrypted", typed, from.as_os_str(), to))
}

fn done(verb: &str, key_id: &str, from: &OsStr, to: &OsStr) -> String {
    let [from, to] = [from, to].map(|path| printable(&path.to_string_lossy()));
    format!("\nFile '{from}' has been {verb} \n\twith key '{key_id}' \n\tand written to '{to}'.\n")
}

pub(crate) fn text<'a>(operand: &'a OsStr, function: &str) -> Result<&'a str, Trouble> {
    operand
        .to_str()
        .ok_or_else(|| Trouble::new(format!("Error during {function}: the ID is not UTF-8")))
}

fn session(function: &str) -> Result<Session, Trouble> {
    let overrides = Overrides {
        services_first: true,
        ..Overrides::default()
    };
    let opened = Session::with(&overrides, &Surroundings::of_process());
    opened.map_err(|error| Trouble::plain(function, &Failure::from(error)))
}

/// The caller's one key that OUT names. Only keys that the caller owns count: anybody else could plant a key of that
/// name, grant it to a victim, and read what the victim seals.
fn own_key_named(session: &Session, to: &OsStr, from: &OsStr) -> Result<String, Trouble> {
    const FUNCTION: &str = "glite_eds_encrypt_init";
    let name = text(to, FUNCTION)?;
    let last = name.rsplit('/').next().unwrap_or(name);
    let own = session.wait(session.hydra.list_own(last));
    let own = own.map_err(|error| Trouble::plain(FUNCTION, &Failure::new(Code::TryLater, error)))?;
    let own: Vec<&str> = own.iter().map(|entry| entry.key_id.as_str()).collect();
    let lfc_home = std::env::var("LFC_HOME").ok();
    match choose_key(name, lfc_home.as_deref(), &own) {
        Ok(key_id) => Ok(key_id.to_owned()),
        Err(candidates) => {
            let problem = if candidates.is_empty() {
                "no key of yours is"
            } else {
                "more than one key of yours is"
            };
            let [from, to] = [from, to].map(|path| failure::quoted(&path.to_string_lossy()));
            let mut trouble = Trouble::new(format!("Error during {FUNCTION}: {problem} named like '{name}'"));
            let ids = if candidates.is_empty() { vec!["ID"] } else { candidates };
            let commands = ids.iter().map(|id| {
                let id = if *id == "ID" {
                    (*id).to_owned()
                } else {
                    failure::quoted(id)
                };
                format!("  try: glite-eds-encrypt {id} {from} {to}")
            });
            trouble.more.extend(commands);
            Err(trouble)
        }
    }
}

/// OUT as given, else below `LFC_HOME`, else the only one whose last component is OUT's; else the candidates.
fn choose_key<'k>(name: &str, lfc_home: Option<&str>, own: &[&'k str]) -> Result<&'k str, Vec<&'k str>> {
    let below_home = lfc_home
        .filter(|home| !home.is_empty() && !name.starts_with('/'))
        .map(|home| format!("{}/{name}", home.trim_end_matches('/')));
    let given = [Some(name.to_owned()), Some(canonical(name)), below_home];
    for wanted in given.into_iter().flatten() {
        if let Some(found) = own.iter().find(|key_id| **key_id == wanted) {
            return Ok(found);
        }
    }
    match own {
        [only] => Ok(only),
        _ => Err(own.to_vec()),
    }
}

/// What `lcg-cp … NAME` left: the last component of the id, in the current folder.
fn file_named_like(key_id: &str) -> Result<PathBuf, Trouble> {
    let last = key_id.rsplit('/').next().unwrap_or(key_id);
    if !last.is_empty() && Path::new(last).exists() {
        return Ok(last.into());
    }
    let words = format!("Cannot Open Local Input File {last}. Error is \"No such file or directory (code: 2)\"");
    let more = vec![format!("  try: glite-eds-decrypt {} IN OUT", failure::quoted(key_id))];
    Err(Trouble { words, more })
}

pub(crate) fn register_reason(error: &RegisterError) -> String {
    match error {
        RegisterError::Exists { .. } => "Key already exists.".into(),
        RegisterError::NotAllowed { .. } => "User not authorized.".into(),
        RegisterError::TooFewStores { .. } => format!("HTTP error: {error}"),
        other => other.to_string(),
    }
}

pub(crate) fn remove_reason(error: &RemoveError) -> String {
    match error {
        RemoveError::NotFound { .. } => missing_key(),
        RemoveError::Incomplete { .. } => format!("HTTP error: {error}"),
        other => other.to_string(),
    }
}

fn fetch_trouble(function: &str, error: FetchError) -> Trouble {
    let reason = match &error {
        FetchError::NotFound { .. } => missing_key(),
        FetchError::Removed { .. } => "Key does not exist. (entry could not be found, it was removed)".into(),
        FetchError::TooFew { .. } => format!("HTTP error: {error}"),
        other => other.to_string(),
    };
    Trouble::during(function, reason, &failure::fetch(error))
}

/// A store tells nobody which of the two it is.
fn missing_key() -> String {
    "Key does not exist. (entry could not be found), or User not authorized.".into()
}

fn seal_trouble(error: SealError, from: &OsStr, to: &OsStr) -> Trouble {
    match error {
        SealError::Input(InputError::Open { source, .. }) => cannot_open("Input", from, &source),
        SealError::Output(OutputError::Create { source, .. }) => cannot_open("Output", to, &source),
        other => Trouble::plain("glite_eds_encrypt_final", &crate::work::seal_failure(other)),
    }
}

fn open_trouble(error: OpenError, from: &Path, to: &OsStr) -> Trouble {
    match error {
        OpenError::Input(InputError::Open { source, .. }) => cannot_open("Input", from.as_os_str(), &source),
        OpenError::Output(OutputError::Create { source, .. }) => cannot_open("Output", to, &source),
        other => Trouble::plain("glite_eds_decrypt_final", &crate::work::open_failure(other)),
    }
}

fn cannot_open(which: &str, path: &OsStr, error: &io::Error) -> Trouble {
    let code = error.raw_os_error().unwrap_or_default();
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
    let path = path.to_string_lossy();
    Trouble::new(format!(
        "Cannot Open Local {which} File {path}. Error is \"{text} (code: {code})\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: Command, words: &str) -> Option<Line> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        read_line(&words, command.options())
    }

    fn operands(line: &Line) -> String {
        line.operands
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn options_may_follow_operands_and_stand_together() {
        let read = line(Command::Encrypt, "ID -q IN - -- -v").unwrap();
        assert_eq!(
            (operands(&read).as_str(), read.quiet, read.verbose),
            ("ID IN - -v", true, false)
        );
        let read = line(Command::Encrypt, "-qv a").unwrap();
        assert!(!read.quiet && read.verbose);
        assert!(line(Command::Encrypt, "-vq a").unwrap().quiet);
        let read = line(Command::Register, "-tcbf-cbc -k 256 ID").unwrap();
        assert_eq!((read.cipher, read.bits), (Some("bf-cbc".into()), Some("256".into())));
        assert_eq!(line(Command::Register, "-qk128 ID").unwrap().bits, Some("128".into()));
    }

    #[test]
    fn unknown_options_and_missing_values_are_wrong_usage() {
        for (command, words) in [
            (Command::Encrypt, "-x"),
            (Command::Encrypt, "-c x"),
            (Command::Encrypt, "--help"),
            (Command::Encrypt, "-:"),
            (Command::Register, "ID -c"),
            (Command::Register, "-q:"),
        ] {
            assert_eq!(line(command, words), None, "{words}");
        }
        assert!(line(Command::Encrypt, "-hx").unwrap().help);
    }

    #[test]
    fn the_key_named_by_out_is_found_in_the_order_of_the_rule() {
        let own = ["/myvo/home/secret", "secret", "/other/secret"];
        assert_eq!(choose_key("secret", None, &own), Ok("secret"));
        assert_eq!(choose_key("/other/secret", None, &own), Ok("/other/secret"));
        assert_eq!(choose_key("lfn:/other/secret", None, &own), Ok("/other/secret"));
        let two = ["/myvo/home/secret", "/other/secret"];
        assert_eq!(choose_key("secret", Some("/myvo/home"), &two), Ok("/myvo/home/secret"));
        assert_eq!(choose_key("/tmp/secret", Some("/myvo/home"), &two), Err(two.to_vec()));
        assert_eq!(choose_key("secret", None, &two), Err(two.to_vec()));
        assert_eq!(choose_key("secret", None, &two[..1]), Ok("/myvo/home/secret"));
        assert_eq!(
            choose_key("./secret", Some("/nowhere"), &two[..1]),
            Ok("/myvo/home/secret")
        );
        assert_eq!(choose_key("secret", None, &[]), Err(vec![]));
    }

    #[test]
    fn every_alias_is_a_command_here_and_names_a_binary() {
        for (alias, binary) in crate::GLITE_NAMES {
            let is_known = Command::called(alias).is_some()
                || crate::glite_permissions::Command::called(alias).is_some()
                || crate::storage::glite::Command::called(alias).is_some();
            assert!(is_known, "{alias}");
            assert!(crate::NAMES.contains(binary), "{binary}");
        }
        assert_eq!(Command::called("eds-encrypt"), None);
    }
}
