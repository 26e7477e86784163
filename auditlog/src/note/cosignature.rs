//! Timestamped cosignatures of checkpoints (C2SP tlog-cosignature).
//!
//! ```text
//! body of the line   time (8, big-endian, seconds since 1970) ‖ signature
//! Ed25519 signs      "cosignature/v1\ntime " ‖ decimal time ‖ "\n" ‖ text
//! ML-DSA-44 signs    "subtree/v1\n\0" ‖ length (1) ‖ cosigner's name ‖ time (8) ‖ length (1) ‖ origin
//!                    ‖ start (8) ‖ end (8) ‖ root (32)
//! ```
//! The start is 0 and the end is the tree size. ML-DSA-44 does not cover extension lines; Ed25519 not the cosigner's name.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::key::{KeyType, VerifierKey, VkeyError};
use super::line::SignatureLine;
use super::secret::SecretKey;
use super::{Note, NoteError};
use crate::checkpoint::Checkpoint;

/// The latest time that a cosignature can have.
const MAX_TIME: u64 = i64::MAX.unsigned_abs();

/// The private key of a cosigner: Ed25519 (0x04) or ML-DSA-44 (0x06) under its name.
///
/// A cosigner says that the checkpoint goes on from every other one of the log that it has seen, and that at the time
/// no larger one was known to it. Checking that is the caller's part.
pub struct CosignerKey {
    secret: SecretKey,
}

impl CosignerKey {
    /// The cosigner with this Ed25519 seed (RFC 8032 §5.1.5). It must be secret, random, and no other cosigner's, since
    /// these cosignatures do not cover the name.
    pub fn ed25519(name: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        Ok(Self { secret: SecretKey::new(name, KeyType::Cosignature, seed)? })
    }

    /// The cosigner with this ML-DSA-44 seed (FIPS 204 §5.1), which must be secret and random.
    pub fn ml_dsa_44(name: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        Ok(Self { secret: SecretKey::new(name, KeyType::MlDsa44, seed)? })
    }

    /// Parses a private key in the form that note tools share: `PRIVATE+KEY+<name>+<key id>+<base64(type ‖ seed)>` with the
    /// type 0x04 or 0x06. A newline at the end is fine.
    pub fn parse_private_key(text: &str) -> Result<Self, VkeyError> {
        let secret = SecretKey::parse(text.strip_suffix('\n').unwrap_or(text))?;
        if secret.key_type().is_for_witnesses() { Ok(Self { secret }) } else { Err(VkeyError::UnsupportedType) }
    }

    /// What [`Self::parse_private_key`] parses, without a newline at the end.
    pub fn write_private_key(&self) -> Zeroizing<String> {
        self.secret.write()
    }

    /// The public half.
    pub fn verifier_key(&self) -> VerifierKey {
        self.secret.verifier_key()
    }

    /// Cosigns a checkpoint at `time`, in seconds since 1970. The time 0 stands for none, which witnesses do not do.
    pub fn cosign(&self, checkpoint: &Checkpoint, time: u64) -> Result<SignatureLine, CosignError> {
        cosign(&self.secret, checkpoint, time)
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CosignerKey").field("name", &self.secret.name()).finish_non_exhaustive()
    }
}

pub(super) fn cosign(secret: &SecretKey, checkpoint: &Checkpoint, time: u64) -> Result<SignatureLine, CosignError> {
    if time > MAX_TIME {
        return Err(CosignError::TimeOutOfRange);
    }
    let message = message(secret.key_type(), secret.name(), time, checkpoint).ok_or(CosignError::OriginTooLong)?;
    let body = [time.to_be_bytes().as_slice(), &secret.sign(&message)].concat();
    Ok(SignatureLine::new(&secret.verifier_key(), body))
}

/// What a cosigner signs; `None` where a name is longer than the format's one byte of length can say, or for keys of logs.
fn message(key_type: KeyType, name: &str, time: u64, checkpoint: &Checkpoint) -> Option<Vec<u8>> {
    let with_length = |text: &str| Some([&[u8::try_from(text.len()).ok()?], text.as_bytes()].concat());
    match key_type {
        KeyType::Cosignature => Some(format!("cosignature/v1\ntime {time}\n{checkpoint}").into_bytes()),
        KeyType::MlDsa44 => Some(
            [
                b"subtree/v1\n\0".as_slice(),
                &with_length(name)?,
                &time.to_be_bytes(),
                &with_length(checkpoint.origin())?,
                &0u64.to_be_bytes(),
                &checkpoint.tree_size().to_be_bytes(),
                checkpoint.root_hash().as_bytes(),
            ]
            .concat(),
        ),
        KeyType::Ed25519 | KeyType::EcdsaP256 => None,
    }
}

impl SignatureLine {
    /// Checks that the line is the cosignature of a checkpoint by `key`, and returns its time in seconds since 1970.
    ///
    /// The time is 0 where the cosigner states none, as a log does that signs its own checkpoint with ML-DSA-44.
    pub fn verify_cosignature(&self, key: &VerifierKey, checkpoint: &Checkpoint) -> Result<u64, NoteError> {
        if !self.is_of(key) {
            return Err(NoteError::NotSigned);
        }
        let verified = || {
            let (time, signature) = self.body().split_first_chunk()?;
            let time = u64::from_be_bytes(*time);
            let message = message(key.key_type(), key.name(), time, checkpoint)?;
            (time <= MAX_TIME && key.verifies(&message, signature)).then_some(time)
        };
        verified().ok_or(NoteError::BadSignature)
    }
}

impl Note {
    /// Checks the cosignature of `key` and returns its time in seconds since 1970; of several, the latest.
    ///
    /// One that does not verify refuses the whole note, even beside one that does, and so does a text that is not a
    /// checkpoint: [`NoteError::BadSignature`].
    pub fn verify_cosignature(&self, key: &VerifierKey) -> Result<u64, NoteError> {
        let mut latest = None;
        for line in self.lines_of(key) {
            let checkpoint = Checkpoint::parse(self.text()).map_err(|_| NoteError::BadSignature)?;
            latest = latest.max(Some(line.verify_cosignature(key, &checkpoint)?));
        }
        latest.ok_or(NoteError::NotSigned)
    }
}

/// Why a cosigner cannot cosign a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CosignError {
    /// ML-DSA-44 cosignatures are for origins of at most 255 bytes.
    #[error("origin longer than 255 bytes")]
    OriginTooLong,
    /// The time is later than 2^63 - 1.
    #[error("time out of range")]
    TimeOutOfRange,
}
