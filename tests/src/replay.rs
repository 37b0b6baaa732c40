//! What is fuzzed: one function for each kind of bytes that comes from outside.
//!
//! `fuzz/` calls these with inputs that it invents, and an ordinary test with the ones it keeps in `fuzz/corpus`. They
//! return if all is well, and panic if what must always hold does not. This file is compiled into both.

use std::path::Path;

use hydra_core::key_id::KeyId;
use hydra_core::keystore::wire::{self, Answers, Batch};
use hydra_core::permissions::Permissions;

/// A target: its name, which is also that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire_request", wire_request),
    ("wire_answer", wire_answer),
    ("config_toml", config_toml),
    ("services_xml", services_xml),
    ("key_id", key_id),
    ("permissions", permissions),
];

/// The body of a request of any operation: what is read is written back as what reads the same.
pub fn wire_request(data: &[u8]) {
    fn one<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
        if let Ok(batch) = wire::parse_request::<T>(data) {
            let written = serde_json::to_vec(&batch).expect("what was read can be written");
            let again: Batch<T> = wire::parse_request(&written).expect("what we write can be read");
            assert_eq!(serde_json::to_vec(&again).expect("written before"), written);
        }
    }
    one::<wire::Create>(data);
    one::<wire::Confirm>(data);
    one::<wire::OfRegistration>(data);
    one::<wire::Undo>(data);
    one::<wire::Put>(data);
    one::<wire::DropBelow>(data);
    one::<wire::OfKeyId>(data);
    one::<wire::Change>(data);
    one::<wire::List>(data);
}

/// The body of an answer of any operation, as a client reads it.
pub fn wire_answer(data: &[u8]) {
    fn one<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
        if let Ok(answers) = serde_json::from_slice::<Answers<T>>(data) {
            let written = serde_json::to_vec(&answers).expect("what was read can be written");
            serde_json::from_slice::<Answers<T>>(&written).expect("what we write can be read");
        }
    }
    one::<wire::Changed>(data);
    one::<wire::ReadAnswer>(data);
    one::<wire::DescribeAnswer>(data);
    one::<wire::PermissionsAnswer>(data);
    one::<wire::ListAnswer>(data);
    let _ = serde_json::from_slice::<wire::About>(data);
    let _ = serde_json::from_slice::<wire::WhoAmI>(data);
    let _ = serde_json::from_slice::<wire::Problem>(data);
}

/// A client's `config.toml`.
pub fn config_toml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(faults) = hydra_core::config::file::parse(text, Path::new("/etc/eds"))
    {
        assert!(!faults.0.is_empty(), "a refusal says why");
    }
}

/// The original's `services.xml`.
pub fn services_xml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        for wanted in [None, Some("org.glite.KeyStore")] {
            if let Ok(stores) = hydra_core::config::services::parse(text, wanted) {
                assert!(!stores.is_empty() && stores.iter().all(|store| store.url.starts_with("http")));
            }
        }
    }
}

/// A key id: its canonical form is one too, and canonical.
pub fn key_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = KeyId::new(text) {
        assert_eq!(id.as_str(), text);
    }
    let canonical = hydra_core::key_id::canonical(text);
    assert_eq!(hydra_core::key_id::canonical(&canonical), canonical);
}

/// Permissions as eight letters, and as people type them.
pub fn permissions(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(permissions) = text.parse::<Permissions>()
    {
        assert_eq!(permissions.to_string().parse::<Permissions>().ok(), Some(permissions));
    }
}
