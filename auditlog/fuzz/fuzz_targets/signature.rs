#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::note::{KeyType, Note};
use fanlight_auditlog::{Checkpoint, CosignerKey, Signer, VerifierKey};

const TEXT: &str = "log.example\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

/// The generator of P-256, as a key.
const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";

/// Keys, and a good signature where we can make one.
static KEYS: LazyLock<Vec<(VerifierKey, Vec<u8>)>> = LazyLock::new(|| {
    let checkpoint = Checkpoint::parse(TEXT).expect("a checkpoint");
    let log = Signer::new("log.example", &[1; 32]).expect("a name");
    let signed = Note::parse(log.sign(TEXT).as_bytes()).expect("just signed");
    let p256 = STANDARD.decode(P256).expect("base64");
    let cosigned = |key: CosignerKey| {
        let line = key.cosign(&checkpoint, 1).expect("a short origin");
        (key.verifier_key(), line.body().to_vec())
    };
    vec![
        (log.verifier_key(), signed.signatures()[0].body().to_vec()),
        (VerifierKey::new("log.example", KeyType::EcdsaP256, &p256).expect("a key"), Vec::new()),
        cosigned(CosignerKey::ed25519("w.example", &[2; 32]).expect("a name")),
        cosigned(CosignerKey::ml_dsa_44("w.example", &[3; 32]).expect("a name")),
    ]
});

// Under the id of a trusted key, any bytes reach its verifier. The first byte says which key, and whether the others replace
// a good signature or are differences to it.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let (key, good) = &KEYS[usize::from(*which & 0x7f) % KEYS.len()];
    let mut body = data.to_vec();
    if *which > 0x7f {
        body.resize(good.len().max(body.len()), 0);
        body.iter_mut().zip(good).for_each(|(byte, good)| *byte ^= good);
    }
    if body.is_empty() {
        return;
    }
    let line = STANDARD.encode([key.id().to_be_bytes().as_slice(), &body].concat());
    let note = Note::parse(format!("{TEXT}\n— {} {line}\n", key.name()).as_bytes()).expect("well-formed");
    let _ = note.verify(key);
    let _ = note.verify_cosignature(key);
});
