//! Checkpoints (C2SP tlog-checkpoint): what a log signs.
//!
//! ```text
//! origin ‖ "\n" ‖ tree size ‖ "\n" ‖ base64(root hash) ‖ "\n" ‖ extension lines
//! ```

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::decimal::parse_decimal;
use crate::hash::{EMPTY_ROOT, Hash};
use crate::note::{KeyType, MAX_NOTE_LEN, MAX_SIGNATURES, Note, NoteError, SignatureLine, Signer, VerifierKey};
use crate::proof::{ProofError, verify_consistency, verify_inclusion};

/// The text of a checkpoint; nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    tree_size: u64,
    root_hash: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines.
    pub fn new(origin: &str, tree_size: u64, root_hash: Hash) -> Self {
        Self { origin: origin.to_owned(), tree_size, root_hash, extensions: Vec::new() }
    }

    /// Parses the text of a note.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Malformed);
        };
        let tree_size = parse_decimal(size).ok_or(CheckpointError::Malformed)?;
        let root_hash = Hash::parse_base64(root).ok_or(CheckpointError::Malformed)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if origin.is_empty() || extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Malformed);
        }
        if tree_size == 0 && root_hash != EMPTY_ROOT {
            return Err(CheckpointError::EmptyTreeRoot);
        }
        Ok(Self { origin: origin.to_owned(), tree_size, root_hash, extensions })
    }

    /// The unique name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries in the log.
    pub fn tree_size(&self) -> u64 {
        self.tree_size
    }

    /// The root over all entries.
    pub fn root_hash(&self) -> Hash {
        self.root_hash
    }

    /// Lines after the root, which this version gives no meaning.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.tree_size, self.root_hash)?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A checkpoint that a trusted log signed, and its quorum of witnesses where a policy asked for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    // Verbatim, with every signature on it.
    note: String,
}

impl VerifiedCheckpoint {
    /// Verifies the log's signature on a note. The origin must be the key's name.
    ///
    /// The key is one that [is for logs](KeyType::is_for_logs). One of ML-DSA-44 does not sign extension lines, so that
    /// there must be none.
    pub fn verify(note: &[u8], log_key: &VerifierKey) -> Result<Self, CheckpointError> {
        Self::verify_note(&Note::parse(note)?, log_key)
    }

    pub(crate) fn verify_note(note: &Note, log_key: &VerifierKey) -> Result<Self, CheckpointError> {
        let signs_extensions = log_key.key_type() != KeyType::MlDsa44;
        if signs_extensions {
            note.verify(log_key)?;
        } else {
            note.verify_cosignature(log_key)?;
        }
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != log_key.name() {
            return Err(CheckpointError::OtherOrigin);
        }
        if !signs_extensions && !checkpoint.extensions.is_empty() {
            return Err(CheckpointError::UnsignedExtensions);
        }
        Ok(Self { checkpoint, note: note.to_string() })
    }

    /// The same checkpoint with these signature lines, each instead of those of the same key that it has.
    ///
    /// Nothing is checked about them. Lines under the origin are the log's own, and left out. Fails with
    /// [`NoteError::TooLong`] when the note would be longer than [`Note::parse`] takes.
    pub fn with_cosignatures(&self, lines: impl IntoIterator<Item = SignatureLine>) -> Result<Self, NoteError> {
        let mut note = Note::parse(self.note.as_bytes())?;
        lines.into_iter().filter(|line| line.name() != self.origin()).for_each(|line| note.replace_signature(line));
        let text = note.to_string();
        if text.len() > MAX_NOTE_LEN || note.signatures().len() > MAX_SIGNATURES {
            return Err(NoteError::TooLong);
        }
        Ok(Self { checkpoint: self.checkpoint.clone(), note: text })
    }

    /// The same checkpoint with the log's own signatures alone.
    #[cfg(feature = "std")]
    pub(crate) fn without_cosignatures(&self) -> Self {
        let own = format!("\u{2014} {} ", self.origin());
        let (text, signatures) = self.note.rsplit_once("\n\n").unwrap_or((&self.note, ""));
        let mut note = format!("{text}\n\n");
        signatures.split_inclusive('\n').filter(|line| line.starts_with(&own)).for_each(|line| note.push_str(line));
        Self { checkpoint: self.checkpoint.clone(), note }
    }

    /// Signs the checkpoint of a tree with all keys of the signer, whose name is the origin: the log's own side of
    /// [`Self::verify`]. A log signs no tree that does not go on from all those that it has signed.
    pub fn sign(signer: &Signer, tree_size: u64, root_hash: Hash) -> Self {
        let checkpoint = Checkpoint::new(signer.verifier_key().name(), tree_size, root_hash);
        let note = signer.sign_checkpoint(&checkpoint);
        Self { checkpoint, note }
    }

    /// The unique name of the log.
    pub fn origin(&self) -> &str {
        &self.checkpoint.origin
    }

    /// Entries in the log.
    pub fn tree_size(&self) -> u64 {
        self.checkpoint.tree_size
    }

    /// The root over all entries.
    pub fn root_hash(&self) -> Hash {
        self.checkpoint.root_hash
    }

    /// The signed text, parsed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it was signed, byte for byte.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Verifies that `leaf` is entry `index` of the log.
    pub fn verify_inclusion(&self, leaf: Hash, index: u64, path: &[Hash]) -> Result<VerifiedInclusion, ProofError> {
        verify_inclusion(leaf, index, self.tree_size(), self.root_hash(), path)?;
        Ok(VerifiedInclusion { index, leaf, checkpoint: self.clone() })
    }

    /// Verifies that this checkpoint's tree goes on from `older`'s: nothing was changed or removed in between.
    pub fn verify_consistency(&self, older: &Self, proof: &[Hash]) -> Result<(), ProofError> {
        verify_consistency(older.tree_size(), older.root_hash(), self.tree_size(), self.root_hash(), proof)
    }
}

/// An entry that is in a log, by a verified checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedInclusion {
    index: u64,
    leaf: Hash,
    checkpoint: VerifiedCheckpoint,
}

impl VerifiedInclusion {
    /// The position of the entry, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The leaf hash of the entry.
    pub fn leaf(&self) -> Hash {
        self.leaf
    }

    /// The checkpoint that includes the entry.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

/// Why a checkpoint was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Size 0 with another root than that of the empty tree.
    #[error("empty tree with a root that is not empty")]
    EmptyTreeRoot,
    /// The text is not a checkpoint.
    #[error("not a checkpoint")]
    Malformed,
    /// The note around it was refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The key signed a checkpoint of an origin that it is not named after.
    #[error("checkpoint of another origin")]
    OtherOrigin,
    /// Extension lines, which the key's signature does not cover.
    #[error("checkpoint with extension lines that the key does not sign")]
    UnsignedExtensions,
}
