//! Key statements: which KEM key a provider opens requests with, and for which models (SPEC §7.2).

use ciborium::Value;

use super::cbor::{self, MapReader};
use super::{EntryError, EntryType, IdentityKey, Payload, SelfKeyed};
use crate::request::is_model_name;
use crate::{Digest, KeyId, SUITE_P256, UnixTime};

/// Longest validity in seconds: 6 hours.
pub const MAX_STATEMENT_SECS: u64 = 21_600;
/// How long after its statement's end a provider still opens requests, in seconds (SPEC §7.2).
pub const STATEMENT_GRACE_SECS: u64 = 300;
const MAX_MODELS: usize = 64;

/// One model that the provider serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOffer {
    /// Name, as clients ask for it.
    pub name: String,
    /// `H` over the weight files (SPEC §7.2).
    pub weights_digest: Digest,
    /// Most tokens of input and output together.
    pub context_tokens: u32,
}

/// Payload of a key statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatement {
    /// Signs this statement and the receipts under it.
    pub identity: IdentityKey,
    /// KEM public key, uncompressed SEC1; a point of the curve.
    pub kem_key: [u8; 65],
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// 1 to 64 models.
    pub models: Vec<ModelOffer>,
    /// `H` of the provider's executable.
    pub build_measurement: Digest,
    /// Entry digest of the evidence behind the identity key.
    pub evidence_digest: Digest,
}

impl KeyStatement {
    /// Names the KEM key.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(SUITE_P256, &self.kem_key)
    }

    /// The offer of `model`, if it serves it.
    pub fn offer(&self, model: &str) -> Option<&ModelOffer> {
        self.models.iter().find(|offer| offer.name == model)
    }

    /// Whether `now` is inside the validity.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        (self.not_before.as_secs()..=self.not_after.as_secs()).contains(&now.as_secs())
    }

    fn check(self) -> Result<Self, EntryError> {
        let (from, to) = (self.not_before.as_secs(), self.not_after.as_secs());
        if to <= from || to - from > MAX_STATEMENT_SECS {
            return Err(EntryError::Payload("validity is empty or longer than 6 hours"));
        }
        // A KEM key is checked like an identity key: the same curve, the same encoding.
        IdentityKey::from_sec1(&self.kem_key)?;
        let names_are_good = self.models.iter().all(|m| is_model_name(&m.name));
        let twice = (1..self.models.len()).any(|i| self.models[..i].iter().any(|m| m.name == self.models[i].name));
        if self.models.is_empty() || self.models.len() > MAX_MODELS || !names_are_good || twice {
            return Err(EntryError::Payload("models are none, too many, repeated or badly named"));
        }
        Ok(self)
    }
}

impl Payload for KeyStatement {
    const TYPE: EntryType = EntryType::KeyStatement;

    fn to_cbor(&self) -> Vec<u8> {
        let offer = |m: &ModelOffer| {
            cbor::map(vec![(1, m.name.as_str().into()), (2, cbor::bytes(&m.weights_digest.0)), (3, m.context_tokens.into())])
        };
        cbor::write_map(vec![
            (1, cbor::bytes(self.identity.spki())),
            (2, SUITE_P256.into()),
            (3, cbor::bytes(&self.kem_key)),
            (4, self.not_before.as_secs().into()),
            (5, self.not_after.as_secs().into()),
            (6, Value::Array(self.models.iter().map(offer).collect())),
            (7, cbor::bytes(&self.build_measurement.0)),
            (8, cbor::bytes(&self.evidence_digest.0)),
        ])
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut map = MapReader::from_slice(bytes)?;
        let identity = IdentityKey::from_spki(&map.array::<{ super::SPKI_LEN }>()?)?;
        if map.uint()? != u64::from(SUITE_P256) {
            return Err(EntryError::Payload("suite is not supported"));
        }
        let kem_key = map.array()?;
        let not_before = UnixTime::from_secs(map.uint()?);
        let not_after = UnixTime::from_secs(map.uint()?);
        let models = map.value()?.into_array().map_err(|_| EntryError::Payload("models are not an array"))?;
        let models = models.into_iter().map(offer).collect::<Result<_, _>>()?;
        let build_measurement = Digest(map.array()?);
        let evidence_digest = Digest(map.array()?);
        map.finish()?;
        Self { identity, kem_key, not_before, not_after, models, build_measurement, evidence_digest }.check()
    }
}

impl SelfKeyed for KeyStatement {
    fn identity(&self) -> &IdentityKey {
        &self.identity
    }
}

fn offer(value: Value) -> Result<ModelOffer, EntryError> {
    let mut map = MapReader::from_value(value)?;
    let name = map.text()?;
    let weights_digest = Digest(map.array()?);
    let context_tokens = map.uint()?.try_into().map_err(|_| EntryError::Payload("context_tokens is above 32 bits"))?;
    map.finish()?;
    Ok(ModelOffer { name, weights_digest, context_tokens })
}
