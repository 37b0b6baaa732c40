//! Where a C-MOVE has a PACS send to (PS3.4, C.4.2). Several moves at once share one title and one port: each instance
//! that comes is told to be of one of them by the message that it says it belongs to, and by what it is.
//!
//! Some PACS say no originator, others a wrong one, and some send the instances of several moves over one association:
//! so what an instance is counts for more than what the message says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Jobs, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::association::{Association, Message};
use crate::command::{Command, Status, element};
use crate::dataset::Identity;
use crate::error::NetError;
use crate::intake::{Arriving, Intake, Wanted};
use crate::scp::{Receiver, ReceiverOptions, Stop};
use crate::uid::{AeTitle, Uid};

/// How often is looked whether all has come, once the PACS has said its last word.
const LOOK: Duration = Duration::from_millis(5);

/// A listening title that PACS send to for as long as it is there.
pub struct MoveDestination {
    receiver: Arc<Receiver>,
    moves: Arc<Moves>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl MoveDestination {
    /// Listens at `address`, for example `0.0.0.0:11112`.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn listen(address: &str, options: ReceiverOptions) -> Result<Self, NetError> {
        let receiver = Arc::new(Receiver::listen(address, options)?);
        let stop = Arc::new(receiver.stop());
        let moves: Arc<Moves> = Arc::default();
        let (serving, until, all) = (Arc::clone(&receiver), Arc::clone(&stop), Arc::clone(&moves));
        let thread = std::thread::Builder::new().name("moves".to_owned()).spawn(move || {
            serving.serve(&until, Duration::ZERO, &|_| {
                let presence = Presence::new(Arc::clone(&all));
                Box::new(move |association, message| presence.0.hand_over(association, message))
            });
        });
        let thread = thread.map_err(|source| NetError::Listen {
            address: address.to_owned(),
            source,
        })?;
        Ok(Self {
            receiver,
            moves,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.receiver.address()
    }

    /// Its title.
    pub fn title(&self) -> &AeTitle {
        self.receiver.title()
    }

    /// A move that begins: what comes for it is handed over from now on.
    pub(crate) fn begin(&self, calling: &AeTitle, wanted: &Wanted) -> Move<'_> {
        let (sender, jobs) = channel();
        let mut open = self.moves.open();
        // numbers of moves that are open are not given again
        let mut number = open.last;
        loop {
            number = number.wrapping_add(1).max(1);
            if open.entries.iter().all(|entry| entry.number != number) {
                break;
            }
        }
        open.last = number;
        open.entries.push(Entry {
            number,
            calling: calling.clone(),
            wanted: wanted.clone(),
            came: BTreeSet::new(),
            sender: sender.clone(),
        });
        Move {
            moves: &self.moves,
            number,
            sender,
            jobs,
        }
    }
}

impl Drop for MoveDestination {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The moves that are under way.
#[derive(Default)]
struct Moves {
    open: Mutex<Open>,
    /// How many associations there are.
    associations: AtomicUsize,
}

#[derive(Default)]
struct Open {
    entries: Vec<Entry>,
    /// The number that was given last.
    last: u16,
}

/// A move that is under way.
struct Entry {
    /// Of its request.
    number: u16,
    /// Who asked.
    calling: AeTitle,
    wanted: Wanted,
    /// What was handed over.
    came: BTreeSet<Uid>,
    sender: Sender<Event>,
}

/// An instance on its way to whoever asked for it, with the association that it comes over.
struct Job {
    association: Association,
    message: Message,
    arriving: Arriving,
    /// The association goes back this way.
    back: SyncSender<Result<Association, NetError>>,
}

enum Event {
    Job(Box<Job>),
    /// The PACS has said its last word, and how many it sent, where it says so.
    Answered(Option<u64>),
}

/// An association counts for as long as this is there.
struct Presence(Arc<Moves>);

impl Presence {
    fn new(moves: Arc<Moves>) -> Self {
        moves.associations.fetch_add(1, Ordering::AcqRel);
        Self(moves)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.associations.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Moves {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has whoever asked for an instance take it, and waits for that.
    fn hand_over(&self, mut association: Association, message: &Message) -> Result<Association, NetError> {
        let arriving = Arriving::read(&mut association, message)?;
        let peer = association.peer().clone();
        let (back, taken) = sync_channel(1);
        let mut open = self.open();
        let Some(entry) = choose(&mut open.entries, &message.command, arriving.identity()) else {
            drop(open);
            tracing::warn!(%peer, "an instance came that nobody asked for");
            association.drain()?;
            association.reply(
                message,
                arriving
                    .head
                    .as_ref()
                    .map_or(Status::NOT_UNDERSTOOD, |_| Status::MISMATCH),
            )?;
            return Ok(association);
        };
        entry
            .came
            .extend(arriving.identity().map(|identity| identity.instance.clone()));
        let job = Job {
            association,
            message: message.clone(),
            arriving,
            back,
        };
        // with the lock in hand: who ends a move takes it out first, and then looks for what was handed over
        let sent = entry.sender.send(Event::Job(Box::new(job)));
        drop(open);
        let stopped = || NetError::Stopped { peer: peer.clone() };
        sent.map_err(|_| stopped())?;
        taken.recv().unwrap_or_else(|_| Err(stopped()))
    }

    fn end(&self, number: u16) {
        self.open().entries.retain(|entry| entry.number != number);
    }

    fn associations(&self) -> usize {
        self.associations.load(Ordering::Acquire)
    }
}

/// The move that an instance belongs to.
fn choose<'a>(entries: &'a mut [Entry], request: &Command, identity: Option<&Identity>) -> Option<&'a mut Entry> {
    let number = request.number(element::MOVE_ORIGINATOR_MESSAGE).ok();
    let title = request.text(element::MOVE_ORIGINATOR);
    let is_named = |entry: &Entry| {
        let is_title = title.is_none_or(|title| title == entry.calling.as_str());
        is_title && number == Some(entry.number)
    };
    let covers = |entry: &Entry| identity.is_some_and(|identity| entry.wanted.covers(identity).is_ok());
    let is_new = |entry: &Entry| identity.is_none_or(|identity| !entry.came.contains(&identity.instance));
    let only = entries.len() == 1;
    let first = |is_so: &dyn Fn(&Entry) -> bool| entries.iter().position(is_so);
    let at = first(&|entry| is_named(entry) && covers(entry))
        .or_else(|| first(&|entry| covers(entry) && is_new(entry)))
        .or_else(|| first(&covers))
        // whoever asked is to hear of what is not right
        .or_else(|| first(&is_named))
        .or_else(|| only.then_some(0));
    at.map(|at| &mut entries[at])
}

/// A move under way, until it is dropped.
pub(crate) struct Move<'a> {
    moves: &'a Moves,
    /// Of its request.
    pub(crate) number: u16,
    sender: Sender<Event>,
    jobs: Jobs<Event>,
}

/// Says that the PACS has said its last word, on drop.
pub(crate) struct Answered {
    sender: Sender<Event>,
    /// How many it says it sent.
    pub(crate) told: Option<u64>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        // whoever is not there any more need not know
        let _ = self.sender.send(Event::Answered(self.told));
    }
}

impl Move<'_> {
    /// What is held until the PACS has said its last word.
    pub(crate) fn answered(&self) -> Answered {
        Answered {
            sender: self.sender.clone(),
            told: None,
        }
    }

    /// Takes what comes, until the PACS has said its last word, and then for `grace` at most what is still missing: of
    /// as many instances as it says it sent, or where it does not say, while anybody is there who might send.
    pub(crate) fn take(self, intake: &mut Intake<'_, '_>, grace: Duration) {
        let mut taken = 0;
        let told = loop {
            match self.jobs.recv() {
                Ok(Event::Job(job)) => take_one(intake, *job, &mut taken),
                Ok(Event::Answered(told)) => break told,
                Err(_) => return,
            }
        };
        let end = Instant::now() + grace;
        loop {
            match self.jobs.recv_timeout(LOOK) {
                Ok(Event::Job(job)) => take_one(intake, *job, &mut taken),
                Ok(Event::Answered(_)) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let is_all = match told {
                        Some(told) => taken >= told,
                        None => self.moves.associations() == 0,
                    };
                    if is_all || Instant::now() >= end {
                        break;
                    }
                }
            }
        }
        self.moves.end(self.number);
        while let Ok(event) = self.jobs.try_recv() {
            if let Event::Job(job) = event {
                take_one(intake, *job, &mut taken);
            }
        }
    }
}

impl Drop for Move<'_> {
    fn drop(&mut self) {
        self.moves.end(self.number);
    }
}

fn take_one(intake: &mut Intake<'_, '_>, job: Job, taken: &mut u64) {
    *taken += 1;
    let Job {
        mut association,
        message,
        arriving,
        back,
    } = job;
    let done = intake.take(&mut association, &message, arriving);
    // its thread waits for it
    let _ = back.send(done.map(|()| association));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Field;

    fn uid(number: u32) -> Uid {
        Uid::new(&format!("2.25.{number}")).unwrap()
    }

    fn entry(number: u16, series: u32, instances: &[u32]) -> Entry {
        Entry {
            number,
            calling: AeTitle::new("HYDRA").unwrap(),
            wanted: Wanted {
                study: uid(1),
                series: Some(uid(series)),
                instances: instances.iter().copied().map(uid).collect(),
            },
            came: BTreeSet::new(),
            sender: channel().0,
        }
    }

    fn chosen(entries: &mut [Entry], originator: Option<(&str, u16)>, identity: Option<(u32, u32)>) -> Option<u16> {
        let mut request = Command::request(Field::StoreRequest, 1, &uid(9));
        if let Some((title, number)) = originator {
            request.set_text(element::MOVE_ORIGINATOR, title);
            request.set_number(element::MOVE_ORIGINATOR_MESSAGE, number);
        }
        let identity = identity.map(|(series, instance)| Identity {
            class: uid(9),
            instance: uid(instance),
            study: uid(1),
            series: uid(series),
        });
        choose(entries, &request, identity.as_ref()).map(|entry| entry.number)
    }

    #[test]
    fn what_an_instance_is_counts_for_more_than_what_its_message_says() {
        let mut two = [entry(1, 10, &[]), entry(2, 20, &[])];
        assert_eq!(chosen(&mut two, Some(("HYDRA", 2)), Some((20, 5))), Some(2));
        assert_eq!(chosen(&mut two, None, Some((20, 5))), Some(2));
        for wrong in [("HYDRA", 1), ("HYDRA", 7), ("OTHER", 1)] {
            assert_eq!(chosen(&mut two, Some(wrong), Some((20, 5))), Some(2), "{wrong:?}");
        }
        // of nobody's, or broken: whoever the message names hears of it, if it is us who asked
        assert_eq!(chosen(&mut two, Some(("HYDRA", 2)), Some((30, 5))), Some(2));
        assert_eq!(chosen(&mut two, Some(("HYDRA", 2)), None), Some(2));
        assert_eq!(chosen(&mut two, Some(("OTHER", 2)), None), None);
        assert_eq!(chosen(&mut two, None, None), None);
        assert_eq!(chosen(&mut two[..1], None, None), Some(1));
        assert_eq!(chosen(&mut [], Some(("HYDRA", 1)), Some((10, 5))), None);
    }

    #[test]
    fn moves_of_one_series_get_what_each_wants() {
        let mut two = [entry(1, 10, &[]), entry(2, 10, &[])];
        assert_eq!(chosen(&mut two, Some(("HYDRA", 2)), Some((10, 5))), Some(2));
        assert_eq!(chosen(&mut two, None, Some((10, 5))), Some(1));
        two[0].came.insert(uid(5));
        assert_eq!(chosen(&mut two, None, Some((10, 5))), Some(2));
        two[1].came.insert(uid(5));
        assert_eq!(chosen(&mut two, None, Some((10, 5))), Some(1), "who has it says so");
        let mut parts = [entry(1, 10, &[5]), entry(2, 10, &[6])];
        assert_eq!(chosen(&mut parts, None, Some((10, 6))), Some(2));
    }

    #[test]
    fn numbers_are_those_of_no_other_move() {
        let title = || AeTitle::new("HYDRA").unwrap();
        let destination = MoveDestination::listen("127.0.0.1:0", ReceiverOptions::new(title())).unwrap();
        let wanted = entry(1, 10, &[]).wanted;
        let first = destination.begin(&title(), &wanted);
        assert_eq!(first.number, 1);
        destination.moves.open().last = u16::MAX;
        let second = destination.begin(&title(), &wanted);
        assert_eq!(second.number, 2);
        drop((first, second));
        assert!(destination.moves.open().entries.is_empty());
    }
}
