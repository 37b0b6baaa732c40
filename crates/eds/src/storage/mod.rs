//! Sealed files on storage elements: `eds-put`, `eds-get`, `eds-rm`, and the original's names for them.
//!
//! A file is sealed while it goes out and opened while it comes in, through pipes of bounded size: neither the sealed
//! nor the plain file is ever kept on the way. What a user should know stands in `docs/src/storage.md`.

pub mod args;
pub mod get;
pub mod glite;
pub mod put;
pub mod remove;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use hydra_cli::signals::{OnSignal, on_signal};
use hydra_cli::{Code, Failure};
use hydra_core::config::credential::CredentialKind;
use hydra_core::config::load::{self, Overrides, Surroundings};
use hydra_core::config::{Trust, TrustAnchors};
use hydra_core::https;
use storage_url::{Access, Download, Storage, StorageError, StorageUrl};
use tokio::sync::Notify;

use crate::failure::Because;
use crate::session::{Found, Session, SessionError, find_credential};

/// The key stores and the storage elements, to one of which a command goes beside the other.
pub struct Remote {
    /// The key stores.
    pub session: Session,
    /// The storage elements.
    pub storage: Storage,
    /// The programs that speak to some of them end with this one.
    _on_signal: Option<OnSignal>,
}

impl Remote {
    /// Opens both with what options and environment say. Nothing is asked yet.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn open(overrides: &Overrides, idle: Duration) -> Result<Self, SessionError> {
        let around = Surroundings::of_process();
        let config = load::load(overrides, &around)?;
        let found = find_credential(&around)?;
        let storage = Storage::new(access(&config.trust, &found, idle)?);
        let session = Session::from_parts(config, &found.credential)?;
        Ok(Self {
            session,
            storage,
            _on_signal: on_signal(storage_url::end_programs).ok(),
        })
    }
}

/// What it takes to reach storage elements, which are believed by the same trust anchors as key stores.
///
/// # Errors
/// Trust anchors or a credential that cannot work.
pub fn access(trust: &Trust, found: &Found, idle: Duration) -> Result<Access, SessionError> {
    let mut tls = https::tls_of(&found.credential, trust)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut environment = match &found.files.kind {
        CredentialKind::Proxy(path) => vec![("X509_USER_PROXY", path.clone())],
        CredentialKind::CertAndKey { cert, key } => {
            vec![("X509_USER_CERT", cert.clone()), ("X509_USER_KEY", key.clone())]
        }
    };
    if let TrustAnchors::Directory(path) = &trust.anchors {
        environment.push(("X509_CERT_DIR", path.clone()));
    }
    Ok(Access {
        tls: Some(Arc::new(tls)),
        environment,
        idle,
    })
}

/// Reads an operand that is a storage URL.
///
/// # Errors
/// Wrong usage, with what is wrong with it.
pub fn storage_url(typed: &str) -> Result<StorageUrl, Failure> {
    StorageUrl::parse(typed).map_err(|error| {
        let text = format!("`{}` is no storage URL", without_secrets(typed));
        Failure::new(Code::Usage, Because::new(text, error))
    })
}

/// What is no URL may have a password or a token in it all the same.
fn without_secrets(typed: &str) -> String {
    let shown = typed.split(['?', '#']).next().unwrap_or_default();
    match (shown.find("://"), shown.rfind('@')) {
        (Some(start), Some(end)) if start + 3 <= end => format!("{}…{}", &shown[..start + 3], &shown[end..]),
        _ => shown.to_owned(),
    }
}

/// What went wrong at a storage element.
pub fn failed(error: StorageError) -> Failure {
    use StorageError::{Altered, Exists, NoCredential, NoProgram, Refused, Stopped, Token};
    let advice = match &error {
        Exists { .. } => Some("another URL, or --force to replace it".to_owned()),
        NoProgram { package, .. } => Some(format!("apt-get install {package}")),
        Refused { .. } => Some("eds-whoami, and ask the storage element's site whether you may".to_owned()),
        StorageError::Idle { .. } => Some("--idle-timeout SECONDS, where the file has to come from tape".to_owned()),
        Token { .. } => Some("a token in a file that BEARER_TOKEN_FILE names".to_owned()),
        _ => None,
    };
    let code = match &error {
        Exists { .. } => Code::CannotCreate,
        Refused { .. } => Code::NotAllowed,
        NoProgram { .. } | NoCredential { .. } => Code::Config,
        Altered { .. } => Code::Damaged,
        Token { .. } => Code::Usage,
        Stopped { .. } => Code::Failed,
        _ => Code::Io,
    };
    let failure = Failure::new(code, error);
    advice.into_iter().fold(failure, Failure::advise)
}

/// Reads the first `length` bytes of a download, or all where there are fewer, and what came behind them with it.
pub(crate) async fn first_bytes(download: &mut Download, length: usize) -> Result<Vec<u8>, StorageError> {
    let mut start = Vec::new();
    while start.len() < length {
        let Some(bytes) = download.chunk().await? else { break };
        start.extend_from_slice(&bytes);
    }
    Ok(start)
}

/// While this is held, a signal stops what is being done, waits until it is undone, and only then ends the process.
pub(crate) struct Undoing {
    stop: Arc<Notify>,
    signalled: Arc<AtomicBool>,
    /// Its end lets the process end.
    _done: mpsc::Sender<()>,
    _on_signal: Option<OnSignal>,
}

impl Undoing {
    /// Longer than undoing takes with stores and storage elements that do not answer.
    const LONGEST: Duration = Duration::from_secs(90);

    pub(crate) fn begin() -> Self {
        let stop = Arc::new(Notify::new());
        let signalled = Arc::new(AtomicBool::new(false));
        let (done, undone) = mpsc::channel();
        let action = {
            let (stop, signalled) = (Arc::clone(&stop), Arc::clone(&signalled));
            move || {
                signalled.store(true, Ordering::Release);
                stop.notify_one();
                let _ = undone.recv_timeout(Self::LONGEST);
            }
        };
        Self {
            stop,
            signalled,
            _done: done,
            _on_signal: on_signal(action).ok(),
        }
    }

    /// Notified when it is time to stop.
    pub(crate) fn stop(&self) -> Arc<Notify> {
        Arc::clone(&self.stop)
    }

    /// Ends the process by its signal, where there was one, once the failure is told.
    pub(crate) fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        let was_signalled = self.signalled.load(Ordering::Acquire);
        match result {
            Err(failure) if was_signalled => {
                let text = failure.error.to_string();
                let code = failure.code;
                let _ = hydra_cli::exit(Err(failure));
                drop(self);
                // the signal comes now
                std::thread::sleep(Duration::from_secs(10));
                Err(Failure::new(code, text))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_shown_without_its_secrets() {
        let failure = storage_url("https://me:secret@h/a?token").unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert_eq!(
            failure.lines(),
            [
                "error: `https://…@h/a` is no storage URL",
                "  cause: it has a user or a password in it: the credential says who you are"
            ]
        );
    }

    #[test]
    fn what_a_storage_element_does_has_its_exit_code() {
        let url = || "https://h/a".to_owned();
        let code = |error| failed(error).code;
        assert_eq!(code(StorageError::Exists { url: url() }), Code::CannotCreate);
        assert_eq!(code(StorageError::NotFound { url: url() }), Code::Io);
        assert_eq!(code(StorageError::NoCredential { url: url() }), Code::Config);
        assert_eq!(code(StorageError::Token { url: url() }), Code::Usage);
        assert_eq!(code(StorageError::Stopped { url: url() }), Code::Failed);
    }
}
