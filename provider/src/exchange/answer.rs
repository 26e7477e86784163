//! The answer to one request: generated, gathered, sealed, sent within the stream's credit (SPEC §5).

use std::time::Duration;

use fanlight_protocol::entry::{Status, Usage};
use fanlight_protocol::response::{Frame, FrameType};
use fanlight_protocol::{Digest, RequestId, UnixTime};
use fanlight_sealing::{ResponseSealer, ResponseStart};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

use super::{ChatShape, Ended, Record};
use crate::api::{ChatAnswer, ChatStream, InnerError};
use crate::engine::{FinishReason, GenerationEvent, GenerationStream, Usage as EngineUsage};
use crate::link::{Gone, Outgoing};

/// How long streamed text is gathered after the first token. An observer sees one padded frame for many tokens.
const GATHER: Duration = Duration::from_millis(50);
/// A PING is sent after this much silence.
const PING_AFTER: Duration = Duration::from_secs(5);

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

pub(super) struct Answer {
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
    pub(super) fn new(out: Outgoing, response: ResponseStart, record: &Record) -> Self {
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

    pub(super) async fn generate(&mut self, shape: ChatShape, mut generation: GenerationStream) -> Ended {
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

    pub(super) async fn fail(&mut self, error: &InnerError) -> Ended {
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

    /// What is left to end the stream with.
    pub(super) fn into_outgoing(self) -> Outgoing {
        self.out
    }

    /// `response_hash` of what was sealed so far.
    pub(super) fn response_hash(&self) -> Digest {
        match &self.sealing {
            Sealing::Start(start, _) => start.response_hash(),
            Sealing::Open(sealer) => sealer.response_hash(),
            Sealing::Done(digest) => *digest,
            Sealing::Taken => Digest::ZERO,
        }
    }
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
