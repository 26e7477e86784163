//! `link_v1.json`: one message of each kind, and one test for each rule of SPEC §8 that the bytes of one can break.

use serde_json::json;

use super::Suite;

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §8", "link_v1");
    let lp32 = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let message = |stream: u32, kind: u8, payload: &[u8]| [&stream.to_be_bytes()[..], &[kind], payload].concat();
    let hello = [lp32(b"link"), lp32(b"evidence"), lp32(b"statement"), vec![0, 0, 0, 4]].concat();
    let welcome = [lp32(b"evidence proof"), lp32(b"statement proof")].concat();
    let (longest, too_long) = (vec![0; 65_541], vec![0; 65_542]);
    let good: [(&str, u32, u8, &[u8]); 16] = [
        ("challenge", 0, 0x01, &[7; 32]),
        ("hello", 0, 0x02, &hello),
        ("welcome", 0, 0x03, &welcome),
        ("statement", 0, 0x04, b"entry"),
        ("listed", 0, 0x05, b"proof"),
        ("capacity", 0, 0x06, &[0, 0, 0, 0]),
        ("rejected", 0, 0x07, b"{}"),
        ("request", 1, 0x10, b"bytes"),
        ("request_end", 1, 0x11, b""),
        ("cancel", u32::MAX, 0x12, b""),
        ("credit", 2, 0x13, &[0, 1, 0, 0]),
        ("refused", 3, 0x20, b"\x01\xa6{}"),
        ("prefix", 3, 0x21, &[1; 49]),
        ("frame", 3, 0x22, &[3, 0, 0, 0, 0]),
        ("end", 3, 0x23, b""),
        ("longest_frame", 3, 0x22, &longest),
    ];
    for (name, stream, kind, payload) in good {
        let inputs = json!({"message": hex::encode(message(stream, kind, payload)), "stream": stream, "kind": kind});
        suite.test(name, &["Good"], inputs, "ok");
    }
    let mut bad = |name: &str, bytes: &[u8], expect: &str| {
        suite.test(name, &["Bad"], json!({"message": hex::encode(bytes)}), expect);
    };
    bad("empty", b"", "truncated");
    bad("header_cut", &[0, 0, 0, 1], "truncated");
    bad("kind_0", &message(1, 0, b""), "invalid");
    bad("kind_unknown", &message(1, 0x24, b""), "invalid");
    bad("challenge_short", &message(0, 1, &[7; 31]), "truncated");
    bad("challenge_long", &message(0, 1, &[7; 33]), "trailing_bytes");
    bad("hello_cut", &message(0, 2, &hello[..hello.len() - 1]), "truncated");
    bad("hello_long", &message(0, 2, &[&hello[..], &[0]].concat()), "trailing_bytes");
    bad("hello_length_4_gib", &message(0, 2, &[0xff; 40]), "too_long");
    bad("capacity_short", &message(0, 6, &[0; 3]), "truncated");
    bad("cancel_with_payload", &message(1, 0x12, b"x"), "trailing_bytes");
    bad("end_with_payload", &message(1, 0x23, b"x"), "trailing_bytes");
    bad("credit_long", &message(1, 0x13, &[0; 5]), "trailing_bytes");
    bad("prefix_short", &message(1, 0x21, &[1; 48]), "truncated");
    bad("refused_without_status", &message(1, 0x20, &[1]), "truncated");
    bad("message_too_long", &message(1, 0x22, &too_long), "too_long");
    bad("control_on_a_stream", &message(1, 0x06, &[0; 4]), "invalid");
    bad("request_on_stream_0", &message(0, 0x11, b""), "invalid");
    bad("frame_on_stream_0", &message(0, 0x22, b""), "invalid");
    suite.into_text()
}
