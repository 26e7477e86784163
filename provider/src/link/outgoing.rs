//! What an exchange sends: messages on its own stream, within its own credit.

use std::sync::Arc;

use fanlight_protocol::link::{INITIAL_CREDIT, Message};
use fanlight_protocol::problem::Problem;
use fanlight_protocol::response::Prefix;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Most credit that a stream may gather: a gateway that grants more breaks the protocol.
const MAX_CREDIT: usize = 64 << 20;

/// Nobody listens to this exchange any more: it was cancelled, or the link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// Credit of one stream, granted by the link's reader and spent by its exchange.
#[derive(Clone, Debug)]
pub(crate) struct Credit(Arc<Semaphore>);

impl Credit {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(INITIAL_CREDIT as usize)))
    }

    /// False when the gateway has granted more than makes sense.
    pub(super) fn grant(&self, bytes: u32) -> bool {
        let sane = self.0.available_permits() + bytes as usize <= MAX_CREDIT;
        if sane {
            self.0.add_permits(bytes as usize);
        }
        sane
    }

    async fn spend(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a frame is at most 65,541 bytes");
        self.0.acquire_many(bytes).await.expect("the semaphore is never closed").forget();
    }
}

/// The sending half of one stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) stream: u32,
    pub(super) messages: mpsc::Sender<Vec<u8>>,
    pub(super) credit: Credit,
    /// CANCEL from the gateway.
    pub(super) cancelled: CancellationToken,
    /// The link itself ends, also when something on it broke that cannot be mended.
    pub(super) link: CancellationToken,
    /// This stream's share of the capacity.
    pub(super) slot: OwnedSemaphorePermit,
}

impl Outgoing {
    /// Waits until nobody listens any more.
    pub(crate) async fn stopped(&self) {
        tokio::select! {
            () = self.cancelled.cancelled() => {}
            () = self.link.cancelled() => {}
        }
    }

    /// Ends the stream without an answer. A cancelled stream takes this too: the gateway waits for its end.
    pub(crate) async fn refuse(self, problem: &Problem) -> Result<(), Gone> {
        let json = serde_json::to_vec(problem).expect("a problem is strings and numbers");
        self.end(&[Message::Refused { status: problem.status, problem: &json }]).await
    }

    pub(crate) async fn prefix(&self, prefix: &Prefix) -> Result<(), Gone> {
        self.send(&Message::Prefix(prefix.to_bytes())).await
    }

    /// Waits for the credit that a DATA or FINAL frame of `len` bytes needs, and spends it. Cancel-safe.
    pub(crate) async fn credit(&self, len: usize) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Gone),
            () = self.credit.spend(len) => Ok(()),
        }
    }

    /// A frame that needs no credit, or has it.
    pub(crate) async fn frame(&self, frame: &[u8]) -> Result<(), Gone> {
        self.send(&Message::Frame(frame)).await
    }

    /// The receipt, then END. A cancelled stream still takes these.
    pub(crate) async fn last(self, receipt: &[u8]) -> Result<(), Gone> {
        self.end(&[Message::Frame(receipt), Message::End]).await
    }

    /// Ends the link, because this stream cannot be ended as the protocol wants.
    pub(crate) fn break_off(self) {
        self.link.cancel();
    }

    async fn end(self, messages: &[Message<'_>]) -> Result<(), Gone> {
        let Self { stream, messages: queue, link, slot, .. } = self;
        // Before the gateway hears of the end: it may send the next request at once.
        drop(slot);
        for message in messages {
            tokio::select! {
                biased;
                // A queue that nobody empties any more must not hold up the next link.
                () = link.cancelled() => return Err(Gone),
                sent = queue.send(message.to_bytes(stream)) => sent.map_err(|_| Gone)?,
            }
        }
        Ok(())
    }

    async fn send(&self, message: &Message<'_>) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Gone),
            sent = self.messages.send(message.to_bytes(self.stream)) => sent.map_err(|_| Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_queue_that_nobody_empties_does_not_hold_up_the_end_of_the_link() {
        let (messages, _queue) = mpsc::channel(1);
        messages.send(Vec::new()).await.unwrap();
        let slots = Arc::new(Semaphore::new(1));
        let link = CancellationToken::new();
        let out = Outgoing {
            stream: 1,
            messages,
            credit: Credit::new(),
            cancelled: CancellationToken::new(),
            link: link.clone(),
            slot: Arc::clone(&slots).try_acquire_owned().unwrap(),
        };
        let last = tokio::spawn(out.last(b"receipt"));
        // The slot is free before the end is sent.
        drop(slots.acquire().await.unwrap());
        link.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), last).await.expect("it ends");
        assert_eq!(ended.unwrap(), Err(Gone));
    }
}
