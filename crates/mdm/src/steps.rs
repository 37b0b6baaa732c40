//! The steps of a registration: operation begun, entries, keys, registry, operation committed. Each may be done again,
//! and whatever ends a run between two of them, the next one goes on from there or takes all of it back. What it talks
//! to is behind traits, so that the tests can end it anywhere (`docs/src/tutorial-story.md` tells it from outside).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dicom_recall::catalogued::{Catalogued, MadeKey, State};
use dicom_recall::database::DatabaseError;
use dicom_recall::ledger::database_failure;
use dicom_recall::registry::{Added, Instance, Registry, Which};
use hydra_cli::{Code, Failure};
use hydra_core::keystore::wire::ProblemKind;
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{
    Answer, Attributes, Change, Created, Entry, FoundEntry, Kind, Lookup, MAX_ITEMS, NewEntry, OperationBegin,
    OperationEnd, OperationState, Removal,
};

/// Keys that are registered side by side.
const KEYS_AT_ONCE: usize = 8;

/// A catalogue, as far as a registration needs it.
pub trait Names {
    /// Begins an operation, or answers how far it is.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn begin(&self, begin: &OperationBegin) -> Result<OperationState, CatalogError>;
    /// Makes entries; an answer for each.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn create(&self, entries: &[NewEntry]) -> Result<Vec<Answer<Created>>, CatalogError>;
    /// Ends an operation; one that has ended otherwise is a conflict.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn end(&self, end: &OperationEnd) -> Result<(), CatalogError>;
    /// Shows entries.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn show(&self, paths: &[String]) -> Result<Vec<Answer<Entry>>, CatalogError>;
    /// Gives an entry attributes that it has not.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn fill(&self, path: &str, attributes: Attributes) -> Result<(), CatalogError>;
    /// Removes entries.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError>;
    /// All entries of an open operation, by path.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn of_operation(&self, id: &str) -> Result<Vec<FoundEntry>, CatalogError>;
}

impl Names for CatalogClient {
    fn begin(&self, begin: &OperationBegin) -> Result<OperationState, CatalogError> {
        Self::begin(self, begin).map(|operation| operation.state)
    }

    fn create(&self, entries: &[NewEntry]) -> Result<Vec<Answer<Created>>, CatalogError> {
        Self::create(self, entries)
    }

    fn end(&self, end: &OperationEnd) -> Result<(), CatalogError> {
        Self::end(self, end).map(drop)
    }

    fn show(&self, paths: &[String]) -> Result<Vec<Answer<Entry>>, CatalogError> {
        Self::show(self, paths)
    }

    fn fill(&self, path: &str, attributes: Attributes) -> Result<(), CatalogError> {
        let change = Change {
            path: path.to_owned(),
            attributes,
            ..Change::default()
        };
        self.change_one(&change).map(drop)
    }

    fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError> {
        Self::remove(self, removals)
    }

    fn of_operation(&self, id: &str) -> Result<Vec<FoundEntry>, CatalogError> {
        self.lookup(&Lookup {
            operation: Some(id.to_owned()),
            ..Lookup::default()
        })
    }
}

/// The key stores, as far as a registration needs them.
pub trait KeyStores: Sync {
    /// Has a key of this name; answers which registration of it is ours, where it is. `note` is told each registration
    /// before a store is; `noted` are those that it was told in an earlier run, which are ours where they are there.
    ///
    /// # Errors
    /// Where there is none that may be used.
    fn ensure(&self, key_id: &str, noted: &BTreeSet<String>, note: Note<'_>) -> Result<Option<String>, Failure>;
    /// Whether that registration of a key is there; none, where it cannot be told.
    ///
    /// # Errors
    /// What was in the way.
    fn is_there(&self, key_id: &str, registration_id: &str) -> Result<Option<bool>, Failure>;
    /// Removes that registration of a key; one that is gone is no error.
    ///
    /// # Errors
    /// Where it is not gone at all stores.
    fn unregister(&self, key_id: &str, registration_id: &str) -> Result<(), Failure>;
}

/// Writes a registration of a key down before it is made.
pub type Note<'a> = &'a dyn Fn(&str) -> Result<(), DatabaseError>;

/// An image that is to be registered.
#[derive(Clone)]
pub struct Planned {
    /// As recall knows it.
    pub instance: Instance,
    /// As the catalogue gets it.
    pub entry: NewEntry,
}

/// What a registration came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Entries that are new.
    pub new: usize,
    /// Entries that were there, the same.
    pub known: usize,
    /// Keys that are new.
    pub keys: usize,
    /// Those that were not registered: number in the plan, and why.
    pub failed: Vec<(usize, String)>,
    /// Operations that some of the known ones belong to and that are not at their end.
    pub open_elsewhere: BTreeSet<String>,
}

/// What was taken back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// Keys that went.
    pub keys: usize,
    /// Names that went.
    pub names: usize,
}

/// A run of a registration.
pub struct Steps<'a> {
    /// The catalogue.
    pub names: &'a dyn Names,
    /// The key stores.
    pub keys: &'a dyn KeyStores,
    /// Recall's registry.
    pub registry: &'a dyn Registry,
    /// Where this registration is remembered.
    pub catalogued: &'a Catalogued,
    /// Told how many of how many are done, by what.
    pub progress: &'a (dyn Fn(&str, usize, usize) + Sync),
    /// Takes back what was done beside all this, before its keys go; it may be done again.
    pub take_back: &'a dyn Fn() -> Result<(), Failure>,
}

impl Steps<'_> {
    /// Registers all of `planned`, which must be in the catalogue by the operation `id`. What cannot be registered
    /// fails alone; what is in the way of all ends the run, to be resumed. What an earlier run registered and this one
    /// does not, because the image is gone, or says something else, is taken back.
    ///
    /// # Errors
    /// What was in the way.
    pub fn register(&self, id: &str, what: &str, planned: &[Planned]) -> Result<Summary, Failure> {
        if self.begin(id, what)? == OperationState::Committed {
            // only the end of it had not been written down here
            self.catalogued.set_state(id, State::Done).map_err(database_failure)?;
            return Ok(Summary {
                known: planned.len(),
                ..Summary::default()
            });
        }
        let mut summary = Summary::default();
        let before = self.names.of_operation(id)?;
        let known = self.entries(planned, &before, &mut summary)?;
        let good = good(planned, &summary);
        if good.is_empty() {
            // an earlier run may have come further
            self.undo(id)?;
            return Ok(summary);
        }
        summary.keys = self.register_keys(id, planned, &good)?;
        self.leave_names(id, planned, &good)?;
        self.enter(id, planned, &good, &mut summary)?;
        let good = self::good(planned, &summary);
        if good.is_empty() {
            self.undo(id)?;
            summary.keys = 0;
            return Ok(summary);
        }
        if !before.is_empty() || !summary.failed.is_empty() {
            self.leave_entries(id, planned, &good)?;
        }
        let left = self.leave_keys(id, planned, &good)?;
        summary.keys = summary.keys.saturating_sub(left);
        summary.known = good.iter().filter(|number| known.contains(number)).count();
        summary.new = good.len() - summary.known;
        self.commit(id)?;
        summary.open_elsewhere = self.open_elsewhere(id, planned, &known)?;
        summary.failed.sort();
        Ok(summary)
    }

    /// Open, or committed.
    fn begin(&self, id: &str, what: &str) -> Result<OperationState, Failure> {
        let begin = OperationBegin {
            id: id.to_owned(),
            what: what.to_owned(),
        };
        match self.names.begin(&begin)? {
            OperationState::Undone => {
                // there; here keys and names may still be to be taken back
                self.undo(id)?;
                let text = format!("registration {id} was undone");
                Err(Failure::new(Code::Failed, text).advise("register it anew"))
            }
            state => Ok(state),
        }
    }

    /// Makes the entries; answers the numbers of those that others made. An entry that an earlier run made otherwise
    /// gives way to what the image says now.
    fn entries(
        &self,
        planned: &[Planned],
        before: &[FoundEntry],
        summary: &mut Summary,
    ) -> Result<Vec<usize>, Failure> {
        let own: BTreeSet<&str> = before.iter().map(|entry| entry.path.as_str()).collect();
        let is_own = |number: usize| own.contains(planned[number].entry.path.as_str());
        let mut known = Vec::new();
        let all: Vec<usize> = (0..planned.len()).collect();
        for some in all.chunks(MAX_ITEMS) {
            let mut answers = self.create(planned, some)?;
            let is_otherwise = |(number, answer): (&usize, &Answer<Created>)| {
                let is_conflict = matches!(answer, Answer::Problem(problem) if problem.kind == ProblemKind::Conflict);
                is_conflict && is_own(*number)
            };
            let otherwise = some.iter().zip(&answers).filter(|pair| is_otherwise(*pair));
            let otherwise: Vec<usize> = otherwise.map(|(number, _)| *number).collect();
            if !otherwise.is_empty() {
                self.remove(otherwise.iter().map(|number| planned[*number].entry.path.to_string()))?;
                for (number, answer) in otherwise.iter().zip(self.create(planned, &otherwise)?) {
                    answers[number - some[0]] = answer;
                }
            }
            self.complete(planned, some, &mut answers)?;
            for (number, answer) in some.iter().zip(answers) {
                match answer {
                    Answer::Done(Created::Known) if !is_own(*number) => known.push(*number),
                    Answer::Done(_) => {}
                    Answer::Problem(problem) => {
                        let path = planned[*number].entry.path.to_string();
                        let is_general = !matches!(problem.kind, ProblemKind::Conflict | ProblemKind::Invalid);
                        let error = CatalogError::refused(path, problem);
                        // what is refused to the first one will be to all
                        if is_general {
                            return Err(error.into());
                        }
                        summary.failed.push((*number, error.to_string()));
                    }
                }
            }
            (self.progress)("entries", some[0] + some.len(), planned.len());
        }
        Ok(known)
    }

    /// What is there already and only lacks attributes, as a PACS that was asked for headers tells less than a file,
    /// gets them, where the caller may write them, and is known.
    fn complete(&self, planned: &[Planned], some: &[usize], answers: &mut [Answer<Created>]) -> Result<(), Failure> {
        let is_conflict = |place: &usize| match &answers[*place] {
            Answer::Problem(problem) => problem.kind == ProblemKind::Conflict,
            Answer::Done(_) => false,
        };
        let places: Vec<usize> = (0..some.len()).filter(is_conflict).collect();
        let paths: Vec<String> = places
            .iter()
            .map(|place| planned[some[*place]].entry.path.to_string())
            .collect();
        if paths.is_empty() {
            return Ok(());
        }
        for (place, answer) in places.into_iter().zip(self.names.show(&paths)?) {
            let Answer::Done(there) = answer else { continue };
            let mut entry = planned[some[place]].entry.clone();
            let (has, missing): (Attributes, Attributes) = std::mem::take(&mut entry.attributes)
                .into_iter()
                .partition(|(name, _)| there.attributes.contains_key(name));
            entry.attributes = has;
            if missing.is_empty() {
                continue;
            }
            let path = entry.path.to_string();
            let Some(answer @ Answer::Done(_)) = self.names.create(&[entry])?.pop() else {
                continue;
            };
            match self.names.fill(&path, missing) {
                Ok(()) | Err(CatalogError::Refused { .. }) => answers[place] = answer,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn create(&self, planned: &[Planned], some: &[usize]) -> Result<Vec<Answer<Created>>, Failure> {
        let entries: Vec<NewEntry> = some.iter().map(|number| planned[*number].entry.clone()).collect();
        Ok(self.names.create(&entries)?)
    }

    /// Removes entries one by one; what is gone, and a directory that something is in, is no error.
    fn remove(&self, paths: impl Iterator<Item = String>) -> Result<(), Failure> {
        let removal = |path| Removal {
            path,
            recursive: false,
            unreplicated: false,
        };
        let removals: Vec<Removal> = paths.map(removal).collect();
        for some in removals.chunks(MAX_ITEMS) {
            for (removal, answer) in some.iter().zip(self.names.remove(some)?) {
                if let Answer::Problem(problem) = answer
                    && !matches!(problem.kind, ProblemKind::NotFound | ProblemKind::Conflict)
                {
                    return Err(CatalogError::refused(&removal.path, problem).into());
                }
            }
        }
        Ok(())
    }

    /// Takes back what of the operation is none of the good ones' entries, nor a directory above one.
    fn leave_entries(&self, id: &str, planned: &[Planned], good: &[usize]) -> Result<(), Failure> {
        let files: BTreeSet<&str> = good.iter().map(|number| planned[*number].entry.path.as_str()).collect();
        let is_above = |path: &str| {
            let below = format!("{path}/");
            let next = files.range(below.as_str()..).next();
            next.is_some_and(|file| file.starts_with(&below))
        };
        let mut left = self.names.of_operation(id)?;
        left.retain(|entry| match entry.kind {
            Kind::File => !files.contains(entry.path.as_str()),
            Kind::Directory => !is_above(entry.path.as_str()),
        });
        // what lies in a directory goes before it
        self.remove(left.into_iter().rev().map(|entry| entry.path.to_string()))
    }

    /// Takes names out of recall's registry that an earlier run entered, and that are not entered as they are now.
    fn leave_names(&self, id: &str, planned: &[Planned], good: &[usize]) -> Result<(), Failure> {
        let entered = self.catalogued.names(id).map_err(database_failure)?;
        if entered.is_empty() {
            return Ok(());
        }
        let wanted = good.iter().map(|number| &planned[*number].instance);
        let wanted: BTreeMap<&str, &Instance> = wanted.map(|one| (one.name.as_str(), one)).collect();
        let entered: Vec<String> = entered.into_iter().map(|(name, _)| name).collect();
        let is_wanted = |one: &Instance| {
            wanted.get(one.name.as_str()).is_some_and(|wanted| {
                wanted.original == one.original && wanted.new == one.new && wanted.key_id == one.key_id
            })
        };
        let found = self.registry.find(&Which::Names(&entered)).map_err(database_failure)?;
        let stale: Vec<String> = found
            .into_iter()
            .filter(|one| !is_wanted(one))
            .map(|one| one.name)
            .collect();
        self.registry.remove(&stale).map_err(database_failure)?;
        self.catalogued.forget(&stale).map_err(database_failure)?;
        self.catalogued.unname(id, &stale).map_err(database_failure)
    }

    /// Takes keys back that an earlier run made, and that none of the good ones is sealed under; answers how many.
    fn leave_keys(&self, id: &str, planned: &[Planned], good: &[usize]) -> Result<usize, Failure> {
        let wanted = good.iter().map(|number| planned[*number].instance.key_id.as_str());
        let wanted: BTreeSet<&str> = wanted.collect();
        let mut left = 0;
        for key in self.catalogued.keys(id).map_err(database_failure)? {
            if !wanted.contains(key.key_id.as_str()) {
                let went = self.take_back_key(id, &key)?;
                left += usize::from(went && key.registration_id.is_some());
            }
        }
        Ok(left)
    }

    /// Has the keys; answers how many are new, in this run or an earlier one.
    fn register_keys(&self, id: &str, planned: &[Planned], good: &[usize]) -> Result<usize, Failure> {
        let wanted: BTreeSet<&str> = good
            .iter()
            .map(|number| planned[*number].instance.key_id.as_str())
            .collect();
        let made = self.catalogued.keys(id).map_err(database_failure)?;
        let made: BTreeSet<String> = made
            .into_iter()
            .filter(|key| key.registration_id.is_some())
            .map(|key| key.key_id)
            .collect();
        let wanted: Vec<&str> = wanted.into_iter().filter(|key_id| !made.contains(*key_id)).collect();
        let (next, new) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failed: Mutex<Option<Failure>> = Mutex::new(None);
        let one = |key_id: &str| -> Result<(), Failure> {
            self.catalogued.add_key(id, key_id, None).map_err(database_failure)?;
            let noted = self.catalogued.intents(id, key_id).map_err(database_failure)?;
            let note = |registration_id: &str| self.catalogued.intend(id, key_id, registration_id);
            if let Some(registration_id) = self.keys.ensure(key_id, &noted, &note)? {
                self.catalogued
                    .add_key(id, key_id, Some(&registration_id))
                    .map_err(database_failure)?;
                new.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(key_id) = wanted.get(number) else { break };
                if let Err(failure) = one(key_id) {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(failure);
                    next.store(wanted.len(), Ordering::Relaxed);
                }
                (self.progress)("keys", number + 1, wanted.len());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..KEYS_AT_ONCE.min(wanted.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(made.len() + new.into_inner()),
        }
    }

    /// Enters them into recall's registry, so that they can be asked for.
    fn enter(&self, id: &str, planned: &[Planned], good: &[usize], summary: &mut Summary) -> Result<(), Failure> {
        for some in good.chunks(MAX_ITEMS) {
            let of = |number: &usize| {
                let one = &planned[*number];
                (one.instance.clone(), one.entry.path.to_string())
            };
            let instances: Vec<(Instance, String)> = some.iter().map(of).collect();
            let added = self.catalogued.enter(id, &instances).map_err(database_failure)?;
            let taken = some.iter().zip(&added).filter(|(_, added)| **added == Added::Taken);
            let taken: Vec<usize> = taken.map(|(number, _)| *number).collect();
            if taken.is_empty() {
                continue;
            }
            for number in taken {
                let name = &planned[number].instance.name;
                let why = format!("`{name}` is registered already, for another image or under another key");
                summary.failed.push((number, why));
            }
        }
        Ok(())
    }

    /// Begins a registration of one image that is put somewhere before its end: makes entry and key. Answers whether
    /// the entry is new.
    ///
    /// # Errors
    /// What was in the way.
    pub fn begin_one(&self, id: &str, planned: &Planned) -> Result<bool, Failure> {
        if self.begin(id, &format!("1 image into {}", planned.entry.path))? == OperationState::Committed {
            return Ok(false);
        }
        let mut summary = Summary::default();
        let planned = std::slice::from_ref(planned);
        let before = self.names.of_operation(id)?;
        let known = self.entries(planned, &before, &mut summary)?;
        if let Some((_, why)) = summary.failed.pop() {
            self.undo(id)?;
            return Err(Failure::new(Code::CannotCreate, why));
        }
        self.register_keys(id, planned, &[0])?;
        if !before.is_empty() {
            self.leave_entries(id, planned, &[0])?;
        }
        self.leave_keys(id, planned, &[0])?;
        Ok(known.is_empty())
    }

    /// Ends it.
    ///
    /// # Errors
    /// What was in the way.
    pub fn commit(&self, id: &str) -> Result<(), Failure> {
        match self.names.end(&ended(id, OperationState::Committed)) {
            Ok(()) => self.catalogued.set_state(id, State::Done).map_err(database_failure),
            Err(error) if error.kind() == Some(ProblemKind::Conflict) => {
                // by whoever thought that this run had ended; what it made since is taken back as well
                self.undo(id)?;
                let text = format!("registration {id} was undone meanwhile");
                Err(Failure::new(Code::Failed, text).advise("register it anew"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The operations of others that entries depend on which were there already.
    fn open_elsewhere(&self, id: &str, planned: &[Planned], known: &[usize]) -> Result<BTreeSet<String>, Failure> {
        let mut open = BTreeSet::new();
        for some in known.chunks(MAX_ITEMS) {
            let paths: Vec<String> = some
                .iter()
                .map(|number| planned[*number].entry.path.to_string())
                .collect();
            for answer in self.names.show(&paths)? {
                if let Answer::Done(entry) = answer {
                    open.extend(entry.operation.filter(|operation| operation != id));
                }
            }
        }
        Ok(open)
    }

    /// Takes back what the registration `id` did: entries, then keys that it made and nothing else is sealed under,
    /// then names in recall's registry.
    ///
    /// # Errors
    /// What was in the way; it can be done again.
    pub fn undo(&self, id: &str) -> Result<TakenBack, Failure> {
        match self.names.end(&ended(id, OperationState::Undone)) {
            Ok(()) => {}
            Err(error) if error.kind() == Some(ProblemKind::Conflict) => {
                // only the end of it had not been written down here
                self.catalogued.set_state(id, State::Done).map_err(database_failure)?;
                let text = format!("registration {id} is at its end: its images are in the catalogue");
                return Err(Failure::new(Code::Failed, text).advise("mdm-rm, or mdm-withdraw PATIENT_ID"));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    Some(ProblemKind::Invalid | ProblemKind::NotFound | ProblemKind::NoSuchOperation)
                ) =>
            {
                self.undo_what_never_began(id)?;
            }
            Err(error) => return Err(error.into()),
        }
        (self.take_back)()?;
        let mut taken = TakenBack::default();
        for key in self.catalogued.keys(id).map_err(database_failure)? {
            taken.keys += usize::from(self.take_back_key(id, &key)?);
        }
        let entered = self.catalogued.entered(id).map_err(database_failure)?;
        let names: Vec<String> = self
            .catalogued
            .names(id)
            .map_err(database_failure)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        taken.names = self.registry.remove(&names).map_err(database_failure)?;
        self.catalogued.forget(&names).map_err(database_failure)?;
        self.catalogued.unname(id, &entered).map_err(database_failure)?;
        self.catalogued.set_state(id, State::Undone).map_err(database_failure)?;
        Ok(taken)
    }

    /// Removes a key that this registration made, or may have made before a crash, unless others need it, and forgets
    /// it; answers whether there was one.
    fn take_back_key(&self, id: &str, key: &MadeKey) -> Result<bool, Failure> {
        let (key_id, made) = (&key.key_id, &key.registration_id);
        let intents = self.catalogued.intents(id, key_id).map_err(database_failure)?;
        let is_used = self
            .catalogued
            .is_used_elsewhere(id, key_id)
            .map_err(database_failure)?;
        let mut was_there = false;
        match made {
            Some(registration_id) if is_used => self
                .catalogued
                .hand_over(id, key_id, registration_id)
                .map_err(database_failure)?,
            None if is_used => {}
            Some(registration_id) => {
                self.keys.unregister(key_id, registration_id)?;
                was_there = true;
            }
            None => {
                for registration_id in &intents {
                    let is_there = self.keys.is_there(key_id, registration_id)?;
                    if is_there != Some(false) {
                        self.keys.unregister(key_id, registration_id)?;
                        was_there |= is_there == Some(true);
                    }
                }
            }
        }
        self.catalogued
            .forget_key(id, key, &intents)
            .map_err(database_failure)?;
        Ok(was_there)
    }

    /// Of an operation that the catalogue does not know to be the caller's: it never began there, or it is another's,
    /// and only then beginning it is a conflict.
    fn undo_what_never_began(&self, id: &str) -> Result<(), Failure> {
        let begin = OperationBegin {
            id: id.to_owned(),
            what: "taken back before it began".to_owned(),
        };
        match self.names.begin(&begin) {
            Ok(_) => Ok(self.names.end(&ended(id, OperationState::Undone))?),
            Err(error) if error.kind() == Some(ProblemKind::Conflict) => {
                let text = format!("registration {id} was begun by somebody else");
                Err(Failure::new(Code::NotAllowed, text).advise("undo it with the credential that began it"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The numbers of those that did not fail.
fn good(planned: &[Planned], summary: &Summary) -> Vec<usize> {
    let failed: BTreeSet<usize> = summary.failed.iter().map(|(number, _)| *number).collect();
    (0..planned.len()).filter(|number| !failed.contains(number)).collect()
}

fn ended(id: &str, state: OperationState) -> OperationEnd {
    OperationEnd {
        id: id.to_owned(),
        state,
    }
}
