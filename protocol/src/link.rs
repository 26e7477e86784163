//! Messages of the provider link (SPEC §8): `stream(4) ‖ kind(1) ‖ payload`, one in each binary WebSocket message.

use crate::bytes::{ParseError, Reader, write_lp32};
use crate::entry::MAX_ENTRY_LEN;
use crate::problem::MAX_PROBLEM_LEN;
use crate::response::{FrameHeader, MAX_CLEAR_LEN, Prefix};

/// WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "fanlight.link.v1";
/// `stream(4) ‖ kind(1)`, in bytes.
pub const HEADER_LEN: usize = 5;
/// Longest message in bytes: the largest frame with both headers.
pub const MAX_MESSAGE_LEN: usize = HEADER_LEN + FrameHeader::LEN + MAX_CLEAR_LEN;
/// Longest run of request bytes in one message.
pub const MAX_REQUEST_PIECE: usize = 65_536;
/// Bytes of DATA and FINAL frames that a provider may send on a stream before any credit.
pub const INITIAL_CREDIT: u32 = 262_144;
/// Longest tlog proof in bytes.
pub const MAX_PROOF_LEN: usize = 16_384;

/// One message, borrowed from the bytes that hold it. Stream 0 is the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The gateway stops a stream.
    Cancel,
    /// Streams that the provider takes at once; 0 drains.
    Capacity(u32),
    /// The gateway's first word: a fresh nonce.
    Challenge([u8; 32]),
    /// Bytes that the provider may send more on a stream.
    Credit(u32),
    /// A stream is over.
    End,
    /// Exactly one response frame.
    Frame(&'a [u8]),
    /// The provider's first word.
    Hello(Hello<'a>),
    /// A key statement is in the log, with its proof.
    Listed(&'a [u8]),
    /// The response prefix.
    Prefix([u8; Prefix::LEN]),
    /// The provider did not open the request: an outer status and its problem JSON, to be passed on byte for byte.
    Refused {
        /// HTTP status.
        status: u16,
        /// Problem JSON.
        problem: &'a [u8],
    },
    /// A receipt that may not be in the log yet.
    Receipt(&'a [u8]),
    /// The gateway refuses the connection: problem JSON.
    Rejected(&'a [u8]),
    /// The next bytes of an encapsulated request.
    Request(&'a [u8]),
    /// Its last bytes.
    RequestEnd(&'a [u8]),
    /// A new key statement.
    Statement(&'a [u8]),
    /// The provider is listed.
    Welcome {
        /// Tlog proof of the evidence.
        evidence_proof: &'a [u8],
        /// Tlog proof of the key statement.
        statement_proof: &'a [u8],
    },
}

/// `lp32(link entry) ‖ lp32(evidence) ‖ lp32(key statement) ‖ capacity(4)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Link entry (SPEC §8.2).
    pub link_auth: &'a [u8],
    /// Evidence entry.
    pub evidence: &'a [u8],
    /// Key statement entry.
    pub key_statement: &'a [u8],
    /// Streams that the provider takes at once.
    pub capacity: u32,
}

/// Longest entry inside a HELLO in bytes, so that three of them fit one message.
pub const MAX_HELLO_ENTRY_LEN: usize = 21_000;

impl<'a> Message<'a> {
    /// Parses a message into its stream and meaning.
    ///
    /// Control messages on a numbered stream, and the reverse, are refused here.
    ///
    /// # Errors
    /// [`ParseError`] by field.
    pub fn parse(bytes: &'a [u8]) -> Result<(u32, Self), ParseError> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(ParseError::TooLong("message"));
        }
        let mut r = Reader::new(bytes);
        let stream = r.u32("stream")?;
        let kind = r.u8("kind")?;
        let message = match kind {
            0x01 => Self::Challenge(r.array("nonce")?),
            0x02 => Self::Hello(Hello {
                link_auth: r.lp32(MAX_HELLO_ENTRY_LEN, "link entry")?,
                evidence: r.lp32(MAX_HELLO_ENTRY_LEN, "evidence")?,
                key_statement: r.lp32(MAX_HELLO_ENTRY_LEN, "key statement")?,
                capacity: r.u32("capacity")?,
            }),
            0x03 => Self::Welcome {
                evidence_proof: r.lp32(MAX_PROOF_LEN, "tlog proof")?,
                statement_proof: r.lp32(MAX_PROOF_LEN, "tlog proof")?,
            },
            0x06 => Self::Capacity(r.u32("capacity")?),
            0x12 => Self::Cancel,
            0x13 => Self::Credit(r.u32("credit")?),
            0x21 => Self::Prefix(r.array("prefix")?),
            0x23 => Self::End,
            0x20 => {
                let status = r.u16("status")?;
                Self::Refused { status, problem: rest(&mut r, MAX_PROBLEM_LEN, "problem")? }
            }
            0x04 => Self::Statement(rest(&mut r, MAX_ENTRY_LEN, "key statement")?),
            0x05 => Self::Listed(rest(&mut r, MAX_PROOF_LEN, "tlog proof")?),
            0x07 => Self::Rejected(rest(&mut r, MAX_PROBLEM_LEN, "problem")?),
            0x08 => Self::Receipt(rest(&mut r, MAX_ENTRY_LEN, "receipt")?),
            0x10 => Self::Request(rest(&mut r, MAX_REQUEST_PIECE, "request")?),
            0x11 => Self::RequestEnd(rest(&mut r, MAX_REQUEST_PIECE, "request")?),
            0x22 => Self::Frame(rest(&mut r, FrameHeader::LEN + MAX_CLEAR_LEN, "frame")?),
            _ => return Err(ParseError::Invalid("kind")),
        };
        r.finish()?;
        if message.is_control() == (stream == 0) { Ok((stream, message)) } else { Err(ParseError::Invalid("stream")) }
    }

    /// The message bytes on `stream`.
    pub fn to_bytes(&self, stream: u32) -> Vec<u8> {
        let mut out = stream.to_be_bytes().to_vec();
        out.push(self.kind());
        match self {
            Self::Cancel | Self::End => {}
            Self::Capacity(n) | Self::Credit(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Challenge(nonce) => out.extend_from_slice(nonce),
            Self::Frame(bytes)
            | Self::Listed(bytes)
            | Self::Receipt(bytes)
            | Self::Rejected(bytes)
            | Self::Request(bytes)
            | Self::RequestEnd(bytes)
            | Self::Statement(bytes) => out.extend_from_slice(bytes),
            Self::Hello(hello) => {
                write_lp32(&mut out, hello.link_auth);
                write_lp32(&mut out, hello.evidence);
                write_lp32(&mut out, hello.key_statement);
                out.extend_from_slice(&hello.capacity.to_be_bytes());
            }
            Self::Prefix(prefix) => out.extend_from_slice(prefix),
            Self::Refused { status, problem } => {
                out.extend_from_slice(&status.to_be_bytes());
                out.extend_from_slice(problem);
            }
            Self::Welcome { evidence_proof, statement_proof } => {
                write_lp32(&mut out, evidence_proof);
                write_lp32(&mut out, statement_proof);
            }
        }
        out
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Challenge(_) => 0x01,
            Self::Hello(_) => 0x02,
            Self::Welcome { .. } => 0x03,
            Self::Statement(_) => 0x04,
            Self::Listed(_) => 0x05,
            Self::Capacity(_) => 0x06,
            Self::Rejected(_) => 0x07,
            Self::Receipt(_) => 0x08,
            Self::Request(_) => 0x10,
            Self::RequestEnd(_) => 0x11,
            Self::Cancel => 0x12,
            Self::Credit(_) => 0x13,
            Self::Refused { .. } => 0x20,
            Self::Prefix(_) => 0x21,
            Self::Frame(_) => 0x22,
            Self::End => 0x23,
        }
    }

    const fn is_control(&self) -> bool {
        self.kind() < 0x10
    }
}

fn rest<'a>(r: &mut Reader<'a>, max: usize, field: &'static str) -> Result<&'a [u8], ParseError> {
    match r.remaining() {
        len if len > max => Err(ParseError::TooLong(field)),
        len => r.take(len, field),
    }
}
