//! The project's secret and what is derived from it: UIDs, pseudonyms, date shifts. HMAC-SHA-256 (RFC 2104, FIPS 180-4)
//! with a word for each purpose, so that no two of them say anything about each other.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use zeroize::Zeroizing;

/// Fewer bytes could be guessed.
const MIN_BYTES: usize = 32;

/// Why bytes are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least {MIN_BYTES} bytes, and this one has {bytes}")]
pub struct SecretError {
    /// How many there are.
    pub bytes: usize,
}

/// The project's secret: wiped on drop, without `Debug`, `Clone` or `==`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A copy of `bytes`, which the caller wipes.
    ///
    /// # Errors
    /// Where there are fewer than 32.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < MIN_BYTES {
            return Err(SecretError { bytes: bytes.len() });
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }
}

/// The keyed function of a profile.
pub(crate) struct Keyed(Key);

/// The farthest that dates are moved back, in days.
const MAX_SHIFT: u64 = 3650;

impl Keyed {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self(Key::new(HMAC_SHA256, &secret.0))
    }

    fn of(&self, purpose: &str, value: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"hydra-eds dicom-deid 1 ");
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(value);
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// The UID that stands for another everywhere: 128 bits of the HMAC as a number under 2.25 (PS3.5, B.2).
    pub(crate) fn uid(&self, original: &str) -> String {
        let mut half = [0; 16];
        half.copy_from_slice(&self.of("uid", original.as_bytes())[..16]);
        format!("2.25.{}", u128::from_be_bytes(half))
    }

    /// What stands for a patient's identifier: 80 bits in letters and digits that are hard to mistake.
    pub(crate) fn pseudonym(&self, patient: &str) -> String {
        const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let hash = self.of("patient", patient.as_bytes());
        let mut bits = hash[..10]
            .iter()
            .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let mut text = [0; 16];
        for place in text.iter_mut().rev() {
            *place = LETTERS[(bits & 31) as usize];
            bits >>= 5;
        }
        text.iter().map(|letter| char::from(*letter)).collect()
    }

    /// By how many days all dates of a patient move: 1 to 3650 back, never none, never into the future.
    pub(crate) fn shift_days(&self, patient: &str) -> i64 {
        let hash = self.of("days", patient.as_bytes());
        let drawn = hash[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        -i64::try_from(drawn % MAX_SHIFT + 1).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(byte: u8) -> Keyed {
        Keyed::new(&Secret::new(&[byte; 32]).unwrap())
    }

    #[test]
    fn a_secret_is_long_enough() {
        assert_eq!(Secret::new(&[0; 31]).err(), Some(SecretError { bytes: 31 }));
    }

    #[test]
    fn a_uid_is_valid_and_belongs_to_the_secret() {
        for number in 0..200 {
            let uid = keyed(1).uid(&format!("1.2.{number}"));
            assert!(uid.len() <= 64 && !uid.contains(".0"), "{uid}");
            assert_ne!(uid, keyed(2).uid(&format!("1.2.{number}")));
            assert_eq!(uid, keyed(1).uid(&format!("1.2.{number}")));
        }
    }

    #[test]
    fn dates_always_move() {
        for number in 0..10_000 {
            let days = keyed(3).shift_days(&number.to_string());
            assert!((-3650..=-1).contains(&days), "{days}");
        }
    }

    #[test]
    fn what_is_derived_never_changes() {
        // other values would break the links to everything that was written before
        let keyed = keyed(7);
        assert_eq!(keyed.uid("1.2.3"), UID);
        assert_eq!(
            (keyed.pseudonym("KH-0047").as_str(), keyed.shift_days("KH-0047")),
            (PSEUDONYM, DAYS)
        );
    }

    const UID: &str = "2.25.172766775633358409142157922214805255969";
    const PSEUDONYM: &str = "PVHMA0EZS05XQPTN";
    const DAYS: i64 = -86;
}
