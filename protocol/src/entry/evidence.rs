//! Evidence: what a provider shows of itself (SPEC §7.1, RFC 9334).

use std::collections::BTreeMap;

use ciborium::Value;

use super::cbor::{self, MapReader};
use super::{EntryError, EntryType, IdentityKey, Payload, SelfKeyed};
use crate::UnixTime;

/// Most claims of one evidence entry.
pub const MAX_CLAIMS: usize = 32;
/// Longest name or value of a claim in bytes.
const MAX_CLAIM_LEN: usize = 256;

/// What kind of evidence it is. The kind is the provider's word; the grade is what a verifier makes of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvidenceKind {
    /// Nothing stands behind the keys but themselves.
    SelfSigned,
}

impl EvidenceKind {
    /// The text in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfSigned => "self-signed",
        }
    }
}

/// Payload of an evidence entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The identity key that the evidence is about, and that signs it.
    pub identity: IdentityKey,
    /// What kind it is.
    pub kind: EvidenceKind,
    /// When it was made; whole seconds.
    pub created: UnixTime,
    /// At most 32; for `self-signed` the provider's own word.
    pub claims: BTreeMap<String, String>,
}

impl Payload for Evidence {
    const TYPE: EntryType = EntryType::Evidence;

    fn to_cbor(&self) -> Vec<u8> {
        let mut claims: Vec<_> = self.claims.iter().collect();
        // RFC 8949 §4.2.1 orders keys by their encoding: shorter texts first.
        claims.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
        let claims = claims.into_iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        cbor::write_map(vec![
            (1, cbor::bytes(self.identity.spki())),
            (2, self.kind.as_str().into()),
            (3, self.created.as_secs().into()),
            (4, Value::Map(claims)),
        ])
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut map = MapReader::from_slice(bytes)?;
        let identity = IdentityKey::from_spki(&map.array::<{ super::SPKI_LEN }>()?)?;
        let kind = match map.text()?.as_str() {
            "self-signed" => EvidenceKind::SelfSigned,
            _ => return Err(EntryError::Payload("evidence kind is unknown")),
        };
        let created = UnixTime::from_secs(map.uint()?);
        let claims = claims(map.value()?)?;
        map.finish()?;
        Ok(Self { identity, kind, created, claims })
    }
}

impl SelfKeyed for Evidence {
    fn identity(&self) -> &IdentityKey {
        &self.identity
    }
}

fn claims(value: Value) -> Result<BTreeMap<String, String>, EntryError> {
    let entries = value.into_map().map_err(|_| EntryError::Payload("claims are not a map"))?;
    if entries.len() > MAX_CLAIMS {
        return Err(EntryError::Payload("too many claims"));
    }
    let mut claims = BTreeMap::new();
    for (name, value) in entries {
        let (Value::Text(name), Value::Text(value)) = (name, value) else {
            return Err(EntryError::Payload("a claim is not text"));
        };
        if name.len() > MAX_CLAIM_LEN || value.len() > MAX_CLAIM_LEN {
            return Err(EntryError::Payload("a claim is too long"));
        }
        claims.insert(name, value);
    }
    Ok(claims)
}
