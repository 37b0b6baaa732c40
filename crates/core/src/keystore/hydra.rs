//! The verbs of a client of n key stores: register, fetch, unregister, status, repair, list, check.
//!
//! Each verb runs a state machine of [`super::quorum`] over the network (`docs/src/protocol-walkthrough.md`); what it
//! answers stands in [`super::outcome`]. Nothing outlives a verb but idle connections, and those go with the [`Hydra`].

mod permissions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use grid_identity::Credential;

use crate::config::ClientConfig;
use crate::https;
use crate::ids::{ChangeId, IdError, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::client::{self, StoreClient};
use crate::keystore::fanout::{self, Network};
pub use crate::keystore::outcome::*;
use crate::keystore::quorum::{
    AskStatus, Dealt, Heard, Message, NewSharing, Place, Read, ReadOptions, Register, Remove, Repair, Reshare, Retire,
    Silence, Stores,
};
use crate::keystore::sharing;
use crate::keystore::wire::{CIPHER_EDS1, Constants, Create, List};
use crate::permissions::PermissionRecord;
use crate::sealed::legacy_cbc::LegacyCipher;
use crate::secret::SecretBytes;

/// How long the speed of a store is remembered.
const SPEED_MEMORY: Duration = Duration::from_secs(60);
/// The longest pauses before a registration that met another one is tried again, in milliseconds.
const LONGEST_PAUSES_MS: [u64; 3] = [200, 400, 800];
/// The most pages of a list that are read from one store.
const MAX_PAGES: usize = 1000;

/// A client of all configured stores. Cheap to keep: connections stay open between verbs.
pub struct Hydra {
    config: ClientConfig,
    caller: CallerNames,
    clients: Vec<StoreClient>,
    stores: Mutex<Stores>,
    speeds: Mutex<Vec<Option<Speed>>>,
}

/// Who registers: the owner and the group of new keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerNames {
    /// DN of the end-entity certificate, slash form.
    pub dn: String,
    /// The first FQAN.
    pub fqan: Option<String>,
}

/// How long a store took lately.
#[derive(Clone, Copy)]
struct Speed {
    took: Duration,
    at: Instant,
}

impl Hydra {
    /// A client of the configured stores that speaks TLS by `tls` and registers as `caller`.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn with_tls(config: ClientConfig, tls: rustls::ClientConfig, caller: CallerNames) -> Result<Self, LocalError> {
        check_config(&config)?;
        let clients = client::clients(&config.stores, config.timeouts, tls)?;
        let names = config.stores.iter().map(|store| (store.name.clone(), store.id.clone()));
        let stores = Mutex::new(Stores::new(names));
        let speeds = Mutex::new(vec![None; config.stores.len()]);
        Ok(Self {
            config,
            caller,
            clients,
            stores,
            speeds,
        })
    }

    /// A client of the configured stores that presents `credential`.
    ///
    /// # Errors
    /// A configuration or a credential that cannot work.
    pub fn new(config: ClientConfig, credential: &Credential) -> Result<Self, LocalError> {
        let tls = https::tls_of(credential, &config.trust)?;
        let caller = CallerNames {
            dn: credential.dn().to_owned(),
            fqan: credential.fqans().first().cloned(),
        };
        Self::with_tls(config, tls, caller)
    }

    /// The configuration.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Registers a fresh 256-bit key of suite 1 under `key_id`.
    ///
    /// # Errors
    /// What [`RegisterError`] tells apart; only [`RegisterError::Unfinished`] leaves something that can be used.
    pub async fn register(&self, key_id: &KeyId, options: RegisterOptions) -> Result<Registered, RegisterError> {
        self.register_fresh(key_id, FreshKey::suite1, options, |_| Ok(())).await
    }

    /// As [`Self::register`]. `note` is told each registration that is drawn before any store hears of it: whoever
    /// keeps it can tell after a crash what was theirs, and remove it. Where it fails nothing is registered.
    ///
    /// # Errors
    /// As [`Self::register`], and what `note` says.
    pub async fn register_noted(
        &self,
        key_id: &KeyId,
        options: RegisterOptions,
        note: impl Fn(RegistrationId) -> Result<(), LocalError>,
    ) -> Result<Registered, RegisterError> {
        self.register_fresh(key_id, FreshKey::suite1, options, note).await
    }

    /// Registers a fresh key of `bits` bits for one of the original's ciphers, whose files have no integrity.
    ///
    /// # Errors
    /// As [`Self::register`], and where the cipher takes no key of such a length.
    pub async fn register_legacy(
        &self,
        key_id: &KeyId,
        cipher: LegacyCipher,
        bits: u32,
        options: RegisterOptions,
    ) -> Result<Registered, RegisterError> {
        if !cipher.takes(bits) {
            let text = format!("a key of {bits} bits is none for `{cipher}`");
            return Err(LocalError::Config(text).into());
        }
        self.register_fresh(key_id, || FreshKey::legacy(cipher, bits), options, |_| Ok(()))
            .await
    }

    async fn register_fresh(
        &self,
        key_id: &KeyId,
        fresh: impl Fn() -> Result<FreshKey, IdError>,
        options: RegisterOptions,
        note: impl Fn(RegistrationId) -> Result<(), LocalError>,
    ) -> Result<Registered, RegisterError> {
        let pauses = random_pauses()?;
        let m = self.config.threshold;
        let said = options.permissions.or(self.config.defaults.for_key(key_id));
        let record = said.record(
            &self.caller.dn,
            self.caller.fqan.as_deref(),
            ChangeId::random().map_err(LocalError::from)?,
        );
        let deal = |ids: &[StoreId]| {
            let dealt = deal(key_id, m, ids, &record, fresh()?)?;
            note(dealt.registration_id)?;
            Ok(dealt)
        };
        let total = self.config.timeouts.total;
        let mut machine =
            Register::new(self.names(), total, key_id.clone(), m, options.allow_degraded, deal).try_again_after(pauses);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// Fetches the key of `key_id` for `purpose`, checked.
    ///
    /// # Errors
    /// What [`FetchError`] tells apart.
    pub async fn fetch(&self, key_id: &KeyId, purpose: Purpose) -> Result<FetchedKey, FetchError> {
        let order = self.order().map_err(LocalError::from)?;
        let options = ReadOptions {
            purpose,
            threshold: self.config.threshold,
            min_threshold: self.config.min_threshold,
            order,
            hedge: self.config.timeouts.hedge,
        };
        let mut machine = Read::new(self.names(), self.config.timeouts.total, key_id.clone(), options);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// Removes `registration` of `key_id` from all stores; without one, the only one that there is.
    ///
    /// # Errors
    /// What [`RemoveError`] tells apart. Removing again what was removed in part finishes it.
    pub async fn unregister(
        &self,
        key_id: &KeyId,
        registration: Option<RegistrationId>,
    ) -> Result<RegistrationId, RemoveError> {
        let total = self.config.timeouts.total;
        let mut machine = Remove::new(self.names(), total, key_id.clone(), registration, self.config.threshold);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// What each store holds under `key_id`.
    ///
    /// # Errors
    /// None today; stores that do not answer are told in the status.
    pub async fn status(&self, key_id: &KeyId) -> Result<KeyStatus, LocalError> {
        let total = self.config.timeouts.total;
        let mut machine = AskStatus::new(self.names(), total, key_id.clone(), self.config.threshold);
        let status = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        Ok(status)
    }

    /// Makes a key whole: finishes what a client left half-done or takes it back, and brings stores that lost something
    /// or have it from an old backup up to date.
    ///
    /// # Errors
    /// What [`RepairError`] tells apart.
    pub async fn repair(&self, key_id: &KeyId, options: RepairOptions) -> Result<RepairReport, RepairError> {
        if let Some(over) = &options.over {
            self.place_named(over)?;
        }
        let (total, least) = (self.config.timeouts.total, self.config.min_threshold);
        let mut machine = Repair::new(self.names(), total, key_id.clone(), least, options);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// Splits the key anew over all configured stores but those that leave, and drops the old shares.
    ///
    /// # Errors
    /// What [`ReshareError`] tells apart; only [`ReshareError::Unfinished`] has changed something, which a repair goes
    /// on with.
    pub async fn reshare(&self, key_id: &KeyId, options: ReshareOptions) -> Result<Reshared, ReshareError> {
        for leaver in &options.leave {
            self.place_named(leaver)?;
        }
        let (total, least) = (self.config.timeouts.total, self.config.min_threshold);
        let deal = |new: &NewSharing<'_>| {
            let key = new.key.expose();
            let split = sharing::split(key_id, new.constants, new.generation, new.m, new.stores, key);
            split.map_err(split_error)
        };
        let mut machine = Reshare::new(self.names(), total, key_id.clone(), least, options, deal);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// Deletes what a store that left keeps of a key, once the stores of its sharing have it all.
    ///
    /// # Errors
    /// What [`ReshareError`] tells apart; nothing has changed then.
    pub async fn retire(&self, key_id: &KeyId, store: &str) -> Result<RegistrationId, ReshareError> {
        let place = self.place_named(store)?;
        let (total, least) = (self.config.timeouts.total, self.config.min_threshold);
        let mut machine = Retire::new(self.names(), total, key_id.clone(), least, place);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }

    /// The caller's own keys whose id ends in `last_component`, in byte order of key id; all stores are asked.
    ///
    /// A key counts where as many stores as join one (`min_threshold`) call it the caller's: fewer may lie, to make a
    /// key that somebody else planted look like an own one.
    ///
    /// # Errors
    /// So few answers that a key may be missed.
    pub async fn list_own(&self, last_component: &str) -> Result<Vec<OwnKey>, ListError> {
        let list = List {
            last_component: Some(last_component.to_owned()),
            owned_by_me: true,
            ..List::default()
        };
        let lists = join_all(self.clients.iter().map(|store| list_all(store, list.clone()))).await;
        let n = lists.len();
        let votes = usize::from(self.config.min_threshold.max(1)).min(n);
        let need = votes.max(n + 1 - votes);
        let mut told = Vec::new();
        let mut faults = Vec::new();
        for (place, list) in lists.into_iter().enumerate() {
            match list {
                Ok(entries) => told.push(entries),
                Err(silence) => faults.push(StoreFault::silent(&self.config.stores[place].name, silence)),
            }
        }
        let have = told.len();
        if have < need {
            return Err(ListError::TooFew { have, need, faults });
        }
        Ok(vouched_for(told, votes, &self.caller.dn, last_component))
    }

    /// All keys that some store shows to the caller, in byte order of key id: to repair them, so one store's word is
    /// enough.
    ///
    /// # Errors
    /// Where no store answered; those that did not, where others did, stand beside the keys.
    pub async fn list(&self, which: &Which) -> Result<Listed, ListError> {
        let list = List {
            prefix: which.prefix.clone(),
            owned_by_me: which.owned,
            ..List::default()
        };
        let lists = join_all(self.clients.iter().map(|store| list_all(store, list.clone()))).await;
        let mut listed = Listed::default();
        let mut answered = 0;
        for (place, list) in lists.into_iter().enumerate() {
            match list {
                Ok(entries) => {
                    answered += 1;
                    let begins = |entry: &OwnKey| {
                        let prefix = which.prefix.as_deref().unwrap_or_default();
                        entry.key_id.as_str().starts_with(prefix)
                    };
                    listed
                        .keys
                        .extend(entries.into_iter().filter(begins).map(|entry| entry.key_id));
                }
                Err(silence) => {
                    let name = &self.config.stores[place].name;
                    listed.faults.push(StoreFault::silent(name, silence));
                }
            }
        }
        if answered == 0 {
            let faults = listed.faults;
            return Err(ListError::TooFew {
                have: 0,
                need: 1,
                faults,
            });
        }
        Ok(listed)
    }

    /// Asks each store who it is and whom it sees.
    pub async fn check(&self) -> Vec<StoreCheck> {
        let checks = self
            .config
            .stores
            .iter()
            .zip(&self.clients)
            .map(async |(endpoint, client)| {
                let began = Instant::now();
                let answers = futures_util::future::try_join(client.about(), client.whoami()).await;
                let took = began.elapsed();
                let answer = match answers {
                    Err(silence) => Err(StoreFault::silent(&endpoint.name, silence)),
                    Ok((about, _)) if endpoint.id.as_ref().is_some_and(|pinned| *pinned != about.store) => {
                        let pinned = endpoint.id.as_ref().map_or("", StoreId::as_str);
                        let reason = format!("claims the id `{}`, but `{pinned}` is pinned", about.store);
                        Err(StoreFault::new(&endpoint.name, reason))
                    }
                    Ok(answers) => Ok(answers),
                };
                StoreCheck {
                    store: endpoint.name.clone(),
                    url: endpoint.url.clone(),
                    answer,
                    took,
                }
            });
        let mut checks = join_all(checks).await;
        name_twins(&mut checks, &self.config);
        checks
    }

    fn place_named(&self, name: &str) -> Result<Place, LocalError> {
        let named = self.config.stores.iter().position(|store| store.name == name);
        named.ok_or_else(|| LocalError::Config(format!("no configured store is named `{name}`")))
    }

    fn names(&self) -> Stores {
        lock(&self.stores).clone()
    }

    fn learn(&self, stores: &Stores) {
        lock(&self.stores).learn(stores);
    }

    /// Stores in random order; those that answered lately go first, the quickest before the others.
    fn order(&self) -> Result<Vec<Place>, IdError> {
        let mut order: Vec<Place> = (0..self.clients.len()).collect();
        for last in (1..order.len()).rev() {
            let span = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            order.swap(last, usize::try_from(random_below(span)?).unwrap_or(last));
        }
        let speeds = lock(&self.speeds);
        let fresh = |place: &Place| speeds[*place].filter(|speed| speed.at.elapsed() < SPEED_MEMORY);
        order.sort_by_key(|place| fresh(place).map_or(Duration::MAX, |speed| speed.took));
        Ok(order)
    }

    fn remember(&self, place: Place, took: Duration, answered: bool) {
        let mut speeds = lock(&self.speeds);
        let at = Instant::now();
        // A store that failed comes after all that did not, until that is forgotten.
        let took = if answered { took } else { self.config.timeouts.total };
        let before = speeds[place].filter(|speed| answered && speed.took < self.config.timeouts.total);
        let took = before.map_or(took, |before| (before.took * 3 + took) / 4);
        speeds[place] = Some(Speed { took, at });
    }
}

impl Network for Hydra {
    async fn ask(&self, place: Place, message: Message) -> Result<Heard, Silence> {
        let Some(client) = self.clients.get(place) else {
            return Err(Silence::new("is not configured"));
        };
        let began = Instant::now();
        let result = client.ask(&message).await;
        self.remember(place, began.elapsed(), result.is_ok());
        match &result {
            Ok(_) => tracing::debug!(store = self.config.stores[place].name, "answered"),
            Err(silence) => {
                tracing::debug!(
                    store = self.config.stores[place].name,
                    reason = silence.reason,
                    "gave no answer"
                );
            }
        }
        result
    }
}

/// All that can be wrong with a configuration before anybody is asked.
fn check_config(config: &ClientConfig) -> Result<(), LocalError> {
    let n = config.stores.len();
    let fault = |text: String| Err(LocalError::Config(text));
    if n == 0 {
        return fault("no key store is configured".to_owned());
    }
    if config.threshold == 0 || usize::from(config.threshold) > n || n > 255 {
        return fault(format!(
            "a threshold of {} does not fit {n} stores: it is from 1 to their number, and they are 255 at most",
            config.threshold
        ));
    }
    if config.min_threshold > config.threshold {
        return fault(format!(
            "the threshold of {} is below the minimum threshold of {}",
            config.threshold, config.min_threshold
        ));
    }
    for (place, store) in config.stores.iter().enumerate() {
        let before = &config.stores[..place];
        if let Some(id) = store
            .id
            .as_ref()
            .filter(|id| before.iter().any(|other| other.id.as_ref() == Some(id)))
        {
            return fault(format!("two stores are pinned to the id `{id}`"));
        }
        if before.iter().any(|other| other.url == store.url) {
            return fault(format!("the store {} is configured twice", store.url));
        }
    }
    Ok(())
}

/// A key just drawn, with what a registration says about it.
struct FreshKey {
    key: SecretBytes,
    cipher: &'static str,
    bits: u32,
    iv: String,
}

impl FreshKey {
    fn suite1() -> Result<Self, IdError> {
        let cipher = CIPHER_EDS1;
        let (bits, iv) = (256, String::new());
        let key = drawn(32)?;
        Ok(Self { key, cipher, bits, iv })
    }

    fn legacy(cipher: LegacyCipher, bits: u32) -> Result<Self, IdError> {
        Ok(Self {
            key: drawn(usize::try_from(bits / 8).unwrap_or_default())?,
            cipher: cipher.name(),
            bits,
            iv: data_encoding::HEXLOWER.encode(drawn(cipher.block_bytes())?.expose()),
        })
    }
}

fn drawn(length: usize) -> Result<SecretBytes, IdError> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(|_| IdError::Random)?;
    Ok(SecretBytes::new(bytes))
}

/// Draws a registration and splits the key over the stores.
fn deal(
    key_id: &KeyId,
    m: u8,
    stores: &[StoreId],
    permissions: &PermissionRecord,
    fresh: FreshKey,
) -> Result<Dealt, LocalError> {
    let FreshKey { key, cipher, bits, iv } = fresh;
    let constants = Constants {
        registration_id: RegistrationId::random()?,
        cipher: cipher.to_owned(),
        key_bits: bits,
        iv,
    };
    let split = sharing::split(key_id, &constants, 1, m, stores, key.expose()).map_err(split_error)?;
    let create = |share| Create {
        key_id: key_id.clone(),
        registration_id: constants.registration_id,
        cipher: constants.cipher.clone(),
        key_bits: constants.key_bits,
        iv: constants.iv.clone(),
        sharing: split.sharing.clone(),
        share,
        permissions: permissions.clone(),
    };
    Ok(Dealt {
        registration_id: constants.registration_id,
        creates: split.shares.into_iter().map(create).collect(),
        sharing: split.sharing,
    })
}

fn split_error(error: sharing::SplitError) -> LocalError {
    match error {
        sharing::SplitError::Random(_) => LocalError::Random(IdError::Random),
        other => LocalError::Config(other.to_string()),
    }
}

async fn list_all(store: &StoreClient, mut list: List) -> Result<Vec<OwnKey>, Silence> {
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = store.list(&list).await?;
        found.extend(page.entries);
        list.page_token = page.next_page_token;
        if list.page_token.is_none() {
            return Ok(found);
        }
    }
    Err(Silence::new(format!("lists more than {MAX_PAGES} pages")))
}

/// The keys of `owner` that at least `votes` stores tell of, in byte order of key id.
fn vouched_for(told: Vec<Vec<OwnKey>>, votes: usize, owner: &str, last_component: &str) -> Vec<OwnKey> {
    let mut counts: BTreeMap<(KeyId, RegistrationId), (usize, OwnKey)> = BTreeMap::new();
    for entries in told {
        let mut seen = BTreeSet::new();
        for entry in entries {
            let key = (entry.key_id.clone(), entry.registration_id);
            let own = entry.owner == owner && entry.key_id.last_component() == last_component;
            // a store that repeats itself has one vote
            if own && seen.insert(key.clone()) {
                counts.entry(key).or_insert((0, entry)).0 += 1;
            }
        }
    }
    let vouched = counts.into_values().filter(|(count, _)| *count >= votes);
    vouched.map(|(_, entry)| entry).collect()
}

/// Two endpoints that claim one id are both refused, but for one that the configuration pins.
fn name_twins(checks: &mut [StoreCheck], config: &ClientConfig) {
    let claimed: Vec<Option<StoreId>> = checks
        .iter()
        .map(|check| check.answer.as_ref().ok().map(|(about, _)| about.store.clone()))
        .collect();
    for (place, id) in claimed.iter().enumerate() {
        let twin = (0..claimed.len()).find(|other| *other != place && id.is_some() && claimed[*other] == *id);
        if let (Some(twin), Some(id), None) = (twin, id, &config.stores[place].id) {
            let store = checks[place].store.clone();
            let reason = format!("claims the id `{id}`, as {} does", config.stores[twin].name);
            checks[place].answer = Err(StoreFault::new(store, reason));
        }
    }
}

fn random_pauses() -> Result<Vec<Duration>, LocalError> {
    let pause = |longest: u64| Ok(Duration::from_millis(50 + random_below(longest)?));
    LONGEST_PAUSES_MS.into_iter().map(pause).collect()
}

/// A random number below `span`; the bias of the remainder does not matter for orders and pauses.
fn random_below(span: u64) -> Result<u64, IdError> {
    let drawn = getrandom::u64().map_err(|_| IdError::Random)?;
    Ok(drawn % span.max(1))
}

/// What is behind these locks is valid after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
