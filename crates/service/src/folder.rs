//! The folder of a new service: made with its files, or not at all.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why there is no such folder or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Something lies there.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The disk, or who may what on it.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A folder that is being filled. Half a service is of no use, and in the way of the next attempt: what was made is
/// taken back on drop, unless it is kept.
#[derive(Debug)]
pub struct NewFolder {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
    kept: bool,
}

impl NewFolder {
    /// A folder for its owner alone, that is empty or not there yet.
    ///
    /// # Errors
    /// [`FolderError`]
    pub fn make(dir: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Write {
            path: dir.to_owned(),
            source,
        };
        let folder = match std::fs::read_dir(dir) {
            Ok(mut found) => match found.next() {
                None => None,
                Some(_) => return Err(FolderError::NotEmpty(dir.to_owned())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700).create(dir).map_err(failed)?;
                Some(dir.to_owned())
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            folder,
            files: Vec::new(),
            kept: false,
        })
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// [`FolderError`]
    pub fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FolderError> {
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
            let written = file.write_all(bytes).and_then(|()| file.sync_all());
            written.inspect_err(|_| {
                let _ = std::fs::remove_file(path);
            })
        };
        write().map_err(|source| FolderError::Write {
            path: path.to_owned(),
            source,
        })?;
        self.files.push(path.to_owned());
        Ok(())
    }

    /// A file that somebody else makes there.
    pub fn add(&mut self, path: &Path) {
        self.files.push(path.to_owned());
    }

    /// All is there.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for file in &self.files {
            // a database has others beside it
            for end in ["", "-wal", "-shm", ".lock"] {
                let mut path = file.clone().into_os_string();
                path.push(end);
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}
