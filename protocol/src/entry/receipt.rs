//! Receipts: the provider-signed record of one exchange, its public part and its details (SPEC §7.3).

use ciborium::Value;
use subtle::ConstantTimeEq;

use super::cbor::{self, MapReader};
use super::{EntryError, EntryType, Payload};
use crate::{Digest, RequestId, UnixTime};

/// Payload of a receipt: what the public log shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Of the key statement whose KEM key opened the request.
    pub statement_digest: Digest,
    /// n: 0 for a provider's first receipt, then without gaps.
    pub counter: u64,
    /// Entry digest of receipt n-1; [`Digest::ZERO`] for n = 0.
    pub previous: Digest,
    /// Rounded down to a multiple of 60 s.
    pub time: UnixTime,
    /// `H("fanlight-v1 receipt details" ‖ blind ‖ details)`.
    pub commitment: Digest,
}

impl Receipt {
    /// The commitment to details under a blind.
    pub fn commitment(blind: &[u8; 32], details: &[u8]) -> Digest {
        Digest::of_parts(&[b"fanlight-v1 receipt details", blind, details])
    }

    /// Opens the commitment: the details, if they and the blind are those that were signed.
    ///
    /// # Errors
    /// [`EntryError::Payload`] when they are not, or are not in their one encoding.
    pub fn open(&self, details: &[u8], blind: &[u8; 32]) -> Result<ReceiptDetails, EntryError> {
        if !bool::from(Self::commitment(blind, details).0.ct_eq(&self.commitment.0)) {
            return Err(EntryError::Payload("details are not those that the receipt commits to"));
        }
        ReceiptDetails::from_bytes(details)
    }
}

impl Payload for Receipt {
    const TYPE: EntryType = EntryType::Receipt;

    fn to_cbor(&self) -> Vec<u8> {
        cbor::write_map(vec![
            (1, cbor::bytes(&self.statement_digest.0)),
            (2, self.counter.into()),
            (3, cbor::bytes(&self.previous.0)),
            (4, self.time.minute_secs().into()),
            (5, cbor::bytes(&self.commitment.0)),
        ])
    }

    fn from_cbor(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut map = MapReader::from_slice(bytes)?;
        let statement_digest = Digest(map.array()?);
        let counter = map.uint()?;
        let previous = Digest(map.array()?);
        let time = UnixTime::from_secs(map.uint()?);
        let commitment = Digest(map.array()?);
        map.finish()?;
        if (counter == 0) != (previous == Digest::ZERO) {
            return Err(EntryError::Payload("previous is zero exactly for the first receipt"));
        }
        Ok(Self { statement_digest, counter, previous, time, commitment })
    }
}

/// Tokens of one exchange, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u32,
    /// Prompt tokens that came from the prefix cache.
    pub cached_input: u32,
    /// Generated tokens, reasoning included.
    pub output: u32,
    /// Generated tokens of reasoning.
    pub reasoning: u32,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The client or the gateway went away.
    Aborted,
    /// The answer was sealed to its end.
    Complete,
    /// A sealed error was the answer.
    Failed,
}

impl Status {
    /// The number in the details.
    pub const fn code(self) -> u64 {
        match self {
            Self::Complete => 0,
            Self::Aborted => 1,
            Self::Failed => 2,
        }
    }

    /// A word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// What the client and the gateway learn, and the public does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptDetails {
    /// From the request's header.
    pub request_id: RequestId,
    /// `H(header ‖ body)`.
    pub request_hash: Digest,
    /// `H(prefix ‖ sealed frames)`.
    pub response_hash: Digest,
    /// Model that answered.
    pub model: String,
    /// Its weights, as in the key statement.
    pub weights_digest: Digest,
    /// As in the key statement.
    pub build_measurement: Digest,
    /// Token counts.
    pub usage: Usage,
    /// How it ended.
    pub status: Status,
    /// `stop`, `length`, `aborted` or `error`.
    pub finish_reason: String,
    /// When the request was opened; milliseconds.
    pub started: UnixTime,
    /// When the last frame was sealed; milliseconds.
    pub ended: UnixTime,
}

impl ReceiptDetails {
    /// Deterministic CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Usage { input, cached_input, output, reasoning } = self.usage;
        let usage = cbor::map(vec![(1, input.into()), (2, cached_input.into()), (3, output.into()), (4, reasoning.into())]);
        cbor::write_map(vec![
            (1, cbor::bytes(&self.request_id.0)),
            (2, cbor::bytes(&self.request_hash.0)),
            (3, cbor::bytes(&self.response_hash.0)),
            (4, self.model.as_str().into()),
            (5, cbor::bytes(&self.weights_digest.0)),
            (6, cbor::bytes(&self.build_measurement.0)),
            (7, usage),
            (8, self.status.code().into()),
            (9, self.finish_reason.as_str().into()),
            (10, self.started.as_millis().into()),
            (11, self.ended.as_millis().into()),
        ])
    }

    /// Parses details in their one encoding.
    ///
    /// # Errors
    /// [`EntryError::Payload`] by rule, [`EntryError::NotDeterministic`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut map = MapReader::from_slice(bytes)?;
        let details = Self {
            request_id: RequestId(map.array()?),
            request_hash: Digest(map.array()?),
            response_hash: Digest(map.array()?),
            model: map.text()?,
            weights_digest: Digest(map.array()?),
            build_measurement: Digest(map.array()?),
            usage: usage(map.value()?)?,
            status: match map.uint()? {
                0 => Status::Complete,
                1 => Status::Aborted,
                2 => Status::Failed,
                _ => return Err(EntryError::Payload("status is unknown")),
            },
            finish_reason: map.text()?,
            started: UnixTime::from_millis(map.uint()?),
            ended: UnixTime::from_millis(map.uint()?),
        };
        map.finish()?;
        if !["stop", "length", "aborted", "error"].contains(&details.finish_reason.as_str()) {
            return Err(EntryError::Payload("finish_reason is unknown"));
        }
        if details.to_bytes() != bytes {
            return Err(EntryError::NotDeterministic);
        }
        Ok(details)
    }
}

fn usage(value: Value) -> Result<Usage, EntryError> {
    let mut map = MapReader::from_value(value)?;
    let mut tokens = || map.uint()?.try_into().map_err(|_| EntryError::Payload("a token count is above 32 bits"));
    let usage = Usage { input: tokens()?, cached_input: tokens()?, output: tokens()?, reasoning: tokens()? };
    map.finish()?;
    Ok(usage)
}
