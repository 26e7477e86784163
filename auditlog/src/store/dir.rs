//! A log in a local directory.
//!
//! ```text
//! checkpoint  tile/…                public, the paths by which readers ask
//! private/lock                      the lock's value
//! private/key                       the private key, unless it is kept elsewhere
//! private/writer                    held with flock(2) by the one writer
//! private/staging/  private/tmp/    a round under way; files not yet in place
//! ```
//! Every write goes to a temporary file, is synced, moves into place, and the directory is synced after it. File work
//! runs on tokio's blocking threads.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::hash::sha256;
use crate::note::{Signer, VkeyError};
use crate::store::{Lock, LockToken, Locked, ObjectStore, PutNew, StoreError, Swap, TileSource};

/// The file that holds the lock's value.
const LOCK_FILE: &str = "private/lock";

/// The file whose flock the one writer holds.
const WRITER_FILE: &str = "private/writer";

/// The private key, unless it is kept elsewhere.
const KEY_FILE: &str = "private/key";

/// Bytes of the longest key file: a name of 255 bytes, and a key of 33 in base64.
const MAX_KEY_FILE_LEN: u64 = 512;

/// Where files are written before they move into place.
const TMP_DIR: &str = "private/tmp";

/// Directories remembered as durable; more are forgotten and synced once more, which costs only time.
const MAX_DURABLE_DIRS: usize = 1024;

/// A directory that holds a log. Clones share one handle.
#[derive(Clone, Debug)]
pub struct DirStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    // The writer's flock, held until the last clone is dropped; `None` for a reader, which may not write.
    writer: Option<File>,
    // One swap at a time within this process; the flock keeps out the others.
    swapping: Mutex<()>,
    next_tmp: AtomicU64,
    // Directories whose entries in their parents are known to be synced.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl DirStore {
    /// Opens a directory for reading. Every write fails.
    pub fn open_reader(root: impl Into<PathBuf>) -> Self {
        Self::new(root.into(), None)
    }

    /// Opens a directory for writing and creates it if it is missing. Only one process may hold it so.
    ///
    /// Blocks on the file system for a moment: meant for start-up.
    pub fn open_writer(root: impl Into<PathBuf>) -> Result<Self, OpenDirError> {
        let root = root.into();
        let io = |source| OpenDirError::Io { source };
        let private = root.join("private");
        fs::create_dir_all(&private).map_err(io)?;
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
        let store = Self::new(root, Some(file));
        store.inner.ensure_durable_dir(&store.inner.root.join(TMP_DIR)).map_err(io)?;
        Ok(store)
    }

    fn new(root: PathBuf, writer: Option<File>) -> Self {
        let (swapping, next_tmp, durable_dirs) = Default::default();
        Self { inner: Arc::new(Inner { root, writer, swapping, next_tmp, durable_dirs }) }
    }

    /// Reads the log's private key file, or creates it with `seed` (mode 0600) if there is none.
    ///
    /// The file is `key_file`, or `private/key` in the directory. An existing key must be named `origin`.
    pub fn signer(&self, key_file: Option<&Path>, origin: &str, seed: &[u8; 32]) -> Result<Signer, KeyFileError> {
        let path = key_file.map_or_else(|| self.inner.root.join(KEY_FILE), Path::to_owned);
        match read_key_file(&path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Ok(signer) if signer.verifier_key().name() != origin => return Err(KeyFileError::OtherOrigin { path }),
            other => return other,
        }
        let signer = Signer::new(origin, seed).map_err(|source| KeyFileError::Malformed { path: path.clone(), source })?;
        write_key_file(&path, &signer).map_err(|source| KeyFileError::Io { path, source })?;
        Ok(signer)
    }

    /// Reads the log's private key from `key_file`, or `private/key` in the directory.
    pub fn existing_signer(&self, key_file: Option<&Path>) -> Result<Signer, KeyFileError> {
        let path = key_file.map_or_else(|| self.inner.root.join(KEY_FILE), Path::to_owned);
        read_key_file(&path)
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

/// Why a private key file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file system refused.
    #[error("cannot use the key file {}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file holds no private key, or the origin is no name for one.
    #[error("bad key for {}", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: VkeyError,
    },
    /// The key belongs to a log of another origin.
    #[error("the key file {} is of another origin", path.display())]
    OtherOrigin {
        /// The key file.
        path: PathBuf,
    },
}

fn read_key_file(path: &Path) -> Result<Signer, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    File::open(path).map_err(io)?.take(MAX_KEY_FILE_LEN).read_to_string(&mut text).map_err(io)?;
    Signer::parse_private_key(text.trim_end()).map_err(|source| KeyFileError::Malformed { path: path.to_owned(), source })
}

/// Writes a key under a temporary name and links it into place, so that no crash leaves half a key.
fn write_key_file(path: &Path, signer: &Signer) -> io::Result<()> {
    let tmp = path.with_extension("new");
    match fs::remove_file(&tmp) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&tmp)?;
    writeln!(file, "{}", *signer.write_private_key())?;
    file.sync_all()?;
    fs::hard_link(&tmp, path)?;
    fs::remove_file(&tmp)?;
    sync_dir(path.parent().filter(|dir| *dir != Path::new("")).unwrap_or_else(|| Path::new(".")))
}

impl TileSource for DirStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let key = key.to_owned();
        self.blocking("get", move |inner| read_file(&inner.path(&key)?)).await
    }
}

impl ObjectStore for DirStore {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<PutNew, StoreError> {
        let key = key.to_owned();
        self.blocking("put_new", move |inner| inner.write_new(&inner.path(&key)?, &bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking("put", move |inner| inner.replace(&inner.path(&key)?, &bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking("delete", move |inner| {
            inner.check_writer()?;
            match fs::remove_file(inner.path(&key)?) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
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
            let bytes = read_file(&inner.root.join(LOCK_FILE))?;
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

impl Inner {
    /// The file of a key. Keys are the log's own, but a path that could climb out of the directory is never built.
    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let plain = |segment: &str| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if key.split('/').all(plain) { Ok(self.root.join(key)) } else { Err(ErrorKind::InvalidInput.into()) }
    }

    fn check_writer(&self) -> io::Result<()> {
        self.writer.as_ref().map(|_| ()).ok_or_else(|| ErrorKind::PermissionDenied.into())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let tmp = self.write_tmp(bytes)?;
        let dir = self.durable_parent(path)?;
        fs::rename(&tmp.path, path)?;
        sync_dir(dir)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<PutNew> {
        self.check_writer()?;
        if let Some(existing) = read_file(path)? {
            return self.compare(path, &existing, bytes);
        }
        let tmp = self.write_tmp(bytes)?;
        let dir = self.durable_parent(path)?;
        // Unlike a rename, a link never replaces what is there.
        let linked = fs::hard_link(&tmp.path, path);
        drop(tmp);
        match linked {
            Ok(()) => sync_dir(dir).map(|()| PutNew::Created),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let existing = read_file(path)?.ok_or(ErrorKind::NotFound)?;
                self.compare(path, &existing, bytes)
            }
            Err(error) => Err(error),
        }
    }

    fn compare(&self, path: &Path, existing: &[u8], bytes: &[u8]) -> io::Result<PutNew> {
        if existing != bytes {
            return Ok(PutNew::ExistsDifferent);
        }
        // Whoever linked it may have died before the directory was synced; the caller relies on it from here on.
        sync_dir(self.durable_parent(path)?)?;
        Ok(PutNew::ExistsSame)
    }

    /// Writes and syncs a temporary file.
    fn write_tmp(&self, bytes: &[u8]) -> io::Result<TmpFile> {
        self.check_writer()?;
        let path = self.root.join(TMP_DIR).join(self.next_tmp.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = File::create_new(&path)?;
        let tmp = TmpFile { path };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(tmp)
    }

    fn durable_parent<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
        self.ensure_durable_dir(dir)?;
        Ok(dir)
    }

    /// Creates `dir` with its parents up to the root, and syncs each one's entry in its parent.
    fn ensure_durable_dir(&self, dir: &Path) -> io::Result<()> {
        let known = |dir: &Path| self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).contains(dir);
        if dir == self.root || known(dir) {
            return Ok(());
        }
        let parent = dir.parent().ok_or(ErrorKind::InvalidInput)?;
        self.ensure_durable_dir(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_dir(parent)?;
        let mut durable = self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= MAX_DURABLE_DIRS {
            durable.clear();
        }
        durable.insert(dir.to_owned());
        Ok(())
    }

    fn list_into(&self, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
        let dir = prefix.strip_suffix('/').ok_or(ErrorKind::InvalidInput)?;
        let entries = match fs::read_dir(self.path(dir)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| ErrorKind::InvalidData)?;
            if entry.file_type()?.is_dir() {
                self.list_into(&format!("{prefix}{name}/"), keys)?;
            } else {
                keys.push(format!("{prefix}{name}"));
            }
        }
        Ok(())
    }
}

/// A temporary file, removed on drop: a full disk must not fill up further with what did not get into place.
struct TmpFile {
    path: PathBuf,
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        // Gone already if it was renamed into place; whatever else stays behind is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// The bytes of a file; `None` when there is none.
fn read_file(path: &Path) -> io::Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        // `tile/0/000/1` below a file `tile/0/000` is as absent as below nothing.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn token_of(bytes: &[u8]) -> LockToken {
    LockToken(Bytes::copy_from_slice(&sha256(&[bytes])))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}
