//! Where each entry of a log stands, by leaf hash.

use crate::hash::Hash;
use crate::store::StoreError;

/// An index from leaf hash to position that outlives the process and takes bounded memory.
///
/// It is a cache of the tree and can be rebuilt from it at any time: the log stays right without it, only appending an
/// old entry again would log it twice. Nothing that it says is believed before the leaf at that position is compared.
pub trait LeafIndex {
    /// The index covers the leaves before this one.
    fn indexed(&self) -> impl Future<Output = Result<u64, StoreError>>;

    /// The first position of each leaf, in the order asked; `None` for a leaf that is not there.
    fn positions(&self, leaves: Vec<Hash>) -> impl Future<Output = Result<Vec<Option<u64>>, StoreError>>;

    /// Adds the leaves from `first` on, which is what [`Self::indexed`] says. A leaf that is there keeps its position.
    /// All of them are added or none.
    fn extend(&self, first: u64, leaves: Vec<Hash>) -> impl Future<Output = Result<(), StoreError>>;

    /// Forgets everything: the index belongs to another tree.
    fn clear(&self) -> impl Future<Output = Result<(), StoreError>>;
}
