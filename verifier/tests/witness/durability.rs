//! A store shows what it is writing before a crash can no longer take it back; the witness tells nobody of it until then.

use std::sync::Arc;

use fanlight_auditlog::Checkpoint;
use fanlight_auditlog::note::Note;
use fanlight_verifier::witness::{Answer, AnswerError, MAX_WAITING, WitnessState};
use tempfile::TempDir;

use crate::faulty::{Faulty, GATE};
use crate::running::{NOW, ORIGIN, hash, times, witness};
use crate::tree::Tree;

fn start(tree: &Tree) -> (TempDir, Faulty, Arc<WitnessState<Faulty>>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Faulty::new(&dir);
    let state = Arc::new(WitnessState::new(witness([tree.key()]), store.clone()));
    (dir, store, state)
}

async fn add(state: &WitnessState<Faulty>, request: String) -> Result<String, AnswerError> {
    state.add_checkpoint(request.as_bytes(), || NOW).await
}

/// The size of the checkpoint that is served.
async fn served(state: &WitnessState<Faulty>) -> Result<Option<u64>, AnswerError> {
    let size = |note: String| {
        let note = Note::parse(note.as_bytes()).expect("a signed note");
        Checkpoint::parse(note.text()).expect("a checkpoint").tree_size()
    };
    Ok(state.checkpoint(&hash(ORIGIN)).await?.map(size))
}

#[tokio::test]
async fn what_is_visible_is_not_told_before_it_is_durable() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let (_dir, store, state) = start(&tree);
    add(&state, tree.request(0, 5)).await.unwrap();
    store.visible.notified().await;
    let unsynced = store.sync_gate.acquire_many(u32::try_from(GATE).unwrap()).await.unwrap();
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let spawn = |request: String| {
        let (state, sender) = (Arc::clone(&state), sender.clone());
        tokio::spawn(async move {
            let answer = add(&state, request).await;
            sender.send(answer.map_or_else(|error| Answer::from(&error), Answer::ok)).unwrap();
        });
    };
    spawn(tree.request(5, 9));
    store.visible.notified().await;
    assert_eq!(state.record(ORIGIN).await.unwrap().unwrap().tree_size(), 9);
    assert_eq!(served(&state).await.unwrap(), Some(5));
    // Where to go on from is no secret.
    let refused = add(&state, tree.request(5, 9)).await.unwrap_err();
    assert_eq!(Answer::from(&refused).body, "9\n");
    // Of those who want the very same cosignatures, every one waits for the write, or is told that too many do.
    for _ in 0..MAX_WAITING {
        spawn(tree.request(9, 9));
    }
    let first = answers.recv().await.unwrap();
    assert_eq!((first.status, first.body.as_str()), (503, "too many requests for this log at once\n"));
    drop(unsynced);
    for _ in 0..MAX_WAITING {
        let answer = answers.recv().await.unwrap();
        assert_eq!((answer.status, times(&tree.note(9), &answer.body)), (200, vec![NOW; 2]));
    }
    assert_eq!((served(&state).await.unwrap(), store.n_writes()), (Some(9), 2));
}

#[tokio::test]
async fn what_a_failed_write_left_is_not_told_before_it_is_written_again() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let (_dir, store, state) = start(&tree);
    add(&state, tree.request(0, 5)).await.unwrap();
    store.fail_next(true);
    assert!(matches!(add(&state, tree.request(5, 9)).await, Err(AnswerError::NotRecorded(_))));
    assert_eq!(state.record(ORIGIN).await.unwrap().unwrap().tree_size(), 9);
    assert_eq!(served(&state).await.unwrap(), Some(5));
    // The same second and checkpoint, which needs no write once the record is durable.
    for with_effect in [false, true] {
        store.fail_next(with_effect);
        assert!(matches!(add(&state, tree.request(9, 9)).await, Err(AnswerError::NotRecorded(_))));
        assert_eq!(served(&state).await.unwrap(), Some(5));
    }
    let before = store.n_writes();
    for _ in 0..3 {
        let lines = add(&state, tree.request(9, 9)).await.unwrap();
        assert_eq!(times(&tree.note(9), &lines), [NOW; 2]);
        assert_eq!((served(&state).await.unwrap(), store.n_writes()), (Some(9), before + 1));
    }
}

#[tokio::test]
async fn what_an_earlier_process_left_is_not_told_before_it_is_written_again() {
    let tree = Tree::new(ORIGIN, 1, 9);
    let (_dir, store, state) = start(&tree);
    let restarted = || WitnessState::new(witness([tree.key()]), store.clone());
    assert_eq!(served(&state).await.unwrap(), None);
    let first = add(&state, tree.request(0, 5)).await.unwrap();
    store.fail_next(true);
    add(&state, tree.request(5, 9)).await.unwrap_err();

    let state = restarted();
    store.fail_next(false);
    assert!(matches!(served(&state).await, Err(AnswerError::NotRecorded(_))));
    let before = store.n_writes();
    for _ in 0..3 {
        assert_eq!((served(&state).await.unwrap(), store.n_writes()), (Some(9), before + 1));
    }
    let lines = add(&state, tree.request(9, 9)).await.unwrap();
    assert_eq!((times(&tree.note(9), &lines), store.n_writes()), (vec![NOW; 2], before + 1));
    assert_ne!(lines, first);

    let state = restarted();
    store.fail_next(false);
    assert!(matches!(add(&state, tree.request(9, 9)).await, Err(AnswerError::NotRecorded(_))));
    assert_eq!(add(&state, tree.request(9, 9)).await.unwrap(), lines);
    assert_eq!((served(&state).await.unwrap(), store.n_writes()), (Some(9), before + 2));
}
