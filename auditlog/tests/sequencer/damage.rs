//! Every byte of a small log flipped, one at a time: opening it or `fsck` notices.

use bytes::Bytes;
use fanlight_auditlog::Log;

use crate::support::{Fault, MemoryStore, Running, config, entries, signer, verify};

/// A log of 263 entries that died after its last swap of the lock, so that a round is staged.
async fn cut_short() -> MemoryStore {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("a", 260)).await;
    let mut is_committed = false;
    store.on_write(move |key| {
        is_committed |= key == "lock";
        if is_committed { Fault::DoneThenDead } else { Fault::None }
    });
    let log = running.log.clone();
    let append =
        tokio::spawn(async move { futures_util::future::join_all(entries("b", 3).into_iter().map(|e| log.append(e))).await });
    store.died().await;
    running.sequencer.abort();
    append.await.unwrap().into_iter().for_each(|appended| drop(appended.unwrap_err()));
    store.restarted()
}

/// Whether the log can be opened, run and verified to its last byte.
async fn is_good(store: &MemoryStore) -> bool {
    let Ok((log, sequencer)) = Log::open(store.clone(), signer(), config()).await else { return false };
    let running = tokio::spawn(sequencer.run(fanlight_auditlog::TokioTimer::new()));
    log.close().await;
    running.await.unwrap().is_ok() && verify(store).await.is_ok_and(|report| report.is_good())
}

fn flipped(bytes: &Bytes, position: usize) -> Bytes {
    let mut damaged = bytes.to_vec();
    damaged[position] ^= 1;
    damaged.into()
}

#[tokio::test(start_paused = true)]
async fn every_flipped_byte_is_noticed() {
    let good = cut_short().await;
    let staged = good.objects().into_keys().find(|key| key.starts_with("private/staging/")).expect("a staged round");
    assert!(is_good(&good.restarted()).await);

    let mut n_flips = 0;
    for (path, original) in good.objects() {
        // Partial tiles of earlier checkpoints are no part of the latest one; the collector's marker only saves time.
        let is_needed =
            ["checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000", staged.as_str()].contains(&path.as_str());
        if !is_needed {
            assert!(path.contains(".p/4") || path == "private/collected" || path.starts_with("private/probe"), "{path}");
            continue;
        }
        // Of the two 8 KiB objects every 5th byte, which still meets every position of a hash.
        let step = if original.len() > 1000 { 5 } else { 1 };
        for position in (0..original.len()).step_by(step) {
            let store = good.restarted();
            store.edit(|objects| drop(objects.insert(path.clone(), flipped(&original, position))));
            assert!(!is_good(&store).await, "{path} at {position}");
            n_flips += 1;
        }
        for damaged in [original.slice(1..), original.slice(..original.len() - 1), [&original[..], b"\0"].concat().into()] {
            let store = good.restarted();
            store.edit(|objects| drop(objects.insert(path.clone(), damaged)));
            assert!(!is_good(&store).await, "{path} with another length");
        }
        let store = good.restarted();
        store.edit(|objects| drop(objects.remove(&path)));
        // A lost checkpoint is made good: the lock has it.
        assert_eq!(is_good(&store).await, path == "checkpoint", "{path} removed");
    }
    let mut lock = Bytes::new();
    good.restarted().edit_lock(|bytes| lock = bytes.clone());
    for position in 0..lock.len() {
        let store = good.restarted();
        store.edit_lock(|bytes| *bytes = flipped(bytes, position));
        assert!(!is_good(&store).await, "lock at {position}");
        n_flips += 1;
    }
    assert!(n_flips > 2500, "{n_flips}");
}
