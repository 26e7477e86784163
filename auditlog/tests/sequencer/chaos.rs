//! A life of crashes: each seed kills the log at random writes, over and over, between random faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::{Reader, create};

use crate::support::{Fault, MemoryStore, Random, Running, check, check_log, entries, log_key, logged, signer};

/// How many lives, and deaths in each.
const SEEDS: u64 = 20;
const DEATHS: usize = 12;

/// What was acknowledged: where each entry stands for ever.
type Acknowledged = Arc<Mutex<BTreeMap<u64, Bytes>>>;

#[tokio::test(start_paused = true)]
async fn no_life_of_crashes_loses_what_was_acknowledged() {
    let mut n_acknowledged = 0;
    for seed in 0..SEEDS {
        n_acknowledged += life(seed).await;
    }
    assert!(n_acknowledged > 100 * usize::try_from(SEEDS).unwrap(), "{n_acknowledged}");
}

async fn life(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut store = MemoryStore::default();
    create(&store, &signer()).await.unwrap();
    let acknowledged = Acknowledged::default();
    let mut published = Reader::latest(store.clone(), &log_key()).await.unwrap().checkpoint().clone();
    for death in 0..DEATHS {
        let mut faults = Random::new(random.below(u64::MAX));
        let mut latency = faults.clone();
        let (deadly, percent_failing) = (3 + random.below(120), random.below(15));
        let mut n = 0;
        store.slow_down(move || Duration::from_millis(latency.below(4)));
        store.on_write(move |_| {
            n += 1;
            match faults.below(100) {
                _ if n == deadly => [Fault::Dead, Fault::DoneThenDead][usize::try_from(n % 2).unwrap()],
                0..4 if percent_failing > 10 => Fault::Late(1 + u32::try_from(faults.below(40)).unwrap()),
                x if x < percent_failing => [Fault::NotDone, Fault::Done][usize::try_from(x % 2).unwrap()],
                _ => Fault::None,
            }
        });
        live_until_death(&store, &acknowledged, seed, death, &mut random).await;

        // After the crash: nothing acknowledged is gone, and the published log goes on from what it was.
        store = store.restarted();
        let reader = Reader::latest(store.clone(), &log_key()).await.unwrap();
        reader.verify_consistency(&published).await.unwrap();
        published = reader.checkpoint().clone();
        check_log(&store).await;
        let logged = logged(&store).await;
        for (index, entry) in &*acknowledged.lock().unwrap() {
            assert_eq!(logged.get(usize::try_from(*index).unwrap()), Some(entry), "seed {seed}, death {death}");
        }
    }
    let running = Running::open(&store).await;
    running.close().await;
    check_log(&store).await;
    let mut entries = logged(&store).await;
    let n = entries.len();
    entries.sort();
    entries.dedup();
    assert_eq!(entries.len(), n, "seed {seed}: an entry is logged twice");
    acknowledged.lock().unwrap().len()
}

async fn live_until_death(store: &MemoryStore, acknowledged: &Acknowledged, seed: u64, death: usize, random: &mut Random) {
    let Ok((log, sequencer)) = fanlight_auditlog::Log::open(store.clone(), signer(), crate::support::config()).await else {
        // It died while it was opened, or met a fault that it does not survive then.
        return;
    };
    let sequencer = tokio::spawn(sequencer.run(fanlight_auditlog::TokioTimer::new()));
    let mut appenders = Vec::new();
    for appender in 0..=random.below(40) {
        let (log, acknowledged) = (log.clone(), Arc::clone(acknowledged));
        let mut random = Random::new(random.below(u64::MAX));
        appenders.push(tokio::spawn(async move {
            for entry in entries(&format!("{seed} {death} {appender}"), 1000) {
                // Now and then one that another life has sent, with or without answer.
                let entry = match random.below(10) {
                    0 => Bytes::from(format!("{seed} {} {appender} {}", random.below(death as u64 + 1), random.below(5))),
                    _ => entry,
                };
                if let Ok(appended) = log.append(entry.clone()).await {
                    check(&entry, &appended);
                    let before = acknowledged.lock().unwrap().insert(appended.index, entry.clone());
                    assert!(before.is_none_or(|before| before == entry), "one position, one entry");
                }
                tokio::time::sleep(Duration::from_millis(random.below(30))).await;
            }
        }));
    }
    // Some are closed in time.
    let closing = Duration::from_millis(200 + random.below(3000));
    tokio::select! {
        () = store.died() => {}
        () = tokio::time::sleep(closing) => log.close().await,
    }
    sequencer.abort();
    for appender in appenders {
        appender.abort();
        if let Err(error) = appender.await {
            assert!(error.is_cancelled(), "seed {seed}, death {death}: {error}");
        }
    }
}
