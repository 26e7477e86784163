//! Responses in pieces: the pieces make no difference.
#![no_main]

use fanlight_protocol_fuzz::split_both_ways;

libfuzzer_sys::fuzz_target!(|data: &[u8]| split_both_ways(data));
