//! `chat.completions` answers: one JSON object, or server-sent events.

use fanlight_protocol::{RequestId, UnixTime};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::InnerError;
use crate::engine::{FinishReason, Usage};

/// What every part of one answer repeats.
#[derive(Clone, Debug)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(request_id: &RequestId, created: UnixTime, model: &str) -> Self {
        Self { id: format!("chatcmpl-{request_id}"), created: created.as_secs(), model: model.to_owned() }
    }
}

/// An answer in one piece.
#[derive(Debug)]
pub struct ChatAnswer {
    head: Head,
    text: Zeroizing<String>,
}

impl ChatAnswer {
    /// Starts an empty answer.
    pub fn new(request_id: &RequestId, created: UnixTime, model: &str) -> Self {
        Self { head: Head::new(request_id, created, model), text: Zeroizing::default() }
    }

    /// Adds generated text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The whole answer as JSON.
    pub fn finish(self, reason: FinishReason, usage: Usage) -> Zeroizing<Vec<u8>> {
        let Head { id, created, model } = &self.head;
        let body = json!({
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text.as_str(), "refusal": null},
                "logprobs": null,
                "finish_reason": finish_reason(reason),
            }],
            "usage": usage_json(usage),
        });
        Zeroizing::new(body.to_string().into_bytes())
    }
}

/// An answer as server-sent events. Each method returns the bytes of whole events.
#[derive(Debug)]
pub struct ChatStream {
    head: Head,
    include_usage: bool,
    started: bool,
}

impl ChatStream {
    /// Starts a stream; the first text also opens the assistant's turn.
    pub fn new(request_id: &RequestId, created: UnixTime, model: &str, include_usage: bool) -> Self {
        Self { head: Head::new(request_id, created, model), include_usage, started: false }
    }

    /// Generated text.
    pub fn text(&mut self, text: &str) -> Zeroizing<Vec<u8>> {
        let delta = if self.started { json!({"content": text}) } else { json!({"role": "assistant", "content": text}) };
        self.started = true;
        event(&self.choice(&delta, &Value::Null))
    }

    /// The end of a good answer, with `[DONE]`.
    pub fn finish(mut self, reason: FinishReason, usage: Usage) -> Zeroizing<Vec<u8>> {
        // An answer without any text still opens the turn, as clients expect a role.
        let mut events = if self.started { Zeroizing::default() } else { self.text("") };
        events.extend_from_slice(&event(&self.choice(&json!({}), &finish_reason(reason).into())));
        if self.include_usage {
            let mut chunk = self.chunk(&json!([]));
            chunk["usage"] = usage_json(usage);
            events.extend_from_slice(&event(&chunk));
        }
        events.extend_from_slice(b"data: [DONE]\n\n");
        events
    }

    /// The end of an answer that failed after it began: an error event, and no `[DONE]`.
    pub fn fail(self, error: &InnerError) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([b"data: ", &error.to_json()[..], b"\n\n"].concat())
    }

    fn choice(&self, delta: &Value, finish_reason: &Value) -> Value {
        self.chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]))
    }

    fn chunk(&self, choices: &Value) -> Value {
        let Head { id, created, model } = &self.head;
        let mut chunk =
            json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices});
        if self.include_usage {
            // OpenAI sends a null on every chunk before the one that carries it.
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn event(chunk: &Value) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(format!("data: {chunk}\n\n").into_bytes())
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Aborted => "stop",
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": u64::from(usage.input) + u64::from(usage.output),
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}
