//! Identities that sign real entries, and requests with real headers around opaque bytes. Shared by the tests of the core
//! and of its shells.

use std::collections::BTreeMap;

use fanlight_protocol::entry::{
    Evidence, EvidenceKind, IdentityKey, KeyStatement, LinkAuth, ModelOffer, Payload, Receipt, ReceiptDetails, Signed, Status,
    Usage,
};
use fanlight_protocol::link::{Hello, Message};
use fanlight_protocol::padding::Padding;
use fanlight_protocol::request::{CHAT_COMPLETIONS, HeaderFields, RecipientRef, RequestHeader, Wrap};
use fanlight_protocol::response::{Frame, FrameType, Prefix, ReceiptPayload};
use fanlight_protocol::{Digest, RequestId, UnixTime};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};

/// The model that test providers offer, with [`CONTEXT_TOKENS`].
pub(crate) const MODEL: &str = "tiny/test-1";
pub(crate) const CONTEXT_TOKENS: u32 = 1_000;

pub(crate) struct Identity {
    key: SigningKey,
    public: IdentityKey,
    pub(crate) evidence: Signed<Evidence>,
    counter: u64,
    previous: Digest,
}

fn key_pair(seed: u8) -> (SigningKey, IdentityKey) {
    let key = SigningKey::from_slice(&[seed; 32]).expect("a scalar");
    let point = key.verifying_key().to_sec1_point(false);
    let public = IdentityKey::from_sec1(point.as_bytes().try_into().expect("65 bytes")).expect("a point");
    (key, public)
}

impl Identity {
    pub(crate) fn new(seed: u8) -> Self {
        let (key, public) = key_pair(seed);
        let claims = BTreeMap::from([("os".to_owned(), "test".to_owned())]);
        let created = UnixTime::from_secs(1_700_000_000);
        let evidence = Evidence { identity: public.clone(), kind: EvidenceKind::SelfSigned, created, claims };
        let evidence = sign(&key, &public, &evidence);
        Self { key, public, evidence, counter: 0, previous: Digest::ZERO }
    }

    pub(crate) fn sign<T: Payload>(&self, value: &T) -> Signed<T> {
        sign(&self.key, &self.public, value)
    }

    /// A statement for an hour from `now`, for the KEM key of a seed.
    pub(crate) fn statement(&self, kem_seed: u8, now: UnixTime) -> KeyStatement {
        let (_, kem) = key_pair(kem_seed);
        let point = kem.spki().last_chunk().expect("an SPKI ends with its point");
        let model = ModelOffer { name: MODEL.to_owned(), weights_digest: Digest([5; 32]), context_tokens: CONTEXT_TOKENS };
        KeyStatement {
            identity: self.public.clone(),
            kem_key: *point,
            not_before: UnixTime::from_secs(now.as_secs() - 10),
            not_after: UnixTime::from_secs(now.as_secs() + 3_590),
            models: vec![model],
            build_measurement: Digest([6; 32]),
            evidence_digest: self.evidence.digest(),
        }
    }

    pub(crate) fn hello(&self, challenge: [u8; 32], statement: &Signed<KeyStatement>, capacity: u32, now: UnixTime) -> Vec<u8> {
        let time = UnixTime::from_secs(now.as_secs());
        let auth = LinkAuth { identity: self.public.clone(), challenge, statement_digest: statement.digest(), time };
        let auth = self.sign(&auth);
        let (link_auth, evidence, key_statement) = (auth.bytes(), self.evidence.bytes(), statement.bytes());
        Message::Hello(Hello { link_auth, evidence, key_statement, capacity }).to_bytes(0)
    }

    /// The next receipt of the chain, and the RECEIPT frame with it.
    pub(crate) fn receipt(&mut self, statement: &Signed<KeyStatement>, details: &ReceiptDetails) -> (Signed<Receipt>, Vec<u8>) {
        let (blind, details) = ([7; 32], details.to_bytes());
        let receipt = self.sign(&Receipt {
            statement_digest: statement.digest(),
            counter: self.counter,
            previous: self.previous,
            time: UnixTime::from_secs(1_700_000_040),
            commitment: Receipt::commitment(&blind, &details),
        });
        (self.counter, self.previous) = (self.counter + 1, receipt.digest());
        let payload = ReceiptPayload { receipt: receipt.bytes(), details: &details, blind }.to_bytes();
        let frame = Frame { frame_type: FrameType::Receipt, payload: &payload }.to_bytes();
        (receipt, frame)
    }
}

fn sign<T: Payload>(key: &SigningKey, public: &IdentityKey, value: &T) -> Signed<T> {
    let sign = |tbs: &[u8]| {
        let signature: Signature = key.sign(tbs);
        Ok::<_, std::convert::Infallible>(signature.to_bytes().into())
    };
    match Signed::sign(value, public, sign) {
        Ok(signed) => signed,
    }
}

pub(crate) fn details(request: &[u8], response_hash: Digest, status: Status) -> ReceiptDetails {
    let (header, _) = RequestHeader::parse(request).expect("a request of this file");
    let reason = if status == Status::Aborted { "aborted" } else { "stop" };
    ReceiptDetails {
        request_id: header.fields().request_id,
        request_hash: Digest::of(request),
        response_hash,
        model: header.fields().model.clone(),
        weights_digest: Digest([5; 32]),
        build_measurement: Digest([6; 32]),
        usage: Usage { input: 3, cached_input: 1, output: 11, reasoning: 2 },
        status,
        finish_reason: reason.to_owned(),
        started: UnixTime::from_millis(1_700_000_000_000),
        ended: UnixTime::from_millis(1_700_000_001_000),
    }
}

/// Header fields for these statements, good for two minutes.
pub(crate) fn fields(recipients: &[&Signed<KeyStatement>], now: UnixTime) -> HeaderFields {
    let refer = |s: &&Signed<KeyStatement>| RecipientRef { key_id: s.key_id(), statement_digest: s.digest() };
    HeaderFields {
        request_id: RequestId([9; 16]),
        created: UnixTime::from_secs(now.as_secs() - 5),
        expires: UnixTime::from_secs(now.as_secs() + 115),
        operation: CHAT_COMPLETIONS.to_owned(),
        model: MODEL.to_owned(),
        input_tokens_min: 1,
        input_tokens_max: 16,
        max_output_tokens: 100,
        stream: true,
        padding: Padding::None,
        recipients: recipients.iter().map(refer).collect(),
    }
}

/// A request whose body is opaque bytes: a gateway cannot tell.
pub(crate) fn request(fields: HeaderFields, body_len: usize) -> Vec<u8> {
    let wraps = vec![Wrap { enc: [4; 65], wrapped: [8; 48] }; fields.recipients.len()];
    let mut bytes = RequestHeader::new(fields, [3; 32], wraps).expect("good fields").to_bytes();
    bytes.extend((0..body_len).map(|i| u8::try_from(i % 251).expect("below 256")));
    bytes
}

pub(crate) fn prefix(statement: &Signed<KeyStatement>) -> Prefix {
    Prefix { key_id: statement.key_id(), response_nonce: [2; 32] }
}

pub(crate) fn sealed_frame(frame_type: FrameType, len: usize) -> Vec<u8> {
    Frame { frame_type, payload: &vec![0xa5; len] }.to_bytes()
}
