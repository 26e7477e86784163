//! One fault at a time, at every write that there is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanlight_auditlog::sequencer::SequencerError;
use fanlight_auditlog::{AppendError, Config, ObjectStore as _, TileSource as _, create};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::support::{Fault, MemoryStore, Running, check, check_log, config, entries, logged, signer};

/// Runs two batches with `fault` at write `n` of the second; returns how many writes the second one made.
async fn with_fault(fault: Fault, n: usize) -> usize {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    // The second batch completes a tile, so that its round writes every kind of object, and deletes partial ones.
    let first = entries("first", 200);
    let second = entries("second", 100);
    running.append_and_check(&first).await;
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
    // What comes after the answers has its time, too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let deadly = matches!(fault, Fault::Dead | Fault::DoneThenDead);
    if deadly {
        running.sequencer.abort();
    } else {
        assert_eq!(acknowledged.len(), second.len(), "a passing fault is survived: {fault:?} at {n}");
        running.close().await;
    }
    for (entry, appended) in &acknowledged {
        check(entry, appended);
    }

    let store = store.restarted();
    let running = Running::open(&store).await;
    let n_acknowledged = acknowledged.iter().map(|(_, appended)| appended.index + 1).max().unwrap_or(0);
    running.published(n_acknowledged).await;
    check_log(&store).await;
    let entries = logged(&store).await;
    for (entry, appended) in acknowledged {
        assert_eq!(&entries[usize::try_from(appended.index).unwrap()], entry, "{fault:?} at {n}");
    }
    running.append_and_check(&second).await;
    running.close().await;
    check_log(&store).await;
    let entries = logged(&store).await;
    assert_eq!(entries.len(), 300, "every entry once: {fault:?} at {n}");
    assert_eq!(entries.into_iter().collect::<HashSet<_>>(), first.into_iter().chain(second).collect());
    assert!(store.list("private/staging/").await.unwrap().is_empty());
    assert_eq!(store.indexed_leaves(), 300);
    let partials: Vec<_> = store.objects().into_keys().filter(|key| key.starts_with("tile/") && key.contains("000.p/")).collect();
    assert_eq!(partials, ["tile/1/000.p/1"], "partial tiles are collected: {fault:?} at {n}");
    writes.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn no_fault_at_any_write_loses_or_doubles_an_entry() {
    for fault in [Fault::NotDone, Fault::Done, Fault::Dead, Fault::DoneThenDead, Fault::Late(1), Fault::Late(5), Fault::Late(15)]
    {
        let mut n = 0;
        while with_fault(fault, n).await > n {
            n += 1;
        }
        assert!(n >= 13, "staging, lock, five objects, checkpoint, index, staging again, two partials, marker: {n}");
    }
}

/// How often each kind of write failed.
async fn full_disk(failing: &'static str) {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("before", 10)).await;
    let full = Arc::new(AtomicUsize::new(1));
    let is_full = Arc::clone(&full);
    store.on_write(
        move |key| {
            if key.contains(failing) && is_full.load(Ordering::SeqCst) == 1 { Fault::NotDone } else { Fault::None }
        },
    );
    let during = entries("during", 300);
    let appending = tokio::spawn({
        let log = running.log.clone();
        let during = during.clone();
        async move { futures_util::future::join_all(during.iter().map(|entry| log.append(entry.clone()))).await }
    });
    tokio::time::sleep(Duration::from_mins(1)).await;
    let stats = running.log.stats();
    let is_needed = !matches!(failing, "delete" | "index" | "collected");
    assert_eq!(stats.failed_rounds > 0, is_needed, "{failing}: {stats:?}");
    if failing == "index" {
        // The first round is published; the next one wants to know what is in it.
        assert_eq!(stats.tree_size, 256);
    }
    full.store(0, Ordering::SeqCst);
    for (entry, appended) in during.iter().zip(appending.await.unwrap()) {
        check(entry, &appended.unwrap());
    }
    running.append_and_check(&entries("after", 10)).await;
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 320);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_log_until_there_is_space() {
    for failing in ["", "private/staging", "lock", "tile/0", "tile/entries", "checkpoint", "delete", "collected"] {
        full_disk(failing).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_index_stops_the_log_until_it_is_back() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("before", 10)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.on_write(|key| if key == "index" { Fault::NotDone } else { Fault::None });
    // This round is in before its leaves have to go into the index.
    running.append_and_check(&entries("during", 10)).await;
    let log = running.log.clone();
    let mut again = Box::pin(log.append("new".into()));
    tokio::time::timeout(Duration::from_mins(1), &mut again).await.unwrap_err();
    assert!(running.log.stats().failed_rounds > 3);
    assert_eq!(running.log.stats().tree_size, 20);
    store.on_write(|_| Fault::None);
    check(b"new", &again.await.unwrap());
    running.close().await;
    assert_eq!(store.indexed_leaves(), 21);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_even_if_the_store_does_not_come_back() {
    for failing in ["private/staging", "lock", "checkpoint"] {
        let store = MemoryStore::default();
        let running = Running::create(&store).await;
        store.on_write(move |key| if key.contains(failing) { Fault::NotDone } else { Fault::None });
        let log = running.log.clone();
        let append = tokio::spawn(async move { log.append("lost?".into()).await });
        tokio::time::sleep(Duration::from_secs(30)).await;
        let start = tokio::time::Instant::now();
        running.log.close().await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(matches!(running.sequencer.await.unwrap(), Err(SequencerError::Store(_))));
        assert!(matches!(append.await.unwrap(), Err(AppendError::Stopped)));
        let store = store.restarted();
        let running = Running::open(&store).await;
        check(b"lost?", &running.log.append("lost?".into()).await.unwrap());
        running.close().await;
        assert_eq!(logged(&store).await.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_write_never_undoes_a_later_one() {
    // The first checkpoint of size 1 is on its way for ever longer, while the log goes on.
    for delay in 1..60 {
        let store = MemoryStore::default();
        create(&store, &signer()).await.unwrap();
        let mut first = true;
        store.on_write(
            move |key| {
                if key == "checkpoint" && std::mem::take(&mut first) { Fault::Late(delay) } else { Fault::None }
            },
        );
        let running = Running::open_with(&store, Config { max_delay: Duration::from_millis(1), ..config() }).await;
        for n in 0..5 {
            running.log.append(format!("{n}").into()).await.unwrap();
        }
        running.close().await;
        // The store itself panics when the published checkpoint goes back.
        assert_eq!(check_log(&store).await.checkpoint().tree_size(), 5);
        assert!(store.get("checkpoint").await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_even_if_every_swap_is_lost() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    store.on_write(|key| if key == "lock" { Fault::Overtaken } else { Fault::None });
    let log = running.log.clone();
    let append = tokio::spawn(async move { log.append("lost".into()).await });
    tokio::time::sleep(Duration::from_secs(30)).await;
    tokio::time::timeout(Duration::from_secs(10), running.log.close()).await.unwrap();
    assert!(matches!(running.sequencer.await.unwrap(), Err(SequencerError::Contended)));
    assert!(matches!(append.await.unwrap(), Err(AppendError::Stopped)));
}
