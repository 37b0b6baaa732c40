//! A registration that is ended at each of its steps, before and after what the other side did: resumed it is whole and
//! everything once, undone nothing of it is left.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dicom_recall::catalogued::{Catalogued, State};
use dicom_recall::database::Database;
use dicom_recall::names::Ids;
use dicom_recall::registry::{Instance, LocalRegistry, Registry, Which};
use hydra_cli::{Code, Failure};
use hydra_core::keystore::wire::{Problem, ProblemKind};
use mdm::steps::{KeyStores, Names, Note, Planned, Steps, Summary};
use mdm_catalog::LogicalName;
use mdm_catalog::client::CatalogError;
use mdm_catalog::wire::{
    Answer, Attributes, Created, Entry, FoundEntry, Kind, NewEntry, OperationBegin, OperationEnd, OperationState,
    Removal,
};

#[derive(Default)]
struct Things {
    operations: BTreeMap<String, OperationState>,
    /// Path to operation and key.
    entries: BTreeMap<String, (String, String)>,
    /// Key to registration.
    keys: BTreeMap<String, String>,
    made: usize,
    drawn: usize,
}

/// Catalogue and key stores in memory. From one call on nobody answers any more.
struct World {
    calls: AtomicUsize,
    dies_at: AtomicUsize,
    /// Whether that call has its effect.
    does_it: bool,
    state: Mutex<Things>,
}

impl World {
    fn new(dies_at: usize, does_it: bool) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            dies_at: AtomicUsize::new(dies_at),
            does_it,
            state: Mutex::default(),
        }
    }

    fn call<T>(&self, effect: impl FnOnce(&mut Things) -> T) -> Option<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let dies_at = self.dies_at.load(Ordering::SeqCst);
        if number > dies_at || number == dies_at && !self.does_it {
            return None;
        }
        let done = effect(&mut self.state.lock().unwrap());
        (number < dies_at).then_some(done)
    }

    fn revive(&self) {
        self.dies_at.store(usize::MAX, Ordering::SeqCst);
    }

    fn committed(&self) -> usize {
        let state = self.state.lock().unwrap();
        let is_committed = |id: &String| state.operations.get(id) == Some(&OperationState::Committed);
        state.entries.values().filter(|(id, _)| is_committed(id)).count()
    }
}

fn silent() -> CatalogError {
    CatalogError::Silent {
        url: "https://catalogue".to_owned(),
        reason: "gave no answer".to_owned(),
        credential_refused: false,
        unsent: false,
    }
}

fn problem(kind: ProblemKind) -> Problem {
    Problem {
        kind,
        title: String::new(),
        status: 409,
        detail: None,
        retry_after_seconds: None,
    }
}

impl Names for World {
    fn begin(&self, begin: &OperationBegin) -> Result<OperationState, CatalogError> {
        self.call(|state| *state.operations.entry(begin.id.clone()).or_insert(OperationState::Open))
            .ok_or_else(silent)
    }

    fn create(&self, entries: &[NewEntry]) -> Result<Vec<Answer<Created>>, CatalogError> {
        self.call(|state| {
            let one = |entry: &NewEntry| {
                let operation = entry.operation.clone().unwrap();
                if state.operations.get(&operation) != Some(&OperationState::Open) {
                    return Answer::Problem(problem(ProblemKind::Conflict));
                }
                let key = entry.key_id.clone().unwrap_or_default();
                let path = entry.path.to_string();
                if path.ends_with("conflict") {
                    return Answer::Problem(problem(ProblemKind::Conflict));
                }
                match state.entries.get(&path) {
                    Some((_, known)) if *known == key => Answer::Done(Created::Known),
                    Some(_) => Answer::Problem(problem(ProblemKind::Conflict)),
                    None => {
                        state.entries.insert(path, (operation, key));
                        Answer::Done(Created::New)
                    }
                }
            };
            entries.iter().map(one).collect()
        })
        .ok_or_else(silent)
    }

    fn end(&self, end: &OperationEnd) -> Result<(), CatalogError> {
        let ended = self.call(|state| {
            let Some(known) = state.operations.get_mut(&end.id) else {
                return Err(ProblemKind::Invalid);
            };
            if *known == OperationState::Open {
                *known = end.state;
            }
            if *known != end.state {
                return Err(ProblemKind::Conflict);
            }
            if end.state == OperationState::Undone {
                state.entries.retain(|_, (id, _)| *id != end.id);
            }
            Ok(())
        });
        let refused = |kind| CatalogError::refused(&end.id, problem(kind));
        ended.ok_or_else(silent)?.map_err(refused)
    }

    fn show(&self, paths: &[String]) -> Result<Vec<Answer<Entry>>, CatalogError> {
        let not_found = || Answer::Problem(problem(ProblemKind::NotFound));
        self.call(|_| paths.iter().map(|_| not_found()).collect())
            .ok_or_else(silent)
    }

    fn fill(&self, _: &str, _: Attributes) -> Result<(), CatalogError> {
        self.call(|_| ()).ok_or_else(silent)
    }

    fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError> {
        self.call(|state| {
            let one = |removal: &Removal| Answer::Done(u64::from(state.entries.remove(&removal.path).is_some()));
            removals.iter().map(one).collect()
        })
        .ok_or_else(silent)
    }

    fn of_operation(&self, id: &str) -> Result<Vec<FoundEntry>, CatalogError> {
        let found = |path: &String| FoundEntry {
            path: LogicalName::new(path.as_str()).unwrap(),
            kind: Kind::File,
        };
        self.call(|state| {
            let own = state.entries.iter().filter(|(_, (operation, _))| operation == id);
            own.map(|(path, _)| found(path)).collect()
        })
        .ok_or_else(silent)
    }
}

fn no_store() -> Failure {
    Failure::new(Code::TryLater, "no store answers")
}

impl KeyStores for World {
    fn ensure(&self, key_id: &str, noted: &BTreeSet<String>, note: Note<'_>) -> Result<Option<String>, Failure> {
        let registration = {
            let mut state = self.state.lock().unwrap();
            state.drawn += 1;
            format!("r{}", state.drawn)
        };
        note(&registration).unwrap();
        let made = self.call(|state| {
            if let Some(there) = state.keys.get(key_id) {
                return Some(there.clone()).filter(|there| noted.contains(there));
            }
            state.made += 1;
            state.keys.insert(key_id.to_owned(), registration.clone());
            Some(registration)
        });
        made.ok_or_else(no_store)
    }

    fn is_there(&self, key_id: &str, registration_id: &str) -> Result<Option<bool>, Failure> {
        let is_there = self.call(|state| state.keys.get(key_id).is_some_and(|known| known == registration_id));
        is_there.map(Some).ok_or_else(no_store)
    }

    fn unregister(&self, key_id: &str, registration_id: &str) -> Result<(), Failure> {
        self.call(|state| {
            if state.keys.get(key_id).is_some_and(|known| known == registration_id) {
                state.keys.remove(key_id);
            }
        })
        .ok_or_else(no_store)
    }
}

const ID: &str = "00000000000000000000000000000001";
const OTHER: &str = "00000000000000000000000000000002";
/// Images, and series that they are of.
const IMAGES: usize = 6;
const SERIES: usize = 3;

fn planned(id: &str) -> Vec<Planned> {
    (0..IMAGES)
        .map(|number| one(id, number, &format!("{number}")))
        .collect()
}

fn one(id: &str, number: usize, last: &str) -> Planned {
    let ids = |start: &str| Ids {
        study: format!("{start}.1"),
        series: format!("{start}.2.{}", number % SERIES),
        instance: format!("{start}.3.{number}"),
    };
    let key_id = format!("/eds/1/{}", number % SERIES);
    let instance = Instance {
        name: format!("/eds/1/{}/{number}", number % SERIES),
        original: ids("1.2"),
        class: None,
        new: ids("2.25"),
        key_id: key_id.clone(),
        profile: "p".to_owned(),
        size: None,
        sha256: None,
        registered_at: 5,
        gone: false,
        on_disk: false,
    };
    let entry = NewEntry {
        path: LogicalName::new(format!("/myvo/images/{last}")).unwrap(),
        kind: Kind::File,
        parents: true,
        guid: None,
        operation: Some(id.to_owned()),
        size: None,
        adler32: None,
        sha256: None,
        key_id: Some(key_id),
        status: None,
        replicas: Vec::new(),
        attributes: Attributes::new(),
    };
    Planned { instance, entry }
}

/// The hospital's side.
struct Side {
    _folder: tempfile::TempDir,
    registry: LocalRegistry,
    catalogued: Catalogued,
}

impl Side {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Arc::new(
            Database::open_or_make(&mdm_catalog::config::DatabaseSource::File(folder.path().join("db"))).unwrap(),
        );
        Self {
            _folder: folder,
            registry: LocalRegistry::new(Arc::clone(&database)),
            catalogued: Catalogued::new(database),
        }
    }

    fn steps<'a>(&'a self, world: &'a World) -> Steps<'a> {
        Steps {
            names: world,
            keys: world,
            registry: &self.registry,
            catalogued: &self.catalogued,
            progress: &|_, _, _| {},
            take_back: &|| Ok(()),
        }
    }

    fn register(&self, world: &World, id: &str, planned: &[Planned]) -> Result<Summary, Failure> {
        self.catalogued.begin(id, "1.2", "/myvo/images").unwrap();
        self.steps(world).register(id, "6 images", planned)
    }

    fn registered(&self) -> usize {
        let all = Which::Prefix {
            prefix: "",
            after: None,
            limit: 100,
        };
        self.registry.find(&all).unwrap().len()
    }
}

/// How many calls a registration makes.
fn calls() -> usize {
    let (side, world) = (Side::new(), World::new(usize::MAX, true));
    let summary = side.register(&world, ID, &planned(ID)).unwrap();
    assert_eq!((summary.new, summary.known, summary.keys), (IMAGES, 0, SERIES));
    assert_eq!((world.committed(), side.registered()), (IMAGES, IMAGES));
    assert!(side.catalogued.open_registrations().unwrap().is_empty());
    let calls = world.calls.load(Ordering::SeqCst);
    assert!(calls >= 3 + SERIES, "{calls}");
    calls
}

#[test]
fn ended_at_each_step_and_resumed_it_is_whole_and_everything_once() {
    for dies_at in 0..calls() {
        for does_it in [false, true] {
            let (side, world) = (Side::new(), World::new(dies_at, does_it));
            side.register(&world, ID, &planned(ID)).unwrap_err();
            // there is a name to find it by
            let open = side.catalogued.open_registrations().unwrap();
            assert!(open.len() == 1 && open[0].id == ID && open[0].what == "1.2");
            world.revive();
            side.register(&world, ID, &planned(ID)).unwrap();
            assert_eq!((world.committed(), side.registered()), (IMAGES, IMAGES), "{dies_at}");
            let state = world.state.lock().unwrap();
            assert_eq!((state.keys.len(), state.made), (SERIES, SERIES), "{dies_at}");
            assert!(side.catalogued.open_registrations().unwrap().is_empty());
        }
    }
}

#[test]
fn ended_at_each_step_and_undone_nothing_is_left() {
    for dies_at in 0..calls() {
        for does_it in [false, true] {
            let (side, world) = (Side::new(), World::new(dies_at, does_it));
            side.register(&world, ID, &planned(ID)).unwrap_err();
            world.revive();
            let is_committed = world.committed() > 0;
            let taken = side.steps(&world).undo(ID);
            if is_committed {
                // the last word had been said: that is an end, and undoing it is refused
                assert!(taken.is_err());
                assert_eq!(world.committed(), IMAGES);
                continue;
            }
            let taken = taken.unwrap();
            assert_eq!(side.registered(), 0, "{dies_at}");
            let state = world.state.lock().unwrap();
            assert!(state.entries.is_empty() && state.keys.is_empty(), "{dies_at} {does_it}");
            assert_eq!(taken.keys, state.made, "{dies_at} {does_it}");
            assert!(side.catalogued.registration(ID).unwrap().unwrap().state == State::Undone);
        }
    }
}

#[test]
fn an_undoing_that_is_ended_itself_is_done_again() {
    for dies_at in 0..6 {
        for does_it in [false, true] {
            let (side, world) = (Side::new(), World::new(calls() - 1, false));
            side.register(&world, ID, &planned(ID)).unwrap_err();
            world
                .dies_at
                .store(world.calls.load(Ordering::SeqCst) + dies_at, Ordering::SeqCst);
            let _ = side.steps(&world).undo(ID);
            world.revive();
            side.steps(&world).undo(ID).unwrap();
            let state = world.state.lock().unwrap();
            assert!(state.entries.is_empty() && state.keys.is_empty(), "{dies_at} {does_it}");
            assert_eq!(side.registered(), 0);
        }
    }
}

#[test]
fn two_at_once_on_one_study_both_end_well() {
    for _ in 0..20 {
        let (side, world) = (Side::new(), World::new(usize::MAX, true));
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| side.register(&world, ID, &planned(ID)).unwrap());
            let second = scope.spawn(|| side.register(&world, OTHER, &planned(OTHER)).unwrap());
            (first.join().unwrap(), second.join().unwrap())
        });
        assert_eq!(first.new + second.new, IMAGES);
        assert_eq!(first.known + second.known, IMAGES);
        assert_eq!(first.keys + second.keys, SERIES);
        assert_eq!((world.committed(), side.registered()), (IMAGES, IMAGES));
    }
}

#[test]
fn a_key_that_others_seal_under_stays() {
    let (side, world) = (Side::new(), World::new(usize::MAX, false));
    side.register(&world, ID, &planned(ID)[..2]).unwrap();
    // two more series, one of them with the first one's key
    let more = &planned(OTHER)[2..4];
    world
        .dies_at
        .store(world.calls.load(Ordering::SeqCst) + 3 + 2, Ordering::SeqCst);
    side.register(&world, OTHER, more).unwrap_err();
    world.revive();
    let taken = side.steps(&world).undo(OTHER).unwrap();
    assert_eq!(taken.keys, 1);
    assert_eq!(world.state.lock().unwrap().keys.len(), 2);
    assert_eq!((world.committed(), side.registered()), (2, 2));
}

#[test]
fn what_cannot_be_registered_fails_alone_and_where_nothing_can_nothing_is_left() {
    let (side, world) = (Side::new(), World::new(usize::MAX, true));
    let mut some = planned(ID);
    some[3] = one(ID, 3, "conflict");
    let summary = side.register(&world, ID, &some).unwrap();
    assert_eq!(summary.failed.len(), 1);
    assert_eq!((summary.failed[0].0, summary.new), (3, IMAGES - 1));
    assert_eq!((world.committed(), side.registered()), (IMAGES - 1, IMAGES - 1));
    let (side, world) = (Side::new(), World::new(usize::MAX, true));
    side.register(&world, ID, &[one(ID, 0, "conflict")]).unwrap();
    assert!(side.catalogued.open_registrations().unwrap().is_empty());
    assert!(world.state.lock().unwrap().keys.is_empty());
    // a name that is another image's takes its entry back
    let (side, world) = (Side::new(), World::new(usize::MAX, true));
    side.register(&world, ID, &planned(ID)).unwrap();
    let mut other = one(OTHER, 0, "other");
    other.instance.original.instance = "1.2.3.99".to_owned();
    let summary = side.register(&world, OTHER, &[other, one(OTHER, 1, "1")]).unwrap();
    assert_eq!((summary.failed.len(), summary.known), (1, 1));
    assert_eq!(world.committed(), IMAGES);
}

type Pairs = Vec<(String, String)>;

/// What is registered, by path in the catalogue and name at the storage element, with the key of each.
fn all_of(side: &Side, world: &World) -> (Pairs, Pairs, Vec<String>) {
    let state = world.state.lock().unwrap();
    let entries = state.entries.iter().map(|(path, (_, key))| (path.clone(), key.clone()));
    let all = Which::Prefix {
        prefix: "",
        after: None,
        limit: 100,
    };
    let names = side.registry.find(&all).unwrap();
    let names = names.into_iter().map(|one| (one.name, one.key_id));
    (entries.collect(), names.collect(), state.keys.keys().cloned().collect())
}

#[test]
fn a_resumed_run_that_finds_something_else_leaves_nothing_of_the_first() {
    for dies_at in 0..calls() - 1 {
        for does_it in [false, true] {
            let (side, world) = (Side::new(), World::new(dies_at, does_it));
            side.register(&world, ID, &planned(ID)).unwrap_err();
            world.revive();
            // by now one has a key of its own, one another series, and the last series is gone
            let mut now: Vec<Planned> = planned(ID)
                .into_iter()
                .filter(|one| !one.instance.key_id.ends_with("/2"))
                .collect();
            now[0].instance.key_id = "/eds/1/own".to_owned();
            now[0].entry.key_id = Some("/eds/1/own".to_owned());
            let summary = side.register(&world, ID, &now).unwrap();
            assert_eq!(
                (summary.new, summary.known, summary.keys),
                (4, 0, 3),
                "{dies_at} {does_it}"
            );
            let (entries, names, keys) = all_of(&side, &world);
            let expected = |of: &dyn Fn(&Planned) -> String| {
                let mut all: Vec<_> = now.iter().map(|one| (of(one), one.instance.key_id.clone())).collect();
                all.sort();
                all
            };
            assert_eq!(
                entries,
                expected(&|one| one.entry.path.to_string()),
                "{dies_at} {does_it}"
            );
            assert_eq!(names, expected(&|one| one.instance.name.clone()), "{dies_at} {does_it}");
            assert_eq!(keys, ["/eds/1/0", "/eds/1/1", "/eds/1/own"], "{dies_at} {does_it}");
        }
    }
}

#[test]
fn a_conflict_in_a_resumed_run_is_told_and_the_others_are_committed() {
    let (side, world) = (Side::new(), World::new(calls() - 1, false));
    side.register(&world, ID, &planned(ID)).unwrap_err();
    world.revive();
    {
        // somebody took the name meanwhile
        let mut state = world.state.lock().unwrap();
        let theirs = (OTHER.to_owned(), "/eds/9".to_owned());
        state.operations.insert(OTHER.to_owned(), OperationState::Committed);
        state.entries.insert("/myvo/images/3".to_owned(), theirs);
    }
    let summary = side.register(&world, ID, &planned(ID)).unwrap();
    assert_eq!((summary.failed.len(), summary.failed[0].0), (1, 3));
    assert_eq!((summary.new, summary.known), (IMAGES - 1, 0));
    let (entries, names, _) = all_of(&side, &world);
    assert!(entries.contains(&("/myvo/images/3".to_owned(), "/eds/9".to_owned())));
    assert_eq!((entries.len(), names.len()), (IMAGES, IMAGES - 1));
}

#[test]
fn a_key_that_another_open_registration_wants_goes_with_that_one() {
    let (side, world) = (Side::new(), World::new(calls() - 1, false));
    side.register(&world, ID, &planned(ID)).unwrap_err();
    world
        .dies_at
        .store(world.calls.load(Ordering::SeqCst) + calls() - 1, Ordering::SeqCst);
    side.register(&world, OTHER, &planned(OTHER)).unwrap_err();
    world.revive();
    assert_eq!(side.steps(&world).undo(ID).unwrap().keys, 0);
    assert_eq!(world.state.lock().unwrap().keys.len(), SERIES);
    assert_eq!(side.steps(&world).undo(OTHER).unwrap().keys, SERIES);
    assert!(world.state.lock().unwrap().keys.is_empty());
}

#[test]
fn what_was_done_beside_it_is_taken_back_before_its_keys() {
    let (side, world) = (Side::new(), World::new(calls() - 1, false));
    side.register(&world, ID, &planned(ID)).unwrap_err();
    world.revive();
    let times = AtomicUsize::new(0);
    let take_back = || {
        assert_eq!(world.state.lock().unwrap().keys.len(), SERIES);
        match times.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure::new(Code::TryLater, "the storage element does not answer")),
            _ => Ok(()),
        }
    };
    let steps = Steps {
        take_back: &take_back,
        ..side.steps(&world)
    };
    assert!(steps.undo(ID).is_err());
    // it is listed still
    assert_eq!(side.catalogued.open_registrations().unwrap().len(), 1);
    assert_eq!(steps.undo(ID).unwrap().keys, SERIES);
    assert!(side.catalogued.open_registrations().unwrap().is_empty());
}

#[test]
fn what_others_rely_on_by_now_stays_when_the_first_is_undone() {
    let elsewhere = |mut all: Vec<Planned>| {
        for one in &mut all {
            let path = one.entry.path.as_str().replace("/images/", "/other/");
            one.entry.path = LogicalName::new(path).unwrap();
        }
        all
    };
    let (side, world) = (Side::new(), World::new(calls() - 1, false));
    side.register(&world, ID, &planned(ID)).unwrap_err();
    world.revive();
    side.catalogued.begin(OTHER, "1.2", "/myvo/other").unwrap();
    side.steps(&world)
        .register(OTHER, "6 images", &elsewhere(planned(OTHER)))
        .unwrap();
    side.steps(&world).undo(ID).unwrap();
    assert_eq!((world.committed(), side.registered()), (IMAGES, IMAGES));
    assert_eq!(world.state.lock().unwrap().keys.len(), SERIES);
    // what was sealed meanwhile stays as well, with its key and its name
    let (side, world) = (Side::new(), World::new(calls() - 1, false));
    side.register(&world, ID, &planned(ID)).unwrap_err();
    world.revive();
    let file = (planned(ID)[0].instance.name.clone(), 70, "a".repeat(64));
    side.registry.record_placed(&[file]).unwrap();
    assert_eq!(side.steps(&world).undo(ID).unwrap().keys, SERIES - 1);
    assert_eq!(side.registered(), 1);
    assert_eq!(world.state.lock().unwrap().keys.len(), 1);
}

#[test]
fn one_that_is_undone_while_it_runs_leaves_nothing_and_says_so() {
    let (side, world) = (Side::new(), World::new(usize::MAX, true));
    // it is undone by somebody else when its keys are made, and before it is committed
    let is_undone = std::sync::atomic::AtomicBool::new(false);
    let progress = |what: &str, done: usize, of: usize| {
        if what == "keys" && done == of && !is_undone.swap(true, Ordering::SeqCst) {
            side.steps(&world).undo(ID).unwrap();
        }
    };
    side.catalogued.begin(ID, "1.2", "/myvo/images").unwrap();
    let steps = Steps {
        progress: &progress,
        ..side.steps(&world)
    };
    let failure = steps.register(ID, "6 images", &planned(ID)).unwrap_err();
    assert_eq!(
        failure.lines()[0],
        format!("error: registration {ID} was undone meanwhile")
    );
    assert_eq!((world.committed(), side.registered()), (0, 0));
    assert!(world.state.lock().unwrap().keys.is_empty());
    assert!(side.catalogued.open_registrations().unwrap().is_empty());
}
