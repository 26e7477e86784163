//! What holds for the whole index, in one file that is written in one piece.

use std::fs;
use std::io;

use super::SHARDS;
use crate::hash::sha256;

/// The first bytes of the file; the number is the version of all the formats here.
const MAGIC: [u8; 16] = *b"fanlight-index 1";

/// Bytes of what names a boot of the machine.
const BOOT_LEN: usize = 36;

const CHECKSUM_LEN: usize = 8;

/// Bytes of the file.
pub(super) const META_LEN: usize = 16 + 4 * 8 + BOOT_LEN + SHARDS * 8 + CHECKSUM_LEN;

/// `magic ‖ generation ‖ salt ‖ indexed ‖ whether closed ‖ filled slots of each shard ‖ boot ‖ checksum`, integers
/// little-endian in 8 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Part of the names of the files that belong to the index: another number, and it is empty.
    pub(super) generation: u64,
    /// Keeps those who choose entries from choosing where their keys go.
    pub(super) salt: u64,
    /// Leaves before this position are in the index.
    pub(super) indexed: u64,
    /// Everything was synced, and nothing written after.
    pub(super) closed: bool,
    /// When it was written.
    pub(super) boot: Boot,
    /// Filled slots of each shard, or fewer if a batch was cut short.
    pub(super) filled: [u64; SHARDS],
}

impl Meta {
    pub(super) fn empty(generation: u64, salt: u64) -> Self {
        Self { generation, salt, indexed: 0, closed: false, boot: Boot::current(), filled: [0; SHARDS] }
    }

    /// Whether what was written reached the disk, or is still in the memory of this boot.
    pub(super) fn is_whole(&self) -> bool {
        self.closed || (self.boot == Boot::current() && self.boot != Boot::UNKNOWN)
    }

    pub(super) fn write(&self) -> [u8; META_LEN] {
        let mut bytes = [0; META_LEN];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (to, after) = std::mem::take(&mut rest).split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        };
        put(&MAGIC);
        for number in [self.generation, self.salt, self.indexed, u64::from(self.closed)] {
            put(&number.to_le_bytes());
        }
        for number in self.filled {
            put(&number.to_le_bytes());
        }
        put(&self.boot.0);
        let checksum = sha256(&[&bytes[..META_LEN - CHECKSUM_LEN]]);
        bytes[META_LEN - CHECKSUM_LEN..].copy_from_slice(&checksum[..CHECKSUM_LEN]);
        bytes
    }

    /// Whether a file that is no `meta` may become one: it is new, or a crash kept its length alone, or damaged.
    pub(super) fn is_unwritten(bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| *byte == 0) || bytes.starts_with(&MAGIC)
    }

    /// `None` for anything that [`Self::write`] did not write.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(META_LEN - CHECKSUM_LEN)?;
        let content = content.strip_prefix(&MAGIC)?;
        if *checksum != sha256(&[&MAGIC, content])[..CHECKSUM_LEN] {
            return None;
        }
        let (words, boot) = content.split_at_checked((4 + SHARDS) * 8)?;
        let (words, _) = words.as_chunks::<8>();
        let (&[generation, salt, indexed, closed], filled) = words.split_first_chunk::<4>()?;
        let [generation, salt, indexed, closed] = [generation, salt, indexed, closed].map(u64::from_le_bytes);
        let filled = <[[u8; 8]; SHARDS]>::try_from(filled).ok()?.map(u64::from_le_bytes);
        let boot = Boot(boot.try_into().ok()?);
        Some(Self { generation, salt, indexed, closed: closed == 1, boot, filled })
    }
}

/// Names the time from one start of the machine to the next, over which the page cache is coherent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot([u8; BOOT_LEN]);

impl Boot {
    /// On systems that do not say, an index that was not closed starts anew.
    const UNKNOWN: Self = Self([0; BOOT_LEN]);

    pub(super) fn current() -> Self {
        let read = || -> io::Result<[u8; BOOT_LEN]> {
            let id = fs::read("/proc/sys/kernel/random/boot_id")?;
            id.trim_ascii().try_into().map_err(io::Error::other)
        };
        read().map_or(Self::UNKNOWN, Self)
    }

    #[cfg(test)]
    pub(super) fn of_another() -> Self {
        Self([b'0'; BOOT_LEN])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_noticed() {
        let meta = Meta { indexed: 77, filled: std::array::from_fn(|n| n as u64), ..Meta::empty(3, 0x1234) };
        let bytes = meta.write();
        assert_eq!(Meta::parse(&bytes), Some(meta));
        for at in 0..META_LEN {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Meta::parse(&damaged), None, "byte {at}");
            assert_eq!(Meta::parse(&bytes[..at]), None, "cut to {at}");
        }
    }
}
