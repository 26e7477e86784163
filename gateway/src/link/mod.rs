//! The provider link, gateway side, as a state machine (SPEC §8): messages and times in, events and messages out.
//!
//! A shell owns one [`Link`] for each connection. It passes what it receives to [`Link::receive`], sends what
//! [`Link::poll_transmit`] returns, calls [`Link::tick`] about once a second, and acts on events. Nothing here waits; times
//! are monotonic, counted from any fixed moment.
//!
//! **Bounds.** Control messages held: at most one grant or cancellation for each stream, and four others. Frames handed out
//! and not consumed: [`INITIAL_CREDIT`](fanlight_protocol::link::INITIAL_CREDIT) bytes for each stream, its receipt, and one PING. Streams: the connection's capacity.

mod error;
mod receipt;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use fanlight_protocol::entry::{IdentityKey, KeyStatement, Receipt, Signed};
use fanlight_protocol::link::Message;
use fanlight_protocol::problem::Problem;
use fanlight_protocol::{Digest, UnixTime};

pub use self::error::{LinkError, OpenError};
pub use self::receipt::{ReceiptError, VerifiedReceipt};
use self::stream::Stream;
pub use self::stream::{End, StreamRequest};
use crate::enrol::{Enrolment, verify_statement};

/// Longest wait for a HELLO.
pub const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the first word on a stream, from the last request byte that was sent; a provider sends its prefix once
/// it has opened the request.
pub const FIRST_WORD_WAIT: Duration = Duration::from_mins(1);
/// Longest silence on a stream that answers; a provider pings every 5 s.
pub const STREAM_SILENCE: Duration = Duration::from_secs(30);
/// Longest time that a client may leave bytes unread before it counts as gone.
pub const CLIENT_STALL: Duration = Duration::from_mins(2);
/// Longest wait for END after a CANCEL or a RECEIPT.
pub const END_WAIT: Duration = Duration::from_secs(30);

/// What a shell has to act on.
#[derive(Debug)]
pub enum Event {
    /// The provider changed how many streams it takes.
    Capacity(u32),
    /// The provider ended a stream, or time ran out on it. The slot is free after the event whose `closed` is true.
    Ended {
        /// The stream.
        stream: u32,
        /// How.
        how: End,
        /// Request and response bytes that passed.
        bytes: (u64, u64),
    },
    /// A frame for the client, byte for byte; tell [`Link::consumed`] when the client has taken it.
    Frame {
        /// The stream.
        stream: u32,
        /// The frame.
        frame: Bytes,
        /// Whether it is DATA or FINAL, which took credit.
        sealed: bool,
    },
    /// HELLO was good: append both entries, list the provider, then call [`Link::welcome`].
    Hello(Box<Enrolment>),
    /// The prefix for the client, byte for byte: the first byte of the answer. No fail-over after this.
    Prefix {
        /// The stream.
        stream: u32,
        /// The 49 bytes.
        prefix: Bytes,
    },
    /// A receipt that verified. The frame is for the client; the entry is for the log, also when the client is gone.
    Receipt {
        /// The stream.
        stream: u32,
        /// The RECEIPT frame, byte for byte; `None` before PREFIX, when it would be no part of an answer.
        frame: Option<Bytes>,
        /// Whether FINAL was there: the answer is whole.
        complete: bool,
        /// What it says.
        receipt: Box<VerifiedReceipt>,
    },
    /// The provider did not open the request, and the stream is over.
    Refused {
        /// The stream.
        stream: u32,
        /// HTTP status, 400 to 599.
        status: u16,
        /// Problem JSON, byte for byte.
        problem: Bytes,
    },
    /// A receipt entry of this provider, sent again in case that it was lost: append it.
    Resent(Bytes),
    /// A stream was not ended in time, and has now [`Event::Ended`] for the gateway. Unlist the provider, open no stream, and
    /// close the connection once the others have ended.
    Stalled,
    /// A new key statement was good: append it, add it to the registry, then call [`Link::listed`].
    Statement(Box<Signed<KeyStatement>>),
    /// Time ran out on a stream, and it was cancelled: nothing more comes for its client. [`Event::Ended`] will follow.
    TimedOut {
        /// The stream.
        stream: u32,
    },
}

/// One provider's connection.
#[derive(Debug)]
pub struct Link {
    phase: Phase,
    control: VecDeque<Vec<u8>>,
    streams: BTreeMap<u32, Stream>,
    // Streams with request bytes to send; they take turns, so that a large request does not hold up a small one.
    uploads: VecDeque<u32>,
    next_stream: u32,
    // Streams given up that the provider has not ended; what still comes on them is passed over.
    given_up: BTreeSet<u32>,
    stalled: bool,
}

#[derive(Debug)]
enum Phase {
    Challenged { nonce: [u8; 32], since: Duration },
    Enrolling(Identified),
    Enrolled { by: Identified, statement_pending: bool },
}

#[derive(Clone, Debug)]
struct Identified {
    identity: IdentityKey,
    evidence_digest: Digest,
}

impl Link {
    /// A fresh connection. `nonce` is random and used for nothing else.
    pub fn accept(nonce: [u8; 32], now: Duration) -> Self {
        let control = VecDeque::from([Message::Challenge(nonce).to_bytes(0)]);
        let phase = Phase::Challenged { nonce, since: now };
        let (streams, uploads, given_up) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        Self { phase, control, streams, uploads, next_stream: 1, given_up, stalled: false }
    }

    /// Takes a message of the provider.
    ///
    /// `time` judges entries; `now` is monotonic. `None` when there is nothing to act on.
    ///
    /// # Errors
    /// [`LinkError`]: the connection must end.
    pub fn receive(&mut self, bytes: &Bytes, time: UnixTime, now: Duration) -> Result<Option<Event>, LinkError> {
        let (stream, message) = Message::parse(bytes).map_err(LinkError::Message)?;
        if self.given_up.contains(&stream) {
            if matches!(message, Message::End | Message::Refused { .. }) {
                self.given_up.remove(&stream);
            }
            return Ok(None);
        }
        match message {
            Message::Hello(hello) => {
                let Phase::Challenged { nonce, .. } = &self.phase else { return Err(LinkError::Unexpected) };
                let enrolment = Enrolment::verify(&hello, nonce, time).map_err(LinkError::Enrol)?;
                let evidence = enrolment.evidence();
                let by = Identified { identity: evidence.signer().clone(), evidence_digest: evidence.digest() };
                self.phase = Phase::Enrolling(by);
                Ok(Some(Event::Hello(Box::new(enrolment))))
            }
            Message::Statement(entry) => {
                let Phase::Enrolled { by, statement_pending: pending @ false } = &mut self.phase else {
                    return Err(LinkError::Unexpected);
                };
                let statement = verify_statement(entry, &by.identity, by.evidence_digest, time).map_err(LinkError::Enrol)?;
                *pending = true;
                Ok(Some(Event::Statement(Box::new(statement))))
            }
            Message::Capacity(capacity) => match self.phase {
                Phase::Enrolled { .. } => Ok(Some(Event::Capacity(capacity))),
                Phase::Challenged { .. } | Phase::Enrolling(_) => Err(LinkError::Unexpected),
            },
            Message::Receipt(entry) => match &self.phase {
                Phase::Enrolled { by, .. } => {
                    let verified = Signed::<Receipt>::verify(entry, &by.identity);
                    verified.map_err(|error| LinkError::Receipt(ReceiptError::Entry(error)))?;
                    Ok(Some(Event::Resent(bytes.slice_ref(entry))))
                }
                Phase::Challenged { .. } | Phase::Enrolling(_) => Err(LinkError::Unexpected),
            },
            Message::Refused { status, problem } => {
                let problem = bytes.slice_ref(problem);
                self.end_with_refusal(stream, status)?;
                Ok(Some(Event::Refused { stream, status, problem }))
            }
            Message::Prefix(_) => self.stream(stream)?.prefix(stream, bytes, now),
            Message::Frame(frame) => {
                let (frame, identity) = (bytes.slice_ref(frame), self.identity()?);
                self.stream(stream)?.frame(stream, &frame, &identity, now)
            }
            Message::End => self.end(stream).map(Some).ok_or(LinkError::UnknownStream),
            Message::Cancel
            | Message::Challenge(_)
            | Message::Credit(_)
            | Message::Listed(_)
            | Message::Rejected(_)
            | Message::Request(_)
            | Message::RequestEnd(_)
            | Message::Welcome { .. } => Err(LinkError::Unexpected),
        }
    }

    /// The provider is in the log and listed.
    pub fn welcome(&mut self, evidence_proof: &str, statement_proof: &str) {
        if let Phase::Enrolling(by) = &self.phase {
            let (evidence_proof, statement_proof) = (evidence_proof.as_bytes(), statement_proof.as_bytes());
            self.control.push_back(Message::Welcome { evidence_proof, statement_proof }.to_bytes(0));
            self.phase = Phase::Enrolled { by: by.clone(), statement_pending: false };
        }
    }

    /// The last new key statement is in the log and listed.
    pub fn listed(&mut self, proof: &str) {
        if let Phase::Enrolled { statement_pending, .. } = &mut self.phase
            && std::mem::take(statement_pending)
        {
            self.control.push_back(Message::Listed(proof.as_bytes()).to_bytes(0));
        }
    }

    /// Opens a stream and sends the request on it.
    ///
    /// # Errors
    /// [`OpenError`] by variant.
    pub fn open(&mut self, request: StreamRequest, now: Duration) -> Result<u32, OpenError> {
        if !matches!(self.phase, Phase::Enrolled { .. }) {
            return Err(OpenError::NotEnrolled);
        }
        if self.stalled {
            return Err(OpenError::Stalled);
        }
        let stream = self.next_stream;
        self.next_stream = stream.checked_add(1).ok_or(OpenError::OutOfStreams)?;
        self.streams.insert(stream, Stream::new(request, now));
        self.uploads.push_back(stream);
        Ok(stream)
    }

    /// Stops a stream whose client is gone; no other stream notices. What still comes of it is checked, and its receipt
    /// is handed out, but no frame. A stream of which the provider has seen nothing is over at once: [`Event::Ended`].
    pub fn cancel(&mut self, stream: u32, now: Duration) -> Option<Event> {
        let cancelled = self.streams.get_mut(&stream)?;
        if !cancelled.cancel(now) {
            return None;
        }
        if cancelled.is_unsent() {
            return self.end(stream);
        }
        self.uploads.retain(|s| *s != stream);
        self.control.push_back(Message::Cancel.to_bytes(stream));
        None
    }

    /// The client has taken `n` bytes of a prefix or frame; gives credit for them, if they were `sealed`.
    pub fn consumed(&mut self, stream: u32, n: usize, sealed: bool, now: Duration) {
        if let Some(grant) = self.streams.get_mut(&stream).and_then(|s| s.consumed(n, sealed, now)) {
            self.control.push_back(Message::Credit(grant).to_bytes(stream));
        }
    }

    /// The next message to send, control before requests.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if let Some(message) = self.control.pop_front() {
            return Some(message);
        }
        let stream = self.uploads.pop_front()?;
        let (message, last) = self.streams.get_mut(&stream)?.next_request_message(stream, now)?;
        if !last {
            self.uploads.push_back(stream);
        }
        Some(message)
    }

    /// Whether [`Link::poll_transmit`] has something.
    pub fn wants_to_transmit(&self) -> bool {
        !self.control.is_empty() || !self.uploads.is_empty()
    }

    /// Streams that the provider has not ended.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Looks for waits that are over.
    ///
    /// # Errors
    /// [`LinkError::HelloTimedOut`].
    pub fn tick(&mut self, now: Duration) -> Result<Vec<Event>, LinkError> {
        if let Phase::Challenged { since, .. } = self.phase
            && now.saturating_sub(since) > HELLO_WAIT
        {
            return Err(LinkError::HelloTimedOut);
        }
        let mut events = Vec::new();
        for stream in self.numbers(|s| s.is_overdue(now)) {
            events.push(Event::TimedOut { stream });
            events.extend(self.cancel(stream, now));
        }
        for stream in self.numbers(|s| s.is_end_overdue(now)) {
            self.given_up.insert(stream);
            events.extend(self.end(stream));
            if !std::mem::replace(&mut self.stalled, true) {
                events.push(Event::Stalled);
            }
        }
        Ok(events)
    }

    /// The last message before the shell closes the connection.
    pub fn rejected(problem: &Problem) -> Vec<u8> {
        Message::Rejected(&serde_json::to_vec(problem).expect("a problem is plain JSON")).to_bytes(0)
    }

    fn identity(&self) -> Result<IdentityKey, LinkError> {
        match &self.phase {
            Phase::Enrolled { by, .. } => Ok(by.identity.clone()),
            Phase::Challenged { .. } | Phase::Enrolling(_) => Err(LinkError::Unexpected),
        }
    }

    fn numbers(&self, which: impl Fn(&Stream) -> bool) -> Vec<u32> {
        self.streams.iter().filter(|(_, s)| which(s)).map(|(stream, _)| *stream).collect()
    }

    fn end(&mut self, stream: u32) -> Option<Event> {
        let ended = self.streams.remove(&stream)?;
        self.uploads.retain(|s| *s != stream);
        Some(Event::Ended { stream, how: ended.how_it_ended(), bytes: ended.bytes() })
    }

    fn stream(&mut self, stream: u32) -> Result<&mut Stream, LinkError> {
        self.streams.get_mut(&stream).ok_or(LinkError::UnknownStream)
    }

    fn end_with_refusal(&mut self, stream: u32, status: u16) -> Result<(), LinkError> {
        if !(400..=599).contains(&status) {
            return Err(LinkError::RefusalStatus);
        }
        if !self.stream(stream)?.is_waiting() {
            return Err(LinkError::FrameOrder);
        }
        self.streams.remove(&stream);
        self.uploads.retain(|s| *s != stream);
        Ok(())
    }
}
