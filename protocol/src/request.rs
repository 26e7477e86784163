//! The clear header of an encapsulated request (SPEC §4.1).

use crate::bytes::{ParseError, Reader};
use crate::id::{Digest, KeyId, RequestId};
use crate::padding::Padding;
use crate::{SUITE_P256, UnixTime};

/// Format version in the first byte.
pub const VERSION: u8 = 0x01;
/// Longest validity in seconds.
pub const MAX_VALIDITY_SECS: u64 = 300;
/// Most recipients of one request.
pub const MAX_RECIPIENTS: usize = 8;
/// Longest operation name in bytes.
pub const MAX_OPERATION_LEN: usize = 64;
/// Longest model name in bytes.
pub const MAX_MODEL_LEN: usize = 128;
/// The operation of `POST /v1/chat/completions`.
pub const CHAT_COMPLETIONS: &str = "chat.completions";

const FLAG_STREAM: u8 = 0x01;

/// Whom a request is sealed to: `key_id(16) ‖ statement_digest(32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientRef {
    /// The KEM key.
    pub key_id: KeyId,
    /// Entry digest of the key statement under which the client knows that key.
    pub statement_digest: Digest,
}

/// The content key, wrapped for one recipient: `enc(65) ‖ wrapped(48)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// HPKE encapsulated key, an uncompressed P-256 point.
    pub enc: [u8; 65],
    /// The sealed content key with its tag.
    pub wrapped: [u8; 48],
}

impl Wrap {
    /// Length in bytes.
    pub const LEN: usize = 65 + 48;
}

/// `fields` of SPEC §4.1: all that the wraps are bound to. Build it, then [`HeaderFields::validate`] before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Chosen by the client; kept over a retry.
    pub request_id: RequestId,
    /// When the request was sealed; whole seconds.
    pub created: UnixTime,
    /// When providers stop opening it; at most 300 s later.
    pub expires: UnixTime,
    /// For instance [`CHAT_COMPLETIONS`].
    pub operation: String,
    /// Model name as in key statements.
    pub model: String,
    /// Least input tokens, closed.
    pub input_tokens_min: u32,
    /// Most input tokens, closed.
    pub input_tokens_max: u32,
    /// Most output tokens, at least 1.
    pub max_output_tokens: u32,
    /// Whether the answer is a stream of server-sent events.
    pub stream: bool,
    /// How lengths are hidden.
    pub padding: Padding,
    /// 1 to 8 recipients, no key twice.
    pub recipients: Vec<RecipientRef>,
}

impl HeaderFields {
    /// Longest encoding in bytes.
    pub const MAX_LEN: usize = 1 + 2 + 16 + 8 + 8 + (1 + MAX_OPERATION_LEN) + (1 + MAX_MODEL_LEN) + 12 + 3 + MAX_RECIPIENTS * 48;

    /// Checks every rule of SPEC §4.1.
    ///
    /// # Errors
    /// [`ParseError::Invalid`] with the field's name.
    pub fn validate(&self) -> Result<(), ParseError> {
        let (created, expires) = (self.created.as_secs(), self.expires.as_secs());
        if expires <= created || expires - created > MAX_VALIDITY_SECS {
            return Err(ParseError::Invalid("expires"));
        }
        let operation_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b);
        if !is_name(&self.operation, MAX_OPERATION_LEN, operation_char) {
            return Err(ParseError::Invalid("operation"));
        }
        if !is_model_name(&self.model) {
            return Err(ParseError::Invalid("model"));
        }
        if self.input_tokens_min > self.input_tokens_max {
            return Err(ParseError::Invalid("input_tokens"));
        }
        if self.max_output_tokens == 0 {
            return Err(ParseError::Invalid("max_output_tokens"));
        }
        let n = self.recipients.len();
        let twice = (1..n).any(|i| self.recipients[..i].iter().any(|r| r.key_id == self.recipients[i].key_id));
        if n == 0 || n > MAX_RECIPIENTS || twice {
            return Err(ParseError::Invalid("recipients"));
        }
        Ok(())
    }

    /// The `fields` bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX_LEN);
        out.push(VERSION);
        out.extend_from_slice(&SUITE_P256.to_be_bytes());
        out.extend_from_slice(&self.request_id.0);
        out.extend_from_slice(&self.created.as_secs().to_be_bytes());
        out.extend_from_slice(&self.expires.as_secs().to_be_bytes());
        for name in [&self.operation, &self.model] {
            out.push(u8::try_from(name.len()).expect("validated to at most 128"));
            out.extend_from_slice(name.as_bytes());
        }
        for tokens in [self.input_tokens_min, self.input_tokens_max, self.max_output_tokens] {
            out.extend_from_slice(&tokens.to_be_bytes());
        }
        out.push(if self.stream { FLAG_STREAM } else { 0 });
        out.push(self.padding.code());
        out.push(u8::try_from(self.recipients.len()).expect("validated to at most 8"));
        for recipient in &self.recipients {
            out.extend_from_slice(&recipient.key_id.0);
            out.extend_from_slice(&recipient.statement_digest.0);
        }
        out
    }

    fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let version = r.u8("version")?;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let suite = r.u16("suite")?;
        if suite != SUITE_P256 {
            return Err(ParseError::Suite(suite));
        }
        let request_id = RequestId(r.array("request_id")?);
        let created = r.u64("created")?;
        let expires = r.u64("expires")?;
        // Times are kept in milliseconds; a time that would saturate could not be written back.
        if expires > u64::MAX / 1000 {
            return Err(ParseError::Invalid("expires"));
        }
        let operation = text(r, "operation")?;
        let model = text(r, "model")?;
        let (input_tokens_min, input_tokens_max) = (r.u32("input_tokens")?, r.u32("input_tokens")?);
        let max_output_tokens = r.u32("max_output_tokens")?;
        let stream = match r.u8("flags")? {
            0 => false,
            FLAG_STREAM => true,
            _ => return Err(ParseError::Invalid("flags")),
        };
        let padding = Padding::from_code(r.u8("padding")?).ok_or(ParseError::Invalid("padding"))?;
        let n = usize::from(r.u8("recipients")?);
        if n > MAX_RECIPIENTS {
            return Err(ParseError::Invalid("recipients"));
        }
        let recipients = (0..n)
            .map(|_| {
                let key_id = KeyId(r.array("recipients")?);
                Ok(RecipientRef { key_id, statement_digest: Digest(r.array("recipients")?) })
            })
            .collect::<Result<_, ParseError>>()?;
        let fields = Self {
            request_id,
            created: UnixTime::from_secs(created),
            expires: UnixTime::from_secs(expires),
            operation,
            model,
            input_tokens_min,
            input_tokens_max,
            max_output_tokens,
            stream,
            padding,
            recipients,
        };
        fields.validate()?;
        Ok(fields)
    }
}

/// The whole clear header: `fields ‖ commitment(32) ‖ wraps`, one wrap for each recipient, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    fields: HeaderFields,
    commitment: [u8; 32],
    wraps: Vec<Wrap>,
}

impl RequestHeader {
    /// Longest encoding in bytes: 1,564 (SPEC §10).
    pub const MAX_LEN: usize = HeaderFields::MAX_LEN + 32 + MAX_RECIPIENTS * Wrap::LEN;

    /// Joins the parts of a request that is being sealed.
    ///
    /// # Errors
    /// [`ParseError::Invalid`] when the fields break a rule or the wraps do not match the recipients in number.
    pub fn new(fields: HeaderFields, commitment: [u8; 32], wraps: Vec<Wrap>) -> Result<Self, ParseError> {
        fields.validate()?;
        if wraps.len() != fields.recipients.len() {
            return Err(ParseError::Invalid("wraps"));
        }
        Ok(Self { fields, commitment, wraps })
    }

    /// Parses the header at the front of an encapsulated request.
    ///
    /// Returns the header and its length in bytes; what follows is the body. Given a prefix of a request, at least
    /// [`RequestHeader::MAX_LEN`] bytes always suffice.
    ///
    /// # Errors
    /// [`ParseError`] by field; [`ParseError::Truncated`] when more bytes are needed.
    pub fn parse(request: &[u8]) -> Result<(Self, usize), ParseError> {
        let mut r = Reader::new(request);
        let fields = HeaderFields::parse(&mut r)?;
        let commitment = r.array("commitment")?;
        let wraps = fields
            .recipients
            .iter()
            .map(|_| Ok(Wrap { enc: r.array("wraps")?, wrapped: r.array("wraps")? }))
            .collect::<Result<_, ParseError>>()?;
        Ok((Self { fields, commitment, wraps }, request.len() - r.remaining()))
    }

    /// The header bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.fields.to_bytes();
        out.extend_from_slice(&self.commitment);
        for wrap in &self.wraps {
            out.extend_from_slice(&wrap.enc);
            out.extend_from_slice(&wrap.wrapped);
        }
        out
    }

    /// The fields that the wraps are bound to.
    pub const fn fields(&self) -> &HeaderFields {
        &self.fields
    }

    /// Commits to the content key (SPEC §4.2).
    pub const fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Recipients with their wraps.
    pub fn recipients(&self) -> impl Iterator<Item = (&RecipientRef, &Wrap)> {
        self.fields.recipients.iter().zip(&self.wraps)
    }
}

/// Whether `name` may name a model: 1 to 128 bytes of `[A-Za-z0-9._:/@+-]`.
pub fn is_model_name(name: &str) -> bool {
    is_name(name, MAX_MODEL_LEN, |b| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b))
}

fn is_name(name: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&name.len()) && name.bytes().all(allowed)
}

fn text(r: &mut Reader<'_>, field: &'static str) -> Result<String, ParseError> {
    let len = usize::from(r.u8(field)?);
    let bytes = r.take(len, field)?;
    let text = str::from_utf8(bytes).map_err(|_| ParseError::Invalid(field))?;
    Ok(text.to_owned())
}
