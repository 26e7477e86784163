//! Many streams on one link: they start, end, fail and are cancelled each for itself (SPEC §8.1).

use std::sync::Arc;

use fanlight_protocol::MAX_REQUEST_LEN;
use fanlight_protocol::entry::Status;
use fanlight_protocol::link::{MAX_REQUEST_PIECE, Message};
use fanlight_protocol::response::{Frame, FrameType};
use fanlight_provider::engine::{Limits, scripted};

use crate::support::{Gateway, Link, ask, ask_streaming, echo, parse, start, start_with_capacity, within};

/// Reads until content has come on `stream`.
async fn first_content(link: &mut Link, stream: u32) {
    loop {
        let bytes = link.recv(stream).await;
        if let Message::Frame(frame) = parse(&bytes).1
            && Frame::parse(frame).expect("a frame").frame_type == FrameType::Data
        {
            return;
        }
    }
}

/// Returns once the provider has taken everything that was sent before.
async fn pass(link: &mut Link) {
    let garbage = link.request(b"garbage").await;
    assert_eq!(link.refused(garbage).await.0, 400);
}

#[tokio::test]
async fn cancel_ends_its_own_stream_with_an_aborted_receipt() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, gate) = scripted::start_gated(Limits::default(), str::to_owned).unwrap();
    let provider = start(dir.path(), &gateway, Arc::new(engine));
    let mut link = gateway.enrol().await;

    let doomed = link.seal(&ask_streaming("one two three four five six seven"));
    let doomed_stream = link.request(&doomed.bytes).await;
    gate.step(2);
    first_content(&mut link, doomed_stream).await;
    let other = link.seal(&ask("untouched"));
    let other_stream = link.request(&other.bytes).await;
    link.send(doomed_stream, &Message::Cancel).await;
    pass(&mut link).await;
    // The engine hears of it at its next step.
    drop(gate);
    let details = link.aborted(doomed_stream).await;
    assert_eq!(details.request_hash, *doomed.opener.request_hash());
    assert!(details.usage.input > 0);
    assert_eq!(link.answer(other_stream, other.opener).await.text(), "untouched");
    let totals = provider.status().totals;
    assert_eq!((totals.complete, totals.aborted), (1, 1));

    // What comes too late for a stream that has ended is ignored.
    link.send(doomed_stream, &Message::Cancel).await;
    link.send(doomed_stream, &Message::Credit(1000)).await;
    link.send(doomed_stream, &Message::Request(b"late")).await;
    link.send(doomed_stream, &Message::RequestEnd(b"late")).await;
    assert_eq!(link.chat(&ask("still here")).await.text(), "still here");
    assert!(!link.has_parked(doomed_stream));
}

#[tokio::test]
async fn cancel_before_the_request_is_whole_ends_the_stream_and_frees_its_slot() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _provider = start_with_capacity(dir.path(), &gateway, echo(), 1);
    let mut link = gateway.enrol().await;
    let stream = link.open();
    link.send(stream, &Message::Request(b"the first bytes")).await;
    link.send(stream, &Message::Cancel).await;
    assert_eq!(parse(&link.recv(stream).await), (stream, Message::End));
    assert_eq!(link.chat(&ask("next")).await.text(), "next");
}

#[tokio::test]
async fn above_its_capacity_a_provider_refuses_and_a_slot_is_free_when_its_stream_ends() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, gate) = scripted::start_gated(Limits::default(), str::to_owned).unwrap();
    let _provider = start_with_capacity(dir.path(), &gateway, Arc::new(engine), 1);
    let mut link = gateway.enrol().await;
    let first = link.seal(&ask("first"));
    let first_stream = link.request(&first.bytes).await;
    let second = link.seal(&ask("second")).bytes;
    let second_stream = link.request(&second).await;
    assert_eq!(link.refused(second_stream).await, (429, "overloaded".to_owned()));
    drop(gate);
    assert_eq!(link.answer(first_stream, first.opener).await.text(), "first");

    // A refused request was not opened, so it may come again; and each END makes room for the next request at once.
    let again = link.request(&second).await;
    assert!(matches!(parse(&link.recv(again).await).1, Message::Prefix(_)));
    while parse(&link.recv(again).await).1 != Message::End {}
    for _ in 0..50 {
        assert_eq!(link.chat(&ask("more")).await.text(), "more");
    }
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_while_it_arrives() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let stream = link.open();
    let piece = vec![1; MAX_REQUEST_PIECE];
    for _ in 0..MAX_REQUEST_LEN / MAX_REQUEST_PIECE {
        link.send(stream, &Message::Request(&piece)).await;
    }
    link.send(stream, &Message::Request(&[1])).await;
    assert_eq!(link.refused(stream).await, (413, "request_too_large".to_owned()));
    link.send(stream, &Message::RequestEnd(&piece)).await;
    assert_eq!(link.chat(&ask("on")).await.text(), "on");
    assert!(!link.has_parked(stream));
}

#[tokio::test]
async fn a_device_that_fails_is_a_sealed_error_before_or_after_the_first_token() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, gate) = scripted::start_gated(Limits::default(), str::to_owned).unwrap();
    let _provider = start(dir.path(), &gateway, Arc::new(engine));
    let mut link = gateway.enrol().await;

    gate.fail();
    let answer = link.chat(&ask_streaming("never")).await;
    assert_eq!((answer.status, answer.code().as_str(), answer.details.status), (500, "engine_failed", Status::Failed));

    let sealed = link.seal(&ask_streaming("one two three"));
    gate.step(2);
    gate.fail();
    let stream = link.request(&sealed.bytes).await;
    let answer = link.answer(stream, sealed.opener).await;
    let events = String::from_utf8(answer.body).unwrap();
    assert_eq!((answer.status, answer.details.status), (200, Status::Failed));
    assert!(events.contains("engine_failed") && !events.contains("[DONE]"), "{events}");
}

#[tokio::test]
async fn a_provider_that_computes_long_sends_pings_and_its_prefix_first() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, gate) = scripted::start_gated(Limits::default(), str::to_owned).unwrap();
    let _provider = start(dir.path(), &gateway, Arc::new(engine));
    let mut link = gateway.enrol().await;
    let sealed = link.seal(&ask("slow"));
    let stream = link.request(&sealed.bytes).await;
    let prefix = link.recv(stream).await;
    let ping = link.recv(stream).await;
    assert!(matches!(parse(&prefix).1, Message::Prefix(_)));
    let Message::Frame(frame) = parse(&ping).1 else { panic!("no frame") };
    assert_eq!(Frame::parse(frame).unwrap().frame_type, FrameType::Ping);
    drop(gate);
    link.send(stream, &Message::Cancel).await;
    while parse(&link.recv(stream).await).1 != Message::End {}
}

#[tokio::test]
async fn shutdown_drains_what_runs_and_refuses_what_is_new() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, gate) = scripted::start_gated(Limits::default(), str::to_owned).unwrap();
    let provider = start(dir.path(), &gateway, Arc::new(engine));
    let mut link = gateway.enrol().await;
    let running = link.seal(&ask("to the end"));
    let running_stream = link.request(&running.bytes).await;
    let arriving = link.open();
    link.send(arriving, &Message::Request(b"half")).await;
    pass(&mut link).await;

    let stopping = tokio::spawn(provider.shutdown());
    assert_eq!(parse(&link.recv(0).await).1, Message::Capacity(0));
    assert_eq!(link.refused(arriving).await.1, "overloaded");
    let late = link.seal(&ask("late")).bytes;
    let late = link.request(&late).await;
    assert_eq!(link.refused(late).await.1, "overloaded");
    drop(gate);
    assert_eq!(link.answer(running_stream, running.opener).await.text(), "to the end");
    within(stopping).await.unwrap();
    assert!(link.socket.next().await.is_none());
}
