//! Why a witness does not cosign.

use fanlight_auditlog::checkpoint::CheckpointError;
use fanlight_auditlog::note::{CosignError, NoteError};
use fanlight_auditlog::proof::ProofError;
use fanlight_auditlog::witness::AddCheckpointError;

/// Why a checkpoint is not cosigned, in the order in which the specification checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are not a request.
    #[error("not an add-checkpoint request")]
    Malformed(#[source] AddCheckpointError),
    /// What follows the proof is not a signed note.
    #[error("not a signed note after the proof")]
    MalformedNote(#[source] NoteError),
    /// No log of this origin is known.
    #[error("unknown log")]
    UnknownLog,
    /// A signature of a key of the log does not verify, even if another one does.
    #[error("bad signature of the log")]
    BadSignature,
    /// No key of the log signed.
    #[error("not signed by the log")]
    NotSigned,
    /// What the log signed is not a checkpoint.
    #[error("not a checkpoint after the proof")]
    MalformedCheckpoint(#[source] CheckpointError),
    /// The proof would go from a larger tree to a smaller one.
    #[error("old size above the checkpoint's")]
    OldSizeAboveTreeSize,
    /// The proof does not start where the witness is.
    #[error("old size is not the recorded one")]
    OtherOldSize {
        /// The size from which it must start.
        recorded: u64,
    },
    /// Size 0 with another root than that of the empty tree.
    #[error("empty tree with a root that is not empty")]
    EmptyTreeRoot,
    /// The log signed two trees of one size. No mistake of a third party can look like this.
    #[error("the log signed another tree of the recorded size")]
    Fork,
    /// The tree is not shown to go on from the recorded one.
    #[error("consistency proof does not hold")]
    Inconsistent(#[source] ProofError),
    /// With the cosignatures the note would be longer than notes may be.
    #[error("no room for cosignatures on the note")]
    TooLong,
    /// The witness's clock shows a time at which it cannot have signed: it was set back, never set, or far ahead at the last
    /// cosignature. Keys that signed for a later time state that nothing was cosigned until then, and cannot take it back.
    #[error(
        "the clock of the witness is {behind} seconds behind its own last cosignature; set the clock right, or, if it was \
         ahead then, wait until it gets there or make a witness with new keys in another directory"
    )]
    Clock {
        /// By how many seconds.
        behind: u64,
    },
    /// The checkpoint is good, and a key of the witness cannot express that.
    #[error("the witness cannot cosign this checkpoint")]
    NotCosignable(#[source] CosignError),
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_)
            | Self::MalformedNote(_)
            | Self::MalformedCheckpoint(_)
            | Self::OldSizeAboveTreeSize
            | Self::TooLong => 400,
            Self::BadSignature | Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::OtherOldSize { .. } => 409,
            Self::EmptyTreeRoot | Self::Fork | Self::Inconsistent(_) => 422,
            Self::Clock { .. } | Self::NotCosignable(_) => 503,
        }
    }
}
