//! A disk that fails and lags.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanlight_auditlog::store::{PutNew, StoreError};
use fanlight_auditlog::{DirStore, ObjectStore, TileSource};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

/// Writes that may pass a gate at the same time.
pub(crate) const GATE: usize = 1000;

/// A directory whose next write fails, with or without its effect, or waits, before its effect or after it.
#[derive(Clone)]
pub(crate) struct Faulty {
    store: DirStore,
    fault: Arc<Mutex<Option<bool>>>,
    pub(crate) gate: Arc<Semaphore>,
    // Between a write's effect, which everybody sees, and its return.
    pub(crate) sync_gate: Arc<Semaphore>,
    pub(crate) visible: Arc<Notify>,
    n_writes: Arc<AtomicUsize>,
}

impl Faulty {
    pub(crate) fn new(dir: &TempDir) -> Self {
        let store = DirStore::open_writer(dir.path()).expect("an empty directory opens");
        let [gate, sync_gate] = [(); 2].map(|()| Arc::new(Semaphore::new(GATE)));
        let (fault, visible, n_writes) = Default::default();
        Self { store, fault, gate, sync_gate, visible, n_writes }
    }

    /// The next write fails: with its effect, or without.
    pub(crate) fn fail_next(&self, with_effect: bool) {
        self.fault.lock().expect("no test panics with it").replace(with_effect);
    }

    /// Writes that had an effect.
    pub(crate) fn n_writes(&self) -> usize {
        self.n_writes.load(Ordering::SeqCst)
    }

    /// Runs a write once the gate is open, with the fault, if one is due.
    async fn write<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let _open = self.gate.acquire().await.expect("it is never closed");
        let fault = self.fault.lock().expect("no test panics with it").take();
        let failure = StoreError::new("write", std::io::Error::other("fault injected"));
        if fault == Some(false) {
            return Err(failure);
        }
        let written = write.await?;
        self.n_writes.fetch_add(1, Ordering::SeqCst);
        self.visible.notify_one();
        let _synced = self.sync_gate.acquire().await.expect("it is never closed");
        if fault.is_some() { Err(failure) } else { Ok(written) }
    }
}

impl TileSource for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key).await
    }
}

impl ObjectStore for Faulty {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.write(self.store.put_new(key, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(self.store.put(key, bytes)).await
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        self.write(self.store.put_over(key, previous, bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.list(prefix).await
    }
}
