//! The database of a key store: SQLite in WAL mode, each commit flushed to disk. Schema with numbered migrations, rows
//! to and from what decisions work on, the audit table. No decision is made here (`docs/src/operating.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use hydra_core::frame::Frame;
use hydra_core::ids::{RegistrationId, StoreId};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::{Effect, Held, SharingKey, StoredEntry, StoredSharing, StoredTombstone};
use hydra_core::keystore::wire::{Constants, Scheme, Share, ShareData, Sharing, State};
use hydra_core::permissions::{Permission, PermissionRecord, Permissions};
use hydra_core::secret::Key;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::rest::{self, DataKeys, Place, RestError};

/// "HyKS" in the file's header, so that no other SQLite database is taken for one of ours.
const APPLICATION_ID: i64 = 0x4879_4b53;

/// Each brings the schema from its index to the next number.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
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
    /// Another process has it open.
    #[error("`{}` is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be made.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Made by a later version.
    #[error("the database has schema {found}, this version knows up to {SCHEMA_VERSION}")]
    Newer {
        /// Its schema.
        found: i64,
    },
    /// Some other database.
    #[error("not the database of a key store")]
    NotOurs,
    /// Of another store.
    #[error("the database belongs to store `{found}`")]
    OtherStore {
        /// Whose it is.
        found: String,
    },
    /// Made by an earlier version, which may be serving it.
    #[error("the database has schema {found}, which this version would have to change: serve it once")]
    Older {
        /// Its schema.
        found: i64,
    },
    /// A backup lies where the database should.
    #[error("the database is a backup, made {made}, that was not restored")]
    IsBackup {
        /// When it was made.
        made: String,
    },
    /// The store key is not the one that wrapped the data keys, or a data key is damaged.
    #[error("data key {id} does not open with the store key")]
    DataKey {
        /// Which.
        id: u32,
        /// Why.
        #[source]
        source: RestError,
    },
    /// Sealing failed.
    #[error("cannot seal a share")]
    Seal(#[source] RestError),
    /// A row that this version never wrote.
    #[error("a row of `{table}` does not read")]
    Row {
        /// Which table.
        table: &'static str,
    },
}

impl DatabaseError {
    /// Whether there is no room: reading goes on.
    pub fn is_full(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) = self else {
            return false;
        };
        // A quota and a limit to the size of files come as a write that failed.
        let refused_write = failure.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE;
        refused_write
            || matches!(
                failure.code,
                rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::TooBig
            )
    }
}

/// Keeps other processes away from a database, for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A store that was killed while it flushed has the lock until the disk has answered; its successor may be quicker.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Lock {
    /// Takes the lock of the database at `path`.
    ///
    /// # Errors
    /// [`DatabaseError::Locked`] where another process has it.
    pub fn take(path: &Path) -> Result<Self, DatabaseError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| DatabaseError::Open {
            path: path.clone(),
            source,
        })?;
        let start = std::time::Instant::now();
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            if start.elapsed() > LOCK_PATIENCE {
                return Err(DatabaseError::Locked { path });
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(Self { _file: file })
    }
}

/// Makes a new database: schema, store id, first data key.
///
/// # Errors
/// [`DatabaseError`]
pub fn create(path: &Path, store: &StoreId, store_key: &Key, now: u64) -> Result<(), DatabaseError> {
    let mut connection = Connection::open(path)?;
    prepare(&connection)?;
    migrate(&mut connection)?;
    let data_key = Key::random().map_err(|_| DatabaseError::Seal(RestError::Seal))?;
    let nonce = rest::random_nonce().map_err(DatabaseError::Seal)?;
    let wrapped = rest::wrap(store_key, 1, nonce, &data_key).map_err(DatabaseError::Seal)?;
    let transaction = connection.transaction()?;
    transaction.execute(
        "INSERT INTO meta(name, value) VALUES ('store_id', ?1)",
        [store.as_str()],
    )?;
    let created = signed(now);
    transaction.execute(
        "INSERT INTO data_keys(id, wrapped, created) VALUES (1, ?1, ?2)",
        params![wrapped, created],
    )?;
    transaction.commit()?;
    Ok(())
}

/// Opens the database of `store` for writing, brought to this version's schema.
///
/// # Errors
/// [`DatabaseError`]
pub fn open_writer(path: &Path, store: &StoreId, max_bytes: u64) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    check_ours(&connection)?;
    prepare(&connection)?;
    migrate(&mut connection)?;
    if max_bytes > 0 {
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = (signed(max_bytes) / page.max(1)).max(1);
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    check_store(&connection, store)?;
    if let Some(made) = meta(&connection, BACKUP)? {
        return Err(DatabaseError::IsBackup { made });
    }
    Ok(connection)
}

/// Opens the database of `store` for a change beside a process that may be serving it: nothing is brought up to date.
///
/// # Errors
/// [`DatabaseError`]
pub fn open_beside(path: &Path, store: &StoreId) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    check_ours(&connection)?;
    let found = schema(&connection)?;
    match found.cmp(&SCHEMA_VERSION) {
        std::cmp::Ordering::Less => return Err(DatabaseError::Older { found }),
        std::cmp::Ordering::Greater => return Err(DatabaseError::Newer { found }),
        std::cmp::Ordering::Equal => {}
    }
    prepare(&connection)?;
    check_store(&connection, store)?;
    Ok(connection)
}

/// The row of `meta` that says of a backup when it was made.
pub(crate) const BACKUP: &str = "backup";

/// A row of `meta`.
pub(crate) fn meta(connection: &Connection, name: &str) -> Result<Option<String>, DatabaseError> {
    let mut statement = connection.prepare("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// Whether it is the database of a key store at all.
pub(crate) fn check_ours(connection: &Connection) -> Result<(), DatabaseError> {
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION_ID {
        Ok(())
    } else {
        Err(DatabaseError::NotOurs)
    }
}

/// Whether it is this store's.
pub(crate) fn check_store(connection: &Connection, store: &StoreId) -> Result<(), DatabaseError> {
    match meta(connection, "store_id")? {
        Some(found) if found == store.as_str() => Ok(()),
        found => Err(DatabaseError::OtherStore {
            found: found.unwrap_or_default(),
        }),
    }
}

/// Opens the database for reading only.
///
/// # Errors
/// [`DatabaseError`]
pub fn open_reader(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare_statements(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), DatabaseError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted shares are overwritten, not only unlinked.
    connection.pragma_update(None, "secure_delete", true)?;
    prepare_statements(connection)
}

/// Statements are kept with their plans. Without the guarantee SQLite plans anew for each value that is bound, which
/// costs more than the statement.
fn prepare_statements(connection: &Connection) -> Result<(), DatabaseError> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn schema(connection: &Connection) -> Result<i64, DatabaseError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Brings the schema up to this version's.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), DatabaseError> {
    let found = schema(connection)?;
    if found > SCHEMA_VERSION {
        return Err(DatabaseError::Newer { found });
    }
    let from = usize::try_from(found).unwrap_or(0);
    for (number, migration) in (1_i64..).zip(MIGRATIONS).skip(from) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Opens the data keys.
///
/// # Errors
/// [`DatabaseError::DataKey`] where the store key is another.
pub fn data_keys(connection: &Connection, store_key: &Key) -> Result<DataKeys, DatabaseError> {
    let mut statement = connection.prepare("SELECT id, wrapped FROM data_keys")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut keys = BTreeMap::new();
    for row in rows {
        let (id, wrapped) = row?;
        let key = rest::unwrap(store_key, id, &wrapped).map_err(|source| DatabaseError::DataKey { id, source })?;
        keys.insert(id, key);
    }
    DataKeys::new(store_key, &keys).map_err(DatabaseError::Seal)
}

// --- rows to what decisions work on -----------------------------------------------------------------------------------

/// Everything held under a key id; sharings only of an entry that is `concerned`: what is not the caller's is not
/// opened for an answer that will not have it, and asking costs the same queries as where nothing is. The caller sees
/// to one transaction around it.
///
/// # Errors
/// [`DatabaseError`]; a share that does not open is none, its sharing stays.
pub fn load(
    connection: &Connection,
    keys: &DataKeys,
    key_id: &KeyId,
    concerned: impl FnOnce(&StoredEntry) -> bool,
) -> Result<Held, DatabaseError> {
    Ok(Held {
        entry: load_entry(connection, keys, key_id, concerned)?,
        tombstones: load_tombstones(connection, key_id)?,
        stop_marks: load_stop_marks(connection, key_id)?,
    })
}

const ENTRY_COLUMNS: &str = "entry, registration_id, cipher, key_bits, iv, state, restored, owner, \"group\", \
     user_permissions, group_permissions, other_permissions, acl, version, change_id, placed_by, created, changed, key_id";

fn load_entry(
    connection: &Connection,
    keys: &DataKeys,
    key_id: &KeyId,
    concerned: impl FnOnce(&StoredEntry) -> bool,
) -> Result<Option<StoredEntry>, DatabaseError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE key_id = ?1"))?;
    let found = statement.query_row([key_id.as_str()], |row| Ok((row.get::<_, i64>(0)?, read_entry(row))));
    let Some((number, entry)) = found.optional()? else {
        return Ok(None);
    };
    let mut entry = entry?;
    if !concerned(&entry) {
        return Ok(Some(entry));
    }
    let mut statement = connection.prepare_cached(
        "SELECT generation, check_value, m, n, stores, state, scheme, share_index, share FROM shares WHERE entry = ?1 \
         ORDER BY generation, check_value",
    )?;
    let mut rows = statement.query([number])?;
    while let Some(row) = rows.next()? {
        let stored = read_sharing(row, keys, key_id, entry.constants.registration_id)?;
        entry.sharings.push(stored);
    }
    Ok(Some(entry))
}

fn read_entry(row: &Row<'_>) -> Result<StoredEntry, DatabaseError> {
    let bad = || DatabaseError::Row { table: "entries" };
    let constants = Constants {
        registration_id: parsed(row, 1).ok_or_else(bad)?,
        cipher: row.get(2)?,
        key_bits: row.get(3)?,
        iv: row.get(4)?,
    };
    let letters = |column| parsed::<Permissions>(row, column).ok_or_else(bad);
    let acl: String = row.get(12)?;
    let record = PermissionRecord {
        owner: row.get(7)?,
        group: row.get(8)?,
        user: letters(9)?,
        group_permissions: letters(10)?,
        other: letters(11)?,
        acl: serde_json::from_str(&acl).map_err(|_| bad())?,
        version: row.get::<_, i64>(13)?.unsigned_abs(),
        change_id: parsed(row, 14).ok_or_else(bad)?,
    };
    Ok(StoredEntry {
        constants,
        state: state(&row.get::<_, String>(5)?).ok_or_else(bad)?,
        restored: row.get(6)?,
        record,
        placed_by: row.get(15)?,
        created: row.get::<_, i64>(16)?.unsigned_abs(),
        changed: row.get::<_, i64>(17)?.unsigned_abs(),
        sharings: Vec::new(),
    })
}

fn read_sharing(
    row: &Row<'_>,
    keys: &DataKeys,
    key_id: &KeyId,
    registration_id: RegistrationId,
) -> Result<StoredSharing, DatabaseError> {
    let bad = || DatabaseError::Row { table: "shares" };
    let check: String = row.get(1)?;
    let stores: String = row.get(4)?;
    let sharing = Sharing {
        generation: row.get(0)?,
        m: row.get(2)?,
        n: row.get(3)?,
        stores: stores
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| bad())?,
        check: if check.is_empty() {
            None
        } else {
            Some(check.parse().map_err(|_| bad())?)
        },
    };
    let index: u8 = row.get(7)?;
    let place = Place {
        key_id,
        registration_id,
        generation: sharing.generation,
        check: sharing.check,
        index,
    };
    let column = row.get_ref(8)?.as_blob().map_err(|_| bad())?;
    let opened = keys.open_share(&place, column);
    if let Err(error) = &opened {
        tracing::error!(registration_id = %registration_id, reason = %error, "a share does not open");
    }
    let scheme = scheme(&row.get::<_, String>(6)?).ok_or_else(bad)?;
    let share = opened.ok().map(|data| Share {
        scheme,
        index,
        m: sharing.m,
        n: sharing.n,
        data: ShareData(data),
    });
    Ok(StoredSharing {
        state: state(&row.get::<_, String>(5)?).ok_or_else(bad)?,
        sharing,
        share,
    })
}

fn load_tombstones(connection: &Connection, key_id: &KeyId) -> Result<Vec<StoredTombstone>, DatabaseError> {
    let mut statement = connection.prepare_cached(
        "SELECT registration_id, removed_by, removed_at, record FROM tombstones WHERE key_id = ?1 ORDER BY rowid",
    )?;
    let mut rows = statement.query([key_id.as_str()])?;
    let mut tombstones = Vec::new();
    let bad = || DatabaseError::Row { table: "tombstones" };
    while let Some(row) = rows.next()? {
        let record: Option<String> = row.get(3)?;
        let record = record.map(|json| serde_json::from_str(&json)).transpose();
        tombstones.push(StoredTombstone {
            registration_id: parsed(row, 0).ok_or_else(bad)?,
            by: row.get(1)?,
            at: row.get::<_, i64>(2)?.unsigned_abs(),
            record: record.map_err(|_| bad())?,
        });
    }
    Ok(tombstones)
}

fn load_stop_marks(connection: &Connection, key_id: &KeyId) -> Result<Vec<RegistrationId>, DatabaseError> {
    let mut statement =
        connection.prepare_cached("SELECT registration_id FROM stop_marks WHERE key_id = ?1 ORDER BY rowid")?;
    let mut rows = statement.query([key_id.as_str()])?;
    let mut marks = Vec::new();
    while let Some(row) = rows.next()? {
        marks.push(parsed(row, 0).ok_or(DatabaseError::Row { table: "stop_marks" })?);
    }
    Ok(marks)
}

/// One entry of a list, without its sharings.
#[derive(Debug)]
pub struct Listed {
    /// Its key id.
    pub key_id: KeyId,
    /// Everything else, but the sharings.
    pub entry: StoredEntry,
}

/// What a list goes through.
#[derive(Debug, Clone, Copy)]
pub enum Range<'a> {
    /// Key ids that begin so.
    Prefix(&'a str),
    /// Key ids whose last segment is this.
    LastComponent(&'a str),
    /// Key ids of this owner.
    Owner(&'a str),
}

/// Up to `limit` entries of a range in byte order of key id, from behind `after`; of them, those that grant `l` to one
/// of `principals` (to everybody: the principal ""), or all where there are none given. The rows of other entries are
/// not touched. The caller sees to one transaction around it, and decides: the table `listable` only finds.
///
/// # Errors
/// [`DatabaseError`]
pub fn list(
    connection: &Connection,
    range: Range<'_>,
    principals: Option<&[&str]>,
    after: Option<&KeyId>,
    limit: usize,
) -> Result<Vec<Listed>, DatabaseError> {
    let mut found = BTreeSet::new();
    match (range, principals) {
        // An owner's entries are the owner's to know, also those that the owner may not list.
        (Range::Owner(_), _) | (_, None) => key_ids(connection, range, None, after, limit, &mut found)?,
        (_, Some(names)) => {
            for name in names {
                if let Some(principal) = principal(connection, name)? {
                    key_ids(connection, range, Some(principal), after, limit, &mut found)?;
                }
            }
        }
    }
    let mut statement = connection.prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE key_id = ?1"))?;
    let mut listed = Vec::new();
    for key_id in found.into_iter().take(limit) {
        let entry = statement.query_row([&key_id], |row| Ok(read_entry(row)))??;
        let key_id = KeyId::imported(key_id).map_err(|_| DatabaseError::Row { table: "entries" })?;
        listed.push(Listed { key_id, entry });
    }
    Ok(listed)
}

fn key_ids(
    connection: &Connection,
    range: Range<'_>,
    principal: Option<i64>,
    after: Option<&KeyId>,
    limit: usize,
    found: &mut BTreeSet<String>,
) -> Result<(), DatabaseError> {
    let after = after.map_or("", KeyId::as_str);
    // One lower bound, so that the index is entered there, and not at the beginning of the range for each page.
    let (condition, from, range) = match range {
        Range::Prefix(prefix) if prefix > after => ("key_id >= ?2 AND key_id < ?1", prefix, behind(prefix)),
        Range::Prefix(prefix) => ("key_id > ?2 AND key_id < ?1", after, behind(prefix)),
        Range::LastComponent(last) => ("last_component = ?1 AND key_id > ?2", after, Value::Text(last.into())),
        Range::Owner(owner) => ("owner = ?1 AND key_id > ?2", after, Value::Text(owner.into())),
    };
    let table = match principal {
        Some(_) => "listable WHERE principal = ?4 AND",
        None => "entries WHERE ?4 IS NULL AND",
    };
    let query = format!("SELECT key_id FROM {table} {condition} ORDER BY key_id LIMIT ?3");
    let mut statement = connection.prepare_cached(&query)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![range, from, limit, principal], |row| row.get(0))?;
    for row in rows {
        found.insert(row?);
    }
    Ok(())
}

/// The least that is above all texts which begin with `prefix`. UTF-8 sorts as its code points do.
fn behind(prefix: &str) -> Value {
    let mut rest = prefix.chars();
    while let Some(last) = rest.next_back() {
        let next = (last..=char::MAX).nth(1);
        if let Some(next) = next {
            return Value::Text(format!("{}{next}", rest.as_str()));
        }
    }
    // SQLite sorts every blob above every text.
    Value::Blob(Vec::new())
}

/// Whether any entry is in quarantine.
///
/// # Errors
/// [`DatabaseError`]
pub fn any_restored(connection: &Connection) -> Result<bool, DatabaseError> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM entries WHERE restored = 1)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// How many entries, tombstones and stop marks an identity has brought.
///
/// # Errors
/// [`DatabaseError`]
pub fn brought_by(connection: &Connection, dn: &str) -> Result<u64, DatabaseError> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT count(*) FROM entries WHERE placed_by = ?1) + \
         (SELECT count(*) FROM tombstones WHERE removed_by = ?1) + \
         (SELECT count(*) FROM stop_marks WHERE placed_by = ?1)",
    )?;
    Ok(statement.query_row([dn], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

// --- what decisions changed, to rows ----------------------------------------------------------------------------------

/// Writes what a decision changed. The caller sees to the transaction.
///
/// # Errors
/// [`DatabaseError`]
pub fn save(
    connection: &Connection,
    keys: &DataKeys,
    key_id: &KeyId,
    held: &Held,
    effects: &[Effect],
    by: (&str, u64),
) -> Result<(), DatabaseError> {
    for effect in effects {
        match effect {
            Effect::NewEntry => insert_entry(connection, key_id, held.entry.as_ref())?,
            Effect::Entry => update_entry(connection, key_id, held.entry.as_ref())?,
            Effect::EntryGone(_) => delete_entry(connection, key_id)?,
            Effect::Sharing(key) => write_sharing(connection, keys, key_id, held.entry.as_ref(), *key)?,
            Effect::SharingState(key) => write_sharing_state(connection, key_id, held.entry.as_ref(), *key)?,
            Effect::SharingGone((generation, check)) => run(
                connection,
                "DELETE FROM shares WHERE entry = (SELECT entry FROM entries WHERE key_id = ?1) \
                 AND generation = ?2 AND check_value = ?3",
                params![key_id.as_str(), generation, check_text(*check)],
            )?,
            Effect::Tombstone(registration) => write_tombstone(connection, key_id, held, *registration)?,
            Effect::StopMark(registration) => run(
                connection,
                "INSERT OR IGNORE INTO stop_marks(key_id, registration_id, placed_by, placed_at) VALUES (?1, ?2, ?3, ?4)",
                params![key_id.as_str(), registration.to_string(), by.0, signed(by.1)],
            )?,
            Effect::StopMarkGone(registration) => run(
                connection,
                "DELETE FROM stop_marks WHERE key_id = ?1 AND registration_id = ?2",
                params![key_id.as_str(), registration.to_string()],
            )?,
        }
    }
    Ok(())
}

fn run(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<(), DatabaseError> {
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

const NO_ENTRY: DatabaseError = DatabaseError::Row { table: "entries" };

fn insert_entry(connection: &Connection, key_id: &KeyId, entry: Option<&StoredEntry>) -> Result<(), DatabaseError> {
    let entry = entry.ok_or(NO_ENTRY)?;
    run(
        connection,
        "INSERT INTO entries(key_id, last_component, registration_id, cipher, key_bits, iv, state, restored, owner, \
         \"group\", user_permissions, group_permissions, other_permissions, acl, version, change_id, placed_by, created, \
         changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        params![
            key_id.as_str(),
            key_id.last_component(),
            entry.constants.registration_id.to_string(),
            entry.constants.cipher,
            entry.constants.key_bits,
            entry.constants.iv,
            state_text(entry.state),
            entry.restored,
            entry.record.owner,
            entry.record.group,
            entry.record.user.to_string(),
            entry.record.group_permissions.to_string(),
            entry.record.other.to_string(),
            acl_text(&entry.record),
            signed(entry.record.version),
            entry.record.change_id.to_string(),
            entry.placed_by,
            signed(entry.created),
            signed(entry.changed),
        ],
    )?;
    write_listable(connection, key_id, &BTreeSet::new(), &may_list(&entry.record))
}

fn delete_entry(connection: &Connection, key_id: &KeyId) -> Result<(), DatabaseError> {
    if let Some(record) = held_record(connection, key_id)? {
        write_listable(connection, key_id, &may_list(&record), &BTreeSet::new())?;
    }
    run(connection, "DELETE FROM entries WHERE key_id = ?1", [key_id.as_str()])
}

fn held_record(connection: &Connection, key_id: &KeyId) -> Result<Option<PermissionRecord>, DatabaseError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE key_id = ?1"))?;
    let found = statement.query_row([key_id.as_str()], |row| Ok(read_entry(row)));
    Ok(found.optional()?.transpose()?.map(|entry| entry.record))
}

/// Everybody whom a record grants `l`; "" is everybody.
fn may_list(record: &PermissionRecord) -> BTreeSet<&str> {
    let parts = [
        (record.owner.as_str(), record.user),
        (record.group.as_str(), record.group_permissions),
        ("", record.other),
    ];
    let lines = record
        .acl
        .iter()
        .map(|line| (line.principal.as_str(), line.permissions));
    let all = parts.into_iter().chain(lines);
    let listing = all.filter(|(_, permissions)| permissions.contains(Permission::List));
    listing.map(|(principal, _)| principal).collect()
}

fn write_listable(
    connection: &Connection,
    key_id: &KeyId,
    before: &BTreeSet<&str>,
    now: &BTreeSet<&str>,
) -> Result<(), DatabaseError> {
    for gone in before.difference(now) {
        let sql = "DELETE FROM listable WHERE key_id = ?1 \
                   AND principal = (SELECT principal FROM principals WHERE name = ?2)";
        run(connection, sql, [key_id.as_str(), gone])?;
    }
    for new in now.difference(before) {
        let known = principal(connection, new)?;
        let principal = match known {
            Some(principal) => principal,
            None => {
                run(connection, "INSERT INTO principals(name) VALUES (?1)", [new])?;
                connection.last_insert_rowid()
            }
        };
        run(
            connection,
            "INSERT INTO listable(principal, key_id, last_component) VALUES (?1, ?2, ?3)",
            params![principal, key_id.as_str(), key_id.last_component()],
        )?;
    }
    Ok(())
}

fn principal(connection: &Connection, name: &str) -> Result<Option<i64>, DatabaseError> {
    let mut statement = connection.prepare_cached("SELECT principal FROM principals WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

fn update_entry(connection: &Connection, key_id: &KeyId, entry: Option<&StoredEntry>) -> Result<(), DatabaseError> {
    let entry = entry.ok_or(NO_ENTRY)?;
    let before = held_record(connection, key_id)?.ok_or(NO_ENTRY)?;
    if before != entry.record {
        write_listable(connection, key_id, &may_list(&before), &may_list(&entry.record))?;
    }
    run(
        connection,
        "UPDATE entries SET state = ?2, restored = ?3, owner = ?4, \"group\" = ?5, user_permissions = ?6, \
         group_permissions = ?7, other_permissions = ?8, acl = ?9, version = ?10, change_id = ?11, changed = ?12 \
         WHERE key_id = ?1",
        params![
            key_id.as_str(),
            state_text(entry.state),
            entry.restored,
            entry.record.owner,
            entry.record.group,
            entry.record.user.to_string(),
            entry.record.group_permissions.to_string(),
            entry.record.other.to_string(),
            acl_text(&entry.record),
            signed(entry.record.version),
            entry.record.change_id.to_string(),
            signed(entry.changed),
        ],
    )
}

fn held_sharing(entry: Option<&StoredEntry>, key: SharingKey) -> Result<(&StoredEntry, &StoredSharing), DatabaseError> {
    let entry = entry.ok_or(NO_ENTRY)?;
    let mut sharings = entry.sharings.iter();
    let stored = sharings.find(|stored| stored.sharing.order() == key);
    Ok((entry, stored.ok_or(DatabaseError::Row { table: "shares" })?))
}

fn write_sharing(
    connection: &Connection,
    keys: &DataKeys,
    key_id: &KeyId,
    entry: Option<&StoredEntry>,
    key: SharingKey,
) -> Result<(), DatabaseError> {
    let (entry, stored) = held_sharing(entry, key)?;
    let sharing = &stored.sharing;
    let share = stored.share.as_ref().ok_or(DatabaseError::Row { table: "shares" })?;
    let place = Place {
        key_id,
        registration_id: entry.constants.registration_id,
        generation: sharing.generation,
        check: sharing.check,
        index: share.index,
    };
    let column = keys
        .seal_share(&place, share.data.0.expose())
        .map_err(DatabaseError::Seal)?;
    let stores: Vec<&str> = sharing.stores.iter().map(StoreId::as_str).collect();
    run(
        connection,
        "INSERT OR REPLACE INTO shares(entry, generation, check_value, m, n, stores, state, scheme, share_index, share) \
         VALUES ((SELECT entry FROM entries WHERE key_id = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            key_id.as_str(),
            sharing.generation,
            check_text(sharing.check),
            sharing.m,
            sharing.n,
            stores.join(" "),
            state_text(stored.state),
            share.scheme.name(),
            share.index,
            column,
        ],
    )
}

fn write_sharing_state(
    connection: &Connection,
    key_id: &KeyId,
    entry: Option<&StoredEntry>,
    key: SharingKey,
) -> Result<(), DatabaseError> {
    let (_, stored) = held_sharing(entry, key)?;
    run(
        connection,
        "UPDATE shares SET state = ?4 WHERE entry = (SELECT entry FROM entries WHERE key_id = ?1) \
         AND generation = ?2 AND check_value = ?3",
        params![key_id.as_str(), key.0, check_text(key.1), state_text(stored.state)],
    )
}

fn write_tombstone(
    connection: &Connection,
    key_id: &KeyId,
    held: &Held,
    registration: RegistrationId,
) -> Result<(), DatabaseError> {
    let mut tombstones = held.tombstones.iter();
    let tombstone = tombstones.find(|tombstone| tombstone.registration_id == registration);
    let tombstone = tombstone.ok_or(DatabaseError::Row { table: "tombstones" })?;
    let record = tombstone.record.as_ref().map(serde_json::to_string).transpose();
    run(
        connection,
        "INSERT INTO tombstones(key_id, registration_id, removed_by, removed_at, record) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            key_id.as_str(),
            registration.to_string(),
            tombstone.by,
            signed(tombstone.at),
            record.map_err(|_| DatabaseError::Row { table: "tombstones" })?,
        ],
    )
}

// --- audit ------------------------------------------------------------------------------------------------------------

/// One line of the audit log.
#[derive(Debug, Clone)]
pub struct AuditLine<'a> {
    /// Seconds since 1970.
    pub at: u64,
    /// Whose request.
    pub dn: &'a str,
    /// What was asked.
    pub operation: &'a str,
    /// About which key id.
    pub key_id: &'a str,
    /// What came of it.
    pub outcome: &'a str,
}

/// Where the chain of audit lines stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// Of the last line; 0 before the first.
    pub sequence: i64,
    /// Its hash; zeros before the first.
    pub hash: [u8; 32],
}

impl AuditHead {
    fn next(&self, line: &AuditLine<'_>) -> Self {
        let sequence = self.sequence + 1;
        let message = Frame::labelled("hydra-audit-1")
            .bytes(&self.hash)
            .bytes(&sequence.to_be_bytes())
            .bytes(&line.at.to_be_bytes())
            .text(line.dn)
            .text(line.operation)
            .text(line.key_id)
            .text(line.outcome)
            .finish();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &message).as_ref());
        Self { sequence, hash }
    }
}

/// The last line of the audit log.
///
/// # Errors
/// [`DatabaseError`]
pub fn audit_head(connection: &Connection) -> Result<AuditHead, DatabaseError> {
    let last = connection.query_row(
        "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1",
        [],
        |row| {
            Ok(AuditHead {
                sequence: row.get(0)?,
                hash: row.get(1)?,
            })
        },
    );
    let first = AuditHead {
        sequence: 0,
        hash: [0; 32],
    };
    Ok(last.optional()?.unwrap_or(first))
}

/// Adds a line; the new head.
///
/// # Errors
/// [`DatabaseError`]
pub fn audit(connection: &Connection, head: &AuditHead, line: &AuditLine<'_>) -> Result<AuditHead, DatabaseError> {
    let next = head.next(line);
    run(
        connection,
        "INSERT INTO audit(sequence, at, dn, operation, key_id, outcome, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            next.sequence,
            signed(line.at),
            line.dn,
            line.operation,
            line.key_id,
            line.outcome,
            next.hash
        ],
    )?;
    Ok(next)
}

/// Goes through the whole chain, showing each line's head to `seen`.
///
/// # Errors
/// A database that fails.
pub fn verify_chain(
    connection: &Connection,
    mut seen: impl FnMut(&AuditHead),
) -> Result<Result<AuditHead, BrokenChain>, DatabaseError> {
    let mut statement =
        connection.prepare("SELECT sequence, at, dn, operation, key_id, outcome, hash FROM audit ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    let mut head = AuditHead {
        sequence: 0,
        hash: [0; 32],
    };
    while let Some(row) = rows.next()? {
        let (dn, operation): (String, String) = (row.get(2)?, row.get(3)?);
        let (key_id, outcome): (String, String) = (row.get(4)?, row.get(5)?);
        let next = head.next(&AuditLine {
            at: row.get::<_, i64>(1)?.unsigned_abs(),
            dn: &dn,
            operation: &operation,
            key_id: &key_id,
            outcome: &outcome,
        });
        if (row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(6)?) != (next.sequence, next.hash) {
            return Ok(Err(BrokenChain {
                sequence: next.sequence,
            }));
        }
        head = next;
        seen(&head);
    }
    Ok(Ok(head))
}

/// One line of the audit log, as it stands there.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AuditRow {
    /// From 1.
    pub sequence: i64,
    /// Seconds since 1970.
    pub at: i64,
    /// Whose request.
    pub dn: String,
    /// What was asked.
    pub operation: String,
    /// About which key id; behind `#`, the keyed hash of one that is not there.
    pub key_id: String,
    /// What came of it.
    pub outcome: String,
}

/// Up to `limit` lines from behind `after`.
///
/// # Errors
/// [`DatabaseError`]
pub fn audit_rows(connection: &Connection, after: i64, limit: u32) -> Result<Vec<AuditRow>, DatabaseError> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, at, dn, operation, key_id, outcome FROM audit WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
    )?;
    let rows = statement.query_map(params![after, limit], |row| {
        Ok(AuditRow {
            sequence: row.get(0)?,
            at: row.get(1)?,
            dn: row.get(2)?,
            operation: row.get(3)?,
            key_id: row.get(4)?,
            outcome: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where an audit log was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log was changed at line {sequence}")]
pub struct BrokenChain {
    /// The first line that does not fit.
    pub sequence: i64,
}

// --- texts and numbers ------------------------------------------------------------------------------------------------

/// SQLite's numbers are signed; ours stay far below.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> Option<T> {
    row.get_ref(column).ok()?.as_str().ok()?.parse().ok()
}

fn check_text(check: Option<hydra_core::ids::CheckValue>) -> String {
    check.map(|check| check.to_string()).unwrap_or_default()
}

fn acl_text(record: &PermissionRecord) -> String {
    // Texts and letters only: this JSON cannot fail.
    serde_json::to_string(&record.acl).unwrap_or_else(|_| "[]".into())
}

fn state_text(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Stopped => "stopped",
        State::Confirmed => "confirmed",
    }
}

fn state(text: &str) -> Option<State> {
    [State::Pending, State::Stopped, State::Confirmed]
        .into_iter()
        .find(|state| state_text(*state) == text)
}

fn scheme(text: &str) -> Option<Scheme> {
    [Scheme::Gf256, Scheme::Gf65521]
        .into_iter()
        .find(|scheme| scheme.name() == text)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn statements_keep_their_plans_whatever_is_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = "store1".parse().unwrap();
        let store_key = Key::random().unwrap();
        create(&path, &store, &store_key, 0).unwrap();
        let writer = open_writer(&path, &store, 0).unwrap();
        let keys = data_keys(&writer, &store_key).unwrap();
        for connection in [writer, open_reader(&path).unwrap()] {
            for name in ["/a", "/b", "/c"] {
                let held = load(&connection, &keys, &KeyId::new(name).unwrap(), |_| true).unwrap();
                assert!(held.entry.is_none());
            }
            let sql = format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE key_id = ?1");
            let statement = connection.prepare_cached(&sql).unwrap();
            assert_eq!(statement.get_status(StatementStatus::Run), 3);
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
