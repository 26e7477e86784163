//! `consistency`: a log only grew.

use fanlight_auditlog::note::MAX_NOTE_LEN;
use fanlight_auditlog::{Reader, VerifiedCheckpoint};
use serde_json::json;

use crate::args::ConsistencyArgs;
use crate::commands::read_failure;
use crate::outcome::{Outcome, Verdict};
use crate::policy::read_bounded;
use crate::source::Source;

pub(crate) async fn run(args: &ConsistencyArgs) -> anyhow::Result<Outcome> {
    let ConsistencyArgs { old_checkpoint, log, log_key } = args;
    let note = read_bounded(old_checkpoint, MAX_NOTE_LEN)?;
    let old = match VerifiedCheckpoint::verify(&note, log_key) {
        Ok(old) => old,
        Err(error) => return Ok(Outcome::bad("the old checkpoint was refused", &error)),
    };
    let reader = match Reader::latest(Source::open(log)?, log_key).await {
        Ok(reader) => reader,
        Err(error) => return read_failure(log, error),
    };
    let new = reader.checkpoint();
    if new.tree_size() < old.tree_size() {
        let text = format!(
            "BAD: the log shrank: it had {} entries when the old checkpoint was signed and shows {} now\n",
            old.tree_size(),
            new.tree_size()
        );
        return Ok(Outcome::new(Verdict::Bad, text, sizes(&old, new)));
    }
    if let Err(error) = reader.verify_consistency(&old).await {
        return read_failure(log, error);
    }
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
