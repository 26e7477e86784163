//! AES-256-GCM over a sequence of chunks: nonce XOR counter, no chunk twice, no chunk skipped (SPEC §4.3, §5.2).

use std::fmt;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce, Tag};
use fanlight_protocol::chunk::TAG_LEN;

/// A chunk did not open. Deliberately one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// One key, one base nonce, and the number of the next chunk. A cipher either seals or opens, never both.
pub(crate) struct ChunkCipher {
    aead: Aes256Gcm,
    base_nonce: [u8; 12],
    next: u64,
}

impl ChunkCipher {
    pub(crate) fn new(key: &[u8; 32], base_nonce: [u8; 12]) -> Self {
        Self { aead: Aes256Gcm::new(key.into()), base_nonce, next: 0 }
    }

    /// Seals `buffer[start..]` in place and appends the tag.
    pub(crate) fn seal_tail(&mut self, buffer: &mut Vec<u8>, start: usize, aad: &[u8]) {
        let nonce = self.next_nonce();
        let tag = self
            .aead
            .encrypt_inout_detached(&nonce, aad, (&mut buffer[start..]).into())
            .expect("a chunk is far below AES-GCM's limit");
        buffer.extend_from_slice(&tag);
    }

    /// Opens `sealed` into the end of `out`; nothing is appended unless the tag is right.
    pub(crate) fn open_onto(&mut self, sealed: &[u8], out: &mut Vec<u8>, aad: &[u8]) -> Result<(), NotAuthentic> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(NotAuthentic)?;
        let nonce = self.next_nonce();
        let start = out.len();
        out.resize(start + ciphertext.len(), 0);
        let buffer = InOutBuf::new(ciphertext, &mut out[start..]).map_err(|_| NotAuthentic)?;
        let opened = self.aead.decrypt_inout_detached(&nonce, aad, buffer, &Tag::from(*tag));
        if opened.is_err() {
            out.truncate(start);
        }
        opened.map_err(|_| NotAuthentic)
    }

    /// `base_nonce XOR k` in the last 8 bytes. A counter that would return to 0 stops the process: 2^64 chunks do not
    /// happen, and a reused nonce must not.
    fn next_nonce(&mut self) -> Nonce<aes_gcm::aead::consts::U12> {
        let k = self.next;
        self.next = k.checked_add(1).expect("no sequence has 2^64 chunks");
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce[4..].iter_mut().zip(k.to_be_bytes()) {
            *byte ^= count;
        }
        nonce.into()
    }
}

impl fmt::Debug for ChunkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkCipher").field("next", &self.next).finish_non_exhaustive()
    }
}
