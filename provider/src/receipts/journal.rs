//! The journal: every receipt this provider signed, in order. Its last record is the head of the chain.
//!
//! `record = length(4) ‖ receipt entry`. A record is synced before its receipt is handed out, so a torn tail can only be a
//! receipt that nobody has seen; it is cut off at the next start and its counter is free again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fanlight_protocol::Digest;
use fanlight_protocol::entry::{IdentityKey, MAX_ENTRY_LEN, Receipt, Signed};

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A record before the last is damaged or breaks the chain. Signing on would fork the chain in public.
    #[error(
        "read receipt {counter} in {path}: the journal is damaged there; restore it from a backup or enrol with a new identity"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which receipt.
        counter: u64,
    },
    /// The file cannot be read or written.
    #[error("use the receipt journal {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("lock {path}: another provider uses this data directory")]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

/// An open journal. One process at a time: it holds the file's lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are known to be whole records.
    len: u64,
    next_counter: u64,
    head: Digest,
}

impl Journal {
    /// Opens the journal of `identity` at `path`, or starts an empty one, and checks the whole chain.
    ///
    /// # Errors
    /// [`JournalError`] by variant.
    pub fn open(path: &Path, identity: &IdentityKey) -> Result<Self, JournalError> {
        let io_error = |source| JournalError::Io { path: path.to_owned(), source };
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = options.map_err(io_error)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Locked { path: path.to_owned() },
            TryLockError::Error(source) => io_error(source),
        })?;
        let mut journal = Self { path: path.to_owned(), file, len: 0, next_counter: 0, head: Digest::ZERO };
        journal.scan(identity)?;
        Ok(journal)
    }

    /// Counter of the next receipt.
    pub const fn next_counter(&self) -> u64 {
        self.next_counter
    }

    /// Entry digest of the last receipt; [`Digest::ZERO`] when there is none.
    pub const fn head(&self) -> Digest {
        self.head
    }

    /// Adds receipts that continue the chain, and returns once they are durable.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then none of them counts, and the file is as before unless even that failed.
    pub fn append(&mut self, receipts: &[&Signed<Receipt>]) -> Result<(), JournalError> {
        let mut records = Vec::new();
        for receipt in receipts {
            let len = u32::try_from(receipt.bytes().len()).expect("an entry is at most 65,535 bytes");
            records.extend_from_slice(&len.to_be_bytes());
            records.extend_from_slice(receipt.bytes());
        }
        let written = self.file.write_all(&records).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What was half written must not stand before the next record.
            let cut = self.file.set_len(self.len);
            tracing::error!(cut = cut.is_ok(), "receipts could not be stored");
            return Err(JournalError::Io { path: self.path.clone(), source });
        }
        self.len += records.len() as u64;
        if let Some(last) = receipts.last() {
            self.next_counter = last.counter + 1;
            self.head = last.digest();
        }
        Ok(())
    }

    /// The last `n` receipts, oldest first: those that a gateway may not have logged yet.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn last(&self, n: usize) -> Result<Vec<Vec<u8>>, JournalError> {
        let io_error = |source| JournalError::Io { path: self.path.clone(), source };
        // A second handle has its own position; the append handle stays where it is.
        let mut reader = BufReader::new(File::open(&self.path).map_err(io_error)?);
        let mut recent = std::collections::VecDeque::with_capacity(n);
        let mut left = self.len;
        while left > 0 {
            let Some(record) = read_record(&mut reader, left).map_err(io_error)? else { break };
            left -= 4 + record.len() as u64;
            if recent.len() == n {
                recent.pop_front();
            }
            recent.push_back(record);
        }
        Ok(recent.into())
    }

    fn scan(&mut self, identity: &IdentityKey) -> Result<(), JournalError> {
        let io_error = |source| JournalError::Io { path: self.path.clone(), source };
        let total = self.file.metadata().map_err(io_error)?.len();
        self.file.seek(SeekFrom::Start(0)).map_err(io_error)?;
        let mut reader = BufReader::new(&self.file);
        while self.len < total {
            let left = total - self.len;
            let record = read_record(&mut reader, left).map_err(io_error)?;
            let record_len = record.as_ref().map_or(left, |r| 4 + r.len() as u64);
            let receipt = record.and_then(|r| Signed::<Receipt>::verify(&r, identity).ok());
            match receipt {
                Some(receipt) if receipt.counter == self.next_counter && receipt.previous == self.head => {
                    self.len += record_len;
                    self.next_counter += 1;
                    self.head = receipt.digest();
                }
                // Only the tail may be torn: a crash came between write and sync.
                _ if record_len == left => break,
                _ => return Err(JournalError::Damaged { path: self.path.clone(), counter: self.next_counter }),
            }
        }
        drop(reader);
        if self.len < total {
            tracing::warn!(bytes = total - self.len, "cut a torn record off the receipt journal");
            self.file.set_len(self.len).and_then(|()| self.file.sync_all()).map_err(io_error)?;
        }
        Ok(())
    }
}

/// The next record, or `None` when fewer than a whole one are left.
fn read_record(reader: &mut impl Read, left: u64) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if left < 4 {
        return Ok(None);
    }
    reader.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_ENTRY_LEN || len as u64 > left - 4 {
        return Ok(None);
    }
    let mut record = vec![0; len];
    reader.read_exact(&mut record)?;
    Ok(Some(record))
}
