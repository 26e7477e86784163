//! One look at a log: what it shows now, against everything that was seen before.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::pin;

use anyhow::bail;
use fanlight_auditlog::policy::PolicyViolation;
use fanlight_auditlog::reader::ReadError;
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::{Policy, Reader, TileSource, VerifiedCheckpoint, leaf_hash};
use fanlight_protocol::UnixTime;
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;
use fanlight_verifier::history::{Limits, Search};
use fanlight_verifier::monitor::{Alert, AlertName, Freshness, MAX_OPEN, Observation, State};
use futures_util::TryStreamExt as _;

use super::args::MonitorArgs;
use super::state_dir::StateDir;
use crate::commands::progress_bar;
use crate::outcome::chain;
use crate::source::Source;
use crate::text;

/// Entries after which the state is saved while a long log is read, so that an interrupted run goes on from there.
const SAVE_EVERY: u64 = 1 << 16;

/// A look in progress.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) args: &'a MonitorArgs,
    pub(super) policy: &'a Policy,
    pub(super) dir: &'a StateDir,
    pub(super) state: &'a mut State,
    pub(super) now: UnixTime,
    pub(super) observations: Vec<Observation>,
    // Alerts whose cause was looked for, so that those not observed are over.
    pub(super) looked_for: BTreeSet<AlertName>,
    // Views whose checkpoint was not read; of those nothing is known that could be over.
    pub(super) unread: BTreeSet<String>,
    // The checkpoint that the log shows, once it is verified.
    pub(super) shown: Option<VerifiedCheckpoint>,
    pub(super) seen: Seen,
}

/// What one look saw, beside alerts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Entries that are new since the last one.
    pub(super) new_entries: u64,
    /// Age of the checkpoint, as far as it is known.
    pub(super) freshness: Option<Freshness>,
    /// Checkpoints of others that were compared.
    pub(super) compared: u64,
    /// Files and views of which nothing could be checked, each with why.
    pub(super) unusable: Vec<(String, String)>,
    /// Whether the log itself was checked to its end.
    pub(super) complete: bool,
}

impl Round<'_> {
    /// Looks at the log. What is wrong with it is observed; an error is a failure of this machine.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let unjudged_before = self.state.ledger.census().unjudged;
        let dropped_before = self.state.alerts.n_dropped();
        self.check_clock();
        self.unread.insert(String::new());
        let origin = self.state.checkpoint.as_ref().map(|checkpoint| checkpoint.origin().to_owned());
        self.unread.extend(origin.map(|origin| self.views(&origin)).unwrap_or_default());
        self.look_at_log().await?;
        let unjudged = self.state.ledger.census().unjudged;
        if unjudged > unjudged_before {
            let detail = format!("{unjudged} entries in all were not judged");
            self.observations.push(Observation::of_log(AlertName::StateFull, detail));
        }
        self.looked_for.extend([AlertName::Unreadable, AlertName::ClockWrong]);
        let observations = std::mem::take(&mut self.observations);
        let Self { looked_for, unread, .. } = self;
        let of_view = |alert: &Alert| matches!(alert.name, AlertName::BadSignature | AlertName::Unreadable);
        let is_looked_for =
            |alert: &Alert| looked_for.contains(&alert.name) && !(of_view(alert) && unread.contains(&alert.subject));
        self.state.alerts.settle(observations, is_looked_for, self.now);
        // Only now is it known.
        if self.state.alerts.n_dropped() > dropped_before {
            let detail = format!("more than {MAX_OPEN} alerts of one severity are open, and those that are new are not listed");
            self.state.alerts.observe(Observation::of_log(AlertName::StateFull, detail), self.now);
        }
        self.state.last_run = self.now;
        let last_success = self.state.last_success;
        if self.seen.complete && self.seen.unusable.is_empty() {
            self.state.last_success = Some(self.now);
        }
        // What was found is told in any case; what is not saved is found again.
        if let Err(error) = self.dir.save(self.state) {
            self.state.last_success = last_success;
            self.seen.unusable.push((self.args.state.display().to_string(), format!("{error:#}")));
        }
        Ok(())
    }

    pub(super) fn observe(&mut self, name: AlertName, subject: &str, detail: impl Into<String>) {
        self.observations.push(Observation::of(name, subject, detail));
    }

    fn check_clock(&mut self) {
        let (now, before) = (self.now.as_secs(), self.state.last_run.as_secs());
        if now.saturating_add(CLOCK_TOLERANCE_SECS) < before {
            let detail = format!("the clock went back by {} s since the last run", before - now);
            self.observe(AlertName::ClockWrong, "", detail);
        }
    }

    async fn look_at_log(&mut self) -> anyhow::Result<()> {
        let args = self.args;
        let Some(source) = self.open(&args.log, "").await else { return Ok(()) };
        let Some(shown) = self.fetch(&source, "").await else { return Ok(()) };
        self.shown = Some(shown.clone());
        self.looked_for.extend([AlertName::Rollback, AlertName::Stale]);
        self.check_age(&shown);
        let Some(reader) = self.tree_to_read(&source, &shown).await else { return Ok(()) };
        self.looked_for.insert(AlertName::Damaged);
        if !self.goes_on(&reader).await? {
            return Ok(());
        }
        self.state.checkpoint = Some(reader.checkpoint().clone());
        let held = self.take_promises(shown.origin());
        if let Err(error) = self.read_new(&reader).await? {
            self.observe_failure(&error).await;
            return Ok(());
        }
        if let Err(error) = self.look_back(&reader).await {
            self.observe_failure(&error).await;
            return Ok(());
        }
        self.seen.complete = true;
        self.compare_others(&shown, &reader, held).await;
        let standing = self.state.standing(self.args.gap_grace.as_secs(), self.now);
        self.observations.extend(standing);
        self.looked_for.extend(State::standing_names());
        Ok(())
    }

    /// Opens a view of the log. One that is not there now may be the next time, like a disk that is mounted late, or a
    /// machine's role that is told late.
    pub(super) async fn open(&mut self, view: &str, subject: &str) -> Option<Source> {
        match self.args.stores.open(view).await {
            Ok(source) => Some(source),
            Err(error) => {
                self.observe(AlertName::Unreadable, subject, format!("{error:#}"));
                None
            }
        }
    }

    /// Fetches and verifies a checkpoint of the log; `subject` is the view that shows it, empty for the log itself.
    pub(super) async fn fetch(&mut self, source: &Source, subject: &str) -> Option<VerifiedCheckpoint> {
        let note = match source.get(CHECKPOINT_KEY).await {
            Ok(Some(note)) => note,
            Ok(None) => {
                self.observe(AlertName::Unreadable, subject, "there is no checkpoint");
                return None;
            }
            Err(error) => {
                self.observe(AlertName::Unreadable, subject, chain(&error));
                return None;
            }
        };
        self.unread.remove(subject);
        self.looked_for.insert(AlertName::BadSignature);
        if subject.is_empty() {
            self.looked_for.insert(AlertName::QuorumLost);
        }
        let verified = match self.policy.verify_checkpoint(&note) {
            Ok(checkpoint) => Some(checkpoint),
            Err(violation) => {
                // What the log signed binds it, whoever witnessed it.
                let signed = self.policy.verify_log_signature(&note).ok();
                let no_quorum = matches!(violation, PolicyViolation::NoQuorum);
                match (no_quorum, subject.is_empty()) {
                    (true, true) => self.observe(AlertName::QuorumLost, subject, violation.to_string()),
                    // Other views need no quorum: they are held against the log's own word.
                    (true, false) => {}
                    (false, _) => self.observe(AlertName::BadSignature, subject, chain(&violation)),
                }
                signed
            }
        };
        let origin = self.state.checkpoint.as_ref().map(VerifiedCheckpoint::origin);
        if let (Some(origin), Some(shown)) = (origin, &verified)
            && origin != shown.origin()
        {
            let detail = format!("the checkpoint is of {}, not of {origin}", shown.origin());
            self.observe(AlertName::BadSignature, subject, detail);
            return None;
        }
        verified
    }

    fn check_age(&mut self, shown: &VerifiedCheckpoint) {
        let freshness = Freshness::of(shown, self.policy);
        self.seen.freshness = Some(freshness);
        if freshness.is_ahead_of(self.now) {
            self.observe(AlertName::ClockWrong, "", "a witness cosigned at a time that is still to come here");
        }
        let Some(max_age) = self.args.max_age else { return };
        match freshness.is_older_than(max_age.as_secs(), self.now) {
            Some(true) => {
                let vouched = text::time(freshness.vouched.unwrap_or(self.now));
                self.observe(AlertName::Stale, "", format!("the quorum last cosigned at {vouched}"));
            }
            None if self.policy.witnesses().next().is_some() => {
                self.observe(AlertName::Stale, "", "no quorum of the policy's witnesses cosigned");
            }
            _ => {}
        }
    }

    /// Reads what is new. The outer error is of this machine, the inner one of the log.
    async fn read_new<T: TileSource>(&mut self, reader: &Reader<T>) -> anyhow::Result<Result<(), ReadError>> {
        let (start, size) = (self.state.edge.size(), reader.checkpoint().tree_size());
        let bar = progress_bar(size - start);
        let mut entries = pin!(reader.entries(start..size));
        let read = loop {
            match entries.try_next().await {
                Ok(Some((index, entry))) => {
                    self.state.take(&entry, &Limits::BOUNDED, self.now);
                    bar.set_position(index + 1 - start);
                    if (index + 1).is_multiple_of(SAVE_EVERY) {
                        // One that fails is told at the end, if that fails as well.
                        self.dir.save(self.state).ok();
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        bar.finish_and_clear();
        self.seen.new_entries = self.state.edge.size() - start;
        self.state.searched_from(start);
        // Each entry was checked against the tree and the tree against what was seen, so this is one check too many.
        if read.is_ok() && self.state.edge.root() != reader.checkpoint().root_hash() {
            bail!("the entries do not lead to the checkpoint's root although each belongs to it: this is a defect here");
        }
        Ok(read)
    }

    /// Reads again what is no longer remembered, if anything asks for it.
    async fn look_back<T: TileSource>(&mut self, reader: &Reader<T>) -> Result<(), ReadError> {
        // What was read in earlier runs was never compared with what is expected since then.
        let mut search_expected = self.state.is_unsearched();
        let before = self.state.edge.size() - self.seen.new_entries;
        let mut is_first = true;
        loop {
            let mut search = self.state.search();
            let mut range = search.range();
            // What cannot wait takes the rest along.
            if search_expected {
                range = 0..range.end.max(before);
            } else if is_first && !self.state.may_search(&range, self.now) {
                return Ok(());
            }
            if range.is_empty() {
                break;
            }
            self.state.note_search(&range, self.now);
            self.read_again(reader, range, &mut search, search_expected).await?;
            // Who is found again may raise new questions, once.
            self.state.conclude(search, &Limits::BOUNDED, self.now);
            (search_expected, is_first) = (false, false);
        }
        self.state.searched();
        Ok(())
    }

    async fn read_again<T: TileSource>(
        &mut self,
        reader: &Reader<T>,
        range: Range<u64>,
        search: &mut Search,
        search_expected: bool,
    ) -> Result<(), ReadError> {
        let start = range.start;
        let bar = progress_bar(range.end - start);
        let mut entries = pin!(reader.entries(range));
        while let Some((index, entry)) = entries.try_next().await? {
            search.take(index, &entry, &self.state.ledger);
            if search_expected {
                self.state.find(leaf_hash(&entry), index);
            }
            bar.set_position(index - start);
            if search.is_done() && (!search_expected || self.state.is_all_found()) {
                break;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}
