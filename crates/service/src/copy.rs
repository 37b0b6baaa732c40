//! Copies of databases, never half there: each is made under another name, flushed, and only then named. What they hold
//! is the service's business.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Never overwritten.
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    /// Another process makes the same.
    #[error("`{}` is being written by another process", .0.display())]
    UnderWay(PathBuf),
    /// The disk, or who may what on it.
    #[error("cannot write or read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite takes names in UTF-8 only.
    #[error("`{}` is not UTF-8", .0.display())]
    Name(PathBuf),
    /// A copy of a database in use is half of it.
    #[error("`{}` was copied while a server wrote to it: its log `-wal` lies beside it", .0.display())]
    Copied(PathBuf),
}

/// Fails where something lies there already.
///
/// # Errors
/// [`CopyError::Exists`]
pub fn is_free(path: &Path) -> Result<(), CopyError> {
    match path.symlink_metadata() {
        Ok(_) => Err(CopyError::Exists(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// The name as SQLite takes it.
///
/// # Errors
/// [`CopyError::Name`]
pub fn utf8(path: &Path) -> Result<&str, CopyError> {
    path.to_str().ok_or_else(|| CopyError::Name(path.to_owned()))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> CopyError + use<> {
    let path = path.to_owned();
    move |source| CopyError::File {
        path: path.clone(),
        source,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What SQLite left beside a file would be played into the next of that name.
fn remove_logs(path: &Path) -> io::Result<()> {
    for log in ["-wal", "-shm", "-journal"] {
        match fs::remove_file(with_suffix(path, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A file under a name that says it is not finished, for nobody but its owner to read. What a killed process left of an
/// earlier one goes; what a living one writes is left alone.
pub struct Part {
    path: PathBuf,
    file: File,
    named: bool,
}

impl Part {
    /// Begins the file that will be `target`.
    ///
    /// # Errors
    /// [`CopyError`]
    pub fn begin(target: &Path, suffix: &str) -> Result<Self, CopyError> {
        let path = with_suffix(target, suffix);
        let failed = file_error(&path);
        if let Ok(left) = File::open(&path) {
            let free = rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive);
            free.map_err(|_| CopyError::UnderWay(path.clone()))?;
            fs::remove_file(&path).map_err(&failed)?;
        }
        remove_logs(&path).map_err(&failed)?;
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(&failed)?;
        let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        taken.map_err(|_| CopyError::UnderWay(path.clone()))?;
        let named = false;
        Ok(Self { path, file, named })
    }

    /// Where it is until then.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it with a database that nobody writes to.
    ///
    /// # Errors
    /// [`CopyError`]
    pub fn fill_from(&mut self, from: &Path) -> Result<(), CopyError> {
        let log = with_suffix(from, "-wal");
        if log.metadata().is_ok_and(|found| found.len() > 0) {
            return Err(CopyError::Copied(from.to_owned()));
        }
        let mut source = File::open(from).map_err(file_error(from))?;
        io::copy(&mut source, &mut self.file).map_err(file_error(from))?;
        Ok(())
    }

    /// Flushes it and gives it its name.
    ///
    /// # Errors
    /// [`CopyError`]
    pub fn finish(mut self, target: &Path, over: bool) -> Result<(), CopyError> {
        self.file.sync_all().map_err(file_error(&self.path))?;
        if over {
            fs::rename(&self.path, target).map_err(file_error(target))?;
        } else {
            let named = rustix::fs::renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE);
            named.map_err(|error| match error {
                rustix::io::Errno::EXIST => CopyError::Exists(target.to_owned()),
                error => file_error(target)(error.into()),
            })?;
        }
        self.named = true;
        sync_folder(target)
    }
}

/// What was not finished goes.
impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
            let _ = remove_logs(&self.path);
        }
    }
}

fn sync_folder(of: &Path) -> Result<(), CopyError> {
    let folder = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(file_error(folder))
}

/// Gives the present database a second name, under which it stays when the first goes to another. What SQLite has in
/// its log goes into the database first, or, where that fails, aside with it: a log left behind would be played into
/// the new.
///
/// # Errors
/// [`CopyError`]
pub fn set_aside(path: &Path, is_empty: bool, now: &str) -> Result<Option<PathBuf>, CopyError> {
    let (log, shared) = (with_suffix(path, "-wal"), with_suffix(path, "-shm"));
    let aside = if is_empty {
        None
    } else {
        let settle = || -> Result<(), rusqlite::Error> {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            connection.close().map_err(|(_, error)| error)
        };
        // A database that is damaged may be why there is a restore.
        let _ = settle();
        let time = now.replace(['-', ':'], "");
        let aside = with_suffix(path, &format!(".replaced-{time}"));
        if log.metadata().is_ok_and(|found| found.len() > 0) {
            let beside = with_suffix(&aside, "-wal");
            link(&log, &beside)?;
        }
        link(path, &aside)?;
        sync_folder(path)?;
        Some(aside)
    };
    for left in [log, shared] {
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(&left)(error)),
            _ => {}
        }
    }
    Ok(aside)
}

fn link(from: &Path, to: &Path) -> Result<(), CopyError> {
    fs::hard_link(from, to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CopyError::Exists(to.to_owned()),
        _ => file_error(to)(error),
    })
}
