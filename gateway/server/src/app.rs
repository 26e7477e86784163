//! What this shell lends to the core.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use fanlight_auditlog::http::ReadPath;
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

/// Everything that connections share.
#[derive(Debug)]
pub(crate) struct App {
    log: Log<DirStore>,
    registry: Registry<LinkHandle>,
    metrics: Metrics,
    budget: Arc<Budget>,
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
        Self { log, registry, metrics, budget, links, tasks, stopping, killed, failed }
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
        self.log.store().get(&path.key).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "log object not read");
            LogError::Unavailable
        })
    }
}
