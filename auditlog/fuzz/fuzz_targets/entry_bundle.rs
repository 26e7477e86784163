#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fanlight_auditlog::bundle::parse_bundle(&bytes::Bytes::copy_from_slice(data));
});
