//! Where a log is read from: a directory, or an HTTP server. Neither is trusted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use fanlight_auditlog::bundle::MAX_BUNDLE_LEN;
use fanlight_auditlog::note::MAX_NOTE_LEN;
use fanlight_auditlog::store::{CHECKPOINT_KEY, StoreError};
use fanlight_auditlog::{DirStore, TileSource};
use reqwest::{Client, StatusCode, Url, redirect};

/// Bytes of the longest hash tile: 256 hashes of 32 bytes.
const MAX_TILE_LEN: usize = 256 * 32;

/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which at least one byte must come.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for one object, the longest of which has 16 MiB.
const OBJECT_TIMEOUT: Duration = Duration::from_mins(5);

/// Redirects that are followed for one object, all on the same host.
const MAX_REDIRECTS: usize = 5;

/// The log that the command line names.
#[derive(Debug)]
pub(crate) enum Source {
    Directory(DirStore),
    Http(HttpSource),
}

impl Source {
    /// `log` is a directory, or the URL that `/checkpoint` and `/tile/…` are appended to.
    pub(crate) fn open(log: &str) -> anyhow::Result<Self> {
        if log.starts_with("http://") || log.starts_with("https://") {
            return HttpSource::new(log).map(Self::Http);
        }
        if !Path::new(log).is_dir() {
            bail!("{log} is neither a directory nor an http(s) URL");
        }
        Ok(Self::Directory(DirStore::open_reader(log)))
    }
}

impl TileSource for Source {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Directory(store) => store.get(key).await,
            Self::Http(source) => source.get(key).await.map_err(|error| StoreError::new("get", error)),
        }
    }
}

/// A log behind HTTP.
#[derive(Debug)]
pub(crate) struct HttpSource {
    client: Client,
    // Ends in a slash.
    prefix: Url,
}

impl HttpSource {
    fn new(prefix: &str) -> anyhow::Result<Self> {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        let prefix = Url::parse(&prefix).with_context(|| format!("{prefix} is not a URL"))?;
        // An error says that the process has a provider already, which serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(OBJECT_TIMEOUT)
            .redirect(redirect::Policy::custom(follow_on_same_host))
            .user_agent(concat!("fanlight-verify/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, prefix })
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, HttpError> {
        let url = self.prefix.join(key).map_err(|_| HttpError::Key)?;
        let mut response = self.client.get(url).send().await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(HttpError::Status(status)),
        }
        let max_len = max_len(key);
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > max_len {
                return Err(HttpError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body.freeze()))
    }
}

fn max_len(key: &str) -> usize {
    match key {
        CHECKPOINT_KEY => MAX_NOTE_LEN,
        key if key.starts_with("tile/entries/") => MAX_BUNDLE_LEN,
        _ => MAX_TILE_LEN,
    }
}

/// What a server serves must be its own: a redirect elsewhere would make this machine fetch from places of its choice.
fn follow_on_same_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first();
    let same_host = first.is_some_and(|first| first.origin() == attempt.url().origin());
    if same_host && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Why an object was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the name of the object makes no URL")]
    Key,
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server sent more than such an object can have")]
    TooLong,
    #[error("the server was not reached, or broke off")]
    Transport(#[from] reqwest::Error),
}
