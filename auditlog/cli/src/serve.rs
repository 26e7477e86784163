//! `fanlight-log serve`.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use fanlight_auditlog::http::read_path;
use fanlight_auditlog::{AppendError, DirStore, Log, MAX_ENTRY_LEN, Sequencer, TileSource as _};
use tokio::net::TcpListener;
use tokio::signal;
use tokio::time::timeout;

use crate::metrics::Metrics;

/// A client that takes longer to send 64 KiB is not going to.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests under way at shutdown wait for one round; only a client that does not read takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Server {
    log: Log<DirStore>,
    metrics: Arc<Metrics>,
}

pub(crate) async fn run(log: Log<DirStore>, sequencer: Sequencer<DirStore>, listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let mut running = tokio::spawn(sequencer.run(tokio::time::sleep));
    let server = Server { log: log.clone(), metrics: Arc::default() };

    let (stop, mut stopping) = tokio::sync::watch::channel(false);
    let drain = async move {
        // The sender is dropped only together with the server.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let mut serving = tokio::spawn(axum::serve(listener, router(server)).with_graceful_shutdown(drain).into_future());
    writeln!(io::stdout(), "listening on http://{address}")?;
    tracing::info!(%address, vkey = %log.log_key(), "serving");

    tokio::select! {
        () = shutdown_signal() => tracing::info!("stopping: finishing the round"),
        ended = &mut serving => return Ok(ended??),
        // The log cannot go on; whoever restarts it finds out whether it recovers.
        stopped = &mut running => {
            stopped?.context("the log stopped")?;
            anyhow::bail!("the log stopped");
        }
    }
    stop.send_replace(true);
    if timeout(DRAIN_TIMEOUT, &mut serving).await.is_err() {
        tracing::warn!("clients that do not finish are cut off");
        serving.abort();
    }
    log.close().await;
    running.await?.context("the log stopped")
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/add", post(add))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .fallback_service(get(read).with_state(server.clone()))
        .with_state(server)
}

/// Most bytes of a body that are read. More than an entry may have: an answer that overtakes the body is lost with the
/// connection that breaks under it.
const MAX_READ: usize = 4 * MAX_ENTRY_LEN;

async fn add(State(server): State<Server>, headers: HeaderMap, body: Body) -> Response {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_long = (StatusCode::PAYLOAD_TOO_LARGE, "entry longer than 65535 bytes\n");
    if announced.is_some_and(|length| length > MAX_READ as u64) {
        return too_long.into_response();
    }
    let entry = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_READ)).await {
        Ok(Ok(entry)) if entry.len() <= MAX_ENTRY_LEN => entry,
        // A body that breaks off reads the same, but nobody is left to see the answer then.
        Ok(_) => return too_long.into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "entry not received\n").into_response(),
    };
    let start = Instant::now();
    match server.log.append(entry).await {
        Ok(appended) => {
            server.metrics.observe(start.elapsed());
            let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            (headers, appended.tlog_proof.to_string()).into_response()
        }
        Err(error) => refused(&error),
    }
}

/// The one place where an append that failed gets its status.
fn refused(error: &AppendError) -> Response {
    let status = match error {
        AppendError::EntryTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        AppendError::Overloaded | AppendError::Closing | AppendError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status.is_server_error() {
        tracing::warn!(%error, "append refused");
    }
    let body = format!("{error}\n");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return (status, [(RETRY_AFTER, "1")], body).into_response();
    }
    (status, body).into_response()
}

/// The public objects of the log, and nothing else.
async fn read(State(server): State<Server>, uri: Uri) -> Response {
    const NOT_CACHED: (HeaderName, &str) = (CACHE_CONTROL, "no-store");
    const EVERYONE: (HeaderName, &str) = (ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    let Some(path) = read_path(uri.path()) else {
        return (StatusCode::NOT_FOUND, [EVERYONE, NOT_CACHED], "no such path\n").into_response();
    };
    match server.log.store().get(&path.key).await {
        Ok(Some(bytes)) => {
            let headers = [EVERYONE, (CONTENT_TYPE, path.content_type), (CACHE_CONTROL, path.cache_control)];
            (headers, bytes).into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, [EVERYONE, NOT_CACHED], "not in the log\n").into_response(),
        Err(error) => {
            tracing::warn!(%error, "object not read");
            (StatusCode::INTERNAL_SERVER_ERROR, [EVERYONE, NOT_CACHED], "object not read\n").into_response()
        }
    }
}

async fn healthz() -> &'static str {
    // A log that stops takes the process with it, so whoever answers is well.
    "ok\n"
}

async fn metrics(State(server): State<Server>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, server.metrics.render(&server.log.stats())).into_response()
}

async fn shutdown_signal() {
    #[cfg(unix)]
    {
        let terminate = signal::unix::signal(signal::unix::SignalKind::terminate());
        let Ok(mut terminate) = terminate else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = signal::ctrl_c().await;
}
