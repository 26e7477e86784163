//! A writer that kills itself at a given operation of its store.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use fanlight_auditlog::sequencer::TokioTimer;
use fanlight_auditlog::store::key_file::read_key_file;
use fanlight_auditlog::store::{LeafIndex, LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{Config, DirStore, Hash, Lock, Log, ObjectStore, TileSource, leaf_hash};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Entries under way at the same time, so that a few hundred need several rounds.
const CONCURRENT_APPENDS: usize = 100;

/// Rounds as soon as there is anything to do.
const PACE: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(1));

/// The operation that is the last, and on which side of its effect the end comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    /// Reads, writes, listings and operations of the index, from 1.
    pub(crate) operation: u64,
    pub(crate) is_after: bool,
}

/// A directory store whose user dies.
#[derive(Clone, Debug)]
struct MortalStore {
    inner: DirStore,
    death: Death,
    n_operations: Arc<AtomicU64>,
}

impl MortalStore {
    /// Does one operation, or dies before or after it.
    async fn operate<T>(&self, operation: impl Future<Output = T>) -> T {
        let Death { operation: last, is_after } = self.death;
        let n = self.n_operations.fetch_add(1, Ordering::SeqCst) + 1;
        if n > last {
            // The end has begun, and takes a moment.
            return std::future::pending().await;
        }
        if n == last && !is_after {
            die();
        }
        let done = operation.await;
        if n == last {
            die();
        }
        done
    }
}

/// SIGKILL, which leaves nothing to the process: nothing unwinds, nothing is flushed.
fn die() -> ! {
    // A shell knows how to send it, and by whom it was started.
    let said = process::Command::new("sh").args(["-c", "kill -KILL $PPID"]).status();
    eprintln!("no shell kills this process: {said:?}");
    process::abort()
}

impl TileSource for MortalStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.operate(self.inner.get(key)).await
    }
}

impl ObjectStore for MortalStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.operate(self.inner.put_new(key, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.operate(self.inner.put(key, bytes)).await
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        self.operate(self.inner.put_over(key, previous, bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.operate(self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.operate(self.inner.list(prefix)).await
    }
}

impl Lock for MortalStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.operate(self.inner.load()).await
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.operate(self.inner.create(bytes)).await
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        self.operate(self.inner.swap(token, bytes)).await
    }
}

impl LeafIndex for MortalStore {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.operate(self.inner.indexed()).await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.operate(self.inner.positions(leaves)).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.operate(self.inner.extend(first, leaves)).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.operate(self.inner.clear()).await
    }
}

/// Appends the lines of standard input to the log in `dir`, as far as it comes.
///
/// As soon as a published checkpoint includes one it says `acked <index> <leaf hash in base64>`.
pub(crate) fn append(dir: &Path, death: Death) -> anyhow::Result<()> {
    let inner = DirStore::open_writer(dir)?;
    let signer = read_key_file(&inner.key_file())?;
    let store = MortalStore { inner, death, n_operations: Arc::default() };
    let lines: Vec<String> = io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let (min_period, max_delay) = PACE;
    let config = Config { min_period, max_delay, ..Config::default() };

    tokio::runtime::Runtime::new()?.block_on(async {
        let (log, sequencer) = Log::open(store, signer, config).await?;
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        let appending = stream::iter(lines).map(|line| tokio::spawn(append_one(log.clone(), line)));
        appending.buffer_unordered(CONCURRENT_APPENDS).map(|ended| ended.context("panicked")?).try_collect::<()>().await?;
        log.close().await;
        running.await??;
        Ok(())
    })
}

async fn append_one(log: Log<MortalStore>, line: String) -> anyhow::Result<()> {
    let leaf = leaf_hash(line.as_bytes());
    let appended = log.append(line.into()).await?;
    Ok(writeln!(io::stdout(), "acked {} {leaf}", appended.index)?)
}
