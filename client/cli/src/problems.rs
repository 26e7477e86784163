//! Every failure as OpenAI's SDKs read it: one status, one code, one sentence that says what to do.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fanlight_client::{DirectoryError, ExchangeError, Hint, RequestError, SendError, TransportError};
use fanlight_protocol::problem::{ApiError, ProblemCode, error_type};
use serde::Serialize;

/// When to ask again for a provider, where the gateway does not say.
const NO_PROVIDER_RETRY: Duration = Duration::from_secs(10);

/// The code of an answer that began and cannot be relied on.
pub(crate) const STREAM_TRUNCATED: &str = "stream_truncated";

/// A failed call. Holds no user data.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<&'static str>,
    retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Body {
    error: ApiError,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None }
    }

    fn of_param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    fn retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    fn body(self) -> Body {
        Body {
            error: ApiError {
                message: self.message,
                error_type: error_type(self.status.as_u16()).to_owned(),
                param: self.param.map(str::to_owned),
                code: Some(self.code.to_owned()),
            },
        }
    }

    /// The last event of a stream that failed: SDKs raise on it.
    pub(crate) fn into_event(self) -> Vec<u8> {
        let body = Self { code: STREAM_TRUNCATED, ..self }.body();
        let json = serde_json::to_string(&body).expect("texts serialize");
        format!("data: {json}\n\n").into_bytes()
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        let retry_after = failure.retry_after.map(|after| HeaderValue::from(after.as_secs()));
        let mut response = (failure.status, Json(failure.body())).into_response();
        if let Some(value) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let invalid = |message: String| Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        match error {
            RequestError::BadLimit => {
                invalid("The token limit must be from 1 to 4294967295.".to_owned()).of_param("max_completion_tokens")
            }
            RequestError::BadModelName => model_not_found().of_param("model"),
            RequestError::Malformed { line, column } => {
                invalid(format!("The body is not the JSON of a chat completion with a model (line {line}, column {column})."))
            }
            RequestError::TooLong => too_large(),
            other => invalid(format!("{other}.")),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Directory(error) => error.into(),
            SendError::Exchange(error) => error.into(),
            SendError::Hint(hint) => hint.into(),
            SendError::Seal(fanlight_client::SealError::TooLong) => too_large(),
            SendError::Seal(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request", "The request does not fit into a sealed header.")
            }
            SendError::Transport(error) => error.into(),
            SendError::UnknownModel { verified: 0, refused } => no_provider(format!(
                "No provider is listed whose keys verify under your policy ({refused} listings were refused; \
                 `fanlight providers` says why)."
            )),
            SendError::UnknownModel { refused: 0, .. } => model_not_found().of_param("model"),
            SendError::UnknownModel { refused, .. } => {
                let message = format!(
                    "No verified provider offers this model; {refused} listings were refused (`fanlight providers` says why)."
                );
                Self { message, ..model_not_found() }.of_param("model")
            }
            other => Self::new(StatusCode::BAD_GATEWAY, "send_failed", format!("{other}.")),
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Hint(hint) => hint.into(),
            DirectoryError::Transport(error) => error.into(),
            other => Self::new(StatusCode::BAD_GATEWAY, "directory_unusable", format!("The gateway's {other}.")),
        }
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        let (status, code) = match error {
            TransportError::Connect(_) => (StatusCode::BAD_GATEWAY, "gateway_unreachable"),
            TransportError::Silent(_) => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout"),
            _ => (StatusCode::BAD_GATEWAY, "gateway_failed"),
        };
        Self::new(status, code, format!("The {error}."))
    }
}

impl From<Hint> for Failure {
    /// The gateway's word, and said to be no more than that.
    fn from(hint: Hint) -> Self {
        let Some(code) = hint.code else {
            let message = format!("The gateway answered {} without a known code; is it a Fanlight gateway?", hint.status);
            return Self::new(StatusCode::BAD_GATEWAY, "gateway_failed", message);
        };
        let message = format!("The gateway says, and nobody signed it: {}.", code.title());
        match code {
            ProblemCode::LimitExceeded => {
                Self::new(StatusCode::BAD_REQUEST, code.as_str(), message).of_param("max_completion_tokens")
            }
            ProblemCode::ModelNotFound => Self::new(StatusCode::NOT_FOUND, code.as_str(), message).of_param("model"),
            ProblemCode::NoProvider => no_provider(message).retry_after(hint.retry_after.or(Some(NO_PROVIDER_RETRY))),
            ProblemCode::Overloaded => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, code.as_str(), message).retry_after(hint.retry_after)
            }
            ProblemCode::RequestTooLarge => too_large(),
            ProblemCode::ExpiredRequest => {
                let message = format!("{message} Check this machine's clock.");
                Self::new(StatusCode::BAD_GATEWAY, code.as_str(), message)
            }
            // Nothing that the program at the SDK could mend.
            _ => Self::new(StatusCode::BAD_GATEWAY, code.as_str(), message),
        }
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        let (status, code) = match error {
            ExchangeError::GivenUp => (StatusCode::BAD_GATEWAY, "answer_incomplete"),
            ExchangeError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "receipt_not_stored"),
            ExchangeError::TooLong => (StatusCode::BAD_GATEWAY, "answer_too_long"),
            ExchangeError::Truncated(_) => (StatusCode::BAD_GATEWAY, STREAM_TRUNCATED),
            _ => (StatusCode::BAD_GATEWAY, "answer_not_verified"),
        };
        Self::new(status, code, format!("Do not rely on this answer: {error}."))
    }
}

pub(crate) fn model_not_found() -> Failure {
    let message = "No verified provider offers this model; GET /v1/models lists those that are offered.";
    Failure::new(StatusCode::NOT_FOUND, "model_not_found", message)
}

fn no_provider(message: String) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message).retry_after(Some(NO_PROVIDER_RETRY))
}

pub(crate) fn too_large() -> Failure {
    let message = format!("A request is at most {} bytes of JSON.", fanlight_client::MAX_MESSAGE_LEN);
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}
