//! What a receipt must show before the gateway bills by it and logs it (SPEC §7.3).

use bytes::Bytes;
use fanlight_protocol::ParseError;
use fanlight_protocol::entry::{EntryError, IdentityKey, Receipt, ReceiptDetails, Signed};
use fanlight_protocol::response::ReceiptPayload;

use super::stream::Stream;

/// Why a receipt does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// More cached input than input, more reasoning than output, or an end before the start.
    #[error("usage or times contradict themselves")]
    Contradiction,
    /// The details are not those that were committed to.
    #[error("details do not open the commitment")]
    Details(#[source] EntryError),
    /// The entry is not this provider's receipt.
    #[error("entry is not a receipt of this provider")]
    Entry(#[source] EntryError),
    /// Another model, other weights or another build than the key statement's.
    #[error("receipt is for another model or build")]
    Model,
    /// The payload does not parse.
    #[error("payload is malformed")]
    Payload(#[source] ParseError),
    /// Another request id or hash.
    #[error("receipt is for another request")]
    Request,
    /// Another response hash than that of the frames that passed.
    #[error("receipt is for another response")]
    Response,
    /// Under a key statement that the request was not sealed to.
    #[error("receipt is under another key statement")]
    Statement,
}

/// A receipt that is this provider's, for this request, under this key statement.
#[derive(Debug)]
pub struct VerifiedReceipt {
    receipt: Signed<Receipt>,
    details: ReceiptDetails,
}

impl VerifiedReceipt {
    pub(super) fn verify(payload: &[u8], identity: &IdentityKey, stream: &Stream) -> Result<Self, ReceiptError> {
        let payload = ReceiptPayload::parse(payload).map_err(ReceiptError::Payload)?;
        let receipt = Signed::<Receipt>::verify(payload.receipt, identity).map_err(ReceiptError::Entry)?;
        let named = stream.statements.iter().find(|s| s.statement.digest() == receipt.statement_digest);
        let statement = &named.ok_or(ReceiptError::Statement)?.statement;
        let details = receipt.open(payload.details, &payload.blind).map_err(ReceiptError::Details)?;
        if details.request_id != stream.request_id || details.request_hash != stream.request_hash {
            return Err(ReceiptError::Request);
        }
        let offer = statement.offer(&details.model).filter(|offer| offer.weights_digest == details.weights_digest);
        if details.model != stream.model || offer.is_none() || details.build_measurement != statement.build_measurement {
            return Err(ReceiptError::Model);
        }
        let usage = details.usage;
        if usage.cached_input > usage.input || usage.reasoning > usage.output || details.started > details.ended {
            return Err(ReceiptError::Contradiction);
        }
        let passed = stream.transcript.as_ref().filter(|_| stream.is_final());
        if passed.is_some_and(|transcript| transcript.digest() != details.response_hash) {
            return Err(ReceiptError::Response);
        }
        Ok(Self { receipt, details })
    }

    /// What was served, for metering.
    pub const fn details(&self) -> &ReceiptDetails {
        &self.details
    }

    /// The entry for the log.
    pub fn entry(&self) -> Bytes {
        Bytes::copy_from_slice(self.receipt.bytes())
    }
}
