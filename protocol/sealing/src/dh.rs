//! The one operation of a KEM private key: P-256 ECDH. A Secure Enclave offers no more, so nothing here asks for more.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point as _;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Holds a KEM private key and computes with it, in hardware or not.
///
/// Everything else of HPKE (the DHKEM's extract-and-expand, the key schedule) is done outside, by one code path for every
/// implementation.
pub trait EnclaveDh: Send + Sync {
    /// The public key, an uncompressed SEC1 point.
    fn public_key(&self) -> &[u8; 65];

    /// `DH(sk, peer)` of RFC 9180 §4.1: the x-coordinate of the shared point, big-endian.
    ///
    /// # Errors
    /// [`EnclaveError::InvalidPeer`] when `peer` is not a point of the curve, or is the point at infinity;
    /// [`EnclaveError::Unavailable`] when the key cannot be used now.
    fn ecdh(&self, peer: &[u8; 65]) -> Result<Zeroizing<[u8; 32]>, EnclaveError>;
}

/// Why a key agreement gave no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnclaveError {
    /// The peer's public key is not a valid point: the peer is at fault.
    #[error("peer key is not a point of the curve")]
    InvalidPeer,
    /// The holder of the key did not answer: nobody outside is at fault.
    #[error("key agreement is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The bytes are not a key of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of the suite")]
pub struct InvalidKey;

/// A KEM private key in process memory. Its bytes are cleared when it is dropped.
pub struct SoftwareDh {
    secret: p256::SecretKey,
    public: [u8; 65],
}

impl SoftwareDh {
    /// A fresh key: 32 random bytes that are a scalar, drawn again in the 2^-32 of cases where they are none.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut scalar = Zeroizing::new([0; 32]);
        loop {
            rng.fill_bytes(scalar.as_mut_slice());
            if let Ok(key) = Self::from_bytes(&scalar) {
                return key;
            }
        }
    }

    /// From a private scalar, big-endian.
    ///
    /// # Errors
    /// [`InvalidKey`] unless the scalar is between 1 and the order of the curve.
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, InvalidKey> {
        p256::SecretKey::from_slice(scalar).map(Self::from_secret).map_err(|_| InvalidKey)
    }

    /// The private scalar, big-endian, for storage.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes().into())
    }

    /// `DH(sk, peer)`. Two valid keys always agree: the order of the curve is prime.
    pub(crate) fn agree(&self, peer: &PublicKey) -> Zeroizing<[u8; 32]> {
        let shared = p256::ecdh::diffie_hellman(self.secret.to_nonzero_scalar(), peer.point.as_affine());
        Zeroizing::new((*shared.raw_secret_bytes()).into())
    }

    fn from_secret(secret: p256::SecretKey) -> Self {
        let point = secret.public_key().to_sec1_point(false);
        let public = point.as_bytes().try_into().expect("an uncompressed P-256 point has 65 bytes");
        Self { secret, public }
    }
}

impl EnclaveDh for SoftwareDh {
    fn public_key(&self) -> &[u8; 65] {
        &self.public
    }

    fn ecdh(&self, peer: &[u8; 65]) -> Result<Zeroizing<[u8; 32]>, EnclaveError> {
        let peer = PublicKey::parse(peer).map_err(|InvalidKey| EnclaveError::InvalidPeer)?;
        Ok(self.agree(&peer))
    }
}

impl fmt::Debug for SoftwareDh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareDh").finish_non_exhaustive()
    }
}

/// A point of the curve, not the one at infinity, with its uncompressed encoding.
#[derive(Clone)]
pub(crate) struct PublicKey {
    point: p256::PublicKey,
    bytes: [u8; 65],
}

impl PublicKey {
    pub(crate) fn parse(bytes: &[u8; 65]) -> Result<Self, InvalidKey> {
        let point = p256::PublicKey::from_sec1_bytes(bytes).map_err(|_| InvalidKey)?;
        Ok(Self { point, bytes: *bytes })
    }

    pub(crate) const fn bytes(&self) -> &[u8; 65] {
        &self.bytes
    }
}
