//! What comes back for one request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::Zeroizing;

use super::scheduler::Command;

/// Pieces of text that may wait for a slow consumer.
///
/// At this many the request *pauses*: it keeps its slot and cache and decodes no further until one
/// piece is taken. The other requests do not notice. A consumer that never comes back must be
/// dropped by whoever holds the stream: the engine has no clock.
pub const MAX_PENDING_PIECES: usize = 64;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string appeared.
    Stop,
    /// `max_output_tokens`, or the context, was used up.
    Length,
    /// [`GenerationStream::abort`] was called.
    Aborted,
}

/// Tokens of one request, as the receipt bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub input: u32,
    /// Of `input`, those taken from a cache of earlier work.
    pub cached: u32,
    /// Tokens generated, those of a stop string included, the end-of-sequence token not.
    pub output: u32,
    /// Of `output`, those spent on hidden reasoning.
    pub reasoning: u32,
}

/// One event of a [`GenerationStream`]: any number of `Text`, then one of the others, then the end.
#[non_exhaustive]
pub enum GenerationEvent {
    /// More text: never empty, never half a character.
    Text {
        /// The text; wiped when dropped, never printed.
        text: Zeroizing<String>,
        /// Tokens that became certain with this piece. Over a stream they may sum to less than
        /// [`Usage::output`], for tokens that yield no text.
        n_tokens: u32,
    },
    /// Generation ended as it should.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// Generation broke off.
    Failed {
        /// What went wrong.
        failure: GenerationFailure,
        /// What it had taken until then.
        usage: Usage,
    },
}

impl fmt::Debug for GenerationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { n_tokens, .. } => f.debug_struct("Text").field("n_tokens", n_tokens).finish_non_exhaustive(),
            Self::Finished { reason, usage } => f.debug_struct("Finished").field("reason", reason).field("usage", usage).finish(),
            Self::Failed { failure, usage } => f.debug_struct("Failed").field("failure", failure).field("usage", usage).finish(),
        }
    }
}

/// Why an admitted request broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationFailure {
    /// The device failed; the engine has logged what it said.
    #[error("run the model")]
    Backend,
    /// The engine shut down before the request ended.
    #[error("reach the end: the engine has stopped")]
    Stopped,
}

/// The events of one request.
///
/// Dropping it cancels the request: its slot and cache are free before the engine's next step.
pub struct GenerationStream {
    id: u64,
    input_tokens: u32,
    events: UnboundedReceiver<GenerationEvent>,
    /// Pieces sent and not yet taken, shared with the [`EventSender`].
    pending: Arc<AtomicUsize>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

impl GenerationStream {
    /// Tokens of the rendered prompt.
    pub fn input_tokens(&self) -> u32 {
        self.input_tokens
    }

    /// Ends the request early. Text that was generated already still arrives, then
    /// `Finished` with [`FinishReason::Aborted`] and the usage, unless the end came first.
    pub fn abort(&self) {
        // A stopped engine has nothing left to abort; the stream says so itself.
        let _ = self.commands.send(Command::Abort(self.id));
    }
}

impl Stream for GenerationStream {
    type Item = GenerationEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(cx));
        match &event {
            Some(GenerationEvent::Text { .. }) => {
                // One counter, changed by read-modify-write only: either the engine sees the room
                // made here, or this sees the full queue at which the engine paused.
                if self.pending.fetch_sub(1, Ordering::AcqRel) == MAX_PENDING_PIECES {
                    let _ = self.commands.send(Command::Resume);
                }
            }
            _ => self.ended = true,
        }
        Poll::Ready(Some(event.unwrap_or(GenerationEvent::Failed {
            failure: GenerationFailure::Stopped,
            usage: Usage { input: self.input_tokens, ..Usage::default() },
        })))
    }
}

impl Drop for GenerationStream {
    fn drop(&mut self) {
        if !self.ended {
            self.abort();
        }
    }
}

impl fmt::Debug for GenerationStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationStream")
            .field("id", &self.id)
            .field("input_tokens", &self.input_tokens)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// The engine's end of a [`GenerationStream`]. Never waits.
#[derive(Debug)]
pub(super) struct EventSender {
    events: UnboundedSender<GenerationEvent>,
    pending: Arc<AtomicUsize>,
}

impl EventSender {
    /// Both ends for the request `id`.
    pub(super) fn new(id: u64, input_tokens: u32, commands: mpsc::Sender<Command>) -> (Self, GenerationStream) {
        let (events, receiver) = unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let stream =
            GenerationStream { id, input_tokens, events: receiver, pending: Arc::clone(&pending), commands, ended: false };
        (Self { events, pending }, stream)
    }

    /// Whether another piece may be generated.
    pub(super) fn has_room(&self) -> bool {
        self.pending.load(Ordering::Acquire) < MAX_PENDING_PIECES
    }

    pub(super) fn text(&self, text: Zeroizing<String>, n_tokens: u32) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        // A consumer that is gone has sent `Abort`, which ends the request at the next step.
        let _ = self.events.send(GenerationEvent::Text { text, n_tokens });
    }

    pub(super) fn end(self, event: GenerationEvent) {
        let _ = self.events.send(event);
    }
}
