//! A copy is exact, or it is as good as it was before.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "checks/log.rs"]
mod log;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fanlight_auditlog::fsck::{Leftovers, Options, fsck};
use fanlight_auditlog::mirror::{MirrorError, MirrorReport, mirror};
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{DirStore, Lock, ObjectStore, Policy, Reader, TileSource as _};
use log::{checkpoint, forged, grown, store_of};
use support::{Fault, MemoryStore, log_key};

async fn copy<S: ObjectStore + Lock>(source: &MemoryStore, copy: &S) -> Result<MirrorReport, MirrorError> {
    let reader = Reader::at(source, checkpoint(source)).await?;
    mirror(&reader, copy, &Policy::for_log(log_key()), |_| {}).await
}

/// Whether the copy holds every object of the source that its checkpoint needs, and nothing else.
async fn assert_copy(source: &MemoryStore, store: &MemoryStore) {
    let options = Options { leftovers: Leftovers::list(store).await.unwrap(), resume: None };
    let report = fsck(store, &checkpoint(store), options, &Inline, |_| {}).await.unwrap();
    assert!(report.is_good() && report.n_beyond() == 0, "{:?}", report.damage());
    assert_eq!(store.objects()["checkpoint"], source.objects()["checkpoint"]);
    assert_eq!(store.load().await.unwrap().unwrap().bytes, source.objects()["checkpoint"]);
}

#[tokio::test]
async fn copies_of_every_shape() {
    for sizes in [&[0][..], &[1], &[255], &[256], &[257], &[3, 200, 300], &[65_535], &[65_536], &[65_537]] {
        let (source, target) = (grown(sizes), MemoryStore::default());
        let report = copy(&source, &target).await.unwrap();
        assert_copy(&source, &target).await;
        assert_eq!((report.before, report.n_resumed), (None, 0));
        assert_eq!(report.n_written, target.objects().len() as u64 - 1);
        let again = copy(&source, &target).await.unwrap();
        assert_eq!((again.before.unwrap().tree_size(), again.n_written), (report.checkpoint.tree_size(), 0));
    }
}

#[tokio::test]
async fn a_growing_source() {
    let target = MemoryStore::default();
    let sizes = [1, 200, 256, 300, 600, 65_536, 65_800];
    for n in 1..=sizes.len() {
        let source = grown(&sizes[..n]);
        let report = copy(&source, &target).await.unwrap();
        assert_copy(&source, &target).await;
        assert!(report.n_written < 3 + sizes[n - 1] as u64 / 100, "only what is new");
    }
    // All partial objects of the checkpoints that were copied are still there.
    let source = grown(&sizes);
    assert_eq!(target.objects(), source.objects());
}

#[tokio::test]
async fn a_directory_as_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open_writer(dir.path()).unwrap();
    let source = grown(&[100, 600]);
    copy(&source, &store).await.unwrap();
    drop(store);
    for (key, bytes) in source.objects().iter().filter(|(key, _)| !key.ends_with("/100")) {
        assert_eq!(std::fs::read(dir.path().join(key)).unwrap(), bytes[..], "{key}");
    }
}

/// The process dies at each write in turn, with or without effect; whatever is there then is gone on with.
#[tokio::test]
async fn killed_at_every_write() {
    let (first, source) = (grown(&[300]), grown(&[300, 1500]));
    let n_writes = count_writes(&first, &source).await;
    assert!(n_writes > 10);
    for fault in [Fault::Dead, Fault::DoneThenDead] {
        for kill_at in 0..n_writes {
            let target = MemoryStore::default();
            copy(&first, &target).await.unwrap();
            let before = target.objects();
            let mut n = 0;
            target.on_write(move |_| {
                n += 1;
                if n > kill_at { fault } else { Fault::None }
            });
            let died = copy(&source, &target).await;
            assert!(matches!(died, Err(MirrorError::Store(_))), "{died:?}");
            let restarted = target.restarted();
            // Whoever reads in between finds the old log or the new one.
            let published = checkpoint(&restarted).tree_size();
            assert!(published == 300 || published == 1500);
            let good = fsck(&restarted, &checkpoint(&restarted), Options::default(), &Inline, |_| {}).await.unwrap();
            assert!(good.is_good(), "{fault:?} at {kill_at}: {:?}", good.damage());
            assert!(before.iter().all(|(key, bytes)| key == "checkpoint" || restarted.objects()[key] == *bytes));
            let report = copy(&source, &restarted).await.unwrap();
            assert_copy(&source, &restarted).await;
            let done = report.before.unwrap().tree_size() == 1500 || report.n_resumed > 0;
            assert!(kill_at < 8 || done, "what was copied is not copied again");
        }
    }
}

async fn count_writes(first: &MemoryStore, source: &MemoryStore) -> usize {
    let target = MemoryStore::default();
    copy(first, &target).await.unwrap();
    let n_writes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_writes);
    target.on_write(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Fault::None
    });
    copy(source, &target).await.unwrap();
    n_writes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn nothing_damaged_reaches_the_copy() {
    let good = grown(&[300, 700]);
    for (key, original) in good.objects().iter().filter(|(key, _)| *key != "checkpoint" && !key.contains("001.p/44")) {
        let damaged: [Bytes; 4] = [
            [&original[..original.len() - 1], &[original[original.len() - 1] ^ 1]].concat().into(),
            original.slice(1..),
            [&original[..], b"\0"].concat().into(),
            Bytes::new(),
        ];
        // Longer tiles are the beginnings of wider ones to a reader; what is written is the tile itself.
        for damaged in damaged {
            let (source, target) = (grown(&[300, 700]), MemoryStore::default());
            copy(&grown(&[300]), &target).await.unwrap();
            source.edit(|objects| {
                objects.insert(key.clone(), damaged.clone());
            });
            match copy(&source, &target).await {
                Err(MirrorError::Read(_)) => assert_eq!(checkpoint(&target).tree_size(), 300, "{key}"),
                Err(other) => panic!("{key}: {other:?}"),
                Ok(_) => assert_copy(&good, &target).await,
            }
            let written = target.objects();
            for (key, bytes) in written.iter().filter(|(key, _)| *key != "checkpoint") {
                assert_eq!(good.objects()[key], bytes, "{key}");
            }
        }
    }
}

#[tokio::test]
async fn forks_rollbacks_and_strangers_are_refused() {
    let target = MemoryStore::default();
    copy(&grown(&[600]), &target).await.unwrap();
    let before = target.objects();
    for size in [600, 1000] {
        let error = copy(&forged(size, 5), &target).await.unwrap_err();
        let MirrorError::Fork { held } = error else { panic!("{error:?}") };
        assert_eq!((held.tree_size(), held.root_hash()), (600, checkpoint(&grown(&[600])).root_hash()));
    }
    assert!(matches!(copy(&grown(&[599]), &target).await.unwrap_err(), MirrorError::Rollback { .. }));
    // The copy of a log whose key is not trusted, or of another log of a trusted key.
    let other = store_of("other.example/log", &[1000], None);
    let stranger = MemoryStore::default();
    stranger.edit(|objects| *objects = other.objects());
    assert!(matches!(copy(&grown(&[1000]), &stranger).await.unwrap_err(), MirrorError::Held(_)));
    let keys = [log_key(), log::signer_of("other.example/log").verifier_key()];
    let policy = format!("log {}\nquorum none\n", keys[1]);
    let reader = Reader::latest(&other, &keys[1]).await.unwrap();
    let refused = mirror(&reader, &target, &Policy::parse(policy.as_bytes()).unwrap(), |_| {}).await;
    assert!(matches!(refused, Err(MirrorError::Held(_))));
    assert_eq!(target.objects(), before, "nothing was written");
}

#[tokio::test]
async fn what_is_there_is_never_replaced() {
    for key in ["tile/0/001", "tile/entries/001", "tile/1/000.p/3"] {
        let (source, target) = (grown(&[1000]), MemoryStore::default());
        target.put_new(key, Bytes::from_static(b"other")).await.unwrap();
        let error = copy(&source, &target).await.unwrap_err();
        assert!(matches!(error, MirrorError::Differs { path } if path.to_string() == key), "{error:?}");
        assert_eq!(target.get("checkpoint").await.unwrap(), None);
        assert_eq!(target.get(key).await.unwrap().unwrap(), "other");
    }
}

#[tokio::test]
async fn of_two_mirrors_at_once_none_goes_back_behind_the_other() {
    for _ in 0..20 {
        let target = MemoryStore::default();
        let (small, large) = (grown(&[500]), grown(&[500, 900]));
        let (first, second) = futures_util::future::join(copy(&small, &target), copy(&large, &target)).await;
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        for result in [&first, &second] {
            assert!(matches!(result, Ok(_) | Err(MirrorError::Raced)), "{result:?}");
        }
        copy(&large, &target).await.unwrap();
        assert_copy(&large, &target).await;
    }
}

/// A mirror stalls at its last write, which arrives when another one has copied more.
#[tokio::test]
async fn a_late_checkpoint_takes_nothing_back() {
    let target = MemoryStore::default();
    let mut stalls = true;
    target.on_write(move |key| if key == "checkpoint" && std::mem::take(&mut stalls) { Fault::Late(100) } else { Fault::None });
    let stalled = copy(&grown(&[500]), &target).await;
    assert!(matches!(stalled, Err(MirrorError::Store(_))), "{stalled:?}");
    let large = grown(&[500, 900]);
    copy(&large, &target).await.unwrap();
    for n in 0..100 {
        target.put(&format!("private/{n}"), Bytes::new()).await.unwrap();
    }
    assert_copy(&large, &target).await;
}
