//! What appending answers while nothing fails.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::sequencer::CreateError;
use fanlight_auditlog::{AppendError, Config, DirStore, Log, MAX_ENTRY_LEN, ObjectStore as _, TokioTimer, create, leaf_hash};

use crate::support::{MemoryStore, Running, check, check_log, config, entries, signer};

#[tokio::test(start_paused = true)]
async fn a_new_log_is_published_and_empty() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let report = check_log(&store).await;
    assert_eq!((report.checkpoint().tree_size(), report.n_tiles()), (0, 0));
    assert!(matches!(create(&store, &signer()).await, Err(CreateError::Exists)));
}

#[tokio::test(start_paused = true)]
async fn appended_entries_are_proven() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    // More than a tile, and the shortest and the longest entry.
    let mut entries = entries("entry", 600);
    entries.extend([Bytes::new(), vec![0; MAX_ENTRY_LEN].into()]);
    let appended = running.append_all(&entries).await;
    let indices: HashSet<u64> = entries
        .iter()
        .zip(appended)
        .map(|(entry, appended)| {
            let appended = appended.unwrap();
            check(entry, &appended);
            appended.index
        })
        .collect();
    assert_eq!(indices, (0..602).collect());
    let stats = running.log.stats();
    assert_eq!((stats.tree_size, stats.appended, stats.pool_entries, stats.pool_bytes), (602, 602, 0, 0));
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 602);
    let left = ["private/collected", "private/probe", "private/probe-swap"];
    assert_eq!(store.list("private/").await.unwrap(), left, "nothing stays staged");
}

#[tokio::test(start_paused = true)]
async fn appending_is_idempotent() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    let entry = Bytes::from_static(b"the same");
    // In the pool or in the running round, and then among the recent ones.
    let together = running.append_all(&vec![entry.clone(); 5]).await;
    running.log.append("another".into()).await.unwrap();
    let later = running.log.append(entry.clone()).await.unwrap();
    for appended in together.iter().flatten().chain([&later]) {
        check(&entry, appended);
        assert_eq!(appended.index, 0);
    }
    assert!(later.tlog_proof.checkpoint().contains("\n2\n"), "the proof is a fresh one");
    assert_eq!(running.log.stats().duplicates, 5);
    assert_eq!(running.log.position(&leaf_hash(b"another")).await.unwrap(), Some(1));
    running.close().await;

    // After a restart, only the index knows.
    let running = Running::open(&store).await;
    assert_eq!(running.log.position(&leaf_hash(b"another")).await.unwrap(), Some(1));
    assert_eq!(running.log.position(&leaf_hash(b"absent")).await.unwrap(), None);
    check(b"another", &running.log.prove(1).await.unwrap());
    assert_eq!(running.log.append(entry.clone()).await.unwrap().index, 0);
    assert_eq!(running.log.stats().duplicates, 1);
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let config = Config { max_pool_entries: 3, max_pool_bytes: 100, ..config() };
    let max_delay = config.max_delay;
    let (log, sequencer) = Log::open(store.clone(), signer(), config).await.unwrap();
    // The sequencer does not run yet, so that the pool fills.
    let append = |entry: Bytes| {
        let log = log.clone();
        tokio::spawn(async move { log.append(entry).await })
    };
    let first = append("first".into());
    let second = append(vec![0; 90].into());
    while log.stats().pool_entries < 2 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(log.append(vec![1; MAX_ENTRY_LEN + 1].into()).await, Err(AppendError::EntryTooLong)));
    match log.append("100 bytes would be passed".into()).await {
        Err(AppendError::Overloaded { retry_after }) => assert_eq!(retry_after, max_delay),
        other => panic!("{other:?}"),
    }
    let third = append("3".into());
    while log.stats().pool_entries < 3 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(log.append("4".into()).await, Err(AppendError::Overloaded { .. })));
    assert_eq!(log.stats().overloaded, 2);

    let running = tokio::spawn(sequencer.run(TokioTimer::new()));
    for appended in [first, second, third] {
        appended.await.unwrap().unwrap();
    }
    log.append("4".into()).await.unwrap();
    log.close().await;
    running.await.unwrap().unwrap();
    assert!(matches!(log.append("5".into()).await, Err(AppendError::Stopped)));
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 4);
}

#[tokio::test(start_paused = true)]
async fn closing_logs_what_waits_without_delay() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let config = Config { max_delay: Duration::from_hours(1), ..config() };
    let running = Running::open_with(&store, config).await;
    let appends: Vec<_> = entries("late", 20)
        .into_iter()
        .map(|entry| {
            let log = running.log.clone();
            tokio::spawn(async move { log.append(entry).await })
        })
        .collect();
    while running.log.stats().pool_entries < 20 {
        tokio::task::yield_now().await;
    }
    let start = tokio::time::Instant::now();
    running.close().await;
    assert!(start.elapsed() < Duration::from_secs(1));
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sequencer_leaves_nobody_waiting() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let (log, sequencer) = Log::open(store, signer(), config()).await.unwrap();
    let append = tokio::spawn({
        let log = log.clone();
        async move { log.append("unheard".into()).await }
    });
    while log.stats().pool_entries == 0 {
        tokio::task::yield_now().await;
    }
    drop(sequencer);
    assert!(matches!(append.await.unwrap(), Err(AppendError::Stopped)));
    log.close().await;
}

#[tokio::test]
async fn a_log_lives_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = DirStore::open_writer(dir.path()).unwrap();
        if round == 0 {
            create(&store, &signer()).await.unwrap();
        }
        let (log, sequencer) = Log::open(store, signer(), config()).await.unwrap();
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        let entries = entries(&format!("round {round}"), 150);
        let appends = entries.iter().map(|entry| log.append(entry.clone()));
        for (entry, appended) in entries.iter().zip(futures_util::future::join_all(appends).await) {
            check(entry, &appended.unwrap());
        }
        assert_eq!(log.append("round 0 7".into()).await.unwrap().index, 7);
        log.close().await;
        running.await.unwrap().unwrap();
    }
    assert_eq!(check_log(&DirStore::open_reader(dir.path())).await.checkpoint().tree_size(), 450);
}
