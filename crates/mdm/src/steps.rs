//! The steps of a registration: operation begun, entries, keys, registry, operation committed. Each may be done again, and
//! whatever ends a run between two of them, the next one goes on from there or takes all of it back. What it talks to is
//! behind traits, so that the tests can end it anywhere (`docs/src/tutorial-story.md` tells it from outside).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dicom_recall::catalogued::{Catalogued, State};
use dicom_recall::ledger::database_failure;
use dicom_recall::registry::{Added, Instance, Registry};
use hydra_cli::{Code, Failure};
use hydra_core::keystore::wire::ProblemKind;
use mdm_catalog::client::{CatalogClient, CatalogError};
use mdm_catalog::wire::{
    Answer, Created, Entry, MAX_ITEMS, NewEntry, OperationBegin, OperationEnd, OperationState, Removal,
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
    /// Removes entries.
    ///
    /// # Errors
    /// [`CatalogError`]
    fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError>;
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

    fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError> {
        Self::remove(self, removals)
    }
}

/// The key stores, as far as a registration needs them.
pub trait KeyStores: Sync {
    /// Has a key of this name; answers which registration of it is new, where there was none.
    ///
    /// # Errors
    /// Where there is none that may be used.
    fn ensure(&self, key_id: &str) -> Result<Option<String>, Failure>;
    /// Removes that registration of a key; one that is gone is no error.
    ///
    /// # Errors
    /// Where it is not gone at all stores.
    fn unregister(&self, key_id: &str, registration_id: &str) -> Result<(), Failure>;
}

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
    /// Keys that may have been made by it, or not: they are left.
    pub doubtful: Vec<String>,
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
}

impl Steps<'_> {
    /// Registers all of `planned`, which must be in the catalogue by the operation `id`. What cannot be registered fails
    /// alone; what is in the way of all ends the run, to be resumed.
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
        let known = self.entries(planned, &mut summary)?;
        let failed: BTreeSet<usize> = summary.failed.iter().map(|(number, _)| *number).collect();
        let good: Vec<usize> = (0..planned.len()).filter(|number| !failed.contains(number)).collect();
        if good.is_empty() {
            // an earlier run may have come further
            self.undo(id)?;
            return Ok(summary);
        }
        summary.keys = self.register_keys(id, planned, &good)?;
        self.enter(id, planned, &good, &mut summary)?;
        self.names.end(&ended(id, OperationState::Committed))?;
        self.catalogued.set_state(id, State::Done).map_err(database_failure)?;
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

    /// Makes the entries; answers the numbers of those that were there.
    fn entries(&self, planned: &[Planned], summary: &mut Summary) -> Result<Vec<usize>, Failure> {
        let mut known = Vec::new();
        for (part, some) in planned.chunks(MAX_ITEMS).enumerate() {
            let first = part * MAX_ITEMS;
            let entries: Vec<NewEntry> = some.iter().map(|one| one.entry.clone()).collect();
            let answers = self.names.create(&entries)?;
            for (number, answer) in (first..).zip(answers) {
                match answer {
                    Answer::Done(Created::New) => summary.new += 1,
                    Answer::Done(Created::Known) => {
                        summary.known += 1;
                        known.push(number);
                    }
                    Answer::Problem(problem) => {
                        let path = planned[number].entry.path.to_string();
                        let is_general = !matches!(problem.kind, ProblemKind::Conflict | ProblemKind::Invalid);
                        let error = CatalogError::refused(path, problem);
                        // what is refused to the first one will be to all
                        if is_general {
                            return Err(error.into());
                        }
                        summary.failed.push((number, error.to_string()));
                    }
                }
            }
            (self.progress)("entries", first + some.len(), planned.len());
        }
        Ok(known)
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
            if let Some(registration_id) = self.keys.ensure(key_id)? {
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
            let removal = |number: &usize| Removal {
                path: planned[*number].entry.path.to_string(),
                recursive: false,
                unreplicated: false,
            };
            let removals: Vec<Removal> = taken.iter().map(removal).collect();
            self.names.remove(&removals)?;
            for number in taken {
                let name = &planned[number].instance.name;
                let why = format!("`{name}` is registered already, for another image or under another key");
                summary.failed.push((number, why));
            }
        }
        Ok(())
    }

    /// Begins a registration of one image that is put somewhere before its end: makes entry and key. Answers whether the
    /// entry is new.
    ///
    /// # Errors
    /// What was in the way.
    pub fn begin_one(&self, id: &str, planned: &Planned) -> Result<bool, Failure> {
        if self.begin(id, &format!("1 image into {}", planned.entry.path))? == OperationState::Committed {
            return Ok(false);
        }
        let mut summary = Summary::default();
        let planned = std::slice::from_ref(planned);
        self.entries(planned, &mut summary)?;
        if let Some((_, why)) = summary.failed.pop() {
            self.undo(id)?;
            return Err(Failure::new(Code::CannotCreate, why));
        }
        self.register_keys(id, planned, &[0])?;
        Ok(summary.new == 1)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What was in the way.
    pub fn end_one(&self, id: &str) -> Result<(), Failure> {
        self.names.end(&ended(id, OperationState::Committed))?;
        self.catalogued.set_state(id, State::Done).map_err(database_failure)
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

    /// Takes back what the registration `id` did: entries, then keys that it made and nothing else is sealed under, then
    /// names in recall's registry.
    ///
    /// # Errors
    /// What was in the way; it can be done again.
    pub fn undo(&self, id: &str) -> Result<TakenBack, Failure> {
        match self.names.end(&ended(id, OperationState::Undone)) {
            Ok(()) => {}
            Err(error) if error.kind() == Some(ProblemKind::Conflict) => {
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
        let mut taken = TakenBack::default();
        for key in self.catalogued.keys(id).map_err(database_failure)? {
            if self
                .catalogued
                .is_used_elsewhere(id, &key.key_id)
                .map_err(database_failure)?
            {
                continue;
            }
            match &key.registration_id {
                Some(registration_id) => {
                    self.keys.unregister(&key.key_id, registration_id)?;
                    taken.keys += 1;
                }
                None => taken.doubtful.push(key.key_id.clone()),
            }
        }
        let names: Vec<String> = self
            .catalogued
            .names(id)
            .map_err(database_failure)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        taken.names = self.registry.remove(&names).map_err(database_failure)?;
        self.catalogued.forget(&names).map_err(database_failure)?;
        self.catalogued.set_state(id, State::Undone).map_err(database_failure)?;
        Ok(taken)
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

fn ended(id: &str, state: OperationState) -> OperationEnd {
    OperationEnd {
        id: id.to_owned(),
        state,
    }
}
