//! Replays the vectors of requests, responses and attacks, and holds the files to their generator.

use std::collections::HashMap;

use fanlight_protocol::entry::{EntryError, Evidence, KeyStatement, LinkAuth, Receipt, Signed};
use fanlight_protocol::response::{Frame, FrameSplitter, ResponseItem};
use serde::Deserialize;

use crate::read::{RequestInput, ResponseInput, SealInput, array, bytes};
use crate::suite;

#[derive(Deserialize)]
struct File<T> {
    #[serde(default)]
    requests: HashMap<String, SealInput>,
    tests: Vec<Test<T>>,
}

#[derive(Deserialize)]
struct Test<T> {
    name: String,
    #[serde(flatten)]
    inputs: T,
    expect: String,
}

#[test]
fn files_are_what_the_generator_writes() {
    for (name, text) in suite::files() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name);
        let on_disk = std::fs::read_to_string(path).expect("a file for every suite");
        assert!(text == on_disk, "{name} differs: cargo run -p fanlight-sealing --example vectors");
    }
}

#[test]
fn requests_open_or_are_refused_as_written() {
    let file: File<RequestInput> = serde_json::from_str(include_str!("../../../testdata/request_v1.json")).unwrap();
    for test in &file.tests {
        test.inputs.check(&test.name, &test.expect);
    }
}

#[test]
fn good_requests_are_sealed_byte_for_byte() {
    let file: File<RequestInput> = serde_json::from_str(include_str!("../../../testdata/request_v1.json")).unwrap();
    let mut sealed = 0;
    for test in &file.tests {
        if let Some(seal) = &test.inputs.seal {
            assert!(seal.seal().0 == test.inputs.request(), "{}", test.name);
            sealed += 1;
        }
    }
    assert!(sealed >= 12, "{sealed} sealed again");
}

#[test]
fn responses_open_or_are_refused_as_written() {
    let file: File<ResponseInput> = serde_json::from_str(include_str!("../../../testdata/response_v1.json")).unwrap();
    for test in &file.tests {
        test.inputs.check(&file.requests, &test.name, &test.expect);
    }
}

/// The sealed frames of the good vectors, sealed again by the provider's side.
#[test]
fn good_responses_are_sealed_byte_for_byte() {
    let file: File<ResponseInput> = serde_json::from_str(include_str!("../../../testdata/response_v1.json")).unwrap();
    for test in file.tests.iter().filter(|t| t.expect == "ok") {
        let opened = file.requests[&test.inputs.request].opened_by(1);
        let start = opened.into_response_keys().start(&mut suite::rng::CounterRng::new("response nonce"));
        let mut wanted = Vec::new();
        let mut splitter = FrameSplitter::default();
        splitter.push(&test.inputs.response());
        while let Some(item) = splitter.next_item().unwrap() {
            match item {
                ResponseItem::Prefix(prefix) => assert_eq!(&prefix, start.prefix(), "{}", test.name),
                ResponseItem::Frame(frame) if Frame::parse(&frame).unwrap().frame_type.is_sealed() => wanted.push(frame),
                ResponseItem::Frame(_) => {}
            }
        }
        let contents: Vec<_> = test.inputs.contents.as_ref().unwrap().iter().map(|c| bytes(c)).collect();
        let (last, first) = contents.split_last().unwrap();
        let mut sealer = start.with_status(200);
        let mut frames: Vec<_> = first.iter().flat_map(|content| sealer.seal_data(content)).collect();
        frames.extend(sealer.seal_final(last).0);
        assert!(frames == wanted, "{}", test.name);
    }
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Attack {
    Request(Box<RequestInput>),
    Response(ResponseInput),
    Entry { entry_type: String, signer: String, entry: String },
}

#[test]
fn attacks_fail_and_their_controls_do_not() {
    let file: File<Attack> = serde_json::from_str(include_str!("../../../testdata/attacks_v1.json")).unwrap();
    for Test { name, inputs, expect } in &file.tests {
        assert_eq!(name.starts_with("control_"), expect == "ok", "{name}: an attack fails, a control does not");
        match inputs {
            Attack::Request(request) => request.check(name, expect),
            Attack::Response(response) => response.check(&file.requests, name, expect),
            Attack::Entry { entry_type, signer, entry } => {
                let error = verify(entry_type, &bytes(entry), &array(signer)).expect_err(name);
                assert_eq!(&word(&error), expect, "{name}");
            }
        }
    }
}

fn verify(entry_type: &str, entry: &[u8], signer: &[u8; 91]) -> Result<(), EntryError> {
    let signer = fanlight_protocol::entry::IdentityKey::from_spki(signer)?;
    match entry_type {
        "evidence" => Signed::<Evidence>::verify_self_keyed(entry).map(drop),
        "key_statement" => Signed::<KeyStatement>::verify_self_keyed(entry).map(drop),
        "link" => Signed::<LinkAuth>::verify_self_keyed(entry).map(drop),
        "receipt" => Signed::<Receipt>::verify(entry, &signer).map(drop),
        other => panic!("{other} has no reader"),
    }
}

fn word(error: &EntryError) -> &'static str {
    match error {
        EntryError::Headers => "headers",
        EntryError::WrongType => "wrong_type",
        EntryError::NotDeterministic => "not_deterministic",
        EntryError::BadSignature => "bad_signature",
        _ => "other",
    }
}
