//! Where the provider's keys live: the seam that a Secure Enclave fills.
//!
//! An [`Enclave`] never gives a private key away; it signs and agrees. Only [`SimulatedEnclave`] exists off the Mac, and
//! evidence made with it is graded `self-signed`.

mod simulated;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fanlight_protocol::entry::IdentityKey;
use fanlight_sealing::EnclaveDh;

pub use self::simulated::{SimulatedEnclave, SimulatedEnclaveError};

/// A signing operation failed.
#[derive(Debug, thiserror::Error)]
#[error("the enclave did not sign")]
pub struct SignError;

/// A KEM key that an [`Enclave`] made. Dropping the last handle deletes the key.
pub type KemKey = Arc<dyn EnclaveDh>;

/// Holds the identity key, and makes KEM keys that last until they are dropped.
pub trait Enclave: fmt::Debug + Send + Sync {
    /// The identity key, public half.
    fn identity(&self) -> &IdentityKey;

    /// ES256 with the identity key: `r ‖ s`. Callers pass only structures they built themselves (SPEC §7).
    ///
    /// # Errors
    /// [`SignError`] when the enclave refuses.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;

    /// Makes a KEM key.
    ///
    /// # Errors
    /// [`SignError`] when the enclave refuses.
    fn new_kem_key(&self) -> Result<KemKey, SignError>;

    /// What the provider says of itself in `self-signed` evidence: `os`, `arch`, `key_store`.
    fn claims(&self) -> BTreeMap<String, String>;
}
