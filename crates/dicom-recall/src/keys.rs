//! The keys of one run: each is fetched once, and registered where there is none yet and that is wished for. One that
//! was registered stays, whatever becomes of the run: somebody else may have sealed under it already.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eds::encrypt::{SealingKey, sealing_key_of};
use eds::failure;
use eds::operands::{bad_key_id, new_key_id};
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{
    FetchError, FetchedKey, LocalError, Purpose, RegisterError, RegisterOptions, RepairOptions,
};

/// How long a registration that is somebody else's is waited for that is under way.
const PAUSES_MS: [u64; 5] = [200, 400, 800, 1600, 3200];

/// A key to seal under.
pub struct HeldKey {
    /// The key with the header of its files.
    pub sealing: SealingKey,
    /// What it is called.
    pub key_id: KeyId,
    /// Which registration it is.
    pub registration_id: RegistrationId,
    is_used: AtomicBool,
}

impl HeldKey {
    /// Something is sealed under it for good.
    pub fn mark_used(&self) {
        self.is_used.store(true, Ordering::Release);
    }
}

type Slot = Arc<Mutex<Option<Arc<HeldKey>>>>;

/// The keys of one run.
pub struct Keys {
    session: Arc<Session>,
    voice: Voice,
    may_register: bool,
    held: Mutex<HashMap<String, Slot>>,
}

impl Keys {
    /// None yet; those that are missing are registered.
    pub fn lasting(session: Arc<Session>, voice: Voice) -> Self {
        Self::with(session, voice, true)
    }

    /// None yet; those that are missing stay so.
    pub fn registered(session: Arc<Session>, voice: Voice) -> Self {
        Self::with(session, voice, false)
    }

    fn with(session: Arc<Session>, voice: Voice, may_register: bool) -> Self {
        Self {
            session,
            voice,
            may_register,
            held: Mutex::new(HashMap::new()),
        }
    }

    /// The key of this name. Whoever asks for the same one meanwhile waits for it.
    ///
    /// # Errors
    /// Where it can neither be fetched nor registered; the next one who asks tries again.
    pub fn key(&self, name: &str) -> Result<Arc<HeldKey>, Failure> {
        let slot = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(held.entry(name.to_owned()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*slot {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(self.fetch_or_register(name)?);
        *slot = Some(Arc::clone(&key));
        Ok(key)
    }

    fn fetch_or_register(&self, name: &str) -> Result<HeldKey, Failure> {
        let key_id = new_key_id(name).map_err(|error| bad_key_id(name, error))?;
        let fetched = match self.session.fetch(std::slice::from_ref(&key_id), Purpose::Seal) {
            Err(FetchError::NotFound { .. } | FetchError::Removed { .. }) if self.may_register => {
                return self.register(&key_id);
            }
            other => other.map_err(failure::fetch)?,
        };
        self.held(fetched)
    }

    /// Has a key of this name, and answers whether there was none before. One that is there must be ours to use.
    ///
    /// # Errors
    /// Where there is none that we may use.
    pub fn ensure(&self, name: &str) -> Result<bool, Failure> {
        let registered = self.registered_noted(name, &BTreeSet::new(), |_| Ok(()))?;
        Ok(registered.is_some())
    }

    /// As [`Keys::ensure`], and answers which registration is ours. `note` is told each one before any store is;
    /// `noted` are those that it was told in an earlier run: one of them is ours as if it had been made now, and what
    /// is left of one that was not finished is finished or taken back first.
    ///
    /// # Errors
    /// As for [`Keys::ensure`], and what `note` says.
    pub fn registered_noted(
        &self,
        name: &str,
        noted: &BTreeSet<RegistrationId>,
        note: impl Fn(RegistrationId) -> Result<(), LocalError>,
    ) -> Result<Option<RegistrationId>, Failure> {
        let key_id = new_key_id(name).map_err(|error| bad_key_id(name, error))?;
        let hydra = &self.session.hydra;
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        let mut is_mended = false;
        loop {
            let registered = hydra.register_noted(&key_id, RegisterOptions::default(), &note);
            let error = match self.session.wait(registered) {
                Ok(registered) => return Ok(Some(registered.registration_id)),
                Err(RegisterError::Exists { unfinished: false, .. }) => {
                    let key = self.key(name)?;
                    return Ok(Some(key.registration_id).filter(|id| noted.contains(id)));
                }
                Err(error @ RegisterError::Exists { .. }) => error,
                Err(error) => return Err(failure::register(error)),
            };
            let may_mend = !is_mended && !noted.is_empty();
            if may_mend && self.is_there(&key_id, |id| noted.contains(&id))? == Some(true) {
                is_mended = true;
                let now = RepairOptions {
                    now: true,
                    ..RepairOptions::default()
                };
                let repaired = self.session.wait(hydra.repair(&key_id, now));
                repaired.map_err(failure::repair)?;
                continue;
            }
            // somebody else may be about to finish it
            match pauses.next() {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(failure::register(error)),
            }
        }
    }

    /// Whether some store holds such a registration of a key; none, where those that answer do not, and others are
    /// silent.
    ///
    /// # Errors
    /// What is wrong on this side of the network.
    pub fn is_there(&self, key_id: &KeyId, which: impl Fn(RegistrationId) -> bool) -> Result<Option<bool>, Failure> {
        let status = self.session.wait(self.session.hydra.status(key_id));
        let status = status.map_err(failure::local)?;
        let answered = status.stores.iter().filter_map(|store| store.held.as_ref().ok());
        let mut entries = answered.filter_map(|held| held.entry.as_ref());
        if entries.any(|entry| which(entry.constants.registration_id)) {
            return Ok(Some(true));
        }
        let all = status.stores.iter().all(|store| store.held.is_ok());
        Ok(all.then_some(false))
    }

    fn register(&self, key_id: &KeyId) -> Result<HeldKey, Failure> {
        let session = &self.session;
        match session.wait(session.hydra.register(key_id, RegisterOptions::default())) {
            // somebody else, for example another run for the same study, may have been first
            Ok(_) | Err(RegisterError::Exists { unfinished: false, .. }) => {}
            Err(error) => return Err(failure::register(error)),
        }
        let fetched = session.fetch(std::slice::from_ref(key_id), Purpose::Seal);
        self.held(fetched.map_err(failure::fetch)?)
    }

    fn held(&self, fetched: FetchedKey) -> Result<HeldKey, Failure> {
        let key_id = fetched.key_id.clone();
        let registration_id = fetched.constants.registration_id;
        Ok(HeldKey {
            sealing: sealing_key_of(fetched, self.voice)?,
            key_id,
            registration_id,
            is_used: AtomicBool::new(false),
        })
    }

    /// How many keys something is sealed under.
    pub fn used(&self) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_used = |slot: &&Slot| {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().is_some_and(|key| key.is_used.load(Ordering::Acquire))
        };
        held.values().filter(is_used).count()
    }
}

/// Whether a key that cannot be had means that no other can be had now.
pub fn is_general(failure: &Failure) -> bool {
    matches!(failure.code, Code::TryLater | Code::Config)
}
