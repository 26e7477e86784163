//! The provider's side of a request: the refusals 1 to 6 of SPEC §4.4, in that order.

use std::fmt;

use fanlight_protocol::chunk::Chunks;
use fanlight_protocol::request::{RecipientRef, RequestHeader, Wrap};
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;
use fanlight_protocol::{Digest, KeyId, MAX_REQUEST_LEN, ParseError, UnixTime};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::dh::{EnclaveDh, EnclaveError};
use crate::hpke;
use crate::keys;
use crate::response_sealer::ResponseKeys;

/// One of the provider's own KEM keys.
#[derive(Clone, Copy)]
pub struct KemKey<'k> {
    /// Holds the private key.
    pub dh: &'k dyn EnclaveDh,
    /// Entry digest of the key's statement.
    pub statement_digest: Digest,
}

impl fmt::Debug for KemKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KemKey").field("statement_digest", &self.statement_digest).finish_non_exhaustive()
    }
}

/// Why an encapsulated request was not opened (SPEC §4.4, refusals 1 to 6). Each but the last has a code of SPEC §6.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `request_too_large`: above [`MAX_REQUEST_LEN`].
    #[error("request is too large")]
    TooLarge,
    /// `malformed_request`: no header of this version and suite.
    #[error("request is malformed")]
    Malformed(#[source] ParseError),
    /// `expired_request`: outside its time of validity.
    #[error("request is outside its time of validity")]
    Expired,
    /// `unknown_key`: no recipient is one of this provider's keys under its statement.
    #[error("request is sealed to no key of this provider")]
    UnknownKey,
    /// `replayed_request`: an encapsulated key of it was seen before.
    #[error("request was seen before")]
    Replayed,
    /// `rejected_request`: a wrap, the commitment or the body does not open. Deliberately one case: the sender learns
    /// nothing more.
    #[error("request does not open")]
    Rejected,
    /// `internal_error`: the holder of the KEM key did not answer.
    #[error("key agreement failed")]
    Enclave(#[source] EnclaveError),
}

/// A request that opened. What it says is the sender's word; checks 7 and 8 of SPEC §4.4 are still to be made.
pub struct OpenedRequest {
    header: RequestHeader,
    recipient: RecipientRef,
    plain: Zeroizing<Vec<u8>>,
    message_end: usize,
    response: ResponseKeys,
}

impl OpenedRequest {
    /// The clear header, now authenticated.
    pub const fn header(&self) -> &RequestHeader {
        &self.header
    }

    /// The recipient whose key opened it.
    pub const fn recipient(&self) -> &RecipientRef {
        &self.recipient
    }

    /// The JSON body of the operation. It is cleared when `self` is dropped.
    pub fn message(&self) -> &[u8] {
        &self.plain[LEN_LEN..self.message_end]
    }

    /// `H(header ‖ body)` (SPEC §4.5).
    pub const fn request_hash(&self) -> &Digest {
        self.response.request_hash()
    }

    /// Forgets the message and keeps what seals the answer.
    pub fn into_response_keys(self) -> ResponseKeys {
        self.response
    }
}

impl fmt::Debug for OpenedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedRequest").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// Length of the length in front of a message.
const LEN_LEN: usize = 4;

/// Opens a whole encapsulated request.
///
/// `key` gives the provider's own key of an id, if it has one. `claim` is asked once for each recipient that is a key of
/// this provider, before anything is unwrapped: it stores `(key_id, enc)` durably and returns whether the pair is new.
/// All of them are claimed, not only the one that opens: else a request to two keys of one provider could be played
/// again once the first key is gone.
///
/// # Errors
/// [`OpenError`], in the order of SPEC §4.4.
pub fn open_request<'k>(
    request: &[u8],
    now: UnixTime,
    key: impl Fn(&KeyId) -> Option<KemKey<'k>>,
    mut claim: impl FnMut(&KeyId, &[u8; 65]) -> bool,
) -> Result<OpenedRequest, OpenError> {
    if request.len() > MAX_REQUEST_LEN {
        return Err(OpenError::TooLarge);
    }
    let (header, header_len) = RequestHeader::parse(request).map_err(OpenError::Malformed)?;
    let fields = header.fields();
    if now.as_secs() > fields.expires.as_secs() || now.as_secs() + CLOCK_TOLERANCE_SECS < fields.created.as_secs() {
        return Err(OpenError::Expired);
    }
    let own: Vec<_> = header.recipients().filter_map(|(r, wrap)| Some((*r, *wrap, own_key(r, &key)?))).collect();
    let &(recipient, wrap, dh) = own.first().ok_or(OpenError::UnknownKey)?;
    let fresh = own.iter().map(|(r, wrap, _)| claim(&r.key_id, &wrap.enc)).fold(true, |all, new| all & new);
    if !fresh {
        return Err(OpenError::Replayed);
    }

    let (header_bytes, body) = request.split_at(header_len);
    let unwrapped = unwrap(&header, &recipient, &wrap, dh)?;
    let (plain, message_end) = open_body(&header, header_bytes, body, &unwrapped.content_key)?;
    let response = ResponseKeys {
        key_id: recipient.key_id,
        enc: wrap.enc,
        response_secret: unwrapped.response_secret,
        request_hash: Digest::of(request),
        padding: header.fields().padding,
    };
    Ok(OpenedRequest { header, recipient, plain, message_end, response })
}

fn own_key<'k>(recipient: &RecipientRef, key: impl Fn(&KeyId) -> Option<KemKey<'k>>) -> Option<&'k dyn EnclaveDh> {
    let KemKey { dh, statement_digest } = key(&recipient.key_id)?;
    (statement_digest == recipient.statement_digest).then_some(dh)
}

struct Unwrapped {
    content_key: Zeroizing<[u8; 32]>,
    response_secret: Zeroizing<[u8; 32]>,
}

fn unwrap(header: &RequestHeader, recipient: &RecipientRef, wrap: &Wrap, dh: &dyn EnclaveDh) -> Result<Unwrapped, OpenError> {
    let fields_hash = Digest::of(&header.fields().to_bytes());
    let info = keys::wrap_info(&fields_hash, &recipient.key_id);
    let mut context = hpke::setup_recipient(dh, &wrap.enc, &info).map_err(|error| match error {
        EnclaveError::InvalidPeer => OpenError::Rejected,
        error @ EnclaveError::Unavailable(_) => OpenError::Enclave(error),
    })?;
    let opened = context.open(&wrap.wrapped, header.commitment()).map(Zeroizing::new).map_err(|_| OpenError::Rejected)?;
    let content_key = Zeroizing::new(*opened.first_chunk::<32>().ok_or(OpenError::Rejected)?);
    let committed = keys::commitment(&content_key, &fields_hash).ct_eq(header.commitment());
    if !bool::from(committed) {
        return Err(OpenError::Rejected);
    }
    let mut response_secret = Zeroizing::new([0; 32]);
    context.export(keys::RESPONSE_EXPORT_LABEL, response_secret.as_mut_slice()).expect("32 bytes are within HKDF's limit");
    Ok(Unwrapped { content_key, response_secret })
}

/// The plaintext of a body, and where its message ends.
fn open_body(
    header: &RequestHeader,
    header_bytes: &[u8],
    body: &[u8],
    content_key: &[u8; 32],
) -> Result<(Zeroizing<Vec<u8>>, usize), OpenError> {
    let mut cipher = keys::body_cipher(content_key, &Digest::of(header_bytes));
    let mut plain = Zeroizing::new(Vec::with_capacity(body.len()));
    for chunk in Chunks::new(body) {
        let chunk = chunk.map_err(|_| OpenError::Rejected)?;
        let aad: &[u8] = if chunk.last { b"final" } else { b"" };
        cipher.open_onto(chunk.sealed, &mut plain, aad).map_err(|_| OpenError::Rejected)?;
    }
    let message_len = plain.first_chunk().map(|len| u32::from_be_bytes(*len) as usize).ok_or(OpenError::Rejected)?;
    let message_end = LEN_LEN + message_len;
    let padding = plain.get(message_end..).ok_or(OpenError::Rejected)?;
    let exact = plain.len() == header.fields().padding.request_len(message_end);
    if !exact || padding.iter().any(|b| *b != 0) {
        return Err(OpenError::Rejected);
    }
    Ok((plain, message_end))
}
