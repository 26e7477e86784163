//! Tiles and their paths (C2SP tlog-tiles).
//!
//! ```text
//! tile/<L>/<N>[.p/<W>]          256 (or W) hashes of level L
//! tile/entries/<N>[.p/<W>]      256 (or W) entries
//! ```
//! Hash `i` of tile `n` at level `l` is the root over the leaves `(n·256 + i)·256^l .. (n·256 + i + 1)·256^l`. `<N>` is
//! written in groups of three digits, all but the last prefixed with `x`: 1234067 is `x001/x234/067`.

use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::decimal::parse_decimal;
use crate::hash::Hash;

/// Hashes in a full tile and entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Bytes in a full hash tile: 256 · 32.
pub const MAX_TILE_LEN: usize = TILE_WIDTH as usize * Hash::LEN;

/// Levels a tree of 2^64 leaves has: 64 bits of index, 8 for each level.
pub(crate) const MAX_LEVELS: u8 = 8;

/// The highest level that C2SP tlog-tiles lets a path name.
const MAX_PATH_LEVEL: u8 = 63;

/// Levels of `log2(256)` bits: the shift from a leaf index to an index at `level`.
const BITS_PER_LEVEL: u32 = 8;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileContent {
    /// Hashes of this level; level 0 is the leaves.
    Hashes(u8),
    /// The entries themselves, a bundle.
    Entries,
}

/// Which tile, and how much of it: at most [`TILE_WIDTH`] wide, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    content: TileContent,
    index: u64,
    width: u16,
}

impl TilePath {
    /// Tile `index` of `level` with `width` hashes.
    ///
    /// `None` when no tree has such a tile: `width` outside `1..=256`, or `level` over 63.
    pub fn hashes(level: u8, index: u64, width: u16) -> Option<Self> {
        Self::new(TileContent::Hashes(level), index, width)
    }

    /// Bundle `index` with `width` entries; `None` when `width` is outside `1..=256`.
    pub fn entries(index: u64, width: u16) -> Option<Self> {
        Self::new(TileContent::Entries, index, width)
    }

    fn new(content: TileContent, index: u64, width: u16) -> Option<Self> {
        let level_exists = !matches!(content, TileContent::Hashes(level) if level > MAX_PATH_LEVEL);
        (level_exists && (1..=TILE_WIDTH).contains(&width)).then_some(Self { content, index, width })
    }

    /// Parses exactly what [`fmt::Display`] writes, without a leading slash.
    pub fn parse(path: &str) -> Result<Self, TilePathError> {
        // `tile/entries/` + 7 groups `xNNN/` of a 64-bit index + `.p/255` stay well below.
        const MAX_PATH_LEN: usize = 64;
        if path.len() > MAX_PATH_LEN {
            return Err(TilePathError::Malformed);
        }
        let rest = path.strip_prefix("tile/").ok_or(TilePathError::Malformed)?;
        let (content, rest) = rest.split_once('/').ok_or(TilePathError::Malformed)?;
        let content = match content {
            "entries" => TileContent::Entries,
            level => TileContent::Hashes(parse_decimal(level).ok_or(TilePathError::Malformed)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, parse_decimal(width).ok_or(TilePathError::Malformed)?),
            None => (rest, TILE_WIDTH),
        };
        let index = index.split('/').try_fold(0u64, |index, group| {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err(TilePathError::Malformed);
            }
            let group: u64 = digits.parse().map_err(|_| TilePathError::Malformed)?;
            index.checked_mul(1000).and_then(|index| index.checked_add(group)).ok_or(TilePathError::OutOfRange)
        })?;
        let parsed = Self::new(content, index, width).ok_or(TilePathError::OutOfRange)?;
        // One tile has one path: this refuses missing and misplaced `x`, leading zero groups and `.p/256`.
        if parsed.to_string() != path {
            return Err(TilePathError::NotCanonical);
        }
        Ok(parsed)
    }

    /// What the tile holds.
    pub fn content(&self) -> TileContent {
        self.content
    }

    /// The position of the tile in its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in the tile, `1..=256`.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether fewer than 256 are in it.
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The full tile of which this one is a prefix.
    #[must_use]
    pub fn to_full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            TileContent::Hashes(level) => write!(f, "tile/{level}/")?,
            TileContent::Entries => f.write_str("tile/entries/")?,
        }
        let (last, mut rest) = (self.index % 1000, self.index / 1000);
        let mut groups = Vec::new();
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        groups.iter().rev().try_for_each(|group| write!(f, "x{group:03}/"))?;
        write!(f, "{last:03}")?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Why a tile path was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TilePathError {
    /// The path is not of the shape of a tile path.
    #[error("not a tile path")]
    Malformed,
    /// The path names the tile otherwise than C2SP tlog-tiles does.
    #[error("not the canonical path of the tile")]
    NotCanonical,
    /// The level, index or width belongs to no tree.
    #[error("tile outside of every tree")]
    OutOfRange,
}

/// Hashes that a tree of `tree_size` leaves has at `level`: its perfect subtrees of 256^level leaves.
pub(crate) fn n_full_nodes(tree_size: u64, level: u8) -> u64 {
    tree_size.checked_shr(BITS_PER_LEVEL.saturating_mul(u32::from(level))).unwrap_or(0)
}

/// Full tiles that a tree of `tree_size` leaves has at `level`.
pub(crate) fn n_full_tiles(tree_size: u64, level: u8) -> u64 {
    n_full_nodes(tree_size, level.saturating_add(1))
}

/// The tile that holds node `index` of a level, and its position there.
pub(crate) fn in_tile(index: u64) -> (u64, u8) {
    let [.., position] = index.to_be_bytes();
    (index >> BITS_PER_LEVEL, position)
}

/// Hashes in the partial tile that a tree of `tree_size` leaves has at `level`; 0 when there is none.
pub(crate) fn partial_width(tree_size: u64, level: u8) -> u16 {
    let (_, width) = in_tile(n_full_nodes(tree_size, level));
    width.into()
}

/// The partial tile of `level` on the right edge of a tree of `tree_size` leaves, if there is one.
pub(crate) fn partial_tile(tree_size: u64, level: u8) -> Option<TilePath> {
    TilePath::hashes(level, n_full_tiles(tree_size, level), partial_width(tree_size, level))
}

/// The bundle that holds entry `index` of a tree of `tree_size` leaves, as wide as that tree has it; `None` outside.
pub fn bundle_of(tree_size: u64, index: u64) -> Option<TilePath> {
    if index >= tree_size {
        return None;
    }
    let (bundle, _) = in_tile(index);
    let width = if bundle < n_full_tiles(tree_size, 0) { TILE_WIDTH } else { partial_width(tree_size, 0) };
    TilePath::entries(bundle, width)
}

/// The hashes of a tile, one after the other, as they are stored.
pub fn write_hashes(hashes: &[Hash]) -> Bytes {
    hashes.iter().flat_map(|hash| hash.as_bytes().iter().copied()).collect()
}

/// The first `width` hashes of a stored tile, which may be a wider one; `None` when it is shorter or ragged.
pub fn parse_hashes(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<{ Hash::LEN }>();
    if !rest.is_empty() || bytes.len() > MAX_TILE_LEN {
        return None;
    }
    let hashes = hashes.get(..usize::from(width))?;
    Some(hashes.iter().map(|bytes| Hash::new(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_spec() {
        let cases = [
            (TilePath::hashes(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (TilePath::hashes(63, 0, 1), "tile/63/000.p/1"),
            (TilePath::entries(273, 112), "tile/entries/273.p/112"),
            (TilePath::hashes(1, u64::MAX, 256), "tile/1/x018/x446/x744/x073/x709/x551/615"),
        ];
        for (path, text) in cases {
            let path = path.unwrap();
            assert_eq!(path.to_string(), text);
            assert_eq!(TilePath::parse(text), Ok(path));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/00/000",
            "tile/+1/000",
            "tile/64/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "/tile/0/000",
            "tile/0/000/",
            "tile/data/000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/000.p/1.p/1",
        ] {
            assert!(TilePath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn geometry_of_70_000_leaves() {
        let partials: Vec<_> = (0..MAX_LEVELS).filter_map(|level| partial_tile(70_000, level)).collect();
        let texts: Vec<_> = partials.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        assert_eq!((n_full_tiles(70_000, 0), n_full_tiles(70_000, 1), n_full_tiles(70_000, 2)), (273, 1, 0));
        assert_eq!(n_full_tiles(u64::MAX, 7), 0);
    }
}
