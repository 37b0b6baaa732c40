//! The body of a sealed file: segment arithmetic, nonces, sealing and opening of one segment. No I/O here.
//!
//! This is Google Tink's AES256-GCM-HKDF streaming with SHA-256 (`docs/src/formats/sealed-file.md`). The segment size
//! is a parameter, so that small vectors can test the arithmetic; files have [`SEGMENT_SIZE`] alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::secret::Key;

/// The one segment size of suite 1, tag included.
pub const SEGMENT_SIZE: u32 = 65_536;

/// Bytes of the authentication tag at the end of every segment.
pub const TAG_LENGTH: usize = 16;

/// Bytes of the stream header, which count as part of segment 0.
pub const STREAM_HEADER_LENGTH: usize = 40;

/// Bytes of the salt in the stream header.
pub const SALT_LENGTH: usize = 32;

/// Bytes of the nonce prefix in the stream header.
pub const NONCE_PREFIX_LENGTH: usize = 7;

/// The smallest body: a stream header and the tag of an empty segment.
pub const SMALLEST_BODY: u64 = (STREAM_HEADER_LENGTH + TAG_LENGTH) as u64;

/// The index of a segment is 32 bits in its nonce.
const MOST_SEGMENTS: u64 = 1 << 32;

/// Why a body cannot have this size, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodySizeError {
    /// No room for the stream header and one tag.
    #[error("{bytes} bytes behind the header, where an empty file has {SMALLEST_BODY}")]
    Short {
        /// How many bytes there are.
        bytes: u64,
    },
    /// The last segment would be empty, or shorter than its tag.
    #[error("the file ends {bytes} bytes into segment {segment}, where no file ends")]
    Segment {
        /// The segment that is cut.
        segment: u64,
        /// How many bytes of it there are.
        bytes: u64,
    },
    /// More segments than nonces.
    #[error("more than {MOST_SEGMENTS} segments")]
    Large,
}

/// Where segments of one size lie, in plaintext and in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    segment_size: u64,
}

impl Layout {
    /// The layout of every sealed file.
    pub const SUITE_1: Self = Self {
        segment_size: SEGMENT_SIZE as u64,
    };

    /// A layout with segments of another size; none where segment 0 would have no room for a byte of plaintext.
    pub const fn new(segment_size: u32) -> Option<Self> {
        if segment_size as u64 <= SMALLEST_BODY {
            return None;
        }
        Some(Self {
            segment_size: segment_size as u64,
        })
    }

    /// Bytes of a full segment, tag included.
    pub const fn segment_size(self) -> u64 {
        self.segment_size
    }

    /// Plaintext bytes of a full segment, other than segment 0, which also holds the stream header.
    pub const fn segment_plaintext(self) -> u64 {
        self.segment_size - TAG_LENGTH as u64
    }

    /// How many segments a plaintext makes; none where there are more than the format can count.
    pub fn segments(self, plaintext_bytes: u64) -> Option<u64> {
        let filled = plaintext_bytes.checked_add(STREAM_HEADER_LENGTH as u64)?;
        let segments = filled.div_ceil(self.segment_plaintext()).max(1);
        (segments <= MOST_SEGMENTS).then_some(segments)
    }

    /// The size of the body that a plaintext makes.
    ///
    /// # Errors
    /// [`BodySizeError::Large`] where there are more segments than the format can count.
    pub fn body_size(self, plaintext_bytes: u64) -> Result<u64, BodySizeError> {
        let segments = self.segments(plaintext_bytes).ok_or(BodySizeError::Large)?;
        let around = STREAM_HEADER_LENGTH as u64 + TAG_LENGTH as u64 * segments;
        plaintext_bytes.checked_add(around).ok_or(BodySizeError::Large)
    }

    /// The size of the plaintext in a body of this size.
    ///
    /// # Errors
    /// Where no plaintext makes such a body.
    pub fn plaintext_size(self, body_bytes: u64) -> Result<u64, BodySizeError> {
        if body_bytes < SMALLEST_BODY {
            return Err(BodySizeError::Short { bytes: body_bytes });
        }
        let segments = body_bytes.div_ceil(self.segment_size);
        if segments > MOST_SEGMENTS {
            return Err(BodySizeError::Large);
        }
        let bytes = body_bytes - (segments - 1) * self.segment_size;
        if segments > 1 && bytes <= TAG_LENGTH as u64 {
            return Err(BodySizeError::Segment {
                segment: segments - 1,
                bytes,
            });
        }
        Ok(body_bytes - STREAM_HEADER_LENGTH as u64 - TAG_LENGTH as u64 * segments)
    }

    /// The segment that holds the plaintext byte at `offset`.
    pub fn segment_of(self, offset: u64) -> u64 {
        offset.saturating_add(STREAM_HEADER_LENGTH as u64) / self.segment_plaintext()
    }

    /// The offset in the plaintext of a segment's first byte.
    pub fn plaintext_start(self, segment: u64) -> u64 {
        (segment * self.segment_plaintext()).saturating_sub(STREAM_HEADER_LENGTH as u64)
    }

    /// The offset in the body of a segment's first byte; that of segment 0 lies behind the stream header.
    pub fn body_start(self, segment: u64) -> u64 {
        match segment {
            0 => STREAM_HEADER_LENGTH as u64,
            segment => segment * self.segment_size,
        }
    }
}

/// The 40 bytes in front of segment 0. Its salt and nonce prefix are used for one plaintext only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// Salt of the file's own key.
    pub salt: [u8; SALT_LENGTH],
    /// The first bytes of every nonce.
    pub nonce_prefix: [u8; NONCE_PREFIX_LENGTH],
}

/// No random numbers, or a cipher that refuses what it should take: nothing that a file can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Library,
}

/// A segment's tag does not fit: damaged, moved, or under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forged;

impl StreamHeader {
    /// Draws salt and nonce prefix.
    ///
    /// # Errors
    /// [`CipherError::Random`] where the system gives no random numbers.
    pub fn random() -> Result<Self, CipherError> {
        let mut drawn = [0; SALT_LENGTH + NONCE_PREFIX_LENGTH];
        getrandom::fill(&mut drawn).map_err(|_| CipherError::Random)?;
        Ok(Self::of(&drawn))
    }

    pub(super) fn of(drawn: &[u8; SALT_LENGTH + NONCE_PREFIX_LENGTH]) -> Self {
        let mut header = Self {
            salt: [0; SALT_LENGTH],
            nonce_prefix: [0; NONCE_PREFIX_LENGTH],
        };
        header.salt.copy_from_slice(&drawn[..SALT_LENGTH]);
        header.nonce_prefix.copy_from_slice(&drawn[SALT_LENGTH..]);
        header
    }

    /// The bytes, as they lie on disk.
    pub fn encode(&self) -> [u8; STREAM_HEADER_LENGTH] {
        let mut bytes = [0; STREAM_HEADER_LENGTH];
        bytes[0] = STREAM_HEADER_LENGTH as u8;
        bytes[1..=SALT_LENGTH].copy_from_slice(&self.salt);
        bytes[1 + SALT_LENGTH..].copy_from_slice(&self.nonce_prefix);
        bytes
    }

    /// Reads the bytes; none where the first one is not their number.
    pub fn decode(bytes: &[u8; STREAM_HEADER_LENGTH]) -> Option<Self> {
        let (length, drawn) = bytes.split_first_chunk::<1>()?;
        (usize::from(length[0]) == STREAM_HEADER_LENGTH)
            .then(|| drawn.first_chunk())?
            .map(Self::of)
    }
}

/// The key of one file, derived from the data key, the salt and the file's header, with the nonces of its segments.
pub struct FileCipher {
    key: LessSafeKey,
    nonce_prefix: [u8; NONCE_PREFIX_LENGTH],
}

impl FileCipher {
    /// Derives it. `associated` is the whole header as it lies on disk.
    ///
    /// # Errors
    /// [`CipherError::Library`], which no input causes.
    pub fn derive(key: &Key, associated: &[u8], stream: &StreamHeader) -> Result<Self, CipherError> {
        let derived = Self::derived_key(key, associated, stream)?;
        let unbound = UnboundKey::new(&AES_256_GCM, derived.as_slice()).map_err(|_| CipherError::Library)?;
        Ok(Self {
            key: LessSafeKey::new(unbound),
            nonce_prefix: stream.nonce_prefix,
        })
    }

    fn derived_key(key: &Key, associated: &[u8], stream: &StreamHeader) -> Result<Zeroizing<[u8; 32]>, CipherError> {
        let mut derived = Zeroizing::new([0; 32]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &stream.salt).extract(key.expose());
        let fill = |info: &[&[u8]], out: &mut [u8; 32]| extracted.expand(info, hkdf::HKDF_SHA256)?.fill(out);
        fill(&[associated], &mut derived).map_err(|_| CipherError::Library)?;
        Ok(derived)
    }

    fn nonce(&self, segment: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..NONCE_PREFIX_LENGTH].copy_from_slice(&self.nonce_prefix);
        nonce[NONCE_PREFIX_LENGTH..NONCE_LEN - 1].copy_from_slice(&segment.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a segment where it lies and answers the tag that goes behind it. Each segment once, or a nonce repeats.
    ///
    /// # Errors
    /// [`CipherError::Library`], which no input causes.
    pub fn seal(&self, segment: u32, last: bool, plaintext: &mut [u8]) -> Result<[u8; TAG_LENGTH], CipherError> {
        let nonce = self.nonce(segment, last);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), plaintext);
        let tag = tag.map_err(|_| CipherError::Library)?;
        tag.as_ref().try_into().map_err(|_| CipherError::Library)
    }

    /// Opens a segment (ciphertext and tag) where it lies and answers its plaintext.
    ///
    /// # Errors
    /// [`Forged`] where the tag does not fit; the bytes are then worthless.
    pub fn open<'a>(&self, segment: u32, last: bool, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        self.key
            .open_in_place(self.nonce(segment, last), Aad::empty(), sealed)
            .map_err(|_| Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_format_document() {
        let layout = Layout::SUITE_1;
        for (plaintext, body) in [
            (0, 56),
            (1, 57),
            (65_480, 65_536),
            (65_481, 65_553),
            (131_000, 131_072),
            (131_001, 131_089),
        ] {
            assert_eq!(layout.body_size(plaintext), Ok(body));
            assert_eq!(layout.plaintext_size(body), Ok(plaintext));
        }
    }

    #[test]
    fn every_size_has_one_body_and_every_other_body_is_refused() {
        let layout = Layout::new(64).unwrap();
        let mut possible = std::collections::BTreeSet::new();
        for plaintext in 0..2000 {
            let body = layout.body_size(plaintext).unwrap();
            assert_eq!(layout.plaintext_size(body), Ok(plaintext));
            possible.insert(body);
        }
        for body in 0..2000 {
            assert_eq!(layout.plaintext_size(body).is_ok(), possible.contains(&body), "{body}");
        }
    }

    #[test]
    fn segments_begin_where_the_one_before_ends() {
        let layout = Layout::new(57).unwrap();
        for offset in 0..500 {
            let segment = layout.segment_of(offset);
            let range = layout.plaintext_start(segment)..layout.plaintext_start(segment + 1);
            assert!(range.contains(&offset), "{offset} in {range:?}");
        }
        assert_eq!(layout.body_start(0), 40);
        assert_eq!(layout.body_start(3), 171);
    }

    #[test]
    fn more_segments_than_nonces_are_refused() {
        let layout = Layout::SUITE_1;
        let most = MOST_SEGMENTS * layout.segment_plaintext() - 40;
        assert_eq!(layout.segments(most), Some(MOST_SEGMENTS));
        assert_eq!(layout.body_size(most), Ok(MOST_SEGMENTS * 65_536));
        assert_eq!(layout.plaintext_size(MOST_SEGMENTS * 65_536), Ok(most));
        assert_eq!(layout.body_size(most + 1), Err(BodySizeError::Large));
        assert_eq!(
            layout.plaintext_size(MOST_SEGMENTS * 65_536 + 17),
            Err(BodySizeError::Large)
        );
        assert_eq!(layout.body_size(u64::MAX), Err(BodySizeError::Large));
        assert_eq!(layout.plaintext_size(u64::MAX), Err(BodySizeError::Large));
        assert!(Layout::new(56).is_none());
    }
}
