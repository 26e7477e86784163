//! The WebSocket below a link: opening it, and a task that owns its sending half.

use std::time::Duration;

use fanlight_protocol::link::{MAX_MESSAGE_LEN, SUBPROTOCOL};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::LinkError;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longest wait for TCP, TLS and the WebSocket handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages that wait for the socket. Exchanges wait behind them, so a slow network slows generation, not memory.
const QUEUE: usize = 64;
/// Silence after which a WebSocket ping is sent (SPEC §8.1).
const PING_AFTER: Duration = Duration::from_secs(10);
/// Silence after which the gateway is taken for gone (SPEC §8.1).
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// Opens the link's socket: `ws://` or `wss://`.
pub(super) async fn connect(url: &str) -> Result<(Sender, Receiver), LinkError> {
    let mut request = url.into_client_request().map_err(|source| LinkError::Connect(Box::new(source)))?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_LEN)).max_frame_size(Some(MAX_MESSAGE_LEN));
    // Small frames must not wait for more: tokens are small frames.
    let connecting = connect_async_with_config(request, Some(config), true);
    let (socket, _) = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| LinkError::TimedOut)?
        .map_err(|source| LinkError::Connect(Box::new(source)))?;
    let (sink, stream) = socket.split();
    let (messages, queue) = mpsc::channel(QUEUE);
    let (pings, ping_queue) = mpsc::channel(1);
    let (closed, dead) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn({
        let (closed, dead) = (closed.clone(), dead.clone());
        async move {
            let _closed = closed.drop_guard();
            tokio::select! {
                () = write(sink, queue, ping_queue) => {}
                () = dead.cancelled() => {}
            }
        }
    });
    Ok((Sender { messages, closed, dead: dead.drop_guard() }, Receiver { stream, pings, heard: Instant::now() }))
}

/// Hands messages to the task that writes them. Dropping it ends that task at once.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) messages: mpsc::Sender<Vec<u8>>,
    closed: CancellationToken,
    dead: DropGuard,
}

impl Sender {
    /// Queues a message of the link itself. While it waits nothing is received, so it does not wait for ever.
    pub(super) async fn send(&self, message: Vec<u8>) -> Result<(), LinkError> {
        let sent = timeout(GIVE_UP_AFTER, self.messages.send(message)).await.map_err(|_| LinkError::TimedOut)?;
        sent.map_err(|_| LinkError::Closed)
    }

    /// Lets the writer finish what is queued, then close the socket; waits for it.
    pub(super) async fn close(self) {
        let Self { messages, closed, dead } = self;
        drop(messages);
        let _ = timeout(CONNECT_TIMEOUT, closed.cancelled()).await;
        drop(dead);
    }
}

/// The receiving half.
pub(super) struct Receiver {
    stream: SplitStream<Socket>,
    pings: mpsc::Sender<()>,
    heard: Instant,
}

impl Receiver {
    /// The next binary message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<bytes::Bytes, LinkError> {
        loop {
            let silence = self.heard.elapsed();
            if silence >= GIVE_UP_AFTER {
                return Err(LinkError::TimedOut);
            }
            let wake_after = if silence < PING_AFTER { PING_AFTER } else { GIVE_UP_AFTER };
            let wait = wake_after.saturating_sub(silence);
            let Ok(message) = timeout(wait, self.stream.next()).await else {
                // A full queue already holds a ping.
                let _ = self.pings.try_send(());
                continue;
            };
            self.heard = Instant::now();
            match message {
                Some(Ok(WsMessage::Binary(bytes))) => return Ok(bytes),
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                Some(Ok(WsMessage::Close(_))) | None => return Err(LinkError::Closed),
                Some(Ok(_)) => return Err(LinkError::Protocol("a message that is not binary")),
                Some(Err(WsError::Capacity(_))) => return Err(LinkError::Protocol("a message above the limit")),
                Some(Err(_)) => return Err(LinkError::Closed),
            }
        }
    }
}

async fn write(mut sink: SplitSink<Socket, WsMessage>, mut queue: mpsc::Receiver<Vec<u8>>, mut pings: mpsc::Receiver<()>) {
    loop {
        let message = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => WsMessage::Binary(message.into()),
                None => break,
            },
            Some(()) = pings.recv() => WsMessage::Ping(bytes::Bytes::new()),
        };
        // What else is queued goes out with the same flush.
        let mut sent = sink.feed(message).await;
        while let (Ok(()), Ok(next)) = (&sent, queue.try_recv()) {
            sent = sink.feed(WsMessage::Binary(next.into())).await;
        }
        if sent.is_err() || sink.flush().await.is_err() {
            return;
        }
    }
    let _ = timeout(PING_AFTER, sink.close()).await;
}
