//! Secrets in memory: boxed so that moves leave no copies, wiped on drop, without `Debug`, `Clone`, `Serialize` or
//! `==`.

use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretSlice};

use crate::ids::IdError;

/// A 32-byte data key of suite 1.
pub struct Key(SecretBox<[u8; 32]>);

impl Key {
    /// Draws one from the operating system's random numbers.
    ///
    /// # Errors
    /// [`IdError::Random`] where the system gives none.
    pub fn random() -> Result<Self, IdError> {
        Self::fill_with(|bytes| getrandom::fill(bytes).map_err(|_| IdError::Random))
    }

    /// A key that `fill` writes in place, so that it never lies anywhere else.
    ///
    /// # Errors
    /// What `fill` answers.
    pub fn fill_with<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = SecretBox::new(Box::new([0; 32]));
        fill(secret.expose_secret_mut())?;
        Ok(Self(secret))
    }

    /// A copy of `bytes`, which the caller wipes; none where they are not 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| {
            let mut secret = SecretBox::new(Box::new([0; 32]));
            secret.expose_secret_mut().copy_from_slice(bytes);
            Self(secret)
        })
    }

    /// The bytes, for the cryptography at hand.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// Secret bytes of any length: a shared secret, a share, a key of a legacy cipher.
pub struct SecretBytes(SecretSlice<u8>);

impl SecretBytes {
    /// Takes the bytes over. Spare capacity would survive the move into a box, so what has any is copied and wiped.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.len() == bytes.capacity() {
            return Self(SecretSlice::from(bytes));
        }
        let exact = bytes.as_slice().to_vec();
        bytes.zeroize();
        Self(SecretSlice::from(exact))
    }

    /// The bytes, for the cryptography at hand.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// How many there are. A length is not secret.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

static_assertions::assert_not_impl_any!(Key: std::fmt::Debug, Clone, PartialEq);
static_assertions::assert_not_impl_any!(SecretBytes: std::fmt::Debug, Clone, PartialEq);
#[cfg(feature = "protocol")]
static_assertions::assert_not_impl_any!(Key: serde::Serialize);
#[cfg(feature = "protocol")]
static_assertions::assert_not_impl_any!(SecretBytes: serde::Serialize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_32_bytes() {
        assert!(Key::from_slice(&[7; 31]).is_none());
        assert!(Key::from_slice(&[7; 32]).is_some_and(|key| key.expose() == &[7; 32]));
        assert!(Key::random().unwrap().expose() != Key::random().unwrap().expose());
    }

    #[test]
    fn spare_capacity_does_not_matter() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"secret");
        assert_eq!(SecretBytes::new(bytes).expose(), b"secret");
    }
}
