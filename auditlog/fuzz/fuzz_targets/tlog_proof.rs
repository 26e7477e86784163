#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(fanlight_auditlog::TlogProof::parse(data)));
