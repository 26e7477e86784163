//! One bundle and the tile of its leaves: fetched together, hashed on a worker.

use bytes::Bytes;
use futures_util::future;

use crate::bundle::parse_bundle;
use crate::fsck::damage::Problem;
use crate::fsck::leftovers::Leftovers;
use crate::fsck::report::Tally;
use crate::hash::{Hash, leaf_hash};
use crate::merkle;
use crate::store::{StoreError, TileSource, get_tile};
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, bundle_of, n_full_tiles, parse_hashes, partial_width};
use crate::workers::Workers;

/// A bundle with its tile, compared with each other.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The bundle as wide as the tree has it.
    pub(crate) path: TilePath,
    pub(crate) content: Content,
    pub(crate) tally: Tally,
}

/// What they hold.
#[derive(Debug)]
pub(crate) enum Content {
    /// The same leaves.
    Agreed {
        leaves: Vec<Hash>,
        /// Of a full tile.
        root: Option<Hash>,
    },
    /// Different ones, or none.
    Conflict(Box<Conflict>),
}

#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) bundle: Found,
    pub(crate) tile: Found,
}

/// An object as it was found, and the leaves that it stands for.
#[derive(Debug)]
pub(crate) struct Found {
    /// A partial one may have been replaced by the full one.
    pub(crate) path: TilePath,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) leaves: Result<Vec<Hash>, Problem>,
}

impl Piece {
    /// Fetches and compares piece `index` with everything of older checkpoints that is a part of it.
    pub(crate) async fn fetch(
        source: &impl TileSource,
        tree_size: u64,
        index: u64,
        leftovers: &Leftovers,
        workers: &impl Workers,
    ) -> Result<Self, StoreError> {
        let path = bundle_of(tree_size, index * u64::from(TILE_WIDTH)).expect("pieces end where the tree does");
        let tile_path = TilePath::hashes(0, index, path.width()).expect("as wide as the bundle");
        let (bundle, tile) = future::try_join(get_tile(source, path), get_tile(source, tile_path)).await?;
        let mut tally = Tally::default();
        if let Some((bytes, _)) = &bundle {
            tally.bundle(bytes);
        }
        if let Some((bytes, _)) = &tile {
            tally.tile(bytes);
        }
        let bundle_bytes = bundle.clone().map(|(bytes, _)| bytes);
        let content = workers.run(move || compare(path, bundle, tile_path, tile)).await;
        let mut piece = Self { path, content, tally };
        // With a conflict the leaves are not known yet.
        if let Content::Agreed { leaves, .. } = &piece.content {
            leftovers.compare(source, path, leaves, bundle_bytes.as_ref(), &mut piece.tally).await?;
            leftovers.compare(source, tile_path, leaves, None, &mut piece.tally).await?;
        }
        Ok(piece)
    }

    pub(crate) fn is_good(&self) -> bool {
        self.tally.n_damaged == 0 && matches!(self.content, Content::Agreed { .. })
    }
}

/// The work of the check: nearly all of its time is spent here.
fn compare(path: TilePath, bundle: Option<(Bytes, u16)>, tile_path: TilePath, tile: Option<(Bytes, u16)>) -> Content {
    let bundle = Found::new(path, bundle, parse_leaves);
    let tile = Found::new(tile_path, tile, parse_tile);
    match (bundle.leaves, tile.leaves) {
        (Ok(leaves), Ok(hashes)) if leaves == hashes => {
            Content::Agreed { root: (!path.is_partial()).then(|| merkle::root(&leaves)), leaves }
        }
        (leaves, hashes) => {
            let (bundle, tile) = (Found { leaves, ..bundle }, Found { leaves: hashes, ..tile });
            Content::Conflict(Box::new(Conflict { bundle, tile }))
        }
    }
}

impl Found {
    /// `found` may be wider than `path`, `parse` says what it should hold and returns it.
    pub(crate) fn new(path: TilePath, found: Option<(Bytes, u16)>, parse: fn(&Bytes, u16) -> Result<Vec<Hash>, Problem>) -> Self {
        let Some((bytes, width)) = found else { return Self { path, bytes: None, leaves: Err(Problem::Missing) } };
        let mut leaves = parse(&bytes, width);
        if let Ok(leaves) = &mut leaves {
            leaves.truncate(usize::from(path.width()));
        }
        Self { path: if width == path.width() { path } else { path.to_full() }, bytes: Some(bytes), leaves }
    }
}

/// The leaf hashes of a bundle of `width` entries.
pub(crate) fn parse_leaves(bytes: &Bytes, width: u16) -> Result<Vec<Hash>, Problem> {
    let entries = parse_bundle(bytes).map_err(Problem::Bundle)?;
    if entries.len() != usize::from(width) {
        return Err(Problem::Entries { expected: width.into(), got: entries.len() as u64 });
    }
    Ok(entries.iter().map(|entry| leaf_hash(entry)).collect())
}

/// The hashes of a tile of `width`.
pub(crate) fn parse_tile(bytes: &Bytes, width: u16) -> Result<Vec<Hash>, Problem> {
    let expected = usize::from(width) * Hash::LEN;
    let hashes = (bytes.len() == expected).then(|| parse_hashes(bytes, width)).flatten();
    hashes.ok_or(Problem::Length { expected: expected as u64, got: bytes.len() as u64 })
}

/// Where `got` differs from `expected` first.
pub(crate) fn first_difference(expected: &[Hash], got: &[Hash]) -> Option<(u64, Hash, Hash)> {
    let mut pairs = (0..).zip(expected.iter().zip(got));
    pairs.find(|(_, (expected, got))| expected != got).map(|(position, (expected, got))| (position, *expected, *got))
}

/// The tile that holds the hash of tile `index` of `level`, as wide as a tree of `tree_size` leaves has it.
pub(crate) fn tile_above(tree_size: u64, level: u8, index: u64) -> Option<TilePath> {
    let above = level.checked_add(1).filter(|above| *above < MAX_LEVELS)?;
    let tile = index / u64::from(TILE_WIDTH);
    let width = if tile < n_full_tiles(tree_size, above) { TILE_WIDTH } else { partial_width(tree_size, above) };
    TilePath::hashes(above, tile, width)
}
