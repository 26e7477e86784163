//! Growing a log: entries gather in a pool, and a round puts them into the tree together.
//!
//! A round, and what a crash after each step leaves behind:
//!
//! 1. Entries are taken from the pool. Those that the index of the tree knows are answered with their old position.
//! 2. The tree is grown on a copy. Nothing is written.
//! 3. Everything that the round will write is staged as one object. It is garbage until step 4.
//! 4. The signed checkpoint is swapped into the lock. **From here on the round has happened**: at the next start the
//!    staged object is replayed. Before, its entries are as if never sent, and nobody was told otherwise.
//! 5. Tiles and bundles are written, never over others: the same bytes are fine, different ones mean that two logs
//!    were signed, and the sequencer stops.
//! 6. Witnesses cosign. Without them the checkpoint stays where it is, and they are asked again.
//! 7. The checkpoint is published, over the one that the sequencer knows to be there and over no other. So it never goes
//!    back in size, whatever another sequencer, or a write that a network kept for a minute, does.
//! 8. Whoever waits for an entry of the round is answered.
//! 9. The leaves go into the index, the staged object is dropped, and partial tiles that became full ones are deleted.
//!    What a crash leaves of that is made good at the next start.
//!
//! The lock alone decides between two sequencers on one store: the one that loses the swap reloads and goes on from
//! the winner's checkpoint, so the log cannot fork. A round starts only from a published checkpoint, so the published
//! one is at most a round behind the lock, whoever holds it.
//!
//! Time is measured from the timer's start alone; no step looks at the date.

mod cosigner;
mod duplicates;
mod log;
mod pacing;
mod partials;
mod pool;
mod publish;
mod recent;
mod recovery;
mod round;
mod run;
mod staging;
mod timer;

use std::time::Duration;

use bytes::Bytes;

use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::EMPTY_ROOT;
use crate::note::Signer;
use crate::store::{CHECKPOINT_KEY, Lock, Locked, ObjectStore, PutNew, StoreError};

pub use cosigner::{Cosigner, NotCosigned, Refreshed, Unwitnessed};
pub use log::{AppendError, Appended, Log, Stats};
pub use recovery::OpenError;
pub use run::{Sequencer, SequencerError};
pub use timer::Timer;
#[cfg(feature = "dir")]
pub use timer::TokioTimer;

/// How a sequencer paces itself and what it may hold in memory.
///
/// A round takes the whole tiles that the pool completes, and starts as soon as there is one. What is left keeps its
/// age: once an entry has waited for `max_delay`, or the pool is half full, a round takes all of it. Rounds without
/// entries do not exist.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shortest time from the start of one round to that of the next. Some object stores take one write a second
    /// under the same key.
    pub min_period: Duration,
    /// The longest that an entry waits for a round to start. The longer, the fewer rounds a slow log has, and each costs
    /// some six writes.
    pub max_delay: Duration,
    /// Entries that may wait for a round.
    pub max_pool_entries: usize,
    /// Bytes that may wait for a round. The round under way holds up to as much again.
    pub max_pool_bytes: usize,
    /// Latest entries that are recognised without asking the store when they are appended again, about 100 bytes each.
    /// At least [`Self::max_pool_entries`] are.
    pub recent_entries: usize,
}

impl Default for Config {
    /// 10 ms, so that rounds of a busy log carry several tiles; 250 ms, about what people notice; 8,192 entries; 32 MiB;
    /// the last 65,536 entries.
    fn default() -> Self {
        Self {
            min_period: Duration::from_millis(10),
            max_delay: Duration::from_millis(250),
            max_pool_entries: 8192,
            max_pool_bytes: 32 * 1024 * 1024,
            recent_entries: 65_536,
        }
    }
}

/// The first tile of every log, and its first bundle.
const FIRST_TILES: [&str; 2] = ["tile/0/000", "tile/entries/000"];

/// Creates an empty log: the lock first, then its checkpoint of size 0, which is published at once.
///
/// What an earlier attempt with the same signer left half done is finished.
pub async fn create(store: &(impl ObjectStore + Lock), signer: &Signer) -> Result<(), CreateError> {
    let checkpoint = VerifiedCheckpoint::sign(signer, 0, EMPTY_ROOT);
    let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
    let is_other = |locked: Locked| locked.bytes != note;
    if store.get(CHECKPOINT_KEY).await?.is_some() || store.load().await?.is_some_and(is_other) {
        return Err(CreateError::Exists);
    }
    // Tiles are never written over, so those of another log would stop this one for good.
    for tile in FIRST_TILES {
        if store.get(tile).await?.is_some() || !store.list(&format!("{tile}.p/")).await?.is_empty() {
            return Err(CreateError::Leftovers);
        }
    }
    if store.create(note.clone()).await? == PutNew::ExistsDifferent {
        return Err(CreateError::Exists);
    }
    // A crash here is made good by the first sequencer that runs, or by creating again. A sequencer that runs already
    // may have published more, which a late write must not undo.
    if store.put_over(CHECKPOINT_KEY, None, note.clone()).await? || store.get(CHECKPOINT_KEY).await? == Some(note) {
        Ok(())
    } else {
        Err(CreateError::Exists)
    }
}

/// Why a log was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The store holds a log already.
    #[error("the store holds a log already")]
    Exists,
    /// The store holds tiles, and no log that they are of.
    #[error("the store holds tiles of an earlier log; use an empty directory or prefix")]
    Leftovers,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
