//! The growing end of the tree: everything that appending needs, and no more.
//!
//! Memory is O(log n): one partial tile of hashes for each level, and one partial bundle of entries.

use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use crate::bundle::write_entry;
use crate::hash::{EMPTY_ROOT, Hash};
use crate::merkle;
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, n_full_tiles, partial_tile, partial_width, write_hashes};

/// The right edge of a tree: the hashes of its partial tiles, lowest level first.
///
/// Invariant: `levels[l].len()` is the width of the partial tile of level `l` in a tree of `size` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    levels: [Vec<Hash>; MAX_LEVELS as usize],
}

impl RightEdge {
    /// The edge of the empty tree.
    pub fn empty() -> Self {
        Self { size: 0, levels: Default::default() }
    }

    /// The partial tiles of a tree of `size` leaves, which [`Self::from_tiles`] takes in this order.
    pub fn tiles_of(size: u64) -> Vec<TilePath> {
        (0..MAX_LEVELS).filter_map(|level| partial_tile(size, level)).collect()
    }

    /// The edge of a tree of `size` leaves, made of the hashes of [`Self::tiles_of`]; `None` when widths disagree.
    pub fn from_tiles(size: u64, tiles: impl IntoIterator<Item = Vec<Hash>>) -> Option<Self> {
        let mut tiles = tiles.into_iter();
        let mut edge = Self { size, ..Self::empty() };
        for (level, hashes) in (0..MAX_LEVELS).zip(&mut edge.levels) {
            let width = partial_width(size, level);
            if width > 0 {
                *hashes = tiles.next().filter(|hashes| hashes.len() == usize::from(width))?;
            }
        }
        tiles.next().is_none().then_some(edge)
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the partial tile of `level`; empty when there is none.
    pub fn level(&self, level: u8) -> &[Hash] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.levels_with_tail().into_iter().flatten().last().map_or(EMPTY_ROOT, |items| merkle::root(&items))
    }

    /// For each level its partial tile and, last, the root of the levels below; `None` for a level without tile.
    pub(crate) fn levels_with_tail(&self) -> Vec<Option<Vec<Hash>>> {
        let mut tail: Option<Hash> = None;
        let with_tail = |hashes: &Vec<Hash>| {
            if hashes.is_empty() {
                return None;
            }
            let items: Vec<Hash> = hashes.iter().copied().chain(tail).collect();
            tail = Some(merkle::root(&items));
            Some(items)
        };
        self.levels.iter().map(with_tail).collect()
    }

    /// Appends one leaf; `full_tile` gets each tile that becomes full by it, lowest level first.
    pub fn push(&mut self, leaf: Hash, mut full_tile: impl FnMut(TilePath, Vec<Hash>)) {
        self.size = self.size.checked_add(1).expect("no log has 2^64 entries");
        let mut hash = leaf;
        for level in 0..MAX_LEVELS {
            let Some((path, tile)) = self.push_at(level, hash) else { return };
            hash = merkle::root(&tile);
            full_tile(path, tile);
        }
    }

    /// Counts a full tile of leaves, whose root the caller appends with [`Self::push_at`] at level 1.
    #[cfg(feature = "std")]
    pub(crate) fn grow_by_tile(&mut self) {
        debug_assert!(self.level(0).is_empty(), "the edge ends between two tiles");
        self.size += u64::from(TILE_WIDTH);
    }

    /// Appends one hash to `level` and takes out the tile that becomes full by it, whose root is the next hash of the
    /// level above. The leaves below the hash are counted already.
    pub(crate) fn push_at(&mut self, level: u8, hash: Hash) -> Option<(TilePath, Vec<Hash>)> {
        let hashes = self.levels.get_mut(usize::from(level))?;
        hashes.push(hash);
        if hashes.len() < usize::from(TILE_WIDTH) {
            return None;
        }
        let tile = mem::take(hashes);
        let index = n_full_tiles(self.size, level).checked_sub(1);
        let path = index.and_then(|index| TilePath::hashes(level, index, TILE_WIDTH));
        Some((path.expect("a tile is full, and the level is below 8"), tile))
    }
}

/// What a round writes: one immutable object of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it belongs.
    pub path: TilePath,
    /// What it holds.
    pub bytes: Bytes,
}

/// A tree that can grow: the right edge and the bundle of the entries under it.
///
/// A round appends to a clone and keeps it only once the round is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    edge: RightEdge,
    // The partial bundle: as many entries as `edge` has leaves at level 0.
    bundle: Vec<u8>,
}

impl Tree {
    /// The empty tree.
    pub fn empty() -> Self {
        Self { edge: RightEdge::empty(), bundle: Vec::new() }
    }

    /// A tree that goes on from `edge`. `bundle` holds the entries of its partial tile of level 0, which the caller has
    /// checked against that tile.
    #[cfg(feature = "std")]
    pub(crate) fn resume(edge: RightEdge, bundle: Vec<u8>) -> Self {
        Self { edge, bundle }
    }

    /// The right edge.
    pub fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// Appends entries with their leaf hashes, each at most [`MAX_ENTRY_LEN`](crate::bundle::MAX_ENTRY_LEN) long, and
    /// returns every tile and bundle of the grown tree that the tree before did not have.
    pub fn append<'a>(&mut self, entries: impl IntoIterator<Item = (Hash, &'a [u8])>) -> Vec<Object> {
        let size_before = self.edge.size;
        let mut objects = Vec::new();
        for (leaf, entry) in entries {
            write_entry(&mut self.bundle, entry).expect("the pool refuses longer entries");
            let mut bundle_full = false;
            self.edge.push(leaf, |path, hashes| {
                objects.push(Object { path, bytes: write_hashes(&hashes) });
                bundle_full = true;
            });
            if bundle_full {
                let index = n_full_tiles(self.edge.size, 0).checked_sub(1);
                let path = index.and_then(|index| TilePath::entries(index, TILE_WIDTH));
                let bytes = mem::take(&mut self.bundle).into();
                objects.push(Object { path: path.expect("a full bundle"), bytes });
            }
        }
        self.push_partials(size_before, &mut objects);
        objects
    }

    /// The partial tiles and the partial bundle that are new since `size_before`.
    fn push_partials(&self, size_before: u64, objects: &mut Vec<Object>) {
        let size = self.edge.size;
        let path_before = |level| partial_tile(size_before, level);
        for level in 0..MAX_LEVELS {
            if let Some(path) = partial_tile(size, level).filter(|path| path_before(level) != Some(*path)) {
                objects.push(Object { path, bytes: write_hashes(self.edge.level(level)) });
            }
        }
        if size > size_before
            && let Some(path) = TilePath::entries(n_full_tiles(size, 0), partial_width(size, 0))
        {
            objects.push(Object { path, bytes: Bytes::copy_from_slice(&self.bundle) });
        }
    }
}
