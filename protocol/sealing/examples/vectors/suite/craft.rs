//! SPEC §4 and §5 written a second time, plainly and with a handle on every step, so that one thing at a time can be wrong.

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use hkdf::Hkdf;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rng::CounterRng;

pub(crate) const NOW: u64 = 1_790_000_000;
pub(crate) const MESSAGE: &[u8] = br#"{"model":"tiny-llama","messages":[{"role":"user","content":"Hello"}],"stream":true}"#;

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A provider's KEM key and the digest of its statement, both from the name.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) secret: [u8; 32],
    pub(crate) public: [u8; 65],
    pub(crate) statement: [u8; 32],
}

impl Party {
    pub(crate) fn new(name: &str) -> Self {
        let secret = CounterRng::new(&format!("kem {name}")).array();
        let key = <DhP256HkdfSha256 as Kem>::PrivateKey::from_bytes(&secret).expect("a scalar below the order");
        let public = DhP256HkdfSha256::sk_to_pk(&key).to_bytes().into();
        Self { secret, public, statement: sha256(format!("statement {name}").as_bytes()) }
    }

    pub(crate) fn key_id(&self) -> [u8; 16] {
        let hash = sha256(&[b"fanlight-v1 key id".as_slice(), &[0, 1], &self.public].concat());
        *hash.first_chunk().expect("16 <= 32")
    }
}

/// `fields` of SPEC §4.1, with any value in any place.
#[derive(Clone)]
pub(crate) struct Fields {
    pub(crate) version: u8,
    pub(crate) suite: u16,
    pub(crate) request_id: [u8; 16],
    pub(crate) created: u64,
    pub(crate) expires: u64,
    pub(crate) operation: String,
    pub(crate) model: String,
    pub(crate) tokens: [u32; 3],
    pub(crate) flags: u8,
    pub(crate) padding: u8,
    /// Instead of the number of recipients.
    pub(crate) n_recipients: Option<u8>,
    pub(crate) recipients: Vec<Party>,
}

impl Fields {
    pub(crate) fn to(recipients: &[&Party]) -> Self {
        Self {
            version: 1,
            suite: 1,
            request_id: [0x42; 16],
            created: NOW,
            expires: NOW + 300,
            operation: "chat.completions".into(),
            model: "tiny-llama".into(),
            tokens: [1, 4096, 512],
            flags: 1,
            padding: 1,
            n_recipients: None,
            recipients: recipients.iter().map(|&party| party.clone()).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.version];
        out.extend(self.suite.to_be_bytes());
        out.extend(self.request_id);
        out.extend(self.created.to_be_bytes());
        out.extend(self.expires.to_be_bytes());
        for text in [&self.operation, &self.model] {
            out.push(u8::try_from(text.len()).expect("short"));
            out.extend(text.bytes());
        }
        out.extend(self.tokens.map(u32::to_be_bytes).concat());
        out.extend([self.flags, self.padding]);
        out.push(self.n_recipients.unwrap_or_else(|| u8::try_from(self.recipients.len()).expect("few")));
        for party in &self.recipients {
            out.extend(party.key_id());
            out.extend(party.statement);
        }
        out
    }

    /// What a sealing implementation needs to make the same request.
    pub(crate) fn seal_inputs(&self, seed: &str, message: &[u8]) -> Value {
        let recipients: Vec<_> = self
            .recipients
            .iter()
            .map(|p| json!({"kem_key": hex::encode(p.public), "statement_digest": hex::encode(p.statement)}))
            .collect();
        json!({
            "seed": seed, "request_id": hex::encode(self.request_id), "created": self.created, "expires": self.expires,
            "operation": self.operation, "model": self.model, "input_tokens_min": self.tokens[0],
            "input_tokens_max": self.tokens[1], "max_output_tokens": self.tokens[2], "stream": self.flags == 1,
            "padding": self.padding, "recipients": recipients, "message": hex::encode(message),
        })
    }
}

/// What the HPKE context of one recipient gives.
#[derive(Clone)]
pub(crate) struct Wrapped {
    pub(crate) enc: [u8; 65],
    pub(crate) sealed_key: Vec<u8>,
    pub(crate) response_secret: [u8; 32],
}

/// A request in its parts.
#[derive(Clone)]
pub(crate) struct Crafted {
    pub(crate) content_key: [u8; 32],
    pub(crate) fields: Vec<u8>,
    pub(crate) commitment: [u8; 32],
    pub(crate) wraps: Vec<Wrapped>,
    pub(crate) body: Vec<u8>,
}

impl Crafted {
    /// Header by the rules, and a body of `message` by the rules.
    pub(crate) fn new(fields: &Fields, seed: &str, message: &[u8]) -> Self {
        let mut crafted = Self::header_only(fields, seed);
        crafted.body = crafted.seal_body(&whole_chunks(&plaintext(message, fields.padding), 16_384));
        crafted
    }

    pub(crate) fn header_only(fields: &Fields, seed: &str) -> Self {
        let mut rng = CounterRng::new(seed);
        let content_key = rng.array();
        let commitment = commitment(&content_key, &fields.bytes());
        Self::wrap(fields, content_key, commitment, rng)
    }

    /// Wraps for the recipients of `fields`, whatever the commitment.
    pub(crate) fn wrap(fields: &Fields, content_key: [u8; 32], commitment: [u8; 32], mut rng: CounterRng) -> Self {
        let bytes = fields.bytes();
        let wraps = fields.recipients.iter().map(|party| {
            let info = [b"fanlight-v1 request".as_slice(), &sha256(&bytes), &party.key_id()].concat();
            let recipient = <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(&party.public).expect("a valid key");
            let (enc, mut context) = setup_with(&recipient, &info, rng.array());
            let sealed_key = context.seal(&content_key, &commitment).expect("short");
            let mut response_secret = [0; 32];
            context.export(b"fanlight-v1 response", &mut response_secret).expect("short");
            Wrapped { enc, sealed_key, response_secret }
        });
        let wraps = wraps.collect();
        Self { content_key, fields: bytes, commitment, wraps, body: Vec::new() }
    }

    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = self.fields.clone();
        out.extend(self.commitment);
        for wrap in &self.wraps {
            out.extend(wrap.enc);
            out.extend(&wrap.sealed_key);
        }
        out
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.header(), self.body.clone()].concat()
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        sha256(&self.bytes())
    }

    pub(crate) fn with_body(&self, body: Vec<u8>) -> Self {
        Self { body, ..self.clone() }
    }

    /// Chunks under this header and content key, numbered in their order.
    pub(crate) fn seal_body(&self, chunks: &[Chunk]) -> Vec<u8> {
        self.seal_chunks(chunks).into_iter().flat_map(|(len, sealed)| [len, sealed].concat()).collect()
    }

    /// Each chunk as its length field and its sealed bytes.
    pub(crate) fn seal_chunks(&self, chunks: &[Chunk]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let hkdf = Hkdf::<Sha256>::new(Some(&sha256(&self.header())), &self.content_key);
        let (key, nonce) = (expand(&hkdf, b"fanlight-v1 body key"), expand(&hkdf, b"fanlight-v1 body nonce"));
        let sealed = chunks.iter().enumerate().map(|(k, chunk)| {
            let sealed = gcm(&key, &nonce, k as u64, chunk.aad, &chunk.plain);
            let len = if chunk.last { vec![0] } else { varint(sealed.len()) };
            (len, sealed)
        });
        sealed.collect()
    }
}

/// One body chunk: what is sealed, under what, and whether it is written as the last.
pub(crate) struct Chunk {
    pub(crate) plain: Vec<u8>,
    pub(crate) aad: &'static [u8],
    pub(crate) last: bool,
}

/// `plain` in chunks of `len` bytes, the last one final.
pub(crate) fn whole_chunks(plain: &[u8], len: usize) -> Vec<Chunk> {
    let n = plain.len().div_ceil(len);
    let chunk = |(i, plain): (usize, &[u8])| {
        let last = i + 1 == n;
        Chunk { plain: plain.into(), aad: if last { b"final" } else { b"" }, last }
    };
    plain.chunks(len).enumerate().map(chunk).collect()
}

/// `length(4) ‖ message ‖ zeros`.
pub(crate) fn plaintext(message: &[u8], padding: u8) -> Vec<u8> {
    let mut plain = u32::try_from(message.len()).expect("short").to_be_bytes().to_vec();
    plain.extend(message);
    if padding == 1 {
        plain.resize(padme(plain.len()), 0);
    }
    plain
}

fn padme(n: usize) -> usize {
    let e = n.ilog2();
    let s = e.ilog2() + 1;
    let mask = (1 << (e - s)) - 1;
    (n + mask) & !mask
}

pub(crate) fn commitment(content_key: &[u8; 32], fields: &[u8]) -> [u8; 32] {
    let info = [b"fanlight-v1 commitment".as_slice(), &sha256(fields)].concat();
    expand(&Hkdf::new(Some(b""), content_key), &info)
}

/// `prefix ‖ frames` in the making.
pub(crate) struct Answer {
    prefix: Vec<u8>,
    key: [u8; 32],
    nonce: [u8; 12],
    next: u64,
    padding: u8,
}

impl Answer {
    /// Keys by SPEC §5.1, from whatever `enc`, secret and request hash are given.
    pub(crate) fn new(party: &Party, wrap: &Wrapped, request_hash: [u8; 32], padding: u8) -> Self {
        let response_nonce: [u8; 32] = CounterRng::new("response nonce").array();
        let salt = [&wrap.enc[..], &response_nonce, &request_hash].concat();
        let hkdf = Hkdf::<Sha256>::new(Some(&salt), &wrap.response_secret);
        Self {
            prefix: [&[1][..], &party.key_id(), &response_nonce].concat(),
            key: expand(&hkdf, b"fanlight-v1 response key"),
            nonce: expand(&hkdf, b"fanlight-v1 response nonce"),
            next: 0,
            padding,
        }
    }

    pub(crate) fn prefix(&self) -> Vec<u8> {
        self.prefix.clone()
    }

    /// A sealed frame of `content` by the rules.
    pub(crate) fn sealed(&mut self, frame_type: u8, content: &[u8]) -> Vec<u8> {
        let mut plain = u16::try_from(content.len()).expect("short").to_be_bytes().to_vec();
        plain.extend(content);
        if self.padding == 1 {
            plain.resize(plain.len().div_ceil(256) * 256, 0);
        }
        self.raw(frame_type, &[frame_type], &plain)
    }

    /// A sealed frame of any plaintext under any AAD.
    pub(crate) fn raw(&mut self, frame_type: u8, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let sealed = gcm(&self.key, &self.nonce, self.next, aad, plain);
        self.next += 1;
        clear(frame_type, &sealed)
    }
}

/// `type(1) ‖ length(4) ‖ payload`.
pub(crate) fn clear(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    [&[frame_type][..], &u32::try_from(payload.len()).expect("short").to_be_bytes(), payload].concat()
}

/// A RECEIPT payload whose parts mean nothing: sealing looks at its place only.
pub(crate) fn receipt_frame() -> Vec<u8> {
    clear(0x10, &[&[0, 0, 0, 3][..], b"abc", &[0, 0, 0, 2], b"de", &[9; 32]].concat())
}

fn expand<const N: usize>(hkdf: &Hkdf<Sha256>, info: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    hkdf.expand(info, &mut out).expect("short");
    out
}

fn gcm(key: &[u8; 32], base_nonce: &[u8; 12], k: u64, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = *base_nonce;
    let tail = u64::from_be_bytes(*nonce.last_chunk().expect("8 <= 12")) ^ k;
    nonce[4..].copy_from_slice(&tail.to_be_bytes());
    let mut out = plain.to_vec();
    let tag =
        Aes256Gcm::new(key.into()).encrypt_inout_detached(&Nonce::from(nonce), aad, out.as_mut_slice().into()).expect("short");
    out.extend(tag);
    out
}

pub(crate) fn varint(n: usize) -> Vec<u8> {
    let n = u32::try_from(n).expect("short");
    match n {
        0..0x40 => vec![n.to_be_bytes()[3]],
        0x40..0x4000 => (n | 0x4000).to_be_bytes()[2..].to_vec(),
        _ => (n | 0x8000_0000).to_be_bytes().to_vec(),
    }
}

type Context = hpke::aead::AeadCtxS<AesGcm256, HkdfSha256, DhP256HkdfSha256>;

/// `SetupBaseS` with a chosen ephemeral scalar, by RFC 9180 §4.1 up to the shared secret.
fn setup_with(recipient: &<DhP256HkdfSha256 as Kem>::PublicKey, info: &[u8], scalar: [u8; 32]) -> ([u8; 65], Context) {
    let secret = p256::SecretKey::from_slice(&scalar).expect("a scalar below the order");
    let point = p256::PublicKey::from_sec1_bytes(&recipient.to_bytes()).expect("a valid key");
    let dh = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), point.as_affine());
    let enc: [u8; 65] = secret.public_key().to_sec1_bytes().as_ref().try_into().expect("uncompressed");
    let labeled = |label: &[u8], rest: &[u8]| [b"HPKE-v1KEM\x00\x10".as_slice(), label, rest].concat();
    let eae = Hkdf::<Sha256>::new(Some(b""), &labeled(b"eae_prk", dh.raw_secret_bytes()));
    let context = [&enc[..], &recipient.to_bytes()].concat();
    let mut shared = hpke::kem::SharedSecret::<DhP256HkdfSha256>::default();
    let info_kem = [&[0, 32][..], &labeled(b"shared_secret", &context)].concat();
    eae.expand(&info_kem, &mut shared.0).expect("short");
    let mode = OpModeS::<DhP256HkdfSha256>::Base;
    (enc, <HkdfSha256 as hpke::kdf::Kdf>::combine_secrets::<AesGcm256, _, _>(&mode, shared, info).into())
}
