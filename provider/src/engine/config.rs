//! `config.json`: the shape of a Llama, checked before anything is allocated from it.

use serde::Deserialize;

/// Bounds on what a `config.json` may ask for, far above any published model.
const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 17;
const MAX_VOCABULARY: usize = 1 << 21;
const MAX_CONTEXT: usize = 1 << 20;

/// The checked shape of a model of the Llama architecture.
///
/// `n_heads` is a multiple of `n_kv_heads`, `head_dim` is even, and no size is zero.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated layer inside each MLP.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads, each shared by `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// The longest sequence the model was trained for, in tokens.
    pub context_tokens: usize,
    /// Added to the mean square in each `RMSNorm`.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the output layer is the embedding table.
    pub tied_embeddings: bool,
    /// Tokens that end a turn, if this file says.
    pub eos_token_ids: Vec<u32>,
}

impl LlamaConfig {
    /// Parses a Hugging Face `config.json`.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let raw: RawConfig = serde_json::from_slice(json).map_err(ConfigError::Json)?;
        if raw.model_type != "llama" {
            return Err(ConfigError::ModelType { got: raw.model_type });
        }
        if let Some(activation) = raw.hidden_act.filter(|name| name != "silu") {
            return Err(ConfigError::Activation { got: activation });
        }
        for (field, set) in [
            ("attention_bias", raw.attention_bias),
            ("mlp_bias", raw.mlp_bias),
            ("rope_scaling", raw.rope_scaling.is_some_and(|value| !value.is_null())),
        ] {
            if set {
                return Err(ConfigError::Unsupported { field });
            }
        }
        let n_heads = raw.num_attention_heads;
        within("num_attention_heads", n_heads, MAX_WIDTH)?;
        let config = Self {
            hidden_size: within("hidden_size", raw.hidden_size, MAX_WIDTH)?,
            intermediate_size: within("intermediate_size", raw.intermediate_size, MAX_WIDTH)?,
            n_layers: within("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?,
            n_heads,
            n_kv_heads: within("num_key_value_heads", raw.num_key_value_heads.unwrap_or(n_heads), n_heads)?,
            head_dim: within("head_dim", raw.head_dim.unwrap_or(raw.hidden_size / n_heads), MAX_WIDTH)?,
            vocabulary: within("vocab_size", raw.vocab_size, MAX_VOCABULARY)?,
            context_tokens: within("max_position_embeddings", raw.max_position_embeddings, MAX_CONTEXT)?,
            rms_norm_eps: raw.rms_norm_eps,
            rope_theta: raw.rope_theta.unwrap_or(10_000.0),
            tied_embeddings: raw.tie_word_embeddings,
            eos_token_ids: raw.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default(),
        };
        if !config.n_heads.is_multiple_of(config.n_kv_heads) {
            return Err(ConfigError::OutOfRange { field: "num_key_value_heads", got: config.n_kv_heads });
        }
        if !config.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OutOfRange { field: "head_dim", got: config.head_dim });
        }
        if !(config.rms_norm_eps > 0.0 && config.rope_theta > 1.0) {
            return Err(ConfigError::Unsupported { field: "rms_norm_eps or rope_theta" });
        }
        Ok(config)
    }
}

/// Why a `config.json` describes no model that this engine can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The MLP's activation is not `silu`.
    #[error("use the activation {got}: only silu is supported")]
    Activation {
        /// What `hidden_act` says.
        got: String,
    },
    /// Not JSON, or a required field is missing or of the wrong type.
    #[error("parse config.json")]
    Json(#[source] serde_json::Error),
    /// The architecture is not Llama.
    #[error("use the model type {got}: only llama is supported")]
    ModelType {
        /// What `model_type` says.
        got: String,
    },
    /// A size is zero, too large, or does not divide what it must.
    #[error("use {field} = {got}: out of range")]
    OutOfRange {
        /// The field's name in the file.
        field: &'static str,
        /// Its value.
        got: usize,
    },
    /// The field asks for a variant that this engine does not compute.
    #[error("use this value of {field}: not supported")]
    Unsupported {
        /// The field's name in the file.
        field: &'static str,
    },
}

/// The fields read from the file, under its names.
#[derive(Deserialize)]
struct RawConfig {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    eos_token_id: Option<OneOrMany>,
}

/// Token ids as both `config.json` and `generation_config.json` write them.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

fn within(field: &'static str, got: usize, max: usize) -> Result<usize, ConfigError> {
    if (1..=max).contains(&got) { Ok(got) } else { Err(ConfigError::OutOfRange { field, got }) }
}
