//! Sealed requests on their way: untouched, failed over, cut off, held back.

use fanlight_protocol::Digest;
use fanlight_protocol::entry::Status;
use fanlight_protocol::link::{INITIAL_CREDIT, Message};
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::response::FrameType;

use crate::entries::{fields, request};
use crate::support::{Network, now, split, within};

#[tokio::test]
async fn sealed_bytes_pass_untouched_and_the_answer_ends_with_the_proof_of_its_receipt() {
    let network = Network::start().await;
    let mut provider = network.provider(1, 1).await;
    let sent = request(fields(&[&provider.statement], now()), 200_000);
    let post = network.post(sent.clone());
    let serve = async {
        let (stream, got) = provider.request().await;
        assert_eq!(stream, 1);
        assert_eq!(got, sent, "byte for byte");
        provider.answer(stream, &got).await
    };
    let (response, receipt) = tokio::join!(post, serve);
    assert_eq!(response.headers()["content-type"], "application/vnd.fanlight.response");
    let bytes = within(response.bytes()).await.unwrap();
    let (prefix, frames) = split(&bytes);
    assert_eq!(prefix, crate::entries::prefix(&provider.statement));
    let types: Vec<_> = frames.iter().map(|(frame_type, _)| *frame_type).collect();
    assert_eq!(types, [FrameType::Data, FrameType::Final, FrameType::Receipt, FrameType::Inclusion]);
    assert_eq!(frames[0].1, [0xa5; 300]);
    network.verify(&receipt, str::from_utf8(&frames[3].1).unwrap());
    network.metric("fanlight_tokens_total{kind=\"output\"} 11").await;
    network.metric("fanlight_streams_ended_total{how=\"complete\"} 1").await;
    network.metric("fanlight_held_request_bytes 0").await;
}

#[tokio::test]
async fn another_recipient_is_asked_when_the_first_is_lost_before_its_first_byte() {
    let network = Network::start().await;
    let (mut lost, mut good) = (network.provider(1, 1).await, network.provider(2, 1).await);
    let sent = request(fields(&[&lost.statement, &good.statement], now()), 100_000);
    let serve = async {
        lost.request().await;
        drop(lost);
        let (stream, got) = good.request().await;
        assert_eq!(got, sent, "the whole request again");
        good.answer(stream, &got).await;
    };
    let (response, ()) = tokio::join!(network.post(sent.clone()), serve);
    assert_eq!(response.status(), 200);
    assert_eq!(split(&within(response.bytes()).await.unwrap()).1.len(), 4);
    network.metric("fanlight_failovers_total 1").await;
}

#[tokio::test]
async fn a_receipt_before_the_first_byte_is_logged_and_another_recipient_answers() {
    let network = Network::start().await;
    let (mut aborts, mut good) = (network.provider(1, 1).await, network.provider(2, 1).await);
    let sent = request(fields(&[&aborts.statement, &good.statement], now()), 10);
    let serve = async {
        let (stream, got) = aborts.request().await;
        aborts.finish(stream, &got, Digest::ZERO, Status::Aborted).await;
        let (stream, got) = good.request().await;
        good.answer(stream, &got).await;
    };
    let (response, ()) = tokio::join!(network.post(sent), serve);
    assert_eq!(response.status(), 200);
    let (prefix, frames) = split(&within(response.bytes()).await.unwrap());
    assert_eq!((prefix, frames.len()), (crate::entries::prefix(&good.statement), 4), "nothing of the first");
    network.metric("fanlight_receipts_logged_total{outcome=\"logged\"} 2").await;
}

#[tokio::test]
async fn a_provider_lost_in_mid_answer_cuts_off_its_own_clients_only() {
    let network = Network::start().await;
    let (mut killed, mut good) = (network.provider(1, 1).await, network.provider(2, 1).await);
    let cut = request(fields(&[&killed.statement], now()), 10);
    let whole = request(fields(&[&good.statement], now()), 10);
    let serve = async {
        let (stream, _) = killed.request().await;
        let mut transcript = killed.prefix(stream).await;
        killed.sealed(stream, &mut transcript, FrameType::Data, 50).await;
    };
    let (mut truncated, ()) = tokio::join!(network.post(cut), serve);
    assert!(within(truncated.chunk()).await.unwrap().is_some(), "the first bytes came");
    let serve = async {
        let (stream, got) = good.request().await;
        let mut transcript = good.prefix(stream).await;
        drop(killed);
        network.metric("fanlight_links_closed_total{reason=\"socket\"} 1").await;
        good.sealed(stream, &mut transcript, FrameType::Final, 50).await;
        good.finish(stream, &got, transcript.digest(), Status::Complete).await;
    };
    let (response, ()) = tokio::join!(network.post(whole), serve);
    assert_eq!(split(&within(response.bytes()).await.unwrap()).1.len(), 3);
    assert!(within(truncated.bytes()).await.is_err(), "the body ends abnormally");
}

#[tokio::test]
async fn unknown_key_passes_byte_for_byte_and_is_not_tried_elsewhere() {
    let network = Network::start().await;
    let (mut refuses, other) = (network.provider(1, 1).await, network.provider(2, 1).await);
    let sent = request(fields(&[&refuses.statement, &other.statement], now()), 10);
    // Spaces that no serializer of ours writes.
    let problem: &[u8] = br#"{ "type":"urn:fanlight:error:unknown_key", "status": 422, "error": {"code": "unknown_key"} }"#;
    let serve = async {
        let (stream, _) = refuses.request().await;
        refuses.send(stream, Message::Refused { status: 422, problem }).await;
    };
    let (response, ()) = tokio::join!(network.post(sent), serve);
    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(within(response.bytes()).await.unwrap(), problem);
}

#[tokio::test]
async fn busy_recipients_are_passed_over_and_all_busy_is_429() {
    let network = Network::start().await;
    let (mut refuses, mut busy) = (network.provider(1, 1).await, network.provider(2, 1).await);
    let occupying = request(fields(&[&busy.statement], now()), 10);
    let serve = async {
        let (stream, got) = busy.request().await;
        (busy.prefix(stream).await, stream, got)
    };
    let (occupied, (mut transcript, stream, got)) = tokio::join!(network.post(occupying), serve);

    let sent = request(fields(&[&busy.statement, &refuses.statement], now()), 10);
    let overloaded = serde_json::to_vec(&Problem::new(ProblemCode::Overloaded)).unwrap();
    let serve = async {
        let (stream, _) = refuses.request().await;
        refuses.send(stream, Message::Refused { status: 429, problem: &overloaded }).await;
    };
    let (response, ()) = tokio::join!(network.post(sent), serve);
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));

    busy.sealed(stream, &mut transcript, FrameType::Final, 50).await;
    busy.finish(stream, &got, transcript.digest(), Status::Complete).await;
    assert!(within(occupied.bytes()).await.is_ok(), "the stream that was there is unharmed");
}

#[tokio::test]
async fn a_slow_client_holds_up_its_own_stream_only() {
    /// More than the sockets' buffers hold: the provider must wait for the slow client.
    const FRAMES: usize = 1_024;
    const FRAME_LEN: usize = 16_384;
    let network = Network::start().await;
    let mut provider = network.provider(1, 2).await;
    let sent = request(fields(&[&provider.statement], now()), 10);
    let clients = async {
        let slow = network.post(sent.clone()).await;
        let quick = network.post(sent.clone()).await;
        assert_eq!(split(&within(quick.bytes()).await.unwrap()).1.len(), 4);
        within(slow.bytes()).await.unwrap()
    };
    let serve = async {
        let (slow, got) = provider.request().await;
        let mut transcript = provider.prefix(slow).await;
        let (mut left, mut credit, mut quick_is_served) = (FRAMES, INITIAL_CREDIT as usize, false);
        while left > 0 || !quick_is_served || credit < FRAME_LEN {
            while left > 0 && credit >= FRAME_LEN {
                provider.sealed(slow, &mut transcript, FrameType::Data, FRAME_LEN - 5).await;
                (left, credit) = (left - 1, credit - FRAME_LEN);
            }
            let bytes = provider.next().await.unwrap();
            match Message::parse(&bytes) {
                Ok((stream, Message::Credit(n))) if stream == slow => credit += n as usize,
                Ok((stream, Message::RequestEnd(request))) => {
                    provider.answer(stream, request).await;
                    quick_is_served = true;
                }
                other => panic!("expected credit or the quick request, not {other:?}"),
            }
        }
        provider.sealed(slow, &mut transcript, FrameType::Final, 50).await;
        provider.finish(slow, &got, transcript.digest(), Status::Complete).await;
    };
    let (bytes, ()) = tokio::join!(clients, serve);
    assert_eq!(split(&bytes).1.len(), FRAMES + 3);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_own_stream_and_its_receipt_is_logged() {
    let network = Network::start().await;
    let mut provider = network.provider(1, 2).await;
    let sent = request(fields(&[&provider.statement], now()), 10);
    let mut open = Vec::new();
    for _ in 0..2 {
        let serve = async {
            let (stream, got) = provider.request().await;
            let mut transcript = provider.prefix(stream).await;
            provider.sealed(stream, &mut transcript, FrameType::Data, 50).await;
            (stream, got, transcript)
        };
        open.push(tokio::join!(network.post(sent.clone()), serve));
    }
    let (stays, (kept, got, mut transcript)) = open.pop().unwrap();
    let (leaves, (stream, _, aborted)) = open.pop().unwrap();
    drop(leaves);
    let cancel = provider.next().await.unwrap();
    assert_eq!(Message::parse(&cancel), Ok((stream, Message::Cancel)));
    provider.finish(stream, &got, aborted.digest(), Status::Aborted).await;
    network.metric("fanlight_receipts_logged_total{outcome=\"logged\"} 1").await;
    network.metric("fanlight_streams_ended_total{how=\"cancelled\"} 1").await;

    provider.sealed(kept, &mut transcript, FrameType::Final, 50).await;
    provider.finish(kept, &got, transcript.digest(), Status::Complete).await;
    assert_eq!(split(&within(stays.bytes()).await.unwrap()).1.len(), 4);
}
