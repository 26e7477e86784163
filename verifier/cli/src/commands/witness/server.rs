//! The witness over HTTP/1.1, within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fanlight_auditlog::DirStore;
use fanlight_protocol::UnixTime;
use fanlight_verifier::witness::{Answer, AnswerError, WitnessState};
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

use crate::commands::witness::metrics::{Metrics, outcome};
use crate::commands::witness::report;

/// Bytes of the longest request: a proof of 63 hashes is 2.8 KiB, and 30 signatures of ML-DSA-44 are 100 KiB.
const MAX_REQUEST_LEN: usize = 128 * 1024;

/// Bytes that are read of a request beyond its limit: an answer that overtakes the body is lost with the connection that
/// breaks under it.
const MAX_EXCESS: usize = 256 * 1024;

/// Connections at the same time. Each holds one request: 64 MiB in all.
const MAX_CONNECTIONS: usize = 512;

/// Longest time for a request's head to arrive, and for a connection to stay without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that one connection buffers beside the body; a longer head is refused.
const MAX_BUFFER: usize = 16 * 1024;

/// Pause after an accept that failed, for instance because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests share.
pub(super) struct Server {
    state: WitnessState<DirStore>,
    clock: fn() -> UnixTime,
    // For the requests of clients that left as well.
    places: Arc<Semaphore>,
    metrics: Metrics,
    // Whether no use of the store has failed since the last cosignature.
    healthy: AtomicBool,
}

impl Server {
    pub(super) fn new(state: WitnessState<DirStore>, clock: fn() -> UnixTime) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { state, clock, places, metrics: Metrics::default(), healthy: AtomicBool::new(true) }
    }

    fn noted<T>(&self, result: Result<T, AnswerError>) -> Result<T, AnswerError> {
        if let Err(error) = &result {
            if matches!(error, AnswerError::NotRead(_) | AnswerError::NotRecorded(_)) {
                self.healthy.store(false, Ordering::Relaxed);
            }
            report(error);
        }
        result
    }
}

/// Accepts until `stopping`, and returns once every connection has sent the answer that it owes.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>, mut stopping: watch::Receiver<bool>) {
    let router = router(server);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_BUFFER);
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            // The sender is dropped only to stop as well.
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without the option an answer is only slower.
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(socket), service).into_owned());
        tokio::spawn(async move {
            // How a connection ends is its client's affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin_hash}/checkpoint", get(checkpoint))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "no such path\n"))
        .with_state(server)
}

async fn add_checkpoint(State(server): State<Arc<Server>>, body: Body) -> Response {
    let request = match timeout(BODY_TIMEOUT, receive(body)).await {
        Ok(Ok(request)) => request,
        Ok(Err(TooLong)) => {
            server.metrics.count("too_large", Duration::ZERO);
            return (StatusCode::PAYLOAD_TOO_LARGE, "longer than any request to cosign\n").into_response();
        }
        Err(_) => {
            server.metrics.count("timed_out", Duration::ZERO);
            return (StatusCode::REQUEST_TIMEOUT, "the request did not arrive\n").into_response();
        }
    };
    let start = Instant::now();
    let answering = {
        let server = Arc::clone(&server);
        async move { server.state.add_checkpoint(&request, || (server.clock)().as_secs()).await }
    };
    let Ok(result) = to_its_end(&server, answering).await else { return failed() };
    server.metrics.count(result.as_ref().map_or_else(outcome, |_| "cosigned"), start.elapsed());
    match result {
        Ok(lines) => {
            server.healthy.store(true, Ordering::Relaxed);
            respond(Answer::ok(lines))
        }
        Err(error) => respond(Answer::from(&error)),
    }
}

/// Runs in a task of its own, which goes on when the client goes away, as the record's safety demands.
async fn to_its_end<T: Send + 'static>(
    server: &Arc<Server>,
    answering: impl Future<Output = Result<T, AnswerError>> + Send + 'static,
) -> Result<Result<T, AnswerError>, JoinError> {
    let server = Arc::clone(server);
    let place = Arc::clone(&server.places).acquire_owned().await.expect("the semaphore is never closed");
    let task = tokio::spawn(async move {
        let result = server.noted(answering.await);
        drop(place);
        result
    });
    task.await
}

fn failed() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n").into_response()
}

/// A request longer than [`MAX_REQUEST_LEN`].
struct TooLong;

async fn receive(body: Body) -> Result<Vec<u8>, TooLong> {
    let (mut received, mut length) = (Vec::new(), 0);
    let mut pieces = body.into_data_stream();
    // A body that breaks off is no request, and nobody is left to see what it was taken for.
    while let Some(Ok(piece)) = pieces.next().await {
        length += piece.len();
        if length > MAX_REQUEST_LEN + MAX_EXCESS {
            break;
        }
        if length <= MAX_REQUEST_LEN {
            received.extend_from_slice(&piece);
        }
    }
    if length <= MAX_REQUEST_LEN { Ok(received) } else { Err(TooLong) }
}

async fn checkpoint(State(server): State<Arc<Server>>, Path(origin_hash): Path<String>) -> Response {
    const EVERYONE: (HeaderName, &str) = (ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    let answering = {
        let server = Arc::clone(&server);
        async move { server.state.checkpoint(&origin_hash).await }
    };
    let answer = match to_its_end(&server, answering).await {
        Ok(Ok(Some(note))) => respond(Answer::ok(note)),
        Ok(Ok(None)) => (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")], "never cosigned\n").into_response(),
        Ok(Err(error)) => respond(Answer::from(&error)),
        Err(_) => failed(),
    };
    ([EVERYONE], answer).into_response()
}

async fn healthz(State(server): State<Arc<Server>>) -> Response {
    if server.healthy.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the directory of the witness fails; its log on standard error says how\n")
            .into_response()
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let text = server.metrics.render(server.state.witness().origins().count(), server.healthy.load(Ordering::Relaxed));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn respond(Answer { status, content_type, body }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Cosignatures are fresh or worthless.
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")];
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return (status, headers, [(RETRY_AFTER, "1")], body).into_response();
    }
    (status, headers, body).into_response()
}
