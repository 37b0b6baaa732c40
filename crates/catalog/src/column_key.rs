//! The column key: registered in the key stores, fetched at start with the catalogue's own certificate, or read from a
//! file where a site has it otherwise.

use std::path::Path;

use eds::failure;
use eds::session::{Session, SessionError};
use grid_identity::Credential;
use hydra_cli::{Code, Failure};
use hydra_core::config::load::{self, Overrides, Surroundings};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{Purpose, RegisterError, RegisterOptions};
use hydra_core::secret::Key;
use hydra_service::key_file::{self, KeyFileError};
use hydra_service::settings::Tls;

use crate::config::ColumnKeySource;

/// Why there is no column key.
#[derive(Debug, thiserror::Error)]
enum ColumnKeyError {
    #[error("column key {0}")]
    File(KeyFileError),
    #[error("the key `{0}` is none for this: its cipher is of the original's files")]
    Cipher(KeyId),
}

/// Gets it.
///
/// # Errors
/// The stores or the file.
pub(crate) fn fetch(source: &ColumnKeySource, tls: &Tls) -> Result<Key, Failure> {
    match source {
        ColumnKeySource::File(path) => key_file::read(path).map_err(|error| {
            let advice = error.advice();
            let failure = Failure::new(Code::Config, ColumnKeyError::File(error));
            advice.into_iter().fold(failure, Failure::advise)
        }),
        ColumnKeySource::Stores { key_id, eds_config } => {
            let session = session(eds_config, tls)?;
            let fetched = session.wait(session.hydra.fetch(key_id, Purpose::Seal));
            let fetched = fetched.map_err(failure::fetch)?;
            let wrong = || Failure::new(Code::Config, ColumnKeyError::Cipher(key_id.clone()));
            fetched.suite1().ok_or_else(wrong)
        }
    }
}

/// Registers a new column key; none where it is there already.
///
/// # Errors
/// The stores.
pub(crate) fn register(key_id: &KeyId, eds_config: &Path, tls: &Tls) -> Result<Option<RegistrationId>, Failure> {
    let session = session(eds_config, tls)?;
    let registered = session.wait(session.hydra.register(key_id, RegisterOptions::default()));
    match registered {
        Ok(registered) => Ok(Some(registered.registration_id)),
        Err(RegisterError::Exists { .. }) => Ok(None),
        Err(error) => Err(failure::register(error)),
    }
}

/// Takes back a registration that nothing is sealed under.
///
/// # Errors
/// The stores.
pub(crate) fn unregister(
    key_id: &KeyId,
    registration_id: RegistrationId,
    eds_config: &Path,
    tls: &Tls,
) -> Result<(), Failure> {
    let session = session(eds_config, tls)?;
    let removed = session.wait(session.hydra.unregister(key_id, Some(registration_id)));
    removed.map(drop).map_err(failure::remove)
}

/// As the catalogue itself: its host's certificate, whatever the environment says.
fn session(eds_config: &Path, tls: &Tls) -> Result<Session, Failure> {
    let eds_config = eds_config.as_os_str().to_owned();
    let around = Surroundings::with_variables(move |name| match name {
        "EDS_CONFIG" => Some(eds_config.clone()),
        "X509_CERT_DIR" | "X509_VOMS_DIR" => std::env::var_os(name),
        _ => None,
    });
    let config = load::load(&Overrides::default(), &around).map_err(failure::config)?;
    let credential = Credential::from_cert_and_key(&tls.certificate, &tls.key, None);
    let credential = credential.map_err(|error| Failure::new(Code::Config, error))?;
    Session::from_parts(config, &credential).map_err(|error: SessionError| Failure::from(error))
}
