//! The read path over HTTP: which objects are public, and with which headers (C2SP tlog-tiles).

use crate::store::CHECKPOINT_KEY;
use crate::tile::TilePath;

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
}

/// The object that a request path names: the checkpoint, or a tile by its canonical path.
///
/// `None` for everything else, so that a store's private objects stay private. `path` is relative to the log's prefix;
/// a leading slash is fine. Answers are for everyone: `Access-Control-Allow-Origin: *`.
pub fn read_path(path: &str) -> Option<ReadPath> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path == CHECKPOINT_KEY {
        return Some(ReadPath { key: path.to_owned(), content_type: "text/plain; charset=utf-8", cache_control: FRESH });
    }
    let tile = TilePath::parse(path).ok()?;
    Some(ReadPath { key: tile.to_string(), content_type: "application/octet-stream", cache_control: IMMUTABLE })
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
