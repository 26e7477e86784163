//! The directory of a monitor's state.
//!
//! ```text
//! state            what is remembered; replaced as a whole
//! lock             held with flock(2) by the one monitor
//! evidence/fork/   what proves that the log misbehaved, for good; by what was found
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fanlight_auditlog::Policy;
use fanlight_protocol::UnixTime;
use fanlight_verifier::monitor::{MAX_STATE_LEN, State};

use crate::durable;
use crate::evidence::Evidence;
use crate::policy::read_bounded;

const STATE_FILE: &str = "state";
const LOCK_FILE: &str = "lock";
const EVIDENCE_DIR: &str = "evidence";

/// Evidence files that are kept of one finding, except of forks. Who can damage a log as it is read can do so at every
/// look.
const MAX_EVIDENCE_FILES: usize = 256;

/// The finding that the log signed contradictions.
const FORK: &str = "fork";

/// An open state directory; no other monitor has it open.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    // The flock lasts until this is dropped, or the process is killed.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, which is made if there is none.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("state directory {} was not opened", path.display());
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path.join(EVIDENCE_DIR)).with_context(what)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_FILE)).with_context(what)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another monitor is at work on {}: wait for it, or give this one a --state of its own", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(anyhow!(error).context(what())),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The state that was saved last; `None` when there never was one.
    ///
    /// One that is not readable is an error, never a new beginning: who could make a monitor forget could hide a fork.
    pub(super) fn load(&self, policy: &Policy) -> anyhow::Result<Option<State>> {
        let path = self.path.join(STATE_FILE);
        if !path.try_exists().with_context(|| format!("{} was not read", path.display()))? {
            return Ok(None);
        }
        let bytes = read_bounded(&path, MAX_STATE_LEN)?;
        let state = State::parse(&bytes, policy).with_context(|| {
            format!(
                "{} is not used: restore it from a backup, or move it away to start from nothing, which forgets every \
                 checkpoint seen so far and so whether the log was ever rewritten",
                path.display()
            )
        })?;
        Ok(Some(state))
    }

    /// Replaces the state. When this has returned, the state survives a crash of the machine.
    pub(super) fn save(&self, state: &State) -> anyhow::Result<()> {
        let bytes = state.to_bytes()?;
        let path = self.path.join(STATE_FILE);
        durable::replace(&path, &bytes).with_context(|| format!("{} was not written", path.display()))
    }

    /// Keeps what proves an alert, each evidence once. Returns the file's path, or nothing when there is too much of its
    /// kind.
    pub(super) fn keep_evidence(&self, evidence: &Evidence, error: &str, now: UnixTime) -> anyhow::Result<Option<String>> {
        let directory = self.path.join(EVIDENCE_DIR).join(evidence.finding());
        let keep = || {
            if !directory.exists() {
                fs::create_dir(&directory)?;
                durable::sync_directory_of(&directory)?;
            }
            // The log signed each fork, so that there is no end of them only if it wants to be found out.
            if evidence.finding() != FORK
                && fs::read_dir(&directory)?.count() >= MAX_EVIDENCE_FILES
                && !evidence.is_in(&directory, error, now)
            {
                return Ok(None);
            }
            evidence.write(&directory, error, now).map(Some)
        };
        let path: io::Result<Option<PathBuf>> = keep();
        let path = path.with_context(|| format!("evidence was not written to {}", directory.display()))?;
        Ok(path.map(|path| path.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_monitor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let refused = StateDir::open(dir.path()).unwrap_err().to_string();
        assert!(refused.starts_with("another monitor is at work on"), "{refused}");
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn evidence_is_kept_once_and_not_without_end_except_of_forks() {
        const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let keep = |finding, n: usize| {
            let evidence = Evidence::new(finding, "log").of_log("log.example", n as u64);
            state.keep_evidence(&evidence, "it is so", NOW).unwrap()
        };
        let first = keep("damage", 0).unwrap();
        assert_eq!(keep("damage", 0).as_ref(), Some(&first));
        for n in 1..MAX_EVIDENCE_FILES {
            assert!(keep("damage", n).is_some(), "{n}");
        }
        assert_eq!(keep("damage", MAX_EVIDENCE_FILES), None);
        // What is kept is still named, and what is worse is kept whatever else there is.
        assert_eq!(keep("damage", 0).as_ref(), Some(&first));
        assert!(keep("rollback", 0).is_some());
        for n in 0..=MAX_EVIDENCE_FILES {
            assert!(keep(FORK, n).is_some(), "{n}");
        }
    }
}
