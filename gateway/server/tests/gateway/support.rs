//! A gateway in this process, and a provider that speaks the link by hand.

use std::time::{Duration, SystemTime};

use fanlight_auditlog::{Policy, TlogProof, VerifierKey};
use fanlight_gateway_server::{Config, Gateway, start};
use fanlight_protocol::directory::Directory;
use fanlight_protocol::entry::{KeyStatement, Signed, Status};
use fanlight_protocol::link::{Message, SUBPROTOCOL};
use fanlight_protocol::response::{Frame, FrameSplitter, FrameType, Prefix, ResponseItem, ResponseTranscript};
use fanlight_protocol::{Digest, REQUEST_MEDIA_TYPE, UnixTime};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message as WsMessage;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::entries::{self, Identity};

/// Longest wait for anything; reached only by a test that fails.
const WAIT: Duration = Duration::from_secs(20);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[expect(clippy::disallowed_methods, reason = "the gateway under test reads the real clock")]
pub(crate) fn now() -> UnixTime {
    SystemTime::now().into()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.expect("it takes far less time")
}

pub(crate) struct Network {
    pub(crate) gateway: Gateway,
    pub(crate) client: reqwest::Client,
    data: tempfile::TempDir,
}

impl Network {
    pub(crate) async fn start() -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), None).await
    }

    async fn on(data: tempfile::TempDir, witnesses: Option<Policy>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let max_delay = Duration::from_millis(10);
        // The tests of one process share it, and the first sets it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config { data: data.path().to_owned(), origin: "log.example/test".to_owned(), max_delay, witnesses };
        let gateway = start(config, listener).await.expect("it starts");
        Self { gateway, client: reqwest::Client::new(), data }
    }

    pub(crate) async fn restart(self) -> Self {
        self.restart_under(None).await
    }

    /// Restarts with witnesses for the log.
    pub(crate) async fn restart_under(self, witnesses: Option<Policy>) -> Self {
        self.gateway.shutdown().await;
        Self::on(self.data, witnesses).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.gateway.url())
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let response = within(self.client.get(self.url(path)).send()).await.expect("an answer");
        response.text().await.expect("a text")
    }

    pub(crate) async fn directory(&self) -> Directory {
        serde_json::from_str(&self.get("/v1/providers").await).expect("a directory")
    }

    pub(crate) async fn post(&self, request: Vec<u8>) -> reqwest::Response {
        let post = self.client.post(self.url("/v1/chat/completions")).header("content-type", REQUEST_MEDIA_TYPE);
        within(post.body(request).send()).await.expect("an answer")
    }

    /// Waits until the metrics have a line.
    pub(crate) async fn metric(&self, line: &str) {
        within(async {
            while !self.get("/metrics").await.lines().any(|l| l == line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Checks a proof of an entry against the log's key.
    pub(crate) fn verify(&self, entry: &[u8], proof: &str) {
        let key = VerifierKey::parse(self.gateway.log_vkey()).expect("a vkey");
        let proof = TlogProof::parse(proof.as_bytes()).expect("a proof");
        proof.verify(entry, &Policy::for_log(key)).expect("the entry is in the log");
    }

    pub(crate) async fn socket(&self) -> Socket {
        let mut request = self.url("/v1/link").replace("http", "ws").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().expect("a value"));
        let (socket, _) = within(Box::pin(tokio_tungstenite::connect_async(request))).await.expect("an upgrade");
        socket
    }

    /// A provider that is enrolled.
    pub(crate) async fn provider(&self, seed: u8, capacity: u32) -> Provider {
        let identity = Identity::new(seed);
        let statement = identity.sign(&identity.statement(seed + 100, now()));
        let mut provider = Provider { socket: self.socket().await, identity, statement };
        let challenge = provider.challenge().await;
        let hello = provider.identity.hello(challenge, &provider.statement, capacity, now());
        provider.send_bytes(hello).await;
        let bytes = provider.next().await.expect("a welcome");
        let Ok((0, Message::Welcome { evidence_proof, statement_proof })) = Message::parse(&bytes) else {
            panic!("expected WELCOME");
        };
        self.verify(provider.identity.evidence.bytes(), str::from_utf8(evidence_proof).expect("text"));
        self.verify(provider.statement.bytes(), str::from_utf8(statement_proof).expect("text"));
        provider
    }
}

pub(crate) struct Provider {
    pub(crate) socket: Socket,
    pub(crate) identity: Identity,
    pub(crate) statement: Signed<KeyStatement>,
}

impl Provider {
    pub(crate) async fn challenge(&mut self) -> [u8; 32] {
        challenge(&mut self.socket).await
    }

    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        next(&mut self.socket).await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: Vec<u8>) {
        within(self.socket.send(WsMessage::Binary(bytes.into()))).await.expect("the gateway listens");
    }

    pub(crate) async fn send(&mut self, stream: u32, message: Message<'_>) {
        self.send_bytes(message.to_bytes(stream)).await;
    }

    /// The next request, whole; credit and cancellations of other streams are passed over.
    pub(crate) async fn request(&mut self) -> (u32, Vec<u8>) {
        let mut request = Vec::new();
        loop {
            let bytes = self.next().await.expect("the link is up");
            match Message::parse(&bytes) {
                Ok((_, Message::Request(piece))) => request.extend_from_slice(piece),
                Ok((stream, Message::RequestEnd(piece))) => {
                    request.extend_from_slice(piece);
                    return (stream, request);
                }
                Ok((_, Message::Credit(_))) => {}
                other => panic!("expected a request, not {other:?}"),
            }
        }
    }

    pub(crate) async fn prefix(&mut self, stream: u32) -> ResponseTranscript {
        let prefix = entries::prefix(&self.statement);
        self.send(stream, Message::Prefix(prefix.to_bytes())).await;
        ResponseTranscript::new(&prefix)
    }

    pub(crate) async fn sealed(&mut self, stream: u32, transcript: &mut ResponseTranscript, frame_type: FrameType, len: usize) {
        let frame = entries::sealed_frame(frame_type, len);
        transcript.add_sealed_frame(&frame);
        self.send(stream, Message::Frame(&frame)).await;
    }

    /// Sends the receipt and ends the stream; returns the receipt entry.
    pub(crate) async fn finish(&mut self, stream: u32, request: &[u8], response_hash: Digest, status: Status) -> Vec<u8> {
        let details = entries::details(request, response_hash, status);
        let (receipt, frame) = self.identity.receipt(&self.statement, &details);
        self.send(stream, Message::Frame(&frame)).await;
        self.send(stream, Message::End).await;
        receipt.bytes().to_vec()
    }

    /// A whole answer of two frames.
    pub(crate) async fn answer(&mut self, stream: u32, request: &[u8]) -> Vec<u8> {
        let mut transcript = self.prefix(stream).await;
        self.sealed(stream, &mut transcript, FrameType::Data, 300).await;
        self.sealed(stream, &mut transcript, FrameType::Final, 40).await;
        self.finish(stream, request, transcript.digest(), Status::Complete).await
    }
}

pub(crate) async fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    within(async {
        loop {
            match socket.next().await? {
                Ok(WsMessage::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(WsMessage::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    })
    .await
}

pub(crate) async fn challenge(socket: &mut Socket) -> [u8; 32] {
    let bytes = next(socket).await.expect("the gateway speaks first");
    let Ok((0, Message::Challenge(nonce))) = Message::parse(&bytes) else { panic!("expected CHALLENGE") };
    nonce
}

/// Whether the gateway's last message is REJECTED and the connection then ends.
pub(crate) async fn is_rejected(socket: &mut Socket) -> bool {
    let mut rejected = false;
    while let Some(bytes) = next(socket).await {
        rejected = matches!(Message::parse(&bytes), Ok((0, Message::Rejected(_))));
    }
    rejected
}

/// Prefix and frames of a whole answer.
pub(crate) fn split(bytes: &[u8]) -> (Prefix, Vec<(FrameType, Vec<u8>)>) {
    let mut splitter = FrameSplitter::default();
    splitter.push(bytes);
    let Ok(Some(ResponseItem::Prefix(prefix))) = splitter.next_item() else { panic!("expected a prefix") };
    let (mut frames, mut whole) = (Vec::new(), Prefix::LEN);
    while let Some(ResponseItem::Frame(bytes)) = splitter.next_item().expect("whole frames") {
        whole += bytes.len();
        let frame = Frame::parse(&bytes).expect("a frame");
        frames.push((frame.frame_type, frame.payload.to_vec()));
    }
    assert_eq!(whole, bytes.len(), "nothing is left over");
    (prefix, frames)
}
