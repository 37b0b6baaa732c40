//! A strict reader of DER (X.690): definite, shortest lengths, one-byte tags, no recursion.
//!
//! Certificates are read with it rather than with a general parser because proxies need the bytes as they were signed.

/// Why bytes are not the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DerError(pub(crate) &'static str);

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// One element: its tag, its content, and both with the length between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element, if there is one.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(crate) fn next(&mut self) -> Result<Element<'a>, DerError> {
        let input = self.0;
        let (&tag, rest) = input.split_first().ok_or(DerError("ends too early"))?;
        if tag & 0x1f == 0x1f {
            return Err(DerError("has a tag of many bytes"));
        }
        let (&first, rest) = rest.split_first().ok_or(DerError("ends too early"))?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let (digits, rest) = rest.split_at_checked(count).ok_or(DerError("ends too early"))?;
                let length = digits.iter().fold(0u64, |sum, &digit| sum << 8 | u64::from(digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(DerError("has a length that is not the shortest"));
                }
                (usize::try_from(length).map_err(|_| DerError("ends too early"))?, rest)
            }
            _ => return Err(DerError("has a length that DER does not know")),
        };
        let (content, after) = rest.split_at_checked(length).ok_or(DerError("ends too early"))?;
        self.0 = after;
        let whole = &input[..input.len() - after.len()];
        Ok(Element { tag, content, whole })
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let element = self.next()?;
        if element.tag == tag {
            Ok(element)
        } else {
            Err(DerError("has another element than expected"))
        }
    }

    /// The next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, DerError> {
        if self.peek() == Some(tag) {
            self.next().map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn sequence(&mut self) -> Result<Reader<'a>, DerError> {
        self.expect(SEQUENCE).map(|element| Reader(element.content))
    }

    pub(crate) fn end(&self) -> Result<(), DerError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DerError("has something after its end"))
        }
    }

    /// A BOOLEAN that is TRUE where it is present: DER leaves out the default FALSE.
    pub(crate) fn optional_true(&mut self) -> Result<bool, DerError> {
        match self.optional(BOOLEAN)? {
            None => Ok(false),
            Some(element) if element.content == [0xff] => Ok(true),
            Some(_) => Err(DerError("has a boolean that DER does not know")),
        }
    }
}

/// The one element that `bytes` consist of.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<Element<'_>, DerError> {
    let mut reader = Reader::new(bytes);
    let element = reader.expect(tag)?;
    reader.end()?;
    Ok(element)
}

/// One of the extensions of a certificate (RFC 5280 4.1) or of an attribute certificate (RFC 5755 4.3).
#[derive(Debug)]
pub(crate) struct Extension<'a> {
    /// Its kind, in dots.
    pub(crate) oid: String,
    pub(crate) critical: bool,
    /// What its OCTET STRING holds.
    pub(crate) value: &'a [u8],
}

/// The extensions of the SEQUENCE with this content: none may come twice, and there is a bound to their number.
pub(crate) fn extensions(list: &[u8]) -> Result<Vec<Extension<'_>>, DerError> {
    const MOST: usize = 64;
    let mut found: Vec<Extension<'_>> = Vec::new();
    let mut reader = Reader::new(list);
    while !reader.is_empty() {
        let mut extension = reader.sequence()?;
        let oid = dotted(extension.expect(OID)?.content)?;
        let critical = extension.optional_true()?;
        let value = extension.expect(OCTET_STRING)?.content;
        extension.end()?;
        if found.iter().any(|other| other.oid == oid) {
            return Err(DerError("has an extension twice"));
        }
        if found.len() == MOST {
            return Err(DerError("has too many extensions"));
        }
        found.push(Extension { oid, critical, value });
    }
    Ok(found)
}

/// A small INTEGER that is not negative.
pub(crate) fn small_integer(content: &[u8]) -> Result<u32, DerError> {
    match content {
        [] => Err(DerError("has an empty integer")),
        [first, ..] if first & 0x80 != 0 => Err(DerError("has a negative integer")),
        [0, second, ..] if second & 0x80 == 0 => Err(DerError("has an integer that is not the shortest")),
        _ if content.len() > 5 || (content.len() == 5 && content[0] != 0) => Err(DerError("has too large an integer")),
        _ => Ok(content.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte))),
    }
}

/// The bytes of a BIT STRING that has whole bytes only.
pub(crate) fn whole_bits(content: &[u8]) -> Result<&[u8], DerError> {
    match content.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err(DerError("has a bit string of no whole bytes")),
    }
}

/// An OBJECT IDENTIFIER in dots.
pub(crate) fn dotted(content: &[u8]) -> Result<String, DerError> {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0u64;
    let mut open = false;
    for &byte in content {
        if !open && byte == 0x80 {
            return Err(DerError("has an object identifier that is not the shortest"));
        }
        if arc >> 57 != 0 {
            return Err(DerError("has too large an object identifier"));
        }
        arc = arc << 7 | u64::from(byte & 0x7f);
        open = byte & 0x80 != 0;
        if !open {
            arcs.push(arc);
            arc = 0;
        }
    }
    let Some((&first, rest)) = arcs.split_first().filter(|_| !open) else {
        return Err(DerError("has an object identifier that ends too early"));
    };
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for arc in rest {
        text.push('.');
        text.push_str(&arc.to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_come_out_in_dots() {
        assert_eq!(dotted(&[0x55, 0x04, 0x03]).unwrap(), "2.5.4.3");
        assert_eq!(
            dotted(&[0x2b, 0x06, 1, 4, 1, 0x9b, 0x50, 1, 1, 1, 9]).unwrap(),
            "1.3.6.1.4.1.3536.1.1.1.9"
        );
        assert_eq!(dotted(&[0x88, 0x37, 3]).unwrap(), "2.999.3");
        assert!(dotted(&[]).is_err());
        assert!(dotted(&[0x55, 0x84]).is_err());
        assert!(dotted(&[0x55, 0x80, 0x01]).is_err());
        assert!(dotted(&[0xff; 12]).is_err());
    }

    #[test]
    fn lengths_have_one_form_only() {
        let read = |bytes: &[u8]| Reader::new(bytes).next().map(|element| element.content.len());
        assert_eq!(read(&[4, 2, 9, 9]), Ok(2));
        for bad in [
            &[4u8][..],
            &[4, 2, 9],
            &[4, 0x81, 2, 9, 9],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 0, 0],
            &[4, 0x85, 0, 0, 0, 0, 1],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x1f, 1, 0],
        ] {
            assert!(read(bad).is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn integers_have_one_form_only() {
        assert_eq!(small_integer(&[0]), Ok(0));
        assert_eq!(small_integer(&[0, 0x80]), Ok(128));
        assert_eq!(small_integer(&[0, 0xff, 0xff, 0xff, 0xff]), Ok(u32::MAX));
        for bad in [&[][..], &[0xff], &[0, 1], &[1, 0, 0, 0, 0]] {
            assert!(small_integer(bad).is_err(), "{bad:x?}");
        }
    }
}
