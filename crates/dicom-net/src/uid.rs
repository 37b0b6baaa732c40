//! Unique identifiers (PS3.5, chapter 9) and application entity titles (PS3.5, 6.2), checked where they come in.

use std::fmt;
use std::str::FromStr;

/// The longest unique identifier.
const LONGEST_UID: usize = 64;
/// The longest application entity title.
pub(crate) const LONGEST_TITLE: usize = 16;

/// A unique identifier: digits in components parted by dots, so that it is safe in a path, a query and a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Box<str>);

/// Why a text is no unique identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UidError {
    /// Nothing, or more than 64 characters.
    #[error("a unique identifier has 1 to {LONGEST_UID} characters, not {0}")]
    Length(usize),
    /// Something else than digits and dots, or a component without digits.
    #[error("a unique identifier consists of numbers parted by dots")]
    Characters,
}

impl Uid {
    /// Reads a unique identifier. Leading zeros in a component are let through: PACS are full of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, UidError> {
        if text.is_empty() || text.len() > LONGEST_UID {
            return Err(UidError::Length(text.len()));
        }
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if text.split('.').all(is_number) {
            Ok(Self(text.into()))
        } else {
            Err(UidError::Characters)
        }
    }

    /// Reads one as it stands in a data set: padded to an even length with NUL, by some with a blank.
    ///
    /// # Errors
    /// As for [`Uid::new`].
    pub fn from_value(bytes: &[u8]) -> Result<Self, UidError> {
        let text = std::str::from_utf8(bytes).map_err(|_| UidError::Characters)?;
        Self::new(text.trim_end_matches(['\0', ' ']))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        Self::new(text)
    }
}

/// The title of an application entity: up to 16 characters without a meaning for anything else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AeTitle(Box<str>);

/// Why a text is no application entity title.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an application entity title has 1 to {LONGEST_TITLE} printable ASCII characters, no `\\` among them")]
pub struct TitleError;

impl AeTitle {
    /// Reads a title; blanks around it have no meaning and go.
    ///
    /// # Errors
    /// Where it is none.
    pub fn new(text: &str) -> Result<Self, TitleError> {
        let text = text.trim_matches(' ');
        let fits = !text.is_empty() && text.len() <= LONGEST_TITLE;
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'\\';
        if fits && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(TitleError)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AeTitle {
    type Err = TitleError;

    fn from_str(text: &str) -> Result<Self, TitleError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_numbers_and_dots_and_no_path() {
        for good in ["1", "1.2.840.10008.1.2", "2.25.0", "1.02.3"] {
            assert_eq!(Uid::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "1.", ".1", "1..2", "1.a", "1/2", "1 ", "1\\2"] {
            assert!(Uid::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Uid::new(&"1".repeat(65)), Err(UidError::Length(65)));
        assert_eq!(Uid::from_value(b"1.2\0").unwrap().as_str(), "1.2");
        assert_eq!(Uid::from_value(b"1.2 ").unwrap().as_str(), "1.2");
        assert!(Uid::from_value(b"1.\xff").is_err());
    }

    #[test]
    fn titles_lose_their_padding_and_nothing_else() {
        assert_eq!(AeTitle::new("  PACS ONE ").unwrap().as_str(), "PACS ONE");
        for bad in ["", "   ", "SEVENTEEN LETTERS", "A\\B", "A\nB", "PÄCS"] {
            assert!(AeTitle::new(bad).is_err(), "{bad:?}");
        }
    }
}
