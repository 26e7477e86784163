//! The bodies of `add-checkpoint` (C2SP tlog-witness).
//!
//! ```text
//! request     "old " ‖ decimal size ‖ "\n" ‖ (base64 hash ‖ "\n")* ‖ "\n" ‖ signed checkpoint
//! 200         one or more signature lines
//! 409         decimal size ‖ "\n", of the latest checkpoint that the witness cosigned
//! ```

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::{fmt, str};

use crate::decimal::parse_decimal;
use crate::hash::Hash;
use crate::note::{MAX_NOTE_LEN, NoteError, SignatureLine};

/// The method's name, which follows the submission prefix and a slash.
pub const ADD_CHECKPOINT: &str = "add-checkpoint";

/// `Content-Type` of the body that [`write_size`] writes.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Hashes in the longest consistency proof that may be sent.
pub const MAX_PROOF_LEN: usize = 63;

/// Bytes of the longest request: its note, 63 lines of 45 bytes, and the first line.
pub const MAX_ADD_CHECKPOINT_LEN: usize = MAX_NOTE_LEN + 4096;

/// Bytes of the longest answer with cosignatures: the signature lines of a note, and no more of them.
pub const MAX_COSIGNATURES_LEN: usize = MAX_NOTE_LEN;

/// A request to cosign a checkpoint. Nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: u64,
    proof: Vec<Hash>,
    note: String,
}

impl AddCheckpoint {
    /// A request with the proof that the tree of `old_size` leaves is a prefix of the signed checkpoint's.
    pub fn new(old_size: u64, proof: Vec<Hash>, note: String) -> Self {
        Self { old_size, proof, note }
    }

    /// Parses a request of at most [`MAX_ADD_CHECKPOINT_LEN`] bytes.
    pub fn parse(body: &[u8]) -> Result<Self, AddCheckpointError> {
        if body.len() > MAX_ADD_CHECKPOINT_LEN {
            return Err(AddCheckpointError::TooLong);
        }
        let body = str::from_utf8(body).map_err(|_| AddCheckpointError::Malformed)?;
        let (head, note) = body.split_once("\n\n").ok_or(AddCheckpointError::Malformed)?;
        let mut lines = head.split('\n');
        let old_size = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_decimal);
        if lines.clone().count() > MAX_PROOF_LEN {
            return Err(AddCheckpointError::TooLong);
        }
        let proof: Option<Vec<Hash>> = lines.map(Hash::parse_base64).collect();
        let (Some(old_size), Some(proof)) = (old_size, proof) else {
            return Err(AddCheckpointError::Malformed);
        };
        Ok(Self { old_size, proof, note: note.to_owned() })
    }

    /// The size of the checkpoint that the proof starts from, which must be the latest that the witness cosigned.
    pub fn old_size(&self) -> u64 {
        self.old_size
    }

    /// The consistency proof.
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// The signed checkpoint, verbatim.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.note)
    }
}

/// Parses an answer with cosignatures, of which the receiver ignores those of keys that it does not know.
pub fn parse_cosignatures(body: &[u8]) -> Result<Vec<SignatureLine>, NoteError> {
    if body.len() > MAX_COSIGNATURES_LEN {
        return Err(NoteError::TooLong);
    }
    SignatureLine::parse_all(str::from_utf8(body).map_err(|_| NoteError::Malformed)?)
}

/// What [`parse_cosignatures`] parses.
pub fn write_cosignatures(lines: &[SignatureLine]) -> String {
    lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
}

/// Parses the size in the answer of a witness that has cosigned another one than the request starts from.
pub fn parse_size(body: &[u8]) -> Option<u64> {
    str::from_utf8(body).ok()?.strip_suffix('\n').and_then(parse_decimal)
}

/// What [`parse_size`] parses.
pub fn write_size(size: u64) -> String {
    format!("{size}\n")
}

/// Why bytes are not a request to cosign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddCheckpointError {
    /// The lines are not those of a request.
    #[error("not an add-checkpoint request")]
    Malformed,
    /// More than [`MAX_ADD_CHECKPOINT_LEN`] bytes or [`MAX_PROOF_LEN`] hashes.
    #[error("add-checkpoint request too long")]
    TooLong,
}
