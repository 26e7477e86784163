//! Where a log lives: objects under keys, and one lock that only moves by compare-and-swap.
//!
//! Public objects are the checkpoint and the tiles, under the keys by which readers ask for them. Everything under
//! [`PRIVATE_PREFIX`] is the writer's alone and no read path may serve it.
//!
//! No future here is required to be `Send`: the concrete store decides, so that one sequencer runs on threads and in
//! single-threaded hosts alike.

pub mod contract;
#[cfg(feature = "dir")]
pub mod dir;
#[cfg(feature = "dir")]
pub mod disk_index;
mod index;
#[cfg(feature = "dir")]
pub mod key_file;
mod probe;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;

use crate::tile::TilePath;

pub use index::LeafIndex;
pub use probe::ProbeError;
pub(crate) use probe::probe;

/// The key of the published checkpoint.
pub const CHECKPOINT_KEY: &str = "checkpoint";

/// The prefix of what only the writer reads.
pub const PRIVATE_PREFIX: &str = "private/";

/// The prefix of staged rounds.
pub(crate) const STAGING_PREFIX: &str = "private/staging/";

/// The read side of a log: a store, or an HTTP server in front of one.
pub trait TileSource {
    /// The object under `key`, as [`read_path`](crate::http::read_path) names it; `None` when there is none.
    ///
    /// A source that fetches from elsewhere must refuse more than
    /// [`MAX_BUNDLE_LEN`](crate::bundle::MAX_BUNDLE_LEN) bytes. What it returns needs no trust: readers check it
    /// against a signed checkpoint.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Bytes>, StoreError>>;
}

/// The bytes of a tile or bundle, and the width of the one that was found: partial ones may be gone once the full one,
/// of which each is a prefix, is there.
pub(crate) async fn get_tile(source: &impl TileSource, path: TilePath) -> Result<Option<(Bytes, u16)>, StoreError> {
    let found = source.get(&path.to_string()).await?;
    if found.is_some() || !path.is_partial() {
        return Ok(found.map(|bytes| (bytes, path.width())));
    }
    let full = path.to_full();
    Ok(source.get(&full.to_string()).await?.map(|bytes| (bytes, full.width())))
}

/// A store of objects. When a write has returned, the object survives a crash of the machine.
pub trait ObjectStore: TileSource {
    /// Writes the object unless the key is taken. Never replaces anything, whatever else happens at the same time.
    fn put_new(&self, key: &str, bytes: Bytes) -> impl Future<Output = Result<PutNew, StoreError>>;

    /// Writes or replaces the object. A reader sees the old or the new one, never a mixture.
    fn put(&self, key: &str, bytes: Bytes) -> impl Future<Output = Result<(), StoreError>>;

    /// Replaces the object only if `previous` stands there, or nothing does and `previous` is `None`; says whether it
    /// did. Of several at the same time that expect the same object, one does.
    ///
    /// What is under the key never goes back to an earlier object, so this keeps a late write from undoing another.
    fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> impl Future<Output = Result<bool, StoreError>>;

    /// Removes the object, if there is one.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), StoreError>>;

    /// The keys that start with `prefix`, which ends in a slash, in order.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<String>, StoreError>>;
}

/// The one cell that decides which checkpoint comes next, however many writers there are.
pub trait Lock {
    /// The current value and the token that swaps it; `None` before [`Lock::create`].
    fn load(&self) -> impl Future<Output = Result<Option<Locked>, StoreError>>;

    /// Sets the first value; [`PutNew`] says what was there.
    fn create(&self, bytes: Bytes) -> impl Future<Output = Result<PutNew, StoreError>>;

    /// Replaces the value that `token` came with, or nothing.
    fn swap(&self, token: &LockToken, bytes: Bytes) -> impl Future<Output = Swap>;
}

/// What [`ObjectStore::put_new`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNew {
    /// Nothing: the object is written.
    Created,
    /// Other bytes, which stay.
    ExistsDifferent,
    /// The same bytes.
    ExistsSame,
}

/// The value of a lock.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The signed checkpoint.
    pub bytes: Bytes,
    /// Names this value in [`Lock::swap`].
    pub token: LockToken,
}

/// Names one value of a lock, in the store's own terms: an `ETag` or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockToken(pub Bytes);

/// What became of a swap.
#[derive(Debug)]
pub enum Swap {
    /// The value was another one; nothing changed.
    Lost,
    /// The new value stands, under this token.
    Swapped(LockToken),
    /// The store did not say; only loading the lock tells.
    Unknown(StoreError),
}

/// A store that failed to do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct StoreError {
    operation: &'static str,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl StoreError {
    /// `operation` is a constant like `get`; `source` says what went wrong.
    pub fn new(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation, source: source.into() }
    }
}

impl<T: TileSource> TileSource for &T {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Bytes>, StoreError>> {
        (**self).get(key)
    }
}

impl<T: TileSource> TileSource for Arc<T> {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Bytes>, StoreError>> {
        (**self).get(key)
    }
}
