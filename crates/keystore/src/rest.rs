//! Shares at rest: sealed under data keys, which the store key wraps (`docs/src/formats/share-at-rest.md`).

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use hydra_core::frame::Frame;
use hydra_core::ids::{CheckValue, RegistrationId};
use hydra_core::key_id::KeyId;
use hydra_core::secret::{Key, SecretBytes};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const HEAD: usize = 1 + 4 + NONCE_LEN;
const TAG: usize = 16;

/// Why something sealed at rest does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestError {
    /// Too short, or of a later format.
    #[error("not of a format that this version reads")]
    Format,
    /// Its data key is not there.
    #[error("data key {0} is not in the database")]
    DataKey(u32),
    /// Changed, moved from another row, or sealed under another key.
    #[error("damaged, moved from another row, or sealed under another key")]
    Tag,
    /// Sealing failed.
    #[error("cannot seal")]
    Seal,
}

/// Where a share stands: what no row can be moved away from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The key id.
    pub key_id: &'a KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// Of the sharing.
    pub generation: u32,
    /// Of the sharing; none for imported keys.
    pub check: Option<CheckValue>,
    /// Of the share.
    pub index: u8,
}

impl Place<'_> {
    fn associated(&self) -> Vec<u8> {
        Frame::new()
            .text("shares")
            .text(self.key_id.as_str())
            .bytes(self.registration_id.as_bytes())
            .number(self.generation)
            .bytes(self.check.as_ref().map_or(&[][..], |check| check.as_bytes()))
            .number(self.index.into())
            .finish()
    }
}

/// What a data key is bound to when it is wrapped.
fn data_key_associated(id: u32) -> Vec<u8> {
    Frame::new().text("data_keys").number(id).finish()
}

/// Wraps a data key under the store key, as the column of `data_keys` has it.
///
/// # Errors
/// [`RestError::Seal`]
pub fn wrap(store_key: &Key, id: u32, nonce: [u8; NONCE_LEN], data_key: &Key) -> Result<Vec<u8>, RestError> {
    seal(&aead(store_key)?, 0, nonce, &data_key_associated(id), data_key.expose())
}

/// Opens a wrapped data key.
///
/// # Errors
/// [`RestError`]
pub fn unwrap(store_key: &Key, id: u32, column: &[u8]) -> Result<Key, RestError> {
    let opened = open(column, &data_key_associated(id), |used| {
        if used == 0 {
            Ok(aead(store_key)?)
        } else {
            Err(RestError::DataKey(used))
        }
    })?;
    Key::from_slice(&opened).ok_or(RestError::Format)
}

/// The data keys of a store, opened.
pub struct DataKeys {
    keys: BTreeMap<u32, LessSafeKey>,
    pages: LessSafeKey,
    log: hmac::Key,
    heads: hmac::Key,
}

impl DataKeys {
    /// From opened keys; new shares are sealed under the one with the highest id.
    ///
    /// # Errors
    /// [`RestError::Seal`] where a key is not taken.
    pub fn new(store_key: &Key, keys: &BTreeMap<u32, Key>) -> Result<Self, RestError> {
        let opened = keys.iter().map(|(id, key)| Ok((*id, aead(key)?)));
        let base = hmac::Key::new(hmac::HMAC_SHA256, store_key.expose());
        let derived = |label: &str| hmac::sign(&base, label.as_bytes());
        let pages = Key::from_slice(derived("hydra-page-token-1").as_ref()).ok_or(RestError::Seal)?;
        Ok(Self {
            keys: opened.collect::<Result<_, RestError>>()?,
            pages: aead(&pages)?,
            log: hmac::Key::new(hmac::HMAC_SHA256, derived("hydra-log-1").as_ref()),
            heads: hmac::Key::new(hmac::HMAC_SHA256, derived("hydra-audit-head-1").as_ref()),
        })
    }

    /// Seals a share for its place.
    ///
    /// # Errors
    /// [`RestError::Seal`]: no random numbers, or no data key.
    pub fn seal_share(&self, place: &Place<'_>, share: &[u8]) -> Result<Vec<u8>, RestError> {
        let (id, key) = self.keys.last_key_value().ok_or(RestError::Seal)?;
        seal(key, *id, random_nonce()?, &place.associated(), share)
    }

    /// Opens the share of a place.
    ///
    /// # Errors
    /// [`RestError`]
    pub fn open_share(&self, place: &Place<'_>, column: &[u8]) -> Result<SecretBytes, RestError> {
        let opened = open(column, &place.associated(), |id| {
            self.keys.get(&id).ok_or(RestError::DataKey(id))
        })?;
        Ok(SecretBytes::new(opened.to_vec()))
    }

    /// A page token: the key id in it may not be the caller's to know, so it is sealed.
    ///
    /// # Errors
    /// [`RestError::Seal`]
    pub fn page_token(&self, dn: &str, last: &KeyId) -> Result<String, RestError> {
        let sealed = seal(&self.pages, 0, random_nonce()?, dn.as_bytes(), last.as_str().as_bytes())?;
        Ok(data_encoding::BASE64URL_NOPAD.encode(&sealed))
    }

    /// Where the page before ended.
    pub fn open_page_token(&self, dn: &str, token: &str) -> Option<KeyId> {
        let sealed = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let opened = open(&sealed, dn.as_bytes(), |_| Ok(&self.pages)).ok()?;
        KeyId::imported(std::str::from_utf8(&opened).ok()?).ok()
    }

    /// What stands in a log for a key id that may not exist: a log must not become the oracle.
    pub fn key_id_hash(&self, key_id: &KeyId) -> String {
        let tag = hmac::sign(&self.log, key_id.as_str().as_bytes());
        data_encoding::HEXLOWER.encode(&tag.as_ref()[..8])
    }

    /// Signs a head of the audit log.
    pub fn sign_head(&self, message: &[u8]) -> [u8; 32] {
        let mut signature = [0; 32];
        signature.copy_from_slice(hmac::sign(&self.heads, message).as_ref());
        signature
    }

    /// Whether this store signed a head.
    pub fn signed_head(&self, message: &[u8], signature: &[u8; 32]) -> bool {
        hmac::verify(&self.heads, message, signature).is_ok()
    }
}

fn aead(key: &Key) -> Result<LessSafeKey, RestError> {
    let unbound = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| RestError::Seal)?;
    Ok(LessSafeKey::new(unbound))
}

/// A fresh nonce.
///
/// # Errors
/// [`RestError::Seal`]: no random numbers.
pub fn random_nonce() -> Result<[u8; NONCE_LEN], RestError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| RestError::Seal)?;
    Ok(nonce)
}

fn seal(
    key: &LessSafeKey,
    id: u32,
    nonce: [u8; NONCE_LEN],
    associated: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, RestError> {
    let mut column = Vec::with_capacity(HEAD + plain.len() + TAG);
    column.push(FORMAT);
    column.extend_from_slice(&id.to_be_bytes());
    column.extend_from_slice(&nonce);
    column.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut column[HEAD..])
        .map_err(|_| RestError::Seal)?;
    column.extend_from_slice(tag.as_ref());
    Ok(column)
}

fn open<K: std::borrow::Borrow<LessSafeKey>>(
    column: &[u8],
    associated: &[u8],
    key: impl FnOnce(u32) -> Result<K, RestError>,
) -> Result<Zeroizing<Vec<u8>>, RestError> {
    if column.len() < HEAD + TAG || column[0] != FORMAT {
        return Err(RestError::Format);
    }
    let (head, sealed) = column.split_at(HEAD);
    let id = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let nonce = Nonce::try_assume_unique_for_key(&head[5..]).map_err(|_| RestError::Format)?;
    let key = key(id)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length = key
        .borrow()
        .open_in_place(nonce, Aad::from(associated), &mut plain)
        .map_err(|_| RestError::Tag)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn hex(value: &Value) -> Vec<u8> {
        data_encoding::HEXLOWER
            .decode(value.as_str().unwrap().as_bytes())
            .unwrap()
    }

    fn key(value: &Value) -> Key {
        Key::from_slice(&hex(value)).unwrap()
    }

    fn number<T: TryFrom<u64>>(value: &Value) -> T {
        T::try_from(value.as_u64().unwrap()).ok().unwrap()
    }

    fn vectors(operation: &str) -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/formats.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let all = file["vectors"].as_array().unwrap().clone();
        let found: Vec<_> = all.into_iter().filter(|vector| vector["op"] == operation).collect();
        assert!(!found.is_empty());
        found
    }

    fn with_place<T>(input: &Value, then: impl FnOnce(&Place<'_>) -> T) -> T {
        let check = input["check"].as_str().unwrap();
        then(&Place {
            key_id: &KeyId::imported(input["key_id"].as_str().unwrap()).unwrap(),
            registration_id: input["registration"].as_str().unwrap().parse().unwrap(),
            generation: number(&input["generation"]),
            check: (!check.is_empty()).then(|| check.parse().unwrap()),
            index: number(&input["index"]),
        })
    }

    fn code(error: &RestError) -> &'static str {
        match error {
            RestError::Format => "format",
            RestError::DataKey(_) => "data-key",
            RestError::Tag => "tag",
            RestError::Seal => "seal",
        }
    }

    #[test]
    fn shares_seal_as_in_the_vectors() {
        for vector in vectors("rest-seal") {
            let (input, expected) = (&vector["in"], &vector["expect"]["ok"]);
            let data_key = aead(&key(&input["data_key"])).unwrap();
            let nonce = hex(&input["nonce"]).try_into().unwrap();
            let associated = with_place(input, |place| place.associated());
            assert_eq!(associated, hex(&expected["associated"]), "{}", vector["name"]);
            let id = number(&input["data_key_id"]);
            let column = seal(&data_key, id, nonce, &associated, &hex(&input["share"])).unwrap();
            assert_eq!(column, hex(&expected["column"]), "{}", vector["name"]);
        }
    }

    #[test]
    fn shares_open_as_in_the_vectors() {
        for vector in vectors("rest-open") {
            let input = &vector["in"];
            let keys = input["data_keys"].as_object().unwrap().iter();
            let keys: BTreeMap<u32, Key> = keys.map(|(id, value)| (id.parse().unwrap(), key(value))).collect();
            let data_keys = DataKeys::new(&Key::random().unwrap(), &keys).unwrap();
            let opened = with_place(input, |place| data_keys.open_share(place, &hex(&input["column"])));
            match opened {
                Ok(share) => assert_eq!(
                    share.expose(),
                    hex(&vector["expect"]["ok"]["share"]),
                    "{}",
                    vector["name"]
                ),
                Err(error) => assert_eq!(code(&error), vector["expect"]["refuse"]["code"], "{}", vector["name"]),
            }
        }
    }

    #[test]
    fn data_keys_wrap_and_unwrap_as_in_the_vectors() {
        for vector in vectors("wrap") {
            let input = &vector["in"];
            let nonce = hex(&input["nonce"]).try_into().unwrap();
            let id = number(&input["data_key_id"]);
            let column = wrap(&key(&input["store_key"]), id, nonce, &key(&input["data_key"])).unwrap();
            assert_eq!(column, hex(&vector["expect"]["ok"]["column"]));
        }
        for vector in vectors("unwrap") {
            let input = &vector["in"];
            match unwrap(
                &key(&input["store_key"]),
                number(&input["data_key_id"]),
                &hex(&input["column"]),
            ) {
                Ok(key) => assert_eq!(key.expose()[..], hex(&vector["expect"]["ok"]["data_key"])),
                Err(error) => assert_eq!(code(&error), vector["expect"]["refuse"]["code"], "{}", vector["name"]),
            }
        }
    }

    #[test]
    fn a_page_token_opens_only_for_whom_it_was_made() {
        let data_keys = DataKeys::new(&Key::random().unwrap(), &BTreeMap::new()).unwrap();
        let last = KeyId::new("/a/b").unwrap();
        let token = data_keys.page_token("/CN=alice", &last).unwrap();
        assert_eq!(data_keys.open_page_token("/CN=alice", &token), Some(last));
        assert_eq!(data_keys.open_page_token("/CN=bob", &token), None);
        assert_eq!(data_keys.open_page_token("/CN=alice", "x"), None);
    }
}
