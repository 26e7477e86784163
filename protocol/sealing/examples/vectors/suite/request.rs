//! `request_v1.json`: what opens, and one test for each rule of SPEC §4.1 to §4.4 that keeps a request from opening.

use serde_json::{Value, json};

use super::Suite;
use super::craft::{Chunk, Crafted, Fields, MESSAGE, NOW, Party, commitment, plaintext, varint, whole_chunks};
use super::rng::CounterRng;

const SEED: &str = "request";

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §4", "request_v1");
    good(&mut suite);
    bad_fields(&mut suite);
    bad_times_and_keys(&mut suite);
    bad_wraps(&mut suite);
    bad_bodies(&mut suite);
    suite.into_text()
}

/// Inputs of a test that `party` opens at `now`.
pub(crate) fn inputs(request: &[u8], party: &Party, now: u64) -> Value {
    json!({
        "now": now, "kem_secret": hex::encode(party.secret), "statement_digest": hex::encode(party.statement),
        "request": hex::encode(request),
    })
}

fn good(suite: &mut Suite) {
    let (a, b, c) = (Party::new("a"), Party::new("b"), Party::new("c"));
    let mut add = |name: &str, fields: &Fields, message: &[u8], party: &Party, now: u64| {
        let crafted = Crafted::new(fields, SEED, message);
        let mut inputs = inputs(&crafted.bytes(), party, now);
        inputs["seal"] = fields.seal_inputs(SEED, message);
        inputs["message"] = hex::encode(message).into();
        inputs["request_hash"] = hex::encode(crafted.hash()).into();
        suite.test(name, &["Good"], inputs, "ok");
    };
    let one = Fields::to(&[&a]);
    add("one_recipient", &one, MESSAGE, &a, NOW);
    for (name, party) in [("first_of_three", &a), ("second_of_three", &b), ("third_of_three", &c)] {
        add(name, &Fields::to(&[&a, &b, &c]), MESSAGE, party, NOW);
    }
    let many: Vec<_> = (0..8).map(|i| Party::new(&format!("many {i}"))).collect();
    let longest = Fields {
        operation: "o".repeat(64),
        model: "m".repeat(128),
        tokens: [u32::MAX; 3],
        ..Fields::to(&many.iter().collect::<Vec<_>>())
    };
    add("longest_header", &longest, MESSAGE, &many[7], NOW);
    add(
        "every_name_character",
        &Fields { operation: "az09._".into(), model: "AZaz09._:/@+-".into(), ..one.clone() },
        b"{}",
        &a,
        NOW,
    );
    add(
        "shortest_names",
        &Fields { operation: "o".into(), model: "m".into(), tokens: [0, 0, 1], flags: 0, ..one.clone() },
        b"",
        &a,
        NOW,
    );
    let plain = Fields { padding: 0, ..one.clone() };
    add("padding_none", &plain, MESSAGE, &a, NOW);
    add("message_empty", &plain, b"", &a, NOW);
    add("chunk_exactly_full", &plain, &[b'x'; 16_380], &a, NOW);
    add("two_chunks", &plain, &[b'x'; 16_381], &a, NOW);
    add("two_chunks_padded", &one, &vec![b'x'; 16_500], &a, NOW);
    add("last_second", &one, MESSAGE, &a, NOW + 300);
    add("clock_60_s_behind", &one, MESSAGE, &a, NOW - 60);

    // Chunks may be of any length; senders here fill them.
    let crafted = Crafted::header_only(&one, SEED);
    let small = crafted.with_body(crafted.seal_body(&whole_chunks(&plaintext(MESSAGE, 1), 7)));
    let mut empty_final = whole_chunks(&plaintext(MESSAGE, 1), 4096);
    empty_final[0].aad = b"";
    empty_final[0].last = false;
    empty_final.push(Chunk { plain: Vec::new(), aad: b"final", last: true });
    let empty_final = crafted.with_body(crafted.seal_body(&empty_final));
    for (name, crafted) in [("small_chunks", small), ("final_chunk_empty", empty_final)] {
        let mut inputs = inputs(&crafted.bytes(), &a, NOW);
        inputs["message"] = hex::encode(MESSAGE).into();
        inputs["request_hash"] = hex::encode(crafted.hash()).into();
        suite.test(name, &["Good", "OpenOnly"], inputs, "ok");
    }
}

fn bad_fields(suite: &mut Suite) {
    let a = Party::new("a");
    let one = Fields::to(&[&a]);
    let names: Vec<_> = (0..9).map(|i| Party::new(&format!("many {i}"))).collect();
    let cases = [
        ("version_0", Fields { version: 0, ..one.clone() }),
        ("version_2", Fields { version: 2, ..one.clone() }),
        ("suite_0", Fields { suite: 0, ..one.clone() }),
        ("suite_2_reserved", Fields { suite: 2, ..one.clone() }),
        ("expires_with_created", Fields { expires: NOW, ..one.clone() }),
        ("expires_before_created", Fields { expires: NOW - 1, ..one.clone() }),
        ("expires_after_301_s", Fields { expires: NOW + 301, ..one.clone() }),
        ("expires_beyond_milliseconds", Fields { created: u64::MAX - 300, expires: u64::MAX, ..one.clone() }),
        ("operation_empty", Fields { operation: String::new(), ..one.clone() }),
        ("operation_too_long", Fields { operation: "o".repeat(65), ..one.clone() }),
        ("operation_upper_case", Fields { operation: "Chat".into(), ..one.clone() }),
        ("model_empty", Fields { model: String::new(), ..one.clone() }),
        ("model_too_long", Fields { model: "m".repeat(129), ..one.clone() }),
        ("model_with_space", Fields { model: "tiny llama".into(), ..one.clone() }),
        ("model_not_ascii", Fields { model: "tiny-lläma".into(), ..one.clone() }),
        ("input_tokens_min_above_max", Fields { tokens: [2, 1, 1], ..one.clone() }),
        ("max_output_tokens_0", Fields { tokens: [1, 2, 0], ..one.clone() }),
        ("flags_reserved_bit", Fields { flags: 3, ..one.clone() }),
        ("padding_2", Fields { padding: 2, ..one.clone() }),
        ("recipients_0", Fields::to(&[])),
        ("recipients_9", Fields::to(&names.iter().collect::<Vec<_>>())),
        ("recipient_twice", Fields::to(&[&a, &a])),
        ("recipients_fewer_than_counted", Fields { n_recipients: Some(8), ..one.clone() }),
    ];
    for (name, fields) in cases {
        let plain_padding = fields.padding.min(1);
        let mut crafted = Crafted::header_only(&fields, SEED);
        crafted.body = crafted.seal_body(&whole_chunks(&plaintext(MESSAGE, plain_padding), 16_384));
        suite.test(name, &["Header"], inputs(&crafted.bytes(), &a, NOW), "malformed_request");
    }
    let whole = Crafted::new(&one, SEED, MESSAGE);
    let header = whole.header();
    for (name, len) in [
        ("empty", 0),
        ("version_only", 1),
        ("cut_in_fields", 40),
        ("cut_in_commitment", header.len() - 120),
        ("cut_in_wraps", header.len() - 1),
    ] {
        suite.test(format!("header_{name}"), &["Header", "Truncation"], inputs(&header[..len], &a, NOW), "malformed_request");
    }
    suite.test("plaintext_json", &["Header"], inputs(MESSAGE, &a, NOW), "malformed_request");
}

fn bad_times_and_keys(suite: &mut Suite) {
    let (a, b) = (Party::new("a"), Party::new("b"));
    let request = Crafted::new(&Fields::to(&[&a]), SEED, MESSAGE).bytes();
    suite.test("a_second_too_late", &["Time"], inputs(&request, &a, NOW + 301), "expired_request");
    suite.test("clock_61_s_behind", &["Time"], inputs(&request, &a, NOW - 61), "expired_request");
    suite.test("sealed_to_another", &["Key"], inputs(&request, &b, NOW), "unknown_key");
    let statement = Party { statement: [1; 32], ..a };
    suite.test("another_statement_of_the_key", &["Key"], inputs(&request, &statement, NOW), "unknown_key");
    let other = Party { secret: b.secret, ..a };
    let mut inputs = inputs(&request, &other, NOW);
    inputs["seen"] = json!([{"key_id": hex::encode(a.key_id()), "enc": "04"}]);
    suite.test("key_id_of_another_secret", &["Key"], inputs, "unknown_key");
}

fn bad_wraps(suite: &mut Suite) {
    let (a, b) = (Party::new("a"), Party::new("b"));
    let fields = Fields::to(&[&a]);
    let good = Crafted::new(&fields, SEED, MESSAGE);
    let mut rejected = |name: &str, crafted: &Crafted| {
        suite.test(name, &["Wrap"], inputs(&crafted.bytes(), &a, NOW), "rejected_request");
    };
    let edit = |edit: &dyn Fn(&mut Crafted)| {
        let mut crafted = good.clone();
        edit(&mut crafted);
        // The body follows the edited header, so that nothing but the wrap is wrong.
        crafted.body = crafted.seal_body(&whole_chunks(&plaintext(MESSAGE, 1), 16_384));
        crafted
    };
    rejected("wrapped_key_flipped", &edit(&|c| c.wraps[0].sealed_key[0] ^= 1));
    rejected("wrapped_tag_flipped", &edit(&|c| c.wraps[0].sealed_key[47] ^= 1));
    rejected("enc_off_the_curve", &edit(&|c| c.wraps[0].enc[64] ^= 1));
    rejected("enc_at_infinity", &edit(&|c| c.wraps[0].enc[1..].fill(0)));
    rejected("enc_zeros", &edit(&|c| c.wraps[0].enc.fill(0)));
    rejected("enc_compressed_tag", &edit(&|c| c.wraps[0].enc[0] = 2));
    rejected("enc_hybrid_tag", &edit(&|c| c.wraps[0].enc[0] |= 6));
    rejected("enc_coordinates_above_the_field", &edit(&|c| c.wraps[0].enc[1..].fill(0xff)));
    rejected("enc_is_another_point", &edit(&|c| c.wraps[0].enc = b.public));
    rejected("commitment_flipped", &edit(&|c| c.commitment[0] ^= 1));
    // The wrap is bound to the commitment in the header, which is that of another key.
    let mut rng = CounterRng::new(SEED);
    let content_key = rng.array();
    let mut other = Crafted::wrap(&fields, content_key, commitment(&[1; 32], &fields.bytes()), rng);
    other.body = other.seal_body(&whole_chunks(&plaintext(MESSAGE, 1), 16_384));
    rejected("commitment_to_another_key", &other);
}

fn bad_bodies(suite: &mut Suite) {
    let a = Party::new("a");
    let good = Crafted::header_only(&Fields::to(&[&a]), SEED);
    let unpadded = Crafted::header_only(&Fields { padding: 0, ..Fields::to(&[&a]) }, SEED);
    let plain = plaintext(MESSAGE, 1);
    let mut rejected = |name: &str, crafted: &Crafted, body: Vec<u8>| {
        suite.test(name, &["Body"], inputs(&crafted.with_body(body).bytes(), &a, NOW), "rejected_request");
    };
    let (head, tail) = plain.split_at(50);
    let chunk = |plain: &[u8], aad, last| Chunk { plain: plain.into(), aad, last };
    let two = |first: Chunk, second: Chunk| good.seal_body(&[first, second]);
    rejected("body_empty", &good, Vec::new());
    rejected("final_chunk_missing", &good, good.seal_body(&[chunk(&plain, b"", false)]));
    rejected("final_length_without_chunk", &good, [good.seal_body(&[chunk(&plain, b"", false)]), vec![0]].concat());
    rejected("final_chunk_not_under_final", &good, two(chunk(head, b"", false), chunk(tail, b"", true)));
    rejected("other_chunk_under_final", &good, two(chunk(head, b"final", false), chunk(tail, b"final", true)));
    let mut empty = good.seal_body(&[chunk(b"", b"", false), chunk(&plain, b"final", true)]);
    rejected("other_chunk_empty", &good, empty.clone());
    empty.truncate(16);
    rejected("chunk_cut_in_tag", &good, empty);
    rejected("chunk_too_long", &unpadded, {
        let long = plaintext(&[b'x'; 16_381], 0);
        unpadded.seal_body(&[chunk(&long[..16_385], b"", false), chunk(b"", b"final", true)])
    });
    rejected("final_chunk_too_long", &unpadded, unpadded.seal_body(&[chunk(&plaintext(&[b'x'; 16_381], 0), b"final", true)]));
    rejected("chunk_length_beyond_the_end", &good, [varint(500), vec![0; 100]].concat());
    let sealed = good.seal_chunks(&[chunk(head, b"", false), chunk(tail, b"final", true)]);
    let long_form = [
        (u32::try_from(sealed[0].1.len()).expect("short") | 0x8000_0000).to_be_bytes().to_vec(),
        sealed[0].1.clone(),
        vec![0],
        sealed[1].1.clone(),
    ];
    rejected("chunk_length_not_shortest", &good, long_form.concat());
    rejected(
        "final_length_not_shortest",
        &good,
        [sealed[0].0.clone(), sealed[0].1.clone(), vec![0x40, 0], sealed[1].1.clone()].concat(),
    );
    rejected("bytes_after_the_end", &good, [good.seal_body(&whole_chunks(&plain, 16_384)), vec![0]].concat());
    let plaintext_is = |crafted: &Crafted, plain: &[u8]| crafted.seal_body(&whole_chunks(plain, 16_384));
    rejected("plaintext_empty", &unpadded, unpadded.seal_body(&[chunk(b"", b"final", true)]));
    rejected("plaintext_shorter_than_its_length", &unpadded, plaintext_is(&unpadded, &[0, 0, 0]));
    rejected("length_beyond_the_plaintext", &unpadded, plaintext_is(&unpadded, &[0, 0, 0, 2, b'{']));
    rejected("length_4_gib", &unpadded, plaintext_is(&unpadded, &[0xff, 0xff, 0xff, 0xff, b'{', b'}']));
    rejected("padding_where_none_is_due", &unpadded, plaintext_is(&unpadded, &[&plaintext(MESSAGE, 0)[..], &[0]].concat()));
    rejected("padding_missing", &good, plaintext_is(&good, &plaintext(MESSAGE, 0)));
    rejected("padding_too_long", &good, plaintext_is(&good, &[&plain[..], &[0; 8]].concat()));
    let mut not_zero = plain.clone();
    *not_zero.last_mut().expect("padded") = 1;
    rejected("padding_not_zero", &good, plaintext_is(&good, &not_zero));
}
