//! The test model that is compiled in: 0.92 million parameters, for the demo, tests and benches.
//!
//! It greets, adds small numbers, names capitals and counts, and little else. `provider/models/
//! tiny-llama/README.md` says how it was trained and from what. Wherever a person sees its name,
//! call it [`DISPLAY_NAME`].

use std::borrow::Cow;

use super::admission::Limits;
use super::batch::{BatchEngine, StartError};
use super::candle;
use super::model::{ModelFiles, WeightsFile};

/// The name that requests use.
pub const MODEL_NAME: &str = "fanlight-tiny";

/// What people are told it is.
pub const DISPLAY_NAME: &str = "Fanlight Tiny (test model)";

/// Its files, as in `provider/models/tiny-llama`.
pub fn files() -> ModelFiles {
    ModelFiles {
        name: MODEL_NAME.to_owned(),
        config: Cow::Borrowed(include_bytes!("../../models/tiny-llama/config.json")),
        tokenizer: Cow::Borrowed(include_bytes!("../../models/tiny-llama/tokenizer.json")),
        tokenizer_config: None,
        generation_config: None,
        chat_template: Some(Cow::Borrowed(include_bytes!("../../models/tiny-llama/chat_template.jinja"))),
        weights: vec![WeightsFile {
            name: "model.safetensors".to_owned(),
            bytes: Cow::Borrowed(include_bytes!("../../models/tiny-llama/model.safetensors")),
        }],
    }
}

/// Starts an engine that serves it on the CPU.
pub fn start(limits: Limits) -> Result<BatchEngine, StartError> {
    candle::start(files(), limits)
}
