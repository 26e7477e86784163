//! Receipts against the provider, the statement and the exchange that they are about (SPEC §7.3).

use fanlight_protocol::entry::{EntryError, KeyStatement, Receipt, ReceiptDetails, STATEMENT_GRACE_SECS, Signed, Usage};
use fanlight_protocol::response::ReceiptPayload;
use fanlight_protocol::{Digest, KeyId, ProviderId, RequestId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::listing::VerifiedProvider;

/// How long after the last opening a receipt may still be signed, in seconds: the longest answer that is believed.
pub const MAX_ANSWER_SECS: u64 = 3_600;

/// How much later than the last frame a receipt may be signed, in seconds: it is signed at once, but receipts of
/// concurrent answers wait for each other.
const SIGNING_DELAY_SECS: u64 = 60;

/// What a client knows of its own exchange, to hold a receipt against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange<'a> {
    /// The id in the request's header.
    pub request_id: RequestId,
    /// The key in the response's prefix, which opened the answer.
    pub key_id: KeyId,
    /// The model in the request's header.
    pub model: &'a str,
    /// `H(header ‖ body)` of what was sent.
    pub request_hash: Digest,
    /// `H(prefix ‖ sealed frames)` of what was received.
    pub response_hash: Digest,
}

/// A receipt that is a provider's, with the details that it commits to, both in keeping with its key statement.
///
/// Invariant: it comes from [`check_receipt`] or is part of a [`VerifiedReceipt`](crate::VerifiedReceipt).
#[derive(Clone, Debug)]
pub struct CheckedReceipt {
    receipt: Signed<Receipt>,
    details: ReceiptDetails,
}

impl CheckedReceipt {
    /// The public part, as it is logged.
    pub const fn receipt(&self) -> &Signed<Receipt> {
        &self.receipt
    }

    /// What it commits to.
    pub const fn details(&self) -> &ReceiptDetails {
        &self.details
    }

    /// Who signed it.
    pub fn provider_id(&self) -> ProviderId {
        self.receipt.signer().provider_id()
    }

    /// Checks a receipt and its details against a provider's key statement.
    pub(crate) fn verify(
        receipt: &[u8],
        details: &[u8],
        blind: &[u8; 32],
        statement: &Signed<KeyStatement>,
    ) -> Result<Self, ReceiptError> {
        let receipt = Signed::<Receipt>::verify(receipt, statement.signer()).map_err(ReceiptError::Receipt)?;
        if receipt.statement_digest != statement.digest() {
            return Err(ReceiptError::OtherStatement);
        }
        let details = receipt.open(details, blind).map_err(ReceiptError::Details)?;
        let offer = statement.offer(&details.model).ok_or(ReceiptError::ModelNotOffered)?;
        if details.weights_digest != offer.weights_digest {
            return Err(ReceiptError::OtherWeights);
        }
        if details.build_measurement != statement.build_measurement {
            return Err(ReceiptError::OtherBuild);
        }
        let Usage { input, cached_input, output, reasoning } = details.usage;
        if cached_input > input || reasoning > output {
            return Err(ReceiptError::UsageDoesNotAddUp);
        }
        check_times(&receipt, &details, statement)?;
        Ok(Self { receipt, details })
    }
}

/// Checks a receipt as it arrives, against the exchange that the client itself saw. No log is asked: whether the receipt
/// is logged is known later, from its bundle.
///
/// The provider is the one whose key opened the answer: an answer of one provider with the receipt of another is refused.
///
/// # Errors
/// [`ReceiptError`], in the order of its variants.
pub fn check_receipt(
    payload: &ReceiptPayload<'_>,
    provider: &VerifiedProvider,
    exchange: &Exchange<'_>,
) -> Result<CheckedReceipt, ReceiptError> {
    let statement = provider.key_statement();
    if statement.key_id() != exchange.key_id {
        return Err(ReceiptError::OtherKey);
    }
    let checked = CheckedReceipt::verify(payload.receipt, payload.details, &payload.blind, statement)?;
    let details = checked.details();
    if details.request_id != exchange.request_id || details.request_hash != exchange.request_hash {
        return Err(ReceiptError::OtherRequest);
    }
    if details.model != exchange.model {
        return Err(ReceiptError::OtherModel);
    }
    if details.response_hash != exchange.response_hash {
        return Err(ReceiptError::OtherResponse);
    }
    Ok(checked)
}

/// The time of a key statement, as requests and receipts are held against it.
///
/// A statement past its time counts as retired: nothing opened after it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validity {
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Validity {
    pub(crate) const fn of(statement: &KeyStatement) -> Self {
        Self { not_before: statement.not_before, not_after: statement.not_after }
    }

    /// Whether a request opened at `started` was opened in the statement's time.
    pub(crate) fn opened_in_time(self, started: UnixTime) -> bool {
        let last = self.not_after.as_secs().saturating_add(STATEMENT_GRACE_SECS);
        (self.not_before.as_secs()..=last).contains(&started.as_secs())
    }

    /// Whether a receipt's public time, a whole minute, fits the statement's time.
    pub(crate) fn signed_in_time(self, time: UnixTime) -> bool {
        let last = self.not_after.as_secs().saturating_add(STATEMENT_GRACE_SECS + MAX_ANSWER_SECS);
        (self.not_before.minute_secs()..=last).contains(&time.as_secs())
    }
}

fn check_times(receipt: &Receipt, details: &ReceiptDetails, statement: &KeyStatement) -> Result<(), ReceiptError> {
    let signed = receipt.time.as_secs();
    let latest = details.ended.as_secs().saturating_add(SIGNING_DELAY_SECS);
    if details.started > details.ended || signed < details.ended.minute_secs() || signed > latest {
        return Err(ReceiptError::TimesContradict);
    }
    let validity = Validity::of(statement);
    if !validity.opened_in_time(details.started) || !validity.signed_in_time(receipt.time) {
        return Err(ReceiptError::OutsideValidity);
    }
    Ok(())
}

/// Why a receipt is not that of this provider, statement or exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The key that answered is not the one in the provider's key statement.
    #[error("answer came under a key that is not this provider's")]
    OtherKey,
    /// The receipt is not a valid entry of this provider.
    #[error("receipt is not a valid entry of this provider")]
    Receipt(#[source] EntryError),
    /// The receipt was made under another key statement.
    #[error("receipt is under another key statement")]
    OtherStatement,
    /// The details are not those that the receipt commits to, or not well formed.
    #[error("receipt details are not those that were signed")]
    Details(#[source] EntryError),
    /// The key statement does not offer the model.
    #[error("receipt names a model that the key statement does not offer")]
    ModelNotOffered,
    /// The weights are not those of the key statement.
    #[error("receipt names other weights than the key statement")]
    OtherWeights,
    /// The executable is not that of the key statement.
    #[error("receipt names another build than the key statement")]
    OtherBuild,
    /// More cached than input tokens, or more reasoning than output tokens.
    #[error("receipt usage does not add up")]
    UsageDoesNotAddUp,
    /// Ended before it started, or signed at another time than it ended.
    #[error("receipt times contradict each other")]
    TimesContradict,
    /// Opened or signed outside of the key statement's time.
    #[error("receipt is outside of the key statement's validity")]
    OutsideValidity,
    /// It is the receipt of another request.
    #[error("receipt is of another request")]
    OtherRequest,
    /// It names another model than the request.
    #[error("receipt names another model than the request")]
    OtherModel,
    /// It covers other response bytes.
    #[error("receipt is of another response")]
    OtherResponse,
}
