//! `provider`: everything that a log says of one provider.

use std::pin::pin;

use clap::Args;
use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_protocol::{ProviderId, UnixTime};
use fanlight_verifier::history::{LoggedEvidence, LoggedStatement};
use fanlight_verifier::{HistoryReport, ProviderHistory};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::commands::receipt::grade_text;
use crate::commands::{OpenLog, progress_bar};
use crate::outcome::{Outcome, Verdict};
use crate::policy::LogKeyArgs;
use crate::source::StoreArgs;
use crate::text::{self, push_line};

#[derive(Args, Debug)]
pub(crate) struct ProviderArgs {
    /// Provider id, 64 hexadecimal digits
    #[arg(value_name = "ID")]
    provider_id: ProviderId,
    /// Store of the log, a directory or `s3://bucket/prefix`, or its http(s) URL prefix
    #[arg(long, value_name = "STORE-OR-URL")]
    log: String,
    #[command(flatten)]
    stores: StoreArgs,
    #[command(flatten)]
    trust: LogKeyArgs,
}

pub(crate) async fn run(args: &ProviderArgs, now: UnixTime) -> anyhow::Result<Outcome> {
    let log = OpenLog::open(&args.log, &args.stores, &args.trust).await?;
    let reader = log.reader().await?;
    let checkpoint = reader.checkpoint();
    let bar = progress_bar(checkpoint.tree_size());
    let mut history = ProviderHistory::new(args.provider_id);
    let mut entries = pin!(reader.entries(0..checkpoint.tree_size()));
    loop {
        match entries.try_next().await {
            Ok(Some((index, entry))) => {
                bar.set_position(index);
                history.push(&entry);
            }
            Ok(None) => break,
            Err(error) => return Err(log.failure(error).await),
        }
    }
    bar.finish_and_clear();
    Ok(outcome(&history.finish(now), checkpoint))
}

fn outcome(report: &HistoryReport, checkpoint: &VerifiedCheckpoint) -> Outcome {
    let (verdict, headline) = if report.is_good() { (Verdict::Good, "GOOD: nothing is wrong") } else { (Verdict::Bad, "BAD") };
    let mut text = format!("{headline} in the history of this provider\n");
    push_line(&mut text, format_args!("provider    {}", report.provider_id));
    push_line(&mut text, format_args!("log         {}, {} entries", checkpoint.origin(), report.tree_size));
    for LoggedEvidence { index, result } in &report.evidence {
        if let Ok(result) = result {
            push_line(&mut text, format_args!("evidence    leaf {index}, {}", result.grade()));
            text.push_str(&grade_text(result.grade()));
        }
    }
    for LoggedStatement { index, statement, n_receipts } in &report.statements {
        let models: Vec<&str> = statement.models.iter().map(|offer| offer.name.as_str()).collect();
        let (from, to) = (text::time(statement.not_before), text::time(statement.not_after));
        let models = models.join(" ");
        push_line(&mut text, format_args!("statement   leaf {index}, {from} to {to}, {n_receipts} receipts, models {models}"));
    }
    push_line(&mut text, format_args!("receipts    {}", report.receipts.len()));
    for finding in &report.findings {
        push_line(&mut text, format_args!("FINDING     {finding}"));
    }
    for note in &report.notes {
        push_line(&mut text, format_args!("note        {note}"));
    }
    let newest = report.receipts.last().map(|last| last.receipt.counter);
    let unknown = newest.map_or_else(|| "any receipts".to_owned(), |n| format!("receipts newer than number {n}"));
    push_line(&mut text, format_args!("not known   whether {unknown} were withheld: no log can tell"));
    Outcome::new(verdict, text, fields(report, checkpoint))
}

fn fields(report: &HistoryReport, checkpoint: &VerifiedCheckpoint) -> Value {
    let evidence = report.evidence.iter().map(|LoggedEvidence { index, result }| {
        let grade = result.as_ref().ok().map(|result| result.grade().as_str());
        json!({ "leaf_index": index, "grade": grade })
    });
    let statements = report.statements.iter().map(|LoggedStatement { index, statement, n_receipts }| {
        let models: Vec<&str> = statement.models.iter().map(|offer| offer.name.as_str()).collect();
        json!({
            "leaf_index": index, "digest": statement.digest().to_string(), "key_id": statement.key_id().to_string(),
            "not_before": statement.not_before.as_secs(), "not_after": statement.not_after.as_secs(),
            "models": models, "receipts": n_receipts,
        })
    });
    let findings = report.findings.iter().map(|f| json!({ "finding": f.name(), "text": f.to_string() }));
    let notes = report.notes.iter().map(|note| json!({ "note": note.name(), "text": note.to_string() }));
    let newest = report.receipts.last();
    json!({
        "provider_id": report.provider_id.to_string(),
        "origin": checkpoint.origin(),
        "tree_size": report.tree_size,
        "evidence": evidence.collect::<Vec<_>>(),
        "statements": statements.collect::<Vec<_>>(),
        "receipts": report.receipts.len(),
        "newest_counter": newest.map(|last| last.receipt.counter),
        "newest_receipt": newest.map(|last| last.receipt.digest().to_string()),
        "findings": findings.collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
    })
}
