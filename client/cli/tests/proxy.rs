//! The proxy as programs see it: raw HTTP in front, a gateway with faults behind.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use fanlight_protocol::problem::ProblemCode;
use fanlight_proxy::{Config, Proxy};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use support::{Fault, Network, TestProvider, lock};

struct Setup {
    network: Network,
    proxy: Proxy,
    http: Client,
}

impl Setup {
    async fn start(n_providers: usize) -> Self {
        let network = Network::start(n_providers).await;
        let proxy = proxy(network.config()).await;
        Self { network, proxy, http: Client::new() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy.local_addr())
    }

    async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.expect("the proxy answers")
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        self.http.post(self.url("/v1/chat/completions")).body(body).send().await.expect("the proxy answers")
    }

    async fn chat(&self, stream: bool) -> Response {
        self.post(chat_body("tiny", stream, "a secret prompt")).await
    }
}

async fn proxy(client: fanlight_client::Config) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    fanlight_proxy::start(Config { client, allowed_hosts: Vec::new() }, listener).expect("a good configuration")
}

fn chat_body(model: &str, stream: bool, content: &str) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]}).to_string()
}

fn receipt_id(response: &Response) -> String {
    response.headers()["x-fanlight-receipt"].to_str().expect("hexadecimal").to_owned()
}

/// Status and code of an error in OpenAI's shape.
async fn error(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
    (status, body["error"]["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn a_whole_answer_carries_its_receipt() {
    let setup = Setup::start(2).await;
    let response = setup.chat(false).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let id = receipt_id(&response);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "The answer is sealed.");
    assert_eq!(body["x_fanlight_receipt"], id);

    setup.proxy.client().settled().await;
    let bundle: Value = setup.get(&format!("/v1/receipts/{id}")).await.json().await.unwrap();
    assert_eq!(bundle["format"], "fanlight.receipt-bundle.v1");
    assert_eq!((&bundle["receipt_id"], &bundle["logged"]), (&json!(id), &json!(true)));
    assert!(bundle["tlog_proof"].as_str().unwrap().starts_with("c2sp.org/tlog-proof@v1\n"));
    let list: Value = setup.get("/v1/receipts").await.json().await.unwrap();
    assert_eq!(list["data"], json!([{"id": id, "object": "fanlight.receipt"}]));
    for unknown in ["00000000000000000000000000000000", "nonsense", "..%2fpolicy"] {
        let answer = error(setup.get(&format!("/v1/receipts/{unknown}")).await).await;
        assert_eq!(answer, (404, "receipt_not_found".to_owned()), "{unknown}");
    }
}

#[tokio::test]
async fn a_stream_ends_in_a_receipt_and_done() {
    let setup = Setup::start(1).await;
    let response = setup.chat(true).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let id = receipt_id(&response);
    let text = response.text().await.unwrap();
    let events: Vec<_> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let [chunks @ .., last, done] = events.as_slice() else { panic!("{text}") };
    assert_eq!(*done, "[DONE]");
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!((&last["choices"][0]["finish_reason"], &last["x_fanlight_receipt"]), (&json!("stop"), &json!(id)));
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let content: String = chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(content, "The answer is sealed.");
    assert!(chunks.iter().all(|chunk| chunk.get("x_fanlight_receipt").is_none()));
}

#[tokio::test]
async fn a_stream_that_is_not_verified_never_ends_well() {
    let setup = Setup::start(2).await;
    let faults =
        [Fault::CutAfter(3), Fault::CutAfter(5), Fault::CutInside(6), Fault::OtherReceipt, Fault::StallAfter(4), Fault::Swapped];
    for fault in faults {
        setup.network.inject([fault.clone()]);
        let mut response = setup.chat(true).await;
        if response.status() != StatusCode::OK {
            // The first frame already failed; there was no stream yet.
            assert_eq!(error(response).await.0, 502, "{fault:?}");
            continue;
        }
        let mut text = Vec::new();
        let ended_well = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => text.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let text = String::from_utf8(text).unwrap();
        assert!(!ended_well, "{fault:?}: the connection must be cut");
        assert!(!text.contains("[DONE]") && !text.contains("\"finish_reason\":\"stop\""), "{fault:?}: {text}");
        let last = text.split_terminator("\n\n").last().unwrap().strip_prefix("data: ").unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["error"]["code"], "stream_truncated", "{fault:?}");

        assert_eq!(setup.chat(true).await.text().await.unwrap().matches("[DONE]").count(), 1, "after {fault:?}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_not_verified_is_not_shown() {
    let setup = Setup::start(2).await;
    // Prefix, FINAL, RECEIPT.
    for (fault, code) in [
        (Fault::CutAfter(1), "stream_truncated"),
        (Fault::CutAfter(2), "stream_truncated"),
        (Fault::CutInside(3), "stream_truncated"),
        (Fault::StallAfter(2), "stream_truncated"),
        (Fault::GivenUp, "answer_incomplete"),
        (Fault::OtherReceipt, "answer_not_verified"),
        (Fault::Garbage, "answer_not_verified"),
    ] {
        setup.network.inject([fault.clone()]);
        assert_eq!(error(setup.chat(false).await).await, (502, code.to_owned()), "{fault:?}");
        assert_eq!(setup.chat(false).await.status(), StatusCode::OK, "after {fault:?}");
    }
}

#[tokio::test]
async fn a_sealed_error_keeps_its_status_and_has_a_receipt() {
    let setup = Setup::start(1).await;
    for stream in [true, false] {
        let response = setup.post(chat_body("tiny", stream, "please fail")).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let id = receipt_id(&response);
        assert_eq!(error(response).await, (400, "refused".to_owned()));
        assert_eq!(setup.get(&format!("/v1/receipts/{id}")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_that_cannot_be_sent_say_why() {
    let setup = Setup::start(1).await;
    for (body, wanted) in [
        ("{".to_owned(), (400, "invalid_request")),
        (r#"{"messages":[]}"#.to_owned(), (400, "invalid_request")),
        (r#"{"model":"tiny","max_tokens":0}"#.to_owned(), (400, "invalid_request")),
        (r#"{"model":"no such model"}"#.to_owned(), (404, "model_not_found")),
        (chat_body("other", false, "x"), (404, "model_not_found")),
        (" ".repeat(fanlight_client::MAX_MESSAGE_LEN + 1), (413, "request_too_large")),
    ] {
        let shown = body.chars().take(40).collect::<String>();
        let (status, code) = error(setup.post(body).await).await;
        assert_eq!((status, code.as_str()), wanted, "{shown}");
    }
    assert_eq!(lock(&setup.network.state.requests).len(), 0, "none of them left this machine");
}

#[tokio::test]
async fn outer_errors_map_to_openais_statuses() {
    let setup = Setup::start(1).await;
    for (code, status, retry_after) in [
        (ProblemCode::ModelNotFound, 404, None),
        (ProblemCode::NoProvider, 503, Some("7")),
        (ProblemCode::Overloaded, 429, Some("7")),
        (ProblemCode::LimitExceeded, 400, None),
        (ProblemCode::RejectedRequest, 502, None),
        (ProblemCode::ProviderFailed, 502, None),
    ] {
        // After `no_provider` the client asks once more.
        let attempts = if code == ProblemCode::NoProvider { 2 } else { 1 };
        setup.network.inject((0..attempts).map(|_| Fault::Problem(code)));
        let response = setup.chat(true).await;
        let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(after.as_deref(), retry_after, "{code:?}");
        assert_eq!(error(response).await, (status, code.as_str().to_owned()));
    }
    let nobody = Setup::start(0).await;
    let response = nobody.chat(true).await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(error(response).await, (503, "no_provider".to_owned()));
}

#[tokio::test]
async fn models_are_those_of_verified_statements() {
    let setup = Setup::start(2).await;
    setup.network.add_provider(TestProvider::new(&setup.network.state.clock, &[("org/big:8b", 64), ("tiny", 4_096)])).await;
    let not_logged = TestProvider::new(&setup.network.state.clock, &[("forged", 64)]);
    let mut listing = not_logged.listing(&setup.network.state.log).await;
    listing.key_statement_proof = String::new();
    lock(&setup.network.state.listings).push(listing);

    let list: Value = setup.get("/v1/models").await.json().await.unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec!["org/big:8b", "tiny"]));
    let tiny: Value = setup.get("/v1/models/tiny").await.json().await.unwrap();
    assert_eq!(tiny["x_fanlight"]["providers"], 3);
    assert_eq!(tiny["x_fanlight"]["context_tokens"], json!([2_048, 4_096]));
    assert_eq!(tiny["x_fanlight"]["grades"], json!(["self-signed", "self-signed"]));
    for path in ["/v1/models/org/big:8b", "/v1/models/org%2Fbig:8b"] {
        assert_eq!(setup.get(path).await.json::<Value>().await.unwrap()["id"], "org/big:8b");
    }
    assert_eq!(error(setup.get("/v1/models/forged").await).await, (404, "model_not_found".to_owned()));
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let setup = Setup::start(1).await;
    let send = async |name: &str, value: &str| {
        let request = setup.http.post(setup.url("/v1/chat/completions")).header(name, value);
        request.body(chat_body("tiny", false, "x")).send().await.unwrap()
    };
    assert_eq!(error(send("host", "rebound.example:8787").await).await, (403, "host_not_allowed".to_owned()));
    assert_eq!(error(send("origin", "https://evil.example").await).await, (403, "cross_origin_refused".to_owned()));
    assert_eq!(error(send("sec-fetch-site", "cross-site").await).await, (403, "cross_origin_refused".to_owned()));
    // No preflight ever succeeds either.
    let preflight =
        setup.http.request(Method::OPTIONS, setup.url("/v1/chat/completions")).header("origin", "https://evil.example");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::FORBIDDEN);
    assert!(!preflight.headers().contains_key("access-control-allow-origin"));
    assert_eq!(lock(&setup.network.state.requests).len(), 0);
}

#[tokio::test]
async fn credentials_of_the_sdk_go_no_further() {
    let setup = Setup::start(1).await;
    let request =
        setup.http.post(setup.url("/v1/chat/completions")).bearer_auth("sk-secret").header("openai-organization", "org");
    let response = request.body(chat_body("tiny", true, "x")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.bytes().await.unwrap();
    let names = lock(&setup.network.state.header_names).clone();
    assert!(!names.iter().any(|name| name == "authorization" || name.starts_with("openai")), "{names:?}");
}

#[tokio::test]
async fn a_program_that_goes_away_cancels_its_request() {
    let setup = Setup::start(1).await;
    setup.network.inject([Fault::StallAfter(3)]);
    let mut response = setup.chat(true).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    let aborted = setup.network.state.aborted.notified();
    tokio::time::timeout(Duration::from_secs(5), aborted).await.expect("the gateway sees the end");
}

#[tokio::test]
async fn other_paths_say_what_is_served() {
    let setup = Setup::start(1).await;
    assert_eq!(setup.get("/healthz").await.text().await.unwrap(), "ok");
    let response = setup.http.post(setup.url("/v1/embeddings")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body: Value = response.json().await.unwrap();
    assert!(body["error"]["message"].as_str().unwrap().starts_with("Embeddings: not served here."));
    assert_eq!(error(setup.get("/nonsense").await).await, (404, "not_found".to_owned()));
    assert_eq!(error(setup.get("/v1/chat/completions").await).await, (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn without_a_gateway_the_proxy_says_so() {
    let network = Network::start(0).await;
    let mut config = network.config();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.gateway = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let proxy = proxy(config).await;
    let models = reqwest::get(format!("http://{}/v1/models", proxy.local_addr())).await.unwrap();
    assert_eq!(error(models).await, (502, "gateway_unreachable".to_owned()));
}

#[tokio::test]
async fn shutdown_frees_the_port() {
    let setup = Setup::start(1).await;
    let addr = setup.proxy.local_addr();
    setup.chat(false).await.bytes().await.unwrap();
    drop(setup.http);
    setup.proxy.shutdown().await;
    TcpListener::bind(addr).await.unwrap();
}
