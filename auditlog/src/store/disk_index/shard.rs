//! One part of the index: a hash table in a file, which doubles on its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::SHARDS;
use super::page::{Found, Key, PAGE_LEN, Page, SLOTS};

/// The fullest that the first shard gets before it doubles, in percent; the last one gets twice as full. So shards, which
/// grow alike, take turns at doubling and no batch has to wait for many of them. At 86 % one page in thirty is full, and
/// what does not fit goes to the next.
const MIN_FILLED_PERCENT: u64 = 43;

/// A table of pages. A key's page follows from its place alone.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    n_pages: u64,
    n_filled: u64,
    max_filled_percent: u64,
    // Written to since it was last synced.
    dirty: bool,
}

impl Shard {
    /// Creates the table with one page.
    pub(super) fn create(path: PathBuf, number: usize) -> io::Result<Self> {
        let tmp = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&tmp)?;
        write_at(&file, Page::empty().sealed(0), 0)?;
        fs::rename(&tmp, &path)?;
        Ok(Self { path, file, n_pages: 1, n_filled: 0, max_filled_percent: max_filled_percent(number), dirty: true })
    }

    /// Opens the table, in which at least `n_filled` slots are filled.
    pub(super) fn open(path: PathBuf, number: usize, n_filled: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let len = file.metadata()?.len();
        let n_pages = len / PAGE_LEN as u64;
        if len % PAGE_LEN as u64 != 0 || n_filled > n_pages * SLOTS as u64 || n_pages == 0 {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(Self { path, file, n_pages, n_filled, max_filled_percent: max_filled_percent(number), dirty: false })
    }

    pub(super) fn n_filled(&self) -> u64 {
        self.n_filled
    }

    /// The position of each key before `indexed`; keys come in order of their places.
    pub(super) fn positions(
        &self,
        keys: impl Iterator<Item = (Key, usize)>,
        indexed: u64,
        mut found: impl FnMut(usize, u64),
    ) -> io::Result<()> {
        let mut cursor = Cursor::new(self);
        for (key, tag) in keys {
            if let Found::Key(slot) = cursor.seek(key)?
                && cursor.page.position(slot) < indexed
            {
                found(tag, cursor.page.position(slot));
            }
        }
        Ok(())
    }

    /// Adds keys in order of their places. What stands at a position from `indexed` on is left of a batch that was cut
    /// short, and is replaced.
    pub(super) fn insert(&mut self, keys: &[(Key, u64)], indexed: u64) -> io::Result<()> {
        while (self.n_filled + keys.len() as u64) * 100 > self.n_pages * SLOTS as u64 * self.max_filled_percent {
            self.grow()?;
        }
        self.dirty = true;
        let mut cursor = Cursor::new(self);
        let mut n_new = 0;
        for &(key, position) in keys {
            match cursor.seek(key)? {
                Found::Key(slot) if cursor.page.position(slot) < indexed => {}
                Found::Key(slot) => cursor.set(slot, key, position),
                Found::Free(slot) => {
                    cursor.set(slot, key, position);
                    n_new += 1;
                }
                Found::Full => return Err(ErrorKind::InvalidData.into()),
            }
        }
        cursor.write_back()?;
        self.n_filled += n_new;
        Ok(())
    }

    /// Doubles the table into a new file that then takes this one's name: a crash leaves the one or the other.
    fn grow(&mut self) -> io::Result<()> {
        let tmp = self.path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&tmp)?;
        let grown = (0..self.n_pages * 2).try_for_each(|n| write_at(&file, Page::empty().sealed(n), n));
        let max_filled_percent = self.max_filled_percent;
        let mut new = Self { path: tmp, file, n_pages: self.n_pages * 2, n_filled: 0, max_filled_percent, dirty: true };
        let copied = grown.and_then(|()| {
            let mut page = Page::empty();
            for number in 0..self.n_pages {
                page.load(number, |bytes| read_at(&self.file, bytes, number))?;
                let mut slots: Vec<_> = page.slots().collect();
                slots.sort_unstable();
                // Room is certain, so this does not grow in turn.
                new.insert(&slots, u64::MAX)?;
            }
            fs::rename(&new.path, &self.path)
        });
        if let Err(error) = copied {
            // A full disk gets its space back.
            let _ = fs::remove_file(&new.path);
            return Err(error);
        }
        new.path.clone_from(&self.path);
        *self = new;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }
}

fn max_filled_percent(number: usize) -> u64 {
    MIN_FILLED_PERCENT + MIN_FILLED_PERCENT * number as u64 / SHARDS as u64
}

/// The page that a run of keys is in.
struct Cursor<'a> {
    shard: &'a Shard,
    page: Page,
    number: Option<u64>,
    changed: bool,
}

impl<'a> Cursor<'a> {
    fn new(shard: &'a Shard) -> Self {
        Self { shard, page: Page::empty(), number: None, changed: false }
    }

    /// Goes to the key, or to where it would be put.
    fn seek(&mut self, key: Key) -> io::Result<Found> {
        let n_pages = self.shard.n_pages;
        // `place × n_pages / 2^64`, over the bits that did not choose the shard.
        let place = u128::from(key.place() << super::SHARD_BITS);
        let home = u64::try_from((place * u128::from(n_pages)) >> 64).expect("below the number of pages");
        for number in (home..n_pages).chain(0..home) {
            self.go_to(number)?;
            match self.page.find(key) {
                Found::Full => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Full)
    }

    fn go_to(&mut self, number: u64) -> io::Result<()> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.write_back()?;
        self.number = None;
        self.page.load(number, |bytes| read_at(&self.shard.file, bytes, number))?;
        self.number = Some(number);
        Ok(())
    }

    fn set(&mut self, slot: usize, key: Key, position: u64) {
        self.page.set(slot, key, position);
        self.changed = true;
    }

    /// Writes the page in one piece: a process that is killed has written all of it or nothing.
    fn write_back(&mut self) -> io::Result<()> {
        if let (Some(number), true) = (self.number, self.changed) {
            write_at(&self.shard.file, self.page.sealed(number), number)?;
        }
        self.changed = false;
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], page: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, page * PAGE_LEN as u64)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8; PAGE_LEN], page: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, page * PAGE_LEN as u64)
}

// The handle has one place in the file; whoever calls holds the index's mutex.
#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], page: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(page * PAGE_LEN as u64))?;
    io::Read::read_exact(&mut file, bytes)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8; PAGE_LEN], page: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(page * PAGE_LEN as u64))?;
    io::Write::write_all(&mut file, bytes)
}
