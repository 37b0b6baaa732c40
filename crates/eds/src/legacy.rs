//! Keys of the original's ciphers beside ours: which key makes and opens which file.
//!
//! A key is used with the one cipher it was registered for. So a file with our mark opens only with a key of our suite,
//! and one without it only with a key of the original's ciphers (`docs/src/formats/sealed-file.md`, "Files of the
//! original"): were it otherwise, whoever strips a header would turn authentication off.

use std::path::Path;

use hydra_cli::secret_input::{Source, read_all};
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchedKey, RegisterError, RegisterOptions, Registered};
use hydra_core::keystore::wire::CIPHER_EDS1;
use hydra_core::sealed::legacy_cbc::{self, LegacyCipher, LegacyKey, LegacyKeyError, RawInput};
use hydra_core::sealed::{
    self, Input, OpenError, OpenOptions, Opened, Output, Pipe, Report, SealError, SealOptions, SealedInput,
};
use hydra_core::secret::Key;

use crate::encrypt::{SealingKey, sealing_key_of};
use crate::failure::Because;
use crate::session::Session;
use crate::voice::Voice;
use crate::{args, key_file, work};

/// Why no key can be made as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// No such cipher.
    #[error("cipher `{asked}` is unknown here, which knows {}", known())]
    Unknown {
        /// What was asked for.
        asked: String,
    },
    /// No key of that length.
    #[error("`{cipher}` has keys of {} to {} bits in whole bytes, not {bits}",
        .cipher.key_bits().start(), .cipher.key_bits().end())]
    Length {
        /// The cipher.
        cipher: LegacyCipher,
        /// What was asked for.
        bits: u32,
    },
}

fn known() -> String {
    LegacyCipher::all()
        .map(LegacyCipher::name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What key a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The cipher.
    pub cipher: LegacyCipher,
    /// The length of the key.
    pub bits: u32,
    /// Where that is not the length that was asked for: why.
    pub remark: Option<String>,
}

impl NewKey {
    /// Reads cipher and length; none where it is the name of our own suite. A cipher of one length gets a key of that
    /// length, whatever was asked for: scripts for the original do ask for others.
    ///
    /// # Errors
    /// An unknown cipher, or a length that none of its keys has.
    pub fn asked(name: &str, bits: Option<u32>) -> Result<Option<Self>, CipherError> {
        if name.eq_ignore_ascii_case(CIPHER_EDS1) && bits.is_none_or(|bits| bits == 256) {
            return Ok(None);
        }
        let cipher = LegacyCipher::named(name).ok_or_else(|| CipherError::Unknown { asked: name.to_owned() })?;
        let usual = cipher.usual_bits();
        match bits {
            Some(bits) if cipher.is_variable() && cipher.takes(bits) => Ok(Some(Self::plain(cipher, bits))),
            Some(bits) if cipher.is_variable() => Err(CipherError::Length { cipher, bits }),
            Some(bits) if bits != usual => Ok(Some(Self {
                remark: Some(format!(
                    "keys of `{cipher}` have {usual} bits: one of that length is made, not of {bits}"
                )),
                ..Self::plain(cipher, usual)
            })),
            _ => Ok(Some(Self::plain(cipher, usual))),
        }
    }

    fn plain(cipher: LegacyCipher, bits: u32) -> Self {
        Self {
            cipher,
            bits,
            remark: None,
        }
    }

    /// Says where the key will have another length than was asked for.
    pub fn warn_of_length(&self, voice: Voice) {
        if let Some(remark) = &self.remark {
            voice.warning(remark);
        }
    }

    /// Says what there is to be said before such a key is made.
    pub fn warn(&self, voice: Voice) {
        self.warn_of_length(voice);
        voice.warning(&format!("a key for `{}`: {NO_INTEGRITY}", self.cipher));
    }
}

/// Registers a new key: one of our suite, or what is asked for.
///
/// # Errors
/// As the client's `register`.
pub fn register(
    session: &Session,
    key_id: &KeyId,
    new_key: Option<&NewKey>,
    options: RegisterOptions,
) -> Result<Registered, RegisterError> {
    let hydra = &session.hydra;
    match new_key {
        None => session.wait(hydra.register(key_id, options)),
        Some(NewKey { cipher, bits, .. }) => session.wait(hydra.register_legacy(key_id, *cipher, *bits, options)),
    }
}

/// What files are made with.
pub enum Sealer {
    /// A key of our suite, with the header of its files.
    Suite1(SealingKey),
    /// A key of one of the original's ciphers.
    Legacy {
        /// The key.
        key: LegacyKey,
        /// What it is called.
        key_id: KeyId,
        /// Which registration it is.
        registration_id: RegistrationId,
    },
}

impl Sealer {
    /// What a fetched key makes files with. That files will have no integrity is said.
    ///
    /// # Errors
    /// Where its cipher is unknown here.
    pub fn of(fetched: FetchedKey, voice: Voice) -> Result<Self, Failure> {
        let Some(key) = fetched.legacy() else {
            return sealing_key_of(fetched, voice).map(Self::Suite1);
        };
        let key = key.map_err(|error| unusable(fetched.key_id.as_str(), error))?;
        for fault in &fetched.faults {
            tracing::info!(store = fault.store, "{fault}");
        }
        remark(&fetched, voice);
        Ok(Self::Legacy {
            key,
            key_id: fetched.key_id.clone(),
            registration_id: fetched.constants.registration_id,
        })
    }

    /// The key id; none of a key file.
    pub fn key_id(&self) -> Option<&KeyId> {
        match self {
            Self::Suite1(sealing) => sealing.header.key_id.as_ref(),
            Self::Legacy { key_id, .. } => Some(key_id),
        }
    }

    /// The registration; zero of a key file.
    pub fn registration_id(&self) -> RegistrationId {
        match self {
            Self::Suite1(sealing) => sealing.header.registration_id,
            Self::Legacy { registration_id, .. } => *registration_id,
        }
    }

    /// Makes one file.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, input: &Input, output: &Output, options: &SealOptions<'_>) -> Result<Report, SealError> {
        match self {
            Self::Suite1(sealing) => sealed::seal(&sealing.key, &sealing.header, input, output, options),
            Self::Legacy { key, .. } => legacy_cbc::seal(key, input, output, options),
        }
    }

    /// Makes one file that goes into a pipe.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_into(&self, input: &Input, pipe: Pipe, options: &SealOptions<'_>) -> Result<Report, SealError> {
        match self {
            Self::Suite1(sealing) => sealed::seal_into(&sealing.key, &sealing.header, input, pipe, options),
            Self::Legacy { key, .. } => legacy_cbc::seal_into(key, input, pipe, options),
        }
    }

    /// The size of the file that so many bytes are sealed into; none where there is no such size.
    pub fn file_bytes(&self, plaintext_bytes: u64) -> Option<u64> {
        match self {
            Self::Suite1(_) => sealed::sizes::file_size(plaintext_bytes).ok(),
            Self::Legacy { key, .. } => key.cipher().file_bytes(plaintext_bytes),
        }
    }
}

/// What files are opened with.
pub enum Opener {
    /// A key of our suite.
    Suite1(Key),
    /// A key of one of the original's ciphers, and what it is called.
    Legacy(LegacyKey, String),
}

impl Opener {
    /// What a fetched key opens files with.
    ///
    /// # Errors
    /// Where its cipher is unknown here.
    pub fn of(fetched: &FetchedKey) -> Result<Self, Failure> {
        let key_id = fetched.key_id.as_str();
        match fetched.legacy() {
            Some(Ok(key)) => Ok(Self::Legacy(key, key_id.to_owned())),
            Some(Err(error)) => Err(unusable(key_id, error)),
            None => crate::decrypt::suite1(fetched).map(Self::Suite1),
        }
    }

    /// The key in a file, of our suite or, where a cipher is named, of the original's.
    ///
    /// # Errors
    /// Where the file gives no such key.
    pub fn of_key_file(path: &Path, legacy: &args::Legacy, voice: Voice) -> Result<Self, Failure> {
        let (Some(cipher), Some(iv)) = (&legacy.legacy_cipher, &legacy.legacy_iv) else {
            return crate::encrypt::existing_key(path, voice).map(Self::Suite1);
        };
        let longest = LegacyCipher::all().map(|cipher| *cipher.key_bits().end() / 8).max();
        let longest = longest
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or_default();
        let bytes = read_all(&Source::File(path.to_owned()), longest).map_err(|source| {
            work::key_file_failure(key_file::ReadError::Read {
                path: path.to_owned(),
                source,
            })
        })?;
        key_file::warn_if_exposed(path, voice);
        let key = LegacyKey::new(cipher, &bytes, iv).map_err(|error| {
            let (code, option) = match error {
                LegacyKeyError::Cipher { .. } => (Code::Usage, "option --legacy-cipher".to_owned()),
                LegacyKeyError::Iv { .. } => (Code::Usage, "option --legacy-iv".to_owned()),
                _ => (Code::Config, format!("key file `{}`", path.display())),
            };
            Failure::new(code, Because::new(option, error))
        })?;
        voice.warning(NO_INTEGRITY);
        Ok(Self::Legacy(key, path.display().to_string()))
    }

    /// Puts file and key together.
    ///
    /// # Errors
    /// Damage, where they do not belong together.
    pub fn with(&self, opened: Opened) -> Result<Opening<'_>, Failure> {
        match (self, opened) {
            (Self::Suite1(key), Opened::Sealed(input)) => Ok(Opening::Sealed(input, key)),
            (Self::Legacy(key, _), Opened::Raw(input)) => Ok(Opening::Raw(input, key)),
            (Self::Suite1(_), Opened::Raw(input)) => Err(work::open_failure(input.not_sealed())),
            (Self::Legacy(key, name), Opened::Sealed(_)) => Err(work::other_cipher(name, key.cipher().name())),
        }
    }
}

/// A file and a key that belong together.
pub enum Opening<'a> {
    /// Of our format.
    Sealed(Box<SealedInput>, &'a Key),
    /// Of the original's.
    Raw(RawInput, &'a LegacyKey),
}

impl Opening<'_> {
    /// Opens the file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn unseal(self, output: &Output, options: &OpenOptions<'_>) -> Result<Report, OpenError> {
        match self {
            Self::Sealed(input, key) => input.unseal(key, output, options),
            Self::Raw(input, key) => input.unseal(key, output, options),
        }
    }
}

const NO_INTEGRITY: &str = "files of the original have no integrity: damage and changes may go unnoticed";

/// What the user should know about a key of the original.
pub(crate) fn remark(fetched: &FetchedKey, voice: Voice) {
    let (key_id, cipher) = (&fetched.key_id, &fetched.constants.cipher);
    voice.warning(&format!(
        "key `{key_id}` is for the original's `{cipher}`: {NO_INTEGRITY}"
    ));
    if !fetched.verified {
        voice.warning(&format!("key `{key_id}` was imported and has no check value"));
    }
}

fn unusable(key_id: &str, error: LegacyKeyError) -> Failure {
    Failure::new(Code::Failed, Because::new(format!("cannot use key `{key_id}`"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_asked_for_fits_its_cipher_or_is_refused() {
        let asked =
            |name: &str, bits| NewKey::asked(name, bits).map(|key| key.map(|key| (key.cipher.name(), key.bits)));
        for (name, bits, made) in [
            ("bf-cbc", None, ("bf-cbc", 128)),
            ("BLOWFISH", Some(448), ("bf-cbc", 448)),
            ("bf", Some(32), ("bf-cbc", 32)),
            ("cast5-cbc", Some(40), ("cast5-cbc", 40)),
            ("des3", None, ("des-ede3-cbc", 192)),
            ("aes-128-cbc", Some(128), ("aes-128-cbc", 128)),
        ] {
            assert_eq!(asked(name, bits), Ok(Some(made)), "{name} {bits:?}");
        }
        let other = NewKey::asked("aes-256-cbc", Some(128)).unwrap().unwrap();
        assert_eq!((other.bits, other.remark.is_some()), (256, true));
        assert_eq!(asked("eds-1", None), Ok(None));
        for (name, bits) in [
            ("bf-cbc", 24),
            ("bf-cbc", 456),
            ("bf-cbc", 130),
            ("cast5-cbc", 136),
            ("bf-cbc", 0),
        ] {
            assert!(
                matches!(asked(name, Some(bits)), Err(CipherError::Length { .. })),
                "{name} {bits}"
            );
        }
        for name in ["", "aes-256-gcm", "bf-ecb", "idea-cbc", "eds-2"] {
            assert!(matches!(asked(name, None), Err(CipherError::Unknown { .. })), "{name}");
        }
        assert!(asked("eds-1", Some(128)).is_err());
    }
}
