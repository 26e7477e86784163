//! The portable backend: `f32` on the CPU, in pure Rust.
//!
//! Linear layers run over all rows of a step at once, attention row by row over each row's own
//! cache. On x86-64 every sum runs in the same order however many rows share the step, so a row's
//! logits are the same bits alone and in any batch; the tests hold it to that. Elsewhere the kernels
//! for one row and for several may round differently.
//!
//! Set `RAYON_NUM_THREADS` where speed matters for small models: without it candle asks the system
//! for the number of cores before every product, which on Linux takes longer than the product.

mod cache;
mod llama;
mod weights;

use candle_core::Tensor;

use self::cache::RowCache;
use self::llama::{Llama, Segment};
use super::admission::Limits;
use super::backend::{Backend, BackendError, DecodeRow};
use super::batch::{BatchEngine, StartError};
use super::config::LlamaConfig;
use super::model::{ModelError, ModelFiles, TextModel};

/// Starts an engine that serves the model in `files` on the CPU.
pub fn start(files: ModelFiles, limits: Limits) -> Result<BatchEngine, StartError> {
    let model = TextModel::parse(&files).map_err(StartError::Model)?;
    BatchEngine::start(model, limits, move |_| CandleBackend::load(&files))
}

/// A Llama on the CPU.
#[derive(Debug)]
pub struct CandleBackend {
    llama: Llama,
}

impl CandleBackend {
    /// Converts the weights in `files` to `f32`, checked against `config.json`.
    pub fn load(files: &ModelFiles) -> Result<Self, ModelError> {
        let config = LlamaConfig::parse(&files.config).map_err(ModelError::Config)?;
        let llama = Llama::load(config, &files.weights)?;
        Ok(Self { llama })
    }

    fn check_room(&self, row: &CandleRow, n_tokens: usize) -> Result<(), BackendError> {
        if row.0.len() + n_tokens > self.llama.config().context_tokens {
            return Err(BackendError::new("row is longer than the context"));
        }
        Ok(())
    }
}

/// One sequence's keys and values in every layer. Wiped when dropped.
#[derive(Debug)]
pub struct CandleRow(RowCache);

impl Backend for CandleBackend {
    type Row = CandleRow;

    fn vocabulary(&self) -> usize {
        self.llama.config().vocabulary
    }

    fn new_row(&self) -> CandleRow {
        CandleRow(RowCache::new(self.llama.config()))
    }

    fn prefill(&mut self, row: &mut CandleRow, tokens: &[u32], want_logits: bool) -> Result<Vec<f32>, BackendError> {
        self.check_room(row, tokens.len())?;
        let segment = Segment { cache: &mut row.0, n_tokens: tokens.len() };
        let hidden = self.llama.forward(tokens, &mut [segment])?;
        if !want_logits {
            return Ok(Vec::new());
        }
        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        Ok(to_vec(&self.llama.logits(&last)?)?)
    }

    fn decode(&mut self, batch: &mut [DecodeRow<'_, CandleRow>]) -> Result<Vec<f32>, BackendError> {
        let tokens: Vec<u32> = batch.iter().map(|row| row.token).collect();
        for row in batch.iter() {
            self.check_room(row.row, 1)?;
        }
        let mut segments: Vec<_> = batch.iter_mut().map(|row| Segment { cache: &mut row.row.0, n_tokens: 1 }).collect();
        let hidden = self.llama.forward(&tokens, &mut segments)?;
        Ok(to_vec(&self.llama.logits(&hidden)?)?)
    }

    fn fork(&self, row: &CandleRow, n_tokens: usize) -> Result<CandleRow, BackendError> {
        Ok(CandleRow(row.0.fork(n_tokens)?))
    }

    fn weights_bytes(&self) -> u64 {
        self.llama.n_bytes()
    }

    fn row_bytes(&self, row: &CandleRow) -> u64 {
        row.0.n_bytes()
    }
}

impl From<candle_core::Error> for BackendError {
    fn from(error: candle_core::Error) -> Self {
        Self::new(error)
    }
}

fn to_vec(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
