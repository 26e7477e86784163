//! Chat completion requests: what the clear header needs is read from the JSON, the rest passes through unread.

use bytes::Bytes;
use fanlight_protocol::MAX_REQUEST_LEN;
use fanlight_protocol::request::is_model_name;
use serde::Deserialize;

/// Longest JSON body in bytes. Header, chunk lengths, tags and at most 12 % of padding still fit into
/// [`MAX_REQUEST_LEN`]: 7 MiB × 1.125 = 7.875 MiB.
pub const MAX_MESSAGE_LEN: usize = MAX_REQUEST_LEN / 8 * 7;

/// Tokens that a chat template may add to a conversation besides what its JSON takes: a default system message, the
/// opening of the answer. Each message's own markers are covered by the JSON syntax around it.
const TEMPLATE_TOKENS: usize = 1_024;

/// A chat completion request whose fields of routing are known. Its other fields are the provider's business.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatRequest {
    body: Bytes,
    model: String,
    stream: bool,
    max_output_tokens: Option<u32>,
}

/// Why a body is no chat completion request. Holds nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A token limit that is 0, or above 32 bits.
    #[error("token limit is out of range")]
    BadLimit,
    /// `model` is not 1 to 128 bytes of `[A-Za-z0-9._:/@+-]`.
    #[error("model name is not well-formed")]
    BadModelName,
    /// Not a JSON object with a text `model`; broken at this line and column.
    #[error("body is not the JSON of a chat completion (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1; 0 at the end of the body.
        column: usize,
    },
    /// Longer than [`MAX_MESSAGE_LEN`].
    #[error("body is too long")]
    TooLong,
}

#[derive(Deserialize)]
struct Probe {
    model: String,
    stream: Option<bool>,
    max_completion_tokens: Option<u64>,
    max_tokens: Option<u64>,
}

impl ChatRequest {
    /// Reads the JSON body of `POST /v1/chat/completions`. Unknown fields are kept: the body is sealed as it came.
    ///
    /// # Errors
    /// [`RequestError`], by variant.
    pub fn parse(body: impl Into<Bytes>) -> Result<Self, RequestError> {
        let body = body.into();
        if body.len() > MAX_MESSAGE_LEN {
            return Err(RequestError::TooLong);
        }
        // The parser's own message would quote the body.
        let probe: Probe = serde_json::from_slice(&body)
            .map_err(|error| RequestError::Malformed { line: error.line(), column: error.column() })?;
        if !is_model_name(&probe.model) {
            return Err(RequestError::BadModelName);
        }
        let max_output_tokens = match probe.max_completion_tokens.or(probe.max_tokens) {
            None => None,
            Some(limit) => match u32::try_from(limit) {
                Ok(limit @ 1..) => Some(limit),
                _ => return Err(RequestError::BadLimit),
            },
        };
        Ok(Self { body, model: probe.model, stream: probe.stream.unwrap_or(false), max_output_tokens })
    }

    /// The JSON, as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The model asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be a stream of server-sent events.
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// The limit in the JSON: `max_completion_tokens`, or else `max_tokens`.
    pub const fn max_output_tokens(&self) -> Option<u32> {
        self.max_output_tokens
    }

    /// Upper bound of the input tokens, for the clear header: a token is at least one byte of UTF-8, and JSON is never
    /// shorter than the text in it. Rounded up to a power of two, so that it tells less than the padded length does.
    pub fn input_tokens_bound(&self) -> u32 {
        let bound = (self.body.len() + TEMPLATE_TOKENS).next_power_of_two();
        u32::try_from(bound).expect("a body is at most 7 MiB")
    }
}

impl std::fmt::Debug for ChatRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatRequest")
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("max_output_tokens", &self.max_output_tokens)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<ChatRequest, RequestError> {
        ChatRequest::parse(body.to_owned())
    }

    #[test]
    fn reads_what_the_header_needs_and_keeps_the_bytes() {
        let body =
            r#" {"messages":[{"role":"user","content":"é"}],"x":{"y":[1,2]},"model":"org/m:1","stream":true,"max_tokens":7} "#;
        let request = parse(body).unwrap();
        assert_eq!(request.body().as_ref(), body.as_bytes());
        assert_eq!((request.model(), request.stream(), request.max_output_tokens()), ("org/m:1", true, Some(7)));
        let request = parse(r#"{"model":"m","max_tokens":7,"max_completion_tokens":9,"stream":null}"#).unwrap();
        assert_eq!((request.stream(), request.max_output_tokens()), (false, Some(9)));
        assert_eq!(parse(r#"{"model":"m","max_tokens":null}"#).unwrap().max_output_tokens(), None);
    }

    #[test]
    fn refuses_what_is_no_request_without_quoting_it() {
        for (body, wanted) in [
            (r#"{"model":"m","max_tokens":0}"#, RequestError::BadLimit),
            (r#"{"model":"m","max_completion_tokens":4294967296}"#, RequestError::BadLimit),
            (r#"{"model":"m m"}"#, RequestError::BadModelName),
            (r#"{"model":""}"#, RequestError::BadModelName),
        ] {
            assert_eq!(parse(body), Err(wanted), "{body}");
        }
        for body in ["", "[]", "{}", "secret", r#"{"model":1}"#, r#"{"model":"m","stream":"secret"}"#, r#"{"model":"m"} x"#] {
            let error = parse(body).unwrap_err();
            assert!(matches!(error, RequestError::Malformed { .. }), "{body}");
            assert!(!error.to_string().contains("secret"));
        }
        // One reader takes the first of two fields, another the last; neither gets to see such a body.
        assert!(parse(r#"{"model":"cheap","model":"dear"}"#).is_err());
        assert_eq!(ChatRequest::parse(vec![b' '; MAX_MESSAGE_LEN + 1]), Err(RequestError::TooLong));
    }

    #[test]
    fn the_bound_is_a_power_of_two_above_the_bytes() {
        for len in [0, 1, 1_000, 5_000, 100_000] {
            let body = format!(r#"{{"model":"m","x":"{}"}}"#, "a".repeat(len));
            let bound = parse(&body).unwrap().input_tokens_bound();
            assert!(bound.is_power_of_two() && bound as usize >= body.len() + 1_024, "{len}");
        }
    }
}
