//! The identifying half at rest: sealed under keys that come of the column key, and keyed hashes (tokens) by which values
//! are found without being opened (`docs/src/operating-catalogue.md`).
//!
//! The column is format byte (1), nonce (12 bytes), ciphertext and tag (AES-256-GCM); associated data are the catalogue's
//! label and the entry's guid, so that no row can be moved to another entry. What is sealed is JSON, filled up with blanks
//! so that its length says little.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use hydra_core::frame::Frame;
use hydra_core::secret::Key;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::wire::{AttributeDefinition, Part, Type, Value};

const FORMAT: u8 = 1;
const HEAD: usize = 1 + NONCE_LEN;
const TAG: usize = 16;
/// What is sealed is filled up to a multiple of so many bytes.
const GRAIN: usize = 256;
/// Bytes of a token.
const TOKEN: usize = 16;
/// The shortest beginning of a part of a name that finds it, in characters.
pub const MIN_NAME_PREFIX: usize = 3;
/// The longest beginning that is kept; what is longer finds by the whole part.
pub const MAX_NAME_PREFIX: usize = 12;
/// Parts of one name that are kept.
const MAX_NAME_PARTS: usize = 32;

/// Why something sealed does not open, or nothing can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnError {
    /// Too short, of a later format, or no JSON.
    #[error("not of a format that this version reads")]
    Format,
    /// Changed, moved from another row, or sealed under another key.
    #[error("damaged, moved from another row, or sealed under another column key")]
    Tag,
    /// Sealing failed.
    #[error("cannot seal")]
    Seal,
}

/// The identifying half of an entry, opened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Identifying {
    /// Values by the names of their attributes, in lower case.
    #[serde(default)]
    pub attributes: BTreeMap<String, Value>,
    /// Replicas of the scheme `dicom:`.
    #[serde(default)]
    pub replicas: Vec<String>,
}

impl Identifying {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.replicas.is_empty()
    }
}

/// What comes of the column key.
pub struct ColumnKeys {
    seal: LessSafeKey,
    tokens: hmac::Key,
    cursors: hmac::Key,
    heads: hmac::Key,
    log: hmac::Key,
    check: String,
}

impl ColumnKeys {
    /// Of a column key.
    ///
    /// # Errors
    /// [`ColumnError::Seal`] where the key is not taken.
    pub fn new(column_key: &Key) -> Result<Self, ColumnError> {
        let base = hmac::Key::new(hmac::HMAC_SHA256, column_key.expose());
        let derived = |label: &str| hmac::sign(&base, label.as_bytes());
        let keyed = |label: &str| hmac::Key::new(hmac::HMAC_SHA256, derived(label).as_ref());
        let seal = derived("mdm-catalog-seal-1");
        let seal = UnboundKey::new(&AES_256_GCM, seal.as_ref()).map_err(|_| ColumnError::Seal)?;
        Ok(Self {
            seal: LessSafeKey::new(seal),
            tokens: keyed("mdm-catalog-token-1"),
            cursors: keyed("mdm-catalog-cursor-1"),
            heads: keyed("mdm-catalog-audit-head-1"),
            log: keyed("mdm-catalog-log-1"),
            check: hex(&derived("mdm-catalog-check-1").as_ref()[..TOKEN]),
        })
    }

    /// Tells this column key from another, and nothing about it: kept in the database.
    pub fn check(&self) -> &str {
        &self.check
    }

    /// Signs the places where pages of searches begin.
    pub fn cursor_key(&self) -> &hmac::Key {
        &self.cursors
    }

    /// Signs heads of the audit log.
    pub fn head_key(&self) -> &hmac::Key {
        &self.heads
    }

    /// A path that is not there, or not the caller's to know, as the log may have it.
    pub fn log_name(&self, path: &str) -> String {
        format!("#{}", hex(&hmac::sign(&self.log, path.as_bytes()).as_ref()[..TOKEN]))
    }

    /// Seals the identifying half of the entry of that guid; nothing where it is empty.
    ///
    /// # Errors
    /// [`ColumnError::Seal`]
    pub fn seal(&self, guid: &str, half: &Identifying) -> Result<Option<Vec<u8>>, ColumnError> {
        if half.is_empty() {
            return Ok(None);
        }
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| ColumnError::Seal)?;
        let mut text = Zeroizing::new(serde_json::to_vec(half).map_err(|_| ColumnError::Seal)?);
        let filled = text.len().next_multiple_of(GRAIN);
        text.resize(filled, b' ');
        let tag = self
            .seal
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), associated(guid), &mut text)
            .map_err(|_| ColumnError::Seal)?;
        let mut column = Vec::with_capacity(HEAD + text.len() + TAG);
        column.push(FORMAT);
        column.extend_from_slice(&nonce);
        column.extend_from_slice(&text);
        column.extend_from_slice(tag.as_ref());
        Ok(Some(column))
    }

    /// Opens the identifying half of the entry of that guid.
    ///
    /// # Errors
    /// [`ColumnError`]
    pub fn open(&self, guid: &str, column: &[u8]) -> Result<Identifying, ColumnError> {
        if column.len() < HEAD + TAG || column[0] != FORMAT {
            return Err(ColumnError::Format);
        }
        let nonce = Nonce::try_assume_unique_for_key(&column[1..HEAD]).map_err(|_| ColumnError::Format)?;
        let mut text = Zeroizing::new(column[HEAD..].to_vec());
        let opened = self.seal.open_in_place(nonce, associated(guid), &mut text);
        let opened = opened.map_err(|_| ColumnError::Tag)?;
        serde_json::from_slice(opened).map_err(|_| ColumnError::Format)
    }

    /// The token by which an identifying attribute's whole value is found. Person names are compared without regard to
    /// case and to empty components at their end; everything else exactly.
    pub fn exact(&self, definition: &AttributeDefinition, text: &str) -> Vec<u8> {
        let text = if is_person_name(definition) {
            text.trim_end_matches(['^', ' ', '=']).to_lowercase()
        } else {
            text.to_owned()
        };
        self.token(definition, "exact", &text)
    }

    /// The token by which a part of a person's name is found, given whole, in any case.
    pub fn name_part(&self, definition: &AttributeDefinition, part: &str) -> Vec<u8> {
        self.token(definition, "part", &part.to_lowercase())
    }

    /// The token by which a part of a person's name is found that begins with these [`MIN_NAME_PREFIX`] to
    /// [`MAX_NAME_PREFIX`] characters, in any case.
    pub fn name_prefix(&self, definition: &AttributeDefinition, prefix: &str) -> Vec<u8> {
        self.token(definition, "prefix", &prefix.to_lowercase())
    }

    /// The token of every entry that has any value of an identifying attribute.
    pub fn present(&self, definition: &AttributeDefinition) -> Vec<u8> {
        self.token(definition, "present", "")
    }

    /// All tokens of a value.
    pub fn tokens_of(&self, definition: &AttributeDefinition, value: &Value) -> Vec<Vec<u8>> {
        let mut found = vec![self.present(definition)];
        match value {
            Value::Null => return Vec::new(),
            Value::List(items) => found.extend(items.iter().map(|item| self.exact(definition, &token_text(item)))),
            one => found.push(self.exact(definition, &token_text(one))),
        }
        if is_person_name(definition) {
            let text = token_text(value).to_lowercase();
            for part in name_parts(&text).take(MAX_NAME_PARTS) {
                found.push(self.name_part(definition, part));
                for (count, (start, letter)) in part.char_indices().enumerate() {
                    if (MIN_NAME_PREFIX..=MAX_NAME_PREFIX).contains(&(count + 1)) {
                        found.push(self.name_prefix(definition, &part[..start + letter.len_utf8()]));
                    }
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn token(&self, definition: &AttributeDefinition, way: &str, text: &str) -> Vec<u8> {
        let message = Frame::labelled("mdm-catalog-token-1")
            .text(&definition.name.to_lowercase())
            .text(way)
            .text(text)
            .finish();
        hmac::sign(&self.tokens, &message).as_ref()[..TOKEN].to_vec()
    }
}

/// Whether an attribute is found by the parts of its values: it is a person's name.
pub fn is_person_name(definition: &AttributeDefinition) -> bool {
    const KEYWORDS: [&str; 4] = ["PatientName", "PatientBirthName", "PhysicianName", "PersonName"];
    let keyword = definition.dicom.as_deref().unwrap_or_default();
    definition.half == Part::Identifying
        && definition.kind == Type::String
        && (KEYWORDS.iter().any(|known| keyword.ends_with(known))
            || definition.name.to_lowercase().ends_with("person_name"))
}

/// The parts of a person's name: what stands between `^`, `=`, blanks, commas, hyphens and dots.
pub fn name_parts(name: &str) -> impl Iterator<Item = &str> {
    let is_between = |letter: char| letter.is_whitespace() || matches!(letter, '^' | '=' | ',' | '-' | '.' | '\\');
    name.split(is_between).filter(|part| !part.is_empty())
}

/// The text that the token of a value is made of.
pub fn token_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Null | Value::List(_) => String::new(),
    }
}

fn associated(guid: &str) -> Aad<Vec<u8>> {
    Aad::from(Frame::labelled("mdm-catalog-identifying-1").text(guid).finish())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> AttributeDefinition {
        AttributeDefinition {
            name: "Patient_Name".into(),
            kind: Type::String,
            half: Part::Identifying,
            indexed: true,
            dicom: Some("PatientName".into()),
        }
    }

    fn keys() -> ColumnKeys {
        ColumnKeys::new(&Key::from_slice(&[7; 32]).unwrap()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_row_alone() {
        let half = Identifying {
            attributes: BTreeMap::from([("patient_name".into(), Value::Text("Müller^Anna".into()))]),
            replicas: vec!["dicom://X@h:1/1/2/3".into()],
        };
        let keys = keys();
        let column = keys.seal("guid:a", &half).unwrap().unwrap();
        assert_eq!(keys.open("guid:a", &column), Ok(half.clone()));
        assert_eq!(keys.open("guid:b", &column), Err(ColumnError::Tag));
        let other = ColumnKeys::new(&Key::from_slice(&[8; 32]).unwrap()).unwrap();
        assert_eq!(other.open("guid:a", &column), Err(ColumnError::Tag));
        assert_ne!(other.check(), keys.check());
        for cut in [0, 5, column.len() - 1] {
            assert!(keys.open("guid:a", &column[..cut]).is_err());
        }
        assert_eq!(column.len(), HEAD + GRAIN + TAG);
        assert_eq!(keys.seal("guid:a", &Identifying::default()), Ok(None));
    }

    #[test]
    fn names_are_found_whole_by_parts_and_by_their_beginnings() {
        let (keys, definition) = (keys(), name());
        let tokens = keys.tokens_of(&definition, &Value::Text("Mül-Lerner^Anna^^Dr.".into()));
        let has = |token: Vec<u8>| tokens.contains(&token);
        assert!(has(keys.exact(&definition, "mül-lerner^anna^^dr.")));
        assert!(has(keys.name_part(&definition, "LERNER")) && has(keys.name_part(&definition, "dr")));
        assert!(has(keys.name_prefix(&definition, "Ann")) && has(keys.name_prefix(&definition, "mül")));
        assert!(!has(keys.name_prefix(&definition, "an")) && !has(keys.name_part(&definition, "lern")));
        assert!(has(keys.present(&definition)));
        // The same value of another attribute has another token; of no attribute is the token of nothing.
        let id = AttributeDefinition {
            name: "patient_id".into(),
            dicom: Some("PatientID".into()),
            ..name()
        };
        assert_ne!(keys.exact(&id, "x"), keys.exact(&definition, "x"));
        assert_ne!(keys.exact(&id, "x"), keys.exact(&id, "X"));
        assert_eq!(keys.tokens_of(&id, &Value::Text("17".into())).len(), 2);
        assert!(keys.tokens_of(&id, &Value::Null).is_empty());
    }
}
