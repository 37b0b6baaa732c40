//! What is done with an image that is pushed to us: it gets a name and a key, goes on to the PACS or is sealed, and is
//! entered into the registry. An image is taken only when all of that is done.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dicom_deid::{Profile, RefusalKind};
use dicom_net::association::Association;
use dicom_net::{Arrival, Dicomweb, Identity, NetError, Status, Storing, Taken, WebError};
use eds::args::Stores;
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::Failure;
use zeroize::Zeroizing;

use crate::database::DatabaseError;
use crate::destination::{Destination, Expected};
use crate::engine::Item;
use crate::errors::chain;
use crate::keys::{HeldKey, Keys};
use crate::line::Reason;
use crate::names::{Ids, KeyPer, Template};
use crate::pipeline::{self, InstanceError, Target, Wiping};
use crate::registry::{Added, Instance, Recorded, Registry, Which};
use crate::source::SourceError;

/// The largest image that goes on by STOW-RS, which has it in memory meanwhile.
const LONGEST_ONWARD: u64 = 512 * 1024 * 1024;

/// PS3.7, C.5.2: for what will not work the next time either.
const PROCESSING_FAILURE: Status = Status(0x0110);
/// PS3.7, C.5.6.
const CLASS_NOT_SUPPORTED: Status = Status(0x0122);

/// How long a line to the agent may take to come back.
const REDIAL: Duration = Duration::from_secs(5);
/// For how long a session is used: whoever renews the credential is noticed then.
const SESSION_FOR: Duration = Duration::from_secs(600);

/// What becomes of an image.
pub enum Rule {
    /// The PACS gets it.
    Nearline(Onward),
    /// It is sealed and placed.
    Seal(Arc<dyn Destination + Send + Sync>),
}

/// How the PACS gets it.
pub enum Onward {
    /// By C-STORE.
    Dimse(Ways<Storing>),
    /// By STOW-RS.
    Web(Ways<Dicomweb>),
}

/// The ways to the PACS that all senders share, one image on each at a time: no sender keeps one while it rests.
pub struct Ways<W> {
    free: Mutex<Vec<W>>,
    freed: Condvar,
    longest: Duration,
}

impl<W> Ways<W> {
    /// As many as the PACS may be used by at once. For a free one is waited this long.
    pub fn new(ways: Vec<W>, longest: Duration) -> Self {
        Self {
            free: Mutex::new(ways),
            freed: Condvar::new(),
            longest,
        }
    }

    /// Works with a free one; none where none became free in time.
    fn with<T>(&self, work: impl FnOnce(&mut W) -> T) -> Option<T> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .freed
            .wait_timeout_while(free, self.longest, |free| free.is_empty());
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut way = free.pop()?;
        drop(free);
        let done = work(&mut way);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(way);
        self.freed.notify_one();
        Some(done)
    }

    /// Does something to those that nobody uses now.
    fn each_idle(&self, work: impl FnMut(&mut W)) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter_mut().for_each(work);
    }
}

/// Where images come in.
pub struct Intake {
    /// What is left of them.
    pub profile: Profile,
    /// What their sealed files are called.
    pub names: Template,
    /// For what there is a key.
    pub key_per: KeyPer,
    /// Where they are entered.
    pub registry: Arc<dyn Registry>,
    /// How the key stores are reached.
    pub stores: Stores,
    /// The session with them, and since when it is used.
    pub session: Mutex<(Instant, Arc<Session>)>,
    /// For how long a key is held.
    pub keys_for: Duration,
    /// What becomes of them.
    pub rule: Rule,
    /// The names of those that are worked on.
    pub busy: Mutex<HashSet<String>>,
}

/// A name that is worked on, until this is dropped.
struct Busy<'a> {
    names: &'a Mutex<HashSet<String>>,
    name: String,
}

impl<'a> Busy<'a> {
    /// None where somebody else works on it.
    fn take(names: &'a Mutex<HashSet<String>>, name: &str) -> Option<Self> {
        let is_new = names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        is_new.then(|| Self {
            names,
            name: name.to_owned(),
        })
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}

/// Why an image is not taken. Whoever sent it gets a status, and keeps it.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Whoever sent it broke off.
    #[error("it did not come whole")]
    BrokenOff,
    /// Another sender is at it.
    #[error("it is being received from somebody else")]
    Busy,
    /// No way to the PACS became free.
    #[error("all ways to the PACS are in use")]
    NoWay,
    /// Its name belongs to another one.
    #[error("its name is that of another instance, or of the same under another key")]
    Taken,
    /// There is no key for it.
    #[error("there is no key for it: {0}")]
    Key(String),
    /// The PACS does not take it.
    #[error("the PACS did not take it")]
    Pacs(#[source] SourceError),
    /// Too large for the way to the PACS.
    #[error("it is larger than {LONGEST_ONWARD} bytes, which STOW-RS cannot send on")]
    Large,
    /// It cannot be sealed and placed.
    #[error("it cannot be sealed and placed")]
    Instance(#[source] InstanceError),
    /// The registry cannot be used.
    #[error("the registry cannot be used")]
    Registry(#[source] DatabaseError),
}

impl Refused {
    /// What whoever sent it is told (PS3.4, B.2.3): to come again, or that it will never be taken.
    fn status(&self) -> Status {
        match self {
            Self::Taken => Status::MISMATCH,
            // these will never be taken this way
            Self::Large => PROCESSING_FAILURE,
            Self::Pacs(SourceError::Net(NetError::NoContext { .. })) => CLASS_NOT_SUPPORTED,
            Self::Pacs(SourceError::Web(
                WebError::Source { .. }
                | WebError::Status {
                    status: 400 | 413 | 415,
                    ..
                },
            )) => PROCESSING_FAILURE,
            Self::Pacs(SourceError::Net(NetError::Status { status, .. })) => *status,
            Self::Instance(InstanceError::Refused(refusal)) if refusal.kind() != RefusalKind::Io => {
                Status::NOT_UNDERSTOOD
            }
            Self::Instance(InstanceError::Identity) => Status::NOT_UNDERSTOOD,
            Self::Instance(InstanceError::Changed | InstanceError::NotTaken(Reason::Changed)) => Status::MISMATCH,
            _ => Status::OUT_OF_RESOURCES,
        }
    }
}

impl Intake {
    /// What takes the images of one association or request. Not for asynchronous code: a session may end in it.
    pub fn visit(self: &Arc<Self>) -> Visit {
        Visit {
            keys: self.keys(),
            intake: Arc::clone(self),
        }
    }

    fn keys(&self) -> (Instant, Keys) {
        (Instant::now(), Keys::lasting(self.session(), Voice::default()))
    }

    /// The session, opened again now and then.
    fn session(&self) -> Arc<Session> {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.elapsed() > SESSION_FOR {
            match Session::open(&self.stores) {
                Ok(session) => *held = (Instant::now(), Arc::new(session)),
                Err(error) => {
                    tracing::warn!(reason = %chain(&error), "the credential cannot be read again");
                }
            }
        }
        Arc::clone(&held.1)
    }

    fn named(&self, identity: &Identity) -> Instance {
        let original = Ids {
            study: identity.study.to_string(),
            series: identity.series.to_string(),
            instance: identity.instance.to_string(),
        };
        let class = Some(identity.class.to_string());
        Instance::named(original, class, &self.profile, &self.names, self.key_per)
    }
}

/// Takes the images of one association or request: keys are held for a while, and the PACS is called once while images
/// come without a pause.
pub struct Visit {
    intake: Arc<Intake>,
    /// The keys, and since when they are held.
    keys: (Instant, Keys),
}

impl Drop for Visit {
    fn drop(&mut self) {
        // the PACS need not keep an association open for nobody
        if let Rule::Nearline(Onward::Dimse(ways)) = &self.intake.rule {
            let mut resting = Vec::new();
            ways.each_idle(|way| resting.extend(way.take_open()));
            // it may take its time, and nobody shall wait for it
            resting.into_iter().for_each(Association::release);
        }
    }
}

impl Visit {
    /// Takes an image, or says why not. It is safe when this answers that it is kept.
    pub fn take(&mut self, arrival: &Arrival, file: &mut dyn Read) -> Taken {
        let instance = self.intake.named(&arrival.identity);
        let name = instance.name.clone();
        let mut watched = Watched {
            inner: file,
            has_failed: false,
        };
        // a key may have been registered anew, or our right to it taken
        if self.keys.0.elapsed() >= self.intake.keys_for {
            self.keys = self.intake.keys();
        }
        let taken = self.taken(arrival, &instance, &mut watched);
        let taken = if watched.has_failed {
            Err(Refused::BrokenOff)
        } else {
            taken
        };
        match taken {
            Ok(()) => {
                metrics::counter!("received_total", "result" => "kept").increment(1);
                tracing::info!(name, "received");
                Taken::Kept
            }
            Err(refused) => {
                let status = refused.status();
                metrics::counter!("received_total", "result" => "refused").increment(1);
                let status_text = format!("{:04x}", status.0);
                tracing::warn!(
                    name,
                    status = status_text,
                    reason = %chain(&refused),
                    "not received"
                );
                Taken::Refused(status)
            }
        }
    }

    fn taken(&self, arrival: &Arrival, instance: &Instance, file: &mut dyn Read) -> Result<(), Refused> {
        let intake = &self.intake;
        // of two with one name but other pixels the second would replace what the first sender was told is safe
        let Some(_busy) = Busy::take(&intake.busy, &instance.name) else {
            return Err(Refused::Busy);
        };
        let known = intake
            .registry
            .find(&Which::Names(std::slice::from_ref(&instance.name)));
        let known = known.map_err(Refused::Registry)?.pop();
        let is_same = |known: &Instance| known.original == instance.original && known.key_id == instance.key_id;
        if !known.as_ref().is_none_or(is_same) {
            return Err(Refused::Taken);
        }
        let key = self.keys.1.key(&instance.key_id);
        let key = key.map_err(|failure: Failure| Refused::Key(chain(&*failure.error)))?;
        match &intake.rule {
            Rule::Nearline(onward) => {
                self.send(onward, arrival, file)?;
                key.mark_used();
                self.enter(instance)
            }
            Rule::Seal(destination) => self.seal(&**destination, arrival, instance, known.as_ref(), &key, file),
        }
    }

    /// Seals an image, has it placed, and enters it.
    fn seal(
        &self,
        destination: &dyn Destination,
        arrival: &Arrival,
        instance: &Instance,
        known: Option<&Instance>,
        key: &HeldKey,
        file: &mut dyn Read,
    ) -> Result<(), Refused> {
        let is_early = destination.takes_only_registered();
        if is_early {
            // a line that grew old is dialled again at once
            let until = Instant::now() + REDIAL;
            while destination.is_away() {
                if Instant::now() >= until {
                    return Err(Refused::Instance(InstanceError::NotTaken(Reason::Storage)));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            self.enter(instance)?;
        }
        let told = destination.tell_registered().map_err(Refused::Instance);
        let sealed = told.and_then(|()| self.place(destination, arrival, instance, known, key, file));
        let done = sealed.and_then(|(size, sha256)| {
            key.mark_used();
            if !is_early {
                self.enter(instance)?;
            }
            self.record(destination, &instance.name, size, sha256)
        });
        if done.is_err() && is_early && known.is_none() {
            self.take_back(&instance.name);
        }
        done
    }

    fn place(
        &self,
        destination: &dyn Destination,
        arrival: &Arrival,
        instance: &Instance,
        known: Option<&Instance>,
        key: &HeldKey,
        file: &mut dyn Read,
    ) -> Result<(u64, String), Refused> {
        let item = Item {
            instance: arrival.identity.instance.clone(),
            class: Some(arrival.identity.class.clone()),
            key: instance.key_id.clone(),
            target: Target {
                name: instance.name.clone(),
                new: instance.new.clone(),
            },
            expected: known.map_or_else(Expected::default, |known| Expected {
                size: known.size,
                sha256: known.sha256.clone(),
            }),
        };
        let (profile, spool) = (&self.intake.profile, destination.spool());
        let mut placer = destination.placer();
        let sealed = placer.place(0, &item, &mut |out| {
            pipeline::flowing(profile, key, &item.target, &mut &mut *file, out, spool)
        });
        let sealed = sealed.map_err(Refused::Instance)?;
        let named = placer.finish().pop().map(|(_, named)| named);
        let sha256 = named
            .unwrap_or(Err(InstanceError::Missing))
            .map_err(Refused::Instance)?;
        Ok((sealed.sealed.file_bytes, sha256.unwrap_or_default()))
    }

    /// Records what was placed.
    fn record(&self, destination: &dyn Destination, name: &str, size: u64, sha256: String) -> Result<(), Refused> {
        let registry = &*self.intake.registry;
        let recorded = registry.record_placed(&[(name.to_owned(), size, sha256)]);
        if recorded.map_err(Refused::Registry)? == [Recorded::Same] {
            return Ok(());
        }
        // it was registered otherwise meanwhile
        let taken = destination.take_away(registry, &[name.to_owned()]);
        taken.map_err(Refused::Registry)?;
        Err(Refused::Instance(InstanceError::Changed))
    }

    /// Registers no more what was registered for an image that was not placed, unless somebody else placed it
    /// meanwhile.
    fn take_back(&self, name: &str) {
        let (registry, names) = (&*self.intake.registry, [name.to_owned()]);
        let taken = registry.find(&Which::Names(&names)).and_then(|found| {
            let is_placed = found.iter().any(|one| one.on_disk || one.sha256.is_some());
            if is_placed { Ok(0) } else { registry.remove(&names) }
        });
        if let Err(error) = taken {
            tracing::error!(
                name,
                error = &error as &dyn std::error::Error,
                "it stays registered, and was not placed"
            );
        }
    }

    fn enter(&self, instance: &Instance) -> Result<(), Refused> {
        let added = self.intake.registry.add(std::slice::from_ref(instance));
        match added.map_err(Refused::Registry)?.first() {
            Some(Added::New | Added::Known) => Ok(()),
            _ => Err(Refused::Taken),
        }
    }

    fn send(&self, onward: &Onward, arrival: &Arrival, file: &mut dyn Read) -> Result<(), Refused> {
        match onward {
            Onward::Dimse(ways) => {
                let stored = ways.with(|storing| storing.store(file)).ok_or(Refused::NoWay)?;
                stored.map_err(|error| Refused::Pacs(error.into()))
            }
            // what is held in memory is as much as there are ways
            Onward::Web(ways) => ways
                .with(|web| send_whole(web, arrival, file))
                .unwrap_or(Err(Refused::NoWay)),
        }
    }
}

fn send_whole(web: &Dicomweb, arrival: &Arrival, file: &mut dyn Read) -> Result<(), Refused> {
    let mut whole = Wiping(Zeroizing::new(Vec::with_capacity(1024 * 1024)));
    match std::io::copy(&mut file.take(LONGEST_ONWARD + 1), &mut whole) {
        Err(_) => Err(Refused::BrokenOff),
        Ok(read) if read > LONGEST_ONWARD => Err(Refused::Large),
        Ok(_) => {
            let stored = web.store(&arrival.identity.study, &whole.0);
            stored.map_err(|error: WebError| Refused::Pacs(error.into()))
        }
    }
}

/// Remembers whether it was the sender that failed.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    has_failed: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(out).inspect_err(|_| self.has_failed = true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_shared_and_whoever_finds_none_is_told_in_time() {
        let ways = Ways::new(vec![1, 2], Duration::from_millis(1));
        let inner = ways.with(|first| ways.with(|second| (*first, *second, ways.with(|_| ()).is_some())));
        assert_eq!(inner, Some(Some((2, 1, false))));
        let mut idle = 0;
        ways.each_idle(|way| idle += *way);
        assert_eq!(idle, 3, "both are back");
    }

    #[test]
    fn a_name_is_worked_on_by_one() {
        let names = Mutex::default();
        let first = Busy::take(&names, "/a");
        assert!(first.is_some() && Busy::take(&names, "/a").is_none() && Busy::take(&names, "/b").is_some());
        drop(first);
        assert!(Busy::take(&names, "/a").is_some());
    }
}
