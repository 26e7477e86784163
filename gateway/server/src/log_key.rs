//! The log's signing key: a file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use fanlight_auditlog::Signer;
use fanlight_auditlog::note::VkeyError;

/// Hexadecimal digits of the seed, and a line end.
const MAX_KEY_FILE_LEN: u64 = 66;

/// Why the log's key was neither read nor made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogKeyError {
    /// The file was not read or written.
    #[error("log key file was not read or written")]
    Io(#[from] io::Error),
    /// The file does not hold 64 hexadecimal digits.
    #[error("log key file is damaged")]
    Damaged,
    /// The origin cannot be a key name.
    #[error("origin is not a key name")]
    Origin(#[source] VkeyError),
    /// The system gives no randomness.
    #[error("system gives no randomness")]
    Randomness(#[source] getrandom::Error),
}

/// Reads `DATA/private/log.key`, or makes it with mode 0600.
pub(crate) fn load_or_create(data: &Path, origin: &str) -> Result<Signer, LogKeyError> {
    let dir = data.join("private");
    let path = dir.join("log.key");
    let seed = match File::open(&path) {
        Ok(file) => read(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_private_dir(&dir)?;
            create(&dir, &path)?
        }
        Err(error) => return Err(error.into()),
    };
    Signer::new(origin, &seed).map_err(LogKeyError::Origin)
}

fn read(file: File) -> Result<[u8; 32], LogKeyError> {
    let mut text = String::new();
    file.take(MAX_KEY_FILE_LEN).read_to_string(&mut text)?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut seed).map_err(|_| LogKeyError::Damaged)?;
    Ok(seed)
}

fn create(dir: &Path, path: &Path) -> Result<[u8; 32], LogKeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(LogKeyError::Randomness)?;
    // Whole or not at all: a key cut short by a crash would leave a log that nobody can sign.
    let unfinished = dir.join("log.key.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(format!("{}\n", hex::encode(seed)).as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(dir)?.sync_all()?;
    Ok(seed)
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let made = load_or_create(data.path(), "log.example/a").unwrap();
        let read = load_or_create(data.path(), "log.example/a").unwrap();
        assert_eq!(made.verifier_key().to_string(), read.verifier_key().to_string());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let permissions = fs::metadata(data.path().join("private/log.key")).unwrap().permissions().mode();
            assert_eq!(permissions & 0o777, 0o600);
        }
        fs::write(data.path().join("private/log.key"), "abc").unwrap();
        assert!(matches!(load_or_create(data.path(), "log.example/a"), Err(LogKeyError::Damaged)));
    }
}
