//! The engine through its public API: the built-in model against an independent implementation,
//! and batching, admission and cancellation against a scripted backend.

mod batching;
mod files;
mod model;
mod stepping;

use fanlight_provider::engine::{
    FinishReason, GenerationEvent, GenerationFailure, GenerationRequest, GenerationStream, Role, Usage, builtin, scripted,
};
use futures_util::StreamExt;

/// How a stream ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    Finished(FinishReason),
    Failed(GenerationFailure),
}

/// A whole answer.
#[derive(Debug, PartialEq)]
struct Answer {
    text: String,
    outcome: Outcome,
    usage: Usage,
}

/// Reads `stream` to its end.
async fn read(mut stream: GenerationStream) -> Answer {
    let mut text = String::new();
    loop {
        let event = stream.next().await.expect("a stream ends with an event");
        let (outcome, usage) = match event {
            GenerationEvent::Text { text: piece, .. } => {
                assert!(!piece.is_empty());
                text.push_str(&piece);
                continue;
            }
            GenerationEvent::Finished { reason, usage } => (Outcome::Finished(reason), usage),
            GenerationEvent::Failed { failure, usage } => (Outcome::Failed(failure), usage),
            other => panic!("unknown event {other:?}"),
        };
        assert!(stream.next().await.is_none(), "nothing follows the end");
        return Answer { text, outcome, usage };
    }
}

/// The next piece of text.
async fn piece(stream: &mut GenerationStream) -> String {
    match stream.next().await {
        Some(GenerationEvent::Text { text, .. }) => text.to_string(),
        other => panic!("expected text, got {other:?}"),
    }
}

/// A greedy question to the built-in model.
fn ask(question: &str) -> GenerationRequest {
    GenerationRequest::chat(builtin::MODEL_NAME, [(Role::User, question)])
}

/// A question to the scripted engine.
fn ask_script(question: &str) -> GenerationRequest {
    GenerationRequest::chat(scripted::MODEL_NAME, [(Role::User, question)])
}
