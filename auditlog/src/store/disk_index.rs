//! An index from leaf hash to position in files of one directory.
//!
//! ```text
//! meta            what holds for all of it, and held with flock(2) by its one user
//! 1-00 … 1-3f     64 hash tables in pages, the first number being the index's generation
//! ```
//! A leaf costs 22 bytes at 43 to 86 % of use, and memory only while it is looked up: finding out that a leaf is not
//! there takes one read of a page, adding it one write more. General key-value stores were slower and larger at
//! 10 million random keys in batches of 8192, each looked up first: an LSM tree with Bloom filters came down to 50,000
//! a second with 120 MiB of memory, a B-tree to below 40,000.
//!
//! A batch counts once `meta` says so, which is written last: what stands at later positions is as good as absent. So a
//! process that is killed loses at most the batch under way. Nothing is synced before the index is closed, so after a
//! crash of the whole machine it starts anew, as it does when anything in it is damaged.

mod meta;
mod page;
mod shard;

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::BuildHasher as _;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::hash::Hash;
use crate::store::{LeafIndex, StoreError};
use meta::{Boot, META_LEN, Meta};
use page::{Key, MAX_POSITION};
use shard::Shard;

/// Tables of an index: enough that doubling one is short.
const SHARDS: usize = 1 << SHARD_BITS;

const SHARD_BITS: u32 = 6;

const META_FILE: &str = "meta";

/// An index in a directory of its own. Clones share it; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct DiskIndex {
    table: Arc<Mutex<Table>>,
}

struct Table {
    dir: PathBuf,
    // Holds the lock on the index.
    file: File,
    meta: Meta,
    // Those that have a file: the others are empty.
    shards: [Option<Shard>; SHARDS],
}

impl DiskIndex {
    /// Opens the index in `dir`, which is created if it is missing. One that is damaged is emptied. A directory of
    /// anything else is refused, and files in an index's directory that are not its own stay.
    ///
    /// Blocks on the file system for a moment: meant for start-up.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenIndexError> {
        let dir = dir.into();
        let io = |source| OpenIndexError::Io { dir: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(io)?;
        let contents = Contents::of(&dir).map_err(io)?;
        let mut options = OpenOptions::new();
        options.create(!contents.has_foreign).truncate(false).read(true).write(true);
        let file = match options.open(dir.join(META_FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(OpenIndexError::Foreign { dir }),
            file => file.map_err(io)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenIndexError::Locked { dir }),
            Err(TryLockError::Error(source)) => return Err(OpenIndexError::Io { dir, source }),
        }
        let mut bytes = Vec::new();
        (&file).take(META_LEN as u64 + 1).read_to_end(&mut bytes).map_err(io)?;

        let written = Meta::parse(&bytes);
        if written.is_none() && (contents.has_foreign || !(contents.has_tables || Meta::is_unwritten(&bytes))) {
            return Err(OpenIndexError::Foreign { dir });
        }
        let shards = std::array::from_fn(|_| None);
        // Some number that outsiders cannot know; it only keeps the tables even.
        let salt = RandomState::new().hash_one(dir.as_path());
        let mut table = Table { dir: dir.clone(), file, meta: Meta::empty(0, salt), shards };
        match written.filter(Meta::is_whole) {
            Some(meta) => table.meta = meta,
            // Whatever stands in its files must not be taken for the new index's.
            None => table.remove_stale().map_err(io)?,
        }
        table.open_shards().or_else(|_| table.clear()).map_err(io)?;
        table.remove_stale().map_err(io)?;
        // From here on it counts as written to: after a crash of the machine nothing in it is believed.
        let opened = Meta { closed: false, boot: Boot::current(), ..table.meta.clone() };
        table.write_meta(opened).and_then(|()| table.file.sync_all()).map_err(io)?;
        Ok(Self { table: Arc::new(Mutex::new(table)) })
    }

    /// Runs one batch on a blocking thread. Damage that it meets empties the index.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Table) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let table = Arc::clone(&self.table);
        let done = tokio::task::spawn_blocking(move || {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut table).inspect_err(|error| {
                if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
                    tracing::warn!(%error, dir = %table.dir.display(), "index damaged and emptied, it is built anew");
                    // If even this fails, so does the next batch, and the one after it tries again.
                    let _ = table.clear();
                }
            })
        });
        done.await.map_err(|error| StoreError::new(operation, error))?.map_err(|error| StoreError::new(operation, error))
    }
}

impl LeafIndex for DiskIndex {
    async fn indexed(&self) -> Result<u64, StoreError> {
        self.blocking("size of the index", |table| Ok(table.meta.indexed)).await
    }

    async fn positions(&self, leaves: Vec<Hash>) -> Result<Vec<Option<u64>>, StoreError> {
        self.blocking("look-up in the index", move |table| table.positions(&leaves)).await
    }

    async fn extend(&self, first: u64, leaves: Vec<Hash>) -> Result<(), StoreError> {
        self.blocking("extension of the index", move |table| table.extend(first, &leaves)).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.blocking("clearing of the index", Table::clear).await
    }
}

impl Table {
    fn positions(&self, leaves: &[Hash]) -> io::Result<Vec<Option<u64>>> {
        let mut keys: Vec<_> = leaves.iter().enumerate().map(|(n, leaf)| (Key::new(leaf, self.meta.salt), n)).collect();
        keys.sort_unstable();
        let mut positions = vec![None; leaves.len()];
        for keys in keys.chunk_by(|(a, _), (b, _)| shard_of(*a) == shard_of(*b)) {
            if let Some(shard) = &self.shards[shard_of(keys[0].0)] {
                shard.positions(keys.iter().copied(), self.meta.indexed, |n, at| positions[n] = Some(at))?;
            }
        }
        Ok(positions)
    }

    fn extend(&mut self, first: u64, leaves: &[Hash]) -> io::Result<()> {
        let next = first.checked_add(leaves.len() as u64).filter(|next| *next <= MAX_POSITION);
        let next = next.filter(|_| first == self.meta.indexed).ok_or(ErrorKind::InvalidInput)?;
        let mut keys: Vec<_> = (first..).zip(leaves).map(|(at, leaf)| (Key::new(leaf, self.meta.salt), at)).collect();
        keys.sort_unstable();
        // Of a leaf that is twice in the batch, the first position stays.
        keys.dedup_by_key(|(key, _)| *key);

        let mut meta = Meta { indexed: next, ..self.meta.clone() };
        for keys in keys.chunk_by(|(a, _), (b, _)| shard_of(*a) == shard_of(*b)) {
            let number = shard_of(keys[0].0);
            let shard = match &mut self.shards[number] {
                Some(shard) => shard,
                None => self.shards[number].insert(Shard::create(shard_path(&self.dir, &self.meta, number), number)?),
            };
            shard.insert(keys, first)?;
            meta.filled[number] = shard.n_filled();
        }
        self.write_meta(meta)
    }

    /// Empties the index: from the new `meta` on, the old files are nobody's.
    fn clear(&mut self) -> io::Result<()> {
        self.write_meta(Meta::empty(self.meta.generation.wrapping_add(1), self.meta.salt))?;
        self.shards = std::array::from_fn(|_| None);
        self.remove_stale()
    }

    fn open_shards(&mut self) -> io::Result<()> {
        for number in 0..SHARDS {
            let path = shard_path(&self.dir, &self.meta, number);
            let n_filled = self.meta.filled[number];
            self.shards[number] = match Shard::open(path, number, n_filled) {
                // A file that a batch cut short has left counts as well.
                Ok(shard) => Some(shard),
                Err(error) if error.kind() == ErrorKind::NotFound && n_filled == 0 => None,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// Removes the tables of earlier generations, and those that were about to double. Other files are not the index's.
    fn remove_stale(&self) -> io::Result<()> {
        let ours = |path: &Path| (0..SHARDS).any(|n| self.shards[n].is_some() && path == shard_path(&self.dir, &self.meta, n));
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if is_table(&entry.file_name()) && !ours(&entry.path()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn write_meta(&mut self, meta: Meta) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(&meta.write())?;
        self.meta = meta;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.shards.iter_mut().flatten().try_for_each(Shard::sync)?;
        // The names of the tables as well.
        File::open(&self.dir)?.sync_all()?;
        self.write_meta(Meta { closed: true, ..self.meta.clone() })?;
        self.file.sync_all()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, dir = %self.dir.display(), "index not closed, it may have to be built anew");
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("dir", &self.dir).field("indexed", &self.meta.indexed).finish_non_exhaustive()
    }
}

/// The table that a key is in, by the first bits of its place.
fn shard_of(key: Key) -> usize {
    usize::try_from(key.place() >> (64 - SHARD_BITS)).expect("below the number of shards")
}

fn shard_path(dir: &Path, meta: &Meta, number: usize) -> PathBuf {
    dir.join(format!("{}-{number:02x}", meta.generation))
}

/// Whether a file is called what a table is: `GENERATION-NUMBER`, with `.new` while it doubles.
fn is_table(name: &OsStr) -> bool {
    let Some((generation, number)) = name.to_str().and_then(|name| name.split_once('-')) else { return false };
    let number = number.strip_suffix(".new").unwrap_or(number);
    let (decimal, hex) = (|b: u8| b.is_ascii_digit(), |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    !generation.is_empty() && generation.bytes().all(decimal) && number.len() == 2 && number.bytes().all(hex)
}

/// What is in a directory beside `meta`.
#[derive(Clone, Copy, Debug, Default)]
struct Contents {
    has_foreign: bool,
    has_tables: bool,
}

impl Contents {
    fn of(dir: &Path) -> io::Result<Self> {
        let mut contents = Self::default();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            contents.has_tables |= is_table(&name);
            contents.has_foreign |= !is_table(&name) && name != META_FILE;
        }
        Ok(contents)
    }
}

/// Why an index was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenIndexError {
    /// The directory holds other files and no index, which would write among them.
    #[error("{} holds other files than those of an index; move them away, or name an empty directory for it", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot use the index directory {}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process, or another handle of this one, uses the index.
    #[error("another writer uses the index {}", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests;
