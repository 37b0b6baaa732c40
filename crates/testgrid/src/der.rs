//! A writer of DER (X.690), as far as certificates need it. Everything is small: elements are built inside out.

use jiff::Timestamp;

/// One element.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        out.push(short);
    } else {
        let digits = length.to_be_bytes();
        let skip = digits.iter().take_while(|&&digit| digit == 0).count();
        out.push(0x80 | digits[skip..].len() as u8);
        out.extend(&digits[skip..]);
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x31, &parts.concat())
}

/// An INTEGER from unsigned big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = &bytes[zeros..];
    match digits.first() {
        None => element(2, &[0]),
        Some(first) if first & 0x80 != 0 => element(2, &[&[0], digits].concat()),
        Some(_) => element(2, digits),
    }
}

pub(crate) fn number(value: u64) -> Vec<u8> {
    integer(&value.to_be_bytes())
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    element(4, content)
}

/// A BIT STRING of whole bytes.
pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    element(3, &[&[0], content].concat())
}

/// A BIT STRING of named bits in one byte, without the zeros at its end.
pub(crate) fn flags(byte: u8) -> Vec<u8> {
    element(3, &[if byte == 0 { 0 } else { byte.trailing_zeros() as u8 }, byte])
}

pub(crate) const TRUE: &[u8] = &[1, 1, 0xff];

/// An OBJECT IDENTIFIER from dots. The arguments are constants or come from tests: what is no number counts as 0.
pub(crate) fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted.split('.').map(|arc| arc.parse().unwrap_or(0)).collect();
    let first = arcs.first().copied().unwrap_or(0) * 40 + arcs.get(1).copied().unwrap_or(0);
    let mut content = Vec::new();
    for arc in std::iter::once(first).chain(arcs.into_iter().skip(2)) {
        let mut digits = vec![(arc & 0x7f) as u8];
        let mut rest = arc >> 7;
        while rest > 0 {
            digits.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        content.extend(digits.into_iter().rev());
    }
    element(6, &content)
}

/// A date: UTCTime up to 2049, GeneralizedTime after.
pub(crate) fn time(seconds: i64) -> Vec<u8> {
    let moment = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    if (-631_152_000..2_524_608_000).contains(&seconds) {
        element(0x17, moment.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        element(0x18, moment.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

/// A date as GeneralizedTime, in whatever year.
pub(crate) fn generalized_time(seconds: i64) -> Vec<u8> {
    let moment = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    element(0x18, moment.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_have_their_shortest_form() {
        assert_eq!(element(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(number(0), [2, 1, 0]);
        assert_eq!(number(128), [2, 2, 0, 128]);
        assert_eq!(flags(0x80), [3, 2, 7, 0x80]);
        assert_eq!(flags(0x06), [3, 2, 1, 0x06]);
        assert_eq!(oid("1.3.6.1.4.1.3536"), [6, 7, 0x2b, 6, 1, 4, 1, 0x9b, 0x50]);
    }

    #[test]
    fn dates_change_their_form_in_2050() {
        assert_eq!(time(0), element(0x17, b"700101000000Z"));
        assert_eq!(time(2_524_608_000), element(0x18, b"20500101000000Z"));
    }
}
