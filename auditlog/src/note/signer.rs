//! The private key of a log.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;

use zeroize::Zeroizing;

use super::cosignature::cosign;
use super::is_plain;
use super::key::{KeyType, VerifierKey, VkeyError};
use super::line::SignatureLine;
use super::secret::SecretKey;
use crate::checkpoint::Checkpoint;

/// The private keys of a log: Ed25519 (0x01) under its origin and, if it has one, ML-DSA-44 (0x06) under the same name.
///
/// C2SP tlog-tiles and tlog-witness want the Ed25519 line; C2SP tlog-checkpoint recommends the other.
pub struct Signer {
    ed25519: SecretKey,
    ml_dsa_44: Option<SecretKey>,
}

impl Signer {
    /// The signer with this 32-byte Ed25519 seed (RFC 8032 §5.1.5), which must be secret and random.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        Ok(Self { ed25519: SecretKey::new(name, KeyType::Ed25519, seed)?, ml_dsa_44: None })
    }

    /// Adds the ML-DSA-44 key with this seed (FIPS 204 §5.1), which must be secret, random, and not the other one.
    #[must_use]
    pub fn with_ml_dsa_44(self, seed: &[u8; 32]) -> Self {
        let key = SecretKey::new(self.ed25519.name(), KeyType::MlDsa44, seed).expect("the name was checked");
        Self { ml_dsa_44: Some(key), ..self }
    }

    /// Parses private keys in the form that note tools share, one on a line: `PRIVATE+KEY+<name>+<key id>+<base64(0x01 ‖
    /// seed)>`, then, if the log has one, that of type 0x06 under the same name. A newline at the end is fine.
    pub fn parse_private_key(text: &str) -> Result<Self, VkeyError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let (ed25519, ml_dsa_44) = text.split_once('\n').map_or((text, None), |(first, second)| (first, Some(second)));
        let ed25519 = SecretKey::parse(ed25519)?;
        let ml_dsa_44 = ml_dsa_44.map(SecretKey::parse).transpose()?;
        let other_type = ml_dsa_44.as_ref().is_some_and(|key| key.key_type() != KeyType::MlDsa44);
        if ed25519.key_type() != KeyType::Ed25519 || other_type {
            return Err(VkeyError::UnsupportedType);
        }
        if ml_dsa_44.as_ref().is_some_and(|key| key.name() != ed25519.name()) {
            return Err(VkeyError::BadName);
        }
        Ok(Self { ed25519, ml_dsa_44 })
    }

    /// What [`Self::parse_private_key`] parses, without a newline at the end.
    pub fn write_private_key(&self) -> Zeroizing<String> {
        match &self.ml_dsa_44 {
            None => self.ed25519.write(),
            Some(key) => Zeroizing::new(format!("{}\n{}", *self.ed25519.write(), *key.write())),
        }
    }

    /// The public half of the Ed25519 key.
    pub fn verifier_key(&self) -> VerifierKey {
        self.ed25519.verifier_key()
    }

    /// The public half of the ML-DSA-44 key, if there is one.
    pub fn ml_dsa_44_key(&self) -> Option<VerifierKey> {
        self.ml_dsa_44.as_ref().map(SecretKey::verifier_key)
    }

    /// The note with this text and one signature, Ed25519's. The text must be one that [`Note::parse`](super::Note::parse)
    /// takes: it ends in a newline and holds no other control character.
    pub fn sign(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n') && is_plain(text), "only well-formed text is signed");
        let line = SignatureLine::new(&self.verifier_key(), self.ed25519.sign(text.as_bytes()));
        format!("{text}\n{line}\n")
    }

    /// The signed checkpoint, whose origin must be the keys' name, with a line of each key. That of ML-DSA-44 is without
    /// time: the log says what it is, not when.
    pub(crate) fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> String {
        let note = self.sign(&checkpoint.to_string());
        let Some(key) = &self.ml_dsa_44 else {
            return note;
        };
        let line = cosign(key, checkpoint, 0).expect("the origin is the key's name, and that fits");
        format!("{note}{line}\n")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.ed25519.name()).finish_non_exhaustive()
    }
}
