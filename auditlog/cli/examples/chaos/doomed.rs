//! A writer that ends itself at a given operation of its store, as abruptly as SIGKILL would.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::abort;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::sequencer::TokioTimer;
use fanlight_auditlog::store::key_file::read_key_file;
use fanlight_auditlog::store::{LeafIndex, LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{Config, DirStore, Hash, Lock, Log, ObjectStore, TileSource};
use futures_util::{StreamExt as _, stream};

/// Entries under way at the same time.
const CONCURRENT_APPENDS: usize = 1000;

/// Rounds as soon as there is anything to do.
const PACE: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(1));

/// The operation that is the last, and on which side of its effect the end comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doom {
    /// Operations that write, from 1.
    pub(crate) operation: u64,
    pub(crate) is_after: bool,
}

/// A directory store that does not survive its doom.
#[derive(Clone, Debug)]
struct DoomedStore {
    inner: DirStore,
    doom: Doom,
    n_operations: Arc<AtomicU64>,
}

impl DoomedStore {
    /// Does one operation, or dies before or after it.
    async fn write<T>(&self, operation: impl Future<Output = T>) -> T {
        let is_last = self.n_operations.fetch_add(1, Ordering::Relaxed) + 1 == self.doom.operation;
        if is_last && !self.doom.is_after {
            abort();
        }
        let done = operation.await;
        if is_last {
            abort();
        }
        done
    }
}

impl TileSource for DoomedStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }
}

impl ObjectStore for DoomedStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.write(self.inner.put_new(key, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(self.inner.put(key, bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix).await
    }
}

impl Lock for DoomedStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.inner.load().await
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.write(self.inner.create(bytes)).await
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        self.write(self.inner.swap(token, bytes)).await
    }
}

impl LeafIndex for DoomedStore {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.inner.indexed().await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.inner.positions(leaves).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.write(self.inner.extend(first, leaves)).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.write(self.inner.clear()).await
    }
}

/// Appends the lines of standard input to the log in `dir` and answers each with its index, as far as it comes.
pub(crate) fn append(dir: &Path, doom: Doom) -> anyhow::Result<()> {
    let inner = DirStore::open_writer(dir)?;
    let signer = read_key_file(&inner.key_file())?;
    let store = DoomedStore { inner, doom, n_operations: Arc::default() };
    let lines: Vec<String> = io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let (min_period, max_delay) = PACE;
    let config = Config { min_period, max_delay, ..Config::default() };

    tokio::runtime::Runtime::new()?.block_on(async {
        let (log, sequencer) = Log::open(store, signer, config).await?;
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        let mut answers = stream::iter(lines).map(|line| log.append(line.into())).buffered(CONCURRENT_APPENDS);
        while let Some(appended) = answers.next().await {
            writeln!(io::stdout(), "{}", appended?.index)?;
        }
        drop(answers);
        log.close().await;
        running.await??;
        Ok(())
    })
}
