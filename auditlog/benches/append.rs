//! Appending to a log in a directory, what it takes as the log grows, and what it writes: one JSON line for each figure
//! on standard output.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanlight_auditlog::{AppendError, Config, DirStore, Log, Signer, TokioTimer, create};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};

use support::{MemoryStore, Running};

/// How long each rate is measured.
const DURATION: Duration = Duration::from_secs(5);

const ENTRY_LEN: usize = 1024;

/// Entries under way while a log is filled.
const FILLERS: u64 = 8192;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Set in the process that measures growth, so that nothing else is in its memory.
const GROWTH: &str = "FANLIGHT_BENCH_GROWTH";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::var_os(GROWTH).is_some() {
        return runtime.block_on(growth());
    }
    for appenders in [256, 4096] {
        runtime.block_on(rate(appenders))?;
    }
    signed(&runtime)?;
    writes()?;
    let grown = std::process::Command::new(std::env::current_exe()?).env(GROWTH, "1").status()?;
    if grown.success() { Ok(()) } else { Err("growth was not measured".into()) }
}

/// One figure; `more` is what follows the unit.
fn figure(name: &str, value: f64, unit: &str, more: &str) {
    println!("{{\"name\":\"auditlog/append/{name}\",\"value\":{value:.1},\"unit\":\"{unit}\"{more}}}");
}

/// A running log in a directory that goes with it.
struct DirLog {
    log: Log<DirStore>,
    sequencer: tokio::task::JoinHandle<std::result::Result<(), fanlight_auditlog::sequencer::SequencerError>>,
    _dir: tempfile::TempDir,
}

impl DirLog {
    async fn open() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = DirStore::open_writer(dir.path())?;
        let signer = || Signer::new("log.example/bench", &[1; 32]);
        create(&store, &signer()?).await?;
        let config = Config { max_pool_entries: 4 * 8192, ..Config::default() };
        let (log, sequencer) = Log::open(store, signer()?, config).await?;
        Ok(Self { log, sequencer: tokio::spawn(sequencer.run(TokioTimer::new())), _dir: dir })
    }

    async fn close(self) -> Result<()> {
        self.log.close().await;
        Ok(self.sequencer.await??)
    }
}

/// A unique entry.
fn entry(appender: u64, number: u64, len: usize) -> Bytes {
    let mut entry = vec![0; len];
    entry[..8].copy_from_slice(&appender.to_be_bytes());
    entry[8..16].copy_from_slice(&number.to_be_bytes());
    entry.into()
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// Every appender sends its next entry once the one before is in a published checkpoint.
async fn rate(appenders: u64) -> Result<()> {
    let running = DirLog::open().await?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..appenders)
        .map(|appender| {
            let log = running.log.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < DURATION {
                    let sent = Instant::now();
                    log.append(entry(appender, latencies.len() as u64, ENTRY_LEN)).await?;
                    latencies.push(sent.elapsed());
                }
                Ok::<_, AppendError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = start.elapsed();
    running.close().await?;
    latencies.sort();
    let target = if appenders == 4096 { ",\"target\":\">= 10000\"" } else { "" };
    figure(&format!("dir/{appenders}/rate"), latencies.len() as f64 / elapsed.as_secs_f64(), "entries/s", target);
    figure(&format!("dir/{appenders}/p50"), percentile(&latencies, 50), "ms", "");
    figure(&format!("dir/{appenders}/p99"), percentile(&latencies, 99), "ms", "");
    Ok(())
}

/// Verifies the ES256 signature of each entry before it is appended; the baseline does only that, on as many threads.
fn signed(runtime: &tokio::runtime::Runtime) -> Result<()> {
    const ENTRIES: usize = 20_000;
    let signing_key = SigningKey::from_slice(&[7; 32])?;
    let key = *signing_key.verifying_key();
    let entries: Arc<Vec<(Bytes, Signature)>> = Arc::new(
        (0..ENTRIES as u64)
            .map(|number| {
                let entry = entry(0, number, ENTRY_LEN);
                let signature = signing_key.sign(&entry);
                (entry, signature)
            })
            .collect(),
    );
    let is_good = |key: &VerifyingKey, (entry, signature): &(Bytes, Signature)| key.verify(entry, signature).is_ok();

    let threads = std::thread::available_parallelism()?.get();
    let start = Instant::now();
    let all_good = std::thread::scope(|scope| {
        let parts: Vec<_> = entries
            .chunks(ENTRIES.div_ceil(threads))
            .map(|part| scope.spawn(move || part.iter().all(|signed| is_good(&key, signed))))
            .collect();
        parts.into_iter().all(|part| part.join().unwrap_or(false))
    });
    let raw = ENTRIES as f64 / start.elapsed().as_secs_f64();
    if !all_good {
        return Err("a good signature was refused".into());
    }

    let elapsed = runtime.block_on(async {
        let running = DirLog::open().await?;
        let start = Instant::now();
        let appenders: Vec<_> = (0..4096)
            .map(|appender| {
                let (log, entries) = (running.log.clone(), Arc::clone(&entries));
                tokio::spawn(async move {
                    for signed in entries.iter().skip(appender).step_by(4096) {
                        assert!(is_good(&key, signed), "a good signature was refused");
                        log.append(signed.0.clone()).await?;
                    }
                    Ok::<_, AppendError>(())
                })
            })
            .collect();
        for appender in appenders {
            appender.await??;
        }
        let elapsed = start.elapsed();
        running.close().await?;
        Ok::<_, Box<dyn Error>>(elapsed)
    })?;
    let more = format!(",\"baseline\":{raw:.1},\"baseline_name\":\"verifying alone\",\"target\":\">= 0.8x\"");
    figure("dir/es256/rate", ENTRIES as f64 / elapsed.as_secs_f64(), "entries/s", &more);
    Ok(())
}

/// Writes to an object store for each million entries, at the pace that suits one; beside them what a round each second
/// costs a log of the usual order (staging, lock, bundle, tiles, checkpoint).
fn writes() -> Result<()> {
    for (rate, n, per_million) in [(10u64, 6000u64, 510_000.0), (100, 30_000, 60_100.0), (1000, 100_000, 13_800.0)] {
        // Time passes only while everything waits, so this takes seconds.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let writes = runtime.block_on(async {
            let store = MemoryStore::default();
            create(&store, &support::signer()).await?;
            let config = Config { min_period: Duration::from_secs(1), max_delay: Duration::from_secs(1), ..Config::default() };
            let running = Running::open_with(&store, config).await;
            let mut appends = Vec::new();
            let tick = Duration::from_millis(10);
            let start = tokio::time::Instant::now();
            for number in 0..n {
                let due = u32::try_from(number * 100 / rate)?;
                tokio::time::sleep_until(start + tick * due).await;
                let log = running.log.clone();
                appends.push(tokio::spawn(async move { log.append(entry(0, number, 64)).await.map(drop) }));
            }
            for append in appends {
                append.await??;
            }
            let counted = store.n_writes();
            running.close().await;
            // Deleting is free where writing is paid for, and the index of leaves is elsewhere.
            let is_paid = |kind: &str| !kind.starts_with("delete") && kind != "index";
            Ok::<_, Box<dyn Error>>(counted.iter().filter(|(kind, _)| is_paid(kind)).map(|(_, n)| n).sum::<u64>())
        })?;
        let more = format!(",\"baseline\":{per_million:.1},\"baseline_name\":\"a round each second\",\"target\":\"<= 1.05x\"");
        figure(&format!("writes/{rate}-per-second"), writes as f64 * 1e6 / n as f64, "PUTs/M", &more);
    }
    Ok(())
}

/// How long a round of one tile takes, and what the process holds, in a log of ever more entries.
async fn growth() -> Result<()> {
    const ROUNDS: u64 = 100;
    let running = DirLog::open().await?;
    let mut number = 0u64;
    let mut at_first = None;
    for (size, name) in [(10_000u64, "10k"), (1_000_000, "1M"), (10_000_000, "10M")] {
        let start = number;
        let fillers: Vec<_> = (0..FILLERS)
            .map(|filler| {
                let log = running.log.clone();
                tokio::spawn(async move {
                    for number in (start + filler..size).step_by(usize::try_from(FILLERS)?) {
                        log.append(entry(0, number, 64)).await?;
                    }
                    Ok::<_, Box<dyn Error + Send + Sync>>(())
                })
            })
            .collect();
        for filler in fillers {
            filler.await?.map_err(|error| error as Box<dyn Error>)?;
        }
        number = size;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            // As many as complete the tile, so that the round starts at once.
            let n = 256 - number % 256;
            let sent = Instant::now();
            let appends = (number..number + n).map(|number| running.log.append(entry(0, number, 64)));
            futures_util::future::try_join_all(appends).await?;
            times.push(sent.elapsed());
            number += n;
        }
        times.sort();
        let median = percentile(&times, 50);
        let first = *at_first.get_or_insert(median);
        let more = format!(",\"baseline\":{first:.2},\"baseline_name\":\"at 10k entries\",\"target\":\"<= 1.5x\"");
        figure(&format!("growth/{name}/round"), median, "ms", &more);
        figure(&format!("growth/{name}/rss"), resident_mb()?, "MB", ",\"target\":\"<= 100\"");
    }
    running.close().await
}

/// Resident memory of this process; 0 where `/proc` does not say.
fn resident_mb() -> Result<f64> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0.0) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1000.0)
}
