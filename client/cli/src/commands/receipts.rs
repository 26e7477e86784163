//! `fanlight receipts`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use fanlight_auditlog::Policy;
use fanlight_client::ReceiptStore;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::entry::{ReceiptDetails, peek};
use fanlight_protocol::{RequestId, UnixTime};
use fanlight_verifier::{BundleError, ProviderPolicy, VerifiedReceipt, verify_receipt};
use serde::Serialize;

use super::{chain, note, now, span, write_json};
use crate::{Network, Outcome, read_policy};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show this receipt and verify it, offline, under the policy it was stored with
    id: Option<RequestId>,
    /// Print JSON; of one receipt, the bundle that `fanlight-verify receipt` takes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    receipt_id: RequestId,
    ended: u64,
    model: String,
    provider_id: String,
    input_tokens: u32,
    output_tokens: u32,
    status: &'static str,
    logged: bool,
}

pub(crate) fn run(network: &Network, args: &Args) -> anyhow::Result<Outcome> {
    let state = network.state_dir()?;
    let store = ReceiptStore::at(&state);
    match args.id {
        None => list(&store, args.json),
        Some(id) => {
            let bundle = store.load(id)?;
            let bundle = bundle.with_context(|| format!("no receipt {id} in {}; try `fanlight receipts`", state.display()))?;
            show(network, &state, &store, &bundle, args.json)
        }
    }
}

fn list(store: &ReceiptStore, json: bool) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    let mut outcome = Outcome::Good;
    for id in store.ids()? {
        match store.load(id).map(|bundle| bundle.as_ref().and_then(row)) {
            Ok(Some(row)) => rows.push(row),
            // Removed since it was listed, or damaged.
            Ok(None) => {}
            Err(error) => {
                note(&format!("fanlight: {}", chain(&error)));
                outcome = Outcome::Bad;
            }
        }
    }
    if json {
        write_json(&rows)?;
        return Ok(outcome);
    }
    let (now, mut out) = (now(), io::stdout().lock());
    if !rows.is_empty() {
        writeln!(
            out,
            "{:<34}{:<12}{:<14}{:>7}{:>7}  {:<10}{:<8}MODEL",
            "RECEIPT", "ENDED", "PROVIDER", "IN", "OUT", "STATUS", "LOGGED"
        )?;
    }
    for row in rows {
        let (provider, logged) = (&row.provider_id[..12], if row.logged { "yes" } else { "not yet" });
        let (input, output) = (row.input_tokens, row.output_tokens);
        writeln!(
            out,
            "{:<34}{:<12}{provider:<14}{input:>7}{output:>7}  {:<10}{logged:<8}{}",
            row.receipt_id.to_string(),
            span(UnixTime::from_secs(row.ended), now) + " ago",
            row.status,
            row.model
        )?;
    }
    Ok(outcome)
}

fn row(bundle: &ReceiptBundle) -> Option<Row> {
    let details = ReceiptDetails::from_bytes(&bundle.details).ok()?;
    Some(Row {
        receipt_id: bundle.receipt_id,
        ended: details.ended.as_secs(),
        provider_id: peek(&bundle.receipt).ok()?.provider_id.to_string(),
        input_tokens: details.usage.input,
        output_tokens: details.usage.output,
        status: details.status.as_str(),
        logged: bundle.logged,
        model: details.model,
    })
}

fn show(network: &Network, state: &Path, store: &ReceiptStore, bundle: &ReceiptBundle, json: bool) -> anyhow::Result<Outcome> {
    let policy = network.policy.clone().unwrap_or_else(|| state.join("policy"));
    let log = read_policy(&policy).with_context(|| format!("failed to read the policy {}", policy.display()))?;
    let log = Policy::parse(log.as_bytes()).with_context(|| format!("policy {} is not valid", policy.display()))?;
    let verified = verify_receipt(bundle, &ProviderPolicy { log, minimum_grade: network.min_grade });
    if json {
        write_json(bundle)?;
    } else {
        write_receipt(&mut io::stdout().lock(), store, bundle, &verified)?;
    }
    match verified {
        Ok(_) => Ok(Outcome::Good),
        Err(error) => {
            note(&format!("fanlight: {}", chain(&error)));
            Ok(if error == BundleError::NotYetLogged { Outcome::Good } else { Outcome::Bad })
        }
    }
}

fn write_receipt(
    out: &mut impl Write,
    store: &ReceiptStore,
    bundle: &ReceiptBundle,
    verified: &Result<VerifiedReceipt, BundleError>,
) -> io::Result<()> {
    writeln!(out, "receipt      {}", bundle.receipt_id)?;
    writeln!(out, "file         {}", store.path(bundle.receipt_id).display())?;
    if let Some(row) = row(bundle) {
        writeln!(out, "provider     {}", row.provider_id)?;
        writeln!(out, "model        {}", row.model)?;
        writeln!(out, "tokens       {} in, {} out", row.input_tokens, row.output_tokens)?;
        writeln!(out, "status       {}", row.status)?;
    }
    match verified {
        Ok(verified) => {
            let (provider, inclusion) = (verified.provider(), verified.inclusion());
            let checkpoint = inclusion.checkpoint();
            writeln!(out, "grade        {}", provider.grade())?;
            writeln!(out, "chain        receipt {} of this provider", verified.receipt().counter)?;
            writeln!(out, "log          leaf {} of {} in {}", inclusion.index(), checkpoint.tree_size(), checkpoint.origin())?;
            writeln!(out, "verified     yes")
        }
        Err(BundleError::NotYetLogged) => writeln!(out, "verified     yes, but not logged yet"),
        Err(_) => writeln!(out, "verified     NO"),
    }
}
