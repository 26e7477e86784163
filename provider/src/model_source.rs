//! Which model `serve` offers: a directory, or the one that is compiled in.

use std::path::PathBuf;

use anyhow::Context;
use fanlight_provider::engine::{Engine, Limits, ModelFiles, builtin, candle};

#[derive(Debug)]
pub(crate) struct ModelSource {
    dir: Option<PathBuf>,
    name: Option<String>,
}

impl ModelSource {
    pub(crate) const fn new(dir: Option<PathBuf>, name: Option<String>) -> Self {
        Self { dir, name }
    }

    /// Loads the model and starts an engine for it.
    pub(crate) fn start(&self) -> anyhow::Result<Box<dyn Engine>> {
        let Some(dir) = &self.dir else {
            return Ok(Box::new(builtin::start(Limits::default()).context("cannot start the built-in test model")?));
        };
        let name = match (&self.name, dir.file_name().and_then(|name| name.to_str())) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => anyhow::bail!("cannot name the model in {}; give --model-name", dir.display()),
        };
        anyhow::ensure!(
            fanlight_protocol::request::is_model_name(&name),
            "cannot offer the model as {name:?}; give a --model-name of letters, digits and . _ : / @ + -"
        );
        let in_dir = || format!("cannot load the model in {}", dir.display());
        let files = ModelFiles::read_dir(name, dir).with_context(in_dir)?;
        Ok(Box::new(candle::start(files, Limits::default()).with_context(in_dir)?))
    }
}
