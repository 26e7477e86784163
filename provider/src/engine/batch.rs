//! The engine itself: checks and admits on the caller's thread, runs the model on its own.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use zeroize::Zeroizing;

use super::admission::{Admission, Limits};
use super::backend::Backend;
use super::model::{ModelError, ModelInfo, TextModel};
use super::request::{GenerationRequest, MAX_PROMPT_BYTES, SubmitError};
use super::scheduler::{Command, Job, Scheduler};
use super::stream::{EventSender, GenerationStream};
use super::{Engine, EngineStats};

/// One model with continuous batching, over any [`Backend`].
///
/// Requests join and leave the running batch between decode steps. Admission comes first: a request
/// reserves cache for its prompt and the most it may generate, so none that runs can run out, and
/// those that do not fit yet wait in a bounded queue. A slow consumer pauses its own request only
/// (see [`MAX_PENDING_PIECES`](super::MAX_PENDING_PIECES)).
///
/// Dropping the engine ends every request with
/// [`Stopped`](super::GenerationFailure::Stopped) and waits for the thread, so for at most one step
/// of the device.
pub struct BatchEngine {
    model: Arc<TextModel>,
    limits: Limits,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    next_id: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl BatchEngine {
    /// Starts the engine's thread, on which `load` makes the backend; returns once it is loaded.
    pub fn start<B: Backend>(
        model: TextModel,
        limits: Limits,
        load: impl FnOnce(Arc<TextModel>) -> Result<B, ModelError> + Send + 'static,
    ) -> Result<Self, StartError> {
        if limits.max_running == 0 || limits.cache_tokens == 0 {
            return Err(StartError::Limits);
        }
        let model = Arc::new(model);
        let shared = Arc::new(Shared::new(limits));
        let (commands, receiver) = mpsc::channel();
        let (loaded, load_result) = mpsc::sync_channel(1);
        let scheduler_model = Arc::clone(&model);
        let scheduler_shared = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("fanlight-engine".to_owned())
            .spawn(move || {
                let backend = match load(Arc::clone(&scheduler_model)) {
                    Ok(backend) => backend,
                    Err(error) => {
                        let _ = loaded.send(Err(error));
                        return;
                    }
                };
                let scheduler = Scheduler::new(backend, scheduler_model, scheduler_shared, receiver);
                if loaded.send(Ok(())).is_ok() {
                    scheduler.run();
                }
            })
            .map_err(StartError::Thread)?;
        match load_result.recv() {
            Ok(Ok(())) => Ok(Self { model, limits, shared, commands, next_id: AtomicU64::new(0), thread: Some(thread) }),
            Ok(Err(error)) => Err(StartError::Model(error)),
            Err(mpsc::RecvError) => Err(StartError::Thread(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The text side of its model.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// The rendered, tokenised prompt.
    fn prompt(&self, request: &GenerationRequest) -> Result<Zeroizing<Vec<u32>>, SubmitError> {
        let text = self.model.render(&request.messages).map_err(SubmitError::InvalidMessages)?;
        if text.len() > MAX_PROMPT_BYTES {
            return Err(SubmitError::PromptTooLarge { got_bytes: text.len() });
        }
        self.model.tokenise(&text).filter(|tokens| !tokens.is_empty()).ok_or(SubmitError::Tokenise)
    }
}

impl Engine for BatchEngine {
    fn models(&self) -> Vec<ModelInfo> {
        // What is offered is what can be held: the cache may be smaller than the model's context.
        let info = self.model.info().clone();
        vec![ModelInfo { context_tokens: info.context_tokens.min(self.limits.cache_tokens), ..info }]
    }

    fn submit(&self, mut request: GenerationRequest) -> Result<GenerationStream, SubmitError> {
        if request.model != self.model.info().name {
            return Err(SubmitError::UnknownModel);
        }
        request.check()?;
        let prompt = self.prompt(&request)?;
        let limit_tokens = self.model.info().context_tokens.min(self.limits.cache_tokens);
        let at_least = request.max_output_tokens.unwrap_or(1) as usize;
        let requested_tokens = prompt.len().saturating_add(at_least);
        if requested_tokens > limit_tokens {
            return Err(SubmitError::ContextExceeded { limit_tokens, prompt_tokens: prompt.len(), requested_tokens });
        }
        let max_output = match request.max_output_tokens {
            Some(tokens) => tokens as usize,
            None => (limit_tokens - prompt.len()).min(request.output_cap.map_or(usize::MAX, |cap| cap as usize)),
        };
        let reserved = prompt.len() + max_output;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let input_tokens = u32::try_from(prompt.len()).expect("a context is at most 2^20 tokens");
        let (events, stream) = EventSender::new(id, input_tokens, self.commands.clone());

        // Held until the job is sent, so that jobs arrive in the order in which they were admitted.
        let mut admission = self.shared.admission();
        let place = admission.enter(reserved).ok_or(SubmitError::Busy)?;
        self.commands
            .send(Command::Submit(Box::new(Job {
                id,
                place,
                prompt,
                max_output: u32::try_from(max_output).expect("a context is at most 2^20 tokens"),
                reserved,
                sampling: request.sampling,
                stop: Zeroizing::new(std::mem::take(&mut request.stop)),
                events,
            })))
            .map_err(|_| SubmitError::Stopped)?;
        Ok(stream)
    }

    fn stats(&self) -> EngineStats {
        let counters = &self.shared.counters;
        let (running, waiting, reserved_tokens) = {
            let admission = self.shared.admission();
            (admission.running(), admission.waiting(), admission.reserved_tokens())
        };
        EngineStats {
            running,
            waiting,
            reserved_tokens,
            weights_bytes: counters.weights_bytes.load(Ordering::Relaxed),
            cache_bytes: counters.cache_bytes.load(Ordering::Relaxed),
            prefill_tokens: counters.prefill_tokens.load(Ordering::Relaxed),
            sampled_tokens: counters.sampled_tokens.load(Ordering::Relaxed),
            decode_steps: counters.decode_steps.load(Ordering::Relaxed),
        }
    }
}

impl Drop for BatchEngine {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its hook, and its streams have ended with `Stopped`.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for BatchEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchEngine")
            .field("model", &self.model.info().name)
            .field("limits", &self.limits)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The limits leave no room for any request.
    #[error("use the limits: none may run")]
    Limits,
    /// The model cannot be used.
    #[error("load the model")]
    Model(#[source] ModelError),
    /// The engine's thread did not start, or died while loading.
    #[error("start the engine's thread")]
    Thread(#[source] io::Error),
}

/// What the callers' threads and the engine's own share.
#[derive(Debug)]
pub(super) struct Shared {
    admission: Mutex<Admission>,
    pub(super) counters: Counters,
}

impl Shared {
    fn new(limits: Limits) -> Self {
        Self { admission: Mutex::new(Admission::new(limits)), counters: Counters::default() }
    }

    /// The books. Each change is one method call, so a panic elsewhere leaves them whole.
    pub(super) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Written by the engine's thread only.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) weights_bytes: AtomicU64,
    pub(super) cache_bytes: AtomicU64,
    pub(super) prefill_tokens: AtomicU64,
    pub(super) sampled_tokens: AtomicU64,
    pub(super) decode_steps: AtomicU64,
}
