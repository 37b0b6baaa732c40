//! The identifying half at rest: sealed under keys that come of the column key, and keyed hashes (tokens) by which
//! values are found without being opened (`docs/src/operating-catalogue.md`).
//!
//! The column is format byte (1), nonce (12 bytes), ciphertext and tag (AES-256-GCM); associated data are the
//! catalogue's label and the entry's guid, so that no row can be moved to another entry. What is sealed is JSON, filled
//! up with blanks so that its length says little.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use hydra_core::frame::Frame;
use hydra_core::secret::Key;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::engine::values;
use crate::query;
use crate::query::resolve::{MIN_NAME_PART, is_person};
use crate::wire::{AttributeDefinition, Value};

const FORMAT: u8 = 1;
const HEAD: usize = 1 + NONCE_LEN;
const TAG: usize = 16;
/// What is sealed is filled up to a multiple of so many bytes.
const GRAIN: usize = 256;
/// Bytes of a token.
const TOKEN: usize = 16;
/// The longest beginning of a part of a name that is kept, in characters: DICOM's longest component.
const MAX_NAME_PART: usize = 64;
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

    /// What the places where pages of searches begin are sealed with.
    pub(crate) fn cursor_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(hmac::sign(&self.cursors, b"cursors").as_ref());
        secret
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
        let text = if is_person(definition) {
            text.trim_end_matches(['^', ' ', '=']).to_lowercase()
        } else {
            text.to_owned()
        };
        self.token(definition, "exact", &text)
    }

    /// The token by which a part of a person's name is found that begins with these letters, in any case.
    pub fn name_part(&self, definition: &AttributeDefinition, beginning: &str) -> Vec<u8> {
        let kept: String = beginning.chars().take(MAX_NAME_PART).collect();
        self.token(definition, "part", &kept.to_lowercase())
    }

    /// All tokens of a value.
    pub fn tokens_of(&self, definition: &AttributeDefinition, value: &Value) -> Vec<Vec<u8>> {
        let mut found = match value {
            Value::Null => Vec::new(),
            Value::List(items) => items
                .iter()
                .map(|item| self.exact(definition, &token_text(item)))
                .collect(),
            one => vec![self.exact(definition, &token_text(one))],
        };
        if let (true, Value::Text(text)) = (is_person(definition), value) {
            for part in name_parts(text).take(MAX_NAME_PARTS) {
                let ends = part.char_indices().map(|(start, letter)| start + letter.len_utf8());
                for end in ends.take(MAX_NAME_PART).skip(MIN_NAME_PART - 1) {
                    found.push(self.name_part(definition, &part[..end]));
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

/// The parts of a person's name: letters and digits, whatever stands between.
fn name_parts(name: &str) -> impl Iterator<Item = &str> {
    let parts = name.split(|letter: char| !letter.is_alphanumeric());
    parts.filter(|part| !part.is_empty())
}

/// The text that the token of a value is made of, the same as of what is searched for.
fn token_text(value: &Value) -> String {
    query::value::text(&values::datum(value))
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
    use crate::wire::{Part, Type};

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
        assert_eq!(keys.open("guid:a", &column), Ok(half));
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
        assert!(has(keys.name_part(&definition, "LERNER")) && has(keys.name_part(&definition, "lern")));
        assert!(has(keys.name_part(&definition, "Ann")) && has(keys.name_part(&definition, "mül")));
        assert!(!has(keys.name_part(&definition, "an")) && !has(keys.name_part(&definition, "erner")));
        // The same value of another attribute has another token; of no attribute is the token of nothing.
        let id = AttributeDefinition {
            name: "patient_id".into(),
            dicom: Some("PatientID".into()),
            ..name()
        };
        assert_ne!(keys.exact(&id, "x"), keys.exact(&definition, "x"));
        assert_ne!(keys.exact(&id, "x"), keys.exact(&id, "X"));
        assert_eq!(keys.tokens_of(&id, &Value::Text("17".into())).len(), 1);
        assert!(keys.tokens_of(&id, &Value::Null).is_empty());
    }
}
