//! One round.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::Hash;
use crate::proof::Prover;
use crate::reader::{ReadError, Reader};
use crate::sequencer::pool::Published;
use crate::sequencer::run::{Head, Interrupted};
use crate::sequencer::{Cosigner, OpenError, Sequencer, Timer, duplicates, staging};
use crate::store::{LeafIndex, Lock, ObjectStore, PutNew, StoreError, Swap};
use crate::tile::{TILE_WIDTH, TileContent, TilePath, parse_hashes};
use crate::tree::{Object, Tree};

/// Objects of one round that are written at the same time.
const CONCURRENT_WRITES: usize = 16;

impl<S: ObjectStore + Lock + LeafIndex, C: Cosigner> Sequencer<S, C> {
    /// One round, in the order that the [module](super) explains.
    pub(super) async fn round(&mut self, timer: &impl Timer) -> Result<(), Interrupted> {
        let shared = Arc::clone(&self.shared);
        let store = &shared.store;
        let first = self.head.tree.edge().size();
        self.running = shared.state().take_round(first, timer.now(), &shared.config);
        if !self.all_are_new().await? {
            // The others may not make a round yet.
            shared.state().return_to_pool(std::mem::take(&mut self.running));
            return Ok(());
        }

        let mut tree = self.head.tree.clone();
        let objects = tree.append(self.running.iter().map(|pending| (pending.leaf, pending.entry.as_ref())));
        let edge = tree.edge();
        let checkpoint = VerifiedCheckpoint::sign(&self.signer, edge.size(), edge.root());
        let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
        store.put(&staging::key(&checkpoint), staging::write(&objects)).await.map_err(Interrupted::BeforeCommit)?;
        let token = match store.swap(&self.head.token, note).await {
            Swap::Swapped(token) => token,
            Swap::Lost => return Err(Interrupted::MaybeCommitted(None)),
            Swap::Unknown(error) => return Err(Interrupted::MaybeCommitted(Some(error))),
        };

        let prover = prover_of(&tree, &objects);
        let written: Vec<TilePath> = objects.iter().map(|object| object.path).collect();
        self.head = Head { checkpoint, token, tree };
        write_objects(store, objects).await?;
        let published = self.publish(timer).await?;

        let entries = std::mem::take(&mut self.running);
        let published = Arc::new(Published { checkpoint: Arc::new(published), prover });
        shared.state().publish(first, &entries, &published);
        self.partials.published(published.checkpoint.tree_size(), &written);
        let leaves = entries.iter().map(|pending| pending.leaf).collect();
        let (extended, ()) = join(store.extend(first, leaves), self.drop_staged()).await;
        if let Err(error) = extended {
            tracing::warn!(error = &error as &dyn Error, "index of leaves not extended, trying again before the next round");
            self.index_is_current = false;
        }
        Ok(())
    }

    /// Answers those whose entries the tree has; whether none of the round is among them.
    async fn all_are_new(&mut self) -> Result<bool, Interrupted> {
        let shared = Arc::clone(&self.shared);
        let reader = Reader::with_edge(&shared.store, self.head.checkpoint.clone(), self.head.tree.edge());
        let mut is_rebuilt = false;
        let found = loop {
            if shared.state().take_suspicion() {
                tracing::warn!("the index of leaves is wrong, building it anew");
                self.index_is_current = false;
                is_rebuilt = true;
                shared.store.clear().await.map_err(Interrupted::BeforeCommit)?;
            }
            if !self.index_is_current {
                duplicates::catch_up(&shared.store, &reader).await?;
                self.index_is_current = true;
            }
            let unknown: Vec<Hash> = self.running.iter().filter(|pending| !pending.is_new).map(|pending| pending.leaf).collect();
            if unknown.is_empty() || self.head.tree.edge().size() == 0 {
                return Ok(true);
            }
            match duplicates::find(&shared.store, &reader, unknown).await.map_err(Interrupted::BeforeCommit)? {
                Some(found) => break found,
                None if is_rebuilt => {
                    return Err(Interrupted::BeforeCommit(StoreError::new("look-up in the index", LyingIndex)));
                }
                None => shared.state().suspect_index(),
            }
        };
        let mut found = found.into_iter();
        let n = self.running.len();
        let mut state = shared.state();
        self.running.retain_mut(|pending| {
            let index = if pending.is_new { None } else { found.next().flatten() };
            match index {
                Some(index) => state.answer_logged(&pending.leaf, index),
                None => pending.is_new = true,
            }
            index.is_none()
        });
        Ok(self.running.len() == n)
    }
}

/// An index that contradicts the tree right after it was built from it; building it once more would not help.
#[derive(Debug, thiserror::Error)]
#[error("the index of leaves contradicts the tree that it was just built from; remove it, and check its disk")]
struct LyingIndex;

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
pub(super) async fn write_objects(store: &impl ObjectStore, objects: Vec<Object>) -> Result<(), OpenError> {
    stream::iter(objects)
        .map(|Object { path, bytes }| async move {
            match store.put_new(&path.to_string(), bytes).await {
                Ok(PutNew::Created | PutNew::ExistsSame) => Ok(()),
                Ok(PutNew::ExistsDifferent) => Err(OpenError::Split { path }),
                Err(error) => Err(OpenError::Store(error)),
            }
        })
        .buffer_unordered(CONCURRENT_WRITES)
        .try_collect()
        .await
}

/// The index was not brought up to the tree.
impl From<ReadError> for Interrupted {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::BeforeCommit(error),
            error => Self::Halted(OpenError::Read(error)),
        }
    }
}
