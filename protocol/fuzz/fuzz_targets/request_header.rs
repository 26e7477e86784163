//! Request headers: what parses is written back as it was.
#![no_main]

use fanlight_protocol_fuzz::rewrite_header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rewrite_header(data));
