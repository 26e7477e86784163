//! The device-level seam: rows of tokens in, logits out.

use std::error::Error;

/// A model on one device, owned by one thread.
///
/// A *row* is one sequence with its attention cache. Rows are values: dropping one frees its device
/// memory and wipes it, so no identifier can outlive the cache that it named.
///
/// Neither the backend nor its rows need be `Send`: [`BatchEngine`](super::BatchEngine) loads the
/// backend on the thread that will own it.
pub trait Backend {
    /// One sequence: its tokens so far, as attention state on the device.
    type Row;

    /// How many logits each position yields.
    fn vocabulary(&self) -> usize;

    /// An empty row. Takes no cache memory until tokens arrive.
    fn new_row(&self) -> Self::Row;

    /// Appends `tokens` to `row`, all at once.
    ///
    /// With `want_logits`, returns the logits (`vocabulary` of them) that follow the last token;
    /// without, an empty vector, and the output layer is not computed.
    ///
    /// # Errors
    /// The device's. The row is then unusable and must be dropped.
    fn prefill(&mut self, row: &mut Self::Row, tokens: &[u32], want_logits: bool) -> Result<Vec<f32>, BackendError>;

    /// Appends one token to each row and returns `batch.len()` × `vocabulary` logits, row-major.
    ///
    /// The rows may have any lengths. A row's logits do not depend on its batch mates, up to the
    /// rounding that the backend documents.
    ///
    /// # Errors
    /// The device's. Every row of the batch is then unusable and must be dropped.
    fn decode(&mut self, batch: &mut [DecodeRow<'_, Self::Row>]) -> Result<Vec<f32>, BackendError>;

    /// A new row that holds the first `n_tokens` of `row`, sharing nothing with it.
    ///
    /// # Errors
    /// The device's, or `n_tokens` is more than the row holds.
    fn fork(&self, row: &Self::Row, n_tokens: usize) -> Result<Self::Row, BackendError>;

    /// Bytes of weights on the device.
    fn weights_bytes(&self) -> u64;

    /// Bytes of cache that `row` holds on the device.
    fn row_bytes(&self, row: &Self::Row) -> u64;
}

/// One row's share of a decode step.
#[derive(Debug)]
pub struct DecodeRow<'a, R> {
    /// The row to extend.
    pub row: &'a mut R,
    /// The token to append.
    pub token: u32,
}

/// The device failed. Holds shapes and device messages, never tokens or text.
#[derive(Debug, thiserror::Error)]
#[error("run the model on its device")]
pub struct BackendError(#[source] Box<dyn Error + Send + Sync>);

impl BackendError {
    /// Wraps what the device said.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}
