//! The secret that new identifiers are made with: a registered key, or a file for tests.

use std::io::Read;
use std::path::PathBuf;

use dicom_deid::{Secret, SecretError};
use eds::session::Session;
use eds::{failure, operands};
use hydra_cli::{Code, Failure};
use hydra_core::keystore::hydra::Purpose;
use zeroize::Zeroizing;

use crate::config::SecretSource;

/// More than any secret has.
const LONGEST: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFailure {
    /// Its file cannot be read.
    #[error("cannot read the secret in `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is none.
    #[error("`{name}` holds no secret")]
    Unfit {
        /// What.
        name: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
}

/// Fetches or reads the secret.
///
/// # Errors
/// Where there is none, or we may not have it.
pub fn secret(session: &Session, source: &SecretSource) -> Result<Secret, Failure> {
    match source {
        SecretSource::File(path) => {
            let unreadable = |source| {
                Failure::new(
                    Code::Config,
                    SecretFailure::Read {
                        path: path.clone(),
                        source,
                    },
                )
            };
            let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(LONGEST).read_to_end(&mut bytes).map_err(unreadable)?;
            fit(path.display().to_string(), &bytes)
        }
        SecretSource::Key(typed) => {
            let key_ids = operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
            let fetched = session.fetch(&key_ids, Purpose::Seal).map_err(failure::fetch)?;
            let key = fetched.suite1().ok_or_else(|| {
                let text = format!("key `{}` is one of the original's ciphers, not of ours", fetched.key_id);
                Failure::new(Code::Config, text)
            })?;
            fit(typed.clone(), key.expose())
        }
    }
}

fn fit(name: String, bytes: &[u8]) -> Result<Secret, Failure> {
    Secret::new(bytes).map_err(|source| Failure::new(Code::Config, SecretFailure::Unfit { name, source }))
}
