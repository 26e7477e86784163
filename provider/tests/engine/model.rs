//! The built-in model, greedy and sampled, alone and in company.

use fanlight_provider::engine::{
    BatchEngine, ChatMessage, Engine, FinishReason, GenerationRequest, Limits, Role, Sampling, SubmitError, TextModel, builtin,
};
use futures_util::future::join_all;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Answer, Outcome, ask, read};

#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) name: String,
    messages: Vec<Message>,
    pub(crate) tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

impl Prompt {
    fn messages(&self) -> Vec<ChatMessage> {
        self.messages
            .iter()
            .map(|message| ChatMessage {
                role: match message.role.as_str() {
                    "system" => Role::System,
                    "user" => Role::User,
                    "assistant" => Role::Assistant,
                    "tool" => Role::Tool,
                    other => panic!("unknown role {other}"),
                },
                content: Zeroizing::new(message.content.clone()),
            })
            .collect()
    }

    fn request(&self) -> GenerationRequest {
        GenerationRequest { messages: self.messages(), ..ask("") }
    }
}

/// `testdata/engine_logits.json`, written by `engine_logits.py`.
#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) max_output: u32,
    pub(crate) logit_stride: usize,
    pub(crate) tests: Vec<ReferenceTest>,
}

#[derive(Deserialize)]
pub(crate) struct ReferenceTest {
    pub(crate) name: String,
    pub(crate) output: Vec<u32>,
    pub(crate) logits: Vec<f32>,
}

pub(crate) fn prompts() -> Vec<Prompt> {
    serde_json::from_str(include_str!("../../models/tiny-llama/prompts.json")).expect("prompts.json parses")
}

pub(crate) fn reference() -> Reference {
    serde_json::from_str(include_str!("../../testdata/engine_logits.json")).expect("engine_logits.json parses")
}

fn engine() -> BatchEngine {
    builtin::start(Limits::default()).expect("the built-in model starts")
}

#[test]
fn prompts_render_to_the_golden_tokens() {
    let model = TextModel::parse(&builtin::files()).unwrap();
    for prompt in prompts() {
        let text = model.render(&prompt.messages()).unwrap();
        assert_eq!(*model.tokenise(&text).unwrap(), prompt.tokens, "{}", prompt.name);
    }
}

#[tokio::test]
async fn greedy_answers_are_the_references_alone_and_together() {
    let engine = engine();
    let reference = reference();
    let prompts = prompts();
    let request = |prompt: &Prompt| GenerationRequest { max_output_tokens: Some(reference.max_output), ..prompt.request() };
    let mut alone = Vec::new();
    for (prompt, expected) in prompts.iter().zip(&reference.tests) {
        let answer = read(engine.submit(request(prompt)).unwrap()).await;
        assert_eq!(prompt.name, expected.name);
        assert_eq!(answer.text, *engine.model().detokenise(&expected.output, false), "{}", prompt.name);
        assert_eq!(answer.usage.input as usize, prompt.tokens.len());
        assert_eq!(answer.usage.output as usize, expected.output.len());
        assert_eq!(answer.outcome, Outcome::Finished(FinishReason::Stop));
        alone.push(answer);
    }
    let before = engine.stats();
    let together = join_all(prompts.iter().map(|prompt| read(engine.submit(request(prompt)).unwrap()))).await;
    assert_eq!(together, alone);
    let after = engine.stats();
    assert!(
        after.decode_steps - before.decode_steps < (after.sampled_tokens - before.sampled_tokens) / 2,
        "they decoded together"
    );
}

#[tokio::test]
async fn the_answers_people_see() {
    let engine = engine();
    for (question, answer) in
        [("What is 12 + 7?", "12 + 7 = 19."), ("What is the capital of Norway?", "The capital of Norway is Oslo.")]
    {
        assert_eq!(read(engine.submit(ask(question)).unwrap()).await.text, answer);
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_text_in_any_company() {
    let engine = engine();
    let sampled = |seed| GenerationRequest {
        sampling: Sampling { temperature: 1.5, top_p: 0.95, seed, ..Sampling::GREEDY },
        max_output_tokens: Some(40),
        ..ask("Tell me a story.")
    };
    let mut alone = Vec::new();
    for seed in 0..6 {
        alone.push(read(engine.submit(sampled(seed)).unwrap()).await);
    }
    let company = (0..6).map(|seed| read(engine.submit(sampled(seed)).unwrap()));
    let strangers = prompts();
    let strangers = strangers.iter().map(|prompt| read(engine.submit(prompt.request()).unwrap()));
    let (together, _) = futures_util::future::join(join_all(company), join_all(strangers)).await;
    assert_eq!(together, alone);
    let distinct: std::collections::HashSet<_> = alone.iter().map(|answer| &answer.text).collect();
    assert!(distinct.len() > 3, "seeds differ");
}

#[tokio::test]
async fn max_output_tokens_ends_with_length() {
    let engine = engine();
    let request = GenerationRequest { max_output_tokens: Some(4), ..ask("Count from 2 to 9.") };
    let Answer { text, outcome, usage } = read(engine.submit(request).unwrap()).await;
    assert_eq!(text, "2, 3");
    assert_eq!(outcome, Outcome::Finished(FinishReason::Length));
    assert_eq!(usage.output, 4);
}

#[tokio::test]
async fn a_stop_string_over_several_tokens_ends_the_text_before_it() {
    let engine = engine();
    let request = GenerationRequest { stop: vec![", 5, 6".to_owned(), "never".to_owned()], ..ask("Count from 2 to 9.") };
    let answer = read(engine.submit(request).unwrap()).await;
    assert_eq!(answer.text, "2, 3, 4");
    assert_eq!(answer.outcome, Outcome::Finished(FinishReason::Stop));
    assert_eq!(answer.usage.output, 13, "the stop string's tokens count");
}

#[tokio::test]
async fn a_long_prompt_is_computed_in_chunks_and_one_too_long_is_refused() {
    let engine = engine();
    let question = "Repeat these words: river stone cloud.";
    let prompt_of = |n: usize| {
        let mut turns = [(Role::User, "Hello"), (Role::Assistant, "Hello!")].repeat(n);
        turns.push((Role::User, question));
        GenerationRequest::chat(builtin::MODEL_NAME, turns)
    };
    let stream = engine.submit(prompt_of(60)).unwrap();
    let long = stream.input_tokens();
    assert!(long > 600, "more than two chunks");
    let answer = read(stream).await;
    assert_eq!(answer.usage.input, long);
    assert!(answer.usage.output > 0);

    let error = engine.submit(prompt_of(200)).unwrap_err();
    let SubmitError::ContextExceeded { limit_tokens, prompt_tokens, requested_tokens } = error else {
        panic!("{error:?}");
    };
    assert_eq!(limit_tokens, 1024);
    assert_eq!(requested_tokens, prompt_tokens + 1);
    assert!(prompt_tokens > 1024);

    let request = GenerationRequest { max_output_tokens: Some(1024), ..ask("Hello") };
    assert!(matches!(
        engine.submit(request),
        Err(SubmitError::ContextExceeded { requested_tokens, .. }) if requested_tokens == 1024 + 9
    ));
}

#[tokio::test]
async fn impossible_requests_are_refused_by_name() {
    let engine = engine();
    let refuse = |request| engine.submit(request).unwrap_err();
    assert!(matches!(refuse(GenerationRequest::chat("other", [(Role::User, "Hello")])), SubmitError::UnknownModel));
    assert!(matches!(refuse(GenerationRequest::chat(builtin::MODEL_NAME, [])), SubmitError::NoMessages));
    for (field, sampling) in [
        ("temperature", Sampling { temperature: f32::NAN, ..Sampling::GREEDY }),
        ("temperature", Sampling { temperature: 2.1, ..Sampling::GREEDY }),
        ("top_p", Sampling { top_p: 0.0, ..Sampling::GREEDY }),
        ("frequency_penalty", Sampling { frequency_penalty: -3.0, ..Sampling::GREEDY }),
        ("presence_penalty", Sampling { presence_penalty: 3.0, ..Sampling::GREEDY }),
    ] {
        let error = refuse(GenerationRequest { sampling, ..ask("Hello") });
        assert!(matches!(error, SubmitError::OutOfRange { field: got } if got == field));
    }
    let stop = |stop: &[&str]| GenerationRequest { stop: stop.iter().map(|&stop| stop.to_owned()).collect(), ..ask("Hello") };
    assert!(matches!(refuse(stop(&["a"; 5])), SubmitError::TooManyStops { got: 5 }));
    assert!(matches!(refuse(stop(&[""])), SubmitError::StopLength { got: 0 }));
}

#[tokio::test]
async fn nothing_prints_the_dialogue() {
    let engine = engine();
    let request = GenerationRequest { stop: vec!["SECRET".to_owned()], ..ask("SECRET") };
    let printed = format!("{request:?} {:?} {engine:?}", request.messages[0]);
    assert!(!printed.contains("SECRET"), "{printed}");
    let mut stream = engine.submit(ask("What is the capital of Norway?")).unwrap();
    let printed = format!("{stream:?}");
    let events: Vec<_> = futures_util::StreamExt::collect(&mut stream).await;
    let printed = format!("{printed} {events:?}");
    assert!(!printed.contains("Oslo") && !printed.contains("Norway"), "{printed}");
}
