//! Adler-32 (RFC 1950): the checksum that storage elements keep. It finds accidents, not attackers; the seal finds
//! both.

/// The largest prime below 2^16.
const MODULUS: u32 = 65_521;
/// So many bytes fit before the sums must be reduced.
const RUN: usize = 5552;

/// A checksum in the making.
#[derive(Debug, Clone, Copy)]
pub struct Adler32 {
    a: u32,
    b: u32,
}

impl Default for Adler32 {
    fn default() -> Self {
        Self { a: 1, b: 0 }
    }
}

impl Adler32 {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        for run in bytes.chunks(RUN) {
            for byte in run {
                self.a += u32::from(*byte);
                self.b += self.a;
            }
            self.a %= MODULUS;
            self.b %= MODULUS;
        }
    }

    /// The checksum of all bytes so far.
    pub fn value(self) -> u32 {
        self.b << 16 | self.a
    }
}

/// Reads eight hex digits, or fewer where a server drops zeros in front.
pub(crate) fn parse(text: &str) -> Option<u32> {
    let text = text.trim();
    let hex = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// The Adler-32 in a header `Digest: adler32=…` (RFC 3230), among others.
pub(crate) fn of_digest(header: &str) -> Option<u32> {
    header.split(',').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case("adler32").then(|| parse(value))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_values_come_out_however_the_bytes_are_cut() {
        let of = |pieces: &[&[u8]]| {
            let mut sum = Adler32::default();
            pieces.iter().for_each(|piece| sum.update(piece));
            sum.value()
        };
        assert_eq!(of(&[]), 1);
        assert_eq!(of(&[b"Wikipedia"]), 0x11e6_0398);
        assert_eq!(of(&[b"Wiki", b"", b"pedia"]), 0x11e6_0398);
        // the sums of the largest bytes must not overflow within a run
        let large = vec![0xff; 3 * RUN + 1];
        assert_eq!(of(&[&large]), slow(&large));
    }

    fn slow(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1_u64, 0_u64), |(a, b), byte| {
            let a = (a + u64::from(*byte)) % 65_521;
            (a, (a + b) % 65_521)
        });
        u32::try_from(b << 16 | a).unwrap_or_default()
    }

    #[test]
    fn digests_of_servers_are_read() {
        assert_eq!(of_digest("adler32=193935e9"), Some(0x1939_35e9));
        assert_eq!(of_digest("md5=abc==, ADLER32=1"), Some(1));
        for nothing in ["", "adler32", "adler32=", "adler32=123456789", "adler32=xy", "crc32=1"] {
            assert_eq!(of_digest(nothing), None, "{nothing}");
        }
    }
}
