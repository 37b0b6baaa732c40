//! Logical file names: the paths of the catalogue, `/myvo/home/x`, and the forms that users type for them
//! (`docs/src/catalogue.md`).

use std::fmt;
use std::str::FromStr;

use hydra_core::key_id::canonical;
use serde::{Deserialize, Serialize};

/// Why a text is no logical file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or over 1024 bytes.
    #[error(
        "a logical file name has 1 to {} bytes of UTF-8, this one has {bytes}",
        LogicalName::MAX_BYTES
    )]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// It does not begin with a slash.
    #[error("a logical file name begins with `/` or `lfn:/`")]
    Relative,
    /// A control character (Unicode Cc) in it.
    #[error("a logical file name has no control characters")]
    Text,
    /// `.`, `..`, an empty segment, or one over 255 bytes.
    #[error("a logical file name has no `.`, `..`, empty or over-long segment between its slashes")]
    Segment,
}

/// A logical file name in its canonical form: `/`, or segments of 1 to 255 bytes each behind a slash, 1024 bytes in
/// all, without control characters, `.` and `..`. Compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "/myvo/home/secret")]
pub struct LogicalName(String);

impl LogicalName {
    /// The longest, in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// The longest segment, in bytes.
    pub const MAX_SEGMENT_BYTES: usize = 255;

    /// The root.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Checks a canonical name, as programs send it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if !(1..=Self::MAX_BYTES).contains(&text.len()) {
            return Err(NameError::Length { bytes: text.len() });
        }
        let relative = text.strip_prefix('/').ok_or(NameError::Relative)?;
        if text.chars().any(char::is_control) {
            return Err(NameError::Text);
        }
        let is_wrong = |segment: &str| matches!(segment, "" | "." | "..") || segment.len() > Self::MAX_SEGMENT_BYTES;
        if !relative.is_empty() && relative.split('/').any(is_wrong) {
            return Err(NameError::Segment);
        }
        Ok(Self(text))
    }

    /// Reads what a user typed: `lfn:/x`, `lfn://x` and `/x` are one name; slashes at the end do not count.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn typed(text: &str) -> Result<Self, NameError> {
        let name = canonical(text);
        let trimmed = name.trim_end_matches('/');
        Self::new(if trimmed.is_empty() && name.starts_with('/') {
            "/"
        } else {
            trimmed
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The directory that it lies in; none of the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!self.is_root()).then(|| Self(if parent.is_empty() { "/" } else { parent }.to_owned()))
    }

    /// What stands behind the last slash; empty of the root.
    pub fn last_segment(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The name of that segment in this directory.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn join(&self, segment: &str) -> Result<Self, NameError> {
        let between = if self.is_root() { "" } else { "/" };
        Self::new(format!("{self}{between}{segment}"))
    }
}

impl fmt::Display for LogicalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogicalName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::typed(text)
    }
}

impl TryFrom<String> for LogicalName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<LogicalName> for String {
    fn from(name: LogicalName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_forms_are_one_name() {
        for text in [
            "lfn:/myvo/home/x",
            "lfn://myvo/home/x",
            "LFN:/myvo/home/x",
            "/myvo/home/x",
            "/myvo/home/x/",
        ] {
            assert_eq!(LogicalName::typed(text).unwrap().as_str(), "/myvo/home/x", "{text}");
        }
        assert!(LogicalName::typed("/").unwrap().is_root());
        for text in ["", "myvo/x", "lfn:x", "/a//b", "/a/../b", "/a\nb"] {
            assert!(LogicalName::typed(text).is_err(), "{text:?}");
        }
        assert!(LogicalName::new(format!("/{}", "x".repeat(256))).is_err());
        assert!(LogicalName::new("/x".repeat(513)).is_err());
    }

    #[test]
    fn parents_and_segments() {
        let name = LogicalName::typed("/myvo/home").unwrap();
        assert_eq!(name.parent().unwrap().as_str(), "/myvo");
        assert_eq!(name.parent().unwrap().parent(), Some(LogicalName::root()));
        assert_eq!(LogicalName::root().parent(), None);
        assert_eq!(name.last_segment(), "home");
        assert_eq!(LogicalName::root().join("a").unwrap().as_str(), "/a");
        assert_eq!(name.join("a 'b'").unwrap().as_str(), "/myvo/home/a 'b'");
        assert!(name.join("a/../b").is_err());
    }
}
