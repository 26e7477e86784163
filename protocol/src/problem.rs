//! Outer errors: unauthenticated hints from the gateway, or from a provider that could not open (SPEC §6).

use serde::{Deserialize, Serialize};

/// Media type of a problem (RFC 9457).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";
/// Longest problem JSON in bytes.
pub const MAX_PROBLEM_LEN: usize = 4_096;

/// The code of an outer error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemCode {
    /// Outside its time of validity.
    ExpiredRequest,
    /// A fault of the gateway or provider.
    InternalError,
    /// The clear limits exceed what the model offers.
    LimitExceeded,
    /// Not an encapsulated request of version 1.
    MalformedRequest,
    /// Known path, other method.
    MethodNotAllowed,
    /// No provider of that model is listed.
    ModelNotFound,
    /// No listed recipient is connected.
    NoProvider,
    /// No such path.
    NotFound,
    /// Every listed recipient is at its capacity.
    Overloaded,
    /// Not sealed.
    PlaintextRequest,
    /// The recipient failed before its first byte, and no other was left.
    ProviderFailed,
    /// Did not open.
    RejectedRequest,
    /// `enc` seen before.
    ReplayedRequest,
    /// Above SPEC §10.
    RequestTooLarge,
    /// No such key at this provider.
    UnknownKey,
}

impl ProblemCode {
    const ALL: [Self; 15] = [
        Self::ExpiredRequest,
        Self::InternalError,
        Self::LimitExceeded,
        Self::MalformedRequest,
        Self::MethodNotAllowed,
        Self::ModelNotFound,
        Self::NoProvider,
        Self::NotFound,
        Self::Overloaded,
        Self::PlaintextRequest,
        Self::ProviderFailed,
        Self::RejectedRequest,
        Self::ReplayedRequest,
        Self::RequestTooLarge,
        Self::UnknownKey,
    ];

    /// The code's text and HTTP status, as SPEC §6 lists them.
    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::ExpiredRequest => ("expired_request", 400, "The request is outside its time of validity"),
            Self::InternalError => ("internal_error", 500, "Internal error"),
            Self::LimitExceeded => ("limit_exceeded", 400, "The request's limits exceed what the model offers"),
            Self::MalformedRequest => ("malformed_request", 400, "Not an encapsulated request of version 1"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            Self::ModelNotFound => ("model_not_found", 404, "No listed provider serves this model"),
            Self::NoProvider => ("no_provider", 503, "No listed recipient is connected"),
            Self::NotFound => ("not_found", 404, "Not found"),
            Self::Overloaded => ("overloaded", 429, "Every listed recipient is at its capacity"),
            Self::PlaintextRequest => ("plaintext_request", 415, "This endpoint takes sealed requests only"),
            Self::ProviderFailed => ("provider_failed", 502, "The provider failed before it answered"),
            Self::RejectedRequest => ("rejected_request", 400, "The request did not open"),
            Self::ReplayedRequest => ("replayed_request", 409, "The request was seen before"),
            Self::RequestTooLarge => ("request_too_large", 413, "The request is too large"),
            Self::UnknownKey => ("unknown_key", 422, "No such key at this provider"),
        }
    }

    /// The text in `code`.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// HTTP status.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// A fixed sentence for people.
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// From the text in `code`.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

/// A problem body: RFC 9457 members, and the `error` object that OpenAI's SDKs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:fanlight:error:<code>`.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// A fixed sentence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The same in OpenAI's shape.
    pub error: ApiError,
}

/// OpenAI's `error` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What happened and what to do.
    pub message: String,
    /// `invalid_request_error` or `server_error`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// The parameter at fault, if one is.
    pub param: Option<String>,
    /// Stable text for programs.
    pub code: Option<String>,
}

impl Problem {
    /// A problem with its fixed title as message.
    pub fn new(code: ProblemCode) -> Self {
        Self::with_message(code, format!("{}.", code.title()))
    }

    /// A problem whose message says more, without user data.
    pub fn with_message(code: ProblemCode, message: String) -> Self {
        Self {
            problem_type: format!("urn:fanlight:error:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            error: ApiError {
                message,
                error_type: error_type(code.status()).to_owned(),
                param: None,
                code: Some(code.as_str().to_owned()),
            },
        }
    }

    /// The code, if it is one of SPEC §6.
    pub fn code(&self) -> Option<ProblemCode> {
        self.error.code.as_deref().and_then(ProblemCode::from_text)
    }
}

/// The `type` that OpenAI uses with a status.
pub const fn error_type(status: u16) -> &'static str {
    match status {
        500.. => "server_error",
        429 => "rate_limit_error",
        _ => "invalid_request_error",
    }
}
