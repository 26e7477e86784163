//! `GET /healthz`: whether the log can publish.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_auditlog::sequencer::Stats;

use crate::serve::Server;
use crate::serve::refusal::Refusal;

/// How often progress is looked at.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// Since when entries wait and none is answered.
#[derive(Debug)]
pub(super) struct Health {
    // How long that may last before the log is called stuck. A store that is away for shorter is nothing to restart anything
    // for.
    patience: Duration,
    // Never held across an await.
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    answered: u64,
    waiting_since: Option<Instant>,
}

impl Health {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, progress: Mutex::default() }
    }

    /// Notes how many entries were answered by `now`, and whether others were not. Clients may have left them behind.
    fn note(&self, stats: &Stats, now: Instant) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let advanced = std::mem::replace(&mut progress.answered, stats.answered) != stats.answered;
        progress.waiting_since = match progress.waiting_since {
            _ if stats.unanswered == 0 => None,
            Some(since) if !advanced => Some(since),
            _ => Some(now),
        };
    }

    /// For how long no entry was answered although some wait; `None` while that is in order.
    fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let since = self.progress.lock().unwrap_or_else(PoisonError::into_inner).waiting_since?;
        Some(now.saturating_duration_since(since)).filter(|waited| *waited > self.patience)
    }
}

/// Watches the server's progress, and what it publishes after `published`, until it is dropped.
pub(super) async fn watch(server: Arc<Server>, mut published: Arc<VerifiedCheckpoint>) {
    let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
    loop {
        ticks.tick().await;
        server.health.note(&server.log.stats(), Instant::now());
        let checkpoint = server.log.checkpoint();
        if checkpoint.note() != published.note() {
            server.metrics.published_now();
        }
        published = checkpoint;
    }
}

pub(super) async fn healthz(State(server): State<Arc<Server>>) -> Response {
    match server.health.stuck_for(Instant::now()) {
        None => "ok\n".into_response(),
        Some(stuck) => Refusal::unhealthy(reason(stuck, &server.log.stats())).into_response(),
    }
}

fn reason(stuck: Duration, stats: &Stats) -> String {
    let Stats { unanswered, failed_rounds, not_cosigned, .. } = stats;
    let seconds = stuck.as_secs();
    format!(
        "nothing published for {seconds} s while {unanswered} entries wait; since the start the store failed {failed_rounds} \
         rounds and the witnesses withheld their quorum {not_cosigned} times, see the error log"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(answered: u64, unanswered: usize) -> Stats {
        let mut stats = Stats::default();
        (stats.answered, stats.unanswered) = (answered, unanswered);
        stats
    }

    #[test]
    fn stuck_only_while_entries_wait_for_long() {
        let health = Health::new(Duration::from_secs(35));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        health.note(&stats(0, 0), at(0));
        assert_eq!(health.stuck_for(at(1000)), None);
        health.note(&stats(0, 1), at(1000));
        assert_eq!(health.stuck_for(at(1035)), None);
        assert_eq!(health.stuck_for(at(1036)), Some(Duration::from_secs(36)));
        health.note(&stats(0, 1), at(1036));
        assert_eq!(health.stuck_for(at(1040)), Some(Duration::from_secs(40)));
        health.note(&stats(1, 1), at(1041));
        assert_eq!(health.stuck_for(at(1076)), None);
        health.note(&stats(1, 1), at(1076));
        assert!(health.stuck_for(at(1077)).is_some());
        health.note(&stats(1, 0), at(1078));
        assert_eq!(health.stuck_for(at(9999)), None);
    }

    #[test]
    fn answers_without_a_round_are_progress() {
        let health = Health::new(Duration::from_secs(30));
        let start = Instant::now();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            // Entries that are in the log already, one after the other, and always one more waiting.
            health.note(&stats(second, 1), now);
            assert_eq!(health.stuck_for(now), None);
        }
    }
}
