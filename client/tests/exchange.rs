//! Honest exchanges: content, receipts, proofs, events, and what dropping does.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fanlight_auditlog::Policy;
use fanlight_client::{ChatRequest, Client, Event};
use fanlight_protocol::RequestId;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::request::RequestHeader;
use fanlight_verifier::{BundleError, ProviderPolicy, verify_receipt};
use futures_util::TryStreamExt;
use tokio::sync::broadcast::error::TryRecvError;

use support::{Fault, Network, chat, lock};

#[tokio::test]
async fn streamed_and_whole_answers_are_verified_and_stored() {
    let network = Network::start(3).await;
    let client = network.client();
    for stream in [true, false] {
        let exchange = client.send(&chat(stream)).await.unwrap();
        let (id, provider) = (exchange.receipt_id(), exchange.provider().verified().provider_id());
        assert_eq!(exchange.status(), 200);
        let answer = exchange.into_answer(1 << 20).await.unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(body.contains("data: [DONE]"), stream, "{body}");
        assert!(body.contains("is sealed."));
        assert_eq!(answer.receipt.provider_id(), provider);
        assert_eq!(answer.receipt.details().request_id, id);
        client.settled().await;
        let bundle = client.receipts().load(id).unwrap().unwrap();
        assert!(bundle.logged);
        let policy = std::fs::read(network.state_dir().join("policy")).unwrap();
        let verified = verify_receipt(&bundle, &ProviderPolicy::new(Policy::parse(&policy).unwrap())).unwrap();
        assert_eq!(verified.provider().provider_id(), provider);
    }
    assert_eq!(network.state.adds.load(Ordering::Relaxed), 0, "the INCLUSION frame was enough");
}

#[tokio::test]
async fn without_an_inclusion_frame_the_client_logs_the_receipt_itself() {
    let network = Network::start(1).await;
    let client = network.client();
    for (n, fault) in [(1, Fault::NoInclusion), (2, Fault::BadInclusion)] {
        network.inject([fault.clone()]);
        let exchange = client.send(&chat(true)).await.unwrap();
        let id = exchange.receipt_id();
        exchange.into_answer(1 << 20).await.unwrap();
        client.settled().await;
        assert_eq!(network.state.adds.load(Ordering::Relaxed), n, "{fault:?}");
        assert!(client.receipts().load(id).unwrap().unwrap().logged, "{fault:?}");
    }
}

#[tokio::test]
async fn a_receipt_that_stayed_unlogged_is_settled_later() {
    let network = Network::start(1).await;
    let client = network.client();
    let exchange = client.send(&chat(false)).await.unwrap();
    let id = exchange.receipt_id();
    exchange.into_answer(1 << 20).await.unwrap();
    client.settled().await;
    // As a crash right after the answer would have left it.
    let mut bundle = client.receipts().load(id).unwrap().unwrap();
    (bundle.logged, bundle.tlog_proof) = (false, None);
    client.receipts().save(&bundle).unwrap();
    let policy = ProviderPolicy::new(Policy::parse(network.policy.as_bytes()).unwrap());
    assert_eq!(verify_receipt(&bundle, &policy).unwrap_err(), BundleError::NotYetLogged);

    let later = network.client();
    assert_eq!(later.settle_stored().await.unwrap(), 0);
    verify_receipt(&later.receipts().load(id).unwrap().unwrap(), &policy).unwrap();
}

#[tokio::test]
async fn only_so_many_stored_receipts_are_tried_again_newest_first() {
    let network = Network::start(1).await;
    let client = network.client();
    let exchange = client.send(&chat(false)).await.unwrap();
    let id = exchange.receipt_id();
    exchange.into_answer(1 << 20).await.unwrap();
    client.settled().await;
    let mut bundle = client.receipts().load(id).unwrap().unwrap();
    (bundle.logged, bundle.tlog_proof) = (false, None);
    // Older ones that never settle: the receipt is another's. Files of one instant are ordered by id.
    for n in 0..Client::MAX_SETTLED_AT_ONCE {
        let mut receipt_id = RequestId([0; 16]);
        receipt_id.0[15] = u8::try_from(n).unwrap();
        client.receipts().save(&ReceiptBundle { receipt_id, ..bundle.clone() }).unwrap();
    }
    client.receipts().save(&bundle).unwrap();
    assert_eq!(client.settle_stored().await.unwrap(), Client::MAX_SETTLED_AT_ONCE - 1);
    assert!(client.receipts().load(id).unwrap().unwrap().logged);
}

#[tokio::test]
async fn events_tell_what_happened_in_order() {
    let network = Network::start(2).await;
    let client = network.client();
    let mut events = client.events();
    let exchange = client.send(&chat(true)).await.unwrap();
    let id = exchange.receipt_id();
    exchange.into_answer(1 << 20).await.unwrap();
    client.settled().await;

    let Ok(Event::Directory(snapshot)) = events.try_recv() else { panic!("no directory") };
    assert_eq!((snapshot.providers.len(), snapshot.refused.len()), (2, 0));
    let Ok(Event::Sealed { receipt_id, recipients, request_len, attempt: 1 }) = events.try_recv() else { panic!("not sealed") };
    assert_eq!((receipt_id, recipients.len()), (id, 2));
    assert_eq!(request_len, lock(&network.state.requests)[0].len());
    let Ok(Event::Answering { provider, status: 200, .. }) = events.try_recv() else { panic!("no answer") };
    assert!(recipients.contains(&provider.verified().provider_id()));
    let Ok(Event::Receipt { provider_id, counter: 0, .. }) = events.try_recv() else { panic!("no receipt") };
    assert_eq!(provider_id, provider.verified().provider_id());
    let Ok(Event::Logged { leaf_index: 4, tree_size, origin, .. }) = events.try_recv() else { panic!("not logged") };
    assert_eq!((tree_size, origin.as_str()), (5, "test.example/log"), "two providers have two entries each before it");
    assert!(matches!(events.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn a_sealed_error_is_the_providers_own_word_and_has_a_receipt() {
    let network = Network::start(1).await;
    let client = network.client();
    let request = ChatRequest::parse(r#"{"model":"tiny","stream":true,"messages":[{"role":"user","content":"please fail"}]}"#);
    let answer = client.send(&request.unwrap()).await.unwrap().into_answer(1 << 20).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8(answer.body).unwrap().contains("refused"));
    assert_eq!(answer.receipt.details().finish_reason, "error");
}

#[tokio::test]
async fn dropping_an_exchange_aborts_the_request() {
    let network = Network::start(1).await;
    let client = network.client();
    network.inject([Fault::StallAfter(3)]);
    let mut exchange = client.send(&chat(true)).await.unwrap();
    assert!(exchange.next().await.unwrap().is_some());
    drop(exchange);
    tokio::time::timeout(Duration::from_secs(5), network.state.aborted.notified()).await.expect("the gateway sees the end");
}

#[tokio::test]
async fn a_stream_can_be_taken_as_a_stream() {
    let network = Network::start(1).await;
    let exchange = network.client().send(&chat(true)).await.unwrap();
    let pieces: Vec<_> = exchange.into_stream().try_collect().await.unwrap();
    assert_eq!(pieces.len(), 4, "as many as the provider sealed");
}

#[tokio::test]
async fn answers_longer_than_allowed_are_refused() {
    let network = Network::start(1).await;
    let error = network.client().send(&chat(false)).await.unwrap().into_answer(20).await.unwrap_err();
    assert!(matches!(error, fanlight_client::ExchangeError::TooLong));
}

#[tokio::test]
async fn the_clear_header_says_no_more_than_it_must() {
    let network = Network::start(1).await;
    let client = network.client();
    client.send(&chat(true)).await.unwrap().into_answer(1 << 20).await.unwrap();
    let body = r#"{"model":"tiny","messages":[],"max_completion_tokens":77,"x_unknown":{"kept":true}}"#;
    client.send(&ChatRequest::parse(body).unwrap()).await.unwrap().into_answer(1 << 20).await.unwrap();

    let requests = lock(&network.state.requests).clone();
    let header = |n: usize| RequestHeader::parse(&requests[n]).unwrap().0.fields().clone();
    assert_eq!((header(0).model.as_str(), header(0).stream, header(0).max_output_tokens), ("tiny", true, 2_048));
    assert_eq!((header(1).stream, header(1).max_output_tokens), (false, 77));
    assert_eq!((header(1).input_tokens_min, header(1).input_tokens_max), (0, 2_048));
    assert_eq!(header(0).created, network.state.clock.now());
    for request in &requests {
        assert!(!request.windows(6).any(|window| window == b"secret"), "plaintext on the wire");
    }
    let provider = &lock(&network.state.providers)[0];
    assert_eq!(provider.open(&requests[1]).unwrap().message(), body.as_bytes(), "unknown fields are kept");
}
