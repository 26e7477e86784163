//! `attacks_v1.json`: the rows of SPEC §11 that are bytes, by name. `kind` says how a test is read.

use serde_json::{Value, json};

use super::Suite;
use super::craft::{Answer, Chunk, Crafted, Fields, MESSAGE, NOW, Party, Wrapped, receipt_frame, whole_chunks};
use super::{entries, request, response};

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §11", "attacks_v1");
    suite.share("requests", response::requests());
    replay(&mut suite);
    requests_cut_and_mixed(&mut suite);
    headers_edited(&mut suite);
    responses_cut_and_mixed(&mut suite);
    wrong_parties(&mut suite);
    entries::attacks(&mut suite);
    suite.into_text()
}

fn on_request(suite: &mut Suite, name: impl Into<String>, inputs: Value, expect: &str) {
    let mut inputs = inputs;
    inputs["kind"] = "request".into();
    suite.test(name, &["Attack"], inputs, expect);
}

fn on_response(suite: &mut Suite, name: &str, response: &[u8], expect: &str) {
    let mut inputs = response::inputs(1, response);
    inputs["kind"] = "response".into();
    suite.test(name, &["Attack"], inputs, expect);
}

fn parties() -> (Party, Party, Party) {
    (Party::new("a"), Party::new("b"), Party::new("c"))
}

fn replay(suite: &mut Suite) {
    let (a, b, _) = parties();
    let first = Crafted::new(&Fields::to(&[&a]), "replay", MESSAGE);
    let seen = |party: &Party, wrap: &Wrapped| json!([{"key_id": hex::encode(party.key_id()), "enc": hex::encode(wrap.enc)}]);
    let mut again = request::inputs(&first.bytes(), &a, NOW);
    again["seen"] = seen(&a, &first.wraps[0]);
    on_request(suite, "request_replayed", again, "replayed_request");

    let mut other = Crafted::new(&Fields { model: "other".into(), ..Fields::to(&[&a]) }, "another", MESSAGE);
    other.wraps[0] = first.wraps[0].clone();
    let mut inputs = request::inputs(&other.bytes(), &a, NOW);
    inputs["seen"] = seen(&a, &first.wraps[0]);
    on_request(suite, "request_replayed_in_another", inputs, "replayed_request");

    // Both keys are one provider's. Whichever it would open with, it has seen the other one's `enc`.
    let both = Crafted::new(&Fields::to(&[&a, &b]), "both", MESSAGE);
    let mut inputs = request::inputs(&both.bytes(), &a, NOW);
    inputs["more_keys"] = json!([{"kem_secret": hex::encode(b.secret), "statement_digest": hex::encode(b.statement)}]);
    inputs["seen"] = seen(&b, &both.wraps[1]);
    on_request(suite, "request_replayed_to_second_key", inputs, "replayed_request");
}

fn requests_cut_and_mixed(suite: &mut Suite) {
    let (a, _, _) = parties();
    let fields = Fields { padding: 0, ..Fields::to(&[&a]) };
    let sealed = |seed: &str, message: &[u8]| {
        let crafted = Crafted::header_only(&fields, seed);
        let chunks = crafted.seal_chunks(&whole_chunks(&super::craft::plaintext(message, 0), 40));
        (crafted, chunks)
    };
    let (first, chunks) = sealed("cut", MESSAGE);
    let (_, others) = sealed("cut from", &MESSAGE.to_ascii_uppercase());
    assert!(chunks.len() == 3 && others.len() == 3, "chunks to cut and swap");
    let join =
        |chunks: &[&(Vec<u8>, Vec<u8>)]| chunks.iter().flat_map(|(len, sealed)| [&len[..], sealed].concat()).collect::<Vec<_>>();
    let mut rejected = |name: &str, body: Vec<u8>| {
        on_request(suite, name, request::inputs(&first.with_body(body).bytes(), &a, NOW), "rejected_request");
    };
    let [one, two, last] = [&chunks[0], &chunks[1], &chunks[2]];
    rejected("request_truncated_to_header", Vec::new());
    rejected("request_truncated_at_chunk", join(&[one, two]));
    rejected("request_truncated_in_chunk", {
        let body = join(&[one, two, last]);
        body[..body.len() - 5].to_vec()
    });
    rejected("request_truncated_before_final", [join(&[one, two]), vec![0]].concat());
    // The second chunk is written as if it were the last.
    rejected("request_truncated_relabelled", join(&[one, &(vec![0], two.1.clone())]));
    rejected("request_chunks_swapped", join(&[two, one, last]));
    rejected("request_chunk_dropped", join(&[two, last]));
    rejected("request_chunk_doubled", join(&[one, one, two, last]));
    rejected("request_body_spliced", join(&[&others[0], &others[1], &others[2]]));
    rejected("request_chunk_spliced", join(&[one, &others[1], last]));
}

fn headers_edited(suite: &mut Suite) {
    let (a, b, c) = parties();
    let fields = Fields::to(&[&a, &b]);
    let good = Crafted::new(&fields, "edited", MESSAGE);
    let mut edited = |name: &str, fields: Fields| {
        let crafted = Crafted { fields: fields.bytes(), ..good.clone() };
        on_request(suite, name, request::inputs(&crafted.bytes(), &a, NOW), "rejected_request");
    };
    edited("header_request_id_edited", Fields { request_id: [0x43; 16], ..fields.clone() });
    edited("header_created_edited", Fields { created: NOW + 1, ..fields.clone() });
    edited("header_expires_edited", Fields { expires: NOW + 299, ..fields.clone() });
    edited("header_operation_edited", Fields { operation: "chat.completionz".into(), ..fields.clone() });
    edited("header_model_edited", Fields { model: "cheap-llama".into(), ..fields.clone() });
    edited("header_input_tokens_min_edited", Fields { tokens: [0, 4096, 512], ..fields.clone() });
    edited("header_input_tokens_max_edited", Fields { tokens: [1, 4095, 512], ..fields.clone() });
    edited("header_max_output_tokens_edited", Fields { tokens: [1, 4096, 513], ..fields.clone() });
    edited("header_flags_edited", Fields { flags: 0, ..fields.clone() });
    edited("header_padding_edited", Fields { padding: 0, ..fields.clone() });
    let other_statement = Party { statement: [1; 32], ..b };
    edited("header_statement_of_another_edited", Fields { recipients: vec![a.clone(), other_statement], ..fields.clone() });

    let mut rejected = |name: &str, crafted: &Crafted| {
        on_request(suite, name, request::inputs(&crafted.bytes(), &a, NOW), "rejected_request");
    };
    let removed = Crafted { fields: Fields::to(&[&a]).bytes(), wraps: good.wraps[..1].to_vec(), ..good.clone() };
    rejected("recipient_removed", &removed);
    let added = Crafted {
        fields: Fields::to(&[&a, &b, &c]).bytes(),
        wraps: [&good.wraps[..], &good.wraps[1..]].concat(),
        ..good.clone()
    };
    rejected("recipient_added", &added);
    let swapped = Crafted {
        fields: Fields::to(&[&b, &a]).bytes(),
        wraps: vec![good.wraps[1].clone(), good.wraps[0].clone()],
        ..good.clone()
    };
    rejected("recipients_swapped", &swapped);
    // Only the body's salt covers another recipient's wrap.
    let mut wrap_of_another = good.clone();
    wrap_of_another.wraps[1].sealed_key[0] ^= 1;
    rejected("header_wrap_of_another_edited", &wrap_of_another);

    // A body that opens under a second key too is of no use: the header commits to one.
    let content_key = good.content_key;
    let mut other_key = Crafted::wrap(&fields, [0x77; 32], good.commitment, super::rng::CounterRng::new("second key"));
    other_key.body = other_key.seal_body(&[Chunk { plain: super::craft::plaintext(MESSAGE, 1), aad: b"final", last: true }]);
    assert_ne!(other_key.content_key, content_key);
    rejected("content_key_not_committed", &other_key);
}

fn responses_cut_and_mixed(suite: &mut Suite) {
    let mut answer = response::answer(1);
    let frames = [answer.sealed(1, &[0, 200, b'1']), answer.sealed(1, b"2"), answer.sealed(2, b"3")];
    let [one, two, last] = &frames;
    let receipt = &receipt_frame();
    let mut add = |name: &str, frames: &[&[u8]], expect: &str| {
        on_response(suite, name, &[&answer.prefix()[..], &frames.concat()].concat(), expect);
    };
    add("response_truncated_to_prefix", &[], "truncated");
    add("response_truncated_at_frame", &[one, two], "truncated");
    add("response_truncated_in_frame", &[one, &two[..40]], "truncated");
    add("response_truncated_before_receipt", &[one, two, last], "truncated");
    add("response_truncated_before_final", &[one, two, receipt], "out_of_order");
    let mut relabelled = two.clone();
    relabelled[0] = 2;
    add("response_truncated_relabelled", &[one, &relabelled, receipt], "rejected");
    add("response_frames_swapped", &[two, one, last, receipt], "rejected");
    add("response_frame_dropped", &[one, last, receipt], "rejected");
    add("response_frame_doubled", &[one, one, two, last, receipt], "rejected");

    // The same recipient's answer to another request of the same client.
    let parties = [Party::new("a"), Party::new("b")];
    let other = Crafted::new(&Fields::to(&[&parties[0], &parties[1]]), "other request", MESSAGE);
    let mut other_answer = Answer::new(&parties[1], &other.wraps[1], other.hash(), 1);
    let spliced = other_answer.sealed(2, &[0, 200, b'1']);
    add("response_spliced", &[&spliced, receipt], "rejected");
}

fn wrong_parties(suite: &mut Suite) {
    let (request, parties) = response::request(1);
    let [a, b] = &parties[..] else { panic!("two recipients") };
    let c = Party::new("c");
    let answer_by = |party: &Party, wrap: &Wrapped, hash| {
        let mut answer = Answer::new(party, wrap, hash, 1);
        let frames = [answer.sealed(2, &[0, 200, b'1']), receipt_frame()].concat();
        [answer.prefix(), frames].concat()
    };
    let good = answer_by(b, &request.wraps[1], request.hash());
    on_response(suite, "control_answer_by_recipient", &good, "ok");
    on_request(suite, "served_by_non_recipient", request::inputs(&request.bytes(), &c, NOW), "unknown_key");
    on_response(suite, "answer_by_non_recipient", &answer_by(&c, &request.wraps[1], request.hash()), "unknown_recipient");
    let mut attributed = good.clone();
    attributed[1..17].copy_from_slice(&a.key_id());
    on_response(suite, "answer_attributed_to_another", &attributed, "rejected");

    // A recipient knows the content key, so the rewritten body opens at another recipient; the answer does not, at the client.
    let rewritten = request.with_body(request.seal_body(&whole_chunks(&super::craft::plaintext(b"{\"evil\":1}", 1), 16_384)));
    let mut opens = request::inputs(&rewritten.bytes(), b, NOW);
    opens["message"] = hex::encode(b"{\"evil\":1}").into();
    opens["request_hash"] = hex::encode(rewritten.hash()).into();
    on_request(suite, "control_insider_body_opens", opens, "ok");
    on_response(suite, "insider_body_rewritten", &answer_by(b, &request.wraps[1], rewritten.hash()), "rejected");

    // There is no response key in a request to be swapped; a gateway that invents a secret of its own gets nowhere.
    let own = Wrapped { response_secret: [0x99; 32], ..request.wraps[1].clone() };
    on_response(suite, "response_key_swapped", &answer_by(b, &own, request.hash()), "rejected");
}
