//! Where a log is read from: a store, or an HTTP server in front of one. Neither is trusted.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use fanlight_auditlog::TileSource;
use fanlight_auditlog::store::StoreError;
use fanlight_stores::{AnyStore, Location, open_copy, open_reader};

use crate::http::HttpSource;

/// How the stores of the command line are reached.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Server of stores named `s3://bucket/prefix`, where it is not AWS [default: `$AWS_ENDPOINT_URL`]
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

impl StoreArgs {
    /// Opens a log to be read: a store, or the URL that `/checkpoint` and `/tile/…` are appended to.
    pub(crate) async fn open(&self, log: &str) -> anyhow::Result<Source> {
        if log.starts_with("http://") || log.starts_with("https://") {
            return HttpSource::new(log).map(Source::Http);
        }
        let location: Location = log.parse().with_context(|| format!("{log} is no log"))?;
        if let Location::Dir(dir) = &location
            && !dir.is_dir()
        {
            bail!("{log} is neither a directory, an s3:// bucket nor an http(s) URL");
        }
        let opened = Box::pin(open_reader(&location, self.endpoint_url.as_deref())).await;
        Ok(Source::Store(opened.with_context(|| format!("{log} was not opened"))?))
    }

    /// Opens a store to copy a log into; a directory is made if there is none.
    pub(crate) async fn open_copy(&self, store: &str) -> anyhow::Result<AnyStore> {
        let location: Location = store.parse().with_context(|| format!("{store} is no store"))?;
        let opened = Box::pin(open_copy(&location, self.endpoint_url.as_deref())).await;
        opened.with_context(|| format!("{store} was not opened"))
    }
}

/// The log that the command line names.
#[derive(Debug)]
pub(crate) enum Source {
    /// A store that can also say what it holds.
    Store(AnyStore),
    /// A server, which answers to paths only.
    Http(HttpSource),
}

impl Source {
    /// The store, where there is one: it can list its objects.
    pub(crate) fn store(&self) -> Option<&AnyStore> {
        match self {
            Self::Store(store) => Some(store),
            Self::Http(_) => None,
        }
    }
}

impl TileSource for Source {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Store(store) => store.get(key).await,
            Self::Http(source) => source.get(key).await.map_err(|error| StoreError::new("get", error)),
        }
    }
}
