#![no_main]

use fanlight_auditlog::VerifierKey;
use fanlight_auditlog::note::KeyType;

const TYPES: [KeyType; 4] = [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::Cosignature, KeyType::MlDsa44];

// The bytes of a public key, without the id that a vkey would have to match. The first byte says of which type.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, public_key)) = data.split_first() else { return };
    let key_type = TYPES[usize::from(*which) % TYPES.len()];
    if let Ok(key) = VerifierKey::new("name", key_type, public_key) {
        assert_eq!(VerifierKey::parse(&key.to_string()).as_ref(), Ok(&key));
    }
});
