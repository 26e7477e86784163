//! `GET /healthz`: whether the log can publish.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};

use crate::serve::Server;
use crate::serve::refusal::Refusal;

/// How long entries may wait beyond the longest delay that was chosen before the log is called stuck. A store that is
/// away for shorter is nothing to restart anything for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often progress is looked at.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// Since when entries wait without a round.
#[derive(Debug)]
pub(super) struct Health {
    patience: Duration,
    // Never held across an await.
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    rounds: u64,
    waiting_since: Option<Instant>,
}

impl Health {
    pub(super) fn new(max_delay: Duration) -> Self {
        Self { patience: max_delay + PATIENCE, progress: Mutex::default() }
    }

    /// Notes how many rounds were published by `now`, and whether anyone waits for one. Returns whether there were new ones.
    fn note(&self, rounds: u64, anyone_waits: bool, now: Instant) -> bool {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let advanced = std::mem::replace(&mut progress.rounds, rounds) != rounds;
        progress.waiting_since = match progress.waiting_since {
            _ if !anyone_waits => None,
            Some(since) if !advanced => Some(since),
            _ => Some(now),
        };
        advanced
    }

    /// For how long nothing was published although somebody waits; `None` while that is in order.
    fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let since = self.progress.lock().unwrap_or_else(PoisonError::into_inner).waiting_since?;
        Some(now.saturating_duration_since(since)).filter(|waited| *waited > self.patience)
    }
}

/// Watches the server's progress until it is dropped.
pub(super) async fn watch(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
    loop {
        ticks.tick().await;
        let stats = server.log.stats();
        let anyone_waits = stats.pool_entries > 0 || server.metrics.n_waiting() > 0;
        if server.health.note(stats.rounds, anyone_waits, Instant::now()) {
            server.metrics.published_now();
        }
    }
}

pub(super) async fn healthz(State(server): State<Arc<Server>>) -> Response {
    match server.health.stuck_for(Instant::now()) {
        None => "ok\n".into_response(),
        Some(stuck) => {
            let (seconds, failed) = (stuck.as_secs(), server.log.stats().failed_rounds);
            let reason =
                format!("nothing published for {seconds} s while entries wait; {failed} rounds failed, see the error log");
            Refusal::unhealthy(reason).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_only_while_somebody_waits_for_long() {
        let health = Health::new(Duration::from_secs(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        health.note(0, false, at(0));
        assert_eq!(health.stuck_for(at(1000)), None);
        health.note(0, true, at(1000));
        assert_eq!(health.stuck_for(at(1035)), None);
        assert_eq!(health.stuck_for(at(1036)), Some(Duration::from_secs(36)));
        health.note(0, true, at(1036));
        assert_eq!(health.stuck_for(at(1040)), Some(Duration::from_secs(40)));
        health.note(1, true, at(1041));
        assert_eq!(health.stuck_for(at(1076)), None);
        health.note(1, true, at(1076));
        assert!(health.stuck_for(at(1077)).is_some());
        health.note(1, false, at(1078));
        assert_eq!(health.stuck_for(at(9999)), None);
    }
}
