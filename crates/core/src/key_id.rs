//! Key ids: the names that users give to keys. Opaque, case-sensitive UTF-8, compared byte for byte, never normalised.
//!
//! Two rules stand apart: what a store accepts ([`KeyId::new`], [`KeyId::imported`]) and the canonical form that
//! clients make of the URLs of grid storage ([`canonical`]). See `docs/src/formats/key-id.md`.

use std::fmt;

/// Why a text is no key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyIdError {
    /// Empty, or over 400 bytes.
    #[error("a key id has 1 to {} bytes of UTF-8, this one has {bytes}", KeyId::MAX_BYTES)]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// A control character (Unicode Cc) in it, or not UTF-8.
    #[error("a key id is UTF-8 without control characters")]
    Text,
    /// `.`, `..` or an empty segment in it.
    #[error("a key id has no `.`, `..` or empty segment between its slashes")]
    Segment,
}

/// A key id that a store accepts: 1 to 400 bytes, no control characters, no `.`, `..` or empty segments.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The longest key id, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 400;

    /// Checks a key id that is to be registered.
    ///
    /// # Errors
    /// The first rule that it breaks: length, text, segments.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyIdError> {
        let id = Self::imported(text)?;
        let relative = id.0.strip_prefix('/').unwrap_or(&id.0);
        if relative.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(KeyIdError::Segment);
        }
        Ok(id)
    }

    /// Checks a key id that came from elsewhere (an import, a file's header) and keeps its bytes: segments are free.
    ///
    /// # Errors
    /// Length or text.
    pub fn imported(text: impl Into<String>) -> Result<Self, KeyIdError> {
        let text = text.into();
        if !(1..=Self::MAX_BYTES).contains(&text.len()) {
            return Err(KeyIdError::Length { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(KeyIdError::Text);
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the last slash; the whole id where there is none.
    pub fn last_component(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "protocol")]
impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Reads by the looser rule of [`KeyId::imported`]: whoever creates checks [`KeyId::new`].
#[cfg(feature = "protocol")]
impl<'de> serde::Deserialize<'de> for KeyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::imported(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The canonical form of what a user typed: the path inside `lfn:`, `srm:` and `root:` URLs, `guid:` in lower case.
///
/// Whatever has no such form stays as it is. Nothing is decoded or resolved: the rule for key ids refuses the rest.
pub fn canonical(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once(':') else {
        return text.to_owned();
    };
    let path = match scheme.to_ascii_lowercase().as_str() {
        "guid" if !rest.is_empty() => return format!("guid:{}", rest.to_ascii_lowercase()),
        "lfn" => rooted(rest),
        "srm" => srm_path(rest),
        "root" => root_path(rest),
        _ => None,
    };
    path.unwrap_or_else(|| text.to_owned())
}

/// Any number of slashes at the start makes one; what has none, or nothing behind them, has no canonical form.
fn rooted(path: &str) -> Option<String> {
    let trimmed = path.trim_start_matches('/');
    (trimmed.len() < path.len() && !trimmed.is_empty()).then(|| format!("/{trimmed}"))
}

/// `//host[:port]/…?SFN=/path` or `//host[:port]/path`.
fn srm_path(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("//")?;
    match rest.split_once('?') {
        Some((_, query)) => rooted(query.strip_prefix("SFN=")?),
        None => {
            let (host, path) = rest.split_at(rest.find('/')?);
            (!host.is_empty()).then(|| rooted(path)).flatten()
        }
    }
}

/// `//host[:port]//path[?opaque]`.
fn root_path(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("//")?;
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let (host, path) = rest.split_at(rest.find('/')?);
    (!host.is_empty() && path.starts_with("//"))
        .then(|| rooted(path))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_component_is_behind_the_last_slash() {
        assert_eq!(KeyId::new("/myvo/home/secret").unwrap().last_component(), "secret");
        assert_eq!(KeyId::new("secret").unwrap().last_component(), "secret");
    }

    #[test]
    fn canonical_forms_of_nothing_stay() {
        for text in [
            "lfn:",
            "lfn:/",
            "lfn:///",
            "srm://",
            "srm://h",
            "srm:///p",
            "root://h",
            "root://h/",
            "root://h//",
            "guid:",
            ":",
            "",
        ] {
            assert_eq!(canonical(text), text);
        }
    }
}
