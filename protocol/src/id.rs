//! Identifiers: fixed-length byte strings with hexadecimal text forms (SPEC §3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} lower-case hexadecimal digits")]
pub struct ParseIdError {
    expected: usize,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let refused = ParseIdError { expected: 2 * $len };
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(refused);
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| refused)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier! {
    /// A SHA-256 digest.
    Digest, 32
}
identifier! {
    /// `H(SubjectPublicKeyInfo of the identity key)`: names a provider (SPEC §3).
    ProviderId, 32
}
identifier! {
    /// Names one KEM key (SPEC §3).
    KeyId, 16
}
identifier! {
    /// Names one request; chosen by the client, also the receipt id (SPEC §3, §9.2).
    RequestId, 16
}

impl Digest {
    /// All zeros: stands where there is no previous receipt (SPEC §7.3).
    pub const ZERO: Self = Self([0; 32]);

    /// `H(bytes)`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// `H(parts joined)`.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl KeyId {
    /// `H("fanlight-v1 key id" ‖ suite(2) ‖ KEM public key(65))`, its first 16 bytes (SPEC §3).
    pub fn of(suite: u16, kem_key: &[u8; 65]) -> Self {
        let Digest(digest) = Digest::of_parts(&[b"fanlight-v1 key id", &suite.to_be_bytes(), kem_key]);
        let (head, _) = digest.split_first_chunk().expect("16 <= 32");
        Self(*head)
    }
}

impl ProviderId {
    /// The first 12 hexadecimal digits: enough for a person to tell providers apart, never for a machine.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_strict() {
        let id = KeyId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16)] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
