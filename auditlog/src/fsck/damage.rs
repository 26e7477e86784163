//! What is wrong with an object of a log.

use bytes::Bytes;

use crate::bundle::BundleError;
use crate::hash::Hash;
use crate::tile::TilePath;

/// Bytes of a damaged object that are kept; the longest entry fits.
pub const MAX_KEPT_LEN: usize = 64 * 1024;

/// A damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
    /// The entry that is wrong, or the first [`MAX_KEPT_LEN`] bytes of the object; `None` if it is missing.
    pub bytes: Option<Bytes>,
}

impl Damage {
    pub(crate) fn new(path: TilePath, problem: Problem, bytes: Option<&[u8]>) -> Self {
        // A copy: a slice would keep the whole object in memory.
        let kept = |bytes: &[u8]| Bytes::copy_from_slice(bytes.get(..MAX_KEPT_LEN).unwrap_or(bytes));
        Self { key: path.to_string(), problem, bytes: bytes.map(kept) }
    }
}

/// What is wrong with it. Displays as a fragment that follows the object's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Its bytes are not entries.
    #[error("is not an entry bundle")]
    Bundle(#[source] BundleError),
    /// It holds another number of entries.
    #[error("holds {got} entries in place of {expected}")]
    Entries {
        /// As many as it should hold.
        expected: u64,
        /// As many as it holds.
        got: u64,
    },
    /// An entry is another one than the log's.
    #[error("entry {index} has another leaf hash than the tree")]
    Entry {
        /// The entry, counted from the beginning of the log.
        index: u64,
        /// The leaf hash in the tree.
        expected: Hash,
        /// The leaf hash of the entry that is there.
        got: Hash,
    },
    /// A hash of a tile is another one than what lies below it makes.
    #[error("hash {position} is not the one that the entries make")]
    Hash {
        /// The hash, counted from the beginning of the tile.
        position: u64,
        /// What the entries make.
        expected: Hash,
        /// What is there.
        got: Hash,
    },
    /// A tile is shorter or longer than its hashes.
    #[error("has {got} bytes in place of {expected}")]
    Length {
        /// 32 times its width.
        expected: u64,
        /// What it has.
        got: u64,
    },
    /// The source does not have it.
    #[error("is missing")]
    Missing,
    /// It leads to another root than the one above it, or the checkpoint.
    #[error("does not lead to the root that the tree has above it")]
    Root {
        /// The hash above it, or the checkpoint's root.
        expected: Hash,
        /// The root that it leads to.
        got: Hash,
    },
}

impl Problem {
    /// The hash that was expected and the one that was found, where it comes to one.
    pub fn hashes(&self) -> Option<(Hash, Hash)> {
        match self {
            Self::Entry { expected, got, .. } | Self::Hash { expected, got, .. } | Self::Root { expected, got } => {
                Some((*expected, *got))
            }
            Self::Bundle(_) | Self::Entries { .. } | Self::Length { .. } | Self::Missing => None,
        }
    }
}
