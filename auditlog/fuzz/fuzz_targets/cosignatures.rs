#![no_main]

use fanlight_auditlog::witness::{parse_cosignatures, parse_size, write_cosignatures};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = parse_size(data);
    // The vectors are notes, and an answer is the part of one after the blank line.
    let answer = data.windows(2).rposition(|pair| pair == b"\n\n").map_or(data, |blank| &data[blank + 2..]);
    if let Ok(lines) = parse_cosignatures(answer) {
        assert_eq!(write_cosignatures(&lines).as_bytes(), answer);
    }
});
