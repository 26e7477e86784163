//! Verifier keys: a public key, the name that it signs under, and what it signs.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, iter, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature as Ed25519Signature;
use ml_dsa::MlDsa44;
use p256::ecdsa;
use p256::ecdsa::signature::Verifier as _;

use crate::hash::sha256;

/// Bytes of the longest key name.
const MAX_NAME_LEN: usize = 255;

/// Bytes of the longest key in a vkey, in base64: the type and an ML-DSA-44 key are 1,313 bytes.
pub(super) const MAX_KEY_TEXT_LEN: usize = 2048;

/// The `SubjectPublicKeyInfo` of a P-256 key up to its uncompressed point of 65 bytes (RFC 5480 §2).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What a key signs, and how: the type byte of its vkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// 0x01: Ed25519 over the text. The public key is 32 bytes.
    Ed25519,
    /// 0x02: ECDSA with P-256 over SHA-256 of the text, in ASN.1. The public key is a DER `SubjectPublicKeyInfo` of 91
    /// bytes with an uncompressed point. Only verified, never made.
    EcdsaP256,
    /// 0x04: timestamped Ed25519 cosignature of a checkpoint. The public key is 32 bytes.
    Cosignature,
    /// 0x06: timestamped ML-DSA-44 cosignature of a checkpoint. The public key is 1,312 bytes (FIPS 204).
    MlDsa44,
}

impl KeyType {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::EcdsaP256 => 0x02,
            Self::Cosignature => 0x04,
            Self::MlDsa44 => 0x06,
        }
    }

    pub(super) fn of_byte(byte: u8) -> Option<Self> {
        [Self::Ed25519, Self::EcdsaP256, Self::Cosignature, Self::MlDsa44].into_iter().find(|key_type| key_type.byte() == byte)
    }

    /// Whether such a key can be a log's: it signs the text, or, of type 0x06, the checkpoint.
    pub fn is_for_logs(self) -> bool {
        matches!(self, Self::Ed25519 | Self::EcdsaP256 | Self::MlDsa44)
    }

    /// Whether such a key can be a witness's: it makes timestamped cosignatures.
    pub fn is_for_witnesses(self) -> bool {
        matches!(self, Self::Cosignature | Self::MlDsa44)
    }
}

/// A public key with the name that it signs under; its text form is the vkey.
#[derive(Clone)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    id: u32,
    public_key: Vec<u8>,
    // The same key, decoded.
    algorithm: Algorithm,
}

#[derive(Clone)]
enum Algorithm {
    Ed25519(ed25519_dalek::VerifyingKey),
    EcdsaP256(ecdsa::VerifyingKey),
    MlDsa44(ml_dsa::VerifyingKey<MlDsa44>),
}

impl VerifierKey {
    /// The key with this public key under a name.
    pub fn new(name: &str, key_type: KeyType, public_key: &[u8]) -> Result<Self, VkeyError> {
        check_name(name)?;
        let algorithm = Algorithm::decode(key_type, public_key).ok_or(VkeyError::BadKey)?;
        let id = match key_type {
            KeyType::EcdsaP256 => sha256(&[public_key]),
            _ => sha256(&[name.as_bytes(), b"\n", &[key_type.byte()], public_key]),
        };
        let id = u32::from_be_bytes(*id.first_chunk().expect("a hash is 32 bytes"));
        Ok(Self { name: name.to_owned(), key_type, id, public_key: public_key.to_vec(), algorithm })
    }

    /// Parses a vkey. The key id in it must be the one of the name and key.
    pub fn parse(vkey: &str) -> Result<Self, VkeyError> {
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Malformed);
        };
        let id = parse_id(id).ok_or(VkeyError::Malformed)?;
        if key.len() > MAX_KEY_TEXT_LEN {
            return Err(VkeyError::Malformed);
        }
        let key = STANDARD.decode(key).map_err(|_| VkeyError::Malformed)?;
        let (key_type, public_key) = key.split_first().ok_or(VkeyError::Malformed)?;
        let key_type = KeyType::of_byte(*key_type).ok_or(VkeyError::UnsupportedType)?;
        let parsed = Self::new(name, key_type, public_key)?;
        if parsed.id == id { Ok(parsed) } else { Err(VkeyError::WrongId) }
    }

    /// The name that the key signs under; a log's key is named like its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the key signs.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The bytes of the key, as [`KeyType`] says.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The first four bytes, big-endian, of SHA-256(name ‖ "\n" ‖ type ‖ public key); for [`KeyType::EcdsaP256`] of
    /// SHA-256(public key).
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the signature is one of `message`. Takes any bytes.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.algorithm {
            Algorithm::Ed25519(key) => {
                Ed25519Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            Algorithm::EcdsaP256(key) => {
                ecdsa::Signature::from_der(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            Algorithm::MlDsa44(key) => {
                ml_dsa::Signature::try_from(signature).is_ok_and(|signature| key.verify_with_context(message, &[], &signature))
            }
        }
    }
}

impl Algorithm {
    fn decode(key_type: KeyType, public_key: &[u8]) -> Option<Self> {
        match key_type {
            KeyType::Ed25519 | KeyType::Cosignature => {
                ed25519_dalek::VerifyingKey::from_bytes(public_key.try_into().ok()?).ok().map(Self::Ed25519)
            }
            KeyType::EcdsaP256 => {
                let point = public_key.strip_prefix(&P256_SPKI_PREFIX).filter(|point| point.len() == 65)?;
                ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(Self::EcdsaP256)
            }
            KeyType::MlDsa44 => {
                let encoded = ml_dsa::EncodedVerifyingKey::<MlDsa44>::try_from(public_key).ok()?;
                Some(Self::MlDsa44(ml_dsa::VerifyingKey::decode(&encoded)))
            }
        }
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.key_type, &self.public_key) == (&other.name, other.key_type, &other.public_key)
    }
}

impl Eq for VerifierKey {}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = iter::once(self.key_type.byte()).chain(self.public_key.iter().copied()).collect();
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl str::FromStr for VerifierKey {
    type Err = VkeyError;

    fn from_str(vkey: &str) -> Result<Self, VkeyError> {
        Self::parse(vkey)
    }
}

/// The number that eight lower-case hexadecimal digits write.
pub(super) fn parse_id(id: &str) -> Option<u32> {
    let canonical = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u32::from_str_radix(id, 16).ok().filter(|_| canonical)
}

pub(super) fn check_name(name: &str) -> Result<(), VkeyError> {
    let refused = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    let ok = !name.is_empty() && name.len() <= MAX_NAME_LEN && !name.chars().any(refused);
    if ok { Ok(()) } else { Err(VkeyError::BadName) }
}

/// Why a key was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VkeyError {
    /// The key has the wrong length for its type, or is no point of the curve.
    #[error("not a public key of its type")]
    BadKey,
    /// The name is empty, too long, or contains a space or a plus sign.
    #[error("bad key name")]
    BadName,
    /// The text is not `name+id+key`.
    #[error("not a verifier key")]
    Malformed,
    /// The type byte is none of [`KeyType`], or not one for this purpose.
    #[error("unsupported key type")]
    UnsupportedType,
    /// The key id is not the one of the name and key.
    #[error("key id does not belong to the key")]
    WrongId,
}
