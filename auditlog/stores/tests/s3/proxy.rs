//! A network that fails: between a store and its server, following a schedule.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longest head of a request or answer.
const MAX_HEAD: usize = 64 * 1024;

/// How late a delayed request arrives: after its sender gave up and tried again.
const DELAY: Duration = Duration::from_millis(400);

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// It does not reach the server.
    Lost,
    /// The server does it; the answer is lost.
    AnswerLost,
    /// The server gets it twice; the second answer counts.
    Twice,
    /// Lost to its sender, it reaches the server later.
    Late,
    /// The server gets half of it.
    Torn,
    /// The answer breaks off.
    AnswerTorn,
    /// The proxy answers in the server's place.
    Status(u16, &'static str),
}

/// What happens to each request in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Faults {
    Always(u16, &'static str),
    LoseAnswers,
    RenameETags,
    Seeded { seed: u64 },
    Strip(&'static str),
}

impl Faults {
    /// One request in four fails, in a way that follows from `seed`.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded { seed }
    }

    /// No request's header of this name reaches the server.
    pub(crate) fn strip(header: &'static str) -> Self {
        Self::Strip(header)
    }

    /// Every request is answered so.
    pub(crate) fn always(status: u16, code: &'static str) -> Self {
        Self::Always(status, code)
    }

    /// Every request is done, and none answered.
    pub(crate) fn lose_answers() -> Self {
        Self::LoseAnswers
    }

    /// The server knows none of the `ETag`s that are sent, as behind a proxy that changes them on their way to the client.
    pub(crate) fn rename_etags() -> Self {
        Self::RenameETags
    }

    fn of(self, number: u64) -> Fault {
        match self {
            Self::Always(status, code) => Fault::Status(status, code),
            Self::LoseAnswers => Fault::AnswerLost,
            Self::RenameETags | Self::Strip(_) => Fault::None,
            Self::Seeded { seed } => {
                let mut word = (seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word ^= word >> 27;
                match word % 36 {
                    0 => Fault::Lost,
                    1 => Fault::AnswerLost,
                    2 => Fault::Twice,
                    3 => Fault::Late,
                    4 => Fault::Torn,
                    5 => Fault::AnswerTorn,
                    6 => Fault::Status(503, "SlowDown"),
                    7 => Fault::Status(500, "InternalError"),
                    8 => Fault::Status(409, "ConditionalRequestConflict"),
                    _ => Fault::None,
                }
            }
        }
    }
}

/// A proxy for one server, until it is dropped.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    requests: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(upstream: &str, faults: Faults) -> Self {
        let upstream = upstream.strip_prefix("http://").expect("plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, counter) = (upstream.clone(), Arc::clone(&counter));
                // Either side may break off at any time; then there is nobody to tell.
                tokio::spawn(async move { drop(serve(client, &upstream, faults, &counter).await) });
            }
        });
        Self { endpoint, requests, accepting }
    }

    /// Requests that came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One request a connection, so that no fault hits another one as well.
async fn serve(mut client: TcpStream, upstream: &str, faults: Faults, counter: &AtomicU64) -> io::Result<()> {
    let mut request = read_request(&mut client).await?;
    let fault = faults.of(counter.fetch_add(1, Ordering::Relaxed));
    if let Faults::Strip(header) = faults {
        request.strip(header);
    }
    if let Faults::RenameETags = faults {
        request.rename_etag();
    }
    match fault {
        Fault::Lost => Ok(()),
        Fault::AnswerLost => forward(upstream, &request).await.map(drop),
        Fault::Late => {
            drop(client);
            tokio::time::sleep(DELAY).await;
            forward(upstream, &request).await.map(drop)
        }
        Fault::Torn => {
            let mut server = TcpStream::connect(upstream).await?;
            let bytes = request.bytes();
            server.write_all(&bytes[..bytes.len() / 2]).await
        }
        Fault::AnswerTorn => {
            let answer = forward(upstream, &request).await?;
            client.write_all(&answer[..answer.len() / 2]).await
        }
        Fault::Twice => {
            forward(upstream, &request).await?;
            client.write_all(&forward(upstream, &request).await?).await
        }
        Fault::None => client.write_all(&forward(upstream, &request).await?).await,
        Fault::Status(status, code) => {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a fault</Message></Error>");
            let head = format!("HTTP/1.1 {status} Fault\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
            client.write_all(format!("{head}x-amz-bucket-region: eu-1\r\n\r\n{body}").as_bytes()).await
        }
    }
}

/// A request; the head is text without its last, empty line.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn strip(&mut self, header: &str) {
        let keep = |line: &&str| !line.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case(header));
        self.head = self.head.split("\r\n").filter(keep).collect::<Vec<_>>().join("\r\n");
    }

    fn rename_etag(&mut self) {
        let len = self.head.len();
        self.strip("if-match");
        if self.head.len() < len {
            self.head.push_str("\r\nif-match: \"renamed\"");
        }
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\nconnection: close\r\n\r\n", &self.body].concat()
    }
}

async fn read_request(client: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() > MAX_HEAD || client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let header = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let body_len = header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    if header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut body = bytes.split_off(head_len + 4);
    while body.len() < body_len {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut request = Request { head, body };
    for ours in ["connection", "expect"] {
        request.strip(ours);
    }
    Ok(request)
}

/// The whole answer, which ends with the connection.
async fn forward(upstream: &str, request: &Request) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&request.bytes()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
