//! `fanlight-log append`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use fanlight_auditlog::sequencer::TokioTimer;
use fanlight_auditlog::{AppendError, Log, MAX_ENTRY_LEN, Sequencer};
use fanlight_stores::AnyStore;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::input::{self, Input};
use crate::witnesses::LogWitnesses;

/// Entries under way at the same time: at most 16 MiB, half of what the pool takes.
const CONCURRENT_APPENDS: usize = 256;

/// Bounds of the pause before an entry is offered again to a log that is at its capacity, which proposes one itself.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What to append.
#[derive(Debug, clap::Args)]
pub(crate) struct EntryArgs {
    /// Make every line an entry, without its line break.
    #[arg(long)]
    lines: bool,
    /// Entries; standard input without any.
    files: Vec<PathBuf>,
}

pub(crate) async fn run(
    log: Log<AnyStore>,
    sequencer: Sequencer<AnyStore, Option<LogWitnesses>>,
    EntryArgs { lines, files }: EntryArgs,
) -> anyhow::Result<()> {
    let running = tokio::spawn(sequencer.run(TokioTimer::new()));
    let (sender, mut receiver) = mpsc::channel(CONCURRENT_APPENDS);
    let reading = tokio::task::spawn_blocking(move || input::read(&files, lines, |input| sender.blocking_send(input).is_ok()));

    let inputs = stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut outcomes = inputs.map(|input| append(&log, input)).buffered(CONCURRENT_APPENDS);
    let mut n_refused = 0u64;
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Some(index)) => writeln!(io::stdout(), "{index}")?,
            Ok(None) => n_refused += 1,
            // Why it stopped is the sequencer's to say.
            Err(AppendError::Stopped) => break,
            Err(error) => return Err(error).context("not all was appended; appending it again is safe"),
        }
    }
    drop(outcomes);
    log.close().await;
    running.await?.context("the log stopped; appending again what has no index above is safe")?;
    reading.await??;
    match n_refused {
        0 => Ok(()),
        n => bail!("{n} not appended: longer than {MAX_ENTRY_LEN} bytes"),
    }
}

/// The index of the entry; `None` when it is too long, which does not keep others from being appended.
async fn append(log: &Log<AnyStore>, input: Input) -> Result<Option<u64>, AppendError> {
    match input {
        Input::Entry(entry) => append_patiently(log, entry).await.map(Some),
        Input::TooLong { place } => {
            tracing::error!("{place} is longer than {MAX_ENTRY_LEN} bytes and was not appended");
            Ok(None)
        }
    }
}

/// Waits for room, however long that takes: nothing else asks this log for any.
async fn append_patiently(log: &Log<AnyStore>, entry: Bytes) -> Result<u64, AppendError> {
    loop {
        match log.append(entry.clone()).await {
            Ok(appended) => return Ok(appended.index),
            Err(AppendError::Overloaded { retry_after }) => {
                tokio::time::sleep(retry_after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
