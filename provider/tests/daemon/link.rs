//! The link: gateways that break the protocol lose it, and receipts survive its loss (SPEC §8).

use fanlight_protocol::entry::{Receipt, Signed};
use fanlight_protocol::link::{Hello, MAX_MESSAGE_LEN, Message};
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_provider::LinkState;
use futures_util::SinkExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::credit::{babble, babbler};
use crate::support::{Gateway, ask, echo, parse, random, reasons, start, within};

async fn waits_because(reasons: &mut UnboundedReceiver<String>, wanted: &str) {
    let reason = within(reasons.recv()).await.expect("the provider runs");
    assert!(reason.contains(wanted), "{wanted}: {reason}");
}

#[tokio::test]
async fn a_gateway_that_breaks_the_protocol_loses_the_link_and_gets_a_new_one() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut reasons = reasons(&provider);
    let nobody = Hello { link_auth: b"", evidence: b"", key_statement: b"", capacity: 1 };
    let at = |stream, message: Message<'_>| WsMessage::Binary(message.to_bytes(stream).into());
    for (what, messages, reason) in [
        ("no message", vec![WsMessage::Binary(vec![1, 2, 3].into())], "malformed message"),
        ("an unknown kind", vec![WsMessage::Binary(vec![0, 0, 0, 1, 0xee].into())], "malformed message"),
        ("control on a stream", vec![at(7, Message::Challenge([0; 32]))], "malformed message"),
        ("text", vec![WsMessage::Text("hello".into())], "not binary"),
        ("a provider's message", vec![at(1, Message::Frame(b"x"))], "only providers send"),
        ("a provider's greeting", vec![at(0, Message::Hello(nobody))], "only providers send"),
        ("a second challenge", vec![at(0, Message::Challenge([0; 32]))], "only providers send"),
        ("too much credit", vec![at(1, Message::Request(b"x")), at(1, Message::Credit(u32::MAX))], "too much CREDIT"),
        ("a message above the limit", vec![WsMessage::Binary(vec![0; MAX_MESSAGE_LEN + 1].into())], "above the limit"),
    ] {
        let mut link = gateway.enrol().await;
        for message in messages {
            link.socket.0.send(message).await.unwrap();
        }
        assert!(link.socket.next().await.is_none(), "{what}");
        waits_because(&mut reasons, reason).await;
    }
    assert_eq!(gateway.enrol().await.chat(&ask("again")).await.text(), "again");
}

#[tokio::test]
async fn enrolment_takes_only_the_messages_it_expects() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut reasons = reasons(&provider);

    let mut socket = gateway.accept().await;
    socket.send(0, &Message::Listed(b"proof")).await;
    assert!(socket.next().await.is_none());
    waits_because(&mut reasons, "no CHALLENGE first").await;

    let mut socket = gateway.accept().await;
    socket.send(0, &Message::Challenge(random())).await;
    let hello = socket.next().await.unwrap();
    assert!(matches!(parse(&hello).1, Message::Hello(_)));
    socket.send(0, &Message::Challenge(random())).await;
    assert!(socket.next().await.is_none());
    waits_because(&mut reasons, "no WELCOME after HELLO").await;

    drop(gateway.accept().await);
    waits_because(&mut reasons, "the connection was closed").await;
}

#[tokio::test]
async fn a_rejected_provider_says_why_and_tries_again() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut reasons = reasons(&provider);
    let mut socket = gateway.accept().await;
    socket.send(0, &Message::Challenge(random())).await;
    socket.next().await.unwrap();
    let problem = Problem::with_message(ProblemCode::LimitExceeded, "This build is not on the list.".to_owned());
    socket.send(0, &Message::Rejected(&serde_json::to_vec(&problem).unwrap())).await;
    waits_because(&mut reasons, "answered 400: This build is not on the list.").await;

    gateway.enrol().await.chat(&ask("welcome")).await;
    assert_eq!(*provider.link_state().borrow(), LinkState::Listed);
}

#[tokio::test]
async fn receipts_are_sent_again_on_every_new_link_oldest_first() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let mut receipts = Vec::new();
    for text in ["one", "two", "three"] {
        receipts.push(link.chat(&ask(text)).await.receipt);
    }
    for _ in 0..2 {
        drop(link);
        link = gateway.enrol().await;
        for receipt in &receipts {
            let bytes = link.recv(0).await;
            assert_eq!(parse(&bytes), (0, Message::Receipt(receipt.bytes())));
        }
    }
}

#[tokio::test]
async fn an_exchange_whose_link_breaks_has_its_aborted_receipt_sent_on_the_next() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    // An answer above its credit cannot end by itself.
    let (engine, tokens) = babbler();
    let provider = start(dir.path(), &gateway, engine);
    let mut link = gateway.enrol().await;
    let sealed = babble(&link, true, tokens);
    let stream = link.request(&sealed.bytes).await;
    // The prefix has come, so the request was opened.
    link.recv(stream).await;
    drop(link);
    let mut link = gateway.enrol().await;
    let bytes = link.recv(0).await;
    let Message::Receipt(receipt) = parse(&bytes).1 else { panic!("no RECEIPT") };
    let receipt = Signed::<Receipt>::verify(receipt, link.statement.signer()).unwrap();
    assert_eq!((receipt.counter, provider.status().totals.aborted), (0, 1));
    let next = babble(&link, true, 3);
    let stream = link.request(&next.bytes).await;
    assert_eq!(link.answer(stream, next.opener).await.receipt.previous, receipt.digest());
}

#[tokio::test]
async fn a_killed_provider_says_nothing_more_and_leaves_its_journal_to_the_next() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let receipt = link.chat(&ask("before")).await.receipt;
    provider.kill();
    assert!(link.socket.next().await.is_none());
    // The journal is free once the last part of the old provider is gone.
    provider.shutdown().await;

    let next = tempfile::tempdir().unwrap();
    for file in ["identity.key", "receipts.journal"] {
        std::fs::copy(dir.path().join(file), next.path().join(file)).unwrap();
    }
    let _provider = start(next.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    assert_eq!(link.chat(&ask("after")).await.receipt.previous, receipt.digest());
}
