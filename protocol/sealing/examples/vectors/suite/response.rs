//! `response_v1.json`: answers that open, and one test for each rule of SPEC §5 that an answer can break.

use serde_json::{Value, json};

use super::Suite;
use super::craft::{Answer, Crafted, Fields, MESSAGE, Party, clear, receipt_frame, sha256};

pub(crate) const SEED: &str = "answered request";
pub(crate) const PING: [u8; 5] = [3, 0, 0, 0, 0];

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §5", "response_v1");
    suite.share("requests", requests());
    good(&mut suite);
    bad_frames(&mut suite);
    bad_order(&mut suite);
    suite.into_text()
}

/// The request that a test's answer is to, by its padding.
pub(crate) fn request(padding: u8) -> (Crafted, Vec<Party>) {
    let parties = vec![Party::new("a"), Party::new("b")];
    let fields = Fields { padding, ..Fields::to(&parties.iter().collect::<Vec<_>>()) };
    (Crafted::new(&fields, SEED, MESSAGE), parties)
}

/// How an implementation makes those requests itself, to hold what opens the answers.
pub(crate) fn requests() -> Value {
    let seal = |padding| {
        let (a, b) = (Party::new("a"), Party::new("b"));
        let secrets = json!([hex::encode(a.secret), hex::encode(b.secret)]);
        let mut seal = Fields { padding, ..Fields::to(&[&a, &b]) }.seal_inputs(SEED, MESSAGE);
        seal["kem_secrets"] = secrets;
        seal
    };
    json!({"none": seal(0), "padme": seal(1)})
}

pub(crate) fn inputs(padding: u8, response: &[u8]) -> Value {
    json!({"request": if padding == 1 { "padme" } else { "none" }, "response": hex::encode(response)})
}

/// An answer by the second recipient.
pub(crate) fn answer(padding: u8) -> Answer {
    let (request, parties) = request(padding);
    Answer::new(&parties[1], &request.wraps[1], request.hash(), padding)
}

fn good(suite: &mut Suite) {
    let mut add = |name: &str, padding: u8, contents: &[&[u8]], frames: &dyn Fn(&mut Answer) -> Vec<Vec<u8>>| {
        let mut answer = answer(padding);
        let frames = frames(&mut answer);
        let sealed: Vec<_> = frames.iter().filter(|f| f[0] < 3).cloned().collect();
        let mut inputs = inputs(padding, &[answer.prefix(), frames.concat()].concat());
        inputs["contents"] = contents.iter().map(hex::encode).collect();
        inputs["status"] = 200.into();
        inputs["response_hash"] = hex::encode(sha256(&[answer.prefix(), sealed.concat()].concat())).into();
        suite.test(name, &["Good"], inputs, "ok");
    };
    let with_status = |content: &[u8]| [&[0, 200], content].concat();
    for padding in [0, 1] {
        let name = ["unpadded", "padded"][usize::from(padding)];
        add(&format!("one_frame_{name}"), padding, &[b"{}"], &|a| vec![a.sealed(2, &with_status(b"{}")), receipt_frame()]);
        add(&format!("three_frames_{name}"), padding, &[b"one", b"two", b""], &|a| {
            vec![a.sealed(1, &with_status(b"one")), a.sealed(1, b"two"), a.sealed(2, b""), receipt_frame()]
        });
    }
    add("pings_anywhere", 1, &[b"one", b"two"], &|a| {
        let ping = || PING.to_vec();
        vec![ping(), a.sealed(1, &with_status(b"one")), ping(), ping(), a.sealed(2, b"two"), ping(), receipt_frame(), ping()]
    });
    add("inclusion_after_receipt", 1, &[b"one"], &|a| {
        vec![a.sealed(2, &with_status(b"one")), receipt_frame(), clear(0x11, b"c2sp.org/tlog-proof@v1\n"), PING.to_vec()]
    });
    let longest = vec![b'x'; 16_380];
    let rest = vec![b'y'; 16_382];
    add("longest_frames", 0, &[&longest, &rest, b"z"], &|a| {
        vec![a.sealed(1, &with_status(&longest)), a.sealed(1, &rest), a.sealed(2, b"z"), receipt_frame()]
    });
    // 254 bytes of content and status fill one multiple of 256 exactly, one more takes the next.
    let (fills, spills) = ([b'x'; 252], [b'x'; 255]);
    add("padding_boundary", 1, &[&fills, &spills], &|a| {
        vec![a.sealed(1, &with_status(&fills)), a.sealed(2, &spills), receipt_frame()]
    });
}

fn bad_frames(suite: &mut Suite) {
    let mut add = |name: &str, padding: u8, expect: &str, frames: &dyn Fn(&mut Answer) -> Vec<u8>| {
        let mut answer = answer(padding);
        let frames = frames(&mut answer);
        let response = [answer.prefix(), frames].concat();
        suite.test(name, &["Frame"], inputs(padding, &response), expect);
    };
    let content = [0, 200, b'h', b'i'];
    add("aad_missing", 0, "rejected", &|a| a.raw(1, b"", &[0, 4, 0, 200, b'h', b'i']));
    add("aad_of_other_type", 0, "rejected", &|a| a.raw(2, &[1], &[0, 4, 0, 200, b'h', b'i']));
    add("shorter_than_a_tag", 0, "rejected", &|_| clear(1, &[0; 15]));
    add("plaintext_empty", 0, "padding", &|a| a.raw(1, &[1], b""));
    add("length_cut", 0, "padding", &|a| a.raw(1, &[1], &[0]));
    add("length_beyond_the_plaintext", 0, "padding", &|a| a.raw(1, &[1], &[0, 5, 0, 200, b'h', b'i']));
    add("padding_where_none_is_due", 0, "padding", &|a| a.raw(1, &[1], &[0, 4, 0, 200, b'h', b'i', 0]));
    add("padding_missing", 1, "padding", &|a| a.raw(1, &[1], &[0, 4, 0, 200, b'h', b'i']));
    add("padding_too_long", 1, "padding", &|a| a.raw(1, &[1], &[&[0, 4][..], &content, &[0; 506]].concat()));
    add("padding_not_zero", 1, "padding", &|a| a.raw(1, &[1], &[&[0, 4][..], &content, &[1; 250]].concat()));
    add("status_missing", 0, "status", &|a| a.sealed(1, b""));
    add("status_cut", 0, "status", &|a| a.sealed(1, &[0]));
    add("status_99", 0, "status", &|a| a.sealed(1, &[0, 99]));
    add("status_600", 0, "status", &|a| a.sealed(1, &[2, 88]));
    add("frame_type_unknown", 0, "malformed", &|a| [a.sealed(1, &content), clear(4, b"")].concat());
    add("frame_type_0", 0, "malformed", &|a| [a.sealed(1, &content), clear(0, b"")].concat());
    add("ping_with_payload", 0, "malformed", &|a| [a.sealed(1, &content), clear(3, b"x")].concat());
    add("data_too_long", 0, "malformed", &|a| a.raw(1, &[1], &vec![0; 16_385]));
    add("receipt_too_long", 0, "malformed", &|a| [a.sealed(2, &content), vec![0x10, 0, 1, 0, 1]].concat());

    let mut answer = answer(0);
    let frames = [answer.sealed(2, &content), receipt_frame()].concat();
    let mut prefix = answer.prefix();
    prefix[0] = 2;
    suite.test("prefix_version_2", &["Prefix"], inputs(0, &[prefix, frames.clone()].concat()), "malformed");
    let mut prefix = answer.prefix();
    prefix[48] ^= 1;
    suite.test("response_nonce_edited", &["Prefix"], inputs(0, &[prefix, frames].concat()), "rejected");
}

fn bad_order(suite: &mut Suite) {
    let mut add = |name: &str, expect: &str, frames: &dyn Fn(&mut Answer) -> Vec<Vec<u8>>| {
        let mut answer = answer(1);
        let frames = frames(&mut answer).concat();
        suite.test(name, &["Order"], inputs(1, &[answer.prefix(), frames].concat()), expect);
    };
    let one = [0, 200, b'1'];
    add("data_after_final", "out_of_order", &|a| vec![a.sealed(2, &one), a.sealed(1, b"2")]);
    add("final_twice", "out_of_order", &|a| vec![a.sealed(2, &one), a.sealed(2, b"2")]);
    add("receipt_before_final", "out_of_order", &|a| vec![a.sealed(1, &one), receipt_frame(), a.sealed(2, b"2")]);
    add("receipt_alone", "out_of_order", &|_| vec![receipt_frame()]);
    add("receipt_twice", "out_of_order", &|a| vec![a.sealed(2, &one), receipt_frame(), receipt_frame()]);
    add("inclusion_before_receipt", "out_of_order", &|a| vec![a.sealed(2, &one), clear(0x11, b""), receipt_frame()]);
    add("inclusion_twice", "out_of_order", &|a| vec![a.sealed(2, &one), receipt_frame(), clear(0x11, b""), clear(0x11, b"")]);
    add("data_after_receipt", "out_of_order", &|a| vec![a.sealed(2, &one), receipt_frame(), a.sealed(1, b"2")]);
}
