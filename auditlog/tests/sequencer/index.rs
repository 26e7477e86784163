//! The index of leaves: what it is for, and what is done about one that is wrong.

use fanlight_auditlog::{Config, Log, TokioTimer, create, leaf_hash};
use tokio::time::Duration;

use crate::support::{MemoryStore, Running, check, check_log, config, entries, logged, signer};

/// A closed log of 700 entries.
async fn log_of_700() -> MemoryStore {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("old", 700)).await;
    running.close().await;
    store
}

#[tokio::test(start_paused = true)]
async fn appending_is_idempotent_across_restarts_whatever_is_remembered() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let small = || Config { recent_entries: 4, max_pool_entries: 64, ..config() };
    let all = entries("entry", 2000);
    for _ in 0..3 {
        let running = Running::open_with(&store, small()).await;
        for batch in all.chunks(60) {
            running.append_and_check(batch).await;
        }
        running.close().await;
        assert_eq!(logged(&store).await, all);
    }
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 2000);
}

#[tokio::test(start_paused = true)]
async fn old_entries_do_not_make_a_round() {
    let store = log_of_700().await;
    let rounds = |running: &Running| running.log.stats().rounds;
    let config = Config { max_delay: Duration::from_secs(1), ..config() };
    let running = Running::open_with(&store, config).await;
    running.append_and_check(&entries("old", 100)).await;
    assert_eq!((rounds(&running), running.log.stats().duplicates), (0, 100));
    // Old and new ones together: the new ones alone complete no tile, and wait.
    let start = tokio::time::Instant::now();
    let mut mixed = entries("old", 300);
    mixed.extend(entries("new", 50));
    running.append_and_check(&mixed).await;
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!((rounds(&running), running.log.stats().tree_size), (1, 750));
    running.close().await;
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_behind_catches_up() {
    let store = log_of_700().await;
    store.edit_index(|positions, indexed| {
        positions.retain(|_, position| *position < 300);
        *indexed = 300;
    });
    let running = Running::open(&store).await;
    assert_eq!(store.indexed_leaves(), 700);
    running.append_and_check(&entries("old", 700)).await;
    running.close().await;
    assert_eq!(logged(&store).await.len(), 700);
}

#[tokio::test(start_paused = true)]
async fn an_index_of_another_log_is_built_anew() {
    type Edit = fn(&mut std::collections::HashMap<fanlight_auditlog::Hash, u64>, &mut u64);
    let edits: [Edit; 4] = [
        |_, indexed| *indexed = 701,
        |positions, _| positions.clear(),
        |positions, _| positions.values_mut().for_each(|position| *position = 699 - *position),
        |positions, _| positions.values_mut().for_each(|position| *position = u64::MAX),
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let store = log_of_700().await;
        store.edit_index(edit);
        let running = Running::open(&store).await;
        assert_eq!(store.indexed_leaves(), 700, "edit {n}");
        running.append_and_check(&entries("old", 700)).await;
        running.close().await;
        assert_eq!(logged(&store).await.len(), 700, "edit {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lying_index_is_not_believed() {
    for lie in [0, 5, 699, 700, u64::MAX] {
        let store = log_of_700().await;
        let (log, sequencer) = Log::open(store.clone(), signer(), config()).await.unwrap();
        store.edit_index(|positions, _| *positions.get_mut(&leaf_hash(b"old 17")).unwrap() = lie);
        // It is found out by whom it concerns, and built anew before it does harm.
        assert_eq!(log.position(&leaf_hash(b"old 17")).await.unwrap(), None);
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        let appended = log.append("old 17".into()).await.unwrap();
        assert_eq!(appended.index, 17, "not {lie}");
        check(b"old 17", &appended);
        assert_eq!(log.position(&leaf_hash(b"old 17")).await.unwrap(), Some(17));
        store.edit_index(|positions, _| *positions.get_mut(&leaf_hash(b"old 18")).unwrap() = lie);
        assert_eq!(log.append("old 18".into()).await.unwrap().index, 18, "not {lie}");
        log.close().await;
        running.await.unwrap().unwrap();
        assert_eq!(logged(&store).await.len(), 700);
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_lies_again_once_it_is_built_anew_stops_rounds_and_not_the_machine() {
    let store = log_of_700().await;
    let running = Running::open(&store).await;
    store.lie_about(leaf_hash(b"old 17"), Some(18));
    let log = running.log.clone();
    let appended = tokio::spawn(async move { log.append("old 17".into()).await });
    tokio::time::sleep(Duration::from_mins(1)).await;
    let failed = running.log.stats().failed_rounds;
    assert!((5..20).contains(&failed), "{failed} attempts in a minute");
    store.lie_about(leaf_hash(b"old 17"), None);
    assert_eq!(appended.await.unwrap().unwrap().index, 17);
    running.close().await;
    assert_eq!(logged(&store).await.len(), 700);
}

#[tokio::test(start_paused = true)]
async fn positions_are_those_of_published_entries() {
    let store = log_of_700().await;
    let running = Running::open(&store).await;
    for (n, entry) in entries("old", 700).into_iter().enumerate() {
        assert_eq!(running.log.position(&leaf_hash(&entry)).await.unwrap(), Some(n as u64));
    }
    let leaf = leaf_hash(b"on its way");
    let append = running.log.append("on its way".into());
    let position = async {
        tokio::task::yield_now().await;
        running.log.position(&leaf).await.unwrap()
    };
    let (appended, before) = tokio::join!(append, position);
    assert_eq!((before, appended.unwrap().index), (None, 700));
    assert_eq!(running.log.position(&leaf).await.unwrap(), Some(700));
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_index_is_built_from_several_tiles_at_a_time() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("old", 4096)).await;
    running.close().await;
    let open = async |store: &MemoryStore| {
        store.slow_down(|| Duration::from_millis(100));
        let start = tokio::time::Instant::now();
        drop(Log::open(store.clone(), signer(), config()).await.unwrap());
        start.elapsed()
    };
    let without = open(&store.rival()).await;
    let with = open(&store.restarted()).await;
    // Not one after the other for each of sixteen tiles.
    assert!(without < with + Duration::from_millis(800), "{without:?}, {with:?}");
}
