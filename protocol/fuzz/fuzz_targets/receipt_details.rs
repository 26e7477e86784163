//! Receipt details.
#![no_main]

use fanlight_protocol::entry::ReceiptDetails;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(ReceiptDetails::from_bytes(data)));
