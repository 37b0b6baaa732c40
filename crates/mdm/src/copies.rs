//! Whether a file of this machine is a copy of what an entry stands for. Whoever may write a name can give it any
//! `file:` replica, and whoever removes replicas does it with rights of their own: a file that is none stays.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use hydra_core::sealed::Header;
use mdm_catalog::wire::Entry;
use storage_url::Adler32;

/// Enough of a sealed file to know its key.
const START_BYTES: u64 = 1024;
/// What is read at once for a checksum.
const PIECE_BYTES: usize = 256 * 1024;

/// What makes a file a copy.
pub(crate) struct Told<'a> {
    /// Keys that it may be sealed under; with none, size and checksum count.
    pub(crate) keys: BTreeSet<&'a str>,
    /// Its size, if that is known.
    pub(crate) size: Option<u64>,
    /// Its Adler-32 in hexadecimal digits, if that is known.
    pub(crate) adler32: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// What the catalogue tells of an entry.
    pub(crate) fn of(entry: &'a Entry) -> Self {
        Self {
            keys: entry.key_id.as_deref().into_iter().collect(),
            size: entry.size,
            adler32: entry.adler32.as_deref(),
        }
    }
}

/// Whether what is there is a copy, or nothing is there. What cannot be looked at is none.
pub(crate) fn is_copy(path: &Path, told: &Told<'_>) -> bool {
    match std::fs::symlink_metadata(path) {
        Err(error) => return error.kind() == ErrorKind::NotFound,
        // links and devices are nobody's copies
        Ok(metadata) if !metadata.is_file() => return false,
        Ok(metadata) if told.keys.is_empty() => {
            return told.size == Some(metadata.len())
                && told
                    .adler32
                    .is_none_or(|told| adler32_of(path).is_ok_and(|own| own.eq_ignore_ascii_case(told)));
        }
        Ok(_) => {}
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    let header = read.ok().and_then(|_| Header::decode(&start).ok());
    header
        .and_then(|header| header.key_id)
        .is_some_and(|id| told.keys.contains(id.as_str()))
}

fn adler32_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Adler32::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(format!("{:08x}", sum.value())),
            read => sum.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copies_are_copies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "abc").unwrap();
        let told = |keys: &[&'static str], size, adler32| Told {
            keys: keys.iter().copied().collect(),
            size,
            adler32,
        };
        // Adler-32 of `abc` (RFC 1950, 9)
        assert!(is_copy(&path, &told(&[], Some(3), Some("024d0127"))));
        assert!(is_copy(&path, &told(&[], Some(3), None)));
        assert!(!is_copy(&path, &told(&[], Some(3), Some("024d0128"))));
        assert!(!is_copy(&path, &told(&[], Some(4), None)));
        assert!(!is_copy(&path, &told(&[], None, None)), "nothing is known of it");
        assert!(!is_copy(&path, &told(&["/myvo/key"], Some(3), None)), "no sealed file");
        assert!(is_copy(&folder.path().join("none"), &told(&["/myvo/key"], None, None)));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!is_copy(&link, &told(&[], Some(3), None)));
        assert!(!is_copy(folder.path(), &told(&["/myvo/key"], None, None)));
    }
}
