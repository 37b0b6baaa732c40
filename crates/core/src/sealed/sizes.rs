//! Plaintext size and file size, each a function of the other alone: `stat` and catalogues need no key.

use super::header;
use super::stream::{BodySizeError, Layout};

/// The size of the sealed file that a plaintext makes.
///
/// # Errors
/// [`BodySizeError::Large`] where the format cannot count its segments (about 256 TiB).
pub fn file_size(plaintext_bytes: u64) -> Result<u64, BodySizeError> {
    let body = Layout::SUITE_1.body_size(plaintext_bytes)?;
    Ok(body + header::LENGTH as u64)
}

/// The size of the plaintext in a sealed file of this size. A file cut at a segment's end has a plausible size: only
/// opening it tells.
///
/// # Errors
/// Where no plaintext makes such a file: it is damaged.
pub fn plaintext_size(file_bytes: u64) -> Result<u64, BodySizeError> {
    Layout::SUITE_1.plaintext_size(file_bytes.saturating_sub(header::LENGTH as u64))
}
