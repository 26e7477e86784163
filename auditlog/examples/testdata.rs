//! Writes the test vectors under `testdata/`. Ids are never reused; a vector has one fault, and its name says which.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use fanlight_auditlog::hash::{EMPTY_ROOT, node_hash};
use fanlight_auditlog::note::SignatureLine;
use fanlight_auditlog::witness::AddCheckpoint;
use fanlight_auditlog::{Checkpoint, CosignerKey, Hash, Signer, TlogProof, leaf_hash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "log.example/vectors";

/// Seconds since 1970.
const TIME: u64 = 1_800_000_000;

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
        ("cosignature", "C2SP tlog-cosignature", cosignatures()),
        ("add_checkpoint", "C2SP tlog-witness", add_checkpoints()),
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

/// A cosigner with Ed25519, written once more from C2SP tlog-cosignature, so that it can also do what it must not.
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
        self.cosign_at(note, TIME)
    }

    fn cosign_at(&self, note: &str, time: u64) -> String {
        let text = note.rsplit_once("\n\n").expect("a note has a blank line").0;
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
    let pq = CosignerKey::ml_dsa_44("pq.example", &[7; 32]).expect("a good name");
    let pq_vkey = pq.verifier_key().to_string();
    let with_pq = |time| {
        let checkpoint = Checkpoint::new(ORIGIN, 1, leaf_hash(b"a"));
        format!("{note}{}\n", pq.cosign(&checkpoint, time).expect("a short origin"))
    };
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
        test("ml_dsa_44_witness", &format!("{base}witness pq {pq_vkey}\nquorum pq\n"), &with_pq(TIME), "valid"),
        test(
            "cosignature_without_time",
            &format!("{base}witness pq {pq_vkey}\nquorum pq\n"),
            &with_pq(0),
            "quorum of witnesses not reached",
        ),
        test("ml_dsa_44_log", &format!("log {}\nquorum none\n", pq_log_key()), &pq_signed(""), "valid"),
        test("both_keys_of_a_log", &format!("log {}\nlog {}\nquorum none\n", vkey(), pq_log_key()), &pq_signed(""), "valid"),
        test(
            "ml_dsa_44_log_with_extension",
            &format!("log {}\nquorum none\n", pq_log_key()),
            &pq_signed("extension\n"),
            "checkpoint with extension lines that the key does not sign",
        ),
        on("witness_with_log_key", &format!("witness w4 {}\nquorum none\n", vkey()), &[], "wrong type of key for its role"),
    ]
}

fn pq_log_key() -> String {
    signer().with_ml_dsa_44(&[2; 32]).ml_dsa_44_key().expect("just given").to_string()
}

/// A checkpoint with extension lines and both signatures of the log.
fn pq_signed(extensions: &str) -> String {
    let text = format!("{}{extensions}", Checkpoint::new(ORIGIN, 1, leaf_hash(b"a")));
    let key = CosignerKey::ml_dsa_44(ORIGIN, &[2; 32]).expect("a good name");
    let line = key.cosign(&Checkpoint::parse(&text).expect("a checkpoint"), 0).expect("a short origin");
    format!("{}{line}\n", signer().sign(&text))
}

fn cosignatures() -> Vec<Value> {
    const BAD: &str = "bad signature of a trusted key";
    let checkpoint = Checkpoint::new(ORIGIN, 1, leaf_hash(b"a"));
    let text = checkpoint.to_string();
    let ed25519 = CosignerKey::ed25519("w1.example", &[100; 32]).expect("a good name");
    let ml_dsa_44 = CosignerKey::ml_dsa_44("pq.example", &[7; 32]).expect("a good name");
    let vector = |name: &str, key: &CosignerKey, text: &str, line: &str, expect: &str| json!({ "name": name, "vkey": key.verifier_key().to_string(), "note": format!("{text}\n{line}\n"), "expect": expect });
    let mut tests = Vec::new();
    for (prefix, key, other) in [("ed25519", &ed25519, &ml_dsa_44), ("ml_dsa_44", &ml_dsa_44, &ed25519)] {
        let line = |time| key.cosign(&checkpoint, time).expect("a time in range and a short origin");
        let good = line(TIME);
        let damaged = |edit: fn(&mut Vec<u8>)| with_body(&good, edit);
        let mut add = |name: &str, text: &str, line: &str, expect: &str| {
            tests.push(vector(&format!("{prefix}_{name}"), key, text, line, expect));
        };
        add("cosignature", &text, &good.to_string(), "valid");
        add("without_time", &text, &line(0).to_string(), "valid");
        add("largest_time", &text, &line(u64::MAX >> 1).to_string(), "valid");
        add("twice", &text, &format!("{good}\n{}", line(TIME + 1)), "valid");
        add("beside_an_unknown_one", &text, &format!("{}\n{good}", other.cosign(&checkpoint, TIME).expect("in range")), "valid");
        add(
            "only_an_unknown_one",
            &text,
            &other.cosign(&checkpoint, TIME).expect("in range").to_string(),
            "not signed by the trusted key",
        );
        add("time_changed", &text, &damaged(|body| body[7] ^= 1), BAD);
        add("signature_changed", &text, &damaged(|body| body[8] ^= 1), BAD);
        add("signature_cut", &text, &damaged(|body| body.truncate(body.len() - 1)), BAD);
        add("signature_too_long", &text, &damaged(|body| body.push(0)), BAD);
        add("time_cut", &text, &damaged(|body| body.truncate(7)), BAD);
        add("all_ones", &text, &damaged(|body| body[8..].fill(0xff)), BAD);
        add("of_another_size", &text.replace("\n1\n", "\n2\n"), &good.to_string(), BAD);
        add("of_another_origin", &text.replace("log.example", "log.elsewhere"), &good.to_string(), BAD);
        add("of_no_checkpoint", "a text\n", &good.to_string(), BAD);
        let expect = if prefix == "ed25519" { BAD } else { "valid" };
        add("extension_added", &format!("{text}extension\n"), &good.to_string(), expect);
    }
    let late = Witness::new(0).cosign_at(&signer().sign(&text), 1 << 63);
    tests.push(vector("ed25519_time_over_63_bits", &ed25519, &text, late.trim_end(), BAD));
    tests
}

/// The line with another body.
fn with_body(line: &SignatureLine, edit: fn(&mut Vec<u8>)) -> String {
    let mut body = line.body().to_vec();
    edit(&mut body);
    format!("— {} {}", line.name(), STANDARD.encode([line.key_id().to_be_bytes().as_slice(), &body].concat()))
}

fn add_checkpoints() -> Vec<Value> {
    const MALFORMED: &str = "not an add-checkpoint request";
    let [a, b] = [b"a", b"b"].map(|entry| leaf_hash(entry));
    let note = signer().sign(&Checkpoint::new(ORIGIN, 2, node_hash(&a, &b)).to_string());
    let request = |old: u64, proof: &[Hash]| AddCheckpoint::new(old, proof.to_vec(), note.clone()).to_string();
    let good = request(1, &[b]);
    let test = |name: &str, old_size: u64, hashes: usize, body: &str, expect: &str| json!({ "name": name, "body": body, "expect": expect, "old_size": old_size, "hashes": hashes });
    let bad = |name: &str, body: &str, expect: &str| json!({ "name": name, "body": body, "expect": expect });
    vec![
        test("with_proof", 1, 1, &good, "valid"),
        test("without_proof", 0, 0, &request(0, &[]), "valid"),
        test("longest_proof", u64::MAX, 63, &request(u64::MAX, &[a; 63]), "valid"),
        // What the checkpoint is worth is for the witness to say, with other statuses than this one.
        test("checkpoint_that_is_none", 1, 1, &good.replace(&note, "text\n"), "valid"),
        test("checkpoint_empty", 1, 1, &good.replace(&note, ""), "valid"),
        bad("proof_too_long", &request(1, &[a; 64]), "add-checkpoint request too long"),
        bad("old_missing", &good.replacen("old 1\n", "", 1), MALFORMED),
        bad("old_with_leading_zero", &good.replace("old 1", "old 01"), MALFORMED),
        bad("old_with_sign", &good.replace("old 1", "old +1"), MALFORMED),
        bad("old_with_two_spaces", &good.replace("old 1", "old  1"), MALFORMED),
        bad("old_over_64_bits", &good.replace("old 1", "old 18446744073709551616"), MALFORMED),
        bad("hash_too_short", &good.replace(&b.to_string(), "AAAA"), MALFORMED),
        bad("hash_not_base64", &good.replace(&b.to_string(), &"*".repeat(44)), MALFORMED),
        bad("carriage_returns", &good.replace('\n', "\r\n"), MALFORMED),
        bad("no_blank_line", "old 1\n", MALFORMED),
        bad("empty", "", MALFORMED),
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
    let on_other_root = TlogProof::new(1, vec![a, c], other_root).to_string();
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
        test("checkpoint_of_another_root", "b", on_other_root, "proof leads to another root"),
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
