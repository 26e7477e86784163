//! Metrics for Prometheus' textfile collector.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fanlight_protocol::UnixTime;
use fanlight_verifier::monitor::{AlertName, State};

use super::report::Report;

/// The text exposition format, version 0.0.4.
pub(super) fn metrics(report: &Report<'_>) -> String {
    let mut out = Metrics { text: String::new(), log: escaped(report.log()) };
    let State { ledger, edge, checkpoint, last_run, last_success, .. } = report.state;
    out.gauge("up", "Whether the last run could check everything", u64::from(report.complete()));
    out.gauge("last_run_timestamp_seconds", "When the last run began", last_run.as_secs());
    // Zero where there was none: a rule on its age must see a monitor that never could.
    let success = last_success.map_or(0, UnixTime::as_secs);
    out.gauge("last_success_timestamp_seconds", "When the last run began that could check everything", success);
    out.family("run_duration_seconds", "How long the last run took", &[("", millis(report.duration_millis))]);
    if let Some(checkpoint) = checkpoint {
        out.gauge("tree_size", "Entries in the log by the latest checkpoint", checkpoint.tree_size());
    }
    if let Some(vouched) = report.seen.freshness.and_then(|freshness| freshness.vouched) {
        out.gauge("cosigned_timestamp_seconds", "When the quorum of witnesses last cosigned", vouched.as_secs());
    }
    out.gauge("checked_entries", "Entries that were read and checked since the state began", edge.size());
    out.gauge("new_entries", "Entries that were read by the last run", report.seen.new_entries);
    let census = ledger.census();
    let kinds = [
        ("evidence", census.evidence),
        ("key_statement", census.statements),
        ("receipt", census.receipts),
        ("unverifiable", census.unverifiable),
        ("foreign", census.foreign),
    ];
    let kinds = kinds.map(|(kind, n)| (format!(",kind=\"{kind}\""), n.to_string()));
    out.family("entries", "Checked entries by kind", &kinds);
    out.gauge("providers", "Providers whose key is known from the log", ledger.n_providers() as u64);
    out.gauge("compared_checkpoints", "Checkpoints of others that the last run compared", report.seen.compared);
    let mut open: BTreeMap<AlertName, u64> = AlertName::ALL.iter().map(|name| (*name, 0)).collect();
    for alert in report.counting() {
        *open.entry(alert.name).or_default() += 1;
    }
    let alerts: Vec<_> = open
        .into_iter()
        .map(|(name, n)| (format!(",alert=\"{name}\",severity=\"{}\"", name.severity().as_str()), n.to_string()))
        .collect();
    out.family("alerts", "Open alerts that nobody acknowledged, by name", &alerts);
    out.text
}

struct Metrics {
    text: String,
    log: String,
}

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, &[("", value.to_string())]);
    }

    /// One metric with samples of labels beside `log`, and values.
    fn family<L: AsRef<str>>(&mut self, name: &str, help: &str, samples: &[(L, String)]) {
        let Self { text, log } = self;
        write!(text, "# HELP fanlight_monitor_{name} {help}.\n# TYPE fanlight_monitor_{name} gauge\n")
            .expect("a string takes every write");
        for (labels, value) in samples {
            writeln!(text, "fanlight_monitor_{name}{{log=\"{log}\"{}}} {value}", labels.as_ref())
                .expect("a string takes every write");
        }
    }
}

fn millis(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// A label value: backslash, quote and newline are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
