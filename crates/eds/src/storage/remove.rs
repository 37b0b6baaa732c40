//! `eds-rm`: removes a sealed file and its key.
//!
//! The file goes first and the key after it: whatever fails in between, no file is left that nobody can read. Before
//! either goes the stores are asked about the key, so that nothing begins while the key is out of reach.

use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{KeyStatus, RemoveError, StoreFault, Verdict};
use hydra_core::keystore::wire::{CIPHER_EDS1, Constants};
use serde_json::json;
use storage_url::{StorageError, StorageUrl};

use super::{Remote, args, first_bytes, get, storage_url};
use crate::failure::{self, Because, quoted};
use crate::operands::{bad_key_id, meant_key_ids};
use crate::session::overrides;
use crate::voice::Voice;

/// What is removed.
pub struct Order<'a> {
    /// The file.
    pub url: &'a StorageUrl,
    /// The key's name as it was typed; none: the one in the header, or the path in the URL.
    pub key_id: Option<&'a str>,
    /// Whether the file goes alone.
    pub keep_key: bool,
    /// Whether a file without our mark goes with its key whatever that key is for, not only where it is for one of the
    /// original's ciphers.
    pub unmarked: bool,
}

/// What was removed besides the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// This key.
    Removed(KeyId, RegistrationId),
    /// Nothing: it had been removed before.
    WasRemoved(KeyId),
    /// Nothing: the stores hold another registration of that name.
    OtherRegistration(KeyId),
    /// Nothing: the file was sealed under a key file.
    OfKeyFile,
    /// Nothing, as was asked for.
    Kept,
}

/// Why not all was removed.
#[derive(Debug)]
pub enum RemovalFailure {
    /// Nothing was.
    Nothing(Failure),
    /// The file was, its key was not.
    FileOnly {
        /// The key.
        key_id: KeyId,
        /// Why.
        error: RemoveError,
    },
}

impl From<Failure> for RemovalFailure {
    fn from(failure: Failure) -> Self {
        Self::Nothing(failure)
    }
}

/// `eds-rm`.
///
/// # Errors
/// What went wrong, and what is left.
pub fn remove(args: &args::Remove) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let url = storage_url(&args.url)?;
    let order = Order {
        url: &url,
        key_id: args.key_id.as_deref(),
        keep_key: args.keep_key,
        unmarked: false,
    };
    order.check()?;
    let remote = Remote::open(&overrides(&args.stores), args.patience.idle())?;
    let key = order.carry_out(&remote).map_err(|failure| match failure {
        RemovalFailure::Nothing(failure) => failure,
        RemovalFailure::FileOnly { key_id, error } => {
            let failure = failure::remove(error);
            let text = format!("`{url}` is removed, but its key `{key_id}` is not");
            let unregister = format!("eds-key-unregister {}", quoted(key_id.as_str()));
            let is_advised = failure.advice.iter().any(|line| line.starts_with(&unregister));
            let advice = (!is_advised).then_some(unregister);
            let failure = Failure {
                error: Box::new(Because::new(text, failure.error)),
                ..failure
            };
            advice.into_iter().fold(failure, Failure::advise)
        }
    })?;
    let (line, removed) = match &key {
        Key::Removed(key_id, registration_id) => (
            format!("removed {url} and key {key_id}, registration {registration_id}"),
            Some((key_id, registration_id)),
        ),
        Key::WasRemoved(key_id) => (format!("removed {url}; its key {key_id} had been removed before"), None),
        Key::OtherRegistration(key_id) => (
            format!("removed {url}; key {key_id} is of a later registration and stays"),
            None,
        ),
        Key::OfKeyFile => (format!("removed {url}, which was sealed under a key file"), None),
        Key::Kept => (format!("removed {url}"), None),
    };
    voice.result(&line)?;
    voice.json(&json!({
        "url": url.to_string(),
        "key_id": removed.map(|(key_id, _)| key_id.as_str()),
        "registration_id": removed.map(|(_, registration_id)| registration_id.to_string()),
    }))
}

impl Order<'_> {
    /// What can be told before anybody is asked.
    ///
    /// # Errors
    /// Wrong usage.
    pub fn check(&self) -> Result<(), Failure> {
        let Some(typed) = self.key_id else { return Ok(()) };
        meant_key_ids(typed).map(drop).map_err(|error| bad_key_id(typed, error))
    }

    /// Does it.
    ///
    /// # Errors
    /// What went wrong, and what is left.
    pub fn carry_out(&self, remote: &Remote) -> Result<Key, RemovalFailure> {
        let key = self.key(remote)?;
        let removed = remote.session.wait(remote.storage.remove(self.url));
        removed.map_err(super::failed)?;
        let Key::Removed(key_id, registration_id) = key else {
            return Ok(key);
        };
        let hydra = &remote.session.hydra;
        match remote.session.wait(hydra.unregister(&key_id, Some(registration_id))) {
            Ok(registration_id) => Ok(Key::Removed(key_id, registration_id)),
            Err(error) => Err(RemovalFailure::FileOnly { key_id, error }),
        }
    }

    /// The key that is to go, by the file's header and what the stores say.
    fn key(&self, remote: &Remote) -> Result<Key, Failure> {
        if self.keep_key {
            return Ok(Key::Kept);
        }
        let start = remote.session.wait(async {
            let mut download = remote.storage.get(self.url, 0).await?;
            first_bytes(&mut download, get::START_BYTES).await
        });
        let start = start.map_err(|error| self.not_there(error))?;
        let alone = format!(
            "eds-rm --keep-key {}, to remove the file alone",
            quoted(&self.url.to_string())
        );
        let Some(header) = get::decoded(self.url, &start).map_err(|failure| failure.advise(&alone))? else {
            return self.key_of_unmarked(remote, &alone);
        };
        let key_ids = match (self.key_id, header.key_id) {
            (Some(typed), _) => meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?,
            (None, Some(named)) => vec![named],
            (None, None) => return Ok(Key::OfKeyFile),
        };
        let mut unknown = None;
        for key_id in key_ids {
            let status = remote
                .session
                .wait(remote.session.hydra.status(&key_id))
                .map_err(failure::local)?;
            match removable(&status, header.registration_id) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => unknown = unknown.or(Some(key_id)),
                Err(failure) => return Err(failure),
            }
        }
        let key_id = unknown.as_ref().map_or("", |key_id| key_id.as_str());
        let text = format!(
            "key `{key_id}` of `{}` is not known, or not shown to you; nothing was removed",
            self.url
        );
        Err(Failure::new(Code::NotAllowed, text).advise("eds-whoami").advise(alone))
    }

    /// The key of a file without our mark, if it can have one.
    fn key_of_unmarked(&self, remote: &Remote, alone: &str) -> Result<Key, Failure> {
        let not_sealed = || get::not_sealed(self.url).advise(alone);
        let key_ids = match self.key_id {
            Some(typed) => meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?,
            None => vec![KeyId::new(self.url.name()).map_err(|_| not_sealed())?],
        };
        for key_id in key_ids {
            let hydra = &remote.session.hydra;
            let status = remote.session.wait(hydra.status(&key_id)).map_err(failure::local)?;
            if status.verdict == Verdict::Unclear {
                return Err(unclear(&status));
            }
            match registered(&status)? {
                Some(held) if self.unmarked || held.cipher != CIPHER_EDS1 => {
                    return Ok(Key::Removed(key_id, held.registration_id));
                }
                Some(_) => return Err(not_sealed()),
                None => {}
            }
        }
        Err(not_sealed())
    }

    fn not_there(&self, error: StorageError) -> Failure {
        let is_gone = matches!(error, StorageError::NotFound { .. });
        let failure = super::failed(error);
        match (is_gone, self.key_id) {
            (true, Some(typed)) => {
                failure.advise(format!("eds-key-unregister {}, if only its key is left", quoted(typed)))
            }
            _ => failure,
        }
    }
}

fn unclear(status: &KeyStatus) -> Failure {
    let faults = status.stores.iter().filter_map(|store| store.held.as_ref().err());
    let faults: Vec<StoreFault> = faults.cloned().collect();
    let text = format!(
        "too few stores answered to tell about `{}`; nothing was removed",
        status.key_id
    );
    Failure::new(Code::TryLater, Because::faults(text, &faults)).advise("eds-check")
}

/// What the stores hold of a key; none where no store shows it.
fn registered(status: &KeyStatus) -> Result<Option<&Constants>, Failure> {
    let held = status.stores.iter().filter_map(|store| store.held.as_ref().ok());
    let mut entries = held
        .filter_map(|held| held.entry.as_ref())
        .map(|entry| &entry.constants);
    let first = entries.next();
    if entries.all(|other| Some(other) == first) {
        return Ok(first);
    }
    let text = format!(
        "the stores disagree about what key `{}` is; nothing was removed",
        status.key_id
    );
    let status = format!("eds-key-status {}", quoted(status.key_id.as_str()));
    Err(Failure::new(Code::Failed, text).advise(status))
}

/// What can become of a key: none where no store shows it.
fn removable(status: &KeyStatus, registration_id: RegistrationId) -> Result<Option<Key>, Failure> {
    let key_id = status.key_id.clone();
    let held = || status.stores.iter().filter_map(|store| store.held.as_ref().ok());
    let is_there = held()
        .filter_map(|held| held.entry.as_ref())
        .any(|entry| entry.constants.registration_id == registration_id);
    let was_removed = held()
        .flat_map(|held| &held.tombstones)
        .any(|tombstone| tombstone.registration_id == registration_id);
    match status.verdict {
        Verdict::Unclear => Err(unclear(status)),
        // one that some stores have removed is to be removed at the others too
        _ if is_there => Ok(Some(Key::Removed(key_id, registration_id))),
        Verdict::Unknown => Ok(None),
        _ if was_removed => Ok(Some(Key::WasRemoved(key_id))),
        Verdict::Removed => Ok(Some(Key::WasRemoved(key_id))),
        _ => Ok(Some(Key::OtherRegistration(key_id))),
    }
}
