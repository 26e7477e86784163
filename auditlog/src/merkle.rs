//! Roots and audit paths over at most one tile of hashes, by `rs_merkle`.
//!
//! `rs_merkle` keeps every node it ever saw, so it serves inside one tile only, and its verifier accepts proofs with
//! trailing hashes, so [`crate::proof`] has its own.

use alloc::vec::Vec;
use core::fmt;

use rs_merkle::{Hasher, MerkleTree};

use crate::hash::{Hash, leaf_hash, node_hash};

/// The tree over the hashes of one tile, or of one tile and the root of what lies to the right of it.
///
/// The right edge of a log splits into one partial tile for each level. The subtree right of a partial tile is
/// smaller than any of the tile's own subtrees, so RFC 6962 combines it exactly as if its root were one more hash
/// at the tile's end. That is why a root and an audit path of the whole log fall out of trees of at most 256 items.
#[derive(Clone)]
pub(crate) struct TileTree {
    items: Vec<Hash>,
    tree: MerkleTree<Rfc6962>,
}

impl TileTree {
    /// The tree over `items`, which must not be empty.
    pub(crate) fn new(items: Vec<Hash>) -> Self {
        debug_assert!(!items.is_empty(), "an empty tile is never built");
        Self { tree: MerkleTree::from_leaves(&items), items }
    }

    /// The hashes that the tree stands on.
    pub(crate) fn items(&self) -> &[Hash] {
        &self.items
    }

    /// The root.
    pub(crate) fn root(&self) -> Hash {
        self.tree.root().expect("the tree has an item")
    }

    /// The siblings on the way from the item at `position` to the root, nearest first (RFC 6962 §2.1.1).
    pub(crate) fn audit_path(&self, position: usize) -> Vec<Hash> {
        self.tree.proof(&[position]).proof_hashes().to_vec()
    }
}

impl fmt::Debug for TileTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TileTree").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// The root over `items`, which must not be empty.
///
/// Folded level by level: a tree of `rs_merkle` keeps every node, which costs a check of a whole log much of its time.
pub(crate) fn root(items: &[Hash]) -> Hash {
    let mut hashes = items.to_vec();
    while hashes.len() > 1 {
        let parent = |pair: &[Hash]| match pair {
            [left, right] => node_hash(left, right),
            // A last one without sibling moves up unchanged.
            _ => *pair.first().expect("no chunk is empty"),
        };
        hashes = hashes.chunks(2).map(parent).collect();
    }
    *hashes.first().expect("there is an item")
}

/// RFC 6962 hashing for `rs_merkle`: a node without a right sibling moves up unchanged.
#[derive(Clone)]
struct Rfc6962;

impl Hasher for Rfc6962 {
    type Hash = Hash;

    fn hash(data: &[u8]) -> Hash {
        leaf_hash(data)
    }

    fn concat_and_hash(left: &Hash, right: Option<&Hash>) -> Hash {
        right.map_or(*left, |right| node_hash(left, right))
    }
}
