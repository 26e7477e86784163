//! Finding the state of a log in its store, and making good what a crash left half done.

use crate::bundle::write_entry;
use crate::checkpoint::{CheckpointError, VerifiedCheckpoint};
use crate::note::VerifierKey;
use crate::proof::ProofError;
use crate::reader::{ReadError, Reader, right_edge};
use crate::sequencer::round::write_objects;
use crate::sequencer::run::Head;
use crate::sequencer::staging;
use crate::store::{CHECKPOINT_KEY, Lock, ObjectStore, ProbeError, STAGING_PREFIX, StoreError, TileSource};
use crate::tile::{TILE_WIDTH, TilePath, bundle_of};
use crate::tree::{RightEdge, Tree};

/// A log whose lock, published checkpoint and right edge agree.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) head: Head,
    /// What is published: the head, or what it goes on from; `None` when nothing is.
    pub(super) public: Option<VerifiedCheckpoint>,
}

impl Recovered {
    pub(super) fn published_size(&self) -> u64 {
        self.public.as_ref().map_or(0, VerifiedCheckpoint::tree_size)
    }

    /// Reads the head's tree.
    pub(super) fn reader<'a, T: TileSource>(&self, source: &'a T) -> Reader<&'a T> {
        Reader::with_edge(source, self.head.checkpoint.clone(), self.head.tree.edge())
    }
}

/// Puts everything in place that the lock's checkpoint needs to be published, and verifies its end.
pub(super) async fn recover(store: &(impl ObjectStore + Lock), log_key: &VerifierKey) -> Result<Recovered, OpenError> {
    // The published one first: another sequencer may go on between the two, and moves the lock before it publishes.
    let public = match store.get(CHECKPOINT_KEY).await? {
        Some(note) => Some(VerifiedCheckpoint::verify(&note, log_key).map_err(OpenError::CheckpointRefused)?),
        None => None,
    };
    let locked = store.load().await?.ok_or(OpenError::NotCreated)?;
    let checkpoint = VerifiedCheckpoint::verify(&locked.bytes, log_key).map_err(OpenError::LockRefused)?;
    let public_size = public.as_ref().map_or(0, VerifiedCheckpoint::tree_size);
    let size = checkpoint.tree_size();
    if public_size > size {
        return Err(OpenError::LockBehind);
    }
    // Staging is dropped only after publication. Where it is gone nonetheless, another sequencer published since, or
    // the published checkpoint was lost: the round's objects must be there, and each is checked.
    let mut unstaged = public_size..public_size;
    if public_size < size {
        match store.get(&staging::key(&checkpoint)).await? {
            Some(staged) => {
                let objects = staging::parse(&staged).ok_or(OpenError::StagingDamaged)?;
                write_objects(store, objects).await?;
            }
            None => unstaged = public_size..size,
        }
    }

    let edge = match right_edge(store, &checkpoint).await {
        Err(ReadError::Missing { .. }) if !unstaged.is_empty() => return Err(OpenError::StagingMissing),
        other => other?,
    };
    let reader = Reader::with_edge(store, checkpoint, &edge);
    if let Some(public) = &public {
        // Same size and another root, or a smaller tree that is no prefix: the log was forked.
        match reader.verify_consistency(public).await {
            Err(ReadError::Proof(error)) => return Err(OpenError::Forked(error)),
            other => other?,
        }
    }
    while let Some(path) = bundle_of(size, unstaged.start).filter(|_| !unstaged.is_empty()) {
        match reader.bundle(path).await {
            Err(ReadError::Missing { .. }) => return Err(OpenError::StagingMissing),
            other => other?,
        };
        unstaged.start = path.index().saturating_add(1).saturating_mul(u64::from(TILE_WIDTH));
    }
    let tree = resume(&reader, edge).await?;
    let checkpoint = reader.into_checkpoint();
    discard_staging(store, public_size).await?;
    Ok(Recovered { head: Head { checkpoint, token: locked.token, tree }, public })
}

/// The tree to go on with; reads the last bundle, which checks it against the tile of its leaves.
async fn resume(reader: &Reader<&impl ObjectStore>, edge: RightEdge) -> Result<Tree, OpenError> {
    let mut bundle = Vec::new();
    if let Some(path) = edge.size().checked_sub(1).and_then(|last| bundle_of(edge.size(), last)) {
        let entries = reader.bundle(path).await?;
        // A full one is finished; only a partial one goes on.
        for entry in entries.iter().filter(|_| path.is_partial()) {
            write_entry(&mut bundle, entry).expect("it came out of a bundle");
        }
    }
    Ok(Tree::resume(edge, bundle))
}

/// Drops what rounds up to the published size left in staging. Larger ones may be another sequencer's, on its way.
async fn discard_staging(store: &impl ObjectStore, size: u64) -> Result<(), StoreError> {
    for key in store.list(STAGING_PREFIX).await? {
        if staging::size_in_key(&key).is_some_and(|staged| staged <= size) {
            store.delete(&key).await?;
        }
    }
    Ok(())
}

/// Why a log was not opened. Apart from [`OpenError::Store`], trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The published checkpoint is not the signer's.
    #[error("published checkpoint refused")]
    CheckpointRefused(#[source] CheckpointError),
    /// The lock's tree does not go on from the published one: the log was forked.
    #[error("the lock's checkpoint forks the published log")]
    Forked(#[source] ProofError),
    /// The published checkpoint is newer than the lock's: the lock was restored from a backup, or replaced.
    #[error("the published checkpoint is newer than the lock's")]
    LockBehind,
    /// The lock's checkpoint is not the signer's.
    #[error("checkpoint in the lock refused")]
    LockRefused(#[source] CheckpointError),
    /// The store holds no log.
    #[error("no log in the store")]
    NotCreated,
    /// The store is not fit to hold a log.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Tiles or entries are missing or damaged.
    #[error(transparent)]
    Read(ReadError),
    /// An object of the log exists with other bytes than the lock's checkpoint needs.
    #[error("{path} exists with other bytes: the log was forked")]
    Split {
        /// Which one.
        path: TilePath,
    },
    /// The round that the lock committed was damaged before it was published.
    #[error("staged round damaged")]
    StagingDamaged,
    /// The round that the lock committed is neither published nor staged.
    #[error("staged round missing")]
    StagingMissing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            error => Self::Read(error),
        }
    }
}
