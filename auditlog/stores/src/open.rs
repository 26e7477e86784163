//! From a name to a store.

use std::env;
use std::path::{Path, PathBuf};

use fanlight_auditlog::DirStore;
use fanlight_auditlog::store::dir::OpenDirError;
use fanlight_auditlog::store::disk_index::{DiskIndex, OpenIndexError};
use sha2::{Digest as _, Sha256};

use crate::s3::{Client, S3Error, S3Store, endpoint_from_env};
use crate::{AnyStore, Location, S3Location};

/// Opens a store for reading. A public bucket needs no credentials: without any in the environment or in AWS's files,
/// requests are not signed.
///
/// `endpoint_url` is that of an S3 server other than AWS, and of no use for a directory.
pub async fn open_reader(location: &Location, endpoint_url: Option<&str>) -> Result<AnyStore, OpenError> {
    match location {
        Location::Dir(dir) if dir.is_dir() => Ok(AnyStore::Dir(DirStore::open_reader(dir))),
        Location::Dir(dir) => Err(OpenError::NoDirectory { dir: dir.clone() }),
        Location::S3(location) => {
            let client = Client::for_reading(location, endpoint_url).await?;
            Ok(AnyStore::S3(S3Store::new(location.clone(), client, None)))
        }
    }
}

/// Opens a store for writing. A directory is created if it is missing, a bucket is not. A directory must be on a local file
/// system: over a network, its lock may keep nobody out, and two writers fork the log.
///
/// The index of a log in a bucket is local: in `index`, or below the user's directory for caches. It may be removed
/// while nobody writes.
pub async fn open_writer(location: &Location, endpoint_url: Option<&str>, index: Option<&Path>) -> Result<AnyStore, OpenError> {
    match location {
        Location::Dir(dir) => Ok(AnyStore::Dir(DirStore::open_writer(dir)?)),
        Location::S3(location) => {
            let dir = match index {
                Some(dir) => dir.to_owned(),
                None => default_index(location, endpoint_url).ok_or(OpenError::NoCacheDirectory)?,
            };
            let client = Client::for_writing(location, endpoint_url).await?;
            let index = DiskIndex::open(dir)?;
            Ok(AnyStore::S3(S3Store::new(location.clone(), client, Some(index))))
        }
    }
}

/// Opens a store to copy a log into, as for writing but for the index: what is copied is not appended to.
pub async fn open_copy(location: &Location, endpoint_url: Option<&str>) -> Result<AnyStore, OpenError> {
    match location {
        Location::Dir(dir) => Ok(AnyStore::Dir(DirStore::open_writer(dir)?)),
        Location::S3(location) => {
            let client = Client::for_writing(location, endpoint_url).await?;
            Ok(AnyStore::S3(S3Store::new(location.clone(), client, None)))
        }
    }
}

/// A directory for the index of this very log, named after the bucket so that a person finds it.
fn default_index(location: &S3Location, endpoint_url: Option<&str>) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let below_home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    let endpoint = endpoint_url.map(str::to_owned).or_else(endpoint_from_env).unwrap_or_default();
    let digest = Sha256::digest(format!("{endpoint}\n{location}"));
    let digest = hex::encode(&digest[..8]);
    Some(caches.join("fanlight-log").join(format!("{}-{digest}", location.bucket())))
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is not fit for writing.
    #[error(transparent)]
    Dir(#[from] OpenDirError),
    /// The index is not fit for use.
    #[error("{source}; --index DIR chooses another directory")]
    Index {
        /// Why.
        #[from]
        source: OpenIndexError,
    },
    /// Nothing says where caches go.
    #[error("no place for the log's index: HOME is not set; --index DIR chooses one")]
    NoCacheDirectory,
    /// There is no such directory.
    #[error("{} is no directory", dir.display())]
    NoDirectory {
        /// Its name.
        dir: PathBuf,
    },
    /// The bucket was not opened.
    #[error(transparent)]
    S3(#[from] S3Error),
}
