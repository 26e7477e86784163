//! Witnesses: what waits for them, and what goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanlight_auditlog::sequencer::{NotCosigned, SequencerError};
use fanlight_auditlog::{AppendError, Config, Cosigner, CosignerKey, Log, Policy, Reader, TileSource, TokioTimer, create};
use tokio::time::sleep;

use crate::support::{Fault, MemoryStore, Running, check, check_log, config, entries, log_key, logged, signer};

const REFRESH_PERIOD: Duration = Duration::from_mins(10);

/// One witness in the same process, which checks like a real one that a log only grows.
#[derive(Clone, Debug)]
struct Witness {
    state: Arc<WitnessState>,
}

#[derive(Debug)]
struct WitnessState {
    key: CosignerKey,
    is_there: std::sync::atomic::AtomicBool,
    // Seconds since 1970, which may go back.
    clock: AtomicU64,
    n_asked: AtomicU64,
    last: Mutex<Option<fanlight_auditlog::VerifiedCheckpoint>>,
}

impl Witness {
    fn new() -> Self {
        let key = CosignerKey::ed25519("witness.example/w", &[9; 32]).unwrap();
        let (n_asked, last) = Default::default();
        let state = WitnessState { key, is_there: true.into(), clock: 1_000_000.into(), n_asked, last };
        Self { state: Arc::new(state) }
    }

    fn policy(&self) -> Policy {
        let (log, witness) = (log_key(), self.state.key.verifier_key());
        Policy::parse(format!("log {log}\nwitness w {witness}\nquorum w\n").as_bytes()).unwrap()
    }

    fn set(&self, is_there: bool) {
        self.state.is_there.store(is_there, Ordering::SeqCst);
    }

    fn n_asked(&self) -> u64 {
        self.state.n_asked.load(Ordering::SeqCst)
    }
}

impl Cosigner for Witness {
    async fn cosign<T: TileSource>(&self, reader: &Reader<T>) -> Result<String, NotCosigned> {
        self.state.n_asked.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        if !self.state.is_there.load(Ordering::SeqCst) {
            return Err(NotCosigned);
        }
        let last = self.state.last.lock().unwrap().clone();
        if let Some(last) = last {
            reader.verify_consistency(&last).await.map_err(|_| NotCosigned)?;
        }
        let checkpoint = reader.checkpoint();
        *self.state.last.lock().unwrap() = Some(checkpoint.clone());
        let line = self.state.key.cosign(checkpoint.checkpoint(), self.state.clock.load(Ordering::SeqCst)).unwrap();
        Ok(checkpoint.with_cosignatures([line]).unwrap().note().to_owned())
    }

    fn refresh_period(&self) -> Option<Duration> {
        Some(REFRESH_PERIOD)
    }
}

async fn open(store: &MemoryStore, witness: &Witness, config: Config) -> Running {
    let (log, sequencer) = Log::open_witnessed(store.clone(), signer(), config, witness.clone()).await.unwrap();
    Running { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())) }
}

async fn published(store: &MemoryStore) -> String {
    let note = store.get("checkpoint").await.unwrap().expect("a checkpoint");
    String::from_utf8(note.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_published_and_proven_is_cosigned() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let running = open(&store, &witness, config()).await;
    for entry in entries("entry", 3) {
        let appended = running.log.append(entry.clone()).await.unwrap();
        appended.tlog_proof.verify(&entry, &witness.policy()).unwrap();
        witness.policy().verify_checkpoint(published(&store).await.as_bytes()).unwrap();
        // A later proof is as good.
        running.log.prove(appended.index).await.unwrap().tlog_proof.verify(&entry, &witness.policy()).unwrap();
    }
    // The lock holds the log's own note.
    let mut lock = String::new();
    store.edit_lock(|bytes| lock = String::from_utf8(bytes.to_vec()).unwrap());
    assert!(!lock.contains("witness.example/w") && published(&store).await.starts_with(&lock));
    running.close().await;
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_without_a_quorum_and_nothing_is_lost() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let running = open(&store, &witness, Config { max_pool_entries: 4, ..config() }).await;
    running.log.append("before".into()).await.unwrap();
    witness.set(false);
    let before = published(&store).await;
    let during = entries("during", 8);
    let mut appends = Vec::new();
    for entry in during.clone() {
        let log = running.log.clone();
        appends.push(tokio::spawn(async move { log.append(entry).await }));
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(published(&store).await, before);
    // One committed round waits, the pool is full behind it, and says when to come back.
    let stats = running.log.stats();
    assert_eq!((stats.tree_size, stats.pool_entries, stats.rounds), (1, 4, 1));
    assert!(stats.not_cosigned > 3, "{stats:?}");
    match running.log.append("one too many".into()).await {
        Err(AppendError::Overloaded { retry_after }) => assert!(retry_after > Duration::from_secs(1), "{retry_after:?}"),
        other => panic!("{other:?}"),
    }
    witness.set(true);
    let mut n_refused = 0;
    for (entry, append) in during.iter().zip(appends) {
        match append.await.unwrap() {
            Ok(appended) => drop(appended.tlog_proof.verify(entry, &witness.policy()).unwrap()),
            Err(AppendError::Overloaded { .. }) => n_refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(n_refused, 3, "one under way, four in the pool");
    running.close().await;
    check_log(&store).await;
}

#[tokio::test(start_paused = true)]
async fn a_round_held_back_is_published_after_a_restart() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let running = open(&store, &witness, config()).await;
    running.log.append("before".into()).await.unwrap();
    witness.set(false);
    let log = running.log.clone();
    let append = tokio::spawn(async move { log.append("held back".into()).await });
    sleep(Duration::from_secs(5)).await;
    // Closing does not wait for ever.
    running.log.close().await;
    assert!(matches!(running.sequencer.await.unwrap(), Err(SequencerError::NotCosigned)));
    assert!(matches!(append.await.unwrap(), Err(AppendError::Stopped)));
    assert!(published(&store).await.contains("\n1\n"));

    let store = store.restarted();
    let running = open(&store, &witness, config()).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(running.log.checkpoint().tree_size(), 1, "still not published");
    assert_eq!(running.log.position(&fanlight_auditlog::leaf_hash(b"held back")).await.unwrap(), None);
    witness.set(true);
    let appended = running.log.append("held back".into()).await.unwrap();
    assert_eq!(appended.index, 1);
    appended.tlog_proof.verify(b"held back", &witness.policy()).unwrap();
    running.close().await;
    assert_eq!(logged(&store).await.len(), 2);
    assert!(!store.objects().keys().any(|key| key.starts_with("private/staging/")));
}

#[tokio::test(start_paused = true)]
async fn cosignatures_are_refreshed_while_nothing_is_appended() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let before = published(&store).await;
    let running = open(&store, &witness, config()).await;
    // The one that `create` published has none.
    sleep(Duration::from_secs(1)).await;
    let first = published(&store).await;
    assert!(first.starts_with(&before) && first.contains("witness.example/w"));
    running.log.append("entry".into()).await.unwrap();
    let mut latest = published(&store).await;
    for n in 1..=3 {
        witness.state.clock.fetch_add(600, Ordering::SeqCst);
        sleep(REFRESH_PERIOD + Duration::from_secs(1)).await;
        let refreshed = published(&store).await;
        assert_ne!(refreshed, latest, "refresh {n}");
        assert_eq!(refreshed.matches("witness.example/w").count(), 1);
        latest = refreshed;
    }
    assert_eq!(running.log.stats().refreshed, 4);
    assert_eq!(running.log.stats().rounds, 1);
    check(b"entry", &running.log.prove(0).await.unwrap());
    assert_eq!(running.log.prove(0).await.unwrap().tlog_proof.checkpoint(), latest);
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_without_quorum_holds_nothing_up() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let running = open(&store, &witness, config()).await;
    running.log.append("entry".into()).await.unwrap();
    let latest = published(&store).await;
    witness.set(false);
    let n_asked = witness.n_asked();
    sleep(REFRESH_PERIOD + Duration::from_mins(1)).await;
    assert_eq!(published(&store).await, latest, "the old cosignatures stay");
    assert!((4..10).contains(&(witness.n_asked() - n_asked)), "asked again, and not all the time");
    witness.set(true);
    sleep(Duration::from_secs(11)).await;
    let start = tokio::time::Instant::now();
    running.log.append("next".into()).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(200));
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_back_matters_to_nobody() {
    let (store, witness) = (MemoryStore::default(), Witness::new());
    create(&store, &signer()).await.unwrap();
    let running = open(&store, &witness, config()).await;
    for (n, time) in [2_000_000, 1_000, 1, u64::from(u32::MAX), 5].into_iter().enumerate() {
        witness.state.clock.store(time, Ordering::SeqCst);
        let entry = format!("{n}");
        let appended = running.log.append(entry.clone().into()).await.unwrap();
        appended.tlog_proof.verify(entry.as_bytes(), &witness.policy()).unwrap();
        sleep(REFRESH_PERIOD).await;
    }
    running.close().await;
    // The sequencer's own clock starts anew with every run.
    let running = open(&store.restarted(), &witness, config()).await;
    running.log.append("after".into()).await.unwrap();
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn crashes_around_the_witness_lose_nothing() {
    for n in 0..14 {
        for fault in [Fault::Dead, Fault::DoneThenDead, Fault::NotDone, Fault::Done] {
            let (store, witness) = (MemoryStore::default(), Witness::new());
            create(&store, &signer()).await.unwrap();
            let running = open(&store, &witness, config()).await;
            sleep(Duration::from_secs(1)).await;
            let mut count = 0;
            store.on_write(move |_| {
                count += 1;
                if count == n + 1 { fault } else { Fault::None }
            });
            let acknowledged = tokio::select! {
                appended = running.log.append("entry".into()) => appended.ok(),
                () = store.died() => None,
            };
            // Time for a refresh, too.
            witness.state.clock.fetch_add(1, Ordering::SeqCst);
            sleep(2 * REFRESH_PERIOD).await;
            running.sequencer.abort();
            let store = store.restarted();
            let running = open(&store, &witness, config()).await;
            running.append_and_check(&entries("more", 3)).await;
            let appended = running.log.append("entry".into()).await.unwrap();
            assert!(acknowledged.is_none_or(|acknowledged| acknowledged.index == appended.index));
            running.close().await;
            witness.policy().verify_checkpoint(published(&store).await.as_bytes()).unwrap();
            assert_eq!(logged(&store).await.len(), 4, "{fault:?} at {n}");
        }
    }
}

/// Returns what no cosigner should.
#[derive(Debug)]
struct Liar(&'static str);

impl Cosigner for Liar {
    async fn cosign<T: TileSource>(&self, reader: &Reader<T>) -> Result<String, NotCosigned> {
        let note = reader.checkpoint().note();
        Ok(match self.0 {
            "other" => signer().sign("log.example/test\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"),
            "unsigned" => note.split_once("\n\n").unwrap().0.to_owned() + "\n",
            _ => format!("{note}\u{2014} broken\n"),
        })
    }

    fn refresh_period(&self) -> Option<Duration> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_a_cosigner_returns_only_the_checkpoint_is_published() {
    for lie in ["other", "unsigned", "broken"] {
        let store = MemoryStore::default();
        create(&store, &signer()).await.unwrap();
        let before = published(&store).await;
        let (log, sequencer) = Log::open_witnessed(store.clone(), signer(), config(), Liar(lie)).await.unwrap();
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        tokio::time::timeout(Duration::from_mins(1), log.append("x".into())).await.unwrap_err();
        assert_eq!(published(&store).await, before, "{lie}");
        assert!(log.stats().not_cosigned > 1);
        running.abort();
    }
}
