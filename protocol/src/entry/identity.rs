//! Identity keys: P-256, named by the hash of their SubjectPublicKeyInfo (SPEC §3).

use std::fmt;

use p256::ecdsa::{Signature, VerifyingKey};

use super::EntryError;
use crate::{Digest, ProviderId};

/// Length of a P-256 SubjectPublicKeyInfo with an uncompressed point, in bytes.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + 65;

/// DER up to the point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A provider's identity key, public half.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityKey {
    key: VerifyingKey,
    spki: [u8; SPKI_LEN],
}

impl IdentityKey {
    /// From an uncompressed SEC1 point, 65 bytes.
    ///
    /// # Errors
    /// [`EntryError::BadKey`] when it is not a point of the curve in that form.
    pub fn from_sec1(point: &[u8; 65]) -> Result<Self, EntryError> {
        let key = match point[0] {
            0x04 => VerifyingKey::from_sec1_bytes(point).map_err(|_| EntryError::BadKey)?,
            _ => return Err(EntryError::BadKey),
        };
        let mut spki = [0; SPKI_LEN];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(point);
        Ok(Self { key, spki })
    }

    /// From a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`EntryError::BadKey`] unless it is exactly P-256 with an uncompressed point of the curve.
    pub fn from_spki(spki: &[u8]) -> Result<Self, EntryError> {
        let point = spki.strip_prefix(&SPKI_PREFIX).and_then(|p| p.try_into().ok()).ok_or(EntryError::BadKey)?;
        Self::from_sec1(point)
    }

    /// SubjectPublicKeyInfo, DER.
    pub const fn spki(&self) -> &[u8; SPKI_LEN] {
        &self.spki
    }

    /// `H(spki)`.
    pub fn provider_id(&self) -> ProviderId {
        ProviderId(Digest::of(&self.spki).0)
    }

    pub(super) const fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.provider_id())
    }
}

/// The same signature with `s` in the lower half; `None` when the bytes are no signature.
pub(super) fn normalize(signature: &[u8; 64]) -> Option<Signature> {
    Signature::from_slice(signature).ok().map(|s| s.normalize_s())
}
