//! What others hold of the same log: mirrors, witnesses, and whoever was promised something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fanlight_auditlog::tlog_proof::MAX_TLOG_PROOF_LEN;
use fanlight_auditlog::{Hash, MAX_ENTRY_LEN, Reader, TileSource, VerifiedCheckpoint};
use fanlight_protocol::bundle::{MAX_BUNDLE_LEN, ReceiptBundle};
use fanlight_protocol::{Digest, UnixTime};
use fanlight_verifier::monitor::{Ahead, AlertName, Expected, Observation, Promise};

use super::contradiction::{NotOlder, prove, root_of_first};
use super::round::Round;
use crate::outcome::chain;
use crate::policy::{read_bounded, verify_log_signature};
use crate::source::Source;
use crate::text;

/// Files that `--expect` takes.
const MAX_EXPECTED_FILES: usize = 65_536;

/// A checkpoint that the log signed, and who holds it.
type Held = (String, VerifiedCheckpoint);

impl Round<'_> {
    /// Reads what `--expect` names. Awaited entries become part of the state, to be looked for among the entries;
    /// checkpoints are returned, to be compared once those are read.
    pub(super) fn take_promises(&mut self) -> anyhow::Result<Vec<Held>> {
        let mut files = Vec::new();
        for path in &self.args.expect {
            list_files(path, &mut files)?;
        }
        let mut held = Vec::new();
        // Bundles of one provider share checkpoints, of which each is compared once.
        let mut known: BTreeSet<(u64, Hash)> = BTreeSet::new();
        let mut expected = BTreeMap::new();
        for path in files {
            let label = path.display().to_string();
            let promises = match self.promises_of(&path) {
                Ok(promises) => promises,
                Err(error) => {
                    self.seen.unusable.push((label, format!("{error:#}")));
                    continue;
                }
            };
            let since = self.now.min(modified(&path).unwrap_or(self.now));
            for promise in promises {
                match promise {
                    Promise::Signed(checkpoint) => {
                        if known.insert((checkpoint.tree_size(), checkpoint.root_hash())) {
                            held.push((label.clone(), checkpoint));
                        }
                    }
                    Promise::Awaited(leaf) => {
                        let before = self.state.expected().get(&label).filter(|expected| expected.leaf == leaf);
                        let new = Expected { leaf, since, searched: 0, found: None };
                        expected.insert(label.clone(), before.copied().unwrap_or(new));
                    }
                }
            }
        }
        self.state.expect(expected);
        Ok(held)
    }

    fn promises_of(&self, path: &Path) -> anyhow::Result<Vec<Promise>> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {
                let bundle = read_bounded(path, MAX_BUNDLE_LEN)?;
                let bundle: ReceiptBundle = serde_json::from_slice(&bundle).context("file is not a receipt bundle")?;
                Ok(Promise::of_bundle(&bundle, self.policy)?)
            }
            Some("tlog-proof") => {
                let proof = read_bounded(path, MAX_TLOG_PROOF_LEN)?;
                let beside = path.with_extension("");
                let entry = beside.is_file().then(|| read_bounded(&beside, MAX_ENTRY_LEN)).transpose()?;
                Ok(vec![Promise::of_proof(&proof, entry.as_deref(), self.policy)?])
            }
            Some("entry") => Ok(vec![Promise::of_entry(&read_bounded(path, MAX_ENTRY_LEN)?)]),
            _ => bail!("name ends neither in .json, .tlog-proof nor .entry"),
        }
    }

    /// Compares the shown tree with everything that others hold.
    pub(super) async fn compare_others<T: TileSource>(&mut self, reader: &Reader<T>, held: Vec<Held>) -> anyhow::Result<()> {
        self.looked_for.extend([AlertName::CheckpointWithheld, AlertName::PromiseBroken]);
        let size = reader.checkpoint().tree_size();
        // What was too large to compare before, first.
        let (due, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.state.ahead).into_iter().partition(|(_, ahead)| size_of(&ahead.note) <= Some(size));
        self.state.ahead = waiting;
        for (label, ahead) in due {
            match verify_log_signature(self.policy, ahead.note.as_bytes()) {
                Ok(checkpoint) => self.compare(&label, checkpoint, None, reader).await?,
                // The policy's key changed since.
                Err(error) => self.seen.unusable.push((label, chain(&error))),
            }
        }
        for (label, checkpoint) in held {
            self.compare(&label, checkpoint, None, reader).await?;
        }
        let origin = reader.checkpoint().origin();
        let monitored = Digest::of(origin.as_bytes());
        let witnesses = self.args.witness_url.iter().map(|url| format!("{}/{monitored}", url.trim_end_matches('/')));
        let views: Vec<String> = self.args.also.iter().cloned().chain(witnesses).collect();
        for view in views {
            let source = Source::open(&view)?;
            if let Some(checkpoint) = self.fetch(&source, &view).await {
                self.compare(&view, checkpoint, Some(&source), reader).await?;
            }
        }
        self.judge_waiting()
    }

    /// Compares a checkpoint that the log signed with the tree it shows here.
    async fn compare<T: TileSource>(
        &mut self,
        label: &str,
        theirs: VerifiedCheckpoint,
        source: Option<&Source>,
        reader: &Reader<T>,
    ) -> anyhow::Result<()> {
        let ours = reader.checkpoint();
        if theirs.tree_size() <= ours.tree_size() {
            if self.compare_older(label, &theirs, reader).await? {
                self.seen.compared += 1;
            }
            return Ok(());
        }
        // A view with tiles can prove right away that the larger tree goes on from ours; a witness has none.
        if let Some(source) = source
            && let Ok(their_reader) = Reader::at(source, theirs.clone()).await
        {
            match prove(&their_reader, ours.tree_size(), ours.root_hash()).await {
                Ok(()) => self.seen.compared += 1,
                Err(NotOlder::Forked(proof)) => {
                    let root = root_of_first(&their_reader, ours.tree_size()).await.ok();
                    let proof = root.map(|root| (root, proof.as_slice()));
                    return self.observe_fork(label, ours, &theirs, proof);
                }
                // What is wrong with the view's tiles says nothing about the log.
                Err(NotOlder::Failed(_)) => {}
            }
        }
        let ahead = || Ahead { note: theirs.note().to_owned(), since: self.now };
        self.state.ahead.entry(label.to_owned()).or_insert_with(ahead);
        Ok(())
    }

    /// Judges what has been waited for.
    fn judge_waiting(&mut self) -> anyhow::Result<()> {
        let max_delay = self.args.max_merge_delay.as_secs();
        let now = self.now.as_secs();
        let is_late = |since: UnixTime| now.saturating_sub(since.as_secs()) >= max_delay;
        for (label, ahead) in self.state.ahead.clone() {
            if !is_late(ahead.since) {
                continue;
            }
            let theirs = size_of(&ahead.note).unwrap_or_default();
            let detail = format!("a checkpoint of {theirs} entries is known, and the log does not show as much");
            let Some(shown) = self.state.checkpoint.clone() else { continue };
            let evidence = self.evidence("rollback", &shown).checkpoint("held by others", ahead.note.as_bytes());
            self.observe_proven(AlertName::CheckpointWithheld, &label, detail, &evidence)?;
        }
        for (label, expected) in self.state.expected() {
            if expected.found.is_none() && is_late(expected.since) {
                let (leaf, since) = (expected.leaf, text::time(expected.since));
                let detail = format!("the entry with leaf hash {leaf}, handed in by {since}, is not in the log");
                self.observations.push(Observation::of(AlertName::PromiseBroken, label, detail));
            }
        }
        Ok(())
    }
}

fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}

fn modified(path: &Path) -> Option<UnixTime> {
    let modified: SystemTime = fs::metadata(path).ok()?.modified().ok()?;
    Some(UnixTime::from(modified))
}

/// The file, or every file under the directory that promises something, in order of name.
fn list_files(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let what = || format!("{} was not read", path.display());
    if path.is_dir() {
        let mut inside = fs::read_dir(path).with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
        inside.sort_by_key(fs::DirEntry::file_name);
        for entry in inside {
            let path = entry.path();
            let ending = path.extension().and_then(|extension| extension.to_str());
            // A link could lead in a circle.
            let is_dir = entry.file_type().with_context(what)?.is_dir();
            if is_dir || matches!(ending, Some("json" | "tlog-proof" | "entry")) {
                list_files(&path, files)?;
            }
        }
        return Ok(());
    }
    if files.len() == MAX_EXPECTED_FILES {
        bail!("more than {MAX_EXPECTED_FILES} files are expected; split them over several --state directories");
    }
    files.push(path.to_owned());
    Ok(())
}
