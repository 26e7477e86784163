//! What contradicts what, with the evidence that shows it to others.

use anyhow::Context;
use fanlight_auditlog::hash::node_hash;
use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::{Hash, Reader, TileSource, VerifiedCheckpoint};
use fanlight_verifier::monitor::{AlertName, Observation};

use super::round::Round;
use crate::evidence::Evidence;
use crate::outcome::chain;
use crate::source::Source;

impl Round<'_> {
    /// Compares a checkpoint with the tree that is shown now, which is not smaller. `false` when they contradict each
    /// other, or when that could not be found out.
    pub(super) async fn compare_older<T: TileSource>(
        &mut self,
        subject: &str,
        older: &VerifiedCheckpoint,
        reader: &Reader<T>,
    ) -> anyhow::Result<bool> {
        match prove(reader, older.tree_size(), older.root_hash()).await {
            Ok(()) => Ok(true),
            Err(NotOlder::Forked(proof)) => {
                let root = root_of_first(reader, older.tree_size()).await.ok();
                let proof = root.map(|root| (root, proof.as_slice()));
                self.observe_fork(subject, older, reader.checkpoint(), proof)?;
                Ok(false)
            }
            Err(NotOlder::Failed(error)) => {
                self.observe_failure(&error).await?;
                Ok(false)
            }
        }
    }

    /// A failed read: the log is damaged, or could not be reached.
    pub(super) async fn observe_failure(&mut self, error: &ReadError) -> anyhow::Result<()> {
        let detail = chain(error);
        if matches!(error, ReadError::Store(_)) {
            // Nothing is known of the tiles.
            self.looked_for.remove(&AlertName::Damaged);
            self.observe(AlertName::Unreadable, "", detail);
            return Ok(());
        }
        let mut evidence = match &self.shown {
            Some(shown) => self.evidence("damage", shown),
            None => Evidence::new("damage", &self.args.log).keys(self.policy),
        };
        if let ReadError::Bundle { path, .. } | ReadError::Mismatch { path } | ReadError::Missing { path } = error {
            let key = path.to_string();
            // Best effort: what comes now may be something else already.
            let bytes = Source::open(&self.args.log)?.get(&key).await.ok().flatten();
            evidence = evidence.object(&key, &detail, None, bytes.as_deref());
        }
        self.observe_proven(AlertName::Damaged, "", detail, &evidence)
    }

    /// The log signed two trees that contradict each other.
    pub(super) fn observe_fork(
        &mut self,
        subject: &str,
        seen: &VerifiedCheckpoint,
        shown: &VerifiedCheckpoint,
        proof: Option<(Hash, &[Hash])>,
    ) -> anyhow::Result<()> {
        let (old_size, new_size) = (seen.tree_size(), shown.tree_size());
        let detail = if old_size == new_size {
            format!("the log signed two different trees of {old_size} entries")
        } else {
            format!("the log signed a tree of {new_size} entries whose first {old_size} are not those it signed before")
        };
        let mut evidence = self.evidence("fork", shown).checkpoint("seen before, or by others", seen.note().as_bytes());
        // The proof says which root the larger tree has for the smaller size.
        if let Some((root, proof)) = proof {
            evidence = evidence.consistency_proof(old_size, root, proof);
        }
        self.observe_proven(AlertName::SplitView, subject, detail, &evidence)
    }

    pub(super) fn evidence(&self, finding: &'static str, shown: &VerifiedCheckpoint) -> Evidence {
        Evidence::new(finding, &self.args.log)
            .of_log(shown.origin(), shown.tree_size())
            .keys(self.policy)
            .checkpoint("published now", shown.note().as_bytes())
    }

    pub(super) fn observe_proven(
        &mut self,
        name: AlertName,
        subject: &str,
        detail: String,
        evidence: &Evidence,
    ) -> anyhow::Result<()> {
        let file = self.dir.keep_evidence(evidence, &detail, self.now).context("an alert was raised")?;
        let mut observation = Observation::of(name, subject, detail);
        observation.evidence.extend(file);
        self.observations.push(observation);
        Ok(())
    }
}

/// Why a tree is not shown to go on from an older one.
pub(super) enum NotOlder {
    /// The proof from the shown tree leads to another root than the older one's.
    Forked(Vec<Hash>),
    /// No proof could be made.
    Failed(ReadError),
}

/// Proves that the reader's tree goes on from an older one. The hashes of the proof are checked against the tree before
/// they are used, so one that does not fit is the older tree's fault.
pub(super) async fn prove<T: TileSource>(reader: &Reader<T>, size: u64, root: Hash) -> Result<(), NotOlder> {
    let proof = reader.consistency_proof(size).await.map_err(NotOlder::Failed)?;
    let shown = reader.checkpoint();
    verify_consistency(size, root, shown.tree_size(), shown.root_hash(), &proof).map_err(|_| NotOlder::Forked(proof))
}

/// The root of the first `size` entries of the reader's tree, at least one: the last of them, hashed with all that stands
/// to the left of it.
pub(super) async fn root_of_first<T: TileSource>(reader: &Reader<T>, size: u64) -> Result<Hash, ReadError> {
    let (mut index, mut last) = (size.saturating_sub(1), reader.checkpoint().tree_size().saturating_sub(1));
    let (path, inclusion) = reader.inclusion_proof(index).await?;
    let mut root = inclusion.leaf();
    // The walk of RFC 9162 §2.1.3.2, without the siblings to the right.
    for sibling in &path {
        if index & 1 == 1 || index == last {
            root = node_hash(sibling, &root);
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        }
        index >>= 1;
        last >>= 1;
    }
    Ok(root)
}
