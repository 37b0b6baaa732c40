//! The command lines of `eds-getacl`, `eds-setacl` and `eds-chmod`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::path::PathBuf;

use clap::{Args, Parser};
use hydra_cli::command::Example;

use crate::args::{Manners, Stores};

/// Show who may do what with keys
///
/// The listing feeds back into eds-setacl -X and -M. Exit code 75 where stores disagree.
#[derive(Debug, Parser)]
#[command(name = "eds-getacl")]
pub struct GetAcl {
    /// The names of the keys
    #[arg(value_name = "KEY_ID", required = true)]
    pub key_ids: Vec<String>,
    /// Show what each store holds
    #[arg(long)]
    pub each_store: bool,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Change who may do what with keys
///
/// A PRINCIPAL is a DN (/C=UG/CN=Jane Doe) or a group or role of a VO (/myvo/Role=reader). PERMS are letters of
/// pdrwlxgs: p change permissions, d remove, l list, g use the key, s write shares; r, w and x mean nothing here.
#[derive(Debug, Parser)]
#[command(name = "eds-setacl", group(clap::ArgGroup::new("list").args(["modify_file", "delete_file", "exact_file"])))]
pub struct SetAcl {
    /// The names of the keys
    #[arg(value_name = "KEY_ID", required = true)]
    pub key_ids: Vec<String>,
    /// Give a principal these permissions, in place of those it has in the ACL; may be repeated
    #[arg(short, long, value_name = "PRINCIPAL:PERMS", conflicts_with_all = ["exact", "list"])]
    pub modify: Vec<String>,
    /// Take a principal out of the ACL; may be repeated
    #[arg(short, long, value_name = "PRINCIPAL", conflicts_with_all = ["exact", "list"])]
    pub delete: Vec<String>,
    /// Make the ACL exactly this; may be repeated, `NONE` empties it
    #[arg(short = 'x', long, value_name = "PRINCIPAL:PERMS", conflicts_with = "list")]
    pub exact: Vec<String>,
    /// As --modify, from a file (`-`: standard input): a line each, up to the first empty one, `#` begins a remark
    #[arg(short = 'M', long, value_name = "FILE")]
    pub modify_file: Option<PathBuf>,
    /// As --delete, from a file
    #[arg(short = 'D', long, value_name = "FILE")]
    pub delete_file: Option<PathBuf>,
    /// As --exact, from a file
    #[arg(short = 'X', long, value_name = "FILE")]
    pub exact_file: Option<PathBuf>,
    /// Give the keys to another owner, who has the owner's permissions from then on
    #[arg(long, value_name = "DN")]
    pub owner: Option<String>,
    /// Give the keys to another group
    #[arg(long, value_name = "FQAN")]
    pub group: Option<String>,
    /// Where stores disagree, go on from what this one holds
    #[arg(long, value_name = "STORE")]
    pub over: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Change what owner, group and everybody else may do with keys
///
/// MODE is as for chmod, with other letters: clauses with commas between them, each some of ugoa, then +, - or =, then
/// some of pdrwlxgs-, applied from left to right. The ACL stays as it is.
#[derive(Debug, Parser)]
#[command(name = "eds-chmod")]
pub struct Chmod {
    /// For example `g+lg`, `o=-`, `u=pdlgs,g=lg`
    #[arg(value_name = "MODE")]
    pub mode: String,
    /// The names of the keys
    #[arg(value_name = "KEY_ID", required = true)]
    pub key_ids: Vec<String>,
    /// Where stores disagree, go on from what this one holds
    #[arg(long, value_name = "STORE")]
    pub over: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// What a new key gets.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Permissions of the new key")]
pub struct NewPermissions {
    /// Its group (default: the configuration's, else your first group)
    #[arg(long, value_name = "FQAN")]
    pub group: Option<String>,
    /// A mode as for eds-chmod (default: the configuration's, else the owner alone may do everything)
    #[arg(long, value_name = "MODE")]
    pub perms: Option<String>,
    /// A line of its ACL, may be repeated (default: the configuration's); `NONE` empties it
    #[arg(long, value_name = "PRINCIPAL:PERMS")]
    pub acl: Vec<String>,
}

/// Uses of `eds-chmod`.
pub const CHMOD_EXAMPLES: &[Example] = &[
    Example {
        says: "Let the group list and use a key",
        command: "eds-chmod g+lg /myvo/scans/17",
    },
    Example {
        says: "Take all from everybody but the owner",
        command: "eds-chmod go=- /myvo/scans/17",
    },
];

/// Uses of `eds-getacl`.
pub const GETACL_EXAMPLES: &[Example] = &[
    Example {
        says: "See who may use a key",
        command: "eds-getacl /myvo/scans/17",
    },
    Example {
        says: "See what each store holds",
        command: "eds-getacl --each-store /myvo/scans/17",
    },
];

/// Uses of `eds-setacl`.
pub const SETACL_EXAMPLES: &[Example] = &[
    Example {
        says: "Let a role use a key",
        command: "eds-setacl -m /myvo/Role=reader:lg /myvo/scans/17",
    },
    Example {
        says: "Take it back",
        command: "eds-setacl -d /myvo/Role=reader /myvo/scans/17",
    },
    Example {
        says: "Give a key to another group",
        command: "eds-setacl --group /myvo/radiology /myvo/scans/17",
    },
];
