//! The engine's thread: takes commands between steps, prefills in chunks, decodes in batches.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use zeroize::Zeroizing;

use super::admission::Place;
use super::backend::{Backend, BackendError, DecodeRow};
use super::batch::Shared;
use super::model::TextModel;
use super::request::Sampling;
use super::sampler::Sampler;
use super::stream::{EventSender, FinishReason, GenerationEvent, GenerationFailure, Usage};
use super::text::{Piece, TextAssembler};

/// Prompt tokens computed between two decode steps: how long a new prompt may hold up the others.
/// Chunks start at multiples of this, whoever else runs, so a prompt always computes the same way.
const PREFILL_CHUNK: usize = 256;

/// What the scheduler is told, between steps.
#[derive(Debug)]
pub(super) enum Command {
    /// The request's holder wants no more of it.
    Abort(u64),
    /// A paused request has room for text again.
    Resume,
    /// The engine is dropped.
    Stop,
    /// A new, admitted request.
    Submit(Box<Job>),
}

/// An admitted request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) prompt: Zeroizing<Vec<u32>>,
    pub(super) max_output: u32,
    /// Cache tokens it was admitted with.
    pub(super) reserved: usize,
    pub(super) sampling: Sampling,
    pub(super) stop: Zeroizing<Vec<String>>,
    pub(super) events: EventSender,
}

/// Owns the backend and every row.
pub(super) struct Scheduler<B: Backend> {
    backend: B,
    model: Arc<TextModel>,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Requests that hold a slot, oldest first.
    running: Vec<Running<B::Row>>,
    /// Requests that wait for one, oldest first.
    waiting: VecDeque<Job>,
}

impl<B: Backend> Scheduler<B> {
    pub(super) fn new(backend: B, model: Arc<TextModel>, shared: Arc<Shared>, commands: Receiver<Command>) -> Self {
        let weights_bytes = backend.weights_bytes();
        shared.counters.weights_bytes.store(weights_bytes, Ordering::Relaxed);
        Self { backend, model, shared, commands, running: Vec::new(), waiting: VecDeque::new() }
    }

    /// Runs until the engine is dropped.
    pub(super) fn run(mut self) {
        while self.take_commands().is_some() {
            self.prefill();
            self.reap();
            self.decode();
            self.reap();
            self.count_cache();
        }
        for request in &mut self.running {
            request.end = Some(End::Failed(GenerationFailure::Stopped));
        }
        for job in self.waiting.drain(..) {
            self.shared.admission().leave_queue();
            job.events.end(GenerationEvent::Failed { failure: GenerationFailure::Stopped, usage: input_only(&job.prompt) });
        }
        self.reap();
        self.count_cache();
    }

    /// Takes every command that is there, and waits for one if nothing can run. `None`: stop.
    fn take_commands(&mut self) -> Option<()> {
        loop {
            let command = if self.running.iter().any(Running::can_run) {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return Some(()),
                    Err(TryRecvError::Disconnected) => return None,
                }
            } else {
                self.commands.recv().ok()?
            };
            match command {
                Command::Abort(id) => self.abort(id),
                Command::Resume => {}
                Command::Stop => return None,
                Command::Submit(job) => self.submit(*job),
            }
        }
    }

    fn submit(&mut self, job: Job) {
        match job.place {
            Place::Running => self.run_job(job),
            Place::Waiting => {
                self.waiting.push_back(job);
                self.promote();
            }
        }
    }

    fn run_job(&mut self, job: Job) {
        let row = self.backend.new_row();
        self.running.push(Running::new(job, row));
    }

    /// Moves waiting requests to free slots, in order.
    fn promote(&mut self) {
        while let Some(job) = self.waiting.front() {
            if !self.shared.admission().promote(job.reserved) {
                return;
            }
            if let Some(job) = self.waiting.pop_front() {
                self.run_job(job);
            }
        }
    }

    fn abort(&mut self, id: u64) {
        if let Some(request) = self.running.iter_mut().find(|request| request.job.id == id) {
            request.finish(&self.model, FinishReason::Aborted);
            self.reap();
            self.count_cache();
        } else if let Some(at) = self.waiting.iter().position(|job| job.id == id)
            && let Some(job) = self.waiting.remove(at)
        {
            self.shared.admission().leave_queue();
            job.events.end(GenerationEvent::Finished { reason: FinishReason::Aborted, usage: input_only(&job.prompt) });
            // It may have been the one at the head that did not fit.
            self.promote();
        }
    }

    /// Computes one chunk of the oldest unfinished prompt.
    fn prefill(&mut self) {
        let Some(request) = self.running.iter_mut().find(|request| request.next.is_none()) else {
            return;
        };
        let prompt = &request.job.prompt;
        let end = prompt.len().min(request.prefilled + PREFILL_CHUNK);
        let chunk = &prompt[request.prefilled..end];
        let is_last = end == prompt.len();
        self.shared.counters.prefill_tokens.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        match self.backend.prefill(&mut request.row, chunk, is_last) {
            Ok(mut logits) => {
                request.prefilled = end;
                if is_last {
                    request.accept(&self.model, &self.shared, &mut logits);
                }
            }
            Err(error) => {
                report(&error);
                request.end = Some(End::Failed(GenerationFailure::Backend));
            }
        }
    }

    /// One decode step over every request that has a token to feed and room for text.
    fn decode(&mut self) {
        for request in &mut self.running {
            // Decided once: a consumer may make room between here and the end of the step.
            request.in_step = request.next.is_some() && request.events_have_room();
        }
        let mut batch: Vec<_> = self
            .running
            .iter_mut()
            .filter(|request| request.in_step)
            .map(|request| DecodeRow { row: &mut request.row, token: request.next.expect("in_step says so") })
            .collect();
        if batch.is_empty() {
            return;
        }
        let result = self.backend.decode(&mut batch);
        drop(batch);
        self.shared.counters.decode_steps.fetch_add(1, Ordering::Relaxed);
        let stepped = self.running.iter_mut().filter(|request| request.in_step);
        match result {
            Ok(mut logits) => {
                let rows = logits.chunks_exact_mut(self.backend.vocabulary());
                for (request, logits) in stepped.zip(rows) {
                    request.accept(&self.model, &self.shared, logits);
                }
            }
            Err(error) => {
                report(&error);
                for request in stepped {
                    request.end = Some(End::Failed(GenerationFailure::Backend));
                }
            }
        }
    }

    /// Frees the rows of requests that have ended, then says so, then fills their slots.
    fn reap(&mut self) {
        let mut ended = false;
        for request in self.running.extract_if(.., |request| request.end.is_some()) {
            let Running { job, row, usage, end, .. } = request;
            // Before the event: whoever sees the end finds the slot and its memory free.
            drop(row);
            self.shared.admission().finish(job.reserved);
            job.events.end(match end {
                Some(End::Finished(reason)) => GenerationEvent::Finished { reason, usage },
                Some(End::Failed(failure)) => GenerationEvent::Failed { failure, usage },
                None => continue,
            });
            ended = true;
        }
        if ended {
            self.promote();
        }
    }

    fn count_cache(&self) {
        let cache_bytes = self.running.iter().map(|request| self.backend.row_bytes(&request.row)).sum();
        self.shared.counters.cache_bytes.store(cache_bytes, Ordering::Relaxed);
    }
}

/// A request that holds a slot.
struct Running<R> {
    job: Job,
    row: R,
    /// Prompt tokens in the row.
    prefilled: usize,
    /// The token to feed next; none until the whole prompt is in the row.
    next: Option<u32>,
    sampler: Sampler,
    text: TextAssembler,
    usage: Usage,
    /// Generated tokens whose text has not been sent.
    unsent_tokens: u32,
    /// Whether it takes part in the current decode step.
    in_step: bool,
    /// Set when it has ended and is to be reaped.
    end: Option<End>,
}

/// How a request ended.
#[derive(Clone, Copy)]
enum End {
    Failed(GenerationFailure),
    Finished(FinishReason),
}

impl<R> Running<R> {
    fn new(mut job: Job, row: R) -> Self {
        Self {
            sampler: Sampler::new(job.sampling),
            text: TextAssembler::new(std::mem::take(&mut job.stop)),
            usage: input_only(&job.prompt),
            job,
            row,
            prefilled: 0,
            next: None,
            unsent_tokens: 0,
            in_step: false,
            end: None,
        }
    }

    fn can_run(&self) -> bool {
        self.next.is_none() || self.events_have_room()
    }

    fn events_have_room(&self) -> bool {
        self.job.events.has_room()
    }

    /// Samples the next token from `logits` and follows it to text, or to the end.
    fn accept(&mut self, model: &TextModel, shared: &Shared, logits: &mut [f32]) {
        let Some(token) = self.sampler.sample(logits) else {
            tracing::error!("the model yields no numbers");
            self.end = Some(End::Failed(GenerationFailure::Backend));
            return;
        };
        shared.counters.sampled_tokens.fetch_add(1, Ordering::Relaxed);
        if model.ends_turn(token) {
            self.finish(model, FinishReason::Stop);
            return;
        }
        self.usage.output += 1;
        self.unsent_tokens += 1;
        let piece = self.text.push(model.tokenizer(), token);
        let stopped = piece.stopped;
        self.send(piece);
        if stopped {
            self.end = Some(End::Finished(FinishReason::Stop));
        } else if self.usage.output == self.job.max_output {
            self.finish(model, FinishReason::Length);
        } else {
            self.next = Some(token);
        }
    }

    /// Ends the request, after what text was held back.
    fn finish(&mut self, model: &TextModel, reason: FinishReason) {
        let piece = self.text.finish(model.tokenizer());
        let reason = if piece.stopped { FinishReason::Stop } else { reason };
        self.send(piece);
        self.end = Some(End::Finished(reason));
    }

    fn send(&mut self, piece: Piece) {
        if !piece.text.is_empty() {
            self.job.events.text(piece.text, std::mem::take(&mut self.unsent_tokens));
        }
    }
}

fn input_only(prompt: &[u32]) -> Usage {
    Usage { input: u32::try_from(prompt.len()).expect("a context is at most 2^20 tokens"), ..Usage::default() }
}

fn report(error: &BackendError) {
    tracing::error!(error = error as &dyn Error, "the backend failed");
}
