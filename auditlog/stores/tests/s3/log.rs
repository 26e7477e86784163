//! Whole logs in buckets.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::fsck::{Options, fsck};
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::sequencer::SequencerError;
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{
    AppendError, Appended, Config, Log, Policy, Reader, Signer, TileSource, TokioTimer, VerifierKey, create,
};
use fanlight_stores::{AnyStore, open_reader};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::server::{Kind, Server, location, run};

pub(crate) fn signer() -> Signer {
    Signer::new("log.example/s3", &[1; 32]).expect("a name")
}

pub(crate) fn log_key() -> VerifierKey {
    signer().verifier_key()
}

/// A log and what runs it.
pub(crate) struct Running {
    pub(crate) log: Log<AnyStore>,
    pub(crate) sequencer: JoinHandle<Result<(), SequencerError>>,
}

impl Running {
    pub(crate) async fn open(store: AnyStore) -> Self {
        let config = Config { max_delay: Duration::from_millis(20), ..Config::default() };
        let (log, sequencer) = Log::open(store, signer(), config).await.expect("the log opens");
        Self { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())) }
    }

    /// Appends them all at once, and checks the proof of each.
    pub(crate) async fn append(&self, entries: &[Bytes]) -> Vec<Appended> {
        let appended = join_all(entries.iter().map(|entry| self.append_one(entry))).await;
        for (entry, appended) in entries.iter().zip(&appended) {
            let verified = appended.tlog_proof.verify(entry, &Policy::for_log(log_key())).expect("a proof that holds");
            assert_eq!(verified.index(), appended.index);
        }
        appended
    }

    /// Asks again when the proof was not read, as a client does that is answered so.
    async fn append_one(&self, entry: &Bytes) -> Appended {
        loop {
            match self.log.append(entry.clone()).await {
                Err(AppendError::Read(ReadError::Store(_))) => {}
                appended => return appended.expect("the log takes it"),
            }
        }
    }

    pub(crate) async fn close(self) {
        self.log.close().await;
        self.sequencer.await.expect("no panic").expect("the log goes on to its end");
    }
}

pub(crate) fn entries(prefix: &str, n: usize) -> Vec<Bytes> {
    (0..n).map(|n| format!("{prefix} {n}").into()).collect()
}

/// Every byte of the log holds, and everything acknowledged stands where it was said to.
pub(crate) async fn check(store: &impl TileSource, acknowledged: &[(Bytes, Appended)]) -> u64 {
    let reader = Reader::latest(store, &log_key()).await.expect("a checkpoint");
    let checkpoint = reader.checkpoint();
    let report = fsck(store, checkpoint, Options::default(), &Inline, |_| {}).await.expect("the log is read");
    assert!(report.is_good(), "{report:?}");
    for (entry, appended) in acknowledged {
        assert_eq!(reader.entry(appended.index).await.expect("an entry"), entry);
    }
    reader.checkpoint().tree_size()
}

#[test]
fn a_log_in_moto() {
    run(a_log(Kind::Moto));
}

#[test]
fn a_log_in_ministack() {
    run(a_log(Kind::Ministack));
}

async fn a_log(kind: Kind) {
    let server = Server::start(kind).await;
    let index = tempfile::tempdir().unwrap();
    create(&server.store("log", &index).await, &signer()).await.unwrap();
    let mut acknowledged = Vec::new();
    // Past a full tile, over restarts; each one appends the entries of the one before again.
    let mut before = Vec::new();
    for run in 0..3 {
        let running = Running::open(server.store("log", &index).await).await;
        let new = entries(&format!("run {run}"), 120);
        let again = running.append(&before).await;
        for (appended, (_, first)) in again.iter().zip(acknowledged.iter().skip(acknowledged.len() - before.len())) {
            let first: &Appended = first;
            assert_eq!(appended.index, first.index, "an entry is logged once");
        }
        let appended = running.append(&new).await;
        acknowledged.extend(new.iter().cloned().zip(appended));
        running.close().await;
        before = new;
    }
    let reader = open_reader(&location("log"), Some(&server.endpoint)).await.unwrap();
    assert_eq!(check(&reader, &acknowledged).await, 360);
}

#[test]
fn two_sequencers_on_one_bucket_never_fork() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        create(&server.store("log", &dirs[0]).await, &signer()).await.unwrap();
        let (a, b) = (server.store("log", &dirs[0]).await, server.store("log", &dirs[1]).await);
        let (a, b) = tokio::join!(Running::open(a), Running::open(b));
        let mut acknowledged = Vec::new();
        for wave in 0..4 {
            let (for_a, for_b) = (entries(&format!("a {wave}"), 10), entries(&format!("b {wave}"), 10));
            let (by_a, by_b) = tokio::join!(a.append(&for_a), b.append(&for_b));
            acknowledged.extend(for_a.into_iter().zip(by_a));
            acknowledged.extend(for_b.into_iter().zip(by_b));
        }
        tokio::join!(a.close(), b.close());
        // The one that published last may have published an older checkpoint; the next round, or opening, makes it good.
        Running::open(server.store("log", &dirs[0]).await).await.close().await;
        let reader = open_reader(&location("log"), Some(&server.endpoint)).await.unwrap();
        let size = check(&reader, &acknowledged).await;
        let indices: BTreeSet<_> = acknowledged.iter().map(|(_, appended)| appended.index).collect();
        assert_eq!((indices.len(), size), (80, 80), "each entry has an index of its own");
    });
}
