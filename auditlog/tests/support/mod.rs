//! A store in memory that enforces the contract and fails on command, and a log on top of it.
#![allow(dead_code, unused_imports, clippy::allow_attributes, reason = "each test binary uses a part, and some use all")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "shared by test binaries through `mod support`")]

mod memory;

use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::fsck::{FsckReport, Leftovers, Options, fsck};
use fanlight_auditlog::reader::{ReadError, latest_checkpoint};
use fanlight_auditlog::sequencer::SequencerError;
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{
    AppendError, Appended, Config, Log, ObjectStore, Policy, Reader, Signer, TileSource, TokioTimer, VerifierKey, create,
};
use futures_util::TryStreamExt as _;
use tokio::task::JoinHandle;

pub use memory::{Fault, MemoryStore};

pub const ORIGIN: &str = "log.example/test";

pub fn signer() -> Signer {
    Signer::new(ORIGIN, &[42; 32]).unwrap()
}

pub fn log_key() -> VerifierKey {
    signer().verifier_key()
}

/// A pace at which tests with a paused clock and tests with a real one are both quick.
pub fn config() -> Config {
    Config { min_period: Duration::ZERO, max_delay: Duration::from_millis(5), ..Config::default() }
}

/// Every proof of every entry that was appended must hold.
pub fn check(entry: &[u8], appended: &Appended) {
    let verified = appended.tlog_proof.verify(entry, &Policy::for_log(log_key())).unwrap();
    assert_eq!(verified.index(), appended.index);
}

/// Every byte of a log must hold.
pub async fn check_log(store: &impl ObjectStore) -> FsckReport {
    let report = verify(store).await.unwrap();
    assert!(report.is_good(), "{:?}", report.damage());
    report
}

/// What `fsck` finds, leftovers included.
pub async fn verify(store: &impl ObjectStore) -> Result<FsckReport, ReadError> {
    let checkpoint = latest_checkpoint(store, &log_key()).await?;
    let options = Options { leftovers: Leftovers::list(store).await?, resume: None };
    Ok(fsck(store, &checkpoint, options, &Inline, |_| {}).await.unwrap())
}

/// All entries of a log, in order.
pub async fn logged(source: &impl TileSource) -> Vec<Bytes> {
    let reader = Reader::latest(source, &log_key()).await.unwrap();
    reader.entries(0..u64::MAX).map_ok(|(_, entry)| entry).try_collect().await.unwrap()
}

/// A created and opened log with its sequencer running.
#[derive(Debug)]
pub struct Running {
    pub log: Log<MemoryStore>,
    pub sequencer: JoinHandle<Result<(), SequencerError>>,
}

impl Running {
    pub async fn create(store: &MemoryStore) -> Self {
        create(store, &signer()).await.expect("an empty store");
        Self::open(store).await
    }

    pub async fn open(store: &MemoryStore) -> Self {
        Self::open_with(store, config()).await
    }

    pub async fn open_with(store: &MemoryStore, config: Config) -> Self {
        let (log, sequencer) = Log::open(store.clone(), signer(), config).await.unwrap();
        Self { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())) }
    }

    pub async fn close(self) {
        self.log.close().await;
        self.sequencer.await.unwrap().unwrap();
    }

    /// Appends all entries at once; each result stands where its entry does.
    pub async fn append_all(&self, entries: &[Bytes]) -> Vec<Result<Appended, AppendError>> {
        futures_util::future::join_all(entries.iter().map(|entry| self.log.append(entry.clone()))).await
    }

    /// Appends all entries at once, and checks their proofs.
    pub async fn append_and_check(&self, entries: &[Bytes]) {
        for (entry, appended) in entries.iter().zip(self.append_all(entries).await) {
            check(entry, &appended.unwrap());
        }
    }

    /// Returns once a checkpoint of this size is published.
    pub async fn published(&self, tree_size: u64) {
        while self.log.checkpoint().tree_size() < tree_size {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub fn entries(prefix: &str, n: usize) -> Vec<Bytes> {
    (0..n).map(|i| Bytes::from(format!("{prefix} {i}"))).collect()
}

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
