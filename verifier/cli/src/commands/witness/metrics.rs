//! `/metrics`: the Prometheus text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanlight_verifier::witness::{AnswerError, Refusal};

/// What became of a request to cosign.
const OUTCOMES: [&str; 14] = [
    "cosigned",
    "malformed",
    "unknown_log",
    "bad_signature",
    "not_signed",
    "other_old_size",
    "inconsistent",
    "fork",
    "clock",
    "busy",
    "damaged_record",
    "store_failed",
    "too_large",
    "timed_out",
];

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    time_us: AtomicU64,
}

impl Metrics {
    /// `outcome` is one of [`OUTCOMES`]; `time` is from the whole request to its answer.
    pub(super) fn count(&self, outcome: &str, time: Duration) {
        if let Some(index) = OUTCOMES.iter().position(|other| *other == outcome) {
            self.outcomes[index].fetch_add(1, Ordering::Relaxed);
        }
        self.time_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn render(&self, n_logs: usize, healthy: bool) -> String {
        const REQUESTS: &str = "fanlight_witness_requests_total";
        const TIME: &str = "fanlight_witness_request_seconds_total";
        let mut text = format!(
            "# HELP fanlight_witness_logs Logs that are known.\n# TYPE fanlight_witness_logs gauge\n\
             fanlight_witness_logs {n_logs}\n\
             # HELP fanlight_witness_healthy Whether records can be read and written.\n\
             # TYPE fanlight_witness_healthy gauge\nfanlight_witness_healthy {}\n\
             # HELP {TIME} Time spent on requests to cosign.\n# TYPE {TIME} counter\n{TIME} {}\n\
             # HELP {REQUESTS} Requests to cosign, by outcome. A fork is a log that lies.\n# TYPE {REQUESTS} counter\n",
            u8::from(healthy),
            Duration::from_micros(self.time_us.load(Ordering::Relaxed)).as_secs_f64(),
        );
        for (outcome, count) in OUTCOMES.iter().zip(&self.outcomes) {
            let count = count.load(Ordering::Relaxed);
            writeln!(text, "{REQUESTS}{{outcome=\"{outcome}\"}} {count}").expect("a string takes every write");
        }
        text
    }
}

/// The outcome of a request that was not answered with cosignatures.
pub(super) fn outcome(error: &AnswerError) -> &'static str {
    match error {
        AnswerError::Busy => "busy",
        AnswerError::Damaged { .. } => "damaged_record",
        AnswerError::Fork { .. } => "fork",
        AnswerError::Refused(refusal) => match refusal {
            Refusal::UnknownLog => "unknown_log",
            Refusal::BadSignature => "bad_signature",
            Refusal::NotSigned => "not_signed",
            Refusal::OtherOldSize { .. } => "other_old_size",
            Refusal::EmptyTreeRoot | Refusal::Inconsistent(_) => "inconsistent",
            Refusal::Fork => "fork",
            Refusal::Clock { .. } => "clock",
            _ => "malformed",
        },
        _ => "store_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted() {
        let metrics = Metrics::default();
        for (n, name) in (1..).zip(OUTCOMES) {
            for _ in 0..n {
                metrics.count(name, Duration::from_millis(1));
            }
        }
        let text = metrics.render(3, true);
        for (n, name) in (1..).zip(OUTCOMES) {
            let line = format!("fanlight_witness_requests_total{{outcome=\"{name}\"}} {n}");
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        for line in ["fanlight_witness_logs 3", "fanlight_witness_healthy 1", "fanlight_witness_request_seconds_total 0.105"] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        for error in [AnswerError::Busy, Refusal::Fork.into(), Refusal::UnknownLog.into(), Refusal::OldSizeAboveTreeSize.into()] {
            assert!(OUTCOMES.contains(&outcome(&error)), "{error}");
        }
    }
}
