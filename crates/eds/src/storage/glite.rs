//! `glite-eds-put`, `glite-eds-get`, `glite-eds-rm`: the original's operands, words and exit codes.
//!
//! The original found files by logical names in a catalogue. There is none here yet: where an LFN stood, a storage URL
//! is taken, and a logical name is refused with the URL forms that work.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use hydra_cli::verbosity::Verbosity;
use hydra_cli::{Failure, printable};
use hydra_core::config::load::Overrides;
use hydra_core::sealed::{Input, Output};
use storage_url::{StorageUrl, UrlError};

use super::{Remote, get, put, remove};
use crate::failure;
use crate::glite::{
    Line, Trouble, asked_key, end, introduced, read_line, register_reason, remove_reason, text, wrong_usage,
};
use crate::voice::Voice;

/// A command of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `glite-eds-put`
    Put,
    /// `glite-eds-get`
    Get,
    /// `glite-eds-rm`
    Remove,
}

impl Command {
    /// The command of this name, if the original has it.
    pub fn called(name: &str) -> Option<Self> {
        Some(match name {
            "glite-eds-put" => Self::Put,
            "glite-eds-get" => Self::Get,
            "glite-eds-rm" => Self::Remove,
            _ => return None,
        })
    }

    fn options(self) -> &'static str {
        if self == Self::Put { "hVqvuc:k:i:" } else { "hVqvi:" }
    }

    fn operands(self) -> usize {
        if self == Self::Remove { 1 } else { 2 }
    }

    /// What stands behind `Error during`.
    fn function(self) -> &'static str {
        match self {
            Self::Put => "glite_eds_register_encrypt_init",
            Self::Get => "glite_eds_decrypt_init",
            Self::Remove => "glite_eds_unregister",
        }
    }

    fn usage(self, name: &str) -> String {
        let (operands, extra) = match self {
            Self::Put => (
                "[-c CIPHER] [-k BITS] [-u] [-i ID] LOCAL URL",
                " -c CIPHER  encrypt with a cipher of the original, whose files have no integrity\n\
                 \x20-k BITS    length of the key, where the cipher takes several (bf-cbc, cast5-cbc)\n\
                 \x20-i ID      the key's name; without it, the path in URL\n\
                 \x20-u         make a key, but store the file as it is, not encrypted\n",
            ),
            Self::Get => (
                "[-i ID] URL LOCAL",
                " -i ID      the key's name; without it, the one in the file, or the path in URL\n",
            ),
            Self::Remove => (
                "[-i ID] URL",
                " -i ID      the key's name; without it, the one in the file, or the path in URL\n",
            ),
        };
        format!(
            "Usage: {name} [-h] [-V] [-q] [-v] {operands}\n{extra} \
             URL        where an LFN stood: file:, https:, davs:, root:, gsiftp: or srm:\n \
             -h         print this and exit\n \
             -V         print the version and exit\n -q         print nothing but errors\n -v         print what happens\n"
        )
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
    if line.operands.len() != command.operands() {
        return wrong_usage(&usage);
    }
    Verbosity {
        verbose: u8::from(line.verbose),
        quiet: line.quiet,
    }
    .start_log();
    let done = match command {
        Command::Put => put_file(&line),
        Command::Get => get_file(&line),
        Command::Remove => remove_file(&line),
    };
    end(done, line.quiet)
}

fn put_file(line: &Line) -> Result<String, Trouble> {
    let function = Command::Put.function();
    let new_key = asked_key(line).map_err(|reason| Trouble::new(format!("Error during {function}: {reason}")))?;
    let (local, url) = (&line.operands[0], url(&line.operands[1], function)?);
    let input = Input::File(local.into());
    let order = put::Order {
        input: &input,
        url: &url,
        key_id: key_id(line, function)?,
        existing_key: false,
        overwrite: false,
        new_key: new_key.as_ref(),
        plain: line.plain,
    };
    order.check().map_err(|failure| Trouble::plain(function, &failure))?;
    // that its files have no integrity is said when the key is used
    if let Some(new_key) = &new_key {
        new_key.warn_of_length(voice(line));
    }
    if line.plain {
        voice(line).warning(&format!(
            "-u: {url} is not encrypted, whoever may read it there sees all of it"
        ));
    }
    let done = order
        .carry_out(&remote(function)?, voice(line))
        .map_err(|failure| match failure {
            put::PutFailure::Register(error) => {
                let reason = register_reason(&error);
                Trouble::during(function, reason, &failure::register(error))
            }
            put::PutFailure::Other(failure) => Trouble::plain(function, &failure),
        })?;
    let bytes = [done.report.plaintext_bytes, done.stored.bytes];
    Ok(transferred(&url, done.key_id.as_str(), local, bytes))
}

fn get_file(line: &Line) -> Result<String, Trouble> {
    let function = Command::Get.function();
    let (url, local) = (url(&line.operands[0], function)?, &line.operands[1]);
    let output = Output::File(local.into());
    let order = get::Order {
        url: &url,
        output: &output,
        key_id: key_id(line, function)?,
        overwrite: true,
    };
    let plain = |failure| Trouble::plain(function, &failure);
    order.check().map_err(plain)?;
    let done = order.carry_out(&remote(function)?, voice(line)).map_err(plain)?;
    let named = line.key_id.as_deref().and_then(OsStr::to_str);
    let named = named.unwrap_or(done.key_id.as_str());
    let bytes = [done.report.file_bytes, done.report.plaintext_bytes];
    Ok(transferred(&url, named, local, bytes))
}

fn remove_file(line: &Line) -> Result<String, Trouble> {
    let function = Command::Remove.function();
    let url = url(&line.operands[0], function)?;
    let order = remove::Order {
        url: &url,
        key_id: key_id(line, function)?,
        keep_key: false,
        // what `-u` stored has no mark of its key
        unmarked: true,
    };
    order.check().map_err(|failure| Trouble::plain(function, &failure))?;
    let key = order.carry_out(&remote(function)?).map_err(|failure| match failure {
        remove::RemovalFailure::Nothing(failure) => Trouble::plain(function, &failure),
        remove::RemovalFailure::FileOnly { error, .. } => {
            let reason = remove_reason(&error);
            let mut trouble = Trouble::during(function, reason, &failure::remove(error));
            trouble.more.push(format!("  the file is removed: {url}"));
            trouble
        }
    })?;
    let key_line = match key {
        remove::Key::Removed(key_id, _) => format!("  ID   : {key_id}\n"),
        _ => String::new(),
    };
    Ok(format!("\nUnlink Completed:\n\n  LFN  : {url}\n{key_line}"))
}

/// What is printed of a transfer.
fn transferred(url: &StorageUrl, key_id: &str, local: &OsStr, [read, written]: [u64; 2]) -> String {
    let local = printable(&local.to_string_lossy());
    format!(
        "\nTransfer Completed:\n\n  LFN  : {url}\n  ID   : {key_id}\n  File : {local}\n\n  \
         Bytes read    : {read}\n  Bytes written : {written}\n"
    )
}

fn url(operand: &OsStr, function: &str) -> Result<StorageUrl, Trouble> {
    let typed = text(operand, function)?;
    let failure = match StorageUrl::parse(typed) {
        // what is no URL at all was a logical name to the original
        Err(UrlError::NoScheme) => super::storage_url(&format!("lfn:{typed}")),
        _ => super::storage_url(typed),
    };
    failure.map_err(|failure: Failure| Trouble::plain(function, &failure))
}

fn key_id<'l>(line: &'l Line, function: &str) -> Result<Option<&'l str>, Trouble> {
    line.key_id.as_deref().map(|key_id| text(key_id, function)).transpose()
}

fn remote(function: &str) -> Result<Remote, Trouble> {
    let overrides = Overrides {
        services_first: true,
        ..Overrides::default()
    };
    let opened = Remote::open(&overrides, storage_url::IDLE);
    opened.map_err(|error| Trouble::plain(function, &Failure::from(error)))
}

fn voice(line: &Line) -> Voice {
    Voice {
        quiet: line.quiet,
        ..Voice::default()
    }
}
