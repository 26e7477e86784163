//! The sequencer: one round after the other, and what to do when one fails.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::Signer;
use crate::sequencer::log::Shared;
use crate::sequencer::partials::Partials;
use crate::sequencer::pool::Pending;
use crate::sequencer::recovery::{Recovered, recover};
use crate::sequencer::{Cosigner, OpenError, Timer, Unwitnessed};
use crate::store::{LeafIndex, Lock, LockToken, ObjectStore, StoreError};
use crate::tree::Tree;

/// Failures in a row after which a closing log stops trying.
const MAX_FAILURES_WHILE_CLOSING: u32 = 3;

/// The pause after a failure; it doubles with each further one up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Grows a log while [`Sequencer::run`] is polled. Dropped, it leaves the log closed for appending.
pub struct Sequencer<S, C = Unwitnessed> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) signer: Signer,
    pub(super) cosigner: C,
    pub(super) head: Head,
    // What is known to stand under `checkpoint` in the store.
    pub(super) public: Option<Bytes>,
    // The round under way; empty in between.
    pub(super) running: Vec<Pending>,
    // The index covers the head's tree.
    pub(super) index_is_current: bool,
    pub(super) partials: Partials,
    // When the published checkpoint needs fresh cosignatures, by the timer.
    pub(super) refresh_at: Option<Duration>,
}

/// The lock's value, and the tree that it committed to.
#[derive(Debug)]
pub(super) struct Head {
    // With the log's own signature only.
    pub(super) checkpoint: VerifiedCheckpoint,
    pub(super) token: LockToken,
    pub(super) tree: Tree,
}

/// How a round ended early.
pub(super) enum Interrupted {
    /// Surely not committed: the entries can go into the next round.
    BeforeCommit(StoreError),
    /// Never go on.
    Halted(OpenError),
    /// Committed, or nobody knows, or another sequencer went on: only a reload tells.
    MaybeCommitted(Option<StoreError>),
    /// Committed and held back by witnesses, while the log closes.
    NotCosigned,
}

/// What a waiting sequencer does next.
enum Turn {
    Close,
    Round,
}

impl<S, C> Sequencer<S, C> {
    pub(super) fn new(shared: Arc<Shared<S>>, signer: Signer, cosigner: C, recovered: Recovered, partials: Partials) -> Self {
        let Recovered { head, public } = recovered;
        let public = public.map(|public| Bytes::copy_from_slice(public.note().as_bytes()));
        let running = Vec::new();
        Self { shared, signer, cosigner, head, public, running, index_is_current: true, partials, refresh_at: None }
    }
}

impl<S: ObjectStore + Lock + LeafIndex, C: Cosigner> Sequencer<S, C> {
    /// Runs rounds until the log is closed or cannot go on.
    ///
    /// A store that fails is tried again after 100 ms and then ever later, up to 10 s; meanwhile appends wait until the
    /// pool is full. Dropping the future is like a crash: safe, but entries of the round under way go unanswered.
    pub async fn run(mut self, timer: impl Timer) -> Result<(), SequencerError> {
        let mut retries = Retries::default();
        let mut not_before = Duration::ZERO;
        // Nobody knows how old the cosignatures are that stand there.
        self.refresh_at = self.cosigner.refresh_period().map(|_| timer.now());
        if self.is_unpublished() {
            let settled = stamping(&Arc::clone(&self.shared), &timer, self.settle(&timer)).await;
            self.recover_from(settled, &mut retries, &timer).await?;
        }
        loop {
            let shared = Arc::clone(&self.shared);
            let tree_size = self.head.tree.edge().size();
            if self.partials.has_work() && (self.partials.is_pressing() || !is_due(&shared, &timer, tree_size, not_before)) {
                // Not dropped halfway: a closed log has no file open any more.
                let n_collected = stamping(&shared, &timer, self.partials.collect(&shared.store)).await;
                shared.state().stats_mut().collected += n_collected;
                continue;
            }
            let turn = {
                let next = pin!(next_turn(&shared, &timer, tree_size, not_before));
                let refreshed = pin!(self.refreshed(&timer));
                match select(next, refreshed).await {
                    Either::Left((turn, _)) => Either::Left(turn),
                    Either::Right((refreshed, _)) => Either::Right(refreshed),
                }
            };
            let done = match turn {
                Either::Left(Turn::Close) => break,
                Either::Left(Turn::Round) => {
                    let start = timer.now();
                    not_before = start.saturating_add(shared.config.min_period);
                    let done = stamping(&shared, &timer, self.round(&timer)).await;
                    shared.state().set_retry_after(timer.now().saturating_sub(start).saturating_add(shared.config.min_period));
                    done
                }
                Either::Right((refreshed, is_complete)) => self.republish(refreshed, is_complete, &timer).await,
            };
            self.recover_from(done, &mut retries, &timer).await?;
        }
        let n_collected = self.partials.finish(&self.shared.store).await;
        self.shared.state().stats_mut().collected += n_collected;
        Ok(())
    }

    /// Whether the lock is ahead of what is published.
    fn is_unpublished(&self) -> bool {
        self.public.is_none() || self.shared.state().checkpoint().tree_size() < self.head.checkpoint.tree_size()
    }

    /// Puts the log in order after a failure, however long the store takes to come back.
    async fn recover_from(
        &mut self,
        mut done: Result<(), Interrupted>,
        retries: &mut Retries,
        timer: &impl Timer,
    ) -> Result<(), SequencerError> {
        if done.is_ok() {
            retries.reset();
        }
        loop {
            let (error, is_committed) = match done {
                Ok(()) => return Ok(()),
                Err(Interrupted::Halted(error)) => return Err(error.into()),
                Err(Interrupted::NotCosigned) => return Err(SequencerError::NotCosigned),
                Err(Interrupted::BeforeCommit(error)) => (Some(error), false),
                Err(Interrupted::MaybeCommitted(error)) => (error, true),
            };
            retries.count();
            self.shared.state().stats_mut().failed_rounds += 1;
            match error {
                Some(error) if retries.are_hopeless(&self.shared) => return Err(SequencerError::Store(error)),
                Some(error) => tracing::warn!(error = &error as &dyn Error, is_committed, "round not finished, trying again"),
                None if retries.are_hopeless(&self.shared) => return Err(SequencerError::Contended),
                None => tracing::warn!("another sequencer went on with the log, reloading it"),
            }
            // Its own entries wait for the next round, or for what a reload says about them.
            self.shared.state().return_to_pool(std::mem::take(&mut self.running));
            pause(&self.shared, timer, retries.delay()).await;
            if !is_committed {
                return Ok(());
            }
            done = stamping(&Arc::clone(&self.shared), timer, self.reload(timer)).await;
        }
    }

    /// Takes up the log as the lock says it is. Entries that turn out to be logged are answered by the next round.
    async fn reload(&mut self, timer: &impl Timer) -> Result<(), Interrupted> {
        let recovered = recover(&self.shared.store, &self.shared.log_key).await?;
        self.head = recovered.head;
        self.public = recovered.public.as_ref().map(|public| Bytes::copy_from_slice(public.note().as_bytes()));
        self.index_is_current = false;
        if let Some(public) = recovered.public {
            self.partials.published(public.tree_size(), []);
            self.shared.state().reload(public);
        }
        if self.is_unpublished() { self.settle(timer).await } else { Ok(()) }
    }

    /// Publishes what the lock committed to before this sequencer took over.
    async fn settle(&mut self, timer: &impl Timer) -> Result<(), Interrupted> {
        let checkpoint = self.publish(timer).await?;
        self.partials.published(checkpoint.tree_size(), []);
        self.shared.state().reload(checkpoint);
        self.drop_staged().await;
        Ok(())
    }

    async fn republish(
        &mut self,
        refreshed: VerifiedCheckpoint,
        is_complete: bool,
        timer: &impl Timer,
    ) -> Result<(), Interrupted> {
        self.put_checkpoint(&refreshed, timer).await?;
        self.refresh_after(is_complete, timer);
        let mut state = self.shared.state();
        state.stats_mut().refreshed += 1;
        state.reload(refreshed);
        Ok(())
    }
}

/// Whether there is something better to do than to tidy up: a round, or to close.
fn is_due<S>(shared: &Shared<S>, timer: &impl Timer, tree_size: u64, not_before: Duration) -> bool {
    let now = timer.now();
    let mut state = shared.state();
    state.stamp(now);
    state.is_closing() || state.due(tree_size, &shared.config).is_some_and(|due| due.max(not_before) <= now)
}

/// Waits until a round is due, or the log closes and no entry is left.
async fn next_turn<S>(shared: &Shared<S>, timer: &impl Timer, tree_size: u64, not_before: Duration) -> Turn {
    loop {
        let now = timer.now();
        let due = {
            let mut state = shared.state();
            state.stamp(now);
            let due = state.due(tree_size, &shared.config);
            if due.is_none() && state.is_closing() {
                return Turn::Close;
            }
            due.map(|due| due.max(not_before))
        };
        let work = pin!(shared.work.notified());
        match due {
            Some(due) if due <= now => return Turn::Round,
            Some(due) => {
                select(work, pin!(timer.sleep(due.saturating_sub(now)))).await;
            }
            None => work.await,
        }
    }
}

/// Does `work`, and meanwhile notes when entries come.
async fn stamping<S, R>(shared: &Shared<S>, timer: &impl Timer, work: impl Future<Output = R>) -> R {
    match select(pin!(work), pin!(stamp(shared, timer))).await {
        Either::Left((result, _)) => result,
        Either::Right((never, _)) => match never {},
    }
}

async fn stamp<S>(shared: &Shared<S>, timer: &impl Timer) -> Infallible {
    loop {
        shared.work.notified().await;
        shared.state().stamp(timer.now());
    }
}

/// Waits before the next attempt, and says so to whom the pool has no room for.
pub(super) async fn pause<S>(shared: &Shared<S>, timer: &impl Timer, delay: Duration) {
    shared.state().set_retry_after(delay.saturating_add(shared.config.min_period));
    let closing = pin!(async {
        loop {
            let work = shared.work.notified();
            if shared.state().is_closing() {
                break;
            }
            work.await;
            shared.state().stamp(timer.now());
        }
        timer.sleep(FIRST_PAUSE.min(delay)).await;
    });
    select(pin!(timer.sleep(delay)), closing).await;
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Retries(u32);

impl Retries {
    pub(super) fn count(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    fn reset(&mut self) {
        self.0 = 0;
    }

    /// How long to wait after the last failure.
    pub(super) fn delay(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << self.0.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }

    /// Whether a closing log should stop trying, for which nobody would wait.
    pub(super) fn are_hopeless<S>(&self, shared: &Shared<S>) -> bool {
        self.0 >= MAX_FAILURES_WHILE_CLOSING && shared.state().is_closing()
    }
}

impl<S, C> Drop for Sequencer<S, C> {
    fn drop(&mut self) {
        self.shared.state().stop();
        self.shared.stopped.send_replace(true);
    }
}

impl<S, C> fmt::Debug for Sequencer<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl From<OpenError> for Interrupted {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => Self::MaybeCommitted(Some(error)),
            error => Self::Halted(error),
        }
    }
}

/// Why a sequencer stopped before its log was closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SequencerError {
    /// Swaps of the lock kept failing while the log was being closed: another sequencer is always quicker, or the store
    /// takes no conditional write.
    #[error("the log was always found changed while it closes; is another writer busy, or does the store change ETags?")]
    Contended,
    /// The log is not what the sequencer knows it to be, and must not grow further.
    #[error("log cannot go on")]
    Halted(#[from] OpenError),
    /// The witnesses kept back the last round while the log was being closed. It is published at the next start.
    #[error("no quorum of witnesses while the log closes; its last round is published at the next start")]
    NotCosigned,
    /// The store kept failing while the log was being closed.
    #[error("store failing while the log closes")]
    Store(#[source] StoreError),
}
