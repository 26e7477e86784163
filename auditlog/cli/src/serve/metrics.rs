//! `GET /metrics`: the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fanlight_auditlog::LeafIndex as _;
use fanlight_auditlog::sequencer::Stats;
use fanlight_auditlog::witness::WitnessReport;

use crate::serve::Server;

/// Upper bounds of the latency buckets, in milliseconds.
const BUCKETS_MS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000];

/// What the server counts itself.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    // Answered appends; not cumulative, and the last one holds what is slower than every bound.
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_us: AtomicU64,
    waiting: AtomicU64,
    crowded: AtomicU64,
    unanswered: AtomicU64,
    // Seconds since 1970.
    published: AtomicU64,
}

/// An append that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl Metrics {
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { metrics: self, since: Instant::now() }
    }

    /// Counts an append that found too many others waiting.
    pub(super) fn crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an append that was not answered in time.
    pub(super) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a checkpoint was published just now.
    pub(super) fn published_now(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.published.store(now, Ordering::Relaxed);
    }

    fn observe(&self, append: Duration) {
        let bucket = BUCKETS_MS.iter().take_while(|bound| append > Duration::from_millis(**bound)).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(append.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    /// Counts the time since [`Metrics::wait`] as that of an append that succeeded.
    pub(super) fn answered(self) {
        self.metrics.observe(self.since.elapsed());
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let mut text = Text::default();
    text.log(&server.log.stats());
    if let Ok(indexed) = server.log.store().indexed().await {
        text.gauge("indexed_entries", "Entries that are recognised when they are appended again.", indexed);
    }
    text.server(&server.metrics);
    text.gauge("adds", "Requests to append that are under way.", server.adds_under_way());
    text.gauge("sending_bytes", "Bytes held for long answers, or reserved to read them.", server.bytes_sending());
    if let Some(witnesses) = &server.witnesses {
        text.witnesses(&witnesses.reports(), witnesses.passed_without_quorum());
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn log(&mut self, stats: &Stats) {
        self.gauge("tree_size", "Entries in the published checkpoint.", stats.tree_size);
        self.gauge("pool_entries", "Entries waiting for a round.", stats.pool_entries);
        self.gauge("pool_bytes", "Bytes waiting for a round.", stats.pool_bytes);
        self.gauge("unanswered_entries", "Entries waiting for a round or in the one under way.", stats.unanswered);
        self.counter("rounds_total", "Rounds published.", stats.rounds);
        self.counter("failed_rounds_total", "Rounds that the store failed, or another writer took.", stats.failed_rounds);
        self.counter("not_cosigned_total", "Times that a checkpoint was held back for want of cosignatures.", stats.not_cosigned);
        self.counter("refreshed_total", "Times that a published checkpoint got fresh cosignatures.", stats.refreshed);
        self.counter("collected_total", "Partial tiles and bundles deleted.", stats.collected);
        self.counter("appended_total", "Entries published.", stats.appended);
        self.counter("duplicates_total", "Appends of an entry that was there already.", stats.duplicates);
        self.counter("overloaded_total", "Appends refused because the pool was full.", stats.overloaded);
    }

    fn server(&mut self, metrics: &Metrics) {
        let published = metrics.published.load(Ordering::Relaxed);
        if published > 0 {
            self.gauge("published_timestamp_seconds", "When this server last published a checkpoint.", published);
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.gauge("waiting_appends", "Appends that wait for their answer.", count(&metrics.waiting));
        self.counter("crowded_total", "Appends refused because too many waited already.", count(&metrics.crowded));
        self.counter("unanswered_total", "Appends not answered in time; the entries stay.", count(&metrics.unanswered));
        self.head("append_seconds", "histogram", "From the whole entry to its proof.");
        let mut count = 0;
        for (bucket, bound) in metrics.buckets.iter().zip(BUCKETS_MS.map(Some).into_iter().chain([None])) {
            count += bucket.load(Ordering::Relaxed);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |ms| Duration::from_millis(ms).as_secs_f64().to_string());
            self.sample("append_seconds_bucket", &format!("{{le=\"{bound}\"}}"), count);
        }
        let sum = Duration::from_micros(metrics.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        self.sample("append_seconds_sum", "", sum);
        self.sample("append_seconds_count", "", count);
    }

    fn witnesses(&mut self, reports: &[WitnessReport], passed_without_quorum: u64) {
        self.counter(
            "passed_without_quorum_total",
            "Checkpoints published without a quorum of witnesses.",
            passed_without_quorum,
        );
        self.head("witness_answers_total", "counter", "Submissions to a witness, by what came of them.");
        for report in reports {
            for (outcome, count) in [
                ("cosigned", report.cosigned),
                ("refused", report.refused),
                ("timed_out", report.timed_out),
                ("failed", report.failed),
                ("lying", report.lying),
                ("ahead", report.ahead),
            ] {
                self.sample(
                    "witness_answers_total",
                    &format!("{{witness=\"{}\",outcome=\"{outcome}\"}}", escaped(&report.name)),
                    count,
                );
            }
        }
        let last = "witness_last_cosigned_timestamp_seconds";
        self.head(last, "gauge", "The time in the latest cosignature of a witness.");
        for report in reports {
            if let Some(time) = report.last_cosigned {
                self.sample(last, &format!("{{witness=\"{}\"}}", escaped(&report.name)), time);
            }
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP fanlight_log_{name} {help}\n# TYPE fanlight_log_{name} {kind}\n")
            .expect("a string takes every write");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.0, "fanlight_log_{name}{labels} {value}").expect("a string takes every write");
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        for ms in [10, 11, 20_000] {
            metrics.observe(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        text.server(&metrics);
        for line in [
            "fanlight_log_append_seconds_bucket{le=\"0.01\"} 1",
            "fanlight_log_append_seconds_bucket{le=\"0.025\"} 2",
            "fanlight_log_append_seconds_bucket{le=\"10\"} 2",
            "fanlight_log_append_seconds_bucket{le=\"+Inf\"} 3",
            "fanlight_log_append_seconds_sum 20.021",
            "fanlight_log_append_seconds_count 3",
        ] {
            assert!(text.0.lines().any(|found| found == line), "{line} is not in:\n{}", text.0);
        }
    }

    #[test]
    fn labels_stay_labels() {
        let report =
            WitnessReport { name: "a\"b\\c".to_owned(), cosigned: 2, last_cosigned: Some(7), ..WitnessReport::default() };
        let mut text = Text::default();
        text.witnesses(&[report], 1);
        assert!(text.0.contains("{witness=\"a\\\"b\\\\c\",outcome=\"cosigned\"} 2\n"), "{}", text.0);
        assert!(text.0.contains("{witness=\"a\\\"b\\\\c\"} 7\n"), "{}", text.0);
    }
}
