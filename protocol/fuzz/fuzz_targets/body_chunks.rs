//! Body chunks: the splitter ends, and what it yields is within the limits.
#![no_main]

use fanlight_protocol::chunk::Chunks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| Chunks::new(data).for_each(drop));
