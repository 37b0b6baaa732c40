//! Reproducible sealing: salt and nonce prefix from the data key, the header and the plaintext's length and digest, so
//! that equal input makes an equal file (`docs/src/formats/sealed-file.md`, "Reproducible sealing").

use aws_lc_rs::{digest, hkdf, hmac};
use zeroize::Zeroizing;

use super::header;
use super::stream::{CipherError, StreamHeader};
use crate::secret::Key;

/// Ks: what nobody without the data key can compute, so that the salt tells nothing about the plaintext.
fn synthetic_key(key: &Key) -> Result<Zeroizing<[u8; 32]>, CipherError> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.expose());
    let info: &[&[u8]] = &[b"hydra-eds synthetic salt 1"];
    let mut derived = Zeroizing::new([0; 32]);
    let expanded = extracted.expand(info, hkdf::HKDF_SHA256);
    expanded
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .map_err(|_| CipherError::Library)?;
    Ok(derived)
}

/// Salt and nonce prefix for exactly the bytes that `digest` was taken from; any others would repeat a nonce.
pub(super) fn stream_header(
    key: &Key,
    header: &[u8; header::LENGTH],
    plaintext_bytes: u64,
    digest: &digest::Digest,
) -> Result<StreamHeader, CipherError> {
    let ks = synthetic_key(key)?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, ks.as_slice()));
    context.update(header);
    context.update(&plaintext_bytes.to_be_bytes());
    context.update(digest.as_ref());
    let tag = context.sign();
    let drawn = tag.as_ref().first_chunk().ok_or(CipherError::Library)?;
    Ok(StreamHeader::of(drawn))
}
