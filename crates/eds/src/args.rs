//! The command lines of the `eds-*` commands. What operands mean together is decided in [`crate::operands`].

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser};
use hydra_cli::Failure;
use hydra_cli::command::Example;
use hydra_cli::verbosity::Verbosity;

use crate::permission_args::{CHMOD_EXAMPLES, Chmod, GETACL_EXAMPLES, GetAcl, SETACL_EXAMPLES, SetAcl};
use crate::slice::ByteRange;
use crate::storage::args as storage;

/// A command with its arguments.
#[derive(Debug)]
pub enum Command {
    /// `eds-cat`
    Cat(Cat),
    /// `eds-check`
    Check(Check),
    /// `eds-chmod`
    Chmod(Chmod),
    /// `eds-decrypt`
    Decrypt(Decrypt),
    /// `eds-encrypt`
    Encrypt(Encrypt),
    /// `eds-getacl`
    GetAcl(GetAcl),
    /// `eds-key-export`
    Export(Export),
    /// `eds-get`
    Get(storage::Get),
    /// `eds-put`
    Put(storage::Put),
    /// `eds-key-register`
    Register(Register),
    /// `eds-rm`
    Remove(storage::Remove),
    /// `eds-key-repair`
    Repair(Repair),
    /// `eds-key-reshare`
    Reshare(Reshare),
    /// `eds-key-rotate`
    Rotate(Rotate),
    /// `eds-key-status`
    Status(Status),
    /// `eds-key-unregister`
    Unregister(Unregister),
    /// `eds-setacl`
    SetAcl(SetAcl),
    /// `eds-whoami`
    Whoami(Whoami),
}

/// How a command speaks.
#[derive(Debug, Clone, Default, Args)]
pub struct Manners {
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which stores.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Stores")]
pub struct Stores {
    /// A key store to use instead of the configured ones; once for each
    #[arg(long = "store", value_name = "URL")]
    pub stores: Vec<String>,
    /// How many shares join a new key
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u8).range(1..))]
    pub threshold: Option<u8>,
}

/// A key file of one of the original's ciphers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Files of the original")]
pub struct Legacy {
    /// The cipher of the key in FILE, as OpenSSL names it: the file to open is raw CBC, without integrity
    #[arg(long, value_name = "CIPHER", requires_all = ["key_file", "legacy_iv"])]
    pub legacy_cipher: Option<String>,
    /// The iv, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "legacy_cipher")]
    pub legacy_iv: Option<String>,
}

/// Many files at once.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Many files")]
pub struct Many {
    /// Put the outputs into this folder
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// Read the names of the inputs from a file, one on a line (`-`: from standard input)
    #[arg(long, value_name = "LIST", requires = "out_dir")]
    pub files_from: Option<PathBuf>,
    /// Names in LIST end with a NUL byte, not with a line
    #[arg(short = '0', long, requires = "files_from")]
    pub null: bool,
}

/// Seal files
///
/// KEY_ID names a registered key, whose shares lie in the key stores. With --key-file no store is needed. `-` is
/// standard input or output. An OUT that exists is left alone without --force, and a failure leaves nothing behind.
#[derive(Debug, Parser)]
#[command(
    name = "eds-encrypt",
    override_usage = "\
eds-encrypt [OPTIONS] KEY_ID IN OUT
       eds-encrypt [OPTIONS] KEY_ID --out-dir DIR FILE...
       eds-encrypt [OPTIONS] --key-file FILE [--new-key] IN OUT
       eds-encrypt [OPTIONS] --key-file FILE [--new-key] --out-dir DIR FILE..."
)]
pub struct Encrypt {
    /// KEY_ID, then IN and OUT, or with --out-dir the files
    #[arg(value_name = "OPERAND")]
    pub operands: Vec<OsString>,
    /// Seal under the key in this file instead of a registered one
    #[arg(short = 'k', long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Make the key file first; it must not exist yet
    #[arg(long, requires = "key_file")]
    pub new_key: bool,
    /// Replace outputs that exist
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub many: Many,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Open sealed files
///
/// Without KEY_ID the file's header names the key, and it is printed. `-` is standard input or output. Nothing that
/// does not verify is ever handed out. With --out-dir the names of the files end in `.eds`, which is taken off.
#[derive(Debug, Parser)]
#[command(
    name = "eds-decrypt",
    override_usage = "\
eds-decrypt [OPTIONS] [KEY_ID] IN OUT
       eds-decrypt [OPTIONS] [KEY_ID] --out-dir DIR FILE.eds...
       eds-decrypt [OPTIONS] --key-file FILE IN OUT"
)]
pub struct Decrypt {
    /// KEY_ID if you want to name it, then IN and OUT, or with --out-dir the files
    #[arg(value_name = "OPERAND")]
    pub operands: Vec<OsString>,
    /// The key id, where an operand would be mistaken (it ends in `.eds`)
    #[arg(short = 'i', long, value_name = "KEY_ID", conflicts_with = "key_file")]
    pub key_id: Option<String>,
    /// Open with the key in this file: no store is asked
    #[arg(short = 'k', long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Replace outputs that exist
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub many: Many,
    #[command(flatten)]
    pub legacy: Legacy,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Write the contents of a sealed file to standard output
///
/// Only verified segments are written; where one does not verify, the command fails and says how many bytes were good.
#[derive(Debug, Parser)]
#[command(name = "eds-cat", override_usage = "eds-cat [OPTIONS] [KEY_ID] IN")]
pub struct Cat {
    /// KEY_ID if you want to name it, then IN
    #[arg(value_name = "OPERAND")]
    pub operands: Vec<OsString>,
    /// Open with the key in this file: no store is asked
    #[arg(short = 'k', long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Only these bytes of the contents: FIRST-LAST, FIRST- or -COUNT, from 0; only what is needed of IN is read
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    pub range: Option<ByteRange>,
    #[command(flatten)]
    pub legacy: Legacy,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// A key for one of the original's ciphers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "For programs that read files of the original")]
pub struct Cipher {
    /// Make a key for this cipher of the original (bf-cbc, aes-256-cbc, …): its files have NO integrity
    #[arg(short, long, value_name = "CIPHER")]
    pub cipher: Option<String>,
    /// The length of its key, where the cipher takes several
    #[arg(short, long, value_name = "BITS", requires = "cipher")]
    pub bits: Option<u32>,
}

/// Make a key and register it: its shares go to all key stores
#[derive(Debug, Parser)]
#[command(name = "eds-key-register")]
pub struct Register {
    /// The name of the key: 1 to 400 bytes, no `.`, `..` or empty segments
    #[arg(value_name = "KEY_ID")]
    pub key_id: String,
    /// Content with fewer stores than all, while more than half and more than the threshold are there
    #[arg(long)]
    pub allow_degraded: bool,
    #[command(flatten)]
    pub cipher: Cipher,
    #[command(flatten)]
    pub permissions: crate::permission_args::NewPermissions,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Remove a key from all key stores: files sealed under it can never be opened again
#[derive(Debug, Parser)]
#[command(name = "eds-key-unregister")]
pub struct Unregister {
    /// The name of the key
    #[arg(value_name = "KEY_ID")]
    pub key_id: String,
    /// Which registration, where stores hold different ones: 32 hex digits
    #[arg(long, value_name = "ID")]
    pub registration: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// One key, or many.
#[derive(Debug, Clone, Default, Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub struct Keys {
    /// The name of the key
    #[arg(value_name = "KEY_ID", group = "which")]
    pub key_id: Option<String>,
    /// Every key whose name begins so
    #[arg(long, value_name = "PREFIX", group = "which")]
    pub prefix: Option<String>,
    /// Every key that is yours
    #[arg(long, group = "which")]
    pub all_owned: bool,
    /// Of many keys, only those after this one, in byte order: to go on where a run ended
    #[arg(long, value_name = "KEY_ID", conflicts_with = "key_id")]
    pub after: Option<String>,
}

/// Show what each key store holds of a key
///
/// Of many keys, the stores are told only where a key is not as it should be.
#[derive(Debug, Parser)]
#[command(name = "eds-key-status")]
pub struct Status {
    #[command(flatten)]
    pub keys: Keys,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Make keys whole again at all key stores
///
/// Finishes a registration, a reshare or a removal that reached some stores only, or takes back what none has
/// confirmed; gives stores that lost their share, or were restored from a backup, the share and the permissions of now.
/// It never deletes a share that is needed, and is run again wherever something is left.
#[derive(Debug, Parser)]
#[command(name = "eds-key-repair")]
pub struct Repair {
    #[command(flatten)]
    pub keys: Keys,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take back a pending registration also in its first 15 minutes
    #[arg(long)]
    pub now: bool,
    /// Where stores disagree on permissions, those of this one count
    #[arg(long, value_name = "STORE")]
    pub over: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Split a key anew over the key stores; files stay as they are
///
/// Every configured store gets a new share, and the old shares go. So a store joins, a store leaves, or more shares
/// than before are needed; and old shares that got into wrong hands are of no more use. All stores must answer.
#[derive(Debug, Parser)]
#[command(name = "eds-key-reshare")]
pub struct Reshare {
    /// The name of the key
    #[arg(value_name = "KEY_ID")]
    pub key_id: String,
    /// How many of the new shares join; as many as before where it is not said
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u8).range(1..))]
    pub threshold: Option<u8>,
    /// Give this store no new share; once for each
    #[arg(long, value_name = "STORE")]
    pub leave: Vec<String>,
    /// Delete what this store, which left before, still has of the key, and do nothing else
    #[arg(long, value_name = "STORE", conflicts_with_all = ["threshold", "leave"])]
    pub retire: Option<String>,
    /// A key store to use instead of the configured ones; once for each
    #[arg(long = "store", value_name = "URL", help_heading = "Stores")]
    pub stores: Vec<String>,
    #[command(flatten)]
    pub manners: Manners,
}

/// Seal files anew under a new key
///
/// NEW is registered, each FILE is sealed under it, opened again and compared; only then the old file is replaced.
/// Nothing unsealed touches a disk. A run that was broken off goes on with --go-on.
#[derive(Debug, Parser)]
#[command(name = "eds-key-rotate")]
pub struct Rotate {
    /// The key that the files are sealed under
    #[arg(value_name = "OLD")]
    pub old: String,
    /// The name of the new key
    #[arg(value_name = "NEW")]
    pub new: String,
    /// Sealed files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Put the new files into this folder, and leave the old ones
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// NEW is registered already; files that are sealed under it are passed over
    #[arg(long)]
    pub go_on: bool,
    /// Remove the old key in the end, if every file was sealed anew: other files under it can never be opened again
    #[arg(long)]
    pub remove_old: bool,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Write a key to a file, for escrow: whoever has the file opens everything sealed under the key
#[derive(Debug, Parser)]
#[command(name = "eds-key-export", group(clap::ArgGroup::new("form").required(true)))]
pub struct Export {
    /// The name of the key
    #[arg(value_name = "KEY_ID")]
    pub key_id: String,
    /// Write a keyset in JSON that Google Tink reads
    #[arg(long, value_name = "FILE", group = "form")]
    pub tink_keyset: Option<PathBuf>,
    /// Write the bytes of the key and nothing else: 32, but for keys of the original's ciphers
    #[arg(long, value_name = "FILE", group = "form")]
    pub raw: Option<PathBuf>,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Show who you are to the key stores
#[derive(Debug, Parser)]
#[command(name = "eds-whoami")]
pub struct Whoami {
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Check configuration, credential and key stores, and say where each was found
#[derive(Debug, Parser)]
#[command(name = "eds-check")]
pub struct Check {
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of the commands, for their help, their manual pages and the tests.
pub const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "eds-cat",
        &[
            Example {
                says: "Write the contents to standard output",
                command: "eds-cat --key-file my.key scan.eds",
            },
            Example {
                says: "Write the first 1024 bytes, however large the file",
                command: "eds-cat --range 0-1023 scan.eds",
            },
        ],
    ),
    (
        "eds-check",
        &[Example {
            says: "See what is configured and who answers",
            command: "eds-check",
        }],
    ),
    ("eds-chmod", CHMOD_EXAMPLES),
    ("eds-getacl", GETACL_EXAMPLES),
    ("eds-setacl", SETACL_EXAMPLES),
    (
        "eds-decrypt",
        &[
            Example {
                says: "Open with the key in a file, no store needed",
                command: "eds-decrypt --key-file my.key scan.eds scan.dcm",
            },
            Example {
                says: "Open with the key that the file names",
                command: "eds-decrypt scan.eds scan.dcm",
            },
            Example {
                says: "Open many files",
                command: "eds-decrypt --out-dir opened sealed/*.eds",
            },
        ],
    ),
    (
        "eds-encrypt",
        &[
            Example {
                says: "Seal under a new key in a file, no store needed",
                command: "eds-encrypt --key-file my.key --new-key scan.dcm scan.eds",
            },
            Example {
                says: "Seal under a registered key",
                command: "eds-encrypt /myvo/scans/17 scan.dcm scan.eds",
            },
            Example {
                says: "Seal many files, one key fetch",
                command: "eds-encrypt /myvo/scans/17 --out-dir sealed *.dcm",
            },
        ],
    ),
    ("eds-get", storage::GET_EXAMPLES),
    (
        "eds-key-export",
        &[
            Example {
                says: "Write the 32 bytes, as --key-file takes them",
                command: "eds-key-export /myvo/scans/17 --raw scans.key",
            },
            Example {
                says: "Write a keyset that Google Tink reads",
                command: "eds-key-export /myvo/scans/17 --tink-keyset scans.json",
            },
        ],
    ),
    (
        "eds-key-register",
        &[Example {
            says: "Register a new key",
            command: "eds-key-register /myvo/scans/17",
        }],
    ),
    (
        "eds-key-repair",
        &[
            Example {
                says: "Make one key whole",
                command: "eds-key-repair /myvo/scans/17",
            },
            Example {
                says: "See what a store that came back from a backup lacks",
                command: "eds-key-repair --dry-run --all-owned",
            },
        ],
    ),
    (
        "eds-key-reshare",
        &[
            Example {
                says: "Give every configured store a new share, a store that is new among them",
                command: "eds-key-reshare /myvo/scans/17",
            },
            Example {
                says: "From now on three shares are needed",
                command: "eds-key-reshare --threshold 3 /myvo/scans/17",
            },
        ],
    ),
    (
        "eds-key-rotate",
        &[Example {
            says: "Seal two files under a new key",
            command: "eds-key-rotate /myvo/scans/17 /myvo/scans/17-b a.eds b.eds",
        }],
    ),
    (
        "eds-key-status",
        &[
            Example {
                says: "See whether every store has the key",
                command: "eds-key-status /myvo/scans/17",
            },
            Example {
                says: "Look after all keys of a folder",
                command: "eds-key-status --prefix /myvo/scans/",
            },
        ],
    ),
    (
        "eds-key-unregister",
        &[Example {
            says: "Remove the key for ever",
            command: "eds-key-unregister /myvo/scans/17",
        }],
    ),
    ("eds-put", storage::PUT_EXAMPLES),
    ("eds-rm", storage::REMOVE_EXAMPLES),
    (
        "eds-whoami",
        &[Example {
            says: "See your name as the stores see it",
            command: "eds-whoami",
        }],
    ),
];

/// Parses the arguments of the command `name`; none where help, version or `--generate` was asked for and is printed.
///
/// # Errors
/// Wrong usage, or an output that cannot be written.
pub fn parse(name: &str, arguments: Vec<OsString>) -> Result<Option<Command>, Failure> {
    let examples = EXAMPLES
        .iter()
        .find(|(command, _)| *command == name)
        .map_or(&[][..], |(_, examples)| *examples);
    fn one<T: Parser>(
        arguments: Vec<OsString>,
        examples: &[Example],
        command: fn(T) -> Command,
    ) -> Result<Option<Command>, Failure> {
        Ok(hydra_cli::command::parse::<T>(arguments, examples)?.map(command))
    }
    match name {
        "eds-cat" => one(arguments, examples, Command::Cat),
        "eds-check" => one(arguments, examples, Command::Check),
        "eds-chmod" => one(arguments, examples, Command::Chmod),
        "eds-getacl" => one(arguments, examples, Command::GetAcl),
        "eds-setacl" => one(arguments, examples, Command::SetAcl),
        "eds-decrypt" => one(arguments, examples, Command::Decrypt),
        "eds-encrypt" => one(arguments, examples, Command::Encrypt),
        "eds-get" => one(arguments, examples, Command::Get),
        "eds-key-export" => one(arguments, examples, Command::Export),
        "eds-key-register" => one(arguments, examples, Command::Register),
        "eds-key-repair" => one(arguments, examples, Command::Repair),
        "eds-key-reshare" => one(arguments, examples, Command::Reshare),
        "eds-key-rotate" => one(arguments, examples, Command::Rotate),
        "eds-key-status" => one(arguments, examples, Command::Status),
        "eds-key-unregister" => one(arguments, examples, Command::Unregister),
        "eds-put" => one(arguments, examples, Command::Put),
        "eds-rm" => one(arguments, examples, Command::Remove),
        _ => one(arguments, examples, Command::Whoami),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_line_is_sound() {
        Encrypt::command().debug_assert();
        Decrypt::command().debug_assert();
        Cat::command().debug_assert();
        Register::command().debug_assert();
        Unregister::command().debug_assert();
        Status::command().debug_assert();
        Repair::command().debug_assert();
        Reshare::command().debug_assert();
        Rotate::command().debug_assert();
        Export::command().debug_assert();
        Whoami::command().debug_assert();
        Check::command().debug_assert();
        GetAcl::command().debug_assert();
        SetAcl::command().debug_assert();
        Chmod::command().debug_assert();
        storage::Get::command().debug_assert();
        storage::Put::command().debug_assert();
        storage::Remove::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for name in crate::NAMES {
            let (_, examples) = EXAMPLES.iter().find(|(command, _)| command == name).unwrap();
            assert!(!examples.is_empty(), "{name}");
            for example in *examples {
                let words = example.command.split(' ').map(OsString::from).collect();
                assert!(parse(name, words).unwrap().is_some(), "{}", example.command);
            }
        }
    }
}
