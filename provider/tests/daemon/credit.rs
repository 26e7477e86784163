//! Credit: a client that does not read holds up its own stream only (SPEC §8.1).

use std::borrow::Cow;
use std::sync::Arc;

use fanlight_protocol::link::{INITIAL_CREDIT, Message};
use fanlight_protocol::response::{Frame, Prefix};
use fanlight_provider::engine::{Backend, BackendError, BatchEngine, DecodeRow, Engine, Limits, TextModel, builtin, scripted};
use fanlight_sealing::Opened;
use serde_json::Value;

use crate::support::{Gateway, Link, Sealed, ask, parse, start};

/// Longest answer in tokens.
const CONTEXT: usize = 1 << 17;

/// Says one long token over and over, until its limit.
struct Babbler {
    vocabulary: usize,
    token: usize,
}

impl Babbler {
    fn logits(&self, rows: usize) -> Vec<f32> {
        let mut logits = vec![-1000.0; rows * self.vocabulary];
        logits.iter_mut().skip(self.token).step_by(self.vocabulary).for_each(|logit| *logit = 0.0);
        logits
    }
}

impl Backend for Babbler {
    type Row = ();

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn new_row(&self) {}

    fn prefill(&mut self, (): &mut (), _: &[u32], want_logits: bool) -> Result<Vec<f32>, BackendError> {
        Ok(self.logits(usize::from(want_logits)))
    }

    fn decode(&mut self, batch: &mut [DecodeRow<'_, ()>]) -> Result<Vec<f32>, BackendError> {
        Ok(self.logits(batch.len()))
    }

    fn fork(&self, (): &(), _: usize) -> Result<(), BackendError> {
        Ok(())
    }

    fn weights_bytes(&self) -> u64 {
        0
    }

    fn row_bytes(&self, (): &()) -> u64 {
        0
    }
}

/// A babbler, and the tokens that it takes for an answer well above the first credit.
pub(crate) fn babbler() -> (Arc<dyn Engine>, u32) {
    let mut files = builtin::files();
    let mut config: Value = serde_json::from_slice(&files.config).expect("JSON");
    config["max_position_embeddings"] = CONTEXT.into();
    files.config = Cow::Owned(config.to_string().into_bytes());
    scripted::MODEL_NAME.clone_into(&mut files.name);
    files.weights.clear();
    let model = TextModel::parse(&files).expect("a model");
    let vocabulary = model.info().vocabulary;
    let len = |token: &u32| model.detokenise(&[*token], false).len();
    let token = (0..u32::try_from(vocabulary).expect("a small number")).max_by_key(len).expect("a vocabulary");
    let tokens = INITIAL_CREDIT.div_ceil(u32::try_from(len(&token)).expect("a small number")) * 5 / 4;
    let load = move |_| Ok(Babbler { vocabulary, token: token as usize });
    let limits = Limits { cache_tokens: 4 * CONTEXT, ..Limits::default() };
    (Arc::new(BatchEngine::start(model, limits, load).expect("an engine")), tokens)
}

pub(crate) fn babble(link: &Link, stream: bool, tokens: u32) -> Sealed {
    let mut message = ask("go on");
    message["stream"] = stream.into();
    message["max_completion_tokens"] = tokens.into();
    link.seal_with(&message, |params| params.max_output_tokens = tokens)
}

#[tokio::test]
async fn a_stream_without_credit_stops_at_the_limit_while_another_ends() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, tokens) = babbler();
    let _provider = start(dir.path(), &gateway, engine);
    let mut link = gateway.enrol().await;
    let long = babble(&link, false, tokens);
    let stream = link.request(&long.bytes).await;

    let bytes = link.recv(stream).await;
    let Message::Prefix(prefix) = parse(&bytes).1 else { panic!("no PREFIX") };
    let mut response = long.opener.begin(&Prefix::parse(&prefix).unwrap()).unwrap();
    let (mut sent, mut granted, mut next_frame) = (0, INITIAL_CREDIT as usize, 0);
    // The frame that does not fit any more is what the provider holds back: all but the last have one length.
    while sent + next_frame <= granted {
        let bytes = link.recv(stream).await;
        let Message::Frame(frame) = parse(&bytes).1 else { panic!("no FRAME") };
        response.open(&Frame::parse(frame).unwrap()).unwrap();
        (sent, next_frame) = (sent + frame.len(), frame.len());
    }

    let short = babble(&link, false, 3);
    let other = link.request(&short.bytes).await;
    assert_eq!(link.answer(other, short.opener).await.details.usage.output, 3);
    assert!(!link.has_parked(stream), "{sent} bytes were sent, and more without credit");

    loop {
        link.send(stream, &Message::Credit(100_000)).await;
        granted += 100_000;
        while sent + next_frame <= granted {
            let bytes = link.recv(stream).await;
            let Message::Frame(frame) = parse(&bytes).1 else { panic!("no FRAME") };
            let opened = response.open(&Frame::parse(frame).unwrap()).unwrap();
            (sent, next_frame) = (sent + frame.len(), frame.len());
            assert!(sent <= granted);
            if matches!(opened, Opened::Content { last: true, .. }) {
                assert!(sent > INITIAL_CREDIT as usize);
                while parse(&link.recv(stream).await).1 != Message::End {}
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_waits_for_credit_still_pings_and_can_be_cancelled() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let (engine, tokens) = babbler();
    let _provider = start(dir.path(), &gateway, engine);
    let mut link = gateway.enrol().await;
    let long = babble(&link, false, tokens);
    let stream = link.request(&long.bytes).await;
    let mut sealed = 0;
    loop {
        let bytes = link.recv(stream).await;
        let Message::Frame(frame) = parse(&bytes).1 else { continue };
        if Frame::parse(frame).unwrap().frame_type.is_sealed() {
            sealed += frame.len();
        } else if sealed > 0 {
            break;
        }
    }
    link.send(stream, &Message::Cancel).await;
    let details = link.aborted(stream).await;
    assert_eq!(details.usage.output, tokens, "generated, sealed and not sent");
}
