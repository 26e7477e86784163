//! Evidence entries.
#![no_main]

use fanlight_protocol::entry::{Evidence, Signed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(Signed::<Evidence>::verify_self_keyed(data)));
