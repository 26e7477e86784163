//! Whole requests, opened with a fixed key.
#![no_main]

use fanlight_protocol_fuzz::open_with_fixed_key;

libfuzzer_sys::fuzz_target!(|data: &[u8]| open_with_fixed_key(data));
