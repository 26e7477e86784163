//! When rounds start, and what they take.

use std::time::Duration;

use fanlight_auditlog::{Config, create};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::support::{MemoryStore, Random, Running, check_log, entries, signer};

const MAX_DELAY: Duration = Duration::from_millis(250);

async fn open(store: &MemoryStore, config: Config) -> Running {
    create(store, &signer()).await.unwrap();
    Running::open_with(store, config).await
}

fn paced(min_period: Duration) -> Config {
    Config { min_period, max_delay: MAX_DELAY, ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn a_sparse_log_waits_for_the_delay_and_no_longer() {
    let store = MemoryStore::default();
    let running = open(&store, paced(Duration::ZERO)).await;
    for (n, pause) in [0, 10, 3000].into_iter().enumerate() {
        sleep(Duration::from_millis(pause)).await;
        let start = Instant::now();
        running.log.append(format!("{n}").into()).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), MAX_DELAY.as_millis(), "entry {n}");
    }
    // The oldest sets the time for all.
    let start = Instant::now();
    let late = async {
        sleep(Duration::from_millis(200)).await;
        running.log.append("late".into()).await.unwrap();
        start.elapsed()
    };
    let (early, late) = tokio::join!(running.log.append("early".into()), late);
    early.unwrap();
    assert_eq!(late.as_millis(), MAX_DELAY.as_millis());
    assert_eq!(running.log.stats().rounds, 4);
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_writes_nothing() {
    let store = MemoryStore::default();
    let running = open(&store, paced(Duration::ZERO)).await;
    let before = store.n_writes();
    sleep(Duration::from_hours(24)).await;
    assert_eq!(store.n_writes(), before);
    assert_eq!(running.log.stats().rounds, 0);
    running.close().await;
    assert_eq!(store.n_writes(), before);
}

#[tokio::test(start_paused = true)]
async fn a_completed_tile_does_not_wait() {
    let store = MemoryStore::default();
    let running = open(&store, paced(Duration::ZERO)).await;
    let start = Instant::now();
    running.append_and_check(&entries("whole", 256)).await;
    assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
    // The tile that 44 more would begin is left for later.
    running.append_and_check(&entries("more", 300)).await;
    assert_eq!(start.elapsed().as_millis() / 10 * 10, MAX_DELAY.as_millis());
    let sizes: Vec<_> = store.objects().into_keys().filter(|key| key.starts_with("tile/entries/")).collect();
    assert_eq!(sizes, ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/44"]);
    assert_eq!(running.log.stats().rounds, 3);
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_steady_load_writes_full_tiles_only() {
    let store = MemoryStore::default();
    let running = open(&store, paced(Duration::from_millis(10))).await;
    let mut random = Random::new(1);
    // 2,000 entries/s for 20 s.
    let mut appends = Vec::new();
    for n in 0..40_000 {
        let log = running.log.clone();
        appends.push(tokio::spawn(async move {
            let start = Instant::now();
            log.append(format!("{n}").into()).await.unwrap();
            start.elapsed()
        }));
        // Timers count whole milliseconds.
        if random.chance(50) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let mut slowest = Duration::ZERO;
    for append in appends {
        slowest = slowest.max(append.await.unwrap());
    }
    assert!(slowest <= MAX_DELAY + Duration::from_millis(20), "{slowest:?}");
    let stats = running.log.stats();
    assert_eq!(stats.tree_size, 40_000);
    // 156 whole tiles and the rest of a last one.
    assert!((100..=158).contains(&stats.rounds), "{}", stats.rounds);
    let bundles = store.n_writes()["tile/entries/"];
    assert!(bundles <= 158, "{bundles} bundles for 157");
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 40_000);
}

#[tokio::test(start_paused = true)]
async fn a_half_full_pool_does_not_wait() {
    for (max_pool_entries, max_pool_bytes) in [(20, 1_000_000), (10_000, 80)] {
        let store = MemoryStore::default();
        let running = open(&store, Config { max_pool_entries, max_pool_bytes, ..paced(Duration::ZERO) }).await;
        let start = Instant::now();
        running.append_and_check(&entries("four", 10)).await;
        assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
        running.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_keep_their_distance() {
    const MIN_PERIOD: Duration = Duration::from_secs(1);
    let store = MemoryStore::default();
    let running = open(&store, paced(MIN_PERIOD)).await;
    let start = Instant::now();
    for n in 0..5 {
        // Each completes a tile.
        running.append_and_check(&entries(&format!("{n}"), 256)).await;
        let (elapsed, least) = (start.elapsed(), MIN_PERIOD * n);
        assert!(elapsed >= least && elapsed < least + Duration::from_millis(20), "{elapsed:?}");
    }
    // A single one waits for the distance too, where that is longer than the delay.
    running.log.append("one".into()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
    running.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_ran_full_says_when_to_come_back() {
    let store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    store.slow_down(|| Duration::from_millis(100));
    let config = Config { max_pool_entries: 8, min_period: Duration::from_millis(50), ..paced(Duration::ZERO) };
    let running = Running::open_with(&store, config).await;
    running.append_and_check(&entries("first", 4)).await;
    let appends = entries("all", 40).into_iter().map(|entry| {
        let log = running.log.clone();
        tokio::spawn(async move {
            loop {
                match log.append(entry.clone()).await {
                    Err(fanlight_auditlog::AppendError::Overloaded { retry_after }) => {
                        // About as long as the round before.
                        assert!((0.2..3.0).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
                        sleep(retry_after).await;
                    }
                    other => return other.map(drop),
                }
            }
        })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    assert!(running.log.stats().overloaded > 0);
    running.close().await;
    assert_eq!(check_log(&store).await.checkpoint().tree_size(), 44);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes when: nothing waits longer than the delay and a round, no round is empty, and their number is
    /// bounded by what the pace allows.
    #[test]
    fn any_load_keeps_the_pace(
        bursts in prop::collection::vec((0..600u64, 1..300usize), 1..20),
        min_period in 0..200u64,
        latency in 0..10u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::default();
            let min_period = Duration::from_millis(min_period);
            let running = open(&store, paced(min_period)).await;
            store.slow_down(move || Duration::from_millis(latency));
            let start = Instant::now();
            let mut appends = Vec::new();
            for (n, (pause, size)) in bursts.iter().enumerate() {
                sleep(Duration::from_millis(*pause)).await;
                for entry in entries(&format!("{n}"), *size) {
                    let log = running.log.clone();
                    appends.push(tokio::spawn(async move {
                        let start = Instant::now();
                        log.append(entry).await.unwrap();
                        start.elapsed()
                    }));
                }
            }
            let n = appends.len() as u64;
            // Two rounds of at most some 40 serial steps, sixteen at a time: the one under way and the entry's own.
            let longest = MAX_DELAY + min_period + 2 * Duration::from_millis(1 + latency * 40);
            for append in appends {
                let waited = append.await.unwrap();
                assert!(waited <= longest, "{waited:?} > {longest:?}");
            }
            let stats = running.log.stats();
            assert_eq!((stats.appended, stats.tree_size, stats.failed_rounds), (n, n, 0));
            assert!(stats.rounds <= n, "no round is empty");
            let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap();
            let by_period = elapsed.checked_div(u64::try_from(min_period.as_millis()).unwrap()).unwrap_or(u64::MAX);
            let by_size = n / 256 + 1 + elapsed / 250 + 1;
            assert!(stats.rounds <= by_period.saturating_add(1) && stats.rounds <= by_size, "{} rounds", stats.rounds);
            running.close().await;
            check_log(&store).await;
        });
    }
}
