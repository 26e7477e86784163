//! An answer on its way to its client: pieces from the link's task, credit back to it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::link::{Command, LinkHandle};

/// What a link's task sends to one stream's client.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The answer is whole; the body ends as it should. Without this, the body is cut off.
    Finished,
    /// Prefix or frame.
    Part { bytes: Bytes, sealed: bool },
    /// The provider did not open the request.
    Refused { status: u16, problem: Bytes },
}

/// The answer stopped before FINAL and RECEIPT. Given to the HTTP connection, which it ends abnormally, so that no client
/// takes it for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer stopped before its end")]
pub(crate) struct Truncated;

/// The body of an answer. Dropping it cancels its stream, and only that stream.
#[derive(Debug)]
pub(crate) struct Relay {
    link: LinkHandle,
    ticket: u64,
    // Unbounded in type, bounded by the stream's credit: see `fanlight_gateway::link`.
    pieces: mpsc::UnboundedReceiver<Piece>,
    first: Option<Bytes>,
    ended: bool,
}

impl Relay {
    pub(crate) const fn new(link: LinkHandle, ticket: u64, pieces: mpsc::UnboundedReceiver<Piece>) -> Self {
        Self { link, ticket, pieces, first: None, ended: false }
    }

    /// Waits for the first word; `None` when the stream ended without one.
    pub(crate) async fn first_word(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await;
        match &piece {
            Some(Piece::Part { bytes, .. }) => self.first = Some(bytes.clone()),
            Some(Piece::Finished | Piece::Refused { .. }) | None => self.ended = true,
        }
        piece
    }

    fn consumed(&self, n: usize, sealed: bool) {
        self.link.tell(Command::Consumed { ticket: self.ticket, n, sealed });
    }
}

impl Stream for Relay {
    type Item = Result<Bytes, Truncated>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(prefix) = self.first.take() {
            self.consumed(prefix.len(), false);
            return Poll::Ready(Some(Ok(prefix)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Part { bytes, sealed }) => {
                self.consumed(bytes.len(), sealed);
                Some(Ok(bytes))
            }
            Some(Piece::Finished) => {
                self.ended = true;
                None
            }
            Some(Piece::Refused { .. }) | None => {
                self.ended = true;
                Some(Err(Truncated))
            }
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.ended {
            self.link.tell(Command::Abort { ticket: self.ticket });
        }
    }
}
