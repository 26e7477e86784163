//! RECEIPT payloads.
#![no_main]

use fanlight_protocol_fuzz::rewrite_receipt_payload;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rewrite_receipt_payload(data));
