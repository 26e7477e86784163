//! Signed notes (C2SP signed-note): text, keys, signatures, and the cosignatures of C2SP tlog-cosignature.
//!
//! ```text
//! note      text ‖ "\n" ‖ signature line, at least one
//! line      "— " ‖ name ‖ " " ‖ base64(key id (4) ‖ signature) ‖ "\n"
//! vkey      name ‖ "+" ‖ hex(key id) ‖ "+" ‖ base64(type (1) ‖ public key)
//! key id    SHA-256(name ‖ "\n" ‖ type ‖ public key)[..4]
//! ```

mod cosignature;
mod key;
mod line;
mod secret;
mod signer;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, str};

pub use cosignature::{CosignError, CosignerKey};
pub use key::{KeyType, VerifierKey, VkeyError};
pub use line::SignatureLine;
pub use signer::Signer;

/// Bytes of the longest note that is parsed: 100 signatures of ML-DSA-44 (2,420 bytes, 3,300 in base64) fit well.
pub const MAX_NOTE_LEN: usize = 512 * 1024;

/// Signature lines that are parsed; the specification asks for 16.
pub const MAX_SIGNATURES: usize = 100;

/// A parsed note: nothing about its signatures is checked yet. Displays as the bytes that it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Parses a note of at most [`MAX_NOTE_LEN`] bytes.
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_LEN {
            return Err(NoteError::TooLong);
        }
        let note = str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
        if !is_plain(note) {
            return Err(NoteError::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
        Ok(Self { text: format!("{text}\n"), signatures: SignatureLine::parse_all(signatures)? })
    }

    /// What is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in order.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Checks the signature of `key` over the text.
    ///
    /// Signatures of other keys are ignored; a signature under the key's name and id that does not verify refuses the
    /// whole note, even beside one that does.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let signs_text = matches!(key.key_type(), KeyType::Ed25519 | KeyType::EcdsaP256);
        let mut signed = false;
        for line in self.lines_of(key) {
            if !(signs_text && key.verifies(self.text.as_bytes(), line.body())) {
                return Err(NoteError::BadSignature);
            }
            signed = true;
        }
        if signed { Ok(()) } else { Err(NoteError::NotSigned) }
    }

    /// Adds a line instead of those of the same key.
    pub(crate) fn replace_signature(&mut self, line: SignatureLine) {
        self.signatures.retain(|other| !other.has_key_of(&line));
        self.signatures.push(line);
    }

    fn lines_of(&self, key: &VerifierKey) -> impl Iterator<Item = &SignatureLine> {
        self.signatures.iter().filter(|line| line.is_of(key))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Why a note was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// A signature of a trusted key does not verify.
    #[error("bad signature of a trusted key")]
    BadSignature,
    /// The bytes are not a signed note.
    #[error("not a signed note")]
    Malformed,
    /// No signature of the trusted key.
    #[error("not signed by the trusted key")]
    NotSigned,
    /// More than [`MAX_NOTE_LEN`] bytes or [`MAX_SIGNATURES`] signatures.
    #[error("note too long")]
    TooLong,
}

/// Whether the text holds no control character but newlines.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}
