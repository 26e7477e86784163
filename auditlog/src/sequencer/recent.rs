//! The last entries of the log, in memory.

use std::collections::{HashMap, VecDeque};

use crate::hash::Hash;

/// The last entries of the log, by leaf hash. The leaf is a SHA-256 over the whole entry, so a hit is that entry.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    capacity: usize,
    // The leaves before `next`, the oldest first.
    leaves: VecDeque<Hash>,
    indices: HashMap<Hash, u64>,
    next: u64,
}

impl Recent {
    /// Knows nothing of a log of `tree_size` entries yet, only what is pushed from here on.
    pub(super) fn new(tree_size: u64, capacity: usize) -> Self {
        Self { capacity, leaves: VecDeque::new(), indices: HashMap::new(), next: tree_size }
    }

    /// Forgets everything unless the log has `tree_size` entries, as many as are known here.
    pub(super) fn go_on_from(&mut self, tree_size: u64) {
        if self.next != tree_size {
            *self = Self::new(tree_size, self.capacity);
        }
    }

    pub(super) fn get(&self, leaf: &Hash) -> Option<u64> {
        self.indices.get(leaf).copied()
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        self.leaves.push_back(leaf);
        // An entry that is in the log twice keeps its first position while that is remembered.
        self.indices.entry(leaf).or_insert(self.next);
        self.next += 1;
        if self.leaves.len() > self.capacity
            && let Some(oldest) = self.leaves.pop_front()
        {
            let index = self.next - 1 - self.leaves.len() as u64;
            if self.indices.get(&oldest) == Some(&index) {
                self.indices.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;

    #[test]
    fn remembers_the_last_entries_only() {
        let leaves: Vec<Hash> = (0..5u8).map(|n| leaf_hash(&[n])).collect();
        let mut recent = Recent::new(7, 3);
        for leaf in &leaves {
            recent.push(*leaf);
        }
        let indices: Vec<_> = leaves.iter().map(|leaf| recent.get(leaf)).collect();
        assert_eq!(indices, [None, None, Some(9), Some(10), Some(11)]);
    }
}
