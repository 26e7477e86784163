//! The clear layer of a sealed response: prefix and frames (SPEC §5).

use crate::bytes::{ParseError, Reader, write_lp32};
use crate::entry::MAX_ENTRY_LEN;
use crate::id::{Digest, KeyId};

/// Format version in the first byte.
pub const VERSION: u8 = 0x01;
/// Longest plaintext of a DATA or FINAL frame in bytes, with length and padding.
pub const MAX_PLAINTEXT_LEN: usize = 16_384;
/// Longest payload of a DATA or FINAL frame in bytes.
pub const MAX_SEALED_LEN: usize = MAX_PLAINTEXT_LEN + 16;
/// Longest payload of a RECEIPT or INCLUSION frame in bytes.
pub const MAX_CLEAR_LEN: usize = 65_536;

/// `version(1) ‖ key_id(16) ‖ response_nonce(32)`, before the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The recipient that answers.
    pub key_id: KeyId,
    /// Fresh for every response.
    pub response_nonce: [u8; 32],
}

impl Prefix {
    /// Length in bytes.
    pub const LEN: usize = 1 + 16 + 32;

    /// The prefix bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [VERSION; Self::LEN];
        out[1..17].copy_from_slice(&self.key_id.0);
        out[17..].copy_from_slice(&self.response_nonce);
        out
    }

    /// Parses exactly one prefix.
    ///
    /// # Errors
    /// [`ParseError::Version`], [`ParseError::Truncated`], [`ParseError::TrailingBytes`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(bytes);
        let version = r.u8("version")?;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let prefix = Self { key_id: KeyId(r.array("key_id")?), response_nonce: r.array("response_nonce")? };
        r.finish()?;
        Ok(prefix)
    }
}

/// What a frame is for (SPEC §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Sealed content.
    Data,
    /// Sealed content, the last.
    Final,
    /// Nothing; shows that the provider lives.
    Ping,
    /// The receipt with its details, in clear.
    Receipt,
    /// A tlog proof of the receipt, in clear; from the gateway.
    Inclusion,
}

impl FrameType {
    /// The type byte; also the AAD of sealed frames.
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 0x01,
            Self::Final => 0x02,
            Self::Ping => 0x03,
            Self::Receipt => 0x10,
            Self::Inclusion => 0x11,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Data),
            0x02 => Some(Self::Final),
            0x03 => Some(Self::Ping),
            0x10 => Some(Self::Receipt),
            0x11 => Some(Self::Inclusion),
            _ => None,
        }
    }

    /// Whether the frame is sealed: it is counted in the transcript and needs credit on a link.
    pub const fn is_sealed(self) -> bool {
        matches!(self, Self::Data | Self::Final)
    }

    const fn max_len(self) -> usize {
        match self {
            Self::Data | Self::Final => MAX_SEALED_LEN,
            Self::Ping => 0,
            Self::Receipt | Self::Inclusion => MAX_CLEAR_LEN,
        }
    }
}

/// `type(1) ‖ length(4)`: what stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is for.
    pub frame_type: FrameType,
    /// Payload length in bytes, within the limits of the type.
    pub len: usize,
}

impl FrameHeader {
    /// Length in bytes.
    pub const LEN: usize = 5;

    /// Parses a frame header; nothing needs to be allocated before this has accepted the length.
    ///
    /// # Errors
    /// [`ParseError::Invalid`] for an unknown type, [`ParseError::TooLong`] for a payload above the type's limit.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, ParseError> {
        let [code, len @ ..] = *bytes;
        let frame_type = FrameType::from_code(code).ok_or(ParseError::Invalid("frame type"))?;
        let len = u32::from_be_bytes(len) as usize;
        if len > frame_type.max_len() {
            return Err(ParseError::TooLong("frame"));
        }
        Ok(Self { frame_type, len })
    }

    /// The header bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let len = u32::try_from(self.len).expect("a frame is at most 65,536 bytes").to_be_bytes();
        [self.frame_type.code(), len[0], len[1], len[2], len[3]]
    }
}

/// One frame, borrowed from the bytes that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the frame is for.
    pub frame_type: FrameType,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses bytes that are exactly one frame.
    ///
    /// # Errors
    /// Those of [`FrameHeader::parse`], [`ParseError::Truncated`], [`ParseError::TrailingBytes`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(bytes);
        let header = FrameHeader::parse(&r.array("frame")?)?;
        let payload = r.take(header.len, "frame")?;
        r.finish()?;
        Ok(Self { frame_type: header.frame_type, payload })
    }

    /// The frame bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = FrameHeader { frame_type: self.frame_type, len: self.payload.len() };
        [&header.to_bytes()[..], self.payload].concat()
    }
}

/// Payload of a RECEIPT frame: `lp32(receipt entry) ‖ lp32(details) ‖ blind(32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptPayload<'a> {
    /// The signed entry (SPEC §7.3).
    pub receipt: &'a [u8],
    /// Its details, deterministic CBOR, not public.
    pub details: &'a [u8],
    /// Blinds the commitment in the receipt.
    pub blind: [u8; 32],
}

impl<'a> ReceiptPayload<'a> {
    /// Parses a payload.
    ///
    /// # Errors
    /// [`ParseError`] by field.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(payload);
        let receipt = r.lp32(MAX_ENTRY_LEN, "receipt")?;
        let details = r.lp32(MAX_CLEAR_LEN, "details")?;
        let blind = r.array("blind")?;
        r.finish()?;
        Ok(Self { receipt, details, blind })
    }

    /// The payload bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.receipt.len() + self.details.len() + 40);
        write_lp32(&mut out, self.receipt);
        write_lp32(&mut out, self.details);
        out.extend_from_slice(&self.blind);
        out
    }
}

/// Cuts a stream of response bytes into frames, whatever the pieces they arrive in.
///
/// Holds at most one frame: its length is judged before its payload is kept.
#[derive(Debug, Default)]
pub struct FrameSplitter {
    prefix: Option<Prefix>,
    held: Vec<u8>,
}

/// What [`FrameSplitter::next_item`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponseItem {
    /// The prefix; always the first.
    Prefix(Prefix),
    /// A whole frame, header included; parse it with [`Frame::parse`].
    Frame(Vec<u8>),
}

impl FrameSplitter {
    /// Takes the next bytes of the response. Drain [`FrameSplitter::next_item`] before the next call, so that at most
    /// one piece and one frame are held.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole item, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`ParseError`] when the bytes are no response; the splitter is of no use after that.
    pub fn next_item(&mut self) -> Result<Option<ResponseItem>, ParseError> {
        if self.prefix.is_none() {
            let Some(bytes) = self.held.get(..Prefix::LEN) else { return Ok(None) };
            let prefix = Prefix::parse(bytes)?;
            self.prefix = Some(prefix);
            self.held.drain(..Prefix::LEN);
            return Ok(Some(ResponseItem::Prefix(prefix)));
        }
        let Some(header) = self.held.first_chunk() else { return Ok(None) };
        let len = FrameHeader::LEN + FrameHeader::parse(header)?.len;
        if self.held.len() < len {
            return Ok(None);
        }
        let rest = self.held.split_off(len);
        let frame = std::mem::replace(&mut self.held, rest);
        Ok(Some(ResponseItem::Frame(frame)))
    }
}

/// Gathers `response_hash` (SPEC §5.3) as a response is written or read.
#[derive(Clone, Debug)]
pub struct ResponseTranscript {
    hash: sha2::Sha256,
}

impl ResponseTranscript {
    /// Starts with the prefix.
    pub fn new(prefix: &Prefix) -> Self {
        let mut hash = sha2::Sha256::default();
        sha2::Digest::update(&mut hash, prefix.to_bytes());
        Self { hash }
    }

    /// Adds a DATA or FINAL frame, header included.
    pub fn add_sealed_frame(&mut self, frame: &[u8]) {
        sha2::Digest::update(&mut self.hash, frame);
    }

    /// `H(prefix ‖ sealed frames so far)`.
    pub fn digest(&self) -> Digest {
        Digest(sha2::Digest::finalize(self.hash.clone()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_same_frames() {
        let prefix = Prefix { key_id: KeyId([1; 16]), response_nonce: [2; 32] };
        let frames = [
            Frame { frame_type: FrameType::Data, payload: &[3; 300] }.to_bytes(),
            Frame { frame_type: FrameType::Ping, payload: &[] }.to_bytes(),
            Frame { frame_type: FrameType::Final, payload: &[4; 17] }.to_bytes(),
        ];
        let bytes = [&prefix.to_bytes()[..], &frames.concat()].concat();
        for size in 1..bytes.len() {
            let mut splitter = FrameSplitter::default();
            let mut items = Vec::new();
            for piece in bytes.chunks(size) {
                splitter.push(piece);
                while let Some(item) = splitter.next_item().unwrap() {
                    items.push(item);
                }
            }
            let wanted = frames.iter().cloned().map(ResponseItem::Frame);
            assert!(items.into_iter().eq([ResponseItem::Prefix(prefix)].into_iter().chain(wanted)), "pieces of {size}");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_payload_arrives() {
        let mut splitter = FrameSplitter::default();
        splitter.push(&Prefix { key_id: KeyId([1; 16]), response_nonce: [2; 32] }.to_bytes());
        splitter.push(&[0x01, 0xff, 0xff, 0xff, 0xff]);
        assert!(splitter.next_item().is_ok());
        assert_eq!(splitter.next_item(), Err(ParseError::TooLong("frame")));
    }
}
