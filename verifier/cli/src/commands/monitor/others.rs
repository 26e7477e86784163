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
use fanlight_verifier::monitor::{Ahead, AlertName, Expected, MAX_AHEAD, Observation, Promise};

use super::contradiction::{Compared, NotOlder, prove};
use super::round::Round;
use crate::outcome::chain;
use crate::policy::read_bounded;
use crate::source::Source;
use crate::text;

/// Files that `--expect` takes.
const MAX_EXPECTED_FILES: usize = 65_536;

/// A checkpoint that the log signed, and who holds it.
type Held = (String, VerifiedCheckpoint);

impl Round<'_> {
    /// Reads what `--expect` names, as far as it is of the log of this origin. Awaited entries become part of the state, to
    /// be looked for among the entries; checkpoints are returned, to be compared once those are read.
    pub(super) fn take_promises(&mut self, origin: &str) -> Vec<Held> {
        let mut files = Vec::new();
        for path in &self.args.expect {
            if let Err(error) = list_files(path, &mut files) {
                self.seen.unusable.push((path.display().to_string(), format!("{error:#}")));
            }
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
            for promise in Promise::of_origin(promises, origin) {
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
        held
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

    /// Compares the log's tree with everything that others hold.
    pub(super) async fn compare_others<T: TileSource>(
        &mut self,
        shown: &VerifiedCheckpoint,
        reader: &Reader<T>,
        held: Vec<Held>,
    ) {
        self.looked_for.extend([AlertName::CheckpointWithheld, AlertName::PromiseBroken]);
        // What was too large to compare before, first.
        for (holder, ahead) in self.state.due(shown.tree_size()) {
            match self.policy.verify_log_signature(ahead.note.as_bytes()) {
                Ok(checkpoint) if checkpoint.origin() != shown.origin() => {}
                Ok(checkpoint) => {
                    let compared = self.compare_older(&holder, &checkpoint, reader).await;
                    self.conclude(&holder, ahead, compared);
                }
                // The policy's key changed since.
                Err(error) => self.seen.unusable.push((holder, chain(&error))),
            }
        }
        for (holder, checkpoint) in held {
            self.compare(&holder, &checkpoint, None, reader).await;
        }
        for view in self.views(shown.origin()) {
            if let Some(source) = self.open(&view, &view).await
                && let Some(checkpoint) = self.fetch(&source, &view).await
            {
                self.compare(&view, &checkpoint, Some(&source), reader).await;
            }
        }
        self.judge_waiting(shown);
    }

    /// What the command line calls other views of the log.
    pub(super) fn views(&self, origin: &str) -> Vec<String> {
        let monitored = Digest::of(origin.as_bytes());
        let witnesses = self.args.witness_url.iter().map(|url| format!("{}/{monitored}", url.trim_end_matches('/')));
        self.args.also.iter().cloned().chain(witnesses).collect()
    }

    /// Compares a checkpoint that the log signed with the tree that was read here.
    async fn compare<T: TileSource>(
        &mut self,
        holder: &str,
        theirs: &VerifiedCheckpoint,
        source: Option<&Source>,
        reader: &Reader<T>,
    ) {
        let ours = reader.checkpoint();
        let ahead = Ahead { note: theirs.note().to_owned(), since: self.now };
        if theirs.tree_size() <= ours.tree_size() {
            let compared = self.compare_older(holder, theirs, reader).await;
            return self.conclude(holder, ahead, compared);
        }
        // A view with tiles can prove right away that the larger tree goes on from ours; a witness has none.
        if let Some(source) = source
            && let Ok(their_reader) = Reader::at(source, theirs.clone()).await
        {
            match prove(&their_reader, ours).await {
                Ok(()) => self.seen.compared += 1,
                Err(NotOlder::Forked(proof)) => return self.observe_fork(holder, ours, &their_reader, &proof).await,
                // What is wrong with the view's tiles says nothing about the log.
                Err(NotOlder::Failed(_)) => {}
            }
        }
        self.wait_for(holder, ahead);
    }

    fn conclude(&mut self, holder: &str, ahead: Ahead, compared: Compared) {
        match compared {
            Compared::Consistent => self.seen.compared += 1,
            Compared::Forked => {}
            // It may be the only trace of a fork.
            Compared::Failed => self.wait_for(holder, ahead),
        }
    }

    /// Keeps a checkpoint until it can be compared. `holder` is empty for what the log itself showed.
    pub(super) fn wait_for(&mut self, holder: &str, ahead: Ahead) {
        if !self.state.wait_for(holder, ahead) {
            let detail = format!("more than {MAX_AHEAD} checkpoints wait to be compared");
            self.observe(AlertName::StateFull, holder, detail);
        }
    }

    /// Judges what has been waited for.
    pub(super) fn judge_waiting(&mut self, shown: &VerifiedCheckpoint) {
        let max_delay = self.args.max_merge_delay.as_secs();
        let now = self.now.as_secs();
        let is_late = |since: UnixTime| now.saturating_sub(since.as_secs()) >= max_delay;
        let is_withheld = |ahead: &&Ahead| ahead.tree_size() > shown.tree_size() && is_late(ahead.since);
        let withheld: Vec<(String, Ahead)> = self
            .state
            .ahead()
            .iter()
            .filter_map(|(holder, waiting)| {
                let largest = waiting.iter().filter(is_withheld).max_by_key(|ahead| ahead.tree_size())?;
                Some((holder.clone(), largest.clone()))
            })
            .collect();
        for (holder, ahead) in withheld {
            let theirs = ahead.tree_size();
            let detail = format!("a checkpoint of {theirs} entries is known, and the log does not show as much");
            let role = if holder.is_empty() { "seen before" } else { "held by others" };
            let evidence = self.evidence("rollback", shown).checkpoint(role, ahead.note.as_bytes());
            self.observe_proven(AlertName::CheckpointWithheld, &holder, detail, &evidence);
        }
        for (label, expected) in self.state.expected() {
            if expected.found.is_none() && is_late(expected.since) {
                let (leaf, since) = (expected.leaf, text::time(expected.since));
                let detail = format!("the entry with leaf hash {leaf}, handed in by {since}, is not in the log");
                self.observations.push(Observation::of(AlertName::PromiseBroken, label, detail));
            }
        }
    }
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
