//! What must happen before a signal ends the process: temporary files removed, a terminal's echo back on.
//!
//! A thread waits for SIGINT, SIGTERM and SIGHUP, runs what is registered, the latest first, and lets the signal do
//! what it would have done, so that a shell sees the right status.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

type Action = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Registry {
    next: u64,
    actions: BTreeMap<u64, Action>,
}

static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();

/// Takes its action back when dropped: what it guarded is done with.
#[must_use = "the action is taken back when this is dropped"]
pub struct OnSignal(u64);

impl Drop for OnSignal {
    fn drop(&mut self) {
        registry().actions.remove(&self.0);
    }
}

/// Runs `action` if a signal ends the process before the answer is dropped.
///
/// # Errors
/// Where the process cannot wait for signals.
pub fn on_signal(action: impl FnOnce() + Send + 'static) -> io::Result<OnSignal> {
    watch()?;
    let mut registry = registry();
    let number = registry.next;
    registry.next += 1;
    registry.actions.insert(number, Box::new(action));
    Ok(OnSignal(number))
}

/// Removes a file, best effort, if a signal ends the process before the answer is dropped.
///
/// # Errors
/// As [`on_signal`].
pub fn remove_on_signal(path: &Path) -> io::Result<OnSignal> {
    let path = path.to_owned();
    on_signal(move || {
        let _ = std::fs::remove_file(path);
    })
}

fn registry() -> MutexGuard<'static, Registry> {
    // a panic elsewhere leaves the map whole
    REGISTRY
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Starts the waiting thread once.
fn watch() -> io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                run_all();
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })?;
        *started = true;
    }
    Ok(())
}

fn run_all() {
    let actions = std::mem::take(&mut registry().actions);
    actions.into_values().rev().for_each(|action| action());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_registered_runs_latest_first_and_what_is_dropped_does_not() {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let register = |name: &'static str| {
            let ran = Arc::clone(&ran);
            on_signal(move || ran.lock().unwrap().push(name)).unwrap()
        };
        let _first = register("first");
        let dropped = register("dropped");
        let _last = register("last");
        drop(dropped);
        run_all();
        assert_eq!(*ran.lock().unwrap(), ["last", "first"]);
    }
}
