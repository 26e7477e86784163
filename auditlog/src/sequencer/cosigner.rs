//! Who cosigns a checkpoint before it is published.

use std::time::Duration;

use crate::checkpoint::VerifiedCheckpoint;
use crate::reader::Reader;
use crate::store::TileSource;

/// Gathers cosignatures.
pub trait Cosigner {
    /// Gathers cosignatures of the reader's checkpoint, whose tiles are in place, and returns the note to publish: the
    /// checkpoint's own, with what was gathered.
    ///
    /// Takes bounded time. An error says that the checkpoint must not be published as it is; the sequencer asks again.
    fn cosign<T: TileSource>(&self, reader: &Reader<T>) -> impl Future<Output = Result<String, NotCosigned>>;

    /// Gathers fresh cosignatures of the reader's checkpoint, which is published with those that it has.
    ///
    /// Takes bounded time. After an error the published note stays, and the sequencer asks again soon.
    fn refresh<T: TileSource>(&self, reader: &Reader<T>) -> impl Future<Output = Result<Refreshed, NotCosigned>> {
        async { Ok(Refreshed { note: self.cosign(reader).await?, is_complete: true }) }
    }

    /// Whether a note that is published needs nothing until the next refresh; otherwise it is refreshed soon.
    fn is_complete(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        let _ = checkpoint;
        true
    }

    /// How old the published cosignatures may get before they are gathered anew; `None` where there are none.
    fn refresh_period(&self) -> Option<Duration>;
}

/// What a refresh brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The published note, with what is new in place of what is older.
    pub note: String,
    /// Whether a quorum cosigned now, as far as it cosigns anything twice; otherwise the sequencer asks again soon.
    pub is_complete: bool,
}

/// No quorum cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no quorum of witnesses cosigned the checkpoint")]
pub struct NotCosigned;

/// A log without witnesses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwitnessed;

impl Cosigner for Unwitnessed {
    async fn cosign<T: TileSource>(&self, reader: &Reader<T>) -> Result<String, NotCosigned> {
        Ok(reader.checkpoint().note().to_owned())
    }

    fn refresh_period(&self) -> Option<Duration> {
        None
    }
}
