//! What a command needs to talk to the stores: configuration, credential, client, and a runtime that starts only then.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use grid_identity::{Credential, CredentialError};
use hydra_cli::{Code, Failure, secret_input};
use hydra_core::config::ClientConfig;
use hydra_core::config::credential::{self, CredentialFiles, CredentialKind, FindError};
use hydra_core::config::load::{self, ConfigError, Overrides, Surroundings};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchError, FetchedKey, Hydra, LocalError, Purpose};
use tokio::runtime::Runtime;

use crate::args::Stores;
use crate::failure;

/// Why the stores cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No credential anywhere.
    #[error(transparent)]
    NoCredential(#[from] FindError),
    /// A credential that cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A credential whose time is over.
    #[error("credential `{}` of {dn} expired at {at}, {ago} ago", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        dn: String,
        /// When.
        at: String,
        /// How long ago.
        ago: String,
    },
    /// A credential whose time has not come.
    #[error("credential `{}` of {dn} is not valid before {from}", path.display())]
    NotYet {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        dn: String,
        /// From when on.
        from: String,
    },
    /// The client.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The operating system gives no event queue.
    #[error("cannot start the network side")]
    Runtime(#[source] std::io::Error),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        use CredentialError::{NoPassphrase, OldEncryption, WrongPassphrase};
        let new_proxy = "voms-proxy-init (it makes a proxy that needs no passphrase)";
        let advice = match &error {
            SessionError::NoCredential(FindError::None { .. }) | SessionError::Expired { .. } => {
                Some("voms-proxy-init".into())
            }
            SessionError::Credential(NoPassphrase { .. } | OldEncryption { .. } | WrongPassphrase { .. }) => {
                Some(new_proxy.into())
            }
            SessionError::Credential(CredentialError::Exposed { path, .. }) => {
                Some(format!("chmod 600 {}", failure::quoted(&path.to_string_lossy())))
            }
            _ => None,
        };
        let failure = match error {
            SessionError::Config(error) => failure::config(error),
            SessionError::Runtime(_) => Self::new(Code::Failed, error),
            other => Self::new(Code::Config, other),
        };
        advice
            .into_iter()
            .fold(failure, |failure, advice: String| failure.advise(advice))
    }
}

/// A credential with where it came from.
pub struct Found {
    /// What is presented to the stores.
    pub credential: Credential,
    /// Its files.
    pub files: CredentialFiles,
}

/// Configuration, credential and client of one command.
pub struct Session {
    runtime: Runtime,
    /// The client.
    pub hydra: Hydra,
    /// The caller's DN.
    pub dn: String,
}

impl Session {
    /// Opens a session with what options and environment say. The stores are not asked yet.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn open(stores: &Stores) -> Result<Self, SessionError> {
        Self::with(&overrides(stores), &Surroundings::of_process())
    }

    /// Opens a session from given surroundings.
    ///
    /// # Errors
    /// As for [`Session::open`].
    pub fn with(overrides: &Overrides, around: &Surroundings) -> Result<Self, SessionError> {
        let config = load::load(overrides, around)?;
        let found = find_credential(around)?;
        Self::from_parts(config, &found.credential)
    }

    /// Opens a session with configuration and credential at hand.
    ///
    /// # Errors
    /// Where they cannot work together.
    pub fn from_parts(config: ClientConfig, credential: &Credential) -> Result<Self, SessionError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SessionError::Runtime)?;
        let entered = runtime.enter();
        let hydra = Hydra::new(config, credential)?;
        drop(entered);
        Ok(Self {
            runtime,
            hydra,
            dn: credential.dn().to_owned(),
        })
    }

    /// Waits for a verb of the client.
    pub fn wait<F: Future>(&self, verb: F) -> F::Output {
        self.runtime.block_on(verb)
    }

    /// Fetches the key of the first of `key_ids` that the stores know.
    ///
    /// # Errors
    /// As the client's `fetch`, for the first of them.
    pub fn fetch(&self, key_ids: &[KeyId], purpose: Purpose) -> Result<FetchedKey, FetchError> {
        self.wait(fetch_first(&self.hydra, key_ids, purpose))
    }
}

/// Fetches the key of the first of `key_ids` that the stores know: what was typed, else its canonical form.
///
/// # Errors
/// As the client's `fetch`, for the first of them.
pub async fn fetch_first(hydra: &Hydra, key_ids: &[KeyId], purpose: Purpose) -> Result<FetchedKey, FetchError> {
    let mut first = None;
    for key_id in key_ids {
        match hydra.fetch(key_id, purpose).await {
            Err(error @ FetchError::NotFound { .. }) => first = first.or(Some(error)),
            other => return other,
        }
    }
    let nothing_asked = || FetchError::Local(LocalError::Config("no key id was given".into()));
    Err(first.unwrap_or_else(nothing_asked))
}

/// What the command line says about stores.
pub fn overrides(stores: &Stores) -> Overrides {
    Overrides {
        stores: stores.stores.clone(),
        threshold: stores.threshold,
        services_first: false,
    }
}

/// Finds and reads the caller's credential; an encrypted key asks for its passphrase on the terminal.
///
/// # Errors
/// Where there is none, or it cannot be used now.
pub fn find_credential(around: &Surroundings) -> Result<Found, SessionError> {
    let files = credential::find(around)?;
    let ask = |path: &Path| secret_input::passphrase(&format!("Passphrase of {}: ", path.display()));
    let credential = match &files.kind {
        CredentialKind::Proxy(path) => Credential::from_file(path, Some(&|| ask(path)))?,
        CredentialKind::CertAndKey { cert, key } => Credential::from_cert_and_key(cert, key, Some(&|| ask(key)))?,
    };
    in_time(&credential, SystemTime::now())?;
    Ok(Found { credential, files })
}

fn in_time(credential: &Credential, now: SystemTime) -> Result<(), SessionError> {
    let (path, dn) = (credential.source().to_owned(), credential.dn().to_owned());
    if let Some(since) = credential.expired_since(now) {
        let ago = now.duration_since(since).unwrap_or_default();
        return Err(SessionError::Expired {
            path,
            dn,
            at: timestamp(since),
            ago: roughly(ago),
        });
    }
    if now < credential.not_before() {
        return Err(SessionError::NotYet {
            path,
            dn,
            from: timestamp(credential.not_before()),
        });
    }
    Ok(())
}

/// RFC 3339 in UTC, whole seconds.
pub fn timestamp(at: SystemTime) -> String {
    let seconds = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "an unknown time".into(), |at| at.to_string())
}

/// A span of time in the two largest units that say something.
pub fn roughly(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_for_people() {
        assert_eq!(
            timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            "2027-01-15T08:00:00Z"
        );
        let spans = [5, 65, 3700, 90000].map(|seconds| roughly(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
