//! Runs a log in a directory and kills its own process with SIGKILL at a chosen operation of the store.
//!
//! ```text
//! chaos_child DIR --seed N [--kill-at N] [--entries N] [--entry-len BYTES]
//! ```
//! Creates the log in DIR if there is none (origin `log.example/chaos`, a fixed key; prints `vkey <vkey>`), then appends
//! `--entries` entries (default 2,000) of `--entry-len` bytes (default 64) from 64 appenders. The seed decides the
//! entries, a tenth of which other seeds of the same ten send as well. Operation `--kill-at` of the store, counted from
//! 1 and every read, write, listing and index operation as one, is the last: an even seed dies before it is done, an odd
//! one right after. Without `--kill-at` the process ends by itself.
//!
//! On standard output, each line at once:
//!
//! ```text
//! acked <index> <leaf hash in hex>    a published checkpoint includes it: it must be there ever after
//! stalled                             the store fails, for example because the disk is full; entries wait
//! closed <tree size> <operations>     the log was closed in order; the exit code is 0
//! ```
//! On a full disk the process waits. Once there is space again it goes on, and ends with every entry acknowledged.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::store::{LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{
    AppendError, Config, DirStore, Hash, LeafIndex, Lock, Log, ObjectStore, Signer, TileSource, TokioTimer, create, leaf_hash,
};

const APPENDERS: u64 = 64;

struct Args {
    dir: String,
    seed: u64,
    kill_at: Option<u64>,
    entries: u64,
    entry_len: usize,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let dir = words.next().ok_or("usage: chaos_child DIR --seed N [--kill-at N] [--entries N] [--entry-len BYTES]")?;
    let mut args = Args { dir, seed: 0, kill_at: None, entries: 2000, entry_len: 64 };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or("a flag without value")?;
        match flag.as_str() {
            "--seed" => args.seed = value.parse()?,
            "--kill-at" => args.kill_at = Some(value.parse()?),
            "--entries" => args.entries = value.parse()?,
            "--entry-len" => args.entry_len = value.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    Ok(args)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let signer = || Signer::new("log.example/chaos", &[5; 32]);
    print(&format!("vkey {}", signer()?.verifier_key()));
    let dir = DirStore::open_writer(&args.dir)?;
    // A log that a crash left without its lock has not begun.
    if dir.load().await?.is_none() {
        create(&dir, &signer()?).await?;
    }
    let operations = Arc::new(AtomicU64::new(0));
    let dies_before = args.seed.is_multiple_of(2);
    let store = Mortal { dir, operations: Arc::clone(&operations), last: args.kill_at.unwrap_or(u64::MAX), dies_before };
    let config = Config { max_delay: Duration::from_millis(20), max_pool_entries: 256, ..Config::default() };
    let (log, sequencer) = Log::open(store, signer()?, config).await?;
    let running = tokio::spawn(sequencer.run(TokioTimer::new()));

    let watched = log.clone();
    let watch = tokio::spawn(async move {
        while watched.stats().failed_rounds == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        print("stalled");
    });
    let appenders = (0..APPENDERS).map(|appender| {
        let (log, args) = (log.clone(), (args.seed, args.entries, args.entry_len));
        tokio::spawn(async move {
            let (seed, n, len) = args;
            for number in (appender..n).step_by(usize::try_from(APPENDERS).expect("64")) {
                append(&log, entry(seed, number, len)).await?;
            }
            Ok::<_, AppendError>(())
        })
    });
    for appender in appenders.collect::<Vec<_>>() {
        appender.await??;
    }
    watch.abort();
    log.close().await;
    running.await??;
    print(&format!("closed {} {}", log.checkpoint().tree_size(), operations.load(Ordering::SeqCst)));
    Ok(())
}

/// Entry `number` of a run; every tenth is the same for seeds that share all but their last digit.
fn entry(seed: u64, number: u64, len: usize) -> Bytes {
    let run = if number.is_multiple_of(10) { seed / 10 * 10 } else { seed };
    let mut entry = format!("{run} {number} ").into_bytes();
    entry.resize(len.max(entry.len()), b'.');
    entry.into()
}

async fn append(log: &Log<Mortal>, entry: Bytes) -> Result<(), AppendError> {
    loop {
        match log.append(entry.clone()).await {
            Ok(appended) => {
                print(&format!("acked {} {}", appended.index, leaf_hash(&entry).to_hex()));
                return Ok(());
            }
            Err(AppendError::Overloaded { retry_after }) => tokio::time::sleep(retry_after).await,
            Err(error) => return Err(error),
        }
    }
}

fn print(line: &str) {
    // A parent that went away reads nothing, which is its business.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A directory whose user dies at its last operation.
#[derive(Clone, Debug)]
struct Mortal {
    dir: DirStore,
    operations: Arc<AtomicU64>,
    last: u64,
    dies_before: bool,
}

impl Mortal {
    async fn operate<T>(&self, operation: impl Future<Output = T>) -> T {
        let is_last = self.operations.fetch_add(1, Ordering::SeqCst) + 1 == self.last;
        if is_last && self.dies_before {
            die();
        }
        let done = operation.await;
        if is_last {
            die();
        }
        done
    }
}

/// Ends the process as a power cut would, as far as a process can: nothing is flushed, nothing unwinds.
fn die() -> ! {
    let pid = std::process::id().to_string();
    loop {
        let killed = Command::new("kill").args(["-9", &pid]).status();
        assert!(killed.is_ok(), "there is no `kill` command");
    }
}

impl TileSource for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.operate(self.dir.get(key)).await
    }
}

impl ObjectStore for Mortal {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.operate(self.dir.put_new(key, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.operate(self.dir.put(key, bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.operate(self.dir.delete(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.operate(self.dir.list(prefix)).await
    }
}

impl Lock for Mortal {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.operate(self.dir.load()).await
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.operate(Lock::create(&self.dir, bytes)).await
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        self.operate(self.dir.swap(token, bytes)).await
    }
}

impl LeafIndex for Mortal {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.operate(self.dir.indexed()).await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.operate(self.dir.positions(leaves)).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.operate(self.dir.extend(first, leaves)).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.operate(self.dir.clear()).await
    }
}
