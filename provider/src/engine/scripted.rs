//! A backend that answers from a script, token by token, under the caller's control.
//!
//! For tests of what stands above the engine: the text is known, and a [`Gate`] decides when each
//! token comes, or that the device fails. It borrows the built-in model's vocabulary and template.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use zeroize::Zeroizing;

use super::admission::Limits;
use super::backend::{Backend, BackendError, DecodeRow};
use super::batch::{BatchEngine, StartError};
use super::builtin;
use super::model::TextModel;

/// The name under which a scripted engine serves.
pub const MODEL_NAME: &str = "fanlight-scripted";

/// Starts an engine that answers each last user message with `reply`, as fast as it is taken.
pub fn start(limits: Limits, reply: impl Fn(&str) -> String + Send + 'static) -> Result<BatchEngine, StartError> {
    start_backend(limits, Box::new(reply), None)
}

/// Like [`start`], but each step of the device waits for the [`Gate`].
pub fn start_gated(limits: Limits, reply: impl Fn(&str) -> String + Send + 'static) -> Result<(BatchEngine, Gate), StartError> {
    let (turns, receiver) = mpsc::channel();
    let engine = start_backend(limits, Box::new(reply), Some(receiver))?;
    Ok((engine, Gate { turns }))
}

/// Lets a scripted engine proceed. A step yields one token for every row of the batch: the end of
/// a prompt is one, each decode step is another.
///
/// Dropping it lets everything proceed; do so before dropping the engine, which waits for the step
/// in hand.
#[derive(Debug)]
pub struct Gate {
    turns: Sender<Turn>,
}

impl Gate {
    /// Lets `n` steps happen.
    pub fn step(&self, n: usize) {
        for _ in 0..n {
            let _ = self.turns.send(Turn::Step);
        }
    }

    /// Makes the step after those fail.
    pub fn fail(&self) {
        let _ = self.turns.send(Turn::Fail);
    }
}

enum Turn {
    Fail,
    Step,
}

type Reply = Box<dyn Fn(&str) -> String + Send>;

/// Answers from a script. Its logits are all but certain, so sampling cannot change the answer.
pub struct ScriptedBackend {
    model: Arc<TextModel>,
    reply: Reply,
    /// Absent, or closed, lets every step happen.
    turns: Option<Receiver<Turn>>,
}

/// The tokens of one scripted sequence.
pub struct ScriptedRow {
    tokens: Zeroizing<Vec<u32>>,
    /// How many of `tokens` are prompt, and what is answered to them.
    answer: Option<(usize, Zeroizing<Vec<u32>>)>,
}

impl ScriptedBackend {
    /// Waits for its turn.
    fn turn(&self) -> Result<(), BackendError> {
        match self.turns.as_ref().map(Receiver::recv) {
            Some(Ok(Turn::Fail)) => Err(BackendError::new("told to fail")),
            Some(Ok(Turn::Step) | Err(mpsc::RecvError)) | None => Ok(()),
        }
    }

    /// The tokens to answer a rendered prompt with.
    fn answer(&self, prompt: &[u32]) -> Zeroizing<Vec<u32>> {
        let text = self.model.detokenise(prompt, true);
        let user = text
            .rsplit_once("<|im_start|>user\n")
            .and_then(|(_, rest)| rest.split_once("<|im_end|>"))
            .map_or("", |(message, _)| message);
        let reply = Zeroizing::new((self.reply)(user));
        self.model.tokenise(&reply).unwrap_or_default()
    }

    /// Logits that name the token after those in `row`.
    fn logits(&self, row: &ScriptedRow) -> Vec<f32> {
        let next = row
            .answer
            .as_ref()
            .and_then(|(prompt, answer)| answer.get(row.tokens.len() - prompt).copied())
            .unwrap_or_else(|| self.model.eos_token_ids()[0]);
        let mut logits = vec![-1000.0; self.vocabulary()];
        logits[next as usize] = 0.0;
        logits
    }
}

impl Backend for ScriptedBackend {
    type Row = ScriptedRow;

    fn vocabulary(&self) -> usize {
        self.model.info().vocabulary
    }

    fn new_row(&self) -> ScriptedRow {
        ScriptedRow { tokens: Zeroizing::default(), answer: None }
    }

    fn prefill(&mut self, row: &mut ScriptedRow, tokens: &[u32], want_logits: bool) -> Result<Vec<f32>, BackendError> {
        row.tokens.extend_from_slice(tokens);
        if !want_logits {
            return Ok(Vec::new());
        }
        self.turn()?;
        row.answer = Some((row.tokens.len(), self.answer(&row.tokens)));
        Ok(self.logits(row))
    }

    fn decode(&mut self, batch: &mut [DecodeRow<'_, ScriptedRow>]) -> Result<Vec<f32>, BackendError> {
        self.turn()?;
        let mut logits = Vec::with_capacity(batch.len() * self.vocabulary());
        for DecodeRow { row, token } in batch {
            row.tokens.push(*token);
            logits.extend(self.logits(row));
        }
        Ok(logits)
    }

    fn fork(&self, row: &ScriptedRow, n_tokens: usize) -> Result<ScriptedRow, BackendError> {
        let tokens = row.tokens.get(..n_tokens).ok_or_else(|| BackendError::new("fork past the end"))?;
        Ok(ScriptedRow {
            tokens: Zeroizing::new(tokens.to_vec()),
            answer: row.answer.clone().filter(|(prompt, _)| *prompt <= n_tokens),
        })
    }

    fn weights_bytes(&self) -> u64 {
        0
    }

    fn row_bytes(&self, row: &ScriptedRow) -> u64 {
        size_of_val(row.tokens.as_slice()) as u64
    }
}

impl fmt::Debug for ScriptedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedBackend").finish_non_exhaustive()
    }
}

impl fmt::Debug for ScriptedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedRow").field("n_tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

fn start_backend(limits: Limits, reply: Reply, turns: Option<Receiver<Turn>>) -> Result<BatchEngine, StartError> {
    let mut files = builtin::files();
    MODEL_NAME.clone_into(&mut files.name);
    files.weights.clear();
    let model = TextModel::parse(&files).map_err(StartError::Model)?;
    BatchEngine::start(model, limits, move |model| Ok(ScriptedBackend { model, reply, turns }))
}
