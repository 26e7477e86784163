//! The file that holds a log's private key, for any store.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::note::{Signer, VkeyError};

/// Bytes of the longest key file: a name of 255 bytes, and a key of 33 in base64.
const MAX_KEY_FILE_LEN: u64 = 512;

/// Reads a log's private key, and warns of one that others than its owner can read.
pub fn read_key_file(path: &Path) -> Result<Signer, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(io)?;
    if is_exposed(&file.metadata().map_err(io)?) {
        tracing::warn!(path = %path.display(), "others on this machine can read the private key, which `chmod 600` ends");
    }
    file.take(MAX_KEY_FILE_LEN).read_to_string(&mut text).map_err(io)?;
    Signer::parse_private_key(text.trim_end()).map_err(|source| KeyFileError::Malformed { path: path.to_owned(), source })
}

/// Reads a log's private key, or creates the file with `seed` (mode 0600) if there is none.
///
/// An existing key must be named `origin`.
pub fn create_key_file(path: &Path, origin: &str, seed: &[u8; 32]) -> Result<Signer, KeyFileError> {
    match read_key_file(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        Ok(signer) if signer.verifier_key().name() != origin => return Err(KeyFileError::OtherOrigin { path: path.to_owned() }),
        other => return other,
    }
    let signer = Signer::new(origin, seed).map_err(|source| KeyFileError::Malformed { path: path.to_owned(), source })?;
    write_key_file(path, &signer)?;
    Ok(signer)
}

/// Whether group or world can read a file.
#[cfg(unix)]
fn is_exposed(metadata: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o044 != 0
}

#[cfg(not(unix))]
fn is_exposed(_metadata: &Metadata) -> bool {
    false
}

/// Writes a key under a temporary name and links it into place, so that no crash leaves half a key.
fn write_key_file(path: &Path, signer: &Signer) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    // The whole name and more: `prod.new` beside `prod.key` may be another key.
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".new");
    let tmp = PathBuf::from(tmp);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = match options.open(&tmp) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(KeyFileError::InTheWay { path: tmp }),
        file => file.map_err(io)?,
    };
    let written = write_and_link(file, &tmp, path, signer);
    // It is ours, whatever became of it.
    let removed = fs::remove_file(&tmp);
    written.and(removed).map_err(io)?;
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or_else(|| Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn write_and_link(mut file: File, tmp: &Path, path: &Path, signer: &Signer) -> io::Result<()> {
    writeln!(file, "{}", *signer.write_private_key())?;
    file.sync_all()?;
    fs::hard_link(tmp, path)
}

/// Why a private key file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A file stands where the key is written first: left by a crash, or not ours at all.
    #[error("{} is in the way of a new key file; move it, or remove it if nobody needs it", path.display())]
    InTheWay {
        /// That file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot use the key file {}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file holds no private key, or the origin is no name for one.
    #[error("bad key for {}", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: VkeyError,
    },
    /// The key belongs to a log of another origin.
    #[error("the key file {} is of another origin", path.display())]
    OtherOrigin {
        /// The key file.
        path: PathBuf,
    },
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_key_file(&path, "log.example/a", &[1; 32]).unwrap();
        for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_exposed(&path.metadata().unwrap()), exposed, "{mode:o}");
        }
    }
}
