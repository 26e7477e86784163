//! Entries that are in the tree already, by the store's index of its leaves.
//!
//! A round starts only once the index covers the tree, and what the index says counts only once the tree confirms it.
//! So an entry is logged twice only if its leaf is missing from an index that passes for complete. A store whose index
//! fails is treated like one that fails altogether: entries wait until it is back.

use std::error::Error;
use std::ops::Range;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::hash::Hash;
use crate::reader::{ReadError, Reader};
use crate::store::{LeafIndex, StoreError, TileSource};
use crate::tile::TILE_WIDTH;

const WIDTH: u64 = TILE_WIDTH as u64;

/// Leaves that go into the index together, 128 KiB of them.
const CHUNK: usize = 4096;

/// Tiles that are read at the same time, to build the index or to confirm what it says.
const CONCURRENT_READS: usize = 16;

/// Brings the index up to the reader's tree. One that does not fit the tree is built anew.
pub(super) async fn catch_up(index: &impl LeafIndex, reader: &Reader<impl TileSource>) -> Result<(), ReadError> {
    let size = reader.checkpoint().tree_size();
    let mut next = index.indexed().await?;
    if !fits(index, reader, next).await? {
        tracing::warn!(indexed = next, size, "the index of leaves is not this log's, building it anew");
        index.clear().await?;
        next = 0;
    }
    while next < size {
        let end = size.min(next + CHUNK as u64);
        let tiles = stream::iter(next / WIDTH..end.div_ceil(WIDTH)).map(|tile| leaves_of(reader, tile, next..end));
        let leaves: Vec<Vec<Hash>> = tiles.buffered(CONCURRENT_READS).try_collect().await?;
        index.extend(next, leaves.concat()).await?;
        next = end;
    }
    Ok(())
}

/// The leaves of one tile that are in the range.
async fn leaves_of(reader: &Reader<impl TileSource>, tile: u64, range: Range<u64>) -> Result<Vec<Hash>, ReadError> {
    let mut leaves = Vec::new();
    for index in range.start.max(tile * WIDTH)..range.end.min((tile + 1) * WIDTH) {
        leaves.push(reader.leaf(index).await?);
    }
    Ok(leaves)
}

/// Whether the index, which covers the leaves before `indexed`, knows the last of them.
async fn fits(index: &impl LeafIndex, reader: &Reader<impl TileSource>, indexed: u64) -> Result<bool, ReadError> {
    let Some(last) = indexed.checked_sub(1) else { return Ok(true) };
    if indexed > reader.checkpoint().tree_size() {
        return Ok(false);
    }
    let leaf = reader.leaf(last).await?;
    match index.positions(vec![leaf]).await?[..] {
        // The first of equal leaves counts.
        [Some(position)] if position <= last => Ok(reader.leaf(position).await? == leaf),
        _ => Ok(false),
    }
}

/// The position of each leaf that the tree has; `None` when the index says what the tree does not confirm.
pub(super) async fn find(
    index: &impl LeafIndex,
    reader: &Reader<impl TileSource>,
    leaves: Vec<Hash>,
) -> Result<Option<Vec<Option<u64>>>, StoreError> {
    let positions = index.positions(leaves.clone()).await?;
    if positions.len() != leaves.len() {
        return Ok(None);
    }
    let confirmed = stream::iter(leaves.into_iter().zip(positions)).map(async |(leaf, position)| {
        let Some(position) = position else { return Ok(Some(None)) };
        match reader.leaf(position).await {
            Ok(found) => Ok((found == leaf).then_some(Some(position))),
            Err(ReadError::OutsideTree) => Ok(None),
            Err(ReadError::Store(error)) => Err(error),
            Err(error) => {
                // The entry cannot be proven where it stands, so it is better logged again.
                tracing::error!(
                    error = &error as &dyn Error,
                    position,
                    "an entry appended again stands in a damaged part of the log"
                );
                Ok(Some(None))
            }
        }
    });
    // Any unconfirmed one makes the whole answer `None`.
    let confirmed: Vec<Option<Option<u64>>> = confirmed.buffered(CONCURRENT_READS).try_collect().await?;
    Ok(confirmed.into_iter().collect())
}
