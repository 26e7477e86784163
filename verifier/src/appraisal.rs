//! Evidence to attestation result (RFC 9334): the grade of a provider, and what the grade does not say.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fanlight_protocol::entry::{Evidence, EvidenceKind, Signed};
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;
use fanlight_protocol::{Digest, ProviderId, UnixTime};

/// What stands behind a provider's keys, weakest first. Grades are ordered, but never collapsed into "trusted": show
/// the grade itself, with [`Grade::does_not_prove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Nothing but the key.
    SelfSigned,
    /// Apple: a genuine Mac with stated properties. That it holds these keys is the word of the device's manager.
    DeviceBound,
    /// Apple: genuine hardware, protections enforced at each signature, and the exact code that endorses these keys.
    AppAttested,
}

impl Grade {
    /// Every grade, weakest first.
    pub const ALL: [Self; 3] = [Self::SelfSigned, Self::DeviceBound, Self::AppAttested];

    /// The name in text and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfSigned => "self-signed",
            Self::DeviceBound => "device-bound",
            Self::AppAttested => "app-attested",
        }
    }

    /// What is proven at this grade, in plain words.
    pub const fn proves(self) -> &'static [&'static str] {
        match self {
            Self::SelfSigned => &["whoever holds the provider's key signed this; the same key signs the receipts"],
            Self::DeviceBound => &[
                "whoever holds the provider's key signed this; the same key signs the receipts",
                "Apple says that a genuine Mac with the stated properties exists",
            ],
            Self::AppAttested => &[
                "whoever holds the provider's key signed this; the same key signs the receipts",
                "Apple says that the hardware is genuine, with System Integrity Protection and Full Security in force",
                "Apple says which published build runs, and that build endorses the encryption key",
            ],
        }
    }

    /// What is NOT proven at this grade, in plain words.
    pub const fn does_not_prove(self) -> &'static [&'static str] {
        match self {
            Self::SelfSigned => &[
                "that the key is in hardware, or cannot be copied",
                "what machine it is, or that it is a Mac",
                "what software runs: its operator can read prompts and answers",
                "that the model or the token counts are what the receipt says",
            ],
            Self::DeviceBound => &[
                "that this Mac holds the provider's keys: that is the word of whoever manages the device",
                "what software runs: its operator may be able to read prompts and answers",
                "that the model or the token counts are what the receipt says",
            ],
            Self::AppAttested => &[
                "protection against a flaw in the kernel or the Secure Enclave",
                "protection against physical attacks on the machine",
                "anything against Apple itself, which is the root of this trust",
            ],
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Grade {
    type Err = ParseGradeError;

    fn from_str(text: &str) -> Result<Self, ParseGradeError> {
        Self::ALL.into_iter().find(|grade| grade.as_str() == text).ok_or(ParseGradeError)
    }
}

/// The text is not a grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grade is none of self-signed, device-bound, app-attested")]
pub struct ParseGradeError;

/// What evidence was found to be worth: the relying party's own judgement, never a provider's word.
///
/// Invariant: it comes from [`appraise`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationResult {
    grade: Grade,
    provider_id: ProviderId,
    evidence_digest: Digest,
    created: UnixTime,
    unverified_claims: BTreeMap<String, String>,
}

impl AttestationResult {
    /// The grade.
    pub const fn grade(&self) -> Grade {
        self.grade
    }

    /// Whose evidence it was.
    pub const fn provider_id(&self) -> ProviderId {
        self.provider_id
    }

    /// Entry digest of the evidence.
    pub const fn evidence_digest(&self) -> Digest {
        self.evidence_digest
    }

    /// When the evidence was made, by the provider's own clock.
    pub const fn created(&self) -> UnixTime {
        self.created
    }

    /// Claims that nothing backs. Whoever shows them says so.
    pub const fn unverified_claims(&self) -> &BTreeMap<String, String> {
        &self.unverified_claims
    }
}

/// Appraises evidence. Pure: the same evidence and time give the same result.
///
/// # Errors
/// [`AppraisalError`] by variant; there is no result of lower grade for evidence that claims more than it shows.
pub fn appraise(evidence: &Signed<Evidence>, now: UnixTime) -> Result<AttestationResult, AppraisalError> {
    if evidence.created.as_secs() > now.as_secs().saturating_add(CLOCK_TOLERANCE_SECS) {
        return Err(AppraisalError::FromTheFuture);
    }
    // A kind that is not listed here does not parse, and a new one does not compile until it is appraised.
    let grade = match evidence.kind {
        EvidenceKind::SelfSigned => Grade::SelfSigned,
    };
    Ok(AttestationResult {
        grade,
        provider_id: evidence.signer().provider_id(),
        evidence_digest: evidence.digest(),
        created: evidence.created,
        unverified_claims: evidence.claims.clone(),
    })
}

/// Why evidence is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppraisalError {
    /// Made later than [`CLOCK_TOLERANCE_SECS`] from now.
    #[error("evidence was made in the future")]
    FromTheFuture,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_are_ordered_and_named() {
        assert!(Grade::ALL.is_sorted());
        for grade in Grade::ALL {
            assert_eq!(grade.to_string().parse(), Ok(grade));
            assert!(!grade.proves().is_empty() && !grade.does_not_prove().is_empty(), "{grade}");
        }
        for other in ["", "hardware", "Self-Signed", "app-attested "] {
            assert_eq!(other.parse::<Grade>(), Err(ParseGradeError), "{other}");
        }
    }
}
