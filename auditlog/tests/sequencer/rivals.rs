//! Two sequencers on one store: it never forks, never goes back, and nobody's entries are lost.
//!
//! A directory cannot be raced for: its writer holds a flock.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::{DirStore, create};

use crate::support::{Fault, MemoryStore, Random, Running, check, check_log, entries, logged, signer};

#[tokio::test(start_paused = true)]
async fn two_sequencers_on_one_store_never_fork() {
    for seed in 0..12 {
        race(seed, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_sequencers_on_a_failing_store_never_fork() {
    for seed in 100..112 {
        race(seed, 8).await;
    }
}

/// Both append different and equal entries, and take unequal times for everything; writes fail at this rate.
async fn race(seed: u64, percent_failing: u64) {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let (one, two) = (Running::open(&store).await, Running::open(&store.rival()).await);
    let (mut latency, mut faults) = (Random::new(seed), Random::new(seed + 1000));
    // Mostly quick, and now and then so slow that the other one has a round in between.
    store.slow_down(move || Duration::from_millis(if latency.chance(5) { latency.below(300) } else { latency.below(10) }));
    store.on_write(move |_| match faults.below(100) {
        n if n < percent_failing => {
            [Fault::NotDone, Fault::Done, Fault::Late(3), Fault::Late(30)][usize::try_from(n % 4).unwrap()]
        }
        _ => Fault::None,
    });
    let mut all: HashSet<Bytes> = HashSet::new();
    for round in 0..15 {
        let both = entries(&format!("both {round}"), 3);
        let (mut left, mut right) = (entries(&format!("left {round}"), 40), entries(&format!("right {round}"), 30));
        left.extend(both.clone());
        right.extend(both);
        let (left_appended, right_appended) = tokio::join!(one.append_all(&left), two.append_all(&right));
        for (entry, appended) in left.iter().zip(left_appended).chain(right.iter().zip(right_appended)) {
            check(entry, &appended.unwrap());
        }
        all.extend(left);
        all.extend(right);
    }
    assert!(one.log.stats().failed_rounds + two.log.stats().failed_rounds > 0, "they did get in each other's way");
    store.on_write(|_| Fault::None);
    one.close().await;
    two.close().await;

    // What both signed is one log, every entry once.
    let store = store.restarted();
    Running::open(&store).await.close().await;
    check_log(&store).await;
    let entries = logged(&store).await;
    assert_eq!(entries.len(), all.len(), "seed {seed}");
    assert_eq!(entries.into_iter().collect::<HashSet<_>>(), all);
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_slept_through_rounds_of_another_does_not_undo_them() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let (sleeper, other) = (Running::open(&store).await, Running::open(&store.rival()).await);
    let mut first = true;
    let stalls = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&stalls);
    store.slow_down(move || if armed.swap(false, Ordering::SeqCst) { Duration::from_hours(1) } else { Duration::from_millis(1) });
    store.on_write(move |key| {
        // Its first round is in the lock; what comes next is slow.
        if key == "lock" && std::mem::take(&mut first) {
            stalls.store(true, Ordering::SeqCst);
        }
        Fault::None
    });
    let log = sleeper.log.clone();
    let slept = tokio::spawn(async move { log.append("slept".into()).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The other one finds the lock moved, finishes that round, and goes on.
    for n in 0..10 {
        other.log.append(format!("{n}").into()).await.unwrap();
    }
    assert_eq!(other.log.checkpoint().tree_size(), 11);
    assert!(!slept.is_finished());
    check(b"slept", &slept.await.unwrap().unwrap());
    assert_eq!(sleeper.log.checkpoint().tree_size(), 11);
    sleeper.close().await;
    other.close().await;
    check_log(&store).await;
}

#[tokio::test]
async fn a_directory_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let _store = DirStore::open_writer(dir.path()).unwrap();
    DirStore::open_writer(dir.path()).unwrap_err();
}
