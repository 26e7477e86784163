//! Files that are seen whole or not at all, and survive a crash of the machine once they are written.
//!
//! A file is written under a temporary name, synced, and moved into place; then its directory is synced.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whoever the umask lets.
    Any,
    /// Its owner only: it holds a secret.
    Owner,
}

/// Where a write can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Created,
    Written,
    Synced,
    Placed,
}

/// Writes a new file. Nothing is ever replaced: where there is a file, this fails with [`ErrorKind::AlreadyExists`].
///
/// Several processes may write the same file at once; one of them does. One that is killed may leave its temporary file.
pub(crate) fn create(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    create_in_steps(path, bytes, readers, |_| Ok(()))
}

/// Writes a file over the one that is there, if any. One process at a time may do so.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_in_steps(path, bytes, |_| Ok(()))
}

/// Makes what somebody else wrote into a directory survive a crash, in case they had not come to that.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn create_in_steps(path: &Path, bytes: &[u8], readers: Readers, mut step: impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    // A name of its own, for who else writes this file must not write into ours.
    let suffix = format!(".{:016x}.tmp", getrandom::u64().map_err(io::Error::other)?);
    let tmp = TmpFile(beside(path, &suffix)?);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == Readers::Owner {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = readers;
    write(options.open(&tmp.0)?, bytes, &mut step)?;
    // Unlike a rename, a link never replaces what is there.
    fs::hard_link(&tmp.0, path)?;
    drop(tmp);
    step(Step::Placed)?;
    sync_directory_of(path)
}

fn replace_in_steps(path: &Path, bytes: &[u8], mut step: impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    // One writer at a time, so a file that a crash left here is nobody's, and is written over. Collectors of metrics take
    // files that end in `.prom`, which this does not.
    let tmp = beside(path, ".tmp")?;
    write(File::create(&tmp)?, bytes, &mut step)?;
    fs::rename(&tmp, path)?;
    step(Step::Placed)?;
    sync_directory_of(path)
}

fn write(mut file: File, bytes: &[u8], step: &mut impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    step(Step::Created)?;
    file.write_all(bytes)?;
    step(Step::Written)?;
    file.sync_all()?;
    step(Step::Synced)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name = OsString::from(path.file_name().ok_or(ErrorKind::InvalidInput)?);
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// A temporary file, removed on drop: a full disk must not fill up further with what did not get into place.
struct TmpFile(PathBuf);

impl Drop for TmpFile {
    fn drop(&mut self) {
        // It stays if that fails, in nobody's way.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 4] = [Step::Created, Step::Written, Step::Synced, Step::Placed];

    fn stop_at(stop: Step) -> impl FnMut(Step) -> io::Result<()> {
        move |step| if step == stop { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    #[test]
    fn a_replacement_leaves_the_old_or_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old").unwrap();
        for step in STEPS {
            replace_in_steps(&path, b"new", stop_at(step)).unwrap_err();
            let expected: &[u8] = if step == Step::Placed { b"new" } else { b"old" };
            assert_eq!(fs::read(&path).unwrap(), expected, "{step:?}");
            // What was left over is in nobody's way.
            replace(&path, b"old").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_is_there_whole_or_not_at_all() {
        for step in STEPS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("keys");
            create_in_steps(&path, b"new", Readers::Any, stop_at(step)).unwrap_err();
            assert_eq!(fs::read(&path).ok(), (step == Step::Placed).then(|| b"new".to_vec()), "{step:?}");
            let left = fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(left, usize::from(step == Step::Placed), "nothing else is left: {step:?}");
        }
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        create(&path, b"first", Readers::Owner).unwrap();
        assert_eq!(create(&path, b"second", Readers::Owner).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
