//! Where a page of a search ended, as a text that the caller brings back: sealed by the server's key, so that it shows
//! nothing, cannot be made up, and goes on only with the query and for the caller that it was made for
//! (`docs/src/formats/query.md`). The same place always gives the same text.

use aws_lc_rs::{aead, hmac};
use data_encoding::BASE64URL_NOPAD;

use crate::database::Datum;

/// The first byte: the version of what is inside.
const VERSION: u8 = 1;

/// Where a page ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// How many files came up to here, on all pages.
    pub seen: u64,
    /// What the last one had of that which the files are ordered by, in that order.
    pub values: Vec<Datum>,
}

/// A text that is no cursor of this server, or one of another query or caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor does not belong to this search")]
pub struct CursorError;

/// Seals positions, and opens them.
pub struct CursorKey {
    nonces: hmac::Key,
    sealing: aead::LessSafeKey,
}

impl CursorKey {
    /// From a secret of the server.
    pub fn new(secret: &[u8; 32]) -> Option<Self> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |purpose: &[u8]| hmac::sign(&master, purpose);
        let sealing = aead::UnboundKey::new(&aead::AES_256_GCM, derived(b"cursor sealing").as_ref()).ok()?;
        Some(Self {
            nonces: hmac::Key::new(hmac::HMAC_SHA256, derived(b"cursor nonce").as_ref()),
            sealing: aead::LessSafeKey::new(sealing),
        })
    }

    /// The text of a position; `search` is what it goes on with (caller, directory, query), each part by itself.
    pub fn seal(&self, position: &Position, search: &[&str]) -> Option<String> {
        let bound = framed(search);
        let mut bytes = encode(position);
        let nonce = self.nonce(&bound, &bytes);
        let sealed = self.sealing.seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(bound),
            &mut bytes,
        );
        sealed.ok()?;
        Some(BASE64URL_NOPAD.encode(&[&[VERSION], nonce.as_slice(), &bytes].concat()))
    }

    /// The position of a text.
    ///
    /// # Errors
    /// [`CursorError`], whatever is wrong with it.
    pub fn open(&self, text: &str, search: &[&str]) -> Result<Position, CursorError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorError)?;
        let (nonce, sealed) = match bytes.split_first() {
            Some((&VERSION, rest)) => rest.split_first_chunk::<{ aead::NONCE_LEN }>().ok_or(CursorError)?,
            _ => return Err(CursorError),
        };
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let mut sealed = sealed.to_vec();
        let opened = self
            .sealing
            .open_in_place(nonce, aead::Aad::from(framed(search)), &mut sealed);
        decode(opened.map_err(|_| CursorError)?).ok_or(CursorError)
    }

    /// Made from what it seals: two positions never share one, and nothing random makes equal answers differ.
    fn nonce(&self, bound: &[u8], bytes: &[u8]) -> [u8; aead::NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&(bound.len() as u64).to_be_bytes());
        context.update(bound);
        context.update(bytes);
        let mut nonce = [0; aead::NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        nonce
    }
}

fn framed(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        push(&mut bytes, part.as_bytes());
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u64).to_be_bytes());
    bytes.extend(part);
}

fn encode(position: &Position) -> Vec<u8> {
    let mut bytes = position.seen.to_be_bytes().to_vec();
    for value in &position.values {
        match value {
            Datum::Integer(number) => {
                bytes.push(b'i');
                bytes.extend(number.to_be_bytes());
            }
            Datum::Real(number) => {
                bytes.push(b'r');
                bytes.extend(number.to_be_bytes());
            }
            Datum::Text(text) => {
                bytes.push(b't');
                push(&mut bytes, text.as_bytes());
            }
            // Nothing is ordered by the others.
            Datum::Null | Datum::Blob(_) | Datum::Integers(_) | Datum::Texts(_) => bytes.push(b'n'),
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (seen, mut rest) = bytes.split_first_chunk()?;
    let mut values = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        if *kind == b'n' {
            rest = after;
            values.push(Datum::Null);
            continue;
        }
        let (number, after) = after.split_first_chunk()?;
        rest = after;
        values.push(match kind {
            b'i' => Datum::Integer(i64::from_be_bytes(*number)),
            b'r' => Datum::Real(f64::from_be_bytes(*number)),
            b't' => {
                let length = usize::try_from(u64::from_be_bytes(*number)).ok()?;
                let (text, after) = rest.split_at_checked(length)?;
                rest = after;
                Datum::Text(String::from_utf8(text.to_vec()).ok()?)
            }
            _ => return None,
        });
    }
    Some(Position {
        seen: u64::from_be_bytes(*seen),
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: u8) -> CursorKey {
        CursorKey::new(&[secret; 32]).unwrap()
    }

    fn position() -> Position {
        let values = vec![Datum::Null, 7.into(), Datum::Real(-0.5), "Ä 'x".into(), 3.into()];
        Position { seen: 20, values }
    }

    #[test]
    fn it_goes_on_with_its_own_search_alone() {
        let sealer = key(7);
        let search = ["/O=A/CN=a", "/myvo", "rows > 3"];
        let text = sealer.seal(&position(), &search).unwrap();
        assert_eq!(sealer.open(&text, &search), Ok(position()));
        assert_eq!(sealer.seal(&position(), &search).unwrap(), text);
        for other in [
            ["/O=A/CN=b", "/myvo", "rows > 3"],
            ["/O=A/CN=a", "/myvo", "rows > 4"],
            ["/O=A/CN=a/", "myvo", "rows > 3"],
        ] {
            assert_eq!(sealer.open(&text, &other), Err(CursorError));
        }
        assert_eq!(key(8).open(&text, &search), Err(CursorError));
    }

    #[test]
    fn what_was_changed_is_refused() {
        let sealer = key(7);
        let text = sealer.seal(&position(), &["q"]).unwrap();
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert_eq!(sealer.open(&BASE64URL_NOPAD.encode(&changed), &["q"]), Err(CursorError));
            assert_eq!(
                sealer.open(&BASE64URL_NOPAD.encode(&bytes[..index]), &["q"]),
                Err(CursorError)
            );
        }
        for text in ["", "AQ", "not a cursor", "\u{e4}"] {
            assert_eq!(sealer.open(text, &["q"]), Err(CursorError));
        }
    }
}
