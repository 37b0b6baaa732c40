//! Configuration files of programs: read and checked as a whole, every fault told at once.

use std::path::{Path, PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is wrong with it, all of it.
    #[error("`{}`: {}", path.display(), faults.join("; "))]
    Faults {
        /// Which.
        path: PathBuf,
        /// A sentence each.
        faults: Vec<String>,
    },
}

/// Reads a file and has `parse` check its text; relative paths in it start from its folder, which `parse` is given.
///
/// # Errors
/// [`ConfigError`], with every fault that `parse` found.
pub fn read<T>(path: &Path, parse: impl FnOnce(&str, &Path) -> Result<T, Vec<String>>) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&text, folder).map_err(|faults| ConfigError::Faults {
        path: path.to_owned(),
        faults,
    })
}
