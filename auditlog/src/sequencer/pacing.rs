//! When a round starts.
//!
//! A round costs the same few writes whatever it carries, and a partial tile is written again by the round after. So a
//! round starts when it completes a tile, or when an entry has waited long enough, or when the pool may run full.

use std::time::Duration;

use crate::sequencer::Config;
use crate::tile::TILE_WIDTH;

/// What waits in a pool.
pub(super) struct Waiting {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    /// Since when the oldest entry waits; `None` before the sequencer has seen it.
    pub(super) oldest: Option<Duration>,
    /// Leaves in the tree that the round goes on from.
    pub(super) tree_size: u64,
    pub(super) closing: bool,
}

impl Waiting {
    /// How many of the entries, from the front, end at the last tile boundary that they reach; 0 when they reach none.
    pub(super) fn whole_tiles(&self) -> usize {
        let width = usize::from(TILE_WIDTH);
        let in_tile = usize::try_from(self.tree_size % u64::from(TILE_WIDTH)).expect("less than 256");
        ((in_tile + self.entries) / width * width).saturating_sub(in_tile)
    }

    fn is_half_full(&self, config: &Config) -> bool {
        self.entries >= config.max_pool_entries.div_ceil(2) || self.bytes >= config.max_pool_bytes.div_ceil(2)
    }
}

/// When the next round is due, by the sequencer's timer; `None` while nothing waits, for empty rounds do not exist.
pub(super) fn due(waiting: &Waiting, config: &Config) -> Option<Duration> {
    if waiting.entries == 0 {
        return None;
    }
    let at_once = waiting.closing || waiting.whole_tiles() > 0 || waiting.is_half_full(config);
    match waiting.oldest {
        Some(since) if !at_once => Some(since.saturating_add(config.max_delay)),
        _ => Some(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: Waiting = Waiting { entries: 1, bytes: 1, oldest: Some(Duration::from_secs(7)), tree_size: 0, closing: false };

    #[test]
    fn whole_tiles_end_at_the_boundary() {
        for (tree_size, entries, whole) in
            [(0, 255, 0), (0, 256, 256), (0, 600, 512), (255, 1, 1), (256, 255, 0), (250, 5, 0), (250, 6, 6), (250, 700, 518)]
        {
            assert_eq!(Waiting { entries, tree_size, ..WAITING }.whole_tiles(), whole, "{tree_size} + {entries}");
        }
    }

    #[test]
    fn waits_for_a_tile_but_not_longer_than_allowed() {
        let config =
            Config { max_delay: Duration::from_secs(2), max_pool_entries: 100, max_pool_bytes: 1000, ..Config::default() };
        let due = |waiting: Waiting| due(&waiting, &config);
        assert_eq!(due(Waiting { entries: 0, ..WAITING }), None);
        assert_eq!(due(Waiting { entries: 0, closing: true, ..WAITING }), None);
        assert_eq!(due(WAITING), Some(Duration::from_secs(9)));
        assert_eq!(due(Waiting { entries: 49, bytes: 499, ..WAITING }), Some(Duration::from_secs(9)));
        for at_once in [
            Waiting { entries: 50, ..WAITING },
            Waiting { bytes: 500, ..WAITING },
            Waiting { tree_size: 255, ..WAITING },
            Waiting { closing: true, ..WAITING },
        ] {
            assert_eq!(due(at_once), Some(Duration::ZERO));
        }
    }
}
