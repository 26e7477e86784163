//! Link entries.
#![no_main]

use fanlight_protocol::entry::{LinkAuth, Signed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(Signed::<LinkAuth>::verify_self_keyed(data)));
