//! Partial objects of older checkpoints: a client that holds such a checkpoint may still ask for them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bundle::parse_bundle;
use crate::fsck::damage::{Damage, Problem};
use crate::fsck::piece::{first_difference, parse_leaves, parse_tile};
use crate::fsck::report::Tally;
use crate::hash::Hash;
use crate::store::{ObjectStore, StoreError, TileSource};
use crate::tile::{TILE_WIDTH, TileContent, TilePath};

/// The partial tiles and bundles that a store holds.
///
/// Memory: some 32 bytes for each of them. While they are listed, the keys of all tiles are in memory: some 50 MB for a
/// log of 100 million entries.
#[derive(Clone, Debug, Default)]
pub struct Leftovers {
    // Widths by tile, ascending.
    partials: BTreeMap<(TileContent, u64), Vec<u16>>,
    // Indices of the full ones.
    full: BTreeMap<TileContent, Vec<u64>>,
}

impl Leftovers {
    /// None are known: what an HTTP server has can only be asked for.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Lists a store. Keys that are no tiles are none of a log's.
    pub async fn list(store: &impl ObjectStore) -> Result<Self, StoreError> {
        let mut leftovers = Self::default();
        for key in store.list("tile/").await? {
            let Ok(path) = TilePath::parse(&key) else { continue };
            if path.is_partial() {
                leftovers.partials.entry((path.content(), path.index())).or_default().push(path.width());
            } else {
                leftovers.full.entry(path.content()).or_default().push(path.index());
            }
        }
        Ok(leftovers)
    }

    /// Objects that hold something beyond a tree of `tree_size` leaves.
    pub(crate) fn n_beyond(&self, tree_size: u64) -> u64 {
        let beyond = |content, index: u64, width: u16| {
            let level = match content {
                TileContent::Hashes(level) => level,
                TileContent::Entries => 0,
            };
            let nodes = u128::from(tree_size).checked_shr(8 * u32::from(level)).unwrap_or(0);
            u128::from(index) * u128::from(TILE_WIDTH) + u128::from(width) > nodes
        };
        let partials = self.partials.iter().flat_map(|(&(content, index), widths)| {
            widths.iter().filter(move |width| beyond(content, index, **width)).map(|_| ())
        });
        let full = self
            .full
            .iter()
            .flat_map(|(&content, indices)| indices.iter().filter(move |index| beyond(content, **index, TILE_WIDTH)).map(|_| ()));
        partials.chain(full).count() as u64
    }

    /// Compares all narrower ones of `path`, which is as wide as the tree has it, with the hashes or leaves that the
    /// tree has there, and with the bundle if there is one.
    pub(crate) async fn compare(
        &self,
        source: &impl TileSource,
        path: TilePath,
        hashes: &[Hash],
        bundle: Option<&Bytes>,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let widths = self.partials.get(&(path.content(), path.index())).map_or(&[][..], Vec::as_slice);
        for &width in widths.iter().filter(|width| **width < path.width()) {
            let partial = narrower(path, width).expect("it was parsed with this width");
            // Gone since it was listed: the full one serves in its place.
            let Some(bytes) = source.get(&partial.to_string()).await? else { continue };
            let expected = hashes.get(..usize::from(width)).unwrap_or_default();
            let problem = match path.content() {
                TileContent::Hashes(_) => {
                    tally.tile(&bytes);
                    parse_tile(&bytes, width).map(|found| difference(expected, &found))
                }
                TileContent::Entries => {
                    tally.bundle(&bytes);
                    if bundle.is_some_and(|bundle| is_beginning(bundle, &bytes, width)) {
                        continue;
                    }
                    let first = path.index() * u64::from(TILE_WIDTH);
                    parse_leaves(&bytes, width).map(|found| {
                        let (position, expected, got) = first_difference(expected, &found)?;
                        Some(Problem::Entry { index: first + position, expected, got })
                    })
                }
            };
            if let Some(problem) = problem.unwrap_or_else(Some) {
                tally.damage(Damage::new(partial, problem, Some(&bytes)));
            }
        }
        Ok(())
    }
}

fn narrower(path: TilePath, width: u16) -> Option<TilePath> {
    match path.content() {
        TileContent::Hashes(level) => TilePath::hashes(level, path.index(), width),
        TileContent::Entries => TilePath::entries(path.index(), width),
    }
}

/// What is wrong with a tile that holds `found`.
pub(crate) fn difference(expected: &[Hash], found: &[Hash]) -> Option<Problem> {
    let (position, expected, got) = first_difference(expected, found)?;
    Some(Problem::Hash { position, expected, got })
}

/// Whether `bytes` are the first `width` entries of a bundle: cheaper than to hash them once more.
fn is_beginning(bundle: &Bytes, bytes: &Bytes, width: u16) -> bool {
    let Ok(entries) = parse_bundle(bundle) else { return false };
    let len: usize = entries.iter().take(usize::from(width)).map(|entry| 2 + entry.len()).sum();
    bundle.get(..len) == Some(bytes)
}
