//! Directories.
#![no_main]

use fanlight_protocol::directory::Directory;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(serde_json::from_slice::<Directory>(data)));
