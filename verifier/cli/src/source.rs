//! Where a log is read from: a store, or an HTTP server in front of one. Neither is trusted.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use fanlight_auditlog::store::StoreError;
use fanlight_auditlog::{DirStore, TileSource};
use fanlight_stores::{AnyStore, Location};

use crate::http::HttpSource;

/// The log that the command line names.
#[derive(Debug)]
pub(crate) enum Source {
    /// A store that can also say what it holds.
    Store(AnyStore),
    /// A server, which answers to paths only.
    Http(HttpSource),
}

impl Source {
    /// `log` is a store, or the URL that `/checkpoint` and `/tile/…` are appended to.
    pub(crate) fn open(log: &str) -> anyhow::Result<Self> {
        if log.starts_with("http://") || log.starts_with("https://") {
            return HttpSource::new(log).map(Self::Http);
        }
        let location: Location = log.parse().with_context(|| format!("{log} is no log"))?;
        match location {
            Location::Dir(path) => Ok(Self::Store(open_dir(path)?)),
            _ => bail!("{log} is neither a directory nor an http(s) URL"),
        }
    }

    /// The store, where there is one: it can list its objects.
    pub(crate) fn store(&self) -> Option<&AnyStore> {
        match self {
            Self::Store(store) => Some(store),
            Self::Http(_) => None,
        }
    }
}

/// Opens a store to write a log into; a directory is made if there is none.
pub(crate) fn open_writer(store: &str) -> anyhow::Result<AnyStore> {
    let location: Location = store.parse().with_context(|| format!("{store} is no store"))?;
    match location {
        Location::Dir(path) => Ok(AnyStore::Dir(DirStore::open_writer(path).with_context(|| format!("{store} was not opened"))?)),
        _ => bail!("{store} is no directory"),
    }
}

fn open_dir(path: PathBuf) -> anyhow::Result<AnyStore> {
    if !Path::is_dir(&path) {
        bail!("{} is neither a directory nor an http(s) URL", path.display());
    }
    Ok(AnyStore::Dir(DirStore::open_reader(path)))
}

impl TileSource for Source {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Store(store) => store.get(key).await,
            Self::Http(source) => source.get(key).await.map_err(|error| StoreError::new("get", error)),
        }
    }
}
