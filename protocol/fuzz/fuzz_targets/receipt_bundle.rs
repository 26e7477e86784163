//! Receipt bundles.
#![no_main]

use fanlight_protocol::bundle::ReceiptBundle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(serde_json::from_slice::<ReceiptBundle>(data)));
