//! What waits for a round, what was answered, and who waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::checkpoint::VerifiedCheckpoint;
use crate::hash::Hash;
use crate::proof::Prover;
use crate::sequencer::pacing::{self, Waiting};
use crate::sequencer::recent::Recent;
use crate::sequencer::{AppendError, Config, Stats};
use crate::tlog_proof::TlogProof;

/// An entry on its way into the log.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) leaf: Hash,
    pub(super) entry: Bytes,
    // When the sequencer first saw it, by its timer; `None` for the moment until it does.
    pub(super) since: Option<Duration>,
    // It is known not to be in the tree that the sequencer grows.
    pub(super) is_new: bool,
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
    /// Logged before: by an earlier round, or by one whose outcome came to light only after a reload.
    Logged(u64),
}

/// What became of an append.
#[derive(Debug)]
pub(super) enum Admission {
    Logged(u64),
    Waiting {
        answer: oneshot::Receiver<Answer>,
        /// The sequencer does not know of the pool's last entries yet.
        wake: bool,
    },
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
    // For the next rounds, in order; `pool_bytes` is the sum of their lengths.
    pool: VecDeque<Pending>,
    pool_bytes: usize,
    // By leaf: those who wait for an entry of the pool or of the round under way.
    waiting: HashMap<Hash, Vec<oneshot::Sender<Answer>>>,
    n_waiting: usize,
    // Entries of published rounds only.
    recent: Recent,
    // The published one.
    checkpoint: Arc<VerifiedCheckpoint>,
    // How long a full pool takes to have room again.
    retry_after: Duration,
    // Someone found the index of the tree to be wrong.
    index_is_suspect: bool,
    stats: Stats,
}

impl State {
    pub(super) fn new(checkpoint: Arc<VerifiedCheckpoint>, config: &Config) -> Self {
        let recent = Recent::new(checkpoint.tree_size(), config.recent_entries.max(config.max_pool_entries));
        Self {
            phase: Phase::Open,
            pool: VecDeque::new(),
            pool_bytes: 0,
            waiting: HashMap::new(),
            n_waiting: 0,
            recent,
            checkpoint,
            retry_after: config.max_delay,
            index_is_suspect: false,
            stats: Stats::default(),
        }
    }

    /// Takes an entry into the pool, or finds it where it is already.
    pub(super) fn admit(&mut self, leaf: Hash, entry: Bytes, config: &Config) -> Result<Admission, AppendError> {
        match self.phase {
            Phase::Open => {}
            Phase::Closing => return Err(AppendError::Closing),
            Phase::Stopped => return Err(AppendError::Stopped),
        }
        if let Some(index) = self.recent.get(&leaf) {
            self.stats.duplicates += 1;
            return Ok(Admission::Logged(index));
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
            return Err(AppendError::Overloaded { retry_after: self.retry_after });
        }
        // One call is enough until the sequencer has looked: it sees all that came by then.
        let mut wake = false;
        if is_waiting {
            self.stats.duplicates += 1;
        } else {
            wake = self.pool.back().is_none_or(|last| last.since.is_some());
            self.pool_bytes += entry.len();
            self.pool.push_back(Pending { leaf, entry, since: None, is_new: false });
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.entry(leaf).or_default().push(sender);
        self.n_waiting += 1;
        Ok(Admission::Waiting { answer, wake })
    }

    /// Notes that what came since the last call has waited from `now` on.
    pub(super) fn stamp(&mut self, now: Duration) {
        for pending in self.pool.iter_mut().rev().take_while(|pending| pending.since.is_none()) {
            pending.since = Some(now);
        }
    }

    /// When the next round should start that goes on from `tree_size`; `None` while nothing waits.
    pub(super) fn due(&self, tree_size: u64, config: &Config) -> Option<Duration> {
        pacing::due(&self.waiting(tree_size), config)
    }

    /// Takes what a round that starts `now` should have.
    pub(super) fn take_round(&mut self, tree_size: u64, now: Duration, config: &Config) -> Vec<Pending> {
        self.stamp(now);
        let whole = self.waiting(tree_size).whole_tiles();
        let oldest_of_rest = self.pool.get(whole).and_then(|pending| pending.since);
        let rest_is_due = oldest_of_rest.is_some_and(|since| since.saturating_add(config.max_delay) <= now);
        let n = if whole == 0 || self.is_closing() || rest_is_due { self.pool.len() } else { whole };
        let round: Vec<Pending> = self.pool.drain(..n).collect();
        self.pool_bytes = self.pool.iter().map(|pending| pending.entry.len()).sum();
        round
    }

    fn waiting(&self, tree_size: u64) -> Waiting {
        Waiting {
            entries: self.pool.len(),
            bytes: self.pool_bytes,
            oldest: self.pool.front().and_then(|pending| pending.since),
            tree_size,
            closing: self.is_closing(),
        }
    }

    /// Puts entries of a round that did not happen back in front.
    pub(super) fn return_to_pool(&mut self, entries: Vec<Pending>) {
        self.pool_bytes += entries.iter().map(|pending| pending.entry.len()).sum::<usize>();
        for pending in entries.into_iter().rev() {
            self.pool.push_front(pending);
        }
    }

    /// Makes a round known and answers its waiters; the first entry has index `first`.
    pub(super) fn publish(&mut self, first: u64, entries: &[Pending], round: &Arc<Published>) {
        self.checkpoint = Arc::clone(&round.checkpoint);
        self.stats.rounds += 1;
        self.stats.appended += entries.len() as u64;
        for (index, pending) in (first..).zip(entries) {
            self.recent.push(pending.leaf);
            self.answer(&pending.leaf, || Answer::Included { index, round: Arc::clone(round) });
        }
    }

    /// Answers whoever waits for an entry that was logged before.
    pub(super) fn answer_logged(&mut self, leaf: &Hash, index: u64) {
        self.stats.duplicates += 1;
        self.answer(leaf, || Answer::Logged(index));
    }

    /// Goes on from a checkpoint that was published in another way than by [`Self::publish`].
    pub(super) fn reload(&mut self, checkpoint: VerifiedCheckpoint) {
        self.recent.go_on_from(checkpoint.tree_size());
        self.checkpoint = Arc::new(checkpoint);
        // The tree may have grown by any of them.
        self.pool.iter_mut().for_each(|pending| pending.is_new = false);
    }

    pub(super) fn suspect_index(&mut self) {
        self.index_is_suspect = true;
    }

    /// Whether the index was found to be wrong since the last call.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.index_is_suspect)
    }

    fn answer(&mut self, leaf: &Hash, answer: impl Fn() -> Answer) {
        let waiters = self.waiting.remove(leaf).unwrap_or_default();
        self.stats.answered += 1;
        self.n_waiting -= waiters.len();
        for waiter in waiters {
            // Whoever stopped waiting needs no answer.
            let _ = waiter.send(answer());
        }
    }

    pub(super) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// Ends the log: whoever still waits is told so.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.pool.clear();
        self.pool_bytes = 0;
        self.waiting.clear();
        self.n_waiting = 0;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.phase != Phase::Open
    }

    pub(super) fn set_retry_after(&mut self, retry_after: Duration) {
        self.retry_after = retry_after;
    }

    pub(super) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    pub(super) fn checkpoint(&self) -> Arc<VerifiedCheckpoint> {
        Arc::clone(&self.checkpoint)
    }

    pub(super) fn recent(&self, leaf: &Hash) -> Option<u64> {
        self.recent.get(leaf)
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            tree_size: self.checkpoint.tree_size(),
            pool_entries: self.pool.len(),
            pool_bytes: self.pool_bytes,
            // Each of them has its waiters here, also those who left.
            unanswered: self.waiting.len(),
            retry_after: self.retry_after,
            ..self.stats
        }
    }
}
