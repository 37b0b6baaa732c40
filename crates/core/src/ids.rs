//! The small identifiers of the key protocol: registration ids, change ids, check values, store ids.
//!
//! On the wire and on disk they are lower-case hex (store ids: text). None of them is secret.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not lower-case hex of the right length.
    #[error("{kind} must be {digits} lower-case hex digits")]
    Hex {
        /// What the text should have been.
        kind: &'static str,
        /// How many digits it has.
        digits: usize,
    },
    /// Not a store id.
    #[error("a store id must be 1 to 100 printable ASCII characters without blanks")]
    StoreId,
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $kind:literal) => {
        $(#[$doc])*
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Its length in bytes.
            pub const LENGTH: usize = $length;

            /// Draws one from the operating system's random numbers.
            ///
            /// # Errors
            /// [`IdError::Random`] where the system gives none.
            pub fn random() -> Result<Self, IdError> {
                let mut bytes = [0; $length];
                getrandom::fill(&mut bytes).map_err(|_| IdError::Random)?;
                Ok(Self(bytes))
            }

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or(IdError::Hex { kind: $kind, digits: 2 * $length })
            }
        }

        #[cfg(feature = "protocol")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "protocol")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// One key under one key id: 16 random bytes drawn by the client that registers (`docs/src/formats.md`).
    RegistrationId, 16, "a registration id"
);
hex_id!(
    /// One change of a permission record: 16 random bytes drawn by whoever made the change.
    ChangeId, 16, "a change id"
);
hex_id!(
    /// HMAC-SHA-256 that proves what a sharing joins to; new for every sharing.
    CheckValue, 32, "a check value"
);

impl RegistrationId {
    /// The registration id of files sealed under a key file: all zero.
    pub const ZERO: Self = Self([0; 16]);
}

/// What a store calls itself, for ever: set once by `hydra-keystore init`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(String);

impl StoreId {
    /// The longest store id, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(IdError::StoreId)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "protocol")]
impl serde::Serialize for StoreId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "protocol")]
impl<'de> serde::Deserialize<'de> for StoreId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_are_lower_case_and_of_one_length() {
        let id = RegistrationId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "00",
            "A478C320E060BD896E11E69DB3929AA5",
            "a478c320e060bd896e11e69db3929aa",
            "zz78c320e060bd896e11e69db3929aa5",
        ] {
            assert!(bad.parse::<RegistrationId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn store_ids_are_printable_without_blanks() {
        assert!("ks-a.example.net".parse::<StoreId>().is_ok());
        assert!("x".repeat(100).parse::<StoreId>().is_ok());
        for bad in [
            String::new(),
            "x".repeat(101),
            "a b".into(),
            "a\n".into(),
            "ä".into(),
            "\u{7f}".into(),
        ] {
            assert!(bad.parse::<StoreId>().is_err(), "{bad}");
        }
    }
}
