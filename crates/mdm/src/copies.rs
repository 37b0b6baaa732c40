//! Whether a file is a copy of what an entry stands for. Whoever may write a name can give it any replica, and whoever
//! removes replicas does it with rights of their own: a file that is none stays.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use hydra_core::sealed::Header;
use mdm_catalog::wire::Entry;
use storage_url::{Adler32, Storage, StorageError, StorageUrl};

/// Enough of a sealed file to know its key.
const START_BYTES: usize = 1024;
/// How long a storage element has to show a file's first bytes.
const LOOK: Duration = Duration::from_secs(30);
/// What is read at once for a checksum.
const PIECE_BYTES: usize = 256 * 1024;

/// What there is where a copy is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A file that is sealed under the key of this name.
    Sealed(String),
    /// Something else.
    Other,
    /// It could not be looked at, and why.
    Unread(String),
}

impl Found {
    fn of_start(start: &[u8]) -> Self {
        let key_id = Header::decode(start).ok().and_then(|header| header.key_id);
        key_id.map_or(Self::Other, |key_id| Self::Sealed(key_id.to_string()))
    }

    fn of_file(path: &Path) -> Self {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::Nothing,
            Err(error) => return Self::Unread(error.to_string()),
            // links and devices are nobody's copies
            Ok(metadata) if !metadata.is_file() => return Self::Other,
            Ok(_) => {}
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(START_BYTES as u64).read_to_end(&mut start));
        match read {
            Ok(_) => Self::of_start(&start),
            Err(error) => Self::Unread(error.to_string()),
        }
    }
}

/// Looks at the first bytes of what is at a URL, which a storage element may have to bring from an archive first.
pub(crate) async fn look(storage: &Storage, url: &StorageUrl) -> Found {
    if let Some(path) = url.local_path() {
        return Found::of_file(&path);
    }
    let start = async {
        storage.stat(url).await?;
        let mut download = storage.get(url, 0).await?;
        let mut start = Vec::new();
        while start.len() < START_BYTES {
            let Some(bytes) = download.chunk().await? else { break };
            start.extend_from_slice(&bytes);
        }
        Ok::<_, StorageError>(start)
    };
    match tokio::time::timeout(LOOK, start).await {
        Ok(Ok(start)) => Found::of_start(&start[..start.len().min(START_BYTES)]),
        Ok(Err(StorageError::NotFound { .. })) => Found::Nothing,
        Ok(Err(error)) => Found::Unread(error.to_string()),
        Err(_) => Found::Unread(format!("nothing came in {} s", LOOK.as_secs())),
    }
}

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

    fn is_of(&self, found: &Found) -> bool {
        match found {
            Found::Nothing => true,
            Found::Sealed(key_id) => self.keys.contains(key_id.as_str()),
            Found::Other | Found::Unread(_) => false,
        }
    }
}

/// Whether what is at a URL is a copy, or nothing is there. What cannot be looked at is none. Without a key a file of
/// another machine is known by its size alone.
pub(crate) async fn is_copy_at(storage: &Storage, url: &StorageUrl, told: &Told<'_>) -> bool {
    if let Some(path) = url.local_path() {
        return is_copy(&path, told);
    }
    if told.keys.is_empty() {
        let stat = tokio::time::timeout(LOOK, storage.stat(url)).await;
        return match stat {
            Ok(Ok(stat)) => told.size.is_some() && stat.bytes == told.size,
            Ok(Err(StorageError::NotFound { .. })) => true,
            _ => false,
        };
    }
    told.is_of(&look(storage, url).await)
}

fn is_copy(path: &Path, told: &Told<'_>) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && told.keys.is_empty() => {
            let is_same = |told: &str| adler32_of(path).is_ok_and(|own| own.eq_ignore_ascii_case(told));
            told.size == Some(metadata.len()) && told.adler32.is_none_or(is_same)
        }
        _ => told.is_of(&Found::of_file(path)),
    }
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
