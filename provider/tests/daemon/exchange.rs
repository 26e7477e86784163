//! One exchange at a time: what is answered, what is refused and with which words (SPEC §4.4, §5, §7.3).

use fanlight_protocol::entry::Status;
use fanlight_protocol::problem::ProblemCode;
use fanlight_protocol::{Digest, UnixTime};
use fanlight_provider::engine::scripted;
use fanlight_sealing::{EnclaveDh, Recipient, SoftwareDh};
use rand_core::UnwrapErr;
use serde_json::json;

use crate::support::{Gateway, Sealed, ask, ask_streaming, echo, now, seal_to, start};

#[tokio::test]
async fn a_sealed_exchange_ends_with_a_receipt_for_exactly_its_bytes() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    assert_eq!(link.statement.signer().provider_id(), provider.provider_id());
    assert_eq!(link.capacity, 8);
    assert_eq!(link.evidence.claims["key_store"], "simulated enclave");

    let whole = link.chat(&ask("Good evening.")).await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "Good evening."));
    let offer = link.statement.offer(scripted::MODEL_NAME).unwrap();
    assert_eq!(whole.details.weights_digest, offer.weights_digest);
    assert_eq!(whole.details.build_measurement, link.statement.build_measurement);
    assert_eq!((whole.details.status, whole.details.finish_reason.as_str()), (Status::Complete, "stop"));
    assert_eq!(whole.json()["usage"]["completion_tokens"], whole.details.usage.output);
    assert!(whole.details.usage.output > 0 && whole.details.started <= whole.details.ended);
    assert_eq!(whole.receipt.time.as_secs() % 60, 0);

    let streamed = link.chat(&ask_streaming("Good night.")).await;
    let events = String::from_utf8(streamed.body).unwrap();
    assert!(events.starts_with("data: {") && events.ends_with("data: [DONE]\n\n"), "{events}");
    assert_eq!((whole.receipt.counter, streamed.receipt.counter), (0, 1));
    assert_eq!(streamed.receipt.previous, whole.receipt.digest());

    let totals = provider.status().totals;
    assert_eq!((totals.complete, totals.aborted, totals.failed), (2, 0, 0));
    provider.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_by_its_code_without_a_receipt() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let stranger = SoftwareDh::generate(&mut UnwrapErr(getrandom::SysRng));
    let to = |key: &[u8; 65], statement: Digest| seal_to(&[Recipient::new(key, statement).unwrap()], &ask("x"), |_| {}).bytes;

    let expired = link.seal_with(&ask("x"), |params| {
        params.created = UnixTime::from_secs(now().as_secs() - 100);
        params.expires = UnixTime::from_secs(now().as_secs() - 1);
    });
    let early = link.seal_with(&ask("x"), |params| {
        params.created = UnixTime::from_secs(now().as_secs() + 120);
        params.expires = UnixTime::from_secs(now().as_secs() + 200);
    });
    let mut edited = link.seal(&ask("x")).bytes;
    *edited.last_mut().unwrap() ^= 1;
    let mut cut = link.seal(&ask("x")).bytes;
    cut.pop();
    for (what, request, code) in [
        ("garbage", vec![0xff; 300], ProblemCode::MalformedRequest),
        ("nothing", vec![], ProblemCode::MalformedRequest),
        ("expired", expired.bytes, ProblemCode::ExpiredRequest),
        ("from the future", early.bytes, ProblemCode::ExpiredRequest),
        ("another's key", to(stranger.public_key(), link.statement.digest()), ProblemCode::UnknownKey),
        ("another statement", to(&link.statement.kem_key, Digest::ZERO), ProblemCode::UnknownKey),
        ("edited", edited, ProblemCode::RejectedRequest),
        ("cut", cut, ProblemCode::RejectedRequest),
    ] {
        let stream = if request.is_empty() {
            let stream = link.open();
            link.send(stream, &fanlight_protocol::link::Message::RequestEnd(&[])).await;
            stream
        } else {
            link.request(&request).await
        };
        assert_eq!(link.refused(stream).await, (code.status(), code.as_str().to_owned()), "{what}");
    }
    let first = link.chat(&ask("x")).await;
    assert_eq!(first.receipt.counter, 0, "a refusal uses up no receipt");
    let refused = provider.status().totals.refused;
    assert_eq!((refused.values().sum::<u64>(), refused["unknown_key"]), (8, 2));
}

#[tokio::test]
async fn a_request_is_opened_once_whatever_became_of_it() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let replayed = (409, "replayed_request".to_owned());

    let Sealed { bytes, opener } = link.seal(&ask("once"));
    let stream = link.request(&bytes).await;
    assert_eq!(link.answer(stream, opener).await.text(), "once");
    let again = link.request(&bytes).await;
    assert_eq!(link.refused(again).await, replayed);

    // A copy with another body does not open, and neither does the original after it: the key was seen.
    let original = link.seal(&ask("twice")).bytes;
    let mut forged = original.clone();
    *forged.last_mut().unwrap() ^= 1;
    let forged = link.request(&forged).await;
    assert_eq!(link.refused(forged).await.0, 400);
    let original = link.request(&original).await;
    assert_eq!(link.refused(original).await, replayed);

    // The key outlives the link, and so does what it has opened.
    drop(link);
    let mut link = gateway.enrol().await;
    let again = link.request(&bytes).await;
    assert_eq!(link.refused(again).await, replayed);
}

#[tokio::test]
async fn a_message_that_differs_from_its_header_is_a_sealed_failure_with_a_receipt() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let mut limited = ask("x");
    limited["max_completion_tokens"] = json!(7);
    let cases = [
        ("model", link.seal_with(&ask("x"), |params| params.model = "another".into())),
        ("stream", link.seal_with(&ask("x"), |params| params.stream = true)),
        ("stream", link.seal_with(&ask_streaming("x"), |params| params.stream = false)),
        ("max_completion_tokens", link.seal_with(&limited, |params| params.max_output_tokens = 8)),
        ("messages", link.seal_with(&ask("x"), |params| params.input_tokens_min = 500)),
        ("messages", link.seal_with(&ask("x"), |params| params.input_tokens_max = 1)),
    ];
    let n_cases = cases.len() as u64;
    for (counter, (param, Sealed { bytes, opener })) in (0..).zip(cases) {
        let stream = link.request(&bytes).await;
        let answer = link.answer(stream, opener).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "header_mismatch"), "{param}");
        assert_eq!(answer.json()["error"]["param"], param);
        assert_eq!((answer.details.status, answer.details.finish_reason.as_str()), (Status::Failed, "error"));
        assert_eq!((answer.details.usage.output, answer.receipt.counter), (0, counter));
    }
    for (message, code) in [(json!("x"), "invalid_json"), (json!({"model": scripted::MODEL_NAME}), "missing_required_parameter")]
    {
        assert_eq!(link.chat(&message).await.code(), code);
    }
    let elsewhere = link.seal_with(&ask("x"), |params| params.operation = "embeddings".into());
    let stream = link.request(&elsewhere.bytes).await;
    let answer = link.answer(stream, elsewhere.opener).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "operation_not_found"));
    assert_eq!(provider.status().totals.failed, n_cases + 3);

    let agreed = link.seal_with(&limited, |params| params.max_output_tokens = 7);
    let stream = link.request(&agreed.bytes).await;
    assert_eq!(link.answer(stream, agreed.opener).await.status, 200);
}

#[tokio::test]
async fn the_header_limits_an_answer_that_gives_no_limit_itself() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _provider = start(dir.path(), &gateway, echo());
    let mut link = gateway.enrol().await;
    let sealed = link.seal_with(&ask("one two three four five six"), |params| params.max_output_tokens = 2);
    let stream = link.request(&sealed.bytes).await;
    let answer = link.answer(stream, sealed.opener).await;
    assert_eq!((answer.details.usage.output, answer.details.finish_reason.as_str()), (2, "length"));
}
