//! How the vectors of requests and responses are read and replayed.

use std::collections::HashMap;

use fanlight_protocol::padding::Padding;
use fanlight_protocol::response::{Frame, FrameSplitter, Prefix, ResponseItem};
use fanlight_protocol::{Digest, KeyId, RequestId, UnixTime};
use fanlight_sealing::{
    EnclaveDh as _, KemKey, OpenError, OpenResponse, OpenResponseError, Opened, OpenedRequest, Recipient, RequestParams,
    ResponseOpener, ResponseSummary, Sender, SoftwareDh, open_request,
};
use serde::Deserialize;

use crate::suite::rng::CounterRng;

pub(crate) fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hexadecimal")
}

pub(crate) fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().expect("the length")
}

#[derive(Deserialize)]
pub(crate) struct KeyInput {
    kem_secret: String,
    statement_digest: String,
}

#[derive(Deserialize)]
struct Seen {
    key_id: String,
    enc: String,
}

/// A request, who opens it and when, and what that one has seen before.
#[derive(Deserialize)]
pub(crate) struct RequestInput {
    now: u64,
    #[serde(flatten)]
    key: KeyInput,
    #[serde(default)]
    more_keys: Vec<KeyInput>,
    #[serde(default)]
    seen: Vec<Seen>,
    request: String,
    /// How to make the same request, where a sender of ours would make it.
    pub(crate) seal: Option<SealInput>,
    message: Option<String>,
    request_hash: Option<String>,
}

impl RequestInput {
    pub(crate) fn request(&self) -> Vec<u8> {
        bytes(&self.request)
    }

    fn open(&self) -> Result<OpenedRequest, OpenError> {
        let keys: HashMap<KeyId, (SoftwareDh, Digest)> = [&self.key]
            .into_iter()
            .chain(&self.more_keys)
            .map(|key| {
                let dh = SoftwareDh::from_bytes(&array(&key.kem_secret)).expect("a scalar");
                let id = KeyId::of(1, dh.public_key());
                (id, (dh, Digest(array(&key.statement_digest))))
            })
            .collect();
        let key = |id: &KeyId| keys.get(id).map(|(dh, digest)| KemKey { dh, statement_digest: *digest });
        let claim =
            |id: &KeyId, enc: &[u8; 65]| !self.seen.iter().any(|s| s.key_id == id.to_string() && s.enc == hex::encode(enc));
        open_request(&self.request(), UnixTime::from_secs(self.now), key, claim)
    }

    pub(crate) fn check(&self, name: &str, expect: &str) {
        match self.open() {
            Ok(opened) => {
                assert_eq!("ok", expect, "{name}");
                assert_eq!(self.message, Some(hex::encode(opened.message())), "{name}");
                assert_eq!(self.request_hash, Some(opened.request_hash().to_string()), "{name}");
            }
            Err(error) => assert_eq!(code(&error), expect, "{name}"),
        }
    }
}

pub(crate) fn code(error: &OpenError) -> &'static str {
    match error {
        OpenError::TooLarge => "request_too_large",
        OpenError::Malformed(_) => "malformed_request",
        OpenError::Expired => "expired_request",
        OpenError::UnknownKey => "unknown_key",
        OpenError::Replayed => "replayed_request",
        OpenError::Rejected => "rejected_request",
        _ => "internal_error",
    }
}

#[derive(Deserialize)]
struct RecipientInput {
    kem_key: String,
    statement_digest: String,
}

/// What a sender needs to make a request again, byte for byte.
#[derive(Deserialize)]
pub(crate) struct SealInput {
    seed: String,
    request_id: RequestId,
    created: u64,
    expires: u64,
    operation: String,
    model: String,
    input_tokens_min: u32,
    input_tokens_max: u32,
    max_output_tokens: u32,
    stream: bool,
    padding: u8,
    recipients: Vec<RecipientInput>,
    message: String,
    #[serde(default)]
    kem_secrets: Vec<String>,
}

impl SealInput {
    pub(crate) fn seal(&self) -> (Vec<u8>, ResponseOpener) {
        let recipients: Vec<_> = self
            .recipients
            .iter()
            .map(|r| Recipient::new(&array(&r.kem_key), Digest(array(&r.statement_digest))).expect("a valid key"))
            .collect();
        let params = RequestParams {
            request_id: self.request_id,
            created: UnixTime::from_secs(self.created),
            expires: UnixTime::from_secs(self.expires),
            operation: self.operation.clone(),
            model: self.model.clone(),
            input_tokens_min: self.input_tokens_min,
            input_tokens_max: self.input_tokens_max,
            max_output_tokens: self.max_output_tokens,
            stream: self.stream,
            padding: Padding::from_code(self.padding).expect("a padding"),
        };
        let sender = Sender::new(params, &recipients).expect("valid parameters");
        sender.seal(&bytes(&self.message), &mut CounterRng::new(&self.seed)).expect("a short message")
    }

    /// The request, opened by recipient `index`.
    pub(crate) fn opened_by(&self, index: usize) -> OpenedRequest {
        let (request, _) = self.seal();
        let dh = SoftwareDh::from_bytes(&array(&self.kem_secrets[index])).expect("a scalar");
        let key_id = KeyId::of(1, dh.public_key());
        let statement_digest = Digest(array(&self.recipients[index].statement_digest));
        let key = |id: &KeyId| (*id == key_id).then_some(KemKey { dh: &dh, statement_digest });
        open_request(&request, UnixTime::from_secs(self.created), key, |_, _| true).expect("a good request")
    }
}

/// A whole response to one of the requests of its file.
#[derive(Deserialize)]
pub(crate) struct ResponseInput {
    pub(crate) request: String,
    response: String,
    pub(crate) contents: Option<Vec<String>>,
    status: Option<u16>,
    response_hash: Option<String>,
}

impl ResponseInput {
    pub(crate) fn response(&self) -> Vec<u8> {
        bytes(&self.response)
    }

    pub(crate) fn check(&self, requests: &HashMap<String, SealInput>, name: &str, expect: &str) {
        let (_, opener) = requests[&self.request].seal();
        match read_response(opener, &self.response()) {
            Ok((contents, summary)) => {
                assert_eq!("ok", expect, "{name}");
                assert_eq!(summary.recipient_index, 1, "{name}");
                if let Some(wanted) = &self.contents {
                    assert_eq!(&contents.iter().map(hex::encode).collect::<Vec<_>>(), wanted, "{name}");
                    assert_eq!(Some(summary.status), self.status, "{name}");
                    assert_eq!(Some(summary.response_hash.to_string()), self.response_hash, "{name}");
                }
            }
            Err(error) => assert_eq!(error, expect, "{name}"),
        }
    }
}

/// Contents of the sealed frames, and the summary; or the word that vectors have for the error.
pub(crate) fn read_response(opener: ResponseOpener, response: &[u8]) -> Result<(Vec<Vec<u8>>, ResponseSummary), &'static str> {
    let mut splitter = FrameSplitter::default();
    splitter.push(response);
    let mut opener = Some(opener);
    let mut begun: Option<OpenResponse> = None;
    let mut contents = Vec::new();
    let mut whole = Prefix::LEN;
    while let Some(item) = splitter.next_item().map_err(|_| "malformed")? {
        match item {
            ResponseItem::Prefix(prefix) => {
                let opener = opener.take().expect("one prefix");
                begun = Some(opener.begin(&prefix).map_err(word)?);
            }
            ResponseItem::Frame(frame) => {
                whole += frame.len();
                let frame = Frame::parse(&frame).map_err(|_| "malformed")?;
                let item = begun.as_mut().expect("the prefix is first").open(&frame).map_err(word)?;
                if let Opened::Content { bytes, .. } = item {
                    contents.push(bytes);
                }
            }
        }
    }
    let summary = begun.ok_or("truncated")?.finish().map_err(word)?;
    if whole == response.len() { Ok((contents, summary)) } else { Err("truncated") }
}

fn word(error: OpenResponseError) -> &'static str {
    match error {
        OpenResponseError::UnknownRecipient => "unknown_recipient",
        OpenResponseError::Rejected => "rejected",
        OpenResponseError::Padding => "padding",
        OpenResponseError::Status => "status",
        OpenResponseError::OutOfOrder => "out_of_order",
        OpenResponseError::Truncated => "truncated",
        _ => "other",
    }
}
