//! `receipt`: what a bundle proves, offline.

use std::cmp::Ordering;
use std::path::PathBuf;

use clap::Args;
use fanlight_protocol::bundle::{MAX_BUNDLE_LEN, ReceiptBundle};
use fanlight_protocol::entry::Usage;
use fanlight_verifier::{BundleCheck, BundleError, Grade, ProviderPolicy, VerifiedReceipt, verify_receipt};
use serde_json::{Value, json};

use crate::outcome::{Outcome, Verdict, chain};
use crate::policy::{self, read_bounded};
use crate::text::{self, push_line};

#[derive(Args, Debug)]
pub(crate) struct ReceiptArgs {
    /// Receipt bundle, JSON
    file: PathBuf,
    /// File that says which logs and witnesses you trust; else `$FANLIGHT_POLICY`, else `../policy` beside FILE
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

pub(crate) fn run(args: &ReceiptArgs) -> anyhow::Result<Outcome> {
    let bytes = read_bounded(&args.file, MAX_BUNDLE_LEN)?;
    let policy = ProviderPolicy::new(policy::for_bundle(args.policy.as_deref(), &args.file)?);
    let bundle: ReceiptBundle = match serde_json::from_slice(&bytes) {
        Ok(bundle) => bundle,
        Err(error) => return Ok(Outcome::bad("the file is not a receipt bundle", &error)),
    };
    match verify_receipt(&bundle, &policy) {
        Ok(receipt) => Ok(good(&receipt)),
        Err(error) => Ok(refused(&error)),
    }
}

fn good(receipt: &VerifiedReceipt) -> Outcome {
    let (provider, details) = (receipt.provider(), receipt.details());
    let Usage { input, cached_input, output, reasoning } = details.usage;
    let checkpoint = receipt.inclusion().checkpoint();
    let mut text = "GOOD: the receipt proves this exchange\n".to_owned();
    for check in BundleCheck::ALL {
        push_line(&mut text, format_args!("  [ok] {}", check.as_str()));
    }
    for (name, value) in [
        ("request", details.request_id.to_string()),
        ("provider", provider.provider_id().to_string()),
        ("grade", provider.grade().to_string()),
    ] {
        push_line(&mut text, format_args!("{name:<12}{value}"));
    }
    text.push_str(&grade_text(provider.grade()));
    for (name, value) in [
        ("model", details.model.clone()),
        ("weights", details.weights_digest.to_string()),
        ("build", details.build_measurement.to_string()),
        ("usage", format!("{input} input ({cached_input} cached) and {output} output ({reasoning} reasoning) tokens")),
        ("status", format!("{}, {}", details.status.as_str(), details.finish_reason)),
        ("started", text::time(details.started)),
        ("ended", text::time(details.ended)),
        ("number", format!("{} of this provider's receipts, from 0", receipt.receipt().counter)),
        ("leaf", format!("{} of {} in {}", receipt.inclusion().index(), checkpoint.tree_size(), checkpoint.origin())),
    ] {
        push_line(&mut text, format_args!("{name:<12}{value}"));
    }
    Outcome::new(Verdict::Good, text, fields(receipt))
}

fn fields(receipt: &VerifiedReceipt) -> Value {
    let (provider, details) = (receipt.provider(), receipt.details());
    let Usage { input, cached_input, output, reasoning } = details.usage;
    let checkpoint = receipt.inclusion().checkpoint();
    json!({
        "checks": checks(None),
        "receipt_id": details.request_id.to_string(),
        "provider_id": provider.provider_id().to_string(),
        "grade": provider.grade().as_str(),
        "proves": provider.grade().proves(),
        "does_not_prove": provider.grade().does_not_prove(),
        "model": details.model,
        "weights_digest": details.weights_digest.to_string(),
        "build_measurement": details.build_measurement.to_string(),
        "statement_digest": provider.statement_digest().to_string(),
        "request_hash": details.request_hash.to_string(),
        "response_hash": details.response_hash.to_string(),
        "usage": { "input": input, "cached_input": cached_input, "output": output, "reasoning": reasoning },
        "status": details.status.as_str(),
        "finish_reason": details.finish_reason,
        "started_ms": details.started.as_millis(),
        "ended_ms": details.ended.as_millis(),
        "counter": receipt.receipt().counter,
        "origin": checkpoint.origin(),
        "leaf_index": receipt.inclusion().index(),
        "statement_leaf_index": provider.statement_leaf_index(),
        "tree_size": checkpoint.tree_size(),
    })
}

fn refused(error: &BundleError) -> Outcome {
    let failed = error.failed_check();
    let (verdict, headline) = match error {
        BundleError::NotYetLogged => (
            Verdict::Unchecked,
            "NOT CHECKED: the receipt was not in the log yet when this file was written; fetch its bundle again",
        ),
        _ => (Verdict::Bad, "BAD: the bundle does not prove its exchange"),
    };
    let mut text = format!("{headline}: {}\n", chain(error));
    for check in BundleCheck::ALL {
        let mark = match check.cmp(&failed) {
            Ordering::Less => "ok",
            Ordering::Equal => "FAILED",
            Ordering::Greater => "not checked",
        };
        push_line(&mut text, format_args!("  [{mark}] {}", check.as_str()));
    }
    Outcome::new(verdict, text, json!({ "error": chain(error), "checks": checks(Some(failed)) }))
}

fn checks(failed: Option<BundleCheck>) -> Vec<Value> {
    let passed = |check| match failed {
        None => json!(true),
        Some(failed) if check < failed => json!(true),
        Some(failed) if check == failed => json!(false),
        Some(_) => Value::Null,
    };
    BundleCheck::ALL.into_iter().map(|check| json!({ "check": check.as_str(), "passed": passed(check) })).collect()
}

/// What the grade proves and does not, one to a line.
pub(crate) fn grade_text(grade: Grade) -> String {
    let mut text = String::new();
    for (heading, lines) in [("proven", grade.proves()), ("NOT proven", grade.does_not_prove())] {
        for proven in lines {
            push_line(&mut text, format_args!("  {heading:<12}{proven}"));
        }
    }
    text
}
