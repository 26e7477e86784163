//! Keys and cosignatures of every type, on the public interface.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::checkpoint::CheckpointError;
use fanlight_auditlog::hash::EMPTY_ROOT;
use fanlight_auditlog::note::{CosignError, KeyType, MAX_SIGNATURES, Note, NoteError, SignatureLine, VkeyError};
use fanlight_auditlog::policy::PolicyViolation;
use fanlight_auditlog::witness::{parse_cosignatures, parse_size, write_cosignatures, write_size};
use fanlight_auditlog::{Checkpoint, CosignerKey, Hash, Policy, Signer, VerifiedCheckpoint, VerifierKey, leaf_hash};
use proptest::prelude::*;

const ORIGIN: &str = "log.example/notes";
const TIME: u64 = 1_800_000_000;

fn signer() -> Signer {
    Signer::new(ORIGIN, &[42; 32]).expect("a good name")
}

fn cosigners() -> [CosignerKey; 2] {
    [
        CosignerKey::ed25519("w1.example", &[3; 32]).expect("a good name"),
        CosignerKey::ml_dsa_44("w2.example", &[4; 32]).expect("a good name"),
    ]
}

fn checkpoint() -> VerifiedCheckpoint {
    VerifiedCheckpoint::sign(&signer(), 1, leaf_hash(b"a"))
}

#[test]
fn private_keys_come_back() {
    for signer in [signer(), signer().with_ml_dsa_44(&[43; 32])] {
        let text = signer.write_private_key();
        for text in [text.to_string(), format!("{}\n", *text)] {
            let parsed = Signer::parse_private_key(&text).unwrap();
            assert_eq!(parsed.verifier_key(), signer.verifier_key());
            assert_eq!(parsed.ml_dsa_44_key(), signer.ml_dsa_44_key());
        }
        for (damaged, error) in [
            (text.replace("PRIVATE", "PUBLIC"), VkeyError::Malformed),
            (text.replacen("log.example", "log.elsewhere", 1), VkeyError::WrongId),
            (text[..text.len() - 4].to_owned(), VkeyError::BadKey),
            (format!("{}\n\n", *text), VkeyError::Malformed),
        ] {
            assert_eq!(Signer::parse_private_key(&damaged).map(|_| ()), Err(error), "{damaged}");
        }
        assert!(!format!("{signer:?}").contains("KioqKio"), "the seed is not in the debug text");
    }
    for cosigner in cosigners() {
        let text = cosigner.write_private_key();
        assert_eq!(CosignerKey::parse_private_key(&text).unwrap().verifier_key(), cosigner.verifier_key());
        assert_eq!(Signer::parse_private_key(&text).map(|_| ()), Err(VkeyError::UnsupportedType));
        assert_eq!(format!("{cosigner:?}"), format!("CosignerKey {{ name: {:?}, .. }}", cosigner.verifier_key().name()));
    }
    let log_key = signer().write_private_key();
    assert_eq!(CosignerKey::parse_private_key(&log_key).map(|_| ()), Err(VkeyError::UnsupportedType));
    let other_name = CosignerKey::ml_dsa_44("another.example", &[1; 32]).unwrap().write_private_key();
    assert_eq!(Signer::parse_private_key(&format!("{}\n{}", *log_key, *other_name)).map(|_| ()), Err(VkeyError::BadName));
    assert_eq!(Signer::parse_private_key(&format!("{}\n{}", *log_key, *log_key)).map(|_| ()), Err(VkeyError::UnsupportedType));
}

#[test]
fn a_log_signs_with_both_keys() {
    let signer = signer().with_ml_dsa_44(&[43; 32]);
    let checkpoint = VerifiedCheckpoint::sign(&signer, 0, EMPTY_ROOT);
    assert_eq!(Note::parse(checkpoint.note().as_bytes()).unwrap().signatures().len(), 2);
    for key in [signer.verifier_key(), signer.ml_dsa_44_key().unwrap()] {
        let verified = VerifiedCheckpoint::verify(checkpoint.note().as_bytes(), &key).unwrap();
        assert_eq!(verified, checkpoint);
    }
    // One key alone is as good, and the same seed under another name is another key.
    let other = Signer::new("log.example/other", &[42; 32]).unwrap().with_ml_dsa_44(&[43; 32]);
    for key in [other.verifier_key(), other.ml_dsa_44_key().unwrap()] {
        assert!(VerifiedCheckpoint::verify(checkpoint.note().as_bytes(), &key).is_err());
    }
}

#[test]
fn keys_are_only_for_what_their_type_says() {
    let checkpoint = checkpoint();
    for cosigner in cosigners() {
        let line = cosigner.cosign(checkpoint.checkpoint(), TIME).unwrap();
        let cosigned = checkpoint.with_cosignatures([line]).unwrap();
        let note = Note::parse(cosigned.note().as_bytes()).unwrap();
        assert_eq!(note.verify_cosignature(&cosigner.verifier_key()), Ok(TIME));
        assert_eq!(note.verify(&cosigner.verifier_key()), Err(NoteError::BadSignature));
        assert_eq!(note.verify_cosignature(&signer().verifier_key()), Err(NoteError::BadSignature));
        assert!(VerifiedCheckpoint::verify(cosigned.note().as_bytes(), &cosigner.verifier_key()).is_err());
    }
    let lengths = [(KeyType::Ed25519, 32), (KeyType::EcdsaP256, 91), (KeyType::Cosignature, 32), (KeyType::MlDsa44, 1312)];
    for (key_type, length) in lengths {
        for wrong in [0, 1, length - 1, length + 1] {
            let key = VerifierKey::new("name", key_type, &vec![0; wrong]);
            assert_eq!(key.map(|_| ()), Err(VkeyError::BadKey), "{key_type:?} of {wrong} bytes");
        }
    }
    for name in ["", "a b", "a+b", "a\u{2003}b", "a\nb", &"n".repeat(256)] {
        assert_eq!(Signer::new(name, &[0; 32]).map(|_| ()), Err(VkeyError::BadName), "{name:?}");
        assert_eq!(CosignerKey::ml_dsa_44(name, &[0; 32]).map(|_| ()), Err(VkeyError::BadName), "{name:?}");
    }
}

#[test]
fn what_cannot_be_cosigned() {
    let [ed25519, ml_dsa_44] = cosigners();
    let long = Checkpoint::new(&"o".repeat(256), 1, leaf_hash(b"a"));
    assert_eq!(ml_dsa_44.cosign(&long, TIME), Err(CosignError::OriginTooLong));
    let line = ed25519.cosign(&long, TIME).unwrap();
    assert_eq!(line.verify_cosignature(&ed25519.verifier_key(), &long), Ok(TIME));
    for key in cosigners() {
        assert_eq!(key.cosign(checkpoint().checkpoint(), 1 << 63), Err(CosignError::TimeOutOfRange));
    }
}

#[test]
fn cosignatures_are_merged() {
    let [w1, w2] = cosigners();
    let checkpoint = checkpoint();
    let line = |key: &CosignerKey, time| key.cosign(checkpoint.checkpoint(), time).unwrap();
    let both = checkpoint.with_cosignatures([line(&w1, TIME), line(&w2, TIME)]).unwrap();
    let newer = both.with_cosignatures([line(&w1, TIME + 1)]).unwrap();
    let note = Note::parse(newer.note().as_bytes()).unwrap();
    assert_eq!(note.signatures().len(), 3);
    assert_eq!(note.verify_cosignature(&w1.verifier_key()), Ok(TIME + 1));
    assert_eq!(note.verify_cosignature(&w2.verifier_key()), Ok(TIME));
    assert_eq!(VerifiedCheckpoint::verify(newer.note().as_bytes(), &signer().verifier_key()).unwrap(), newer);

    // Nobody replaces the log's own line.
    let impostor = CosignerKey::ed25519(ORIGIN, &[9; 32]).unwrap();
    assert_eq!(checkpoint.with_cosignatures([line(&impostor, TIME)]).unwrap(), checkpoint);
    let many = |n: usize| {
        let cosigner = |number| CosignerKey::ed25519(&format!("w{number}.example"), &[8; 32]).unwrap();
        (0..n).map(|number| line(&cosigner(number), TIME)).collect::<Vec<_>>()
    };
    assert!(checkpoint.with_cosignatures(many(MAX_SIGNATURES - 1)).is_ok());
    assert_eq!(checkpoint.with_cosignatures(many(MAX_SIGNATURES)), Err(NoteError::TooLong));
}

#[test]
fn a_policy_knows_whom_to_ask() {
    let [w1, w2] = cosigners().map(|key| key.verifier_key());
    let log = signer().verifier_key();
    let text = format!("log {log} https://log.example/\nwitness w1 {w1} https://w1.example/a\nwitness w2 {w2}\n");
    let policy = |quorum: &str| Policy::parse(format!("{text}{quorum}\n").as_bytes()).unwrap();
    let any = policy("group g any w1 w2\nquorum g");
    assert_eq!(any.logs().collect::<Vec<_>>(), [(&log, Some("https://log.example/"))]);
    assert_eq!(any.log_keys().collect::<Vec<_>>(), [&log]);
    assert_eq!(any.witnesses().collect::<Vec<_>>(), [(&w1, Some("https://w1.example/a")), (&w2, None)]);

    let checkpoint = checkpoint();
    let cosigned = |by: &[usize], time| {
        let keys = cosigners();
        checkpoint.with_cosignatures(by.iter().map(|&by| keys[by].cosign(checkpoint.checkpoint(), time).unwrap())).unwrap()
    };
    let all = policy("group g all w1 w2\nquorum g");
    let none = policy("quorum none");
    assert!(any.has_quorum() && !none.has_quorum());
    assert!(none.quorum_met(&checkpoint) && !any.quorum_met(&checkpoint));
    for by in [0, 1] {
        assert!(any.quorum_met(&cosigned(&[by], TIME)) && !all.quorum_met(&cosigned(&[by], TIME)));
        assert!(!any.quorum_met(&cosigned(&[by], 0)), "without time nothing is said about later checkpoints");
    }
    assert!(all.quorum_met(&cosigned(&[1, 0], TIME)));
    // A cosignature of something else beside a good one spoils it: whoever gathers must look first.
    let of_another = Checkpoint::new(ORIGIN, 2, leaf_hash(b"a"));
    let forged = cosigners()[0].cosign(&of_another, TIME).unwrap();
    let spoilt = cosigned(&[1], TIME).with_cosignatures([forged]).unwrap();
    assert!(!any.quorum_met(&spoilt));

    let url_of_other_bytes = [text.trim_end().as_bytes(), b" \xff\nquorum none\n"].concat();
    let policy = Policy::parse(&url_of_other_bytes).unwrap();
    assert_eq!(policy.witnesses().last().unwrap(), (&w2, None));
    let two_urls = format!("{} a b\nquorum none\n", text.trim_end());
    assert!(Policy::parse(two_urls.as_bytes()).is_err());
}

/// What another log says of a checkpoint neither carries it nor stands in its way.
#[test]
fn another_log_may_sign_a_checkpoint_as_well() {
    let other = Signer::new("log.example/other", &[44; 32]).unwrap().with_ml_dsa_44(&[45; 32]);
    let keys = [other.verifier_key(), signer().verifier_key(), other.ml_dsa_44_key().unwrap()];
    let text = format!("{}extension\n", checkpoint().checkpoint());
    let ed25519 = other.sign(&text);
    let ml_dsa_44 = CosignerKey::ml_dsa_44("log.example/other", &[45; 32]).unwrap();
    let ml_dsa_44 = ml_dsa_44.cosign(&Checkpoint::parse(&text).unwrap(), 0).unwrap();
    let line = ed25519.rsplit_once("\n\n").unwrap().1;
    let both = format!("{}{line}{ml_dsa_44}\n", signer().sign(&text));
    let alone = format!("{text}\n{line}{ml_dsa_44}\n");
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let [first, second, third] = order.map(|key: usize| &keys[key]);
        let policy = format!("log {first}\nlog {second}\nlog {third}\nquorum none\n");
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let verified = policy.verify_checkpoint(both.as_bytes()).unwrap();
        assert_eq!((verified.origin(), verified.note()), (ORIGIN, both.as_str()));
        let refused = policy.verify_checkpoint(alone.as_bytes()).unwrap_err();
        assert_eq!(refused, PolicyViolation::Checkpoint(CheckpointError::OtherOrigin));
        // A bad signature of a trusted key still refuses the note.
        let swapped = both.replace("extension", "extended");
        let torn = format!("{}{line}", signer().sign(&text.replace("extension", "extended")));
        for torn in [swapped, torn] {
            let refused = policy.verify_checkpoint(torn.as_bytes()).unwrap_err();
            assert_eq!(refused, PolicyViolation::Checkpoint(NoteError::BadSignature.into()), "{torn}");
        }
    }
}

#[test]
fn answers_of_witnesses() {
    let lines = cosigners().map(|key| key.cosign(checkpoint().checkpoint(), TIME).unwrap());
    let body = write_cosignatures(&lines);
    assert_eq!(parse_cosignatures(body.as_bytes()).unwrap(), lines);
    for (bad, error) in [
        (String::new(), NoteError::Malformed),
        ("\n".to_owned(), NoteError::Malformed),
        (body.trim_end().to_owned(), NoteError::Malformed),
        (format!("\n{body}"), NoteError::Malformed),
        (format!("{body}\n"), NoteError::Malformed),
        (body.replace('—', "-"), NoteError::Malformed),
        (body.repeat(MAX_SIGNATURES), NoteError::TooLong),
        (format!("{}\n", lines[0]).repeat(MAX_SIGNATURES + 1), NoteError::TooLong),
    ] {
        assert_eq!(parse_cosignatures(bad.as_bytes()), Err(error));
    }
    assert_eq!(parse_cosignatures(b"\xff\n"), Err(NoteError::Malformed));

    assert_eq!(write_size(20_852_014), "20852014\n");
    assert_eq!(parse_size(b"18446744073709551615\n"), Some(u64::MAX));
    for bad in [&b""[..], b"\n", b"1", b"01\n", b"+1\n", b"1\n\n", b"1\r\n", b"18446744073709551616\n", b"\xff\n"] {
        assert_eq!(parse_size(bad), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is cosigned verifies, and nothing beside it does.
    #[test]
    fn cosignatures_hold(
        seed in any::<[u8; 32]>(),
        origin in "[a-z./]{1,255}",
        size in 1u64..,
        time in 0..=u64::MAX >> 1,
        root in any::<[u8; 32]>(),
    ) {
        let checkpoint = Checkpoint::new(&origin, size, Hash::new(root));
        let other = Checkpoint::new(&origin, size ^ 1, Hash::new(root));
        for key in [CosignerKey::ed25519("w", &seed).unwrap(), CosignerKey::ml_dsa_44("w", &seed).unwrap()] {
            let line = key.cosign(&checkpoint, time).unwrap();
            prop_assert_eq!(SignatureLine::parse(&line.to_string()), Ok(line.clone()));
            prop_assert_eq!(line.verify_cosignature(&key.verifier_key(), &checkpoint), Ok(time));
            prop_assert_eq!(line.verify_cosignature(&key.verifier_key(), &other), Err(NoteError::BadSignature));
        }
    }

    /// No bytes make a parser of keys or signatures panic.
    #[test]
    fn hostile_signatures_are_only_refused(
        mut body in prop::collection::vec(any::<u8>(), 2420..=2420),
        n_good in prop_oneof![Just(0usize), 0usize..2400],
    ) {
        let key = CosignerKey::ml_dsa_44("w", &[1; 32]).unwrap();
        let good = key.cosign(checkpoint().checkpoint(), TIME).unwrap();
        // A good signature up to some place gets further than the decoder.
        body[..n_good].copy_from_slice(&good.body()[8..8 + n_good]);
        let hostile = VerifierKey::new("w", KeyType::MlDsa44, &body[..1312]).unwrap();
        let line = good.to_string();
        let (name, _) = line.rsplit_once(' ').unwrap();
        let id = key.verifier_key().id().to_be_bytes();
        let encoded = STANDARD.encode([id.as_slice(), &TIME.to_be_bytes(), &body].concat());
        let damaged = SignatureLine::parse(&format!("{name} {encoded}")).unwrap();
        prop_assert_eq!(damaged.verify_cosignature(&key.verifier_key(), checkpoint().checkpoint()), Err(NoteError::BadSignature));
        prop_assert!(good.verify_cosignature(&hostile, checkpoint().checkpoint()).is_err());
    }
}
