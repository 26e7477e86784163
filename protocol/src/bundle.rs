//! Receipt bundles: everything that proves one exchange offline (SPEC §9.2).

use serde::{Deserialize, Serialize};

use crate::RequestId;
use crate::directory::Listing;

/// Longest bundle in bytes.
pub const MAX_BUNDLE_LEN: usize = 1 << 20;

/// A receipt with its details, the statement and evidence behind it, and their proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBundle {
    /// Always [`BundleFormat::V1`].
    pub format: BundleFormat,
    /// The request id.
    pub receipt_id: RequestId,
    /// Receipt entry.
    #[serde(with = "base64_bytes")]
    pub receipt: Vec<u8>,
    /// Receipt details, deterministic CBOR.
    #[serde(with = "base64_bytes")]
    pub details: Vec<u8>,
    /// Blinds the commitment.
    #[serde(with = "base64_bytes")]
    pub blind: Vec<u8>,
    /// Key statement entry.
    #[serde(with = "base64_bytes")]
    pub key_statement: Vec<u8>,
    /// Its tlog proof, text.
    pub key_statement_proof: String,
    /// Evidence entry.
    #[serde(with = "base64_bytes")]
    pub evidence: Vec<u8>,
    /// Its tlog proof, text.
    pub evidence_proof: String,
    /// Whether `tlog_proof` is there.
    pub logged: bool,
    /// The receipt's tlog proof, text, once it is in a published checkpoint.
    pub tlog_proof: Option<String>,
}

/// The format text of a bundle; any other is refused when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BundleFormat {
    /// Version 1.
    #[serde(rename = "fanlight.receipt-bundle.v1")]
    V1,
}

impl ReceiptBundle {
    /// The part that a directory lists.
    pub fn listing(&self) -> Listing {
        Listing {
            key_statement: self.key_statement.clone(),
            key_statement_proof: self.key_statement_proof.clone(),
            evidence: self.evidence.clone(),
            evidence_proof: self.evidence_proof.clone(),
        }
    }
}

/// Standard base64 with padding, for byte strings in JSON.
pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
