//! A log in a bucket of an S3 server with conditional writes.
//!
//! ```text
//! PREFIX/checkpoint  PREFIX/tile/…    public, with the headers of the read path: the bucket alone serves readers
//! PREFIX/private/lock                 the lock's value; its ETag is the token
//! PREFIX/private/…                    the writer's own: a bucket policy must not make these public
//! ```
//! The index of entries is local, and so is the private key.
//!
//! What is retried: reads, deletions, replacements, and creations on condition that the object is new, where an object
//! found on the second attempt is compared with what was to be written. A swap of the lock is never sent twice, unless
//! the server says that it did not look at it: who sent it cannot tell from an error whether it went through.

mod client;
mod error;
mod lock;
mod objects;

use fanlight_auditlog::store::StoreError;
use fanlight_auditlog::store::disk_index::DiskIndex;
use fanlight_auditlog::{Hash, LeafIndex};

use crate::S3Location;

pub(crate) use client::{Client, endpoint_from_env};
pub use error::{Answer, S3Error, S3Problem};

/// A log in a bucket. Clones share connections.
#[derive(Clone, Debug)]
pub struct S3Store {
    location: S3Location,
    client: Client,
    // `None` for a reader.
    index: Option<DiskIndex>,
}

impl S3Store {
    pub(crate) fn new(location: S3Location, client: Client, index: Option<DiskIndex>) -> Self {
        Self { location, client, index }
    }

    fn index(&self) -> Result<&DiskIndex, StoreError> {
        self.index.as_ref().ok_or_else(|| StoreError::new("use of the index", "only a writer has one"))
    }
}

impl LeafIndex for S3Store {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.index()?.indexed().await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.index()?.positions(leaves).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.index()?.extend(first, leaves).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.index()?.clear().await
    }
}
