//! Why a request is not served, and the one mapping from that to a problem (SPEC §6).

use fanlight_protocol::ParseError;
use fanlight_protocol::entry::EntryError;
use fanlight_protocol::problem::{Problem, ProblemCode};

use crate::host::BodyError;

/// Why the log did not take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Its pool is full; try again.
    #[error("log is at its capacity")]
    Overloaded,
    /// It stopped, or its store failed.
    #[error("log is not available")]
    Unavailable,
}

/// Why a request is not served. The text holds nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The body did not arrive.
    #[error("body did not arrive")]
    Body(#[source] BodyError),
    /// The entry offered to the log is not valid.
    #[error("entry is not valid")]
    Entry(#[source] EntryError),
    /// Outside its time of validity.
    #[error("request is outside its time of validity")]
    Expired,
    /// The bodies that the gateway holds are at their limit.
    #[error("gateway holds as many request bytes as it may")]
    GatewayFull,
    /// The clear limits exceed what the model offers.
    #[error("limits exceed what the model offers")]
    LimitExceeded,
    /// The log did not take the entry.
    #[error("log did not take the entry")]
    Log(#[source] LogError),
    /// The header does not parse.
    #[error("request header is malformed")]
    Malformed(#[source] ParseError),
    /// Known path, other method.
    #[error("method is not allowed")]
    MethodNotAllowed,
    /// Nobody offers the model.
    #[error("no listed provider serves the model")]
    ModelNotFound,
    /// No recipient is connected.
    #[error("no listed recipient is connected")]
    NoProvider,
    /// The entry's provider never enrolled here.
    #[error("entry is not from an enrolled provider")]
    NotEnrolled,
    /// No such path.
    #[error("no such path")]
    NotFound,
    /// Every recipient is at its capacity.
    #[error("every listed recipient is at its capacity")]
    Overloaded,
    /// The media type is not that of a sealed request.
    #[error("request is not sealed")]
    Plaintext,
    /// Recipients failed before their first byte, and none is left.
    #[error("recipients failed before they answered")]
    ProviderFailed,
    /// Above SPEC §10.
    #[error("request is too large")]
    TooLarge,
    /// The header's operation is not that of the path.
    #[error("operation is not that of the path")]
    WrongOperation,
}

/// What a client that speaks plaintext is told. Its body was neither read nor logged.
const PLAINTEXT_HELP: &str = "This gateway takes sealed requests only, and your body was not read. Run the local proxy, \
     `fanlight proxy --gateway URL` with this gateway's URL, and point your OpenAI client at it: it seals each request on your machine.";

impl RequestError {
    /// The code of SPEC §6.
    pub const fn code(self) -> ProblemCode {
        match self {
            Self::Expired => ProblemCode::ExpiredRequest,
            Self::LimitExceeded => ProblemCode::LimitExceeded,
            Self::Body(_) | Self::Malformed(_) | Self::WrongOperation => ProblemCode::MalformedRequest,
            Self::MethodNotAllowed => ProblemCode::MethodNotAllowed,
            Self::ModelNotFound => ProblemCode::ModelNotFound,
            Self::NoProvider => ProblemCode::NoProvider,
            Self::NotFound => ProblemCode::NotFound,
            Self::GatewayFull | Self::Log(LogError::Overloaded) | Self::Overloaded => ProblemCode::Overloaded,
            Self::Plaintext => ProblemCode::PlaintextRequest,
            Self::ProviderFailed => ProblemCode::ProviderFailed,
            Self::Entry(_) | Self::NotEnrolled => ProblemCode::RejectedRequest,
            Self::TooLarge => ProblemCode::RequestTooLarge,
            Self::Log(LogError::Unavailable) => ProblemCode::InternalError,
        }
    }

    /// The problem that the client gets.
    pub fn problem(self) -> Problem {
        match self {
            Self::Plaintext => Problem::with_message(self.code(), PLAINTEXT_HELP.to_owned()),
            Self::Malformed(source) => Problem::with_message(self.code(), format!("Not an encapsulated request: {source}.")),
            Self::Entry(source) => Problem::with_message(self.code(), format!("The entry was not taken: {source}.")),
            Self::Body(source) => Problem::with_message(self.code(), format!("The request was not read: {source}.")),
            Self::GatewayFull | Self::Log(_) | Self::NotEnrolled | Self::WrongOperation => {
                Problem::with_message(self.code(), format!("Not served: {self}."))
            }
            Self::Expired
            | Self::LimitExceeded
            | Self::MethodNotAllowed
            | Self::ModelNotFound
            | Self::NoProvider
            | Self::NotFound
            | Self::Overloaded
            | Self::ProviderFailed
            | Self::TooLarge => Problem::new(self.code()),
        }
    }
}
