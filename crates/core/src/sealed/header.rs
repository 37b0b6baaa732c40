//! The 512 bytes in front of every sealed file: who sealed it under what, in the clear, and the associated data of all
//! that follows. No I/O here. Layout and order of checks: `docs/src/formats/sealed-file.md`.

use crate::ids::RegistrationId;
use crate::key_id::{KeyId, KeyIdError};
use crate::sealed::stream;

/// Bytes of every header, of this and every later version.
pub const LENGTH: usize = 512;

/// A byte that is no text, `EDS`, CR LF, 0x1a, LF: whatever treats the file as text shows here.
pub const MAGIC: [u8; 8] = *b"\x89EDS\r\n\x1a\n";

/// The header version that is written and read.
pub const VERSION: u16 = 1;

/// AES256-GCM-HKDF streaming with SHA-256.
pub const SUITE: u16 = 1;

const KEY_ID_AT: usize = 34;
const CRC_AT: usize = LENGTH - 4;

/// Why bytes are no header, or a header cannot be written. The first reason in the order of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The magic is not there.
    #[error("not a sealed file: it does not begin with the mark of one")]
    NotSealed,
    /// The magic is there, the rest of the header is not.
    #[error("the file ends inside its header, after {bytes} of {LENGTH} bytes")]
    Short {
        /// How many bytes there are.
        bytes: usize,
    },
    /// The checksum does not fit.
    #[error("the header is damaged: its checksum does not fit")]
    Damaged,
    /// Written by another version of the format.
    #[error("header version {found} is unknown here, which reads version {VERSION}")]
    Version {
        /// The version in the header.
        found: u16,
    },
    /// Sealed with other cryptography.
    #[error("suite {found} is unknown here, which reads suite {SUITE}")]
    Suite {
        /// The suite in the header.
        found: u16,
    },
    /// Another segment size.
    #[error(
        "segments of {found} bytes: suite {SUITE} has segments of {} bytes",
        stream::SEGMENT_SIZE
    )]
    SegmentSize {
        /// The segment size in the header.
        found: u32,
    },
    /// The key id is too long.
    #[error("a key id of {bytes} bytes in the header, where {} is the most", KeyId::MAX_BYTES)]
    KeyIdLength {
        /// Its length.
        bytes: usize,
    },
    /// The key id is no text.
    #[error("the key id in the header is not UTF-8 without control characters")]
    KeyIdText,
    /// Bytes that have no meaning yet are not zero.
    #[error("reserved bytes of the header are not zero")]
    Reserved,
    /// The registration id is zero and the key id is not empty, or the other way round.
    #[error("the registration id is zero exactly where there is no key id, and here it is not so")]
    Registration,
}

impl From<KeyIdError> for HeaderError {
    fn from(error: KeyIdError) -> Self {
        match error {
            KeyIdError::Length { bytes } => Self::KeyIdLength { bytes },
            KeyIdError::Text | KeyIdError::Segment => Self::KeyIdText,
        }
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The registration whose key seals the file; [`RegistrationId::ZERO`] exactly where there is no key id.
    pub registration_id: RegistrationId,
    /// The key id as registered; none for a file that is sealed under a key file.
    pub key_id: Option<KeyId>,
}

impl Header {
    /// The header of a file that is sealed under a key file: no key id, the registration id zero.
    pub fn of_key_file() -> Self {
        Self {
            registration_id: RegistrationId::ZERO,
            key_id: None,
        }
    }

    /// The header of a file that is sealed under a registered key.
    pub fn of_registration(key_id: KeyId, registration_id: RegistrationId) -> Self {
        Self {
            registration_id,
            key_id: Some(key_id),
        }
    }

    /// The bytes, as they lie on disk.
    ///
    /// # Errors
    /// [`HeaderError::Registration`] where key id and registration id do not belong together.
    pub fn encode(&self) -> Result<[u8; LENGTH], HeaderError> {
        if self.key_id.is_none() != (self.registration_id == RegistrationId::ZERO) {
            return Err(HeaderError::Registration);
        }
        let key_id = self.key_id.as_ref().map_or("", KeyId::as_str).as_bytes();
        let length = u16::try_from(key_id.len()).map_err(|_| HeaderError::KeyIdLength { bytes: key_id.len() })?;
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[10..12].copy_from_slice(&SUITE.to_be_bytes());
        bytes[12..16].copy_from_slice(&stream::SEGMENT_SIZE.to_be_bytes());
        bytes[16..32].copy_from_slice(self.registration_id.as_bytes());
        bytes[32..KEY_ID_AT].copy_from_slice(&length.to_be_bytes());
        bytes[KEY_ID_AT..KEY_ID_AT + key_id.len()].copy_from_slice(key_id);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        Ok(bytes)
    }

    /// Reads a header from the first bytes of a file; what follows the header does not matter.
    ///
    /// # Errors
    /// The first rule that is broken, in the order of the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(HeaderError::NotSealed);
        }
        let Some(bytes) = bytes.first_chunk::<LENGTH>() else {
            return Err(HeaderError::Short { bytes: bytes.len() });
        };
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let be32 = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if be32(CRC_AT) != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(HeaderError::Damaged);
        }
        match (be16(8), be16(10), be32(12)) {
            (VERSION, SUITE, stream::SEGMENT_SIZE) => {}
            (VERSION, SUITE, found) => return Err(HeaderError::SegmentSize { found }),
            (VERSION, found, _) => return Err(HeaderError::Suite { found }),
            (found, _, _) => return Err(HeaderError::Version { found }),
        }
        let length = usize::from(be16(32));
        if length > KeyId::MAX_BYTES {
            return Err(HeaderError::KeyIdLength { bytes: length });
        }
        let (text, reserved) = bytes[KEY_ID_AT..CRC_AT].split_at(length);
        let text = std::str::from_utf8(text).map_err(|_| HeaderError::KeyIdText)?;
        let key_id = match text {
            "" => None,
            text => Some(KeyId::imported(text)?),
        };
        if reserved.iter().any(|byte| *byte != 0) {
            return Err(HeaderError::Reserved);
        }
        let mut registration_id = RegistrationId::ZERO;
        registration_id.0.copy_from_slice(&bytes[16..32]);
        if key_id.is_none() != (registration_id == RegistrationId::ZERO) {
            return Err(HeaderError::Registration);
        }
        Ok(Self {
            registration_id,
            key_id,
        })
    }
}
