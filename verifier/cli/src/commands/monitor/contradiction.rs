//! What contradicts what, with the evidence that shows it to others.

use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::{Hash, Reader, TileSource, VerifiedCheckpoint};
use fanlight_verifier::monitor::{AlertName, Observation};

use super::round::Round;
use crate::evidence::Evidence;
use crate::outcome::chain;

/// What a comparison with a checkpoint that is no larger came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    Consistent,
    Forked,
    /// No proof could be made; why is observed.
    Failed,
}

impl Round<'_> {
    /// Compares a checkpoint with the reader's tree, which is not smaller.
    pub(super) async fn compare_older<T: TileSource>(
        &mut self,
        subject: &str,
        older: &VerifiedCheckpoint,
        reader: &Reader<T>,
    ) -> Compared {
        match prove(reader, older).await {
            Ok(()) => Compared::Consistent,
            Err(NotOlder::Forked(proof)) => {
                self.observe_fork(subject, older, reader, &proof).await;
                Compared::Forked
            }
            Err(NotOlder::Failed(error)) => {
                self.observe_failure(&error).await;
                Compared::Failed
            }
        }
    }

    /// A failed read: the log is damaged, or could not be reached.
    pub(super) async fn observe_failure(&mut self, error: &ReadError) {
        let detail = chain(error);
        if matches!(error, ReadError::Store(_)) {
            // Nothing is known of the tiles.
            self.looked_for.remove(&AlertName::Damaged);
            self.observe(AlertName::Unreadable, "", detail);
            return;
        }
        let mut evidence = match &self.shown {
            Some(shown) => self.evidence("damage", shown),
            None => Evidence::new("damage", &self.args.log).keys(self.policy),
        };
        if let ReadError::Bundle { path, .. } | ReadError::Mismatch { path } | ReadError::Missing { path } = error {
            let key = path.to_string();
            // Best effort: what comes now may be something else already.
            let bytes = match self.args.stores.open(&self.args.log).await {
                Ok(source) => source.get(&key).await.ok().flatten(),
                Err(_) => None,
            };
            evidence = evidence.object(&key, &detail, None, bytes.as_deref());
        }
        self.observe_proven(AlertName::Damaged, "", detail, &evidence);
    }

    /// The log signed two trees that contradict each other: the reader's, and one that is no larger.
    pub(super) async fn observe_fork<T: TileSource>(
        &mut self,
        subject: &str,
        older: &VerifiedCheckpoint,
        reader: &Reader<T>,
        proof: &[Hash],
    ) {
        let newer = reader.checkpoint();
        let old_size = older.tree_size();
        let mut evidence = self.fork_evidence(older, newer);
        // The proof says which root the larger tree has for the smaller size.
        if old_size < newer.tree_size()
            && let Ok(root) = reader.root_at(old_size).await
        {
            evidence = evidence.consistency_proof(old_size, root, proof);
        }
        self.observe_split_view(subject, older, newer, &evidence);
    }

    /// The log signed two different trees of one size.
    pub(super) fn observe_twins(&mut self, subject: &str, one: &VerifiedCheckpoint, other: &VerifiedCheckpoint) {
        let evidence = self.fork_evidence(one, other);
        self.observe_split_view(subject, one, other, &evidence);
    }

    fn observe_split_view(&mut self, subject: &str, older: &VerifiedCheckpoint, newer: &VerifiedCheckpoint, evidence: &Evidence) {
        let (old_size, new_size) = (older.tree_size(), newer.tree_size());
        let detail = if old_size == new_size {
            format!("the log signed two different trees of {old_size} entries")
        } else {
            format!("the log signed a tree of {new_size} entries whose first {old_size} are not those of a tree that it signed")
        };
        self.observe_proven(AlertName::SplitView, subject, detail, evidence);
    }

    fn fork_evidence(&self, older: &VerifiedCheckpoint, newer: &VerifiedCheckpoint) -> Evidence {
        let is_shown =
            |checkpoint: &VerifiedCheckpoint| self.shown.as_ref().is_some_and(|shown| shown.note() == checkpoint.note());
        let role = |checkpoint| if is_shown(checkpoint) { "published now" } else { "seen before, or by others" };
        Evidence::new("fork", &self.args.log)
            .of_log(newer.origin(), newer.tree_size())
            .keys(self.policy)
            .checkpoint(role(newer), newer.note().as_bytes())
            .checkpoint(role(older), older.note().as_bytes())
    }

    pub(super) fn evidence(&self, finding: &'static str, shown: &VerifiedCheckpoint) -> Evidence {
        Evidence::new(finding, &self.args.log)
            .of_log(shown.origin(), shown.tree_size())
            .keys(self.policy)
            .checkpoint("published now", shown.note().as_bytes())
    }

    /// An alert with its evidence. An alert whose evidence could not be kept is an alert all the same, and says so.
    pub(super) fn observe_proven(&mut self, name: AlertName, subject: &str, detail: String, evidence: &Evidence) {
        let observation = match self.dir.keep_evidence(evidence, &detail, self.now) {
            Ok(Some(file)) => Observation::of(name, subject, detail).with_evidence(file),
            Ok(None) => Observation::of(name, subject, format!("{detail}; of this kind no more evidence is kept")),
            Err(error) => Observation::of(name, subject, format!("{detail}; {error:#}")),
        };
        self.observations.push(observation);
    }
}

/// Why a tree is not shown to go on from an older one.
pub(super) enum NotOlder {
    /// The proof from the larger tree leads to another root than the older one's.
    Forked(Vec<Hash>),
    /// No proof could be made.
    Failed(ReadError),
}

/// Proves that the reader's tree goes on from an older one. The hashes of the proof are checked against the tree before
/// they are used, so one that does not fit is the older tree's fault.
pub(super) async fn prove<T: TileSource>(reader: &Reader<T>, older: &VerifiedCheckpoint) -> Result<(), NotOlder> {
    prove_root(reader, older.tree_size(), older.root_hash()).await
}

/// The same for a tree that nobody signed.
pub(super) async fn prove_root<T: TileSource>(reader: &Reader<T>, size: u64, root: Hash) -> Result<(), NotOlder> {
    let proof = reader.consistency_proof(size).await.map_err(NotOlder::Failed)?;
    let newer = reader.checkpoint();
    verify_consistency(size, root, newer.tree_size(), newer.root_hash(), &proof).map_err(|_| NotOlder::Forked(proof))
}
