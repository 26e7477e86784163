//! Writes the test vectors under `testdata/`. Ids are never reused; a vector has one fault, and its name says which.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use fanlight_auditlog::hash::{EMPTY_ROOT, node_hash};
use fanlight_auditlog::{Checkpoint, Hash, Signer, TlogProof, leaf_hash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "log.example/vectors";

/// The example of C2SP signed-note.
const SPEC_VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const SPEC_NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for (schema, spec, tests) in [
        ("note", "C2SP signed-note", notes()),
        ("checkpoint", "C2SP tlog-checkpoint", checkpoints()),
        ("policy", "C2SP tlog-policy", policies()),
        ("tlog_proof", "C2SP tlog-proof", tlog_proofs()),
    ] {
        let tests: Vec<Value> = (1..)
            .zip(tests)
            .map(|(id, mut test): (u32, Value)| {
                test["id"] = id.into();
                test
            })
            .collect();
        let file = json!({ "schema": schema, "spec": spec, "tests": tests });
        fs::write(dir.join(format!("{schema}.json")), format!("{file:#}\n"))?;
    }
    Ok(())
}

fn signer() -> Signer {
    Signer::new(ORIGIN, &[1; 32]).expect("a good name")
}

fn vkey() -> String {
    signer().verifier_key().to_string()
}

fn notes() -> Vec<Value> {
    let test = |name: &str, note: &str, expect: &str| json!({ "name": name, "vkey": SPEC_VKEY, "note": note, "expect": expect });
    let line = SPEC_NOTE.split_once("\n\n").expect("the example has a blank line").1;
    let other = Signer::new("example.com/other", &[9; 32]).expect("a good name").sign("This is an example message.\n");
    let other_line = other.split_once("\n\n").expect("a note has a blank line").1;
    vec![
        test("spec_example", SPEC_NOTE, "valid"),
        test("unknown_signature_beside", &format!("{SPEC_NOTE}{other_line}"), "valid"),
        test("signature_twice", &format!("{SPEC_NOTE}{line}"), "valid"),
        test("only_unknown_signature", &other, "not signed by the trusted key"),
        test("text_changed", &SPEC_NOTE.replace("an example", "another example"), "bad signature of a trusted key"),
        test(
            "bad_signature_beside_a_good_one",
            &format!("{SPEC_NOTE}{}", line.replace("Ukn8", "Uko8").replace("kn8s", "kn9s")),
            "bad signature of a trusted key",
        ),
        test("no_blank_line", &SPEC_NOTE.replacen("\n\n", "\n", 1), "not a signed note"),
        test("no_signature", "This is an example message.\n\n", "not a signed note"),
        test("no_last_newline", SPEC_NOTE.trim_end(), "not a signed note"),
        test("hyphen_for_dash", &SPEC_NOTE.replace('—', "-"), "not a signed note"),
        test("control_character", &SPEC_NOTE.replace("an example", "an\texample"), "not a signed note"),
        test("unpadded_base64", &SPEC_NOTE.replace("eyaQM=", "eyaQM"), "not a signed note"),
        test("unused_base64_bits_set", &SPEC_NOTE.replace("eyaQM=", "eyaQN="), "not a signed note"),
        test("plus_in_name", &format!("{SPEC_NOTE}{}", other_line.replace("/other", "+other")), "not a signed note"),
        test("no_bytes_after_key_id", &format!("{SPEC_NOTE}— a AAAAAA==\n"), "not a signed note"),
        test("too_many_signatures", &format!("{SPEC_NOTE}{}", other_line.repeat(100)), "note too long"),
    ]
}

fn checkpoints() -> Vec<Value> {
    let test = |name: &str, text: &str, expect: &str| json!({ "name": name, "vkey": vkey(), "note": signer().sign(text), "expect": expect });
    let root = leaf_hash(b"a");
    vec![
        test("one_entry", &format!("{ORIGIN}\n1\n{root}\n"), "valid"),
        test("empty_tree", &format!("{ORIGIN}\n0\n{EMPTY_ROOT}\n"), "valid"),
        test("extension_line", &format!("{ORIGIN}\n1\n{root}\nextension\n"), "valid"),
        test("largest_size", &format!("{ORIGIN}\n18446744073709551615\n{root}\n"), "valid"),
        test("empty_tree_with_a_root", &format!("{ORIGIN}\n0\n{root}\n"), "empty tree with a root that is not empty"),
        test("other_origin", &format!("{ORIGIN}/other\n1\n{root}\n"), "checkpoint of another origin"),
        test("leading_zero", &format!("{ORIGIN}\n01\n{root}\n"), "not a checkpoint"),
        test("sign_before_size", &format!("{ORIGIN}\n+1\n{root}\n"), "not a checkpoint"),
        test("size_over_64_bits", &format!("{ORIGIN}\n18446744073709551616\n{root}\n"), "not a checkpoint"),
        test("root_missing", &format!("{ORIGIN}\n1\n"), "not a checkpoint"),
        test("root_too_short", &format!("{ORIGIN}\n1\nAAAA\n"), "not a checkpoint"),
        test("origin_missing", &format!("\n1\n{root}\n"), "not a checkpoint"),
        test("empty_extension_line", &format!("{ORIGIN}\n1\n{root}\n\nextension\n"), "not a checkpoint"),
    ]
}

/// A cosigner that C2SP tlog-cosignature describes, and nothing in the library plays yet.
struct Witness {
    name: &'static str,
    key: SigningKey,
}

impl Witness {
    fn new(number: u8) -> Self {
        let name = ["w1.example", "w2.example", "w3.example"][usize::from(number)];
        Self { name, key: SigningKey::from_bytes(&[100 + number; 32]) }
    }

    fn typed_key(&self) -> Vec<u8> {
        [&[4], self.key.verifying_key().as_bytes().as_slice()].concat()
    }

    fn key_id(&self) -> [u8; 4] {
        let sum = Sha256::digest([self.name.as_bytes(), b"\n", &self.typed_key()].concat());
        [sum[0], sum[1], sum[2], sum[3]]
    }

    fn vkey(&self) -> String {
        let id = u32::from_be_bytes(self.key_id());
        format!("{}+{id:08x}+{}", self.name, STANDARD.encode(self.typed_key()))
    }

    fn cosign(&self, note: &str) -> String {
        let text = note.rsplit_once("\n\n").expect("a note has a blank line").0;
        let time = 1_800_000_000u64;
        let signature = self.key.sign(format!("cosignature/v1\ntime {time}\n{text}\n").as_bytes());
        let body = [self.key_id().as_slice(), &time.to_be_bytes(), &signature.to_bytes()].concat();
        format!("— {} {}\n", self.name, STANDARD.encode(body))
    }
}

fn policies() -> Vec<Value> {
    let witnesses = [0, 1, 2].map(Witness::new);
    let [w1, w2, w3] = witnesses.each_ref().map(Witness::vkey);
    let base = format!("log {}\nwitness w1 {w1}\nwitness w2 {w2} https://w2.example/\nwitness w3 {w3}\n", vkey());
    let note = signer().sign(&Checkpoint::new(ORIGIN, 1, leaf_hash(b"a")).to_string());
    let cosigned = |by: &[usize]| {
        by.iter().fold(note.clone(), |note, &by| {
            let line = witnesses[by].cosign(&note);
            note + &line
        })
    };
    let test = |name: &str, policy: &str, note: &str, expect: &str| json!({ "name": name, "policy": policy, "note": note, "expect": expect });
    let on = |name: &str, rest: &str, by: &[usize], expect: &str| test(name, &format!("{base}{rest}"), &cosigned(by), expect);
    let nested = "group a 2 w1 w2\ngroup b all a w3\nquorum b\n";
    let damaged = cosigned(&[0]).replace("— w1.example ", "— w1.example x");
    let wrong_time = {
        let line = witnesses[0].cosign(&note);
        let body = line.trim_end().rsplit_once(' ').expect("a line has a body").1;
        let mut body = STANDARD.decode(body).expect("just encoded");
        body[11] ^= 1;
        format!("{note}— w1.example {}\n", STANDARD.encode(body))
    };
    vec![
        on("no_quorum_needed", "quorum none\n", &[], "valid"),
        on("one_witness", "quorum w1\n", &[0], "valid"),
        on("nested_groups", nested, &[0, 1, 2], "valid"),
        on("any_of_two", "group g any w1 w2\nquorum g\n", &[1], "valid"),
        on("comments_and_blanks", "  # comment\n\t\nquorum\tw1  \n", &[0], "valid"),
        on("witness_missing", "quorum w1\n", &[1], "quorum of witnesses not reached"),
        on("nested_group_incomplete", nested, &[0, 2], "quorum of witnesses not reached"),
        on("one_of_two_is_not_two", "group g 2 w1 w2\nquorum g\n", &[0], "quorum of witnesses not reached"),
        test("cosignature_of_another_time", &format!("{base}quorum none\n"), &wrong_time, "bad cosignature of a trusted witness"),
        test("cosignature_not_base64", &format!("{base}quorum w1\n"), &damaged, "not a signed note"),
        test("unknown_log", "quorum none\n", &note, "not signed by a trusted log"),
        on("no_quorum_line", "", &[], "policy needs exactly one quorum line"),
        on("two_quorum_lines", "quorum w1\nquorum none\n", &[0], "policy needs exactly one quorum line"),
        on("quorum_undefined", "quorum w9\n", &[], "name not defined above"),
        on("group_before_member", "group g any h\ngroup h any w1\nquorum g\n", &[], "name not defined above"),
        on("none_in_group", "group g any none\nquorum g\n", &[], "name not defined above"),
        on("threshold_zero", "group g 0 w1\nquorum g\n", &[], "group threshold out of range"),
        on("threshold_over_members", "group g 2 w1\nquorum g\n", &[], "group threshold out of range"),
        on("group_without_members", "group g any\nquorum none\n", &[], "group threshold out of range"),
        on("member_of_two_groups", "group g any w1\ngroup h any w1\nquorum h\n", &[], "name is a group member twice"),
        on("member_twice", "group g 2 w1 w1\nquorum g\n", &[], "name is a group member twice"),
        on("name_defined_twice", "group w1 any w2\nquorum none\n", &[], "name defined twice"),
        on("witness_named_none", "group none any w2\nquorum none\n", &[], "name defined twice"),
        on("witness_key_twice", &format!("witness w4 {w1}\nquorum none\n"), &[], "public key listed twice"),
        on("log_key_twice", &format!("log {}\nquorum none\n", vkey()), &[], "public key listed twice"),
        on("log_with_witness_key", &format!("log {w1}\nquorum none\n"), &[], "wrong type of key for its role"),
        on("unknown_line", "threshold 1\nquorum none\n", &[], "not a policy line"),
        on("carriage_return", "quorum none\r\n", &[], "control character in the policy"),
        on(
            "wrong_key_id",
            &format!("log {}\nquorum none\n", SPEC_VKEY.replace("530d", "530e")),
            &[],
            "key id does not belong to the key",
        ),
    ]
}

fn tlog_proofs() -> Vec<Value> {
    // Three leaves: ((a b) c).
    let [a, b, c] = [b"a", b"b", b"c"].map(|entry| leaf_hash(entry));
    let root = node_hash(&node_hash(&a, &b), &c);
    let note = signer().sign(&Checkpoint::new(ORIGIN, 3, root).to_string());
    let proof = |index: u64, path: &[Hash]| TlogProof::new(index, path.to_vec(), note.clone()).to_string();
    let policy = format!("log {}\nquorum none\n", vkey());
    let test = |name: &str, entry: &str, proof: String, expect: &str| json!({ "name": name, "policy": policy, "entry": entry, "proof": proof, "expect": expect });
    let good = proof(1, &[a, c]);
    let other_root = signer().sign(&Checkpoint::new(ORIGIN, 3, a).to_string());
    vec![
        test("first", "a", proof(0, &[b, c]), "valid"),
        test("second", "b", good.clone(), "valid"),
        test("last", "c", proof(2, &[node_hash(&a, &b)]), "valid"),
        test("with_extra", "b", good.replace("index 1", "extra ZXh0cmE=\nindex 1"), "valid"),
        test("other_entry", "a", good.clone(), "proof leads to another root"),
        test("other_index", "b", proof(0, &[a, c]), "proof leads to another root"),
        test("index_outside", "b", proof(3, &[a, c]), "index outside of the tree"),
        test("trailing_hash", "b", proof(1, &[a, c, c]), "proof has too many hashes"),
        test("missing_hash", "b", proof(1, &[a]), "proof has too few hashes"),
        test(
            "checkpoint_of_another_root",
            "b",
            TlogProof::new(1, vec![a, c], other_root).to_string(),
            "proof leads to another root",
        ),
        test("checkpoint_changed", "b", good.replace("\n3\n", "\n4\n"), "bad signature of a trusted key"),
        test("checkpoint_cut", "b", good.trim_end().to_owned(), "not a signed note"),
        test("unknown_version", "b", good.replace("@v1", "@v2"), "unknown version of tlog-proof"),
        test("index_with_leading_zero", "b", good.replace("index 1", "index 01"), "not a tlog-proof"),
        test("index_missing", "b", good.replace("index 1\n", ""), "not a tlog-proof"),
        test("hash_not_base64", "b", good.replace(&a.to_string(), "*"), "not a tlog-proof"),
        test("extra_not_base64", "b", good.replace("index 1", "extra *\nindex 1"), "not a tlog-proof"),
        test("too_many_hashes", "b", proof(1, &[a; 65]), "tlog-proof too long"),
    ]
}
