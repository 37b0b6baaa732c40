//! How a key becomes shares and is proven when it comes back: `key || r`, the check value, the import id.
//!
//! The rules are in `docs/src/formats/check-value.md`.

use aws_lc_rs::{digest, hmac};

use crate::frame::Frame;
use crate::ids::{CheckValue, RegistrationId};
use crate::key_id::KeyId;
use crate::keystore::wire::{Constants, Sharing};

/// Bytes of r, fresh for every sharing.
pub const R_LENGTH: usize = 32;

/// The message under the check value. `sharing.check` is not part of it.
pub fn check_message(
    key_id: &KeyId,
    constants: &Constants,
    sharing: &Sharing,
    key: &[u8],
) -> zeroize::Zeroizing<Vec<u8>> {
    let iv = data_encoding::HEXLOWER
        .decode(constants.iv.as_bytes())
        .unwrap_or_default();
    let frame = Frame::labelled("hydra-key-check-1")
        .text(key_id.as_str())
        .bytes(constants.registration_id.as_bytes())
        .text(&constants.cipher)
        .number(constants.key_bits)
        .bytes(&iv)
        .number(sharing.generation)
        .number(sharing.m.into())
        .number(sharing.n.into());
    let frame = sharing
        .stores
        .iter()
        .fold(frame, |frame, store| frame.text(store.as_str()));
    zeroize::Zeroizing::new(frame.bytes(key).finish())
}

/// HMAC-SHA-256 (RFC 2104) over [`check_message`] under r.
pub fn check_value(key_id: &KeyId, constants: &Constants, sharing: &Sharing, key: &[u8], r: &[u8]) -> CheckValue {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, r),
        &check_message(key_id, constants, sharing, key),
    );
    let mut value = [0; CheckValue::LENGTH];
    value.copy_from_slice(tag.as_ref());
    CheckValue(value)
}

/// The registration id of a key imported from the original: every store finds the same one alone.
///
/// `iv` is the upper-case hex text of the dump (empty for NULL), `k` the number of shares needed.
pub fn import_id(key_id: &str, iv: &str, cipher: &str, k: u32) -> RegistrationId {
    let message = Frame::labelled("hydra-import-1")
        .text(key_id)
        .text(iv)
        .text(cipher)
        .number(k)
        .finish();
    let digest = digest::digest(&digest::SHA256, &message);
    let mut id = [0; RegistrationId::LENGTH];
    id.copy_from_slice(&digest.as_ref()[..RegistrationId::LENGTH]);
    RegistrationId(id)
}
