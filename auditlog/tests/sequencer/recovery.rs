//! Opening a log that was left in any state, also in one that no crash explains.

use fanlight_auditlog::sequencer::{OpenError, SequencerError};
use fanlight_auditlog::store::{LockToken, Locked, ProbeError, PutNew, StoreError, Swap};
use fanlight_auditlog::{AppendError, Hash, LeafIndex, Lock, Log, ObjectStore, Signer, TileSource, create};

use bytes::Bytes;

use crate::support::{self, Fault, MemoryStore, Running, check_log, config, entries, logged, signer};

async fn open(store: &MemoryStore) -> Result<(), OpenError> {
    Log::open(store.clone(), signer(), config()).await.map(drop)
}

/// A closed log of two rounds.
async fn small_log() -> MemoryStore {
    let store = MemoryStore::default();
    let running = Running::create(&store).await;
    running.append_and_check(&entries("a", 3)).await;
    running.append_and_check(&entries("b", 260)).await;
    running.close().await;
    store
}

#[tokio::test(start_paused = true)]
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
    let error = open(&store).await.unwrap_err();
    assert!(matches!(error, OpenError::Split { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_add_up_is_not_opened() {
    let good = small_log().await;
    open(&good).await.unwrap();

    let other_key = Signer::new(support::ORIGIN, &[43; 32]).unwrap();
    let error = Log::open(good.restarted(), other_key, config()).await.unwrap_err();
    assert!(matches!(error, OpenError::CheckpointRefused(_)), "{error:?}");
    let error = open(&MemoryStore::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotCreated), "{error:?}");

    for path in ["tile/0/001.p/7", "tile/1/000.p/1", "tile/entries/001.p/7"] {
        let store = good.restarted();
        store.edit(|objects| assert!(objects.remove(path).is_some()));
        assert!(matches!(open(&store).await.unwrap_err(), OpenError::Read(_)), "{path} is missing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_from_a_backup_is_refused() {
    let store = small_log().await;
    let old = store.restarted();
    let running = Running::open(&store).await;
    running.log.append("newer".into()).await.unwrap();
    running.close().await;
    // It would sign the same sizes a second time.
    old.edit(|objects| *objects = store.objects());
    let error = open(&old).await.unwrap_err();
    assert!(matches!(error, OpenError::LockBehind), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_checkpoint_is_published_again() {
    let good = small_log().await;
    let store = good.restarted();
    store.edit(|objects| assert!(objects.remove("checkpoint").is_some()));
    let running = Running::open(&store).await;
    running.published(263).await;
    check_log(&store).await;
    running.append_and_check(&entries("a", 5)).await;
    running.close().await;
    assert_eq!(logged(&store).await.len(), 265);

    // But only once everything below it is verified.
    let store = good.restarted();
    store.edit(|objects| {
        objects.remove("checkpoint");
        objects.remove("tile/entries/000");
    });
    assert!(matches!(open(&store).await.unwrap_err(), OpenError::StagingMissing));
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_was_cut_short_is_finished() {
    let store = MemoryStore::default();
    store.on_write(|key| if key == "checkpoint" { Fault::Dead } else { Fault::None });
    create(&store, &signer()).await.unwrap_err();
    let store = store.restarted();
    let running = Running::open(&store).await;
    assert_eq!(running.log.checkpoint().tree_size(), 0);
    running.append_and_check(&entries("first", 3)).await;
    running.close().await;
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn another_branch_under_the_checkpoint_is_a_fork() {
    let store = small_log().await;
    let other = MemoryStore::default();
    let running = Running::create(&other).await;
    running.append_and_check(&entries("other", 263)).await;
    running.close().await;
    // As large, and as well signed.
    store.edit(|objects| {
        objects.insert("checkpoint".to_owned(), other.objects()["checkpoint"].clone());
    });
    let error = open(&store).await.unwrap_err();
    assert!(matches!(error, OpenError::Forked(_)), "{error:?}");
    // Or smaller: what the lock says must go on from it.
    let shorter = MemoryStore::default();
    let running = Running::create(&shorter).await;
    running.append_and_check(&entries("other", 200)).await;
    running.close().await;
    store.edit(|objects| {
        objects.insert("checkpoint".to_owned(), shorter.objects()["checkpoint"].clone());
    });
    let error = open(&store).await.unwrap_err();
    assert!(matches!(error, OpenError::Forked(_)), "{error:?}");
}

/// Takes every conditional write, as some object stores do.
#[derive(Debug)]
struct Careless {
    store: MemoryStore,
    swaps: bool,
}

impl TileSource for Careless {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key).await
    }
}

impl ObjectStore for Careless {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        if self.swaps {
            return self.store.put_new(key, bytes).await;
        }
        self.store.put(key, bytes).await.map(|()| PutNew::Created)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(key, bytes).await
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        self.store.put_over(key, previous, bytes).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.list(prefix).await
    }
}

impl Lock for Careless {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.store.load().await
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        Lock::create(&self.store, bytes).await
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        match self.store.load().await {
            Ok(Some(current)) if self.swaps => self.store.swap(&current.token, bytes).await,
            _ => self.store.swap(token, bytes).await,
        }
    }
}

impl LeafIndex for Careless {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.store.indexed().await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.store.positions(leaves).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.store.extend(first, leaves).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.store.clear().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_without_preconditions_is_refused() {
    for swaps in [false, true] {
        let store = Careless { store: MemoryStore::default(), swaps };
        create(&store, &signer()).await.unwrap();
        let error = Log::open(store, signer(), config()).await.unwrap_err();
        match error {
            OpenError::Probe(ProbeError::PutNewIgnored) if !swaps => {}
            OpenError::Probe(ProbeError::SwapIgnored) if swaps => {}
            error => panic!("{error:?}"),
        }
    }
}
