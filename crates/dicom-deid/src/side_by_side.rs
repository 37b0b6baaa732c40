//! Work on many things with several threads, whose results are taken in the order of the things. However many things
//! there are, no more than a window of them is worked on or waits to be taken.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Works on all `things` and has `take` take what is done, as many at once as there are, in their order.
///
/// # Errors
/// That of `take`; nothing more is begun then.
pub(crate) fn in_order<T: Sync, R: Send, E>(
    things: &[T],
    threads: usize,
    window: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(Vec<(&T, R)>) -> Result<(), E>,
) -> Result<(), E> {
    let shared = Shared {
        state: Mutex::new(State {
            next: 0,
            taken: 0,
            done: BTreeMap::new(),
            is_over: false,
        }),
        changed: Condvar::new(),
        count: things.len(),
        window: window.max(1),
    };
    let do_one = |at: usize| {
        // who takes it is to hear of a panic, and not to wait for ever
        let result = catch_unwind(AssertUnwindSafe(|| work(&things[at])));
        shared.lock().done.insert(at, result);
        shared.changed.notify_all();
    };
    thread::scope(|scope| {
        let _end = End(&shared);
        for _ in 1..threads.min(things.len()) {
            // whoever takes works too, so that it goes on without
            let _ = thread::Builder::new().spawn_scoped(scope, || {
                while let Some(at) = shared.wait_for_one() {
                    do_one(at);
                }
            });
        }
        let mut taken = 0;
        while taken < things.len() {
            let mut state = shared.lock();
            let mut ready = Vec::new();
            while let Some(result) = state.done.remove(&(taken + ready.len())) {
                let thing = &things[taken + ready.len()];
                ready.push((thing, result.unwrap_or_else(|panic| resume_unwind(panic))));
            }
            if !ready.is_empty() {
                drop(state);
                taken += ready.len();
                take(ready)?;
                shared.lock().taken = taken;
                shared.changed.notify_all();
            } else if let Some(at) = state.claim(&shared) {
                drop(state);
                do_one(at);
            } else {
                drop(shared.wait(state));
            }
        }
        Ok(())
    })
}

struct State<R> {
    /// The first that nobody has begun.
    next: usize,
    /// How many were taken.
    taken: usize,
    done: BTreeMap<usize, thread::Result<R>>,
    is_over: bool,
}

impl<R> State<R> {
    /// One to work on, if there is one and it fits into the window.
    fn claim(&mut self, shared: &Shared<R>) -> Option<usize> {
        let at = self.next;
        let fits = at < shared.count && at < self.taken + shared.window;
        fits.then(|| {
            self.next += 1;
            at
        })
    }
}

struct Shared<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    count: usize,
    window: usize,
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<R>>) -> MutexGuard<'a, State<R>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one to work on; none once all are begun, or nothing more is wanted.
    fn wait_for_one(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.is_over || state.next >= self.count {
                return None;
            }
            if let Some(at) = state.claim(self) {
                return Some(at);
            }
            state = self.wait(state);
        }
    }
}

/// Ends the threads on drop, however the taking ended.
struct End<'a, R>(&'a Shared<R>);

impl<R> Drop for End<'_, R> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_no_more_wait_than_the_window_has() {
        let things: Vec<usize> = (0..500).collect();
        for (threads, window) in [(1, 1), (1, 9), (2, 1), (3, 4), (8, 16), (8, 1000)] {
            let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut came = Vec::new();
            let work = |thing: &usize| {
                let now = open.fetch_add(1, Ordering::AcqRel) + 1;
                most.fetch_max(now, Ordering::AcqRel);
                for _ in 0..thing * 7 % 13 {
                    thread::yield_now();
                }
                thing * 2
            };
            let done = in_order(&things, threads, window, work, |ready| {
                open.fetch_sub(ready.len(), Ordering::AcqRel);
                came.extend(ready.into_iter().map(|(thing, result)| (*thing, result)));
                Ok::<_, ()>(())
            });
            assert_eq!(done, Ok(()));
            assert!(came.iter().copied().eq(things.iter().map(|thing| (*thing, thing * 2))));
            assert!(most.into_inner() <= window, "{threads} {window}");
        }
    }

    #[test]
    fn what_fails_ends_it() {
        let things: Vec<usize> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let work = |_: &usize| begun.fetch_add(1, Ordering::AcqRel);
        let done = in_order(&things, 4, 8, work, |_| Err("full"));
        assert_eq!(done, Err("full"));
        assert!(begun.into_inner() <= 16);
        let panics = catch_unwind(|| {
            let work = |thing: &usize| assert!(*thing != 20, "the twenty-first");
            in_order(&things, 4, 8, work, |_| Ok::<_, ()>(()))
        });
        assert!(panics.is_err());
        let none: [usize; 0] = [];
        assert_eq!(in_order(&none, 4, 8, |_| (), |_| Err(())), Ok(()));
    }
}
