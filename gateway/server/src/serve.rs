//! Connections: accepting, timeouts, shutdown; and the two routes of this shell.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use fanlight_gateway::{Reply, RequestError, handle, problem_response};
use fanlight_protocol::link::{MAX_MESSAGE_LEN, SUBPROTOCOL};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Inbound};
use crate::link;
use crate::relay::Relay;

/// Longest time for a request's head to arrive, and for the first request on a connection.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Most HTTP connections at once; links have places of their own.
const MAX_CONNECTIONS: usize = 8_192;
/// Most requests at once on one HTTP/2 connection.
const MAX_H2_REQUESTS: u32 = 256;
/// Bytes that hyper buffers for one HTTP/1 connection; what is beyond waits, and holds back its own stream's credit.
const MAX_BUFFER: usize = 65_536;
/// Silence after which an HTTP/2 client is pinged.
const H2_PING_AFTER: Duration = Duration::from_secs(20);
/// Pause after an accept that failed, for instance because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the app stops, then lets connections finish.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener) {
    let router = router(Arc::clone(&app));
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = app.stopping.run_until_cancelled(accept).await else { break };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let asked = Asked::default();
        let service = TowerToHyperService::new(router.clone().layer(Extension(asked.clone())));
        let connection = graceful.watch(builder().serve_connection_with_upgrades(io(socket), service).into_owned());
        let killed = app.killed.clone();
        app.tasks.spawn(async move {
            // How a client's connection ends is its own affair; requests count their outcomes.
            let _ = killed.run_until_cancelled_owned(unless_idle(connection, asked)).await;
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = app.killed.cancelled() => {}
    }
}

/// Whether a connection has brought a request.
#[derive(Clone, Debug, Default)]
struct Asked(CancellationToken);

/// Serves a connection, and drops it if no request comes in time: hyper itself waits for ever for the bytes that tell
/// HTTP/1 from HTTP/2, and for the first request on HTTP/2.
async fn unless_idle(connection: impl Future, asked: Asked) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = asked.0.cancelled() => {}
        () = tokio::time::sleep(HEAD_WAIT) => return,
    }
    connection.await;
}

fn io(socket: TcpStream) -> TokioIo<TcpStream> {
    // A frame should leave when it comes; without the option the answer is only slower.
    let _ = socket.set_nodelay(true);
    TokioIo::new(socket)
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(MAX_BUFFER);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(H2_PING_AFTER).max_concurrent_streams(MAX_H2_REQUESTS);
    builder
}

fn router(app: Arc<App>) -> Router {
    Router::new().route("/v1/link", get(upgrade)).fallback(answer).method_not_allowed_fallback(answer).with_state(app)
}

async fn answer(State(app): State<Arc<App>>, Extension(asked): Extension<Asked>, request: Request) -> Response {
    asked.0.cancel();
    into_response(handle(&*app, request.map(Inbound::new)).await)
}

async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    asked.0.cancel();
    let Ok(upgrade) = upgrade else { return into_response(problem_response(RequestError::MethodNotAllowed)) };
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_message_size(MAX_MESSAGE_LEN).max_frame_size(MAX_MESSAGE_LEN);
    if upgrade.selected_protocol().is_none() || app.stopping.is_cancelled() {
        return into_response(problem_response(RequestError::MethodNotAllowed));
    }
    let Ok(place) = Arc::clone(&app.links).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    upgrade.on_upgrade(move |socket| {
        let tasks = app.tasks.clone();
        tasks.track_future(link::run(app, socket, place))
    })
}

fn into_response(response: http::Response<Reply<Relay>>) -> Response {
    response.map(|reply| match reply {
        Reply::Own(bytes) => Body::from(bytes),
        Reply::Relayed(relay) => Body::from_stream(relay),
    })
}
