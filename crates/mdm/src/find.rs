//! `mdm-find`: files by what they show. Rows are printed as they come.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use clap::Parser;
use eds::args::Manners;
use eds::voice::Voice;
use hydra_cli::command::Example;
use hydra_cli::output::{print_line, print_one_more};
use hydra_cli::{Code, Failure, printable};
use hydra_core::keystore::wire::ProblemKind;
use mdm_catalog::client::Rows;
use mdm_catalog::wire::{Kind, MAX_ITEMS, Search, Value};
use mdm_catalog::{CatalogClient, CatalogError, csv};
use serde_json::{Map, json};

use crate::attributes::shown;
use crate::connection::{Catalog, logical_name};

/// Find files by their attributes
///
/// QUERY is like SQL's WHERE: modality = 'MR' AND age_group IN ('40-44', '45-49') ORDER BY study_year DESC LIMIT 20.
/// DICOM keywords work as names too. Without a QUERY all files below DIR are found. Names are printed one on a line, as
/// they come; with --columns a table, tab-separated.
#[derive(Debug, Parser)]
#[command(name = "mdm-find")]
pub struct Find {
    /// The directory to search, with all below it
    #[arg(value_name = "DIR")]
    pub directory: String,
    /// What to look for
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
    /// Attributes and fields to print, with commas between them (default: name)
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Print CSV (RFC 4180)
    #[arg(long, conflicts_with_all = ["json", "count"])]
    pub csv: bool,
    /// Print how many there are, and nothing else
    #[arg(long, conflicts_with_all = ["columns", "limit"])]
    pub count: bool,
    /// Stop after so many
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-find`.
pub const EXAMPLES: &[Example] = &[
    Example {
        says: "Find magnetic resonance images of heads",
        command: "mdm-find /myvo/images \"modality = 'MR' AND body_part = 'HEAD'\"",
    },
    Example {
        says: "Print a table of them",
        command: "mdm-find --csv --columns name,modality,study_year /myvo/images \"study_year > 2020\"",
    },
    Example {
        says: "Count all",
        command: "mdm-find --count /myvo/images",
    },
];

/// How rows are printed.
#[derive(Clone, Copy)]
enum Form {
    Names,
    Table,
    Csv,
    Json,
}

impl Form {
    fn head(self, columns: &[String]) -> Option<String> {
        match self {
            Self::Names | Self::Json => None,
            Self::Table => Some(columns.join("\t")),
            Self::Csv => Some(csv_line(columns.iter().map(String::as_str))),
        }
    }

    fn row(self, columns: &[String], row: Vec<Value>) -> String {
        match self {
            // a tab or a line's end in a value would make two of it
            Self::Names | Self::Table => {
                let fields: Vec<String> = row.iter().map(|value| printable(&shown(value))).collect();
                fields.join("\t")
            }
            Self::Csv => {
                let fields: Vec<String> = row.iter().map(shown).collect();
                csv_line(fields.iter().map(String::as_str))
            }
            Self::Json => {
                let fields = columns.iter().cloned().zip(row.into_iter().map(|value| json!(value)));
                serde_json::Value::Object(fields.collect::<Map<_, _>>()).to_string()
            }
        }
    }
}

fn csv_line<'f>(fields: impl Iterator<Item = &'f str>) -> String {
    // RFC 4180 ends lines with CR LF; the printer adds the LF
    csv::record(fields) + "\r"
}

/// `mdm-find`.
///
/// # Errors
/// A query that is none, a catalogue that does not answer, or one that broke off.
pub fn find(args: &Find) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let search = Search {
        from: logical_name(&args.directory)?.to_string(),
        query: args.query.clone().unwrap_or_default(),
        columns: args.columns.iter().map(|name| name.trim().to_owned()).collect(),
        page: args
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(MAX_ITEMS).clamp(1, MAX_ITEMS)),
        ..Search::default()
    };
    let client = args.catalog.open()?;
    if args.count {
        let count = client
            .count(&search)
            .map_err(|error| no_directory(&client, &search.from, error))?;
        return if voice.json {
            voice.json(&json!({ "count": count }))
        } else {
            print_line(&count.to_string())
        };
    }
    let form = match (voice.json, args.csv, args.columns.is_empty()) {
        (true, ..) => Form::Json,
        (_, true, _) => Form::Csv,
        (_, _, true) => Form::Names,
        _ => Form::Table,
    };
    let rows = client
        .search(&search)
        .map_err(|error| no_directory(&client, &search.from, error))?;
    print_rows(rows, form, args.limit.unwrap_or(u64::MAX))
}

/// What is not there as a directory may be a file that is shown.
fn no_directory(client: &CatalogClient, from: &str, error: CatalogError) -> Failure {
    let is_file = error.kind() == Some(ProblemKind::NotFound)
        && client.show_one(from).is_ok_and(|entry| entry.kind == Kind::File);
    if !is_file {
        return error.into();
    }
    let text = format!("`{from}` is a file, and directories are searched");
    Failure::new(Code::Usage, text).advise(format!("mdm-show {}", eds::failure::quoted(from)))
}

fn print_rows(mut rows: Rows<'_>, form: Form, limit: u64) -> Result<(), Failure> {
    let columns = rows.columns().to_vec();
    if let Some(head) = form.head(&columns)
        && !print_one_more(&head)?
    {
        return Ok(());
    }
    for _ in 0..limit {
        let Some(row) = rows.next() else { break };
        let row = row.map_err(|error: CatalogError| Failure::from(error))?;
        if !print_one_more(&form.row(&columns, row))? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_printed_in_each_form() {
        let columns = ["name".to_owned(), "a".to_owned()];
        let row = || vec![Value::Text("/x\ty".into()), Value::Integer(3)];
        assert_eq!(Form::Table.head(&columns).as_deref(), Some("name\ta"));
        assert_eq!(Form::Table.row(&columns, row()), "/x\\ty\t3");
        assert_eq!(
            Form::Csv.row(&columns, vec![Value::Text("a,b".into()), Value::Null]),
            "\"a,b\",\r"
        );
        assert_eq!(Form::Json.row(&columns, row()), r#"{"a":3,"name":"/x\ty"}"#);
        assert_eq!(Form::Names.head(&columns), None);
    }
}
