//! One page of a shard.
//!
//! ```text
//! 186 × slot (22)  ‖  checksum (4)
//! slot: key (16) ‖ position + 1 (6); all zero when free
//! ```
//! Integers are little-endian. Slots fill from the front and are never freed, so the first free one ends a search.

use std::io::{self, ErrorKind};

use crate::hash::{Hash, sha256};

/// Bytes of a page: what a file system writes in one piece.
pub(super) const PAGE_LEN: usize = 4096;

const SLOT_LEN: usize = 22;

/// Slots of a page.
pub(super) const SLOTS: usize = (PAGE_LEN - CHECKSUM_LEN) / SLOT_LEN;

const CHECKSUM_LEN: usize = 4;
const POSITION: usize = 16;

/// Positions before this one fit into a slot.
pub(super) const MAX_POSITION: u64 = (1 << 48) - 1;

/// The first 128 bits of `SHA-256(salt ‖ leaf)`. Whoever does not know the salt cannot choose entries whose keys are
/// equal, or fall into the same page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; POSITION]);

impl Key {
    pub(super) fn new(leaf: &Hash, salt: u64) -> Self {
        let sum = sha256(&[&salt.to_le_bytes(), leaf.as_bytes()]);
        Self(*sum.first_chunk().expect("a hash is 32 bytes"))
    }

    /// Where the key belongs: uniform over `u64`, and in the order of the keys.
    pub(super) fn place(self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a key is 16 bytes"))
    }
}

/// What a search in a page ended at.
pub(super) enum Found {
    /// The key, in this slot.
    Key(usize),
    /// No such key; this slot is free.
    Free(usize),
    /// No such key and no free slot: the search goes on in the next page.
    Full,
}

pub(super) struct Page(Box<[u8; PAGE_LEN]>);

impl Page {
    pub(super) fn empty() -> Self {
        Self(Box::new([0; PAGE_LEN]))
    }

    pub(super) fn find(&self, key: Key) -> Found {
        for (n, slot) in self.0.chunks_exact(SLOT_LEN).enumerate() {
            if slot[..POSITION] == key.0 {
                return Found::Key(n);
            }
            if slot[POSITION..] == [0; SLOT_LEN - POSITION] {
                return Found::Free(n);
            }
        }
        Found::Full
    }

    pub(super) fn position(&self, slot: usize) -> u64 {
        let mut word = [0; 8];
        word[..SLOT_LEN - POSITION].copy_from_slice(&self.0[slot * SLOT_LEN + POSITION..(slot + 1) * SLOT_LEN]);
        u64::from_le_bytes(word).saturating_sub(1)
    }

    pub(super) fn set(&mut self, slot: usize, key: Key, position: u64) {
        let bytes = &mut self.0[slot * SLOT_LEN..(slot + 1) * SLOT_LEN];
        bytes[..POSITION].copy_from_slice(&key.0);
        bytes[POSITION..].copy_from_slice(&(position + 1).to_le_bytes()[..SLOT_LEN - POSITION]);
    }

    /// The filled slots, each as key and position.
    pub(super) fn slots(&self) -> impl Iterator<Item = (Key, u64)> {
        let filled = self.0.chunks_exact(SLOT_LEN).take_while(|slot| slot[POSITION..] != [0; SLOT_LEN - POSITION]);
        filled.enumerate().map(|(n, slot)| (Key(*slot.first_chunk().expect("a slot begins with its key")), self.position(n)))
    }

    /// The bytes to write as page `number`.
    pub(super) fn sealed(&mut self, number: u64) -> &[u8; PAGE_LEN] {
        let sum = checksum(&self.0[..], number);
        self.0[PAGE_LEN - CHECKSUM_LEN..].copy_from_slice(&sum.to_le_bytes());
        &self.0
    }

    /// Reads page `number` over this one with `read`, and checks it.
    pub(super) fn load(&mut self, number: u64, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        read(&mut self.0[..])?;
        if self.0[PAGE_LEN - CHECKSUM_LEN..] != checksum(&self.0[..], number).to_le_bytes() {
            return Err(io::Error::new(ErrorKind::InvalidData, "a page is damaged"));
        }
        Ok(())
    }
}

/// A bijection that spreads what differs in few bits over all of them.
fn mix(mut word: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        word = (word ^ (word >> 33)).wrapping_mul(factor);
    }
    word ^ (word >> 33)
}

/// Notices damage, not malice: nothing that the index says is believed unchecked. Never that of a page of zeros.
fn checksum(page: &[u8], number: u64) -> u32 {
    let (words, _) = page[..PAGE_LEN - 8].as_chunks::<8>();
    // Four lanes, since each step waits for the one before it.
    let mut lanes = [number ^ 0x9e37_79b9_7f4a_7c15, 1, 2, 3];
    for words in words.chunks(4) {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
        }
    }
    let last = u32::from_le_bytes(page[PAGE_LEN - 8..PAGE_LEN - CHECKSUM_LEN].try_into().expect("four bytes"));
    let sum = lanes.into_iter().fold(u64::from(last), |sum, lane| mix(sum ^ lane));
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the checksum")]
    let sum = sum as u32;
    sum | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_page_is_noticed() {
        let mut page = Page::empty();
        for n in 0..SLOTS as u64 {
            let leaf = crate::hash::leaf_hash(&n.to_be_bytes());
            let Found::Free(slot) = page.find(Key::new(&leaf, 7)) else { panic!("there is room for {n}") };
            page.set(slot, Key::new(&leaf, 7), n);
        }
        assert!(matches!(page.find(Key::new(&crate::hash::EMPTY_ROOT, 7)), Found::Full));
        assert_eq!(page.slots().map(|(_, position)| position).collect::<Vec<_>>(), (0..SLOTS as u64).collect::<Vec<_>>());

        let bytes = *page.sealed(3);
        let load = |bytes: &[u8; PAGE_LEN], number| {
            Page::empty().load(number, |to| {
                to.copy_from_slice(bytes);
                Ok(())
            })
        };
        load(&bytes, 3).unwrap();
        load(&bytes, 4).unwrap_err();
        load(&[0; PAGE_LEN], 0).unwrap_err();
        for at in 0..PAGE_LEN * 8 {
            let mut flipped = bytes;
            flipped[at / 8] ^= 1 << (at % 8);
            load(&flipped, 3).unwrap_err();
        }
    }
}
