//! Keeps other processes away from a database, for as long as it lives.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::database::DatabaseError;

/// The lock of a database's file.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// One that was killed while it flushed has the lock until the disk has answered; its successor may be quicker.
const PATIENCE: Duration = Duration::from_secs(2);

impl Lock {
    /// Takes the lock of the database at `path`.
    ///
    /// # Errors
    /// [`DatabaseError::Locked`] where another process has it.
    pub(crate) fn take(path: &Path) -> Result<Self, DatabaseError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| DatabaseError::Open {
            path: path.clone(),
            source,
        })?;
        let start = Instant::now();
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            if start.elapsed() > PATIENCE {
                return Err(DatabaseError::Locked { path });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _file: file })
    }
}
