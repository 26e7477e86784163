//! Appends to logs in buckets, beside what the server does with plain writes: one JSON line for each figure.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::unwrap_used, reason = "a server that fails ends the bench")]

#[path = "../tests/s3/server.rs"]
mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanlight_auditlog::{Config, Log, ObjectStore as _, Signer, TokioTimer, create};
use fanlight_stores::AnyStore;
use futures_util::future::try_join_all;
use serde_json::json;
use server::{Kind, Server};

/// How long each figure is measured.
const DURATION: Duration = Duration::from_secs(8);

const ENTRY_LEN: usize = 1024;

/// Entries on their way at the same time.
const APPENDERS: u64 = 1024;

fn main() {
    server::run(async {
        for (kind, name) in [(Kind::Ministack, "ministack"), (Kind::Moto, "moto")] {
            let server = Server::start(kind).await;
            let index = tempfile::tempdir().unwrap();
            let store = server.store("log", &index).await;
            let puts = puts_per_second(&store).await;
            append(store, name, puts).await;
        }
    });
}

/// What the server takes one after the other, each as long as an entry.
async fn puts_per_second(store: &AnyStore) -> f64 {
    let bytes = Bytes::from(vec![7; ENTRY_LEN]);
    let (start, mut n) = (Instant::now(), 0u32);
    while start.elapsed() < DURATION / 2 {
        store.put_new(&format!("private/bench/{n}"), bytes.clone()).await.unwrap();
        n += 1;
    }
    f64::from(n) / start.elapsed().as_secs_f64()
}

/// Every appender sends its next entry once the one before is in a published checkpoint.
async fn append(store: AnyStore, name: &str, puts: f64) {
    let signer = Signer::new("log.example/bench", &[1; 32]).unwrap();
    create(&store, &signer).await.unwrap();
    let (log, sequencer) = Log::open(store, signer, Config::default()).await.unwrap();
    let running = tokio::spawn(sequencer.run(TokioTimer::new()));
    let start = Instant::now();
    let appenders = (0..APPENDERS).map(|appender| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            for number in 0u64.. {
                if start.elapsed() > DURATION {
                    break;
                }
                let mut entry = vec![0; ENTRY_LEN];
                entry[..8].copy_from_slice(&appender.to_be_bytes());
                entry[8..16].copy_from_slice(&number.to_be_bytes());
                let sent = Instant::now();
                log.append(entry.into()).await.unwrap();
                latencies.push(sent.elapsed());
            }
            latencies
        })
    });
    let mut latencies = try_join_all(appenders).await.unwrap().concat();
    let elapsed = start.elapsed();
    log.close().await;
    running.await.unwrap().unwrap();

    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    let name = format!("auditlog/append/s3-{name}");
    let baseline_name = "plain writes of 1 KiB, one after the other";
    println!(
        "{}",
        json!({"name": format!("{name}/rate"), "value": rate, "unit": "entries/s", "baseline": puts, "baseline_name": baseline_name})
    );
    println!("{}", json!({"name": format!("{name}/p50"), "value": percentile(50), "unit": "ms"}));
    println!("{}", json!({"name": format!("{name}/p99"), "value": percentile(99), "unit": "ms"}));
}
