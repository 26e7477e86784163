//! A log behind HTTP: bounded, patient with a busy server, and bound to the host that the user named.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use fanlight_auditlog::http::read_path;
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::tile::MAX_TILE_LEN;
use flate2::read::MultiGzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};

/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which at least one byte must come.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for one object, the longest of which has 16 MiB.
const OBJECT_TIMEOUT: Duration = Duration::from_mins(5);

/// Redirects that are followed for one object, all on the same host.
const MAX_REDIRECTS: usize = 5;

/// Times that an object is asked for before the server counts as failed.
const MAX_ATTEMPTS: u32 = 4;

/// The wait after the first failure; each wait is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait that a server may ask for with `Retry-After`.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// A log behind HTTP.
#[derive(Debug)]
pub(crate) struct HttpSource {
    client: Client,
    // Ends in a slash.
    prefix: Url,
}

impl HttpSource {
    pub(crate) fn new(prefix: &str) -> anyhow::Result<Self> {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        let prefix = Url::parse(&prefix).with_context(|| format!("{prefix} is not a URL"))?;
        // An error says that the process has a provider already, which serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(OBJECT_TIMEOUT)
            .redirect(redirect::Policy::custom(follow_on_same_host))
            .user_agent(concat!("fanlight-verify/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, prefix })
    }

    /// The object under `key`. One that is longer than it can be is cut one byte after that, so that it fails its
    /// check: a server that answers so is no server that is out of reach.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, HttpError> {
        let url = self.prefix.join(key).map_err(|_| HttpError::Key)?;
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            match self.get_once(url.clone(), key).await {
                Err(error) if error.is_transient() && attempt < MAX_ATTEMPTS => {
                    tokio::time::sleep(error.retry_after().unwrap_or(wait).min(MAX_WAIT)).await;
                    wait *= 2;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn get_once(&self, url: Url, key: &str) -> Result<Option<Bytes>, HttpError> {
        let max_len = max_len(key);
        let mut request = self.client.get(url).header(ACCEPT_ENCODING, "gzip");
        if key == CHECKPOINT_KEY {
            // A cache on the way must not answer with one of yesterday, which would look as if the log had shrunk.
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        let mut response = request.send().await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(HttpError::Status { status, retry_after: retry_after(response.headers()) }),
        }
        // C2SP tlog-tiles lets a server compress without being asked.
        let gzip = match response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(_) => return Err(HttpError::Encoding),
        };
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            let room = max_len + 1 - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() > max_len {
                break;
            }
        }
        let body = body.freeze();
        if gzip { decompress(&body, max_len).map(Some) } else { Ok(Some(body)) }
    }
}

/// Decompresses at most one byte more than `max_len`: a small body can stand for gigabytes.
fn decompress(body: &[u8], max_len: usize) -> Result<Bytes, HttpError> {
    let limit = u64::try_from(max_len).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    MultiGzDecoder::new(body).take(limit).read_to_end(&mut bytes).map_err(HttpError::Gzip)?;
    Ok(bytes.into())
}

/// Bytes of the longest object under a key.
fn max_len(key: &str) -> usize {
    read_path(key).map_or(MAX_TILE_LEN, |path| path.max_len)
}

/// The wait that the server asks for, in seconds; a date is not understood and leaves the usual wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What a server serves must be its own: a redirect elsewhere would make this machine fetch from places of its choice.
fn follow_on_same_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first();
    let same_host = first.is_some_and(|first| first.origin() == attempt.url().origin());
    if same_host && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Why an object was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the server sent an encoding that nobody asked for")]
    Encoding,
    #[error("the server sent broken gzip")]
    Gzip(#[source] std::io::Error),
    #[error("the name of the object makes no URL")]
    Key,
    #[error("the server answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the server was not reached, or broke off")]
    Transport(#[from] reqwest::Error),
}

impl HttpError {
    /// Whether the same question may have an answer soon.
    fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder() && !error.is_redirect(),
            Self::Status { status, .. } => {
                status.is_server_error() || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Encoding | Self::Gzip(_) | Self::Key => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decompression_is_bounded() {
        let zeros = vec![0; 1 << 20];
        let small = gzip(&zeros);
        assert!(small.len() < 2_000);
        assert_eq!(decompress(&small, 1 << 20).unwrap(), zeros);
        assert_eq!(decompress(&small, 1_000).unwrap().len(), 1_001);
        // Several members are one body (RFC 1952 §2.2).
        assert_eq!(decompress(&[gzip(b"a"), gzip(b"b")].concat(), 9).unwrap(), "ab");
        let cut = small.get(..small.len() - 1).unwrap();
        assert!(matches!(decompress(cut, 1 << 20), Err(HttpError::Gzip(_))));
        assert!(matches!(decompress(b"plain", 9), Err(HttpError::Gzip(_))));
    }

    #[test]
    fn only_what_may_pass_is_asked_for_again() {
        let status = |status| HttpError::Status { status, retry_after: None }.is_transient();
        assert!(status(StatusCode::SERVICE_UNAVAILABLE) && status(StatusCode::TOO_MANY_REQUESTS));
        assert!(!status(StatusCode::FORBIDDEN) && !status(StatusCode::FOUND) && !HttpError::Key.is_transient());
        let headers = |value: &'static str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2026 07:28:00 GMT")), None);
    }
}
