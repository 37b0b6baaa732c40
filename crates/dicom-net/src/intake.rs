//! Instances as they come in, by whatever way: looked at, held against what was asked for, handed on as streams.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::association::{Association, Message};
use crate::command::{Status, element};
use crate::dataset::{DataError, FileMeta, Identity, read_identity, tag};
use crate::error::{NetError, StrangeInstance};
use crate::uid::Uid;

/// What to retrieve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which study.
    pub study: Uid,
    /// One series of it; none for all.
    pub series: Option<Uid>,
    /// Some instances of the series; none named for all.
    pub instances: Vec<Uid>,
}

/// An instance that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What it is, by its own data set.
    pub identity: Identity,
    /// How its data set is encoded.
    pub transfer_syntax: Uid,
}

/// What became of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is taken care of.
    Kept,
    /// It cannot be taken: the other side is told so and goes on.
    Dropped,
    /// The same, for this reason.
    Refused(Status),
    /// No more instances are wanted: the exchange ends.
    Stop,
}

/// Takes an instance, as a file of PS3.10 (preamble, file meta information, data set). It may be left unread. An error
/// of the reader means that the other side did not send it whole.
pub type Sink<'a> = dyn FnMut(&Arrival, &mut dyn Read) -> Taken + Send + 'a;

/// What came of a retrieval.
#[derive(Debug, Default)]
pub struct Retrieved {
    /// Instances that were kept.
    pub kept: BTreeSet<Uid>,
    /// Instances that were not taken, by the name under which they came, if that is one.
    pub strange: Vec<(Option<Uid>, StrangeInstance)>,
    /// Instances that the PACS says it could not send, where it names them.
    pub failed: Vec<Uid>,
    /// How many it says it could not send.
    pub failed_count: u64,
    /// How many it says it sent, where it says so.
    pub sent_count: Option<u64>,
}

/// The state of one retrieval, whatever associations its instances come over.
pub(crate) struct Intake<'a, 'b> {
    pub(crate) wanted: Option<&'a Wanted>,
    pub(crate) retrieved: Retrieved,
    /// Class and instance of the last file, by its file meta information.
    pub(crate) announced: Option<(Uid, Uid)>,
    /// No more instances are wanted.
    pub(crate) is_stopped: Arc<AtomicBool>,
    sink: &'a mut Sink<'b>,
}

/// An instance of which as much was read as says what it is.
pub(crate) struct Arriving {
    class: Uid,
    instance: Uid,
    transfer_syntax: Uid,
    /// What it is, and the bytes that say so.
    pub(crate) head: Result<(Identity, Vec<u8>), DataError>,
}

impl Arriving {
    /// Of a C-STORE request.
    pub(crate) fn read(association: &mut Association, message: &Message) -> Result<Self, NetError> {
        let announced = |name| message.command.uid(name).map_err(|error| association.protocol(error));
        let (class, instance) = (
            announced(element::AFFECTED_CLASS)?,
            announced(element::AFFECTED_INSTANCE)?,
        );
        let transfer_syntax = association.context(message.context)?.transfer_syntax.clone();
        let head = read_identity(association.data(), &transfer_syntax);
        association.check()?;
        Ok(Self {
            class,
            instance,
            transfer_syntax,
            head,
        })
    }

    /// What it is, if it says so.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.head.as_ref().ok().map(|(identity, _)| identity)
    }
}

impl<'a, 'b> Intake<'a, 'b> {
    pub(crate) fn new(wanted: Option<&'a Wanted>, sink: &'a mut Sink<'b>) -> Self {
        Self {
            wanted,
            retrieved: Retrieved::default(),
            announced: None,
            is_stopped: Arc::default(),
            sink,
        }
    }

    /// Takes the instance of a C-STORE request, and answers it.
    pub(crate) fn store(&mut self, association: &mut Association, message: &Message) -> Result<(), NetError> {
        let arriving = Arriving::read(association, message)?;
        self.take(association, message, arriving)
    }

    /// The same where it is known what arrives.
    pub(crate) fn take(
        &mut self,
        association: &mut Association,
        message: &Message,
        arriving: Arriving,
    ) -> Result<(), NetError> {
        let Arriving {
            class,
            instance,
            transfer_syntax,
            head,
        } = arriving;
        let taken = head.map_err(StrangeInstance::Broken).and_then(|(identity, kept)| {
            self.check_announced(&identity, Some(&class), &instance)?;
            let meta = FileMeta {
                class,
                instance: instance.clone(),
                transfer_syntax: transfer_syntax.clone(),
            };
            let meta = meta.encode();
            let mut file = meta.as_slice().chain(kept.as_slice()).chain(association.data());
            let arrival = Arrival {
                identity,
                transfer_syntax,
            };
            Ok((self.sink)(&arrival, &mut file))
        });
        if matches!(taken, Ok(Taken::Stop)) {
            self.is_stopped.store(true, Ordering::Release);
            // what is left of it is passed over once the other side was told to end
            return Err(NetError::Stopped {
                peer: association.peer().clone(),
            });
        }
        association.drain()?;
        let status = self.settle(instance, taken);
        association.reply(message, status)
    }

    /// Takes the instance of a file of PS3.10 that comes in over HTTP.
    pub(crate) fn file(&mut self, mut reader: &mut dyn Read) -> Result<Taken, DataError> {
        let (meta, start) = match FileMeta::read(&mut reader) {
            Ok(read) => read,
            Err(error @ DataError::Read(_)) => return Err(error),
            Err(error) => {
                self.retrieved.strange.push((None, StrangeInstance::Broken(error)));
                return Ok(Taken::Dropped);
            }
        };
        self.announced = Some((meta.class.clone(), meta.instance.clone()));
        let taken = match read_identity(&mut reader, &meta.transfer_syntax) {
            Err(error @ DataError::Read(_)) => return Err(error),
            Err(error) => Err(StrangeInstance::Broken(error)),
            Ok((identity, kept)) => {
                let checked = self.check_announced(&identity, Some(&meta.class), &meta.instance);
                checked.map(|()| {
                    let mut file = start.as_slice().chain(kept.as_slice()).chain(reader);
                    let arrival = Arrival {
                        identity,
                        transfer_syntax: meta.transfer_syntax,
                    };
                    (self.sink)(&arrival, &mut file)
                })
            }
        };
        Ok(match taken {
            Ok(taken) => {
                if taken == Taken::Kept {
                    self.retrieved.kept.insert(meta.instance);
                }
                taken
            }
            Err(strange) => {
                self.retrieved.strange.push((Some(meta.instance), strange));
                Taken::Dropped
            }
        })
    }

    fn check_announced(&self, identity: &Identity, class: Option<&Uid>, instance: &Uid) -> Result<(), StrangeInstance> {
        if identity.instance != *instance {
            return Err(StrangeInstance::Announced(tag::SOP_INSTANCE));
        }
        if class.is_some_and(|class| *class != identity.class) {
            return Err(StrangeInstance::Announced(tag::SOP_CLASS));
        }
        if let Some(wanted) = self.wanted {
            wanted.covers(identity)?;
        }
        if self.retrieved.kept.contains(instance) {
            return Err(StrangeInstance::Twice);
        }
        Ok(())
    }

    fn settle(&mut self, instance: Uid, taken: Result<Taken, StrangeInstance>) -> Status {
        match taken {
            Ok(Taken::Kept) => {
                self.retrieved.kept.insert(instance);
                Status::SUCCESS
            }
            Ok(Taken::Dropped | Taken::Stop) => Status::OUT_OF_RESOURCES,
            Ok(Taken::Refused(status)) => status,
            Err(strange) => {
                let status = strange.status();
                self.retrieved.strange.push((Some(instance), strange));
                status
            }
        }
    }
}

impl Wanted {
    /// Whether an instance is of what was asked for.
    ///
    /// # Errors
    /// Where it is not.
    pub fn covers(&self, identity: &Identity) -> Result<(), StrangeInstance> {
        if identity.study != self.study {
            return Err(StrangeInstance::NotAsked(tag::STUDY));
        }
        if self.series.as_ref().is_some_and(|series| *series != identity.series) {
            return Err(StrangeInstance::NotAsked(tag::SERIES));
        }
        if !self.instances.is_empty() && !self.instances.contains(&identity.instance) {
            return Err(StrangeInstance::NotAsked(tag::SOP_INSTANCE));
        }
        Ok(())
    }
}
