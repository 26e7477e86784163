//! What is cosigned: trees that grow, at which times, by which keys of the log.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::note::{KeyType, MAX_NOTE_LEN, MAX_SIGNATURES, Note};
use fanlight_auditlog::{Checkpoint, CosignerKey, VerifiedCheckpoint, VerifierKey};
use fanlight_verifier::witness::{Answer, AnswerError, EARLIEST_TIME, MAX_CLOCK_STEP, Refusal, Witness};
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey as _;

use crate::running::{NOW, ORIGIN, Running, bad_line, cosigners, hash, times};
use crate::tree::{Tree, request};

#[tokio::test]
async fn a_log_that_grows_is_cosigned_by_every_key() {
    let tree = Tree::new(ORIGIN, 1, 300);
    let running = Running::new([tree.key()]);
    let mut old = 0;
    for new in [0, 0, 1, 2, 3, 3, 7, 8, 255, 256, 257, 300] {
        running.clock.fetch_add(1, Ordering::SeqCst);
        let answer = running.add(tree.request(old, new)).await;
        assert_eq!((answer.status, answer.body.lines().count()), (200, 2), "{old} to {new}: {answer:?}");
        let now = running.clock.load(Ordering::SeqCst);
        assert_eq!(times(&tree.note(new), &answer.body), [now, now]);
        assert_eq!(running.size().await, Some(new as u64));
        old = new;
    }
    let served = running.state.checkpoint(&hash(tree.origin())).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(running.file("checkpoint")).unwrap(), served);
    VerifiedCheckpoint::verify(served.as_bytes(), &tree.key()).unwrap();
    assert_eq!(times(&served, "").len(), 2);
}

#[tokio::test]
async fn a_cosignature_is_fresh_and_never_older_than_the_last() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let running = Running::new([tree.key()]);
    let at = |time: u64, request: String| {
        running.set_clock(time);
        running.try_add(request)
    };
    let first = at(NOW, tree.request(0, 5)).await.unwrap();
    // The same second: nothing is written, so nobody can make the disk work by repeating what is public.
    let written = || std::fs::metadata(running.file("checkpoint")).unwrap().modified().unwrap();
    let before = written();
    assert_eq!(at(NOW, tree.request(5, 5)).await.unwrap(), first);
    assert_eq!(written(), before);
    let fresh = at(NOW + 7, tree.request(5, 5)).await.unwrap();
    assert_eq!(times(&tree.note(5), &fresh), [NOW + 7; 2]);

    // Back a little: the time stands still.
    for (time, new) in [(NOW + 6, 6), (NOW + 7 - MAX_CLOCK_STEP, 7)] {
        let lines = at(time, tree.request(new - 1, new)).await.unwrap();
        assert_eq!(times(&tree.note(new), &lines), [NOW + 7; 2]);
    }
    // Back too far, or never set: no cosignature, and the record stays.
    for time in [NOW + 6 - MAX_CLOCK_STEP, EARLIEST_TIME - 1, 1, 0] {
        let refused = at(time, tree.request(7, 8)).await.unwrap_err();
        assert!(matches!(refused, AnswerError::Refused(Refusal::Clock { .. })), "{refused}");
        let Answer { status, body, .. } = Answer::from(&refused);
        assert!(status == 503 && body.contains("set the clock right") && body.contains("new keys"), "{body}");
        assert_eq!(running.size().await, Some(7));
    }
    let refused = at(u64::MAX, tree.request(7, 8)).await.unwrap_err();
    assert!(matches!(refused, AnswerError::Refused(Refusal::NotCosignable(_))), "{refused}");
    assert_eq!(times(&tree.note(8), &at(NOW + 8, tree.request(7, 8)).await.unwrap()), [NOW + 8; 2]);

    // A restart remembers the time as well.
    let running = running.restarted([tree.key()]);
    running.set_clock(NOW);
    assert_eq!(times(&tree.note(9), &running.try_add(tree.request(8, 9)).await.unwrap()), [NOW + 8; 2]);

    let unset = Running::new([tree.key()]);
    unset.set_clock(EARLIEST_TIME - 1);
    assert_eq!((unset.status(tree.request(0, 5)).await, unset.size().await), (503, None));
}

#[tokio::test]
async fn lines_after_the_root_are_signed_where_the_log_signed_them() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let post_quantum = CosignerKey::ml_dsa_44(ORIGIN, &[3; 32]).unwrap();
    let running = Running::new([tree.key(), post_quantum.verifier_key()]);
    let extended = tree.signer().sign(&format!("{}extension\n", tree.text(5)));
    let lines = running.add(request(0, &[], &extended)).await.body;
    assert_eq!(times(&extended, &lines).len(), 2);
    // Same size and root without them: the lines are no part of the tree.
    running.set_clock(NOW + 1);
    assert_eq!(running.status(tree.request(5, 5)).await, 200);

    // ML-DSA-44 signs no such line, so anybody may have added it.
    let line = |size: usize| post_quantum.cosign(&Checkpoint::parse(&tree.text(size)).unwrap(), 0).unwrap();
    let added = format!("{}added\n\n{}\n", tree.text(6), line(6));
    assert_eq!(running.status(request(5, &tree.proof(5, 6), &added)).await, 403);
    let plain = format!("{}\n{}\n", tree.text(6), line(6));
    assert_eq!(running.status(request(5, &tree.proof(5, 6), &plain)).await, 200);
}

/// Whatever a log signs, its record can be read again.
#[tokio::test]
async fn a_log_cannot_take_the_room_for_cosignatures() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let post_quantum = CosignerKey::ml_dsa_44(ORIGIN, &[3; 32]).unwrap();
    let running = Running::new([tree.key(), post_quantum.verifier_key()]);
    // As many good signatures of one key as fit.
    let checkpoint = Checkpoint::parse(&tree.text(5)).unwrap();
    let lines: String =
        (1..MAX_SIGNATURES as u64).map(|time| post_quantum.cosign(&checkpoint, time).unwrap().to_string() + "\n").collect();
    let note = tree.note(5) + &lines;
    assert_eq!(running.status(request(0, &[], &note)).await, 200);
    let served = running.state.checkpoint(&hash(ORIGIN)).await.unwrap().unwrap();
    assert_eq!(Note::parse(served.as_bytes()).unwrap().signatures().len(), 4);
    assert_eq!(running.status(tree.request(5, 6)).await, 200);

    // Lines after the root that leave room for one signature.
    let extension = "x".repeat(MAX_NOTE_LEN - 200 - tree.text(7).len());
    let note = tree.signer().sign(&format!("{}{extension}\n", tree.text(7)));
    assert!(Note::parse(note.as_bytes()).is_ok());
    let error = running.try_add(request(6, &tree.proof(6, 7), &note)).await.unwrap_err();
    assert!(matches!(error, AnswerError::Refused(Refusal::TooLong)), "{error}");
    assert_eq!((Answer::from(&error).status, running.size().await), (400, Some(6)));
    assert_eq!(running.status(tree.request(6, 7)).await, 200);
}

#[tokio::test]
async fn a_log_may_sign_with_keys_of_several_kinds() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let ecdsa = p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap();
    let spki = ecdsa.verifying_key().to_public_key_der().unwrap();
    let ecdsa_key = VerifierKey::new(ORIGIN, KeyType::EcdsaP256, spki.as_bytes()).unwrap();
    let rotated = Tree::new(ORIGIN, 2, 9);
    let running = Running::new([tree.key(), rotated.key(), ecdsa_key.clone()]);

    assert_eq!(running.status(tree.request(0, 1)).await, 200);
    assert_eq!(running.status(rotated.request(1, 2)).await, 200);
    let signature: p256::ecdsa::DerSignature = ecdsa.sign(tree.text(3).as_bytes());
    let body = [ecdsa_key.id().to_be_bytes().as_slice(), signature.as_bytes()].concat();
    let line = format!("— {ORIGIN} {}\n", STANDARD.encode(body));
    let both = format!("{}{line}", tree.note(3));
    assert_eq!(running.status(request(2, &tree.proof(2, 3), &format!("{}\n{line}", tree.text(3)))).await, 200);
    // What the witness verified is served, and nothing else.
    running.set_clock(NOW + 1);
    let noise = Tree::new("elsewhere.example", 7, 0).signer().sign(&tree.text(3));
    let noise = noise.rsplit_once("\n\n").unwrap().1;
    assert_eq!(running.status(request(3, &[], &format!("{both}{noise}"))).await, 200);
    let served = std::fs::read_to_string(running.file("checkpoint")).unwrap();
    assert!(served.starts_with(&both) && !served.contains("elsewhere.example"), "{served}");

    // A bad signature of one key refuses the note, whatever the others say.
    let torn = tree.note(4) + &bad_line(&rotated, 4);
    let error = running.try_add(request(3, &tree.proof(3, 4), &torn)).await.unwrap_err();
    assert!(matches!(error, AnswerError::Refused(Refusal::BadSignature)), "{error}");
    // A key that was taken out of use.
    let running = running.restarted([rotated.key()]);
    assert_eq!(running.status(tree.request(3, 4)).await, 403);
    assert_eq!(running.status(rotated.request(3, 4)).await, 200);
    let witness_key = cosigners().remove(1).verifier_key();
    assert!(Witness::new(cosigners(), [witness_key]).is_err(), "0x04 is no key of a log");
    assert!(Witness::new(Vec::new(), [tree.key()]).is_err());
}
