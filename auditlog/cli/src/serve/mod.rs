//! `fanlight-log serve`.

mod add;
mod body;
mod connections;
mod health;
mod metrics;
mod proof;
mod read;
mod refusal;
mod stall;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use fanlight_auditlog::sequencer::TokioTimer;
use fanlight_auditlog::{Log, Sequencer};
use fanlight_stores::AnyStore;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::health::Health;
use self::metrics::Metrics;
use crate::signals::Signals;
use crate::witnesses::LogWitnesses;

/// Requests under way at shutdown wait for one round; only a client that does not read takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const TEXT: (HeaderName, &str) = (CONTENT_TYPE, "text/plain; charset=utf-8");
const NOT_STORED: (HeaderName, &str) = (CACHE_CONTROL, "no-store");

/// Where to serve, and how many at once.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// Address to listen on; port 0 takes a free one. Plain HTTP: put a TLS proxy in front of anything but loopback.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Connections at once; others wait. Each needs a file descriptor, of which the store needs some too.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// How long an entry may wait beyond the longest delay before its append is answered without a proof and the log is
    /// called stuck, and how long a client may take nothing of its answer.
    #[arg(long, hide = true, value_name = "MILLISECONDS", default_value_t = 30_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    patience: u64,
}

/// What requests share.
#[derive(Debug)]
struct Server {
    log: Log<AnyStore>,
    witnesses: Option<LogWitnesses>,
    metrics: Metrics,
    health: Health,
    // How long an append waits for its answer.
    patience: Duration,
    // Appends that may be under way: fewer than connections, whatever the log does.
    adds: Semaphore,
    max_adds: usize,
    // Bytes of bodies that may still be received, of single entries and of batches.
    held_entries: Arc<Semaphore>,
    held_batches: Arc<Semaphore>,
    // Bytes of long answers that may still be held.
    sending: Arc<Semaphore>,
}

impl Server {
    fn new(log: Log<AnyStore>, witnesses: Option<LogWitnesses>, max_connections: usize, patience: Duration) -> Self {
        let bytes = |n| Arc::new(Semaphore::new(n));
        let max_adds = (max_connections * 3 / 4).max(1);
        Self {
            log,
            witnesses,
            metrics: Metrics::default(),
            health: Health::new(patience),
            patience,
            adds: Semaphore::new(max_adds),
            max_adds,
            held_entries: bytes(body::MAX_HELD_ENTRIES),
            held_batches: bytes(body::MAX_HELD_BATCHES),
            sending: bytes(read::MAX_SENDING),
        }
    }

    fn adds_under_way(&self) -> usize {
        self.max_adds - self.adds.available_permits()
    }

    fn bytes_sending(&self) -> usize {
        read::MAX_SENDING - self.sending.available_permits()
    }
}

pub(crate) async fn run(
    log: Log<AnyStore>,
    sequencer: Sequencer<AnyStore, Option<LogWitnesses>>,
    witnesses: Option<LogWitnesses>,
    max_delay: Duration,
    args: ListenArgs,
) -> anyhow::Result<()> {
    let ListenArgs { listen, max_connections, patience } = args;
    let (max_connections, patience) = (max_connections as usize, Duration::from_millis(patience));
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let opened = log.checkpoint();
    let mut running = tokio::spawn(sequencer.run(TokioTimer::new()));
    let server = Arc::new(Server::new(log.clone(), witnesses, max_connections, max_delay + patience));

    let stopping = CancellationToken::new();
    let watching = tokio::spawn(health::watch(Arc::clone(&server), opened));
    let connections = connections::serve(listener, router(server), max_connections, patience, stopping.clone());
    let serving = tokio::spawn(connections);
    writeln!(io::stdout(), "listening on http://{address}")?;
    tracing::info!(%address, vkey = %log.log_key(), "serving");

    tokio::select! {
        () = signals.next() => tracing::info!("stopping: finishing the round; a second signal ends at once"),
        // The log cannot go on; whoever restarts it finds out whether it recovers.
        stopped = &mut running => {
            stopped?.context("the log stopped")?;
            anyhow::bail!("the log stopped");
        }
    }
    watching.abort();
    stopping.cancel();
    let finish = async {
        let (drained, ()) = tokio::join!(timeout(DRAIN_TIMEOUT, serving), log.close());
        if drained.is_err() {
            tracing::warn!("clients that do not finish were cut off");
        }
        running.await?.context("the log stopped")
    };
    tokio::select! {
        finished = finish => finished,
        () = signals.next() => anyhow::bail!("ended before the round was finished; the next start makes it good"),
    }
}

fn router(server: Arc<Server>) -> Router {
    let public = Router::new()
        .route("/add", post(add::add))
        .route("/proof/{leaf}", get(proof::proof))
        .fallback_service(get(read::read).with_state(Arc::clone(&server)))
        .layer(middleware::from_fn(for_everyone));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(metrics::metrics))
        .fallback_service(public.with_state(Arc::clone(&server)))
        .with_state(server)
}

/// Lets pages of every origin use the log, which asks nobody who they are.
async fn for_everyone(request: Request, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type, if-none-match"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, retry-after, x-log-index"));
    }
    response
}
