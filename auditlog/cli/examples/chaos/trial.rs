//! One log under trial: what was offered to it, what it acknowledged, and what must therefore hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;

use anyhow::{Context as _, ensure};
use fanlight_auditlog::fsck::{Leftovers, Options, fsck};
use fanlight_auditlog::reader::latest_checkpoint;
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{DirStore, Hash, Lock as _, Reader, VerifiedCheckpoint, VerifierKey, leaf_hash};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;

use crate::random::Random;
use crate::writer::Answers;

/// A log in a directory, and everything known about it from outside.
#[derive(Debug)]
pub(crate) struct Trial {
    dir: PathBuf,
    log_key: VerifierKey,
    runtime: Runtime,
    offered: Vec<String>,
    /// The leaf of each of them, and its index once it is acknowledged.
    leaves: HashMap<Hash, Option<u64>>,
    acknowledged: BTreeMap<u64, Hash>,
    /// The last published checkpoint seen.
    published: Option<VerifiedCheckpoint>,
    /// Checkpoints seen in the lock that were not published yet.
    signed: Vec<VerifiedCheckpoint>,
    /// The tree sizes of all of them.
    sizes: BTreeSet<u64>,
    n_checks: u64,
}

impl Trial {
    /// Creates a log in `dir`.
    pub(crate) fn new(program: &Path, dir: PathBuf) -> anyhow::Result<Self> {
        let created = Command::new(program).arg("init").arg(&dir).args(["--origin", "log.example/chaos"]).output()?;
        ensure!(created.status.success(), "no log was created: {}", String::from_utf8_lossy(&created.stderr));
        let log_key = VerifierKey::parse(String::from_utf8(created.stdout)?.trim()).context("verifier key")?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (offered, leaves, acknowledged, published, signed, sizes) = Default::default();
        Ok(Self { dir, log_key, runtime, offered, leaves, acknowledged, published, signed, sizes, n_checks: 0 })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn n_acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    pub(crate) fn n_checks(&self) -> u64 {
        self.n_checks
    }

    pub(crate) fn n_checkpoints(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// What was never acknowledged, as a client would send it again, and `n_new` entries of up to `longest` bytes. With a
    /// tenth more of what was offered before, acknowledged or not, or is offered now.
    pub(crate) fn offer(&mut self, n_new: u64, longest: u64, random: &mut Random) -> Vec<String> {
        for _ in 0..n_new {
            let padding = usize::try_from(random.below(longest)).unwrap_or(0);
            let entry = format!("{} {}", self.offered.len(), "x".repeat(padding));
            self.leaves.insert(leaf_hash(entry.as_bytes()), None);
            self.offered.push(entry);
        }
        let is_pending = |entry: &&String| self.leaves.get(&leaf_hash(entry.as_bytes())).is_some_and(Option::is_none);
        let mut entries: Vec<String> = self.offered.iter().filter(is_pending).cloned().collect();
        for _ in 0..n_new.div_ceil(10) {
            let again = self.offered[random.index(self.offered.len())].clone();
            entries.insert(random.index(entries.len() + 1), again);
        }
        entries
    }

    /// Takes note of what a writer answered.
    pub(crate) fn record(&mut self, answers: &Answers) -> anyhow::Result<()> {
        for &(index, leaf) in &answers.acknowledged {
            let known = self.leaves.get_mut(&leaf).with_context(|| format!("index {index} was answered for no entry"))?;
            let before = known.replace(index);
            ensure!(before.is_none_or(|before| before == index), "{index} and {before:?} were answered for one entry");
            let before = self.acknowledged.insert(index, leaf);
            ensure!(before.is_none_or(|before| before == leaf), "index {index} was answered for two entries");
        }
        Ok(())
    }

    /// Checks, without a writer, that the published log is whole, that what was acknowledged stands in it and nothing
    /// twice, and that no checkpoint seen before is of another one.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.check_tree()?;
        self.runtime.block_on(self.check_entries())
    }

    fn check_tree(&mut self) -> anyhow::Result<()> {
        let store = DirStore::open_reader(&self.dir);
        self.runtime.block_on(async {
            let published = latest_checkpoint(&store, &self.log_key).await.context("published checkpoint")?;
            let options = Options { leftovers: Leftovers::list(&store).await?, resume: None };
            let report = fsck(&store, &published, options, &Inline, |_| {}).await.context("fsck")?;
            let damaged: Vec<_> = report.damage().iter().map(|damage| (&damage.key, &damage.problem)).collect();
            ensure!(report.is_good(), "damaged: {damaged:?}");
            let locked = store.load().await?.context("no lock")?;
            let signed = VerifiedCheckpoint::verify(&locked.bytes, &self.log_key).context("lock")?;
            ensure!(signed.tree_size() >= published.tree_size(), "the lock is behind the published checkpoint");

            let reader = Reader::at(&store, published.clone()).await?;
            let consistent = async |seen: &VerifiedCheckpoint| {
                reader.verify_consistency(seen).await.with_context(|| format!("went back or forked at {}", seen.tree_size()))
            };
            // Consistency is transitive: what an earlier one was consistent with needs no second look.
            if let Some(before) = &self.published {
                consistent(before).await?;
            }
            let (due, ahead): (Vec<_>, Vec<_>) =
                self.signed.drain(..).partition(|seen| seen.tree_size() <= published.tree_size());
            for seen in &due {
                consistent(seen).await?;
            }
            self.signed = ahead;
            self.sizes.extend([published.tree_size(), signed.tree_size()]);
            if signed.tree_size() > published.tree_size() {
                self.signed.push(signed);
            }
            self.published = Some(published);
            self.n_checks += 1;
            Ok(())
        })
    }

    async fn check_entries(&self) -> anyhow::Result<()> {
        let store = DirStore::open_reader(&self.dir);
        let reader = Reader::latest(&store, &self.log_key).await?;
        let mut leaves = HashSet::new();
        let mut n_found = 0;
        let mut entries = pin!(reader.entries(0..reader.checkpoint().tree_size()));
        while let Some(found) = entries.next().await {
            let (index, entry) = found?;
            let leaf = leaf_hash(&entry);
            ensure!(self.leaves.contains_key(&leaf), "entry {index} was never offered");
            ensure!(leaves.insert(leaf), "entry {index} stands in the log before");
            if let Some(acknowledged) = self.acknowledged.get(&index) {
                ensure!(leaf == *acknowledged, "entry {index} is another than was acknowledged");
                n_found += 1;
            }
        }
        ensure!(n_found == self.n_acknowledged(), "of {} acknowledged entries {n_found} are left", self.n_acknowledged());
        Ok(())
    }

    /// Checks the log after a writer that ended well: nothing that it was offered or was ever signed is missing.
    pub(crate) fn check_complete(&mut self) -> anyhow::Result<()> {
        self.check()?;
        ensure!(self.signed.is_empty(), "a checkpoint was signed and never published");
        ensure!(self.leaves.values().all(Option::is_some), "a writer that ended well left entries without an answer");
        Ok(())
    }
}
