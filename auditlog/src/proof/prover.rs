//! Building proofs from tiles.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::iter;

use crate::hash::{Hash, node_hash};
use crate::merkle::TileTree;
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, in_tile, n_full_nodes, n_full_tiles};
use crate::tree::RightEdge;

/// Builds proofs in one tree from its right edge and the full tiles that it was given.
///
/// It fetches nothing: where a tile is missing it says which one, and the caller asks again once it has given it.
#[derive(Debug)]
pub struct Prover {
    size: u64,
    // By level: the partial tile and, last, the root of the levels below.
    edge: Vec<Option<TileTree>>,
    full: BTreeMap<(u8, u64), TileTree>,
}

/// A full tile that a proof needs and the prover lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tile {index} of level {level} is needed for the proof")]
pub struct MissingTile {
    pub(crate) level: u8,
    pub(crate) index: u64,
}

impl MissingTile {
    /// Where the tile is.
    pub fn path(self) -> TilePath {
        TilePath::hashes(self.level, self.index, TILE_WIDTH).expect("levels are below 8")
    }
}

impl Prover {
    /// A prover without full tiles.
    pub fn new(edge: &RightEdge) -> Self {
        let levels = edge.levels_with_tail().into_iter().map(|items| items.map(TileTree::new)).collect();
        Self { size: edge.size(), edge: levels, full: BTreeMap::new() }
    }

    /// Full tiles that it has, each of some 50 KiB.
    pub fn n_full_tiles(&self) -> usize {
        self.full.len()
    }

    /// Forgets all full tiles.
    pub fn forget_full_tiles(&mut self) {
        self.full.clear();
    }

    /// Takes a full tile that is known to belong to the tree.
    #[cfg(feature = "std")]
    pub(crate) fn insert(&mut self, level: u8, index: u64, hashes: Vec<Hash>) {
        debug_assert_eq!(hashes.len(), usize::from(TILE_WIDTH));
        self.full.insert((level, index), TileTree::new(hashes));
    }

    /// Takes a full tile from an untrusted place; `Ok(false)` when it is not the tree's.
    ///
    /// Fails while the tile above, which the check needs, is missing.
    pub fn insert_checked(&mut self, level: u8, index: u64, hashes: Vec<Hash>) -> Result<bool, MissingTile> {
        let expected = self.node(level.saturating_add(1), index)?;
        if hashes.len() != usize::from(TILE_WIDTH) {
            return Ok(false);
        }
        let tree = TileTree::new(hashes);
        let matches = expected == Some(tree.root());
        if matches {
            self.full.insert((level, index), tree);
        }
        Ok(matches)
    }

    /// The hash at `index` of `level`, as [`tile`](crate::tile) counts them; `None` outside of the tree.
    pub fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, MissingTile> {
        if index >= n_full_nodes(self.size, level) {
            return Ok(None);
        }
        let (_, position) = in_tile(index);
        Ok(self.tile_of(level, index)?.items().get(usize::from(position)).copied())
    }

    /// The audit path of leaf `index`: the leaf's sibling first (RFC 6962 §2.1.1). Without hashes outside of the tree.
    pub fn audit_path(&self, index: u64) -> Result<Vec<Hash>, MissingTile> {
        let mut path = Vec::new();
        if index >= self.size {
            return Ok(path);
        }
        // The node of this level above the leaf, until the climb has reached the edge and goes on as its tail.
        let mut node = Some(index);
        for level in 0..MAX_LEVELS {
            match node {
                Some(index) => {
                    let (parent, position) = in_tile(index);
                    path.extend(self.tile_of(level, index)?.audit_path(position.into()));
                    node = (parent < n_full_tiles(self.size, level)).then_some(parent);
                }
                None => {
                    if let Some(tile) = self.edge_of(level) {
                        path.extend(tile.audit_path(tile.items().len().saturating_sub(1)));
                    }
                }
            }
        }
        Ok(path)
    }

    /// The proof that the tree of `old_size` leaves, which is not larger, is a prefix (RFC 6962 §2.1.2). Without hashes
    /// for the empty tree, the tree itself, and those larger than it.
    ///
    /// It is the audit path of the old tree's last leaf, with the part inside of the old tree's last perfect subtree
    /// folded into that subtree's root.
    pub fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, MissingTile> {
        let Some(last) = old_size.checked_sub(1).filter(|_| old_size < self.size) else {
            return Ok(Vec::new());
        };
        let path = self.audit_path(last)?;
        let inside = old_size.trailing_zeros() as usize;
        if old_size.is_power_of_two() {
            return Ok(path.get(inside..).unwrap_or_default().to_vec());
        }
        let leaf = self.node(0, last)?.expect("the leaf is in the tree");
        let subtree = path.iter().take(inside).fold(leaf, |hash, sibling| node_hash(sibling, &hash));
        Ok(iter::once(subtree).chain(path.iter().skip(inside).copied()).collect())
    }

    /// The tile that holds node `index` of `level`, which the tree has.
    fn tile_of(&self, level: u8, index: u64) -> Result<&TileTree, MissingTile> {
        let (tile, _) = in_tile(index);
        if tile < n_full_tiles(self.size, level) {
            return self.full.get(&(level, tile)).ok_or(MissingTile { level, index: tile });
        }
        Ok(self.edge_of(level).expect("the edge has the node"))
    }

    fn edge_of(&self, level: u8) -> Option<&TileTree> {
        self.edge.get(usize::from(level)).and_then(Option::as_ref)
    }
}
