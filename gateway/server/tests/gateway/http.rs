//! Every request that is not relayed, and why.

use std::time::Duration;

use fanlight_auditlog::{Policy, TlogProof};
use fanlight_protocol::UnixTime;
use fanlight_protocol::problem::Problem;
use fanlight_protocol::request::HeaderFields;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::entries::{CONTEXT_TOKENS, Identity, fields, request};
use crate::support::{Network, now, within};
use crate::witness::{Behaviour, Witness};

async fn code(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = response.json().await.expect("a problem");
    assert_eq!(problem.status, status);
    (status, problem.error.code.expect("a code"))
}

#[tokio::test]
async fn the_header_decides_before_anyone_is_asked() {
    let network = Network::start().await;
    let provider = network.provider(1, 1).await;
    let absent = Identity::new(9);
    let absent = absent.sign(&absent.statement(109, now()));
    let good = fields(&[&provider.statement], now());
    let at = |created: u64, expires: u64| HeaderFields {
        created: UnixTime::from_secs(created),
        expires: UnixTime::from_secs(expires),
        ..good.clone()
    };
    let now_secs = now().as_secs();
    let other_key = HeaderFields {
        recipients: vec![fanlight_protocol::request::RecipientRef {
            statement_digest: provider.statement.digest(),
            key_id: absent.key_id(),
        }],
        ..good.clone()
    };
    let cases = [
        ("expired", at(now_secs - 100, now_secs - 10), 400, "expired_request"),
        ("not yet", at(now_secs + 200, now_secs + 300), 400, "expired_request"),
        ("operation", HeaderFields { operation: "embeddings".to_owned(), ..good.clone() }, 400, "malformed_request"),
        ("unknown model", HeaderFields { model: "other".to_owned(), ..good.clone() }, 404, "model_not_found"),
        ("output", HeaderFields { max_output_tokens: CONTEXT_TOKENS + 1, ..good.clone() }, 400, "limit_exceeded"),
        (
            "input",
            HeaderFields { input_tokens_min: CONTEXT_TOKENS, input_tokens_max: CONTEXT_TOKENS, ..good.clone() },
            400,
            "limit_exceeded",
        ),
        ("absent recipient", fields(&[&absent], now()), 503, "no_provider"),
        ("key of another", other_key, 503, "no_provider"),
    ];
    for (name, fields, status, wanted) in cases {
        let got = code(network.post(request(fields, 10)).await).await;
        assert_eq!(got, (status, wanted.to_owned()), "{name}");
    }
    for bytes in [Vec::new(), b"{\"model\":\"m\"}".to_vec(), request(good, 0)[..100].to_vec()] {
        assert_eq!(code(network.post(bytes).await).await, (400, "malformed_request".to_owned()));
    }
}

#[tokio::test]
async fn plaintext_is_refused_with_help_and_the_rest_has_its_problem() {
    let network = Network::start().await;
    for path in ["/v1/chat/completions", "/v1/responses"] {
        let post = network.client.post(network.url(path)).header("content-type", "application/json");
        let response = within(post.body("{\"messages\":[]}").send()).await.unwrap();
        assert_eq!(response.status(), 415);
        let problem: Problem = response.json().await.unwrap();
        assert!(problem.error.message.contains("fanlight proxy --gateway URL"));
        assert_eq!(problem.error.error_type, "invalid_request_error");
    }
    let get = |path: &str| network.client.get(network.url(path)).send();
    assert_eq!(code(get("/v1/nothing").await.unwrap()).await, (404, "not_found".to_owned()));
    for private in ["/log/private/lock", "/log/private/key"] {
        assert_eq!(code(get(private).await.unwrap()).await, (404, "not_found".to_owned()));
    }
    assert_eq!(code(get("/v1/chat/completions").await.unwrap()).await, (405, "method_not_allowed".to_owned()));
    assert_eq!(code(get("/v1/link").await.unwrap()).await, (405, "method_not_allowed".to_owned()));
    let delete = network.client.delete(network.url("/v1/providers")).send().await.unwrap();
    assert_eq!(code(delete).await, (405, "method_not_allowed".to_owned()));
    assert_eq!(network.get("/healthz").await, "ok");
    assert!(network.get("/log/checkpoint").await.starts_with("log.example/test\n0\n"));
}

#[tokio::test]
async fn a_length_above_the_limit_is_refused_before_the_body_comes() {
    let network = Network::start().await;
    let mut socket = TcpStream::connect(network.gateway.local_addr()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
         content-type: application/vnd.fanlight.request\r\ncontent-length: 8388609\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("request_too_large"));
}

#[tokio::test]
async fn connections_that_ask_for_nothing_are_closed() {
    let network = Network::start().await;
    let undecided: &[u8] = b"P";
    let http2_without_a_request: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let closed = [&[], undecided, http2_without_a_request].map(async |first_bytes| {
        let mut socket = TcpStream::connect(network.gateway.local_addr()).await.unwrap();
        socket.write_all(first_bytes).await.unwrap();
        // Reset or closed: either way the gateway holds it no longer.
        let _ = within(socket.read_to_end(&mut Vec::new())).await;
    });
    futures_util::future::join_all(closed).await;
}

#[tokio::test]
async fn entries_are_logged_for_enrolled_providers_once() {
    let network = Network::start().await;
    let provider = network.provider(1, 1).await;
    let add = |entry: Vec<u8>| network.client.post(network.url("/log/add")).body(entry).send();
    let again = within(add(provider.statement.bytes().to_vec())).await.unwrap();
    assert_eq!(again.status(), 200);
    network.verify(provider.statement.bytes(), &again.text().await.unwrap());
    assert!(network.get("/log/checkpoint").await.starts_with("log.example/test\n2\n"), "nothing was logged twice");

    let stranger = Identity::new(9);
    let stranger = within(add(stranger.evidence.bytes().to_vec())).await.unwrap();
    assert_eq!(code(stranger).await, (400, "rejected_request".to_owned()));
    let mut forged = provider.statement.bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(code(within(add(forged)).await.unwrap()).await, (400, "rejected_request".to_owned()));
    assert_eq!(code(within(add(vec![0; 65_536])).await.unwrap()).await, (413, "request_too_large".to_owned()));
}

#[tokio::test]
async fn after_a_restart_the_log_goes_on_and_nobody_is_listed() {
    let network = Network::start().await;
    let vkey = network.gateway.log_vkey().to_owned();
    let provider = network.provider(1, 1).await;
    assert_eq!(network.directory().await.providers.len(), 1);
    drop(provider);
    let network = within(network.restart()).await;
    assert_eq!(network.gateway.log_vkey(), vkey);
    assert!(network.directory().await.providers.is_empty());
    assert!(network.get("/log/checkpoint").await.starts_with("log.example/test\n2\n"));
    let _enrolled_again = network.provider(1, 1).await;
    assert_eq!(network.directory().await.providers.len(), 1);
}

#[tokio::test]
async fn what_the_gateway_logs_is_witnessed_where_a_policy_says_so() {
    let network = Network::start().await;
    let key = network.gateway.log_vkey().to_owned();
    let witness = Witness::start("one", &key.parse().unwrap(), Behaviour::Honest).await;
    let policy = format!("log {key}\n{}quorum one\n", witness.policy_line());
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let network = within(network.restart_under(Some(policy.clone()))).await;
    let _provider = network.provider(1, 1).await;
    policy.verify_checkpoint(network.get("/log/checkpoint").await.as_bytes()).unwrap();
    let listed = network.directory().await.providers.remove(0);
    let proof = TlogProof::parse(listed.key_statement_proof.as_bytes()).unwrap();
    policy.verify_checkpoint(proof.checkpoint().as_bytes()).unwrap();
}

#[tokio::test]
async fn shutting_down_ends_links_that_have_nothing_to_do() {
    let network = Network::start().await;
    let mut provider = network.provider(1, 1).await;
    let stopping = network.gateway.shutdown();
    let ends = async { assert!(provider.next().await.is_none()) };
    let ((), ()) = tokio::join!(async { tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap() }, ends);
}
