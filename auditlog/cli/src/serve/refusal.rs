//! The one place where a request that failed gets its status and its words.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fanlight_auditlog::AppendError;
use fanlight_auditlog::bundle::BundleError;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::store::StoreError;

use crate::serve::NOT_STORED;
use crate::serve::body::BodyError;

/// When a client may come back that found the server busy with other answers, or about to end.
const SOON: Duration = Duration::from_secs(1);

/// A request that was not done, and why.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    retry_after: Option<Duration>,
    text: Cow<'static, str>,
}

impl Refusal {
    pub(super) const EMPTY_BATCH: Self = Self::new(StatusCode::BAD_REQUEST, "a batch without entries");
    pub(super) const FORM: Self = Self::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a form is not an entry; send the entry itself as the body (curl --data-binary @FILE)",
    );
    pub(super) const NO_SUCH_PATH: Self = Self::new(StatusCode::NOT_FOUND, "no such path");
    pub(super) const NOT_A_LEAF: Self =
        Self::new(StatusCode::BAD_REQUEST, "a leaf hash is 64 hexadecimal digits: SHA-256(0x00 || entry)");
    pub(super) const NOT_LOGGED: Self = Self::new(StatusCode::NOT_FOUND, "not in the log");

    const fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, retry_after: None, text: Cow::Borrowed(text) }
    }

    fn busy(text: &'static str, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    pub(super) fn bad_body(error: BodyError, retry_after: Duration) -> Self {
        match error {
            BodyError::Encoded => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding"),
            BodyError::Incomplete => Self::new(StatusCode::BAD_REQUEST, "the body broke off"),
            BodyError::NoRoom => Self::busy("too many bodies are on their way", retry_after),
            BodyError::TimedOut => Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in 30 seconds"),
            BodyError::TooLong => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "an entry has at most 65535 bytes, and a batch 4 MiB"),
        }
    }

    /// Too many appends wait already.
    pub(super) fn crowded(retry_after: Duration) -> Self {
        Self::busy("too many appends wait already; the entry was not taken", retry_after)
    }

    /// The log has an entry, but takes too long to publish it.
    pub(super) fn unanswered(retry_after: Duration) -> Self {
        Self::busy("the log publishes nothing at present; appending the entry again is safe", retry_after)
    }

    /// Too many long answers are on their way.
    pub(super) fn sending() -> Self {
        Self::busy("too many bundles are being sent", SOON)
    }

    pub(super) fn bad_batch(error: BundleError) -> Self {
        Self { text: format!("not a batch: {error}").into(), ..Self::new(StatusCode::BAD_REQUEST, "") }
    }

    pub(super) fn unhealthy(reason: String) -> Self {
        Self { text: reason.into(), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "") }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whole seconds, rounded up; at least one, for whoever is told 0 comes back at once.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.retry_after().map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))).into_iter().collect()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closing => Self::busy("the log is closing; ask again once it is back", SOON),
            AppendError::EntryTooLong => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "entry longer than 65535 bytes"),
            AppendError::Overloaded { retry_after } => Self::busy("the log is overloaded", retry_after),
            AppendError::Stopped => Self::busy("the sequencer has stopped; appending the entry again is safe", SOON),
            AppendError::Read(error) => error.into(),
            error => {
                tracing::warn!(error = &error as &dyn Error, "entry not appended");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the entry was not appended; appending it again is safe")
            }
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        tracing::warn!(error = &error as &dyn Error, "log not read");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the log was not read; asking again is safe")
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        ReadError::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let headers = self.headers();
        (self.status, headers, [NOT_STORED], format!("{self}\n")).into_response()
    }
}
