//! `dicom-recall now`: one shot, without a daemon. The retrieval, de-identification, sealing and placing of a series go
//! on side by side; one bad instance fails alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dicom_deid::Profile;
use dicom_net::{Arrival, Found, Retrieved, Taken, Uid, Wanted};
use eds::failure::severity;
use eds::session::Session;
use eds::voice::Voice;
use hydra_cli::progress::Progress;
use hydra_cli::signals::on_signal;
use hydra_cli::{Code, Failure};
use hydra_core::sealed::{self, Batch, Output};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError};
use crate::keys::{HeldKey, Keys, is_general};
use crate::names::{Ids, KeyPer, Template, key_name, path_under};
use crate::pipeline::{self, InstanceError, Placing, Sealed, Target, WHOLE_BYTES, Wiping};
use crate::source::Source;
use crate::{Now, secret};

/// How much plaintext may wait for its turn.
const WAITING_BYTES: usize = 48 * 1024 * 1024;
/// Files that are flushed and named together, at most.
const BATCH: usize = 16;
/// Threads that de-identify and seal beside the retrieval.
const WORKERS: usize = 2;

/// A configuration that cannot be used, as a failure.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn config_failure(error: ConfigError) -> Failure {
    Failure::new(Code::Config, error)
}

/// `dicom-recall now`.
///
/// # Errors
/// What was in the way of all, or the worst of what happened to single instances after the others were placed.
pub fn now(args: &Now) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let wanted = wanted(&args.what)?;
    let mut config = Config::read(&args.config).map_err(config_failure)?;
    if let Some(key_per) = args.key_per {
        config.names = Template::parse(&config.name_text, key_per)
            .map_err(|error| Failure::new(Code::Usage, error).advise("`name` under [seal] in the configuration"))?;
        config.key_per = key_per;
    }
    if !args.dir.is_dir() {
        let text = format!("`{}` is no folder to put files into", args.dir.display());
        return Err(Failure::new(Code::CannotCreate, text));
    }
    let private = args.private_out.as_deref().map(private_file).transpose()?;
    let session = Session::open(&args.stores)?;
    let secret = secret::secret(&session, &config.secret)?;
    let profile = Profile::new(config.deid.clone(), &secret);
    drop(secret);
    let source = Source::open(&config.pacs)?;
    let found = source.find(&wanted)?;
    if found.is_empty() {
        let text = format!("{} has nothing of what was asked for", source.peer());
        return Err(
            Failure::new(Code::Io, text).advise("the identifiers, and whether the PACS lets our title see them")
        );
    }
    let _cleaning = on_signal(sealed::remove_temporary_files).ok();
    let keys = Keys::new(&session, voice);
    let run = Run {
        voice,
        profile: &profile,
        keys: &keys,
        key_per: config.key_per,
        overwrite: args.force,
        private: private.map(Mutex::new),
        items: found
            .iter()
            .map(|found| item(&config, &profile, &wanted, &args.dir, found))
            .collect(),
        state: Mutex::new(State::default()),
        waiting: Waiting::new(WAITING_BYTES),
        is_stopped: AtomicBool::new(false),
        bar: Progress::count(
            "instances",
            found.len() as u64,
            args.manners.verbosity.quiet || args.manners.json,
        ),
    };
    run.refuse_existing()?;
    let told = run.all(&source, &wanted, &found, args.attempts);
    let (placed, failed, worst) = run.summary();
    drop(run);
    let used = keys.finish();
    told?;
    voice.result(&format!(
        "placed {placed} of {} instances under {used} keys",
        placed + failed
    ))?;
    match worst {
        None => {
            voice.hint("open one with: eds-decrypt FILE OUT");
            Ok(())
        }
        Some(code) => Err(Failure::new(
            code,
            format!("{failed} of {} instances were not placed", placed + failed),
        )),
    }
}

/// Reads `STUDY[/SERIES[/INSTANCE]]`.
fn wanted(text: &str) -> Result<Wanted, Failure> {
    let parts: Result<Vec<Uid>, _> = text.split('/').map(Uid::new).collect();
    let usage = |error: String| hydra_cli::command::usage_error(format!("`{text}`: {error}"));
    let mut parts = parts.map_err(|error| usage(error.to_string()))?.into_iter();
    let (study, series, instance) = (parts.next(), parts.next(), parts.next());
    match (study, parts.next()) {
        (Some(study), None) => Ok(Wanted {
            study,
            series,
            instances: instance.into_iter().collect(),
        }),
        _ => Err(usage("not STUDY, STUDY/SERIES or STUDY/SERIES/INSTANCE".to_owned())),
    }
}

/// For nobody but its owner, and never one that is there.
fn private_file(path: &Path) -> Result<File, Failure> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| {
        let text = format!("cannot make `{}`", path.display());
        Failure::new(Code::CannotCreate, eds::failure::Because::new(text, error))
    })
}

/// An instance that is to be placed.
struct Item {
    instance: Uid,
    target: Target,
}

fn item(config: &Config, profile: &Profile, wanted: &Wanted, dir: &Path, found: &Found) -> Item {
    let original = Ids {
        study: wanted.study.to_string(),
        series: found.series.to_string(),
        instance: found.instance.to_string(),
    };
    let new = Ids {
        study: profile.uid(&original.study),
        series: profile.uid(&original.series),
        instance: profile.uid(&original.instance),
    };
    let name = config.names.name(&new, &original);
    Item {
        instance: found.instance.clone(),
        target: Target {
            path: path_under(dir, &name),
            name,
            new,
        },
    }
}

/// What became of the instances so far.
#[derive(Default)]
struct State {
    /// Those that came, by number.
    came: BTreeSet<usize>,
    placed: BTreeSet<usize>,
    failed: BTreeSet<usize>,
    worst: Option<Code>,
    /// Why no more is to be done.
    stop: Option<Failure>,
}

/// What was sealed, and under what.
type Done = (Arc<HeldKey>, Sealed);

/// What is sealed and has no name yet, by the path that it will have.
type Unnamed = BTreeMap<PathBuf, (usize, Done)>;

/// An instance in memory on its way to a worker.
struct Whole<'a> {
    number: usize,
    file: Zeroizing<Vec<u8>>,
    _room: Room<'a>,
}

struct Run<'a> {
    voice: Voice,
    profile: &'a Profile,
    keys: &'a Keys<'a>,
    key_per: KeyPer,
    overwrite: bool,
    private: Option<Mutex<File>>,
    items: Vec<Item>,
    state: Mutex<State>,
    waiting: Waiting,
    is_stopped: AtomicBool,
    bar: Progress,
}

impl Run<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there already is told before the PACS is asked for it.
    fn refuse_existing(&self) -> Result<(), Failure> {
        let there = |item: &&Item| std::fs::symlink_metadata(&item.target.path).is_ok();
        let existing: Vec<usize> = (0..self.items.len())
            .filter(|number| there(&&self.items[*number]))
            .collect();
        if self.overwrite {
            return Ok(());
        }
        for number in existing {
            self.fail(number, &InstanceError::Exists)?;
        }
        Ok(())
    }

    /// Series by series.
    fn all(&self, source: &Source, wanted: &Wanted, found: &[Found], attempts: u32) -> Result<(), Failure> {
        let mut series: BTreeMap<&Uid, Vec<usize>> = BTreeMap::new();
        for (number, one) in found.iter().enumerate() {
            series.entry(&one.series).or_default().push(number);
        }
        let (sender, receiver) = sync_channel(2 * BATCH);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| self.work(&receiver));
            }
            // dropped at the end, so that the workers end when all is done
            let sender = sender;
            for (series, numbers) in series {
                if self.is_stopped.load(Ordering::Acquire) {
                    break;
                }
                self.series(source, wanted, series, &numbers, found, attempts, &sender)?;
            }
            Ok::<(), Failure>(())
        })?;
        match self.state().stop.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call, of one private function by another")]
    fn series<'s>(
        &'s self,
        source: &Source,
        wanted: &Wanted,
        series: &Uid,
        numbers: &[usize],
        found: &[Found],
        attempts: u32,
        sender: &SyncSender<Whole<'s>>,
    ) -> Result<(), Failure> {
        // where the PACS does not tell all of them, the likely ones are proposed
        let classes: Option<BTreeSet<Uid>> = numbers.iter().map(|number| found[*number].class.clone()).collect();
        let classes: Vec<Uid> = classes.unwrap_or_default().into_iter().collect();
        let by_instance: BTreeMap<&Uid, usize> = numbers
            .iter()
            .map(|number| (&self.items[*number].instance, *number))
            .collect();
        let mut reasons: BTreeMap<Uid, InstanceError> = BTreeMap::new();
        for attempt in 1..=attempts {
            let open = self.open(numbers);
            if open.is_empty() || self.is_stopped.load(Ordering::Acquire) {
                break;
            }
            if self.key_per == KeyPer::Series && !self.key_is_there(&open)? {
                return Ok(());
            }
            // by name as soon as some are not wanted, and never more than the PACS was asked for
            let all = open.len() == numbers.len() && wanted.instances.is_empty();
            let this = Wanted {
                study: wanted.study.clone(),
                series: Some(series.clone()),
                instances: if all {
                    Vec::new()
                } else {
                    open.iter().map(|n| self.items[*n].instance.clone()).collect()
                },
            };
            let retrieved = source.retrieve(&this, &classes, &mut |arrival: &Arrival, file: &mut dyn Read| {
                match by_instance.get(&arrival.identity.instance) {
                    Some(number) => self.take(*number, file, sender),
                    // it came to the PACS after we looked
                    None => Taken::Dropped,
                }
            });
            match retrieved {
                Ok(retrieved) => note_reasons(&mut reasons, retrieved),
                Err(_) if self.is_stopped.load(Ordering::Acquire) => break,
                // no other series would come either
                Err(error) if !error.is_passing() => {
                    self.stop(error.into());
                    break;
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    if attempt == attempts {
                        let code = failure.code;
                        let _ = hydra_cli::exit(Err(failure));
                        self.worsen(code);
                        break;
                    }
                    self.voice.warning(&format!("{}, asking again", failure.error));
                }
            }
        }
        if self.is_stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        for number in self.open(numbers) {
            let reason = reasons.remove(&self.items[number].instance);
            self.fail(number, &reason.unwrap_or(InstanceError::Missing))?;
        }
        Ok(())
    }

    /// Of these, those that did not come.
    fn open(&self, numbers: &[usize]) -> Vec<usize> {
        let state = self.state();
        let is_open = |number: &&usize| !state.came.contains(number) && !state.failed.contains(number);
        numbers.iter().filter(is_open).copied().collect()
    }

    /// Whether the key of a series can be had; if not, nothing of it need be fetched.
    fn key_is_there(&self, numbers: &[usize]) -> Result<bool, Failure> {
        let Some(first) = numbers.first() else { return Ok(false) };
        let name = key_name(&self.items[*first].target.name, self.key_per);
        let Err(failure) = self.keys.key(name) else {
            return Ok(true);
        };
        if is_general(&failure) {
            self.stop(failure);
            return Ok(false);
        }
        for number in numbers {
            self.fail(*number, &InstanceError::Key(failure.error.to_string(), failure.code))?;
        }
        Ok(false)
    }

    /// An instance comes in: small ones go to the workers, large ones through here.
    fn take<'s>(&'s self, number: usize, file: &mut dyn Read, sender: &SyncSender<Whole<'s>>) -> Taken {
        if self.is_stopped.load(Ordering::Acquire) {
            return Taken::Stop;
        }
        if self.state().failed.contains(&number) {
            return Taken::Dropped;
        }
        let mut start = Wiping(Zeroizing::new(Vec::with_capacity(1024 * 1024)));
        let limit = WHOLE_BYTES as u64 + 1;
        if std::io::copy(&mut file.take(limit), &mut start).is_err() {
            return Taken::Dropped;
        }
        let start = start.0;
        if start.len() <= WHOLE_BYTES {
            let Some(room) = self.waiting.room(start.len(), &self.is_stopped) else {
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
        let mut watched = Watched {
            inner: start.as_slice().chain(file),
            has_failed: false,
        };
        let done = self.with_key(number, |key, placing| {
            pipeline::flowing(self.profile, key, &self.items[number].target, &mut watched, placing)
        });
        // what the PACS broke off may come whole the next time
        if watched.has_failed {
            return Taken::Dropped;
        }
        self.state().came.insert(number);
        let taken = if done.is_ok() { Taken::Kept } else { Taken::Dropped };
        self.settle(number, done);
        taken
    }

    /// Takes instances until there are no more; names files when there is nothing else to do, or enough of them.
    fn work(&self, receiver: &Mutex<Receiver<Whole<'_>>>) {
        let batch = Batch::new();
        let mut done = Unnamed::new();
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
                let target = &self.items[whole.number].target;
                let result = self.with_key(whole.number, |key, placing| {
                    let placing = Placing {
                        batch: Some(&batch),
                        ..placing
                    };
                    pipeline::whole(self.profile, key, target, &whole.file, placing)
                });
                match result {
                    Ok(sealed) => {
                        done.insert(target.path.clone(), (whole.number, sealed));
                    }
                    Err(error) => self.settle(whole.number, Err(error)),
                }
            }
            if !matches!(next, Ok(Some(_))) || done.len() >= BATCH {
                self.name_files(&batch, &mut done);
            }
            if next.is_err() {
                return;
            }
        }
    }

    fn name_files(&self, batch: &Batch, done: &mut Unnamed) {
        for (output, result) in batch.commit() {
            let Output::File(path) = output else { continue };
            let Some((number, sealed)) = done.remove(&path) else {
                continue;
            };
            let named = result.map_err(|error| InstanceError::Seal(sealed::SealError::Output(error)));
            self.settle(number, named.map(|()| sealed));
        }
    }

    fn with_key(
        &self,
        number: usize,
        work: impl FnOnce(&HeldKey, Placing<'_>) -> Result<Sealed, InstanceError>,
    ) -> Result<Done, InstanceError> {
        let name = key_name(&self.items[number].target.name, self.key_per);
        let key = self.keys.key(name).map_err(|failure| {
            let error = InstanceError::Key(failure.error.to_string(), failure.code);
            if is_general(&failure) {
                self.stop(failure);
            }
            error
        })?;
        let placing = Placing {
            overwrite: self.overwrite,
            batch: None,
        };
        let sealed = work(&key, placing)?;
        Ok((key, sealed))
    }

    fn stop(&self, failure: Failure) {
        self.is_stopped.store(true, Ordering::Release);
        self.state().stop.get_or_insert(failure);
        self.waiting.wake();
    }

    /// What came of an instance, told.
    fn settle(&self, number: usize, result: Result<Done, InstanceError>) {
        let told = match result {
            Ok((key, sealed)) => self.placed(number, &key, &sealed),
            Err(error) => self.fail(number, &error),
        };
        if let Err(failure) = told {
            self.stop(failure);
        }
    }

    fn placed(&self, number: usize, key: &HeldKey, sealed: &Sealed) -> Result<(), Failure> {
        key.mark_used();
        let target = &self.items[number].target;
        if let Some(private) = &self.private {
            let mut line = json!({ "name": target.name });
            line["private"] = sealed.deid.to_private_json();
            let mut file = private.lock().unwrap_or_else(PoisonError::into_inner);
            let written = writeln!(file, "{line}");
            written.map_err(|error| {
                Failure::new(
                    Code::Io,
                    eds::failure::Because::new("cannot write the private half", error),
                )
            })?;
        }
        for flag in &sealed.deid.flags {
            self.voice
                .warning(&format!("`{}` should be looked at: {flag}", target.name));
        }
        {
            let mut state = self.state();
            state.placed.insert(number);
            self.bar.set((state.placed.len() + state.failed.len()) as u64);
        }
        self.voice.json(&json!({
            "state": "placed",
            "name": target.name,
            "file": target.path.to_string_lossy(),
            "key_id": key.key_id.as_str(),
            "registration_id": key.registration_id.to_string(),
            "plaintext_bytes": sealed.sealed.plaintext_bytes,
            "file_bytes": sealed.sealed.file_bytes,
            "deid": sealed.deid.to_json(),
        }))
    }

    fn fail(&self, number: usize, error: &InstanceError) -> Result<(), Failure> {
        let target = &self.items[number].target;
        let code = error.code();
        {
            let mut state = self.state();
            state.failed.insert(number);
            self.bar.set((state.placed.len() + state.failed.len()) as u64);
        }
        self.worsen(code);
        let mut causes = vec![error.to_string()];
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let text = causes.join(": ");
        self.voice.warning(&format!("`{}`: {text}", target.name));
        self.voice.json(&json!({
            "state": "failed",
            "name": target.name,
            "error": text,
            "code": code as u8,
        }))
    }

    fn worsen(&self, code: Code) {
        let mut state = self.state();
        if state.worst.is_none_or(|worst| severity(code) > severity(worst)) {
            state.worst = Some(code);
        }
    }

    fn summary(&self) -> (usize, usize, Option<Code>) {
        let state = self.state();
        (state.placed.len(), self.items.len() - state.placed.len(), state.worst)
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
struct Waiting {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Some of it, given back on drop.
struct Room<'a> {
    of: &'a Waiting,
    bytes: usize,
}

impl Waiting {
    fn new(bytes: usize) -> Self {
        Self {
            free: Mutex::new(bytes),
            changed: Condvar::new(),
        }
    }

    fn room(&self, bytes: usize, is_stopped: &AtomicBool) -> Option<Room<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            if is_stopped.load(Ordering::Acquire) {
                return None;
            }
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Some(Room { of: self, bytes })
    }

    fn wake(&self) {
        // whoever is about to wait looks at the flag with the lock in hand
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_one_to_three_identifiers() {
        let uids = |text: &str| wanted(text).map(|wanted| (wanted.series.is_some(), wanted.instances.len()));
        assert_eq!(uids("1.2").unwrap(), (false, 0));
        assert_eq!(uids("1.2/1.3").unwrap(), (true, 0));
        assert_eq!(uids("1.2/1.3/1.4").unwrap(), (true, 1));
        for bad in ["", "/", "1.2/", "1/2/3/4", "../etc", "1.2/..", "1.a"] {
            assert_eq!(uids(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn room_is_given_back_and_nobody_waits_for_it_in_vain() {
        let (waiting, stopped) = (Waiting::new(10), AtomicBool::new(false));
        let first = waiting.room(10, &stopped).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| waiting.room(5, &stopped).is_some());
            drop(first);
            assert!(second.join().unwrap());
            let all = waiting.room(10, &stopped).unwrap();
            let third = scope.spawn(|| waiting.room(1, &stopped).is_none());
            stopped.store(true, Ordering::Release);
            waiting.wake();
            assert!(third.join().unwrap());
            drop(all);
        });
    }
}
