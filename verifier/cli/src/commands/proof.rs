//! `proof`: an entry is in a log, offline.

use std::path::{Path, PathBuf};

use clap::Args;
use fanlight_auditlog::tlog_proof::MAX_TLOG_PROOF_LEN;
use fanlight_auditlog::{MAX_ENTRY_LEN, TlogProof};
use serde_json::json;

use crate::evidence::Evidence;
use crate::outcome::{Outcome, Verdict};
use crate::policy::{self, read_bounded};

#[derive(Args, Debug)]
pub(crate) struct ProofArgs {
    /// File with the tlog proof
    file: PathBuf,
    /// File with the entry, byte for byte as it was logged
    #[arg(long, value_name = "FILE")]
    entry: PathBuf,
    /// File that says which logs and witnesses you trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

pub(crate) fn run(args: &ProofArgs) -> anyhow::Result<Outcome> {
    let policy = policy::read(&args.policy)?;
    let proof = read_bounded(&args.file, MAX_TLOG_PROOF_LEN)?;
    let entry = read_bounded(&args.entry, MAX_ENTRY_LEN)?;
    let evidence = |problem| {
        let name = |path: &Path| path.display().to_string();
        Evidence::new("proof", &name(&args.file)).keys(&policy).object(&name(&args.file), problem, None, Some(&proof)).object(
            &name(&args.entry),
            "the entry",
            None,
            Some(&entry),
        )
    };
    let parsed = match TlogProof::parse(&proof) {
        Ok(parsed) => parsed,
        Err(error) => {
            return Ok(Outcome::bad("the proof is not readable", &error).with_evidence(evidence("not a tlog proof")));
        }
    };
    let inclusion = match parsed.verify(&entry, &policy) {
        Ok(inclusion) => inclusion,
        Err(error) => {
            let outcome = Outcome::bad("the entry is not proven to be in a log that you trust", &error);
            return Ok(outcome.with_evidence(evidence("does not prove the entry")));
        }
    };
    let checkpoint = inclusion.checkpoint();
    let text = format!(
        "GOOD: the entry is leaf {} of {}\nlog of  {} entries, root {}\n",
        inclusion.index(),
        checkpoint.origin(),
        checkpoint.tree_size(),
        checkpoint.root_hash()
    );
    let fields = json!({
        "origin": checkpoint.origin(), "leaf_index": inclusion.index(), "leaf_hash": inclusion.leaf().to_string(),
        "tree_size": checkpoint.tree_size(), "root_hash": checkpoint.root_hash().to_string(),
    });
    Ok(Outcome::new(Verdict::Good, text, fields))
}
