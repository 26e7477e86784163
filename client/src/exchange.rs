//! One request and its answer (SPEC §5): content as it comes, and an end that is either proven or an error.

use std::sync::Arc;

use bytes::Bytes;
use fanlight_protocol::bundle::{BundleFormat, ReceiptBundle};
use fanlight_protocol::entry::Status;
use fanlight_protocol::response::{Frame, ReceiptPayload, ResponseItem};
use fanlight_protocol::{ParseError, RequestId};
use fanlight_sealing::{OpenResponse, OpenResponseError, Opened, ResponseOpener};
use fanlight_verifier::{CheckedReceipt, ReceiptError, check_receipt};
use futures_util::stream::{self, Stream};

use crate::client::Shared;
use crate::directory::ListedProvider;
use crate::event::Event;
use crate::frames::{FrameReader, ReadError};
use crate::gateway::{Reply, TransportError};
use crate::settlement;
use crate::store::StoreError;

/// Why an answer is not to be relied on. What came before it may be shown, never as a whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The provider's own receipt says that the answer is not complete.
    #[error("provider gave the answer up")]
    GivenUp,
    /// The bytes are not a response of version 1: whoever sent them is at fault.
    #[error("answer is malformed")]
    Malformed(#[source] ParseError),
    /// It does not open, or its frames are out of order: it is forged, spliced or cut.
    #[error("answer does not open")]
    NotOpened(#[source] OpenResponseError),
    /// The receipt is not one of the provider that answered, for this request and this answer.
    #[error("receipt does not verify")]
    Receipt(#[source] ReceiptError),
    /// The answer is whole and verified, but its receipt could not be kept.
    #[error("receipt cannot be stored")]
    Store(#[source] StoreError),
    /// Longer than the caller allowed.
    #[error("answer is too long")]
    TooLong,
    /// The response ended, or the connection failed, before FINAL and RECEIPT had come.
    #[error("answer is truncated")]
    Truncated(#[source] Option<TransportError>),
}

impl From<ReadError> for ExchangeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(error) => Self::Malformed(error),
            ReadError::Transport(error) => Self::Truncated(Some(error)),
        }
    }
}

/// An answer in progress, from its first content on. Dropping it aborts the request.
#[derive(Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
    receipt_id: RequestId,
    model: String,
    provider: Arc<ListedProvider>,
    status: u16,
    // The content of the first frame, until it is asked for.
    first: Option<Vec<u8>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Open(Box<(FrameReader, OpenResponse)>),
    Verified(Box<CheckedReceipt>),
    Failed,
}

/// A whole answer, verified.
#[derive(Debug)]
pub struct Answer {
    /// The sealed HTTP status: the provider's word, unlike that of the gateway.
    pub status: u16,
    /// The message: JSON, or with a stream the server-sent events.
    pub body: Vec<u8>,
    /// The receipt.
    pub receipt: CheckedReceipt,
}

impl Exchange {
    /// Reads up to the first content.
    pub(crate) async fn start(
        shared: Arc<Shared>,
        receipt_id: RequestId,
        model: String,
        recipients: &[Arc<ListedProvider>],
        opener: ResponseOpener,
        reply: Reply,
    ) -> Result<Self, ExchangeError> {
        let mut frames = FrameReader::new(reply);
        let Some(ResponseItem::Prefix(prefix)) = frames.next().await? else { return Err(ExchangeError::Truncated(None)) };
        let mut open = opener.begin(&prefix).map_err(ExchangeError::NotOpened)?;
        let Some(Piece::Content(first)) = next_piece(&mut frames, &mut open).await? else {
            return Err(ExchangeError::Truncated(None));
        };
        let provider = Arc::clone(&recipients[open.recipient_index()]);
        let status = open.status().ok_or(ExchangeError::NotOpened(OpenResponseError::Status))?;
        shared.tell(Event::Answering { receipt_id, provider: Arc::clone(&provider), status });
        let stage = Stage::Open(Box::new((frames, open)));
        Ok(Self { shared, receipt_id, model, provider, status, first: Some(first), stage })
    }

    /// The id under which the receipt will be stored; also the request id.
    pub const fn receipt_id(&self) -> RequestId {
        self.receipt_id
    }

    /// Who answers. Authenticated: nobody else could have sealed the first frame.
    pub fn provider(&self) -> &ListedProvider {
        &self.provider
    }

    /// The sealed HTTP status. Of anything but 200 the content is OpenAI's error JSON.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The receipt, once [`Exchange::next`] has returned `None`.
    pub fn receipt(&self) -> Option<&CheckedReceipt> {
        match &self.stage {
            Stage::Verified(receipt) => Some(receipt),
            Stage::Open(_) | Stage::Failed => None,
        }
    }

    /// The next bytes of the message. `None` only when the answer is whole: FINAL came, the receipt verified and is
    /// stored. Do not drop the future and go on: bytes may have been taken.
    ///
    /// # Errors
    /// [`ExchangeError`]; every later call fails too.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Ok(Some(first.into()));
        }
        // Taken, so that an error, or a dropped future, leaves nothing that could end well.
        let mut stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Failed => return Err(ExchangeError::Truncated(None)),
            Stage::Verified(receipt) => {
                self.stage = Stage::Verified(receipt);
                return Ok(None);
            }
            Stage::Open(stage) => stage,
        };
        let (frames, open) = &mut *stage;
        loop {
            match next_piece(frames, open).await? {
                None => return Err(ExchangeError::Truncated(None)),
                Some(Piece::Content(bytes)) if bytes.is_empty() => {}
                Some(Piece::Content(bytes)) => {
                    self.stage = Stage::Open(stage);
                    return Ok(Some(bytes.into()));
                }
                Some(Piece::Receipt(payload)) => {
                    let (frames, open) = *stage;
                    let receipt = self.finish(frames, open, &payload).await?;
                    self.stage = Stage::Verified(Box::new(receipt));
                    return Ok(None);
                }
            }
        }
    }

    /// The message as a stream; it ends without an error only where [`Exchange::next`] returns `None`.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ExchangeError>> + Send {
        stream::try_unfold(self, async |mut exchange| Ok(exchange.next().await?.map(|bytes| (bytes, exchange))))
    }

    /// The whole answer, if it has at most `max_len` bytes.
    ///
    /// # Errors
    /// [`ExchangeError`], [`ExchangeError::TooLong`] among them.
    pub async fn into_answer(mut self, max_len: usize) -> Result<Answer, ExchangeError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await? {
            if body.len() + bytes.len() > max_len {
                return Err(ExchangeError::TooLong);
            }
            body.extend_from_slice(&bytes);
        }
        match self.stage {
            Stage::Verified(receipt) => Ok(Answer { status: self.status, body, receipt: *receipt }),
            Stage::Open(_) | Stage::Failed => Err(ExchangeError::Truncated(None)),
        }
    }

    /// Checks and stores the receipt; the rest of the response, with the inclusion proof, is read in the background.
    async fn finish(&self, frames: FrameReader, open: OpenResponse, payload: &[u8]) -> Result<CheckedReceipt, ExchangeError> {
        let summary = open.finish().map_err(ExchangeError::NotOpened)?;
        let payload = ReceiptPayload::parse(payload).map_err(ExchangeError::Malformed)?;
        let exchanged = fanlight_verifier::Exchange {
            request_id: self.receipt_id,
            key_id: summary.key_id,
            model: &self.model,
            request_hash: summary.request_hash,
            response_hash: summary.response_hash,
        };
        let checked = check_receipt(&payload, self.provider.verified(), &exchanged).map_err(ExchangeError::Receipt)?;
        let listing = self.provider.listing().clone();
        let bundle = ReceiptBundle {
            format: BundleFormat::V1,
            receipt_id: self.receipt_id,
            receipt: payload.receipt.to_vec(),
            details: payload.details.to_vec(),
            blind: payload.blind.to_vec(),
            key_statement: listing.key_statement,
            key_statement_proof: listing.key_statement_proof,
            evidence: listing.evidence,
            evidence_proof: listing.evidence_proof,
            logged: false,
            tlog_proof: None,
        };
        self.shared.save(bundle.clone()).await.map_err(ExchangeError::Store)?;
        self.shared.tell(Event::Receipt {
            receipt_id: self.receipt_id,
            provider_id: self.provider.verified().provider_id(),
            counter: checked.receipt().counter,
        });
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { settlement::settle(&shared, bundle, Some(frames), &settlement::PAUSES).await });
        // A receipt is evidence however the exchange ended; an answer that was given up is still no answer.
        if (200..300).contains(&self.status) && checked.details().status != Status::Complete {
            return Err(ExchangeError::GivenUp);
        }
        Ok(checked)
    }
}

enum Piece {
    Content(Vec<u8>),
    /// The payload of the RECEIPT frame.
    Receipt(Vec<u8>),
}

/// Opens frames up to the next that means something; `None` when the response ends.
async fn next_piece(frames: &mut FrameReader, open: &mut OpenResponse) -> Result<Option<Piece>, ExchangeError> {
    while let Some(item) = frames.next().await? {
        let ResponseItem::Frame(bytes) = item else { unreachable!("the splitter gives one prefix, and gives it first") };
        let frame = Frame::parse(&bytes).map_err(ExchangeError::Malformed)?;
        match open.open(&frame).map_err(ExchangeError::NotOpened)? {
            Opened::Content { bytes, .. } => return Ok(Some(Piece::Content(bytes))),
            Opened::Ping => {}
            Opened::Receipt => return Ok(Some(Piece::Receipt(frame.payload.to_vec()))),
            // After RECEIPT, where nobody asks for pieces any more.
            Opened::Inclusion => return Err(ExchangeError::NotOpened(OpenResponseError::OutOfOrder)),
        }
    }
    Ok(None)
}
