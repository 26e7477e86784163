//! Replays `testdata/*.json`, which `examples/testdata.rs` writes, and `testdata/openssl.py` one of them.

use std::fmt::Display;
use std::path::Path;

use fanlight_auditlog::note::{KeyType, Note};
use fanlight_auditlog::witness::AddCheckpoint;
use fanlight_auditlog::{Policy, TlogProof, VerifiedCheckpoint, VerifierKey};
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

#[derive(Deserialize)]
struct AddCheckpointVector {
    name: String,
    body: String,
    expect: String,
    // Of valid ones.
    old_size: Option<u64>,
    hashes: Option<usize>,
}

fn load<T: DeserializeOwned>(schema: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{schema}.json"));
    let file: File<T> = serde_json::from_slice(&std::fs::read(path).expect("committed")).expect("vectors parse");
    assert_eq!(file.schema, schema);
    assert!(file.tests.len() > 8, "vectors are lost");
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
fn cosignatures() {
    for NoteVector { name, vkey, note, expect } in load("cosignature") {
        let key = VerifierKey::parse(&vkey).unwrap();
        assert_eq!(key.to_string(), vkey);
        let note = Note::parse(note.as_bytes()).unwrap();
        assert_eq!(outcome(note.verify_cosignature(&key)), expect, "{name}");
        assert!(note.verify(&key).is_err(), "{name}: a cosignature is no signature of the text");
    }
}

#[test]
fn signatures_made_by_openssl() {
    for NoteVector { name, vkey, note, expect } in load("openssl") {
        let key = VerifierKey::parse(&vkey).unwrap();
        assert_eq!(key.to_string(), vkey);
        let parsed = Note::parse(note.as_bytes()).unwrap();
        let verified = match key.key_type() {
            KeyType::Cosignature | KeyType::MlDsa44 => outcome(parsed.verify_cosignature(&key)),
            _ => outcome(parsed.verify(&key)),
        };
        assert_eq!(verified, expect, "{name}");
        if key.key_type().is_for_logs() && key.name() == "log.example/openssl" {
            assert_eq!(outcome(VerifiedCheckpoint::verify(note.as_bytes(), &key)), expect, "{name}");
        }
    }
}

#[test]
fn add_checkpoints() {
    for AddCheckpointVector { name, body, expect, old_size, hashes } in load("add_checkpoint") {
        let parsed = AddCheckpoint::parse(body.as_bytes());
        if let Ok(parsed) = &parsed {
            assert_eq!(parsed.to_string(), body, "{name}");
            assert_eq!((Some(parsed.old_size()), Some(parsed.proof().len())), (old_size, hashes), "{name}");
        }
        assert_eq!(outcome(parsed), expect, "{name}");
    }
}
