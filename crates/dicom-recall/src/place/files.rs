//! The sealed files under the folder that the storage element serves. A file gets its name when it is whole, flushed
//! and the right one; on the way to it no symbolic link is followed. What is not finished lies in a folder of its own,
//! which is emptied when the agent starts (`docs/src/storage-element.md`).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::database::hex;
use crate::line::Reason;
use crate::names;

/// Where files lie until they are whole: under the same folder, because they are renamed from there.
pub const PARTS: &str = ".eds-parts";

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It is not there, or not for us.
    #[error("cannot use the folder `{}`", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent works there.
    #[error("another agent serves `{}`", .0.display())]
    Taken(PathBuf),
}

/// Why a file did not get its name. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is not the file that was announced or registered.
    #[error("it is not what was registered")]
    Changed,
    /// It cannot be written.
    #[error("it cannot be written")]
    Storage(#[source] io::Error),
}

impl PlaceError {
    /// The word for the line.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Changed => Reason::Changed,
            Self::Storage(_) => Reason::Storage,
        }
    }
}

/// The folder that names start from.
pub struct Root {
    path: PathBuf,
    folder: OwnedFd,
    parts: OwnedFd,
    next: AtomicU64,
}

impl Root {
    /// Opens the folder, for this process alone, and removes what an earlier one did not finish.
    ///
    /// # Errors
    /// [`RootError`]
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let opened = Self::open_folders(path);
        let (folder, parts) = opened.map_err(|source| RootError::Folder {
            path: path.to_owned(),
            source,
        })?;
        if rustix::fs::flock(&parts, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(RootError::Taken(path.to_owned()));
        }
        let root = Self {
            path: path.to_owned(),
            folder,
            parts,
            next: AtomicU64::new(0),
        };
        root.remove_parts().map_err(|source| RootError::Folder {
            path: path.join(PARTS),
            source,
        })?;
        Ok(root)
    }

    fn open_folders(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
        // the folder itself may be reached by a link: whoever runs the agent named it
        let folder = rustix::fs::open(path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?;
        match rustix::fs::mkdirat(&folder, PARTS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let parts = rustix::fs::openat(&folder, PARTS, FOLDER, Mode::empty())?;
        Ok((folder, parts))
    }

    fn remove_parts(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.parts)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                rustix::fs::unlinkat(&self.parts, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a name lies.
    pub fn path_of(&self, name: &str) -> PathBuf {
        names::path_under(&self.path, name)
    }

    /// How long the file of that name is; none where there is no regular file.
    pub fn size_of(&self, name: &str) -> Option<u64> {
        self.stat(name).map(|(size, _)| size)
    }

    /// The length of a file, and when it was last used, in seconds since 1970.
    pub fn stat(&self, name: &str) -> Option<(u64, i64)> {
        let (folder, last) = self.folder_of(name, false).ok()?;
        let stat = rustix::fs::statat(&folder, last, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        let used = stat.st_atime.max(stat.st_mtime);
        is_file.then_some((u64::try_from(stat.st_size).unwrap_or(0), used))
    }

    /// Takes a file away; whether it was there.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        let (folder, last) = match self.folder_of(name, false) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&folder, last, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the folders of a name, so that listings show them before its bytes are there.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn make_folders(&self, name: &str) -> io::Result<()> {
        self.folder_of(name, true).map(|_| ())
    }

    /// The folder of a name, and the last segment of the name.
    fn folder_of<'n>(&self, name: &'n str, make: bool) -> io::Result<(OwnedFd, &'n str)> {
        names::check(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (folders, last) = name.rsplit_once('/').unwrap_or(("", name));
        if folders.split('/').nth(1) == Some(PARTS) || (folders.is_empty() && last == PARTS) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = rustix::io::dup(&self.folder)?;
        for segment in folders.split('/').skip(1) {
            at = match rustix::fs::openat(&at, segment, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    match rustix::fs::mkdirat(&at, segment, Mode::from_raw_mode(0o777)) {
                        // whatever is placed in it must not be lost with it
                        Ok(()) => rustix::fs::fsync(&at)?,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    rustix::fs::openat(&at, segment, FOLDER, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok((at, last))
    }

    /// Begins a file.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn part(self: &Arc<Self>) -> Result<Part, PlaceError> {
        let name = format!("{}.part", self.next.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // the umask says who may read it, as for any file of the storage element
        let made = rustix::fs::openat(&self.parts, &name, flags, Mode::from_raw_mode(0o666));
        let file = made.map_err(|error| PlaceError::Storage(error.into()))?;
        Ok(Part {
            root: Arc::clone(self),
            name: Some(name),
            file: file.into(),
            size: 0,
            digest: digest::Context::new(&digest::SHA256),
        })
    }

    /// Every regular file, by its name, with its length.
    pub fn walk(&self, each: &mut dyn FnMut(String, u64)) {
        self.walk_folder(&self.path, each);
    }

    fn walk_folder(&self, folder: &Path, each: &mut dyn FnMut(String, u64)) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
                continue;
            };
            if kind.is_dir() && path != self.path.join(PARTS) {
                self.walk_folder(&path, each);
            } else if kind.is_file() {
                let below = path.strip_prefix(&self.path).ok().and_then(Path::to_str);
                if let (Some(below), Ok(metadata)) = (below, entry.metadata()) {
                    each(format!("/{below}"), metadata.len());
                }
            }
        }
    }
}

/// What a file has to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// How long.
    pub size: Option<u64>,
    /// SHA-256, hexadecimal.
    pub sha256: Option<&'a str>,
}

/// A file that is not whole yet; it goes when this is dropped.
pub struct Part {
    root: Arc<Root>,
    name: Option<String>,
    file: File,
    size: u64,
    digest: digest::Context,
}

impl Part {
    /// How much was written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds to it.
    ///
    /// # Errors
    /// [`PlaceError::Storage`]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        self.file.write_all(bytes).map_err(PlaceError::Storage)?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Gives it its name, flushed, if it is everything that is expected of it. What has the name is replaced.
    ///
    /// # Errors
    /// [`PlaceError`]
    pub fn finish(mut self, name: &str, expected: &[Expected<'_>]) -> Result<(u64, String), PlaceError> {
        let digest = std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256)).finish();
        let sha256 = hex(digest.as_ref());
        let is_it = |expected: &Expected<'_>| {
            expected.size.is_none_or(|size| size == self.size)
                && expected.sha256.is_none_or(|other| other.eq_ignore_ascii_case(&sha256))
        };
        if !expected.iter().all(is_it) {
            return Err(PlaceError::Changed);
        }
        self.give_name(name).map_err(PlaceError::Storage)?;
        Ok((self.size, sha256))
    }

    fn give_name(&mut self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let (folder, last) = self.root.folder_of(name, true)?;
        let part = self.name.as_deref().unwrap_or_default();
        rustix::fs::renameat(&self.root.parts, part, &folder, last)?;
        self.name = None;
        rustix::fs::fsync(&folder)?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = rustix::fs::unlinkat(&self.root.parts, name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ANYTHING: Expected<'static> = Expected {
        size: None,
        sha256: None,
    };

    fn root(folder: &Path) -> Arc<Root> {
        Arc::new(Root::open(folder).unwrap())
    }

    fn place(root: &Arc<Root>, name: &str, bytes: &[u8], expected: Expected<'_>) -> Result<(u64, String), PlaceError> {
        let mut part = root.part().unwrap();
        for piece in bytes.chunks(3) {
            part.write(piece)?;
        }
        part.finish(name, &[expected])
    }

    fn parts(folder: &Path) -> usize {
        fs::read_dir(folder.join(PARTS)).unwrap().count()
    }

    #[test]
    fn a_file_gets_its_name_only_if_it_is_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = root(folder.path());
        let (size, sha256) = place(&root, "/a/b/c", b"sealed", ANYTHING).unwrap();
        assert_eq!((size, root.size_of("/a/b/c")), (6, Some(6)));
        assert_eq!(fs::read(folder.path().join("a/b/c")).unwrap(), b"sealed");
        for expected in [
            Expected {
                size: Some(5),
                sha256: None,
            },
            Expected {
                size: Some(6),
                sha256: Some(&"0".repeat(64)),
            },
        ] {
            let refused = place(&root, "/a/b/d", b"sealed", expected);
            assert!(matches!(refused, Err(PlaceError::Changed)));
        }
        let right = Expected {
            size: Some(6),
            sha256: Some(&sha256),
        };
        place(&root, "/a/b/d", b"sealed", right).unwrap();
        assert_eq!(parts(folder.path()), 0);
        let mut found = Vec::new();
        root.walk(&mut |name, size| found.push((name, size)));
        found.sort();
        assert_eq!(found, [("/a/b/c".to_owned(), 6), ("/a/b/d".to_owned(), 6)]);
        assert!(root.remove("/a/b/c").unwrap());
        assert!(!root.remove("/a/b/c").unwrap() && !root.remove("/x/y").unwrap());
    }

    #[test]
    fn what_was_not_finished_is_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let first = root(folder.path());
        first.part().unwrap().write(b"half").unwrap();
        assert_eq!(parts(folder.path()), 0);
        assert!(matches!(Root::open(folder.path()), Err(RootError::Taken(_))));
        drop(first);
        fs::write(folder.path().join(PARTS).join("7.part"), "half").unwrap();
        root(folder.path());
        assert_eq!(parts(folder.path()), 0);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root(folder.path());
        std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
        fs::write(other.path().join("theirs"), "x").unwrap();
        for name in ["/link/x", "/../x", "/.eds-parts/x", "/.eds-parts", "x", "/a/../../x"] {
            let placed = place(&root, name, b"x", ANYTHING);
            assert!(matches!(placed, Err(PlaceError::Storage(_))), "{name}");
        }
        assert_eq!(root.size_of("/link/theirs"), None);
        assert!(root.remove("/link/theirs").is_err());
        // a link in the place of a file is replaced, not followed
        std::os::unix::fs::symlink(other.path().join("theirs"), folder.path().join("file")).unwrap();
        assert_eq!(root.size_of("/file"), None);
        place(&root, "/file", b"ours", ANYTHING).unwrap();
        assert_eq!(fs::read(other.path().join("theirs")).unwrap(), b"x");
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"ours");
    }
}
