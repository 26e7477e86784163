//! The read path over HTTP: which objects are public, and with which headers (C2SP tlog-tiles).

use bytes::Bytes;

use crate::bundle::MAX_BUNDLE_LEN;
use crate::note::MAX_NOTE_LEN;
use crate::store::CHECKPOINT_KEY;
use crate::tile::{MAX_TILE_LEN, TileContent, TilePath};

/// Tiles and bundles never change.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A checkpoint is stale within a round.
const FRESH: &str = "no-cache";

/// A public object of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPath {
    /// The key in the store, and the path at a tile source.
    pub key: String,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Cache-Control` of an answer with the object. An answer without it must not be cached, for the object may come.
    pub cache_control: &'static str,
    /// Bytes of the longest one. Whoever reads from somebody else's log reads no more than one byte beyond.
    pub max_len: usize,
}

/// The object that a request path names: the checkpoint, or a tile by its canonical path.
///
/// `None` for everything else, so that a store's private objects stay private. `path` is relative to the log's prefix;
/// a leading slash is fine. Answers are for everyone: `Access-Control-Allow-Origin: *`.
pub fn read_path(path: &str) -> Option<ReadPath> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path == CHECKPOINT_KEY {
        let content_type = "text/plain; charset=utf-8";
        return Some(ReadPath { key: path.to_owned(), content_type, cache_control: FRESH, max_len: MAX_NOTE_LEN });
    }
    let tile = TilePath::parse(path).ok()?;
    let max_len = match tile.content() {
        TileContent::Entries => MAX_BUNDLE_LEN,
        TileContent::Hashes(_) => MAX_TILE_LEN,
    };
    let content_type = "application/octet-stream";
    Some(ReadPath { key: tile.to_string(), content_type, cache_control: IMMUTABLE, max_len })
}

/// The same bytes, which drop `kept` once nothing refers to any of them: a share of the memory that they may take.
pub fn bytes_with<T: Send + 'static>(bytes: Bytes, kept: T) -> Bytes {
    Bytes::from_owner(BytesWith { bytes, _kept: kept })
}

struct BytesWith<T> {
    bytes: Bytes,
    _kept: T,
}

impl<T> AsRef<[u8]> for BytesWith<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_objects() {
        assert_eq!(read_path("/checkpoint").unwrap().cache_control, "no-cache");
        assert_eq!(read_path("tile/0/x001/000.p/3").unwrap().key, "tile/0/x001/000.p/3");
        for private in ["private/key", "/private/lock", "tile/../private/key", "//checkpoint", "checkpoint/", "", "tile/0"] {
            assert_eq!(read_path(private), None, "{private}");
        }
    }
}
