//! What a witness remembers of a log.

use fanlight_auditlog::checkpoint::CheckpointError;
use fanlight_auditlog::note::{MAX_NOTE_LEN, MAX_SIGNATURES, Note, NoteError, SignatureLine};
use fanlight_auditlog::witness::write_cosignatures;
use fanlight_auditlog::{Checkpoint, Hash, VerifierKey};

use super::{Refusal, Submission};

/// The last checkpoint of a log that a witness cosigned, as a note: signed by the log and by the witness.
///
/// The witness's own cosignatures make it tell a record of its own from anything else that lies in its place. So a record
/// that was damaged can be replaced by the log's own checkpoint, if that is the last one which the witness cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    checkpoint: Checkpoint,
    // Of the cosignatures, in seconds since 1970.
    time: u64,
    note: String,
    // The lines of the witness on the note.
    cosignatures: Vec<SignatureLine>,
}

impl Record {
    /// The record of a checkpoint that was just cosigned. It is one that [`Self::parse`] takes, or none: what cannot be
    /// read again would stop the log for good.
    pub(super) fn new(
        checkpoint: Checkpoint,
        time: u64,
        submission: &Submission,
        cosignatures: Vec<SignatureLine>,
    ) -> Result<Self, Refusal> {
        let note = format!("{}{}", submission.note(), write_cosignatures(&cosignatures));
        if note.len() > MAX_NOTE_LEN || submission.signatures.len() + cosignatures.len() > MAX_SIGNATURES {
            return Err(Refusal::TooLong);
        }
        Ok(Self { checkpoint, time, note, cosignatures })
    }

    /// Parses the record of the log `origin` by the witness with these keys, one of which at least must have signed it.
    pub fn parse<'k>(bytes: &[u8], origin: &str, keys: impl IntoIterator<Item = &'k VerifierKey>) -> Result<Self, RecordError> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin() != origin {
            return Err(RecordError::OtherLog);
        }
        let (mut time, mut cosignatures) = (None, Vec::new());
        for key in keys {
            match note.verify_cosignature(key) {
                Ok(cosigned) => {
                    time = time.max(Some(cosigned));
                    cosignatures.extend(note.signatures().iter().filter(|line| line.is_of(key)).cloned());
                }
                Err(NoteError::NotSigned) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let time = time.ok_or(NoteError::NotSigned)?;
        Ok(Self { checkpoint, time, note: note.to_string(), cosignatures })
    }

    /// Entries in the tree.
    pub fn tree_size(&self) -> u64 {
        self.checkpoint.tree_size()
    }

    /// The root of the tree.
    pub fn root_hash(&self) -> Hash {
        self.checkpoint.root_hash()
    }

    /// When the witness cosigned it, in seconds since 1970.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The note, which is what those who monitor the log get to see.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The signature lines of the witness, as it answers with them.
    pub fn cosignatures(&self) -> String {
        write_cosignatures(&self.cosignatures)
    }

    pub(super) fn n_cosignatures(&self) -> usize {
        self.cosignatures.len()
    }

    /// What was signed, with its last newline.
    pub(super) fn text(&self) -> &str {
        self.note.rsplit_once("\n\n").map_or("", |(text, _)| &self.note[..=text.len()])
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The note's text is not a checkpoint.
    #[error("recorded checkpoint is not one")]
    Checkpoint(#[from] CheckpointError),
    /// Not a note, or none that the witness signed.
    #[error("recorded note is damaged")]
    Note(#[from] NoteError),
    /// It is the record of another log.
    #[error("recorded checkpoint is of another log")]
    OtherLog,
}
