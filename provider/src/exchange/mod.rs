//! One request on one stream: open, check, generate, seal, sign (SPEC §4.4, §5, §7.3).

mod answer;

use std::sync::Arc;

use fanlight_protocol::entry::{ReceiptDetails, Status, Usage};
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::request::{CHAT_COMPLETIONS, HeaderFields};
use fanlight_protocol::response::{Frame, FrameType, ReceiptPayload};
use fanlight_protocol::{Digest, KeyId, UnixTime};
use fanlight_sealing::{KemKey, OpenError, OpenedRequest, ResponseStart, open_request};

use self::answer::Answer;
use crate::api::{ChatRequest, InnerError, parse_chat_request};
use crate::daemon::Core;
use crate::engine::GenerationStream;
use crate::keys::LiveKey;
use crate::link::Outgoing;
use crate::receipts::ReceiptDraft;

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
            return answer.into_outgoing().break_off();
        }
    };
    core.counters.ended(ended.status, ended.usage);
    let payload = ReceiptPayload { receipt: signed.receipt.bytes(), details: &signed.details, blind: signed.blind }.to_bytes();
    // A link that is gone takes no receipt; the journal has it and it goes out with the next link.
    let frame = Frame { frame_type: FrameType::Receipt, payload: &payload }.to_bytes();
    let _ = answer.into_outgoing().last(&frame).await;
}
