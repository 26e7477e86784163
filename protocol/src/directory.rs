//! The directory, `GET /v1/providers` (SPEC §9.1): entries and offline proofs, nothing a client would have to trust.

use serde::{Deserialize, Serialize};

use crate::bundle::base64_bytes;

/// Longest directory that a client reads, in bytes. A gateway answers with less.
pub const MAX_DIRECTORY_LEN: usize = 16 << 20;

/// The answer of `GET /v1/providers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Connected providers, in no particular order.
    pub providers: Vec<Listing>,
}

/// One provider: its current key statement, its evidence, and their tlog proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
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
}
