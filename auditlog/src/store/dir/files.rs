//! The file work of a directory store.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::store::PutNew;
use crate::store::disk_index::DiskIndex;

/// Where files are written before they move into place.
pub(super) const TMP_DIR: &str = "private/tmp";

/// How the name of a directory of partial tiles ends. It is removed with the last of them, for there is one for each full
/// tile; other directories stay.
const PARTIALS_SUFFIX: &str = ".p";

/// Directories remembered as durable; more are forgotten and synced once more, which costs only time.
const MAX_DURABLE_DIRS: usize = 1024;

/// What clones of a store share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    // `None` for a reader, which may not write.
    pub(super) writer: Option<Writer>,
    // One swap of the lock at a time within this process; the flock keeps out the others.
    pub(super) swapping: Mutex<()>,
    // One replacement or removal of an object at a time, likewise.
    pub(super) replacing: Mutex<()>,
    // Held for reading from the moment that a directory is known to be there until a file is in it, for writing while a
    // directory is removed. Taken after the two above.
    placing: RwLock<()>,
    next_tmp: AtomicU64,
    // Directories whose entries in their parents are known to be synced.
    durable_dirs: Mutex<HashSet<PathBuf>>,
    // A directory was not synced. The system reports that once and then holds what it has in memory for written.
    sync_failed: AtomicBool,
}

/// What only the one writer has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) index: DiskIndex,
    // Locked until the last clone is dropped, which is after the index is closed.
    pub(super) _flock: File,
}

impl Inner {
    pub(super) fn new(root: PathBuf, writer: Option<Writer>) -> Self {
        let (swapping, replacing, placing) = Default::default();
        let (next_tmp, durable_dirs, sync_failed) = Default::default();
        Self { root, writer, swapping, replacing, placing, next_tmp, durable_dirs, sync_failed }
    }

    /// The file of a key. Keys are the log's own, but a path that could climb out of the directory is never built.
    pub(super) fn path(&self, key: &str) -> io::Result<PathBuf> {
        let plain = |segment: &str| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if key.split('/').all(plain) { Ok(self.root.join(key)) } else { Err(ErrorKind::InvalidInput.into()) }
    }

    pub(super) fn check_writer(&self) -> io::Result<()> {
        self.writer.as_ref().map(|_| ()).ok_or_else(|| ErrorKind::PermissionDenied.into())
    }

    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let tmp = self.write_tmp(bytes)?;
        let dir = self.place(path, || fs::rename(&tmp.path, path))?;
        self.sync_dir(dir)
    }

    pub(super) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<PutNew> {
        self.check_writer()?;
        if let Some(existing) = read_file(path)? {
            return self.compare(path, &existing, bytes);
        }
        let tmp = self.write_tmp(bytes)?;
        // Unlike a rename, a link never replaces what is there.
        let linked = self.place(path, || fs::hard_link(&tmp.path, path));
        drop(tmp);
        match linked {
            Ok(dir) => self.sync_dir(dir).map(|()| PutNew::Created),
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
        if self.sync_failed.load(Ordering::Relaxed) {
            self.replace(path, bytes)?;
        } else {
            self.sync_dir(self.place(path, || Ok(()))?)?;
        }
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

    /// Puts a file at `path` into its directory, which is made durable and stays: nobody removes it in between.
    fn place<'a>(&self, path: &'a Path, put: impl FnOnce() -> io::Result<()>) -> io::Result<&'a Path> {
        let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
        let _stays = self.placing.read().unwrap_or_else(PoisonError::into_inner);
        self.ensure_durable_dir(dir)?;
        put()?;
        Ok(dir)
    }

    /// Removes a file, and the directory of partial tiles that it was the last in.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.check_writer()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        let of_partials = |dir: &&Path| dir.to_str().is_some_and(|name| name.ends_with(PARTIALS_SUFFIX));
        if let Some(dir) = path.parent().filter(of_partials) {
            let _none_is_placed = self.placing.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever places something there next has to make it anew. It stays while it has a file.
            if fs::remove_dir(dir).is_ok() {
                self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
            }
        }
        Ok(())
    }

    /// Creates `dir` with its parents up to the root, and syncs each one's entry in its parent.
    pub(super) fn ensure_durable_dir(&self, dir: &Path) -> io::Result<()> {
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
        if let Err(error) = self.sync_dir(parent) {
            // So that the next attempt writes its entry once more.
            let _ = fs::remove_dir(dir);
            return Err(error);
        }
        let mut durable = self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= MAX_DURABLE_DIRS {
            durable.clear();
        }
        durable.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir).inspect_err(|_| self.sync_failed.store(true, Ordering::Relaxed))
    }

    pub(super) fn list_into(&self, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
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

/// The bytes of a file of the writer's own; `None` when there is none.
pub(super) fn read_file(path: &Path) -> io::Result<Option<Bytes>> {
    read_at_most(path, usize::MAX)
}

/// The first `limit` bytes of a file; `None` when there is none. A directory that somebody else filled can hold a file
/// larger than the memory.
pub(super) fn read_at_most(path: &Path, limit: usize) -> io::Result<Option<Bytes>> {
    let read = || {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(limit);
        let mut bytes = Vec::with_capacity(len);
        file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes.into())),
        // `tile/0/000/1` below a file `tile/0/000` is as absent as below nothing, and a directory is no object.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Creates a directory with those above it that are missing, and syncs the entry of each in its parent.
pub(super) fn create_durable_dir(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let parent = if parent == Path::new("") { Path::new(".") } else { parent };
    if !parent.is_dir() {
        create_durable_dir(parent)?;
    }
    let created = match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !dir.is_dir() => return Err(error),
        created => created.is_ok(),
    };
    match sync_dir(parent) {
        // Whoever made it beforehand keeps what is beside it to themselves.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !created => Ok(()),
        Err(error) => {
            if created {
                // So that the next attempt writes its entry once more.
                let _ = fs::remove_dir(dir);
            }
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(unix)]
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(super) fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}
