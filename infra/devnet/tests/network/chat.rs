//! What the tests ask of the proxy, and how they read its answers.

use std::sync::Arc;
use std::time::Duration;

use fanlight_devnet::{Config, Network};
use fanlight_provider::engine::Engine;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything in a test. Only a hang takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A network in a directory that goes with it, with one provider for each engine.
pub(crate) async fn network(engines: Vec<Arc<dyn Engine>>) -> (Network, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { data: dir.path().to_owned(), port_base: None, engines, max_delay: Duration::from_millis(20) };
    (Network::start(config).await.unwrap(), dir)
}

/// The demo's network: the built-in model.
pub(crate) async fn demo() -> (Network, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_delay: Duration::from_millis(20), ..Config::demo(dir.path()).unwrap() };
    (Network::start(config).await.unwrap(), dir)
}

pub(crate) fn body(model: &str, question: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": question}], "stream": stream, "temperature": 0})
}

pub(crate) async fn post(network: &Network, body: &Value) -> reqwest::Response {
    let url = format!("{}/chat/completions", network.base_url());
    reqwest::Client::new().post(url).json(body).send().await.unwrap()
}

/// The text of an answer that is not streamed; panics when it is an error.
pub(crate) async fn ask(network: &Network, model: &str, question: &str) -> String {
    let response = post(network, &body(model, question, false)).await;
    let status = response.status();
    let json: Value = response.json().await.unwrap();
    assert!(status.is_success(), "{status} {json}");
    json["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// What a streamed answer came to.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    /// `[DONE]` came.
    pub(crate) done: bool,
    /// Code of an error event.
    pub(crate) error: Option<String>,
    /// The connection broke, rather than ended.
    pub(crate) broke: bool,
}

/// Reads a stream to its end; `on_text` runs after the first text, while more is to come.
pub(crate) async fn read_stream(response: reqwest::Response, on_text: impl AsyncFnOnce()) -> Streamed {
    let (mut streamed, mut held, mut on_text) = (Streamed::default(), Vec::new(), Some(on_text));
    let mut bytes = response.bytes_stream();
    while let Some(piece) = bytes.next().await {
        let Ok(piece) = piece else {
            streamed.broke = true;
            break;
        };
        held.extend_from_slice(&piece);
        while let Some(end) = held.windows(2).position(|two| two == b"\n\n") {
            let event = String::from_utf8(held.drain(..end + 2).collect()).unwrap();
            match event.trim().strip_prefix("data: ") {
                Some("[DONE]") => streamed.done = true,
                Some(data) => {
                    let chunk: Value = serde_json::from_str(data).unwrap();
                    if let Some(code) = chunk["error"]["code"].as_str() {
                        streamed.error = Some(code.to_owned());
                    }
                    streamed.text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
                }
                None => {}
            }
        }
        if !streamed.text.is_empty()
            && let Some(on_text) = on_text.take()
        {
            on_text().await;
        }
    }
    streamed
}
