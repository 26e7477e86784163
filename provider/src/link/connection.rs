//! One connection to a gateway, from CHALLENGE to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanlight_protocol::entry::{LinkAuth, Signed};
use fanlight_protocol::link::{Hello, Message};
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::{MAX_REQUEST_LEN, ParseError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_util::sync::CancellationToken;

use super::outgoing::{Credit, Outgoing};
use super::socket::{self, Receiver, Sender};
use crate::daemon::{Core, LinkState};
use crate::exchange;

/// Longest wait for CHALLENGE, and for WELCOME: the gateway logs two entries before it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a link ended, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The gateway closed it, or the network did.
    #[error("keep the link: the connection was closed")]
    Closed,
    /// No connection.
    #[error("connect to the gateway")]
    Connect(#[source] Box<WsError>),
    /// Something on this machine broke that a stream could not be ended with.
    #[error("keep the link: this provider broke it off; see the error before")]
    BrokenOff,
    /// The gateway sent what SPEC §8 does not allow.
    #[error("keep the link: the gateway sent {0}")]
    Protocol(&'static str),
    /// The gateway sent bytes that are no message.
    #[error("keep the link: the gateway sent a malformed message")]
    Malformed(#[source] ParseError),
    /// The gateway does not take this provider.
    #[error("enrol: the gateway answered {}: {}", .0.status, .0.error.message)]
    Rejected(Box<Problem>),
    /// The enclave did not sign.
    #[error("sign the enrolment")]
    Sign(#[from] crate::enclave::SignError),
    /// Nothing was heard for too long.
    #[error("keep the link: the gateway is silent")]
    TimedOut,
}

/// Runs one connection until it fails or `shutdown` is cancelled; then it takes no new requests and ends the running ones.
pub(crate) async fn run(core: &Arc<Core>, url: &str, shutdown: &CancellationToken) -> Result<(), LinkError> {
    let enrolling = async {
        let (sender, mut receiver) = socket::connect(url).await?;
        enrol(core, &sender, &mut receiver).await?;
        Ok::<_, LinkError>((sender, receiver))
    };
    let (sender, mut receiver) = tokio::select! {
        enrolled = enrolling => enrolled?,
        // Before it is listed there is nothing to drain.
        () = shutdown.cancelled() => return Ok(()),
    };
    core.set_link_state(LinkState::Listed);
    resend_receipts(core, &sender).await?;

    let broken = CancellationToken::new();
    let mut link = Link {
        core,
        sender: &sender,
        broken: &broken,
        slots: Arc::new(Semaphore::new(core.capacity as usize)),
        streams: HashMap::new(),
        tasks: JoinSet::new(),
        last_stream: 0,
    };
    let ended = link.serve(&mut receiver, shutdown).await;
    // Exchanges that still run have nobody to answer to; they sign their receipts and stop.
    broken.cancel();
    link.finish().await;
    if ended.is_ok() {
        sender.close().await;
    }
    ended
}

async fn enrol(core: &Core, sender: &Sender, receiver: &mut Receiver) -> Result<(), LinkError> {
    let next =
        async |receiver: &mut Receiver| timeout(HANDSHAKE_TIMEOUT, receiver.next()).await.map_err(|_| LinkError::TimedOut)?;
    let bytes = next(receiver).await?;
    let Message::Challenge(challenge) = parse(&bytes)?.1 else { return Err(LinkError::Protocol("no CHALLENGE first")) };
    let key = core.current_key()?;
    let auth = LinkAuth {
        identity: core.enclave.identity().clone(),
        challenge,
        statement_digest: key.statement().digest(),
        time: fanlight_protocol::UnixTime::from_secs(core.now().as_secs()),
    };
    let auth = Signed::sign(&auth, core.enclave.identity(), |message| core.enclave.sign(message))?;
    let hello = Message::Hello(Hello {
        link_auth: auth.bytes(),
        evidence: core.evidence.bytes(),
        key_statement: key.statement().bytes(),
        capacity: core.capacity,
    });
    sender.send(hello.to_bytes(0)).await?;
    let bytes = next(receiver).await?;
    match parse(&bytes)?.1 {
        Message::Welcome { .. } => Ok(()),
        Message::Rejected(problem) => Err(rejected(problem)),
        _ => Err(LinkError::Protocol("no WELCOME after HELLO")),
    }
}

/// A crash here or at the gateway between signing and logging must not look like a withheld receipt.
async fn resend_receipts(core: &Core, sender: &Sender) -> Result<(), LinkError> {
    match core.receipts.recent().await {
        Ok(receipts) => {
            for receipt in receipts {
                sender.send(Message::Receipt(&receipt).to_bytes(0)).await?;
            }
        }
        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "could not read receipts to send them again"),
    }
    Ok(())
}

/// A request that is arriving, or an exchange that runs.
struct Stream {
    /// Until its last bytes came: those so far, and the share of the capacity that its exchange will hold.
    arriving: Option<(Vec<u8>, OwnedSemaphorePermit)>,
    credit: Credit,
    cancelled: CancellationToken,
}

struct Link<'a> {
    core: &'a Arc<Core>,
    sender: &'a Sender,
    broken: &'a CancellationToken,
    /// The capacity; closed once it drains.
    slots: Arc<Semaphore>,
    streams: HashMap<u32, Stream>,
    tasks: JoinSet<u32>,
    last_stream: u32,
}

impl Link<'_> {
    async fn serve(&mut self, receiver: &mut Receiver, shutdown: &CancellationToken) -> Result<(), LinkError> {
        let mut draining = false;
        loop {
            let rotation = sleep(self.core.until_rotation());
            tokio::select! {
                bytes = receiver.next() => self.receive(&bytes?).await?,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(stream) => drop(self.streams.remove(&stream)),
                    // A panic is a bug; its stream has no END, so the link cannot go on.
                    Err(_) => return Err(LinkError::BrokenOff),
                },
                () = rotation => {
                    let key = self.core.rotate_key()?;
                    self.send(0, &Message::Statement(key.statement().bytes())).await?;
                }
                () = self.broken.cancelled() => return Err(LinkError::BrokenOff),
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    self.send(0, &Message::Capacity(0)).await?;
                    self.slots.close();
                    let arriving: Vec<_> = self.streams.extract_if(|_, stream| stream.arriving.is_some()).collect();
                    for (id, _) in arriving {
                        self.refuse(id, ProblemCode::Overloaded).await?;
                    }
                }
            }
            if draining && self.streams.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for the exchanges: each signs its receipt.
    async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    async fn receive(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let (stream, message) = parse(bytes)?;
        match message {
            Message::Request(piece) => self.request(stream, piece, false).await,
            Message::RequestEnd(piece) => self.request(stream, piece, true).await,
            Message::Cancel => {
                let Some(Stream { arriving, cancelled, .. }) = self.streams.get(&stream) else { return Ok(()) };
                cancelled.cancel();
                // An exchange that runs ends its stream itself.
                if arriving.is_some() {
                    self.streams.remove(&stream);
                    self.send(stream, &Message::End).await?;
                }
                Ok(())
            }
            Message::Credit(bytes) => match self.streams.get(&stream) {
                Some(stream) if !stream.credit.grant(bytes) => Err(LinkError::Protocol("too much CREDIT")),
                _ => Ok(()),
            },
            Message::Listed(_) => {
                self.core.set_link_state(LinkState::Listed);
                Ok(())
            }
            Message::Rejected(problem) => Err(rejected(problem)),
            _ => Err(LinkError::Protocol("a message that only providers send")),
        }
    }

    async fn request(&mut self, id: u32, piece: &[u8], last: bool) -> Result<(), LinkError> {
        if id > self.last_stream {
            self.last_stream = id;
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                return self.refuse(id, ProblemCode::Overloaded).await;
            };
            let stream =
                Stream { arriving: Some((Vec::new(), slot)), credit: Credit::new(), cancelled: CancellationToken::new() };
            self.streams.insert(id, stream);
        }
        // A stream that was refused or cancelled while its request was still arriving.
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some((arriving, _)) = &mut stream.arriving else {
            return Err(LinkError::Protocol("request bytes after REQUEST_END"));
        };
        if arriving.len() + piece.len() > MAX_REQUEST_LEN {
            self.streams.remove(&id);
            return self.refuse(id, ProblemCode::RequestTooLarge).await;
        }
        arriving.extend_from_slice(piece);
        if last && let Some((request, slot)) = stream.arriving.take() {
            let out = Outgoing {
                stream: id,
                messages: self.sender.messages.clone(),
                credit: stream.credit.clone(),
                cancelled: stream.cancelled.clone(),
                link: self.broken.clone(),
                slot,
            };
            let core = Arc::clone(self.core);
            self.tasks.spawn(async move {
                exchange::serve(&core, request, out).await;
                id
            });
        }
        Ok(())
    }

    async fn refuse(&self, stream: u32, code: ProblemCode) -> Result<(), LinkError> {
        self.core.counters.refused(code);
        let problem = Problem::new(code);
        let json = serde_json::to_vec(&problem).expect("a problem is strings and numbers");
        self.send(stream, &Message::Refused { status: problem.status, problem: &json }).await
    }

    async fn send(&self, stream: u32, message: &Message<'_>) -> Result<(), LinkError> {
        self.sender.send(message.to_bytes(stream)).await
    }
}

fn parse(bytes: &[u8]) -> Result<(u32, Message<'_>), LinkError> {
    Message::parse(bytes).map_err(LinkError::Malformed)
}

/// The gateway's problem, or a plain one when it sent something else.
fn rejected(problem: &[u8]) -> LinkError {
    let problem = serde_json::from_slice(problem).unwrap_or_else(|_| Problem::new(ProblemCode::InternalError));
    LinkError::Rejected(Box::new(problem))
}
