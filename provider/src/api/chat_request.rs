//! `chat.completions` requests: JSON, checked parameter by parameter.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::InnerError;
use crate::engine::{ChatMessage, GenerationRequest, Role, Sampling};

/// A chat completion that the engine can run, and what its answer must look like.
#[derive(Debug)]
pub struct ChatRequest {
    /// For the engine. Its `max_output_tokens` is what the message asks for, if it does.
    pub generation: GenerationRequest,
    /// Whether the client wants events.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
}

/// Parameters that change nothing about what one machine generates, and so may be given.
const WITHOUT_EFFECT: [&str; 4] = ["user", "metadata", "safety_identifier", "prompt_cache_key"];

/// Parses the sealed message of a `chat.completions` request.
///
/// `random_seed` seeds the sampler when the client gave no `seed`.
///
/// # Errors
/// [`InnerError`] naming the parameter: one that is missing, of the wrong type, out of range or not supported.
pub fn parse_chat_request(message: &[u8], random_seed: u64) -> Result<ChatRequest, InnerError> {
    let not_json = || InnerError {
        status: 400,
        message: "The request body is not a JSON object.".to_owned(),
        param: None,
        code: "invalid_json",
    };
    let Ok(Value::Object(body)) = serde_json::from_slice(message) else { return Err(not_json()) };
    let mut body = Body(body);

    let model = body.string("model")?.ok_or_else(|| missing("model"))?;
    let messages = match body.take("messages") {
        Some(Value::Array(messages)) => messages.into_iter().map(chat_message).collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(InnerError::invalid("messages", "'messages' must be an array.")),
        None => return Err(missing("messages")),
    };
    let stream = body.boolean("stream")?.unwrap_or(false);
    let include_usage = include_usage(body.take("stream_options"), stream)?;
    let max_output_tokens = match (body.tokens("max_completion_tokens")?, body.tokens("max_tokens")?) {
        (Some(a), Some(b)) if a != b => {
            return Err(InnerError::invalid("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; give one."));
        }
        (a, b) => a.or(b),
    };
    let sampling = Sampling {
        temperature: body.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        top_p: match body.number("top_p", 0.0, 1.0)?.unwrap_or(1.0) {
            // OpenAI takes 0 for "the likeliest token"; a nucleus is never empty.
            0.0 => f32::MIN_POSITIVE,
            p => p,
        },
        seed: body.seed()?.unwrap_or(random_seed),
        frequency_penalty: body.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: body.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
    };
    let stop = stop(body.take("stop"))?;
    body.finish()?;

    Ok(ChatRequest {
        generation: GenerationRequest { model, messages, sampling, max_output_tokens, output_cap: None, stop },
        stream,
        include_usage,
    })
}

fn missing(param: &'static str) -> InnerError {
    let message = format!("'{param}' is required.");
    InnerError { status: 400, message, param: Some(param), code: "missing_required_parameter" }
}

/// The parameters that were not taken yet. `null` is the same as absent, as in OpenAI's API.
struct Body(Map<String, Value>);

impl Body {
    fn take(&mut self, param: &str) -> Option<Value> {
        self.0.remove(param).filter(|value| !value.is_null())
    }

    fn string(&mut self, param: &'static str) -> Result<Option<String>, InnerError> {
        match self.take(param) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(InnerError::invalid(param, format!("'{param}' must be a string."))),
        }
    }

    fn boolean(&mut self, param: &'static str) -> Result<Option<bool>, InnerError> {
        match self.take(param) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(InnerError::invalid(param, format!("'{param}' must be true or false."))),
        }
    }

    fn number(&mut self, param: &'static str, min: f64, max: f64) -> Result<Option<f32>, InnerError> {
        let Some(value) = self.take(param) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => {
                #[expect(clippy::cast_possible_truncation, reason = "the range is small; the sampler works in f32")]
                let number = number as f32;
                Ok(Some(number))
            }
            _ => Err(InnerError::invalid(param, format!("'{param}' must be a number from {min} to {max}."))),
        }
    }

    fn tokens(&mut self, param: &'static str) -> Result<Option<u32>, InnerError> {
        let Some(value) = self.take(param) else { return Ok(None) };
        match value.as_u64().map(u32::try_from) {
            Some(Ok(tokens @ 1..)) => Ok(Some(tokens)),
            _ => Err(InnerError::invalid(param, format!("'{param}' must be a whole number of at least 1."))),
        }
    }

    fn seed(&mut self) -> Result<Option<u64>, InnerError> {
        let Some(value) = self.take("seed") else { return Ok(None) };
        let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        seed.map(Some).ok_or_else(|| InnerError::invalid("seed", "'seed' must be a whole number of 64 bits."))
    }

    /// Refuses what is left, unless it asks for what happens anyway.
    fn finish(self) -> Result<(), InnerError> {
        for (param, value) in self.0 {
            let param = param.as_str();
            let is_default = match param {
                "n" => value == 1,
                "logprobs" | "store" => value == false,
                "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
                "response_format" => value["type"] == "text",
                "service_tier" => value == "auto" || value == "default",
                "logit_bias" => value.as_object().is_some_and(Map::is_empty),
                _ => WITHOUT_EFFECT.contains(&param),
            };
            if !(value.is_null() || is_default) {
                return Err(InnerError::unsupported(known_name(param)));
            }
        }
        Ok(())
    }
}

/// Error messages repeat names of OpenAI's parameters only, never text that a client made up.
fn known_name(param: &str) -> &'static str {
    const KNOWN: [&str; 22] = [
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "user",
        "verbosity",
        "web_search_options",
    ];
    KNOWN.into_iter().find(|known| *known == param).unwrap_or("an unknown parameter")
}

fn include_usage(options: Option<Value>, stream: bool) -> Result<bool, InnerError> {
    let Some(options) = options else { return Ok(false) };
    let Value::Object(options) = options else {
        return Err(InnerError::invalid("stream_options", "'stream_options' must be an object."));
    };
    if !stream {
        return Err(InnerError::invalid("stream_options", "'stream_options' is for streams only; set 'stream' to true."));
    }
    let mut options = Body(options);
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    // Padding of frames hides lengths already, so asking for or against obfuscation changes nothing.
    options.boolean("include_obfuscation")?;
    if options.0.is_empty() { Ok(include_usage) } else { Err(InnerError::unsupported("stream_options")) }
}

fn stop(value: Option<Value>) -> Result<Vec<String>, InnerError> {
    let wrong = || InnerError::invalid("stop", "'stop' must be a string or an array of up to 4 strings.");
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(Value::Array(stops)) => stops.into_iter().map(|s| s.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

fn chat_message(value: Value) -> Result<ChatMessage, InnerError> {
    let Value::Object(message) = value else {
        return Err(InnerError::invalid("messages", "Each message must be an object."));
    };
    let mut message = Body(message);
    let role = match message.string("role")?.as_deref() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(InnerError::invalid("messages", "A message's 'role' must be system, developer, user or assistant.")),
    };
    let content = match message.take("content") {
        Some(Value::String(text)) => Zeroizing::new(text),
        Some(Value::Array(parts)) => text_parts(parts)?,
        _ => return Err(InnerError::invalid("messages", "A message's 'content' must be a string or an array of text parts.")),
    };
    // An SDK sends back an answer as it got it, with these fields null or empty.
    for field in ["refusal", "tool_calls", "function_call", "audio", "annotations", "name"] {
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        if message.take(field).is_some_and(|value| !empty(&value)) {
            return Err(InnerError::unsupported("messages"));
        }
    }
    Ok(ChatMessage { role, content })
}

fn text_parts(parts: Vec<Value>) -> Result<Zeroizing<String>, InnerError> {
    let mut text = Zeroizing::new(String::new());
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(piece)) => text.push_str(piece),
            _ => return Err(InnerError::invalid("messages", "Only text parts are supported in a message's 'content'.")),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> (Option<&'static str>, &'static str) {
        let error = parse_chat_request(json.as_bytes(), 0).unwrap_err();
        (error.param, error.code)
    }

    #[test]
    fn every_parameter_is_taken_or_refused_by_name() {
        let with = |extra: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{extra}}}"#);
        for (extra, param, code) in [
            (r#""n":2"#, "n", "unsupported_parameter"),
            (r#""tools":[{"type":"function"}]"#, "tools", "unsupported_parameter"),
            (r#""response_format":{"type":"json_object"}"#, "response_format", "unsupported_parameter"),
            (r#""logprobs":true"#, "logprobs", "unsupported_parameter"),
            (r#""secret words":1"#, "an unknown parameter", "unsupported_parameter"),
            (r#""temperature":3"#, "temperature", "invalid_value"),
            (r#""temperature":"hot""#, "temperature", "invalid_value"),
            (r#""top_p":-0.1"#, "top_p", "invalid_value"),
            (r#""max_tokens":0"#, "max_tokens", "invalid_value"),
            (r#""max_tokens":1,"max_completion_tokens":2"#, "max_tokens", "invalid_value"),
            (r#""stop":[1]"#, "stop", "invalid_value"),
            (r#""seed":1.5"#, "seed", "invalid_value"),
            (r#""stream":1"#, "stream", "invalid_value"),
            (r#""stream_options":{"include_usage":true}"#, "stream_options", "invalid_value"),
            (r#""stream":true,"stream_options":{"x":1}"#, "stream_options", "unsupported_parameter"),
        ] {
            assert_eq!(refused(&with(extra)), (Some(param), code), "{extra}");
        }
        for extra in [
            r#""n":1"#,
            r#""tools":[],"response_format":{"type":"text"},"logprobs":false,"store":false"#,
            r#""user":"u","metadata":{"a":"b"},"temperature":null,"stop":null"#,
            r#""stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}"#,
        ] {
            assert!(parse_chat_request(with(extra).as_bytes(), 0).is_ok(), "{extra}");
        }
    }

    #[test]
    fn messages_are_checked() {
        let with = |messages: &str| format!(r#"{{"model":"m","messages":{messages}}}"#);
        for messages in [
            "1",
            "[1]",
            r#"[{"role":"king","content":"x"}]"#,
            r#"[{"role":"user"}]"#,
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
            r#"[{"role":"assistant","content":"","tool_calls":[{}]}]"#,
        ] {
            assert_eq!(refused(&with(messages)).0, Some("messages"), "{messages}");
        }
        let parts = with(r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#);
        let request = parse_chat_request(parts.as_bytes(), 0).unwrap();
        assert_eq!(request.generation.messages[0].content.as_str(), "ab");
        assert_eq!(refused(r#"{"model":"m"}"#), (Some("messages"), "missing_required_parameter"));
        assert_eq!(refused(r#"{"messages":[]}"#), (Some("model"), "missing_required_parameter"));
        assert_eq!(refused("nonsense"), (None, "invalid_json"));
    }

    #[test]
    fn errors_do_not_repeat_the_request() {
        let json = r#"{"model":"m","messages":[{"role":"CANARY","content":"CANARY"}],"CANARY":1}"#;
        let error = parse_chat_request(json.as_bytes(), 0).unwrap_err();
        assert!(!String::from_utf8(error.to_json()).unwrap().contains("CANARY"));
    }
}
