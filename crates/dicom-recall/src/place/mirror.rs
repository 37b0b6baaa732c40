//! What the agent remembers: the entries that the daemon told it, what is wanted of the daemon, and requests with their
//! files. One SQLite file beside the storage element; nothing in it identifies a patient, and all but the requests can
//! be had again from the daemon.
//!
//! What somebody was told is durable is flushed ([`Mirror::prepare`], [`Mirror::want_it`]); the rest is only written in
//! order, for the file system and the daemon know it better.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ask::{Progress, Refusal, RequestFile, RequestStatus};
use crate::line::{Entry, News, Reason};

/// Files of requests in one answer, about: a line of the socket holds them.
const MOST_FILES_TOLD: usize = 30_000;
/// "HyRP" in the file's header, so that no other SQLite database is taken for one of ours.
const APPLICATION_ID: i64 = 0x4879_5250;
const SCHEMA_VERSION: i64 = 1;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// SQLite says so.
    #[error("the agent's database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// It cannot be made.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some other database, or of a later version.
    #[error("`{}` is not a database of this agent, or of a later version", .0.display())]
    NotOurs(PathBuf),
    /// What was asked cannot be done.
    #[error("there is no such request, or the file is not of it")]
    Refused(Refusal),
}

/// What is wanted of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// How far it is.
    pub state: WantState,
    /// Why it waits or failed.
    pub reason: Option<Reason>,
}

/// How far a want is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantState {
    /// The daemon did not answer yet.
    Asked,
    /// It is in its queue.
    Queued,
    /// It is being fetched.
    Started,
    /// It will be tried again.
    Waiting,
    /// It will not come.
    Failed,
}

/// A file of a request, as it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Which.
    pub name: String,
    /// For how long it is held once it is there.
    pub lifetime_s: Option<u64>,
    /// Whether it is there, is to come, or never will.
    pub progress: Progress,
    /// Why it never will.
    pub reason: Option<Reason>,
}

/// The database.
pub struct Mirror {
    connection: Connection,
}

impl Mirror {
    /// Opens the database, or makes it, for its owner alone.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn open(path: &Path) -> Result<Self, MirrorError> {
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        made.map_err(|source| MirrorError::Open {
            path: path.to_owned(),
            source,
        })?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let header = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        match (header("application_id")?, header("user_version")?) {
            (APPLICATION_ID, SCHEMA_VERSION) => {}
            (0, 0) if header("schema_version")? == 0 => {
                let schema = include_str!("schema.sql");
                connection.execute_batch(&format!(
                    "BEGIN; {schema} PRAGMA application_id = {APPLICATION_ID}; \
                     PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                ))?;
            }
            _ => return Err(MirrorError::NotOurs(path.to_owned())),
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(Self { connection })
    }

    /// A transaction that is flushed before this returns.
    fn durably<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T, MirrorError>) -> Result<T, MirrorError> {
        self.connection.pragma_update(None, "synchronous", "full")?;
        let done = self.together(work);
        self.connection.pragma_update(None, "synchronous", "normal")?;
        done
    }

    /// A transaction.
    fn together<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T, MirrorError>) -> Result<T, MirrorError> {
        let transaction = self.connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// The registry that the entries are of, and the last change that is known.
    ///
    /// # Errors
    /// [`MirrorError`], as of everything here.
    pub fn registry(&self) -> Result<Option<(String, i64)>, MirrorError> {
        let row = self.connection.query_row("SELECT id, upto FROM registry", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        Ok(row.optional()?)
    }

    /// A daemon says whose entries it has: where that is another registry, what was known of the old one is forgotten.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn greet(&mut self, registry: &str) -> Result<(), MirrorError> {
        if self.registry()?.is_some_and(|(known, _)| known == registry) {
            return Ok(());
        }
        self.together(|db| {
            db.execute("DELETE FROM entries", [])?;
            db.execute("UPDATE wants SET state = 'asked' WHERE state <> 'failed'", [])?;
            db.execute("INSERT OR REPLACE INTO registry VALUES (1, ?1, 0)", [registry])?;
            Ok(())
        })
    }

    /// Which files must go because of these entries: of what is gone, and of what is another file now.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn stale(&self, entries: &[Entry], upto: i64) -> Result<Vec<String>, MirrorError> {
        let mut stale = Vec::new();
        if self.registry()?.is_none_or(|(_, known)| upto <= known) {
            return Ok(stale);
        }
        let other = "SELECT 1 FROM files WHERE name = ?1 AND (size <> ?2 OR sha256 <> lower(?3))";
        // unregistered and registered again, of which only the end was told
        let again = "SELECT 1 FROM entries WHERE name = ?1 AND registered_at <> ?2";
        for entry in entries {
            let is_stale = entry.gone
                || self.connection.prepare_cached(other)?.exists(params![
                    entry.name,
                    entry.size.map(signed),
                    entry.sha256
                ])?
                || self
                    .connection
                    .prepare_cached(again)?
                    .exists(params![entry.name, entry.registered_at])?;
            if is_stale {
                stale.push(entry.name.clone());
            }
        }
        Ok(stale)
    }

    /// Takes entries that changed, whose [`Self::stale`] files are gone. Changes that are known already are left out.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn apply(&mut self, entries: &[Entry], upto: i64) -> Result<(), MirrorError> {
        if self.registry()?.is_none_or(|(_, known)| upto <= known) {
            return Ok(());
        }
        self.together(|db| {
            for entry in entries {
                if entry.gone {
                    db.prepare_cached("DELETE FROM entries WHERE name = ?1")?
                        .execute([&entry.name])?;
                    continue;
                }
                db.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![
                        entry.name,
                        entry.size.map(signed),
                        entry.sha256,
                        entry.registered_at
                    ])?;
            }
            db.execute("UPDATE registry SET upto = ?1", [upto])?;
            Ok(())
        })
    }

    /// Whether a request waits for a file.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn is_awaited(&self, name: &str) -> Result<bool, MirrorError> {
        let awaited = "SELECT 1 FROM request_files WHERE name = ?1 AND progress IN ('submitted', 'started')";
        Ok(self.connection.prepare_cached(awaited)?.exists([name])?)
    }

    /// What is registered under a name.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT name, size, sha256, registered_at FROM entries WHERE name = ?1")?;
        Ok(statement.query_row([name], read_entry).optional()?)
    }

    /// Names under a prefix, in order.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, MirrorError> {
        // names are compared byte by byte, and nothing is behind the last character
        let end = format!("{prefix}\u{10ffff}");
        let mut statement = self.connection.prepare_cached(
            "SELECT name FROM entries WHERE name >= ?1 AND name < ?2 AND name > ?3 ORDER BY name LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![prefix, end, after.unwrap_or(""), limit], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn count(&self) -> Result<u64, MirrorError> {
        let count: i64 = self
            .connection
            .query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
        Ok(unsigned(count))
    }

    /// The file of a name as it was placed or found.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn file(&self, name: &str) -> Result<Option<(u64, Option<String>)>, MirrorError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT size, sha256 FROM files WHERE name = ?1")?;
        let row = statement.query_row([name], |row| Ok((unsigned(row.get(0)?), row.get(1)?)));
        Ok(row.optional()?)
    }

    /// Every file that is remembered, with its length.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn files(&self) -> Result<Vec<(String, u64)>, MirrorError> {
        let mut statement = self.connection.prepare_cached("SELECT name, size FROM files")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Remembers files that were found, those of entries only, and forgets all others.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn found(&mut self, files: &[(String, u64)]) -> Result<(), MirrorError> {
        self.together(|db| {
            db.execute_batch("CREATE TEMP TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY) WITHOUT ROWID")?;
            for (name, size) in files {
                db.prepare_cached(
                    "INSERT INTO files SELECT ?1, ?2, NULL FROM entries WHERE name = ?1 \
                     ON CONFLICT (name) DO UPDATE SET sha256 = NULL, size = excluded.size WHERE size <> excluded.size",
                )?
                .execute(params![name, signed(*size)])?;
                db.prepare_cached("INSERT OR IGNORE INTO seen VALUES (?1)")?
                    .execute([name])?;
            }
            db.execute("DELETE FROM files WHERE name NOT IN (SELECT name FROM seen)", [])?;
            db.execute_batch("DROP TABLE seen")?;
            Ok(())
        })
    }

    /// A file is not there any more.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn lost(&mut self, name: &str) -> Result<(), MirrorError> {
        self.connection.execute("DELETE FROM files WHERE name = ?1", [name])?;
        Ok(())
    }

    /// A file has its name: whoever wanted it has it.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn placed(&mut self, name: &str, size: u64, sha256: &str, now: i64) -> Result<(), MirrorError> {
        self.together(|db| {
            let file = "INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3)";
            db.prepare_cached(file)?.execute(params![name, signed(size), sha256])?;
            complete(db, name, now)
        })
    }

    /// A file was there all along.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn is_there(&mut self, name: &str, size: u64, now: i64) -> Result<(), MirrorError> {
        self.together(|db| {
            let file = "INSERT OR IGNORE INTO files VALUES (?1, ?2, NULL)";
            db.prepare_cached(file)?.execute(params![name, signed(size)])?;
            complete(db, name, now)
        })
    }

    /// What is wanted of the daemon under a name.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn want(&self, name: &str) -> Result<Option<Want>, MirrorError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT state, reason FROM wants WHERE name = ?1")?;
        let row = statement.query_row([name], |row| {
            Ok(Want {
                state: word_at(row, 0)?.unwrap_or(WantState::Asked),
                reason: word_at(row, 1)?,
            })
        });
        Ok(row.optional()?)
    }

    /// Wants a file, durably. Whether the daemon is to be told: it is new, or more urgent than it was.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn want_it(&mut self, name: &str, priority: u8, now: i64) -> Result<bool, MirrorError> {
        // most often somebody wants it already, and that needs no flush
        let mut known = self
            .connection
            .prepare_cached("SELECT 1 FROM wants WHERE name = ?1 AND state <> 'failed' AND priority >= ?2")?;
        if known.exists(params![name, priority])? {
            return Ok(false);
        }
        drop(known);
        self.durably(|db| want(db, name, priority, now))
    }

    /// Everything that is wanted, with its priority.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn wants(&self) -> Result<Vec<(String, u8)>, MirrorError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT name, priority FROM wants WHERE state <> 'failed' ORDER BY priority DESC, since")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Nobody wants it any more.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn unwant(&mut self, name: &str) -> Result<(), MirrorError> {
        self.connection
            .execute("DELETE FROM wants WHERE name = ?1 AND state <> 'failed'", [name])?;
        Ok(())
    }

    /// The daemon says what became of a want; of one that was not known, nothing is remembered.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn news(&mut self, name: &str, news: &News, now: i64) -> Result<(), MirrorError> {
        let (state, reason) = match news {
            News::Queued => (WantState::Queued, None),
            News::Started => (WantState::Started, None),
            News::Waiting { reason } => (WantState::Waiting, Some(*reason)),
            News::Failed { reason } => (WantState::Failed, Some(*reason)),
        };
        self.together(|db| {
            db.prepare_cached("UPDATE wants SET state = ?2, reason = coalesce(?3, reason) WHERE name = ?1")?
                .execute(params![name, word(&state), reason.map(Reason::word)])?;
            let change = match state {
                WantState::Started => {
                    "UPDATE request_files SET progress = 'started', started_at = coalesce(started_at, ?2) \
                     WHERE name = ?1 AND progress = 'submitted' AND ?3 IS NULL"
                }
                WantState::Failed => {
                    "UPDATE request_files SET progress = 'failed', finished_at = ?2, reason = ?3 \
                     WHERE name = ?1 AND progress IN ('submitted', 'started')"
                }
                _ => return Ok(()),
            };
            db.prepare_cached(change)?
                .execute(params![name, now, reason.map(Reason::word)])?;
            Ok(())
        })
    }

    /// A request, durably; one of that name and owner is added to. Answers the names that the daemon is to be told of.
    ///
    /// # Errors
    /// [`MirrorError`]; `NoRequest` where the name is somebody else's.
    pub fn prepare(
        &mut self,
        request: &str,
        owner: Option<&str>,
        files: &[Begin],
        priority: u8,
        now: i64,
    ) -> Result<Vec<String>, MirrorError> {
        self.durably(|db| {
            db.execute(
                "INSERT OR IGNORE INTO requests (request, owner, created_at) VALUES (?1, ?2, ?3)",
                params![request, owner, now],
            )?;
            let (number, whose): (i64, Option<String>) = db.query_row(
                "SELECT number, owner FROM requests WHERE request = ?1",
                [request],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if whose.as_deref() != owner {
                return Err(MirrorError::Refused(Refusal::NoRequest));
            }
            let mut told = Vec::new();
            for file in files {
                begin(db, number, file, now)?;
                if file.progress == Progress::Submitted && want(db, &file.name, priority, now)? {
                    told.push(file.name.clone());
                }
            }
            Ok(told)
        })
    }

    /// A request with its files; whether they are on disk is left to whoever looks.
    ///
    /// # Errors
    /// [`MirrorError`]; `NoRequest` where there is none of this owner.
    pub fn request(&self, request: &str, owner: Option<&str>) -> Result<RequestStatus, MirrorError> {
        let (number, created_at) = number(&self.connection, request, owner)?;
        self.status(number, request.to_owned(), created_at)
    }

    /// All requests, the newest first.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn requests(&self, owner: Option<&str>) -> Result<Vec<RequestStatus>, MirrorError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, request, created_at FROM requests WHERE ?1 IS NULL OR owner = ?1 ORDER BY number DESC",
        )?;
        let rows = statement.query_map([owner], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows: Vec<(i64, String, i64)> = rows.collect::<Result<_, _>>()?;
        // as many of the newest as an answer holds
        let (mut all, mut left) = (Vec::new(), MOST_FILES_TOLD);
        for (number, request, created_at) in rows {
            let status = self.status(number, request, created_at)?;
            if !all.is_empty() && status.files.len() > left {
                break;
            }
            left = left.saturating_sub(status.files.len());
            all.push(status);
        }
        Ok(all)
    }

    /// How many requests there are.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn count_requests(&self) -> Result<u64, MirrorError> {
        let count: i64 = self
            .connection
            .query_row("SELECT count(*) FROM requests", [], |row| row.get(0))?;
        Ok(unsigned(count))
    }

    /// Forgets some of the oldest requests of which nothing is to happen any more and that hold no file; answers how
    /// many.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn make_room(&mut self, now: i64) -> Result<usize, MirrorError> {
        let over = "DELETE FROM requests WHERE number IN (SELECT number FROM requests AS old WHERE NOT EXISTS
                        (SELECT 1 FROM request_files AS file WHERE file.number = old.number
                         AND (file.progress IN ('submitted', 'started') OR file.keep_until > ?1))
                    ORDER BY number LIMIT 1000)";
        self.together(|db| Ok(db.execute(over, [now])?))
    }

    fn status(&self, number: i64, request: String, created_at: i64) -> Result<RequestStatus, MirrorError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, progress, reason, started_at, finished_at FROM request_files WHERE number = ?1 \
             ORDER BY position",
        )?;
        let rows = statement.query_map([number], |row| {
            Ok(RequestFile {
                name: row.get(0)?,
                progress: word_at(row, 1)?.unwrap_or(Progress::Failed),
                reason: word_at(row, 2)?,
                on_disk: false,
                started_at: row.get(3)?,
                finished_at: row.get(4)?,
            })
        })?;
        Ok(RequestStatus {
            request,
            created_at,
            files: rows.collect::<Result<_, _>>()?,
        })
    }

    /// Waits no more for files of a request. Answers those that no request waits for now.
    ///
    /// # Errors
    /// [`MirrorError`]; nothing is done where one of them is not of it.
    pub fn cancel(
        &mut self,
        request: &str,
        owner: Option<&str>,
        names: Option<&[String]>,
        now: i64,
    ) -> Result<Vec<String>, MirrorError> {
        self.durably(|db| cancel(db, request, owner, names, now))
    }

    /// Cancels a request and forgets it. Answers as [`Self::cancel`].
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn forget(&mut self, request: &str, owner: Option<&str>, now: i64) -> Result<Vec<String>, MirrorError> {
        self.durably(|db| {
            let unwanted = cancel(db, request, owner, None, now)?;
            db.execute("DELETE FROM requests WHERE request = ?1", [request])?;
            Ok(unwanted)
        })
    }

    /// A request holds these files no longer.
    ///
    /// # Errors
    /// [`MirrorError`]; nothing is done where one of them is not of it.
    pub fn release(&mut self, request: &str, owner: Option<&str>, names: &[String]) -> Result<(), MirrorError> {
        self.durably(|db| {
            let (number, _) = number(db, request, owner)?;
            for name in names {
                let held = "UPDATE request_files SET lifetime_s = NULL, keep_until = NULL \
                            WHERE number = ?1 AND name = ?2";
                if db.prepare_cached(held)?.execute(params![number, name])? == 0 {
                    return Err(MirrorError::Refused(Refusal::NotOfRequest));
                }
            }
            Ok(())
        })
    }

    /// Whether a request holds a file, or waits for it.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn is_held(&self, name: &str, now: i64) -> Result<bool, MirrorError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT 1 FROM request_files WHERE name = ?1 AND (keep_until > ?2 OR progress IN ('submitted', 'started'))",
        )?;
        Ok(statement.exists(params![name, now])?)
    }

    /// Forgets requests that were over before `before`, and failures of that time.
    ///
    /// # Errors
    /// [`MirrorError`]
    pub fn prune(&mut self, before: i64) -> Result<usize, MirrorError> {
        self.together(|db| {
            db.execute("DELETE FROM wants WHERE state = 'failed' AND since < ?1", [before])?;
            let over = "DELETE FROM requests WHERE created_at < ?1 AND NOT EXISTS (SELECT 1 FROM request_files f \
                        WHERE f.number = requests.number AND (f.progress IN ('submitted', 'started') \
                        OR f.finished_at >= ?1 OR f.keep_until >= ?1))";
            Ok(db.execute(over, [before])?)
        })
    }

    /// Whether it can be written.
    pub fn is_well(&self) -> bool {
        self.connection
            .execute("UPDATE registry SET upto = upto WHERE one = 1", [])
            .is_ok()
    }
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        name: row.get(0)?,
        size: row.get::<_, Option<i64>>(1)?.map(unsigned),
        sha256: row.get(2)?,
        registered_at: row.get(3)?,
        gone: false,
    })
}

/// SQLite's integers have a sign; no file is that long.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn unsigned(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

/// The word of a plain enumeration, as on the line.
fn word(value: &impl Serialize) -> String {
    let written = serde_json::to_value(value).ok();
    written
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn word_at<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| serde_json::from_value(text.into()).ok()))
}

fn want(db: &Connection, name: &str, priority: u8, now: i64) -> Result<bool, MirrorError> {
    let change = "INSERT INTO wants (name, priority, state, since) VALUES (?1, ?2, 'asked', ?3) \
                  ON CONFLICT (name) DO UPDATE SET priority = max(priority, excluded.priority), \
                  since = iif(state = 'failed', excluded.since, since), \
                  reason = iif(state = 'failed', NULL, reason), \
                  state = iif(state = 'failed', 'asked', state) \
                  WHERE state = 'failed' OR priority < excluded.priority";
    Ok(db.prepare_cached(change)?.execute(params![name, priority, now])? > 0)
}

/// Whoever waits for a file in a request has it.
fn complete(db: &Connection, name: &str, now: i64) -> Result<(), MirrorError> {
    db.prepare_cached("DELETE FROM wants WHERE name = ?1")?
        .execute([name])?;
    db.prepare_cached(
        "UPDATE request_files SET progress = 'completed', reason = NULL, started_at = coalesce(started_at, ?2), \
         finished_at = ?2, keep_until = ?2 + lifetime_s WHERE name = ?1 AND progress IN ('submitted', 'started')",
    )?
    .execute(params![name, now])?;
    Ok(())
}

fn begin(db: &Connection, number: i64, file: &Begin, now: i64) -> Result<(), MirrorError> {
    let is_over = file.progress != Progress::Submitted;
    let lifetime_s = file
        .lifetime_s
        .map(|lifetime_s| signed(lifetime_s).min(i64::from(u32::MAX)));
    db.prepare_cached(
        "INSERT INTO request_files (number, position, name, progress, reason, started_at, finished_at, lifetime_s, \
         keep_until) VALUES (?1, (SELECT coalesce(max(position), 0) + 1 FROM request_files WHERE number = ?1), \
         ?2, ?3, ?4, ?5, ?5, ?6, ?7) ON CONFLICT (number, name) DO UPDATE SET progress = excluded.progress, \
         reason = excluded.reason, started_at = excluded.started_at, finished_at = excluded.finished_at, \
         lifetime_s = excluded.lifetime_s, keep_until = excluded.keep_until",
    )?
    .execute(params![
        number,
        file.name,
        word(&file.progress),
        file.reason.map(Reason::word),
        is_over.then_some(now),
        lifetime_s,
        lifetime_s
            .filter(|_| file.progress == Progress::Completed)
            .map(|lifetime_s| now + lifetime_s),
    ])?;
    Ok(())
}

fn number(db: &Connection, request: &str, owner: Option<&str>) -> Result<(i64, i64), MirrorError> {
    let mut statement =
        db.prepare_cached("SELECT number, created_at FROM requests WHERE request = ?1 AND (?2 IS NULL OR owner = ?2)")?;
    let row = statement.query_row(params![request, owner], |row| Ok((row.get(0)?, row.get(1)?)));
    row.optional()?.ok_or(MirrorError::Refused(Refusal::NoRequest))
}

fn cancel(
    db: &Transaction<'_>,
    request: &str,
    owner: Option<&str>,
    names: Option<&[String]>,
    now: i64,
) -> Result<Vec<String>, MirrorError> {
    let (number, _) = number(db, request, owner)?;
    let names = match names {
        Some(names) => names.to_vec(),
        None => {
            let mut all = db.prepare_cached("SELECT name FROM request_files WHERE number = ?1")?;
            let rows = all.query_map([number], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        }
    };
    let mut unwanted = Vec::new();
    for name in names {
        let mut known = db.prepare_cached("SELECT 1 FROM request_files WHERE number = ?1 AND name = ?2")?;
        if !known.exists(params![number, name])? {
            return Err(MirrorError::Refused(Refusal::NotOfRequest));
        }
        let cancelled = db
            .prepare_cached(
                "UPDATE request_files SET progress = 'cancelled', finished_at = ?3, keep_until = NULL \
                 WHERE number = ?1 AND name = ?2 AND progress IN ('submitted', 'started')",
            )?
            .execute(params![number, name, now])?;
        let others = "SELECT 1 FROM request_files WHERE name = ?1 AND progress IN ('submitted', 'started')";
        if cancelled > 0 && !db.prepare_cached(others)?.exists([&name])? {
            unwanted.push(name);
        }
    }
    Ok(unwanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            size: Some(size),
            sha256: None,
            registered_at: 5,
            gone: false,
        }
    }

    fn mirror() -> (tempfile::TempDir, Mirror) {
        let folder = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(&folder.path().join("place.sqlite")).unwrap();
        mirror.greet("one").unwrap();
        (folder, mirror)
    }

    fn submitted(name: &str) -> Begin {
        Begin {
            name: name.to_owned(),
            lifetime_s: Some(60),
            progress: Progress::Submitted,
            reason: None,
        }
    }

    #[test]
    fn requests_that_are_over_make_room_and_no_others() {
        let (_folder, mut mirror) = mirror();
        mirror.apply(&[entry("/a", 1), entry("/b", 1)], 1).unwrap();
        for (request, name) in [("held", "/a"), ("open", "/b"), ("cancelled", "/b")] {
            mirror.prepare(request, None, &[submitted(name)], 1, 100).unwrap();
        }
        mirror.placed("/a", 1, "00", 200).unwrap();
        mirror.cancel("cancelled", None, None, 200).unwrap();
        assert_eq!(mirror.make_room(210).unwrap(), 1);
        assert_eq!(mirror.count_requests().unwrap(), 2);
        assert_eq!(mirror.make_room(210).unwrap(), 0);
        // nothing holds it any more
        assert_eq!(mirror.make_room(261).unwrap(), 1);
        assert_eq!(mirror.count_requests().unwrap(), 1);
    }

    #[test]
    fn changes_are_taken_once_and_another_registry_begins_anew() {
        let (folder, mut mirror) = mirror();
        mirror
            .apply(&[entry("/a/1", 1), entry("/a/2", 2), entry("/b", 3)], 3)
            .unwrap();
        // late, from a second daemon on the same registry
        mirror.apply(&[entry("/a/1", 9)], 2).unwrap();
        assert_eq!(mirror.entry("/a/1").unwrap().unwrap().size, Some(1));
        assert_eq!(mirror.list("/a/", None, 10).unwrap(), ["/a/1", "/a/2"]);
        assert_eq!(mirror.list("", Some("/a/1"), 1).unwrap(), ["/a/2"]);
        let gone = Entry {
            gone: true,
            ..entry("/a/2", 2)
        };
        mirror.placed("/a/1", 1, "00", 7).unwrap();
        // the bytes of one that changed are not what is registered
        let again = Entry {
            registered_at: entry("/b", 3).registered_at + 1,
            ..entry("/b", 3)
        };
        let changes = [gone, entry("/a/1", 4), again];
        assert_eq!(mirror.stale(&changes, 4).unwrap(), ["/a/2", "/a/1", "/b"]);
        mirror.apply(&changes, 4).unwrap();
        assert!(mirror.stale(&changes, 4).unwrap().is_empty(), "they are known");
        drop(mirror);
        let mut mirror = Mirror::open(&folder.path().join("place.sqlite")).unwrap();
        assert_eq!(mirror.registry().unwrap(), Some(("one".to_owned(), 4)));
        assert_eq!(mirror.count().unwrap(), 2);
        mirror.greet("two").unwrap();
        assert_eq!(mirror.registry().unwrap(), Some(("two".to_owned(), 0)));
        assert_eq!(mirror.count().unwrap(), 0);
    }

    #[test]
    fn a_file_is_wanted_of_the_daemon_once() {
        let (_folder, mut mirror) = mirror();
        assert!(mirror.want_it("/a", 0, 1).unwrap());
        assert!(!mirror.want_it("/a", 0, 2).unwrap());
        assert!(mirror.want_it("/a", 3, 2).unwrap());
        assert_eq!(mirror.wants().unwrap(), [("/a".to_owned(), 3)]);
        let reason = Reason::Pacs;
        mirror.news("/a", &News::Waiting { reason }, 3).unwrap();
        mirror.news("/a", &News::Started, 3).unwrap();
        let want = mirror.want("/a").unwrap().unwrap();
        assert_eq!((want.state, want.reason), (WantState::Started, Some(Reason::Pacs)));
        mirror.news("/a", &News::Failed { reason }, 4).unwrap();
        assert!(mirror.wants().unwrap().is_empty());
        assert!(mirror.want_it("/a", 0, 5).unwrap());
        mirror.placed("/a", 1, "00", 6).unwrap();
        assert!(mirror.want("/a").unwrap().is_none());
    }

    #[test]
    fn requests_live_through_their_files_and_belong_to_their_owners() {
        let (_folder, mut mirror) = mirror();
        let files = [submitted("/a"), submitted("/b"), submitted("/a")];
        let told = mirror.prepare("r", Some("/CN=alice"), &files, 1, 10).unwrap();
        assert_eq!(told, ["/a", "/b"]);
        assert!(mirror.prepare("s", None, &files[..1], 1, 10).unwrap().is_empty());
        let refused = |refused: Result<Vec<String>, MirrorError>| match refused {
            Err(MirrorError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        let theirs = mirror.prepare("r", Some("/CN=bob"), &files, 1, 10);
        assert_eq!(refused(theirs), Refusal::NoRequest);
        mirror.placed("/a", 1, "00", 20).unwrap();
        let status = mirror.request("r", Some("/CN=alice")).unwrap();
        let progress: Vec<_> = status.files.iter().map(|file| file.progress).collect();
        assert_eq!(progress, [Progress::Completed, Progress::Submitted]);
        assert!(mirror.is_held("/a", 79).unwrap() && !mirror.is_held("/a", 80).unwrap());
        assert!(mirror.is_held("/b", 1000).unwrap());
        let other = ["/b".to_owned(), "/c".to_owned()];
        let cancelled = mirror.cancel("r", None, Some(&other), 21);
        assert_eq!(refused(cancelled), Refusal::NotOfRequest);
        assert_eq!(refused(mirror.forget("r", Some("/CN=bob"), 22)), Refusal::NoRequest);
        assert_eq!(mirror.cancel("r", None, None, 21).unwrap(), ["/b"]);
        assert!(!mirror.is_held("/b", 22).unwrap());
        mirror.release("r", None, &["/a".to_owned()]).unwrap();
        // the other request holds it
        assert!(mirror.is_held("/a", 22).unwrap());
        assert!(mirror.forget("s", None, 22).unwrap().is_empty());
        assert!(!mirror.is_held("/a", 22).unwrap());
        assert_eq!(mirror.prune(21).unwrap(), 0);
        assert_eq!(mirror.prune(22).unwrap(), 1);
    }

    #[test]
    fn only_our_own_database_is_opened_and_only_its_owner_may() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, mirror) = mirror();
        assert!(mirror.is_well());
        let mode = std::fs::metadata(folder.path().join("place.sqlite"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = folder.path().join("other");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        assert!(matches!(Mirror::open(&other), Err(MirrorError::NotOurs(_))));
    }
}
