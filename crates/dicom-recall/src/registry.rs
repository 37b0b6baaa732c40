//! What is registered: under which name, from which instance of the PACS, under which key, and what its sealed file is.
//! Only here original identifiers stand beside new ones; towards the storage element go [`Entry`]s, which have none.

use std::sync::Arc;

use dicom_deid::Profile;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, Transaction, params, params_from_iter};

use crate::database::{Database, DatabaseError, next_change, now_ms};
use crate::line::Entry;
use crate::names::{Ids, KeyPer, Template, key_name};

const KIND: &str = "instances";
const COLUMNS: &str = "name, study, series, instance, class, new_study, new_series, new_instance, key_id, profile, \
                       size, sha256, registered_at, gone, on_disk";

/// A registered instance. It has original identifiers, and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Instance {
    /// The name of its sealed file.
    pub name: String,
    /// What the PACS calls it.
    pub original: Ids,
    /// Its SOP class, where the PACS told it.
    pub class: Option<String>,
    /// What it is called de-identified.
    pub new: Ids,
    /// The key that it is sealed under.
    pub key_id: String,
    /// The profile of de-identification at its registration.
    pub profile: String,
    /// Exactly how long its sealed file is, where that is known.
    pub size: Option<u64>,
    /// SHA-256 of its sealed file in hexadecimal digits, where that is known.
    pub sha256: Option<String>,
    /// When it was registered, in seconds since 1970.
    pub registered_at: i64,
    /// Whether it is registered no more.
    pub gone: bool,
    /// Whether its bytes are known to be at the storage element.
    pub on_disk: bool,
}

impl Instance {
    /// One that is to be registered now, of which nothing is known but what it is called.
    pub fn named(original: Ids, class: Option<String>, profile: &Profile, names: &Template, key_per: KeyPer) -> Self {
        let new = Ids {
            study: profile.uid(&original.study),
            series: profile.uid(&original.series),
            instance: profile.uid(&original.instance),
        };
        let name = names.name(&new, &original);
        Self {
            key_id: key_name(&name, key_per).to_owned(),
            name,
            original,
            class,
            new,
            profile: profile.name(),
            size: None,
            sha256: None,
            registered_at: now_ms() / 1000,
            gone: false,
            on_disk: false,
        }
    }
}

/// Which instances are meant.
pub enum Which<'a> {
    /// Those of these names.
    Names(&'a [String]),
    /// Those of a study, a series or an instance, by original identifiers.
    Original {
        /// The study.
        study: &'a str,
        /// The series.
        series: Option<&'a str>,
        /// The instance.
        instance: Option<&'a str>,
    },
    /// Those whose names begin so, in order, behind one of them, and at most so many.
    Prefix {
        /// How they begin.
        prefix: &'a str,
        /// Behind which.
        after: Option<&'a str>,
        /// How many.
        limit: usize,
    },
}

/// What became of something that was to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is registered now.
    New,
    /// It was registered already.
    Known,
    /// Its name is that of another instance, or of the same one de-identified or sealed otherwise.
    Taken,
}

/// What holds of a file against what was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is what was registered, or nothing was and now this is.
    Same,
    /// Something else was registered.
    Other,
    /// Nothing of that name is registered.
    Unknown,
}

/// Where registered instances are remembered.
pub trait Registry: Send + Sync {
    /// What tells this registry from every other.
    fn id(&self) -> &str;

    /// Registers instances, answering for each; what is known of those that are registered is kept.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing registered.
    fn add(&self, instances: &[Instance]) -> Result<Vec<Added>, DatabaseError>;

    /// Those that are meant and registered, by name.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn find(&self, which: &Which<'_>) -> Result<Vec<Instance>, DatabaseError>;

    /// How many instances of a series are registered.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn count(&self, study: &str, series: &str) -> Result<u64, DatabaseError>;

    /// What changed behind the change of that number, for the storage element: at most `limit`, and the number of the
    /// last.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn changes(&self, after: i64, limit: usize) -> Result<(Vec<Entry>, i64), DatabaseError>;

    /// Holds sizes and digests of files against what is registered, and registers them where nothing is.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing recorded.
    fn record(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError>;

    /// As [`Registry::record`], of files that are at the storage element now.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing recorded.
    fn record_placed(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError>;

    /// Says of these that their bytes are at the storage element, or not.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn set_on_disk(&self, names: &[String], on_disk: bool) -> Result<(), DatabaseError>;

    /// The names of all that is known to be at the storage element.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn on_disk(&self) -> Result<Vec<String>, DatabaseError>;

    /// Says of these that their bytes are there, and of all others that they are not.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn set_all_on_disk(&self, names: &[String]) -> Result<(), DatabaseError>;

    /// Wishes that the bytes of these be taken off the storage element by whoever can.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing wished.
    fn wish_evicted(&self, names: &[String]) -> Result<(), DatabaseError>;

    /// What is wished to be evicted.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn evictions(&self) -> Result<Vec<String>, DatabaseError>;

    /// Whoever evicts was told of these.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn forget_evictions(&self, names: &[String]) -> Result<(), DatabaseError>;

    /// Registers these no more; answers how many of them were.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing done.
    fn remove(&self, names: &[String]) -> Result<usize, DatabaseError>;
}

/// A registry in a database of ours.
pub struct LocalRegistry(Arc<Database>);

impl LocalRegistry {
    /// The registry in `database`.
    pub fn new(database: Arc<Database>) -> Self {
        Self(database)
    }
}

impl Registry for LocalRegistry {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn add(&self, instances: &[Instance]) -> Result<Vec<Added>, DatabaseError> {
        self.0
            .change(|transaction| instances.iter().map(|one| add(transaction, one)).collect())
    }

    fn find(&self, which: &Which<'_>) -> Result<Vec<Instance>, DatabaseError> {
        self.0.read(|connection| {
            if let Which::Names(names) = which {
                let mut statement = connection
                    .prepare_cached(&format!("SELECT {COLUMNS} FROM instances WHERE name = ?1 AND gone = 0"))?;
                let mut found = Vec::new();
                for name in *names {
                    found.extend(statement.query_row([name], instance).optional()?);
                }
                return Ok(found);
            }
            let (condition, values) = condition(which);
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM instances WHERE gone = 0 AND {condition}"
            ))?;
            let rows = statement.query_map(params_from_iter(values), instance)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn count(&self, study: &str, series: &str) -> Result<u64, DatabaseError> {
        self.0.read(|connection| {
            let query = "SELECT count(*) FROM instances WHERE study = ?1 AND series = ?2 AND gone = 0";
            let count: i64 = connection
                .prepare_cached(query)?
                .query_row([study, series], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    fn changes(&self, after: i64, limit: usize) -> Result<(Vec<Entry>, i64), DatabaseError> {
        self.0.read(|connection| {
            let query = "SELECT name, size, sha256, registered_at, gone, change FROM instances
                         WHERE change > ?1 ORDER BY change LIMIT ?2";
            let mut statement = connection.prepare_cached(query)?;
            let mut last = after;
            let rows = statement.query_map(params![after, signed(limit)], |row| {
                last = row.get(5)?;
                let size: Option<i64> = row.get(1)?;
                Ok(Entry {
                    name: row.get(0)?,
                    size: size.map(i64::unsigned_abs),
                    sha256: row.get(2)?,
                    registered_at: row.get(3)?,
                    gone: row.get(4)?,
                })
            })?;
            let entries: Vec<Entry> = rows.collect::<Result<_, _>>()?;
            Ok((entries, last))
        })
    }

    fn record(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
        self.0
            .change(|transaction| files.iter().map(|file| record(transaction, file)).collect())
    }

    fn record_placed(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
        self.0.change(|transaction| {
            let mut recorded = Vec::with_capacity(files.len());
            for file in files {
                recorded.push(record(transaction, file)?);
                transaction
                    .prepare_cached("UPDATE instances SET on_disk = 1 WHERE name = ?1 AND on_disk = 0")?
                    .execute([&file.0])?;
            }
            Ok(recorded)
        })
    }

    fn set_on_disk(&self, names: &[String], on_disk: bool) -> Result<(), DatabaseError> {
        if names.is_empty() {
            return Ok(());
        }
        self.0.change(|transaction| {
            let mut statement = transaction.prepare_cached("UPDATE instances SET on_disk = ?2 WHERE name = ?1")?;
            for name in names {
                statement.execute(params![name, on_disk])?;
            }
            Ok(())
        })
    }

    fn on_disk(&self) -> Result<Vec<String>, DatabaseError> {
        self.0.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT name FROM instances WHERE on_disk = 1")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn set_all_on_disk(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|transaction| {
            transaction.execute("UPDATE instances SET on_disk = 0 WHERE on_disk = 1", [])?;
            let mut statement = transaction.prepare_cached("UPDATE instances SET on_disk = 1 WHERE name = ?1")?;
            for name in names {
                statement.execute([name])?;
            }
            Ok(())
        })
    }

    fn wish_evicted(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|transaction| {
            let mut statement = transaction.prepare_cached("INSERT OR IGNORE INTO evictions VALUES (?1)")?;
            for name in names {
                statement.execute([name])?;
            }
            Ok(())
        })
    }

    fn evictions(&self) -> Result<Vec<String>, DatabaseError> {
        self.0.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT name FROM evictions LIMIT 1000")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn forget_evictions(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|transaction| {
            let mut statement = transaction.prepare_cached("DELETE FROM evictions WHERE name = ?1")?;
            for name in names {
                statement.execute([name])?;
            }
            Ok(())
        })
    }

    fn remove(&self, names: &[String]) -> Result<usize, DatabaseError> {
        self.0.change(|transaction| {
            let mut removed = 0;
            for name in names {
                let change = next_change(transaction, KIND)?;
                removed += transaction
                    .prepare_cached("UPDATE instances SET gone = 1, change = ?2 WHERE name = ?1 AND gone = 0")?
                    .execute(params![name, change])?;
            }
            Ok(removed)
        })
    }
}

/// What is known of a file's bytes.
type Known = (Option<i64>, Option<String>);

fn judge(known: Option<Known>, size: u64, sha256: &str) -> Recorded {
    match known {
        None => Recorded::Unknown,
        Some((known_size, known_sha256)) => {
            let fits = known_size.is_none_or(|known| known.unsigned_abs() == size)
                && known_sha256.is_none_or(|known| known == sha256);
            if fits { Recorded::Same } else { Recorded::Other }
        }
    }
}

fn record(transaction: &Transaction<'_>, file: &(String, u64, String)) -> Result<Recorded, DatabaseError> {
    let (name, size, sha256) = file;
    let known: Option<Known> = transaction
        .prepare_cached("SELECT size, sha256 FROM instances WHERE name = ?1 AND gone = 0")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let is_complete = matches!(known, Some((Some(_), Some(_))));
    let recorded = judge(known, *size, sha256);
    if recorded == Recorded::Same && !is_complete {
        let change = next_change(transaction, KIND)?;
        transaction
            .prepare_cached("UPDATE instances SET size = ?2, sha256 = ?3, change = ?4 WHERE name = ?1")?
            .execute(params![name, i64::try_from(*size).unwrap_or(i64::MAX), sha256, change])?;
    }
    Ok(recorded)
}

pub(crate) fn add(transaction: &Transaction<'_>, new: &Instance) -> Result<Added, DatabaseError> {
    let query = format!("SELECT {COLUMNS} FROM instances WHERE name = ?1");
    let known = transaction
        .prepare_cached(&query)?
        .query_row([&new.name], instance)
        .optional()?;
    if let Some(known) = known.filter(|known| !known.gone) {
        let is_same = known.original == new.original && known.new == new.new && known.key_id == new.key_id;
        return Ok(if is_same { Added::Known } else { Added::Taken });
    }
    let change = next_change(transaction, KIND)?;
    let insert = "INSERT OR REPLACE INTO instances(name, study, series, instance, class, new_study, new_series,
                  new_instance, key_id, profile, size, sha256, change, registered_at, gone, on_disk)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, 0)";
    transaction.prepare_cached(insert)?.execute(params![
        new.name,
        new.original.study,
        new.original.series,
        new.original.instance,
        new.class,
        new.new.study,
        new.new.series,
        new.new.instance,
        new.key_id,
        new.profile,
        new.size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
        new.sha256,
        change,
        new.registered_at,
    ])?;
    Ok(Added::New)
}

fn condition(which: &Which<'_>) -> (&'static str, Vec<Value>) {
    let text = |text: &str| Value::Text(text.to_owned());
    match which {
        Which::Names(_) => ("0", Vec::new()),
        Which::Original {
            study, series: None, ..
        } => ("study = ?1 ORDER BY name", vec![text(study)]),
        Which::Original {
            study,
            series: Some(series),
            instance: None,
        } => (
            "study = ?1 AND series = ?2 ORDER BY name",
            vec![text(study), text(series)],
        ),
        Which::Original {
            study,
            series: Some(series),
            instance: Some(instance),
        } => (
            "study = ?1 AND series = ?2 AND instance = ?3 ORDER BY name",
            vec![text(study), text(series), text(instance)],
        ),
        Which::Prefix { prefix, after, limit } => (
            "name >= ?1 AND substr(name, 1, length(?1)) = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
            vec![text(prefix), text(after.unwrap_or("")), Value::Integer(signed(*limit))],
        ),
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn instance(row: &Row<'_>) -> rusqlite::Result<Instance> {
    let ids = |at: usize| -> rusqlite::Result<Ids> {
        Ok(Ids {
            study: row.get(at)?,
            series: row.get(at + 1)?,
            instance: row.get(at + 2)?,
        })
    };
    let size: Option<i64> = row.get(10)?;
    Ok(Instance {
        name: row.get(0)?,
        original: ids(1)?,
        class: row.get(4)?,
        new: ids(5)?,
        key_id: row.get(8)?,
        profile: row.get(9)?,
        size: size.map(i64::unsigned_abs),
        sha256: row.get(11)?,
        registered_at: row.get(12)?,
        gone: row.get(13)?,
        on_disk: row.get(14)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(number: u32) -> Instance {
        let ids = |start: &str| Ids {
            study: format!("{start}.1"),
            series: format!("{start}.2.{}", number / 10),
            instance: format!("{start}.3.{number}"),
        };
        Instance {
            name: format!("/eds/1/{}/{number}", number / 10),
            original: ids("1.2"),
            class: None,
            new: ids("2.25"),
            key_id: format!("/eds/1/{}", number / 10),
            profile: "p".to_owned(),
            size: None,
            sha256: None,
            registered_at: 5,
            gone: false,
            on_disk: false,
        }
    }

    pub(crate) fn database() -> (tempfile::TempDir, Arc<Database>) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_or_make(&folder.path().join("db")).unwrap();
        // no test cuts the power
        let hasty = |connection: &rusqlite::Connection| Ok(connection.execute_batch("PRAGMA synchronous = OFF")?);
        database.read(hasty).unwrap();
        (folder, Arc::new(database))
    }

    fn names(found: &[Instance]) -> Vec<&str> {
        found.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn what_is_registered_is_found_by_either_name_and_again_is_nothing_new() {
        let (_folder, database) = database();
        let registry = LocalRegistry::new(database);
        let all: Vec<Instance> = [11, 12, 21].map(sample).to_vec();
        assert_eq!(registry.add(&all).unwrap(), [Added::New; 3]);
        assert_eq!(registry.add(&all).unwrap(), [Added::Known; 3]);
        let mut other = sample(11);
        other.original.instance = "1.2.3.99".to_owned();
        assert_eq!(registry.add(&[other]).unwrap(), [Added::Taken]);
        let by = |series, instance| {
            let study = "1.2.1";
            let found = registry
                .find(&Which::Original {
                    study,
                    series,
                    instance,
                })
                .unwrap();
            names(&found).join(" ")
        };
        assert_eq!(by(None, None), "/eds/1/1/11 /eds/1/1/12 /eds/1/2/21");
        assert_eq!(by(Some("1.2.2.1"), None), "/eds/1/1/11 /eds/1/1/12");
        assert_eq!(by(Some("1.2.2.1"), Some("1.2.3.12")), "/eds/1/1/12");
        assert_eq!(registry.count("1.2.1", "1.2.2.1").unwrap(), 2);
        let list = |prefix, after, limit| {
            let found = registry.find(&Which::Prefix { prefix, after, limit }).unwrap();
            names(&found).join(" ")
        };
        assert_eq!(list("/eds/1/1", None, 9), "/eds/1/1/11 /eds/1/1/12");
        assert_eq!(list("", Some("/eds/1/1/11"), 1), "/eds/1/1/12");
        assert_eq!(list("/eds/1/%", None, 9), "");
    }

    #[test]
    fn changes_are_told_in_order_and_what_is_removed_is_told_too() {
        let (_folder, database) = database();
        let registry = LocalRegistry::new(database);
        registry.add(&[11, 12, 21].map(sample)).unwrap();
        let (entries, upto) = registry.changes(0, 2).unwrap();
        assert_eq!((entries.len(), upto), (2, 2));
        let (entries, upto) = registry.changes(upto, 9).unwrap();
        assert_eq!((entries.len(), upto), (1, 3));
        let first = [sample(11).name];
        assert_eq!(registry.remove(&first).unwrap(), 1);
        assert_eq!(registry.remove(&first).unwrap(), 0);
        let (entries, upto) = registry.changes(upto, 9).unwrap();
        assert!(entries.len() == 1 && entries[0].gone && entries[0].name == first[0]);
        assert!(registry.find(&Which::Names(&first)).unwrap().is_empty());
        assert_eq!(registry.add(&[sample(11)]).unwrap(), [Added::New]);
        assert!(!registry.changes(upto, 9).unwrap().0[0].gone);
    }

    #[test]
    fn the_first_bytes_are_recorded_and_others_are_told_from_them() {
        let (_folder, database) = database();
        let registry = LocalRegistry::new(database);
        registry.add(&[sample(11)]).unwrap();
        let (_, upto) = registry.changes(0, 9).unwrap();
        let file = |size: u64, sha: &str| vec![(sample(11).name, size, sha.repeat(64))];
        assert_eq!(registry.record(&file(7, "a")).unwrap(), [Recorded::Same]);
        let (entries, later) = registry.changes(upto, 9).unwrap();
        assert_eq!(
            (entries[0].size, entries[0].sha256.clone()),
            (Some(7), Some("a".repeat(64)))
        );
        assert_eq!(registry.record(&file(7, "a")).unwrap(), [Recorded::Same]);
        assert_eq!(registry.changes(later, 9).unwrap().0, []);
        assert_eq!(registry.record(&file(8, "a")).unwrap(), [Recorded::Other]);
        assert_eq!(registry.record(&file(7, "b")).unwrap(), [Recorded::Other]);
        let unknown = [("/x".to_owned(), 7, "a".repeat(64))];
        assert_eq!(registry.record(&unknown).unwrap(), [Recorded::Unknown]);
        assert!(registry.evictions().unwrap().is_empty());
        registry.wish_evicted(&[sample(11).name, sample(11).name]).unwrap();
        assert_eq!(registry.evictions().unwrap(), [sample(11).name]);
        assert_eq!(
            registry.evictions().unwrap(),
            [sample(11).name],
            "until somebody was told"
        );
        registry.forget_evictions(&[sample(11).name]).unwrap();
        assert!(registry.evictions().unwrap().is_empty());
        registry.set_on_disk(&[sample(11).name], true).unwrap();
        assert!(registry.find(&Which::Names(&[sample(11).name])).unwrap()[0].on_disk);
        assert_eq!(registry.on_disk().unwrap(), [sample(11).name]);
        registry.set_all_on_disk(&[]).unwrap();
        assert!(registry.on_disk().unwrap().is_empty());
        assert!(!registry.find(&Which::Names(&[sample(11).name])).unwrap()[0].on_disk);
    }
}
