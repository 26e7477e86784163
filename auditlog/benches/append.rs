//! Appends to a log in a directory: one JSON line for each figure on standard output.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanlight_auditlog::{Config, DirStore, Log, Signer, create};

/// How long each figure is measured.
const DURATION: Duration = Duration::from_secs(5);

const ENTRY_LEN: usize = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for appenders in [256, 4096] {
        runtime.block_on(measure(appenders))?;
    }
    Ok(())
}

/// Every appender sends its next entry once the one before is in a published checkpoint.
async fn measure(appenders: usize) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = DirStore::open_writer(dir.path())?;
    let signer = Signer::new("log.example/bench", &[1; 32])?;
    create(&store, &signer).await?;
    let (log, sequencer) = Log::open(store, signer, Config::default()).await?;
    let running = tokio::spawn(sequencer.run(tokio::time::sleep));

    let start = Instant::now();
    let tasks: Vec<_> = (0..appenders as u64)
        .map(|appender| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut number = 0u64;
                while start.elapsed() < DURATION {
                    let mut entry = vec![0; ENTRY_LEN];
                    entry[..8].copy_from_slice(&appender.to_be_bytes());
                    entry[8..16].copy_from_slice(&number.to_be_bytes());
                    let sent = Instant::now();
                    log.append(Bytes::from(entry)).await?;
                    latencies.push(sent.elapsed());
                    number += 1;
                }
                Ok::<_, fanlight_auditlog::AppendError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = start.elapsed();
    log.close().await;
    running.await??;

    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    let line = |name: &str, value: f64, unit: &str| {
        println!("{{\"name\":\"auditlog/append/dir/{appenders}/{name}\",\"value\":{value:.1},\"unit\":\"{unit}\"}}");
    };
    line("rate", rate, "entries/s");
    line("p50", percentile(50), "ms");
    line("p99", percentile(99), "ms");
    Ok(())
}
