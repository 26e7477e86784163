//! A provider with real keys: opens requests, checks them, answers, signs receipts.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::{DirStore, Log};
use fanlight_protocol::directory::Listing;
use fanlight_protocol::entry::{
    Evidence, EvidenceKind, IdentityKey, KeyStatement, ModelOffer, Payload, Receipt, ReceiptDetails, Signed, Status, Usage,
};
use fanlight_protocol::response::{Frame, FrameType, ReceiptPayload};
use fanlight_protocol::{Digest, UnixTime};
use fanlight_sealing::{EnclaveDh, KemKey, OpenedRequest, SoftwareDh, open_request};
use getrandom::SysRng;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use rand_core::UnwrapErr;

use super::{TestClock, lock, random};

/// What the provider says, in pieces.
pub const ANSWER: [&str; 3] = ["The ", "answer ", "is sealed."];

pub struct TestProvider {
    clock: TestClock,
    signing_key: SigningKey,
    identity: IdentityKey,
    kem: SoftwareDh,
    evidence: Signed<Evidence>,
    statement: Signed<KeyStatement>,
    // Number of the next receipt, digest of the last.
    chain: Mutex<(u64, Digest)>,
}

impl TestProvider {
    /// New keys, and a statement that is valid for an hour from now.
    pub fn new(clock: &TestClock, models: &[(&str, u32)]) -> Self {
        let now = clock.now();
        Self::valid(clock, models, now, now + Duration::from_hours(1))
    }

    pub fn valid(clock: &TestClock, models: &[(&str, u32)], not_before: UnixTime, not_after: UnixTime) -> Self {
        let signing_key = SigningKey::from_slice(&random::<32>()).expect("almost every scalar is a key");
        let point = signing_key.verifying_key().to_sec1_point(false);
        let identity = IdentityKey::from_sec1(point.as_bytes().try_into().expect("65 bytes")).expect("a point");
        let kem = SoftwareDh::generate(&mut UnwrapErr(SysRng));
        let claims = [("os".to_owned(), "test \u{1b}[2J".to_owned())].into();
        let evidence = Evidence { identity: identity.clone(), kind: EvidenceKind::SelfSigned, created: not_before, claims };
        let evidence = sign(&evidence, &identity, &signing_key);
        let offer = |(name, context_tokens): &(&str, u32)| ModelOffer {
            name: (*name).to_owned(),
            weights_digest: Digest::of(name.as_bytes()),
            context_tokens: *context_tokens,
        };
        let statement = KeyStatement {
            identity: identity.clone(),
            kem_key: *kem.public_key(),
            not_before,
            not_after,
            models: models.iter().map(offer).collect(),
            build_measurement: Digest::of(b"build"),
            evidence_digest: evidence.digest(),
        };
        let statement = sign(&statement, &identity, &signing_key);
        let chain = Mutex::new((0, Digest::ZERO));
        Self { clock: clock.clone(), signing_key, identity, kem, evidence, statement, chain }
    }

    /// Logs evidence and statement, and returns what the directory lists.
    pub async fn listing(&self, log: &Log<DirStore>) -> Listing {
        let evidence_proof = logged(log, self.evidence.bytes()).await;
        let key_statement_proof = logged(log, self.statement.bytes()).await;
        Listing {
            key_statement: self.statement.bytes().to_vec(),
            key_statement_proof,
            evidence: self.evidence.bytes().to_vec(),
            evidence_proof,
        }
    }

    pub fn id(&self) -> fanlight_protocol::ProviderId {
        self.identity.provider_id()
    }

    /// Opens a request, if it is sealed to this provider.
    pub fn open(&self, request: &[u8]) -> Option<OpenedRequest> {
        let statement_digest = self.statement.digest();
        let key = |key_id: &_| (*key_id == self.statement.key_id()).then_some(KemKey { dh: &self.kem, statement_digest });
        open_request(request, self.clock.now(), key, |_, _| true).ok()
    }

    /// The pieces of a whole answer: prefix, sealed frames, RECEIPT.
    pub fn answer(&self, opened: OpenedRequest, status: Status) -> Vec<Vec<u8>> {
        let fields = opened.header().fields().clone();
        let message = String::from_utf8(opened.message().to_vec()).expect("JSON");
        let request_hash = *opened.request_hash();
        let refused = message.contains("please fail");
        let start = opened.into_response_keys().start(&mut UnwrapErr(SysRng));
        let mut pieces = vec![start.prefix().to_bytes().to_vec()];
        let mut sealer = start.with_status(if refused { 400 } else { 200 });
        let last = if refused {
            r#"{"error":{"message":"No.","type":"invalid_request_error","param":"messages","code":"refused"}}"#.to_owned()
        } else if fields.stream {
            for text in ANSWER {
                let chunk = format!(
                    r#"{{"id":"x","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
                );
                pieces.extend(sealer.seal_data(format!("data: {chunk}\n\n").as_bytes()));
            }
            let end = r#"{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
            format!("data: {end}\n\ndata: [DONE]\n\n")
        } else {
            let content = ANSWER.concat();
            format!(
                r#"{{"id":"x","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}]}}"#
            )
        };
        let (frames, response_hash) = sealer.seal_final(last.as_bytes());
        pieces.extend(frames);
        let status = if refused { Status::Failed } else { status };
        let now = self.clock.now();
        let details = ReceiptDetails {
            request_id: fields.request_id,
            request_hash,
            response_hash,
            model: fields.model.clone(),
            weights_digest: Digest::of(fields.model.as_bytes()),
            build_measurement: Digest::of(b"build"),
            usage: Usage { input: 9, cached_input: 0, output: 3, reasoning: 0 },
            status,
            finish_reason: if status == Status::Complete { "stop" } else { "error" }.to_owned(),
            started: now,
            ended: now,
        };
        pieces.push(self.receipt_frame(&details));
        pieces
    }

    /// A RECEIPT frame with the next receipt of the chain.
    pub fn receipt_frame(&self, details: &ReceiptDetails) -> Vec<u8> {
        let (details, blind) = (details.to_bytes(), random::<32>());
        let mut chain = lock(&self.chain);
        let (counter, previous) = *chain;
        let receipt = Receipt {
            statement_digest: self.statement.digest(),
            counter,
            previous,
            time: UnixTime::from_secs(self.clock.now().minute_secs()),
            commitment: Receipt::commitment(&blind, &details),
        };
        let receipt = sign(&receipt, &self.identity, &self.signing_key);
        *chain = (counter + 1, receipt.digest());
        let payload = ReceiptPayload { receipt: receipt.bytes(), details: &details, blind }.to_bytes();
        Frame { frame_type: FrameType::Receipt, payload: &payload }.to_bytes()
    }
}

pub async fn logged(log: &Log<DirStore>, entry: &[u8]) -> String {
    let appended = log.append(Bytes::copy_from_slice(entry)).await.expect("a running log");
    appended.tlog_proof.to_string()
}

fn sign<T: Payload>(value: &T, identity: &IdentityKey, key: &SigningKey) -> Signed<T> {
    let sign = |bytes: &[u8]| {
        let signature: Signature = key.sign(bytes);
        Ok::<[u8; 64], Infallible>(signature.to_bytes().into())
    };
    match Signed::sign(value, identity, sign) {
        Ok(signed) => signed,
        Err(never) => match never {},
    }
}
