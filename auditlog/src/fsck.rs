//! Recomputing a whole log from its entries.
//!
//! Bundles are hashed on several [`Workers`]; what lies above them is built in order, and a tile's hashes are kept only
//! until it is full and compared, so that memory does not grow with the log. Damage does not end the check: it is
//! noted with what was expected in its place. Where two objects contradict each other, the tile above them decides
//! which one is damaged.

mod damage;
mod judge;
mod leftovers;
mod piece;
mod report;
mod resume;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub use damage::{Damage, MAX_KEPT_LEN, Problem};
pub use leftovers::Leftovers;
pub use report::{FsckReport, MAX_DAMAGE, Progress};
pub use resume::{MAX_RESUME_POINT_LEN, ResumePoint, ResumePointError};

use crate::checkpoint::VerifiedCheckpoint;
use crate::fsck::judge::Judge;
use crate::fsck::piece::Piece;
use crate::reader::{ReadError, Reader};
use crate::store::{StoreError, TileSource};
use crate::tile::TILE_WIDTH;
use crate::workers::Workers;

/// Bundles fetched at the same time, or twice the threads if that is more; at 16 MiB the longest, 128 MiB in the worst
/// case.
const CONCURRENT_FETCHES: usize = 8;

/// Entries in a piece: a bundle and the tile of its leaves.
const PIECE: u64 = TILE_WIDTH as u64;

/// What to check beside the checkpoint's tree, and where to begin.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Partial objects of older checkpoints, from a store that can list them.
    pub leftovers: Leftovers,
    /// Where an earlier check stopped.
    pub resume: Option<ResumePoint>,
}

/// Recomputes every tile of the checkpoint's tree, full and partial, from its entry bundles, and the root from the tiles.
///
/// A partial tile or bundle may be missing once the full one is there; then that one's beginning is compared. A resume
/// point is not used if its edge is not that of the log's tree, or if damage keeps that from being told. `progress` is
/// called once before the first bundle, and so tells where the check begins, and after each one.
pub async fn fsck(
    source: &impl TileSource,
    checkpoint: &VerifiedCheckpoint,
    options: Options,
    workers: &impl Workers,
    mut progress: impl FnMut(&Progress<'_>),
) -> Result<FsckReport, FsckError> {
    let Options { leftovers, resume } = options;
    let mut judge = Judge::new(source, &leftovers, checkpoint);
    if let Some(point) = resume
        && is_earlier(source, checkpoint, &point).await?
    {
        judge.resume(point);
    }
    progress(&judge.progress());
    let tree_size = checkpoint.tree_size();
    let mut pieces = stream::iter(judge.n_entries() / PIECE..tree_size.div_ceil(PIECE))
        .map(|index| Piece::fetch(source, tree_size, index, &leftovers, workers))
        .buffered(CONCURRENT_FETCHES.max(2 * workers.n_threads()));
    while let Some(piece) = pieces.try_next().await? {
        judge.take(piece).await?;
        progress(&judge.progress());
    }
    drop(pieces);
    Ok(judge.finish().await?)
}

/// Whether the checkpoint's tree goes on from the point's, and from the point itself: false where damage leaves that open,
/// or where the point was noted behind damage that only a later tile showed.
async fn is_earlier(source: &impl TileSource, checkpoint: &VerifiedCheckpoint, point: &ResumePoint) -> Result<bool, FsckError> {
    let earlier = point.checkpoint();
    if earlier.origin() != checkpoint.origin() {
        return Err(FsckError::OtherLog);
    }
    if earlier.tree_size() > checkpoint.tree_size() {
        return Err(FsckError::Rollback);
    }
    let roots = async {
        let reader = Reader::at(source, checkpoint.clone()).await?;
        let root = reader.root_at(earlier.tree_size()).await?;
        // A fork is one whatever lies at the point.
        let at_point = if root == earlier.root_hash() { reader.root_at(point.n_entries()).await? } else { root };
        Ok((root, at_point))
    };
    match roots.await {
        Ok((root, _)) if root != earlier.root_hash() => Err(FsckError::Fork),
        Ok((_, at_point)) => Ok(at_point == point.edge.root()),
        Err(ReadError::Store(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Why a log was not checked. Damage is no error but in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// The log is not the one in which the earlier check stopped: its tree was another one.
    #[error("the log forked since the earlier check")]
    Fork,
    /// The resume point is of another log.
    #[error("the resume point is of another log")]
    OtherLog,
    /// The checkpoint is older than the one of the earlier check.
    #[error("the log shrank since the earlier check")]
    Rollback,
    /// The source failed, which says nothing about the log.
    #[error(transparent)]
    Store(#[from] StoreError),
}
