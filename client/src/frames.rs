//! Reads the frames of a response from the network, as many bytes at a time as are needed.

use bytes::Bytes;
use fanlight_protocol::ParseError;
use fanlight_protocol::response::{FrameSplitter, ResponseItem};

use crate::gateway::{Reply, TransportError};

/// Bytes handed to the splitter at once: the network's pieces may be far larger than a frame, and the splitter moves
/// what it holds with every frame that it cuts off.
const PIECE_LEN: usize = 16 * 1024;

/// Why there is no next frame.
#[derive(Debug)]
pub(crate) enum ReadError {
    Malformed(ParseError),
    Transport(TransportError),
}

#[derive(Debug)]
pub(crate) struct FrameReader {
    reply: Reply,
    splitter: FrameSplitter,
    // Received, not yet handed to the splitter.
    received: Bytes,
}

impl FrameReader {
    pub(crate) fn new(reply: Reply) -> Self {
        Self { reply, splitter: FrameSplitter::default(), received: Bytes::new() }
    }

    /// The prefix, then frames; `None` when the response ends, inside a frame or between two.
    pub(crate) async fn next(&mut self) -> Result<Option<ResponseItem>, ReadError> {
        loop {
            if let Some(item) = self.splitter.next_item().map_err(ReadError::Malformed)? {
                return Ok(Some(item));
            }
            if self.received.is_empty() {
                let Some(bytes) = self.reply.next().await.map_err(ReadError::Transport)? else { return Ok(None) };
                self.received = bytes;
            }
            let piece = self.received.split_to(PIECE_LEN.min(self.received.len()));
            self.splitter.push(&piece);
        }
    }
}
