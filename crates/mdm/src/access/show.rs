//! `mdm-getacl`.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::collections::BTreeMap;

use clap::Parser;
use eds::args::{Manners, Stores};
use eds::permissions::{AT_ONCE, Meant, disagreement, for_each, record_json, report_first};
use eds::voice::Voice;
use hydra_cli::command::Example;
use hydra_cli::output::{print, print_json};
use hydra_cli::{Failure, printable};
use hydra_core::keystore::agreement::{Agreement, PermissionsReport};
use mdm_catalog::wire::PermissionsAnswer;
use serde_json::{Map, Value, json};

use super::table::Sheet;
use super::{KeyStores, Piece};
use crate::connection::{Catalog, done, entry_names, worst};

/// Show who may do what with files: with name, halves and key
///
/// A column for each of the four, a line for each principal, and every disagreement between them as a sentence behind
/// `#`. A `?` stands for what is not shown to you. Exit code 75 where the stores of a key disagree.
#[derive(Debug, Parser)]
#[command(name = "mdm-getacl")]
pub struct GetAcl {
    /// Logical file names, or `guid:…`
    #[arg(value_name = "LFN", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub catalog: Catalog,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub manners: Manners,
}

/// Uses of `mdm-getacl`.
pub const GETACL_EXAMPLES: &[Example] = &[Example {
    says: "See who may find, read and open a file",
    command: "mdm-getacl /myvo/images/17",
}];

/// What the stores say of keys, or why that is not known.
type Keys = BTreeMap<String, Result<PermissionsReport, String>>;

/// `mdm-getacl`.
///
/// # Errors
/// The worst of what was wrong; all that could be found out is printed.
pub fn getacl(args: &GetAcl) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let names = entry_names(&args.names)?;
    let client = args.catalog.open()?;
    let mut failures = Vec::new();
    let mut shown = Vec::new();
    let (answers, entries) = (client.permissions(&names)?, client.show(&names)?);
    for ((name, answer), entry) in names.iter().zip(answers).zip(entries) {
        match done(name, answer).and_then(|answer| Ok((answer, done(name, entry)?.key_id))) {
            Ok(one) => shown.push(one),
            Err(failure) => failures.push(failure),
        }
    }
    let stores = KeyStores::new(&args.stores);
    let keys = ask_keys(&stores, shown.iter().filter_map(|(_, key_id)| key_id.as_deref()));
    let mut told = Vec::new();
    let mut blocks = Vec::new();
    for (answer, key_id) in &shown {
        let key = key_id.as_ref().and_then(|key_id| keys.get_key_value(key_id));
        let sheet = sheet(answer, key.and_then(|(_, report)| report.as_ref().ok()));
        let notes = key_notes(key);
        if let Some((_, Ok(report))) = key
            && !matches!(report.agreement, Agreement::Everywhere | Agreement::Unknown)
        {
            failures.push(disagreement(report));
        }
        told.push(in_json(answer, &sheet, key, &notes));
        blocks.push(block(answer, &sheet, key.map(|(key_id, _)| key_id.as_str()), &notes));
    }
    failures.extend(stores.into_failure());
    if voice.json {
        print_json(&json!({ "entries": told }))?;
    } else {
        print(blocks.join("\n").as_bytes())?;
    }
    worst(failures, names.len(), "are as they should be")
}

fn ask_keys<'k>(stores: &KeyStores<'_>, key_ids: impl Iterator<Item = &'k str>) -> Keys {
    let mut keys = Keys::new();
    let mut all = Vec::new();
    for key_id in key_ids {
        match Meant::new(key_id) {
            Ok(meant) if !all.iter().any(|known: &Meant| known.typed == meant.typed) => all.push(meant),
            Ok(_) => {}
            Err(error) => {
                keys.insert(key_id.to_owned(), Err(error.to_string()));
            }
        }
    }
    if all.is_empty() {
        return keys;
    }
    let session = match stores.session() {
        Ok(session) => session,
        Err(reason) => {
            keys.extend(all.into_iter().map(|meant| (meant.typed, Err(reason.clone()))));
            return keys;
        }
    };
    let verb = async |one: &Meant| report_first(&session.hydra, one).await;
    let reports = session.wait(for_each(&all, AT_ONCE, verb));
    let reports = reports
        .into_iter()
        .map(|report| report.map_err(|error| error.to_string()));
    keys.extend(all.into_iter().map(|meant| meant.typed).zip(reports));
    keys
}

fn sheet<'r>(answer: &'r PermissionsAnswer, report: Option<&'r PermissionsReport>) -> Sheet<'r> {
    let held = |piece: Piece| match piece {
        Piece::Key => report.and_then(|report| report.record.as_ref()),
        piece => piece.of(&answer.records),
    };
    let records = Piece::ALL.into_iter().filter_map(|piece| Some((piece, held(piece)?)));
    Sheet {
        records: records.collect(),
    }
}

/// What there is to say of the key alone.
fn key_notes(key: Option<(&String, &Result<PermissionsReport, String>)>) -> Vec<String> {
    let Some((key_id, report)) = key else { return Vec::new() };
    let note = match report {
        Err(reason) => format!("the key `{key_id}` cannot be asked about: {reason}"),
        Ok(report) => match report.agreement {
            Agreement::Everywhere => return Vec::new(),
            Agreement::Unknown => format!("there is no key `{key_id}`, or it is not shown to you"),
            Agreement::Majority => {
                let missing = report.missing().join(", ");
                format!("not every store holds these permissions of the key (not {missing})")
            }
            Agreement::Overtaken | Agreement::Split => {
                "the stores disagree about the permissions of the key".to_owned()
            }
            Agreement::Unclear => "too few stores answered to tell about the key".to_owned(),
        },
    };
    vec![note]
}

fn block(answer: &PermissionsAnswer, sheet: &Sheet<'_>, key_id: Option<&str>, notes: &[String]) -> String {
    let mut text = format!("# ENTRY: {}\n", printable(answer.path.as_str()));
    if let Some(key_id) = key_id {
        text.push_str(&format!("# Key: {}\n", printable(key_id)));
    }
    text.push_str(&sheet.text());
    for note in notes.iter().chain(&sheet.disagreements()) {
        text.push_str(&format!("# {}\n", printable(note)));
    }
    text
}

fn in_json(
    answer: &PermissionsAnswer,
    sheet: &Sheet<'_>,
    key: Option<(&String, &Result<PermissionsReport, String>)>,
    notes: &[String],
) -> Value {
    let records: Map<String, Value> = sheet
        .records
        .iter()
        .map(|(piece, record)| (piece.word().to_owned(), record_json(record)))
        .collect();
    let granted = |piece: &Piece| Some((piece.word().to_owned(), json!(answer.granted.get(&piece.part()?)?)));
    json!({
        "path": answer.path,
        "key_id": key.map(|(key_id, _)| key_id),
        "permissions": records,
        "granted_to_you": Piece::ALL.iter().filter_map(granted).collect::<Map<_, _>>(),
        "disagreements": notes.iter().cloned().chain(sheet.disagreements()).collect::<Vec<_>>(),
    })
}
