//! What this shell lends to the core.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use fanlight_auditlog::http::{ReadPath, bytes_with};
use fanlight_auditlog::{AppendError, DirStore, Log, TileSource};
use fanlight_gateway::metrics::Metrics;
use fanlight_gateway::registry::Registry;
use fanlight_gateway::upload::Budget;
use fanlight_gateway::{Answer, BodyError, Host, LogError, Outgoing, ProviderLost};
use fanlight_protocol::UnixTime;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::SHUTDOWN_WAIT;
use crate::link::{Command, LinkHandle};
use crate::relay::{Piece, Relay};

/// Longest time for a whole request body to arrive.
const BODY_WAIT: Duration = Duration::from_mins(1);
/// Longest time for tasks to end once they were told to, and then for the log to finish its round.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Most provider links at once.
const MAX_LINKS: usize = 4_096;
/// Request bytes held at once, over all requests: 64 of the largest.
const MAX_HELD_REQUEST_BYTES: usize = 64 * fanlight_protocol::MAX_REQUEST_LEN;

/// Bytes of the log's bundles held at once for answers: 16 of the longest.
const MAX_HELD_LOG_BYTES: usize = 16 * fanlight_auditlog::bundle::MAX_BUNDLE_LEN;
/// Bytes of an object that any answer may hold: all but bundles.
const SHORT_LEN: usize = fanlight_auditlog::note::MAX_NOTE_LEN;
/// Longest wait for a share of what may be held.
const SHARE_WAIT: Duration = Duration::from_secs(10);

/// Everything that connections share.
#[derive(Debug)]
pub(crate) struct App {
    log: Log<DirStore>,
    registry: Registry<LinkHandle>,
    metrics: Metrics,
    budget: Arc<Budget>,
    /// Bytes of the log that may still be held for answers.
    log_bytes: Arc<Semaphore>,
    /// Places for provider links.
    pub(crate) links: Arc<Semaphore>,
    /// Links, connections, and appends on their way.
    pub(crate) tasks: TaskTracker,
    /// No new connections or requests; those in flight go on.
    pub(crate) stopping: CancellationToken,
    /// Everything ends.
    pub(crate) killed: CancellationToken,
    failed: CancellationToken,
}

impl App {
    pub(crate) fn new(log: Log<DirStore>, failed: CancellationToken) -> Self {
        let (registry, metrics, tasks) = (Registry::default(), Metrics::default(), TaskTracker::new());
        let (stopping, killed) = (CancellationToken::new(), CancellationToken::new());
        let (budget, links) = (Budget::new(MAX_HELD_REQUEST_BYTES), Arc::new(Semaphore::new(MAX_LINKS)));
        let log_bytes = Arc::new(Semaphore::new(MAX_HELD_LOG_BYTES));
        Self { log, registry, metrics, budget, log_bytes, links, tasks, stopping, killed, failed }
    }

    pub(crate) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("requests in flight were cut off");
            self.killed.cancel();
            if tokio::time::timeout(KILL_WAIT, self.tasks.wait()).await.is_err() {
                tracing::error!("some tasks did not end");
            }
        }
        // A store that hangs must not keep the process; what its round held is made good at the next start.
        if tokio::time::timeout(KILL_WAIT, self.log.close()).await.is_err() {
            tracing::error!("the log did not finish its round");
        }
    }
}

/// A request body with the time by which it must be there.
#[derive(Debug)]
pub(crate) struct Inbound {
    data: BodyDataStream,
    deadline: Instant,
}

impl Inbound {
    pub(crate) fn new(body: Body) -> Self {
        Self { data: body.into_data_stream(), deadline: Instant::now() + BODY_WAIT }
    }
}

impl Host for App {
    type Body = Inbound;
    type Link = LinkHandle;
    type Relay = Relay;

    #[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
    fn now(&self) -> UnixTime {
        SystemTime::now().into()
    }

    fn registry(&self) -> &Registry<LinkHandle> {
        &self.registry
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }

    async fn next_piece(&self, body: &mut Inbound) -> Result<Option<Bytes>, BodyError> {
        match tokio::time::timeout_at(body.deadline, body.data.next()).await {
            Ok(piece) => piece.transpose().map_err(|_| BodyError::Incomplete),
            Err(_) => Err(BodyError::TimedOut),
        }
    }

    async fn forward(&self, request: Outgoing<LinkHandle>) -> Result<Answer<Relay>, ProviderLost> {
        let link = request.slot.connection().link().clone();
        let (client, pieces) = mpsc::unbounded_channel();
        let ticket = link.next_ticket();
        let mut relay = Relay::new(link.clone(), ticket, pieces);
        link.tell(Command::Open { ticket, request: Box::new(request), client });
        match relay.first_word().await {
            Some(Piece::Part { .. }) => Ok(Answer::Streaming(relay)),
            Some(Piece::Refused { status, problem }) => Ok(Answer::Refused { status, problem }),
            Some(Piece::Finished) | None => Err(ProviderLost),
        }
    }

    async fn append(&self, entry: Bytes) -> Result<String, LogError> {
        // A store that fails can leave an append without an answer for ever.
        match self.killed.run_until_cancelled(self.log.append(entry)).await {
            None => Err(LogError::Unavailable),
            Some(Ok(appended)) => Ok(appended.tlog_proof.to_string()),
            Some(Err(AppendError::Overloaded { .. })) => Err(LogError::Overloaded),
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "entry not appended");
                Err(LogError::Unavailable)
            }
        }
    }

    async fn log_object(&self, path: &ReadPath) -> Result<Option<Bytes>, LogError> {
        let mut share = None;
        if path.max_len > SHORT_LEN {
            // Its length is known only when it is here.
            let longest = u32::try_from(path.max_len).expect("objects are far below 4 GiB");
            let wait = tokio::time::timeout(SHARE_WAIT, Arc::clone(&self.log_bytes).acquire_many_owned(longest));
            share = Some(wait.await.map_err(|_| LogError::Overloaded)?.expect("the semaphore is never closed"));
        }
        let object = self.log.store().get(&path.key).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "log object not read");
            LogError::Unavailable
        })?;
        Ok(object.map(|bytes| {
            let share = share.and_then(|mut share| share.split(bytes.len()));
            bytes_with(bytes, share)
        }))
    }
}

#[cfg(test)]
mod tests {
    use fanlight_auditlog::http::read_path;
    use fanlight_auditlog::{Config, Signer};
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_bundle_keeps_its_share_until_its_bytes_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::open_writer(dir.path()).unwrap();
        let signer = Signer::new("log.example/held", &[1; 32]).unwrap();
        fanlight_auditlog::create(&store, &signer).await.unwrap();
        let (log, sequencer) = Log::open(store, signer, Config::default()).await.unwrap();
        let running = tokio::spawn(sequencer.run(fanlight_auditlog::TokioTimer::new()));
        let app = App::new(log, CancellationToken::new());
        app.append("12345678".into()).await.unwrap();
        let bundle = read_path("tile/entries/000.p/1").unwrap();
        let bytes = app.log_object(&bundle).await.unwrap().unwrap();
        let part = bytes.slice(2..);
        drop(bytes);
        assert_eq!((&part[..], app.log_bytes.available_permits()), (&b"12345678"[..], MAX_HELD_LOG_BYTES - 10));
        drop(part);
        assert_eq!(app.log_bytes.available_permits(), MAX_HELD_LOG_BYTES);

        let others = app.log_bytes.acquire_many(u32::try_from(MAX_HELD_LOG_BYTES).unwrap()).await.unwrap();
        let mut waits = Box::pin(app.log_object(&bundle));
        assert!(waits.as_mut().now_or_never().is_none());
        // Short objects need no share.
        assert!(app.log_object(&read_path("checkpoint").unwrap()).await.unwrap().is_some());
        drop(others);
        assert!(waits.await.unwrap().is_some());
        app.stop().await;
        running.await.unwrap().unwrap();
    }
}
