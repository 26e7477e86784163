//! Link messages: what parses is written back as it was.
#![no_main]

use fanlight_protocol_fuzz::rewrite_link_message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rewrite_link_message(data));
