//! A log whose network fails.

use std::time::Duration;

use fanlight_auditlog::sequencer::OpenError;
use fanlight_auditlog::store::ProbeError;
use fanlight_auditlog::{Config, Log, TokioTimer, create};
use fanlight_stores::open_reader;

use crate::log::{Running, check, entries, signer};
use crate::proxy::{Faults, Proxy};
use crate::server::{Kind, Server, location, run, store};

/// Logs that are tried at the same time.
const SEEDS: u64 = 12;

#[test]
fn nothing_acknowledged_is_lost_on_a_network_that_fails() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let logs = (0..SEEDS).map(|seed| appends_through_faults(&server, seed));
        let n_requests: u64 = futures_util::future::join_all(logs).await.into_iter().sum();
        println!("{SEEDS} seeds, {n_requests} requests, a quarter of them faulty");
    });
}

async fn appends_through_faults(server: &Server, seed: u64) -> u64 {
    let prefix = format!("log-{seed}");
    let index = tempfile::tempdir().unwrap();
    create(&server.store(&prefix, &index).await, &signer()).await.unwrap();

    let proxy = Proxy::start(&server.endpoint, Faults::seeded(seed)).await;
    let store = store(&proxy.endpoint, &prefix, &index).await;
    // Opening gives up on a network that fails too often; whoever runs a log starts it again.
    let (log, sequencer) = loop {
        let config = Config { max_delay: Duration::from_millis(20), ..Config::default() };
        match Log::open(store.clone(), signer(), config).await {
            Ok(opened) => break opened,
            Err(OpenError::Store(_) | OpenError::Probe(ProbeError::Store(_))) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    };
    let running = Running { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())) };
    let mut acknowledged = Vec::new();
    for wave in 0..3 {
        let entries = entries(&format!("seed {seed} wave {wave}"), 8);
        let appended = running.append(&entries).await;
        acknowledged.extend(entries.into_iter().zip(appended));
    }
    let Running { log, sequencer } = running;
    log.close().await;
    // Closing may give up as well, once everything is acknowledged.
    let _ = sequencer.await.unwrap();
    drop((log, store));
    let n_requests = proxy.requests();
    drop(proxy);

    // What came late has arrived, or finds the log moved on.
    Running::open(server.store(&prefix, &index).await).await.close().await;
    let reader = open_reader(&location(&prefix), Some(&server.endpoint)).await.unwrap();
    assert_eq!(check(&reader, &acknowledged).await, 24, "seed {seed}");
    n_requests
}
