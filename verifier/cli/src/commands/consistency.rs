//! `consistency`: a log only grew.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_auditlog::note::MAX_NOTE_LEN;
use serde_json::json;

use crate::commands::OpenLog;
use crate::evidence::Evidence;
use crate::outcome::{Outcome, Refused, Verdict};
use crate::policy::{LogKeyArgs, read_bounded};
use crate::source::StoreArgs;

#[derive(Args, Debug)]
pub(crate) struct ConsistencyArgs {
    /// File with a checkpoint that was seen before
    old_checkpoint: PathBuf,
    /// Store of the log, a directory or `s3://bucket/prefix`, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    log: String,
    #[command(flatten)]
    stores: StoreArgs,
    #[command(flatten)]
    trust: LogKeyArgs,
}

pub(crate) async fn run(args: &ConsistencyArgs) -> anyhow::Result<Outcome> {
    let note = read_bounded(&args.old_checkpoint, MAX_NOTE_LEN)?;
    let policy = args.trust.policy()?;
    let old = policy.verify_log_signature(&note).map_err(|error| {
        let evidence = Evidence::new("checkpoint", &args.log).keys(&policy).checkpoint("seen before", &note);
        Refused::from(Outcome::bad("the old checkpoint was refused", &error).with_evidence(evidence))
    })?;
    let log = OpenLog::open(&args.log, &args.stores, &args.trust).await?;
    let new = log.checkpoint();
    if old.origin() != new.origin() {
        bail!("{} is of {}, but {} is {}", args.old_checkpoint.display(), old.origin(), args.log, new.origin());
    }
    log.check_grown(&old, "seen before").await?;
    let text = format!(
        "GOOD: {} only grew\nold  {} entries, root {}\nnew  {} entries, root {}\n",
        new.origin(),
        old.tree_size(),
        old.root_hash(),
        new.tree_size(),
        new.root_hash()
    );
    Ok(Outcome::new(Verdict::Good, text, sizes(&old, new)))
}

fn sizes(old: &VerifiedCheckpoint, new: &VerifiedCheckpoint) -> serde_json::Value {
    json!({
        "origin": new.origin(),
        "old_tree_size": old.tree_size(), "old_root_hash": old.root_hash().to_string(),
        "new_tree_size": new.tree_size(), "new_root_hash": new.root_hash().to_string(),
    })
}
