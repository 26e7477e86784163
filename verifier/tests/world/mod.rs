//! What the tests verify: software identity keys, entries they sign, and a log in a directory.

#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::convert::Infallible;
use std::time::Duration;

use fanlight_auditlog::{Checkpoint, Config, CosignerKey, DirStore, Log, Policy, Signer, TlogProof, create};
use fanlight_protocol::bundle::{BundleFormat, ReceiptBundle};
use fanlight_protocol::directory::Listing;
use fanlight_protocol::entry::{
    Evidence, EvidenceKind, IdentityKey, KeyStatement, ModelOffer, Payload, Receipt, ReceiptDetails, Signed, Status, Usage,
};
use fanlight_protocol::{Digest, ProviderId, RequestId, UnixTime};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

pub(crate) const START: u64 = 1_700_000_000;
pub(crate) const END: u64 = START + 3_600;
pub(crate) const NOW: UnixTime = UnixTime::from_secs(START + 600);
pub(crate) const MODEL: &str = "tiny";
pub(crate) const BLIND: [u8; 32] = [0xb1; 32];

/// A provider's identity, in software.
pub(crate) struct Identity {
    key: SigningKey,
    pub(crate) public: IdentityKey,
}

impl Identity {
    pub(crate) fn new(seed: u8) -> Self {
        let key = SigningKey::from_slice(&[seed; 32]).expect("a small number is a private key");
        let point = key.verifying_key().to_sec1_point(false);
        let point = point.as_bytes().try_into().expect("an uncompressed point has 65 bytes");
        Self { public: IdentityKey::from_sec1(point).expect("a public key is on the curve"), key }
    }

    pub(crate) fn id(&self) -> ProviderId {
        self.public.provider_id()
    }

    pub(crate) fn sign<T: Payload>(&self, value: &T) -> Signed<T> {
        let sign = |message: &[u8]| {
            let signature: Signature = self.key.sign(message);
            Ok::<_, Infallible>(signature.to_bytes().into())
        };
        Signed::sign(value, &self.public, sign).unwrap_or_else(|never| match never {})
    }

    /// An entry of `victim` whose signature is ours.
    pub(crate) fn sign_as<T: Payload>(&self, victim: &Self, entry: &Signed<T>) -> Vec<u8> {
        let (bytes, _) = entry.bytes().split_at(entry.bytes().len() - 64);
        assert_eq!(entry.signer(), &victim.public, "the entry is the victim's");
        let signature: Signature = self.key.sign(bytes);
        [bytes, signature.normalize_s().to_bytes().as_slice()].concat()
    }

    pub(crate) fn evidence(&self) -> Signed<Evidence> {
        let claims = [("os".to_owned(), "linux".to_owned())].into();
        let created = UnixTime::from_secs(START - 60);
        self.sign(&Evidence { identity: self.public.clone(), kind: EvidenceKind::SelfSigned, created, claims })
    }

    pub(crate) fn statement(&self, edit: impl FnOnce(&mut KeyStatement)) -> Signed<KeyStatement> {
        let kem_point = SigningKey::from_slice(&[0x4b; 32]).expect("a private key").verifying_key().to_sec1_point(false);
        let offer = ModelOffer { name: MODEL.to_owned(), weights_digest: Digest([3; 32]), context_tokens: 512 };
        let mut statement = KeyStatement {
            identity: self.public.clone(),
            kem_key: kem_point.as_bytes().try_into().expect("an uncompressed point has 65 bytes"),
            not_before: UnixTime::from_secs(START),
            not_after: UnixTime::from_secs(END),
            models: vec![offer],
            build_measurement: Digest([4; 32]),
            evidence_digest: self.evidence().digest(),
        };
        edit(&mut statement);
        self.sign(&statement)
    }

    /// A receipt that goes on from `previous`, for details that ended at its time.
    pub(crate) fn receipt(
        &self,
        statement: &Signed<KeyStatement>,
        details: &ReceiptDetails,
        previous: Option<&Signed<Receipt>>,
    ) -> Signed<Receipt> {
        self.sign(&Receipt {
            statement_digest: statement.digest(),
            counter: previous.map_or(0, |receipt| receipt.counter + 1),
            previous: previous.map_or(Digest::ZERO, Signed::digest),
            time: UnixTime::from_secs(details.ended.minute_secs()),
            commitment: Receipt::commitment(&BLIND, &details.to_bytes()),
        })
    }
}

pub(crate) fn details() -> ReceiptDetails {
    ReceiptDetails {
        request_id: RequestId([1; 16]),
        request_hash: Digest([5; 32]),
        response_hash: Digest([6; 32]),
        model: MODEL.to_owned(),
        weights_digest: Digest([3; 32]),
        build_measurement: Digest([4; 32]),
        usage: Usage { input: 12, cached_input: 4, output: 30, reasoning: 2 },
        status: Status::Complete,
        finish_reason: "stop".to_owned(),
        started: UnixTime::from_millis(NOW.as_millis() + 250),
        ended: UnixTime::from_millis(NOW.as_millis() + 4_000),
    }
}

/// A log in a directory, with its sequencer running until the test's runtime ends.
pub(crate) struct TestLog {
    pub(crate) dir: tempfile::TempDir,
    log: Log<DirStore>,
}

impl TestLog {
    pub(crate) async fn open(seed: u8) -> Self {
        Self::open_named("log.example/test", seed).await
    }

    pub(crate) async fn open_named(origin: &str, seed: u8) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let signer = || Signer::new(origin, &[seed; 32]).expect("a good name");
        let store = DirStore::open_writer(dir.path()).expect("an empty directory opens");
        create(&store, &signer()).await.expect("an empty store takes a log");
        let config = Config { max_delay: Duration::from_millis(1), ..Config::default() };
        let (log, sequencer) = Log::open(store, signer(), config).await.expect("a new log opens");
        drop(tokio::spawn(sequencer.run(fanlight_auditlog::TokioTimer::new())));
        Self { dir, log }
    }

    pub(crate) fn vkey(&self) -> String {
        self.log.log_key().to_string()
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy::for_log(self.log.log_key().clone())
    }

    /// The policy as a client's file has it.
    pub(crate) fn policy_text(&self) -> String {
        format!("log {}\nquorum none\n", self.vkey())
    }

    pub(crate) fn checkpoint(&self) -> String {
        self.log.checkpoint().note().to_owned()
    }

    pub(crate) async fn append(&self, entry: &[u8]) -> String {
        let appended = self.log.append(entry.to_vec().into()).await.expect("the log takes an entry");
        appended.tlog_proof.to_string()
    }
}

/// A witness: cosigns the checkpoint of a proof.
pub(crate) struct Witness {
    key: CosignerKey,
}

impl Witness {
    pub(crate) fn new(seed: u8) -> Self {
        Self { key: CosignerKey::ed25519("witness.example", &[seed; 32]).expect("a good name") }
    }

    pub(crate) fn vkey(&self) -> String {
        self.key.verifier_key().to_string()
    }

    pub(crate) fn cosign(&self, proof: &str) -> String {
        let proof = TlogProof::parse(proof.as_bytes()).expect("a proof");
        let (text, _) = proof.checkpoint().rsplit_once("\n\n").expect("a signed note");
        let checkpoint = Checkpoint::parse(&format!("{text}\n")).expect("a checkpoint");
        let line = self.key.cosign(&checkpoint, START).expect("a short origin");
        let checkpoint = format!("{}{line}\n", proof.checkpoint());
        TlogProof::new(proof.index(), proof.path().to_vec(), checkpoint).to_string()
    }
}

/// One provider, logged, and one exchange with it.
pub(crate) struct World {
    pub(crate) log: TestLog,
    pub(crate) provider: Identity,
    pub(crate) statement: Signed<KeyStatement>,
    pub(crate) listing: Listing,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) bundle: ReceiptBundle,
}

impl World {
    pub(crate) async fn new() -> Self {
        let log = TestLog::open(1).await;
        // Leaves of others, so that no path is empty.
        log.append(b"before").await;
        let provider = Identity::new(7);
        let statement = provider.statement(|_| ());
        let listing = list(&log, provider.evidence().bytes(), statement.bytes()).await;
        let receipt = provider.receipt(&statement, &details(), None);
        let proof = log.append(receipt.bytes()).await;
        let bundle = bundle(&listing, &receipt, &details(), Some(proof));
        Self { log, provider, statement, listing, receipt, bundle }
    }
}

pub(crate) async fn list(log: &TestLog, evidence: &[u8], statement: &[u8]) -> Listing {
    let evidence_proof = log.append(evidence).await;
    let key_statement_proof = log.append(statement).await;
    Listing { key_statement: statement.to_vec(), key_statement_proof, evidence: evidence.to_vec(), evidence_proof }
}

pub(crate) fn bundle(
    listing: &Listing,
    receipt: &Signed<Receipt>,
    details: &ReceiptDetails,
    tlog_proof: Option<String>,
) -> ReceiptBundle {
    let listing = listing.clone();
    ReceiptBundle {
        format: BundleFormat::V1,
        receipt_id: details.request_id,
        receipt: receipt.bytes().to_vec(),
        details: details.to_bytes(),
        blind: BLIND.to_vec(),
        key_statement: listing.key_statement,
        key_statement_proof: listing.key_statement_proof,
        evidence: listing.evidence,
        evidence_proof: listing.evidence_proof,
        logged: tlog_proof.is_some(),
        tlog_proof,
    }
}
