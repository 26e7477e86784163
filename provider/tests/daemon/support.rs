//! A gateway that does what a test tells it, over a real WebSocket, and the client behind it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fanlight_protocol::entry::{Evidence, KeyStatement, LinkAuth, Receipt, ReceiptDetails, Signed, Status};
use fanlight_protocol::link::{MAX_REQUEST_PIECE, Message, SUBPROTOCOL};
use fanlight_protocol::padding::Padding;
use fanlight_protocol::problem::Problem;
use fanlight_protocol::response::{Frame, FrameType, Prefix, ReceiptPayload};
use fanlight_protocol::{RequestId, UnixTime};
use fanlight_provider::engine::{Engine, Limits, scripted};
use fanlight_provider::{Config, LinkState, Provider};
use fanlight_sealing::{Opened, Recipient, RequestParams, ResponseOpener, Sender};
use futures_util::{SinkExt, StreamExt};
use rand_core::{Rng, UnwrapErr};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// A wait that is longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `future` gives, unless it hangs.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened for 30 s")
}

pub(crate) fn now() -> UnixTime {
    SystemTime::now().into()
}

/// Answers every message with itself.
pub(crate) fn echo() -> Arc<dyn Engine> {
    Arc::new(scripted::start(Limits::default(), str::to_owned).expect("an engine"))
}

/// A provider on `dir` that serves 8 streams at once.
pub(crate) fn start(dir: &Path, gateway: &Gateway, engine: Arc<dyn Engine>) -> Provider {
    start_with_capacity(dir, gateway, engine, 8)
}

pub(crate) fn start_with_capacity(dir: &Path, gateway: &Gateway, engine: Arc<dyn Engine>, capacity: u32) -> Provider {
    let rotation = Duration::from_hours(1);
    let config = Config { gateway: gateway.url(), data_dir: dir.to_owned(), engine, capacity, rotation };
    Provider::start(config).expect("a provider")
}

/// Why each link of `provider` ended or did not begin, from now on and in order.
///
/// Needs the runtime of one thread: there this task sees each state before the provider can leave it.
pub(crate) fn reasons(provider: &Provider) -> UnboundedReceiver<String> {
    let (sender, reasons) = mpsc::unbounded_channel();
    let mut states = provider.link_state();
    tokio::spawn(async move {
        while states.changed().await.is_ok() {
            if let LinkState::Waiting { reason } = &*states.borrow_and_update() {
                let _ = sender.send(reason.clone());
            }
        }
    });
    reasons
}

pub(crate) struct Gateway {
    listener: TcpListener,
}

impl Gateway {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port") }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("an address"))
    }

    /// The next connection, upgraded. Nothing has been said on it.
    pub(crate) async fn accept(&self) -> Socket {
        let (tcp, _) = within(self.listener.accept()).await.expect("a connection");
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let upgrade = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/link");
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        Socket(within(tokio_tungstenite::accept_hdr_async(tcp, upgrade)).await.expect("an upgrade"))
    }

    /// The next connection, enrolled: the provider's three entries are checked, as a gateway does.
    pub(crate) async fn enrol(&self) -> Link {
        let mut socket = self.accept().await;
        let challenge = random();
        socket.send(0, &Message::Challenge(challenge)).await;
        let bytes = socket.next().await.expect("a HELLO");
        let (0, Message::Hello(hello)) = parse(&bytes) else { panic!("no HELLO") };
        let statement = Signed::<KeyStatement>::verify_self_keyed(hello.key_statement).expect("a key statement");
        let evidence = Signed::<Evidence>::verify(hello.evidence, statement.signer()).expect("evidence of the same key");
        let auth = Signed::<LinkAuth>::verify(hello.link_auth, statement.signer()).expect("a link entry of the same key");
        assert_eq!(auth.challenge, challenge, "over this connection's challenge");
        assert_eq!(auth.statement_digest, statement.digest());
        assert!(auth.time.as_secs().abs_diff(now().as_secs()) < 60);
        assert_eq!(statement.evidence_digest, evidence.digest());
        assert!(statement.is_valid_at(now()));
        let capacity = hello.capacity;
        socket.send(0, &Message::Welcome { evidence_proof: b"proof", statement_proof: b"proof" }).await;
        Link { socket, statement, evidence, capacity, parked: HashMap::new(), last_stream: 0 }
    }
}

/// One WebSocket, without any rules.
pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn send(&mut self, stream: u32, message: &Message<'_>) {
        self.send_raw(message.to_bytes(stream)).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: Vec<u8>) {
        within(self.0.send(WsMessage::Binary(bytes.into()))).await.expect("the provider is there");
    }

    /// The next binary message; `None` when the provider has closed or dropped the connection.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match within(self.0.next()).await {
                Some(Ok(WsMessage::Binary(bytes))) => return Some(bytes),
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                Some(Ok(WsMessage::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("not binary: {other:?}"),
            }
        }
    }
}

/// An enrolled connection.
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) statement: Signed<KeyStatement>,
    pub(crate) evidence: Signed<Evidence>,
    pub(crate) capacity: u32,
    parked: HashMap<u32, VecDeque<Bytes>>,
    last_stream: u32,
}

impl Link {
    pub(crate) async fn send(&mut self, stream: u32, message: &Message<'_>) {
        self.socket.send(stream, message).await;
    }

    /// The next message on `stream`; those of other streams wait for their turn.
    pub(crate) async fn recv(&mut self, stream: u32) -> Bytes {
        if let Some(bytes) = self.parked.get_mut(&stream).and_then(VecDeque::pop_front) {
            return bytes;
        }
        loop {
            let bytes = self.socket.next().await.expect("the link is up");
            let (of, _) = parse(&bytes);
            if of == stream {
                return bytes;
            }
            self.parked.entry(of).or_default().push_back(bytes);
        }
    }

    /// Whether anything has come on `stream` that was not asked for yet.
    pub(crate) fn has_parked(&self, stream: u32) -> bool {
        self.parked.get(&stream).is_some_and(|parked| !parked.is_empty())
    }

    /// The next unused stream.
    pub(crate) fn open(&mut self) -> u32 {
        self.last_stream += 1;
        self.last_stream
    }

    /// Sends a whole request on a new stream, in pieces.
    pub(crate) async fn request(&mut self, request: &[u8]) -> u32 {
        let stream = self.open();
        let mut pieces = request.chunks(MAX_REQUEST_PIECE).peekable();
        while let Some(piece) = pieces.next() {
            let message = if pieces.peek().is_some() { Message::Request(piece) } else { Message::RequestEnd(piece) };
            self.send(stream, &message).await;
        }
        stream
    }

    /// Seals a chat message to this provider.
    pub(crate) fn seal(&self, message: &Value) -> Sealed {
        self.seal_with(message, |_| {})
    }

    pub(crate) fn seal_with(&self, message: &Value, change: impl FnOnce(&mut RequestParams)) -> Sealed {
        let recipient = Recipient::new(&self.statement.kem_key, self.statement.digest()).expect("a key of the curve");
        seal_to(&[recipient], message, change)
    }

    /// Sends a chat message and reads the answer to its end.
    pub(crate) async fn chat(&mut self, message: &Value) -> Answer {
        let Sealed { bytes, opener } = self.seal(message);
        let stream = self.request(&bytes).await;
        self.answer(stream, opener).await
    }

    /// Reads and checks the answer on `stream`: all of SPEC §5 and the receipt of §7.3.
    pub(crate) async fn answer(&mut self, stream: u32, opener: ResponseOpener) -> Answer {
        let prefix = self.recv(stream).await;
        let (_, Message::Prefix(prefix)) = parse(&prefix) else { panic!("no PREFIX: {:?}", parse(&prefix)) };
        let mut response = opener.begin(&Prefix::parse(&prefix).expect("a prefix")).expect("of a recipient");
        let mut body = Vec::new();
        loop {
            let bytes = self.recv(stream).await;
            let (_, Message::Frame(frame)) = parse(&bytes) else { panic!("no FRAME: {:?}", parse(&bytes)) };
            let frame = Frame::parse(frame).expect("a frame");
            match response.open(&frame).expect("a frame that opens") {
                Opened::Content { bytes, .. } => body.extend_from_slice(&bytes),
                Opened::Ping => {}
                Opened::Receipt => {
                    let (receipt, details) = self.receipt(frame.payload);
                    self.end(stream).await;
                    let summary = response.finish().expect("FINAL and RECEIPT were there");
                    assert_eq!((details.request_hash, details.response_hash), (summary.request_hash, summary.response_hash));
                    return Answer { status: summary.status, body, receipt, details };
                }
                Opened::Inclusion => panic!("only gateways add proofs"),
            }
        }
    }

    /// Reads up to the receipt and END of a stream that was cancelled.
    pub(crate) async fn aborted(&mut self, stream: u32) -> ReceiptDetails {
        loop {
            let bytes = self.recv(stream).await;
            let Message::Frame(frame) = parse(&bytes).1 else { continue };
            let frame = Frame::parse(frame).expect("a frame");
            if frame.frame_type == FrameType::Receipt {
                let (_, details) = self.receipt(frame.payload);
                self.end(stream).await;
                assert_eq!((details.status, details.finish_reason.as_str()), (Status::Aborted, "aborted"));
                return details;
            }
        }
    }

    /// Reads a refusal, which is the whole answer.
    pub(crate) async fn refused(&mut self, stream: u32) -> (u16, String) {
        let bytes = self.recv(stream).await;
        let (_, Message::Refused { status, problem }) = parse(&bytes) else { panic!("no REFUSED: {:?}", parse(&bytes)) };
        let problem: Problem = serde_json::from_slice(problem).expect("problem JSON");
        assert_eq!(problem.status, status);
        (status, problem.error.code.expect("a code"))
    }

    async fn end(&mut self, stream: u32) {
        let bytes = self.recv(stream).await;
        assert_eq!(parse(&bytes), (stream, Message::End));
    }

    fn receipt(&self, payload: &[u8]) -> (Signed<Receipt>, ReceiptDetails) {
        let payload = ReceiptPayload::parse(payload).expect("a receipt payload");
        let receipt = Signed::<Receipt>::verify(payload.receipt, self.statement.signer()).expect("signed by this provider");
        let details = receipt.open(payload.details, &payload.blind).expect("details of this receipt");
        assert_eq!(receipt.statement_digest, self.statement.digest());
        (receipt, details)
    }
}

pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) opener: ResponseOpener,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) details: ReceiptDetails,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// `code` of a sealed error.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error").to_owned()
    }

    /// Text of a whole answer.
    pub(crate) fn text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().expect("an answer").to_owned()
    }
}

pub(crate) fn seal_to(recipients: &[Recipient], message: &Value, change: impl FnOnce(&mut RequestParams)) -> Sealed {
    let model = message["model"].as_str().unwrap_or(scripted::MODEL_NAME);
    let mut params = RequestParams::chat(model, RequestId(random()), now());
    params.stream = message["stream"] == true;
    params.padding = Padding::Padme;
    change(&mut params);
    let sender = Sender::new(params, recipients).expect("good parameters");
    let (bytes, opener) = sender.seal(message.to_string().as_bytes(), &mut UnwrapErr(getrandom::SysRng)).expect("a request");
    Sealed { bytes, opener }
}

/// A request for one whole answer.
pub(crate) fn ask(text: &str) -> Value {
    json!({"model": scripted::MODEL_NAME, "messages": [{"role": "user", "content": text}]})
}

/// A request for a stream of events.
pub(crate) fn ask_streaming(text: &str) -> Value {
    let mut message = ask(text);
    message["stream"] = true.into();
    message
}

pub(crate) fn parse(bytes: &[u8]) -> (u32, Message<'_>) {
    Message::parse(bytes).expect("a message of the link")
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    UnwrapErr(getrandom::SysRng).fill_bytes(&mut bytes);
    bytes
}
