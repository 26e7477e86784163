//! One signature line of a note.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::{VerifierKey, check_name};
use super::{MAX_SIGNATURES, NoteError};

/// A signature line, about which nothing is checked but its form: `"— " ‖ name ‖ " " ‖ base64(key id (4) ‖ body)`.
///
/// Displays as the line without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    key_id: u32,
    body: Vec<u8>,
}

impl SignatureLine {
    /// A line that `key` made.
    pub(super) fn new(key: &VerifierKey, body: Vec<u8>) -> Self {
        Self { name: key.name().to_owned(), key_id: key.id(), body }
    }

    /// Parses a line without its newline.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let (name, body) = line.strip_prefix("— ").and_then(|line| line.split_once(' ')).ok_or(NoteError::Malformed)?;
        check_name(name).map_err(|_| NoteError::Malformed)?;
        let body = STANDARD.decode(body).map_err(|_| NoteError::Malformed)?;
        let (id, body) = body.split_first_chunk().filter(|(_, body)| !body.is_empty()).ok_or(NoteError::Malformed)?;
        Ok(Self { name: name.to_owned(), key_id: u32::from_be_bytes(*id), body: body.to_vec() })
    }

    /// Parses lines that each end with a newline: at least one, at most [`MAX_SIGNATURES`].
    pub(crate) fn parse_all(lines: &str) -> Result<Vec<Self>, NoteError> {
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::TooLong);
        }
        lines.split('\n').map(Self::parse).collect()
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key, which with the name says which key it is.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// What the key made: the signature, for a cosignature with its time before it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the line claims to be of `key`.
    pub fn is_of(&self, key: &VerifierKey) -> bool {
        self.name == key.name() && self.key_id == key.id()
    }

    /// Whether both lines claim to be of one key.
    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.name == other.name && self.key_id == other.key_id
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = [self.key_id.to_be_bytes().as_slice(), &self.body].concat();
        write!(f, "— {} {}", self.name, STANDARD.encode(body))
    }
}
