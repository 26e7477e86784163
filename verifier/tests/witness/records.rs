//! What a witness remembers: through restarts, failing disks, damage and forks.

use std::sync::Arc;

use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_verifier::witness::{Answer, AnswerError, MAX_WAITING, Refusal, WitnessState};

use crate::faulty::{Faulty, GATE};
use crate::running::{NOW, ORIGIN, Running, hash, witness};
use crate::tree::{Tree, request};

#[tokio::test]
async fn no_cosignature_leaves_before_its_record_is_written() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let fork = tree.forked(3, 9);
    let dir = tempfile::tempdir().unwrap();
    let store = Faulty::new(&dir);
    let state = WitnessState::new(witness([tree.key()]), store.clone());
    let add = async |request: String| state.add_checkpoint(request.as_bytes(), || NOW).await;
    add(tree.request(0, 3)).await.unwrap();

    store.fail_next(false);
    assert!(matches!(add(tree.request(3, 6)).await, Err(AnswerError::NotRecorded(_))));
    // Nothing was recorded, nothing was told: the log may still go anywhere.
    add(fork.request(3, 5)).await.unwrap();

    store.fail_next(true);
    let error = add(fork.request(5, 7)).await.unwrap_err();
    assert_eq!(Answer::from(&error).status, 503);
    // It was recorded, and from then on it counts.
    let refused = add(tree.request(5, 8)).await.unwrap_err();
    assert!(matches!(refused, AnswerError::Refused(Refusal::OtherOldSize { recorded: 7 })), "{refused}");
    add(fork.request(7, 9)).await.unwrap();
    // A fork stays one where there is no room to keep the evidence.
    store.fail_next(false);
    let error = add(request(9, &[], &tree.note(9))).await.unwrap_err();
    assert!(matches!(error, AnswerError::Fork { source: Some(_), .. }), "{error}");
    assert_eq!(Answer::from(&error).status, 422);
}

/// A log that asks faster than the disk writes is told to come back, and others are not held up.
#[tokio::test]
async fn of_a_log_only_so_many_requests_wait() {
    const BEYOND: usize = 8;
    let tree = Tree::new(ORIGIN, 1, 9);
    let dir = tempfile::tempdir().unwrap();
    let store = Faulty::new(&dir);
    let gate = Arc::clone(&store.gate);
    let state = Arc::new(WitnessState::new(witness([tree.key()]), store));
    let closed = gate.acquire_many(u32::try_from(GATE).unwrap()).await.unwrap();
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..MAX_WAITING + BEYOND {
        let (state, sender, request) = (Arc::clone(&state), sender.clone(), tree.request(0, 5));
        tokio::spawn(async move {
            let answer = state.add_checkpoint(request.as_bytes(), || NOW).await;
            sender.send(answer.map_or_else(|error| Answer::from(&error), Answer::ok)).unwrap();
        });
    }
    for _ in 0..BEYOND {
        let refused = answers.recv().await.unwrap();
        assert_eq!((refused.status, refused.body.as_str()), (503, "too many requests for this log at once\n"));
    }
    // Reading goes on meanwhile.
    assert_eq!(state.checkpoint(&hash(ORIGIN)).await.unwrap(), None);
    drop(closed);
    let mut statuses = Vec::new();
    for _ in 0..MAX_WAITING {
        statuses.push(answers.recv().await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, [409; MAX_WAITING - 1].as_slice()));
}

#[tokio::test]
async fn a_fork_is_refused_after_a_restart_and_kept_as_evidence() {
    let tree = Tree::new(ORIGIN, 1, 30);
    let fork = tree.forked(20, 9);
    let running = Running::new([tree.key()]);
    assert_eq!(running.status(tree.request(0, 25)).await, 200);
    let running = running.restarted([tree.key()]);
    let error = running.try_add(request(25, &[], &fork.note(25))).await.unwrap_err();
    assert!(matches!(&error, AnswerError::Fork { origin, source: None, .. } if origin == ORIGIN), "{error}");
    assert_eq!(running.status(request(25, &fork.proof(25, 30), &fork.note(30))).await, 422);
    // Whoever has the log's key needs nothing else to see that it lied.
    let evidence = std::fs::read_to_string(running.file("fork")).unwrap();
    let (first, second) = evidence.split_once(&format!("\n\n{ORIGIN}\n")).unwrap();
    let [first, second] = [format!("{first}\n"), format!("{ORIGIN}\n{second}")]
        .map(|note| VerifiedCheckpoint::verify(note.as_bytes(), &tree.key()).unwrap());
    assert_eq!((first.tree_size(), second.tree_size()), (25, 25));
    assert_ne!(first.root_hash(), second.root_hash());
    // One piece of evidence is enough, however often a log lies.
    let other = tree.forked(10, 3);
    assert_eq!(running.status(request(25, &[], &other.note(25))).await, 422);
    assert_eq!(std::fs::read_to_string(running.file("fork")).unwrap(), evidence);
    assert_eq!(running.status(tree.request(25, 30)).await, 200);
}

/// Whatever happens to the file of a record, it never reads as an older one, or as none.
#[tokio::test]
async fn a_damaged_record_stops_its_log_and_no_other() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let other = Tree::new("log.example/other", 2, 9);
    let running = Running::new([tree.key(), other.key()]);
    assert_eq!((running.status(tree.request(0, 5)).await, running.status(other.request(0, 5)).await), (200, 200));
    let path = running.file("checkpoint");
    let good = std::fs::read(&path).unwrap();
    let record = running.state.record(ORIGIN).await.unwrap().unwrap();
    let mut refused = 0;
    for position in (0..good.len()).filter(|position| position % 16 == 0 || *position < 300) {
        let mut bytes = good.clone();
        bytes[position] ^= 1 << (position % 7);
        std::fs::write(&path, &bytes).unwrap();
        match running.state.record(ORIGIN).await {
            Ok(read) => {
                // Only a signature that is not the witness's own can have changed.
                let read = read.expect("a file is never no record");
                assert_eq!((read.tree_size(), read.root_hash(), read.time()), (5, record.root_hash(), NOW), "{position}");
            }
            Err(AnswerError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("{position}: {error}"),
        }
    }
    assert!(refused > 300, "{refused}");
    for bytes in [&good[..0], &good[..1], &good[..good.len() / 2], &good[..good.len() - 1], &[0; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = running.try_add(tree.request(0, 5)).await.unwrap_err();
        assert!(error.to_string().contains("log.example/test") && error.to_string().contains("replace it by"), "{error}");
        assert_eq!(Answer::from(&error).status, 500);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is repaired by guessing");
    }
    // The record of another log in this one's place, and a checkpoint that nobody cosigned.
    std::fs::copy(running.dir.path().join(hash("log.example/other")).join("checkpoint"), &path).unwrap();
    assert_eq!(running.status(tree.request(0, 5)).await, 500);
    std::fs::write(&path, tree.note(2)).unwrap();
    assert_eq!(running.status(tree.request(2, 5)).await, 500);
    assert_eq!(running.status(other.request(5, 6)).await, 200);

    // What a log publishes has the cosignature among others, and takes the record's place.
    let noise = Tree::new("elsewhere.example", 7, 0).signer().sign(&tree.text(5));
    let published = String::from_utf8(good).unwrap() + noise.rsplit_once("\n\n").unwrap().1;
    std::fs::write(&path, published).unwrap();
    assert_eq!(running.status(tree.request(5, 9)).await, 200);
}
