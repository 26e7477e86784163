//! A provider's chain of receipts, in memory that does not grow with it (SPEC §7.3).

use std::collections::{BTreeMap, BTreeSet};

use fanlight_protocol::{Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::Limits;
use super::finding::Finding;

/// Different receipts remembered at one counter. The fork is known from two; more serve those who continue a branch.
const MAX_BRANCHES: usize = 4;

/// Receipts remembered as not naming the one before them; beyond that the oldest stays a finding for good.
const MAX_BROKEN: usize = 64;

/// Which counters were seen, and enough of the receipts at them to judge the next.
///
/// Receipts come in any order. `runs` says which counters are there. `links` holds the receipts at both ends of each
/// run, which is all that joining runs needs, and the newest, so that most repeats and forks are told apart at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    // First counter to last of each stretch without a gap; two of them never touch.
    runs: BTreeMap<u64, u64>,
    links: BTreeMap<u64, Vec<Link>>,
    // Counter and leaf of receipts that name none of the known ones before them. A fork logged later may still fit.
    broken: BTreeSet<(u64, u64)>,
}

/// What the chain remembers of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) digest: Digest,
    pub(super) previous: Digest,
    /// Its leaf.
    pub(super) index: u64,
    /// When it was signed by its own word, but not later than it was seen.
    pub(super) signed: UnixTime,
}

/// What a receipt turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// Another receipt has its counter; the first of them is at this leaf.
    Forked { first: u64 },
    /// Its counter was seen, but what was there is forgotten: the same receipt, or a fork.
    Forgotten,
    /// The third or later receipt with its counter.
    ForkedAgain,
    /// The first with its counter.
    New,
    /// The same bytes were logged before.
    Repeated,
}

impl Chain {
    pub(super) fn insert(&mut self, counter: u64, link: Link) -> Inserted {
        if let Some(known) = self.links.get_mut(&counter) {
            if known.iter().any(|known| known.digest == link.digest) {
                return Inserted::Repeated;
            }
            let inserted = match known.as_slice() {
                [first] => Inserted::Forked { first: first.index },
                _ => Inserted::ForkedAgain,
            };
            if known.len() < MAX_BRANCHES {
                known.push(link);
                self.judge_around(counter);
            }
            return inserted;
        }
        if self.contains(counter) {
            return Inserted::Forgotten;
        }
        self.links.insert(counter, vec![link]);
        self.join(counter);
        self.judge_around(counter);
        Inserted::New
    }

    /// Missing stretches, each with when the receipt after it was signed: those before it were signed earlier.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (Finding, UnixTime)> {
        let mut expected = 0;
        self.runs.iter().filter_map(move |(&first, &last)| {
            let missing = expected;
            expected = last.saturating_add(1);
            let after = self.links.get(&first).and_then(|links| links.first())?;
            (first > missing).then(|| (Finding::Gap { first: missing, last: first - 1 }, after.signed))
        })
    }

    /// Receipts that do not name the one before them, as far as that one is known.
    pub(super) fn mismatches(&self) -> impl Iterator<Item = Finding> {
        self.broken.iter().map(|&(counter, index)| Finding::PreviousMismatch { index, counter })
    }

    /// The highest counter seen.
    pub(super) fn newest(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, last)| *last)
    }

    /// Forgets what the limits do not allow. What could still have been answered but no longer can goes to `settled`.
    pub(super) fn forget(&mut self, limits: &Limits, mut settled: impl FnMut(Finding)) {
        while self.runs.len() > limits.max_runs {
            let Some((first, last)) = self.runs.pop_first() else { break };
            let Some((next, end)) = self.runs.pop_first() else { break };
            settled(Finding::Gap { first: last + 1, last: next - 1 });
            self.runs.insert(first, end);
        }
        while self.broken.len() > limits.max_links.min(MAX_BROKEN) {
            let Some((counter, index)) = self.broken.pop_first() else { break };
            settled(Finding::PreviousMismatch { index, counter });
        }
        while self.links.len() > limits.max_links.max(2 * self.runs.len()) {
            // The lowest that is not the end of a run; there are more links than ends.
            let Some(inner) = self.links.keys().copied().find(|counter| !self.is_end(*counter)) else { break };
            self.links.remove(&inner);
        }
    }

    fn contains(&self, counter: u64) -> bool {
        self.runs.range(..=counter).next_back().is_some_and(|(_, last)| counter <= *last)
    }

    fn is_end(&self, counter: u64) -> bool {
        self.runs.range(..=counter).next_back().is_some_and(|(first, last)| counter == *first || counter == *last)
    }

    /// Makes `counter`, which no run has, part of the runs.
    fn join(&mut self, counter: u64) {
        let after = counter.checked_add(1).and_then(|next| self.runs.remove(&next));
        let last = after.unwrap_or(counter);
        match self.runs.range_mut(..counter).next_back() {
            Some((_, end)) if *end + 1 == counter => *end = last,
            _ => {
                self.runs.insert(counter, last);
            }
        }
    }

    /// Judges the receipts at `counter` against those before, and those after against them.
    fn judge_around(&mut self, counter: u64) {
        for counter in [Some(counter), counter.checked_add(1)].into_iter().flatten() {
            // The first receipt has no predecessor to disagree with; after a gap the predecessor is not known.
            let Some(before) = counter.checked_sub(1).and_then(|before| self.links.get(&before)) else { continue };
            for link in self.links.get(&counter).into_iter().flatten() {
                if before.iter().any(|before| before.digest == link.previous) {
                    self.broken.remove(&(counter, link.index));
                } else {
                    self.broken.insert((counter, link.index));
                }
            }
        }
    }
}
