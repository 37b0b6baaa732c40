//! `mdm-show --identify`: from an image of the catalogue back to the patient, for those who may. For everybody else
//! there is nothing of that name.

use eds::voice::Voice;
use hydra_cli::{Code, Failure};
use mdm_catalog::client::CatalogClient;
use mdm_catalog::wire::{Entry, Value};
use serde_json::json;

use crate::connection::{done, worst};

/// What is told, in this order.
const TOLD: [&str; 10] = [
    "patient_name",
    "patient_id",
    "birth_date",
    "study_date",
    "accession_number",
    "institution",
    "referring_physician",
    "original_study_uid",
    "original_series_uid",
    "original_instance_uid",
];

/// Says who is in each of these images, and what the PACS calls it.
///
/// # Errors
/// Where the catalogue does not say; it makes no difference whether there is no such image or no right to know.
pub fn all(catalog: &CatalogClient, names: &[String], voice: Voice) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (name, answer) in names.iter().zip(catalog.show(names)?) {
        let told = done(name, answer).and_then(|entry| identify(&entry, voice));
        failures.extend(told.err());
    }
    worst(failures, names.len(), "are identified")
}

fn identify(entry: &Entry, voice: Voice) -> Result<(), Failure> {
    let path = &entry.path;
    let identifying = identifying(entry);
    let replicas: Vec<&String> = entry.replicas.iter().filter(|url| url.starts_with("dicom:")).collect();
    if identifying.is_empty() && replicas.is_empty() {
        let text = format!("`{path}` is not there, or not shown to you");
        return Err(Failure::new(Code::NotAllowed, text).advise("eds-whoami"));
    }
    for (name, value) in &identifying {
        voice.result(&format!("{name}: {value}"))?;
    }
    for url in &replicas {
        voice.result(&format!("replica: {url}"))?;
    }
    let attributes: serde_json::Map<String, serde_json::Value> = identifying
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    voice.json(&json!({ "path": path, "identifying": attributes, "replicas": replicas }))
}

/// What an entry shows of its identifying half: what is known by name first, then the rest.
fn identifying(entry: &Entry) -> Vec<(&str, String)> {
    let rest = entry.identifying.iter().map(String::as_str);
    let rest = rest.filter(|name| !TOLD.contains(name));
    let is_told = |name: &&str| entry.identifying.iter().any(|known| known == name);
    let names = TOLD.into_iter().filter(is_told).chain(rest);
    names
        .filter_map(|name| Some((name, text(entry.attributes.get(name)?)?)))
        .collect()
}

fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(values) => values.iter().filter_map(text).collect::<Vec<_>>().join(", "),
    })
}
