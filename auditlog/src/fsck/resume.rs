//! Where a check can go on: what is known at the end of a full bundle.

use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::decimal::parse_decimal;
use crate::fsck::PIECE;
use crate::fsck::report::Tally;
use crate::hash::Hash;
use crate::note::{MAX_NOTE_LEN, Note, NoteError};
use crate::tile::{MAX_LEVELS, MAX_TILE_LEN};
use crate::tree::RightEdge;

/// The first line.
const HEADER: &str = "fanlight-fsck-resume v1";

/// Bytes of the longest resume point: the note, eight levels of 256 hashes in base64, and a few numbers.
pub const MAX_RESUME_POINT_LEN: usize = MAX_NOTE_LEN + 2 * MAX_LEVELS as usize * MAX_TILE_LEN + 256;

/// Everything before it was checked, and good.
///
/// ```text
/// fanlight-fsck-resume v1
/// <entries> <tiles> <bundles> <bytes>
/// <base64 hash of the right edge>*        lowest level first
///
/// <checkpoint that they were checked against, verbatim>
/// ```
/// It needs no trust for a good result: a point whose edge is not the log's is not used. Who may write to it can leave out
/// damage, though, as one who has swapped the tiles since could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    pub(crate) edge: RightEdge,
    pub(crate) tally: Tally,
    note: String,
    checkpoint: Checkpoint,
}

impl ResumePoint {
    /// `edge` ends at a full bundle; `tally` is without damage.
    pub(crate) fn new(edge: &RightEdge, tally: &Tally, note: &str, checkpoint: &Checkpoint) -> Self {
        Self { edge: edge.clone(), tally: tally.clone(), note: note.to_owned(), checkpoint: checkpoint.clone() }
    }

    /// Parses what [`fmt::Display`] writes. The signatures of the checkpoint are not verified.
    pub fn parse(text: &str) -> Result<Self, ResumePointError> {
        if text.len() > MAX_RESUME_POINT_LEN {
            return Err(ResumePointError::Malformed);
        }
        let (head, note) = text.split_once("\n\n").ok_or(ResumePointError::Malformed)?;
        let mut lines = head.split('\n');
        let (Some(HEADER), Some(counts)) = (lines.next(), lines.next()) else { return Err(ResumePointError::Malformed) };
        let counts: Option<Vec<u64>> = counts.split(' ').map(parse_decimal).collect();
        let Some(&[size, n_tiles, n_bundles, n_bytes]) = counts.as_deref() else { return Err(ResumePointError::Malformed) };
        let mut tiles = Vec::new();
        for path in RightEdge::tiles_of(size) {
            let hashes = lines.by_ref().take(usize::from(path.width())).map(Hash::parse_base64);
            tiles.push(hashes.collect::<Option<Vec<_>>>().ok_or(ResumePointError::Malformed)?);
        }
        let edge = RightEdge::from_tiles(size, tiles).ok_or(ResumePointError::Malformed)?;
        let checkpoint = Checkpoint::parse(Note::parse(note.as_bytes())?.text())?;
        if size % PIECE != 0 || size > checkpoint.tree_size() || lines.next().is_some() {
            return Err(ResumePointError::Malformed);
        }
        let tally = Tally { n_tiles, n_bundles, n_bytes, ..Tally::default() };
        Ok(Self { edge, tally, note: note.to_owned(), checkpoint })
    }

    /// Entries that need no second check.
    pub fn n_entries(&self) -> u64 {
        self.edge.size()
    }

    /// The checkpoint that they were checked against.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// That checkpoint with its signatures, verbatim.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl fmt::Display for ResumePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { n_tiles, n_bundles, n_bytes, .. } = &self.tally;
        writeln!(f, "{HEADER}\n{} {n_tiles} {n_bundles} {n_bytes}", self.edge.size())?;
        for level in 0..MAX_LEVELS {
            self.edge.level(level).iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// Why a text is no resume point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumePointError {
    /// The text after the blank line is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A line is missing, superfluous, or not what it should be.
    #[error("not a resume point")]
    Malformed,
    /// The text after the blank line is no signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
}
