//! Enrolment: what a HELLO and a new key statement must show before a key is offered (SPEC §8).

use bytes::Bytes;
use fanlight_protocol::entry::{EntryError, Evidence, IdentityKey, KeyStatement, LinkAuth, Signed};
use fanlight_protocol::link::Hello;
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;
use fanlight_protocol::{Digest, UnixTime};

use crate::error::LogError;
use crate::host::Host;

/// Longest key statement or evidence that is listed, in bytes (SPEC §10). The formats allow more: 64 models with names of 128
/// bytes take about 11,600. But anyone may enrol, and everyone reads the directory.
pub const MAX_LISTED_ENTRY_LEN: usize = 8_192;

/// Why a provider is not enrolled, or its new statement not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The link entry answers another challenge than this connection's: it is replayed. A gateway that relays the challenge
    /// of another to a provider is not noticed by this.
    #[error("link entry answers another challenge")]
    Challenge,
    /// The evidence entry is not valid.
    #[error("evidence is not valid")]
    Evidence(#[source] EntryError),
    /// The key statement names other evidence.
    #[error("key statement names other evidence")]
    EvidenceDigest,
    /// Link entry, evidence and key statement are not of one identity.
    #[error("entries are not of one identity")]
    Identity,
    /// The link entry is not valid.
    #[error("link entry is not valid")]
    LinkAuth(#[source] EntryError),
    /// The key statement entry is not valid.
    #[error("key statement is not valid")]
    Statement(#[source] EntryError),
    /// The link entry names another key statement.
    #[error("link entry names another key statement")]
    StatementDigest,
    /// The link entry was made more than 60 s ago or ahead.
    #[error("link entry is not of this time")]
    Time,
    /// The evidence or the key statement is longer than [`MAX_LISTED_ENTRY_LEN`].
    #[error("entry is too long to be listed")]
    TooLong,
    /// The key statement does not count now.
    #[error("key statement is outside its validity")]
    Validity,
}

/// A provider that has proven its identity on this connection, with entries that are not in the log yet.
#[derive(Debug)]
pub struct Enrolment {
    evidence: Signed<Evidence>,
    statement: Signed<KeyStatement>,
    capacity: u32,
}

impl Enrolment {
    /// Checks a HELLO against the challenge of its connection.
    ///
    /// # Errors
    /// [`EnrolError`] by variant.
    pub fn verify(hello: &Hello<'_>, challenge: &[u8; 32], now: UnixTime) -> Result<Self, EnrolError> {
        if hello.evidence.len() > MAX_LISTED_ENTRY_LEN {
            return Err(EnrolError::TooLong);
        }
        let auth = Signed::<LinkAuth>::verify_self_keyed(hello.link_auth).map_err(EnrolError::LinkAuth)?;
        if auth.challenge != *challenge {
            return Err(EnrolError::Challenge);
        }
        if auth.time.as_secs().abs_diff(now.as_secs()) > CLOCK_TOLERANCE_SECS {
            return Err(EnrolError::Time);
        }
        if auth.statement_digest != Digest::of(hello.key_statement) {
            return Err(EnrolError::StatementDigest);
        }
        let evidence = Signed::<Evidence>::verify_self_keyed(hello.evidence).map_err(EnrolError::Evidence)?;
        if evidence.signer() != auth.signer() {
            return Err(EnrolError::Identity);
        }
        let statement = verify_statement(hello.key_statement, auth.signer(), evidence.digest(), now)?;
        Ok(Self { evidence, statement, capacity: hello.capacity })
    }

    /// The evidence entry.
    pub const fn evidence(&self) -> &Signed<Evidence> {
        &self.evidence
    }

    /// The key statement entry.
    pub const fn statement(&self) -> &Signed<KeyStatement> {
        &self.statement
    }

    /// Appends the evidence, then the key statement that names it.
    ///
    /// # Errors
    /// [`LogError`] of the first entry that was not taken.
    pub async fn append<H: Host>(self, host: &H) -> Result<LoggedEnrolment, LogError> {
        let evidence_proof = host.append(Bytes::copy_from_slice(self.evidence.bytes())).await?;
        let statement_proof = host.append(Bytes::copy_from_slice(self.statement.bytes())).await?;
        let Self { evidence, statement, capacity } = self;
        Ok(LoggedEnrolment { evidence, evidence_proof, statement, statement_proof, capacity })
    }
}

/// An enrolment whose entries are in a published checkpoint: what may be listed.
#[derive(Debug)]
pub struct LoggedEnrolment {
    pub(crate) evidence: Signed<Evidence>,
    pub(crate) evidence_proof: String,
    pub(crate) statement: Signed<KeyStatement>,
    pub(crate) statement_proof: String,
    pub(crate) capacity: u32,
}

/// Checks a key statement of a known identity under known evidence.
///
/// # Errors
/// [`EnrolError::TooLong`], [`EnrolError::Statement`], [`EnrolError::Identity`], [`EnrolError::EvidenceDigest`], [`EnrolError::Validity`].
pub fn verify_statement(
    entry: &[u8],
    identity: &IdentityKey,
    evidence_digest: Digest,
    now: UnixTime,
) -> Result<Signed<KeyStatement>, EnrolError> {
    if entry.len() > MAX_LISTED_ENTRY_LEN {
        return Err(EnrolError::TooLong);
    }
    let statement = Signed::<KeyStatement>::verify_self_keyed(entry).map_err(EnrolError::Statement)?;
    if statement.signer() != identity {
        return Err(EnrolError::Identity);
    }
    if statement.evidence_digest != evidence_digest {
        return Err(EnrolError::EvidenceDigest);
    }
    if !statement.is_valid_at(now) {
        return Err(EnrolError::Validity);
    }
    Ok(statement)
}
