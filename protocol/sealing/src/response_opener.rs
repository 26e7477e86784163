//! The client's side of a response (SPEC §5): opens frames in their order and says when the answer is whole.

use std::fmt;

use fanlight_protocol::padding::Padding;
use fanlight_protocol::response::{Frame, FrameHeader, FrameType, Prefix, ResponseTranscript};
use fanlight_protocol::{Digest, KeyId};
use zeroize::Zeroizing;

use crate::cipher::ChunkCipher;
use crate::keys;

/// What one recipient's HPKE context leaves with the client.
pub(crate) struct RecipientSecret {
    pub(crate) key_id: KeyId,
    pub(crate) enc: [u8; 65],
    pub(crate) response_secret: Zeroizing<[u8; 32]>,
}

/// Opens the answer to one request, whichever recipient gives it.
pub struct ResponseOpener {
    request_hash: Digest,
    padding: Padding,
    secrets: Vec<RecipientSecret>,
}

impl ResponseOpener {
    pub(crate) const fn new(request_hash: Digest, padding: Padding, secrets: Vec<RecipientSecret>) -> Self {
        Self { request_hash, padding, secrets }
    }

    /// `H(header ‖ body)` of the request (SPEC §4.5).
    pub const fn request_hash(&self) -> &Digest {
        &self.request_hash
    }

    /// Derives the keys of the recipient that the prefix names (SPEC §5.1).
    ///
    /// # Errors
    /// [`OpenResponseError::UnknownRecipient`] when the request was not sealed to that key.
    pub fn begin(self, prefix: &Prefix) -> Result<OpenResponse, OpenResponseError> {
        let index = self.secrets.iter().position(|s| s.key_id == prefix.key_id).ok_or(OpenResponseError::UnknownRecipient)?;
        let RecipientSecret { key_id, enc, ref response_secret } = self.secrets[index];
        Ok(OpenResponse {
            recipient_index: index,
            key_id,
            request_hash: self.request_hash,
            padding: self.padding,
            cipher: keys::response_cipher(&enc, &prefix.response_nonce, &self.request_hash, response_secret),
            transcript: ResponseTranscript::new(prefix),
            status: None,
            stage: Stage::Content,
        })
    }
}

impl fmt::Debug for ResponseOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseOpener").field("request_hash", &self.request_hash).finish_non_exhaustive()
    }
}

/// Why a response is not to be believed. After any of these the response gives nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenResponseError {
    /// The prefix names a key that the request was not sealed to.
    #[error("answer is from no recipient of the request")]
    UnknownRecipient,
    /// A sealed frame does not open: forged, out of order, or the answer to another request. Deliberately one case.
    #[error("frame does not open")]
    Rejected,
    /// A frame opened, and its length or padding breaks SPEC §5.2: the provider is at fault.
    #[error("frame has wrong padding")]
    Padding,
    /// The first sealed frame has no HTTP status of 100 to 599: the provider is at fault.
    #[error("answer has no status")]
    Status,
    /// A frame where its type may not stand (SPEC §5.2).
    #[error("frame is out of order")]
    OutOfOrder,
    /// The response ended before FINAL and RECEIPT.
    #[error("answer is truncated")]
    Truncated,
    /// An earlier frame was refused.
    #[error("answer was already refused")]
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Content,
    Final,
    Receipt,
    Inclusion,
    Refused,
}

/// What a frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// Content, without the status.
    Content {
        /// The next bytes of the message.
        bytes: Vec<u8>,
        /// Whether they are the last (FINAL).
        last: bool,
    },
    /// The provider lives.
    Ping,
    /// The payload is a receipt; its signature and content are the caller's to check.
    Receipt,
    /// The payload is a tlog proof of the receipt; the caller's to check.
    Inclusion,
}

/// What a whole response was, to be compared with its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    /// Position of the answering recipient in the request.
    pub recipient_index: usize,
    /// KEM key of the answering recipient.
    pub key_id: KeyId,
    /// SPEC §4.5.
    pub request_hash: Digest,
    /// SPEC §5.3.
    pub response_hash: Digest,
    /// The sealed, authoritative HTTP status.
    pub status: u16,
}

/// A response in progress.
#[derive(Debug)]
pub struct OpenResponse {
    recipient_index: usize,
    key_id: KeyId,
    request_hash: Digest,
    padding: Padding,
    cipher: ChunkCipher,
    transcript: ResponseTranscript,
    status: Option<u16>,
    stage: Stage,
}

impl OpenResponse {
    /// Position of the answering recipient in the request.
    pub const fn recipient_index(&self) -> usize {
        self.recipient_index
    }

    /// KEM key of the answering recipient. Authenticated by the first frame that opens.
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// `H(header ‖ body)` of the request.
    pub const fn request_hash(&self) -> &Digest {
        &self.request_hash
    }

    /// `H(prefix ‖ sealed frames so far)` (SPEC §5.3).
    pub fn response_hash(&self) -> Digest {
        self.transcript.digest()
    }

    /// The sealed HTTP status, once the first sealed frame was opened.
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// [`OpenResponseError`]; the response is then refused for good.
    pub fn open(&mut self, frame: &Frame<'_>) -> Result<Opened, OpenResponseError> {
        let opened = self.try_open(frame);
        if opened.is_err() {
            self.stage = Stage::Refused;
        }
        opened
    }

    /// Ends the response.
    ///
    /// # Errors
    /// [`OpenResponseError::Truncated`] unless FINAL and RECEIPT have come, [`OpenResponseError::Refused`] after an error.
    pub fn finish(self) -> Result<ResponseSummary, OpenResponseError> {
        match self.stage {
            Stage::Content | Stage::Final => return Err(OpenResponseError::Truncated),
            Stage::Refused => return Err(OpenResponseError::Refused),
            Stage::Receipt | Stage::Inclusion => {}
        }
        Ok(ResponseSummary {
            recipient_index: self.recipient_index,
            key_id: self.key_id,
            request_hash: self.request_hash,
            response_hash: self.response_hash(),
            status: self.status.ok_or(OpenResponseError::Status)?,
        })
    }

    fn try_open(&mut self, frame: &Frame<'_>) -> Result<Opened, OpenResponseError> {
        match (self.stage, frame.frame_type) {
            (Stage::Refused, _) => Err(OpenResponseError::Refused),
            (_, FrameType::Ping) => Ok(Opened::Ping),
            (Stage::Content, FrameType::Data) => Ok(Opened::Content { bytes: self.open_sealed(frame)?, last: false }),
            (Stage::Content, FrameType::Final) => {
                let bytes = self.open_sealed(frame)?;
                self.stage = Stage::Final;
                Ok(Opened::Content { bytes, last: true })
            }
            (Stage::Final, FrameType::Receipt) => {
                self.stage = Stage::Receipt;
                Ok(Opened::Receipt)
            }
            (Stage::Receipt, FrameType::Inclusion) => {
                self.stage = Stage::Inclusion;
                Ok(Opened::Inclusion)
            }
            _ => Err(OpenResponseError::OutOfOrder),
        }
    }

    fn open_sealed(&mut self, frame: &Frame<'_>) -> Result<Vec<u8>, OpenResponseError> {
        let Frame { frame_type, payload } = *frame;
        let mut plain = Vec::new();
        self.cipher.open_onto(payload, &mut plain, &[frame_type.code()]).map_err(|_| OpenResponseError::Rejected)?;
        self.transcript.add_sealed_frame(&FrameHeader { frame_type, len: payload.len() }.to_bytes());
        self.transcript.add_sealed_frame(payload);

        let (len, rest) = plain.split_first_chunk().ok_or(OpenResponseError::Padding)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let exact = plain.len() == self.padding.frame_len(2 + len);
        if !exact || rest.get(len..).is_none_or(|zeros| zeros.iter().any(|b| *b != 0)) {
            return Err(OpenResponseError::Padding);
        }
        let start = if self.status.is_some() { 2 } else { 4 };
        if self.status.is_none() {
            let status = rest.get(..len).and_then(<[u8]>::first_chunk).map(|status| u16::from_be_bytes(*status));
            self.status = Some(status.filter(|status| (100..600).contains(status)).ok_or(OpenResponseError::Status)?);
        }
        plain.truncate(2 + len);
        plain.drain(..start);
        Ok(plain)
    }
}
