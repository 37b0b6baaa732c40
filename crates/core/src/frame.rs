//! Length-prefixed framing: what goes under a MAC or into associated data, each field with its length before it.
//!
//! A length is a big-endian u32; a number is framed as four bytes, so `00000004` and its value. Used by the check value
//! and the import id (`docs/src/formats/check-value.md`) and by shares at rest (`docs/src/formats/share-at-rest.md`).

/// Builds a framed message, field by field.
#[derive(Default)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message that begins with `label`, bare: without a length before it.
    pub fn labelled(label: &str) -> Self {
        Self(label.as_bytes().to_vec())
    }

    /// Adds raw bytes with their length before them. Fields are far below 4 GiB by the limits of their types.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Adds a text as UTF-8, with its length before it.
    #[must_use]
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Adds a number as four big-endian bytes, with their length before them.
    #[must_use]
    pub fn number(self, field: u32) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_run_into_each_other() {
        assert_ne!(
            Frame::new().text("ab").text("c").finish(),
            Frame::new().text("a").text("bc").finish()
        );
        assert_eq!(Frame::labelled("x").number(7).finish(), b"x\0\0\0\x04\0\0\0\x07");
    }
}
