//! Who cosigns a checkpoint before it is published.

use std::time::Duration;

use crate::reader::Reader;
use crate::store::TileSource;

/// Gathers cosignatures.
pub trait Cosigner {
    /// Gathers cosignatures of the reader's checkpoint, whose tiles are in place, and returns the note to publish: the
    /// checkpoint's own, with what was gathered.
    ///
    /// Takes bounded time. An error says that the checkpoint must not be published as it is; the sequencer asks again.
    fn cosign<T: TileSource>(&self, reader: &Reader<T>) -> impl Future<Output = Result<String, NotCosigned>>;

    /// How old the published cosignatures may get before they are gathered anew; `None` where there are none.
    fn refresh_period(&self) -> Option<Duration>;
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
