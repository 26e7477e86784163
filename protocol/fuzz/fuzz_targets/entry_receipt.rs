//! Receipts, under the identity key of the vectors.
#![no_main]

use fanlight_protocol_fuzz::verify_receipt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| verify_receipt(data));
