//! Recomputing a whole log from its entries.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::bundle::{BundleError, parse_bundle};
use crate::checkpoint::{CheckpointError, VerifiedCheckpoint};
use crate::hash::leaf_hash;
use crate::note::VerifierKey;
use crate::store::{CHECKPOINT_KEY, StoreError, TileSource, get_tile};
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, bundle_of, partial_tile, write_hashes};
use crate::tree::RightEdge;

/// Bundles fetched at the same time; at 16 MiB the longest, 128 MiB in the worst case.
const CONCURRENT_FETCHES: usize = 8;

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries checked so far.
    pub entries: u64,
    /// Entries in the log.
    pub tree_size: u64,
}

/// A log of which every byte is what its checkpoint says.
#[derive(Clone, Debug)]
pub struct FsckReport {
    checkpoint: VerifiedCheckpoint,
    n_tiles: u64,
    n_bundles: u64,
    n_bytes: u64,
}

impl FsckReport {
    /// The checkpoint that the log was checked against.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Hash tiles compared.
    pub fn n_tiles(&self) -> u64 {
        self.n_tiles
    }

    /// Entry bundles hashed.
    pub fn n_bundles(&self) -> u64 {
        self.n_bundles
    }

    /// Bytes in those tiles and bundles.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

/// Recomputes every tile of the log, full and partial, from its entry bundles, and the root from the tiles.
///
/// A partial tile may be missing once the full one is there; then that one's beginning is compared.
pub async fn fsck(
    source: &impl TileSource,
    log_key: &VerifierKey,
    mut progress: impl FnMut(Progress),
) -> Result<FsckReport, FsckError> {
    let note = source.get(CHECKPOINT_KEY).await?.ok_or(FsckError::NoCheckpoint)?;
    let checkpoint = VerifiedCheckpoint::verify(&note, log_key)?;
    let tree_size = checkpoint.tree_size();
    let mut report = FsckReport { checkpoint, n_tiles: 0, n_bundles: 0, n_bytes: 0 };
    let mut edge = RightEdge::empty();

    let paths =
        (0..tree_size.div_ceil(u64::from(TILE_WIDTH))).filter_map(|bundle| bundle_of(tree_size, bundle * u64::from(TILE_WIDTH)));
    let mut bundles = stream::iter(paths)
        .map(|path| async move { Ok::<_, FsckError>((path, get(source, path).await?)) })
        .buffered(CONCURRENT_FETCHES);
    while let Some((path, (bytes, width))) = bundles.try_next().await? {
        let entries = parse_bundle(&bytes).map_err(|source| FsckError::Bundle { path, source })?;
        if entries.len() != usize::from(width) {
            return Err(FsckError::Mismatch { path });
        }
        let mut full_tiles = Vec::new();
        for entry in entries.iter().take(usize::from(path.width())) {
            edge.push(leaf_hash(entry), |path, hashes| full_tiles.push((path, write_hashes(&hashes))));
        }
        report.n_bundles += 1;
        report.n_bytes += bytes.len() as u64;
        for (path, expected) in full_tiles {
            report.compare(source, path, &expected).await?;
        }
        progress(Progress { entries: edge.size(), tree_size });
    }
    for level in 0..MAX_LEVELS {
        if let Some(path) = partial_tile(tree_size, level) {
            report.compare(source, path, &write_hashes(edge.level(level))).await?;
        }
    }
    if edge.root() == report.checkpoint.root_hash() { Ok(report) } else { Err(FsckError::Root) }
}

impl FsckReport {
    async fn compare(&mut self, source: &impl TileSource, path: TilePath, expected: &[u8]) -> Result<(), FsckError> {
        let (bytes, width) = get(source, path).await?;
        let as_wide = if width == path.width() { &bytes[..] } else { bytes.get(..expected.len()).unwrap_or_default() };
        if as_wide != expected {
            return Err(FsckError::Mismatch { path });
        }
        self.n_tiles += 1;
        self.n_bytes += expected.len() as u64;
        Ok(())
    }
}

async fn get(source: &impl TileSource, path: TilePath) -> Result<(Bytes, u16), FsckError> {
    get_tile(source, path).await?.ok_or(FsckError::Missing { path })
}

/// Why a log did not pass. [`FsckError::Store`] says nothing about the log; every other variant is its fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
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
    /// A tile is not what the entries make it, or a bundle has another number of them.
    #[error("{path} does not match the entries")]
    Mismatch {
        /// Which one.
        path: TilePath,
    },
    /// A tile or bundle that the checkpoint's tree has is missing.
    #[error("{path} is missing")]
    Missing {
        /// Which one.
        path: TilePath,
    },
    /// There is no checkpoint.
    #[error("no checkpoint")]
    NoCheckpoint,
    /// Entries and tiles agree with each other, but not with the checkpoint.
    #[error("the entries lead to another root than the checkpoint's")]
    Root,
    /// The source failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
