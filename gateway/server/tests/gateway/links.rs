//! Provider links: who is let in, and what ends one.

use fanlight_protocol::entry::Status;
use fanlight_protocol::link::Message;
use fanlight_protocol::response::FrameType;
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::protocol::Message as WsMessage;

use crate::entries::{Identity, details, fields, request};
use crate::support::{Network, challenge, is_rejected, now, split, within};

#[tokio::test]
async fn a_provider_is_listed_with_proofs_once_it_is_in_the_log() {
    let network = Network::start().await;
    let mut socket = network.socket().await;
    challenge(&mut socket).await;
    assert!(network.directory().await.providers.is_empty(), "a connection alone lists nobody");
    let provider = network.provider(1, 1).await;
    let directory = network.directory().await;
    let [listing] = directory.providers.as_slice() else { panic!("expected one provider") };
    assert_eq!(listing.key_statement, provider.statement.bytes());
    assert_eq!(listing.evidence, provider.identity.evidence.bytes());
    network.verify(&listing.key_statement, &listing.key_statement_proof);
    network.verify(&listing.evidence, &listing.evidence_proof);
    assert!(network.get("/v1/models").await.contains("\"id\":\"tiny/test-1\""));
    assert!(network.get("/v1/providers?model=tiny%2Ftest-1").await.contains("key_statement"));
    assert_eq!(network.get("/v1/providers?model=other").await, "{\"providers\":[]}");
    drop(provider);
    network.metric("fanlight_providers 0").await;
    assert!(network.directory().await.providers.is_empty());
}

#[tokio::test]
async fn hellos_that_prove_nothing_are_rejected() {
    type Hello<'a> = &'a dyn Fn([u8; 32]) -> Vec<u8>;
    let network = Network::start().await;
    let (identity, other) = (Identity::new(1), Identity::new(2));
    let statement = identity.sign(&identity.statement(101, now()));
    let others = other.sign(&other.statement(102, now()));
    let mut first = network.socket().await;
    let replayed = identity.hello(challenge(&mut first).await, &statement, 1, now());
    let early = fanlight_protocol::UnixTime::from_secs(now().as_secs() - 61);
    let expired = identity.sign(&identity.statement(101, fanlight_protocol::UnixTime::from_secs(now().as_secs() - 4_000)));

    let hellos: [(&str, Hello<'_>); 5] = [
        ("replayed from another connection", &|_| replayed.clone()),
        ("wrong challenge", &|_| identity.hello([0; 32], &statement, 1, now())),
        ("statement of another", &|nonce| identity.hello(nonce, &others, 1, now())),
        ("old link entry", &|nonce| identity.hello(nonce, &statement, 1, early)),
        ("expired statement", &|nonce| identity.hello(nonce, &expired, 1, now())),
    ];
    for (name, hello) in hellos {
        let mut socket = network.socket().await;
        let nonce = challenge(&mut socket).await;
        within(socket.send(WsMessage::Binary(hello(nonce).into()))).await.unwrap();
        assert!(is_rejected(&mut socket).await, "{name}");
    }
    network.metric("fanlight_links_closed_total{reason=\"enrol\"} 5").await;
    assert!(network.directory().await.providers.is_empty());
    assert!(network.get("/log/checkpoint").await.starts_with("log.example/test\n0\n"), "nothing of it was logged");
}

#[tokio::test]
async fn bytes_that_are_no_messages_end_a_link() {
    let network = Network::start().await;
    let random: Vec<u8> = (0..200u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let messages = [
        WsMessage::Binary(random.into()),
        WsMessage::Binary(Vec::new().into()),
        WsMessage::Binary(Message::End.to_bytes(7).into()),
        WsMessage::Text("hello".into()),
    ];
    for message in messages {
        let mut socket = network.socket().await;
        challenge(&mut socket).await;
        within(socket.send(message)).await.unwrap();
        assert!(is_rejected(&mut socket).await);
    }
    let mut socket = network.socket().await;
    challenge(&mut socket).await;
    // The gateway may hang up before it has read all of it.
    let _ = within(socket.send(WsMessage::Binary(vec![0; 70_000].into()))).await;
    is_rejected(&mut socket).await;
    network.metric("fanlight_links_closed_total{reason=\"socket\"} 1").await;
}

#[tokio::test]
async fn a_bad_receipt_ends_the_link_and_is_not_logged() {
    let network = Network::start().await;
    for case in ["signature", "request", "response"] {
        let mut provider = network.provider(1, 1).await;
        let sent = request(fields(&[&provider.statement], now()), 10);
        let serve = async {
            let (stream, got) = provider.request().await;
            let mut transcript = provider.prefix(stream).await;
            provider.sealed(stream, &mut transcript, FrameType::Final, 50).await;
            (stream, got, transcript)
        };
        let (response, (stream, got, transcript)) = tokio::join!(network.post(sent), serve);
        let mut details = details(&got, transcript.digest(), Status::Complete);
        match case {
            "request" => details.request_hash.0[0] ^= 1,
            "response" => details.response_hash.0[0] ^= 1,
            _ => {}
        }
        let mut signer = if case == "signature" { Identity::new(2) } else { Identity::new(1) };
        let (_, frame) = signer.receipt(&provider.statement, &details);
        provider.send(stream, Message::Frame(&frame)).await;
        assert!(is_rejected(&mut provider.socket).await, "{case}");
        assert!(within(response.bytes()).await.is_err(), "{case}: the client's answer is cut off");
    }
    network.metric("fanlight_links_closed_total{reason=\"receipt\"} 3").await;
    assert!(!network.get("/metrics").await.contains("fanlight_receipts_logged_total"), "no receipt reached the log");
}

#[tokio::test]
async fn the_newest_connection_of_a_provider_wins_and_the_old_one_finishes() {
    let network = Network::start().await;
    let mut old = network.provider(1, 2).await;
    let sent = request(fields(&[&old.statement], now()), 10);
    let serve = async {
        let (stream, got) = old.request().await;
        (old.prefix(stream).await, stream, got)
    };
    let (response, (mut transcript, stream, got)) = tokio::join!(network.post(sent.clone()), serve);

    let mut new = network.provider(1, 2).await;
    assert_eq!(network.directory().await.providers.len(), 1);
    let sent = request(fields(&[&new.statement], now()), 10);
    let serve = async {
        let (stream, got) = new.request().await;
        new.answer(stream, &got).await;
    };
    let (second, ()) = tokio::join!(network.post(sent), serve);
    assert_eq!(split(&within(second.bytes()).await.unwrap()).1.len(), 4, "new requests go to the new connection");

    old.sealed(stream, &mut transcript, FrameType::Final, 50).await;
    old.finish(stream, &got, transcript.digest(), Status::Complete).await;
    assert_eq!(split(&within(response.bytes()).await.unwrap()).1.len(), 3, "what was open is finished");
    assert!(old.next().await.is_none(), "then it is closed");
    network.metric("fanlight_links_closed_total{reason=\"retired\"} 1").await;
    assert_eq!(network.directory().await.providers.len(), 1, "the new one is still listed");
}

#[tokio::test]
async fn after_a_rotation_the_new_key_is_listed_and_the_old_one_still_routed() {
    let network = Network::start().await;
    let mut provider = network.provider(1, 1).await;
    let rotated = provider.identity.sign(&provider.identity.statement(150, now()));
    provider.send(0, Message::Statement(rotated.bytes())).await;
    let bytes = provider.next().await.unwrap();
    let Ok((0, Message::Listed(proof))) = Message::parse(&bytes) else { panic!("expected LISTED") };
    network.verify(rotated.bytes(), str::from_utf8(proof).unwrap());
    let directory = network.directory().await;
    let [listing] = directory.providers.as_slice() else { panic!("expected one provider") };
    assert_eq!(listing.key_statement, rotated.bytes());

    let sent = request(fields(&[&provider.statement], now()), 10);
    let serve = async {
        let (stream, got) = provider.request().await;
        provider.answer(stream, &got).await;
    };
    let (response, ()) = tokio::join!(network.post(sent), serve);
    assert_eq!(split(&within(response.bytes()).await.unwrap()).1.len(), 4);

    provider.send(0, Message::Capacity(0)).await;
    network.metric("fanlight_capacity 0").await;
    assert!(network.directory().await.providers.is_empty(), "a draining provider is not offered");
}

#[tokio::test]
async fn a_receipt_sent_again_is_logged() {
    let network = Network::start().await;
    let mut provider = network.provider(1, 1).await;
    let sent = request(fields(&[&provider.statement], now()), 10);
    let details = details(&sent, fanlight_protocol::Digest::of(b"x"), Status::Aborted);
    let (receipt, _) = provider.identity.receipt(&provider.statement, &details);
    provider.send(0, Message::Receipt(receipt.bytes())).await;
    network.metric("fanlight_receipts_logged_total{outcome=\"logged\"} 1").await;
    assert!(network.get("/log/checkpoint").await.starts_with("log.example/test\n3\n"));
}
