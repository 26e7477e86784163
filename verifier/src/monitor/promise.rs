//! Promises: what somebody holds that says that an entry is in a log, or will be.

use fanlight_auditlog::proof::ProofError;
use fanlight_auditlog::tlog_proof::TlogProofError;
use fanlight_auditlog::{Hash, Policy, TlogProof, VerifiedCheckpoint, leaf_hash};
use fanlight_protocol::bundle::ReceiptBundle;

/// One thing to hold the log to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The log signed a tree, to be compared with the one it shows; where an entry was at hand, that tree includes it.
    Signed(VerifiedCheckpoint),
    /// The entry with this leaf hash was handed in, and must be in the log in time.
    Awaited(Hash),
}

impl Promise {
    /// What a tlog proof promises. Without its entry only the checkpoint in it counts.
    ///
    /// Whether the log's witnesses agreed does not matter here: the log is held to what it signed itself.
    ///
    /// # Errors
    /// [`PromiseError`] by variant.
    pub fn of_proof(proof: &[u8], entry: Option<&[u8]>, policy: &Policy) -> Result<Self, PromiseError> {
        let proof = TlogProof::parse(proof)?;
        let origin = proof.checkpoint().lines().next().unwrap_or_default();
        if !policy.log_keys().any(|key| key.name() == origin) {
            return Err(PromiseError::OtherLog);
        }
        let signed = policy.verify_log_signature(proof.checkpoint().as_bytes()).map_err(|_| PromiseError::NotSigned)?;
        if let Some(entry) = entry {
            signed.verify_inclusion(leaf_hash(entry), proof.index(), proof.path())?;
        }
        Ok(Self::Signed(signed))
    }

    /// What a receipt bundle promises: that statement and evidence are logged, and the receipt is or will be.
    ///
    /// # Errors
    /// [`PromiseError`] by variant, for the first part that has any.
    pub fn of_bundle(bundle: &ReceiptBundle, policy: &Policy) -> Result<Vec<Self>, PromiseError> {
        let signed = |proof: &str, entry: &[u8]| Self::of_proof(proof.as_bytes(), Some(entry), policy);
        let receipt = match &bundle.tlog_proof {
            Some(proof) => signed(proof, &bundle.receipt)?,
            None => Self::of_entry(&bundle.receipt),
        };
        let statement = signed(&bundle.key_statement_proof, &bundle.key_statement)?;
        let evidence = signed(&bundle.evidence_proof, &bundle.evidence)?;
        Ok(vec![receipt, statement, evidence])
    }

    /// What of one bundle's or file's promises binds the log of this origin. An entry is awaited there only if what came
    /// with it is there as well: a bundle of another log says nothing of this one.
    pub fn of_origin(mut promises: Vec<Self>, origin: &str) -> Vec<Self> {
        let is_ours = |promise: &Self| !matches!(promise, Self::Signed(signed) if signed.origin() != origin);
        let all_ours = promises.iter().all(is_ours);
        promises.retain(|promise| if matches!(promise, Self::Awaited(_)) { all_ours } else { is_ours(promise) });
        promises
    }

    /// An entry that was handed in, byte for byte.
    pub fn of_entry(entry: &[u8]) -> Self {
        Self::Awaited(leaf_hash(entry))
    }
}

/// Why something promises nothing that the log can be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromiseError {
    /// The text is not a tlog proof.
    #[error("log proof is not readable")]
    Malformed(#[from] TlogProofError),
    /// The log did not sign the checkpoint.
    #[error("log proof is not signed by the log")]
    NotSigned,
    /// The checkpoint is of a log that the policy does not name.
    #[error("log proof is of another log")]
    OtherLog,
    /// The tree of the checkpoint does not have the entry where the proof says.
    #[error("log proof does not hold")]
    Refused(#[from] ProofError),
}
