//! What the catalogue does with each message: who, may they, do it, audit it, answer. Statements are written for both
//! databases; what a caller may is decided by `hydra_core::permissions::granted` alone (`docs/src/catalogue.md`).

mod audit;
mod fresh;
mod lookup;
mod names;
mod operations;
mod permissions;
mod records;
mod refusal;
mod remove;
mod rows;
mod schemas;
mod search;
mod thumbnails;
pub mod values;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use hydra_core::keystore::wire::{Problem, ProblemKind};
use hydra_core::permissions::{Caller, Permission, PermissionRecord, Permissions, granted};

pub use audit::{AuditFault, AuditRow, Verified};
pub use refusal::Refusal;
pub use schemas::{KnownAttribute, KnownSchema};
pub use search::{Chunk, Progress};

use crate::LogicalName;
use crate::columns::{ColumnKeys, Identifying};
use crate::config::Rules;
use crate::database::{Database, DatabaseError, Sql, attempt, schema};
use crate::query::cursor::CursorKey;
use crate::wire::{
    Answer, Change, Created, Entry, Found, ListQuestion, Listing, Lookup, NewEntry, Operation, OperationBegin,
    OperationEnd, PermissionsAnswer, PermissionsChange, PermissionsChanged, Question, Removal, Schema, SchemaChange,
    SchemaQuestion,
};
use fresh::Waiting;
use records::Known;
use refusal::{not_allowed, not_found};
use rows::Stored;

/// A catalogue over its database.
pub struct Engine {
    database: Database,
    keys: ColumnKeys,
    rules: Rules,
    known: Known,
    cursors: CursorKey,
}

/// Why a catalogue's database cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database.
    #[error("the database cannot be used")]
    Database(#[from] DatabaseError),
    /// What is sealed in it would not open.
    #[error("the column key is not the one that this database was made with")]
    OtherColumnKey,
}

/// Bytes after which no more entries are shown in one answer.
const MOST_SHOWN_BYTES: usize = 64 << 20;

/// The row of `meta` that names the catalogue.
const CATALOG: &str = "catalog";
/// The row of `meta` by which a column key is known.
const COLUMN_KEY: &str = "column_key";
/// The row of `meta` that says of a backup when it was made.
pub(crate) const BACKUP: &str = "backup";

impl Engine {
    /// Names a new database's catalogue and column key.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn found(database: &Database, catalog: &str, keys: &ColumnKeys) -> Result<(), DatabaseError> {
        database.write(|sql| {
            schema::set_meta(sql, CATALOG, catalog)?;
            schema::set_meta(sql, COLUMN_KEY, keys.check())
        })
    }

    /// Opens a catalogue.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(database: Database, keys: ColumnKeys, rules: Rules) -> Result<Self, OpenError> {
        database.read(|sql| {
            if let Some(made) = schema::meta(sql, BACKUP)? {
                return Err(OpenError::Database(DatabaseError::IsBackup { made }));
            }
            Self::check_own(sql, &rules.catalog, &keys)
        })?;
        let cursors = CursorKey::new(&keys.cursor_secret()).ok_or(OpenError::OtherColumnKey)?;
        Ok(Self {
            cursors,
            database,
            keys,
            rules,
            known: Known::default(),
        })
    }

    /// Whether a database is this catalogue's.
    pub(crate) fn check_own(sql: &dyn Sql, catalog: &str, keys: &ColumnKeys) -> Result<(), OpenError> {
        let found = schema::meta(sql, CATALOG)?.unwrap_or_default();
        if found != catalog {
            return Err(DatabaseError::OtherCatalog { found }.into());
        }
        match schema::meta(sql, COLUMN_KEY)? {
            Some(check) if check == keys.check() => Ok(()),
            _ => Err(OpenError::OtherColumnKey),
        }
    }

    /// Who may what.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The keys of the identifying half.
    pub fn keys(&self) -> &ColumnKeys {
        &self.keys
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Whether it can be written to at this moment.
    pub fn is_ready(&self) -> bool {
        self.database.is_ready()
    }

    /// Makes files and directories.
    ///
    /// # Errors
    /// A database that fails.
    pub fn create(&self, caller: &Caller, items: &[NewEntry]) -> Result<Vec<Answer<Created>>, Problem> {
        let subject = |item: &NewEntry| item.path.to_string();
        let ready = |work: &Work<'_>, rest: &[NewEntry]| work.make_way(rest);
        self.change_in_turn(caller, "create", items, subject, ready, |work, item| work.create(item))
    }

    /// Changes entries.
    ///
    /// # Errors
    /// A database that fails.
    pub fn change(&self, caller: &Caller, items: &[Change]) -> Result<Vec<Answer<Entry>>, Problem> {
        let subject = |item: &Change| item.path.clone();
        let answers = self.change_each(caller, "change", items, subject, |work, item| {
            work.in_room(|| work.change(item), names::weight)
        })?;
        self.note_shown(caller, "change", &answers)?;
        Ok(answers)
    }

    /// Removes entries.
    ///
    /// # Errors
    /// A database that fails.
    pub fn remove(&self, caller: &Caller, items: &[Removal]) -> Result<Vec<Answer<u64>>, Problem> {
        let subject = |item: &Removal| item.path.clone();
        self.change_each(caller, "remove", items, subject, |work, item| work.remove(item))
    }

    /// Changes permissions.
    ///
    /// # Errors
    /// A database that fails.
    pub fn change_permissions(
        &self,
        caller: &Caller,
        items: &[PermissionsChange],
    ) -> Result<Vec<Answer<PermissionsChanged>>, Problem> {
        let subject = |item: &PermissionsChange| item.path.clone();
        self.change_each(caller, "permissions", items, subject, |work, item| {
            work.change_permissions(item)
        })
    }

    /// Shows entries.
    ///
    /// # Errors
    /// A database that fails.
    pub fn show(&self, caller: &Caller, items: &[Question]) -> Result<Vec<Answer<Entry>>, Problem> {
        let answers = self.read(caller, |work| {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                answers.push(work.answer(work.in_room(|| work.show(&item.path), names::weight))?);
            }
            Ok(answers)
        })?;
        self.note_shown(caller, "show", &answers)?;
        Ok(answers)
    }

    /// Writes down of which entries the caller was shown identifying attributes.
    fn note_shown(&self, caller: &Caller, verb: &'static str, answers: &[Answer<Entry>]) -> Result<(), Problem> {
        let read = answers.iter().filter_map(|answer| match answer {
            Answer::Done(entry) if names::shows_identifying(entry) => Some(entry.path.to_string()),
            _ => None,
        });
        self.note_identifying(caller, verb, &read.collect::<Vec<_>>())
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// No such directory, or a database that fails.
    pub fn list(&self, caller: &Caller, question: &ListQuestion) -> Result<Listing, Problem> {
        let listing = self.read(caller, |work| work.list(question))?;
        let read = listing.entries.iter().filter(|entry| names::shows_identifying(entry));
        self.note_identifying(
            caller,
            "list",
            &read.map(|entry| entry.path.to_string()).collect::<Vec<_>>(),
        )?;
        Ok(listing)
    }

    /// What belongs to a replica, a key or an operation.
    ///
    /// # Errors
    /// A lookup that is none, or a database that fails.
    pub fn lookup(&self, caller: &Caller, lookup: &Lookup) -> Result<Found, Problem> {
        self.read(caller, |work| work.lookup(lookup))
    }

    /// Shows permissions.
    ///
    /// # Errors
    /// A database that fails.
    pub fn permissions(&self, caller: &Caller, items: &[Question]) -> Result<Vec<Answer<PermissionsAnswer>>, Problem> {
        self.read(caller, |work| {
            let weight = |answer: &PermissionsAnswer| names::records_weight(&answer.records);
            let show = |item: &Question| work.in_room(|| work.permissions(&item.path), weight);
            items.iter().map(|item| work.answer(show(item))).collect()
        })
    }

    /// The schema that holds at a path.
    ///
    /// # Errors
    /// No such path, or a database that fails.
    pub fn schema(&self, caller: &Caller, question: &SchemaQuestion) -> Result<Schema, Problem> {
        self.read(caller, |work| work.schema_at(&question.path))
    }

    /// Changes the schema of a directory.
    ///
    /// # Errors
    /// Why not.
    pub fn change_schema(&self, caller: &Caller, change: &SchemaChange) -> Result<Schema, Problem> {
        let path = change.path.to_string();
        self.change_one(caller, "schema", &path, |work| work.change_schema(change))
    }

    /// Begins an operation.
    ///
    /// # Errors
    /// Why not.
    pub fn begin(&self, caller: &Caller, begin: &OperationBegin) -> Result<Operation, Problem> {
        self.change_one(caller, "begin", &begin.id, |work| work.begin(begin))
    }

    /// Ends an operation.
    ///
    /// # Errors
    /// Why not.
    pub fn end(&self, caller: &Caller, end: &OperationEnd) -> Result<Operation, Problem> {
        self.change_one(caller, "end", &end.id, |work| work.end(end))
    }

    /// The caller's operations, the newest first.
    ///
    /// # Errors
    /// A database that fails.
    pub fn operations(&self, caller: &Caller) -> Result<Vec<Operation>, Problem> {
        self.read(caller, |work| work.operations())
    }

    /// Keeps a thumbnail, or with no bytes takes it away.
    ///
    /// # Errors
    /// Why not.
    pub fn put_thumbnail(&self, caller: &Caller, path: &str, bytes: &[u8]) -> Result<(), Problem> {
        self.change_one(caller, "thumbnail", path, |work| work.put_thumbnail(path, bytes))
    }

    /// A thumbnail.
    ///
    /// # Errors
    /// There is none, or it is not the caller's to see.
    pub fn thumbnail(&self, caller: &Caller, path: &str) -> Result<Vec<u8>, Problem> {
        self.read(caller, |work| work.thumbnail(path))
    }

    /// Reads a state of one moment.
    fn read<T>(&self, caller: &Caller, work: impl FnOnce(&Work<'_>) -> Result<T, Refusal>) -> Result<T, Problem> {
        let read = self.database.read(|sql| work(&Work::new(self, sql, caller)));
        read.map_err(Refusal::told)
    }

    /// Does each item or nothing of it, with a line in the audit log, all on disk before the answer.
    fn change_each<I, T>(
        &self,
        caller: &Caller,
        operation: &str,
        items: &[I],
        subject: impl Fn(&I) -> String,
        each: impl Fn(&Work<'_>, &I) -> Result<T, Refusal>,
    ) -> Result<Vec<Answer<T>>, Problem> {
        self.change_in_turn(caller, operation, items, subject, |_, _| Ok(()), each)
    }

    /// Likewise, where something is made ready for each item, which sees it and those behind it; that is not taken back
    /// with the item.
    fn change_in_turn<I, T>(
        &self,
        caller: &Caller,
        operation: &str,
        items: &[I],
        subject: impl Fn(&I) -> String,
        ready: impl Fn(&Work<'_>, &[I]) -> Result<(), DatabaseError>,
        each: impl Fn(&Work<'_>, &I) -> Result<T, Refusal>,
    ) -> Result<Vec<Answer<T>>, Problem> {
        let written = self.database.write(|sql| {
            let work = Work::new(self, sql, caller);
            let mut log = audit::Writer::new(sql, work.now)?;
            let mut answers = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                ready(&work, &items[index..])?;
                let done = attempt(sql, |_| each(&work, item));
                if done.is_err() {
                    work.forget();
                }
                let answer = work.answer(done)?;
                match &answer {
                    Answer::Done(_) => log.line(caller, operation, &subject(item), "done"),
                    Answer::Problem(problem) => {
                        let subject = self.log_subject(&subject(item), problem);
                        log.line(caller, operation, &subject, audit::outcome(problem));
                    }
                }
                answers.push(answer);
            }
            work.write_waiting()?;
            log.finish()?;
            Ok::<_, Refusal>(answers)
        });
        written.map_err(Refusal::told)
    }

    /// Likewise for a request of one item.
    fn change_one<T>(
        &self,
        caller: &Caller,
        operation: &str,
        subject: &str,
        one: impl Fn(&Work<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Problem> {
        let mut answers = self.change_each(caller, operation, &[()], |()| subject.to_owned(), |work, ()| one(work))?;
        match answers.pop() {
            Some(Answer::Done(done)) => Ok(done),
            Some(Answer::Problem(problem)) => Err(problem),
            None => Err(Problem::new(ProblemKind::Internal)),
        }
    }

    /// A path that is not there stands in the log as a keyed hash: a log must not become the oracle.
    fn log_subject(&self, subject: &str, problem: &Problem) -> String {
        // PostgreSQL takes no NUL, and a line of a log has no other control characters either.
        let is_odd = subject.len() > crate::LogicalName::MAX_BYTES || subject.chars().any(char::is_control);
        if problem.kind == ProblemKind::NotFound || is_odd {
            self.keys.log_name(subject)
        } else {
            subject.to_owned()
        }
    }

    /// Who was shown whose identifying half stands in the audit log before the answer leaves.
    fn note_identifying(&self, caller: &Caller, operation: &str, subjects: &[String]) -> Result<(), Problem> {
        if subjects.is_empty() {
            return Ok(());
        }
        metrics::counter!("identifying_shown_total").increment(subjects.len() as u64);
        let written = self.database.write(|sql| {
            let mut log = audit::Writer::new(sql, now())?;
            for subject in subjects {
                log.line(caller, operation, subject, "identifying attributes shown");
            }
            log.finish()
        });
        written.map(drop).map_err(|error| Refusal::Database(error).told())
    }

    /// A group or role that was claimed and not believed.
    pub fn note_refused_attributes(&self, caller: &Caller, reason: &str) {
        let written = self.database.write(|sql| {
            let mut log = audit::Writer::new(sql, now())?;
            log.line(caller, "connect", "", &format!("attributes refused: {reason}"));
            log.finish()
        });
        if let Err(error) = written {
            tracing::error!(reason = %error, "the audit log cannot be written");
        }
    }
}

/// The seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Numbers of a database are signed; ours stay far below.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the caller may do with the three parts of an entry.
#[derive(Debug, Clone, Copy)]
struct Rights {
    name: Permissions,
    anonymous: Permissions,
    identifying: Permissions,
}

impl Rights {
    fn sees(&self) -> bool {
        self.name.contains(Permission::List)
    }

    fn reads_anonymous(&self) -> bool {
        self.anonymous.contains(Permission::Use)
    }

    fn reads_identifying(&self) -> bool {
        self.identifying.contains(Permission::Use)
    }

    fn writes_identifying(&self) -> bool {
        self.identifying.contains(Permission::WriteShares)
    }

    /// Whether the identifying attributes exist for the caller.
    fn knows_identifying(&self) -> bool {
        self.reads_identifying() || self.writes_identifying()
    }
}

/// One transaction for one caller.
struct Work<'a> {
    engine: &'a Engine,
    sql: &'a dyn Sql,
    caller: &'a Caller,
    now: u64,
    seen: RefCell<Seen>,
    /// New entries of this request that are not written yet.
    waiting: RefCell<Waiting>,
    /// Names of it that were found free and have nobody yet.
    vacant: RefCell<HashSet<String>>,
    looked_ahead: Cell<bool>,
    /// How many entries the caller owns with those of this request, where that was counted.
    owned: Cell<Option<u64>>,
    /// Bytes that the answer may still have.
    room: Cell<usize>,
}

/// What was looked up once: a batch is mostly about one directory.
#[derive(Default)]
struct Seen {
    schemas: HashMap<i64, Rc<KnownSchema>>,
    records: HashMap<i64, (Arc<PermissionRecord>, Permissions)>,
    /// The record that a new entry has from its directory's.
    inherited: HashMap<i64, i64>,
    directories: HashMap<String, Rc<Stored>>,
    operations: HashMap<String, i64>,
    /// Whether an open operation is the caller's.
    owned: HashMap<i64, bool>,
}

impl<'a> Work<'a> {
    fn new(engine: &'a Engine, sql: &'a dyn Sql, caller: &'a Caller) -> Self {
        Self {
            engine,
            sql,
            caller,
            now: now(),
            seen: RefCell::default(),
            waiting: RefCell::default(),
            vacant: RefCell::default(),
            looked_ahead: Cell::new(false),
            owned: Cell::new(None),
            room: Cell::new(MOST_SHOWN_BYTES),
        }
    }

    /// Does an item whose answer may be long, unless those before it have taken all room: then it is not begun.
    fn in_room<T>(
        &self,
        item: impl FnOnce() -> Result<T, Refusal>,
        weight: impl Fn(&T) -> usize,
    ) -> Result<T, Refusal> {
        if self.room.get() == 0 {
            let problem = Problem::new(ProblemKind::TooLarge).detail("the answer is too large: ask for fewer");
            return Err(problem.into());
        }
        let done = item()?;
        self.room.set(self.room.get().saturating_sub(weight(&done)));
        Ok(done)
    }

    /// Forgets what may have been taken back.
    fn forget(&self) {
        *self.seen.borrow_mut() = Seen::default();
        self.owned.set(None);
    }

    /// A problem is the item's own; a failure is the whole request's.
    #[expect(clippy::unused_self, reason = "reads as a step of the work")]
    fn answer<T>(&self, done: Result<T, Refusal>) -> Result<Answer<T>, Refusal> {
        match done {
            Ok(done) => Ok(Answer::Done(done)),
            Err(Refusal::Problem(problem)) => Ok(Answer::Problem(problem)),
            Err(failure) => Err(failure),
        }
    }

    fn record(&self, id: i64) -> Result<Arc<PermissionRecord>, DatabaseError> {
        self.record_and_granted(id).map(|(record, _)| record)
    }

    fn granted(&self, record: i64) -> Result<Permissions, DatabaseError> {
        self.record_and_granted(record).map(|(_, granted)| granted)
    }

    fn record_and_granted(&self, id: i64) -> Result<(Arc<PermissionRecord>, Permissions), DatabaseError> {
        if let Some(seen) = self.seen.borrow().records.get(&id) {
            return Ok(seen.clone());
        }
        let record = self.engine.known.record(self.sql, id)?;
        let seen = (Arc::clone(&record), granted(&record, self.caller, false));
        self.seen.borrow_mut().records.insert(id, seen.clone());
        Ok(seen)
    }

    /// The record that a new entry of the caller has from its directory's.
    fn inherited(&self, id: i64) -> Result<i64, DatabaseError> {
        if let Some(seen) = self.seen.borrow().inherited.get(&id) {
            return Ok(*seen);
        }
        let own = records::intern(self.sql, &records::inherited(&*self.record(id)?, self.caller))?;
        self.seen.borrow_mut().inherited.insert(id, own);
        Ok(own)
    }

    /// What stands at the path of a directory.
    fn directory(&self, path: &LogicalName) -> Result<Option<Rc<Stored>>, DatabaseError> {
        if let Some(seen) = self.seen.borrow().directories.get(path.as_str()) {
            return Ok(Some(Rc::clone(seen)));
        }
        let Some(found) = rows::find(self.sql, path.as_str())? else {
            return Ok(None);
        };
        let found = Rc::new(found);
        let mut seen = self.seen.borrow_mut();
        seen.directories.insert(path.to_string(), Rc::clone(&found));
        Ok(Some(found))
    }

    fn rights(&self, entry: &Stored) -> Result<Rights, DatabaseError> {
        Ok(Rights {
            name: self.granted(entry.name_record)?,
            anonymous: self.granted(entry.anonymous_record)?,
            identifying: self.granted(entry.identifying_record)?,
        })
    }

    /// The entry of that path or guid, if the caller sees it, and what they may do with it.
    fn visible(&self, text: &str) -> Result<(Stored, Rights), Refusal> {
        let entry = rows::find(self.sql, text)?;
        let entry = entry.ok_or_else(not_found)?;
        let rights = self.rights(&entry)?;
        if rights.sees() && self.is_of_no_other(&entry)? {
            Ok((entry, rights))
        } else {
            Err(not_found())
        }
    }

    /// Whether the entry is committed, or of an open operation of the caller.
    fn is_of_no_other(&self, entry: &Stored) -> Result<bool, DatabaseError> {
        match entry.operation {
            None => Ok(true),
            Some(number) => self.owns_operation(number),
        }
    }

    /// The identifying half of an entry, opened.
    fn identifying(&self, entry: &Stored) -> Result<Identifying, Refusal> {
        let Some(column) = &entry.identifying else {
            return Ok(Identifying::default());
        };
        self.engine
            .keys
            .open(&entry.guid, column)
            .map_err(|source| Refusal::Column {
                guid: entry.guid.clone(),
                source,
            })
    }

    fn seal(&self, guid: &str, half: &Identifying) -> Result<Option<Vec<u8>>, Refusal> {
        self.engine.keys.seal(guid, half).map_err(|source| Refusal::Column {
            guid: guid.to_owned(),
            source,
        })
    }
}

/// Fails unless the caller has this permission on a part that they see.
fn needs(has: Permissions, permission: Permission, detail: &str) -> Result<(), Refusal> {
    if has.contains(permission) {
        Ok(())
    } else {
        Err(not_allowed(detail))
    }
}

/// The audit log, for those at the machine itself.
impl Engine {
    /// Signs the last line of the log where it is not signed yet; the head goes to the log of the process, to be kept
    /// elsewhere.
    pub fn sign_audit(&self) {
        let signed = self
            .database
            .write(|sql| audit::sign_last(sql, self.keys.head_key(), &self.rules.catalog, now()));
        match signed {
            Ok(Some(head)) => tracing::info!(%head, "audit log signed"),
            Ok(None) => {}
            // It is tried again a minute later, and the last line vouches for all before it.
            Err(error) if error.is_away() => {
                let cause = refusal::innermost(&error);
                tracing::warn!(reason = %error, cause, "the audit log is signed later: its database does not answer");
            }
            Err(error) => {
                let cause = refusal::innermost(&error);
                tracing::error!(reason = %error, cause, "the audit log cannot be signed");
            }
        }
    }

    /// A head, signed now.
    pub fn signed(&self, head: &hydra_service::audit::Head) -> hydra_service::audit::SignedHead {
        hydra_service::audit::SignedHead::sign(self.keys.head_key(), &self.rules.catalog, head, now())
    }

    /// Goes through the whole log.
    ///
    /// # Errors
    /// A database that fails; inside, what is wrong with the log.
    pub fn verify_audit(
        &self,
        kept: &[hydra_service::audit::SignedHead],
    ) -> Result<Result<Verified, AuditFault>, DatabaseError> {
        self.database
            .read(|sql| audit::verify(sql, self.keys.head_key(), &self.rules.catalog, kept))
    }

    /// Goes through the log of a database that nobody serves.
    pub(crate) fn verify_log(
        sql: &dyn Sql,
        keys: &ColumnKeys,
        catalog: &str,
    ) -> Result<Result<Verified, AuditFault>, DatabaseError> {
        audit::verify(sql, keys.head_key(), catalog, &[])
    }

    /// A line about what somebody did at the machine itself, signed.
    pub(crate) fn note_restore(
        sql: &dyn Sql,
        keys: &ColumnKeys,
        catalog: &str,
        outcome: &str,
        at: u64,
    ) -> Result<(), DatabaseError> {
        let dn = format!("local user {}", rustix::process::getuid().as_raw());
        let mut log = audit::Writer::new(sql, at)?;
        log.by(&dn, "restore", "", outcome);
        log.finish()?;
        audit::sign_last(sql, keys.head_key(), catalog, at).map(drop)
    }

    /// Up to `limit` lines of the log from behind `after`.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn audit_lines(database: &Database, after: i64, limit: i64) -> Result<Vec<AuditRow>, DatabaseError> {
        database.read(|sql| audit::lines(sql, after, limit))
    }
}
