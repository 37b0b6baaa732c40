//! What is registered: under which name, from which instance of the PACS, under which key, and what its sealed file is.
//! Only here original identifiers stand beside new ones; towards the storage element go [`Entry`]s, which have none.

use std::sync::Arc;

use dicom_deid::Profile;
use mdm_catalog::database::{Datum, Row, Sql};

use crate::database::{Database, DatabaseError, all, first, next_change, now_ms, number, signed, texts};
use crate::line::Entry;
use crate::names::{Ids, KeyPer, Template, key_name};

const KIND: &str = "instances";
/// No registry has seen so many changes: who says so does not make ours run out of numbers.
const MOST_CHANGES: i64 = 1 << 40;
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

    /// Whether another of this name is of the same instance, under the same key.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.original == other.original && self.new == other.new && self.key_id == other.key_id
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

    /// The number of the last change.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn last_change(&self) -> Result<i64, DatabaseError>;

    /// The storage element is about to be told of changes up to that number.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn set_told(&self, upto: i64) -> Result<(), DatabaseError>;

    /// The storage element knows changes up to that number. Where it was never told of so many, this registry is an
    /// older copy that was put back, and all that is registered counts as changed behind that number.
    ///
    /// # Errors
    /// [`DatabaseError`], with nothing changed.
    fn tell_anew(&self, known: i64) -> Result<(), DatabaseError>;

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
        self.0.change(|sql| instances.iter().map(|one| add(sql, one)).collect())
    }

    fn find(&self, which: &Which<'_>) -> Result<Vec<Instance>, DatabaseError> {
        self.0.read(|sql| {
            if let Which::Names(names) = which {
                let query = format!("SELECT {COLUMNS} FROM instances WHERE name = ?1 AND gone = 0");
                let mut found = Vec::new();
                for name in *names {
                    found.extend(first(sql, &query, &[name.as_str().into()], instance)?);
                }
                return Ok(found);
            }
            let (condition, values) = condition(which);
            let query = format!("SELECT {COLUMNS} FROM instances WHERE gone = 0 AND {condition}");
            all(sql, &query, &values, instance)
        })
    }

    fn count(&self, study: &str, series: &str) -> Result<u64, DatabaseError> {
        let query = "SELECT count(*) FROM instances WHERE study = ?1 AND series = ?2 AND gone = 0";
        let count = self.0.read(|sql| number(sql, query, &[study.into(), series.into()]))?;
        Ok(count.unsigned_abs())
    }

    fn changes(&self, after: i64, limit: usize) -> Result<(Vec<Entry>, i64), DatabaseError> {
        let query = "SELECT name, size, sha256, registered_at, gone, change FROM instances
                     WHERE change > ?1 ORDER BY change LIMIT ?2";
        let entry = |row: &mut Row| {
            let entry = Entry {
                name: row.text(0)?,
                size: row.optional_integer(1)?.map(i64::unsigned_abs),
                sha256: row.optional_text(2)?,
                registered_at: row.integer(3)?,
                gone: row.boolean(4)?,
            };
            Ok((entry, row.integer(5)?))
        };
        let limit = signed(limit);
        let changed: Vec<(Entry, i64)> = self
            .0
            .read(|sql| all(sql, query, &[after.into(), limit.into()], entry))?;
        let last = changed.last().map_or(after, |(_, change)| *change);
        Ok((changed.into_iter().map(|(entry, _)| entry).collect(), last))
    }

    fn last_change(&self) -> Result<i64, DatabaseError> {
        // not the counter, which may have gone on without a change
        self.0
            .read(|sql| number(sql, "SELECT coalesce(max(change), 0) FROM instances", &[]))
    }

    fn set_told(&self, upto: i64) -> Result<(), DatabaseError> {
        self.0.change_lightly(|sql| set_told(sql, upto))
    }

    fn tell_anew(&self, known: i64) -> Result<(), DatabaseError> {
        if known > MOST_CHANGES || self.0.read(told)? >= known {
            return Ok(());
        }
        self.0.change(|sql| {
            // whoever writes this is the only one who registers
            let last = number(
                sql,
                "UPDATE changes SET last = last WHERE kind = ?1 RETURNING last",
                &[KIND.into()],
            )?;
            let before = told(sql)?;
            if before >= known {
                return Ok(());
            }
            // beyond all old numbers, so that none of the new ones meets them
            let ahead = Datum::from(known.max(last));
            // What was gone and told of by then stays told: the name may have been given again since.
            sql.execute(
                "UPDATE instances SET change = change + ?1 WHERE gone = 0 OR change > ?2",
                &[ahead.clone(), before.into()],
            )?;
            sql.execute(
                "UPDATE changes SET last = last + ?1 WHERE kind = ?2",
                &[ahead, KIND.into()],
            )?;
            set_told(sql, known)
        })
    }

    fn record(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
        self.0
            .change(|sql| files.iter().map(|file| record(sql, file)).collect())
    }

    fn record_placed(&self, files: &[(String, u64, String)]) -> Result<Vec<Recorded>, DatabaseError> {
        self.0.change(|sql| {
            let mut recorded = Vec::with_capacity(files.len());
            for file in files {
                recorded.push(record(sql, file)?);
                let update = "UPDATE instances SET on_disk = 1 WHERE name = ?1 AND on_disk = 0";
                sql.execute(update, &[file.0.as_str().into()])?;
            }
            Ok(recorded)
        })
    }

    fn set_on_disk(&self, names: &[String], on_disk: bool) -> Result<(), DatabaseError> {
        // what is to be evicted is as good as gone
        let update = if on_disk {
            "UPDATE instances SET on_disk = 1 WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM evictions WHERE name = ?1)"
        } else {
            "UPDATE instances SET on_disk = 0 WHERE name = ?1"
        };
        self.each(names, update, &[])
    }

    fn on_disk(&self) -> Result<Vec<String>, DatabaseError> {
        self.0
            .read(|sql| texts(sql, "SELECT name FROM instances WHERE on_disk = 1", &[]))
    }

    fn wish_evicted(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.0.change(|sql| {
            for name in names {
                let name = [name.as_str().into()];
                sql.execute("INSERT INTO evictions VALUES (?1) ON CONFLICT (name) DO NOTHING", &name)?;
                // whoever asks for it from now on is not told that it is there
                sql.execute(
                    "UPDATE instances SET on_disk = 0 WHERE name = ?1 AND on_disk = 1",
                    &name,
                )?;
            }
            Ok(())
        })
    }

    fn evictions(&self) -> Result<Vec<String>, DatabaseError> {
        self.0
            .read(|sql| texts(sql, "SELECT name FROM evictions LIMIT 1000", &[]))
    }

    fn forget_evictions(&self, names: &[String]) -> Result<(), DatabaseError> {
        self.each(names, "DELETE FROM evictions WHERE name = ?1", &[])
    }

    fn remove(&self, names: &[String]) -> Result<usize, DatabaseError> {
        let update = "UPDATE instances SET gone = 1, change = ?2 WHERE name = ?1 AND gone = 0";
        self.0.change(|sql| {
            let mut removed = 0;
            for name in names {
                let change = next_change(sql, KIND)?;
                removed += usize::try_from(sql.execute(update, &[name.as_str().into(), change.into()])?).unwrap_or(0);
            }
            Ok(removed)
        })
    }
}

impl LocalRegistry {
    /// Runs a statement for each name, which is bound before `more`.
    fn each(&self, names: &[String], statement: &str, more: &[Datum]) -> Result<(), DatabaseError> {
        if names.is_empty() {
            return Ok(());
        }
        self.0.change(|sql| {
            for name in names {
                let mut data = vec![name.as_str().into()];
                data.extend_from_slice(more);
                sql.execute(statement, &data)?;
            }
            Ok(())
        })
    }
}

/// Up to which change the storage element was told; of registries that did not note it yet, what they had.
fn told(sql: &dyn Sql) -> Result<i64, DatabaseError> {
    let query = "SELECT last FROM changes WHERE kind IN ('told', 'instances') ORDER BY kind DESC LIMIT 1";
    number(sql, query, &[])
}

fn set_told(sql: &dyn Sql, upto: i64) -> Result<(), DatabaseError> {
    let note = "INSERT INTO changes VALUES ('told', ?1)
                ON CONFLICT (kind) DO UPDATE SET last = excluded.last WHERE changes.last < excluded.last";
    sql.execute(note, &[upto.into()])?;
    Ok(())
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

fn record(sql: &dyn Sql, file: &(String, u64, String)) -> Result<Recorded, DatabaseError> {
    let (name, size, sha256) = file;
    let name = name.as_str();
    let query = "SELECT size, sha256 FROM instances WHERE name = ?1 AND gone = 0";
    let known: Option<Known> = first(sql, query, &[name.into()], |row| {
        Ok((row.optional_integer(0)?, row.optional_text(1)?))
    })?;
    let is_complete = matches!(known, Some((Some(_), Some(_))));
    let recorded = judge(known, *size, sha256);
    if recorded == Recorded::Same && !is_complete {
        let change = next_change(sql, KIND)?;
        let update = "UPDATE instances SET size = ?2, sha256 = ?3, change = ?4 WHERE name = ?1";
        let size = signed(*size);
        sql.execute(
            update,
            &[name.into(), size.into(), sha256.as_str().into(), change.into()],
        )?;
    }
    Ok(recorded)
}

pub(crate) fn add(sql: &dyn Sql, new: &Instance) -> Result<Added, DatabaseError> {
    let query = format!("SELECT {COLUMNS} FROM instances WHERE name = ?1");
    let name = new.name.as_str();
    if let Some(known) = first(sql, &query, &[name.into()], instance)? {
        if !known.gone {
            return Ok(if known.is_same(new) { Added::Known } else { Added::Taken });
        }
        sql.execute("DELETE FROM instances WHERE name = ?1", &[name.into()])?;
    }
    let change = next_change(sql, KIND)?;
    let insert = "INSERT INTO instances(name, study, series, instance, class, new_study, new_series,
                  new_instance, key_id, profile, size, sha256, change, registered_at, gone, on_disk)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, 0)";
    let text = |text: &String| Datum::from(text.as_str());
    let values = [
        name.into(),
        text(&new.original.study),
        text(&new.original.series),
        text(&new.original.instance),
        new.class.as_deref().into(),
        text(&new.new.study),
        text(&new.new.series),
        text(&new.new.instance),
        text(&new.key_id),
        text(&new.profile),
        new.size.map(signed).into(),
        new.sha256.as_deref().into(),
        change.into(),
        new.registered_at.into(),
    ];
    sql.execute(insert, &values)?;
    Ok(Added::New)
}

fn condition(which: &Which<'_>) -> (&'static str, Vec<Datum>) {
    match *which {
        Which::Names(_) => ("1 = 0", Vec::new()),
        Which::Original {
            study, series: None, ..
        } => ("study = ?1 ORDER BY name", vec![study.into()]),
        Which::Original {
            study,
            series: Some(series),
            instance: None,
        } => (
            "study = ?1 AND series = ?2 ORDER BY name",
            vec![study.into(), series.into()],
        ),
        Which::Original {
            study,
            series: Some(series),
            instance: Some(instance),
        } => (
            "study = ?1 AND series = ?2 AND instance = ?3 ORDER BY name",
            vec![study.into(), series.into(), instance.into()],
        ),
        Which::Prefix { prefix, after, limit } => (
            "name >= ?1 AND substr(name, 1, length(?1)) = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
            vec![prefix.into(), after.unwrap_or("").into(), signed(limit).into()],
        ),
    }
}

fn instance(row: &mut Row) -> Result<Instance, DatabaseError> {
    let mut ids = |at: usize| -> Result<Ids, DatabaseError> {
        Ok(Ids {
            study: row.text(at)?,
            series: row.text(at + 1)?,
            instance: row.text(at + 2)?,
        })
    };
    let (original, new) = (ids(1)?, ids(5)?);
    Ok(Instance {
        name: row.text(0)?,
        original,
        class: row.optional_text(4)?,
        new,
        key_id: row.text(8)?,
        profile: row.text(9)?,
        size: row.optional_integer(10)?.map(i64::unsigned_abs),
        sha256: row.optional_text(11)?,
        registered_at: row.integer(12)?,
        gone: row.boolean(13)?,
        on_disk: row.boolean(14)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use mdm_catalog::config::DatabaseSource;

    use super::*;
    use crate::postgres_server::Server;

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

    /// Makes databases for tests, each a new one.
    pub(crate) type Make<'a> = &'a dyn Fn() -> Arc<Database>;

    /// Runs a test on databases in files that go with it.
    pub(crate) fn on_files(test: fn(Make<'_>)) {
        // memory, where it can be had: no test cuts the power
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let number = std::cell::Cell::new(0);
        test(&|| {
            number.set(number.get() + 1);
            let path = folder.path().join(format!("{}.db", number.get()));
            Arc::new(Database::open_or_make(&DatabaseSource::File(path)).unwrap())
        });
    }

    /// All that is to hold of registry, queue and outbox in whatever database.
    const SUITE: &[fn(Make<'_>)] = &[
        found_by_either_name,
        changes_in_order,
        told_anew,
        the_first_bytes,
        crate::queue::tests::leased_at_once,
        crate::queue::tests::leases_fall_back,
        crate::queue::tests::cancelled_and_old,
        crate::queue::tests::nothing_is_lost,
        crate::queue::tests::many_lease_at_once,
        crate::catalogued::tests::every_change_is_told,
        crate::catalogued::tests::another_path,
        crate::catalogued::tests::some_times_more,
        crate::catalogued::tests::registrations,
        crate::catalogued::tests::intents,
    ];

    #[test]
    fn peer_postgres_keeps_what_a_file_keeps() {
        let server = Server::start(&["fsync=off"]);
        let number = std::cell::Cell::new(0);
        let make = || {
            number.set(number.get() + 1);
            let source = DatabaseSource::Postgres {
                url: server.database(&format!("suite{}", number.get())),
                password_file: None,
                authorities: None,
            };
            let database = Database::open_or_make(&source).unwrap();
            assert_eq!(database.id(), Database::open(&source).unwrap().id());
            Arc::new(database)
        };
        for test in SUITE {
            test(&make);
        }
        // a clock that was set is seen to be wrong
        let database = make();
        for wrong in [-1_000_000_000, 1_000_000_000] {
            database.set_ahead_ms(wrong);
            database.look_at_clock().unwrap();
            assert!((database.now_ms() - now_ms()).abs() < 60_000);
        }
        // of another program
        let url = server.database("catalog");
        let settings = || mdm_catalog::database::postgres::Settings::new(&url).unwrap();
        drop(mdm_catalog::database::postgres::Postgres::create(settings()).unwrap());
        let source = DatabaseSource::Postgres {
            url: url.clone(),
            password_file: None,
            authorities: None,
        };
        let refused = Database::open_or_make(&source).err().unwrap();
        assert!(
            refused.to_string().contains("not a database of dicom-recall"),
            "{refused}"
        );
    }

    fn names(found: &[Instance]) -> Vec<&str> {
        found.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn what_is_registered_is_found_by_either_name_and_again_is_nothing_new() {
        on_files(found_by_either_name);
    }

    fn found_by_either_name(make: Make<'_>) {
        let registry = LocalRegistry::new(make());
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
        on_files(changes_in_order);
    }

    fn changes_in_order(make: Make<'_>) {
        let registry = LocalRegistry::new(make());
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
    fn an_older_copy_that_is_put_back_is_told_anew() {
        on_files(told_anew);
    }

    fn told_anew(make: Make<'_>) {
        let registry = LocalRegistry::new(make());
        registry.add(&[11, 12].map(sample)).unwrap();
        let told = |after| {
            let (entries, upto) = registry.changes(after, 9).unwrap();
            (entries.len(), upto)
        };
        // what the storage element may know, and what nobody does
        for known in [0, 2, i64::MAX, -1] {
            registry.tell_anew(known).unwrap();
            assert_eq!(told(0), (2, 2), "{known}");
        }
        registry.set_told(2).unwrap();
        registry.tell_anew(5).unwrap();
        assert_eq!(told(5), (2, 7));
        registry.tell_anew(5).unwrap();
        assert_eq!(told(5), (2, 7), "once is enough");
        // also where it has as many changes by now, but others
        let more = [21, 22, 23].map(sample);
        registry.add(&more).unwrap();
        registry.tell_anew(6).unwrap();
        assert_eq!(told(6).0, 5);
        assert_eq!(told(told(6).1), (0, told(6).1));
        // what was told to be gone is not told again, as it may be there again
        let registry = LocalRegistry::new(make());
        registry.add(&[11, 12].map(sample)).unwrap();
        registry.remove(&[sample(12).name]).unwrap();
        registry.set_told(3).unwrap();
        registry.tell_anew(9).unwrap();
        let (entries, _) = registry.changes(9, 9).unwrap();
        assert_eq!(entries.iter().map(|one| one.gone).collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn the_first_bytes_are_recorded_and_others_are_told_from_them() {
        on_files(the_first_bytes);
    }

    fn the_first_bytes(make: Make<'_>) {
        let registry = LocalRegistry::new(make());
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
        registry.wish_evicted(&[sample(11).name]).unwrap();
        registry.set_on_disk(&[sample(11).name], true).unwrap();
        assert!(registry.on_disk().unwrap().is_empty(), "what is to go is not there");
        registry.forget_evictions(&[sample(11).name]).unwrap();
        registry.set_on_disk(&[sample(11).name], true).unwrap();
        assert_eq!(registry.on_disk().unwrap(), [sample(11).name]);
        registry.set_on_disk(&[sample(11).name], false).unwrap();
        assert!(registry.on_disk().unwrap().is_empty());
        assert!(!registry.find(&Which::Names(&[sample(11).name])).unwrap()[0].on_disk);
    }
}
