//! The file in which the hospital's side remembers: what is registered ([`crate::registry`]) and what is asked for
//! ([`crate::queue`]). SQLite, for its owner alone; several processes may have it open
//! (`docs/src/operating-recall.md`).

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

/// "HyRc", so that no other database is taken for one of ours.
const APPLICATION_ID: i64 = 0x4879_5263;
/// `PRAGMA synchronous`: what is committed is flushed some time later.
const NORMAL: i64 = 1;
/// How long a change by another process is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What each version of the schema adds.
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE instances(
    name TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    instance TEXT NOT NULL,
    class TEXT,
    new_study TEXT NOT NULL,
    new_series TEXT NOT NULL,
    new_instance TEXT NOT NULL,
    key_id TEXT NOT NULL,
    profile TEXT NOT NULL,
    size INTEGER,
    sha256 TEXT,
    change INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    on_disk INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_original ON instances(study, series, instance);
CREATE INDEX instances_on_disk ON instances(on_disk) WHERE on_disk = 1;
CREATE UNIQUE INDEX instances_change ON instances(change);
CREATE TABLE requests(
    name TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    tries INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_try_at INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    change INTEGER NOT NULL,
    here INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX requests_due ON requests(state, next_try_at);
CREATE INDEX requests_series ON requests(study, series);
CREATE INDEX requests_change ON requests(change);
CREATE TABLE evictions(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE changes(kind TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO changes VALUES ('instances', 0), ('requests', 0);
",
    "
CREATE TABLE registrations(
    id TEXT PRIMARY KEY,
    what TEXT NOT NULL,
    into_path TEXT NOT NULL,
    state TEXT NOT NULL,
    began_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE registration_keys(
    id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    registration_id TEXT,
    PRIMARY KEY (id, key_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE registration_names(
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_key ON instances(key_id);
CREATE TABLE catalogued(name TEXT PRIMARY KEY, path TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox(
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    next_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER told_of_change AFTER UPDATE OF size, sha256, on_disk ON instances
WHEN (NEW.size IS NOT OLD.size OR NEW.sha256 IS NOT OLD.sha256 OR NEW.on_disk IS NOT OLD.on_disk)
    AND EXISTS (SELECT 1 FROM catalogued WHERE name = NEW.name)
BEGIN
    INSERT INTO outbox VALUES (NEW.name, 1, 0, 0)
    ON CONFLICT(name) DO UPDATE SET version = version + 1, tries = 0, next_at = 0;
END;
CREATE TRIGGER told_of_what_is_known AFTER INSERT ON catalogued
WHEN EXISTS (SELECT 1 FROM instances WHERE name = NEW.name AND (size IS NOT NULL OR on_disk = 1))
BEGIN
    INSERT INTO outbox VALUES (NEW.name, 1, 0, 0)
    ON CONFLICT(name) DO UPDATE SET version = version + 1, tries = 0, next_at = 0;
END;
",
];

/// The schema that this version writes.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// SQLite says so.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// It cannot be made.
    #[error("cannot make `{}`", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is not there.
    #[error("there is no database `{}` yet", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// Made by a later version.
    #[error("the database has schema {found}, this version knows up to {SCHEMA_VERSION}")]
    Newer {
        /// Its schema.
        found: i64,
    },
    /// Some other database.
    #[error("`{}` is some other database", path.display())]
    NotOurs {
        /// Which.
        path: PathBuf,
    },
    /// A row that this version never wrote.
    #[error("a row of `{table}` does not read")]
    Row {
        /// Which table.
        table: &'static str,
    },
    /// Randomness for its identifier cannot be had.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// An open database; threads take turns.
pub struct Database {
    path: PathBuf,
    id: String,
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens the database at `path`, and makes it where there is none.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_or_make(path: &Path) -> Result<Self, DatabaseError> {
        let unmade = |source| DatabaseError::Make {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(unmade)?;
        }
        // SQLite gives its other files the permissions of this one
        let made = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        // a copy that was put back may have other permissions
        let owner_only = std::fs::Permissions::from_mode(0o600);
        made.and_then(|file| file.set_permissions(owner_only)).map_err(unmade)?;
        Self::open(path)
    }

    /// Opens the database at `path`.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        if !path.exists() {
            let path = path.to_owned();
            return Err(DatabaseError::Missing { path });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags);
        let mut connection = opened.map_err(|source| DatabaseError::Open {
            path: path.to_owned(),
            source,
        })?;
        connection.busy_timeout(PATIENCE)?;
        let id = prepare(&mut connection, path)?;
        Ok(Self {
            path: path.to_owned(),
            id,
            connection: Mutex::new(connection),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells this database from every other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        work(&self.lock())
    }

    /// Changes all or nothing; it is on disk afterwards.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// As [`Database::change`], but a power cut may take back the latest of these changes: for what is found out again.
    pub(crate) fn change_lightly<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut connection = self.lock();
        let usual: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        connection.execute_batch(&format!("PRAGMA synchronous = {}", usual.min(NORMAL)))?;
        let done = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })();
        connection.execute_batch(&format!("PRAGMA synchronous = {usual}"))?;
        done
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // whoever panicked has rolled back
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next number of a change.
pub(crate) fn next_change(transaction: &Transaction<'_>, kind: &str) -> Result<i64, DatabaseError> {
    let mut statement =
        transaction.prepare_cached("UPDATE changes SET last = last + 1 WHERE kind = ?1 RETURNING last")?;
    Ok(statement.query_row([kind], |row| row.get(0))?)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// Lower-case hexadecimal digits of so many random bytes.
///
/// # Errors
/// [`DatabaseError::Random`]
pub fn random_id<const BYTES: usize>() -> Result<String, DatabaseError> {
    let mut drawn = [0; BYTES];
    aws_lc_rs::rand::fill(&mut drawn).map_err(|_| DatabaseError::Random)?;
    Ok(hex(&drawn))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<String, DatabaseError> {
    let number = |connection: &Connection, pragma: &str| -> Result<i64, rusqlite::Error> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
    };
    let application = number(connection, "application_id").map_err(|source| DatabaseError::Open {
        path: path.to_owned(),
        source,
    })?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || tables != 0) {
        let path = path.to_owned();
        return Err(DatabaseError::NotOurs { path });
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // what was asked for may name a patient (`registrations.what`): nothing of it stays in free pages
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = number(&transaction, "user_version")?;
    if version > SCHEMA_VERSION {
        return Err(DatabaseError::Newer { found: version });
    }
    let done = usize::try_from(version).unwrap_or(0);
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    let query = "SELECT value FROM meta WHERE name = 'id'";
    let id: Option<String> = transaction.query_row(query, [], |row| row.get(0)).optional()?;
    let id = match id {
        Some(id) => id,
        None => {
            let id = random_id::<16>()?;
            transaction.execute("INSERT INTO meta VALUES ('id', ?1)", [&id])?;
            id
        }
    };
    if done < MIGRATIONS.len() {
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))?;
        transaction.commit()?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_its_owner_alone_and_keeps_its_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/recall.db");
        assert!(matches!(Database::open(&path), Err(DatabaseError::Missing { .. })));
        let id = Database::open_or_make(&path).unwrap().id().to_owned();
        assert_eq!(id.len(), 32);
        let database = Database::open_or_make(&path).unwrap();
        assert_eq!(database.id(), id);
        for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[test]
    fn other_and_later_databases_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE x(y)")
            .unwrap();
        assert!(matches!(Database::open(&path), Err(DatabaseError::NotOurs { .. })));
        let path = folder.path().join("ours.db");
        drop(Database::open_or_make(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(Database::open(&path), Err(DatabaseError::Newer { found: 99 })));
        std::fs::write(&path, "no database at all, but long enough to be looked at as one").unwrap();
        let _ = std::fs::remove_file(folder.path().join("ours.db-wal"));
        assert!(Database::open(&path).is_err());
    }
}
