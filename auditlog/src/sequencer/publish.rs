//! From a checkpoint in the lock to a published one.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;

use crate::checkpoint::VerifiedCheckpoint;
use crate::reader::Reader;
use crate::sequencer::run::{Interrupted, Retries, pause};
use crate::sequencer::{Cosigner, NotCosigned, Sequencer, Timer, staging};
use crate::store::{CHECKPOINT_KEY, LeafIndex, Lock, ObjectStore};

/// After a refresh without quorum, when witnesses are asked again at the latest.
const REFRESH_RETRY: Duration = Duration::from_secs(10);

impl<S: ObjectStore + Lock + LeafIndex, C: Cosigner> Sequencer<S, C> {
    /// Publishes the lock's checkpoint, whose tiles are in place, once it is cosigned.
    pub(super) async fn publish(&mut self, timer: &impl Timer) -> Result<VerifiedCheckpoint, Interrupted> {
        let mut retries = Retries::default();
        let checkpoint = loop {
            if let Some(cosigned) = self.cosign(self.head.checkpoint.clone()).await {
                break cosigned;
            }
            retries.count();
            if retries.are_hopeless(&self.shared) {
                return Err(Interrupted::NotCosigned);
            }
            pause(&self.shared, timer, retries.delay()).await;
            // Another sequencer may have found the quorum in the meantime, and gone on.
            let locked = self.shared.store.load().await.map_err(|error| Interrupted::MaybeCommitted(Some(error)))?;
            if locked.is_none_or(|locked| locked.token != self.head.token) {
                return Err(Interrupted::MaybeCommitted(None));
            }
        };
        self.put_checkpoint(&checkpoint, timer).await?;
        Ok(checkpoint)
    }

    /// Puts a checkpoint over the published one, if that is the one that this sequencer knows.
    pub(super) async fn put_checkpoint(
        &mut self,
        checkpoint: &VerifiedCheckpoint,
        timer: &impl Timer,
    ) -> Result<(), Interrupted> {
        let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
        match self.shared.store.put_over(CHECKPOINT_KEY, self.public.as_ref(), note.clone()).await {
            Ok(true) => {}
            Ok(false) => return Err(Interrupted::MaybeCommitted(None)),
            Err(error) => return Err(Interrupted::MaybeCommitted(Some(error))),
        }
        self.public = Some(note);
        self.refresh_after(self.cosigner.is_complete(checkpoint), timer);
        Ok(())
    }

    /// Sets when the published checkpoint is refreshed: soon, where something is missing.
    pub(super) fn refresh_after(&mut self, is_complete: bool, timer: &impl Timer) {
        let period = self.cosigner.refresh_period();
        let wait = if is_complete { period } else { period.map(|period| period.min(REFRESH_RETRY)) };
        self.refresh_at = wait.map(|wait| timer.now().saturating_add(wait));
    }

    /// Returns with the published checkpoint under fresh cosignatures, some time after they were last gathered, and whether they are
    /// all that it needs.
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn refreshed(&mut self, timer: &impl Timer) -> (VerifiedCheckpoint, bool) {
        loop {
            let Some(at) = self.refresh_at else { return std::future::pending().await };
            timer.sleep(at.saturating_sub(timer.now())).await;
            let published = self.shared.state().checkpoint();
            let reader = self.reader_of(VerifiedCheckpoint::clone(&published));
            let refreshed = self.cosigner.refresh(&reader).await;
            let is_complete = refreshed.as_ref().is_ok_and(|refreshed| refreshed.is_complete);
            let refreshed = self.admitted(&published, refreshed.map(|refreshed| refreshed.note));
            drop(reader);
            let is_complete = is_complete && refreshed.is_some();
            match refreshed {
                Some(refreshed) if refreshed.note() != published.note() => return (refreshed, is_complete),
                _ => self.refresh_after(is_complete, timer),
            }
        }
    }

    /// The checkpoint, which is the lock's, with the cosignatures that its publication needs.
    async fn cosign(&self, checkpoint: VerifiedCheckpoint) -> Option<VerifiedCheckpoint> {
        let reader = self.reader_of(checkpoint);
        let cosigned = self.cosigner.cosign(&reader).await;
        self.admitted(reader.checkpoint(), cosigned)
    }

    fn reader_of(&self, checkpoint: VerifiedCheckpoint) -> Reader<&S> {
        Reader::with_edge(&self.shared.store, checkpoint, self.head.tree.edge())
    }

    /// Whatever a cosigner returns, nothing but the checkpoint that it was asked about is published.
    fn admitted(&self, asked: &VerifiedCheckpoint, note: Result<String, NotCosigned>) -> Option<VerifiedCheckpoint> {
        let cosigned = note.ok().and_then(|note| VerifiedCheckpoint::verify(note.as_bytes(), &self.shared.log_key).ok());
        let cosigned = cosigned.filter(|cosigned| cosigned.checkpoint() == asked.checkpoint());
        if cosigned.is_none() {
            self.shared.state().stats_mut().not_cosigned += 1;
            tracing::warn!("checkpoint not cosigned, the witnesses are asked again");
        }
        cosigned
    }

    /// Drops the staged form of the round that the published checkpoint ends.
    pub(super) async fn drop_staged(&self) {
        if let Err(error) = self.shared.store.delete(&staging::key(&self.head.checkpoint)).await {
            // It is dropped at the next start.
            tracing::warn!(error = &error as &dyn Error, "staged round not dropped");
        }
    }
}
