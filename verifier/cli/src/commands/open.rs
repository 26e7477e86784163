//! A log that a command reads: its source, what it is trusted by, and its verified checkpoint.

use anyhow::{Context, anyhow};
use fanlight_auditlog::fsck::Damage;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::tile::TilePath;
use fanlight_auditlog::{Policy, Reader, TileSource, VerifiedCheckpoint};
use serde_json::{Value, json};

use crate::evidence::Evidence;
use crate::outcome::{Outcome, Refused, Verdict};
use crate::policy::LogKeyArgs;
use crate::source::{Source, StoreArgs};

/// A log at its published checkpoint.
///
/// A check that fails is an error of type [`Refused`], which ends the command with its outcome and evidence.
#[derive(Debug)]
pub(crate) struct OpenLog {
    name: String,
    source: Source,
    policy: Policy,
    checkpoint: VerifiedCheckpoint,
}

impl OpenLog {
    /// Fetches and verifies the published checkpoint.
    pub(crate) async fn open(name: &str, stores: &StoreArgs, trust: &LogKeyArgs) -> anyhow::Result<Self> {
        let policy = trust.policy()?;
        let source = stores.open(name).await?;
        let note = source.get(CHECKPOINT_KEY).await.with_context(|| format!("{name} was not read"))?;
        let note = note.ok_or_else(|| {
            anyhow!("{name} has no checkpoint: give the directory, s3:// or http(s):// prefix under which `checkpoint` lies")
        })?;
        let checkpoint = policy.verify_checkpoint(&note).map_err(|error| {
            let evidence = Evidence::new("checkpoint", name).keys(&policy).checkpoint("published", &note);
            Refused::from(Outcome::bad("the log's checkpoint was refused", &error).with_evidence(evidence))
        })?;
        Ok(Self { name: name.to_owned(), source, policy, checkpoint })
    }

    /// The log as it was named on the command line.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The published checkpoint, as it was when the log was opened.
    pub(crate) fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Reads the log at the checkpoint.
    pub(crate) async fn reader(&self) -> anyhow::Result<Reader<&Source>> {
        match Reader::at(&self.source, self.checkpoint.clone()).await {
            Ok(reader) => Ok(reader),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Checks that the log only grew since `old`, a checkpoint of the same origin; `role` says which one it is.
    pub(crate) async fn check_grown(&self, old: &VerifiedCheckpoint, role: &str) -> anyhow::Result<()> {
        if self.contradicts(old) {
            return Err(Refused::from(self.not_grown(old, role).await?).into());
        }
        match self.reader().await?.verify_consistency(old).await {
            Ok(()) => Ok(()),
            // The tiles that made the proof belong to the published tree, so it is the log itself that forked.
            Err(ReadError::Proof(_)) => Err(Refused::from(self.not_grown(old, role).await?).into()),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Whether the sizes and roots alone say that the published tree does not go on from the one of `old`.
    pub(crate) fn contradicts(&self, old: &VerifiedCheckpoint) -> bool {
        let (old_size, new_size) = (old.tree_size(), self.checkpoint.tree_size());
        old_size > new_size || (old_size == new_size && old.root_hash() != self.checkpoint.root_hash())
    }

    /// The outcome for a log whose published tree does not go on from the one of `old`: it forked, or shows fewer entries.
    pub(crate) async fn not_grown(&self, old: &VerifiedCheckpoint, role: &str) -> anyhow::Result<Outcome> {
        let (old_size, new_size) = (old.tree_size(), self.checkpoint.tree_size());
        if new_size < old_size {
            return self.shrunk(old, role).await;
        }
        let reader = Reader::at(&self.source, self.checkpoint.clone()).await.ok();
        let error = if new_size == old_size {
            format!("the log forked: it signed two different trees of {new_size} entries")
        } else {
            format!("the log forked: the first {old_size} of its {new_size} entries are not those that it signed")
        };
        Ok(self.contradiction("fork", error, old, role, reader).await)
    }

    /// The outcome for a log that shows fewer entries than it signed. The two checkpoints prove nothing by themselves, for
    /// a cache can be old, and anybody who serves the log can replay one of its checkpoints; so the tree of `old` is looked
    /// for among the tiles.
    async fn shrunk(&self, old: &VerifiedCheckpoint, role: &str) -> anyhow::Result<Outcome> {
        let (old_size, new_size) = (old.tree_size(), self.checkpoint.tree_size());
        let read = async {
            let reader = Reader::at(&self.source, old.clone()).await?;
            let root = reader.root_at(new_size).await?;
            Ok((reader, root))
        };
        match read.await {
            Ok((_, root)) if root == self.checkpoint.root_hash() => {
                let error = format!(
                    "{} shows {new_size} entries, fewer than the {old_size} of the checkpoint {role}, and has the tiles of \
                     both: its checkpoint is an old one, as from a cache, or the newer one is held back; try again later",
                    self.name
                );
                let fields = self.sizes("stale", &error, old);
                Ok(Outcome::new(Verdict::Unchecked, format!("NOT CHECKED: {error}\n"), fields))
            }
            Ok((reader, _)) => {
                let error = format!(
                    "the log forked: the {new_size} entries that it shows are not the first of {old_size} that it signed"
                );
                Ok(self.contradiction("fork", error, old, role, Some(reader)).await)
            }
            Err(ReadError::Store(error)) => Err(anyhow::Error::new(error).context(format!("{} was not read", self.name))),
            Err(_) => {
                let error = format!(
                    "the log shrank, or this is an old copy of it: it signed {old_size} entries, shows {new_size} and lacks the rest"
                );
                Ok(self.contradiction("rollback", error, old, role, None).await)
            }
        }
    }

    /// A bad outcome with both checkpoints, and the proof from `larger`, which reads the larger tree of the two.
    async fn contradiction(
        &self,
        finding: &'static str,
        error: String,
        old: &VerifiedCheckpoint,
        role: &str,
        larger: Option<Reader<&Source>>,
    ) -> Outcome {
        let new = &self.checkpoint;
        let mut evidence = Evidence::new(finding, &self.name)
            .of_log(new.origin(), new.tree_size())
            .keys(&self.policy)
            .checkpoint(role, old.note().as_bytes())
            .checkpoint("published now", new.note().as_bytes());
        let size = old.tree_size().min(new.tree_size());
        // What the larger tree had at the smaller one's size, with the proof of it, makes the fork certain without the log.
        if old.tree_size() != new.tree_size()
            && let Some(reader) = larger
            && let (Ok(root), Ok(proof)) = (reader.root_at(size).await, reader.consistency_proof(size).await)
        {
            evidence = evidence.consistency_proof(size, root, &proof);
        }
        let fields = self.sizes(finding, &error, old);
        Outcome::new(Verdict::Bad, format!("BAD: {error}\n"), fields).with_evidence(evidence)
    }

    fn sizes(&self, finding: &str, error: &str, old: &VerifiedCheckpoint) -> Value {
        let new = &self.checkpoint;
        json!({
            "finding": finding, "error": error, "origin": new.origin(),
            "old_tree_size": old.tree_size(), "old_root_hash": old.root_hash().to_string(),
            "new_tree_size": new.tree_size(), "new_root_hash": new.root_hash().to_string(),
        })
    }

    /// Evidence that begins with this log and its checkpoint.
    pub(crate) fn evidence(&self, finding: &'static str) -> Evidence {
        Evidence::new(finding, &self.name)
            .of_log(self.checkpoint.origin(), self.checkpoint.tree_size())
            .keys(&self.policy)
            .checkpoint("published", self.checkpoint.note().as_bytes())
    }

    /// Evidence of damaged objects.
    pub(crate) fn evidence_of(&self, damage: &[Damage]) -> Evidence {
        damage.iter().fold(self.evidence("damage"), |evidence, Damage { key, problem, bytes }| {
            evidence.object(key, &problem.to_string(), problem.hashes(), bytes.as_deref())
        })
    }

    /// What a failed read means: a log that was not reached was not checked, every other one is bad.
    pub(crate) async fn failure(&self, error: ReadError) -> anyhow::Error {
        let (path, problem) = match &error {
            ReadError::Store(_) => return anyhow::Error::new(error).context(format!("{} was not read", self.name)),
            ReadError::Bundle { path, .. } => (Some(*path), "is not an entry bundle"),
            ReadError::Mismatch { path } => (Some(*path), "does not match the checkpoint"),
            ReadError::Missing { path } => (Some(*path), "is missing"),
            _ => (None, ""),
        };
        let evidence = match path {
            Some(path) => self.evidence_at(path, problem).await,
            None => self.evidence("damage"),
        };
        let outcome = Outcome::bad("the log does not hold together", &error).with_evidence(evidence);
        Refused::from(outcome).into()
    }

    /// Evidence of one object, read once more: what comes now may be something else already.
    async fn evidence_at(&self, path: TilePath, problem: &str) -> Evidence {
        let key = path.to_string();
        let bytes = self.source.get(&key).await.ok().flatten();
        self.evidence("damage").object(&key, problem, None, bytes.as_deref())
    }
}
