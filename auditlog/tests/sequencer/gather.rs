//! The witnesses of a policy, asked by a sequencer: what they sign is kept, renewed, and waited for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::checkpoint::VerifiedCheckpoint;
use fanlight_auditlog::sequencer::{Cosigner as _, CreateError};
use fanlight_auditlog::witness::{AddCheckpoint, Answer, Mode, Post, PostError, Settings, Witnesses, write_cosignatures};
use fanlight_auditlog::{CosignerKey, Log, Policy, Reader, TileSource as _, TokioTimer, create};
use tokio::time::{Instant, sleep};

use crate::support::{MemoryStore, Running, config, log_key, signer};

const PERIOD: Duration = Duration::from_mins(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Away,
    Honest,
    Mute,
    /// Cosigns a size only once.
    Once,
}

/// A host that reaches two witnesses, `a` and `b`, without a network.
#[derive(Clone, Debug)]
struct Host(Arc<Mutex<[(Is, u64); 2]>>);

impl Host {
    fn new(a: Is, b: Is) -> Self {
        Self(Arc::new(Mutex::new([(a, u64::MAX), (b, u64::MAX)])))
    }

    fn set(&self, n: usize, is: Is) {
        self.0.lock().unwrap()[n].0 = is;
    }

    fn witnesses(&self, mode: Mode, period: Duration) -> Witnesses<Self, TokioTimer> {
        let settings = Settings { mode, refresh_period: period, ..Settings::default() };
        let (host, timer) = (self.clone(), TokioTimer::new());
        Witnesses::new(policy(), &log_key(), settings, host, timer, || 1_000_000).unwrap()
    }

    async fn open(&self, store: &MemoryStore, mode: Mode, period: Duration) -> Running {
        create(store, &signer()).await.unwrap();
        let witnesses = self.witnesses(mode, period);
        let (log, sequencer) = Log::open_witnessed(store.clone(), signer(), config(), witnesses).await.unwrap();
        Running { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())) }
    }
}

impl Post for Host {
    async fn post(&self, url: &str, body: Bytes) -> Result<Answer, PostError> {
        let n = usize::from(url.starts_with("http://b"));
        let checkpoint = VerifiedCheckpoint::verify(AddCheckpoint::parse(&body).unwrap().note().as_bytes(), &log_key()).unwrap();
        let (is, before) = self.0.lock().unwrap()[n];
        let status = match is {
            Is::Away => 503,
            Is::Mute => std::future::pending().await,
            Is::Once if before == checkpoint.tree_size() => 409,
            Is::Honest | Is::Once => 200,
        };
        let mut body = Bytes::new();
        if status == 200 {
            self.0.lock().unwrap()[n].1 = checkpoint.tree_size();
            body = write_cosignatures(&[keys()[n].cosign(checkpoint.checkpoint(), 1_000_000).unwrap()]).into();
        }
        Ok(Answer { status, content_type: None, body })
    }
}

fn keys() -> [CosignerKey; 2] {
    [("witness.example/a", 1), ("witness.example/b", 2)].map(|(name, seed)| CosignerKey::ed25519(name, &[seed; 32]).unwrap())
}

fn policy() -> Policy {
    let [a, b] = keys().map(|key| key.verifier_key());
    let text = format!("log {}\nwitness a {a} http://a\nwitness b {b} http://b\ngroup two all a b\nquorum two\n", log_key());
    Policy::parse(text.as_bytes()).unwrap()
}

async fn is_witnessed(store: &MemoryStore) -> bool {
    policy().verify_checkpoint(&store.get("checkpoint").await.unwrap().unwrap()).is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_cosigns_once_is_enough_however_late_the_other_comes() {
    let (store, host) = (MemoryStore::default(), Host::new(Is::Once, Is::Away));
    let running = host.open(&store, Mode::Required, PERIOD).await;
    let log = running.log.clone();
    let append = tokio::spawn(async move { log.append("entry".into()).await });
    sleep(Duration::from_mins(1)).await;
    assert!(!append.is_finished());
    host.set(1, Is::Honest);
    let appended = tokio::time::timeout(Duration::from_mins(1), append).await.unwrap().unwrap().unwrap();
    appended.tlog_proof.verify(b"entry", &policy()).unwrap();
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_log_is_cosigned_soon_after_an_outage() {
    let (store, host) = (MemoryStore::default(), Host::new(Is::Honest, Is::Away));
    let running = host.open(&store, Mode::FailOpen, PERIOD).await;
    running.log.append("entry".into()).await.unwrap();
    assert!(!is_witnessed(&store).await);
    host.set(1, Is::Honest);
    sleep(Duration::from_secs(12)).await;
    assert!(is_witnessed(&store).await);
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_says_whether_a_quorum_cosigned_now_and_asks_who_rests() {
    let (store, host) = (MemoryStore::default(), Host::new(Is::Honest, Is::Honest));
    create(&store, &signer()).await.unwrap();
    let witnesses = host.witnesses(Mode::FailOpen, PERIOD);
    let note = witnesses.cosign(&Reader::latest(&store, &log_key()).await.unwrap()).await.unwrap();
    let published = VerifiedCheckpoint::verify(note.as_bytes(), &log_key()).unwrap();
    let reader = Reader::at(&store, published).await.unwrap();
    for (b, is_complete) in
        [(Is::Honest, true), (Is::Away, false), (Is::Honest, true), (Is::Mute, false), (Is::Once, true), (Is::Once, true)]
    {
        host.set(1, b);
        let refreshed = witnesses.refresh(&reader).await.unwrap();
        assert_eq!(refreshed.is_complete, is_complete, "{b:?}");
        policy().verify_checkpoint(refreshed.note.as_bytes()).unwrap();
    }
    assert_eq!(witnesses.passed_without_quorum(), 0, "nothing passed");
}

#[tokio::test(start_paused = true)]
async fn those_who_rest_share_the_time_of_the_others() {
    let (store, host) = (MemoryStore::default(), Host::new(Is::Mute, Is::Away));
    create(&store, &signer()).await.unwrap();
    let witnesses = host.witnesses(Mode::Required, PERIOD);
    let reader = Reader::latest(&store, &log_key()).await.unwrap();
    // `a` has rested by then; `b` rests again.
    witnesses.cosign(&reader).await.unwrap_err();
    witnesses.cosign(&reader).await.unwrap_err();
    sleep(Duration::from_millis(1500)).await;
    let start = Instant::now();
    witnesses.cosign(&reader).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_millis(1001), "{:?}", start.elapsed());
    let asked: u64 = witnesses.reports().iter().map(|report| report.timed_out + report.failed).sum();
    assert_eq!(asked, 6, "both were asked each time");
}

#[tokio::test(start_paused = true)]
async fn no_period_is_too_long() {
    let (store, host) = (MemoryStore::default(), Host::new(Is::Honest, Is::Honest));
    let running = host.open(&store, Mode::Required, Duration::MAX).await;
    running.log.append("entry".into()).await.unwrap();
    running.log.append("next".into()).await.unwrap();
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_is_not_created_over_the_tiles_of_another() {
    for key in ["tile/0/000", "tile/0/000.p/7", "tile/entries/000", "tile/entries/000.p/7"] {
        let store = MemoryStore::default();
        store.edit(|objects| drop(objects.insert(key.to_owned(), Bytes::from_static(b"other"))));
        assert!(matches!(create(&store, &signer()).await, Err(CreateError::Leftovers)), "{key}");
    }
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    assert!(matches!(create(&store, &signer()).await, Err(CreateError::Exists)));
    // The answer of the lock was lost, or a crash came before the checkpoint.
    store.edit(|objects| drop(objects.remove("checkpoint")));
    create(&store, &signer()).await.unwrap();
}
