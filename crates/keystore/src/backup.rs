//! Backups of a key store's database, their restoring, and the quarantine that follows (`docs/src/operating.md`).
//!
//! Neither a backup nor a restore is ever half there: each is made under another name, looked through, flushed, and
//! only then named. A backup is marked as one, so that no store serves a copy that did not pass [`restore`].

use std::io;
use std::path::{Path, PathBuf};

use hydra_core::ids::StoreId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::rfc3339;
use hydra_core::secret::Key;
use hydra_service::copy::{self, CopyError, Part};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::audit::{self, AuditFault, SignedHead};
use crate::database::{self, AuditLine, DatabaseError, Lock};

/// Why there is no backup, no restored store or no open one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The files.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A restore would lose what is there.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// SQLite finds it damaged.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// SQLite's first words on it.
        what: String,
    },
    /// Its audit log was changed.
    #[error("the audit log in `{}` is not whole", path.display())]
    Audit {
        /// Of which file.
        path: PathBuf,
        /// How.
        #[source]
        source: AuditFault,
    },
    /// No such entry in quarantine.
    #[error("`{0}` is not in quarantine")]
    NotInQuarantine(KeyId),
    /// Not the database of this store, or one that fails.
    #[error("`{}` cannot be used", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: DatabaseError,
    },
}

/// Which store it is about.
pub struct Store<'a> {
    /// Its database.
    pub database: &'a Path,
    /// Its id.
    pub id: &'a StoreId,
    /// Its key.
    pub key: &'a Key,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Entries.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Stop marks.
    pub stop_marks: u64,
    /// The end of its audit log, signed.
    pub head: SignedHead,
    /// When it was backed up, where it is a backup.
    pub made: Option<String>,
}

/// Writes a backup of a store, which may be serving, to a new file. It is of one moment.
///
/// # Errors
/// [`BackupError`]; then there is no file of that name.
pub fn backup(store: &Store<'_>, to: &Path, now: u64) -> Result<Contents, BackupError> {
    copy::is_free(to)?;
    let part = Part::begin(to, ".partial")?;
    let path = copy::utf8(part.path())?;
    let source = database::open_reader(store.database).map_err(of(store.database))?;
    let copy = || -> Result<(), DatabaseError> {
        database::check_ours(&source)?;
        database::check_store(&source, store.id)?;
        source.execute("VACUUM INTO ?1", [path])?;
        Ok(())
    };
    copy().map_err(of(store.database))?;
    let connection = open_part(part.path())?;
    let mark = "INSERT OR REPLACE INTO meta(name, value) VALUES (?1, ?2)";
    let marked = connection.execute(mark, [database::BACKUP, &rfc3339(now)]);
    marked.map_err(|error| of(part.path())(error.into()))?;
    let contents = look_through(&connection, store, part.path(), now)?;
    close(connection, part.path())?;
    part.finish(to, false)?;
    Ok(contents)
}

/// What came of a restore.
#[derive(Debug)]
pub struct Restored {
    /// What the store has now.
    pub contents: Contents,
    /// Where the database that it had is kept.
    pub aside: Option<PathBuf>,
}

/// Puts a backup in place of the store's database; all entries in it are in quarantine then. A database that is not
/// empty is refused, or, with `replace`, kept aside.
///
/// # Errors
/// [`BackupError`]; then the store has the database that it had.
pub fn restore(store: &Store<'_>, from: &Path, replace: bool, now: u64) -> Result<Restored, BackupError> {
    let _lock = Lock::take(store.database).map_err(of(store.database))?;
    if !replace && !is_empty(store.database) {
        return Err(BackupError::NotEmpty(store.database.to_owned()));
    }
    let mut part = Part::begin(store.database, ".restoring")?;
    part.fill_from(from)?;
    let mut connection = open_part(part.path())?;
    let contents = look_through(&connection, store, from, now)?;
    quarantine(&mut connection, store, &contents, now).map_err(of(part.path()))?;
    close(connection, part.path())?;
    let aside = copy::set_aside(store.database, is_empty(store.database), &rfc3339(now))?;
    part.finish(store.database, true)?;
    Ok(Restored { contents, aside })
}

/// Whom an entry is opened to again.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Every one.
    All,
    /// This one.
    One(&'a KeyId),
}

/// Ends the quarantine of entries, also while the store serves; how many it was.
///
/// # Errors
/// [`BackupError`]
pub fn open(store: &Store<'_>, which: Which<'_>, now: u64) -> Result<u64, BackupError> {
    let run = || -> Result<usize, DatabaseError> {
        let mut connection = database::open_beside(store.database, store.id)?;
        let moment = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (count, key_id) = match which {
            Which::All => {
                let sql = "UPDATE entries SET restored = 0 WHERE restored = 1";
                (moment.execute(sql, [])?, "")
            }
            Which::One(key_id) => {
                let sql = "UPDATE entries SET restored = 0 WHERE restored = 1 AND key_id = ?1";
                (moment.execute(sql, [key_id.as_str()])?, key_id.as_str())
            }
        };
        if count > 0 {
            let outcome = format!("the quarantine of {count} entries ended");
            line(&moment, "open", key_id, &outcome, now)?;
        }
        moment.commit()?;
        Ok(count)
    };
    let count = run().map_err(of(store.database))?;
    match which {
        Which::One(key_id) if count == 0 => Err(BackupError::NotInQuarantine(key_id.clone())),
        _ => Ok(u64::try_from(count).unwrap_or(u64::MAX)),
    }
}

/// The key ids of the entries in quarantine, in order, each shown to `each`.
///
/// # Errors
/// [`BackupError`]
pub fn in_quarantine(store: &Store<'_>, mut each: impl FnMut(&str)) -> Result<(), BackupError> {
    let mut run = || -> Result<(), DatabaseError> {
        let connection = database::open_reader(store.database)?;
        database::check_ours(&connection)?;
        database::check_store(&connection, store.id)?;
        let mut statement = connection.prepare("SELECT key_id FROM entries WHERE restored = 1 ORDER BY key_id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(&row.get::<_, String>(0)?);
        }
        Ok(())
    };
    run().map_err(of(store.database))
}

fn of(path: &Path) -> impl Fn(DatabaseError) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Database {
        path: path.clone(),
        source,
    }
}

/// Opens an unfinished copy. It has no name yet that anybody trusts: no journal, no flush until it is done.
fn open_part(path: &Path) -> Result<Connection, BackupError> {
    let run = || -> Result<Connection, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
        connection.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "secure_delete", true)?;
        Ok(connection)
    };
    run().map_err(|error| damage(path, error))
}

fn close(connection: Connection, path: &Path) -> Result<(), BackupError> {
    connection.close().map_err(|(_, error)| of(path)(error.into()))
}

/// A file that is no database, or half of one, fails at any query.
fn damage(path: &Path, error: DatabaseError) -> BackupError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match &error {
        DatabaseError::Sqlite(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(failure.code, DatabaseCorrupt | NotADatabase) =>
        {
            BackupError::Damaged {
                path: path.to_owned(),
                what: failure.to_string(),
            }
        }
        _ => of(path)(error),
    }
}

/// Whether a copy is whole and this store's, and what is in it.
fn look_through(connection: &Connection, store: &Store<'_>, path: &Path, now: u64) -> Result<Contents, BackupError> {
    let damaged = |what: String| BackupError::Damaged {
        path: path.to_owned(),
        what,
    };
    let check = || -> Result<Option<String>, DatabaseError> {
        database::check_ours(connection)?;
        let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if said != "ok" {
            return Ok(Some(said));
        }
        let mut foreign = connection.prepare("PRAGMA foreign_key_check")?;
        Ok(foreign.exists([])?.then(|| "a share without an entry".to_owned()))
    };
    if let Some(what) = check().map_err(|error| damage(path, error))? {
        return Err(damaged(what));
    }
    let failed = of(path);
    database::check_store(connection, store.id).map_err(&failed)?;
    let keys = database::data_keys(connection, store.key).map_err(&failed)?;
    let whole = audit::verify(connection, &keys, store.id, &[]).map_err(&failed)?;
    let whole = whole.map_err(|source| BackupError::Audit {
        path: path.to_owned(),
        source,
    })?;
    let count = |table: &str| -> Result<u64, BackupError> {
        let query = format!("SELECT count(*) FROM {table}");
        let counted = connection.query_row(&query, [], |row| row.get::<_, i64>(0));
        Ok(counted.map_err(|error| of(path)(error.into()))?.unsigned_abs())
    };
    Ok(Contents {
        entries: count("entries")?,
        tombstones: count("tombstones")?,
        stop_marks: count("stop_marks")?,
        head: SignedHead::sign(&keys, store.id, &whole.head, now),
        made: database::meta(connection, database::BACKUP).map_err(&failed)?,
    })
}

/// Brings a copy to this version's schema and all of its entries into quarantine, and says so in its audit log.
fn quarantine(
    connection: &mut Connection,
    store: &Store<'_>,
    contents: &Contents,
    now: u64,
) -> Result<(), DatabaseError> {
    database::migrate(connection)?;
    let transaction = connection.transaction()?;
    transaction.execute("UPDATE entries SET restored = 1", [])?;
    transaction.execute("DELETE FROM meta WHERE name = ?1", [database::BACKUP])?;
    let made = contents.made.as_deref().unwrap_or("a time that is not known");
    let outcome = format!("the backup of {made}, {} entries in quarantine", contents.entries);
    let head = line(&transaction, "restore", "", &outcome, now)?;
    let keys = database::data_keys(&transaction, store.key)?;
    SignedHead::sign(&keys, store.id, &head, now).save(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// A line of the audit log about what somebody did at the machine itself.
pub(crate) fn line(
    connection: &Connection,
    operation: &str,
    key_id: &str,
    outcome: &str,
    at: u64,
) -> Result<database::AuditHead, DatabaseError> {
    let dn = format!("local user {}", rustix::process::getuid().as_raw());
    let head = database::audit_head(connection)?;
    let line = AuditLine {
        at,
        dn: &dn,
        operation,
        key_id,
        outcome,
    };
    database::audit(connection, &head, &line)
}

/// Whether there is nothing to lose: no database, or one in which nothing was ever done.
fn is_empty(path: &Path) -> bool {
    match path.metadata() {
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
        Ok(found) if found.len() == 0 => return true,
        Ok(_) => {}
    }
    let count = || -> Result<bool, DatabaseError> {
        let connection = database::open_reader(path)?;
        let query = "SELECT EXISTS (SELECT 1 FROM entries) OR EXISTS (SELECT 1 FROM tombstones) \
                     OR EXISTS (SELECT 1 FROM stop_marks) OR EXISTS (SELECT 1 FROM audit)";
        Ok(connection.query_row(query, [], |row| row.get(0))?)
    };
    // What cannot be read may still be worth something to somebody.
    !count().unwrap_or(true)
}
