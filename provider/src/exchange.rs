//! One request on one stream: open, check, generate, seal, sign (SPEC §4.4, §5, §7.3).

use std::sync::Arc;
use std::time::Duration;

use fanlight_protocol::entry::{ReceiptDetails, Status, Usage};
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::request::{CHAT_COMPLETIONS, HeaderFields};
use fanlight_protocol::response::{Frame, FrameType, ReceiptPayload};
use fanlight_protocol::{Digest, KeyId, RequestId, UnixTime};
use fanlight_sealing::{KemKey, OpenError, OpenedRequest, ResponseSealer, ResponseStart, open_request};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

use crate::api::{ChatAnswer, ChatRequest, ChatStream, InnerError, parse_chat_request};
use crate::daemon::Core;
use crate::engine::{FinishReason, GenerationEvent, GenerationStream, Usage as EngineUsage};
use crate::keys::LiveKey;
use crate::link::{Gone, Outgoing};
use crate::receipts::ReceiptDraft;

/// How long streamed text is gathered after the first token. An observer sees one padded frame for many tokens.
const GATHER: Duration = Duration::from_millis(50);
/// A PING is sent after this much silence.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Serves one encapsulated request to its end. Every path ends the stream on the link.
pub(crate) async fn serve(core: &Arc<Core>, request: Vec<u8>, out: Outgoing) {
    // Key agreement, megabytes of ciphertext and their tokens take too long for a thread that other streams wait for.
    let begun = tokio::task::spawn_blocking({
        let core = Arc::clone(core);
        move || begin(&core, &request)
    });
    let Begun { record, response, outcome } = match begun.await.expect("beginning neither panics nor is cancelled") {
        Ok(begun) => begun,
        Err(error) => return refuse(core, &error, out).await,
    };
    let mut answer = Answer::new(out, response, &record);
    let ended = match outcome {
        Ok((shape, generation)) => answer.generate(shape, generation).await,
        Err(error) => answer.fail(&error).await,
    };
    conclude(core, record, answer, ended).await;
}

/// A request that was opened: from here on there will be a receipt.
struct Begun {
    record: Record,
    response: ResponseStart,
    outcome: Result<(ChatShape, GenerationStream), InnerError>,
}

/// All checks of SPEC §4.4, in their order; the message is cleared at the end.
fn begin(core: &Core, request: &[u8]) -> Result<Begun, OpenError> {
    let (opened, key) = open(core, request)?;
    let record = Record {
        fields: opened.header().fields().clone(),
        request_hash: *opened.request_hash(),
        started: core.now(),
        statement_digest: key.statement().digest(),
    };
    let chat = parse(core, &record.fields, opened.message());
    let response = opened.into_response_keys().start(&mut core.rng());
    let outcome = chat.and_then(|chat| submit(core, &record.fields, chat));
    Ok(Begun { record, response, outcome })
}

/// Refusals 1 to 6 of SPEC §4.4.
fn open(core: &Core, request: &[u8]) -> Result<(OpenedRequest, Arc<LiveKey>), OpenError> {
    let now = core.now();
    let live = core.keys.live(now);
    let find = |key_id: &KeyId| live.iter().find(|key| key.key_id() == key_id);
    let opened = open_request(
        request,
        now,
        |key_id| find(key_id).map(|key| KemKey { dh: &**key.kem(), statement_digest: key.statement().digest() }),
        |key_id, enc| find(key_id).is_some_and(|key| key.claim(enc)),
    )?;
    let key = find(&opened.recipient().key_id).cloned().ok_or(OpenError::UnknownKey)?;
    Ok((opened, key))
}

async fn refuse(core: &Core, error: &OpenError, out: Outgoing) {
    let reason = match error {
        OpenError::TooLarge => ProblemCode::RequestTooLarge,
        OpenError::Malformed(_) => ProblemCode::MalformedRequest,
        OpenError::Expired => ProblemCode::ExpiredRequest,
        OpenError::UnknownKey => ProblemCode::UnknownKey,
        OpenError::Replayed => ProblemCode::ReplayedRequest,
        OpenError::Rejected => ProblemCode::RejectedRequest,
        _ => ProblemCode::InternalError,
    };
    core.counters.refused(reason);
    tracing::info!(reason = reason.as_str(), "refused a request");
    // When the link is gone the gateway has already told the client.
    let _ = out.refuse(&Problem::new(reason)).await;
}

/// Refusal 7 of SPEC §4.4: the message must say what the clear header says.
fn parse(core: &Core, fields: &HeaderFields, message: &[u8]) -> Result<ChatRequest, InnerError> {
    if fields.operation != CHAT_COMPLETIONS {
        return Err(InnerError {
            status: 404,
            message: "This provider does not serve the operation.".to_owned(),
            param: None,
            code: "operation_not_found",
        });
    }
    let mut chat = parse_chat_request(message, core.random_u64())?;
    if chat.generation.model != fields.model {
        return Err(InnerError::header_mismatch("model"));
    }
    if chat.stream != fields.stream {
        return Err(InnerError::header_mismatch("stream"));
    }
    if chat.generation.max_output_tokens.is_some_and(|limit| limit != fields.max_output_tokens) {
        return Err(InnerError::header_mismatch("max_completion_tokens"));
    }
    // A message without a limit takes what the context has left, up to what the header allows.
    chat.generation.output_cap = Some(fields.max_output_tokens);
    Ok(chat)
}

/// Hands the request to the engine; then refusal 8 of SPEC §4.4, which needs the token count.
fn submit(core: &Core, fields: &HeaderFields, chat: ChatRequest) -> Result<(ChatShape, GenerationStream), InnerError> {
    let shape = ChatShape { stream: chat.stream, include_usage: chat.include_usage };
    let generation = core.engine.submit(chat.generation)?;
    let interval = fields.input_tokens_min..=fields.input_tokens_max;
    if interval.contains(&generation.input_tokens()) {
        Ok((shape, generation))
    } else {
        Err(InnerError::header_mismatch("messages"))
    }
}

/// What the answer must look like.
struct ChatShape {
    stream: bool,
    include_usage: bool,
}

/// How an exchange went, as its receipt says.
struct Ended {
    status: Status,
    finish_reason: &'static str,
    usage: Usage,
}

impl Ended {
    const fn aborted(usage: Usage) -> Self {
        Self { status: Status::Aborted, finish_reason: "aborted", usage }
    }

    const fn failed(usage: Usage) -> Self {
        Self { status: Status::Failed, finish_reason: "error", usage }
    }
}

/// What the receipt needs beside [`Ended`].
struct Record {
    fields: HeaderFields,
    request_hash: Digest,
    started: UnixTime,
    statement_digest: Digest,
}

/// Where the sealing of an answer stands. The prefix leaves with the first frame, so that until then a gateway may still
/// turn to another recipient.
enum Sealing {
    /// Nothing was sealed; the bool tells whether the prefix has left, which a PING may cause.
    Start(ResponseStart, bool),
    Open(ResponseSealer),
    Done(Digest),
    /// Only inside [`Answer::seal`].
    Taken,
}

struct Answer {
    out: Outgoing,
    sealing: Sealing,
    request_id: RequestId,
    model: String,
    started: UnixTime,
    last_sent: Instant,
    /// What the generation took, once it has ended.
    usage: Option<Usage>,
}

impl Answer {
    fn new(out: Outgoing, response: ResponseStart, record: &Record) -> Self {
        let Record { fields, started, .. } = record;
        Self {
            out,
            sealing: Sealing::Start(response, false),
            request_id: fields.request_id,
            model: fields.model.clone(),
            started: *started,
            last_sent: Instant::now(),
            usage: None,
        }
    }

    async fn generate(&mut self, shape: ChatShape, mut generation: GenerationStream) -> Ended {
        let input = Usage { input: generation.input_tokens(), ..Usage::default() };
        let ended = if shape.stream {
            self.stream(shape.include_usage, &mut generation).await
        } else {
            self.whole(&mut generation).await
        };
        if let Ok(ended) = ended {
            return ended;
        }
        if let Some(usage) = self.usage {
            return Ended::aborted(usage);
        }
        generation.abort();
        Ended::aborted(usage_at_end(generation).await.unwrap_or(input))
    }

    async fn stream(&mut self, include_usage: bool, generation: &mut GenerationStream) -> Result<Ended, Gone> {
        let mut events = ChatStream::new(&self.request_id, self.started, &self.model, include_usage);
        let mut gathered = Zeroizing::new(String::new());
        let mut flush_at = None;
        loop {
            let event = self.next_event(generation, flush_at).await?;
            if let Some(GenerationEvent::Text { text, .. }) = &event {
                gathered.push_str(text);
                if self.has_sealed() {
                    flush_at.get_or_insert_with(|| Instant::now() + GATHER);
                    continue;
                }
                // The first token leaves at once: there is nothing that it could wait for.
            }
            let mut content = if gathered.is_empty() { Zeroizing::default() } else { events.text(&gathered) };
            gathered = Zeroizing::default();
            flush_at = None;
            match event {
                None | Some(GenerationEvent::Text { .. }) => self.seal(200, &content).await?,
                Some(GenerationEvent::Finished { reason, usage }) => {
                    content.extend_from_slice(&events.finish(reason, usage));
                    self.seal_final(200, &content).await?;
                    return Ok(complete(reason, usage));
                }
                Some(GenerationEvent::Failed { usage, .. }) => {
                    let error = InnerError::engine_failed();
                    if self.has_sealed() || !content.is_empty() {
                        content.extend_from_slice(&events.fail(&error));
                        self.seal_final(200, &content).await?;
                    } else {
                        self.seal_final(error.status, &error.to_json()).await?;
                    }
                    return Ok(Ended::failed(usage.into()));
                }
            }
        }
    }

    async fn whole(&mut self, generation: &mut GenerationStream) -> Result<Ended, Gone> {
        let mut answer = ChatAnswer::new(&self.request_id, self.started, &self.model);
        loop {
            match self.next_event(generation, None).await? {
                None => {}
                Some(GenerationEvent::Text { text, .. }) => answer.push(&text),
                Some(GenerationEvent::Finished { reason, usage }) => {
                    self.seal_final(200, &answer.finish(reason, usage)).await?;
                    return Ok(complete(reason, usage));
                }
                Some(GenerationEvent::Failed { usage, .. }) => {
                    let error = InnerError::engine_failed();
                    self.seal_final(error.status, &error.to_json()).await?;
                    return Ok(Ended::failed(usage.into()));
                }
            }
        }
    }

    async fn fail(&mut self, error: &InnerError) -> Ended {
        match self.seal_final(error.status, &error.to_json()).await {
            Ok(()) => Ended::failed(Usage::default()),
            Err(Gone) => Ended::aborted(Usage::default()),
        }
    }

    /// The next event, or `None` once `flush_at` is past. Sends PINGs meanwhile.
    async fn next_event(
        &mut self,
        generation: &mut GenerationStream,
        flush_at: Option<Instant>,
    ) -> Result<Option<GenerationEvent>, Gone> {
        loop {
            let ping_at = self.last_sent + PING_AFTER;
            tokio::select! {
                // Text that is due leaves before more is taken, or a fast model would hold it back for ever.
                biased;
                () = self.out.stopped() => return Err(Gone),
                () = sleep_until(flush_at.unwrap_or(ping_at)), if flush_at.is_some() => return Ok(None),
                // Callers do not read past the event that ends the stream.
                event = generation.next() => {
                    if let Some(GenerationEvent::Finished { usage, .. } | GenerationEvent::Failed { usage, .. }) = event {
                        self.usage = Some(usage.into());
                    }
                    return event.map(Some).ok_or(Gone);
                }
                () = sleep_until(ping_at) => self.ping().await?,
            }
        }
    }

    const fn has_sealed(&self) -> bool {
        !matches!(self.sealing, Sealing::Start(..))
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        self.send_prefix().await?;
        self.out.frame(&Frame { frame_type: FrameType::Ping, payload: &[] }.to_bytes()).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    async fn seal(&mut self, status: u16, content: &[u8]) -> Result<(), Gone> {
        self.send_prefix().await?;
        let mut sealer = self.take_sealer(status)?;
        let frames = sealer.seal_data(content);
        self.sealing = Sealing::Open(sealer);
        self.send_sealed(&frames).await
    }

    async fn seal_final(&mut self, status: u16, content: &[u8]) -> Result<(), Gone> {
        self.send_prefix().await?;
        let (frames, response_hash) = self.take_sealer(status)?.seal_final(content);
        self.sealing = Sealing::Done(response_hash);
        self.send_sealed(&frames).await
    }

    fn take_sealer(&mut self, status: u16) -> Result<ResponseSealer, Gone> {
        match std::mem::replace(&mut self.sealing, Sealing::Taken) {
            Sealing::Start(start, _) => Ok(start.with_status(status)),
            Sealing::Open(sealer) => Ok(sealer),
            Sealing::Done(_) | Sealing::Taken => Err(Gone),
        }
    }

    async fn send_prefix(&mut self) -> Result<(), Gone> {
        if let Sealing::Start(start, sent @ false) = &mut self.sealing {
            self.out.prefix(start.prefix()).await?;
            *sent = true;
        }
        Ok(())
    }

    async fn send_sealed(&mut self, frames: &[Vec<u8>]) -> Result<(), Gone> {
        for frame in frames {
            // A client that reads slowly still hears that its provider lives.
            loop {
                match timeout_at(self.last_sent + PING_AFTER, self.out.credit(frame.len())).await {
                    Ok(granted) => break granted?,
                    Err(_) => self.ping().await?,
                }
            }
            self.out.frame(frame).await?;
            self.last_sent = Instant::now();
        }
        Ok(())
    }

    /// `response_hash` of what was sealed so far.
    fn response_hash(&self) -> Digest {
        match &self.sealing {
            Sealing::Start(start, _) => start.response_hash(),
            Sealing::Open(sealer) => sealer.response_hash(),
            Sealing::Done(digest) => *digest,
            Sealing::Taken => Digest::ZERO,
        }
    }
}

/// Signs the receipt and ends the stream. Without a receipt there is no END: the client must not take the answer for whole.
async fn conclude(core: &Core, record: Record, answer: Answer, ended: Ended) {
    let Record { fields, request_hash, started, statement_digest } = record;
    // A clock that was set back meanwhile must not make the receipt contradict itself.
    let now = core.now().max(started);
    let weights_digest = core.terms.models.iter().find(|m| m.name == fields.model).map_or(Digest::ZERO, |m| m.weights_digest);
    let details = ReceiptDetails {
        request_id: fields.request_id,
        request_hash,
        response_hash: answer.response_hash(),
        model: fields.model,
        weights_digest,
        build_measurement: core.terms.build_measurement,
        usage: ended.usage,
        status: ended.status,
        finish_reason: ended.finish_reason.to_owned(),
        started,
        ended: now,
    };
    let signed = match core.receipts.sign(ReceiptDraft { statement_digest, time: now, details }).await {
        Ok(signed) => signed,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no receipt");
            core.counters.receipt_failed();
            return answer.out.break_off();
        }
    };
    core.counters.ended(ended.status, ended.usage);
    let payload = ReceiptPayload { receipt: signed.receipt.bytes(), details: &signed.details, blind: signed.blind }.to_bytes();
    // A link that is gone takes no receipt; the journal has it and it goes out with the next link.
    let frame = Frame { frame_type: FrameType::Receipt, payload: &payload }.to_bytes();
    let _ = answer.out.last(&frame).await;
}

fn complete(reason: FinishReason, usage: EngineUsage) -> Ended {
    let finish_reason = match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Aborted => "stop",
    };
    Ended { status: Status::Complete, finish_reason, usage: usage.into() }
}

/// What an aborted generation had taken; the engine answers at its next step.
async fn usage_at_end(mut generation: GenerationStream) -> Option<Usage> {
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Text { .. } => {}
            GenerationEvent::Finished { usage, .. } | GenerationEvent::Failed { usage, .. } => return Some(usage.into()),
        }
    }
    None
}

impl From<EngineUsage> for Usage {
    fn from(usage: EngineUsage) -> Self {
        let EngineUsage { input, cached, output, reasoning } = usage;
        Self { input, cached_input: cached, output, reasoning }
    }
}
