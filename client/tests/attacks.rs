//! What a gateway or a provider may try (SPEC §11): each try ends in its typed error, and the next request is well.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fanlight_client::{Answer, Client, ExchangeError, Hint, SendError, TransportError};
use fanlight_protocol::problem::ProblemCode;
use fanlight_protocol::request::RequestHeader;
use fanlight_sealing::OpenResponseError;
use fanlight_verifier::ReceiptError;

use support::{Fault, Network, chat, lock};

async fn ask(client: &Client, stream: bool) -> Result<Answer, SendError> {
    Ok(client.send(&chat(stream)).await?.into_answer(1 << 20).await?)
}

/// Meets the fault, then asks again without one.
async fn meet(client: &Client, network: &Network, fault: Fault) -> SendError {
    network.inject([fault.clone()]);
    let error = ask(client, true).await.expect_err(&format!("{fault:?} must not give an answer"));
    assert!(!format!("{error:?} {error}").contains("secret"), "{fault:?} shows user data");
    let answer = ask(client, true).await.unwrap_or_else(|error| panic!("after {fault:?}: {error:?}"));
    assert_eq!(answer.status, 200);
    error
}

#[tokio::test]
async fn response_truncated_anywhere() {
    let network = Network::start(1).await;
    let client = network.client();
    // Prefix, three DATA, FINAL, RECEIPT: whatever is missing of them, it is no answer.
    for n in 0..=5 {
        let error = meet(&client, &network, Fault::CutAfter(n)).await;
        assert!(matches!(error, SendError::Exchange(ExchangeError::Truncated(None))), "after {n}: {error:?}");
        let error = meet(&client, &network, Fault::CutInside(n + 1)).await;
        assert!(matches!(error, SendError::Exchange(ExchangeError::Truncated(None))), "inside {n}: {error:?}");
    }
}

#[tokio::test]
async fn a_truncated_stream_shows_what_came_and_then_fails_for_good() {
    let network = Network::start(1).await;
    let client = network.client();
    network.inject([Fault::CutAfter(3)]);
    let mut exchange = client.send(&chat(true)).await.unwrap();
    let mut shown = Vec::new();
    let error = loop {
        match exchange.next().await {
            Ok(Some(bytes)) => shown.extend_from_slice(&bytes),
            Ok(None) => panic!("a short answer passed for a whole one"),
            Err(error) => break error,
        }
    };
    assert!(String::from_utf8(shown).unwrap().contains("answer"));
    assert!(matches!(error, ExchangeError::Truncated(None)));
    assert!(exchange.next().await.is_err() && exchange.receipt().is_none());
    assert_eq!(client.receipts().ids().unwrap(), []);
}

#[tokio::test]
async fn response_forged_spliced_or_out_of_order() {
    let network = Network::start(2).await;
    let client = network.client();
    for (fault, wanted) in [
        (Fault::Swapped, OpenResponseError::Rejected),
        (Fault::FlippedBit, OpenResponseError::Rejected),
        (Fault::Spliced, OpenResponseError::Rejected),
        (Fault::FinalMovedForward, OpenResponseError::Rejected),
        (Fault::DataAfterFinal, OpenResponseError::Rejected),
        (Fault::OtherKeyId, OpenResponseError::UnknownRecipient),
    ] {
        ask(&client, true).await.unwrap();
        match meet(&client, &network, fault.clone()).await {
            SendError::Exchange(ExchangeError::NotOpened(error)) => assert_eq!(error, wanted, "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_response() {
    let network = Network::start(1).await;
    let client = network.client();
    for fault in [Fault::Garbage, Fault::Oversized, Fault::UnknownType] {
        let error = meet(&client, &network, fault.clone()).await;
        assert!(matches!(error, SendError::Exchange(ExchangeError::Malformed(_))), "{fault:?}: {error:?}");
    }
    // A 200 of another media type is no answer either, and a redirect is not followed.
    let error = meet(&client, &network, Fault::PlainJson).await;
    assert!(matches!(error, SendError::Hint(Hint { status: 200, code: None, .. })), "{error:?}");
    let elsewhere = Network::start(1).await;
    let to = format!("{}/v1/chat/completions", elsewhere.url);
    let error = meet(&client, &network, Fault::Redirect(to)).await;
    assert!(matches!(error, SendError::Hint(Hint { status: 302, code: None, .. })), "{error:?}");
    assert_eq!(lock(&elsewhere.state.requests).len(), 0);
}

#[tokio::test]
async fn answer_attributed_to_another() {
    let network = Network::start(2).await;
    let client = network.client();
    match meet(&client, &network, Fault::OtherReceipt).await {
        SendError::Exchange(ExchangeError::Receipt(ReceiptError::Receipt(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_its_provider_gave_up_is_no_answer_but_leaves_a_receipt() {
    let network = Network::start(1).await;
    let client = network.client();
    let error = meet(&client, &network, Fault::GivenUp).await;
    assert!(matches!(error, SendError::Exchange(ExchangeError::GivenUp)), "{error:?}");
    assert_eq!(client.receipts().ids().unwrap().len(), 2, "one of the failure, one of the request after it");
}

#[tokio::test]
async fn silence_ends_in_time() {
    let network = Network::start(1).await;
    let client = network.client();
    for n in [0, 1, 3, 5] {
        let error = meet(&client, &network, Fault::StallAfter(n)).await;
        let silent = matches!(error, SendError::Exchange(ExchangeError::Truncated(Some(TransportError::Silent(_)))));
        assert!(silent, "after {n}: {error:?}");
    }
}

#[tokio::test]
async fn outer_unknown_key_forged() {
    let network = Network::start(4).await;
    let client = network.client();
    ask(&client, true).await.unwrap();
    let fetches = || network.state.directory_fetches.load(Ordering::Relaxed);
    let (requests_before, fetches_before) = (lock(&network.state.requests).len(), fetches());

    // Once: keys are fetched anew, and the request is sealed anew under its id.
    network.inject([Fault::Problem(ProblemCode::UnknownKey)]);
    ask(&client, true).await.unwrap();
    assert_eq!(fetches(), fetches_before + 1);
    let headers: Vec<_> =
        lock(&network.state.requests)[requests_before..].iter().map(|r| RequestHeader::parse(r).unwrap().0).collect();
    let [first, second] = headers.as_slice() else { panic!("{} requests", headers.len()) };
    assert_eq!(first.fields().request_id, second.fields().request_id);
    let encs = |header: &RequestHeader| header.recipients().map(|(_, wrap)| wrap.enc).collect::<Vec<_>>();
    assert!(encs(first).iter().all(|enc| !encs(second).contains(enc)), "an encapsulation was used twice");

    // Always: there is no third attempt.
    let forged = Fault::Problem(ProblemCode::UnknownKey);
    network.inject([forged.clone(), forged.clone()]);
    let error = ask(&client, true).await.unwrap_err();
    assert!(matches!(error, SendError::Hint(Hint { code: Some(ProblemCode::UnknownKey), status: 422, .. })), "{error:?}");
    assert_eq!(lock(&network.state.requests).len(), requests_before + 4);
    ask(&client, true).await.unwrap();
}

/// Every provider restarted since the directory was fetched: their old keys are gone, and new ones are listed.
#[tokio::test]
async fn recipients_that_all_left_are_replaced_once() {
    let network = Network::start(1).await;
    let client = network.client();
    ask(&client, true).await.unwrap();
    let before = network.state.directory_fetches.load(Ordering::Relaxed);
    network.inject([Fault::Problem(ProblemCode::NoProvider)]);
    ask(&client, true).await.unwrap();
    assert_eq!(network.state.directory_fetches.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn other_outer_errors_are_hints_and_are_not_retried() {
    let network = Network::start(1).await;
    let client = network.client();
    for code in [ProblemCode::ProviderFailed, ProblemCode::Overloaded, ProblemCode::ReplayedRequest, ProblemCode::RejectedRequest]
    {
        let before = lock(&network.state.requests).len();
        match meet(&client, &network, Fault::Problem(code)).await {
            SendError::Hint(hint) => {
                let retry_after = Some(Duration::from_secs(7));
                assert_eq!(hint, Hint { status: code.status(), code: Some(code), retry_after });
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(lock(&network.state.requests).len(), before + 2, "the failed one, and the one after it");
    }
}

#[tokio::test]
async fn a_dead_gateway_is_a_transport_error() {
    let network = Network::start(1).await;
    let mut config = network.config();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.gateway = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(config).unwrap();
    let error = ask(&client, true).await.unwrap_err();
    let SendError::Directory(fanlight_client::DirectoryError::Transport(TransportError::Connect(source))) = error else {
        panic!("{error:?}")
    };
    assert!(source.url().is_none(), "a URL may carry credentials");
}
