//! What waits for a round, what was answered, and who waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::Hash;
use crate::proof::Prover;
use crate::sequencer::{AppendError, Config, Stats};
use crate::tlog_proof::TlogProof;

/// An entry on its way into the log.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) leaf: Hash,
    pub(super) entry: Bytes,
}

/// A published round, of which each waiter makes its own proof.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) checkpoint: Arc<VerifiedCheckpoint>,
    // Holds every full tile of the round: with the right edge, all that proofs of its entries need.
    pub(super) prover: Prover,
}

impl Published {
    pub(super) fn prove(&self, index: u64) -> TlogProof {
        let path = self.prover.audit_path(index).expect("the round's own tiles prove its entries");
        TlogProof::new(index, path, self.checkpoint.note().to_owned())
    }
}

/// What a waiter is told.
#[derive(Debug)]
pub(super) enum Answer {
    /// In this round.
    Included { index: u64, round: Arc<Published> },
    /// In a round whose outcome came to light only after a reload.
    Remembered(u64),
}

/// What became of an append.
#[derive(Debug)]
pub(super) enum Admission {
    Remembered(u64),
    Waiting { answer: oneshot::Receiver<Answer>, half_full: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing,
    Stopped,
}

/// Everything that appends and the sequencer share.
#[derive(Debug)]
pub(super) struct State {
    phase: Phase,
    // For the next round, in order; `pool_bytes` is the sum of their lengths.
    pool: Vec<Pending>,
    pool_bytes: usize,
    // By leaf: those who wait for an entry of the pool or of the round under way.
    waiting: HashMap<Hash, Vec<oneshot::Sender<Answer>>>,
    n_waiting: usize,
    // Entries of published rounds only.
    remembered: Remembered,
    checkpoint: Arc<VerifiedCheckpoint>,
    stats: Stats,
}

impl State {
    pub(super) fn new(checkpoint: Arc<VerifiedCheckpoint>, remembered_entries: usize) -> Self {
        let remembered = Remembered::new(checkpoint.tree_size(), remembered_entries);
        let (pool, waiting, stats) = Default::default();
        Self { phase: Phase::Open, pool, pool_bytes: 0, waiting, n_waiting: 0, remembered, checkpoint, stats }
    }

    /// Takes an entry into the pool, or finds it where it is already.
    pub(super) fn admit(&mut self, leaf: Hash, entry: Bytes, config: &Config) -> Result<Admission, AppendError> {
        match self.phase {
            Phase::Open => {}
            Phase::Closing => return Err(AppendError::Closing),
            Phase::Stopped => return Err(AppendError::Stopped),
        }
        if let Some(index) = self.remembered.get(&leaf) {
            self.stats.duplicates += 1;
            return Ok(Admission::Remembered(index));
        }
        let is_waiting = self.waiting.contains_key(&leaf);
        // Two pools' worth of waiters: the pool's and the running round's, plus whoever sends the same again.
        let full = if is_waiting {
            self.n_waiting >= 2 * config.max_pool_entries
        } else {
            self.pool.len() >= config.max_pool_entries || self.pool_bytes + entry.len() > config.max_pool_bytes
        };
        if full {
            self.stats.overloaded += 1;
            return Err(AppendError::Overloaded);
        }
        if is_waiting {
            self.stats.duplicates += 1;
        } else {
            self.pool_bytes += entry.len();
            self.pool.push(Pending { leaf, entry });
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.entry(leaf).or_default().push(sender);
        self.n_waiting += 1;
        let half_full = self.pool.len() >= config.max_pool_entries / 2 || self.pool_bytes >= config.max_pool_bytes / 2;
        Ok(Admission::Waiting { answer, half_full })
    }

    /// Takes the pool for a round.
    pub(super) fn take_pool(&mut self) -> Vec<Pending> {
        self.pool_bytes = 0;
        std::mem::take(&mut self.pool)
    }

    /// Puts the entries of a round that did not happen back in front, and answers for those that did after all.
    pub(super) fn return_to_pool(&mut self, entries: Vec<Pending>) {
        let newer = std::mem::take(&mut self.pool);
        for pending in entries.into_iter().chain(newer) {
            match self.remembered.get(&pending.leaf) {
                Some(index) => self.answer(&pending.leaf, || Answer::Remembered(index)),
                None => self.pool.push(pending),
            }
        }
        self.pool_bytes = self.pool.iter().map(|pending| pending.entry.len()).sum();
    }

    /// Makes a round known and answers its waiters; the first entry has index `first`.
    pub(super) fn publish(&mut self, first: u64, entries: &[Pending], round: &Arc<Published>) {
        self.checkpoint = Arc::clone(&round.checkpoint);
        self.stats.rounds += 1;
        self.stats.appended += entries.len() as u64;
        for (index, pending) in (first..).zip(entries) {
            self.remembered.push(pending.leaf);
            self.answer(&pending.leaf, || Answer::Included { index, round: Arc::clone(round) });
        }
    }

    fn answer(&mut self, leaf: &Hash, answer: impl Fn() -> Answer) {
        let waiters = self.waiting.remove(leaf).unwrap_or_default();
        self.n_waiting -= waiters.len();
        for waiter in waiters {
            // Whoever stopped waiting needs no answer.
            let _ = waiter.send(answer());
        }
    }

    /// Goes on from a checkpoint found at a reload.
    pub(super) fn reload(&mut self, checkpoint: Arc<VerifiedCheckpoint>, remembered: Remembered) {
        self.checkpoint = checkpoint;
        self.remembered = remembered;
    }

    pub(super) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// Ends the log: whoever still waits is told so.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.take_pool();
        self.waiting.clear();
        self.n_waiting = 0;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.phase != Phase::Open
    }

    pub(super) fn has_work(&self) -> bool {
        !self.pool.is_empty()
    }

    pub(super) fn count_failed_round(&mut self) {
        self.stats.failed_rounds += 1;
    }

    pub(super) fn checkpoint(&self) -> Arc<VerifiedCheckpoint> {
        Arc::clone(&self.checkpoint)
    }

    pub(super) fn remembered_mut(&mut self) -> &mut Remembered {
        &mut self.remembered
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { tree_size: self.checkpoint.tree_size(), pool_entries: self.pool.len(), pool_bytes: self.pool_bytes, ..self.stats }
    }
}

/// The last entries of the log, by leaf hash. The leaf is a SHA-256 over the whole entry, so a hit is that entry.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    capacity: usize,
    // The leaves before `next`, the oldest first.
    leaves: VecDeque<Hash>,
    indices: HashMap<Hash, u64>,
    next: u64,
}

impl Remembered {
    /// Remembers nothing of a log of `tree_size` entries: [`Self::push`] begins where the last `capacity` do.
    pub(super) fn new(tree_size: u64, capacity: usize) -> Self {
        let next = tree_size.saturating_sub(capacity as u64);
        Self { capacity, leaves: VecDeque::new(), indices: HashMap::new(), next }
    }

    pub(super) fn get(&self, leaf: &Hash) -> Option<u64> {
        self.indices.get(leaf).copied()
    }

    /// The index that the next pushed leaf has.
    pub(super) fn next(&self) -> u64 {
        self.next
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
        let mut remembered = Remembered::new(10, 3);
        assert_eq!(remembered.next(), 7);
        for leaf in &leaves {
            remembered.push(*leaf);
        }
        let indices: Vec<_> = leaves.iter().map(|leaf| remembered.get(leaf)).collect();
        assert_eq!(indices, [None, None, Some(9), Some(10), Some(11)]);
    }
}
