//! `proof`: an entry is in a log, offline.

use fanlight_auditlog::tlog_proof::MAX_TLOG_PROOF_LEN;
use fanlight_auditlog::{MAX_ENTRY_LEN, TlogProof};
use serde_json::json;

use crate::args::ProofArgs;
use crate::outcome::{Outcome, Verdict};
use crate::policy::{self, read_bounded};

pub(crate) fn run(args: &ProofArgs) -> anyhow::Result<Outcome> {
    let policy = policy::read(&args.policy)?;
    let proof = read_bounded(&args.file, MAX_TLOG_PROOF_LEN)?;
    let entry = read_bounded(&args.entry, MAX_ENTRY_LEN)?;
    let proof = match TlogProof::parse(&proof) {
        Ok(proof) => proof,
        Err(error) => return Ok(Outcome::bad("the proof is not readable", &error)),
    };
    let inclusion = match proof.verify(&entry, &policy) {
        Ok(inclusion) => inclusion,
        Err(error) => return Ok(Outcome::bad("the entry is not proven to be in a log that you trust", &error)),
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
