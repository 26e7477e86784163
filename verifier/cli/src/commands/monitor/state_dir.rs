//! The directory of a monitor's state.
//!
//! ```text
//! state            what is remembered; replaced as a whole
//! lock             held with flock(2) by the one monitor
//! evidence/        what proves that the log misbehaved, for good
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fanlight_auditlog::Policy;
use fanlight_protocol::UnixTime;
use fanlight_verifier::monitor::{MAX_STATE_LEN, State};

use crate::evidence::Evidence;
use crate::policy::read_bounded;

const STATE_FILE: &str = "state";
const LOCK_FILE: &str = "lock";
const EVIDENCE_DIR: &str = "evidence";

/// Evidence files that are kept. A log that earns more of them has been found out long ago.
const MAX_EVIDENCE_FILES: usize = 256;

/// An open state directory; no other monitor has it open.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    // The flock lasts until this is dropped, or the process is killed.
    _lock: File,
}

/// Where a replacement can be interrupted. A file is the old or the new one at each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Created,
    Written,
    Synced,
    Renamed,
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
        replace(&path, &bytes, |_| Ok(())).with_context(|| format!("{} was not written", path.display()))
    }

    /// Keeps what proves an alert, each evidence once. Returns the file's path, or nothing when there is too much of it.
    pub(super) fn keep_evidence(&self, evidence: &Evidence, error: &str, now: UnixTime) -> anyhow::Result<Option<String>> {
        let directory = self.path.join(EVIDENCE_DIR);
        let what = || format!("evidence was not written to {}", directory.display());
        if fs::read_dir(&directory).with_context(what)?.count() >= MAX_EVIDENCE_FILES {
            return Ok(None);
        }
        let path = evidence.write(&directory, error, now).with_context(what)?;
        Ok(Some(path.display().to_string()))
    }
}

/// Writes a file that readers see as a whole, the old one or this: for who collects metrics.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    replace(path, bytes, |_| Ok(())).with_context(|| format!("{} was not written", path.display()))
}

/// Writes beside the file, syncs, renames over it, and syncs the directory. `step` hears of every point at which a
/// crash leaves another picture.
fn replace(path: &Path, bytes: &[u8], mut step: impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    // One writer by the lock, so a file that a crash left here is nobody's, and is written over. Collectors of metrics
    // take files that end in `.prom`, which this does not.
    let mut tmp_name = name.to_owned();
    tmp_name.push(".tmp");
    let tmp = directory.join(tmp_name);
    let mut file = File::create(&tmp)?;
    step(Step::Created)?;
    file.write_all(bytes)?;
    step(Step::Written)?;
    file.sync_all()?;
    step(Step::Synced)?;
    fs::rename(&tmp, path)?;
    step(Step::Renamed)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_at_any_step_leaves_the_old_or_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old", |_| Ok(())).unwrap();
        let steps = [Step::Created, Step::Written, Step::Synced, Step::Renamed];
        for crash_at in steps {
            let stopped = replace(&path, b"new", |step| if step == crash_at { Err(ErrorKind::Other.into()) } else { Ok(()) });
            stopped.unwrap_err();
            let expected: &[u8] = if crash_at == Step::Renamed { b"new" } else { b"old" };
            assert_eq!(fs::read(&path).unwrap(), expected, "{crash_at:?}");
            // What was left over is in nobody's way.
            replace(&path, b"old", |_| Ok(())).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
    }

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
    fn evidence_is_kept_once_and_not_without_end() {
        const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let keep = |n: usize| {
            let evidence = Evidence::new("fork", "log").of_log("log.example", n as u64);
            state.keep_evidence(&evidence, "it forked", NOW).unwrap()
        };
        let first = keep(0).unwrap();
        assert_eq!(keep(0).as_ref(), Some(&first));
        for n in 1..MAX_EVIDENCE_FILES {
            assert!(keep(n).is_some(), "{n}");
        }
        assert_eq!(keep(MAX_EVIDENCE_FILES), None);
    }
}
