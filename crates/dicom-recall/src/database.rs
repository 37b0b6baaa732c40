//! Where the hospital's side remembers: what is registered ([`crate::registry`]), what is asked for ([`crate::queue`]),
//! and what a catalogue is told of ([`crate::catalogued`]). One SQLite file, for its owner alone, which several
//! processes of a machine may have open; or a PostgreSQL database, for daemons on several machines
//! (`docs/src/operating-recall.md`).

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use mdm_catalog::config::DatabaseSource;
use mdm_catalog::database::postgres::{Postgres, SettingsError};
use mdm_catalog::database::sqlite::Sqlite;
use mdm_catalog::database::{self as kit, Datum, Dialect, Product, Row, Sql, schema};

/// What the tables are.
static PRODUCT: Product = Product {
    program: "dicom-recall",
    // "HyRc"
    number: 0x4879_5263,
    version: SCHEMA_VERSION,
    earlier,
    migrate,
};

/// The schema that this version writes.
pub const SCHEMA_VERSION: i64 = 3;

/// What is the same in both databases; `{TEXT}` is its type of texts.
const REGISTRY_AND_QUEUE: &str = "
CREATE TABLE instances(
    name {TEXT} PRIMARY KEY,
    study {TEXT} NOT NULL,
    series {TEXT} NOT NULL,
    instance {TEXT} NOT NULL,
    class {TEXT},
    new_study {TEXT} NOT NULL,
    new_series {TEXT} NOT NULL,
    new_instance {TEXT} NOT NULL,
    key_id {TEXT} NOT NULL,
    profile {TEXT} NOT NULL,
    size BIGINT,
    sha256 {TEXT},
    change BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    gone BIGINT NOT NULL,
    on_disk BIGINT NOT NULL
);
CREATE INDEX instances_original ON instances(study, series, instance);
CREATE INDEX instances_on_disk ON instances(on_disk) WHERE on_disk = 1;
CREATE UNIQUE INDEX instances_change ON instances(change);
CREATE TABLE requests(
    name {TEXT} PRIMARY KEY,
    study {TEXT} NOT NULL,
    series {TEXT} NOT NULL,
    priority BIGINT NOT NULL,
    state {TEXT} NOT NULL,
    reason {TEXT},
    tries BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_try_at BIGINT NOT NULL,
    lease_owner {TEXT},
    lease_until BIGINT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    change BIGINT NOT NULL,
    here BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX requests_due ON requests(state, next_try_at);
CREATE INDEX requests_series ON requests(study, series);
CREATE INDEX requests_change ON requests(change);
CREATE TABLE evictions(name {TEXT} PRIMARY KEY);
CREATE TABLE changes(kind {TEXT} PRIMARY KEY, last BIGINT NOT NULL);
INSERT INTO changes VALUES ('instances', 0), ('requests', 0);
";

const CATALOGUED: &str = "
CREATE TABLE registrations(
    id {TEXT} PRIMARY KEY,
    what {TEXT} NOT NULL,
    into_path {TEXT} NOT NULL,
    state {TEXT} NOT NULL,
    began_at BIGINT NOT NULL
);
CREATE TABLE registration_keys(
    id {TEXT} NOT NULL,
    key_id {TEXT} NOT NULL,
    registration_id {TEXT},
    PRIMARY KEY (id, key_id)
);
CREATE TABLE registration_names(
    id {TEXT} NOT NULL,
    name {TEXT} NOT NULL,
    PRIMARY KEY (id, name)
);
CREATE INDEX instances_key ON instances(key_id);
CREATE TABLE catalogued(name {TEXT} PRIMARY KEY, path {TEXT} NOT NULL);
CREATE TABLE outbox(
    name {TEXT} PRIMARY KEY,
    version BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL
);
";

/// What a registration is about to make, before any key store hears of it.
const INTENTS: &str = "
CREATE TABLE registration_intents(
    id {TEXT} NOT NULL,
    key_id {TEXT} NOT NULL,
    registration_id {TEXT} NOT NULL,
    PRIMARY KEY (id, key_id, registration_id)
);
";

/// The outbox fills itself, whichever process makes the change.
const SQLITE_TRIGGERS: &str = "
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
";

const POSTGRES_TRIGGERS: &str = "
CREATE FUNCTION into_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox
    SELECT instances.name, 1, 0, 0 FROM instances JOIN catalogued ON catalogued.name = instances.name
    WHERE instances.name = NEW.name AND (TG_OP = 'UPDATE' OR size IS NOT NULL OR on_disk = 1)
    ON CONFLICT(name) DO UPDATE SET version = outbox.version + 1, tries = 0, next_at = 0;
    RETURN NULL;
END $$;
CREATE TRIGGER told_of_change AFTER UPDATE OF size, sha256, on_disk ON instances FOR EACH ROW
WHEN (NEW.size IS DISTINCT FROM OLD.size OR NEW.sha256 IS DISTINCT FROM OLD.sha256
    OR NEW.on_disk IS DISTINCT FROM OLD.on_disk)
EXECUTE FUNCTION into_outbox();
CREATE TRIGGER told_of_what_is_known AFTER INSERT ON catalogued FOR EACH ROW
EXECUTE FUNCTION into_outbox();
";

/// Files of the first versions have the number of their schema in their header.
fn earlier(sql: &dyn Sql) -> Result<i64, kit::DatabaseError> {
    match sql.dialect() {
        Dialect::Sqlite => kit::row(sql, "PRAGMA user_version", &[])?.map_or(Ok(0), |row| row.integer(0)),
        Dialect::Postgres => Ok(0),
    }
}

fn migrate(sql: &dyn Sql, number: i64) -> Result<(), kit::DatabaseError> {
    let dialect = sql.dialect();
    let triggers = match dialect {
        Dialect::Sqlite => SQLITE_TRIGGERS,
        Dialect::Postgres => POSTGRES_TRIGGERS,
    };
    match number {
        0 => sql.define(&dialect.definition(REGISTRY_AND_QUEUE)),
        1 => {
            sql.define(&dialect.definition(CATALOGUED))?;
            sql.define(triggers)
        }
        _ => sql.define(&dialect.definition(INTENTS)),
    }
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// It says so itself.
    #[error(transparent)]
    Kit(#[from] kit::DatabaseError),
    /// The settings of PostgreSQL.
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
        source: kit::DatabaseError,
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

/// An open database; threads may use it at once.
pub struct Database {
    kit: kit::Database,
    id: String,
    file: Option<PathBuf>,
    /// How far the clock of a server is ahead of ours.
    ahead_ms: AtomicI64,
}

impl Database {
    /// Opens a database, and makes it where there is none.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open_or_make(source: &DatabaseSource) -> Result<Self, DatabaseError> {
        if let DatabaseSource::File(path) = source {
            make(path).map_err(|source| DatabaseError::Make {
                path: path.clone(),
                source,
            })?;
        }
        Self::open(source)
    }

    /// Opens a database: a file must be there, in PostgreSQL the tables are made.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open(source: &DatabaseSource) -> Result<Self, DatabaseError> {
        let kit = match source {
            DatabaseSource::File(path) if !path.exists() => {
                let path = path.clone();
                return Err(DatabaseError::Missing { path });
            }
            DatabaseSource::File(path) => {
                let opened = Sqlite::open_for(&PRODUCT, path);
                kit::Database::new(opened.map_err(|source| DatabaseError::Open {
                    path: path.clone(),
                    source,
                })?)
            }
            DatabaseSource::Postgres {
                url,
                password_file,
                authorities,
            } => {
                let settings = kit::postgres::Settings::of(url, password_file.as_deref(), authorities.as_deref())?;
                kit::Database::new(Postgres::open_for(&PRODUCT, settings)?)
            }
        };
        let known: Result<_, DatabaseError> = kit.read(|sql| Ok(schema::meta(sql, "id")?));
        let id = match known? {
            Some(id) => id,
            None => kit.write(|sql| {
                // somebody else may have been quicker
                if let Some(id) = schema::meta(sql, "id")? {
                    return Ok(id);
                }
                let id = random_id::<16>()?;
                schema::set_meta(sql, "id", &id)?;
                Ok::<_, DatabaseError>(id)
            })?,
        };
        let database = Self {
            kit,
            id,
            file: source.file().map(Path::to_owned),
            ahead_ms: AtomicI64::new(0),
        };
        database.look_at_clock()?;
        Ok(database)
    }

    /// The time that all who share the database go by, in milliseconds since 1970: its server's, where it has one.
    pub fn now_ms(&self) -> i64 {
        now_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Asks a server for the time, for ours may have been set meanwhile.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn look_at_clock(&self) -> Result<(), DatabaseError> {
        if self.kit.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let query = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        let theirs = self.read(|sql| number(sql, query, &[]))?;
        self.ahead_ms.store(theirs.saturating_sub(now_ms()), Ordering::Relaxed);
        Ok(())
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What tells this database from every other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads a state of one moment.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&dyn Sql) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        self.kit.read(work)
    }

    /// Changes all or nothing; it is on disk afterwards.
    pub(crate) fn change<T>(&self, work: impl FnMut(&dyn Sql) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        self.kit.write(work)
    }

    /// As [`Database::change`], but a power cut may take back the latest of these changes: for what is found out again.
    pub(crate) fn change_lightly<T>(
        &self,
        work: impl FnMut(&dyn Sql) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.kit.write_lightly(work)
    }
}

/// Makes a file for its owner alone, and its folder.
fn make(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // SQLite gives its other files the permissions of this one
    let made = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    // a copy that was put back may have other permissions
    made.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
impl Database {
    /// As if our clock were so much behind that of the server.
    pub(crate) fn set_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

/// The next number of a change. Whoever has it is the only one who writes, so that numbers become seen in their order.
pub(crate) fn next_change(sql: &dyn Sql, kind: &str) -> Result<i64, DatabaseError> {
    let update = "UPDATE changes SET last = last + 1 WHERE kind = ?1 RETURNING last";
    number(sql, update, &[kind.into()])
}

/// The first row of an answer, as `read` reads it.
pub(crate) fn first<T>(
    sql: &dyn Sql,
    text: &str,
    data: &[Datum],
    read: impl Fn(&mut Row) -> Result<T, DatabaseError>,
) -> Result<Option<T>, DatabaseError> {
    kit::row(sql, text, data)?.map(|mut row| read(&mut row)).transpose()
}

/// All rows of an answer, each as `read` reads it.
pub(crate) fn all<T, C: FromIterator<T>>(
    sql: &dyn Sql,
    text: &str,
    data: &[Datum],
    read: impl Fn(&mut Row) -> Result<T, DatabaseError>,
) -> Result<C, DatabaseError> {
    kit::rows(sql, text, data)?.iter_mut().map(read).collect()
}

/// The texts in the first column of an answer.
pub(crate) fn texts<C: FromIterator<String>>(sql: &dyn Sql, text: &str, data: &[Datum]) -> Result<C, DatabaseError> {
    all(sql, text, data, |row| Ok(row.text(0)?))
}

/// The number that is the answer.
pub(crate) fn number(sql: &dyn Sql, text: &str, data: &[Datum]) -> Result<i64, DatabaseError> {
    let found = first(sql, text, data, |row| Ok(row.integer(0)?))?;
    found.ok_or(DatabaseError::Row { table: "changes" })
}

/// Whether it is so.
pub(crate) fn is_so(sql: &dyn Sql, text: &str, data: &[Datum]) -> Result<bool, DatabaseError> {
    Ok(number(sql, text, data)? != 0)
}

/// As the database counts.
pub(crate) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> DatabaseSource {
        DatabaseSource::File(path.to_owned())
    }

    #[test]
    fn it_is_for_its_owner_alone_and_keeps_its_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/recall.db");
        assert!(matches!(
            Database::open(&file(&path)),
            Err(DatabaseError::Missing { .. })
        ));
        let id = Database::open_or_make(&file(&path)).unwrap().id().to_owned();
        assert_eq!(id.len(), 32);
        let database = Database::open_or_make(&file(&path)).unwrap();
        assert_eq!(database.id(), id);
        for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[test]
    fn several_that_make_it_at_once_have_the_same_one() {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let path = file(&folder.path().join("recall.db"));
            let ids: Vec<String> = std::thread::scope(|scope| {
                let open = || Database::open_or_make(&path).unwrap().id().to_owned();
                let all: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        }
    }

    #[test]
    fn other_and_later_databases_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| match Database::open(&file(path)) {
            Err(DatabaseError::Open { source, .. }) => Some(source),
            _ => None,
        };
        let path = folder.path().join("other.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE x(y)").unwrap();
        assert!(matches!(open(&path), Some(kit::DatabaseError::NotOurs { .. })));
        let path = folder.path().join("catalog.db");
        drop(Sqlite::create(&path).unwrap());
        assert!(matches!(open(&path), Some(kit::DatabaseError::NotOurs { .. })));
        let path = folder.path().join("ours.db");
        drop(Database::open_or_make(&file(&path)).unwrap());
        let connection = rusqlite::Connection::open(&path).unwrap();
        let later = "UPDATE meta SET value = '99' WHERE name = 'schema'";
        assert_eq!(connection.execute(later, []).unwrap(), 1);
        assert!(matches!(
            open(&path),
            Some(kit::DatabaseError::Newer {
                found: 99,
                known: SCHEMA_VERSION
            })
        ));
        drop(connection);
        std::fs::write(&path, "no database at all, but long enough to be looked at as one").unwrap();
        let _ = std::fs::remove_file(folder.path().join("ours.db-wal"));
        assert!(open(&path).is_some());
    }

    #[test]
    fn a_file_of_the_first_version_is_brought_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        let old = format!(
            "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
             INSERT INTO meta VALUES ('id', 'abc'); {}
             PRAGMA application_id = {}; PRAGMA user_version = 1;",
            Dialect::Sqlite.definition(REGISTRY_AND_QUEUE),
            PRODUCT.number
        );
        connection.execute_batch(&old).unwrap();
        drop(connection);
        let database = Database::open(&file(&path)).unwrap();
        assert_eq!(database.id(), "abc");
        let untold = database.read(|sql| number(sql, "SELECT count(*) FROM outbox", &[]));
        assert_eq!(untold.unwrap(), 0);
    }
}
