//! Accepting connections, within bounds.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::serve::stall::Unstalled;

/// Longest time for a request's head to arrive, and for a connection to stay without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that one connection buffers beside bodies; a longer head is refused.
const MAX_BUFFER: usize = 64 * 1024;

/// Pause after an accept that failed, for instance because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stopping`, and returns once every connection has sent the answers that it owes.
///
/// A client that does not take its answer for `patience` is cut off. HTTP/1.1 only: what stands in front of a log and
/// speaks TLS also speaks that.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    patience: Duration,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_BUFFER);
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(max_connections)));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = stopping.run_until_cancelled(accept).await else { break };
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
        let io = TokioIo::new(Unstalled::new(socket, patience));
        let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
        tokio::spawn(async move {
            // How a connection ends is its client's affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}
