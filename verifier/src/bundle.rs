//! Receipt bundles: one exchange proven offline (SPEC §9.2).

use fanlight_auditlog::VerifiedInclusion;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::entry::{Receipt, ReceiptDetails, Signed};

use crate::listing::{ListingError, LogProofError, LoggedEntries, ProviderPolicy, VerifiedProvider, verify_logged};
use crate::receipt::{CheckedReceipt, ReceiptError};

/// An exchange that a bundle proves: the provider, its receipt with details, and the receipt's place in the log.
///
/// Invariant: it comes from [`verify_receipt`], so every [`BundleCheck`] holds.
#[derive(Clone, Debug)]
pub struct VerifiedReceipt {
    provider: VerifiedProvider,
    checked: CheckedReceipt,
    inclusion: VerifiedInclusion,
}

impl VerifiedReceipt {
    /// The provider, as it was when it answered.
    pub const fn provider(&self) -> &VerifiedProvider {
        &self.provider
    }

    /// The public part of the receipt.
    pub const fn receipt(&self) -> &Signed<Receipt> {
        self.checked.receipt()
    }

    /// What the receipt commits to.
    pub const fn details(&self) -> &ReceiptDetails {
        self.checked.details()
    }

    /// Where the receipt stands in the log, and in which checkpoint.
    pub const fn inclusion(&self) -> &VerifiedInclusion {
        &self.inclusion
    }
}

/// What is checked of a bundle, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BundleCheck {
    /// The parts that the rest relies on are there.
    Form,
    /// Key statement and evidence are signed by one provider, and logged.
    Provider,
    /// The receipt is that provider's, under that statement, in its time and in keeping with it.
    Receipt,
    /// The evidence reaches the policy's grade.
    Grade,
    /// The bundle's id is that of the request.
    ReceiptId,
    /// The receipt is logged.
    Logged,
    /// The receipt stands behind statement and evidence, in the same log.
    Order,
}

impl BundleCheck {
    /// Every check, in order.
    pub const ALL: [Self; 7] =
        [Self::Form, Self::Provider, Self::Receipt, Self::Grade, Self::ReceiptId, Self::Logged, Self::Order];

    /// What holds when the check passes, in plain words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "the bundle is complete",
            Self::Provider => "key statement and evidence are signed by one provider, and in the log",
            Self::Receipt => "that provider signed this receipt in the statement's time, with the details shown here",
            Self::Grade => "the evidence reaches the grade that the policy asks for",
            Self::ReceiptId => "the bundle is filed under its own request",
            Self::Logged => "the receipt is in the log",
            Self::Order => "the key statement was in the log before the receipt",
        }
    }
}

/// Verifies a bundle offline. Validity is judged at the time that the receipt gives, not now: a receipt outlives its
/// key statement by design.
///
/// # Errors
/// [`BundleError`], in the order of its variants; [`BundleError::NotYetLogged`] only when all before it holds.
pub fn verify_receipt(bundle: &ReceiptBundle, policy: &ProviderPolicy) -> Result<VerifiedReceipt, BundleError> {
    let blind: &[u8; 32] = bundle.blind.as_slice().try_into().map_err(|_| BundleError::BlindLength)?;
    if bundle.logged != bundle.tlog_proof.is_some() {
        return Err(BundleError::LoggedContradicts);
    }
    let entries = LoggedEntries::verify(&bundle.listing(), policy).map_err(BundleError::Provider)?;
    let checked = CheckedReceipt::verify(&bundle.receipt, &bundle.details, blind, &entries.key_statement)?;
    let provider = entries.appraise(policy, checked.details().ended).map_err(BundleError::Grade)?;
    if bundle.receipt_id != checked.details().request_id {
        return Err(BundleError::OtherReceiptId);
    }
    let proof = bundle.tlog_proof.as_deref().ok_or(BundleError::NotYetLogged)?;
    let inclusion = verify_logged(proof, checked.receipt().bytes(), &policy.log).map_err(BundleError::NotLogged)?;
    if inclusion.checkpoint().origin() != provider.log_origin() {
        return Err(BundleError::OtherLog);
    }
    let index = inclusion.index();
    if index <= provider.statement_leaf_index() || index <= provider.evidence_leaf_index() {
        return Err(BundleError::LoggedBeforeStatement);
    }
    Ok(VerifiedReceipt { provider, checked, inclusion })
}

/// Why a bundle does not prove its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The blind is not 32 bytes.
    #[error("bundle has a blind of the wrong length")]
    BlindLength,
    /// `logged` is true without a proof, or false with one.
    #[error("bundle contradicts itself on whether the receipt is logged")]
    LoggedContradicts,
    /// Key statement or evidence do not verify, or are not logged.
    #[error("bundle has no provider that verifies")]
    Provider(#[source] ListingError),
    /// The receipt is not that provider's, or not in keeping with its statement.
    #[error("bundle has no receipt of its provider")]
    Receipt(#[from] ReceiptError),
    /// The evidence is worth less than the policy asks for.
    #[error("bundle has evidence that the policy refuses")]
    Grade(#[source] ListingError),
    /// The bundle is filed under another id than its request's.
    #[error("bundle is filed under another request")]
    OtherReceiptId,
    /// The receipt was not in a published checkpoint when the bundle was written. Everything before this was checked.
    #[error("receipt is not logged yet")]
    NotYetLogged,
    /// The receipt is not proven to be in a trusted log.
    #[error("receipt is not proven to be logged")]
    NotLogged(#[source] LogProofError),
    /// The receipt is in another log than the key statement.
    #[error("receipt and key statement are in different logs")]
    OtherLog,
    /// The receipt stands before the key statement or evidence that it rests on.
    #[error("receipt was logged before the key statement it rests on")]
    LoggedBeforeStatement,
}

impl BundleError {
    /// The check that failed; those before it passed, those after it were not made.
    pub const fn failed_check(&self) -> BundleCheck {
        match self {
            Self::BlindLength | Self::LoggedContradicts => BundleCheck::Form,
            Self::Provider(_) => BundleCheck::Provider,
            Self::Receipt(_) => BundleCheck::Receipt,
            Self::Grade(_) => BundleCheck::Grade,
            Self::OtherReceiptId => BundleCheck::ReceiptId,
            Self::NotYetLogged | Self::NotLogged(_) => BundleCheck::Logged,
            Self::OtherLog | Self::LoggedBeforeStatement => BundleCheck::Order,
        }
    }
}
