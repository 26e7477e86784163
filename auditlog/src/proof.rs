//! Inclusion and consistency proofs: building them from tiles, and strict verification.

use std::collections::HashMap;

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::merkle::TileTree;
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, n_full_tiles};
use crate::tree::RightEdge;

/// Hashes in the longest audit path: one for each bit of a 64-bit index.
pub const MAX_PATH_LEN: usize = 64;

/// Checks that `leaf` stands at `index` in the tree of `tree_size` leaves with this root (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, tree_size: u64, root_hash: Hash, path: &[Hash]) -> Result<(), ProofError> {
    if index >= tree_size {
        return Err(ProofError::IndexOutsideTree);
    }
    let mut position = Position { node: index, last: tree_size - 1 };
    let mut hash = leaf;
    for sibling in path {
        hash = match position.climb()? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
    }
    position.finish()?;
    if hash == root_hash { Ok(()) } else { Err(ProofError::RootMismatch) }
}

/// Checks that the tree of `old_size` leaves is a prefix of the tree of `new_size` leaves (RFC 9162 §2.1.4.2).
///
/// The proof is empty exactly when the old tree is empty or both sizes are equal.
pub fn verify_consistency(
    old_size: u64,
    old_root: Hash,
    new_size: u64,
    new_root: Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::SizesReversed);
    }
    if old_size == 0 || old_size == new_size {
        let expected = if old_size == 0 { EMPTY_ROOT } else { new_root };
        return match (proof, old_root == expected) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::RootMismatch),
            _ => Err(ProofError::TooLong),
        };
    }
    let mut position = Position { node: old_size - 1, last: new_size - 1 };
    // The largest subtree of the old tree that ends with it; it is the old tree itself for a power of two.
    position.shift(position.node.trailing_ones());
    let (start, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        let (start, rest) = proof.split_first().ok_or(ProofError::TooShort)?;
        (*start, rest)
    };
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in rest {
        match position.climb()? {
            Side::Left => {
                old_hash = node_hash(sibling, &old_hash);
                new_hash = node_hash(sibling, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, sibling),
        }
    }
    position.finish()?;
    if old_hash == old_root && new_hash == new_root { Ok(()) } else { Err(ProofError::RootMismatch) }
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The index is not below the tree size.
    #[error("index outside of the tree")]
    IndexOutsideTree,
    /// The hashes lead to another root.
    #[error("proof leads to another root")]
    RootMismatch,
    /// The old tree is larger than the new one.
    #[error("old tree larger than the new one")]
    SizesReversed,
    /// Hashes are left over at the root.
    #[error("proof has too many hashes")]
    TooLong,
    /// The hashes end below the root.
    #[error("proof has too few hashes")]
    TooShort,
}

/// A node on its way up, and the last node of its level.
struct Position {
    node: u64,
    last: u64,
}

/// On which side of the node its sibling stands.
enum Side {
    Left,
    Right,
}

impl Position {
    /// Moves to the parent that the next hash of a proof leads to.
    fn climb(&mut self) -> Result<Side, ProofError> {
        if self.last == 0 {
            return Err(ProofError::TooLong);
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // A last node without right sibling moves up unchanged until it is a right child.
            self.shift(self.node.trailing_zeros());
            Side::Left
        } else {
            Side::Right
        };
        self.shift(1);
        Ok(side)
    }

    fn finish(&self) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::TooShort) }
    }

    fn shift(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }
}

/// Builds proofs in one tree from its right edge and the full tiles that it was given.
#[derive(Debug)]
pub(crate) struct Prover {
    size: u64,
    // By level: the partial tile and, last, the root of the levels below.
    edge: Vec<Option<TileTree>>,
    full: HashMap<(u8, u64), TileTree>,
}

/// A full tile that a proof needs and the prover lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissingTile {
    pub(crate) level: u8,
    pub(crate) index: u64,
}

impl MissingTile {
    pub(crate) fn path(self) -> TilePath {
        TilePath::hashes(self.level, self.index, TILE_WIDTH).expect("levels are below 8")
    }
}

impl Prover {
    pub(crate) fn new(edge: &RightEdge) -> Self {
        let levels = edge.levels_with_tail().into_iter().map(|items| items.map(TileTree::new)).collect();
        Self { size: edge.size(), edge: levels, full: HashMap::new() }
    }

    pub(crate) fn n_full_tiles(&self) -> usize {
        self.full.len()
    }

    pub(crate) fn forget_full_tiles(&mut self) {
        self.full.clear();
    }

    /// Takes a full tile that is known to belong to the tree.
    pub(crate) fn insert(&mut self, level: u8, index: u64, hashes: Vec<Hash>) {
        debug_assert_eq!(hashes.len(), usize::from(TILE_WIDTH));
        self.full.insert((level, index), TileTree::new(hashes));
    }

    /// Takes a full tile from an untrusted place; `Ok(false)` when its hashes are not the tree's.
    ///
    /// Fails while the tile above, which the check needs, is missing.
    pub(crate) fn insert_checked(&mut self, level: u8, index: u64, hashes: Vec<Hash>) -> Result<bool, MissingTile> {
        let expected = self.node(level + 1, index)?;
        let tree = TileTree::new(hashes);
        let matches = expected == Some(tree.root());
        if matches {
            self.full.insert((level, index), tree);
        }
        Ok(matches)
    }

    /// The hash at `index` of `level`; `None` outside of the tree.
    pub(crate) fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, MissingTile> {
        if self.size.checked_shr(8 * u32::from(level)).is_none_or(|nodes| index >= nodes) {
            return Ok(None);
        }
        Ok(self.tile_of(level, index)?.items().get(in_tile(index)).copied())
    }

    /// The audit path of leaf `index`, which must be in the tree: the leaf's sibling first (RFC 6962 §2.1.1).
    pub(crate) fn audit_path(&self, index: u64) -> Result<Vec<Hash>, MissingTile> {
        debug_assert!(index < self.size, "the caller has checked the index");
        let mut path = Vec::new();
        // The node of this level above the leaf, until the climb has reached the edge and goes on as its tail.
        let mut node = Some(index);
        for level in 0..MAX_LEVELS {
            match node {
                Some(index) => {
                    path.extend(self.tile_of(level, index)?.audit_path(in_tile(index)));
                    let parent = index / u64::from(TILE_WIDTH);
                    node = (parent < n_full_tiles(self.size, level)).then_some(parent);
                }
                None => {
                    if let Some(tile) = self.edge.get(usize::from(level)).and_then(Option::as_ref) {
                        path.extend(tile.audit_path(tile.items().len() - 1));
                    }
                }
            }
        }
        Ok(path)
    }

    /// The proof that the tree of `old_size` leaves, which is not larger, is a prefix (RFC 6962 §2.1.2).
    ///
    /// It is the audit path of the old tree's last leaf, with the part inside of the old tree's last perfect subtree
    /// folded into that subtree's root.
    pub(crate) fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, MissingTile> {
        if old_size == 0 || old_size >= self.size {
            return Ok(Vec::new());
        }
        let last = old_size - 1;
        let path = self.audit_path(last)?;
        let inside = old_size.trailing_zeros() as usize;
        if old_size.is_power_of_two() {
            return Ok(path.get(inside..).unwrap_or_default().to_vec());
        }
        let leaf = self.node(0, last)?.expect("the leaf is in the tree");
        let subtree = path.iter().take(inside).fold(leaf, |hash, sibling| node_hash(sibling, &hash));
        Ok(std::iter::once(subtree).chain(path.iter().skip(inside).copied()).collect())
    }

    /// The tile that holds node `index` of `level`, which the tree has.
    fn tile_of(&self, level: u8, index: u64) -> Result<&TileTree, MissingTile> {
        let tile = index / u64::from(TILE_WIDTH);
        if tile < n_full_tiles(self.size, level) {
            return self.full.get(&(level, tile)).ok_or(MissingTile { level, index: tile });
        }
        Ok(self.edge.get(usize::from(level)).and_then(Option::as_ref).expect("the edge has the node"))
    }
}

fn in_tile(index: u64) -> usize {
    usize::try_from(index % u64::from(TILE_WIDTH)).expect("less than 256")
}
