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
use bytes::Bytes;
use fanlight_auditlog::http::bytes_with;
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
/// Longest time for a client to take an answer of more than [`SHORT_LEN`] bytes, of which a bundle of the log has 16 MiB at
/// most. Relayed answers take as long as their provider.
const TAKE_WAIT: Duration = Duration::from_mins(2);
/// Bytes of an answer that nobody waits for.
const SHORT_LEN: usize = 65_536;
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

/// What a connection's requests tell about it.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// It has brought a request.
    any: CancellationToken,
    /// It does not take its answers.
    stalled: CancellationToken,
}

/// Serves a connection, and drops it if no request comes in time: hyper itself waits for ever for the bytes that tell
/// HTTP/1 from HTTP/2, and for the first request on HTTP/2. Nor does it stay once it takes an answer too slowly.
async fn unless_idle(connection: impl Future, asked: Asked) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = asked.any.cancelled() => {}
        () = tokio::time::sleep(HEAD_WAIT) => return,
    }
    let _ = asked.stalled.run_until_cancelled(connection).await;
}

/// The same bytes; if they are not on their way in time, the connection ends, and what it holds with it.
fn taken_in_time(bytes: Bytes, asked: &Asked, wait: Duration) -> Bytes {
    if bytes.len() <= SHORT_LEN {
        return bytes;
    }
    let (taken, stalled) = (CancellationToken::new(), asked.stalled.clone());
    let bytes = bytes_with(bytes, taken.clone().drop_guard());
    tokio::spawn(async move {
        if tokio::time::timeout(wait, taken.cancelled()).await.is_err() {
            stalled.cancel();
        }
    });
    bytes
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
    asked.any.cancel();
    let answer = handle(&*app, request.map(Inbound::new)).await;
    into_response(answer.map(|reply| match reply {
        Reply::Own(bytes) => Reply::Own(taken_in_time(bytes, &asked, TAKE_WAIT)),
        relayed @ Reply::Relayed(_) => relayed,
    }))
}

async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    asked.any.cancel();
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that has one long answer, for which it waits `wait`; it ends with its first connection.
    async fn serve_one(wait: Duration) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let asked = Asked::default();
        let of_connection = asked.clone();
        let router = Router::new().fallback(move || {
            of_connection.any.cancel();
            let body = taken_in_time(vec![7; 64 << 20].into(), &of_connection, wait);
            async move { body }
        });
        let serving = tokio::spawn(async move {
            let connection = builder();
            let connection = connection.serve_connection_with_upgrades(io(socket), TowerToHyperService::new(router));
            unless_idle(connection, asked).await;
        });
        (client, serving)
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answer_is_cut_off() {
        let (mut client, serving) = serve_one(Duration::from_millis(50)).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), serving).await.expect("the connection ends").unwrap();

        let (mut client, serving) = serve_one(Duration::from_mins(1)).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() > 64 << 20);
        serving.await.unwrap();
    }
}
