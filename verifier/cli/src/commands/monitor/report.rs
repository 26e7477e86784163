//! What one look is told as.

use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_protocol::UnixTime;
use fanlight_verifier::monitor::{Alert, AlertName, State};
use serde_json::{Value, json};

use super::args::MonitorArgs;
use super::round::Seen;
use crate::outcome::{Outcome, Verdict};
use crate::text::{self, push_line};

/// A finished look with everything it is told with.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) args: &'a MonitorArgs,
    pub(super) state: &'a State,
    pub(super) seen: &'a Seen,
    pub(super) now: UnixTime,
    pub(super) duration_millis: u64,
}

impl Report<'_> {
    /// The log's name: its origin, or where it was looked for until that is known.
    pub(super) fn log(&self) -> &str {
        self.state.checkpoint.as_ref().map_or(&self.args.log, VerifiedCheckpoint::origin)
    }

    /// Whether everything could be checked.
    pub(super) fn complete(&self) -> bool {
        self.seen.complete && self.seen.unusable.is_empty()
    }

    /// Open alerts that count.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Alert> {
        let ignored = &self.args.ignore;
        self.state.alerts.open().into_iter().filter(|alert| alert.counts() && !ignored.contains(&alert.name))
    }

    /// Bad as soon as something is known to be wrong, even where the rest could not be checked.
    fn verdict(&self) -> Verdict {
        let mut verdict = if self.complete() { Verdict::Good } else { Verdict::Unchecked };
        for alert in self.counting() {
            match alert.name {
                AlertName::Unreadable if verdict == Verdict::Good => verdict = Verdict::Unchecked,
                AlertName::Unreadable => {}
                _ => verdict = Verdict::Bad,
            }
        }
        verdict
    }

    pub(super) fn outcome(&self) -> Outcome {
        let verdict = self.verdict();
        let headline = match verdict {
            Verdict::Good => "GOOD: nothing is wrong",
            Verdict::Bad => "BAD: alerts are open",
            Verdict::Unchecked => "NOT CHECKED: not everything could be read",
        };
        let mut text = format!("{headline}\n");
        let line = &mut |name: &str, value: &dyn std::fmt::Display| push_line(&mut text, format_args!("{name:<12}{value}"));
        let State { checkpoint, edge, ledger, alerts, .. } = self.state;
        let expected = self.state.expected();
        line("log", &self.log());
        if let Some(checkpoint) = checkpoint {
            line("checkpoint", &format_args!("{} entries, root {}", checkpoint.tree_size(), checkpoint.root_hash()));
        }
        line("checked", &format_args!("{} entries, {} of them new", edge.size(), self.seen.new_entries));
        line("age", &self.age());
        let census = ledger.census();
        line("providers", &format_args!("{}, with {} receipts", ledger.n_providers(), census.receipts));
        let n_ahead: usize = self.state.ahead().values().map(Vec::len).sum();
        line("others", &format_args!("{} checkpoints compared, {} larger than the log shows", self.seen.compared, n_ahead));
        if !self.args.expect.is_empty() {
            let missing = expected.values().filter(|expected| expected.found.is_none()).count();
            line("expected", &format_args!("{} entries, {missing} of them not in the log yet", expected.len()));
        }
        for (what, error) in &self.seen.unusable {
            line("UNUSABLE", &format_args!("{what}: {error}"));
        }
        for alert in alerts.open() {
            let ignored = if self.args.ignore.contains(&alert.name) { ", ignored" } else { "" };
            let known = if alert.counts() { ignored } else { ", acknowledged" };
            let (severity, since) = (alert.name.severity().as_str(), text::time(alert.since));
            line("ALERT", &format_args!("{} ({severity}, since {since}{known})", alert.id()));
            for detail in &alert.details {
                line("", &format_args!("  {detail}"));
            }
            for file in &alert.evidence {
                line("", &format_args!("  evidence {file}"));
            }
        }
        Outcome::new(verdict, text, self.fields())
    }

    fn age(&self) -> String {
        let Some(freshness) = self.seen.freshness else { return "not known: the log was not read".to_owned() };
        match freshness.vouched {
            Some(vouched) => {
                let age = self.now.as_secs().saturating_sub(vouched.as_secs());
                format!("cosigned {age} s ago, at {}", text::time(vouched))
            }
            None => "not known: no cosignature of a trusted witness says when".to_owned(),
        }
    }

    fn fields(&self) -> Value {
        let State { checkpoint, edge, ledger, alerts, last_success, .. } = self.state;
        let ahead = self.state.ahead().keys().map(|holder| if holder.is_empty() { &self.args.log } else { holder });
        let expected = self.state.expected();
        let census = ledger.census();
        let missing = expected.iter().filter(|(_, expected)| expected.found.is_none()).map(|(label, _)| label);
        let unusable = self.seen.unusable.iter().map(|(what, error)| json!({ "what": what, "error": error }));
        json!({
            "origin": checkpoint.as_ref().map(VerifiedCheckpoint::origin),
            "tree_size": checkpoint.as_ref().map(VerifiedCheckpoint::tree_size),
            "root_hash": checkpoint.as_ref().map(|checkpoint| checkpoint.root_hash().to_string()),
            "time": self.now.as_secs(),
            "last_success": last_success.map(UnixTime::as_secs),
            "duration_ms": self.duration_millis,
            "complete": self.complete(),
            "cosigned": self.seen.freshness.and_then(|freshness| freshness.vouched).map(UnixTime::as_secs),
            "checked_entries": edge.size(),
            "new_entries": self.seen.new_entries,
            "entries": {
                "evidence": census.evidence, "key_statement": census.statements, "receipt": census.receipts,
                "unverifiable": census.unverifiable, "foreign": census.foreign,
            },
            "providers": ledger.n_providers(),
            "compared": self.seen.compared,
            "ahead": ahead.collect::<Vec<_>>(),
            "expected": { "entries": expected.len(), "missing": missing.collect::<Vec<_>>() },
            "unusable": unusable.collect::<Vec<_>>(),
            "alerts": alerts.open().into_iter().map(|alert| self.alert(alert)).collect::<Vec<_>>(),
            "closed": alerts.closed().map(|alert| self.alert(alert)).collect::<Vec<_>>(),
        })
    }

    fn alert(&self, alert: &Alert) -> Value {
        json!({
            "id": alert.id(),
            "alert": alert.name.as_str(),
            "subject": alert.subject,
            "severity": alert.name.severity().as_str(),
            "state": if alert.closed.is_some() { "closed" } else { "open" },
            "counts": alert.closed.is_none() && alert.counts() && !self.args.ignore.contains(&alert.name),
            "meaning": alert.name.meaning(),
            "since": alert.since.as_secs(),
            "last_seen": alert.last_seen.as_secs(),
            "closed": alert.closed.map(UnixTime::as_secs),
            "acknowledged": alert.acknowledged.map(UnixTime::as_secs),
            "count": alert.count,
            "details": alert.details,
            "evidence": alert.evidence,
        })
    }
}
