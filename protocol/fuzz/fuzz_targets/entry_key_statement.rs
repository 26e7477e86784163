//! Key statements.
#![no_main]

use fanlight_protocol::entry::{KeyStatement, Signed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(Signed::<KeyStatement>::verify_self_keyed(data)));
