//! Link entries: a connection belongs to the holder of an identity key (SPEC §8.2).

use super::cbor::{self, MapReader};
use super::{EntryError, EntryType, IdentityKey, Payload, SelfKeyed};
use crate::{Digest, UnixTime};

/// Payload of a link entry. The gateway's challenge is one field of it, so a gateway cannot have bytes of its choice signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAuth {
    /// Signs this.
    pub identity: IdentityKey,
    /// The gateway's CHALLENGE on this connection.
    pub challenge: [u8; 32],
    /// The key statement that the provider offers on this connection.
    pub statement_digest: Digest,
    /// When it was made; whole seconds.
    pub time: UnixTime,
}

impl Payload for LinkAuth {
    const TYPE: EntryType = EntryType::Link;

    fn to_cbor(&self) -> Vec<u8> {
        cbor::write_map(vec![
            (1, cbor::bytes(self.identity.spki())),
            (2, cbor::bytes(&self.challenge)),
            (3, cbor::bytes(&self.statement_digest.0)),
            (4, self.time.as_secs().into()),
        ])
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut map = MapReader::from_slice(bytes)?;
        let identity = IdentityKey::from_spki(&map.array::<{ super::SPKI_LEN }>()?)?;
        let challenge = map.array()?;
        let statement_digest = Digest(map.array()?);
        let time = UnixTime::from_secs(map.uint()?);
        map.finish()?;
        Ok(Self { identity, challenge, statement_digest, time })
    }
}

impl SelfKeyed for LinkAuth {
    fn identity(&self) -> &IdentityKey {
        &self.identity
    }
}
