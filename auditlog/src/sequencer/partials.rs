//! Deleting partial tiles and bundles once the full one is there (C2SP tlog-tiles, "Partial Tiles").
//!
//! Whoever holds an older checkpoint finds the full one in their place. Only those go whose full one belongs to the
//! published tree and was written: nothing that a published checkpoint needs, so that it does not matter how many
//! sequencers do this at once. What another one, which replays an old round, writes again afterwards is left behind and
//! harms nobody.
//!
//! A marker in the store says up to which tree size nothing is left. From there on, one listing for each full tile finds
//! at the start what earlier runs left; afterwards the sequencer knows itself what it wrote.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::decimal::parse_decimal;
use crate::store::{ObjectStore, StoreError};
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TileContent, TilePath, n_full_tiles, partial_tile};

/// Holds the tree size, in decimal, up to whose full tiles nothing is left to delete.
const MARKER_KEY: &str = "private/collected";

/// Leaves after which the marker is written again: after a crash, at most 256 full tiles of level 0 are listed.
const MARKER_INTERVAL: u64 = 256 * TILE_WIDTH as u64;

/// Listings and deletions at the same time.
const CONCURRENT: usize = 16;

/// Deletions after which collecting looks whether there is something better to do.
const BATCH: usize = 64;

/// Deletions that may wait for a quiet moment.
const MAX_BACKLOG: usize = 1024;

/// Deletions that are remembered while the store fails them; with more, they are looked for again from the marker on.
const MAX_DOOMED: usize = 16 * MAX_BACKLOG;

/// What is left to delete.
#[derive(Debug)]
pub(super) struct Partials {
    // Written since the start, and not full yet.
    live: BTreeSet<TilePath>,
    // Their full ones are in the published tree and in the store.
    doomed: VecDeque<TilePath>,
    // Full tiles whose partial ones nobody has looked for since the start.
    unlisted: Vec<(TileContent, Range<u64>)>,
    // What the marker says, and the published size.
    marked: u64,
    published: u64,
    // The store failed; the next round tries again.
    paused: bool,
}

impl Partials {
    /// Goes on from the marker.
    pub(super) async fn resume(store: &impl ObjectStore, published: u64) -> Result<Self, StoreError> {
        let text = store.get(MARKER_KEY).await?;
        let marked = text.and_then(|size| parse_decimal(std::str::from_utf8(&size).ok()?)).unwrap_or(0).min(published);
        let unlisted = unlisted(marked, published);
        Ok(Self { live: BTreeSet::new(), doomed: VecDeque::new(), unlisted, marked, published, paused: false })
    }

    /// Learns what a round has written, which now is published.
    pub(super) fn published<'a>(&mut self, tree_size: u64, written: impl IntoIterator<Item = &'a TilePath>) {
        self.published = tree_size;
        self.paused = false;
        self.live.extend(written.into_iter().filter(|path| path.is_partial()));
        let doomed = self.live.extract_if(.., |path| path.index() < n_full(path.content(), tree_size));
        self.doomed.extend(doomed);
        if self.doomed.len() > MAX_DOOMED {
            tracing::warn!("partial tiles are not deleted; does the store allow deleting?");
            self.doomed.clear();
            self.live.clear();
            self.unlisted = unlisted(self.marked, tree_size);
        }
    }

    /// Whether there is something to delete or to look for.
    pub(super) fn has_work(&self) -> bool {
        !self.paused && (!self.doomed.is_empty() || !self.unlisted.is_empty() || self.marker_is_due())
    }

    /// Whether it cannot wait any longer.
    pub(super) fn is_pressing(&self) -> bool {
        !self.paused && self.doomed.len() > MAX_BACKLOG
    }

    fn marker_is_due(&self) -> bool {
        self.published - self.marked >= MARKER_INTERVAL
    }

    /// Does a part of the work, and returns how many objects were deleted.
    pub(super) async fn collect(&mut self, store: &impl ObjectStore) -> u64 {
        match self.try_collect(store).await {
            Ok(n) => n,
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "partial tiles not deleted, trying again after the next round");
                self.paused = true;
                0
            }
        }
    }

    async fn try_collect(&mut self, store: &impl ObjectStore) -> Result<u64, StoreError> {
        if !self.doomed.is_empty() {
            let batch = self.doomed.iter().take(BATCH).map(ToString::to_string);
            let deleting = stream::iter(batch).map(async |key| store.delete(&key).await.map(|()| 1));
            let n = deleting.buffer_unordered(CONCURRENT).try_fold(0, async |n, one| Ok(n + one)).await?;
            self.doomed.drain(..self.doomed.len().min(BATCH));
            return Ok(n);
        }
        let published = self.published;
        if let Some((content, tiles)) = self.unlisted.last_mut() {
            let end = tiles.end.min(tiles.start + CONCURRENT as u64);
            let finding = stream::iter(tiles.start..end).map(|index| left_of(store, *content, index, published));
            let found: Vec<Vec<TilePath>> = finding.buffer_unordered(CONCURRENT).try_collect().await?;
            tiles.start = end;
            self.unlisted.retain(|(_, tiles)| !tiles.is_empty());
            let found = found.into_iter().flatten();
            let (doomed, live): (Vec<_>, Vec<_>) = found.partition(|path| path.index() < n_full(path.content(), published));
            self.doomed.extend(doomed);
            self.live.extend(live);
            return Ok(0);
        }
        self.mark(store).await.map(|()| 0)
    }

    /// Finishes, so that the next start has nothing to look for.
    pub(super) async fn finish(&mut self, store: &impl ObjectStore) -> u64 {
        let mut n = 0;
        while !self.paused && !self.doomed.is_empty() {
            n += self.collect(store).await;
        }
        // Where looking is not over, it goes on at the next start.
        let has_more = n_full_tiles(self.published, 0) > n_full_tiles(self.marked, 0);
        if !self.paused
            && self.unlisted.is_empty()
            && has_more
            && let Err(error) = self.mark(store).await
        {
            tracing::warn!(error = &error as &dyn Error, "the next start lists partial tiles again");
        }
        n
    }

    async fn mark(&mut self, store: &impl ObjectStore) -> Result<(), StoreError> {
        store.put(MARKER_KEY, Bytes::from(self.published.to_string())).await?;
        self.marked = self.published;
        Ok(())
    }
}

/// Full tiles, or bundles, in a tree of this size.
fn n_full(content: TileContent, tree_size: u64) -> u64 {
    match content {
        TileContent::Hashes(level) => n_full_tiles(tree_size, level),
        TileContent::Entries => n_full_tiles(tree_size, 0),
    }
}

/// The tiles whose partial ones have to be looked for in a tree that has grown from `marked` to `published` leaves.
fn unlisted(marked: u64, published: u64) -> Vec<(TileContent, Range<u64>)> {
    let contents = (0..MAX_LEVELS).map(TileContent::Hashes).chain([TileContent::Entries]);
    // The last one is not full yet: what there is of it already is found with the others.
    let since = |content| (content, n_full(content, marked)..n_full(content, published) + 1);
    let exists = |content| partial_of(content, published).is_some() || n_full(content, published) > 0;
    contents.filter(|content| exists(*content)).map(since).collect()
}

/// The partial tile or bundle of a tree of this size.
fn partial_of(content: TileContent, tree_size: u64) -> Option<TilePath> {
    match content {
        TileContent::Hashes(level) => partial_tile(tree_size, level),
        TileContent::Entries => partial_tile(tree_size, 0).and_then(|tile| TilePath::entries(tile.index(), tile.width())),
    }
}

/// The partial ones that are left of a tile; none where the published tree has the full one and the store lacks it.
async fn left_of(
    store: &impl ObjectStore,
    content: TileContent,
    index: u64,
    published: u64,
) -> Result<Vec<TilePath>, StoreError> {
    let full = match content {
        TileContent::Hashes(level) => TilePath::hashes(level, index, TILE_WIDTH),
        TileContent::Entries => TilePath::entries(index, TILE_WIDTH),
    };
    let full = full.expect("levels are below 8");
    let keys = store.list(&format!("{full}.p/")).await?;
    let is_left = |path: &TilePath| path.is_partial() && path.to_full() == full;
    let left: Vec<TilePath> = keys.iter().filter_map(|key| TilePath::parse(key).ok()).filter(is_left).collect();
    let harmless = left.is_empty() || index >= n_full(content, published) || store.get(&full.to_string()).await?.is_some();
    Ok(if harmless { left } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_never_deletes_costs_bounded_memory() {
        let mut partials = Partials {
            live: BTreeSet::new(),
            doomed: VecDeque::new(),
            unlisted: Vec::new(),
            marked: 512,
            published: 512,
            paused: true,
        };
        let mut n_replanned = 0;
        for tile in 2..100 {
            let of_tile = |width| [TilePath::hashes(0, tile, width).unwrap(), TilePath::entries(tile, width).unwrap()];
            let written: Vec<TilePath> = (1..TILE_WIDTH).flat_map(of_tile).collect();
            partials.published((tile + 1) * u64::from(TILE_WIDTH), &written);
            assert!(partials.doomed.len() <= MAX_DOOMED && partials.live.is_empty());
            n_replanned += usize::from(partials.doomed.is_empty());
        }
        assert_eq!(n_replanned, 98 / (MAX_DOOMED / 510 + 1));
        // All that was forgotten is looked for again.
        let bundles = partials.unlisted.iter().find(|(content, _)| *content == TileContent::Entries).unwrap();
        assert_eq!(bundles.1.start, 2);
    }
}
