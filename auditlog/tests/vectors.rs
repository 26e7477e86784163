//! Replays `testdata/*.json`, which `examples/testdata.rs` writes.

mod support;

use std::fmt::Display;
use std::path::Path;

use fanlight_auditlog::note::Note;
use fanlight_auditlog::{Policy, Signer, TlogProof, VerifiedCheckpoint, VerifierKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct File<T> {
    schema: String,
    tests: Vec<T>,
}

#[derive(Deserialize)]
struct NoteVector {
    name: String,
    vkey: String,
    note: String,
    expect: String,
}

#[derive(Deserialize)]
struct PolicyVector {
    name: String,
    policy: String,
    note: String,
    expect: String,
}

#[derive(Deserialize)]
struct ProofVector {
    name: String,
    policy: String,
    entry: String,
    proof: String,
    expect: String,
}

fn load<T: DeserializeOwned>(schema: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{schema}.json"));
    let file: File<T> = serde_json::from_slice(&std::fs::read(path).expect("committed")).expect("vectors parse");
    assert_eq!(file.schema, schema);
    assert!(file.tests.len() > 10, "vectors are lost");
    file.tests
}

fn outcome<T, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "valid".to_owned())
}

#[test]
fn notes() {
    for NoteVector { name, vkey, note, expect } in load("note") {
        let key = VerifierKey::parse(&vkey).unwrap();
        assert_eq!(key.to_string(), vkey);
        assert_eq!(outcome(Note::parse(note.as_bytes()).and_then(|note| note.verify(&key))), expect, "{name}");
    }
}

#[test]
fn checkpoints() {
    for NoteVector { name, vkey, note, expect } in load("checkpoint") {
        let key = VerifierKey::parse(&vkey).unwrap();
        let verified = VerifiedCheckpoint::verify(note.as_bytes(), &key);
        if let Ok(verified) = &verified {
            let text = note.split_once("\n\n").unwrap().0;
            assert_eq!(verified.checkpoint().to_string(), format!("{text}\n"));
            assert_eq!(verified.note(), note);
        }
        assert_eq!(outcome(verified), expect, "{name}");
    }
}

#[test]
fn policies() {
    for PolicyVector { name, policy, note, expect } in load("policy") {
        let verified = match Policy::parse(policy.as_bytes()) {
            Ok(policy) => outcome(policy.verify_checkpoint(note.as_bytes())),
            Err(error) => error.to_string(),
        };
        assert_eq!(verified, expect, "{name}");
    }
}

#[test]
fn tlog_proofs() {
    for ProofVector { name, policy, entry, proof, expect } in load("tlog_proof") {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let verified = match TlogProof::parse(proof.as_bytes()) {
            Ok(parsed) => {
                assert_eq!(parsed.to_string(), proof, "{name}");
                outcome(parsed.verify(entry.as_bytes(), &policy))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(verified, expect, "{name}");
    }
}

#[test]
fn a_proof_with_any_byte_changed_fails() {
    let vectors: Vec<ProofVector> = load("tlog_proof");
    let good = vectors.iter().find(|vector| vector.name == "second").unwrap();
    let policy = Policy::parse(good.policy.as_bytes()).unwrap();
    for position in 0..good.proof.len() {
        let mut damaged = good.proof.clone().into_bytes();
        damaged[position] ^= 1;
        let verified = TlogProof::parse(&damaged).is_ok_and(|proof| proof.verify(good.entry.as_bytes(), &policy).is_ok());
        assert!(!verified, "byte {position}");
    }
}

#[test]
fn private_keys_come_back() {
    let signer = support::signer();
    let text = signer.write_private_key();
    assert_eq!(Signer::parse_private_key(&text).unwrap().verifier_key(), signer.verifier_key());
    for damaged in
        [text.replace("PRIVATE", "PUBLIC"), text.replace("log.example", "log.elsewhere"), text[..text.len() - 4].to_owned()]
    {
        assert!(Signer::parse_private_key(&damaged).is_err());
    }
    assert!(!format!("{signer:?}").contains("KioqKio"), "the seed is not in the debug text");
}
