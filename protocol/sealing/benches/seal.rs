//! Sealing beside the primitives it cannot do without, in one process and in turns, so that both see the same machine.
//!
//! Prints one JSON object a line: `{"name","value","unit","baseline","baseline_name","target"}`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use fanlight_protocol::response::Frame;
use fanlight_protocol::{Digest, RequestId, UnixTime};
use fanlight_sealing::{
    EnclaveDh as _, KemKey, MAX_CONTENT_LEN, OpenResponse, Recipient, RequestParams, ResponseOpener, ResponseSealer, Sender,
    SoftwareDh, open_request,
};
use p256::elliptic_curve::Generate as _;
use rand_core::UnwrapErr;
use sha2::Digest as _;

/// Each round measures every subject once; the median of the rounds counts.
const ROUNDS: usize = 41;
const MESSAGE_LEN: usize = 4096;
const STREAM_FRAMES: usize = 256;
const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);
const STATEMENT: Digest = Digest([7; 32]);

type SysRng = UnwrapErr<getrandom::SysRng>;
const RNG: SysRng = UnwrapErr(getrandom::SysRng);

fn main() {
    request_figures();
    stream_figures();
}

fn request_figures() {
    let kems: [SoftwareDh; 3] = std::array::from_fn(|_| SoftwareDh::generate(&mut RNG.clone()));
    let recipients: Vec<_> =
        kems.iter().map(|kem| Recipient::new(kem.public_key(), STATEMENT).expect("a generated key is valid")).collect();
    let peers: Vec<_> =
        kems.iter().map(|kem| p256::PublicKey::from_sec1_bytes(kem.public_key()).expect("a generated key is valid")).collect();
    let message = vec![b'x'; MESSAGE_LEN];
    let seal = || {
        let params = RequestParams::chat("bench-model", RequestId([1; 16]), NOW);
        Sender::new(params, &recipients).and_then(|s| s.seal(&message, &mut RNG.clone())).expect("the parameters are valid")
    };
    let bare_seal = || {
        for peer in &peers {
            let ephemeral = p256::SecretKey::generate_from_rng(&mut RNG.clone());
            black_box(ephemeral.public_key());
            black_box(p256::ecdh::diffie_hellman(ephemeral.to_nonzero_scalar(), peer.as_affine()));
        }
        let mut buffer = message.clone();
        black_box(aes().encrypt_inout_detached(&Nonce::from([0; 12]), b"", buffer.as_mut_slice().into())).expect("short");
        black_box(buffer);
    };
    let (request, _) = seal();
    let key = |_: &_| Some(KemKey { dh: &kems[0], statement_digest: STATEMENT });
    let open = || open_request(&request, NOW, key, |_, _| true).expect("the request is good");
    let peer = *SoftwareDh::generate(&mut RNG.clone()).public_key();
    let bare_open = || {
        black_box(kems[0].ecdh(&peer)).expect("the point is valid");
        let mut buffer = message.clone();
        black_box(aes().encrypt_inout_detached(&Nonce::from([0; 12]), b"", buffer.as_mut_slice().into())).expect("short");
        black_box(buffer);
    };

    let [seal, bare_seal, open, bare_open] =
        medians(20, [&mut || drop(black_box(seal())), &mut || bare_seal(), &mut || drop(black_box(open())), &mut || bare_open()])
            .map(|t| t.as_secs_f64() * 1e6);
    report("seal_4k_3_recipients", seal, "us", bare_seal, "3 x P-256 keygen+ECDH, AES-256-GCM of 4 KiB", "<= 1.3x");
    report("open_4k", open, "us", bare_open, "1 x P-256 ECDH, AES-256-GCM of 4 KiB", "<= 1.3x");
}

fn stream_figures() {
    let content = vec![b'x'; MAX_CONTENT_LEN];
    let (mut sealer, _) = response();
    let (mut frame_sealer, mut opener) = response();
    let frames: Vec<_> = (0..STREAM_FRAMES * (ROUNDS + 1)).map(|_| frame_sealer.seal_data(&content)).collect();
    let mut frames = frames.iter().flatten();
    let aead = aes();
    let mut buffer = content.clone();
    let mut gcm = |_: usize| {
        for _ in 0..STREAM_FRAMES {
            black_box(aead.encrypt_inout_detached(&Nonce::from([0; 12]), b"", buffer.as_mut_slice().into())).expect("short");
        }
    };
    let hash = || {
        for _ in 0..STREAM_FRAMES {
            black_box(sha2::Sha256::digest(&content));
        }
    };
    let [seal, open, gcm, hash] = medians(
        1,
        [
            &mut || {
                for _ in 0..STREAM_FRAMES {
                    black_box(sealer.seal_data(&content));
                }
            },
            &mut || {
                for frame in frames.by_ref().take(STREAM_FRAMES) {
                    let frame = Frame::parse(frame).expect("a sealed frame");
                    black_box(opener.open(&frame)).expect("in order");
                }
            },
            &mut || gcm(0),
            &mut || hash(),
        ],
    );
    let bytes = f64::from(u32::try_from(STREAM_FRAMES * content.len()).expect("4 MiB"));
    let rate = |time: Duration| bytes / time.as_secs_f64() / 1e6;
    let both = "AES-256-GCM, then SHA-256 of the same bytes";
    report("stream_seal", rate(seal), "MB/s", rate(gcm), "AES-256-GCM", ">= 0.8x");
    report("stream_seal_with_transcript", rate(seal), "MB/s", rate(gcm + hash), both, ">= 0.8x");
    report("stream_open", rate(open), "MB/s", rate(gcm), "AES-256-GCM", ">= 0.8x");
    report("stream_open_with_transcript", rate(open), "MB/s", rate(gcm + hash), both, ">= 0.8x");
}

/// Both ends of one response.
fn response() -> (ResponseSealer, OpenResponse) {
    let kem = SoftwareDh::generate(&mut RNG.clone());
    let recipient = Recipient::new(kem.public_key(), STATEMENT).expect("a generated key is valid");
    let params = RequestParams::chat("bench-model", RequestId([1; 16]), NOW);
    let (request, opener): (_, ResponseOpener) =
        Sender::new(params, &[recipient]).and_then(|s| s.seal(b"{}", &mut RNG.clone())).expect("the parameters are valid");
    let key = |_: &_| Some(KemKey { dh: &kem, statement_digest: STATEMENT });
    let request = open_request(&request, NOW, key, |_, _| true).expect("the request is good");
    let start = request.into_response_keys().start(&mut RNG.clone());
    let opener = opener.begin(start.prefix()).expect("the recipient is the only one");
    (start.with_status(200), opener)
}

fn aes() -> Aes256Gcm {
    Aes256Gcm::new(&[9; 32].into())
}

/// Median time of one call of each subject. Subjects take turns; the first turn warms up and does not count.
fn medians<const N: usize>(calls: u32, mut subjects: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for round in 0..=ROUNDS {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..calls {
                subject();
            }
            if round > 0 {
                times.push(start.elapsed() / calls);
            }
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    })
}

fn report(name: &str, value: f64, unit: &str, baseline: f64, baseline_name: &str, target: &str) {
    println!(
        r#"{{"name":"{name}","value":{value:.2},"unit":"{unit}","baseline":{baseline:.2},"baseline_name":"{baseline_name}","target":"{target}"}}"#
    );
}
