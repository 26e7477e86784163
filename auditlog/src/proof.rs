//! Inclusion and consistency proofs: building them from tiles, and strict verification.

mod prover;

use crate::hash::{EMPTY_ROOT, Hash, node_hash};

pub use prover::{MissingTile, Prover};

/// Hashes in the longest audit path: one for each bit of a 64-bit index.
pub const MAX_PATH_LEN: usize = 64;

/// Checks that `leaf` stands at `index` in the tree of `tree_size` leaves with this root (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, tree_size: u64, root_hash: Hash, path: &[Hash]) -> Result<(), ProofError> {
    let last = tree_size.checked_sub(1).filter(|last| index <= *last).ok_or(ProofError::IndexOutsideTree)?;
    let mut position = Position { node: index, last };
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
    let (Some(old_last), Some(new_last)) = (old_size.checked_sub(1), new_size.checked_sub(1)) else {
        return without_proof(old_root == EMPTY_ROOT && (new_size > 0 || new_root == EMPTY_ROOT), proof);
    };
    if old_size == new_size {
        return without_proof(old_root == new_root, proof);
    }
    let mut position = Position { node: old_last, last: new_last };
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

/// Of trees between which there is nothing to prove.
fn without_proof(roots_agree: bool, proof: &[Hash]) -> Result<(), ProofError> {
    match proof {
        [] if roots_agree => Ok(()),
        [] => Err(ProofError::RootMismatch),
        _ => Err(ProofError::TooLong),
    }
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
