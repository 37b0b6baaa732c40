//! What is done with an image that is pushed to us: it gets a name and a key, goes on to the PACS or is sealed, and is
//! entered into the registry. An image is taken only when all of that is done.

use std::io::Read;
use std::sync::Arc;

use dicom_deid::{Profile, RefusalKind};
use dicom_net::{Arrival, Identity, NetError, Pacs, Status, Storing, Taken, WebError};
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::Failure;
use zeroize::Zeroizing;

use crate::config::PacsConfig;
use crate::database::DatabaseError;
use crate::destination::{Destination, Expected};
use crate::engine::Item;
use crate::keys::Keys;
use crate::names::{Ids, KeyPer, Template};
use crate::pipeline::{self, InstanceError, Target, Wiping};
use crate::registry::{Added, Instance, Recorded, Registry, Which};
use crate::source::{Source, SourceError};

/// The largest image that goes on by STOW-RS, which has it in memory meanwhile.
const LONGEST_ONWARD: u64 = 512 * 1024 * 1024;

/// What becomes of an image.
pub enum Rule {
    /// The PACS gets it.
    Nearline(Onward),
    /// It is sealed and placed.
    Seal(Box<dyn Destination + Send + Sync>),
}

/// How the PACS gets it.
pub enum Onward {
    /// By C-STORE.
    Dimse(Pacs),
    /// By STOW-RS.
    Web(Box<PacsConfig>),
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
    /// The key stores.
    pub session: Arc<Session>,
    /// What becomes of them.
    pub rule: Rule,
}

/// Why an image is not taken. Whoever sent it gets a status, and keeps it.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Whoever sent it broke off.
    #[error("it did not come whole")]
    BrokenOff,
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
            Self::Pacs(SourceError::Net(NetError::Status { status, .. })) => *status,
            Self::Instance(InstanceError::Refused(refusal)) if refusal.kind() != RefusalKind::Io => {
                Status::NOT_UNDERSTOOD
            }
            Self::Instance(InstanceError::Identity) => Status::NOT_UNDERSTOOD,
            Self::Instance(InstanceError::Changed) => Status::MISMATCH,
            _ => Status::OUT_OF_RESOURCES,
        }
    }
}

impl Intake {
    /// What takes the images of one association or request.
    pub fn visit(self: &Arc<Self>) -> Visit {
        Visit {
            keys: Keys::lasting(Arc::clone(&self.session), Voice::default()),
            intake: Arc::clone(self),
            sending: None,
        }
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

/// The way to the PACS, as one association or request uses it.
enum Sending {
    Dimse(Storing),
    Web(Source),
}

/// Takes the images of one association or request: keys are fetched once for it, and the PACS is called once.
pub struct Visit {
    intake: Arc<Intake>,
    keys: Keys,
    sending: Option<Sending>,
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
        let taken = self.taken(arrival, instance, &mut watched);
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
                    error = &refused as &dyn std::error::Error,
                    "not received"
                );
                Taken::Refused(status)
            }
        }
    }

    fn taken(&mut self, arrival: &Arrival, instance: Instance, file: &mut dyn Read) -> Result<(), Refused> {
        let intake = Arc::clone(&self.intake);
        let known = intake
            .registry
            .find(&Which::Names(std::slice::from_ref(&instance.name)));
        let known = known.map_err(Refused::Registry)?.pop();
        let is_same = |known: &Instance| known.original == instance.original && known.key_id == instance.key_id;
        if !known.as_ref().is_none_or(is_same) {
            return Err(Refused::Taken);
        }
        let key = self.keys.key(&instance.key_id);
        let key = key.map_err(|failure: Failure| Refused::Key(failure.error.to_string()))?;
        match &intake.rule {
            Rule::Nearline(onward) => {
                self.send(onward, arrival, file)?;
                key.mark_used();
                self.enter(&instance)
            }
            Rule::Seal(destination) => {
                let expected = known.map_or_else(Expected::default, |known| Expected {
                    size: known.size,
                    sha256: known.sha256,
                });
                let item = Item {
                    instance: arrival.identity.instance.clone(),
                    class: Some(arrival.identity.class.clone()),
                    key: instance.key_id.clone(),
                    target: Target {
                        name: instance.name.clone(),
                        new: instance.new.clone(),
                    },
                    expected,
                };
                let spool = destination.spool();
                let mut placer = destination.placer();
                let sealed = placer.place(0, &item, &mut |out| {
                    pipeline::flowing(&intake.profile, &key, &item.target, &mut &mut *file, out, spool)
                });
                let sealed = sealed.map_err(Refused::Instance)?;
                let named = placer.finish().pop().map(|(_, named)| named);
                let sha256 = named
                    .unwrap_or(Err(InstanceError::Missing))
                    .map_err(Refused::Instance)?;
                key.mark_used();
                self.enter(&instance)?;
                let size = sealed.sealed.file_bytes;
                let files = [(instance.name.clone(), size, sha256.unwrap_or_default())];
                let recorded = intake.registry.record(&files).map_err(Refused::Registry)?;
                if recorded != [Recorded::Same] {
                    return Err(Refused::Instance(InstanceError::Changed));
                }
                let on_disk = intake.registry.set_on_disk(&[instance.name], true);
                on_disk.map_err(Refused::Registry)
            }
        }
    }

    fn enter(&self, instance: &Instance) -> Result<(), Refused> {
        let added = self.intake.registry.add(std::slice::from_ref(instance));
        match added.map_err(Refused::Registry)?.first() {
            Some(Added::New | Added::Known) => Ok(()),
            _ => Err(Refused::Taken),
        }
    }

    fn send(&mut self, onward: &Onward, arrival: &Arrival, file: &mut dyn Read) -> Result<(), Refused> {
        let sending = match &mut self.sending {
            Some(sending) => sending,
            none => none.insert(match onward {
                Onward::Dimse(pacs) => Sending::Dimse(pacs.storing()),
                Onward::Web(config) => Sending::Web(Source::open(config).map_err(Refused::Pacs)?),
            }),
        };
        match sending {
            Sending::Dimse(storing) => storing.store(file).map_err(|error| Refused::Pacs(error.into())),
            Sending::Web(Source::Web(web)) => {
                let mut whole = Wiping(Zeroizing::new(Vec::with_capacity(1024 * 1024)));
                let read = std::io::copy(&mut file.take(LONGEST_ONWARD + 1), &mut whole);
                match read {
                    Err(_) => Err(Refused::BrokenOff),
                    Ok(read) if read > LONGEST_ONWARD => Err(Refused::Large),
                    Ok(_) => {
                        let stored = web.store(&arrival.identity.study, &whole.0);
                        stored.map_err(|error: WebError| Refused::Pacs(error.into()))
                    }
                }
            }
            Sending::Web(Source::Dimse { .. }) => Err(Refused::Large),
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
