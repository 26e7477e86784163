//! Machines that die, clients that leave, gateways that restart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fanlight_devnet::Network;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_provider::LinkState;
use fanlight_provider::engine::{Engine, Limits, scripted};
use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use crate::chat::{PATIENCE, ask, body, network, post, read_stream};
use crate::evidence::{log_of, receipts_of};

const MODEL: &str = scripted::MODEL_NAME;

fn echo() -> Arc<dyn Engine> {
    Arc::new(scripted::start(Limits::default(), str::to_owned).unwrap())
}

/// Waits until `condition` holds; it is asked again every few milliseconds, and a hang fails the test.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let asking = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !condition().await {
            again.tick().await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dies_before_its_first_byte_is_replaced_unnoticed() {
    let (arrived, mut arrivals) = unbounded_channel();
    let (release, released) = mpsc::channel::<()>();
    let (held, released) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(released)));
    let engine = |n: usize| -> Arc<dyn Engine> {
        let (arrived, held, released) = (arrived.clone(), Arc::clone(&held), Arc::clone(&released));
        let reply = move |question: &str| {
            arrived.send(n).unwrap();
            if !held.swap(true, Ordering::SeqCst) {
                // The first machine to get the request hangs until the test is over.
                let _ = released.lock().unwrap().recv();
            }
            question.to_owned()
        };
        Arc::new(scripted::start(Limits::default(), reply).unwrap())
    };
    let (mut network, _dir) = network(vec![engine(0), engine(1)]).await;

    let (answer, victim) = {
        let asking = ask(&network, MODEL, "still there?");
        let mut asking = std::pin::pin!(asking);
        let victim = tokio::select! {
            _ = &mut asking => panic!("answered before anybody was killed"),
            victim = arrivals.recv() => victim.unwrap(),
        };
        // The provider's connection goes as it does with a killed process: without a word.
        network.providers[victim].kill();
        (asking.await, victim)
    };
    assert_eq!(answer, "still there?");
    assert_eq!(arrivals.recv().await, Some(1 - victim), "the other provider answered");

    drop(release);
    drop(network.providers.remove(victim));
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dies_mid_stream_is_an_error_and_never_a_short_answer() {
    let (engine, gate) = scripted::start_gated(Limits::default(), |_| "one two three four five six".to_owned()).unwrap();
    let (network, _dir) = network(vec![Arc::new(engine)]).await;
    gate.step(2);
    let response = post(&network, &body(MODEL, "count", true)).await;
    assert!(response.status().is_success());
    let streamed = read_stream(response, async || network.providers[0].kill()).await;
    assert!(!streamed.text.is_empty(), "some text came before the end");
    assert!(!streamed.done, "a cut answer must not look whole: {streamed:?}");
    assert_eq!(streamed.error.as_deref(), Some("stream_truncated"));
    drop(gate);
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_engine_is_a_sealed_error_with_a_receipt() {
    let (engine, gate) = scripted::start_gated(Limits::default(), |_| "one two three".to_owned()).unwrap();
    let (network, _dir) = network(vec![Arc::new(engine)]).await;
    gate.fail();
    let response = post(&network, &body(MODEL, "x", false)).await;
    assert_eq!(response.status(), 500);
    let id = response.headers()["x-fanlight-receipt"].to_str().unwrap().to_owned();
    let json: Value = response.json().await.unwrap();
    assert_eq!(json["error"]["code"], "engine_failed");
    let url = format!("{}/receipts/{id}", network.base_url());
    let bundle: ReceiptBundle = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert!(!bundle.receipt.is_empty(), "failed exchanges have receipts too");
    drop(gate);
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_slot_gets_a_receipt_and_harms_nobody() {
    let (engine, gate) = scripted::start_gated(Limits::default(), |_| "one two three four five six".to_owned()).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let (network, _dir) = network(vec![Arc::clone(&engine)]).await;
    gate.step(2);
    let mut leaving = post(&network, &body(MODEL, "x", true)).await;
    assert!(leaving.chunk().await.unwrap().is_some());
    drop(leaving);
    // The engine waits inside a step, so steps are granted until it has noticed.
    eventually("the slot is free", async || {
        gate.step(1);
        engine.stats().running == 0
    })
    .await;
    drop(gate);
    eventually("the aborted exchange is counted", async || network.providers[0].status().totals.aborted == 1).await;
    assert_eq!(ask(&network, MODEL, "y").await, "one two three four five six");
    let provider = network.providers[0].provider_id();
    eventually("both receipts are logged", async || receipts_of(&network, provider).await.receipts.len() == 2).await;
    assert!(receipts_of(&network, provider).await.is_good(), "the chain has no gap");
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_the_answer_says_so() {
    let (mut network, _dir) = network(vec![echo()]).await;
    assert_eq!(ask(&network, MODEL, "here").await, "here");
    network.providers.pop().unwrap().shutdown().await;
    let response = post(&network, &body(MODEL, "gone?", false)).await;
    assert_eq!(response.status(), 503);
    let json: Value = response.json().await.unwrap();
    assert_eq!(json["error"]["code"], "no_provider");
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_restarts_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = |port| fanlight_devnet::Config {
        data: dir.path().to_owned(),
        port_base: port,
        engines: vec![echo()],
        max_delay: Duration::from_millis(20),
    };
    let first = Network::start(config(None)).await.unwrap();
    assert_eq!(ask(&first, MODEL, "one").await, "one");
    let provider = first.providers[0].provider_id();
    let before = log_of(&first).await;
    first.shutdown().await;

    let second = Network::start(config(None)).await.unwrap();
    assert_eq!(second.providers[0].provider_id(), provider, "the identity is kept");
    assert_eq!(ask(&second, MODEL, "two").await, "two");
    let after = log_of(&second).await;
    assert!(after.entries.starts_with(&before.entries), "the log only grows");
    eventually("both receipts are logged", async || receipts_of(&second, provider).await.receipts.len() == 2).await;
    let report = receipts_of(&second, provider).await;
    assert!(report.is_good(), "{:?}", report.findings);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let start = async |listener| {
        let config = fanlight_gateway_server::Config {
            data: dir.path().join("gateway"),
            origin: fanlight_devnet::ORIGIN.to_owned(),
            max_delay: Duration::from_millis(20),
            witnesses: None,
        };
        fanlight_gateway_server::start(config, listener).await.unwrap()
    };
    let gateway = start(listener).await;
    let provider = fanlight_devnet::start_provider(&gateway.url(), &dir.path().join("provider"), echo()).unwrap();
    fanlight_devnet::wait_until_listed(&provider).await.unwrap();
    let mut state = provider.link_state();
    gateway.shutdown().await;
    // What `wait_for` returns holds a lock on the state, so it must not live on.
    let noticed = timeout(PATIENCE, state.wait_for(|state| matches!(state, LinkState::Waiting { .. }))).await.is_ok();
    assert!(noticed, "the provider noticed");

    let gateway = start(tokio::net::TcpListener::bind(address).await.unwrap()).await;
    timeout(PATIENCE, fanlight_devnet::wait_until_listed(&provider)).await.expect("it comes back").unwrap();
    provider.shutdown().await;
    gateway.shutdown().await;
}
