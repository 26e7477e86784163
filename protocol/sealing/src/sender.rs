//! The client's side of a request (SPEC §4).

use std::fmt;

use fanlight_protocol::chunk::{MAX_PLAINTEXT_LEN, TAG_LEN, write_chunk_len};
use fanlight_protocol::padding::Padding;
use fanlight_protocol::request::{CHAT_COMPLETIONS, HeaderFields, MAX_VALIDITY_SECS, RecipientRef, RequestHeader, Wrap};
use fanlight_protocol::{Digest, KeyId, MAX_REQUEST_LEN, ParseError, RequestId, SUITE_P256, UnixTime};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::dh::{InvalidKey, PublicKey};
use crate::response_opener::{RecipientSecret, ResponseOpener};
use crate::{hpke, keys};

/// A KEM key that a request may be sealed to.
///
/// Build one only from a key statement that was verified under the client's own policy (SPEC §7.2): what is sealed to an
/// unverified key is readable by whoever made it up.
#[derive(Clone)]
pub struct Recipient {
    key: PublicKey,
    reference: RecipientRef,
}

impl Recipient {
    /// From the KEM key of a statement of suite 0x0001 and that statement's entry digest.
    ///
    /// # Errors
    /// [`InvalidKey`] when the key is not a point of the curve.
    pub fn new(kem_key: &[u8; 65], statement_digest: Digest) -> Result<Self, InvalidKey> {
        let key = PublicKey::parse(kem_key)?;
        Ok(Self { key, reference: RecipientRef { key_id: KeyId::of(SUITE_P256, kem_key), statement_digest } })
    }

    /// Names the KEM key.
    pub const fn key_id(&self) -> &KeyId {
        &self.reference.key_id
    }

    /// Entry digest of its key statement.
    pub const fn statement_digest(&self) -> &Digest {
        &self.reference.statement_digest
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

/// The clear fields of a request, without its recipients. Meaning and limits are those of [`HeaderFields`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestParams {
    /// Fresh and random for every request; kept over a retry.
    pub request_id: RequestId,
    /// Now.
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
    /// How lengths are hidden, in both directions.
    pub padding: Padding,
}

impl RequestParams {
    /// A streamed chat completion with the widest limits, the longest validity and padding.
    pub fn chat(model: impl Into<String>, request_id: RequestId, now: UnixTime) -> Self {
        Self {
            request_id,
            created: now,
            expires: UnixTime::from_secs(now.as_secs() + MAX_VALIDITY_SECS),
            operation: CHAT_COMPLETIONS.into(),
            model: model.into(),
            input_tokens_min: 0,
            input_tokens_max: u32::MAX,
            max_output_tokens: u32::MAX,
            stream: true,
            padding: Padding::Padme,
        }
    }
}

/// Why a request was not sealed. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A field or the list of recipients breaks a rule of SPEC §4.1.
    #[error("a header field is not valid")]
    Header(#[source] ParseError),
    /// With the message, the request would exceed [`MAX_REQUEST_LEN`].
    #[error("the message is too long")]
    TooLong,
}

/// Seals one request.
#[derive(Debug)]
pub struct Sender<'a> {
    fields: HeaderFields,
    recipients: &'a [Recipient],
}

impl<'a> Sender<'a> {
    /// For 1 to 8 recipients, no key twice.
    ///
    /// # Errors
    /// [`SealError::Header`] when a rule of SPEC §4.1 is broken.
    pub fn new(params: RequestParams, recipients: &'a [Recipient]) -> Result<Self, SealError> {
        let fields = HeaderFields {
            request_id: params.request_id,
            created: params.created,
            expires: params.expires,
            operation: params.operation,
            model: params.model,
            input_tokens_min: params.input_tokens_min,
            input_tokens_max: params.input_tokens_max,
            max_output_tokens: params.max_output_tokens,
            stream: params.stream,
            padding: params.padding,
            recipients: recipients.iter().map(|r| r.reference).collect(),
        };
        fields.validate().map_err(SealError::Header)?;
        Ok(Self { fields, recipients })
    }

    /// The encapsulated request, and what opens the answer to it.
    ///
    /// # Errors
    /// [`SealError::TooLong`] when `message` does not fit into a request.
    pub fn seal(self, message: &[u8], rng: &mut impl CryptoRng) -> Result<(Vec<u8>, ResponseOpener), SealError> {
        let Self { fields, recipients } = self;
        if message.len() > MAX_REQUEST_LEN {
            return Err(SealError::TooLong);
        }
        let message_len = u32::try_from(message.len()).map_err(|_| SealError::TooLong)?;
        let padding = fields.padding;
        let plain_len = padding.request_len(4 + message.len());

        let fields_hash = Digest::of(&fields.to_bytes());
        let mut content_key = Zeroizing::new([0; 32]);
        rng.fill_bytes(content_key.as_mut_slice());
        let commitment = keys::commitment(&content_key, &fields_hash);
        let (wraps, secrets): (Vec<_>, Vec<_>) =
            recipients.iter().map(|recipient| wrap(recipient, &content_key, &commitment, &fields_hash, rng)).unzip();

        let header = RequestHeader::new(fields, commitment, wraps).map_err(SealError::Header)?;
        let mut request = header.to_bytes();
        let mut cipher = keys::body_cipher(&content_key, &Digest::of(&request));
        request.reserve(sealed_len(plain_len));
        let mut plain = Plaintext { len: message_len.to_be_bytes(), message, at: 0 };
        for start in (0..plain_len).step_by(MAX_PLAINTEXT_LEN) {
            let len = MAX_PLAINTEXT_LEN.min(plain_len - start);
            let last = start + len == plain_len;
            write_chunk_len(&mut request, len + TAG_LEN, last);
            let at = request.len();
            plain.write(&mut request, len);
            cipher.seal_tail(&mut request, at, if last { b"final" } else { b"" });
        }
        if request.len() > MAX_REQUEST_LEN {
            return Err(SealError::TooLong);
        }
        let opener = ResponseOpener::new(Digest::of(&request), padding, secrets);
        Ok((request, opener))
    }
}

fn wrap(
    recipient: &Recipient,
    content_key: &[u8; 32],
    commitment: &[u8; 32],
    fields_hash: &Digest,
    rng: &mut impl CryptoRng,
) -> (Wrap, RecipientSecret) {
    let RecipientRef { key_id, .. } = recipient.reference;
    let (enc, mut context) = hpke::setup_sender(&recipient.key, &keys::wrap_info(fields_hash, &key_id), rng);
    let wrapped = context.seal(content_key, commitment).expect("the first message of a context");
    let mut response_secret = Zeroizing::new([0; 32]);
    context.export(keys::RESPONSE_EXPORT_LABEL, response_secret.as_mut_slice()).expect("32 bytes are within HKDF's limit");
    let wrapped = wrapped.try_into().expect("32 bytes and a tag");
    (Wrap { enc, wrapped }, RecipientSecret { key_id, enc, response_secret })
}

/// Most bytes that a body of `plain_len` bytes takes: each chunk has a tag and at most 4 bytes of length.
const fn sealed_len(plain_len: usize) -> usize {
    plain_len + plain_len.div_ceil(MAX_PLAINTEXT_LEN) * (TAG_LEN + 4)
}

/// `length(4) ‖ message ‖ zeros`, written piece by piece to where it is sealed, so that no second copy of it exists.
struct Plaintext<'a> {
    len: [u8; 4],
    message: &'a [u8],
    at: usize,
}

impl Plaintext<'_> {
    fn write(&mut self, out: &mut Vec<u8>, n: usize) {
        let end = out.len() + n;
        out.extend_from_slice(&self.len[self.at.min(4)..]);
        let from = (self.at.max(4) - 4).min(self.message.len());
        let to = (from + end - out.len()).min(self.message.len());
        out.extend_from_slice(&self.message[from..to]);
        out.resize(end, 0);
        self.at += n;
    }
}
