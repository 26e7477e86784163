//! `/metrics`: the Prometheus text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanlight_auditlog::sequencer::Stats;

/// Upper bounds of the latency buckets, in milliseconds.
const BUCKETS_MS: [u64; 9] = [10, 25, 50, 100, 250, 500, 1000, 2500, 10_000];

/// How long answered appends took.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    // Not cumulative; the last one holds what is slower than every bound.
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Metrics {
    pub(crate) fn observe(&self, append: Duration) {
        let bucket = BUCKETS_MS.iter().take_while(|bound| append > Duration::from_millis(**bound)).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(append.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn render(&self, stats: &Stats) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, value: u64| {
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n").expect("a string takes every write");
        };
        put("fanlight_log_tree_size", "gauge", "Entries in the published checkpoint.", stats.tree_size);
        put("fanlight_log_pool_entries", "gauge", "Entries waiting for a round.", stats.pool_entries as u64);
        put("fanlight_log_pool_bytes", "gauge", "Bytes waiting for a round.", stats.pool_bytes as u64);
        put("fanlight_log_rounds_total", "counter", "Rounds published.", stats.rounds);
        put("fanlight_log_failed_rounds_total", "counter", "Rounds that the store failed.", stats.failed_rounds);
        put("fanlight_log_appended_total", "counter", "Entries published.", stats.appended);
        put("fanlight_log_duplicates_total", "counter", "Appends of an entry that was there already.", stats.duplicates);
        put("fanlight_log_overloaded_total", "counter", "Appends refused because the pool was full.", stats.overloaded);
        self.render_latency(&mut text).expect("a string takes every write");
        text
    }

    fn render_latency(&self, text: &mut String) -> std::fmt::Result {
        const NAME: &str = "fanlight_log_append_seconds";
        write!(text, "# HELP {NAME} From the whole entry to its proof.\n# TYPE {NAME} histogram\n")?;
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS_MS.map(Some).into_iter().chain([None])) {
            count += bucket.load(Ordering::Relaxed);
            match bound {
                Some(ms) => writeln!(text, "{NAME}_bucket{{le=\"{}\"}} {count}", Duration::from_millis(ms).as_secs_f64())?,
                None => writeln!(text, "{NAME}_bucket{{le=\"+Inf\"}} {count}")?,
            }
        }
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(text, "{NAME}_sum {sum}\n{NAME}_count {count}")
    }
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
        let text = metrics.render(&Stats::default());
        for line in [
            "fanlight_log_append_seconds_bucket{le=\"0.01\"} 1",
            "fanlight_log_append_seconds_bucket{le=\"0.025\"} 2",
            "fanlight_log_append_seconds_bucket{le=\"10\"} 2",
            "fanlight_log_append_seconds_bucket{le=\"+Inf\"} 3",
            "fanlight_log_append_seconds_sum 20.021",
            "fanlight_log_append_seconds_count 3",
            "# TYPE fanlight_log_tree_size gauge",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
