//! A log in a local directory.
//!
//! ```text
//! checkpoint  tile/…                public, the paths by which readers ask
//! private/lock                      the lock's value
//! private/key                       the private key, unless it is kept elsewhere
//! private/writer                    held with flock(2) by the one writer
//! private/index/                    where each entry stands; a cache that may be removed
//! private/staging/  private/tmp/    a round under way; files not yet in place
//! ```
//! Every write goes to a temporary file, is synced, moves into place, and the directory is synced after it. File work
//! runs on tokio's blocking threads.

mod files;

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::hash::{Hash, sha256};
use crate::http::read_path;
use crate::store::disk_index::{DiskIndex, OpenIndexError};
use crate::store::{LeafIndex, Lock, LockToken, Locked, ObjectStore, PutNew, StoreError, Swap, TileSource};
use files::{Inner, TMP_DIR, Writer, create_durable_dir, read_at_most, read_file, set_mode};

/// The file that holds the lock's value.
const LOCK_FILE: &str = "private/lock";

/// The file whose flock the one writer holds.
const WRITER_FILE: &str = "private/writer";

/// The private key, unless it is kept elsewhere.
const KEY_FILE: &str = "private/key";

/// The directory of the index.
const INDEX_DIR: &str = "private/index";

/// A directory that holds a log. Clones share one handle.
#[derive(Clone, Debug)]
pub struct DirStore {
    inner: Arc<Inner>,
}

impl DirStore {
    /// Opens a directory for reading. Every write fails.
    pub fn open_reader(root: impl Into<PathBuf>) -> Self {
        Self::new(root.into(), None)
    }

    /// Opens a directory for writing and creates it if it is missing. Only one process may hold it so.
    ///
    /// It must be on a local file system: over a network, flock(2) may keep nobody out, and two writers fork the log.
    ///
    /// Blocks on the file system for a moment: meant for start-up.
    pub fn open_writer(root: impl Into<PathBuf>) -> Result<Self, OpenDirError> {
        let root = root.into();
        let io = |source| OpenDirError::Io { source };
        let private = root.join("private");
        create_durable_dir(&root).and_then(|()| create_durable_dir(&private)).map_err(io)?;
        set_mode(&private, 0o700).map_err(io)?;
        let path = root.join(WRITER_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenDirError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(OpenDirError::Io { source }),
        }
        // What a crash left half written; nothing else writes here while the lock is held.
        match fs::remove_dir_all(root.join(TMP_DIR)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(OpenDirError::Io { source: error }),
            _ => {}
        }
        let index = DiskIndex::open(root.join(INDEX_DIR))?;
        let store = Self::new(root, Some(Writer { index, _flock: file }));
        store.inner.ensure_durable_dir(&store.inner.root.join(TMP_DIR)).map_err(io)?;
        Ok(store)
    }

    fn new(root: PathBuf, writer: Option<Writer>) -> Self {
        Self { inner: Arc::new(Inner::new(root, writer)) }
    }

    fn index(&self) -> Result<&DiskIndex, StoreError> {
        let writer = self.inner.writer.as_ref();
        writer.map(|writer| &writer.index).ok_or_else(|| StoreError::new("use of the index", "only a writer has one"))
    }

    /// The file of the log's private key, unless it is kept elsewhere.
    pub fn key_file(&self) -> PathBuf {
        Self::key_file_in(&self.inner.root)
    }

    /// The file of the private key of a log in `root`.
    pub fn key_file_in(root: &Path) -> PathBuf {
        root.join(KEY_FILE)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Runs file work on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| StoreError::new(operation, error))?.map_err(|error| StoreError::new(operation, error))
    }
}

/// Why a directory was not opened for writing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenDirError {
    /// The index was not opened.
    #[error(transparent)]
    Index(#[from] OpenIndexError),
    /// The file system refused.
    #[error("cannot prepare the directory")]
    Io {
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process, or another handle of this one, writes to the log.
    #[error("another writer holds the lock {}", path.display())]
    Locked {
        /// The locked file.
        path: PathBuf,
    },
}

impl TileSource for DirStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let key = key.to_owned();
        // A longer object is cut one byte after the longest that it can be, so that it fails its check. What is private
        // is the writer's own.
        let limit = read_path(&key).map_or(usize::MAX, |public| public.max_len + 1);
        self.blocking("get", move |inner| read_at_most(&inner.path(&key)?, limit)).await
    }
}

impl ObjectStore for DirStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        let key = key.to_owned();
        self.blocking("put_new", move |inner| inner.write_new(&inner.path(&key)?, &bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking("put", move |inner| {
            let _one_at_a_time = inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
            inner.replace(&inner.path(&key)?, &bytes)
        })
        .await
    }

    async fn put_over(&self, key: &str, previous: Option<&Bytes>, bytes: Bytes) -> Result<bool, StoreError> {
        let (key, previous) = (key.to_owned(), previous.cloned());
        self.blocking("put_over", move |inner| {
            let path = inner.path(&key)?;
            let Some(previous) = previous else { return Ok(inner.write_new(&path, &bytes)? == PutNew::Created) };
            let _one_at_a_time = inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
            if read_file(&path)? != Some(previous) {
                return Ok(false);
            }
            inner.replace(&path, &bytes).map(|()| true)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking("delete", move |inner| {
            let _one_at_a_time = inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
            inner.remove(&inner.path(&key)?)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking("list", move |inner| {
            let mut keys = Vec::new();
            inner.list_into(&prefix, &mut keys)?;
            keys.sort();
            Ok(keys)
        })
        .await
    }
}

impl Lock for DirStore {
    async fn load(&self) -> Result<Option<Locked>, StoreError> {
        self.blocking("load of the lock", |inner| {
            let _one_at_a_time = inner.swapping.lock().unwrap_or_else(PoisonError::into_inner);
            let path = inner.root.join(LOCK_FILE);
            let bytes = read_file(&path)?;
            if let (Some(bytes), Some(_)) = (&bytes, &inner.writer) {
                // The log goes on from this value, which whoever wrote it may not have synced: not to be lost any more.
                inner.replace(&path, bytes)?;
            }
            Ok(bytes.map(|bytes| Locked { token: token_of(&bytes), bytes }))
        })
        .await
    }

    async fn create(&self, bytes: Bytes) -> Result<PutNew, StoreError> {
        self.blocking("creation of the lock", move |inner| inner.write_new(&inner.root.join(LOCK_FILE), &bytes)).await
    }

    async fn swap(&self, token: &LockToken, bytes: Bytes) -> Swap {
        let token = token.clone();
        let swapped = self.blocking("swap of the lock", move |inner| {
            let _one_at_a_time = inner.swapping.lock().unwrap_or_else(PoisonError::into_inner);
            let path = inner.root.join(LOCK_FILE);
            if read_file(&path)?.is_none_or(|current| token_of(&current) != token) {
                return Ok(None);
            }
            inner.replace(&path, &bytes)?;
            Ok(Some(token_of(&bytes)))
        });
        match swapped.await {
            Ok(Some(token)) => Swap::Swapped(token),
            Ok(None) => Swap::Lost,
            Err(error) => Swap::Unknown(error),
        }
    }
}

impl LeafIndex for DirStore {
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

fn token_of(bytes: &[u8]) -> LockToken {
    LockToken(Bytes::copy_from_slice(&sha256(&[bytes])))
}
