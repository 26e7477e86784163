//! The handle by which entries go in and proofs come out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::bundle::MAX_ENTRY_LEN;
use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::{EMPTY_ROOT, Hash, leaf_hash};
use crate::note::{Signer, VerifierKey};
use crate::reader::{ReadError, Reader};
use crate::sequencer::pool::{Admission, Answer, State};
use crate::sequencer::{Config, Cosigner, OpenError, Sequencer, Unwitnessed, duplicates, partials, recovery};
use crate::store::{self, LeafIndex, Lock, ObjectStore, TileSource};
use crate::tlog_proof::TlogProof;

/// A handle to a log that a [`Sequencer`] grows. Clones share it.
#[derive(Debug)]
pub struct Log<S> {
    shared: Arc<Shared<S>>,
}

/// What handles and the sequencer share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) store: S,
    pub(super) log_key: VerifierKey,
    pub(super) config: Config,
    // Never held across an await.
    state: Mutex<State>,
    // The pool has entries that the sequencer has not seen, or the log closes.
    pub(super) work: Notify,
    pub(super) stopped: watch::Sender<bool>,
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
    /// Entries that wait for a round or are in the one under way, whether or not anybody still waits for the answer.
    pub unanswered: usize,
    /// Entries answered: published, or found to be in the log already. While there are unanswered ones, this grows.
    pub answered: u64,
    /// When an append that was refused for want of room may be tried again.
    pub retry_after: Duration,
    /// Rounds published.
    pub rounds: u64,
    /// Rounds that a store failed, or another sequencer took.
    pub failed_rounds: u64,
    /// Entries published in rounds of this sequencer that did not fail.
    pub appended: u64,
    /// Appends of an entry that was already in the log, in the pool, or in the round under way.
    pub duplicates: u64,
    /// Appends refused because the pool was full.
    pub overloaded: u64,
    /// Times that no quorum of witnesses cosigned a checkpoint, which was held back.
    pub not_cosigned: u64,
    /// Times that a published checkpoint got fresh cosignatures.
    pub refreshed: u64,
    /// Partial tiles and bundles deleted.
    pub collected: u64,
}

impl<S: ObjectStore + Lock + LeafIndex> Log<S> {
    /// [`Self::open_witnessed`] without witnesses.
    pub async fn open(store: S, signer: Signer, config: Config) -> Result<(Self, Sequencer<S>), OpenError> {
        Self::open_witnessed(store, signer, config, Unwitnessed).await
    }

    /// Opens a log: puts the tiles of a last round in place that a crash cut short, verifies the end of the tree, and
    /// brings the index up to it, which takes its time when the index was lost.
    ///
    /// Nothing is appended or published until the returned [`Sequencer`] runs. A last round is published then, once
    /// `cosigner` lets it.
    pub async fn open_witnessed<C: Cosigner>(
        store: S,
        signer: Signer,
        config: Config,
        cosigner: C,
    ) -> Result<(Self, Sequencer<S, C>), OpenError> {
        let locked = store.load().await?.ok_or(OpenError::NotCreated)?;
        store::probe(&store, &locked).await?;
        let log_key = signer.verifier_key();
        let recovered = recovery::recover(&store, &log_key).await?;
        duplicates::catch_up(&store, &recovered.reader(&store)).await?;
        let partials = partials::Partials::resume(&store, recovered.published_size()).await?;
        // Until one is published, the log is as good as empty.
        let checkpoint = recovered.public.clone().unwrap_or_else(|| VerifiedCheckpoint::sign(&signer, 0, EMPTY_ROOT));
        let state = Mutex::new(State::new(Arc::new(checkpoint), &config));
        let (work, stopped) = (Notify::new(), watch::Sender::new(false));
        let shared = Arc::new(Shared { store, log_key, config, state, work, stopped });
        Ok((Self { shared: Arc::clone(&shared) }, Sequencer::new(shared, signer, cosigner, recovered, partials)))
    }

    /// Where the entry with this leaf hash stands; `None` when no published checkpoint has it.
    pub async fn position(&self, leaf: &Hash) -> Result<Option<u64>, ReadError> {
        let recent = self.shared.state().recent(leaf);
        if recent.is_some() {
            return Ok(recent);
        }
        let [Some(index)] = self.shared.store.positions(vec![*leaf]).await?[..] else {
            return Ok(None);
        };
        let reader = self.reader().await?;
        match reader.leaf(index).await {
            Ok(found) if found == *leaf => Ok(Some(index)),
            // In the tree, and not published yet.
            Err(ReadError::OutsideTree) => Ok(None),
            Ok(_) => {
                self.shared.state().suspect_index();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl<S: TileSource> Log<S> {
    /// Appends an entry and returns once a published checkpoint includes it.
    ///
    /// Appending is idempotent: an entry that waits already, or is in the log, is not logged again, and the answer
    /// proves its first position. When the caller stops waiting, the entry is logged all the same.
    pub async fn append(&self, entry: Bytes) -> Result<Appended, AppendError> {
        if entry.len() > MAX_ENTRY_LEN {
            return Err(AppendError::EntryTooLong);
        }
        let leaf = leaf_hash(&entry);
        let admission = self.shared.state().admit(leaf, entry, &self.shared.config)?;
        let answer = match admission {
            Admission::Logged(index) => return Ok(self.prove(index).await?),
            Admission::Waiting { answer, wake } => {
                if wake {
                    self.shared.work.notify_one();
                }
                answer
            }
        };
        match answer.await {
            Ok(Answer::Included { index, round }) => Ok(Appended { index, tlog_proof: round.prove(index) }),
            Ok(Answer::Logged(index)) => Ok(self.prove(index).await?),
            Err(_) => Err(AppendError::Stopped),
        }
    }

    /// Proves an entry of the log in the latest published checkpoint.
    pub async fn prove(&self, index: u64) -> Result<Appended, ReadError> {
        let reader = self.reader().await?;
        let (path, _) = reader.inclusion_proof(index).await?;
        Ok(Appended { index, tlog_proof: TlogProof::new(index, path, reader.checkpoint().note().to_owned()) })
    }

    async fn reader(&self) -> Result<Reader<&S>, ReadError> {
        Reader::at(&self.shared.store, VerifiedCheckpoint::clone(&self.checkpoint())).await
    }
}

impl<S> Log<S> {
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

    /// Refuses new entries, logs those that wait, answers everyone, and returns once the sequencer has stopped.
    pub async fn close(&self) {
        self.shared.state().close();
        // Whoever waits for it now, and whoever does next.
        self.shared.work.notify_waiters();
        self.shared.work.notify_one();
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
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
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
    /// The pool is full; the entry was not taken.
    #[error("the log is overloaded")]
    Overloaded {
        /// When trying again may help.
        retry_after: Duration,
    },
    /// The entry is in the log, but its proof was not read.
    #[error("proof of a logged entry not read")]
    Read(#[from] ReadError),
    /// The sequencer stopped. The entry may or may not be in the log; appending it again after a restart is safe.
    #[error("the sequencer has stopped")]
    Stopped,
}
