//! `mirror`: a full verified copy of a log.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use fanlight_auditlog::mirror::{MirrorError, MirrorReport, mirror};
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::{TileSource, VerifiedCheckpoint};
use serde_json::json;

use crate::commands::{OpenLog, advance, progress_bar};
use crate::outcome::{Outcome, Verdict};
use crate::policy::LogKeyArgs;
use crate::source::StoreArgs;
use crate::text::push_line;

#[derive(Args, Debug)]
pub(crate) struct MirrorArgs {
    /// Store of the log, a directory or `s3://bucket/prefix`, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    log: String,
    /// Store for the copy, a directory or `s3://bucket/prefix`; what is there already is gone on with, and not
    /// read again: `fsck` the copy to check it
    #[arg(value_name = "STORE")]
    copy: String,
    #[command(flatten)]
    stores: StoreArgs,
    #[command(flatten)]
    trust: LogKeyArgs,
}

pub(crate) async fn run(args: &MirrorArgs) -> anyhow::Result<Outcome> {
    let log = OpenLog::open(&args.log, &args.stores, &args.trust).await?;
    let copy = args.stores.open_copy(&args.copy).await?;
    // A log that forked may lack the tiles of what it shows, so this comes before they are read.
    if let Some(held) = held(&copy, &log).await
        && log.contradicts(&held)
    {
        return log.not_grown(&held, "held by the copy").await;
    }
    let reader = log.reader().await?;
    let bar = progress_bar(log.checkpoint().tree_size());
    let result = mirror(&reader, &copy, log.policy(), |progress| {
        advance(&bar, progress.n_entries, progress.tree_size, progress.n_bytes);
    })
    .await;
    bar.finish_and_clear();
    match result {
        Ok(report) => Ok(good(&args.copy, &report)),
        Err(MirrorError::Read(error)) => Err(log.failure(error).await),
        Err(MirrorError::Fork { held } | MirrorError::Rollback { held }) => log.not_grown(&held, "held by the copy").await,
        Err(error @ MirrorError::Differs { path }) => {
            let key = path.to_string();
            let bytes = copy.get(&key).await.ok().flatten();
            let evidence = log.evidence("damage").object(&key, "is another one in the copy", None, bytes.as_deref());
            Ok(Outcome::bad("the copy does not belong to the log", &error).with_evidence(evidence))
        }
        Err(error @ MirrorError::Held(_)) => {
            let note = copy.get(CHECKPOINT_KEY).await.ok().flatten().unwrap_or_default();
            let evidence = log.evidence("checkpoint").checkpoint("held by the copy", &note);
            Ok(Outcome::bad("the copy cannot be gone on with", &error).with_evidence(evidence))
        }
        Err(MirrorError::OtherLog { origin }) => {
            bail!("{} is a copy of {origin}, but {} is {}", args.copy, args.log, log.checkpoint().origin())
        }
        Err(error) => Err(anyhow!(error)).with_context(|| format!("{} was not copied", args.log)),
    }
}

/// The checkpoint that the copy holds of this log. One that cannot be used is reported by the mirror itself.
async fn held(copy: &impl TileSource, log: &OpenLog) -> Option<VerifiedCheckpoint> {
    let note = copy.get(CHECKPOINT_KEY).await.ok()??;
    let held = log.policy().verify_log_signature(&note).ok()?;
    (held.origin() == log.checkpoint().origin()).then_some(held)
}

fn good(copy: &str, report: &MirrorReport) -> Outcome {
    let checkpoint = &report.checkpoint;
    let (origin, size, root) = (checkpoint.origin(), checkpoint.tree_size(), checkpoint.root_hash());
    let before = report.before.as_ref().map_or(0, VerifiedCheckpoint::tree_size);
    let MirrorReport { n_written, n_bytes, n_resumed, .. } = report;
    let mut text = format!(
        "GOOD: {copy} is a copy of {origin}\n\
         entries     {size}, {before} of them before\nroot        {root}\nwritten     {n_written} objects, {n_bytes} bytes\n"
    );
    if before > 0 || *n_resumed > 0 {
        push_line(&mut text, format_args!("not read    what was there before; `fanlight-verify fsck {copy}` checks it"));
    }
    let fields = json!({
        "origin": origin, "tree_size": size, "root_hash": root.to_string(), "old_tree_size": before,
        "n_written": n_written, "n_bytes": n_bytes, "n_resumed": n_resumed,
    });
    Outcome::new(Verdict::Good, text, fields)
}
