//! Reading a log: every byte is checked against a signed checkpoint before it is returned.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use crate::bundle::{BundleError, parse_bundle};
use crate::checkpoint::{CheckpointError, VerifiedCheckpoint, VerifiedInclusion};
use crate::hash::{Hash, leaf_hash};
use crate::note::VerifierKey;
use crate::proof::{MissingTile, ProofError, Prover};
use crate::store::{CHECKPOINT_KEY, StoreError, TileSource, get_tile};
use crate::tile::{TILE_WIDTH, TileContent, TilePath, bundle_of, parse_hashes};
use crate::tree::RightEdge;

/// Bundles fetched at the same time when many entries are read; at 16 MiB the longest, 128 MiB in the worst case.
const CONCURRENT_FETCHES: usize = 8;

/// Full tiles kept in memory, some 50 KiB each.
const MAX_CACHED_TILES: usize = 128;

const WIDTH: u64 = TILE_WIDTH as u64;

/// A log as it stood at one checkpoint.
#[derive(Debug)]
pub struct Reader<T> {
    source: T,
    checkpoint: VerifiedCheckpoint,
    // Holds tiles only once they are known to belong to the checkpoint's tree.
    prover: Mutex<Prover>,
}

impl<T: TileSource> Reader<T> {
    /// Reads at the log's latest checkpoint.
    pub async fn latest(source: T, log_key: &VerifierKey) -> Result<Self, ReadError> {
        let checkpoint = latest_checkpoint(&source, log_key).await?;
        Self::at(source, checkpoint).await
    }

    /// Reads at a checkpoint obtained elsewhere.
    pub async fn at(source: T, checkpoint: VerifiedCheckpoint) -> Result<Self, ReadError> {
        let edge = right_edge(&source, &checkpoint).await?;
        Ok(Self::with_edge(source, checkpoint, &edge))
    }

    /// Reads at a checkpoint whose right edge is known.
    pub(crate) fn with_edge(source: T, checkpoint: VerifiedCheckpoint, edge: &RightEdge) -> Self {
        Self { source, prover: Mutex::new(Prover::new(edge)), checkpoint }
    }

    pub(crate) fn into_checkpoint(self) -> VerifiedCheckpoint {
        self.checkpoint
    }

    /// The checkpoint that everything is checked against.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Entry `index`.
    pub async fn entry(&self, index: u64) -> Result<Bytes, ReadError> {
        let path = bundle_of(self.checkpoint.tree_size(), index).ok_or(ReadError::OutsideTree)?;
        let entries = self.bundle(path).await?;
        let position = usize::try_from(index % u64::from(TILE_WIDTH)).expect("less than 256");
        entries.into_iter().nth(position).ok_or(ReadError::Mismatch { path })
    }

    /// The entries of a range with their indices, in order. A range that ends outside of the tree is cut at its end.
    pub fn entries(&self, range: Range<u64>) -> impl Stream<Item = Result<(u64, Bytes), ReadError>> {
        let size = self.checkpoint.tree_size();
        let Range { start, end } = range.start..range.end.min(size);
        let bundles = if start < end { start / WIDTH..end.div_ceil(WIDTH) } else { 0..0 };
        let bundles = stream::iter(bundles).map(move |index| async move {
            let path = bundle_of(size, index * WIDTH).expect("the range was cut at the end of the tree");
            Ok::<_, ReadError>((index * WIDTH, self.bundle(path).await?))
        });
        bundles
            .buffered(CONCURRENT_FETCHES)
            .map_ok(move |(first, entries)| {
                let numbered = (first..).zip(entries).filter(move |(index, _)| (start..end).contains(index));
                stream::iter(numbered.map(Ok))
            })
            .try_flatten()
    }

    /// The hash of leaf `index`.
    pub async fn leaf(&self, index: u64) -> Result<Hash, ReadError> {
        self.node(0, index).await
    }

    /// The root that the tree had when it held `size` entries.
    pub async fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        if size > self.checkpoint.tree_size() {
            return Err(ReadError::OutsideTree);
        }
        let mut tiles = Vec::new();
        for path in RightEdge::tiles_of(size) {
            tiles.push(self.hashes(path).await?);
        }
        Ok(RightEdge::from_tiles(size, tiles).expect("each tile has its path's width").root())
    }

    /// The hash at `index` of `level`.
    pub(crate) async fn node(&self, level: u8, index: u64) -> Result<Hash, ReadError> {
        self.with_tiles(|prover| prover.node(level, index)).await?.ok_or(ReadError::OutsideTree)
    }

    /// The hashes of a tile, or of its beginning.
    pub(crate) async fn hashes(&self, path: TilePath) -> Result<Vec<Hash>, ReadError> {
        let TileContent::Hashes(level) = path.content() else { return Err(ReadError::OutsideTree) };
        let first = path.index().checked_mul(WIDTH).ok_or(ReadError::OutsideTree)?;
        let indices = first..first.saturating_add(path.width().into());
        let hashes = self.with_tiles(|prover| indices.clone().map(|index| prover.node(level, index)).collect());
        let hashes: Option<Vec<Hash>> = hashes.await?;
        hashes.ok_or(ReadError::OutsideTree)
    }

    /// The audit path of entry `index`, verified.
    pub async fn inclusion_proof(&self, index: u64) -> Result<(Vec<Hash>, VerifiedInclusion), ReadError> {
        let leaf = self.leaf(index).await?;
        let path = self.with_tiles(|prover| prover.audit_path(index)).await?;
        let inclusion = self.checkpoint.verify_inclusion(leaf, index, &path)?;
        Ok((path, inclusion))
    }

    /// The proof that the log only grew since it had `old_size` entries.
    pub async fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, ReadError> {
        if old_size > self.checkpoint.tree_size() {
            return Err(ReadError::OutsideTree);
        }
        self.with_tiles(|prover| prover.consistency_proof(old_size)).await
    }

    /// Checks that the log only grew since `older`.
    pub async fn verify_consistency(&self, older: &VerifiedCheckpoint) -> Result<(), ReadError> {
        let proof = self.consistency_proof(older.tree_size()).await?;
        Ok(self.checkpoint.verify_consistency(older, &proof)?)
    }

    /// The entries of a bundle, each checked against its leaf.
    pub(crate) async fn bundle(&self, path: TilePath) -> Result<Vec<Bytes>, ReadError> {
        let mut entries =
            parse_bundle(&tile_bytes(&self.source, path).await?).map_err(|source| ReadError::Bundle { path, source })?;
        entries.truncate(usize::from(path.width()));
        let leaves = TilePath::hashes(0, path.index(), path.width()).expect("a bundle's width is a tile's");
        let leaves = self.hashes(leaves).await?;
        let matches = entries.len() == leaves.len() && entries.iter().zip(&leaves).all(|(entry, leaf)| leaf_hash(entry) == *leaf);
        if matches { Ok(entries) } else { Err(ReadError::Mismatch { path }) }
    }

    /// Runs `prove`, fetching the tiles that it turns out to need.
    async fn with_tiles<R>(&self, prove: impl Fn(&Prover) -> Result<R, MissingTile>) -> Result<R, ReadError> {
        let lock = || self.prover.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().n_full_tiles() > MAX_CACHED_TILES {
            lock().forget_full_tiles();
        }
        // A tile is checked against the one above it, so the last on the stack comes first.
        let mut missing: Vec<MissingTile> = Vec::new();
        loop {
            let Some(&tile) = missing.last() else {
                match prove(&lock()) {
                    Ok(proved) => return Ok(proved),
                    Err(tile) => missing.push(tile),
                }
                continue;
            };
            if let Err(above) = lock().node(tile.level + 1, tile.index) {
                missing.push(above);
                continue;
            }
            let path = tile.path();
            let bytes = tile_bytes(&self.source, path).await?;
            let hashes = parse_hashes(&bytes, TILE_WIDTH).ok_or(ReadError::Mismatch { path })?;
            match lock().insert_checked(tile.level, tile.index, hashes) {
                Ok(true) => missing.truncate(missing.len() - 1),
                Ok(false) => return Err(ReadError::Mismatch { path }),
                Err(above) => missing.push(above),
            }
        }
    }
}

/// The log's latest checkpoint.
pub async fn latest_checkpoint(source: &impl TileSource, log_key: &VerifierKey) -> Result<VerifiedCheckpoint, ReadError> {
    let note = source.get(CHECKPOINT_KEY).await?.ok_or(ReadError::NoCheckpoint)?;
    Ok(VerifiedCheckpoint::verify(&note, log_key)?)
}

/// The right edge of the checkpoint's tree, checked against its root.
pub(crate) async fn right_edge(source: &impl TileSource, checkpoint: &VerifiedCheckpoint) -> Result<RightEdge, ReadError> {
    let size = checkpoint.tree_size();
    let mut tiles = Vec::new();
    for path in RightEdge::tiles_of(size) {
        let bytes = tile_bytes(source, path).await?;
        tiles.push(parse_hashes(&bytes, path.width()).ok_or(ReadError::Mismatch { path })?);
    }
    let edge = RightEdge::from_tiles(size, tiles).expect("each tile has its path's width");
    if edge.root() == checkpoint.root_hash() { Ok(edge) } else { Err(ReadError::RightEdge) }
}

async fn tile_bytes(source: &impl TileSource, path: TilePath) -> Result<Bytes, ReadError> {
    let (bytes, _) = get_tile(source, path).await?.ok_or(ReadError::Missing { path })?;
    Ok(bytes)
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A bundle's bytes are not entries.
    #[error("bad entry bundle {path}")]
    Bundle {
        /// Which one.
        path: TilePath,
        /// What is wrong with it.
        #[source]
        source: BundleError,
    },
    /// The checkpoint was refused.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tile or bundle does not belong to the checkpoint's tree.
    #[error("{path} does not match the checkpoint")]
    Mismatch {
        /// Which one.
        path: TilePath,
    },
    /// The source lacks a tile or bundle.
    #[error("{path} is missing")]
    Missing {
        /// Which one.
        path: TilePath,
    },
    /// The source has no checkpoint.
    #[error("no checkpoint")]
    NoCheckpoint,
    /// The index or size is beyond the checkpoint's tree.
    #[error("index outside of the tree")]
    OutsideTree,
    /// The log is not what it was: a proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The tiles on the right edge do not lead to the checkpoint's root.
    #[error("the right edge does not match the checkpoint")]
    RightEdge,
    /// The source failed, which says nothing about the log.
    #[error(transparent)]
    Store(#[from] StoreError),
}
