//! What an exchange sends: messages on its own stream, within its own credit.

use std::sync::Arc;

use fanlight_protocol::link::{INITIAL_CREDIT, Message};
use fanlight_protocol::problem::Problem;
use fanlight_protocol::response::Prefix;
use tokio::sync::{Semaphore, mpsc};
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
}

impl Outgoing {
    /// Waits until nobody listens any more.
    pub(crate) async fn stopped(&self) {
        tokio::select! {
            () = self.cancelled.cancelled() => {}
            () = self.link.cancelled() => {}
        }
    }

    pub(crate) async fn refuse(&self, problem: &Problem) -> Result<(), Gone> {
        let json = serde_json::to_vec(problem).expect("a problem is strings and numbers");
        self.send(&Message::Refused { status: problem.status, problem: &json }).await
    }

    pub(crate) async fn prefix(&self, prefix: &Prefix) -> Result<(), Gone> {
        self.send(&Message::Prefix(prefix.to_bytes())).await
    }

    /// A frame that needs no credit.
    pub(crate) async fn frame(&self, frame: &[u8]) -> Result<(), Gone> {
        self.send(&Message::Frame(frame)).await
    }

    /// A DATA or FINAL frame: waits for credit first.
    pub(crate) async fn sealed_frame(&self, frame: &[u8]) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.stopped() => return Err(Gone),
            () = self.credit.spend(frame.len()) => {}
        }
        self.frame(frame).await
    }

    /// The receipt, then END. A cancelled stream still takes these.
    pub(crate) async fn last(self, receipt: &[u8]) -> Result<(), Gone> {
        for message in [Message::Frame(receipt), Message::End] {
            self.messages.send(message.to_bytes(self.stream)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Ends the link, because this stream cannot be ended as the protocol wants.
    pub(crate) fn break_off(self) {
        self.link.cancel();
    }

    async fn send(&self, message: &Message<'_>) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Gone),
            sent = self.messages.send(message.to_bytes(self.stream)) => sent.map_err(|_| Gone),
        }
    }
}
