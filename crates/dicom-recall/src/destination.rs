//! Where sealed files go: into a folder, nowhere but through a digest, or over the line (in [`crate::link`]). A file
//! is held against what was registered before it gets its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use hydra_core::sealed::{Batch, NewFile, Output, SealError};

use crate::database::{DatabaseError, hex};
use crate::engine::Item;
use crate::evict;
use crate::names::path_under;
use crate::pipeline::{InstanceError, Sealed};
use crate::registry::Registry;

/// What a file must be, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Exactly how long.
    pub size: Option<u64>,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: Option<String>,
}

impl Expected {
    /// Whether a file is that.
    ///
    /// # Errors
    /// [`InstanceError::Changed`]
    pub fn check(&self, size: u64, sha256: Option<&str>) -> Result<(), InstanceError> {
        let is_size = self.size.is_none_or(|expected| expected == size);
        let is_digest = match (&self.sha256, sha256) {
            (Some(expected), Some(sha256)) => expected == sha256,
            _ => true,
        };
        if is_size && is_digest {
            Ok(())
        } else {
            Err(InstanceError::Changed)
        }
    }
}

/// Seals into what it is given.
pub type SealInto<'a> = dyn FnMut(&mut (dyn Write + Send)) -> Result<Sealed, InstanceError> + 'a;

/// Where sealed files go.
pub trait Destination: Sync {
    /// Something to place files with, for one thread.
    fn placer(&self) -> Box<dyn Placer + '_>;

    /// Where what is sealed under a key that nobody keeps may wait.
    fn spool(&self) -> &Path;

    /// Whether nothing at all can be put there now.
    fn is_away(&self) -> bool {
        false
    }

    /// Whether a file can be put there only when it is registered, and that was told.
    fn takes_only_registered(&self) -> bool {
        false
    }

    /// Waits until what is registered by now was told.
    ///
    /// # Errors
    /// Where it is not told in time.
    fn tell_registered(&self) -> Result<(), InstanceError> {
        Ok(())
    }

    /// Has files taken away that have their names and should not.
    ///
    /// # Errors
    /// [`DatabaseError`]
    fn take_away(&self, registry: &dyn Registry, names: &[String]) -> Result<(), DatabaseError>;
}

/// Places files for one thread.
pub trait Placer {
    /// Has a file sealed. It has no name until [`Placer::finish`], and never one if this fails.
    ///
    /// # Errors
    /// Why it is not placed; nothing of it is left then.
    fn place(&mut self, number: usize, item: &Item, seal: &mut SealInto<'_>) -> Result<Sealed, InstanceError>;

    /// Gives names to what was sealed since the last time, and answers for each, with its digest where that is taken.
    fn finish(&mut self) -> Vec<(usize, Result<Option<String>, InstanceError>)>;
}

/// Takes a digest of what is written.
pub struct Hashing<'a> {
    inner: Option<&'a mut (dyn Write + Send)>,
    digest: digest::Context,
}

impl<'a> Hashing<'a> {
    /// Of what goes on into `inner`, if anywhere.
    pub fn new(inner: Option<&'a mut (dyn Write + Send)>) -> Self {
        Self {
            inner,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    /// In hexadecimal digits.
    pub fn finish(self) -> String {
        hex(self.digest.finish().as_ref())
    }
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.inner {
            Some(inner) => inner.write(bytes)?,
            None => bytes.len(),
        };
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A folder that a storage element serves.
pub struct Folder {
    root: PathBuf,
    overwrite: bool,
    digests: bool,
}

impl Folder {
    /// Puts files under `root`; what is there is replaced if `overwrite` says so, digests are taken if `digests` does.
    pub fn new(root: &Path, overwrite: bool, digests: bool) -> Self {
        Self {
            root: root.to_owned(),
            overwrite,
            digests,
        }
    }

    /// Where a name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        path_under(&self.root, name)
    }
}

impl Destination for Folder {
    fn placer(&self) -> Box<dyn Placer + '_> {
        Box::new(InFolder {
            folder: self,
            batch: Batch::new(),
            unnamed: BTreeMap::new(),
        })
    }

    fn spool(&self) -> &Path {
        &self.root
    }

    fn take_away(&self, registry: &dyn Registry, names: &[String]) -> Result<(), DatabaseError> {
        evict::take_away(self, registry, names).map(drop)
    }
}

/// Files of one thread that have no name yet.
struct InFolder<'a> {
    folder: &'a Folder,
    batch: Batch,
    unnamed: BTreeMap<PathBuf, (usize, Option<String>)>,
}

impl Placer for InFolder<'_> {
    fn place(&mut self, number: usize, item: &Item, seal: &mut SealInto<'_>) -> Result<Sealed, InstanceError> {
        let path = self.folder.path(&item.target.name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(InstanceError::Folder)?;
        }
        let output = |error| InstanceError::Seal(SealError::Output(error));
        let file = NewFile::at(&path, self.folder.overwrite).map_err(output)?;
        let (sealed, sha256) = self.seal(&mut file.file(), seal)?;
        item.expected.check(sealed.sealed.file_bytes, sha256.as_deref())?;
        file.finish_in(&self.batch);
        self.unnamed.insert(path, (number, sha256));
        Ok(sealed)
    }

    fn finish(&mut self) -> Vec<(usize, Result<Option<String>, InstanceError>)> {
        let mut done = Vec::new();
        for (output, result) in self.batch.commit() {
            let Output::File(path) = output else { continue };
            let Some((number, sha256)) = self.unnamed.remove(&path) else {
                continue;
            };
            let named = result.map_err(|error| InstanceError::Seal(SealError::Output(error)));
            done.push((number, named.map(|()| sha256)));
        }
        done
    }
}

impl InFolder<'_> {
    fn seal(&self, file: &mut &File, seal: &mut SealInto<'_>) -> Result<(Sealed, Option<String>), InstanceError> {
        if !self.folder.digests {
            return Ok((seal(file)?, None));
        }
        let mut hashing = Hashing::new(Some(file));
        let sealed = seal(&mut hashing)?;
        Ok((sealed, Some(hashing.finish())))
    }
}

/// Nowhere: only size and digest are taken.
pub struct Nowhere {
    spool: PathBuf,
}

impl Nowhere {
    /// With the usual folder for what has to wait.
    pub fn new() -> Self {
        Self {
            spool: std::env::temp_dir(),
        }
    }
}

impl Default for Nowhere {
    fn default() -> Self {
        Self::new()
    }
}

impl Destination for Nowhere {
    fn placer(&self) -> Box<dyn Placer + '_> {
        Box::new(Digests(Vec::new()))
    }

    fn spool(&self) -> &Path {
        &self.spool
    }

    fn take_away(&self, _: &dyn Registry, _: &[String]) -> Result<(), DatabaseError> {
        Ok(())
    }
}

struct Digests(Vec<(usize, Result<Option<String>, InstanceError>)>);

impl Placer for Digests {
    fn place(&mut self, number: usize, item: &Item, seal: &mut SealInto<'_>) -> Result<Sealed, InstanceError> {
        let mut hashing = Hashing::new(None);
        let sealed = seal(&mut hashing)?;
        let sha256 = hashing.finish();
        item.expected.check(sealed.sealed.file_bytes, Some(&sha256))?;
        self.0.push((number, Ok(Some(sha256))));
        Ok(sealed)
    }

    fn finish(&mut self) -> Vec<(usize, Result<Option<String>, InstanceError>)> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_as_much_as_is_known() {
        let expected = |size, sha256: Option<&str>| Expected {
            size,
            sha256: sha256.map(str::to_owned),
        };
        assert!(expected(None, None).check(1, Some("a")).is_ok());
        assert!(expected(Some(1), Some("a")).check(1, Some("a")).is_ok());
        assert!(expected(Some(1), Some("a")).check(1, None).is_ok());
        assert!(expected(Some(2), None).check(1, Some("a")).is_err());
        assert!(expected(None, Some("b")).check(1, Some("a")).is_err());
    }

    #[test]
    fn digests_are_of_what_went_on() {
        let mut out = Vec::new();
        let mut hashing = Hashing::new(Some(&mut out));
        hashing.write_all(b"ab").unwrap();
        hashing.write_all(b"c").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hashing.finish(), abc);
        assert_eq!(out, b"abc");
        let mut nowhere = Hashing::new(None);
        nowhere.write_all(b"abc").unwrap();
        assert_eq!(nowhere.finish(), abc);
    }
}
