//! The Llama forward pass over ragged rows.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax, softmax_last_dim, swiglu};

use super::cache::RowCache;
use super::weights::{Weights, load_error};
use crate::engine::config::LlamaConfig;
use crate::engine::model::{ModelError, WeightsFile};

/// A Llama's weights in `f32`. Linear layers are `[n_in, n_out]`.
#[derive(Debug)]
pub(super) struct Llama {
    config: LlamaConfig,
    /// `[vocabulary, hidden_size]`.
    embeddings: Tensor,
    layers: Vec<Layer>,
    final_norm: Tensor,
    output: Tensor,
    /// For every position, `(cos, cos)` and `(-sin, sin)`: each `[context_tokens, 1, head_dim]`.
    rope: [Tensor; 2],
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    /// Queries, keys and values side by side.
    qkv: Tensor,
    attention_output: Tensor,
    mlp_norm: Tensor,
    /// Gate and up side by side.
    gate_up: Tensor,
    down: Tensor,
}

/// A row's share of one forward pass.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    /// What the row holds already; extended.
    pub(super) cache: &'a mut RowCache,
    /// How many of the pass's tokens are this row's next.
    pub(super) n_tokens: usize,
}

impl Llama {
    /// Loads the tensors that `config` calls for.
    pub(super) fn load(config: LlamaConfig, files: &[WeightsFile]) -> std::result::Result<Self, ModelError> {
        let weights = Weights::parse(files)?;
        let hidden = config.hidden_size;
        let q = config.n_heads * config.head_dim;
        let kv = config.n_kv_heads * config.head_dim;
        let mlp = config.intermediate_size;
        let layers = (0..config.n_layers)
            .map(|layer| {
                let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
                Ok(Layer {
                    attention_norm: weights.vector(&name("input_layernorm"), hidden)?,
                    qkv: weights.linear(
                        &[(name("self_attn.q_proj"), q), (name("self_attn.k_proj"), kv), (name("self_attn.v_proj"), kv)],
                        hidden,
                    )?,
                    attention_output: weights.linear(&[(name("self_attn.o_proj"), hidden)], q)?,
                    mlp_norm: weights.vector(&name("post_attention_layernorm"), hidden)?,
                    gate_up: weights.linear(&[(name("mlp.gate_proj"), mlp), (name("mlp.up_proj"), mlp)], hidden)?,
                    down: weights.linear(&[(name("mlp.down_proj"), hidden)], mlp)?,
                })
            })
            .collect::<std::result::Result<_, ModelError>>()?;
        let embeddings = "model.embed_tokens.weight";
        let output = if config.tied_embeddings { embeddings } else { "lm_head.weight" };
        Ok(Self {
            embeddings: weights.matrix(embeddings, config.vocabulary, hidden)?,
            layers,
            final_norm: weights.vector("model.norm.weight", hidden)?,
            output: weights.linear(&[(output.to_owned(), config.vocabulary)], hidden)?,
            rope: rope_tables(&config).map_err(load_error)?,
            config,
        })
    }

    pub(super) fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of weights and tables.
    pub(super) fn n_bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.attention_norm, &layer.qkv, &layer.attention_output, &layer.mlp_norm, &layer.gate_up, &layer.down]
        });
        let n_values: usize =
            layers.chain([&self.embeddings, &self.final_norm, &self.output]).chain(&self.rope).map(Tensor::elem_count).sum();
        (n_values * size_of::<f32>()) as u64
    }

    /// Feeds `tokens`, the segments' in turn, and returns the final hidden states
    /// `[tokens.len(), hidden_size]`.
    pub(super) fn forward(&self, tokens: &[u32], segments: &mut [Segment<'_>]) -> Result<Tensor> {
        let mut positions = Vec::with_capacity(tokens.len());
        for segment in segments.iter_mut() {
            segment.cache.reserve(segment.n_tokens)?;
            positions.extend((small(segment.cache.len())..).take(segment.n_tokens));
        }
        let n = tokens.len();
        let positions = Tensor::from_vec(positions, n, &Device::Cpu)?;
        let rope = [self.rope[0].index_select(&positions, 0)?, self.rope[1].index_select(&positions, 0)?];
        let tokens = Tensor::new(tokens, &Device::Cpu)?;
        let mut x = self.embeddings.index_select(&tokens, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let h = self.norm(&x, &layer.attention_norm)?;
            let h = self.attend(index, &h.matmul(&layer.qkv)?, &rope, segments)?;
            x = (x + h.matmul(&layer.attention_output)?)?;
            let h = self.norm(&x, &layer.mlp_norm)?.matmul(&layer.gate_up)?;
            let h = swiglu(&h)?;
            x = (x + h.matmul(&layer.down)?)?;
        }
        for segment in segments {
            segment.cache.advance(segment.n_tokens);
        }
        self.norm(&x, &self.final_norm)
    }

    /// The output layer: `[n, hidden_size]` to `[n, vocabulary]`.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        hidden.matmul(&self.output)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.config.rms_norm_eps)
    }

    /// Attention of each segment over its own cache: `[n, q + 2 kv]` to `[n, q]`.
    fn attend(&self, layer: usize, qkv: &Tensor, rope: &[Tensor; 2], segments: &mut [Segment<'_>]) -> Result<Tensor> {
        let LlamaConfig { n_heads, n_kv_heads, head_dim, .. } = self.config;
        let n = qkv.dim(0)?;
        let qkv = qkv.reshape((n, n_heads + 2 * n_kv_heads, head_dim))?;
        let qk = rotate(&qkv.narrow(1, 0, n_heads + n_kv_heads)?, rope)?;
        let queries = qk.narrow(1, 0, n_heads)?;
        let keys = qk.narrow(1, n_heads, n_kv_heads)?;
        let values = qkv.narrow(1, n_heads + n_kv_heads, n_kv_heads)?;
        let mut start = 0;
        let mut outputs = Vec::with_capacity(segments.len());
        for segment in segments {
            let part = |t: &Tensor| t.narrow(0, start, segment.n_tokens)?.contiguous();
            let (keys, values) = segment.cache.append(layer, &part(&keys)?, &part(&values)?)?;
            outputs.push(self.attend_row(&part(&queries)?, &keys, &values)?);
            start += segment.n_tokens;
        }
        Tensor::cat(&outputs, 0)
    }

    /// `softmax(q kᵀ / √head_dim) v` for the last `n` positions of one row. The query heads that
    /// share a key head are stacked as rows of one matrix, so keys and values are never repeated.
    fn attend_row(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let LlamaConfig { n_heads, n_kv_heads, head_dim, .. } = self.config;
        let (n, len) = (queries.dim(0)?, keys.dim(0)?);
        let group = n_heads / n_kv_heads;
        let stacked = (queries / f64::from(small(head_dim)).sqrt())?
            .reshape((n, n_kv_heads, group, head_dim))?
            .transpose(0, 1)?
            .reshape((n_kv_heads, n * group, head_dim))?;
        let scores = stacked.matmul(&keys.permute((1, 2, 0))?)?;
        let weights = if n == 1 {
            // The fused kernel always visits the thread pool, which costs more than this.
            softmax(&scores, D::Minus1)?
        } else {
            softmax_last_dim(&scores.broadcast_add(&causal_mask(n, group, len)?)?)?
        };
        weights
            .matmul(&values.transpose(0, 1)?)?
            .reshape((n_kv_heads, n, group, head_dim))?
            .transpose(0, 1)?
            .reshape((n, n_heads * head_dim))
    }
}

/// Rotary embedding of `[n, heads, head_dim]`: element `i` of a head pairs with `i + head_dim / 2`.
fn rotate(x: &Tensor, [cos, sin]: &[Tensor; 2]) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let halves = [x.narrow(D::Minus1, half, half)?, x.narrow(D::Minus1, 0, half)?];
    let swapped = Tensor::cat(&halves, D::Minus1)?;
    x.broadcast_mul(cos)? + swapped.broadcast_mul(sin)?
}

/// `[n * group, len]`: 0 where one of the last `n` of `len` positions may look, else -∞.
fn causal_mask(n: usize, group: usize, len: usize) -> Result<Tensor> {
    let mut mask = Vec::with_capacity(n * group * len);
    for row in 0..n * group {
        let visible = len - n + row / group + 1;
        mask.extend((0..len).map(|key| if key < visible { 0.0 } else { f32::NEG_INFINITY }));
    }
    Tensor::from_vec(mask, (n * group, len), &Device::Cpu)
}

/// The angles `position * theta^(-2i / head_dim)`, in `f64` until the last.
fn rope_tables(config: &LlamaConfig) -> Result<[Tensor; 2]> {
    let shape = (config.context_tokens, config.head_dim / 2);
    let head_dim = f64::from(small(config.head_dim));
    let frequencies: Vec<f64> = (0..small(shape.1)).map(|i| config.rope_theta.powf(-2.0 * f64::from(i) / head_dim)).collect();
    let angles = (0..small(shape.0)).flat_map(|position| frequencies.iter().map(move |f| f64::from(position) * f)).collect();
    let angles = Tensor::from_vec(angles, shape, &Device::Cpu)?.unsqueeze(1)?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    Ok([
        Tensor::cat(&[&cos, &cos], D::Minus1)?.to_dtype(DType::F32)?,
        Tensor::cat(&[&sin.neg()?, &sin], D::Minus1)?.to_dtype(DType::F32)?,
    ])
}

/// A size or position of a model. [`LlamaConfig`] bounds them all far below 2^32.
fn small(n: usize) -> u32 {
    u32::try_from(n).expect("LlamaConfig bounds it")
}
