//! Counters in Prometheus text. Every label is a constant of this program, so that no client can add one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::link::Event;

/// A family of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests sent to a second recipient because the first gave no word.
    Failovers,
    /// Provider links that ended, by reason.
    LinksClosed,
    /// Provider links whose HELLO was good.
    LinksEnrolled,
    /// Receipts verified, by status.
    Receipts,
    /// Receipts offered to the log, by outcome.
    ReceiptsLogged,
    /// Sealed request bytes forwarded.
    RequestBytes,
    /// HTTP requests, by `ok` or the code of the problem.
    Requests,
    /// Response bytes relayed.
    ResponseBytes,
    /// Streams that ended, by how.
    StreamsEnded,
    /// Tokens by receipts, by kind.
    Tokens,
}

impl Counter {
    /// Name, label name, help.
    const fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Failovers => ("fanlight_failovers_total", "", "Requests sent to another recipient before a first byte."),
            Self::LinksClosed => ("fanlight_links_closed_total", "reason", "Provider links that ended."),
            Self::LinksEnrolled => ("fanlight_links_enrolled_total", "", "Provider links whose hello was good."),
            Self::Receipts => ("fanlight_receipts_total", "status", "Receipts verified."),
            Self::ReceiptsLogged => ("fanlight_receipts_logged_total", "outcome", "Receipts offered to the log."),
            Self::RequestBytes => ("fanlight_request_bytes_total", "", "Sealed request bytes forwarded."),
            Self::Requests => ("fanlight_requests_total", "code", "HTTP requests by result."),
            Self::ResponseBytes => ("fanlight_response_bytes_total", "", "Response bytes relayed."),
            Self::StreamsEnded => ("fanlight_streams_ended_total", "how", "Streams that ended."),
            Self::Tokens => ("fanlight_tokens_total", "kind", "Tokens by verified receipts."),
        }
    }
}

/// A value that goes up and down, read when metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Metric name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The value now.
    pub value: u64,
}

/// All counters of a gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    // Held for one addition at a time. Bytes are added when a stream ends, not for every frame.
    counts: Mutex<BTreeMap<(Counter, &'static str), u64>>,
}

impl Metrics {
    /// Adds to a counter; `label` is empty where the family has none.
    pub fn add(&self, counter: Counter, label: &'static str, n: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((counter, label)).or_default() += n;
    }

    /// Counts what a link's event means: streams, bytes, and usage by the receipt.
    pub fn observe(&self, event: &Event) {
        match event {
            Event::Ended { how, bytes: (request, response), .. } => {
                self.add(Counter::StreamsEnded, how.as_str(), 1);
                self.add(Counter::RequestBytes, "", *request);
                self.add(Counter::ResponseBytes, "", *response);
            }
            Event::Receipt { receipt, .. } => {
                let details = receipt.details();
                self.add(Counter::Receipts, details.status.as_str(), 1);
                self.add(Counter::Tokens, "input", details.usage.input.into());
                self.add(Counter::Tokens, "cached_input", details.usage.cached_input.into());
                self.add(Counter::Tokens, "output", details.usage.output.into());
                self.add(Counter::Tokens, "reasoning", details.usage.reasoning.into());
            }
            Event::Refused { .. } => self.add(Counter::StreamsEnded, "refused", 1),
            Event::Hello(_) => self.add(Counter::LinksEnrolled, "", 1),
            Event::Capacity(_)
            | Event::Frame { .. }
            | Event::Prefix { .. }
            | Event::Resent(_)
            | Event::Stalled
            | Event::Statement(_)
            | Event::TimedOut { .. } => {}
        }
    }

    /// The value of a counter.
    pub fn value(&self, counter: Counter, label: &'static str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&(counter, label)).copied().unwrap_or_default()
    }

    /// Prometheus text.
    pub fn render(&self, gauges: &[Gauge]) -> String {
        let mut out = String::new();
        for Gauge { name, help, value } in gauges {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}").expect("writing to memory succeeds");
        }
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = None;
        for ((counter, label), value) in counts.iter() {
            let (name, label_name, help) = counter.row();
            if family.replace(*counter) != Some(*counter) {
                writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter").expect("writing to memory succeeds");
            }
            let labels = if label_name.is_empty() { String::new() } else { format!("{{{label_name}=\"{label}\"}}") };
            writeln!(out, "{name}{labels} {value}").expect("writing to memory succeeds");
        }
        out
    }
}
