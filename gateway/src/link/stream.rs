//! One stream of a link: order of frames, credit, waits (SPEC §5.2, §8.1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanlight_protocol::entry::{IdentityKey, Status};
use fanlight_protocol::link::{HEADER_LEN, INITIAL_CREDIT};
use fanlight_protocol::response::{Frame, FrameType, Prefix, ResponseTranscript};
use fanlight_protocol::{Digest, RequestId};

use super::receipt::VerifiedReceipt;
use super::{CLIENT_STALL, END_WAIT, Event, FIRST_WORD_WAIT, LinkError, STREAM_SILENCE};
use crate::registry::LoggedStatement;
use crate::upload::{Cursor, Upload};

/// Credit is given in portions of at least this many bytes: a quarter of what a stream begins with, so that a provider
/// never runs dry while its client keeps up.
const GRANT: u32 = INITIAL_CREDIT / 4;

/// What a stream carries.
#[derive(Debug)]
pub struct StreamRequest {
    /// The sealed bytes.
    pub upload: Arc<Upload>,
    /// The receipt must name it.
    pub request_id: RequestId,
    /// The receipt must name it.
    pub model: String,
    /// The answer and the receipt must be under one of these.
    pub statements: Vec<Arc<LoggedStatement>>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client went away, or a wait was over.
    Cancelled,
    /// FINAL and RECEIPT were there.
    Complete,
    /// It stopped before FINAL and RECEIPT: the client sees a truncated answer.
    Truncated,
    /// It stopped before its first byte.
    Unanswered,
}

impl End {
    /// A constant word for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Unanswered => "unanswered",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before PREFIX or REFUSED.
    Waiting,
    /// Between PREFIX and FINAL.
    Answering,
    /// After FINAL.
    Final,
    /// After RECEIPT; only END may follow.
    Receipted { complete: bool },
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) request_id: RequestId,
    pub(super) request_hash: Digest,
    pub(super) model: String,
    pub(super) statements: Vec<Arc<LoggedStatement>>,
    pub(super) transcript: Option<ResponseTranscript>,
    cursor: Option<Cursor>,
    // Handed out to be sent.
    request_bytes: u64,
    sent_any: bool,
    response_bytes: u64,
    stage: Stage,
    cancelled: Option<Duration>,
    // Sealed bytes that the provider may still send.
    credit: u32,
    // Sealed bytes that the client took and no grant was sent for.
    ungranted: u32,
    // Bytes handed out that the client has not taken.
    unread: usize,
    // When something was last heard on the stream, or said.
    heard: Duration,
    taken: Duration,
}

impl Stream {
    pub(super) fn new(request: StreamRequest, now: Duration) -> Self {
        let StreamRequest { upload, request_id, model, statements } = request;
        Self {
            request_id,
            request_hash: upload.request_hash(),
            model,
            statements,
            transcript: None,
            request_bytes: 0,
            sent_any: false,
            response_bytes: 0,
            cursor: Some(Cursor::new(upload)),
            stage: Stage::Waiting,
            cancelled: None,
            credit: INITIAL_CREDIT,
            ungranted: 0,
            unread: 0,
            heard: now,
            taken: now,
        }
    }

    pub(super) fn next_request_message(&mut self, stream: u32, now: Duration) -> Option<(Vec<u8>, bool)> {
        let (message, last) = self.cursor.as_mut()?.next_message(stream);
        self.sent_any = true;
        self.request_bytes += (message.len() - HEADER_LEN) as u64;
        // The wait for the first word begins with the last byte; before that it bounds each pause of the upload.
        self.heard = now;
        if last {
            self.cursor = None;
        }
        Some((message, last))
    }

    /// `message` is a whole PREFIX message.
    pub(super) fn prefix(&mut self, stream: u32, message: &Bytes, now: Duration) -> Result<Option<Event>, LinkError> {
        if self.stage != Stage::Waiting {
            return Err(LinkError::FrameOrder);
        }
        let bytes = message.slice(HEADER_LEN..);
        let prefix = Prefix::parse(&bytes).map_err(|_| LinkError::Prefix)?;
        self.statements.retain(|s| s.statement.key_id() == prefix.key_id);
        if self.statements.is_empty() {
            return Err(LinkError::Prefix);
        }
        self.stage = Stage::Answering;
        self.transcript = Some(ResponseTranscript::new(&prefix));
        self.hand_out(bytes.len(), now);
        Ok(self.for_client(Event::Prefix { stream, prefix: bytes }))
    }

    /// `bytes` are exactly one frame.
    pub(super) fn frame(
        &mut self,
        stream: u32,
        bytes: &Bytes,
        identity: &IdentityKey,
        now: Duration,
    ) -> Result<Option<Event>, LinkError> {
        let frame = Frame::parse(bytes).map_err(LinkError::Frame)?;
        match (frame.frame_type, self.stage) {
            (FrameType::Data | FrameType::Final, Stage::Answering) => {
                let len = u32::try_from(bytes.len()).map_err(|_| LinkError::CreditExceeded)?;
                self.credit = self.credit.checked_sub(len).ok_or(LinkError::CreditExceeded)?;
                if let Some(transcript) = &mut self.transcript {
                    transcript.add_sealed_frame(bytes);
                }
                if frame.frame_type == FrameType::Final {
                    self.stage = Stage::Final;
                }
            }
            // A client that has bytes to read needs no sign of life; so no number of them can pile up.
            (FrameType::Ping, Stage::Answering | Stage::Final) if self.unread > 0 => {
                self.heard = now;
                return Ok(None);
            }
            (FrameType::Ping, Stage::Answering | Stage::Final) => {}
            (FrameType::Receipt, Stage::Waiting | Stage::Answering | Stage::Final) => {
                return self.receipt(stream, bytes, &frame, identity, now).map(Some);
            }
            _ => return Err(LinkError::FrameOrder),
        }
        self.hand_out(bytes.len(), now);
        Ok(self.for_client(Event::Frame { stream, frame: bytes.clone(), sealed: frame.frame_type.is_sealed() }))
    }

    fn receipt(
        &mut self,
        stream: u32,
        bytes: &Bytes,
        frame: &Frame<'_>,
        identity: &IdentityKey,
        now: Duration,
    ) -> Result<Event, LinkError> {
        let receipt = VerifiedReceipt::verify(frame.payload, identity, self).map_err(LinkError::Receipt)?;
        // An answer may stop in the middle, but then its receipt says so.
        let complete = self.stage == Stage::Final;
        if !complete && receipt.details().status != Status::Aborted {
            return Err(LinkError::FrameOrder);
        }
        // Nothing of an answer was passed on, so that another recipient may still give one.
        let is_answered = self.transcript.is_some();
        self.stage = Stage::Receipted { complete };
        self.hand_out(if is_answered { bytes.len() } else { 0 }, now);
        let frame = is_answered.then(|| bytes.clone());
        Ok(Event::Receipt { stream, frame, complete, receipt: Box::new(receipt) })
    }

    /// Whether this call cancelled the stream.
    pub(super) fn cancel(&mut self, now: Duration) -> bool {
        self.cursor = None;
        let cancels = self.cancelled.is_none() && !matches!(self.stage, Stage::Receipted { .. });
        if cancels {
            self.cancelled = Some(now);
        }
        cancels
    }

    /// Whether the provider knows nothing of the stream.
    pub(super) const fn is_unsent(&self) -> bool {
        !self.sent_any && self.is_waiting()
    }

    /// The credit to give, once it is enough for a message.
    pub(super) fn consumed(&mut self, n: usize, sealed: bool, now: Duration) -> Option<u32> {
        self.unread = self.unread.saturating_sub(n);
        self.taken = now;
        if !sealed || self.stage != Stage::Answering || self.cancelled.is_some() {
            return None;
        }
        // What the client took was taken off the credit before, so that neither sum can overflow.
        self.ungranted = self.ungranted.saturating_add(u32::try_from(n).unwrap_or_default());
        if self.ungranted < GRANT {
            return None;
        }
        let grant = std::mem::take(&mut self.ungranted);
        self.credit = self.credit.saturating_add(grant);
        Some(grant)
    }

    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Whether FINAL was there. Without it frames may have been sealed that were never sent.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self.stage, Stage::Final)
    }

    pub(super) const fn how_it_ended(&self) -> End {
        match (self.stage, self.cancelled) {
            (Stage::Receipted { complete: true }, _) => End::Complete,
            (_, Some(_)) => End::Cancelled,
            (Stage::Waiting, None) => End::Unanswered,
            (_, None) => {
                if self.transcript.is_none() {
                    End::Unanswered
                } else {
                    End::Truncated
                }
            }
        }
    }

    pub(super) const fn bytes(&self) -> (u64, u64) {
        (self.request_bytes, self.response_bytes)
    }

    /// Whether a wait of the stream is over, so that it should be cancelled.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        if self.cancelled.is_some() {
            return false;
        }
        let client_is_gone = self.unread > 0 && now.saturating_sub(self.taken) > CLIENT_STALL;
        let silence = now.saturating_sub(self.heard);
        match self.stage {
            Stage::Waiting => silence > FIRST_WORD_WAIT,
            Stage::Answering | Stage::Final => silence > STREAM_SILENCE || client_is_gone,
            Stage::Receipted { .. } => false,
        }
    }

    pub(super) fn is_end_overdue(&self, now: Duration) -> bool {
        let receipted = matches!(self.stage, Stage::Receipted { .. }).then_some(self.heard);
        receipted.or(self.cancelled).is_some_and(|since| now.saturating_sub(since) > END_WAIT)
    }

    fn hand_out(&mut self, n: usize, now: Duration) {
        self.heard = now;
        if self.cancelled.is_none() {
            if self.unread == 0 {
                self.taken = now;
            }
            self.unread += n;
            self.response_bytes += n as u64;
        }
    }

    fn for_client(&self, event: Event) -> Option<Event> {
        self.cancelled.is_none().then_some(event)
    }
}
