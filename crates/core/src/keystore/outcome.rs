//! What the verbs of a client answer: results, refusals, and each store's part in them.
//!
//! Made by the state machines of [`super::quorum`]; `docs/src/protocol-walkthrough.md` tells when each comes about.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::quorum::Silence;
use crate::keystore::wire::{About, CIPHER_EDS1, Constants, ListedEntry, Sharing, State, Tombstone, WhoAmI};
use crate::permissions::PermissionRecord;
#[cfg(feature = "sealed")]
use crate::sealed::legacy_cbc::{LegacyKey, LegacyKeyError};
use crate::secret::{Key, SecretBytes};

/// How to register.
#[derive(Debug, Clone, Default)]
pub struct RegisterOptions {
    /// max(m+1, floor(n/2)+1) stores suffice.
    pub allow_degraded: bool,
    /// What the key gets; the configuration says the rest.
    #[cfg(feature = "client")]
    pub permissions: crate::config::defaults::NewPermissions,
}

/// A registration that every store (or, degraded, enough of them) confirmed.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The registration id drawn.
    pub registration_id: RegistrationId,
    /// Labels of the stores that hold it.
    pub confirmed: Vec<String>,
    /// Labels of those that do not yet; only with `allow_degraded`.
    pub missing: Vec<String>,
}

/// Why one store was no help; the label names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{store} {reason}")]
pub struct StoreFault {
    /// The store's label.
    pub store: String,
    /// What happened, as a predicate: `gave no answer in 5 s`, `refused the connection`, `has no such key`.
    pub reason: String,
    /// The store does not take the caller's credential: another one is needed, trying later does not help.
    pub credential_refused: bool,
}

impl StoreFault {
    /// A fault that is not the credential's.
    pub fn new(store: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            store: store.into(),
            reason: reason.into(),
            credential_refused: false,
        }
    }

    /// The same of a store that gave no answer.
    pub fn silent(store: impl Into<String>, silence: Silence) -> Self {
        Self {
            store: store.into(),
            reason: silence.reason,
            credential_refused: silence.credential_refused,
        }
    }
}

/// Why a key could not be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another registration holds the key id; ours was undone.
    #[error("key id `{key_id}` is registered already")]
    Exists {
        /// The key id.
        key_id: KeyId,
        /// Some store showed us that it is not confirmed there: a repair finishes it.
        unfinished: bool,
    },
    /// No store's creation rule admits the caller.
    #[error("not allowed to create `{key_id}`")]
    NotAllowed {
        /// The key id.
        key_id: KeyId,
        /// Who said so.
        faults: Vec<StoreFault>,
    },
    /// Stores were missing before the first confirm: nothing is registered.
    #[error("`{key_id}` was not registered: {have} of the {need} stores needed")]
    TooFewStores {
        /// The key id.
        key_id: KeyId,
        /// Stores that were ready.
        have: usize,
        /// Stores needed.
        need: usize,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
        /// Labels of stores where a pending entry may be left: unreadable, `eds-key-repair` clears it.
        left_pending: Vec<String>,
    },
    /// Some stores confirmed, others did not: repair finishes it.
    #[error("`{key_id}` is registered at some stores only: confirmed at {confirmed} of {total}")]
    Unfinished {
        /// The key id.
        key_id: KeyId,
        /// How many confirmed.
        confirmed: usize,
        /// Of how many.
        total: usize,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// What went wrong on this side of the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] crate::ids::IdError),
    /// A configuration that cannot work.
    #[error("{0}")]
    Config(String),
    /// A credential that cannot work.
    #[error("{0}")]
    Credential(String),
    /// Trust anchors that cannot be read.
    #[error("cannot tell which key stores to trust")]
    Trust(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A credential that TLS does not take.
    #[error("cannot present the credential to the key stores")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is to be known after a crash could not be written down before it is done.
    #[error("cannot note a registration before it is made")]
    Note(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a key is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To seal or export: m shares of a confirmed entry. A key without a check value is compared with the shares of all
    /// stores that answer in time, as a wrong one would be noticed only when nobody can open what was sealed.
    Seal,
    /// To open a file that does not say which registration it needs, as those of the original: a confirmed entry.
    OpenUnmarked,
    /// To open a file of exactly this registration: pending shares too.
    Open(RegistrationId),
}

/// A key that passed its check value (but for imported ones).
pub struct FetchedKey {
    /// The key id as the stores have it.
    pub key_id: KeyId,
    /// Registration, cipher, length and iv, all proven by the check value.
    pub constants: Constants,
    /// As many bytes as `constants.key_bits` says.
    pub key: SecretBytes,
    /// Imported keys have no check value.
    pub verified: bool,
    /// Stores whose share was wrong, and others that were no help.
    pub faults: Vec<StoreFault>,
}

impl FetchedKey {
    /// The key of suite 1, where it is one.
    pub fn suite1(&self) -> Option<Key> {
        let fits = self.constants.cipher == CIPHER_EDS1;
        fits.then(|| Key::from_slice(self.key.expose())).flatten()
    }

    /// The key of one of the original's ciphers; none where it is one of suite 1.
    ///
    /// # Errors
    /// Where its cipher is unknown here, or takes no such key.
    #[cfg(feature = "sealed")]
    pub fn legacy(&self) -> Option<Result<LegacyKey, LegacyKeyError>> {
        let Constants { cipher, iv, .. } = &self.constants;
        (cipher != CIPHER_EDS1).then(|| LegacyKey::new(cipher, self.key.expose(), iv))
    }
}

/// Why a key could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Enough stores said that there is no such key, or that it is not for the caller.
    #[error("no key `{key_id}`, or not allowed to use it")]
    NotFound {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// The registration asked for was removed.
    #[error("key `{key_id}` was removed")]
    Removed {
        /// The key id.
        key_id: KeyId,
    },
    /// The stores hold another registration of the key id than the file was sealed under.
    #[error("sealed under an earlier registration of key id `{key_id}`")]
    OtherRegistration {
        /// The key id.
        key_id: KeyId,
        /// What the file says.
        wanted: RegistrationId,
    },
    /// The registration is not confirmed anywhere: not for sealing.
    #[error("registration of `{key_id}` is unfinished")]
    Unfinished {
        /// The key id.
        key_id: KeyId,
    },
    /// Not enough stores answered.
    #[error("cannot read key `{key_id}`: {have} of the {need} shares needed")]
    TooFew {
        /// The key id.
        key_id: KeyId,
        /// Good shares at hand.
        have: usize,
        /// Shares needed.
        need: usize,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// Enough shares, but no choice of them passes the check value.
    #[error("the shares of key `{key_id}` do not join: too many stores gave wrong ones")]
    Check {
        /// The key id.
        key_id: KeyId,
        /// Who gave what.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// Why a key could not be removed at every store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No such key, or not allowed.
    #[error("no key `{key_id}`, or not allowed to remove it")]
    NotFound {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// Removed at some stores; run it again.
    #[error("`{key_id}` was removed at {removed} of {total} stores and is {}", if *.readable { "still readable" } else { "no longer readable" })]
    Incomplete {
        /// The key id.
        key_id: KeyId,
        /// How many stores have the tombstone.
        removed: usize,
        /// Of how many.
        total: usize,
        /// Whether m stores may still hand out shares.
        readable: bool,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// Several registrations were seen under the key id: the caller says which.
    #[error("stores hold different registrations of `{key_id}`")]
    Ambiguous {
        /// The key id.
        key_id: KeyId,
        /// Those seen, each with the labels of its stores.
        registrations: Vec<(RegistrationId, Vec<String>)>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// One store's part of a key's status.
#[derive(Debug)]
pub struct StoreStatus {
    /// Its label.
    pub store: String,
    /// Its id, where it answered.
    pub store_id: Option<StoreId>,
    /// What it holds, or why that is not known.
    pub held: Result<HeldStatus, StoreFault>,
}

/// What one store holds under a key id.
#[derive(Debug, Default)]
pub struct HeldStatus {
    /// The entry, if there is one for the caller.
    pub entry: Option<EntryStatus>,
    /// Removed registrations.
    pub tombstones: Vec<Tombstone>,
}

/// An entry at one store.
#[derive(Debug)]
pub struct EntryStatus {
    /// What never changes.
    pub constants: Constants,
    /// Pending, stopped or confirmed.
    pub state: State,
    /// In quarantine since a restore.
    pub restored: bool,
    /// (generation, m, n, index-independent check as text, state), for each sharing held.
    pub sharings: Vec<(Sharing, State)>,
    /// The record.
    pub permissions: PermissionRecord,
    /// When it came there, RFC 3339.
    pub created: String,
    /// For how long it has been pending.
    pub pending_seconds: Option<u64>,
}

/// What the whole of the answers means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Confirmed at every store of its sharing.
    Registered,
    /// Confirmed at m or more and nowhere pending, but not at all: readable, repair completes it.
    Degraded,
    /// Some store confirmed it, but others have it pending, or fewer than m confirmed it: repair finishes it.
    Unfinished,
    /// Pending everywhere that answered: nobody can have used it.
    Pending,
    /// A tombstone at some store.
    Removed,
    /// No store that answered knows it, or shows it.
    Unknown,
    /// Too few stores answered to say.
    Unclear,
}

/// A key's status, store by store.
#[derive(Debug)]
pub struct KeyStatus {
    /// The key id.
    pub key_id: KeyId,
    /// In the order of the configuration.
    pub stores: Vec<StoreStatus>,
    /// In short.
    pub verdict: Verdict,
}

/// How to repair.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Does not leave a pending registration to whoever began it for a quarter of an hour.
    pub now: bool,
    /// Only tells what would be done: nothing is changed anywhere.
    pub dry_run: bool,
    /// Label of the store whose permission record counts where the stores disagree, whatever the others hold.
    pub over: Option<String>,
}

/// What a repair did, or in a dry run would do.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Store label and what was done there, in order.
    pub done: Vec<(String, String)>,
    /// What could not be done, by store.
    pub faults: Vec<StoreFault>,
    /// Whether every store of the sharing holds it confirmed now, and nothing is wrong at any store.
    pub whole: bool,
    /// Whether nothing is left under the key id: a removal was finished, or a registration that nobody confirmed taken
    /// back.
    pub free: bool,
    /// The key is confirmed, and no m good shares are left: it is lost unless these stores come back, or are opened.
    pub lost: Option<Vec<String>>,
    /// Shares could not be looked at, at some store at least: the caller may not read them.
    pub unchecked: bool,
    /// It was imported and has no check value.
    pub unverified: bool,
}

/// Why nothing could be repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// No such key, or not allowed.
    #[error("no key `{key_id}`, or not allowed to repair it")]
    NotFound {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// No store has confirmed the registration.
    #[error("no store has confirmed the registration of `{key_id}`")]
    NotConfirmed {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// So few stores remember its removal that they may all lie: only its owner can say it again.
    #[error("the removal of `{key_id}` is not finished")]
    HalfRemoved {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// How to reshare.
#[derive(Debug, Clone, Default)]
pub struct ReshareOptions {
    /// How many of the new shares join; as many as before where it is not said.
    pub threshold: Option<u8>,
    /// Labels of stores that get no new share.
    pub leave: Vec<String>,
}

/// A key that every store of the new sharing has, and none has by an earlier one.
#[derive(Debug, Clone)]
pub struct Reshared {
    /// The registration, which stays.
    pub registration_id: RegistrationId,
    /// Of the new sharing.
    pub generation: u32,
    /// How many shares join now.
    pub m: u8,
    /// Labels of the stores that have one.
    pub stores: Vec<String>,
    /// Stores that may still keep a share of an earlier sharing, and are in no new one.
    pub left: Vec<String>,
    /// It had a check value before: a key imported from the original had none.
    pub was_verified: bool,
}

/// Why a key was not reshared, or not everywhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReshareError {
    /// No such key, or not allowed.
    #[error("no key `{key_id}`, or not allowed to reshare it")]
    NotFound {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// Some store remembers its removal.
    #[error("key `{key_id}` is being removed")]
    Removed {
        /// The key id.
        key_id: KeyId,
    },
    /// The shares that the caller got do not join.
    #[error("the shares of `{key_id}` do not join")]
    Unreadable {
        /// The key id.
        key_id: KeyId,
        /// Who said what.
        faults: Vec<StoreFault>,
    },
    /// A store of the new sharing does not answer, or does not have the key as it should be: nothing was changed.
    #[error("`{key_id}` was not reshared: not every store is ready")]
    NotReady {
        /// The key id.
        key_id: KeyId,
        /// What each of the others is.
        faults: Vec<StoreFault>,
    },
    /// No record is held by more than half of the stores, or one has a later one: nothing was changed.
    #[error("`{key_id}` was not reshared: the stores do not agree on its permissions")]
    Permissions {
        /// The key id.
        key_id: KeyId,
    },
    /// A store did not take its new share: what the others took was taken back.
    #[error("`{key_id}` was not reshared: not every store took its new share")]
    Refused {
        /// The key id.
        key_id: KeyId,
        /// Some store says that there is no such key, or that it is not allowed.
        denied: bool,
        /// What each of them said.
        faults: Vec<StoreFault>,
    },
    /// Some stores confirmed the new sharing or dropped the old ones, and others did not: repair goes on.
    #[error("`{key_id}` is reshared at some stores only")]
    Unfinished {
        /// The key id.
        key_id: KeyId,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// One store as `eds-check` sees it.
#[derive(Debug)]
pub struct StoreCheck {
    /// Its label.
    pub store: String,
    /// Its address.
    pub url: String,
    /// What it says of itself and of the caller, or why it says nothing.
    pub answer: Result<(About, WhoAmI), StoreFault>,
    /// How long the answer took.
    pub took: Duration,
}

/// Why the caller's own keys could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// So few stores answered that a key of the caller's may be on none of them.
    #[error("cannot list keys: {have} of the {need} stores needed")]
    TooFew {
        /// Stores that answered.
        have: usize,
        /// Stores needed so that no key is missed.
        need: usize,
        /// What was wrong with the others.
        faults: Vec<StoreFault>,
    },
    /// Before anybody was asked.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Key ids that begin so.
    pub prefix: Option<String>,
    /// Only the caller's own.
    pub owned: bool,
}

/// Keys that some store showed.
#[derive(Debug, Default)]
pub struct Listed {
    /// In byte order.
    pub keys: BTreeSet<KeyId>,
    /// Stores that did not answer.
    pub faults: Vec<StoreFault>,
}

/// One of the caller's own keys, as `list` finds it at any store.
pub type OwnKey = ListedEntry;
