//! Growing a log: entries gather in a pool, and a round puts them into the tree together.
//!
//! A round, and what a crash after each step leaves behind:
//!
//! 1. The pool is taken and the tree grown on a copy. Nothing is written.
//! 2. Everything that the round will write is staged as one object. It is garbage until step 3.
//! 3. The signed checkpoint is swapped into the lock. **From here on the round has happened**: at the next start the
//!    staged object is replayed. Before, its entries are as if never sent, and nobody was told otherwise.
//! 4. Tiles and bundles are written, never over others: the same bytes are fine, different ones mean that two logs
//!    were signed, and the sequencer stops.
//! 5. The checkpoint is published.
//! 6. Whoever waits for an entry of the round is answered.
//! 7. The staged object is dropped.
//!
//! The lock alone decides between two sequencers on one store: the one that loses the swap reloads and goes on from
//! the winner's checkpoint, so the log cannot fork. (Two that are active at once can publish an older checkpoint over a
//! newer one of the same log, until the next round. One writer is the plan; the lock is the net under it.)

mod cosigner;
mod pool;
mod recovery;
mod round;
mod staging;
mod timer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::bundle::MAX_ENTRY_LEN;
use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::{EMPTY_ROOT, leaf_hash};
use crate::note::{Signer, VerifierKey};
use crate::reader::{ReadError, Reader};
use crate::sequencer::pool::{Admission, Answer, State};
use crate::store::{self, CHECKPOINT_KEY, Lock, ObjectStore, PutNew, StoreError, TileSource};
use crate::tlog_proof::TlogProof;

pub use cosigner::{Cosigner, NotCosigned, Unwitnessed};
pub use recovery::OpenError;
pub use round::{Sequencer, SequencerError};
pub use timer::Timer;
#[cfg(feature = "dir")]
pub use timer::TokioTimer;

/// How a sequencer paces itself and what it may hold in memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shortest time from one round to the next. A round without entries is skipped.
    pub round_period: Duration,
    /// Entries that may wait for a round.
    pub max_pool_entries: usize,
    /// Bytes that may wait for a round. The round under way holds up to as much again.
    pub max_pool_bytes: usize,
    /// Latest entries that are recognised when they are appended again, about 100 bytes each.
    pub remembered_entries: usize,
}

impl Default for Config {
    /// 250 ms; 8,192 entries; 32 MiB; the last 65,536 entries.
    fn default() -> Self {
        Self {
            round_period: Duration::from_millis(250),
            max_pool_entries: 8192,
            max_pool_bytes: 32 * 1024 * 1024,
            remembered_entries: 65_536,
        }
    }
}

/// Creates an empty log: the lock first, then its checkpoint of size 0, which is published at once.
pub async fn create(store: &(impl ObjectStore + Lock), signer: &Signer) -> Result<(), CreateError> {
    let checkpoint = VerifiedCheckpoint::sign(signer, 0, EMPTY_ROOT);
    let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
    if store.get(CHECKPOINT_KEY).await?.is_some() || store.create(note.clone()).await? != PutNew::Created {
        return Err(CreateError::Exists);
    }
    // A crash here is made good by the first `Log::open`.
    Ok(store.put(CHECKPOINT_KEY, note).await?)
}

/// Why a log was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The store holds a log already.
    #[error("the store holds a log already")]
    Exists,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handle to a log that a [`Sequencer`] grows. Clones share it.
#[derive(Debug)]
pub struct Log<S> {
    shared: Arc<Shared<S>>,
}

/// What handles and the sequencer share.
#[derive(Debug)]
struct Shared<S> {
    store: S,
    log_key: VerifierKey,
    config: Config,
    // Never held across an await.
    state: Mutex<State>,
    // The pool has an entry, or the log closes.
    work: Notify,
    // The pool is half full, or the log closes: the next round should not wait for its time.
    urgent: Notify,
    stopped: watch::Sender<bool>,
}

/// An entry that stands in a published checkpoint.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The position of the entry, from 0.
    pub index: u64,
    /// Proves it offline.
    pub tlog_proof: TlogProof,
}

/// What a log has done since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries in the published checkpoint.
    pub tree_size: u64,
    /// Entries waiting for a round.
    pub pool_entries: usize,
    /// Bytes waiting for a round.
    pub pool_bytes: usize,
    /// Rounds published.
    pub rounds: u64,
    /// Rounds that a store failed.
    pub failed_rounds: u64,
    /// Entries published.
    pub appended: u64,
    /// Appends of an entry that was already in the log, in the pool, or in the round under way.
    pub duplicates: u64,
    /// Appends refused because the pool was full.
    pub overloaded: u64,
}

impl<S: ObjectStore + Lock> Log<S> {
    /// Opens a log: makes a last round good that a crash cut short, and verifies the end of the tree.
    ///
    /// Nothing is appended until the returned [`Sequencer`] runs.
    pub async fn open(store: S, signer: Signer, config: Config) -> Result<(Self, Sequencer<S>), OpenError> {
        let locked = store.load().await?.ok_or(OpenError::NotCreated)?;
        store::probe(&store, &locked).await?;
        let log_key = signer.verifier_key();
        let recovered = recovery::recover(&store, &log_key).await?;
        let mut state = State::new(Arc::clone(&recovered.checkpoint), config.remembered_entries);
        recovery::remember(&store, &recovered, state.remembered_mut()).await?;
        let (work, urgent, stopped) = (Notify::new(), Notify::new(), watch::Sender::new(false));
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { store, log_key, config, state, work, urgent, stopped });
        Ok((Self { shared: Arc::clone(&shared) }, Sequencer::new(shared, signer, recovered)))
    }
}

impl<S: TileSource> Log<S> {
    /// Appends an entry and returns once a published checkpoint includes it.
    ///
    /// Appending is idempotent: an entry that waits already, or is among the last
    /// [`Config::remembered_entries`], is not logged again, and the answer proves its first position. An older one
    /// becomes a second entry. When the caller stops waiting, the entry is logged all the same.
    pub async fn append(&self, entry: Bytes) -> Result<Appended, AppendError> {
        if entry.len() > MAX_ENTRY_LEN {
            return Err(AppendError::EntryTooLong);
        }
        let leaf = leaf_hash(&entry);
        let admission = self.shared.state().admit(leaf, entry, &self.shared.config)?;
        let answer = match admission {
            Admission::Remembered(index) => return self.prove(index).await,
            Admission::Waiting { answer, half_full } => {
                self.shared.work.notify_one();
                if half_full {
                    self.shared.urgent.notify_one();
                }
                answer
            }
        };
        match answer.await {
            Ok(Answer::Included { index, round }) => Ok(Appended { index, tlog_proof: round.prove(index) }),
            Ok(Answer::Remembered(index)) => self.prove(index).await,
            Err(_) => Err(AppendError::Stopped),
        }
    }

    /// Proves an entry of the log in the latest published checkpoint.
    pub async fn prove(&self, index: u64) -> Result<Appended, AppendError> {
        let checkpoint = self.checkpoint();
        let reader = Reader::at(&self.shared.store, VerifiedCheckpoint::clone(&checkpoint)).await?;
        let (path, _) = reader.inclusion_proof(index).await?;
        Ok(Appended { index, tlog_proof: TlogProof::new(index, path, checkpoint.note().to_owned()) })
    }

    /// The latest published checkpoint.
    pub fn checkpoint(&self) -> Arc<VerifiedCheckpoint> {
        self.shared.state().checkpoint()
    }

    /// The key that the log's checkpoints verify with.
    pub fn log_key(&self) -> &VerifierKey {
        &self.shared.log_key
    }

    /// Where the log lives: the read path serves from here.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// Counters and sizes, for metrics.
    pub fn stats(&self) -> Stats {
        self.shared.state().stats()
    }

    /// Refuses new entries, finishes the round, answers everyone, and returns once the sequencer has stopped.
    pub async fn close(&self) {
        self.shared.state().close();
        self.shared.work.notify_one();
        self.shared.urgent.notify_one();
        // The sender lives in `shared`, so waiting ends only by the sequencer.
        let _ = self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }
}

impl<S> Clone for Log<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an entry was not appended, or not proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closing; the entry was not taken.
    #[error("the log is closing")]
    Closing,
    /// More than [`MAX_ENTRY_LEN`] bytes; the entry was not taken.
    #[error("entry longer than 65535 bytes")]
    EntryTooLong,
    /// The pool is full; the entry was not taken, and trying again after a round may help.
    #[error("the log is overloaded")]
    Overloaded,
    /// The entry is in the log, but its proof was not read.
    #[error("proof of a logged entry not read")]
    Read(#[from] ReadError),
    /// The sequencer stopped. The entry may or may not be in the log; appending it again after a restart is safe.
    #[error("the sequencer has stopped")]
    Stopped,
}
