//! One type for every store, chosen at run time.

use bytes::Bytes;
use fanlight_auditlog::store::{LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{DirStore, Hash, LeafIndex, Lock, ObjectStore, TileSource};

use crate::s3::S3Store;

/// Any store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnyStore {
    /// A local directory.
    Dir(DirStore),
    /// A bucket.
    S3(S3Store),
}

impl TileSource for AnyStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Dir(store) => store.get(key).await,
            Self::S3(store) => store.get(key).await,
        }
    }
}

impl ObjectStore for AnyStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        match self {
            Self::Dir(store) => store.put_new(key, bytes).await,
            Self::S3(store) => store.put_new(key, bytes).await,
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.put(key, bytes).await,
            Self::S3(store) => store.put(key, bytes).await,
        }
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        match self {
            Self::Dir(store) => store.put_over(key, previous, bytes).await,
            Self::S3(store) => store.put_over(key, previous, bytes).await,
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.delete(key).await,
            Self::S3(store) => store.delete(key).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Dir(store) => store.list(prefix).await,
            Self::S3(store) => store.list(prefix).await,
        }
    }
}

impl Lock for AnyStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        match self {
            Self::Dir(store) => store.load().await,
            Self::S3(store) => store.load().await,
        }
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        match self {
            Self::Dir(store) => store.create(bytes).await,
            Self::S3(store) => store.create(bytes).await,
        }
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        match self {
            Self::Dir(store) => store.swap(token, bytes).await,
            Self::S3(store) => store.swap(token, bytes).await,
        }
    }
}

impl LeafIndex for AnyStore {
    async fn indexed(&self) -> Result<u64, StoreError> {
        match self {
            Self::Dir(store) => store.indexed().await,
            Self::S3(store) => store.indexed().await,
        }
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        match self {
            Self::Dir(store) => store.positions(leaves).await,
            Self::S3(store) => store.positions(leaves).await,
        }
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.extend(first, leaves).await,
            Self::S3(store) => store.extend(first, leaves).await,
        }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.clear().await,
            Self::S3(store) => store.clear().await,
        }
    }
}
