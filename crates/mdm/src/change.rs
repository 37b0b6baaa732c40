//! `mdm-mkdir`, `mdm-rm`, `mdm-set`: names and what is known of them.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use clap::{Parser, ValueEnum};
use eds::args::Manners;
use eds::voice::Voice;
use hydra_cli::command::{Example, usage_error};
use hydra_cli::{Code, Failure};
use hydra_core::keystore::wire::ProblemKind;
use mdm_catalog::wire::{Answer, Attributes, Change, Created, Kind, NewEntry, Removal, Status, Type};
use mdm_catalog::{CatalogClient, LogicalName};
use serde_json::json;

use crate::attributes::{assignment, typed};
use crate::connection::{Catalog, done, entry_name, entry_names, logical_name, worst};

/// Make directories of the catalogue
#[derive(Debug, Parser)]
#[command(name = "mdm-mkdir")]
pub struct Mkdir {
    /// The directories
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<String>,
    /// Make those above too, and mind none that is there
    #[arg(short, long)]
    pub parents: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Remove names with their attributes
///
/// Files and keys stay: a name that still has replicas is left alone without --force. lcg-del -a removes a file with
/// its replicas, mdm-withdraw all of a patient with the keys.
#[derive(Debug, Parser)]
#[command(name = "mdm-rm")]
pub struct Rm {
    /// Logical file names, or `guid:…`
    #[arg(value_name = "LFN", required = true)]
    pub names: Vec<String>,
    /// Directories with all that lies below
    #[arg(short, long)]
    pub recursive: bool,
    /// Also names that have replicas, which nothing leads to then; and mind none that is not there
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Where {
    Nearline,
    Online,
}

/// Set attributes, replicas and checksums of a file
///
/// NAME= removes an attribute; the items of a list have `;` between them. An attribute's half decides whether you may.
#[derive(Debug, Parser)]
#[command(name = "mdm-set")]
pub struct Set {
    /// A logical file name, or `guid:…`
    #[arg(value_name = "LFN")]
    pub name: String,
    /// Attributes with their values
    #[arg(value_name = "NAME=VALUE")]
    pub attributes: Vec<String>,
    /// A replica that comes; may be repeated
    #[arg(long, value_name = "URL")]
    pub add_replica: Vec<String>,
    /// A replica that goes; may be repeated
    #[arg(long, value_name = "URL")]
    pub remove_replica: Vec<String>,
    /// Bytes of the sealed file
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u64>,
    /// Its Adler-32, in eight hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub adler32: Option<String>,
    /// Its SHA-256, in 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// The key that it is sealed under
    #[arg(long, value_name = "KEY_ID")]
    pub key_id: Option<String>,
    /// Where its bytes are
    #[arg(long, value_enum)]
    pub status: Option<Where>,
    /// Give it another name
    #[arg(long, value_name = "LFN")]
    pub rename: Option<String>,
    /// Only if its version is this one (mdm-show --json)
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-mkdir`.
pub const MKDIR_EXAMPLES: &[Example] = &[Example {
    says: "Make a directory with those above it",
    command: "mdm-mkdir -p /myvo/images/2026",
}];

/// Uses of `mdm-rm`.
pub const RM_EXAMPLES: &[Example] = &[
    Example {
        says: "Remove a name that has no replicas any more",
        command: "mdm-rm /myvo/images/17",
    },
    Example {
        says: "Remove a directory with all below",
        command: "mdm-rm -r /myvo/images/2026",
    },
];

/// Uses of `mdm-set`.
pub const SET_EXAMPLES: &[Example] = &[
    Example {
        says: "Set two attributes and remove a third",
        command: "mdm-set /myvo/images/17 modality=MR rows=512 model=",
    },
    Example {
        says: "Say where there is another copy",
        command: "mdm-set /myvo/images/17 --add-replica root://se2.example.org//myvo/17",
    },
];

/// `mdm-mkdir`.
///
/// # Errors
/// What could not be made; the rest is.
pub fn mkdir(args: &Mkdir) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let new = |typed: &String| Ok(directory(logical_name(typed)?, args.parents));
    let entries: Vec<NewEntry> = args.directories.iter().map(new).collect::<Result<_, Failure>>()?;
    let client = args.catalog.open()?;
    let mut failures = Vec::new();
    let mut made = Vec::new();
    for (entry, answer) in entries.iter().zip(client.create(&entries)?) {
        match done(entry.path.as_str(), answer) {
            Ok(Created::Known) if !args.parents => {
                let text = format!("`{}` is there already", entry.path);
                failures.push(Failure::new(Code::CannotCreate, text).advise("-p, to mind none that is there"));
            }
            Ok(created) => {
                made.push(json!({ "path": entry.path, "new": created == Created::New }));
                if created == Created::New {
                    voice.result(&format!("made {}", entry.path))?;
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    voice.json(&json!({ "directories": made }))?;
    worst(failures, entries.len(), "directories are there")
}

/// A directory to be made.
pub fn directory(path: LogicalName, parents: bool) -> NewEntry {
    NewEntry {
        path,
        kind: Kind::Directory,
        parents,
        guid: None,
        operation: None,
        size: None,
        adler32: None,
        sha256: None,
        key_id: None,
        status: None,
        replicas: Vec::new(),
        attributes: Attributes::new(),
    }
}

/// `mdm-rm`.
///
/// # Errors
/// What could not be removed; the rest is.
pub fn rm(args: &Rm) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let names = entry_names(&args.names)?;
    if names.iter().any(|name| name == "/") {
        return Err(usage_error("the root of the catalogue cannot be removed"));
    }
    let client = args.catalog.open()?;
    let removal = |path: &String| Removal {
        path: path.clone(),
        recursive: args.recursive,
        unreplicated: !args.force,
    };
    let mut failures = Vec::new();
    let mut removable = Vec::new();
    for name in &names {
        match with_replicas(&client, name, args)? {
            Some(failure) => failures.push(failure),
            None => removable.push(name),
        }
    }
    let removals: Vec<Removal> = removable.iter().map(|name| removal(name)).collect();
    let mut told = Vec::new();
    for (name, answer) in removable.into_iter().zip(client.remove(&removals)?) {
        if let Answer::Problem(problem) = &answer
            && args.force
            && problem.kind == ProblemKind::NotFound
        {
            continue;
        }
        match done(name, answer) {
            Ok(count) => {
                told.push(json!({ "path": name, "removed": count }));
                let more = if count > 1 {
                    format!(", {count} entries")
                } else {
                    String::new()
                };
                voice.result(&format!("removed {name}{more}"))?;
            }
            Err(failure) => failures.push(failure),
        }
    }
    voice.json(&json!({ "entries": told }))?;
    worst(failures, names.len(), "are removed")
}

/// Why a directory is not removed with all that lies below: something there has replicas.
fn with_replicas(client: &CatalogClient, name: &str, args: &Rm) -> Result<Option<Failure>, Failure> {
    if args.force || !args.recursive {
        return Ok(None);
    }
    // what is not there is told when it is to be removed
    let Ok(entry) = client.show_one(name) else {
        return Ok(None);
    };
    if entry.kind == Kind::File {
        return Ok(None);
    }
    for below in client.list_all(&entry.path, true) {
        let below = below?;
        if !below.replicas.is_empty() {
            let text = format!("`{}` is left: `{}` in it has replicas", entry.path, below.path);
            let advice = "lcg-del -a, which removes those too, or --force, to lose sight of them";
            return Ok(Some(Failure::new(Code::CannotCreate, text).advise(advice)));
        }
    }
    Ok(None)
}

/// `mdm-set`.
///
/// # Errors
/// Why nothing was changed.
pub fn set(args: &Set) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let path = entry_name(&args.name)?;
    let wrong = |error| Failure::new(Code::Usage, error);
    let assigned: Vec<(&str, &str)> = args
        .attributes
        .iter()
        .map(|text| assignment(text).map_err(wrong))
        .collect::<Result<_, _>>()?;
    let rename = args.rename.as_deref().map(logical_name).transpose()?;
    let client = args.catalog.open()?;
    let change = Change {
        if_version: args.if_version,
        size: args.size,
        adler32: args.adler32.as_ref().map(|hex| hex.to_ascii_lowercase()),
        sha256: args.sha256.as_ref().map(|hex| hex.to_ascii_lowercase()),
        key_id: args.key_id.clone(),
        status: args.status.map(|status| match status {
            Where::Nearline => Status::Nearline,
            Where::Online => Status::Online,
        }),
        add_replicas: args.add_replica.clone(),
        remove_replicas: args.remove_replica.clone(),
        attributes: values(&client, &path, &assigned)?,
        rename,
        path,
    };
    let nothing = Change {
        path: change.path.clone(),
        if_version: change.if_version,
        ..Change::default()
    };
    if json!(change) == json!(nothing) {
        return Err(usage_error("nothing to set"));
    }
    let entry = client.change_one(&change)?;
    voice.result(&format!("set {}", entry.path))?;
    voice.json(&json!(entry))
}

/// What was assigned, typed by the schema that holds there. Names that it has not go as texts, for the catalogue to
/// refuse.
///
/// # Errors
/// No schema, or a text that is no value.
pub fn values(client: &CatalogClient, path: &str, assigned: &[(&str, &str)]) -> Result<Attributes, Failure> {
    if assigned.is_empty() {
        return Ok(Attributes::new());
    }
    let at = match LogicalName::new(path) {
        Ok(name) => name,
        Err(_) => client.show_one(path)?.path,
    };
    let schema = client.schema(&at)?;
    let mut values = Attributes::new();
    for (name, text) in assigned {
        let known = schema
            .attributes
            .iter()
            .find(|attribute| attribute.name.eq_ignore_ascii_case(name));
        let (name, kind) = known.map_or(((*name).to_owned(), Type::String), |known| {
            (known.name.clone(), known.kind)
        });
        let value = typed(&name, kind, text).map_err(|error| Failure::new(Code::Usage, error))?;
        values.insert(name, value);
    }
    Ok(values)
}
