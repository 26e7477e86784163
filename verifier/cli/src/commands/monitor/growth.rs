//! Whether the log only grew: which tree to read, given what it shows now and what was seen last.

use anyhow::bail;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::{Reader, TileSource, VerifiedCheckpoint};
use fanlight_verifier::monitor::{Ahead, AlertName};

use super::contradiction::{Compared, NotOlder, prove, prove_root};
use super::round::Round;
use crate::outcome::chain;
use crate::source::Source;

impl Round<'_> {
    /// The tree to read: the shown one or, where that is a beginning of the one seen last, still that one. `None` where it
    /// is neither, or could not be read.
    pub(super) async fn tree_to_read<'s>(
        &mut self,
        source: &'s Source,
        shown: &VerifiedCheckpoint,
    ) -> Option<Reader<&'s Source>> {
        if let Some(seen) = self.state.checkpoint.clone() {
            if shown.tree_size() < seen.tree_size() {
                return self.tree_seen_last(source, seen, shown).await;
            }
            // This needs no look at the tiles.
            if shown.tree_size() == seen.tree_size() && shown.root_hash() != seen.root_hash() {
                self.observe_twins("", &seen, shown);
                return None;
            }
        }
        match Reader::at(source, shown.clone()).await {
            Ok(reader) => Some(reader),
            Err(error) => {
                self.looked_for.insert(AlertName::Damaged);
                self.observe_failure(&error).await;
                None
            }
        }
    }

    /// The tree seen last, where the log shows a smaller one. An old checkpoint may come from a cache, and anybody can
    /// replay one; but it must be a beginning of what the log signed later.
    async fn tree_seen_last<'s>(
        &mut self,
        source: &'s Source,
        seen: VerifiedCheckpoint,
        shown: &VerifiedCheckpoint,
    ) -> Option<Reader<&'s Source>> {
        let waiting = |checkpoint: &VerifiedCheckpoint| Ahead { note: checkpoint.note().to_owned(), since: self.now };
        let (seen_ahead, shown_ahead) = (waiting(&seen), waiting(shown));
        // Whatever comes of it, the log must show as much again.
        self.wait_for("", seen_ahead);
        let error = match Reader::at(source, seen.clone()).await {
            Ok(reader) => match prove(&reader, shown).await {
                Ok(()) => return Some(reader),
                Err(NotOlder::Forked(proof)) => {
                    self.observe_fork("", shown, &reader, &proof).await;
                    return None;
                }
                Err(NotOlder::Failed(error)) => error,
            },
            Err(error) => error,
        };
        // It is compared once the log shows as much again: it may be the only trace of a fork.
        self.wait_for("", shown_ahead);
        if matches!(error, ReadError::Store(_)) {
            self.looked_for.remove(&AlertName::Rollback);
            self.observe(AlertName::Unreadable, "", chain(&error));
        } else {
            let (old_size, new_size) = (seen.tree_size(), shown.tree_size());
            let detail = format!("the log showed {old_size} entries before and shows {new_size} now");
            let evidence = self.evidence("rollback", shown).checkpoint("seen before", seen.note().as_bytes());
            self.observe_proven(AlertName::Rollback, "", detail, &evidence);
        }
        self.judge_waiting(shown);
        None
    }

    /// Whether the tree goes on from the checkpoint seen last, and from the entries read so far.
    pub(super) async fn goes_on<T: TileSource>(&mut self, reader: &Reader<T>) -> anyhow::Result<bool> {
        let Some(seen) = self.state.checkpoint.clone() else { return Ok(true) };
        if self.compare_older("", &seen, reader).await != Compared::Consistent {
            return Ok(false);
        }
        let (size, root) = (self.state.edge.size(), self.state.edge.root());
        if size == seen.tree_size() {
            return Ok(true);
        }
        match prove_root(reader, size, root).await {
            Ok(()) => Ok(true),
            Err(NotOlder::Failed(error)) => {
                self.observe_failure(&error).await;
                Ok(false)
            }
            Err(NotOlder::Forked(_)) => bail!("the state contradicts the checkpoint in it: restore it from a backup"),
        }
    }
}
