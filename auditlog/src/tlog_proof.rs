//! Proofs that an entry is logged, to keep beside the entry and check offline (C2SP tlog-proof).
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! [extra <base64>]
//! index <n>
//! <base64 hash>            the audit path, the leaf's sibling first
//!
//! <checkpoint, verbatim>
//! ```

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::VerifiedInclusion;
use crate::decimal::parse_decimal;
use crate::hash::{Hash, leaf_hash};
use crate::note::MAX_NOTE_LEN;
use crate::policy::{Policy, PolicyViolation};
use crate::proof::{MAX_PATH_LEN, ProofError};

/// Bytes of the longest proof that is parsed: the longest checkpoint, and 64 KiB of extra data in base64.
pub const MAX_TLOG_PROOF_LEN: usize = MAX_NOTE_LEN + 128 * 1024;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A parsed proof; nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Hash>,
    checkpoint: String,
}

impl TlogProof {
    /// A proof of entry `index` without extra data; `checkpoint` is the signed note.
    pub fn new(index: u64, path: Vec<Hash>, checkpoint: String) -> Self {
        Self { extra: None, index, path, checkpoint }
    }

    /// Parses a proof of at most [`MAX_TLOG_PROOF_LEN`] bytes.
    pub fn parse(proof: &[u8]) -> Result<Self, TlogProofError> {
        if proof.len() > MAX_TLOG_PROOF_LEN {
            return Err(TlogProofError::TooLong);
        }
        let proof = str::from_utf8(proof).map_err(|_| TlogProofError::Malformed)?;
        let (head, checkpoint) = proof.split_once("\n\n").ok_or(TlogProofError::Malformed)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(TlogProofError::UnknownVersion);
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|base64| STANDARD.decode(base64)).transpose().map_err(|_| TlogProofError::Malformed)?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(parse_decimal);
        let path: Option<Vec<Hash>> = lines.map(Hash::parse_base64).collect();
        let (Some(index), Some(path)) = (index, path) else {
            return Err(TlogProofError::Malformed);
        };
        if path.len() > MAX_PATH_LEN {
            return Err(TlogProofError::TooLong);
        }
        Ok(Self { extra, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// The position of the entry, as claimed.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Data beside the proof, which nothing authenticates.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The audit path, the leaf's sibling first.
    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    /// The signed checkpoint, verbatim.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// Verifies that `entry` is in a log that the policy trusts.
    pub fn verify(&self, entry: &[u8], policy: &Policy) -> Result<VerifiedInclusion, InclusionError> {
        let checkpoint = policy.verify_checkpoint(self.checkpoint.as_bytes())?;
        Ok(checkpoint.verify_inclusion(leaf_hash(entry), self.index, &self.path)?)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why bytes are not a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// The lines are not those of a proof.
    #[error("not a tlog-proof")]
    Malformed,
    /// More than [`MAX_TLOG_PROOF_LEN`] bytes, or more hashes than a tree has levels.
    #[error("tlog-proof too long")]
    TooLong,
    /// The first line is not `c2sp.org/tlog-proof@v1`.
    #[error("unknown version of tlog-proof")]
    UnknownVersion,
}

/// Why a proof does not show that the entry is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InclusionError {
    /// The checkpoint does not satisfy the policy.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// The audit path does not lead from the entry to the checkpoint's root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}
