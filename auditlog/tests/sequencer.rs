//! Rounds, what they answer, and what is left of them when the store fails or the process dies.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fanlight_auditlog::fsck::{FsckReport, fsck};
use fanlight_auditlog::sequencer::{CreateError, OpenError, SequencerError};
use fanlight_auditlog::{
    AppendError, Config, DirStore, Log, MAX_ENTRY_LEN, ObjectStore as _, Reader, Signer, TileSource, create,
};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use support::{Fault, MemoryStore, Running, check, config, entries, log_key, signer};

async fn check_log(source: &impl TileSource) -> FsckReport {
    fsck(source, &log_key(), |_| {}).await.unwrap()
}

async fn logged(store: &MemoryStore) -> Vec<Bytes> {
    let reader = Reader::latest(store, &log_key()).await.unwrap();
    reader.entries(0..u64::MAX).map_ok(|(_, entry)| entry).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_new_log_is_published_and_empty() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let report = check_log(&store).await;
    assert_eq!((report.checkpoint().tree_size(), report.n_tiles()), (0, 0));
    assert!(matches!(create(&store, &signer()).await, Err(CreateError::Exists)));
}

#[tokio::test]
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
    assert!(store.list("private/").await.unwrap().is_empty(), "nothing stays staged");
}

#[tokio::test]
async fn appending_is_idempotent() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    let entry = Bytes::from_static(b"the same");
    // In the pool or in the running round, and then among the remembered ones.
    let together = running.append_all(&vec![entry.clone(); 5]).await;
    running.log.append("another".into()).await.unwrap();
    let later = running.log.append(entry.clone()).await.unwrap();
    for appended in together.iter().flatten().chain([&later]) {
        check(&entry, appended);
        assert_eq!(appended.index, 0);
    }
    assert!(later.tlog_proof.checkpoint().contains("\n2\n"), "the proof is a fresh one");
    assert_eq!(running.log.stats().duplicates, 5);
    running.close().await;

    // The memory is refilled at the next start.
    let running = Running::open(&store).await;
    assert_eq!(running.log.append(entry.clone()).await.unwrap().index, 0);
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 2);
}

#[tokio::test]
async fn memory_of_old_entries_is_bounded() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let config = Config { remembered_entries: 2, ..config() };
    let (log, sequencer) = Log::open(store.clone(), signer(), config).await.unwrap();
    let running = tokio::spawn(sequencer.run(|_| tokio::task::yield_now()));
    for (entry, index) in [("a", 0), ("b", 1), ("c", 2), ("b", 1), ("a", 3)] {
        assert_eq!(log.append(entry.into()).await.unwrap().index, index, "{entry}");
    }
    log.close().await;
    running.await.unwrap().unwrap();
    check_log(&store).await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let config = Config { max_pool_entries: 3, max_pool_bytes: 100, ..config() };
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
    assert!(matches!(log.append("100 bytes would be passed".into()).await, Err(AppendError::Overloaded)));
    let third = append("3".into());
    while log.stats().pool_entries < 3 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(log.append("4".into()).await, Err(AppendError::Overloaded)));
    assert_eq!(log.stats().overloaded, 2);

    let running = tokio::spawn(sequencer.run(|_| tokio::task::yield_now()));
    for appended in [first, second, third] {
        appended.await.unwrap().unwrap();
    }
    log.append("4".into()).await.unwrap();
    log.close().await;
    running.await.unwrap().unwrap();
    assert!(matches!(log.append("5".into()).await, Err(AppendError::Stopped)));
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 4);
}

#[tokio::test]
async fn closing_finishes_the_round() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    let appends: Vec<_> = entries("late", 20)
        .into_iter()
        .map(|entry| {
            let log = running.log.clone();
            tokio::spawn(async move { log.append(entry).await })
        })
        .collect();
    while running.log.stats().appended + running.log.stats().pool_entries as u64 == 0 {
        tokio::task::yield_now().await;
    }
    running.close().await;
    let mut acknowledged = 0;
    for append in appends {
        match append.await.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(AppendError::Closing | AppendError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), acknowledged);
    assert!(acknowledged > 0);
}

#[tokio::test]
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

/// Runs two batches with `fault` at write `n` of the second; returns how many writes the second one made.
async fn with_fault(fault: Fault, n: usize) -> usize {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    // The second batch completes a tile, so that its round writes every kind of object.
    let first = entries("first", 200);
    let second = entries("second", 100);
    for appended in running.append_all(&first).await {
        appended.unwrap();
    }
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    store.on_write(move |_| if counted.fetch_add(1, Ordering::SeqCst) == n { fault } else { Fault::None });

    // A dying process has answered only those who heard by then.
    let mut acknowledged = Vec::new();
    let log = &running.log;
    let mut appends: FuturesUnordered<_> =
        second.iter().map(|entry| async move { (entry, log.append(entry.clone()).await) }).collect();
    while !appends.is_empty() {
        tokio::select! {
            biased;
            Some((entry, appended)) = appends.next() => acknowledged.extend(appended.ok().map(|appended| (entry, appended))),
            () = store.died() => break,
        }
    }
    while let Some(Some((entry, Ok(appended)))) = appends.next().now_or_never() {
        acknowledged.push((entry, appended));
    }
    drop(appends);
    running.sequencer.abort();
    let deadly = matches!(fault, Fault::Dead | Fault::DoneThenDead);
    assert!(deadly || acknowledged.len() == second.len(), "a passing fault is survived: {fault:?} at {n}");
    for (entry, appended) in &acknowledged {
        check(entry, appended);
    }

    let store = store.restarted();
    let running = Running::open(&store).await;
    check_log(&store).await;
    let entries = logged(&store).await;
    for (entry, appended) in acknowledged {
        assert_eq!(&entries[usize::try_from(appended.index).unwrap()], entry, "{fault:?} at {n}");
    }
    for (entry, appended) in second.iter().zip(running.append_all(&second).await) {
        check(entry, &appended.unwrap());
    }
    running.close().await;
    check_log(&store).await;
    let entries = logged(&store).await;
    assert_eq!(entries.len(), 300, "every entry once: {fault:?} at {n}");
    assert_eq!(entries.into_iter().collect::<HashSet<_>>(), first.into_iter().chain(second).collect());
    assert!(store.list("private/staging/").await.unwrap().is_empty());
    writes.load(Ordering::SeqCst)
}

#[tokio::test]
async fn no_fault_at_any_write_loses_or_doubles_an_entry() {
    for fault in [Fault::NotDone, Fault::Done, Fault::Dead, Fault::DoneThenDead] {
        let mut n = 0;
        while with_fault(fault, n).await > n {
            n += 1;
        }
        assert!(n >= 8, "staging, lock, five objects and the checkpoint: {n}");
    }
}

#[tokio::test]
async fn two_sequencers_on_one_store_never_fork() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let (one, two) = (Running::open(&store).await, Running::open(&store).await);
    let mut all = HashSet::new();
    for round in 0..20 {
        let (left, right) = (entries(&format!("left {round}"), 7), entries(&format!("right {round}"), 5));
        let (left_appended, right_appended) = tokio::join!(one.append_all(&left), two.append_all(&right));
        for (entry, appended) in left.iter().zip(left_appended).chain(right.iter().zip(right_appended)) {
            check(entry, &appended.unwrap());
        }
        all.extend(left);
        all.extend(right);
    }
    assert!(one.log.stats().failed_rounds + two.log.stats().failed_rounds > 0, "they did get in each other's way");
    one.close().await;
    two.close().await;

    // What both signed is one log.
    Running::open(&store).await.close().await;
    check_log(&store).await;
    let entries = logged(&store).await;
    assert_eq!(entries.len(), all.len());
    assert_eq!(entries.into_iter().collect::<HashSet<_>>(), all);
}

#[tokio::test]
async fn objects_of_another_history_stop_the_log() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    store.edit(|objects| {
        objects.insert("tile/0/000.p/1".to_owned(), vec![1; 32].into());
    });
    assert!(matches!(running.log.append("x".into()).await, Err(AppendError::Stopped)));
    let error = running.sequencer.await.unwrap().unwrap_err();
    assert!(matches!(error, SequencerError::Halted(OpenError::Split { .. })), "{error:?}");
    // Nor does it come back by itself.
    let error = Log::open(store, signer(), config()).await.unwrap_err();
    assert!(matches!(error, OpenError::Split { .. }), "{error:?}");
}

/// A closed log of two rounds.
async fn small_log() -> MemoryStore {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    for batch in [entries("a", 3), entries("b", 260)] {
        for appended in running.append_all(&batch).await {
            appended.unwrap();
        }
    }
    running.close().await;
    store
}

#[tokio::test]
async fn a_log_that_does_not_add_up_is_not_opened() {
    let good = small_log().await;
    let open = async |store: &MemoryStore| Log::open(store.clone(), signer(), config()).await.map(drop);
    open(&good).await.unwrap();

    let other_key = Signer::new(support::ORIGIN, &[43; 32]).unwrap();
    let error = Log::open(good.restarted(), other_key, config()).await.unwrap_err();
    assert!(matches!(error, OpenError::LockRefused(_)), "{error:?}");
    let error = open(&MemoryStore::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotCreated), "{error:?}");

    for path in ["tile/0/001.p/7", "tile/1/000.p/1", "tile/entries/001.p/7"] {
        let store = good.restarted();
        store.edit(|objects| assert!(objects.remove(path).is_some()));
        assert!(matches!(open(&store).await.unwrap_err(), OpenError::Read(_)), "{path} is missing");
        let store = good.restarted();
        store.edit(|objects| {
            let mut bytes = objects[path].to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            objects.insert(path.to_owned(), bytes.into());
        });
        assert!(matches!(open(&store).await.unwrap_err(), OpenError::Read(_)), "{path} is damaged");
    }

    // A lock from a backup would sign the same sizes a second time.
    let store = good.restarted();
    let old = store.restarted();
    let running = Running::open(&store).await;
    running.log.append("newer".into()).await.unwrap();
    running.close().await;
    old.edit(|objects| *objects = store.objects());
    let error = open(&old).await.unwrap_err();
    assert!(matches!(error, OpenError::LockBehind), "{error:?}");

    // A lost checkpoint is published again once everything below it is verified.
    let store = good.restarted();
    store.edit(|objects| assert!(objects.remove("checkpoint").is_some()));
    open(&store).await.unwrap();
    check_log(&store).await;
    let store = good.restarted();
    store.edit(|objects| {
        objects.remove("checkpoint");
        objects.remove("tile/entries/000");
    });
    assert!(matches!(open(&store).await.unwrap_err(), OpenError::StagingMissing));
}

#[tokio::test]
async fn fsck_notices_every_flipped_byte() {
    let store = small_log().await;
    let report = check_log(&store).await;
    assert_eq!((report.checkpoint().tree_size(), report.n_bundles(), report.n_tiles()), (263, 2, 3));
    // Partial tiles of earlier checkpoints are no part of the latest one.
    let published = ["checkpoint", "tile/0/000", "tile/0/001.p/7", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/7"];
    let mut n_bytes = 0;
    for path in published {
        let original = store.objects()[path].clone();
        // Of the two 8 KiB objects every 5th byte, which still meets every position of a hash.
        let step = if original.len() > 1000 { 5 } else { 1 };
        for position in (0..original.len()).step_by(step) {
            let mut damaged = original.to_vec();
            damaged[position] ^= 1;
            store.edit(|objects| {
                objects.insert(path.to_owned(), damaged.into());
            });
            assert!(fsck(&store, &log_key(), |_| {}).await.is_err(), "{path} at {position}");
            n_bytes += 1;
        }
        for damaged in [original.slice(1..), original.slice(..original.len() - 1), [&original[..], b"\0"].concat().into()] {
            store.edit(|objects| {
                objects.insert(path.to_owned(), damaged);
            });
            assert!(fsck(&store, &log_key(), |_| {}).await.is_err(), "{path} with another length");
        }
        store.edit(|objects| {
            objects.remove(path);
        });
        assert!(fsck(&store, &log_key(), |_| {}).await.is_err(), "{path} removed");
        store.edit(|objects| {
            objects.insert(path.to_owned(), original);
        });
    }
    assert!(n_bytes > 1000);
    check_log(&store).await;
}

#[tokio::test]
async fn a_store_without_preconditions_is_refused() {
    use fanlight_auditlog::store::{LockToken, Locked, ProbeError, PutNew, StoreError, Swap};
    use fanlight_auditlog::{Lock, ObjectStore};

    /// Takes every conditional write, as some object stores do.
    #[derive(Debug)]
    struct Careless(MemoryStore);
    impl TileSource for Careless {
        async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
            self.0.get(key).await
        }
    }
    impl ObjectStore for Careless {
        async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
            self.0.put(key, bytes).await.map(|()| PutNew::Created)
        }
        async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
            self.0.put(key, bytes).await
        }
        async fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.0.delete(key).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
            self.0.list(prefix).await
        }
    }
    impl Lock for Careless {
        async fn load(&self) -> Result<Option<Locked>, StoreError> {
            self.0.load().await
        }
        async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
            Lock::create(&self.0, bytes).await
        }
        async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
            self.0.swap(token, bytes).await
        }
    }
    let store = Careless(MemoryStore::default());
    create(&store, &signer()).await.unwrap();
    let error = Log::open(store, signer(), config()).await.unwrap_err();
    assert!(matches!(error, OpenError::Probe(ProbeError::PutNewIgnored)), "{error:?}");
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
        let running = tokio::spawn(sequencer.run(tokio::time::sleep));
        let entries = entries(&format!("round {round}"), 150);
        let appends = entries.iter().map(|entry| log.append(entry.clone()));
        for (entry, appended) in entries.iter().zip(futures_util::future::join_all(appends).await) {
            check(entry, &appended.unwrap());
        }
        log.close().await;
        running.await.unwrap().unwrap();
    }
    assert_eq!(check_log(&DirStore::open_reader(dir.path())).await.checkpoint().tree_size(), 450);
}
