//! Writers that come at once share a commit: each works in turn inside the transaction of the one before, in a part of
//! its own, and all are answered when that is on disk. Flushing takes longer than most of what is written.
//!
//! Nobody waits for company: the transaction ends with the writer behind whom nobody stands, and not later than
//! [`LONGEST`] after it began.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::DatabaseError;

/// How long a transaction takes writers in.
const LONGEST: Duration = Duration::from_millis(20);
/// How many it takes.
const MOST: usize = 64;
/// For how long a writer may work before those that come are told to come again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Groups that failed are remembered until nobody of them can still ask.
const REMEMBERED: usize = 256;

/// A connection that writes.
pub(super) trait Connection {
    /// Why a transaction failed, for each member of a group.
    type Fault: Clone;

    /// Begins a transaction; `lightly`: what it commits may be on disk some time later.
    fn begin(&mut self, lightly: bool) -> Result<(), DatabaseError>;

    /// Runs `work` in a part of the transaction, which is taken back if it answers false. An error is of the whole
    /// transaction, of which nothing is left then.
    fn part(&mut self, work: &mut dyn FnMut(&dyn super::Sql) -> bool) -> Result<Part, Self::Fault>;

    /// Has all of it on disk, or nothing.
    fn commit(&mut self) -> Result<(), Self::Fault>;

    /// Takes everything back, as a member panicked; what the others are told.
    fn rollback(&mut self) -> Self::Fault;
}

/// What became of a part.
pub(super) enum Part {
    Kept,
    TakenBack,
    /// It cannot be kept; the others can.
    Failed(DatabaseError),
}

/// Why a writer did nothing.
pub(super) enum Failed<F> {
    /// Its group did nothing.
    Group(F),
    /// It alone.
    Own(DatabaseError),
}

impl<F: Into<DatabaseError>> From<Failed<F>> for DatabaseError {
    fn from(failed: Failed<F>) -> Self {
        match failed {
            Failed::Group(fault) => fault.into(),
            Failed::Own(error) => error,
        }
    }
}

/// Writers and their connection.
pub(super) struct Writers<C: Connection> {
    turn: Mutex<Turn<C>>,
    /// When the one whose turn it is began to work.
    since: Mutex<Option<Instant>>,
    patience: Duration,
    /// Who stands behind the one whose turn it is.
    waiting: AtomicUsize,
    ended: Mutex<Ended<C::Fault>>,
    told: Condvar,
}

struct Turn<C> {
    connection: C,
    group: u64,
    members: usize,
    began: Instant,
    lightly: bool,
}

struct Ended<F> {
    /// All groups up to this one.
    up_to: u64,
    failed: VecDeque<(u64, F)>,
}

impl<C: Connection> Writers<C> {
    pub(super) fn new(connection: C) -> Self {
        Self {
            turn: Mutex::new(Turn {
                connection,
                group: 0,
                members: 0,
                began: Instant::now(),
                lightly: false,
            }),
            since: Mutex::default(),
            patience: PATIENCE,
            waiting: AtomicUsize::new(0),
            ended: Mutex::new(Ended {
                up_to: 0,
                failed: VecDeque::new(),
            }),
            told: Condvar::new(),
        }
    }

    /// With another patience.
    #[cfg(test)]
    pub(super) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The connection, for something beside transactions.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut C) -> T) -> T {
        // Not as one who waits: those are left what the others did.
        work(&mut lock(&self.turn).connection)
    }

    fn turn(&self) -> MutexGuard<'_, Turn<C>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let turn = lock(&self.turn);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        turn
    }

    /// Runs `work`; if it answers true, what it did is on disk when this returns, or `lightly` some time later.
    pub(super) fn write(
        &self,
        lightly: bool,
        work: &mut dyn FnMut(&dyn super::Sql) -> bool,
    ) -> Result<(), Failed<C::Fault>> {
        // Whoever waits already may have been left the commit by the one before, and stays.
        if lock(&self.since).is_some_and(|since| since.elapsed() > self.patience) {
            return Err(Failed::Own(DatabaseError::Closed));
        }
        let mut turn = self.turn();
        if turn.members == 0 {
            turn.connection.begin(lightly).map_err(Failed::Own)?;
            turn.lightly = lightly;
            turn.group += 1;
            turn.began = Instant::now();
        }
        turn.members += 1;
        let group = turn.group;
        *lock(&self.since) = Some(Instant::now());
        let worked = catch_unwind(AssertUnwindSafe(|| turn.connection.part(work)));
        *lock(&self.since) = None;
        let part = match worked {
            Ok(Ok(part)) => part,
            Ok(Err(fault)) => {
                self.end(turn, Err(fault.clone()));
                return Err(Failed::Group(fault));
            }
            Err(panic) => {
                let fault = turn.connection.rollback();
                self.end(turn, Err(fault));
                resume_unwind(panic)
            }
        };
        // Who comes behind a light one may want more.
        let is_last = turn.lightly
            || self.waiting.load(Ordering::SeqCst) == 0
            || turn.members >= MOST
            || turn.began.elapsed() >= LONGEST;
        if is_last {
            let committed = turn.connection.commit();
            self.end(turn, committed);
        } else {
            // Whoever waits works next, and commits or leaves that to the next one.
            drop(turn);
        }
        match part {
            Part::Kept => self.wait(group),
            Part::TakenBack => Ok(()),
            Part::Failed(error) => Err(Failed::Own(error)),
        }
    }

    /// Tells the members of a group what became of it, before the next group begins.
    fn end(&self, mut turn: MutexGuard<'_, Turn<C>>, result: Result<(), C::Fault>) {
        turn.members = 0;
        let mut ended = lock(&self.ended);
        ended.up_to = turn.group;
        if let Err(fault) = result {
            ended.failed.push_back((turn.group, fault));
            if ended.failed.len() > REMEMBERED {
                ended.failed.pop_front();
            }
        }
        self.told.notify_all();
    }

    fn wait(&self, group: u64) -> Result<(), Failed<C::Fault>> {
        let mut ended = lock(&self.ended);
        while ended.up_to < group {
            ended = self.told.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = ended.failed.iter().find(|(failed, _)| *failed == group);
        fault.map_or(Ok(()), |(_, fault)| Err(Failed::Group(fault.clone())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
