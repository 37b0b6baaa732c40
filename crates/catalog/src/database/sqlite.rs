//! SQLite behind [`Sql`]: one writer, several readers, WAL, each commit flushed to disk.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Statement, ToSql};

use super::group::{self, Part, Writers};
use super::schema::CATALOG;
use super::{Backend, DatabaseError, Datum, Dialect, Each, Product, Row, Sql};

/// How long another process that writes (a backup, a check) is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a reader's statement may work without giving a row.
const STATEMENT: Duration = Duration::from_secs(60);
/// Readers that are kept open.
const IDLE_READERS: usize = 16;

/// A SQLite database.
pub struct Sqlite {
    path: PathBuf,
    writers: Writers<Connection>,
    readers: Mutex<Vec<Connection>>,
    statement: Duration,
}

impl Sqlite {
    /// Makes the file of a catalogue, for its owner alone, with the schema of this version in it.
    ///
    /// # Errors
    /// [`DatabaseError`]; a file that is there already is one.
    pub fn create(path: &Path) -> Result<Self, DatabaseError> {
        // SQLite gives its other files the permissions of this one.
        let made = File::options().create_new(true).write(true).mode(0o600).open(path);
        made.map_err(|source| DatabaseError::Open {
            path: path.to_owned(),
            source,
        })?;
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "application_id", CATALOG.number)?;
        Self::with(&CATALOG, path, connection)
    }

    /// Opens the file of a catalogue, brought to this version's schema.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        check_ours(&CATALOG, &connection)?;
        Self::with(&CATALOG, path, connection)
    }

    /// Opens a file, which may be empty, for what has tables of its own.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_for(product: &Product, path: &Path) -> Result<Self, DatabaseError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if number(&connection, "application_id")? == 0 && tables(&connection)? == 0 {
            patiently(|| connection.pragma_update(None, "application_id", product.number))?;
        }
        check_ours(product, &connection)?;
        Self::with(product, path, connection)
    }

    fn with(product: &Product, path: &Path, connection: Connection) -> Result<Self, DatabaseError> {
        patiently(|| connection.pragma_update(None, "journal_mode", "WAL"))?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // What was deleted is overwritten, not only unlinked.
        connection.pragma_update(None, "secure_delete", true)?;
        let database = Self {
            path: path.to_owned(),
            writers: Writers::new(connection),
            readers: Mutex::default(),
            statement: STATEMENT,
        };
        let mut migrated = Ok(());
        database.write(&mut |sql| {
            migrated = product.bring_up(sql);
            migrated.is_ok()
        })?;
        migrated.map(|()| database)
    }

    /// Writes a copy of one moment to a file that is empty or not there.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn copy(path: &Path, to: &str) -> Result<(), DatabaseError> {
        let source = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        check_ours(&CATALOG, &source)?;
        source.execute("VACUUM INTO ?1", [to])?;
        Ok(())
    }

    /// Brings everything from the log into the file itself, which has no log then.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn settle(path: &Path) -> Result<(), DatabaseError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error.into())
    }

    /// What is damaged in a file, in SQLite's words.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn fault(path: &Path) -> Result<Option<String>, DatabaseError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if said != "ok" {
            return Ok(Some(said));
        }
        let mut foreign = connection.prepare("PRAGMA foreign_key_check")?;
        let is_alone = foreign.exists([])?;
        Ok(is_alone.then(|| "something belongs to an entry that is not there".to_owned()))
    }

    /// Whether nothing was ever done in it.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn is_unused(path: &Path) -> Result<bool, DatabaseError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let query = "SELECT NOT EXISTS (SELECT 1 FROM entries) AND NOT EXISTS (SELECT 1 FROM audit)";
        Ok(connection.query_row(query, [], |row| row.get(0))?)
    }

    /// Stops it from growing beyond so many bytes.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn limit(&self, max_bytes: u64) -> Result<(), DatabaseError> {
        self.writers.with(|writer| {
            let page = number(writer, "page_size")?;
            let pages = (i64::try_from(max_bytes).unwrap_or(i64::MAX) / page.max(1)).max(1);
            Ok(writer.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
        })
    }
}

fn number(connection: &Connection, pragma: &str) -> Result<i64, DatabaseError> {
    Ok(connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?)
}

fn tables(connection: &Connection) -> Result<i64, DatabaseError> {
    Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?)
}

fn check_ours(product: &Product, connection: &Connection) -> Result<(), DatabaseError> {
    if number(connection, "application_id")? == i64::from(product.number) {
        Ok(())
    } else {
        let program = product.program;
        Err(DatabaseError::NotOurs { program })
    }
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, DatabaseError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Statements keep their plans whatever is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // LIKE by code points, as PostgreSQL does it.
    connection.pragma_update(None, "case_sensitive_like", true)?;
    Ok(connection)
}

/// Does what SQLite does not wait for, and which somebody else may be doing: making a new file one of ours.
fn patiently(verb: impl Fn() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match verb() {
            Err(error) if is_busy(&error) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it says that there is no room.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return false;
    };
    // A quota and a limit to the size of files come as a write that failed.
    failure.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE
        || matches!(
            failure.code,
            rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::TooBig
        )
}

/// Whether another process keeps it.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

impl Backend for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn read(&self, work: &mut dyn FnMut(&dyn Sql)) -> Result<(), DatabaseError> {
        let idle = lock(&self.readers).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let clock = Arc::new(Mutex::new(Instant::now()));
        let (seen, limit) = (Arc::clone(&clock), self.statement);
        // few steps: a pattern that is tried on a text is a single one
        connection.progress_handler(100, Some(move || lock(&seen).elapsed() > limit))?;
        let moment = connection.unchecked_transaction()?;
        work(&Statements(&moment, Some(&clock)));
        moment.finish()?;
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        Ok(())
    }

    fn write(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError> {
        Ok(self.writers.write(false, work)?)
    }

    fn write_lightly(&self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<(), DatabaseError> {
        Ok(self.writers.write(true, work)?)
    }

    fn is_ready(&self) -> bool {
        self.write(&mut |_| false).is_ok()
    }
}

/// A failure as each member of a group is told it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault(std::ffi::c_int);

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let failure = error.sqlite_error();
        Self(failure.map_or(rusqlite::ffi::SQLITE_ABORT, |failure| failure.extended_code))
    }
}

impl From<Fault> for DatabaseError {
    fn from(Fault(code): Fault) -> Self {
        Self::Sqlite(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
    }
}

impl group::Connection for Connection {
    type Fault = Fault;

    fn begin(&mut self, lightly: bool) -> Result<(), DatabaseError> {
        // What is committed lightly is flushed some time later.
        let synchronous = if lightly { "NORMAL" } else { "FULL" };
        self.pragma_update(None, "synchronous", synchronous)?;
        Ok(self.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn part(&mut self, work: &mut dyn FnMut(&dyn Sql) -> bool) -> Result<Part, Fault> {
        self.execute_batch("SAVEPOINT writer")
            .map_err(|error| undone(self, error))?;
        let keep = work(&Statements(self, None));
        if self.is_autocommit() {
            // Without room on the disk SQLite ends the transaction by itself.
            return Err(Fault(rusqlite::ffi::SQLITE_FULL));
        }
        let (end, part) = if keep {
            ("RELEASE writer", Part::Kept)
        } else {
            ("ROLLBACK TO writer; RELEASE writer", Part::TakenBack)
        };
        self.execute_batch(end).map_err(|error| undone(self, error))?;
        Ok(part)
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.execute_batch("COMMIT").map_err(|error| undone(self, error))
    }

    fn rollback(&mut self) -> Fault {
        // Where nothing is left to take back there is nothing to be told.
        let _ = self.execute_batch("ROLLBACK");
        Fault(rusqlite::ffi::SQLITE_ABORT)
    }
}

fn undone(connection: &Connection, error: rusqlite::Error) -> Fault {
    if !connection.is_autocommit() {
        // It failed for that reason already.
        let _ = connection.execute_batch("ROLLBACK");
    }
    error.into()
}

/// A connection inside a transaction.
struct Statements<'a>(&'a Connection, Option<&'a Mutex<Instant>>);

impl Statements<'_> {
    /// A statement that gives rows may go on.
    fn restart(&self) {
        if let Some(clock) = self.1 {
            *lock(clock) = Instant::now();
        }
    }
}

impl Sql for Statements<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn execute(&self, sql: &str, data: &[Datum]) -> Result<u64, DatabaseError> {
        let mut statement = self.0.prepare_cached(sql)?;
        bind(&mut statement, data)?;
        Ok(u64::try_from(statement.raw_execute()?).unwrap_or(u64::MAX))
    }

    fn query(&self, sql: &str, data: &[Datum], each: Each<'_>) -> Result<(), DatabaseError> {
        self.restart();
        let mut statement = self.0.prepare_cached(sql)?;
        bind(&mut statement, data)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(found) = rows.next()? {
            self.restart();
            let read = |column| Ok::<_, DatabaseError>(datum(found.get_ref(column)?));
            let row = (0..columns).map(read).collect::<Result<_, _>>()?;
            if each(Row(row))? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn define(&self, sql: &str) -> Result<(), DatabaseError> {
        Ok(self.0.execute_batch(sql)?)
    }
}

fn bind(statement: &mut Statement<'_>, data: &[Datum]) -> Result<(), DatabaseError> {
    for (index, datum) in data.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, datum)?;
    }
    Ok(())
}

impl ToSql for Datum {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Integers(numbers) => {
                let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
                ToSqlOutput::Owned(Value::Text(format!("[{}]", texts.join(","))))
            }
            // Texts only: this JSON cannot fail.
            Self::Texts(texts) => ToSqlOutput::Owned(Value::Text(serde_json::to_string(texts).unwrap_or_default())),
        })
    }
}

fn datum(value: ValueRef<'_>) -> Datum {
    match value {
        ValueRef::Null => Datum::Null,
        ValueRef::Integer(number) => Datum::Integer(number),
        ValueRef::Real(number) => Datum::Real(number),
        // Only what came in as a text is stored as one.
        ValueRef::Text(text) => Datum::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Datum::Blob(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Database, attempt, row, rows};
    use super::*;

    #[test]
    fn a_statement_that_gives_no_row_in_time_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = Sqlite::create(&folder.path().join("catalog.db")).unwrap();
        sqlite.statement = Duration::from_millis(100);
        let database = Database::new(sqlite);
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let counted: Result<_, DatabaseError> = database.read(|sql| rows(sql, endless, &[]));
        assert!(matches!(counted, Err(DatabaseError::Sqlite(_))));
        let next: Result<_, DatabaseError> = database.read(|sql| rows(sql, "SELECT 1", &[]));
        assert_eq!(next.unwrap(), [Row(vec![1.into()])]);
    }

    #[test]
    fn work_that_fails_leaves_nothing_and_a_part_that_fails_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let database = Database::new(Sqlite::create(&path).unwrap());
        let insert = "INSERT INTO meta(name, value) VALUES (?1, ?2)";
        let failed: Result<(), DatabaseError> = database.write(|sql| {
            sql.execute(insert, &["a".into(), "1".into()])?;
            Err(DatabaseError::Closed)
        });
        assert!(matches!(failed, Err(DatabaseError::Closed)));
        let done: Result<(), DatabaseError> = database.write(|sql| {
            sql.execute(insert, &["b".into(), "'; DROP TABLE meta; --".into()])?;
            let part: Result<(), DatabaseError> = attempt(sql, |sql| {
                sql.execute(insert, &["c".into(), "1".into()])?;
                sql.execute(insert, &["b".into(), "again".into()])?;
                Ok(())
            });
            assert!(matches!(part, Err(DatabaseError::Sqlite(_))));
            Ok(())
        });
        done.unwrap();
        let select = "SELECT name, value FROM meta WHERE name IN ('a', 'b', 'c')";
        let found: Result<_, DatabaseError> = database.read(|sql| rows(sql, select, &[]));
        assert_eq!(found.unwrap(), [Row(vec!["b".into(), "'; DROP TABLE meta; --".into()])]);
        // found again by whoever opens it
        drop(database);
        let database = Database::new(Sqlite::open(&path).unwrap());
        let one_of = |column, place| Dialect::Sqlite.is_one_of(column, place);
        let one_of = format!("SELECT ?2 WHERE {} AND {}", one_of("?3", 1), one_of("'b\"'", 4));
        let texts = Datum::Texts(vec!["a".into(), "b\"".into()]);
        let data = [Datum::Integers(vec![3, 5]), Datum::Real(0.5), 5.into(), texts];
        let found: Result<_, DatabaseError> = database.read(|sql| row(sql, &one_of, &data));
        assert_eq!(found.unwrap(), Some(Row(vec![Datum::Real(0.5)])));
        assert!(database.is_ready());
    }

    /// The threads of a group: the first is held inside its work until all others stand behind it.
    fn together(
        database: &Database,
        others: usize,
        work: &(dyn Fn(usize, &dyn Sql) -> Result<(), DatabaseError> + Sync),
    ) {
        let (begun, all) = (std::sync::Barrier::new(2), std::sync::Barrier::new(others + 1));
        let late = Duration::from_millis(5);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let first = database.write(|sql| {
                    begun.wait();
                    all.wait();
                    // long enough for the others to come from the barrier to the queue, or they come after
                    std::thread::sleep(late);
                    work(0, sql)
                });
                first.unwrap();
            });
            begun.wait();
            for number in 1..=others {
                let all = &all;
                scope.spawn(move || {
                    all.wait();
                    let _ = database.write(|sql| work(number, sql));
                });
            }
        });
    }

    #[test]
    fn writers_that_come_at_once_keep_what_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(Sqlite::create(&folder.path().join("catalog.db")).unwrap());
        let insert = "INSERT INTO meta(name, value) VALUES (?1, '')";
        // Every third fails when it has written already; each of the others sees what those before it wrote.
        together(&database, 12, &|number, sql| {
            sql.execute(insert, &[format!("writer {number}").into()])?;
            if number % 3 == 2 {
                return Err(DatabaseError::Closed);
            }
            Ok(())
        });
        let count = "SELECT count(*) FROM meta WHERE name LIKE 'writer %'";
        let counted = |database: &Database| -> i64 {
            let found: Result<_, DatabaseError> = database.read(|sql| row(sql, count, &[]));
            found.unwrap().unwrap().integer(0).unwrap()
        };
        assert_eq!(counted(&database), 9);
        // One that panics takes those of its group with it, who are told; nobody after it.
        let told = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (database, told) = (&database, &told);
                scope.spawn(move || {
                    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        database.write(|sql| {
                            sql.execute(insert, &[format!("writer {}", 100 + number).into()])?;
                            assert!(number != 5);
                            Ok::<_, DatabaseError>(())
                        })
                    }));
                    if matches!(worked, Ok(Ok(()))) {
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let kept = i64::try_from(told.into_inner()).unwrap();
        assert_eq!(counted(&database), 9 + kept);
        assert!(database.is_ready());
    }

    #[test]
    fn whoever_comes_behind_a_writer_that_takes_long_is_told_to_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = Sqlite::create(&folder.path().join("catalog.db")).unwrap();
        sqlite.writers = sqlite.writers.patient_for(Duration::ZERO);
        let database = Database::new(sqlite);
        let (begun, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let nothing = || database.write(|_| Ok::<_, DatabaseError>(()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let first = database.write(|_| {
                    begun.wait();
                    end.wait();
                    Ok::<_, DatabaseError>(())
                });
                first.unwrap();
            });
            begun.wait();
            assert!(nothing().unwrap_err().is_away());
            assert!(!database.is_ready());
            end.wait();
        });
        nothing().unwrap();
        assert!(database.is_ready());
    }

    #[test]
    fn another_database_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE x(y)")
            .unwrap();
        assert!(matches!(Sqlite::open(&path), Err(DatabaseError::NotOurs { .. })));
        assert!(matches!(Sqlite::create(&path), Err(DatabaseError::Open { .. })));
    }
}
