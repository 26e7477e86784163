#![no_main]

use fanlight_auditlog::{CosignerKey, Signer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Signer::parse_private_key(text);
        let _ = CosignerKey::parse_private_key(text);
    }
});
