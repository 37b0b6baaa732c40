//! Backups of a catalogue's SQLite database, and their restoring (`docs/src/operating-catalogue.md`). A backup is
//! marked as one, so that no catalogue serves a copy that did not pass [`restore`].

use std::path::{Path, PathBuf};

use hydra_core::keystore::store::rfc3339;
use hydra_service::audit::SignedHead;
use hydra_service::copy::{self, CopyError, Part};

use crate::columns::ColumnKeys;
use crate::database::sqlite::Sqlite;
use crate::database::{Database, DatabaseError, row, schema};
use crate::engine::{AuditFault, Engine, OpenError};
use crate::lock::Lock;

/// Why there is no backup, or no restored catalogue.
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
    /// Not the database of this catalogue, or one that fails.
    #[error("`{}` cannot be used", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: DatabaseError,
    },
    /// What is sealed in it would not open.
    #[error("`{}` was made with another column key", .0.display())]
    OtherColumnKey(PathBuf),
}

/// Which catalogue it is about.
pub struct Catalog<'a> {
    /// Its database.
    pub database: &'a Path,
    /// What it calls itself.
    pub name: &'a str,
    /// Of its column key.
    pub keys: &'a ColumnKeys,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Files and directories.
    pub entries: u64,
    /// Replicas, but for those that are sealed.
    pub replicas: u64,
    /// The end of its audit log, signed.
    pub head: SignedHead,
    /// When it was backed up, where it is a backup.
    pub made: Option<String>,
}

/// Writes a backup of a catalogue, which may be serving, to a new file. It is of one moment.
///
/// # Errors
/// [`BackupError`]; then there is no file of that name.
pub fn backup(catalog: &Catalog<'_>, to: &Path, now: u64) -> Result<Contents, BackupError> {
    copy::is_free(to)?;
    let part = Part::begin(to, ".partial")?;
    Sqlite::copy(catalog.database, copy::utf8(part.path())?).map_err(of(catalog.database))?;
    let database = opened(part.path())?;
    let marked = database.write(|sql| schema::set_meta(sql, crate::engine::BACKUP, &rfc3339(now)));
    marked.map_err(of(part.path()))?;
    let contents = look_through(&database, catalog, part.path(), now)?;
    close(database, part.path())?;
    part.finish(to, false)?;
    Ok(contents)
}

/// What came of a restore.
#[derive(Debug)]
pub struct Restored {
    /// What the catalogue has now.
    pub contents: Contents,
    /// Where the database that it had is kept.
    pub aside: Option<PathBuf>,
}

/// Puts a backup in place of the catalogue's database. A database that is not empty is refused, or, with `replace`,
/// kept aside.
///
/// # Errors
/// [`BackupError`]; then the catalogue has the database that it had.
pub fn restore(catalog: &Catalog<'_>, from: &Path, replace: bool, now: u64) -> Result<Restored, BackupError> {
    let _lock = Lock::take(catalog.database).map_err(of(catalog.database))?;
    let empty = is_empty(catalog.database);
    if !replace && !empty {
        return Err(BackupError::NotEmpty(catalog.database.to_owned()));
    }
    let mut part = Part::begin(catalog.database, ".restoring")?;
    part.fill_from(from)?;
    let database = opened(part.path())?;
    let contents = look_through(&database, catalog, from, now)?;
    let made = contents.made.as_deref().unwrap_or("a time that is not known");
    let outcome = format!("the backup of {made}, {} entries", contents.entries);
    let marked = database.write(|sql| {
        sql.execute("DELETE FROM meta WHERE name = ?1", &[crate::engine::BACKUP.into()])?;
        Engine::note_restore(sql, catalog.keys, catalog.name, &outcome, now)
    });
    marked.map_err(of(part.path()))?;
    close(database, part.path())?;
    let aside = copy::set_aside(catalog.database, empty, &rfc3339(now))?;
    part.finish(catalog.database, true)?;
    Ok(Restored { contents, aside })
}

fn of(path: &Path) -> impl Fn(DatabaseError) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Database {
        path: path.clone(),
        source,
    }
}

/// A file that is no database, or half of one, fails at any query.
fn opened(path: &Path) -> Result<Database, BackupError> {
    let opened = Sqlite::open(path).map_err(|error| match error {
        DatabaseError::Sqlite(error) => BackupError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        },
        error => of(path)(error),
    });
    opened.map(Database::new)
}

/// Everything goes from the log into the file itself, which is all that gets a name.
fn close(database: Database, path: &Path) -> Result<(), BackupError> {
    drop(database);
    Sqlite::settle(path).map_err(of(path))
}

/// Whether a copy is whole and this catalogue's, and what is in it.
fn look_through(database: &Database, catalog: &Catalog<'_>, path: &Path, now: u64) -> Result<Contents, BackupError> {
    let failed = of(path);
    if let Some(what) = Sqlite::fault(path).map_err(&failed)? {
        let path = path.to_owned();
        return Err(BackupError::Damaged { path, what });
    }
    database.read(|sql| {
        Engine::check_own(sql, catalog.name, catalog.keys).map_err(|error| match error {
            OpenError::Database(source) => failed(source),
            _ => BackupError::OtherColumnKey(path.to_owned()),
        })?;
        let whole = Engine::verify_log(sql, catalog.keys, catalog.name).map_err(&failed)?;
        let whole = whole.map_err(|source| BackupError::Audit {
            path: path.to_owned(),
            source,
        })?;
        let count = |table: &str| -> Result<u64, BackupError> {
            let counted = row(sql, &format!("SELECT count(*) FROM {table}"), &[]).map_err(&failed)?;
            let counted = counted.map_or(Ok(0), |row| row.integer(0)).map_err(&failed)?;
            Ok(counted.unsigned_abs())
        };
        Ok(Contents {
            entries: count("entries")?,
            replicas: count("replicas")?,
            head: SignedHead::sign(catalog.keys.head_key(), catalog.name, &whole.head, now),
            made: schema::meta(sql, crate::engine::BACKUP).map_err(&failed)?,
        })
    })
}

impl From<DatabaseError> for BackupError {
    fn from(source: DatabaseError) -> Self {
        Self::Database {
            path: PathBuf::new(),
            source,
        }
    }
}

/// Whether there is nothing to lose: no database, or one in which nothing was ever done.
fn is_empty(path: &Path) -> bool {
    match path.metadata() {
        Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
        Ok(found) if found.len() == 0 => return true,
        Ok(_) => {}
    }
    // What cannot be read may still be worth something to somebody.
    Sqlite::is_unused(path).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use hydra_core::permissions::Caller;
    use hydra_core::secret::Key;
    use hydra_service::settings::CreationRule;

    use super::*;
    use crate::LogicalName;
    use crate::config::Rules;
    use crate::wire::{Kind, NewEntry, Question};

    fn keys(byte: u8) -> ColumnKeys {
        ColumnKeys::new(&Key::from_slice(&[byte; 32]).unwrap()).unwrap()
    }

    fn engine(path: &Path) -> Engine {
        let rules = Rules {
            catalog: "c".into(),
            create: vec![CreationRule {
                prefix: String::new(),
                principal: "/CN=alice".into(),
            }],
            administrators: vec![],
            acl: 10,
            per_owner: 0,
            backups_kept_days: None,
        };
        let database = Database::new(Sqlite::open(path).unwrap());
        Engine::open(database, keys(1), rules).unwrap()
    }

    #[test]
    fn a_backup_comes_back_whole_and_never_over_something() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("catalog.db"), folder.path().join("backup.db"));
        Engine::found(&Database::new(Sqlite::create(&path).unwrap()), "c", &keys(1)).unwrap();
        let alice = Caller {
            dn: "/CN=alice".into(),
            fqans: vec![],
            administrator: false,
        };
        let make = |name: &str| {
            let new = NewEntry::of(LogicalName::new(name).unwrap(), Kind::Directory);
            engine(&path).create(&alice, &[new]).unwrap();
        };
        let is_there = |name: &str| {
            let question = Question { path: name.into() };
            let shown = engine(&path).show(&alice, &[question]).unwrap();
            matches!(shown[0], crate::wire::Answer::Done(_))
        };
        make("/a");
        let right = keys(1);
        let catalog = Catalog {
            database: &path,
            name: "c",
            keys: &right,
        };
        let contents = backup(&catalog, &copy, 0).unwrap();
        assert_eq!(
            (contents.entries, contents.made.as_deref()),
            (1, Some("1970-01-01T00:00:00Z"))
        );
        assert!(matches!(
            backup(&catalog, &copy, 0),
            Err(BackupError::Copy(CopyError::Exists(_)))
        ));
        // Nobody serves a backup as it is.
        let served = Engine::open(
            Database::new(Sqlite::open(&copy).unwrap()),
            keys(1),
            engine(&path).rules().clone(),
        );
        assert!(matches!(
            served,
            Err(OpenError::Database(DatabaseError::IsBackup { .. }))
        ));
        Sqlite::settle(&copy).unwrap();
        make("/b");
        assert!(matches!(
            restore(&catalog, &copy, false, 0),
            Err(BackupError::NotEmpty(_))
        ));
        let other = keys(2);
        let stranger = Catalog {
            keys: &other,
            ..catalog
        };
        assert!(matches!(
            restore(&stranger, &copy, true, 0),
            Err(BackupError::OtherColumnKey(_))
        ));
        assert!(is_there("/b"));
        let catalog = Catalog {
            database: &path,
            name: "c",
            keys: &right,
        };
        let restored = restore(&catalog, &copy, true, 0).unwrap();
        assert!(restored.aside.unwrap().is_file());
        assert!(is_there("/a") && !is_there("/b"));
        engine(&path).verify_audit(&[]).unwrap().unwrap();
        let half = std::fs::read(&copy).unwrap();
        let broken = folder.path().join("broken.db");
        std::fs::write(&broken, &half[..half.len() / 2]).unwrap();
        let refused = restore(&catalog, &broken, true, 0);
        assert!(
            matches!(refused, Err(BackupError::Damaged { .. } | BackupError::Database { .. })),
            "{refused:?}"
        );
        assert!(is_there("/a"));
    }
}
