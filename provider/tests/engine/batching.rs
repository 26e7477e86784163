//! Admission, cancellation, pauses, failures and shutdown, token by token.

use fanlight_provider::engine::{
    Engine, FinishReason, GenerationFailure, Limits, MAX_PENDING_PIECES, SubmitError, Usage, scripted,
};

use crate::{Outcome, ask_script, piece, read};

fn limits(max_running: usize, max_waiting: usize) -> Limits {
    Limits { max_running, max_waiting, ..Limits::default() }
}

fn echo(message: &str) -> String {
    message.to_owned()
}

#[tokio::test]
async fn the_script_answers() {
    let engine = scripted::start(Limits::default(), |message| format!("You said: {message}")).unwrap();
    let answer = read(engine.submit(ask_script("naïve 🦀")).unwrap()).await;
    assert_eq!(answer.text, "You said: naïve 🦀");
    assert_eq!(answer.outcome, Outcome::Finished(FinishReason::Stop));
}

#[tokio::test]
async fn requests_join_a_running_batch() {
    let (engine, gate) = scripted::start_gated(Limits::default(), echo).unwrap();
    let mut first = engine.submit(ask_script("1 2 3 4")).unwrap();
    gate.step(2);
    assert_eq!(piece(&mut first).await, "1");
    assert_eq!(piece(&mut first).await, " ");
    let mut second = engine.submit(ask_script("5 6")).unwrap();
    drop(gate);
    assert_eq!(piece(&mut second).await, "5");
    assert_eq!(read(first).await.text, "2 3 4");
    assert_eq!(read(second).await.text, " 6");
    // The first answer is 7 tokens and an end, of which the prompt's own step gives one. Every step
    // of the second was one of these.
    assert_eq!(engine.stats().decode_steps, 7);
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (engine, gate) = scripted::start_gated(limits(1, 1), echo).unwrap();
    let running = engine.submit(ask_script("one")).unwrap();
    let waiting = engine.submit(ask_script("two")).unwrap();
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting), (1, 1));
    assert!(matches!(engine.submit(ask_script("three")), Err(SubmitError::Busy)));
    drop(gate);
    assert_eq!(read(running).await.text, "one");
    assert_eq!(read(waiting).await.text, "two");
    assert_eq!(read(engine.submit(ask_script("three")).unwrap()).await.text, "three");
}

#[tokio::test]
async fn cache_tokens_are_reserved_before_a_request_runs() {
    let tight = Limits { max_running: 8, max_waiting: 8, cache_tokens: 60 };
    let (engine, gate) = scripted::start_gated(tight, echo).unwrap();
    let mut request = ask_script("one");
    request.max_output_tokens = Some(40);
    let first = engine.submit(request.clone()).unwrap();
    let second = engine.submit(request.clone()).unwrap();
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting), (1, 1), "two do not fit into 60 tokens");
    assert_eq!(stats.reserved_tokens, first.input_tokens() as usize + 40);
    request.max_output_tokens = Some(60);
    assert!(matches!(engine.submit(request), Err(SubmitError::ContextExceeded { limit_tokens: 60, .. })));
    drop(gate);
    assert_eq!(read(first).await.text, "one");
    assert_eq!(read(second).await.text, "one");
    assert_eq!(engine.stats().reserved_tokens, 0);
}

#[tokio::test]
async fn dropping_a_stream_frees_its_slot() {
    let (engine, gate) = scripted::start_gated(limits(1, 1), echo).unwrap();
    let mut first = engine.submit(ask_script("1 2 3 4 5 6 7 8 9")).unwrap();
    gate.step(1);
    assert_eq!(piece(&mut first).await, "1");
    let second = engine.submit(ask_script("ok")).unwrap();
    let sampled = engine.stats().sampled_tokens;
    drop(first);
    drop(gate);
    assert_eq!(read(second).await.text, "ok");
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.reserved_tokens), (0, 0, 0));
    // At most the step in hand went to the cancelled request.
    let own = 1 + engine.model().tokenise("ok").unwrap().len() as u64;
    assert!(stats.sampled_tokens - sampled <= own + 1, "{stats:?}");
}

#[tokio::test]
async fn dropping_a_waiting_stream_leaves_the_queue() {
    let (engine, gate) = scripted::start_gated(limits(1, 2), echo).unwrap();
    let first = engine.submit(ask_script("one")).unwrap();
    let second = engine.submit(ask_script("two")).unwrap();
    let third = engine.submit(ask_script("three")).unwrap();
    drop(second);
    drop(gate);
    assert_eq!(read(first).await.text, "one");
    assert_eq!(read(third).await.text, "three");
    assert_eq!(engine.stats().waiting, 0);
    assert_eq!(
        engine.stats().prefill_tokens,
        ["one", "three"].iter().map(|text| 8 + engine.model().tokenise(text).unwrap().len() as u64).sum::<u64>(),
        "the second was never computed"
    );
}

#[tokio::test]
async fn an_aborted_request_reports_its_usage() {
    let (engine, gate) = scripted::start_gated(limits(1, 1), echo).unwrap();
    let mut running = engine.submit(ask_script("1 2 3 4")).unwrap();
    let waiting = engine.submit(ask_script("later")).unwrap();
    gate.step(2);
    assert_eq!(piece(&mut running).await, "1");
    assert_eq!(piece(&mut running).await, " ");
    waiting.abort();
    running.abort();
    drop(gate);
    let input = running.input_tokens();
    let answer = read(running).await;
    assert_eq!(answer.outcome, Outcome::Finished(FinishReason::Aborted));
    assert_eq!(answer.usage.input, input);
    // The step in hand when the abort came may still have yielded a token.
    assert!((2..=3).contains(&answer.usage.output), "{answer:?}");
    let input = waiting.input_tokens();
    assert_eq!(read(waiting).await.usage, Usage { input, ..Usage::default() });
}

#[tokio::test]
async fn a_slow_consumer_pauses_only_itself() {
    let long = "1".repeat(3 * MAX_PENDING_PIECES);
    let engine = scripted::start(limits(2, 0), echo).unwrap();
    let slow = engine.submit(ask_script(&long)).unwrap();
    // Long enough to fill the other's queue several times over.
    for _ in 0..3 {
        assert_eq!(read(engine.submit(ask_script(&long)).unwrap()).await.text, long);
    }
    let sampled = 3 * (long.len() + 1) + MAX_PENDING_PIECES;
    assert_eq!(engine.stats().sampled_tokens, sampled as u64);
    assert_eq!(engine.stats().running, 1);
    assert_eq!(read(slow).await.text, long);
}

#[tokio::test]
async fn a_paused_request_can_be_dropped() {
    let long = "1".repeat(3 * MAX_PENDING_PIECES);
    let engine = scripted::start(limits(1, 1), echo).unwrap();
    let mut paused = engine.submit(ask_script(&long)).unwrap();
    piece(&mut paused).await;
    let next = engine.submit(ask_script("next")).unwrap();
    drop(paused);
    assert_eq!(read(next).await.text, "next");
}

#[tokio::test]
async fn a_failing_device_fails_its_batch_and_the_engine_goes_on() {
    let (engine, gate) = scripted::start_gated(Limits::default(), echo).unwrap();
    let mut first = engine.submit(ask_script("1 2 3")).unwrap();
    gate.step(1);
    assert_eq!(piece(&mut first).await, "1");
    gate.fail();
    let answer = read(first).await;
    assert_eq!(answer.outcome, Outcome::Failed(GenerationFailure::Backend));
    assert_eq!(answer.usage.output, 1);
    drop(gate);
    assert_eq!(read(engine.submit(ask_script("again")).unwrap()).await.text, "again");
    assert_eq!(engine.stats().running, 0);
}

#[tokio::test]
async fn shutting_down_ends_every_stream() {
    let (engine, gate) = scripted::start_gated(limits(1, 1), echo).unwrap();
    let mut running = engine.submit(ask_script("1 2 3")).unwrap();
    let waiting = engine.submit(ask_script("later")).unwrap();
    gate.step(1);
    assert_eq!(piece(&mut running).await, "1");
    let stopping = tokio::task::spawn_blocking(move || drop(engine));
    drop(gate);
    stopping.await.expect("the engine's thread is joined");
    let waited = read(waiting).await;
    for outcome in [read(running).await.outcome, waited.outcome] {
        // Unless the last steps finished it first, it was cut off.
        assert!(
            [Outcome::Failed(GenerationFailure::Stopped), Outcome::Finished(FinishReason::Stop),].contains(&outcome),
            "{outcome:?}"
        );
    }
}
