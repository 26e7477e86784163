//! One type for every store, chosen at run time.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use fanlight_auditlog::store::{LockToken, Locked, PutNew, StoreError, Swap};
use fanlight_auditlog::{DirStore, Lock, ObjectStore, TileSource};

/// The name of a store, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A local directory.
    Dir(PathBuf),
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        match text.split_once("://") {
            Some((scheme, _)) => Err(LocationError::UnknownScheme { scheme: scheme.to_owned() }),
            None => Ok(Self::Dir(text.into())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => path.display().fmt(f),
        }
    }
}

/// Why a text names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// The part before `://` is none that a store has.
    #[error("no store is named {scheme}://; give a directory or s3://bucket/prefix")]
    UnknownScheme {
        /// That part.
        scheme: String,
    },
}

/// Any store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnyStore {
    /// A local directory.
    Dir(DirStore),
}

impl TileSource for AnyStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Dir(store) => store.get(key).await,
        }
    }
}

impl ObjectStore for AnyStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        match self {
            Self::Dir(store) => store.put_new(key, bytes).await,
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.put(key, bytes).await,
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self {
            Self::Dir(store) => store.delete(key).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Dir(store) => store.list(prefix).await,
        }
    }
}

impl Lock for AnyStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        match self {
            Self::Dir(store) => store.load().await,
        }
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        match self {
            Self::Dir(store) => store.create(bytes).await,
        }
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        match self {
            Self::Dir(store) => store.swap(token, bytes).await,
        }
    }
}
