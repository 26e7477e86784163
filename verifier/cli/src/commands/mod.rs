//! One module for each command.

pub(crate) mod consistency;
pub(crate) mod fsck;
pub(crate) mod proof;
pub(crate) mod provider;
pub(crate) mod receipt;

use anyhow::anyhow;
use fanlight_auditlog::reader::ReadError;
use indicatif::{ProgressBar, ProgressStyle};

use crate::outcome::Outcome;

/// A log that failed a check is bad; one that was not reached is not.
fn read_failure(log: &str, error: ReadError) -> anyhow::Result<Outcome> {
    match error {
        ReadError::Store(error) => Err(anyhow::Error::new(error).context(format!("{log} was not read"))),
        ReadError::NoCheckpoint => Err(no_checkpoint(log)),
        error => Ok(Outcome::bad("the log does not hold together", &error)),
    }
}

fn no_checkpoint(log: &str) -> anyhow::Error {
    anyhow!("{log} has no checkpoint: give the directory or URL prefix under which `checkpoint` lies")
}

/// Counts entries on standard error; draws nothing unless that is a terminal.
fn progress_bar(n_entries: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left");
    ProgressBar::new(n_entries).with_style(style.expect("the template is well formed"))
}
