//! A listing of the directory to a provider that a client may seal to (SPEC §7.2, §9.1).

use fanlight_auditlog::tlog_proof::{InclusionError, TlogProofError};
use fanlight_auditlog::{Policy, TlogProof, VerifiedInclusion};
use fanlight_protocol::directory::Listing;
use fanlight_protocol::entry::{EntryError, Evidence, KeyStatement, Signed};
use fanlight_protocol::{Digest, ProviderId, UnixTime};

use crate::appraisal::{AppraisalError, AttestationResult, Grade, appraise};

/// What a relying party asks of a provider. It is the party's own: nothing in it may come from a gateway or a bundle.
#[derive(Clone, Debug)]
pub struct ProviderPolicy {
    /// Which logs count, and which quorum of witnesses their checkpoints need.
    pub log: Policy,
    /// The weakest grade that is accepted.
    pub minimum_grade: Grade,
}

impl ProviderPolicy {
    /// Accepts every grade, under a log policy.
    pub const fn new(log: Policy) -> Self {
        Self { log, minimum_grade: Grade::SelfSigned }
    }
}

/// A provider whose key may be sealed to.
///
/// Invariant: it comes from [`verify_listing`] or [`verify_receipt`](crate::verify_receipt), so its evidence and key
/// statement verify, belong together, are in a log that the policy trusts, and reach the policy's grade. They did so at
/// the time given there; [`Self::is_valid_at`] asks again.
#[derive(Clone, Debug)]
pub struct VerifiedProvider {
    result: AttestationResult,
    key_statement: Signed<KeyStatement>,
    evidence: Signed<Evidence>,
    statement_inclusion: VerifiedInclusion,
    evidence_inclusion: VerifiedInclusion,
}

impl VerifiedProvider {
    /// Names the provider.
    pub fn provider_id(&self) -> ProviderId {
        self.result.provider_id()
    }

    /// The key statement: KEM key, validity, models.
    pub const fn key_statement(&self) -> &Signed<KeyStatement> {
        &self.key_statement
    }

    /// Entry digest of the key statement.
    pub const fn statement_digest(&self) -> Digest {
        self.key_statement.digest()
    }

    /// The evidence behind the identity key.
    pub const fn evidence(&self) -> &Signed<Evidence> {
        &self.evidence
    }

    /// What the evidence is worth.
    pub const fn result(&self) -> &AttestationResult {
        &self.result
    }

    /// The grade.
    pub const fn grade(&self) -> Grade {
        self.result.grade()
    }

    /// Where the key statement stands in the log.
    pub fn statement_leaf_index(&self) -> u64 {
        self.statement_inclusion.index()
    }

    /// Where the evidence stands in the log.
    pub fn evidence_leaf_index(&self) -> u64 {
        self.evidence_inclusion.index()
    }

    /// The log that the key statement is in.
    pub fn log_origin(&self) -> &str {
        self.statement_inclusion.checkpoint().origin()
    }

    /// Whether the key statement counts at `now`.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.key_statement.is_valid_at(now)
    }
}

/// Verifies a listing at a time: entries, their proofs under the policy's logs and quorum, validity, grade.
///
/// # Errors
/// [`ListingError`], in the order of its variants.
pub fn verify_listing(listing: &Listing, policy: &ProviderPolicy, now: UnixTime) -> Result<VerifiedProvider, ListingError> {
    let entries = LoggedEntries::verify(listing, policy)?;
    if now.as_secs() < entries.key_statement.not_before.as_secs() {
        return Err(ListingError::NotYetValid);
    }
    if !entries.key_statement.is_valid_at(now) {
        return Err(ListingError::Expired);
    }
    entries.appraise(policy, now)
}

/// Evidence and key statement that belong together and are logged; neither time nor grade is judged yet.
#[derive(Debug)]
pub(crate) struct LoggedEntries {
    pub(crate) key_statement: Signed<KeyStatement>,
    evidence: Signed<Evidence>,
    statement_inclusion: VerifiedInclusion,
    evidence_inclusion: VerifiedInclusion,
}

impl LoggedEntries {
    pub(crate) fn verify(listing: &Listing, policy: &ProviderPolicy) -> Result<Self, ListingError> {
        let evidence = Signed::<Evidence>::verify_self_keyed(&listing.evidence).map_err(ListingError::Evidence)?;
        let key_statement = Signed::<KeyStatement>::verify_self_keyed(&listing.key_statement);
        let key_statement = key_statement.map_err(ListingError::KeyStatement)?;
        if evidence.signer() != key_statement.signer() {
            return Err(ListingError::OtherProvider);
        }
        if evidence.digest() != key_statement.evidence_digest {
            return Err(ListingError::OtherEvidence);
        }
        let evidence_inclusion =
            verify_logged(&listing.evidence_proof, evidence.bytes(), &policy.log).map_err(ListingError::EvidenceNotLogged)?;
        let statement_inclusion = verify_logged(&listing.key_statement_proof, key_statement.bytes(), &policy.log)
            .map_err(ListingError::StatementNotLogged)?;
        if evidence_inclusion.checkpoint().origin() != statement_inclusion.checkpoint().origin() {
            return Err(ListingError::OtherLog);
        }
        Ok(Self { key_statement, evidence, statement_inclusion, evidence_inclusion })
    }

    pub(crate) fn appraise(self, policy: &ProviderPolicy, now: UnixTime) -> Result<VerifiedProvider, ListingError> {
        let Self { key_statement, evidence, statement_inclusion, evidence_inclusion } = self;
        let result = appraise(&evidence, now)?;
        if result.grade() < policy.minimum_grade {
            return Err(ListingError::GradeTooLow { minimum: policy.minimum_grade, actual: result.grade() });
        }
        Ok(VerifiedProvider { result, key_statement, evidence, statement_inclusion, evidence_inclusion })
    }
}

/// Verifies a tlog proof of an entry under a log policy; the leaf is the entry's bytes.
///
/// # Errors
/// [`LogProofError`] by variant.
pub fn verify_logged(proof: &str, entry: &[u8], policy: &Policy) -> Result<VerifiedInclusion, LogProofError> {
    Ok(TlogProof::parse(proof.as_bytes())?.verify(entry, policy)?)
}

/// Why a proof does not show that an entry is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogProofError {
    /// The text is not a tlog proof; an absent proof is empty text.
    #[error("log proof is not readable")]
    Malformed(#[from] TlogProofError),
    /// The checkpoint is of another log, badly signed or without its quorum, or the path does not lead to the entry.
    #[error("log proof does not hold under the policy")]
    Refused(#[from] InclusionError),
}

/// Why a listing is not a provider to seal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// The evidence entry is not valid.
    #[error("evidence is not a valid entry")]
    Evidence(#[source] EntryError),
    /// The key statement entry is not valid.
    #[error("key statement is not a valid entry")]
    KeyStatement(#[source] EntryError),
    /// Evidence and key statement are signed by different identity keys.
    #[error("evidence and key statement are of different providers")]
    OtherProvider,
    /// The key statement names other evidence of the same provider.
    #[error("key statement names other evidence")]
    OtherEvidence,
    /// The evidence is not proven to be in a trusted log.
    #[error("evidence is not proven to be logged")]
    EvidenceNotLogged(#[source] LogProofError),
    /// The key statement is not proven to be in a trusted log.
    #[error("key statement is not proven to be logged")]
    StatementNotLogged(#[source] LogProofError),
    /// Evidence and key statement are in different logs, both trusted.
    #[error("evidence and key statement are in different logs")]
    OtherLog,
    /// The key statement does not count yet.
    #[error("key statement is not valid yet")]
    NotYetValid,
    /// The key statement has ended.
    #[error("key statement has expired")]
    Expired,
    /// The evidence is worth nothing.
    #[error("evidence was refused")]
    Appraisal(#[from] AppraisalError),
    /// The evidence is worth less than the policy asks for.
    #[error("grade is below the policy's minimum")]
    GradeTooLow {
        /// What the policy asks for.
        minimum: Grade,
        /// What the evidence is worth.
        actual: Grade,
    },
}
