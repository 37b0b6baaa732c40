//! Configuration files of programs: read and checked as a whole, every fault told at once.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

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

/// Reads the tables of a file's `text`. Keys that `T` does not know are told to `faults`, by their whole path.
///
/// # Errors
/// One fault, on one line, where the text is not TOML or a value has another type.
pub fn tables<T: DeserializeOwned>(text: &str, faults: &mut Vec<String>) -> Result<T, Vec<String>> {
    let one_line = |error: toml::de::Error| vec![error.to_string().trim_end().replace('\n', " ")];
    let reader = toml::Deserializer::parse(text).map_err(one_line)?;
    // a table that may be missing has a `?` in the path
    let mut unknown = |key: serde_ignored::Path<'_>| {
        faults.push(format!("unknown key `{}`", key.to_string().replace(".?", "")));
    };
    serde_ignored::deserialize(reader, &mut unknown).map_err(one_line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        port: Option<u16>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        tls: Option<Inner>,
        #[serde(default)]
        more: BTreeMap<String, u8>,
    }

    #[test]
    fn unknown_keys_are_told_by_their_paths_and_bad_text_on_one_line() {
        let mut faults = Vec::new();
        let read: Outer = tables("[tls]\nport = 1\nports = 2\n[more]\na = 1\n[none]\n", &mut faults).unwrap();
        assert_eq!((read.tls.unwrap().port, read.more["a"]), (Some(1), 1));
        faults.sort();
        assert_eq!(faults, ["unknown key `none`", "unknown key `tls.ports`"]);
        for bad in ["[tls", "[tls]\nport = \"x\"", "tls = 1"] {
            let told = tables::<Outer>(bad, &mut Vec::new()).unwrap_err();
            assert!(told.len() == 1 && !told[0].contains('\n'), "{told:?}");
        }
    }
}
