//! One provider's WebSocket: a task that owns the core's link, and one that writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use fanlight_gateway::enrol::LoggedEnrolment;
use fanlight_gateway::link::{Event, Link, LinkError, StreamRequest};
use fanlight_gateway::metrics::Counter;
use fanlight_gateway::registry::{Connection, LoggedStatement, Slot};
use fanlight_gateway::{Host, LogError, Outgoing, RequestError};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::app::App;
use crate::append::{append_patiently, log_receipt};
use crate::relay::Piece;

/// Messages that wait for the socket; with [`fanlight_protocol::link::MAX_MESSAGE_LEN`] about 1 MiB.
const MAX_OUTBOX: usize = 16;
/// Receipts sent again that one link may have waiting for the log.
const MAX_RESENT: usize = 256;
/// How often waits are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Silence after which the provider is pinged (SPEC §8.1).
const PING_AFTER: Duration = Duration::from_secs(10);
/// Silence after which the provider counts as gone (SPEC §8.1).
const GONE_AFTER: Duration = Duration::from_secs(30);
/// Longest time for the last messages of a link to leave.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);
/// Longest time that a link which retires may go on with its open streams.
const RETIRE_WAIT: Duration = Duration::from_mins(10);

/// What the rest of the gateway tells a link's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// The client is gone.
    Abort { ticket: u64 },
    /// The client has taken bytes.
    Consumed { ticket: u64, n: usize, sealed: bool },
    /// The log has answered an enrolment.
    Enrolled(Result<Box<LoggedEnrolment>, LogError>),
    /// The log has answered a new key statement.
    Listed(Result<Arc<LoggedStatement>, LogError>),
    /// Send a request.
    Open { ticket: u64, request: Box<Outgoing<LinkHandle>>, client: mpsc::UnboundedSender<Piece> },
    /// A newer connection of the provider took its place: finish what is open, then end.
    Retire,
}

/// The way to a link's task.
#[derive(Clone, Debug)]
pub(crate) struct LinkHandle {
    // Unbounded in type. For each stream it holds at most one opening, one abort, and one consumption for each frame
    // that the stream's credit allowed; streams are bounded by the provider's capacity.
    commands: mpsc::UnboundedSender<Command>,
    next_ticket: Arc<AtomicU64>,
}

impl LinkHandle {
    /// Names a stream before the link has numbered it.
    pub(crate) fn next_ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// A link that has ended hears nothing: its streams have ended with it.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Closed {
    #[error("provider broke the protocol")]
    Broken(#[source] LinkError),
    #[error("provider closed the connection")]
    ByProvider,
    #[error("log is not available")]
    Log(#[source] LogError),
    #[error("nothing was heard of the provider")]
    Silence,
    #[error("connection failed, or carried a message above the limit")]
    Socket,
    #[error("gateway stopped using the connection")]
    Retired,
}

impl Closed {
    const fn reason(self) -> &'static str {
        match self {
            Self::Broken(error) => error.reason(),
            Self::ByProvider => "by_provider",
            Self::Log(_) => "log",
            Self::Silence => "silence",
            Self::Socket => "socket",
            Self::Retired => "retired",
        }
    }

    /// What the provider is told before the connection closes.
    fn last_words(self) -> Option<Bytes> {
        match self {
            Self::Broken(error) => Some(Link::rejected(&error.problem()).into()),
            Self::Log(error) => Some(Link::rejected(&RequestError::Log(error).problem()).into()),
            Self::ByProvider | Self::Silence | Self::Socket | Self::Retired => None,
        }
    }
}

/// Speaks with one provider until the connection ends, and then frees its place.
pub(crate) async fn run(app: Arc<App>, socket: WebSocket, place: OwnedSemaphorePermit) {
    let mut nonce = [0; 32];
    if let Err(error) = getrandom::fill(&mut nonce) {
        tracing::error!(error = &error as &dyn std::error::Error, "no randomness for a challenge");
        return;
    }
    let (sink, incoming) = socket.split();
    let (outbox, messages) = mpsc::channel(MAX_OUTBOX);
    let mut writer = tokio::spawn(write(sink, messages));
    let (commands, inbox) = mpsc::unbounded_channel();
    let handle = LinkHandle { commands, next_ticket: Arc::default() };
    let started = Instant::now();
    let link = Link::accept(nonce, Duration::ZERO);
    let (connection, tickets, streams) = (None, HashMap::new(), HashMap::new());
    let (heard, pinged, resent) = (started, started, Arc::new(Semaphore::new(MAX_RESENT)));
    let (app_too, retiring) = (Arc::clone(&app), None);
    let mut driver =
        Driver { app: app_too, link, handle, connection, tickets, streams, started, heard, pinged, resent, retiring };
    let closed = driver.drive(incoming, inbox, &outbox).await.unwrap_or_else(|closed| closed);
    if let Some(connection) = &driver.connection {
        app.registry().remove(connection);
    }
    app.metrics().add(Counter::LinksClosed, closed.reason(), 1);
    tracing::info!(
        provider = driver.connection.as_ref().map(|c| c.provider_id().short()),
        reason = closed.reason(),
        error = &closed as &dyn std::error::Error,
        "link ended"
    );
    // Clients of streams that were open see now that their answers stopped.
    drop(driver);
    let last_words = async {
        if let Some(bytes) = closed.last_words() {
            // A writer that is gone needs no last words.
            let _ = outbox.send(Message::Binary(bytes)).await;
        }
        drop(outbox);
        let _ = (&mut writer).await;
    };
    if tokio::time::timeout(LAST_WORDS_WAIT, last_words).await.is_err() {
        writer.abort();
    }
    drop(place);
}

/// Writes until there is nothing more to come, then closes.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut messages: mpsc::Receiver<Message>) -> Result<(), axum::Error> {
    while let Some(message) = messages.recv().await {
        sink.feed(message).await?;
        if messages.is_empty() {
            sink.flush().await?;
        }
    }
    sink.close().await
}

/// One stream's client and the place it holds at the provider.
#[derive(Debug)]
struct Client {
    ticket: u64,
    // `None` once nothing more comes for the client.
    pieces: Option<mpsc::UnboundedSender<Piece>>,
    _slot: Slot<LinkHandle>,
}

impl Client {
    fn send(&self, piece: Piece) {
        if let Some(pieces) = &self.pieces {
            // A client that is gone has sent an abort, which is on its way here.
            let _ = pieces.send(piece);
        }
    }
}

#[derive(Debug)]
struct Driver {
    app: Arc<App>,
    link: Link,
    handle: LinkHandle,
    connection: Option<Arc<Connection<LinkHandle>>>,
    tickets: HashMap<u64, u32>,
    streams: HashMap<u32, Client>,
    started: Instant,
    heard: Instant,
    pinged: Instant,
    // Places for receipts sent again that wait for the log.
    resent: Arc<Semaphore>,
    // Since when the link only finishes what is open, and why.
    retiring: Option<(Instant, Closed)>,
}

impl Driver {
    async fn drive(
        &mut self,
        mut incoming: SplitStream<WebSocket>,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        outbox: &mpsc::Sender<Message>,
    ) -> Result<Closed, Closed> {
        let (stopping, killed) = (self.app.stopping.clone(), self.app.killed.clone());
        let mut ticks = tokio::time::interval(TICK);
        loop {
            if let Some((since, why)) = self.retiring
                && (self.link.open_streams() == 0 || since.elapsed() > RETIRE_WAIT)
            {
                return Ok(why);
            }
            tokio::select! {
                message = incoming.next() => self.hear(message)?,
                Some(command) = inbox.recv() => self.obey(command)?,
                permit = outbox.reserve(), if self.link.wants_to_transmit() => {
                    let permit = permit.map_err(|_| Closed::Socket)?;
                    if let Some(message) = self.link.poll_transmit(self.started.elapsed()) {
                        permit.send(Message::Binary(message.into()));
                    }
                }
                _ = ticks.tick() => self.tick(outbox)?,
                () = stopping.cancelled(), if self.retiring.is_none() => self.retiring = Some((Instant::now(), Closed::Retired)),
                () = killed.cancelled() => return Ok(Closed::Retired),
            }
        }
    }

    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Closed> {
        self.heard = Instant::now();
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Text(_))) => return Err(Closed::Broken(LinkError::Unexpected)),
            Some(Ok(Message::Close(_))) | None => return Err(Closed::ByProvider),
            Some(Err(_)) => return Err(Closed::Socket),
        };
        let event = self.link.receive(&bytes, self.app.now(), self.heard - self.started).map_err(Closed::Broken)?;
        if let Some(event) = event {
            self.act(event);
        }
        Ok(())
    }

    fn tick(&mut self, outbox: &mpsc::Sender<Message>) -> Result<(), Closed> {
        let now = Instant::now();
        if now - self.heard > GONE_AFTER {
            return Err(Closed::Silence);
        }
        if now - self.heard.max(self.pinged) >= PING_AFTER {
            self.pinged = now;
            // A full outbox means that the socket is being written to: as good as a ping.
            let _ = outbox.try_send(Message::Ping(Bytes::new()));
        }
        for event in self.link.tick(now - self.started).map_err(Closed::Broken)? {
            self.act(event);
        }
        Ok(())
    }

    fn act(&mut self, event: Event) {
        self.app.metrics().observe(&event);
        match event {
            Event::Capacity(capacity) => {
                if let Some(connection) = &self.connection {
                    self.app.registry().set_capacity(connection, capacity);
                }
            }
            Event::Ended { stream, .. } => self.forget(stream),
            Event::Frame { stream, frame, sealed } => self.send(stream, Piece::Part { bytes: frame, sealed }),
            Event::Hello(enrolment) => {
                let (app, handle) = (Arc::clone(&self.app), self.handle.clone());
                self.app.tasks.spawn(async move {
                    handle.tell(Command::Enrolled(enrolment.append(&*app).await.map(Box::new)));
                });
            }
            Event::Prefix { stream, prefix } => self.send(stream, Piece::Part { bytes: prefix, sealed: false }),
            Event::Receipt { stream, frame, complete, receipt } => {
                if let Some(frame) = frame {
                    self.send(stream, Piece::Part { bytes: frame, sealed: false });
                }
                // The client of a whole answer waits for the proof, also when the link ends meanwhile.
                let client = self.streams.get(&stream).and_then(|c| c.pieces.clone()).filter(|_| complete);
                self.app.tasks.spawn(log_receipt(Arc::clone(&self.app), receipt.entry(), client));
            }
            Event::Refused { stream, status, problem } => {
                self.send(stream, Piece::Refused { status, problem });
                self.forget(stream);
            }
            Event::Resent(entry) => {
                // A provider that sends faster than the log takes keeps the rest for its next connection.
                let Ok(place) = Arc::clone(&self.resent).try_acquire_owned() else {
                    self.app.metrics().add(Counter::ReceiptsLogged, "refused", 1);
                    return;
                };
                let app = Arc::clone(&self.app);
                self.app.tasks.spawn(async move {
                    log_receipt(app, entry, None).await;
                    drop(place);
                });
            }
            Event::Stalled => self.retire(Closed::Broken(LinkError::EndTimedOut)),
            Event::Statement(statement) => {
                let (app, handle) = (Arc::clone(&self.app), self.handle.clone());
                self.app.tasks.spawn(async move {
                    let appended = append_patiently(&app, Bytes::copy_from_slice(statement.bytes())).await;
                    let logged = appended.map(|proof| Arc::new(LoggedStatement { statement: *statement, proof }));
                    handle.tell(Command::Listed(logged));
                });
            }
            Event::TimedOut { stream } => {
                if let Some(client) = self.streams.get_mut(&stream) {
                    client.pieces = None;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Closed> {
        let now = self.started.elapsed();
        match command {
            Command::Abort { ticket } => {
                if let Some(&stream) = self.tickets.get(&ticket)
                    && let Some(ended) = self.link.cancel(stream, now)
                {
                    self.act(ended);
                }
            }
            Command::Consumed { ticket, n, sealed } => {
                if let Some(&stream) = self.tickets.get(&ticket) {
                    self.link.consumed(stream, n, sealed, now);
                }
            }
            Command::Enrolled(logged) => self.enrolled(*logged.map_err(Closed::Log)?),
            // What was sealed to the keys before is still answered.
            Command::Listed(Err(error)) => self.retire(Closed::Log(error)),
            Command::Listed(Ok(logged)) => {
                let Some(connection) = &self.connection else { return Ok(()) };
                let added = self.app.registry().add_statement(connection, Arc::clone(&logged), self.app.now());
                added.map_err(|error| Closed::Broken(LinkError::Statements(error)))?;
                self.link.listed(&logged.proof);
            }
            Command::Open { ticket, request, client } => {
                let Outgoing { slot, upload, request_id, model, statements } = *request;
                // A failure drops the client's sender, and another recipient is asked.
                if let Ok(stream) = self.link.open(StreamRequest { upload, request_id, model, statements }, now) {
                    self.tickets.insert(ticket, stream);
                    self.streams.insert(stream, Client { ticket, pieces: Some(client), _slot: slot });
                }
            }
            Command::Retire => self.retire(Closed::Retired),
        }
        Ok(())
    }

    fn enrolled(&mut self, logged: LoggedEnrolment) {
        let connection = Connection::new(logged, self.handle.clone());
        if let Some(superseded) = self.app.registry().insert(&connection) {
            superseded.link().tell(Command::Retire);
        }
        for logged in connection.statements() {
            self.link.welcome(connection.evidence().1, &logged.proof);
        }
        tracing::info!(provider = connection.provider_id().short(), capacity = connection.capacity(), "provider enrolled");
        self.connection = Some(connection);
    }

    /// No request more; what is open goes on.
    fn retire(&mut self, why: Closed) {
        if let Some(connection) = &self.connection {
            self.app.registry().remove(connection);
        }
        self.retiring.get_or_insert_with(|| (Instant::now(), why));
    }

    fn send(&self, stream: u32, piece: Piece) {
        if let Some(client) = self.streams.get(&stream) {
            client.send(piece);
        }
    }

    fn forget(&mut self, stream: u32) {
        if let Some(client) = self.streams.remove(&stream) {
            self.tickets.remove(&client.ticket);
        }
    }
}
