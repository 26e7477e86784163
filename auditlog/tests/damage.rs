//! Whatever bit of a checkpoint, proof, request or policy is flipped: it is noticed, or changes nothing that is relied on.

use fanlight_auditlog::hash::node_hash;
use fanlight_auditlog::note::SignatureLine;
use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::witness::{AddCheckpoint, parse_cosignatures, write_cosignatures};
use fanlight_auditlog::{CosignerKey, Hash, Policy, Signer, TlogProof, VerifiedCheckpoint, leaf_hash};

const ORIGIN: &str = "log.example/damage";
const TIME: u64 = 1_800_000_000;

/// Steps between the bits that are flipped: all of what is short, a sample (odd, so that every place of a byte comes up) of
/// what has keys and signatures of ML-DSA-44 in it.
const EVERY_BIT: usize = 1;
const SAMPLE: usize = 211;

/// A log and its witnesses.
struct Parties {
    signer: Signer,
    cosigners: Vec<CosignerKey>,
}

impl Parties {
    fn ed25519() -> Self {
        let cosigner = |number| CosignerKey::ed25519(&format!("w{number}.example"), &[number; 32]).expect("a good name");
        Self { signer: signer(), cosigners: vec![cosigner(1), cosigner(2)] }
    }

    /// The log with two keys, and one witness of each type.
    fn with_ml_dsa_44() -> Self {
        let mut parties = Self::ed25519();
        parties.signer = parties.signer.with_ml_dsa_44(&[2; 32]);
        parties.cosigners.truncate(1);
        parties.cosigners.push(CosignerKey::ml_dsa_44("w2.example", &[4; 32]).expect("a good name"));
        parties
    }

    fn checkpoint(&self) -> VerifiedCheckpoint {
        VerifiedCheckpoint::sign(&self.signer, 3, root())
    }

    fn lines(&self) -> Vec<SignatureLine> {
        let checkpoint = self.checkpoint();
        self.cosigners.iter().map(|key| key.cosign(checkpoint.checkpoint(), TIME).expect("a short origin")).collect()
    }

    /// Trusts every key of the log and asks for both witnesses.
    fn policy(&self) -> String {
        let logs = [Some(self.signer.verifier_key()), self.signer.ml_dsa_44_key()];
        let logs: String = logs.iter().flatten().flat_map(|key| ["log ".to_owned(), key.to_string(), "\n".to_owned()]).collect();
        let [w1, w2] = [0, 1].map(|number: usize| self.cosigners[number].verifier_key());
        format!("{logs}witness w1 {w1}\nwitness w2 {w2} https://w2.example/\ngroup g 2 w1 w2\nquorum g\n")
    }
}

fn signer() -> Signer {
    Signer::new(ORIGIN, &[1; 32]).expect("a good name")
}

fn leaves() -> [Hash; 3] {
    [b"a", b"b", b"c"].map(|entry| leaf_hash(entry))
}

fn root() -> Hash {
    let [a, b, c] = leaves();
    node_hash(&node_hash(&a, &b), &c)
}

/// The positions of bits, and copies of `bytes` with that bit flipped.
fn flipped(bytes: &[u8], step: usize) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

#[test]
fn no_bit_of_a_checkpoint_can_change() {
    let note = VerifiedCheckpoint::sign(&signer(), 3, root()).note().as_bytes().to_vec();
    for (bit, damaged) in flipped(&note, EVERY_BIT) {
        assert!(VerifiedCheckpoint::verify(&damaged, &signer().verifier_key()).is_err(), "bit {bit}");
    }
}

#[test]
fn no_bit_of_a_cosigned_checkpoint_changes_its_meaning() {
    for (parties, step) in [(Parties::ed25519(), EVERY_BIT), (Parties::with_ml_dsa_44(), SAMPLE)] {
        let policy = Policy::parse(parties.policy().as_bytes()).unwrap();
        let good = parties.checkpoint().with_cosignatures(parties.lines()).unwrap();
        policy.verify_checkpoint(good.note().as_bytes()).unwrap();
        for (bit, damaged) in flipped(good.note().as_bytes(), step) {
            // One of two lines of the log can become that of an unknown key, for the other says the same.
            let changed = policy
                .verify_checkpoint(&damaged)
                .is_ok_and(|verified| parties.signer.ml_dsa_44_key().is_none() || verified.checkpoint() != good.checkpoint());
            assert!(!changed, "bit {bit}");
        }
    }
}

#[test]
fn no_bit_of_a_proof_can_change() {
    let [a, _, c] = leaves();
    let policy = Policy::for_log(signer().verifier_key());
    let note = VerifiedCheckpoint::sign(&signer(), 3, root()).note().to_owned();
    let good = TlogProof::new(1, vec![a, c], note).to_string();
    TlogProof::parse(good.as_bytes()).unwrap().verify(b"b", &policy).unwrap();
    for (bit, damaged) in flipped(good.as_bytes(), EVERY_BIT) {
        let verified = TlogProof::parse(&damaged).is_ok_and(|proof| proof.verify(b"b", &policy).is_ok());
        assert!(!verified, "bit {bit}");
    }
}

#[test]
fn no_bit_of_a_request_to_a_witness_can_change() {
    let [a, b, c] = leaves();
    let new = VerifiedCheckpoint::sign(&signer(), 3, root());
    let good = AddCheckpoint::new(2, vec![c], new.note().to_owned()).to_string();
    let old_root = node_hash(&a, &b);
    let accepts = |body: &[u8]| {
        let Ok(request) = AddCheckpoint::parse(body) else { return false };
        let Ok(new) = VerifiedCheckpoint::verify(request.note().as_bytes(), &signer().verifier_key()) else { return false };
        let consistent = verify_consistency(2, old_root, new.tree_size(), new.root_hash(), request.proof());
        request.old_size() == 2 && consistent.is_ok()
    };
    assert!(accepts(good.as_bytes()));
    for (bit, damaged) in flipped(good.as_bytes(), EVERY_BIT) {
        assert!(!accepts(&damaged), "bit {bit}");
    }
}

#[test]
fn no_bit_of_an_answer_passes_for_a_cosignature() {
    for (parties, step) in [(Parties::ed25519(), EVERY_BIT), (Parties::with_ml_dsa_44(), SAMPLE)] {
        let checkpoint = parties.checkpoint();
        let good = write_cosignatures(&parties.lines());
        let both_verify = |body: &[u8]| {
            let lines = parse_cosignatures(body).unwrap_or_default();
            parties
                .cosigners
                .iter()
                .map(CosignerKey::verifier_key)
                .all(|key| lines.iter().any(|line| line.verify_cosignature(&key, checkpoint.checkpoint()) == Ok(TIME)))
        };
        assert!(both_verify(good.as_bytes()));
        for (bit, damaged) in flipped(good.as_bytes(), step) {
            assert!(!both_verify(&damaged), "bit {bit}");
        }
    }
}

#[test]
fn no_bit_of_a_policy_makes_it_laxer() {
    for (parties, step) in [(Parties::ed25519(), EVERY_BIT), (Parties::with_ml_dsa_44(), SAMPLE)] {
        let signed = parties.checkpoint();
        let with = |lines: &[SignatureLine]| signed.with_cosignatures(lines.iter().cloned()).unwrap().note().to_owned();
        let lines = parties.lines();
        let foreign = Signer::new("log.example/foreign", &[5; 32]).unwrap();
        let foreign = VerifiedCheckpoint::sign(&foreign, 3, root()).note().to_owned();
        let insufficient = [with(&[]), with(&lines[..1]), with(&lines[1..]), foreign];
        let accepts = |policy: &Policy, note: &str| policy.verify_checkpoint(note.as_bytes()).is_ok();
        let good = parties.policy();
        assert!(accepts(&Policy::parse(good.as_bytes()).unwrap(), &with(&lines)));
        let mut n_parsed = 0;
        for (bit, damaged) in flipped(good.as_bytes(), step) {
            let Ok(policy) = Policy::parse(&damaged) else { continue };
            n_parsed += 1;
            for note in &insufficient {
                assert!(!accepts(&policy, note), "bit {bit}");
            }
        }
        assert!(n_parsed > 0 || step > EVERY_BIT, "some bits are those of a URL");
    }
}

#[test]
fn every_cut_is_noticed() {
    let parties = Parties::ed25519();
    let policy = Policy::parse(parties.policy().as_bytes()).unwrap();
    let good = parties.checkpoint().with_cosignatures(parties.lines()).unwrap();
    let [a, _, c] = leaves();
    let proof = TlogProof::new(1, vec![a, c], good.note().to_owned()).to_string();
    TlogProof::parse(proof.as_bytes()).unwrap().verify(b"b", &policy).unwrap();
    for length in 0..proof.len() {
        let verified = TlogProof::parse(&proof.as_bytes()[..length]).is_ok_and(|proof| proof.verify(b"b", &policy).is_ok());
        assert!(!verified, "{length} bytes");
    }
    for length in 0..good.note().len() {
        assert!(policy.verify_checkpoint(&good.note().as_bytes()[..length]).is_err(), "{length} bytes");
    }
}
