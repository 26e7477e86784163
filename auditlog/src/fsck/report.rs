//! How far a check has come, and what it found.

use crate::checkpoint::VerifiedCheckpoint;
use crate::fsck::damage::Damage;
use crate::fsck::judge::State;
use crate::fsck::resume::ResumePoint;

/// Damaged objects that a report names; more are counted only.
pub const MAX_DAMAGE: usize = 100;

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a>(pub(crate) &'a State);

impl Progress<'_> {
    /// Entries checked so far.
    pub fn n_entries(&self) -> u64 {
        self.0.edge.size()
    }

    /// Entries in the log.
    pub fn tree_size(&self) -> u64 {
        self.0.checkpoint.tree_size()
    }

    /// Bytes checked so far.
    pub fn n_bytes(&self) -> u64 {
        self.0.tally.n_bytes
    }

    /// Damaged objects found so far.
    pub fn n_damaged(&self) -> u64 {
        self.0.tally.n_damaged
    }

    /// Where a later check can go on: not behind damage that is known by now. A bundle and its tile that were replaced
    /// together are noticed at the tile above only; a check refuses to go on behind those.
    pub fn resume_point(&self) -> ResumePoint {
        self.0.resume_point()
    }
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) n_tiles: u64,
    pub(crate) n_bundles: u64,
    pub(crate) n_bytes: u64,
    pub(crate) damage: Vec<Damage>,
    pub(crate) n_damaged: u64,
}

impl Tally {
    pub(crate) fn tile(&mut self, bytes: &[u8]) {
        self.add_counts(1, 0, bytes.len() as u64);
    }

    pub(crate) fn bundle(&mut self, bytes: &[u8]) {
        self.add_counts(0, 1, bytes.len() as u64);
    }

    pub(crate) fn damage(&mut self, damage: Damage) {
        self.n_damaged = self.n_damaged.saturating_add(1);
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(damage);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.add_counts(other.n_tiles, other.n_bundles, other.n_bytes);
        self.n_damaged = self.n_damaged.saturating_add(other.n_damaged);
        self.damage.extend(other.damage);
        self.damage.truncate(MAX_DAMAGE);
    }

    // A resume point can begin with any counts.
    fn add_counts(&mut self, n_tiles: u64, n_bundles: u64, n_bytes: u64) {
        self.n_tiles = self.n_tiles.saturating_add(n_tiles);
        self.n_bundles = self.n_bundles.saturating_add(n_bundles);
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsckReport {
    pub(crate) checkpoint: VerifiedCheckpoint,
    pub(crate) tally: Tally,
    pub(crate) n_beyond: u64,
    pub(crate) resume_point: ResumePoint,
}

impl FsckReport {
    /// Whether every byte of the log is what its checkpoint says.
    pub fn is_good(&self) -> bool {
        self.tally.n_damaged == 0
    }

    /// The checkpoint that the log was checked against.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Hash tiles compared, those of older checkpoints included.
    pub fn n_tiles(&self) -> u64 {
        self.tally.n_tiles
    }

    /// Entry bundles compared, those of older checkpoints included.
    pub fn n_bundles(&self) -> u64 {
        self.tally.n_bundles
    }

    /// Bytes in those tiles and bundles.
    pub fn n_bytes(&self) -> u64 {
        self.tally.n_bytes
    }

    /// Objects that were listed but lie beyond the checkpoint's tree, which says nothing about them.
    pub fn n_beyond(&self) -> u64 {
        self.n_beyond
    }

    /// The first [`MAX_DAMAGE`] damaged objects.
    pub fn damage(&self) -> &[Damage] {
        &self.tally.damage
    }

    /// All damaged objects.
    pub fn n_damaged(&self) -> u64 {
        self.tally.n_damaged
    }

    /// Where a later check can go on, which replaces every point noted on the way: before all damage, and at the start of
    /// the log if the tree does not lead to the checkpoint, or if some was noticed only in the tiles above it.
    pub fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }
}
