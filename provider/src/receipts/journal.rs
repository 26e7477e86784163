//! The journal: every receipt this provider signed, in order. Its last record is the head of the chain.
//!
//! `record = length(4) ‖ receipt entry`. A record is synced before its receipt is handed out, so a torn tail (the file ends
//! inside a record) can only be a receipt that nobody has seen; it is cut off at the next start and its counter is free
//! again. A whole record that is not good may be one that was handed out, so nothing is ever signed after it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fanlight_protocol::Digest;
use fanlight_protocol::entry::{IdentityKey, Receipt, Signed};

/// Longest receipt entry in bytes. Its fields have fixed sizes but for two integers, so an entry has 246 to 258 bytes. Two
/// whole records are longer than one of this length: a length that is damaged never makes them look like a torn one.
const MAX_RECEIPT_LEN: usize = 320;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A whole record is damaged, breaks the chain or is another identity's. Signing on would fork the chain in public.
    #[error(
        "read receipt {counter} in {path}: it is damaged or another identity's; restore it and identity.key from one backup, \
         or remove both to enrol anew"
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
    /// Whether bytes may stand behind `len` that could not be cut off.
    torn: bool,
    recent: VecDeque<Vec<u8>>,
}

/// Receipts that are sent again on a new link. More than a gateway can have lost: it logs within seconds.
pub const RECENT: usize = 256;

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
        let recent = VecDeque::with_capacity(RECENT);
        let mut journal = Self { path: path.to_owned(), file, len: 0, next_counter: 0, head: Digest::ZERO, torn: false, recent };
        journal.scan(identity)?;
        // A new file that its directory forgets would let the chain begin again, after receipts have left.
        sync_parent(path).map_err(io_error)?;
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
        let io_error = |source| JournalError::Io { path: self.path.clone(), source };
        // What was half written must not stand before the next record.
        if self.torn {
            self.file.set_len(self.len).map_err(io_error)?;
            self.torn = false;
        }
        let mut records = Vec::new();
        for receipt in receipts {
            let len = u32::try_from(receipt.bytes().len()).expect("an entry is at most 65,535 bytes");
            records.extend_from_slice(&len.to_be_bytes());
            records.extend_from_slice(receipt.bytes());
        }
        let written = self.file.write_all(&records).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.torn = self.file.set_len(self.len).is_err();
            tracing::error!(cut = !self.torn, "receipts could not be stored");
            return Err(io_error(source));
        }
        self.len += records.len() as u64;
        for receipt in receipts {
            self.remember(receipt.bytes().to_vec());
        }
        if let Some(last) = receipts.last() {
            self.next_counter = last.counter + 1;
            self.head = last.digest();
        }
        Ok(())
    }

    /// The last receipts, oldest first, at most [`RECENT`]: those that a gateway may not have logged yet.
    pub fn recent(&self) -> impl Iterator<Item = &[u8]> {
        self.recent.iter().map(Vec::as_slice)
    }

    fn remember(&mut self, receipt: Vec<u8>) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(receipt);
    }

    fn scan(&mut self, identity: &IdentityKey) -> Result<(), JournalError> {
        let path = self.path.clone();
        let io_error = |source| JournalError::Io { path: path.clone(), source };
        let total = self.file.metadata().map_err(io_error)?.len();
        self.file.seek(SeekFrom::Start(0)).map_err(io_error)?;
        let mut reader = BufReader::new(self.file.try_clone().map_err(io_error)?);
        while self.len < total {
            let left = total - self.len;
            let counter = self.next_counter;
            let damaged = || JournalError::Damaged { path: path.clone(), counter };
            let record = match read_record(&mut reader, left).map_err(io_error)? {
                Record::Whole(record) => record,
                // Only the tail may be torn: a crash came between write and sync.
                Record::Torn => break,
                Record::TooLong => return Err(damaged()),
            };
            let receipt = Signed::<Receipt>::verify(&record, identity).map_err(|_| damaged())?;
            if receipt.counter != self.next_counter || receipt.previous != self.head {
                return Err(damaged());
            }
            self.len += 4 + record.len() as u64;
            self.next_counter += 1;
            self.head = receipt.digest();
            self.remember(record);
        }
        if self.len < total {
            tracing::warn!(bytes = total - self.len, "cut a torn record off the receipt journal");
            self.file.set_len(self.len).and_then(|()| self.file.sync_all()).map_err(io_error)?;
        }
        Ok(())
    }
}

/// Makes the name of a new file durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

enum Record {
    Whole(Vec<u8>),
    /// Fewer bytes are left than it says.
    Torn,
    /// It says more than any receipt has.
    TooLong,
}

fn read_record(reader: &mut impl Read, left: u64) -> io::Result<Record> {
    let mut len = [0; 4];
    if left < 4 {
        return Ok(Record::Torn);
    }
    reader.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_RECEIPT_LEN {
        return Ok(Record::TooLong);
    }
    if len as u64 > left - 4 {
        return Ok(Record::Torn);
    }
    let mut record = vec![0; len];
    reader.read_exact(&mut record)?;
    Ok(Record::Whole(record))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use fanlight_protocol::UnixTime;

    use super::*;
    use crate::enclave::{Enclave, SimulatedEnclave};

    #[test]
    fn a_failed_write_uses_up_no_counter_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let enclave = SimulatedEnclave::open(&dir.path().join("identity.key")).unwrap();
        let next = |journal: &Journal| {
            let receipt = Receipt {
                statement_digest: Digest::ZERO,
                counter: journal.next_counter(),
                previous: journal.head(),
                time: UnixTime::from_secs(0),
                commitment: Digest::ZERO,
            };
            Signed::sign(&receipt, enclave.identity(), |message| enclave.sign(message)).unwrap()
        };
        let mut journal = Journal::open(&path, enclave.identity()).unwrap();
        journal.append(&[&next(&journal)]).unwrap();
        let before = journal.head();

        // A device that takes nothing and cannot be cut, in the middle of the journal's life.
        let disk = std::mem::replace(&mut journal.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        for _ in 0..2 {
            assert!(matches!(journal.append(&[&next(&journal)]), Err(JournalError::Io { .. })));
            assert_eq!((journal.next_counter(), journal.head()), (1, before));
        }
        // What it half wrote is still there when the disk is good again.
        journal.file = disk;
        journal.file.write_all(b"half a record").unwrap();
        journal.append(&[&next(&journal)]).unwrap();
        let head = journal.head();
        drop(journal);
        let journal = Journal::open(&path, enclave.identity()).unwrap();
        assert_eq!((journal.next_counter(), journal.head()), (2, head));
    }
}
