//! The prompt and the answer are on the client's side and inside the provider, and nowhere between.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fanlight_provider::engine::{Engine, Limits, scripted};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::chat::{PATIENCE, body, network, read_stream};

const PROMPT: &str = "canary-prompt-4711";
const ANSWER: &str = "canary-answer-0815";

fn engine() -> Arc<dyn Engine> {
    Arc::new(scripted::start(Limits::default(), |_| format!("{ANSWER} and some more")).unwrap())
}

/// Listens before `target` and keeps a copy of every byte in both directions: what the wire and the gateway see.
async fn tap(target: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(target).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(record(near_read, far_write, Arc::clone(&copy)));
            tokio::spawn(record(far_read, near_write, Arc::clone(&copy)));
        }
    });
    (url, seen)
}

async fn record(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, seen: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 16_384];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        seen.lock().unwrap().extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn files_with(dir: &Path, needle: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|bytes| contains(&bytes, needle)) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_and_no_answer_on_the_wire_or_in_any_file() {
    let (network, dir) = network(vec![engine()]).await;
    let (tapped, seen) = tap(network.gateway.local_addr()).await;
    let state = dir.path().join("tapped-client");
    let client = fanlight_client::Config::new(tapped, network.policy.clone(), state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = fanlight_proxy::start(fanlight_proxy::Config { client, allowed_hosts: Vec::new() }, listener).unwrap();
    let url = format!("http://{}/v1/chat/completions", proxy.local_addr());

    let http = reqwest::Client::new();
    let response = http.post(&url).json(&body(scripted::MODEL_NAME, PROMPT, true)).send().await.unwrap();
    let streamed = read_stream(response, async || {}).await;
    assert!(streamed.done && streamed.text.starts_with(ANSWER), "{streamed:?}");
    let whole: Value =
        http.post(&url).json(&body(scripted::MODEL_NAME, PROMPT, false)).send().await.unwrap().json().await.unwrap();
    assert!(whole.to_string().contains(ANSWER));
    proxy.client().settled().await;

    let seen = seen.lock().unwrap().clone();
    assert!(contains(&seen, "/v1/chat/completions"), "the tap works");
    for canary in [PROMPT, ANSWER] {
        assert!(!contains(&seen, canary), "{canary} crossed the wire in clear");
        assert_eq!(files_with(dir.path(), canary), [] as [&Path; 0], "{canary} was written to a file");
    }
    proxy.shutdown().await;
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_to_the_gateway_is_refused_with_what_to_do() {
    let (network, dir) = network(vec![engine()]).await;
    let url = format!("{}/v1/chat/completions", network.gateway.url());
    let response = reqwest::Client::new().post(url).json(&body(scripted::MODEL_NAME, PROMPT, false)).send().await.unwrap();
    assert_eq!(response.status(), 415);
    let json: Value = response.json().await.unwrap();
    assert_eq!(json["error"]["code"], "plaintext_request");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains("fanlight proxy"), "it says how to run the local proxy: {message}");
    assert!(!json.to_string().contains(PROMPT));
    assert_eq!(files_with(dir.path(), PROMPT), [] as [&Path; 0]);
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_not_gathered_to_its_end() {
    let (engine, gate) = scripted::start_gated(Limits::default(), |_| "first second third".to_owned()).unwrap();
    let (network, _dir) = network(vec![Arc::new(engine)]).await;
    gate.step(2);
    let response = crate::chat::post(&network, &body(scripted::MODEL_NAME, "x", true)).await;
    // Text arrives while the engine is still held; only then is it let go.
    let reading = read_stream(response, async || gate.step(64));
    let streamed = tokio::time::timeout(PATIENCE, reading).await.expect("text must not wait for the end");
    assert!(streamed.done, "{streamed:?}");
    assert_eq!(streamed.text, "first second third");
    network.shutdown().await;
}
