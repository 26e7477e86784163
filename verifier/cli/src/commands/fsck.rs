//! `fsck`: every byte of a log.

use anyhow::anyhow;
use fanlight_auditlog::fsck::{FsckError, fsck};
use serde_json::json;

use crate::args::FsckArgs;
use crate::commands::{no_checkpoint, progress_bar};
use crate::outcome::{Outcome, Verdict};
use crate::source::Source;

pub(crate) async fn run(FsckArgs { log, log_key }: &FsckArgs) -> anyhow::Result<Outcome> {
    let source = Source::open(log)?;
    let bar = progress_bar(0);
    let result = fsck(&source, log_key, |progress| {
        bar.set_length(progress.tree_size);
        bar.set_position(progress.entries);
    })
    .await;
    bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(FsckError::Store(error)) => return Err(anyhow!(error).context(format!("{log} was not read"))),
        Err(FsckError::NoCheckpoint) => return Err(no_checkpoint(log)),
        Err(error) => return Ok(Outcome::bad("the log is not what its checkpoint says", &error)),
    };
    let checkpoint = report.checkpoint();
    let (origin, size, root) = (checkpoint.origin(), checkpoint.tree_size(), checkpoint.root_hash());
    let text = format!(
        "GOOD: every byte of {origin} is what its checkpoint says\n\
         entries     {size}\nroot        {root}\nrecomputed  {} tiles, {} bundles, {} bytes\n",
        report.n_tiles(),
        report.n_bundles(),
        report.n_bytes(),
    );
    let fields = json!({
        "origin": origin, "tree_size": size, "root_hash": root.to_string(),
        "n_tiles": report.n_tiles(), "n_bundles": report.n_bundles(), "n_bytes": report.n_bytes(),
    });
    Ok(Outcome::new(Verdict::Good, text, fields))
}
