//! A simulated enclave: ordinary keys in a file and in memory. It protects nothing, and says so.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanlight_protocol::entry::IdentityKey;
use fanlight_sealing::SoftwareDh;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use zeroize::Zeroizing;

use super::{Enclave, KemKey, SignError};
use crate::receipts::sync_parent;

/// Why the simulated enclave could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatedEnclaveError {
    /// The key file cannot be read or made.
    #[error("open the identity key {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others on this machine can read the key file.
    #[error("trust {path}: others can read it; run `chmod 600 {path}` or remove it to enrol anew")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a P-256 private key.
    #[error("read {path}: it is not an identity key; restore it, or remove it to enrol anew")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("get randomness from the system")]
    Randomness,
}

/// Software keys behind the [`Enclave`] seam. The identity key is a file of 64 hexadecimal digits, mode 0600.
pub struct SimulatedEnclave {
    key: SigningKey,
    identity: IdentityKey,
}

impl SimulatedEnclave {
    /// Opens the identity key at `path`, or makes one there.
    ///
    /// # Errors
    /// [`SimulatedEnclaveError`] by variant. A file that is there is never overwritten.
    pub fn open(path: &Path) -> Result<Self, SimulatedEnclaveError> {
        let io_error = |source| SimulatedEnclaveError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = random_scalar()?;
                // Written aside and then named, so that a crash leaves a whole key or none.
                let draft = path.with_extension("new");
                let _ = fs::remove_file(&draft);
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(io_error)?;
                let text = Zeroizing::new(hex::encode(secret.as_slice()));
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error)?;
                // Linking, unlike renaming, never replaces a key that another process made meanwhile.
                fs::hard_link(&draft, path).and_then(|()| fs::remove_file(&draft)).map_err(io_error)?;
                sync_parent(path).map_err(io_error)?;
                Self::from_secret(&secret).ok_or_else(|| SimulatedEnclaveError::NotAKey { path: path.to_owned() })
            }
            Err(error) => Err(io_error(error)),
        }
    }

    fn load(path: &Path, file: File) -> Result<Self, SimulatedEnclaveError> {
        let io_error = |source| SimulatedEnclaveError::Io { path: path.to_owned(), source };
        let mode = fs::Permissions::mode(&file.metadata().map_err(io_error)?.permissions());
        if mode & 0o077 != 0 {
            return Err(SimulatedEnclaveError::Exposed { path: path.to_owned() });
        }
        let not_a_key = || SimulatedEnclaveError::NotAKey { path: path.to_owned() };
        let mut text = Zeroizing::new(String::new());
        // One byte more than a key with its newline, so that a longer file is seen as such.
        file.take(66).read_to_string(&mut text).map_err(|_| not_a_key())?;
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_end(), secret.as_mut_slice()).map_err(|_| not_a_key())?;
        Self::from_secret(&secret).ok_or_else(not_a_key)
    }

    fn from_secret(secret: &[u8; 32]) -> Option<Self> {
        let key = SigningKey::from_slice(secret).ok()?;
        let point = key.verifying_key().to_sec1_point(false);
        let identity = IdentityKey::from_sec1(point.as_bytes().try_into().ok()?).ok()?;
        Some(Self { key, identity })
    }
}

impl Enclave for SimulatedEnclave {
    fn identity(&self) -> &IdentityKey {
        &self.identity
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature: Signature = self.key.try_sign(message).map_err(|_| SignError)?;
        Ok(signature.to_bytes().into())
    }

    fn new_kem_key(&self) -> Result<KemKey, SignError> {
        let secret = random_scalar().map_err(|_| SignError)?;
        let key = SoftwareDh::from_bytes(&secret).map_err(|_| SignError)?;
        Ok(Arc::new(key))
    }

    fn claims(&self) -> BTreeMap<String, String> {
        let claims = [("arch", std::env::consts::ARCH), ("key_store", "simulated enclave"), ("os", std::env::consts::OS)];
        claims.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl std::fmt::Debug for SimulatedEnclave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedEnclave").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A uniform non-zero scalar: random bytes until they are one. They fail once in 2^32 times.
fn random_scalar() -> Result<Zeroizing<[u8; 32]>, SimulatedEnclaveError> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| SimulatedEnclaveError::Randomness)?;
        if SigningKey::from_slice(bytes.as_slice()).is_ok() {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_outlives_the_process_and_an_exposed_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let first = SimulatedEnclave::open(&path).unwrap().identity().provider_id();
        assert_eq!(SimulatedEnclave::open(&path).unwrap().identity().provider_id(), first);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SimulatedEnclave::open(&path), Err(SimulatedEnclaveError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(SimulatedEnclave::open(&path), Err(SimulatedEnclaveError::NotAKey { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"not a key", "a bad file is left as it is");
    }
}
