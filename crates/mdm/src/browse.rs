//! `mdm-ls` and `mdm-show`: what is in the catalogue, as far as the caller may see it.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use clap::Parser;
use eds::args::Manners;
use eds::voice::Voice;
use hydra_cli::command::Example;
use hydra_cli::output::{print, print_json, print_one_more};
use hydra_cli::{Failure, printable};
use mdm_catalog::wire::{Entry, Kind, Status};
use mdm_catalog::{CatalogClient, LogicalName};
use serde_json::json;

use crate::attributes::shown;
use crate::connection::{Catalog, done, entry_names, worst};
use crate::identify;

/// List directories of the catalogue
///
/// Directories have a slash behind their names. With --json an object on each line.
#[derive(Debug, Parser)]
#[command(name = "mdm-ls")]
pub struct Ls {
    /// Directories, or files
    #[arg(value_name = "LFN", default_value = "/")]
    pub names: Vec<String>,
    /// With status, size and time of the last change
    #[arg(short, long)]
    pub long: bool,
    /// With all that lies below
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Show all that you may see of files or directories
#[derive(Debug, Parser)]
#[command(name = "mdm-show")]
pub struct Show {
    /// Logical file names, or `guid:…`
    #[arg(value_name = "LFN", required = true)]
    pub names: Vec<String>,
    /// Say who is in these images and what the PACS calls them, where you may know
    #[arg(long)]
    pub identify: bool,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-ls`.
pub const LS_EXAMPLES: &[Example] = &[
    Example {
        says: "List a directory",
        command: "mdm-ls -l /myvo/images",
    },
    Example {
        says: "List all below it",
        command: "mdm-ls -R /myvo/images",
    },
];

/// Uses of `mdm-show`.
pub const SHOW_EXAMPLES: &[Example] = &[Example {
    says: "Show replicas, checksums and attributes",
    command: "mdm-show lfn:/myvo/images/17",
}];

/// `mdm-ls`.
///
/// # Errors
/// What could not be listed; the rest is.
pub fn ls(args: &Ls) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let typed = entry_names(&args.names)?;
    let client = args.catalog.open()?;
    let mut failures = Vec::new();
    let mut names = Vec::new();
    for name in &typed {
        match LogicalName::new(name) {
            Ok(name) => names.push(name),
            Err(_) => match client.show_one(name) {
                Ok(entry) => names.push(entry.path),
                Err(error) => failures.push(error.into()),
            },
        }
    }
    for (number, name) in names.iter().enumerate() {
        let titled = names.len() > 1 && !args.recursive && !voice.json;
        // the root is no entry: what lies in it is
        let entry = if name.is_root() {
            None
        } else {
            match client.show_one(name.as_str()) {
                Ok(entry) => Some(entry),
                Err(error) => {
                    failures.push(error.into());
                    continue;
                }
            }
        };
        let is_directory = entry.as_ref().is_none_or(|entry| entry.kind == Kind::Directory);
        if titled && is_directory {
            let between = if number > 0 { "\n" } else { "" };
            print(format!("{between}{}:\n", printable(name.as_str())).as_bytes())?;
        }
        match list(&client, name, entry.as_ref(), args, voice) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(failure) => failures.push(failure),
        }
    }
    worst(failures, typed.len(), "are listed")
}

/// Lists one; whether somebody still reads.
fn list(
    client: &CatalogClient,
    path: &LogicalName,
    entry: Option<&Entry>,
    args: &Ls,
    voice: Voice,
) -> Result<bool, Failure> {
    let line = |entry: &Entry, name: &str| {
        if voice.json {
            json!(entry).to_string()
        } else if args.long {
            long_line(entry, name)
        } else {
            printable(&decorated(entry, name))
        }
    };
    if let Some(entry) = entry.filter(|entry| entry.kind == Kind::File) {
        return print_one_more(&line(entry, entry.path.as_str()));
    }
    for below in client.list_all(path, args.recursive) {
        let below = below?;
        let name = if args.recursive {
            below.path.as_str()
        } else {
            below.path.last_segment()
        };
        if !print_one_more(&line(&below, name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn decorated(entry: &Entry, name: &str) -> String {
    match entry.kind {
        Kind::Directory => format!("{name}/"),
        Kind::File => name.to_owned(),
    }
}

fn long_line(entry: &Entry, name: &str) -> String {
    let status = match (entry.kind, entry.status) {
        (Kind::Directory, _) => "directory",
        (_, Some(Status::Online)) => "online",
        (_, Some(Status::Nearline)) => "nearline",
        (_, None) => "-",
    };
    let size = entry.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
    let (changed, name) = (&entry.modified_at, printable(&decorated(entry, name)));
    format!("{status:<9} {size:>12} {changed} {name}")
}

/// `mdm-show`.
///
/// # Errors
/// What could not be shown; the rest is.
pub fn show(args: &Show) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let names = entry_names(&args.names)?;
    let client = args.catalog.open()?;
    if args.identify {
        return identify::all(&client, &names, voice);
    }
    let mut failures = Vec::new();
    let mut entries = Vec::new();
    for (name, answer) in names.iter().zip(client.show(&names)?) {
        match done(name, answer) {
            Ok(entry) => entries.push(entry),
            Err(failure) => failures.push(failure),
        }
    }
    if voice.json {
        print_json(&json!({ "entries": entries }))?;
    } else {
        let texts: Vec<String> = entries.iter().map(text).collect();
        print(texts.join("\n").as_bytes())?;
    }
    worst(failures, names.len(), "are shown")
}

/// All of an entry, a field on a line.
fn text(entry: &Entry) -> String {
    let mut lines = vec![format!("{}:", printable(entry.path.as_str()))];
    let mut put = |name: &str, value: &str| lines.push(format!("  {name:<20} {}", printable(value)));
    put(
        "kind",
        match entry.kind {
            Kind::Directory => "directory",
            Kind::File => "file",
        },
    );
    put("guid", &entry.guid);
    let status = entry.status.map(|status| match status {
        Status::Nearline => "nearline",
        Status::Online => "online",
    });
    let size = entry.size.map(|size| size.to_string());
    let fields = [
        ("status", status),
        ("size", size.as_deref()),
        ("adler32", entry.adler32.as_deref()),
        ("sha256", entry.sha256.as_deref()),
        ("key_id", entry.key_id.as_deref()),
        ("operation", entry.operation.as_deref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            put(name, value);
        }
    }
    for replica in &entry.replicas {
        put("replica", replica);
    }
    put("owner", &entry.records.name.owner);
    put("created_at", &entry.created_at);
    put("modified_at", &entry.modified_at);
    let (identifying, anonymous): (Vec<_>, Vec<_>) = entry
        .attributes
        .iter()
        .partition(|(name, _)| entry.identifying.contains(name));
    for (title, half) in [("anonymous", anonymous), ("identifying", identifying)] {
        if !half.is_empty() {
            lines.push(format!("  {title}:"));
        }
        for (name, value) in half {
            lines.push(format!("    {name:<18} {}", printable(&shown(value))));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(json: &str) -> Entry {
        let record = r#"{"owner":"/CN=a","group":"g","user":"pdrwl-gs","group_permissions":"--------",
            "other":"--------","acl":[],"version":1,"change_id":"00000000000000000000000000000000"}"#;
        let whole = format!(
            r#"{{"path":"/myvo/x","guid":"guid:1","created_at":"2026-01-01T00:00:00Z","version":1,
            "modified_at":"2026-01-02T00:00:00Z","records":{{"name":{record},"anonymous":{record}}},{json}}}"#
        );
        serde_json::from_str(&whole).unwrap()
    }

    #[test]
    fn lines_show_what_there_is() {
        let file = entry(r#""kind":"file","status":"online","size":12"#);
        assert_eq!(long_line(&file, "x"), "online              12 2026-01-02T00:00:00Z x");
        let directory = entry(r#""kind":"directory""#);
        assert_eq!(
            long_line(&directory, "x"),
            "directory            - 2026-01-02T00:00:00Z x/"
        );
        let shown = text(&entry(
            r#""kind":"file","attributes":{"a":1,"b":"x\u0007"},"identifying":["b"],"replicas":["root://h//p"]"#,
        ));
        assert!(shown.contains("  replica              root://h//p\n"), "{shown}");
        assert!(shown.contains("  anonymous:\n    a                  1\n"), "{shown}");
        assert!(
            shown.contains("  identifying:\n    b                  x\\u{7}\n"),
            "{shown}"
        );
    }
}
