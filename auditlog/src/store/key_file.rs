//! The file that holds a log's private key, for any store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::note::{Signer, VkeyError};

/// Bytes of the longest key file: a name of 255 bytes, and a key of 33 in base64.
const MAX_KEY_FILE_LEN: u64 = 512;

/// Reads a log's private key.
pub fn read_key_file(path: &Path) -> Result<Signer, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    File::open(path).map_err(io)?.take(MAX_KEY_FILE_LEN).read_to_string(&mut text).map_err(io)?;
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
    write_key_file(path, &signer).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    Ok(signer)
}

/// Writes a key under a temporary name and links it into place, so that no crash leaves half a key.
fn write_key_file(path: &Path, signer: &Signer) -> io::Result<()> {
    let tmp = path.with_extension("new");
    match fs::remove_file(&tmp) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&tmp)?;
    writeln!(file, "{}", *signer.write_private_key())?;
    file.sync_all()?;
    fs::hard_link(&tmp, path)?;
    fs::remove_file(&tmp)?;
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or_else(|| Path::new("."));
    File::open(dir)?.sync_all()
}

/// Why a private key file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
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
