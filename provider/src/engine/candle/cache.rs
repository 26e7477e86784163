//! A row's keys and values.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::engine::config::LlamaConfig;

/// The unit of allocation, in tokens. Longer rows double what they have as they grow.
const BLOCK: usize = 128;

/// Keys and values of one row in every layer, each `[capacity, n_kv_heads, head_dim]`.
///
/// Appending is one contiguous copy. Storage is overwritten with zeros before it is freed.
#[derive(Debug)]
pub(super) struct RowCache {
    layers: Vec<LayerCache>,
    /// Tokens held, in every layer once a step is over.
    len: usize,
    capacity: usize,
    n_layers: usize,
    /// `[n_kv_heads, head_dim]`.
    shape: [usize; 2],
    max_capacity: usize,
}

#[derive(Debug)]
struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

impl RowCache {
    /// An empty row without storage.
    pub(super) fn new(config: &LlamaConfig) -> Self {
        Self {
            layers: Vec::new(),
            len: 0,
            capacity: 0,
            n_layers: config.n_layers,
            shape: [config.n_kv_heads, config.head_dim],
            max_capacity: config.context_tokens,
        }
    }

    /// Tokens held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `n_tokens` more.
    pub(super) fn reserve(&mut self, n_tokens: usize) -> Result<()> {
        let needed = self.len + n_tokens;
        if needed > self.capacity {
            let doubled = needed.max(2 * self.capacity).next_multiple_of(BLOCK);
            *self = self.copy(self.len, doubled.min(self.max_capacity).max(needed))?;
        }
        Ok(())
    }

    /// Appends one layer's new keys and values, `[n, n_kv_heads, head_dim]`, and returns all of
    /// that layer's: `[len + n, n_kv_heads, head_dim]`. [`advance`](Self::advance) counts them.
    pub(super) fn append(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let cache = &self.layers[layer];
        cache.keys.slice_set(keys, 0, self.len)?;
        cache.values.slice_set(values, 0, self.len)?;
        let len = self.len + keys.dim(0)?;
        Ok((cache.keys.narrow(0, 0, len)?, cache.values.narrow(0, 0, len)?))
    }

    /// Counts `n_tokens` that every layer has appended.
    pub(super) fn advance(&mut self, n_tokens: usize) {
        self.len += n_tokens;
    }

    /// A copy of the first `len` tokens.
    pub(super) fn fork(&self, len: usize) -> Result<Self> {
        if len > self.len {
            bail!("fork at {len} tokens of a row of {}", self.len)
        }
        self.copy(len, len.max(BLOCK).min(self.max_capacity))
    }

    /// Bytes of storage.
    pub(super) fn n_bytes(&self) -> u64 {
        let [heads, dim] = self.shape;
        (2 * self.n_layers * self.capacity * heads * dim * size_of::<f32>()) as u64
    }

    fn copy(&self, len: usize, capacity: usize) -> Result<Self> {
        let [heads, dim] = self.shape;
        let grow = |old: Option<&Tensor>| -> Result<Tensor> {
            let new = Tensor::zeros((capacity, heads, dim), DType::F32, &Device::Cpu)?;
            if let Some(old) = old.filter(|_| len > 0) {
                new.slice_set(&old.narrow(0, 0, len)?, 0, 0)?;
            }
            Ok(new)
        };
        let layers = (0..self.n_layers)
            .map(|layer| {
                let old = self.layers.get(layer);
                Ok(LayerCache { keys: grow(old.map(|old| &old.keys))?, values: grow(old.map(|old| &old.values))? })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, len, capacity, ..*self })
    }
}

impl Drop for RowCache {
    fn drop(&mut self) {
        for layer in &self.layers {
            // Fails only for a device whose storage is gone, and then there is nothing to wipe.
            let _ = layer.keys.zero_set();
            let _ = layer.values.zero_set();
        }
    }
}
