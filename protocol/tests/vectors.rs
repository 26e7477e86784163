//! Replays the vectors of entries, link messages and JSON documents, and sees that every vector file has a reader.

use std::fs;
use std::path::Path;

use fanlight_protocol::ParseError;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::directory::Directory;
use fanlight_protocol::entry::{self, EntryError, Evidence, IdentityKey, KeyStatement, LinkAuth, Payload, Receipt, Signed};
use fanlight_protocol::link::Message;
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::request::RequestHeader;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct File<T> {
    tests: Vec<Test<T>>,
}

#[derive(Deserialize)]
struct Test<T> {
    name: String,
    #[serde(flatten)]
    inputs: T,
    expect: String,
}

fn tests<T: DeserializeOwned>(text: &str) -> Vec<Test<T>> {
    let file: File<T> = serde_json::from_str(text).expect("a vector file");
    assert!(!file.tests.is_empty(), "a vector file has tests");
    file.tests
}

#[derive(Deserialize)]
struct EntryInput {
    entry_type: String,
    signer: String,
    entry: String,
    digest: Option<String>,
    payload: Option<String>,
    details: Option<String>,
    blind: Option<String>,
}

#[test]
fn entries_verify_or_are_refused_as_written() {
    for Test { name, inputs, expect } in tests::<EntryInput>(include_str!("../testdata/entries_v1.json")) {
        let bytes = hex::decode(&inputs.entry).unwrap();
        let signer = IdentityKey::from_spki(&hex::decode(&inputs.signer).unwrap()).unwrap();
        let result = match inputs.entry_type.as_str() {
            "evidence" => check::<Evidence>(Signed::verify_self_keyed(&bytes), &inputs).map(drop),
            "key_statement" => check::<KeyStatement>(Signed::verify_self_keyed(&bytes), &inputs).map(drop),
            "link" => check::<LinkAuth>(Signed::verify_self_keyed(&bytes), &inputs).map(drop),
            "receipt" => receipt(&bytes, &signer, &inputs),
            other => panic!("{other} has no reader"),
        };
        assert_eq!(result.err().map_or("ok", |error| word(&error)), expect, "{name}");
        if expect == "ok" {
            assert_eq!(entry::peek(&bytes).unwrap().provider_id, signer.provider_id(), "{name}");
        }
    }
}

fn check<T: Payload>(signed: Result<Signed<T>, EntryError>, inputs: &EntryInput) -> Result<Signed<T>, EntryError> {
    let signed = signed?;
    assert_eq!(hex::encode(signed.bytes()), inputs.entry);
    if let (Some(digest), Some(payload)) = (&inputs.digest, &inputs.payload) {
        assert_eq!(&signed.digest().to_string(), digest);
        assert_eq!(&hex::encode(signed.to_cbor()), payload);
    }
    Ok(signed)
}

fn receipt(bytes: &[u8], key: &IdentityKey, inputs: &EntryInput) -> Result<(), EntryError> {
    let signed = check(Signed::<Receipt>::verify(bytes, key), inputs)?;
    if let (Some(details), Some(blind)) = (&inputs.details, &inputs.blind) {
        let details = hex::decode(details).expect("hexadecimal");
        let blind = hex::decode(blind).expect("hexadecimal").try_into().expect("32 bytes");
        let opened = signed.open(&details, &blind)?;
        assert_eq!(opened.to_bytes(), details);
        assert_eq!((opened.usage.input, opened.usage.output), (21, 300));
    }
    Ok(())
}

const fn word(error: &EntryError) -> &'static str {
    match error {
        EntryError::TooLong => "too_long",
        EntryError::NotCoseSign1 => "not_cose_sign1",
        EntryError::Headers => "headers",
        EntryError::WrongType => "wrong_type",
        EntryError::Payload(_) => "payload",
        EntryError::NotDeterministic => "not_deterministic",
        EntryError::WrongKey => "wrong_key",
        EntryError::BadKey => "bad_key",
        EntryError::BadSignature => "bad_signature",
        _ => "other",
    }
}

/// Good entries of every type, one bit wrong at a time.
#[test]
fn an_entry_with_any_bit_flipped_is_refused() {
    for Test { name, inputs, .. } in tests::<EntryInput>(include_str!("../testdata/entries_v1.json")) {
        if inputs.digest.is_none() {
            continue;
        }
        let mut bytes = hex::decode(&inputs.entry).unwrap();
        let signer = IdentityKey::from_spki(&hex::decode(&inputs.signer).unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = match inputs.entry_type.as_str() {
                "evidence" => Signed::<Evidence>::verify(&bytes, &signer).is_err(),
                "key_statement" => Signed::<KeyStatement>::verify(&bytes, &signer).is_err(),
                "link" => Signed::<LinkAuth>::verify(&bytes, &signer).is_err(),
                _ => Signed::<Receipt>::verify(&bytes, &signer).is_err(),
            };
            assert!(refused, "{name}, bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[derive(Deserialize)]
struct LinkInput {
    message: String,
    stream: Option<u32>,
    kind: Option<u8>,
}

#[test]
fn link_messages_parse_or_are_refused_as_written() {
    for Test { name, inputs, expect } in tests::<LinkInput>(include_str!("../testdata/link_v1.json")) {
        let bytes = hex::decode(&inputs.message).unwrap();
        match Message::parse(&bytes) {
            Ok((stream, message)) => {
                assert_eq!("ok", expect, "{name}");
                assert_eq!((Some(stream), Some(bytes[4])), (inputs.stream, inputs.kind), "{name}");
                assert!(message.to_bytes(stream) == bytes, "{name}");
            }
            Err(error) => assert_eq!(parse_word(error), expect, "{name}"),
        }
    }
}

const fn parse_word(error: ParseError) -> &'static str {
    match error {
        ParseError::Truncated(_) => "truncated",
        ParseError::TrailingBytes => "trailing_bytes",
        ParseError::TooLong(_) => "too_long",
        ParseError::Invalid(_) => "invalid",
        _ => "other",
    }
}

#[derive(Deserialize)]
struct RequestInput {
    request: String,
}

/// Headers alone: every header that parses is written back as it was.
#[test]
fn request_headers_parse_or_are_refused_as_written() {
    for Test { name, inputs, expect } in tests::<RequestInput>(include_str!("../testdata/request_v1.json")) {
        let bytes = hex::decode(&inputs.request).unwrap();
        match RequestHeader::parse(&bytes) {
            Ok((header, len)) => {
                assert_ne!("malformed_request", expect, "{name}");
                assert!(header.to_bytes() == bytes[..len], "{name}");
                assert!(len <= RequestHeader::MAX_LEN, "{name}");
            }
            Err(_) => assert_eq!("malformed_request", expect, "{name}"),
        }
    }
}

#[derive(Deserialize)]
struct DocumentInput {
    kind: String,
    text: String,
    code: Option<String>,
    status: Option<u16>,
}

#[test]
fn documents_parse_or_are_refused_as_written() {
    let mut codes = 0;
    for Test { name, inputs, expect } in tests::<DocumentInput>(include_str!("../testdata/documents_v1.json")) {
        let written = match inputs.kind.as_str() {
            "problem" => rewrite::<Problem>(&inputs.text),
            "directory" => rewrite::<Directory>(&inputs.text),
            "bundle" => rewrite::<ReceiptBundle>(&inputs.text),
            other => panic!("{other} has no reader"),
        };
        assert_eq!(if written.is_some() { "ok" } else { "malformed" }, expect, "{name}");
        if let Some(written) = written {
            assert_eq!(written, inputs.text, "{name}");
        }
        if let (Some(code), Some(status)) = (inputs.code, inputs.status) {
            let known = ProblemCode::from_text(&code).expect(&name);
            assert_eq!(known.status(), status, "{name}");
            let problem: Problem = serde_json::from_str(&inputs.text).unwrap();
            assert_eq!(problem.code(), Some(known), "{name}");
            let ours = Problem {
                title: "t".into(),
                error: fanlight_protocol::problem::ApiError { message: "m".into(), ..Problem::new(known).error },
                ..Problem::new(known)
            };
            assert_eq!(ours, problem, "{name}");
            codes += 1;
        }
    }
    assert_eq!(codes, 15, "every code of SPEC §6");
}

fn rewrite<T: serde::Serialize + DeserializeOwned>(text: &str) -> Option<String> {
    let value: T = serde_json::from_str(text).ok()?;
    Some(serde_json::to_string(&value).expect("what was read can be written"))
}

#[test]
fn every_vector_file_has_a_reader() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = ["tests", "sealing/tests/sealed", "sealing/src"].map(|dir| root.join(dir));
    let sources = dirs.iter().flat_map(|dir| fs::read_dir(dir).expect("a directory of sources"));
    let sources: Vec<_> = sources.map(|entry| entry.expect("an entry").path()).filter(|p| p.is_file()).collect();
    let sources: String = sources.iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    let mut files = 0;
    for entry in fs::read_dir(root.join("testdata")).expect("a directory of vectors") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let read = sources.lines().any(|line| line.contains("include_str!") && line.contains(&format!("testdata/{name}\"")));
        assert!(read, "testdata/{name} has no reader");
        files += 1;
    }
    assert!(files >= 7, "{files} files");
}
