//! The golden JSON of `vectors/wire.json`: every message reads and is written again as it stands there, answers may
//! carry members that this version does not know, requests may not.
#![cfg(feature = "protocol")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::HashSet;

use hydra_core::keystore::wire::{
    self, About, Answers, Change, Changed, Confirm, Create, DescribeAnswer, DropBelow, List, ListAnswer, OfKeyId,
    OfRegistration, Operation, PermissionsAnswer, Problem, ProblemKind, Put, ReadAnswer, Undo, WhoAmI,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/wire.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn request<T: DeserializeOwned + Serialize>(json: &Value) -> Result<Value, String> {
    let read = wire::parse_request::<T>(json.to_string().as_bytes());
    read.map(|batch| serde_json::to_value(batch).unwrap())
        .map_err(|error| error.to_string())
}

fn plain<T: DeserializeOwned + Serialize>(json: &Value) -> Result<Value, String> {
    let read = serde_json::from_str::<T>(&json.to_string());
    read.map(|message| serde_json::to_value(message).unwrap())
        .map_err(|error| error.to_string())
}

fn read_and_write(kind: &str, message: &str, json: &Value) -> Result<Value, String> {
    match (kind, message) {
        ("request", "create") => request::<Create>(json),
        ("request", "confirm") => request::<Confirm>(json),
        ("request", "stop" | "remove") => request::<OfRegistration>(json),
        ("request", "undo") => request::<Undo>(json),
        ("request", "read" | "describe" | "permissions") => request::<OfKeyId>(json),
        ("request", "put") => request::<Put>(json),
        ("request", "drop") => request::<DropBelow>(json),
        ("request", "change") => request::<Change>(json),
        ("request", "list") => request::<List>(json),
        ("answer", "read") => plain::<Answers<ReadAnswer>>(json),
        ("answer", "describe") => plain::<Answers<DescribeAnswer>>(json),
        ("answer", "permissions") => plain::<Answers<PermissionsAnswer>>(json),
        ("answer", "list") => plain::<Answers<ListAnswer>>(json),
        ("answer", _) => plain::<Answers<Changed>>(json),
        ("document", "problem") => plain::<Problem>(json),
        ("document", "whoami") => plain::<WhoAmI>(json),
        ("document", "about") => plain::<About>(json),
        other => panic!("no such message: {other:?}"),
    }
}

/// Adds a member to every object, as a later version of a store may.
fn grown(json: &Value) -> Value {
    match json {
        Value::Array(items) => items.iter().map(grown).collect(),
        Value::Object(members) => {
            let grown_members = members.iter().map(|(name, value)| (name.clone(), grown(value)));
            let later = ("of_a_later_version".to_owned(), Value::Bool(true));
            Value::Object(grown_members.chain([later]).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn every_message_reads_and_is_written_again() {
    for vector in vectors() {
        let (name, json) = (&vector["name"], &vector["json"]);
        let (kind, message) = (vector["kind"].as_str().unwrap(), vector["message"].as_str().unwrap());
        let came = read_and_write(kind, message, json);
        if let Some(words) = vector["refuse"].as_str() {
            let error = came.unwrap_err();
            assert!(error.contains(words), "{name}: {error}");
            continue;
        }
        assert_eq!(came.as_ref(), Ok(json), "{name}");
        let later = read_and_write(kind, message, &grown(json));
        if kind == "request" {
            assert!(later.unwrap_err().contains("of_a_later_version"), "{name}");
        } else {
            assert_eq!(later.as_ref(), Ok(json), "{name}");
        }
    }
}

#[test]
fn every_operation_and_status_has_a_vector() {
    let vectors = vectors();
    let messages: HashSet<(&str, &str)> = vectors
        .iter()
        .map(|vector| (vector["kind"].as_str().unwrap(), vector["message"].as_str().unwrap()))
        .collect();
    for operation in Operation::ALL {
        assert!(messages.contains(&("request", operation.name())), "{operation:?}");
        assert!(messages.contains(&("answer", operation.name())), "{operation:?}");
    }
    let text = serde_json::to_string(&vectors).unwrap();
    for status in [
        "ok",
        "exists",
        "removed",
        "stopped",
        "confirmed",
        "unknown",
        "older",
        "other",
        "full",
        "conflict",
    ] {
        assert!(text.contains(&format!("\"status\":\"{status}\"")), "{status}");
    }
}

#[test]
fn a_problem_of_a_later_version_is_read_as_other() {
    let json = r#"{"type": "urn:hydra-eds:problem:new", "title": "t", "status": 418}"#;
    assert_eq!(serde_json::from_str::<Problem>(json).unwrap().kind, ProblemKind::Other);
}

#[test]
fn titles_and_statuses_of_problems_are_those_of_their_kind() {
    for vector in vectors().iter().filter(|vector| vector["message"] == "problem") {
        let problem: Problem = serde_json::from_value(vector["json"].clone()).unwrap();
        assert_eq!(
            (problem.title.as_str(), problem.status),
            (problem.kind.title(), problem.kind.status())
        );
    }
}
