//! Partial tiles go once the full one is there. The store itself panics when one goes that is still needed.

use std::collections::BTreeSet;
use std::time::Duration;

use fanlight_auditlog::{Config, ObjectStore as _, create};

use crate::support::{Fault, MemoryStore, Running, check_log, config, entries, signer};

fn partials(store: &MemoryStore) -> BTreeSet<String> {
    store.objects().into_keys().filter(|key| key.contains(".p/")).collect()
}

/// Appends `n` entries, one round for each.
async fn grow(running: &Running, prefix: &str, n: usize) {
    for entry in entries(prefix, n) {
        running.log.append(entry).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn partial_tiles_go_once_they_are_full() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    grow(&running, "one by one", 255).await;
    assert_eq!(partials(&store).len(), 2 * 255);
    grow(&running, "the last", 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let of_second_tile = (1..=4).flat_map(|n| [format!("tile/0/001.p/{n}"), format!("tile/entries/001.p/{n}")]);
    let expected: BTreeSet<String> = of_second_tile.chain(["tile/1/000.p/1".to_owned()]).collect();
    assert_eq!(partials(&store), expected);
    assert_eq!(running.log.stats().collected, 2 * 255);
    running.close().await;
    assert_eq!(store.objects()["private/collected"], "260");
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_leaves_is_collected_at_the_next_start() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    grow(&running, "one by one", 300).await;
    running.close().await;
    let clean = partials(&store);
    let store = store.restarted();
    // As if nothing had ever been collected.
    store.edit(|objects| {
        objects.remove("private/collected");
        for n in 1..256usize {
            let (hashes, entries) = (objects["tile/0/000"].slice(..32 * n), objects["tile/entries/000"].slice(..n));
            objects.insert(format!("tile/0/000.p/{n}"), hashes);
            objects.insert(format!("tile/entries/000.p/{n}"), entries);
        }
    });
    let running = Running::open(&store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(partials(&store), clean);
    // Those of the tile under way were found as well, and go with it.
    grow(&running, "more", 300).await;
    running.close().await;
    assert!(partials(&store).iter().all(|key| key.contains("/002.p/") || key.starts_with("tile/1/000.p/")));
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn partial_tiles_stay_where_the_full_one_is_missing() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("a", 700)).await;
    running.close().await;
    let store = store.restarted();
    store.edit(|objects| {
        objects.remove("private/collected");
        let full = objects.remove("tile/0/000").unwrap();
        objects.insert("tile/0/000.p/9".to_owned(), full.slice(..32 * 9));
    });
    let running = Running::open(&store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(partials(&store).contains("tile/0/000.p/9"));
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_marker_moves_with_a_large_log_and_spares_listing() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let running = Running::open_with(&store, Config { recent_entries: 1, ..config() }).await;
    for n in 0..33 {
        running.append_and_check(&entries(&format!("{n}"), 2048)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let marker: u64 = std::str::from_utf8(&store.objects()["private/collected"]).unwrap().parse().unwrap();
    assert!((65_536..=67_584).contains(&marker), "{marker}");
    running.sequencer.abort();
    drop(running);
    let store = store.restarted();
    store.edit(|objects| {
        // Below the marker nobody looks.
        let full = objects["tile/0/000"].slice(..32);
        objects.insert("tile/0/000.p/1".to_owned(), full);
    });
    let running = Running::open(&store).await;
    running.close().await;
    assert!(partials(&store).contains("tile/0/000.p/1"));
}

#[tokio::test(start_paused = true)]
async fn collecting_is_put_off_when_the_store_fails() {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    grow(&running, "a", 200).await;
    store.on_write(|key| if key.starts_with("delete tile/") { Fault::NotDone } else { Fault::None });
    grow(&running, "b", 100).await;
    assert_eq!(running.log.stats().collected, 0);
    assert_eq!(running.log.stats().failed_rounds, 0);
    store.on_write(|_| Fault::None);
    grow(&running, "c", 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.log.stats().collected, 2 * 255);
    running.close().await;
    assert!(store.list("tile/0/000.p/").await.unwrap().is_empty());
    check_log(&store).await;
}
