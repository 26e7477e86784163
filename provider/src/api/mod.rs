//! The operations a sealed request can ask for: OpenAI's JSON in, engine requests out, OpenAI's JSON or events back.
//!
//! Nothing here is silently ignored: a parameter that is not understood is refused by name.

mod chat_request;
mod chat_response;

use fanlight_protocol::problem::{ApiError, error_type};
use serde::Serialize;

pub use self::chat_request::{ChatRequest, parse_chat_request};
pub use self::chat_response::{ChatAnswer, ChatStream};
use crate::engine::SubmitError;

/// An error that is sealed to the client: the provider's own word (SPEC §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerError {
    /// HTTP status, authoritative.
    pub status: u16,
    /// What is wrong and what to do; never text of the request.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<&'static str>,
    /// Stable text for programs.
    pub code: &'static str,
}

impl InnerError {
    fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), param: Some(param), code: "invalid_value" }
    }

    fn unsupported(param: &'static str) -> Self {
        let message = format!("'{param}' is not supported by this provider; leave it out.");
        Self { status: 400, message, param: Some(param), code: "unsupported_parameter" }
    }

    /// The message disagrees with the clear header it came under (SPEC §4.4).
    pub fn header_mismatch(param: &'static str) -> Self {
        let message = format!("'{param}' in the sealed message differs from the request's header.");
        Self { status: 400, message, param: Some(param), code: "header_mismatch" }
    }

    /// The engine broke off.
    pub fn engine_failed() -> Self {
        let message = "The model failed while it was generating; try again.".to_owned();
        Self { status: 500, message, param: None, code: "engine_failed" }
    }

    /// `{"error":{…}}` in OpenAI's shape.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body {
            error: ApiError,
        }
        let error = ApiError {
            message: self.message.clone(),
            error_type: error_type(self.status).to_owned(),
            param: self.param.map(str::to_owned),
            code: Some(self.code.to_owned()),
        };
        serde_json::to_vec(&Body { error }).expect("strings serialise")
    }
}

impl From<SubmitError> for InnerError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Busy => Self {
                status: 429,
                message: "This provider is at its capacity; try again.".to_owned(),
                param: None,
                code: "overloaded",
            },
            SubmitError::ContextExceeded { limit_tokens, prompt_tokens, requested_tokens } => Self {
                status: 400,
                message: format!(
                    "This model's maximum context length is {limit_tokens} tokens. Your messages have {prompt_tokens} tokens and the \
                     request needs {requested_tokens} in all; shorten the messages or lower max_completion_tokens."
                ),
                param: Some("messages"),
                code: "context_length_exceeded",
            },
            SubmitError::InvalidMessages(_) => {
                Self::invalid("messages", "The model's chat template refuses this sequence of messages.")
            }
            SubmitError::NoMessages => Self::invalid("messages", "'messages' must have at least one message."),
            SubmitError::OutOfRange { field } => Self::invalid(field, format!("'{field}' is out of range.")),
            SubmitError::PromptTooLarge { .. } => Self {
                status: 400,
                message: "The messages are longer than any context of this provider.".to_owned(),
                param: Some("messages"),
                code: "context_length_exceeded",
            },
            SubmitError::StopLength { .. } => Self::invalid("stop", "A stop string is empty or too long."),
            SubmitError::TooManyStops { .. } => Self::invalid("stop", "'stop' takes at most 4 strings."),
            SubmitError::UnknownModel => Self {
                status: 404,
                message: "This provider does not serve the model.".to_owned(),
                param: Some("model"),
                code: "model_not_found",
            },
            // Faults of this machine. The engine logs the cause; the client learns that it may try another.
            SubmitError::Stopped | SubmitError::Tokenise => Self::engine_failed(),
        }
    }
}
