//! HTTP to the gateway: bounded reads, bounded waits, no redirects, nothing of the gateway's text kept.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use fanlight_protocol::problem::{MAX_PROBLEM_LEN, Problem, ProblemCode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect;
use reqwest::{Method, Url};

use crate::config::Timeouts;

/// Longest `Retry-After` that is passed on.
const MAX_RETRY_AFTER_SECS: u64 = 3_600;

/// Why no answer came, or not all of it. The network or the gateway is at fault; nothing is said about the provider.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection to the gateway.
    #[error("gateway cannot be reached")]
    Connect(#[source] reqwest::Error),
    /// The connection failed on the way.
    #[error("connection to the gateway failed")]
    Failed(#[source] reqwest::Error),
    /// Not a byte came for this long.
    #[error("gateway was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// More bytes than this kind of answer may have.
    #[error("answer of the gateway is too long")]
    TooLong,
}

/// An outer error (SPEC §6): what the gateway, or a provider that could not open, says. Nobody signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// HTTP status.
    pub status: u16,
    /// The code, where it is one of SPEC §6. The text beside it is dropped: it is anybody's.
    pub code: Option<ProblemCode>,
    /// When to try again, at most an hour.
    pub retry_after: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Gateway {
    http: reqwest::Client,
    base: Url,
    timeouts: Timeouts,
}

/// Why a gateway URL or the HTTP client was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Not an `http` or `https` URL with a host.
    #[error("gateway is not an http or https URL")]
    BadUrl,
    /// The HTTP client could not be set up.
    #[error("HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

impl Gateway {
    pub(crate) fn new(base: &str, timeouts: Timeouts) -> Result<Self, GatewayError> {
        let mut base = Url::parse(base).map_err(|_| GatewayError::BadUrl)?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() || base.query().is_some() {
            return Err(GatewayError::BadUrl);
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // Process-wide; fails only where the program has already chosen one, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            // A redirect would choose another gateway; that is the user's choice.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(GatewayError::Http)?;
        Ok(Self { http, base, timeouts })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply, TransportError> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        content_type: &'static str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Reply, TransportError> {
        self.send(self.request(Method::POST, path).header(CONTENT_TYPE, content_type).header(ACCEPT, accept).body(body)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        self.http.request(method, url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, TransportError> {
        let limit = self.timeouts.first_byte;
        let response = within(limit, request.send()).await?.map_err(failure)?;
        Ok(Reply { response, silence: self.timeouts.silence })
    }
}

/// An answer whose head has come.
#[derive(Debug)]
pub(crate) struct Reply {
    response: reqwest::Response,
    silence: Duration,
}

impl Reply {
    /// Whether it is a success of this media type.
    pub(crate) fn is(&self, media_type: &str) -> bool {
        self.response.status() == 200 && self.header(CONTENT_TYPE).is_some_and(|value| value == media_type)
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.response.status() == 200
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        within(self.silence, self.response.chunk()).await?.map_err(failure)
    }

    /// The whole body, at most `max` bytes.
    pub(crate) async fn read(mut self, max: usize) -> Result<Vec<u8>, TransportError> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            if body.len() + piece.len() > max {
                return Err(TransportError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// What an answer that is no success means. A body that is no problem leaves the status alone.
    pub(crate) async fn into_hint(self) -> Hint {
        let status = self.response.status().as_u16();
        let retry_after = self.header(RETRY_AFTER).and_then(|value| value.parse().ok());
        let retry_after = retry_after.map(|secs: u64| Duration::from_secs(secs.min(MAX_RETRY_AFTER_SECS)));
        let body = self.read(MAX_PROBLEM_LEN).await.unwrap_or_default();
        let code = serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.code());
        // A code under another status than its own is not what SPEC §6 defines.
        Hint { status, code: code.filter(|code| code.status() == status), retry_after }
    }

    fn header(&self, name: reqwest::header::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, TransportError> {
    tokio::time::timeout(limit, future).await.map_err(|_| TransportError::Silent(limit))
}

/// The URL stays out: it may carry a user's credentials.
fn failure(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    if error.is_connect() { TransportError::Connect(error) } else { TransportError::Failed(error) }
}
