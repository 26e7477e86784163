//! The provider's side of a response (SPEC §5).

use std::fmt;

use fanlight_protocol::padding::Padding;
use fanlight_protocol::response::{FrameHeader, FrameType, MAX_PLAINTEXT_LEN, Prefix, ResponseTranscript};
use fanlight_protocol::{Digest, KeyId};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cipher::ChunkCipher;
use crate::keys;

/// Most content of one frame in bytes: its plaintext less `length(2)`.
pub const MAX_CONTENT_LEN: usize = MAX_PLAINTEXT_LEN - 2;

const TAG_LEN: usize = 16;

/// What an opened request leaves for its answer. Answering consumes it: there is one response to a request.
pub struct ResponseKeys {
    pub(crate) key_id: KeyId,
    pub(crate) enc: [u8; 65],
    pub(crate) response_secret: Zeroizing<[u8; 32]>,
    pub(crate) request_hash: Digest,
    pub(crate) padding: Padding,
}

impl ResponseKeys {
    /// Hash of the request that is answered (SPEC §4.5).
    pub const fn request_hash(&self) -> &Digest {
        &self.request_hash
    }

    /// Draws the response nonce and derives the response keys (SPEC §5.1).
    pub fn start(self, rng: &mut impl CryptoRng) -> ResponseStart {
        let mut response_nonce = [0; 32];
        rng.fill_bytes(&mut response_nonce);
        let prefix = Prefix { key_id: self.key_id, response_nonce };
        let cipher = keys::response_cipher(&self.enc, &response_nonce, &self.request_hash, &self.response_secret);
        ResponseStart { prefix, cipher, transcript: ResponseTranscript::new(&prefix), padding: self.padding }
    }
}

impl fmt::Debug for ResponseKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseKeys").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A response with its prefix, before its status is known. PING frames may already be sent.
#[derive(Debug)]
pub struct ResponseStart {
    prefix: Prefix,
    cipher: ChunkCipher,
    transcript: ResponseTranscript,
    padding: Padding,
}

impl ResponseStart {
    /// The first bytes of the response.
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// `response_hash` of an answer that ends here, without a sealed frame: that of an abort.
    pub fn response_hash(&self) -> Digest {
        self.transcript.digest()
    }

    /// Settles the status, 100 to 599; it travels in the first sealed frame.
    pub fn with_status(self, status: u16) -> ResponseSealer {
        debug_assert!((100..600).contains(&status), "an HTTP status");
        let Self { cipher, transcript, padding, .. } = self;
        ResponseSealer { cipher, transcript, padding, status: Some(status) }
    }
}

/// Seals the content of one response, frame by frame.
#[derive(Debug)]
pub struct ResponseSealer {
    cipher: ChunkCipher,
    transcript: ResponseTranscript,
    padding: Padding,
    /// Until it was sealed.
    status: Option<u16>,
}

impl ResponseSealer {
    /// DATA frames, header included, that carry `content`: as many as it needs, none for nothing.
    pub fn seal_data(&mut self, content: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::with_capacity(content.len().div_ceil(MAX_CONTENT_LEN));
        let mut rest = content;
        while !rest.is_empty() {
            frames.push(self.seal_next(FrameType::Data, &mut rest));
        }
        frames
    }

    /// The last frames: FINAL, after as many DATA frames as `content` needs. With them `response_hash`.
    pub fn seal_final(mut self, content: &[u8]) -> (Vec<Vec<u8>>, Digest) {
        let mut frames = Vec::with_capacity(1);
        let mut rest = content;
        while rest.len() > self.capacity() {
            frames.push(self.seal_next(FrameType::Data, &mut rest));
        }
        frames.push(self.seal_next(FrameType::Final, &mut rest));
        (frames, self.response_hash())
    }

    /// `H(prefix ‖ sealed frames so far)` (SPEC §5.3): what the receipt of an aborted answer carries.
    pub fn response_hash(&self) -> Digest {
        self.transcript.digest()
    }

    /// How much content the next frame takes.
    const fn capacity(&self) -> usize {
        if self.status.is_some() { MAX_CONTENT_LEN - 2 } else { MAX_CONTENT_LEN }
    }

    /// `type(1) ‖ length(4) ‖ AES-256-GCM(aad = type, pt = length(2) ‖ content ‖ zeros)`; takes from `rest` what fits.
    fn seal_next(&mut self, frame_type: FrameType, rest: &mut &[u8]) -> Vec<u8> {
        let (content, after) = rest.split_at(rest.len().min(self.capacity()));
        *rest = after;
        let status = self.status.take().map(u16::to_be_bytes);
        let status = status.as_ref().map_or(&[][..], |status| status.as_slice());
        let content_len = status.len() + content.len();
        let plain_len = self.padding.frame_len(2 + content_len);
        let header = FrameHeader { frame_type, len: plain_len + TAG_LEN };

        let mut frame = Vec::with_capacity(FrameHeader::LEN + header.len);
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(&u16::try_from(content_len).expect("at most 16,382 bytes").to_be_bytes());
        frame.extend_from_slice(status);
        frame.extend_from_slice(content);
        frame.resize(FrameHeader::LEN + plain_len, 0);
        self.cipher.seal_tail(&mut frame, FrameHeader::LEN, &[frame_type.code()]);
        self.transcript.add_sealed_frame(&frame);
        frame
    }
}
