//! Every status, in the order of the specification.

use fanlight_auditlog::Hash;
use fanlight_verifier::witness::Answer;

use crate::running::{NOW, ORIGIN, Running, bad_line, hash, with_bad_signature};
use crate::tree::{Tree, request};

/// Each case has several faults where it can: the first that the specification names must decide.
#[tokio::test]
async fn every_status_in_the_order_of_the_specification() {
    const RECORDED: usize = 20;
    let tree = Tree::new(ORIGIN, 1, 40);
    let stranger = Tree::new("log.example/stranger", 1, 40);
    let impostor = Tree::new(ORIGIN, 2, 40);
    let fork = tree.forked(10, 9);
    let junk = Hash::new([7; 32]);
    let sign = |text: &str| tree.signer().sign(text);
    let malformed = |origin: &str| format!("{origin}\n40\nno root\n");
    let empty_with_root = sign(&format!("{ORIGIN}\n0\n{junk}\n"));
    let good_proof = tree.proof(RECORDED, 40);
    let with_proof = |proof: &[Hash]| request(RECORDED, proof, &tree.note(40));
    let cases: Vec<(&str, String, u16)> = vec![
        ("unknown log, signed by nobody, sizes reversed", request(50, &[], &stranger.note(40)), 404),
        (
            "unknown log, malformed checkpoint",
            format!("old 50\n\n{}", stranger.signer().sign(&malformed(stranger.origin()))),
            404,
        ),
        ("unknown log, signed by a known one", format!("old {RECORDED}\n\n{}", sign("hello\n")), 404),
        ("another log's key, malformed checkpoint", format!("old 50\n\n{}", impostor.signer().sign(&malformed(ORIGIN))), 403),
        ("bad signature, malformed checkpoint", format!("old 50\n\n{}", with_bad_signature(&sign(&malformed(ORIGIN)))), 403),
        ("another log's key, sizes reversed", request(50, &[], &impostor.note(40)), 403),
        ("bad signature, sizes reversed", request(50, &[], &with_bad_signature(&tree.note(40))), 403),
        ("bad signature beside a good one", tree.request(RECORDED, 40) + &bad_line(&tree, 40), 403),
        ("bad signature, other old size", request(3, &[], &with_bad_signature(&tree.note(40))), 403),
        ("old size above the checkpoint's, other old size", request(41, &[junk], &tree.note(40)), 400),
        ("other old size, bad proof", request(3, &[junk], &tree.note(40)), 409),
        ("other old size, other tree", request(0, &[], &fork.note(40)), 409),
        ("older checkpoint replayed", tree.request(0, 10), 409),
        ("empty tree with another root, other old size", request(0, &[], &empty_with_root), 409),
        ("same size, other tree", request(RECORDED, &[], &fork.note(RECORDED)), 422),
        ("same size, other tree, junk", request(RECORDED, &[junk], &fork.note(RECORDED)), 422),
        ("same size, junk", request(RECORDED, &[junk], &tree.note(RECORDED)), 422),
        ("larger tree of a fork, with the fork's proof", request(RECORDED, &fork.proof(RECORDED, 40), &fork.note(40)), 422),
        ("no proof", with_proof(&[]), 422),
        ("proof cut short", with_proof(&good_proof[..good_proof.len() - 1]), 422),
        ("proof with junk after it", with_proof(&[good_proof.as_slice(), &[junk]].concat()), 422),
        ("proof with junk before it", with_proof(&[&[junk], good_proof.as_slice()].concat()), 422),
        ("proof of 63 hashes", with_proof(&[junk; 63]), 422),
        ("proof of 64 hashes", with_proof(&[junk; 64]), 400),
        ("no old size", format!("\n{}", tree.note(40)), 400),
        ("old size with a leading zero", tree.request(RECORDED, 40).replacen("old 20", "old 020", 1), 400),
        ("old size beyond 64 bits", tree.request(RECORDED, 40).replacen("old 20", "old 18446744073709551636", 1), 400),
        ("proof that is not base64", tree.request(RECORDED, 40).replacen('=', "!", 1), 400),
        ("no signature", format!("old {RECORDED}\n\n{}", tree.text(40)), 400),
        ("malformed checkpoint, other old size", format!("old 3\n\n{}", sign(&malformed(ORIGIN))), 400),
        ("no more than an origin", format!("old {RECORDED}\n\n{}", sign(&format!("{ORIGIN}\n"))), 400),
        ("carriage returns", tree.request(RECORDED, 40).replace('\n', "\r\n"), 400),
        ("nothing", String::new(), 400),
        ("everything in order", tree.request(RECORDED, RECORDED), 200),
    ];
    let running = Running::new([tree.key()]);
    assert_eq!(running.status(tree.request(0, RECORDED)).await, 200);
    running.set_clock(NOW + 1);
    for (name, request, expected) in cases {
        let before = std::fs::read(running.file("checkpoint")).unwrap();
        let Answer { status, content_type, body } = running.add(&request).await;
        assert_eq!(status, expected, "{name}: {body}");
        assert_eq!(status == 200, before != std::fs::read(running.file("checkpoint")).unwrap(), "{name}");
        match status {
            409 => assert_eq!((content_type, body.as_str()), ("text/x.tlog.size", "20\n"), "{name}"),
            _ => assert_eq!((content_type, body.is_empty()), ("text/plain; charset=utf-8", false), "{name}"),
        }
    }

    let running = Running::new([tree.key()]);
    let first: Vec<(&str, String, u16)> = vec![
        ("never cosigned, other old size", tree.request(3, 40), 409),
        ("from nothing with a proof", request(0, &[junk], &tree.note(40)), 422),
        ("empty tree with another root", request(0, &[], &empty_with_root), 422),
        ("empty tree with a proof", request(0, &[junk], &tree.note(0)), 422),
        ("empty tree", tree.request(0, 0), 200),
        ("from the empty tree with a proof", request(0, &[junk], &tree.note(40)), 422),
        ("from the empty tree", tree.request(0, 40), 200),
    ];
    for (name, request, expected) in first {
        let answer = running.add(&request).await;
        assert_eq!(answer.status, expected, "{name}: {answer:?}");
        if expected == 409 {
            assert_eq!(answer.body, "0\n");
        }
    }
}

#[tokio::test]
async fn a_log_that_is_not_known_is_not_monitored() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let running = Running::new([tree.key()]);
    let hash = hash(ORIGIN);
    assert_eq!(running.state.checkpoint(&hash).await.unwrap(), None);
    assert_eq!(running.status(tree.request(0, 5)).await, 200);
    assert!(running.state.checkpoint(&hash).await.unwrap().is_some());
    for path in ["private", "../private", &hash.to_uppercase(), &hash[..63], ""] {
        assert_eq!(running.state.checkpoint(path).await.unwrap(), None, "{path}");
    }
}
