//! A recall at work: what was asked for is retrieved series by series, and de-identified, sealed and placed beside the
//! retrieval. One bad instance fails alone. `now`, `register --exact-size` and the daemon are callers; where files go
//! is a [`Destination`]'s business, and what is told of them a [`Teller`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dicom_deid::{Profile, Report as DeidReport};
use dicom_net::{Arrival, Retrieved, Taken, Uid, Wanted};
use hydra_cli::{Code, Failure};
use zeroize::Zeroizing;

use crate::destination::{Destination, Expected, Placer};
use crate::keys::{HeldKey, Keys, is_general};
use crate::line::Reason;
use crate::pipeline::{self, InstanceError, Sealed, Target, WHOLE_BYTES, Wiping};
use crate::source::{Source, SourceError};

/// How much plaintext may wait for its turn, over all recalls of a process.
pub const WAITING_BYTES: usize = 48 * 1024 * 1024;
/// Files that are flushed and named together, at most.
const BATCH: usize = 16;
/// A buffer for an instance, at first, and how many are kept.
const BUFFER_BYTES: usize = 1024 * 1024;
const BUFFERS: usize = 16;
/// Threads that de-identify and seal beside the retrieval.
const WORKERS: usize = 2;

/// An instance that is to be placed.
pub struct Item {
    /// What the PACS calls it.
    pub instance: Uid,
    /// Its SOP class, where that is known.
    pub class: Option<Uid>,
    /// The key that it is sealed under.
    pub key: String,
    /// What it becomes.
    pub target: Target,
    /// What its file must be, as far as that is known.
    pub expected: Expected,
}

/// A series of which something is to be placed.
pub struct Series {
    /// What the PACS calls it.
    pub series: Uid,
    /// Which items are of it, by number.
    pub items: Vec<usize>,
    /// Whether they are all that is of interest in it, so that the PACS may be asked for all of it.
    pub is_whole: bool,
}

/// An instance that was placed.
pub struct Done {
    /// Under which key it is sealed.
    pub key: Arc<HeldKey>,
    /// What de-identification did.
    pub deid: DeidReport,
    /// Bytes of plaintext.
    pub plaintext_bytes: u64,
    /// Bytes of the sealed file.
    pub file_bytes: u64,
    /// SHA-256 of the sealed file in hexadecimal digits, where the destination takes it.
    pub sha256: Option<String>,
}

/// What came of an instance, by its number.
pub type Settled = (usize, Result<Done, InstanceError>);

/// Is told what becomes of a recall.
pub trait Teller: Sync {
    /// These are done, well or not.
    ///
    /// # Errors
    /// Where going on makes no sense.
    fn settled(&self, done: Vec<Settled>) -> Result<(), Failure>;

    /// The PACS sent so many instances that nobody asked for, or that are none; they were refused.
    fn strange(&self, count: usize);

    /// The PACS broke off, and is asked again.
    fn again(&self, error: &SourceError);

    /// The PACS broke off, and is not asked again: what did not come is missing for that reason.
    fn broke(&self, error: SourceError);
}

/// Why a recall stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// No other series would come from the PACS either.
    Pacs(Failure),
    /// No other key could be had either.
    Key(Failure),
    /// Nothing can be put anywhere now.
    Place(Failure),
    /// Whoever is told does not want more.
    Told(Failure),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Pacs(failure) | Stop::Key(failure) | Stop::Place(failure) | Stop::Told(failure) => failure,
        }
    }
}

/// What became of the instances so far.
#[derive(Default)]
struct State {
    /// Those that came, by number.
    came: BTreeSet<usize>,
    /// Those that failed.
    failed: BTreeSet<usize>,
    /// Why no more is to be done.
    stop: Option<Stop>,
}

/// An instance in memory on its way to a worker.
struct Whole<'a> {
    number: usize,
    file: Buffer<'a>,
    _room: Room<'a>,
}

/// Buffers that are used again: fresh memory for each instance, and wiping it, would cost as much as sealing does. All
/// are wiped when the recall ends.
#[derive(Default)]
struct Buffers(Mutex<Vec<Wiping>>);

/// One of them, given back on drop.
struct Buffer<'a> {
    of: &'a Buffers,
    bytes: Wiping,
}

impl Buffers {
    fn take(&self) -> Buffer<'_> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = kept.unwrap_or_else(|| Wiping(Zeroizing::new(Vec::with_capacity(BUFFER_BYTES))));
        bytes.0.clear();
        Buffer { of: self, bytes }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // large ones, and more than a few, would be memory that waits for nothing
        let mut kept = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bytes.0.capacity() <= 2 * BUFFER_BYTES && kept.len() < BUFFERS {
            kept.push(Wiping(std::mem::take(&mut self.bytes.0)));
        }
    }
}

/// What is sealed and has no name yet, by number.
type Unnamed = BTreeMap<usize, (Arc<HeldKey>, Sealed)>;

/// A recall of some instances of one study.
pub struct Recall<'a> {
    profile: &'a Profile,
    keys: &'a Keys,
    destination: &'a dyn Destination,
    teller: &'a dyn Teller,
    waiting: &'a Waiting,
    /// Ends it from outside.
    cancel: &'a AtomicBool,
    items: Vec<Item>,
    buffers: Buffers,
    state: Mutex<State>,
    is_stopped: AtomicBool,
}

/// What all recalls of a process have in common.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// The profile of de-identification.
    pub profile: &'a Profile,
    /// The keys.
    pub keys: &'a Keys,
    /// Where files go.
    pub destination: &'a dyn Destination,
    /// Room for plaintext that waits.
    pub waiting: &'a Waiting,
    /// Ends recalls as soon as it is set; [`Waiting::wake`] has it seen.
    pub cancel: &'a AtomicBool,
}

impl<'a> Recall<'a> {
    /// A recall of `items`, not begun.
    pub fn new(tools: Tools<'a>, teller: &'a dyn Teller, items: Vec<Item>) -> Self {
        Self {
            profile: tools.profile,
            keys: tools.keys,
            destination: tools.destination,
            waiting: tools.waiting,
            cancel: tools.cancel,
            teller,
            items,
            buffers: Buffers::default(),
            state: Mutex::new(State::default()),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// What is recalled.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire) || self.cancel.load(Ordering::Acquire)
    }

    /// Series by series; the PACS is asked up to `attempts` times for what does not come. Whatever is not settled at
    /// the end was not tried.
    ///
    /// # Errors
    /// Why it stopped before its end.
    pub fn run(&self, source: &Source, study: &Uid, series: &[Series], attempts: u32) -> Result<(), Stop> {
        let (sender, receiver) = sync_channel(2 * BATCH);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| self.work(&receiver));
            }
            // dropped at the end, so that the workers end when all is done
            let sender = sender;
            for one in series {
                if self.is_over() {
                    break;
                }
                self.series(source, study, one, attempts, &sender);
            }
        });
        match self.state().stop.take() {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    fn series<'s>(
        &'s self,
        source: &Source,
        study: &Uid,
        series: &Series,
        attempts: u32,
        sender: &SyncSender<Whole<'s>>,
    ) {
        // where not all are known, the likely ones are proposed
        let classes: Option<BTreeSet<Uid>> = series.items.iter().map(|n| self.items[*n].class.clone()).collect();
        let classes: Vec<Uid> = classes.unwrap_or_default().into_iter().collect();
        let numbers = series.items.iter();
        let by_instance: BTreeMap<&Uid, usize> = numbers.map(|n| (&self.items[*n].instance, *n)).collect();
        let mut reasons: BTreeMap<Uid, InstanceError> = BTreeMap::new();
        for attempt in 1..=attempts {
            let open = self.open(&series.items);
            if open.is_empty() || self.is_over() || !self.key_is_there(&open) {
                break;
            }
            // by name as soon as some are not wanted
            let all = open.len() == series.items.len() && series.is_whole;
            let named = || open.iter().map(|n| self.items[*n].instance.clone()).collect();
            let wanted = Wanted {
                study: study.clone(),
                series: Some(series.series.clone()),
                instances: if all { Vec::new() } else { named() },
            };
            let retrieved = source.retrieve(&wanted, &classes, &mut |arrival: &Arrival, file: &mut dyn Read| {
                match by_instance.get(&arrival.identity.instance) {
                    Some(number) => self.take(*number, file, sender),
                    // it came to the PACS after we looked
                    None => Taken::Dropped,
                }
            });
            match retrieved {
                Ok(retrieved) => {
                    let is_other = |uid: &Option<Uid>| uid.as_ref().is_none_or(|uid| !by_instance.contains_key(uid));
                    let others = retrieved.strange.iter().filter(|(uid, _)| is_other(uid)).count();
                    if others > 0 {
                        self.teller.strange(others);
                    }
                    note_reasons(&mut reasons, retrieved);
                }
                Err(_) if self.is_over() => break,
                Err(error) if !error.is_passing() => self.stop(Stop::Pacs(error.into())),
                Err(error) if attempt == attempts => self.teller.broke(error),
                Err(error) => self.teller.again(&error),
            }
        }
        if self.is_over() {
            return;
        }
        let open = self.open(&series.items).into_iter();
        let missing = open.map(|number| {
            let reason = reasons.remove(&self.items[number].instance);
            (number, Err(reason.unwrap_or(InstanceError::Missing)))
        });
        self.settle(missing.collect());
    }

    /// Of these, those that did not come.
    fn open(&self, numbers: &[usize]) -> Vec<usize> {
        let state = self.state();
        let is_open = |number: &&usize| !state.came.contains(number) && !state.failed.contains(number);
        numbers.iter().filter(is_open).copied().collect()
    }

    /// Whether the key that all of these have in common can be had; if not, nothing of them need be fetched.
    fn key_is_there(&self, numbers: &[usize]) -> bool {
        let keys: BTreeSet<&str> = numbers.iter().map(|number| self.items[*number].key.as_str()).collect();
        let (Some(name), 1) = (keys.first(), keys.len()) else {
            return true;
        };
        let Err(failure) = self.keys.key(name) else {
            return true;
        };
        if is_general(&failure) {
            self.stop(Stop::Key(failure));
            return false;
        }
        let error = || InstanceError::Key(failure.error.to_string(), failure.code);
        self.settle(numbers.iter().map(|number| (*number, Err(error()))).collect());
        false
    }

    /// An instance comes in: small ones go to the workers, large ones through here.
    fn take<'s>(&'s self, number: usize, file: &mut dyn Read, sender: &SyncSender<Whole<'s>>) -> Taken {
        if self.is_over() {
            return Taken::Stop;
        }
        if self.state().failed.contains(&number) {
            return Taken::Dropped;
        }
        let mut start = self.buffers.take();
        if start.bytes.read_from(file, WHOLE_BYTES + 1).is_err() {
            return Taken::Dropped;
        }
        if start.bytes.0.len() <= WHOLE_BYTES {
            let Some(room) = self.waiting.room(start.bytes.0.len(), || self.is_over()) else {
                return Taken::Stop;
            };
            self.state().came.insert(number);
            let whole = Whole {
                number,
                file: start,
                _room: room,
            };
            return match sender.send(whole) {
                Ok(()) => Taken::Kept,
                Err(_) => Taken::Stop,
            };
        }
        self.flow(number, start.bytes.0.as_slice().chain(file))
    }

    /// A large instance goes through as it comes.
    fn flow(&self, number: usize, inner: impl Read) -> Taken {
        let mut watched = Watched {
            inner,
            has_failed: false,
        };
        let mut placer = self.destination.placer();
        let target = &self.items[number].target;
        let spool = self.destination.spool();
        let sealed = self.seal(number, &mut *placer, &mut |key, out| {
            pipeline::flowing(self.profile, key, target, &mut watched, out, spool)
        });
        // what the PACS broke off may come whole the next time
        if watched.has_failed {
            return Taken::Dropped;
        }
        self.state().came.insert(number);
        let taken = if sealed.is_ok() { Taken::Kept } else { Taken::Dropped };
        match sealed {
            Ok(sealed) => self.name_files(&mut *placer, &mut Unnamed::from([(number, sealed)])),
            Err(error) => self.settle(vec![(number, Err(error))]),
        }
        taken
    }

    /// Takes instances until there are no more; names files when there is nothing else to do, or enough of them.
    fn work(&self, receiver: &Mutex<Receiver<Whole<'_>>>) {
        let mut placer = self.destination.placer();
        let mut done = Unnamed::new();
        let mut plain = self.buffers.take();
        loop {
            let next = if done.is_empty() {
                let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                receiver.recv().map(Some)
            } else {
                // files that are done are not kept waiting, also not by a worker that waits
                match receiver.try_lock().map(|receiver| receiver.try_recv()) {
                    Ok(Ok(whole)) => Ok(Some(whole)),
                    Ok(Err(TryRecvError::Disconnected)) => Err(RecvError),
                    Ok(Err(TryRecvError::Empty)) | Err(_) => Ok(None),
                }
            };
            if let Ok(Some(whole)) = &next {
                self.work_on(whole, &mut *placer, &mut plain.bytes, &mut done);
            }
            if !matches!(next, Ok(Some(_))) || done.len() >= BATCH {
                self.name_files(&mut *placer, &mut done);
            }
            if next.is_err() {
                return;
            }
        }
    }

    fn work_on(&self, whole: &Whole<'_>, placer: &mut dyn Placer, plain: &mut Wiping, done: &mut Unnamed) {
        // what was not begun is not tried when all is to end
        if self.is_over() {
            return;
        }
        let target = &self.items[whole.number].target;
        let sealed = self.seal(whole.number, placer, &mut |key, out| {
            pipeline::whole(self.profile, key, target, &whole.file.bytes.0, out, plain)
        });
        match sealed {
            Ok(sealed) => {
                done.insert(whole.number, sealed);
            }
            Err(error) => self.settle(vec![(whole.number, Err(error))]),
        }
    }

    fn name_files(&self, placer: &mut dyn Placer, done: &mut Unnamed) {
        let mut settled = Vec::with_capacity(done.len());
        for (number, named) in placer.finish() {
            let Some((key, sealed)) = done.remove(&number) else {
                continue;
            };
            let named = named.map(|sha256| {
                key.mark_used();
                Done {
                    key,
                    deid: sealed.deid,
                    plaintext_bytes: sealed.sealed.plaintext_bytes,
                    file_bytes: sealed.sealed.file_bytes,
                    sha256,
                }
            });
            settled.push((number, named));
        }
        self.settle(settled);
    }

    fn seal(
        &self,
        number: usize,
        placer: &mut dyn Placer,
        work: &mut dyn FnMut(&HeldKey, &mut (dyn std::io::Write + Send)) -> Result<Sealed, InstanceError>,
    ) -> Result<(Arc<HeldKey>, Sealed), InstanceError> {
        let item = &self.items[number];
        let key = self.keys.key(&item.key).map_err(|failure| {
            let error = InstanceError::Key(failure.error.to_string(), failure.code);
            if is_general(&failure) {
                self.stop(Stop::Key(failure));
            }
            error
        })?;
        // a fault of ours in one instance is not to end the thread that others wait for
        let placed = catch_unwind(AssertUnwindSafe(|| {
            placer.place(number, item, &mut |out| work(&key, out))
        }));
        let placed = placed.unwrap_or_else(|_| Err(InstanceError::Strange("a fault of this program".to_owned())));
        let is_away = |error: &InstanceError| {
            matches!(error, InstanceError::NotTaken(Reason::Storage)) && self.destination.is_away()
        };
        if placed.as_ref().is_err_and(is_away) {
            let failure = Failure::new(Code::TryLater, "the agent at the storage element is not there any more");
            self.stop(Stop::Place(failure));
        }
        Ok((key, placed?))
    }

    fn stop(&self, stop: Stop) {
        self.is_stopped.store(true, Ordering::Release);
        self.state().stop.get_or_insert(stop);
        self.waiting.wake();
    }

    /// What came of instances, told.
    pub fn settle(&self, done: Vec<Settled>) {
        if done.is_empty() {
            return;
        }
        let failed = done.iter().filter(|(_, result)| result.is_err());
        self.state().failed.extend(failed.map(|(number, _)| *number));
        if let Err(failure) = self.teller.settled(done) {
            self.stop(Stop::Told(failure));
        }
    }
}

fn note_reasons(reasons: &mut BTreeMap<Uid, InstanceError>, retrieved: Retrieved) {
    for instance in retrieved.failed {
        reasons.insert(instance, InstanceError::NotSent);
    }
    for (instance, strange) in retrieved.strange {
        if let Some(instance) = instance {
            reasons.insert(instance, InstanceError::Strange(strange.to_string()));
        }
    }
}

/// Remembers whether it was the PACS that failed.
struct Watched<R> {
    inner: R,
    has_failed: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(out).inspect_err(|_| self.has_failed = true)
    }
}

/// Room for plaintext that waits: whoever brings more waits too, and so does the PACS.
pub struct Waiting {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Some of it, given back on drop.
struct Room<'a> {
    of: &'a Waiting,
    bytes: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self::new(WAITING_BYTES)
    }
}

impl Waiting {
    fn new(bytes: usize) -> Self {
        Self {
            free: Mutex::new(bytes),
            changed: Condvar::new(),
        }
    }

    fn room(&self, bytes: usize, is_over: impl Fn() -> bool) -> Option<Room<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            if is_over() {
                return None;
            }
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Some(Room { of: self, bytes })
    }

    /// Has whoever waits look whether all is to end.
    pub fn wake(&self) {
        // whoever is about to wait looks with the lock in hand
        drop(self.free.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.of.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.of.changed.notify_all();
    }
}

/// The exit code of what went wrong with an instance, the worst of several.
pub(crate) fn worse(one: Option<Code>, other: Code) -> Code {
    match one {
        Some(one) if eds::failure::severity(one) >= eds::failure::severity(other) => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn buffers_are_used_again_but_for_large_and_many_ones() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.bytes.write_all(b"a patient's").unwrap();
        let at = first.bytes.0.as_ptr();
        drop(first);
        let again = buffers.take();
        assert_eq!((again.bytes.0.len(), again.bytes.0.as_ptr()), (0, at));
        let mut large = buffers.take();
        large.bytes.reserve(3 * BUFFER_BYTES);
        drop((again, large));
        assert_eq!(buffers.0.lock().unwrap().len(), 1);
        drop((0..2 * BUFFERS).map(|_| buffers.take()).collect::<Vec<_>>());
        assert_eq!(buffers.0.lock().unwrap().len(), BUFFERS);
    }

    #[test]
    fn room_is_given_back_and_nobody_waits_for_it_in_vain() {
        let (waiting, stopped) = (Waiting::new(10), AtomicBool::new(false));
        let is_over = || stopped.load(Ordering::Acquire);
        let first = waiting.room(10, is_over).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| waiting.room(5, is_over).is_some());
            drop(first);
            assert!(second.join().unwrap());
            let all = waiting.room(10, is_over).unwrap();
            let third = scope.spawn(|| waiting.room(1, is_over).is_none());
            stopped.store(true, Ordering::Release);
            waiting.wake();
            assert!(third.join().unwrap());
            drop(all);
        });
    }
}
