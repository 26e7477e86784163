//! The in-process inference engine, behind two seams.
//!
//! - [`Engine`] speaks requests: which models there are, one [`GenerationRequest`] in, one
//!   [`GenerationStream`] of text out. The rest of the provider knows nothing below it.
//! - [`Backend`] speaks rows of tokens on one device, and is owned by one thread. It knows nothing
//!   of text, sampling or requests.
//!
//! [`BatchEngine`] joins them: admission, continuous batching, sampling, stop strings and
//! detokenising, written once for every backend. [`candle::CandleBackend`] runs anywhere;
//! [`scripted::ScriptedBackend`] answers from a script, for tests of what stands above the engine.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fanlight_provider::engine::{Engine, GenerationEvent, GenerationRequest, Limits, Role, builtin};
//! use futures_util::StreamExt;
//!
//! let engine = builtin::start(Limits::default())?;
//! let request = GenerationRequest::chat(builtin::MODEL_NAME, [(Role::User, "What is 12 + 7?")]);
//! let mut stream = engine.submit(request)?;
//! while let Some(event) = stream.next().await {
//!     if let GenerationEvent::Text { text, .. } = event {
//!         assert!(!text.is_empty());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # In scope
//! Plaintext exists here and above, nowhere below the provider process. So no type of this module
//! prints a prompt or an answer, errors carry no user data, and what holds text or its cached
//! attention state for longer than one step is wiped when dropped.
//!
//! # Out of scope
//! The clock (deadlines belong to whoever holds the stream: dropping it frees the slot), the source
//! of randomness (each request brings its seed), and the shape of any HTTP API.

mod admission;
mod backend;
mod batch;
mod config;
mod model;
mod request;
mod sampler;
mod scheduler;
mod stream;
mod template;
mod text;

pub mod builtin;
pub mod candle;
pub mod scripted;

use std::fmt;

pub use self::admission::Limits;
pub use self::backend::{Backend, BackendError, DecodeRow};
pub use self::batch::{BatchEngine, StartError};
pub use self::config::{ConfigError, LlamaConfig};
pub use self::model::{FileDigest, ModelError, ModelFiles, ModelInfo, TextModel, WeightsFile};
pub use self::request::{
    ChatMessage, GenerationRequest, MAX_PROMPT_BYTES, MAX_STOP_BYTES, MAX_STOP_STRINGS, Role, Sampling, SubmitError,
};
pub use self::stream::{FinishReason, GenerationEvent, GenerationFailure, GenerationStream, MAX_PENDING_PIECES, Usage};
pub use self::template::TemplateError;

/// What the provider asks of whatever runs models for it.
pub trait Engine: fmt::Debug + Send + Sync {
    /// The models that [`submit`](Self::submit) takes now.
    fn models(&self) -> Vec<ModelInfo>;

    /// Checks, tokenises and admits one request.
    ///
    /// Runs on the caller's thread for as long as tokenising the prompt takes, and never waits for
    /// the device. Nothing is generated for a request that returns an error.
    fn submit(&self, request: GenerationRequest) -> Result<GenerationStream, SubmitError>;

    /// How busy the engine is, for `status`, heartbeats and metrics.
    fn stats(&self) -> EngineStats;
}

/// A snapshot of an engine's load. Counters only grow; the rest are levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests that hold a slot.
    pub running: usize,
    /// Requests admitted to the queue and not yet to a slot.
    pub waiting: usize,
    /// Cache tokens set aside for running requests: prompt plus the most they may generate.
    pub reserved_tokens: usize,
    /// Bytes of model weights on the device.
    pub weights_bytes: u64,
    /// Bytes of attention cache on the device, as of the last step.
    pub cache_bytes: u64,
    /// Prompt tokens computed since start.
    pub prefill_tokens: u64,
    /// Tokens sampled since start, end-of-sequence tokens included.
    pub sampled_tokens: u64,
    /// Decode steps since start; `sampled_tokens / decode_steps` tells how well batching works.
    pub decode_steps: u64,
}
