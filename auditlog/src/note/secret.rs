//! Private keys in the form that note tools share.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use ml_dsa::{Keypair as _, MlDsa44};
use zeroize::Zeroizing;

use super::key::{KeyType, MAX_KEY_TEXT_LEN, VerifierKey, VkeyError, check_name, parse_id};

/// A private key under a name: `PRIVATE+KEY+<name>+<key id>+<base64(type (1) ‖ seed (32))>`.
pub(super) struct SecretKey {
    name: String,
    key_type: KeyType,
    algorithm: Algorithm,
}

enum Algorithm {
    // Boxed, for both hold more than the seed.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    MlDsa44(Box<ml_dsa::SigningKey<MlDsa44>>),
}

impl SecretKey {
    /// The key with this seed (RFC 8032 §5.1.5; FIPS 204 §5.1); [`VkeyError::UnsupportedType`] for a type that only verifies.
    pub(super) fn new(name: &str, key_type: KeyType, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        check_name(name)?;
        let algorithm = match key_type {
            KeyType::Ed25519 | KeyType::Cosignature => Algorithm::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed))),
            KeyType::MlDsa44 => Algorithm::MlDsa44(Box::new(ml_dsa::SigningKey::from_seed(seed.into()))),
            KeyType::EcdsaP256 => return Err(VkeyError::UnsupportedType),
        };
        Ok(Self { name: name.to_owned(), key_type, algorithm })
    }

    pub(super) fn parse(text: &str) -> Result<Self, VkeyError> {
        let mut parts = text.strip_prefix("PRIVATE+KEY+").ok_or(VkeyError::Malformed)?.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Malformed);
        };
        if key.len() > MAX_KEY_TEXT_LEN {
            return Err(VkeyError::Malformed);
        }
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| VkeyError::Malformed)?);
        let (key_type, seed) = key.split_first().ok_or(VkeyError::Malformed)?;
        let key_type = KeyType::of_byte(*key_type).ok_or(VkeyError::UnsupportedType)?;
        let parsed = Self::new(name, key_type, seed.try_into().map_err(|_| VkeyError::BadKey)?)?;
        if parse_id(id) == Some(parsed.verifier_key().id()) { Ok(parsed) } else { Err(VkeyError::WrongId) }
    }

    pub(super) fn write(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new(vec![self.key_type.byte()]);
        match &self.algorithm {
            Algorithm::Ed25519(secret) => key.extend_from_slice(secret.as_bytes()),
            Algorithm::MlDsa44(secret) => key.extend_from_slice(secret.as_seed()),
        }
        let key = Zeroizing::new(STANDARD.encode(&*key));
        Zeroizing::new(format!("PRIVATE+KEY+{}+{:08x}+{}", self.name, self.verifier_key().id(), *key))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn key_type(&self) -> KeyType {
        self.key_type
    }

    pub(super) fn verifier_key(&self) -> VerifierKey {
        let public_key: Vec<u8> = match &self.algorithm {
            Algorithm::Ed25519(secret) => secret.verifying_key().as_bytes().to_vec(),
            Algorithm::MlDsa44(secret) => secret.verifying_key().encode().to_vec(),
        };
        VerifierKey::new(&self.name, self.key_type, &public_key).expect("the name was checked, the key derived")
    }

    /// The signature of `message`, the same every time: ML-DSA in its deterministic variant, with an empty context.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.algorithm {
            Algorithm::Ed25519(secret) => secret.sign(message).to_bytes().to_vec(),
            Algorithm::MlDsa44(secret) => ml_dsa::Signer::sign(&**secret, message).encode().to_vec(),
        }
    }
}
