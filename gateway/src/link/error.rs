//! Why a link ends, and why a stream is not opened.

use fanlight_protocol::ParseError;
use fanlight_protocol::problem::{Problem, ProblemCode};

use super::receipt::ReceiptError;
use crate::enrol::EnrolError;
use crate::registry::TooManyStatements;

/// How the provider broke the protocol; the connection ends. Display is constant for each variant's [`LinkError::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// More sealed bytes than the stream had credit for.
    #[error("stream exceeds its credit")]
    CreditExceeded,
    /// No END in time after a CANCEL or a RECEIPT: why a shell closes a connection after [`Event::Stalled`](super::Event::Stalled).
    #[error("stream was not ended in time")]
    EndTimedOut,
    /// The HELLO or a STATEMENT is not good.
    #[error("provider is not enrolled")]
    Enrol(#[source] EnrolError),
    /// A frame does not parse.
    #[error("frame is malformed")]
    Frame(#[source] ParseError),
    /// A frame in the wrong order, or of a type that is the gateway's.
    #[error("frame is out of order")]
    FrameOrder,
    /// No HELLO in time.
    #[error("no hello in time")]
    HelloTimedOut,
    /// A message does not parse.
    #[error("message is malformed")]
    Message(#[source] ParseError),
    /// The prefix is malformed or names a key that is no recipient of the request.
    #[error("prefix names no recipient of this provider")]
    Prefix,
    /// The receipt does not verify.
    #[error("receipt is not valid")]
    Receipt(#[source] ReceiptError),
    /// A refusal with a status that is no error.
    #[error("refusal has a status that is no error")]
    RefusalStatus,
    /// More key statements that still count than one provider may have.
    #[error("key statement is one too many")]
    Statements(#[source] TooManyStatements),
    /// A message for a stream that is not open.
    #[error("stream is not open")]
    UnknownStream,
    /// A message that does not belong in this state.
    #[error("message is unexpected")]
    Unexpected,
}

impl LinkError {
    /// A constant word for counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::CreditExceeded => "credit_exceeded",
            Self::EndTimedOut => "end_timed_out",
            Self::Enrol(_) => "enrol",
            Self::Frame(_) => "frame",
            Self::FrameOrder => "frame_order",
            Self::HelloTimedOut => "hello_timed_out",
            Self::Message(_) => "message",
            Self::Prefix => "prefix",
            Self::Receipt(_) => "receipt",
            Self::RefusalStatus => "refusal_status",
            Self::Statements(_) => "statements",
            Self::UnknownStream => "unknown_stream",
            Self::Unexpected => "unexpected",
        }
    }

    /// What a REJECTED message tells the provider.
    pub fn problem(self) -> Problem {
        let cause = std::error::Error::source(&self).map(|cause| format!(": {cause}")).unwrap_or_default();
        Problem::with_message(ProblemCode::RejectedRequest, format!("The link ends: {self}{cause}."))
    }
}

/// Why a stream is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The provider is not enrolled yet.
    #[error("provider is not enrolled")]
    NotEnrolled,
    /// Every stream number of the connection is used.
    #[error("stream numbers are used up")]
    OutOfStreams,
    /// A stream was not ended in time: the connection finishes what is open.
    #[error("provider stalled")]
    Stalled,
}
