//! A service's own key: 32 raw bytes in a file that nobody but its owner can read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hydra_core::secret::Key;
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("`{}` {reason}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    reason: String,
    exposed: bool,
}

impl KeyFileError {
    /// What to try.
    pub fn advice(&self) -> Option<String> {
        self.exposed.then(|| format!("chmod 600 {}", self.path.display()))
    }
}

/// Reads it.
///
/// # Errors
/// [`KeyFileError`]
pub fn read(path: &Path) -> Result<Key, KeyFileError> {
    let refuse = |reason: String, exposed| KeyFileError {
        path: path.to_owned(),
        reason,
        exposed,
    };
    let unread = |error: io::Error| refuse(format!("cannot be read: {error}"), false);
    let mut file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.mode();
    if mode & 0o077 != 0 {
        return Err(refuse("can be read by others".into(), true));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    Read::by_ref(&mut file)
        .take(33)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    Key::from_slice(&bytes).ok_or_else(|| refuse("is not 32 bytes long".into(), false))
}
