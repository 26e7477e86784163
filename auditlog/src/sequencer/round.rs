//! The sequencer: one round after the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, pin_mut, stream};

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::Signer;
use crate::proof::Prover;
use crate::sequencer::pool::{Pending, Published};
use crate::sequencer::recovery::{OpenError, Recovered, recover, remember};
use crate::sequencer::{Shared, staging};
use crate::store::{CHECKPOINT_KEY, Lock, LockToken, ObjectStore, PutNew, StoreError, Swap};
use crate::tile::{TILE_WIDTH, TileContent, TilePath, parse_hashes};
use crate::tree::{Object, Tree};

/// Objects of one round that are written at the same time.
const CONCURRENT_WRITES: usize = 16;

/// Failures in a row after which a closing log stops trying.
const MAX_FAILURES_WHILE_CLOSING: u32 = 3;

/// Grows a log while [`Sequencer::run`] is polled. Dropped, it leaves the log closed for appending.
pub struct Sequencer<S> {
    shared: Arc<Shared<S>>,
    signer: Signer,
    // The state that the lock's value, named by `token`, committed to.
    tree: Tree,
    token: LockToken,
    // The round under way; empty in between.
    running: Vec<Pending>,
}

/// How a round ended early.
enum Interrupted {
    /// Surely not committed: the entries can go into the next round.
    BeforeCommit(StoreError),
    /// Committed, or nobody knows: only a reload tells.
    MaybeCommitted(Option<StoreError>),
    /// Never go on.
    Split { path: TilePath },
}

impl<S> Sequencer<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, signer: Signer, recovered: Recovered) -> Self {
        let Recovered { checkpoint: _, token, tree } = recovered;
        Self { shared, signer, tree, token, running: Vec::new() }
    }
}

impl<S: ObjectStore + Lock> Sequencer<S> {
    /// Runs rounds until the log is closed or cannot go on. `sleep` is the host's timer, such as `tokio::time::sleep`.
    ///
    /// A store that fails is tried again every period; meanwhile appends wait until the pool is full. Dropping the
    /// future is like a crash: safe, but entries of the round under way go unanswered.
    pub async fn run<F: Future<Output = ()>>(mut self, sleep: impl Fn(Duration) -> F) -> Result<(), SequencerError> {
        let mut failures = 0;
        while self.wait_for_work().await {
            let period = sleep(self.shared.config.round_period);
            match self.round().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.after_failure(error, &mut failures, &sleep).await?;
                }
            }
            let urgent = self.shared.urgent.notified();
            pin_mut!(period, urgent);
            future::select(period, urgent).await;
        }
        Ok(())
    }

    /// Waits for an entry; `false` when the log closes and none is left.
    async fn wait_for_work(&self) -> bool {
        loop {
            {
                let state = self.shared.state();
                if state.has_work() || state.is_closing() {
                    return state.has_work();
                }
            }
            self.shared.work.notified().await;
        }
    }

    /// One round, in the order that the [module](super) explains.
    async fn round(&mut self) -> Result<(), Interrupted> {
        self.running = self.shared.state().take_pool();
        let mut tree = self.tree.clone();
        let objects = tree.append(self.running.iter().map(|pending| (pending.leaf, pending.entry.as_ref())));
        let edge = tree.edge();
        let checkpoint = VerifiedCheckpoint::sign(&self.signer, edge.size(), edge.root());
        let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
        let store = &self.shared.store;

        let staging_key = staging::key(&checkpoint);
        store.put(&staging_key, staging::write(&objects)).await.map_err(Interrupted::BeforeCommit)?;
        let token = match store.swap(&self.token, note.clone()).await {
            Swap::Swapped(token) => token,
            Swap::Lost => return Err(Interrupted::MaybeCommitted(None)),
            Swap::Unknown(error) => return Err(Interrupted::MaybeCommitted(Some(error))),
        };

        let prover = prover_of(&tree, &objects);
        write_objects(store, objects).await?;
        store.put(CHECKPOINT_KEY, note).await.map_err(|error| Interrupted::MaybeCommitted(Some(error)))?;

        let first = self.tree.edge().size();
        self.tree = tree;
        self.token = token;
        let published = Arc::new(Published { checkpoint: Arc::new(checkpoint), prover });
        self.shared.state().publish(first, &std::mem::take(&mut self.running), &published);
        if let Err(error) = self.shared.store.delete(&staging_key).await {
            // It is dropped at the next start.
            tracing::warn!(%error, "staged round not dropped");
        }
        Ok(())
    }

    /// Puts the log in order after a round that failed, however long the store takes to come back.
    async fn after_failure<F: Future<Output = ()>>(
        &mut self,
        error: Interrupted,
        failures: &mut u32,
        sleep: &impl Fn(Duration) -> F,
    ) -> Result<(), SequencerError> {
        self.shared.state().count_failed_round();
        let mut error = match error {
            Interrupted::Split { path } => return Err(OpenError::Split { path }.into()),
            Interrupted::BeforeCommit(error) => {
                tracing::warn!(%error, "round not committed, its entries wait for the next");
                self.shared.state().return_to_pool(std::mem::take(&mut self.running));
                return self.give_up(*failures, error);
            }
            Interrupted::MaybeCommitted(error) => error,
        };
        loop {
            if let Some(error) = error.take() {
                tracing::warn!(%error, "round not finished, reloading the log");
                self.give_up(*failures, error)?;
            } else {
                tracing::warn!("another sequencer moved the lock, reloading the log");
            }
            match self.reload().await {
                Ok(()) => return Ok(()),
                Err(OpenError::Store(store_error)) => error = Some(store_error),
                Err(error) => return Err(error.into()),
            }
            *failures += 1;
            sleep(self.shared.config.round_period).await;
        }
    }

    /// Stops a closing log whose store keeps failing, which nobody would wait for.
    fn give_up(&self, failures: u32, error: StoreError) -> Result<(), SequencerError> {
        let hopeless = failures >= MAX_FAILURES_WHILE_CLOSING && self.shared.state().is_closing();
        if hopeless { Err(SequencerError::Store(error)) } else { Ok(()) }
    }

    /// Takes up the log as the lock says it is, and answers or keeps the entries of the round under way accordingly.
    async fn reload(&mut self) -> Result<(), OpenError> {
        let recovered = recover(&self.shared.store, &self.shared.log_key).await?;
        let mut remembered = self.shared.state().remembered_mut().clone();
        remember(&self.shared.store, &recovered, &mut remembered).await?;
        let Recovered { checkpoint, token, tree } = recovered;
        let mut state = self.shared.state();
        state.reload(checkpoint, remembered);
        state.return_to_pool(std::mem::take(&mut self.running));
        drop(state);
        self.tree = tree;
        self.token = token;
        Ok(())
    }
}

impl<S> Drop for Sequencer<S> {
    fn drop(&mut self) {
        self.shared.state().stop();
        self.shared.stopped.send_replace(true);
    }
}

impl<S> fmt::Debug for Sequencer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("signer", &self.signer).finish_non_exhaustive()
    }
}

/// A prover for the entries of a round that wrote `objects`.
fn prover_of(tree: &Tree, objects: &[Object]) -> Prover {
    let mut prover = Prover::new(tree.edge());
    for Object { path, bytes } in objects {
        if let (TileContent::Hashes(level), false) = (path.content(), path.is_partial()) {
            let hashes = parse_hashes(bytes, TILE_WIDTH).expect("the tree wrote a full tile");
            prover.insert(level, path.index(), hashes);
        }
    }
    prover
}

/// Writes the objects of a committed round. That some are there already is fine, as long as they are the same.
pub(super) async fn write_objects(store: &impl ObjectStore, objects: Vec<Object>) -> Result<(), PublishError> {
    stream::iter(objects)
        .map(|Object { path, bytes }| async move {
            match store.put_new(&path.to_string(), bytes).await {
                Ok(PutNew::Created | PutNew::ExistsSame) => Ok(()),
                Ok(PutNew::ExistsDifferent) => Err(PublishError::Split { path }),
                Err(error) => Err(PublishError::Store(error)),
            }
        })
        .buffer_unordered(CONCURRENT_WRITES)
        .try_collect()
        .await
}

/// Why a committed round is not in place.
pub(super) enum PublishError {
    Split { path: TilePath },
    Store(StoreError),
}

impl From<PublishError> for Interrupted {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Split { path } => Self::Split { path },
            PublishError::Store(error) => Self::MaybeCommitted(Some(error)),
        }
    }
}

/// Why a sequencer stopped before its log was closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SequencerError {
    /// The log is not what the sequencer knows it to be, and must not grow further.
    #[error("log cannot go on")]
    Halted(#[from] OpenError),
    /// The store kept failing while the log was being closed.
    #[error("store failing while the log closes")]
    Store(#[source] StoreError),
}
