//! `entries_v1.json`: entries of each type, and one test for each rule of SPEC §7 that one can break. Written by hand in
//! CBOR and signed with RFC 6979 nonces.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

use super::Suite;
use super::cbor::{array, bstr, map, negative, numbered, tag, tstr, uint};
use super::craft::{NOW, Party, sha256};
use super::rng::CounterRng;

const TYPES: [(&str, &str); 4] = [
    ("evidence", "fanlight.evidence.v1"),
    ("key_statement", "fanlight.key-statement.v1"),
    ("link", "fanlight.link.v1"),
    ("receipt", "fanlight.receipt.v1"),
];

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §7, §8.2", "entries_v1");
    good(&mut suite);
    envelopes(&mut suite);
    signatures(&mut suite);
    payloads(&mut suite);
    details(&mut suite);
    suite.into_text()
}

/// The rows of SPEC §11 about entries.
pub(crate) fn attacks(suite: &mut Suite) {
    let mut add = |name: String, kind: &str, entry: &[u8], expect: &str| {
        let mut inputs = inputs(kind, entry);
        inputs["kind"] = "entry".into();
        suite.test(name, &["Attack"], inputs, expect);
    };
    for (kind, typ) in TYPES {
        let signed_as = if kind == "link" { "fanlight.receipt.v1" } else { "fanlight.link.v1" };
        let reused = Entry { signed_typ: Some(signed_as), ..Entry::new(typ, payload(kind)) };
        add(format!("signature_reused_as_{kind}"), kind, &reused.bytes(), "bad_signature");
        let (other, other_typ) = TYPES[usize::from(kind == "evidence")];
        add(format!("signature_reused_as_{kind}_whole"), kind, &Entry::new(other_typ, payload(other)).bytes(), "wrong_type");
    }
    let receipt = Entry::new("fanlight.receipt.v1", payload("receipt"));
    add("entry_malleated_high_s".into(), "receipt", &Entry { high_s: true, ..receipt.clone() }.bytes(), "bad_signature");
    let unprotected = map(&[(uint(1000), uint(0))]);
    add("entry_malleated_unprotected".into(), "receipt", &Entry { unprotected, ..receipt.clone() }.bytes(), "headers");
    let mut long_head = receipt.bytes();
    long_head.splice(1..2, [0x98, 4]);
    add("entry_malleated_long_array_head".into(), "receipt", &long_head, "not_deterministic");
}

fn identity() -> SigningKey {
    SigningKey::from_slice(&CounterRng::new("identity").array::<32>()).expect("a scalar below the order")
}

fn spki(key: &SigningKey) -> Vec<u8> {
    let algorithm = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").expect("hexadecimal");
    [algorithm, key.verifying_key().to_sec1_point(false).as_bytes().to_vec()].concat()
}

/// One COSE_Sign1 in the making.
#[derive(Clone)]
struct Entry {
    typ: &'static str,
    /// What the signature is made over, if not `typ`.
    signed_typ: Option<&'static str>,
    kid: Vec<u8>,
    alg: Vec<u8>,
    /// Appended to the protected map.
    more_protected: Vec<(Vec<u8>, Vec<u8>)>,
    unprotected: Vec<u8>,
    payload: Vec<u8>,
    high_s: bool,
}

impl Entry {
    fn new(typ: &'static str, payload: Vec<u8>) -> Self {
        Self {
            typ,
            signed_typ: None,
            kid: sha256(&spki(&identity())).to_vec(),
            alg: negative(6),
            more_protected: Vec::new(),
            unprotected: map(&[]),
            payload,
            high_s: false,
        }
    }

    fn protected(&self, typ: &str) -> Vec<u8> {
        let mut pairs = vec![(uint(1), self.alg.clone()), (uint(4), bstr(&self.kid)), (uint(16), tstr(typ))];
        pairs.extend(self.more_protected.clone());
        map(&pairs)
    }

    fn signature(&self, protected: &[u8]) -> Vec<u8> {
        let to_sign = array(&[tstr("Signature1"), bstr(protected), bstr(b""), bstr(&self.payload)]);
        let signature: Signature = identity().sign(&to_sign);
        let low = signature.normalize_s();
        let (r, s) = low.split_scalars();
        let signature = if self.high_s { Signature::from_scalars(*r, *-s).expect("not zero") } else { low };
        signature.to_bytes().to_vec()
    }

    fn parts(&self) -> [Vec<u8>; 4] {
        let signature = self.signature(&self.protected(self.signed_typ.unwrap_or(self.typ)));
        [bstr(&self.protected(self.typ)), self.unprotected.clone(), bstr(&self.payload), bstr(&signature)]
    }

    fn bytes(&self) -> Vec<u8> {
        tag(18, &array(&self.parts()))
    }
}

fn inputs(kind: &str, entry: &[u8]) -> Value {
    json!({"entry_type": kind, "signer": hex::encode(spki(&identity())), "entry": hex::encode(entry)})
}

fn payload(kind: &str) -> Vec<u8> {
    numbered(&values(kind))
}

/// The values of a good payload, by key.
fn values(kind: &str) -> Vec<Vec<u8>> {
    let spki = bstr(&spki(&identity()));
    match kind {
        "evidence" => {
            let claims = [("os", "macOS 26.1"), ("arch", "arm64"), ("key_store", "software")];
            let claims = map(&claims.map(|(name, value)| (tstr(name), tstr(value))));
            vec![spki, tstr("self-signed"), uint(NOW), claims]
        }
        "key_statement" => {
            let model = |name: &str, n| numbered(&[tstr(name), bstr(&sha256(name.as_bytes())), uint(n)]);
            let models = array(&[model("tiny-llama", 2048), model("big-llama", 131_072)]);
            let [kem_key, build, evidence] = [&Party::new("a").public[..], &sha256(b"build"), &sha256(b"evidence")].map(bstr);
            vec![spki, uint(1), kem_key, uint(NOW), uint(NOW + 21_600), models, build, evidence]
        }
        "link" => vec![spki, bstr(&[0xc4; 32]), bstr(&sha256(b"statement")), uint(NOW)],
        "receipt" => {
            let time = NOW / 60 * 60;
            let commitment = sha256(&[b"fanlight-v1 receipt details", &BLIND[..], &good_details()].concat());
            vec![bstr(&sha256(b"statement")), uint(7), bstr(&sha256(b"receipt 6")), uint(time), bstr(&commitment)]
        }
        other => panic!("{other}"),
    }
}

const BLIND: [u8; 32] = [0xb1; 32];

fn good_details() -> Vec<u8> {
    numbered(&detail_values())
}

fn detail_values() -> Vec<Vec<u8>> {
    let usage = numbered(&[uint(21), uint(5), uint(300), uint(0)]);
    let [weights, build] = [b"tiny-llama".as_slice(), b"build"].map(|name| bstr(&sha256(name)));
    let [request, response] = [b"request".as_slice(), b"response"].map(|name| bstr(&sha256(name)));
    let millis = NOW * 1000;
    let id = bstr(&[0x42; 16]);
    vec![
        id,
        request,
        response,
        tstr("tiny-llama"),
        weights,
        build,
        usage,
        uint(0),
        tstr("stop"),
        uint(millis),
        uint(millis + 1234),
    ]
}

fn good(suite: &mut Suite) {
    for (kind, typ) in TYPES {
        let entry = Entry::new(typ, payload(kind)).bytes();
        let mut inputs = inputs(kind, &entry);
        inputs["digest"] = hex::encode(sha256(&entry)).into();
        inputs["payload"] = hex::encode(payload(kind)).into();
        suite.test(format!("good_{kind}"), &["Good"], inputs, "ok");
    }
    let mut first = values("receipt");
    (first[1], first[2]) = (uint(0), bstr(&[0; 32]));
    let entry = Entry::new("fanlight.receipt.v1", numbered(&first)).bytes();
    let mut inputs = inputs("receipt", &entry);
    inputs["digest"] = hex::encode(sha256(&entry)).into();
    inputs["payload"] = hex::encode(numbered(&first)).into();
    suite.test("good_first_receipt", &["Good"], inputs, "ok");
}

fn envelopes(suite: &mut Suite) {
    let good = Entry::new("fanlight.receipt.v1", payload("receipt"));
    let [protected, unprotected, payload, signature] = good.parts();
    let mut add = |name: &str, entry: &[u8], expect: &str| suite.test(name, &["Envelope"], inputs("receipt", entry), expect);
    let joined = |parts: &[&Vec<u8>]| array(&parts.iter().map(|&p| p.clone()).collect::<Vec<_>>());
    let whole = joined(&[&protected, &unprotected, &payload, &signature]);
    add("empty", b"", "not_cose_sign1");
    add("untagged", &whole, "not_cose_sign1");
    add("other_tag", &tag(17, &whole), "not_cose_sign1");
    add("cut", &good.bytes()[..good.bytes().len() - 1], "not_cose_sign1");
    add("bytes_after_the_end", &[good.bytes(), vec![0]].concat(), "not_cose_sign1");
    add("payload_detached", &tag(18, &joined(&[&protected, &unprotected, &vec![0xf6], &signature])), "not_cose_sign1");
    add("three_parts", &tag(18, &joined(&[&protected, &unprotected, &payload])), "not_cose_sign1");
    let oversize = Entry { payload: vec![0; 65_536], ..good.clone() };
    add("too_long", &oversize.bytes(), "too_long");

    add("unprotected_header", &Entry { unprotected: map(&[(uint(4), bstr(b"k"))]), ..good.clone() }.bytes(), "headers");
    add("alg_of_another_curve", &Entry { alg: negative(34), ..good.clone() }.bytes(), "headers");
    add("kid_short", &Entry { kid: vec![1; 31], ..good.clone() }.bytes(), "headers");
    add("protected_header_more", &Entry { more_protected: vec![(uint(17), uint(0))], ..good.clone() }.bytes(), "headers");
    add("typ_unknown", &Entry { typ: "fanlight.receipt.v2", ..good.clone() }.bytes(), "headers");
    let entry = |protected: Vec<u8>| {
        let signature = bstr(&good.signature(&protected));
        tag(18, &joined(&[&bstr(&protected), &unprotected, &payload, &signature]))
    };
    let (alg, kid, typ) = ((uint(1), negative(6)), (uint(4), bstr(&good.kid)), (uint(16), tstr(good.typ)));
    add("typ_missing", &entry(map(&[alg.clone(), kid.clone()])), "headers");
    add("kid_missing", &entry(map(&[alg.clone(), typ.clone()])), "headers");
    add("alg_missing", &entry(map(&[kid.clone(), typ.clone()])), "headers");
    add("protected_keys_swapped", &entry(map(&[kid.clone(), alg, typ.clone()])), "headers");
    add("protected_key_long_form", &entry(map(&[(vec![0x18, 1], negative(6)), kid, typ])), "headers");
    let mut long_head = good.bytes();
    long_head.splice(0..1, [0xd8, 18]);
    add("tag_long_form", &long_head, "not_deterministic");
}

fn signatures(suite: &mut Suite) {
    let good = Entry::new("fanlight.receipt.v1", payload("receipt"));
    let mut add = |name: &str, entry: &[u8], expect: &str| suite.test(name, &["Signature"], inputs("receipt", entry), expect);
    add("s_in_upper_half", &Entry { high_s: true, ..good.clone() }.bytes(), "bad_signature");
    let with = |signature: &[u8]| {
        let [protected, unprotected, payload, _] = good.parts();
        tag(18, &array(&[protected, unprotected, payload, bstr(signature)]))
    };
    let signature = good.signature(&good.protected(good.typ));
    let mut flipped = signature.clone();
    flipped[0] ^= 1;
    add("signature_flipped", &with(&flipped), "bad_signature");
    add("signature_zeros", &with(&[0; 64]), "bad_signature");
    add("signature_short", &with(&signature[..63]), "bad_signature");
    add("signature_empty", &with(b""), "bad_signature");
    let der = Signature::from_slice(&signature).expect("r and s").to_der();
    add("signature_der", &with(der.as_bytes()), "bad_signature");
    add("signed_as_another_type", &Entry { signed_typ: Some("fanlight.link.v1"), ..good.clone() }.bytes(), "bad_signature");
    add("kid_of_another", &Entry { kid: vec![1; 32], ..good.clone() }.bytes(), "wrong_key");
    let statement = Entry { kid: vec![1; 32], ..Entry::new("fanlight.key-statement.v1", payload("key_statement")) };
    suite.test("kid_not_of_spki", &["Signature"], inputs("key_statement", &statement.bytes()), "wrong_key");
    suite.test("receipt_as_link", &["Signature"], inputs("link", &good.bytes()), "wrong_type");
}

/// A good payload with the value of one key replaced.
fn with_value(kind: &str, key: usize, value: Vec<u8>) -> Vec<u8> {
    let mut values = values(kind);
    values[key - 1] = value;
    numbered(&values)
}

fn payloads(suite: &mut Suite) {
    let mut add = |name: String, kind: &str, payload: Vec<u8>, expect: &str| {
        let typ = TYPES.into_iter().find(|(k, _)| *k == kind).expect("a kind").1;
        suite.test(name, &["Payload"], inputs(kind, &Entry::new(typ, payload).bytes()), expect);
    };
    for (kind, _) in TYPES {
        let values = values(kind);
        let mut more = values.clone();
        more.push(uint(0));
        add(format!("{kind}_key_unknown"), kind, numbered(&more), "payload");
        add(format!("{kind}_key_missing"), kind, numbered(&values[..values.len() - 1]), "payload");
        add(format!("{kind}_bytes_after_the_map"), kind, [payload(kind), vec![0]].concat(), "payload");
        add(format!("{kind}_not_a_map"), kind, array(&values), "payload");
        add(format!("{kind}_not_cbor"), kind, vec![0xff], "payload");
        let mut pairs: Vec<_> = (1..).map(uint).zip(values.clone()).collect();
        pairs.swap(0, 1);
        add(format!("{kind}_keys_swapped"), kind, map(&pairs), "payload");
        let mut pairs: Vec<_> = (1..).map(uint).zip(values.clone()).collect();
        pairs[0].0 = vec![0x18, 1];
        add(format!("{kind}_key_long_form"), kind, map(&pairs), "not_deterministic");
        add(format!("{kind}_wrong_type"), kind, with_value(kind, 1, uint(1)), "payload");
        let indefinite = [vec![0xbf], payload(kind)[1..].to_vec(), vec![0xff]].concat();
        add(format!("{kind}_indefinite_map"), kind, indefinite, "not_deterministic");
    }
    let mut bad_spki = spki(&identity());
    bad_spki[90] ^= 1;
    let mut compressed = spki(&identity());
    compressed[26] = 2;
    for (kind, _) in &TYPES[..3] {
        add(format!("{kind}_spki_off_the_curve"), kind, with_value(kind, 1, bstr(&bad_spki)), "bad_key");
        add(format!("{kind}_spki_compressed_tag"), kind, with_value(kind, 1, bstr(&compressed)), "bad_key");
    }
    let mut evidence =
        |name: &str, key, value, expect| add(format!("evidence_{name}"), "evidence", with_value("evidence", key, value), expect);
    evidence("kind_unknown", 2, tstr("app-attested"), "payload");
    evidence("created_negative", 3, negative(0), "payload");
    evidence("created_long_form", 3, [vec![0x1b], NOW.to_be_bytes().to_vec()].concat(), "not_deterministic");
    let claims = |claims: &[(&str, String)]| map(&claims.iter().map(|(n, v)| (tstr(n), tstr(v))).collect::<Vec<_>>());
    evidence("claims_out_of_order", 4, claims(&[("arch", "a".into()), ("os", "b".into())]), "not_deterministic");
    evidence("claim_twice", 4, claims(&[("os", "a".into()), ("os", "a".into())]), "not_deterministic");
    evidence("claim_too_long", 4, claims(&[("os", "a".repeat(257))]), "payload");
    evidence("claim_not_text", 4, map(&[(tstr("os"), uint(1))]), "payload");
    let many: Vec<_> = (10..43).map(|i| (format!("{i}"), String::new())).collect();
    evidence("claims_33", 4, claims(&many.iter().map(|(n, v)| (n.as_str(), v.clone())).collect::<Vec<_>>()), "payload");

    let mut statement = |name: &str, key, value, expect| {
        add(format!("key_statement_{name}"), "key_statement", with_value("key_statement", key, value), expect);
    };
    let mut off_curve = Party::new("a").public;
    off_curve[64] ^= 1;
    statement("suite_2", 2, uint(2), "payload");
    statement("kem_key_off_the_curve", 3, bstr(&off_curve), "bad_key");
    statement("kem_key_compressed", 3, bstr(&off_curve[..33]), "payload");
    statement("validity_empty", 5, uint(NOW), "payload");
    statement("validity_too_long", 5, uint(NOW + 21_601), "payload");
    statement("models_none", 6, array(&[]), "payload");
    let model = |name: &str| numbered(&[tstr(name), bstr(&[1; 32]), uint(1)]);
    statement("models_65", 6, array(&(0..65).map(|i| model(&format!("m{i}"))).collect::<Vec<_>>()), "payload");
    statement("model_twice", 6, array(&[model("m"), model("m")]), "payload");
    statement("model_badly_named", 6, array(&[model("m m")]), "payload");
    statement("build_measurement_short", 7, bstr(&[1; 31]), "payload");

    let mut receipt =
        |name: &str, key, value, expect| add(format!("receipt_{name}"), "receipt", with_value("receipt", key, value), expect);
    receipt("first_with_previous", 2, uint(0), "payload");
    receipt("later_without_previous", 3, bstr(&[0; 32]), "payload");
    receipt("time_not_a_minute", 4, uint(NOW / 60 * 60 + 1), "not_deterministic");
    add("nested_too_deep".into(), "receipt", vec![0x81; 300], "payload");
}

fn details(suite: &mut Suite) {
    let receipt = Entry::new("fanlight.receipt.v1", payload("receipt")).bytes();
    let mut add = |name: &str, receipt: &[u8], details: &[u8], blind: &[u8; 32], expect: &str| {
        let mut inputs = inputs("receipt", receipt);
        inputs["details"] = hex::encode(details).into();
        inputs["blind"] = hex::encode(blind).into();
        suite.test(format!("details_{name}"), &["Details"], inputs, expect);
    };
    add("good", &receipt, &good_details(), &BLIND, "ok");
    add("other_blind", &receipt, &good_details(), &[0xb2; 32], "payload");
    let edited = |key: usize, value: Vec<u8>| {
        let mut values = detail_values();
        values[key - 1] = value;
        numbered(&values)
    };
    add("edited", &receipt, &edited(7, numbered(&[uint(21), uint(5), uint(301), uint(0)])), &BLIND, "payload");
    // The rest are committed to as they are, and break a rule of their own.
    let mut committed = |name: &str, details: Vec<u8>, expect: &str| {
        let commitment = sha256(&[b"fanlight-v1 receipt details", &BLIND[..], &details].concat());
        let entry = Entry::new("fanlight.receipt.v1", with_value("receipt", 5, bstr(&commitment)));
        add(name, &entry.bytes(), &details, &BLIND, expect);
    };
    committed(
        "aborted",
        {
            let mut v = detail_values();
            (v[7], v[8]) = (uint(1), tstr("aborted"));
            numbered(&v)
        },
        "ok",
    );
    committed("status_3", edited(8, uint(3)), "payload");
    committed("finish_reason_unknown", edited(9, tstr("done")), "payload");
    committed("tokens_above_32_bits", edited(7, numbered(&[uint(1 << 32), uint(0), uint(0), uint(0)])), "payload");
    committed("key_unknown", numbered(&[detail_values(), vec![uint(0)]].concat()), "payload");
    committed("usage_key_missing", edited(7, numbered(&[uint(1), uint(0), uint(0)])), "payload");
    committed("long_integer", edited(8, vec![0x18, 0]), "not_deterministic");
}
