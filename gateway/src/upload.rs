//! A sealed request on its way to a provider: kept whole until the first byte of the answer, so that it can be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use fanlight_protocol::link::{MAX_REQUEST_PIECE, Message};
use fanlight_protocol::request::RequestHeader;
use fanlight_protocol::{Digest, MAX_REQUEST_LEN};
use sha2::Digest as _;

use crate::error::RequestError;

/// Longest header of an encapsulated request in bytes (SPEC §10): what is enough to parse one.
pub const MAX_HEADER_LEN: usize = RequestHeader::MAX_LEN;

/// Pieces below this length are joined, so that a body in tiny pieces costs no more memory than its bytes.
const SMALL_PIECE: usize = 1_024;
/// Joined pieces are closed at this length.
const JOINED_PIECE: usize = 16_384;

/// How many request bytes the gateway holds at once, over all requests.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, n: usize) -> bool {
        let fits = |used: usize| used.checked_add(n).filter(|used| *used <= self.limit);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// The bytes of one encapsulated request. Nothing hands them out but as link messages: the core reads the header's prefix
/// and never the body.
#[derive(Debug)]
pub struct Upload {
    budget: Arc<Budget>,
    prefix: Vec<u8>,
    pieces: Vec<Bytes>,
    joined: BytesMut,
    len: usize,
    hash: sha2::Sha256,
}

impl Upload {
    /// An empty one, whose bytes will count against `budget`.
    pub fn new(budget: Arc<Budget>) -> Self {
        let (prefix, pieces, joined) = (Vec::new(), Vec::new(), BytesMut::new());
        Self { budget, prefix, pieces, joined, len: 0, hash: sha2::Sha256::default() }
    }

    /// Adds the next bytes of the request.
    ///
    /// # Errors
    /// [`RequestError::TooLarge`] above [`MAX_REQUEST_LEN`], [`RequestError::GatewayFull`] above the budget.
    pub fn push(&mut self, piece: Bytes) -> Result<(), RequestError> {
        if piece.len() > MAX_REQUEST_LEN - self.len {
            return Err(RequestError::TooLarge);
        }
        if !self.budget.take(piece.len()) {
            return Err(RequestError::GatewayFull);
        }
        self.len += piece.len();
        self.hash.update(&piece);
        let wanted = MAX_HEADER_LEN - self.prefix.len();
        self.prefix.extend_from_slice(&piece[..wanted.min(piece.len())]);
        if piece.len() < SMALL_PIECE {
            self.joined.extend_from_slice(&piece);
        }
        if piece.len() >= SMALL_PIECE || self.joined.len() >= JOINED_PIECE {
            self.close_joined();
        }
        if piece.len() >= SMALL_PIECE {
            self.pieces.push(piece);
        }
        Ok(())
    }

    /// Declares the request complete.
    #[must_use]
    pub fn finish(mut self) -> Arc<Self> {
        self.close_joined();
        Arc::new(self)
    }

    /// The first bytes of the request, at most [`MAX_HEADER_LEN`].
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Length so far in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `request_hash = H(header ‖ body)` (SPEC §4.5).
    pub fn request_hash(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    fn close_joined(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push(self.joined.split().freeze());
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// How far an upload has been sent on one stream.
#[derive(Debug)]
pub(crate) struct Cursor {
    upload: Arc<Upload>,
    piece: usize,
    offset: usize,
    sent: usize,
}

impl Cursor {
    pub(crate) const fn new(upload: Arc<Upload>) -> Self {
        Self { upload, piece: 0, offset: 0, sent: 0 }
    }

    /// The next `REQUEST` or `REQUEST_END` message, and whether it is the last.
    pub(crate) fn next_message(&mut self, stream: u32) -> (Vec<u8>, bool) {
        let n = MAX_REQUEST_PIECE.min(self.upload.len - self.sent);
        let last = self.sent + n == self.upload.len;
        let empty = if last { Message::RequestEnd(&[]) } else { Message::Request(&[]) };
        let mut message = empty.to_bytes(stream);
        message.reserve_exact(n);
        let end = message.len() + n;
        while message.len() < end {
            let rest = &self.upload.pieces[self.piece][self.offset..];
            let part = &rest[..rest.len().min(end - message.len())];
            message.extend_from_slice(part);
            self.offset += part.len();
            if part.len() == rest.len() {
                (self.piece, self.offset) = (self.piece + 1, 0);
            }
        }
        self.sent += n;
        (message, last)
    }
}
