//! Transfer syntaxes (PS3.5, annex A): how the data set is written, and what its pixels are.

use crate::comments::Format;
use crate::element::Coding;

/// What the value of the pixel element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pixels {
    /// As they are, in one value with a length.
    Native,
    /// In fragments that have no room for words.
    Plain,
    /// Code streams that may have comments.
    Stream(Format),
    /// Video, which is not looked into.
    Video,
}

/// A transfer syntax that can be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) uid: String,
    pub(crate) coding: Coding,
    pub(crate) deflated: bool,
    pub(crate) pixels: Pixels,
}

impl Syntax {
    /// By its UID; none where it is not known, or its pixels are elsewhere.
    pub(crate) fn of(uid: &str) -> Option<Self> {
        let own = uid.strip_prefix("1.2.840.10008.1.2")?;
        let (coding, deflated, pixels) = match own {
            "" => (Coding::IMPLICIT, false, Pixels::Native),
            ".1" => (Coding::EXPLICIT, false, Pixels::Native),
            ".1.98" | ".5" => (Coding::EXPLICIT, false, Pixels::Plain),
            ".1.99" => (Coding::EXPLICIT, true, Pixels::Native),
            ".2" => (Coding::EXPLICIT_BIG, false, Pixels::Native),
            other => (Coding::EXPLICIT, false, compressed(other)?),
        };
        Some(Self {
            uid: uid.to_owned(),
            coding,
            deflated,
            pixels,
        })
    }
}

fn compressed(own: &str) -> Option<Pixels> {
    let number: u16 = own.strip_prefix(".4.")?.parse().ok()?;
    match number {
        50..=66 | 70 | 80 | 81 => Some(Pixels::Stream(Format::Jpeg)),
        90..=93 | 201..=203 => Some(Pixels::Stream(Format::Jpeg2000)),
        100..=108 => Some(Pixels::Video),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_into_is_not_known() {
        for uid in [
            "",
            "1.2.840.10008.1.2.4.94",
            "1.2.840.10008.1.2.4.110",
            "1.2.840.113619.5.2",
            "1.2.840.10008.1.20",
        ] {
            assert_eq!(Syntax::of(uid), None, "{uid}");
        }
        let jpeg = Syntax::of("1.2.840.10008.1.2.4.50").map(|syntax| syntax.pixels);
        assert_eq!(jpeg, Some(Pixels::Stream(Format::Jpeg)));
        assert!(Syntax::of("1.2.840.10008.1.2.2").is_some_and(|syntax| syntax.coding.big_endian));
    }
}
