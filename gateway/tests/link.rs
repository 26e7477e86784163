//! The link's state machine, with its own clock and no socket.

#[path = "support/entries.rs"]
mod entries;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entries::{Identity, MODEL, details, fields, prefix, request, sealed_frame};
use fanlight_gateway::enrol::{EnrolError, MAX_LISTED_ENTRY_LEN};
use fanlight_gateway::link::{
    CLIENT_STALL, END_WAIT, End, Event, FIRST_WORD_WAIT, HELLO_WAIT, Link, LinkError, OpenError, ReceiptError, STREAM_SILENCE,
    StreamRequest,
};
use fanlight_gateway::registry::LoggedStatement;
use fanlight_gateway::upload::{Budget, Upload};
use fanlight_protocol::entry::{EntryError, KeyStatement, ModelOffer, ReceiptDetails, Signed, Status};
use fanlight_protocol::link::{Hello, INITIAL_CREDIT, Message};
use fanlight_protocol::response::{FrameType, ResponseTranscript};
use fanlight_protocol::{Digest, MAX_REQUEST_LEN, RequestId, UnixTime};
use proptest::prelude::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const START: Duration = Duration::ZERO;
const NONCE: [u8; 32] = [1; 32];

struct Peer {
    link: Link,
    identity: Identity,
    statement: Signed<KeyStatement>,
    request: Vec<u8>,
}

impl Peer {
    fn enrolled() -> Self {
        let identity = Identity::new(1);
        let statement = identity.sign(&identity.statement(101, NOW));
        let mut link = Link::accept(NONCE, START);
        link.poll_transmit(START).expect("CHALLENGE");
        let hello = Bytes::from(identity.hello(NONCE, &statement, 4, NOW));
        assert!(matches!(link.receive(&hello, NOW, START), Ok(Some(Event::Hello(_)))));
        link.welcome("evidence proof", "statement proof");
        let welcome = link.poll_transmit(START).expect("WELCOME");
        assert!(matches!(Message::parse(&welcome), Ok((0, Message::Welcome { .. }))));
        let request = request(fields(&[&statement], NOW), 150_000);
        Self { link, identity, statement, request }
    }

    fn open(&mut self) -> u32 {
        self.try_open().expect("an enrolled link")
    }

    fn try_open(&mut self) -> Result<u32, OpenError> {
        let mut upload = Upload::new(Budget::new(MAX_REQUEST_LEN));
        upload.push(Bytes::copy_from_slice(&self.request)).expect("it fits");
        let statements = vec![Arc::new(LoggedStatement { statement: self.statement.clone(), proof: String::new() })];
        let (request_id, model) = (RequestId([9; 16]), MODEL.to_owned());
        let stream = StreamRequest { upload: upload.finish(), request_id, model, statements };
        self.link.open(stream, START)
    }

    fn receive(&mut self, stream: u32, message: Message<'_>, at: Duration) -> Result<Option<Event>, LinkError> {
        self.link.receive(&message.to_bytes(stream).into(), NOW, at)
    }

    fn begin(&mut self, stream: u32) -> ResponseTranscript {
        let prefix = prefix(&self.statement);
        let event = self.receive(stream, Message::Prefix(prefix.to_bytes()), START);
        assert!(matches!(event, Ok(Some(Event::Prefix { .. }))));
        ResponseTranscript::new(&prefix)
    }

    fn frame(&mut self, stream: u32, frame_type: FrameType, len: usize) -> Result<Option<Event>, LinkError> {
        self.receive(stream, Message::Frame(&sealed_frame(frame_type, len)), START)
    }

    fn receipt(&mut self, stream: u32, response_hash: Digest, status: Status) -> Result<Option<Event>, LinkError> {
        let (_, frame) = self.identity.receipt(&self.statement, &details(&self.request, response_hash, status));
        self.receive(stream, Message::Frame(&frame), START)
    }
}

#[test]
fn requests_take_turns_and_control_goes_first() {
    let mut peer = Peer::enrolled();
    assert_eq!((peer.open(), peer.open()), (1, 2), "streams are numbered from 1 upwards");
    let mut sent = [Vec::new(), Vec::new()];
    let mut order = Vec::new();
    while let Some(message) = peer.link.poll_transmit(START) {
        let (stream, message) = Message::parse(&message).unwrap();
        order.push((stream, matches!(message, Message::RequestEnd(_))));
        let (Message::Request(piece) | Message::RequestEnd(piece)) = message else { panic!("expected a request") };
        sent[stream as usize - 1].extend_from_slice(piece);
    }
    assert_eq!(order, [(1, false), (2, false), (1, false), (2, false), (1, true), (2, true)]);
    assert_eq!(sent, [peer.request.clone(), peer.request.clone()]);

    peer.open();
    peer.link.cancel(2, START);
    peer.link.cancel(2, START);
    let first = peer.link.poll_transmit(START).unwrap();
    assert_eq!(Message::parse(&first), Ok((2, Message::Cancel)), "once, and before the new request");
    assert!(matches!(Message::parse(&peer.link.poll_transmit(START).unwrap()), Ok((3, Message::Request(_)))));
}

#[test]
fn a_whole_answer_is_complete() {
    let mut peer = Peer::enrolled();
    let stream = peer.open();
    let mut transcript = peer.begin(stream);
    assert!(matches!(peer.frame(stream, FrameType::Final, 20), Ok(Some(Event::Frame { sealed: true, .. }))));
    transcript.add_sealed_frame(&sealed_frame(FrameType::Final, 20));
    let receipt = peer.receipt(stream, transcript.digest(), Status::Complete);
    assert!(matches!(receipt, Ok(Some(Event::Receipt { complete: true, .. }))));
    let ended = peer.receive(stream, Message::End, START);
    assert!(matches!(ended, Ok(Some(Event::Ended { how: End::Complete, .. }))));
    assert_eq!(peer.link.open_streams(), 0);
    assert!(matches!(peer.receive(stream, Message::End, START), Err(LinkError::UnknownStream)), "never reused");
}

#[test]
fn frames_out_of_order_end_the_link() {
    let ping: &[u8] = &[0x03, 0, 0, 0, 0];
    let inclusion: &[u8] = &[0x11, 0, 0, 0, 1, b'p'];
    let data = sealed_frame(FrameType::Data, 20);
    let last = sealed_frame(FrameType::Final, 20);
    let cases: [(&str, Vec<&[u8]>); 5] = [
        ("data after final", vec![&last, &data]),
        ("final twice", vec![&last, &last]),
        ("inclusion, which is the gateway's", vec![inclusion]),
        ("two frames in one", vec![&[0x03, 0, 0, 0, 0, 0x03, 0, 0, 0, 0]]),
        ("unknown type", vec![ping, &[0x55, 0, 0, 0, 0]]),
    ];
    for (name, frames) in cases {
        let mut peer = Peer::enrolled();
        let stream = peer.open();
        peer.begin(stream);
        let (bad, good) = frames.split_last().unwrap();
        for frame in good {
            assert!(peer.receive(stream, Message::Frame(frame), START).is_ok(), "{name}");
        }
        let refused = peer.receive(stream, Message::Frame(bad), START);
        assert!(matches!(refused, Err(LinkError::FrameOrder | LinkError::Frame(_))), "{name}");
    }
    let mut peer = Peer::enrolled();
    let stream = peer.open();
    assert!(matches!(peer.frame(stream, FrameType::Data, 20), Err(LinkError::FrameOrder)), "data before the prefix");
}

#[test]
fn a_receipt_for_anything_else_ends_the_link() {
    type Spoil = fn(&mut Peer);
    let cases: [(&str, Spoil, ReceiptError); 4] = [
        ("another request", |p| p.request[1_700] ^= 1, ReceiptError::Request),
        ("another signer", |p| p.identity = Identity::new(2), ReceiptError::Entry(EntryError::WrongKey)),
        ("another statement", |p| p.statement = p.identity.sign(&p.identity.statement(102, NOW)), ReceiptError::Statement),
        ("nothing wrong but the response", |_| {}, ReceiptError::Response),
    ];
    for (name, spoil, wanted) in cases {
        let mut peer = Peer::enrolled();
        let stream = peer.open();
        peer.begin(stream);
        assert!(peer.frame(stream, FrameType::Final, 20).is_ok());
        spoil(&mut peer);
        let refused = peer.receipt(stream, Digest::ZERO, Status::Complete);
        assert!(matches!(&refused, Err(LinkError::Receipt(error)) if *error == wanted), "{name}: {refused:?}");
    }
}

#[test]
fn an_answer_without_final_is_never_complete() {
    let mut peer = Peer::enrolled();
    let stream = peer.open();
    let transcript = peer.begin(stream);
    let early = peer.receipt(stream, transcript.digest(), Status::Complete);
    assert!(matches!(early, Err(LinkError::FrameOrder)));

    let mut peer = Peer::enrolled();
    let (aborted, ended) = (peer.open(), peer.open());
    let transcript = peer.begin(aborted);
    let receipt = peer.receipt(aborted, transcript.digest(), Status::Aborted);
    assert!(matches!(receipt, Ok(Some(Event::Receipt { complete: false, .. }))));
    let end = peer.receive(aborted, Message::End, START);
    assert!(matches!(end, Ok(Some(Event::Ended { how: End::Truncated, .. }))));
    let end = peer.receive(ended, Message::End, START);
    assert!(matches!(end, Ok(Some(Event::Ended { how: End::Unanswered, .. }))));
}

#[test]
fn a_cancelled_stream_gives_no_frames_but_its_receipt() {
    let mut peer = Peer::enrolled();
    let stream = peer.open();
    let transcript = peer.begin(stream);
    peer.link.cancel(stream, START);
    assert!(matches!(peer.frame(stream, FrameType::Data, 20), Ok(None)), "it was on its way");
    let receipt = peer.receipt(stream, transcript.digest(), Status::Aborted);
    assert!(matches!(receipt, Ok(Some(Event::Receipt { .. }))));
    let end = peer.receive(stream, Message::End, START);
    assert!(matches!(end, Ok(Some(Event::Ended { how: End::Cancelled, .. }))));
}

#[test]
fn waits_end() {
    let late = |wait: Duration| wait + Duration::from_millis(1);
    let mut silent = Link::accept(NONCE, START);
    assert!(silent.tick(HELLO_WAIT).is_ok());
    assert_eq!(silent.tick(late(HELLO_WAIT)).unwrap_err(), LinkError::HelloTimedOut);

    let mut peer = Peer::enrolled();
    let stream = peer.open();
    let sent = START + FIRST_WORD_WAIT / 2;
    while peer.link.poll_transmit(sent).is_some() {}
    assert!(peer.link.tick(sent + FIRST_WORD_WAIT).unwrap().is_empty(), "counted from the last request byte");
    let timed_out = peer.link.tick(sent + late(FIRST_WORD_WAIT)).unwrap();
    assert!(matches!(timed_out[..], [Event::TimedOut { stream: s }] if s == stream));
    let cancel = peer.link.poll_transmit(sent).unwrap();
    assert_eq!(Message::parse(&cancel), Ok((stream, Message::Cancel)));
    assert!(peer.link.tick(sent + FIRST_WORD_WAIT + END_WAIT).unwrap().is_empty(), "told once");

    let mut peer = Peer::enrolled();
    let stream = peer.open();
    peer.begin(stream);
    let mut at = START;
    while at <= CLIENT_STALL {
        assert!(peer.link.tick(at).unwrap().is_empty(), "a provider that pings is not silent");
        let ping = peer.receive(stream, Message::Frame(&[0x03, 0, 0, 0, 0]), at);
        assert!(matches!(ping, Ok(None)), "a client with unread bytes gets no pings");
        at += STREAM_SILENCE / 2;
    }
    assert_eq!(peer.link.tick(at).unwrap().len(), 1, "the client reads nothing");
}

#[test]
fn a_stream_that_is_not_ended_in_time_costs_no_other_stream_its_answer() {
    let mut peer = Peer::enrolled();
    let (stuck, whole) = (peer.open(), peer.open());
    let mut transcript = peer.begin(whole);
    peer.begin(stuck);
    assert!(peer.link.cancel(stuck, START).is_none(), "the provider has to stop");
    let ping = peer.receive(whole, Message::Frame(&[0x03, 0, 0, 0, 0]), START + END_WAIT);
    assert!(matches!(ping, Ok(None)), "it still answers");
    let events = peer.link.tick(START + END_WAIT + Duration::from_millis(1)).unwrap();
    assert!(matches!(events[..], [Event::Ended { stream: s, how: End::Cancelled, .. }, Event::Stalled] if s == stuck));
    assert_eq!(peer.try_open(), Err(OpenError::Stalled));
    assert!(matches!(peer.frame(stuck, FrameType::Data, 20), Ok(None)), "passed over");
    assert!(matches!(peer.receive(stuck, Message::End, START), Ok(None)));
    assert!(matches!(peer.receive(stuck, Message::End, START), Err(LinkError::UnknownStream)));

    assert!(peer.frame(whole, FrameType::Final, 20).is_ok());
    transcript.add_sealed_frame(&sealed_frame(FrameType::Final, 20));
    let receipt = peer.receipt(whole, transcript.digest(), Status::Complete);
    assert!(matches!(receipt, Ok(Some(Event::Receipt { complete: true, .. }))));
    let ended = peer.receive(whole, Message::End, START);
    assert!(matches!(ended, Ok(Some(Event::Ended { how: End::Complete, .. }))));
    assert_eq!(peer.link.open_streams(), 0);
}

#[test]
fn a_stream_that_the_provider_has_not_seen_is_cancelled_without_it() {
    let mut peer = Peer::enrolled();
    let (unseen, seen) = (peer.open(), peer.open());
    let ended = peer.link.cancel(unseen, START);
    assert!(matches!(ended, Some(Event::Ended { stream, how: End::Cancelled, bytes: (0, 0) }) if stream == unseen));
    let first = peer.link.poll_transmit(START).unwrap();
    assert!(matches!(Message::parse(&first), Ok((stream, Message::Request(_))) if stream == seen), "no CANCEL");
    assert!(peer.link.cancel(seen, START).is_none(), "its first bytes are on their way");
    let cancel = peer.link.poll_transmit(START).unwrap();
    assert_eq!(Message::parse(&cancel), Ok((seen, Message::Cancel)));
    assert!(!peer.link.wants_to_transmit());
    assert!(matches!(peer.receive(seen, Message::End, START), Ok(Some(Event::Ended { .. }))));
    assert!(peer.link.tick(START + END_WAIT * 2).unwrap().is_empty(), "nothing waits for the unseen one");
}

#[test]
fn a_receipt_before_the_prefix_is_handed_out_and_is_no_part_of_an_answer() {
    let mut peer = Peer::enrolled();
    let stream = peer.open();
    let receipt = peer.receipt(stream, Digest::ZERO, Status::Aborted);
    assert!(matches!(receipt, Ok(Some(Event::Receipt { frame: None, complete: false, .. }))));
    let ended = peer.receive(stream, Message::End, START);
    assert!(matches!(ended, Ok(Some(Event::Ended { how: End::Unanswered, bytes: (_, 0), .. }))));
}

#[test]
fn a_receipt_that_contradicts_itself_ends_the_link() {
    type Spoil = fn(&mut ReceiptDetails);
    let cases: [(&str, Spoil); 3] = [
        ("more cached than all", |d| d.usage.cached_input = d.usage.input + 1),
        ("more reasoning than all", |d| d.usage.reasoning = d.usage.output + 1),
        ("ended before it started", |d| d.ended = UnixTime::from_millis(d.started.as_millis() - 1)),
    ];
    for (name, spoil) in cases {
        let mut peer = Peer::enrolled();
        let stream = peer.open();
        let transcript = peer.begin(stream);
        let mut details = details(&peer.request, transcript.digest(), Status::Aborted);
        spoil(&mut details);
        let (_, frame) = peer.identity.receipt(&peer.statement, &details);
        let refused = peer.receive(stream, Message::Frame(&frame), START);
        assert!(matches!(refused, Err(LinkError::Receipt(ReceiptError::Contradiction))), "{name}: {refused:?}");
    }
}

#[test]
fn entries_too_long_to_be_listed_are_refused() {
    let long = |peer: &Peer| {
        let mut statement = peer.identity.statement(150, NOW);
        let offer = |i| ModelOffer { name: format!("{i:0>128}"), ..statement.models[0].clone() };
        statement.models = (0..64).map(offer).collect();
        peer.identity.sign(&statement)
    };
    let mut peer = Peer::enrolled();
    let statement = long(&peer);
    assert!(statement.bytes().len() > MAX_LISTED_ENTRY_LEN);
    let refused = peer.receive(0, Message::Statement(statement.bytes()), START);
    assert!(matches!(refused, Err(LinkError::Enrol(EnrolError::TooLong))));

    let hello = peer.identity.hello(NONCE, &statement, 1, NOW);
    let refused = Link::accept(NONCE, START).receive(&hello.into(), NOW, START);
    assert!(matches!(refused, Err(LinkError::Enrol(EnrolError::TooLong))));
    let auth = vec![0; 100];
    let hello = Hello { link_auth: &auth, evidence: &[0; MAX_LISTED_ENTRY_LEN + 1], key_statement: &auth, capacity: 1 };
    let refused = Link::accept(NONCE, START).receive(&Message::Hello(hello).to_bytes(0).into(), NOW, START);
    assert!(matches!(refused, Err(LinkError::Enrol(EnrolError::TooLong))));
}

#[test]
fn hello_is_said_once_and_nothing_before_it() {
    let mut link = Link::accept(NONCE, START);
    let early = Message::Capacity(1).to_bytes(0).into();
    assert!(matches!(link.receive(&early, NOW, START), Err(LinkError::Unexpected)));
    let mut peer = Peer::enrolled();
    let hello = peer.identity.hello(NONCE, &peer.statement, 1, NOW).into();
    assert!(matches!(peer.link.receive(&hello, NOW, START), Err(LinkError::Unexpected)));
    let statement = peer.statement.bytes().to_vec();
    assert!(matches!(peer.receive(0, Message::Statement(&statement), START), Ok(Some(Event::Statement(_)))));
    let second = peer.receive(0, Message::Statement(&statement), START);
    assert!(matches!(second, Err(LinkError::Unexpected)), "one at a time");
}

proptest! {
    /// Whatever the frames and however the client reads, a provider that keeps to its credit is never cut off, and one
    /// byte more than its credit always is.
    #[test]
    fn credit_is_exact(steps in prop::collection::vec((18usize..16_400, any::<bool>()), 1..200)) {
        let mut peer = Peer::enrolled();
        let stream = peer.open();
        while peer.link.poll_transmit(START).is_some() {}
        peer.begin(stream);
        let mut credit = INITIAL_CREDIT as usize;
        let mut unread = Vec::new();
        for (len, client_reads) in steps {
            let n = len + 5;
            let sent = peer.frame(stream, FrameType::Data, len);
            if n > credit {
                prop_assert!(matches!(sent, Err(LinkError::CreditExceeded)));
                return Ok(());
            }
            prop_assert!(sent.is_ok());
            credit -= n;
            unread.push(n);
            if client_reads {
                for n in unread.drain(..) {
                    peer.link.consumed(stream, n, true, START);
                }
                while let Some(message) = peer.link.poll_transmit(START) {
                    let Ok((_, Message::Credit(more))) = Message::parse(&message) else { panic!("expected CREDIT") };
                    credit += more as usize;
                    prop_assert!(credit <= INITIAL_CREDIT as usize);
                }
            }
        }
    }

    /// No bytes make it panic, and it refuses what is no message.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), enrolled in any::<bool>()) {
        let mut link = if enrolled { Peer::enrolled().link } else { Link::accept(NONCE, START) };
        let event = link.receive(&Bytes::from(bytes), NOW, START);
        prop_assert!(matches!(event, Err(_) | Ok(Some(Event::Capacity(_)))));
    }

    /// A request arrives as it was pushed, in pieces of any size, and its bytes are counted and given back.
    #[test]
    fn uploads_are_whole(sizes in prop::collection::vec(0usize..3_000, 0..60)) {
        let budget = Budget::new(MAX_REQUEST_LEN);
        let mut upload = Upload::new(Arc::clone(&budget));
        let mut whole = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            let piece = vec![u8::try_from(i).unwrap(); size];
            whole.extend_from_slice(&piece);
            upload.push(piece.into()).unwrap();
        }
        prop_assert_eq!(budget.used(), whole.len());
        let mut peer = Peer::enrolled();
        let upload = upload.finish();
        prop_assert_eq!(upload.request_hash(), Digest::of(&whole));
        let (request_id, model) = (RequestId([9; 16]), MODEL.to_owned());
        peer.link.open(StreamRequest { upload, request_id, model, statements: Vec::new() }, START).unwrap();
        let mut sent = Vec::new();
        while let Some(message) = peer.link.poll_transmit(START) {
            let Ok((1, Message::Request(piece) | Message::RequestEnd(piece))) = Message::parse(&message) else {
                panic!("expected a request")
            };
            sent.extend_from_slice(piece);
        }
        prop_assert_eq!(sent, whole);
        prop_assert_eq!(budget.used(), 0, "nothing is held once it is sent");
    }
}
