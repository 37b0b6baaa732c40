//! Key ids, check values and import ids against `vectors/formats.json`, made by a second implementation.
#![cfg(feature = "protocol")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use hydra_core::ids::StoreId;
use hydra_core::key_id::{KeyId, KeyIdError, canonical};
use hydra_core::keystore::sharing::{check_message, check_value, import_id};
use hydra_core::keystore::wire::{Constants, Sharing};
use serde_json::Value;

fn cases(op: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/formats.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases: Vec<_> = all["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["op"] == op)
        .cloned()
        .collect();
    assert!(!cases.is_empty(), "no vectors for {op}");
    cases
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    T::try_from(value.as_u64().unwrap()).ok().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

#[test]
fn canonical_forms() {
    for case in cases("key-id-canonical") {
        assert_eq!(
            canonical(text(&case["in"]["text"])),
            text(&case["expect"]["ok"]["canonical"]),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn rules_for_key_ids() {
    for case in cases("key-id-check") {
        let given = text(&case["in"]["text"]);
        let imported = case["in"]["imported"] == true;
        let found = if imported {
            KeyId::imported(given)
        } else {
            KeyId::new(given)
        };
        let outcome = match &found {
            Ok(id) => format!("ok {id}"),
            Err(KeyIdError::Length { .. }) => "key-id-length".to_owned(),
            Err(KeyIdError::Text) => "key-id-text".to_owned(),
            Err(KeyIdError::Segment) => "key-id-segment".to_owned(),
            Err(other) => other.to_string(),
        };
        let expected = match case["expect"]["ok"]["key_id"].as_str() {
            Some(id) => format!("ok {id}"),
            None => text(&case["expect"]["refuse"]["code"]).to_owned(),
        };
        assert_eq!(outcome, expected, "{}", case["name"]);
    }
}

#[test]
fn check_values() {
    for case in cases("check-value") {
        let given = &case["in"];
        let key_id = KeyId::new(text(&given["key_id"])).unwrap();
        let constants = Constants {
            registration_id: text(&given["registration"]).parse().unwrap(),
            cipher: text(&given["cipher"]).into(),
            key_bits: number(&given["bits"]),
            iv: text(&given["iv"]).into(),
        };
        let stores = given["stores"]
            .as_array()
            .unwrap()
            .iter()
            .map(|store| text(store).parse::<StoreId>().unwrap());
        let sharing = Sharing {
            generation: number(&given["generation"]),
            m: number(&given["m"]),
            n: number(&given["n"]),
            stores: stores.collect(),
            check: None,
        };
        let (key, r) = (hex(&given["key"]), hex(&given["r"]));
        let message = check_message(&key_id, &constants, &sharing, &key);
        assert_eq!(*message, hex(&case["expect"]["ok"]["message"]), "{}", case["name"]);
        let value = check_value(&key_id, &constants, &sharing, &key, &r);
        assert_eq!(
            value.to_string(),
            text(&case["expect"]["ok"]["check"]),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn import_ids() {
    for case in cases("import-id") {
        let given = &case["in"];
        let id = import_id(
            text(&given["key_id"]),
            text(&given["iv"]),
            text(&given["cipher"]),
            number(&given["k"]),
        );
        assert_eq!(
            id.to_string(),
            text(&case["expect"]["ok"]["registration"]),
            "{}",
            case["name"]
        );
    }
}
