//! `fanlight-log append`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use fanlight_auditlog::{DirStore, Log, MAX_ENTRY_LEN, Sequencer};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::input::{self, Input};

/// Entries under way at the same time: at most 16 MiB, half of what the pool takes, so that it is never full.
const CONCURRENT_APPENDS: usize = 256;

pub(crate) async fn run(
    log: Log<DirStore>,
    sequencer: Sequencer<DirStore>,
    files: Vec<PathBuf>,
    lines: bool,
) -> anyhow::Result<()> {
    let running = tokio::spawn(sequencer.run(tokio::time::sleep));
    let (sender, mut receiver) = mpsc::channel(CONCURRENT_APPENDS);
    let reading = tokio::task::spawn_blocking(move || input::read(&files, lines, |input| sender.blocking_send(input).is_ok()));

    let inputs = stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut outcomes = inputs.map(|input| append(&log, input)).buffered(CONCURRENT_APPENDS);
    let mut n_refused = 0u64;
    while let Some(outcome) = outcomes.next().await {
        if let Some(index) = outcome? {
            writeln!(io::stdout(), "{index}")?;
        } else {
            n_refused += 1;
        }
    }
    drop(outcomes);
    log.close().await;
    running.await?.context("the log stopped")?;
    reading.await??;
    match n_refused {
        0 => Ok(()),
        n => bail!("{n} not appended: longer than {MAX_ENTRY_LEN} bytes"),
    }
}

/// The index of the entry; `None` when it is too long, which does not keep others from being appended.
async fn append(log: &Log<DirStore>, input: Input) -> anyhow::Result<Option<u64>> {
    match input {
        Input::Entry(entry) => Ok(Some(log.append(entry).await?.index)),
        Input::TooLong { place } => {
            tracing::error!("{place} is longer than {MAX_ENTRY_LEN} bytes and was not appended");
            Ok(None)
        }
    }
}
