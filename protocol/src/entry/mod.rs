//! Log entries: tagged COSE_Sign1 with one encoding each (SPEC §7).
//!
//! Bytes become a value in one step, [`Signed::verify`]-shaped: decode, check that the encoding is the only one, check
//! the signature. Nothing hands out a payload whose signature was not checked.

mod cbor;
mod evidence;
mod identity;
mod key_statement;
mod link_auth;
mod receipt;

use std::ops::Deref;

use coset::{CborSerializable, CoseSign1, Header, HeaderBuilder, Label, TaggedCborSerializable, iana};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Verifier;

pub use self::evidence::{Evidence, EvidenceKind, MAX_CLAIMS};
pub use self::identity::{IdentityKey, SPKI_LEN};
pub use self::key_statement::{KeyStatement, MAX_STATEMENT_SECS, ModelOffer, STATEMENT_GRACE_SECS};
pub use self::link_auth::LinkAuth;
pub use self::receipt::{Receipt, ReceiptDetails, Status, Usage};
use crate::{Digest, ProviderId};

/// Longest entry in bytes: what a C2SP entry bundle can hold.
pub const MAX_ENTRY_LEN: usize = 65_535;

/// COSE header parameter `typ` (RFC 9596).
const TYP: i64 = 16;

/// What an entry states; its text form is the `typ` in the protected header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryType {
    /// SPEC §7.1.
    Evidence,
    /// SPEC §7.2.
    KeyStatement,
    /// SPEC §8.2; never logged.
    Link,
    /// SPEC §7.3.
    Receipt,
}

impl EntryType {
    /// The `typ` text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evidence => "fanlight.evidence.v1",
            Self::KeyStatement => "fanlight.key-statement.v1",
            Self::Link => "fanlight.link.v1",
            Self::Receipt => "fanlight.receipt.v1",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Evidence, Self::KeyStatement, Self::Link, Self::Receipt].into_iter().find(|t| t.as_str() == text)
    }
}

/// Why bytes are not a valid entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Longer than [`MAX_ENTRY_LEN`].
    #[error("entry is longer than 65,535 bytes")]
    TooLong,
    /// Not a tagged COSE_Sign1 with an attached payload.
    #[error("entry is not a tagged COSE_Sign1 with a payload")]
    NotCoseSign1,
    /// Headers are not exactly alg ES256, kid, typ, all protected.
    #[error("entry has other headers than alg, kid and typ")]
    Headers,
    /// The entry is of another type than the caller asked for.
    #[error("entry is of another type")]
    WrongType,
    /// The payload breaks the named rule of its type.
    #[error("entry payload: {0}")]
    Payload(&'static str),
    /// The same statement has another, canonical encoding.
    #[error("entry is not in its one deterministic encoding")]
    NotDeterministic,
    /// The `kid` does not name the key that the caller or the payload gives.
    #[error("entry names another provider than its key")]
    WrongKey,
    /// The public key is not a P-256 SubjectPublicKeyInfo.
    #[error("entry key is not a P-256 public key")]
    BadKey,
    /// The signature does not verify, or its `s` is in the upper half.
    #[error("entry signature does not verify")]
    BadSignature,
}

/// A payload type: how it is written, and how it is read back.
pub trait Payload: Sized {
    /// The `typ` of entries with this payload.
    const TYPE: EntryType;

    /// Deterministic CBOR.
    fn to_cbor(&self) -> Vec<u8>;

    /// From CBOR in any encoding; the caller compares with [`Payload::to_cbor`].
    ///
    /// # Errors
    /// [`EntryError::Payload`] with the rule that is broken.
    fn from_cbor(bytes: &[u8]) -> Result<Self, EntryError>;
}

/// A payload whose signature was checked, with what it was checked against.
///
/// Invariant: `bytes` is a valid entry of `T::TYPE` by `signer`, in its one encoding.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    value: T,
    signer: IdentityKey,
    digest: Digest,
    bytes: Vec<u8>,
}

impl<T: Payload> Signed<T> {
    /// Checks an entry against the identity key it must be signed with.
    ///
    /// # Errors
    /// [`EntryError`], in the order of its variants.
    pub fn verify(bytes: &[u8], signer: &IdentityKey) -> Result<Self, EntryError> {
        let envelope = Envelope::parse(bytes)?;
        let value = envelope.payload::<T>()?;
        envelope.finish(value, signer)
    }

    /// Signs a payload: `sign` gets the bytes to be signed (the Sig_structure) and returns `r ‖ s`, in either half.
    ///
    /// # Errors
    /// Whatever `sign` returns.
    ///
    /// # Panics
    /// When `sign` returns a signature that `signer` does not verify: the caller paired the wrong keys.
    pub fn sign<E>(value: &T, signer: &IdentityKey, sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>) -> Result<Self, E> {
        let mut cose = unsigned(T::TYPE, &signer.provider_id(), value.to_cbor());
        let signature = sign(&cose.tbs_data(&[]))?;
        cose.signature = identity::normalize(&signature).map_or_else(|| signature.to_vec(), |s| s.to_bytes().to_vec());
        let bytes = cose.to_tagged_vec().expect("a COSE_Sign1 of bytes encodes");
        Ok(Self::verify(&bytes, signer).expect("the signer returned a valid signature over a valid payload"))
    }

    /// Whose identity key signed it.
    pub const fn signer(&self) -> &IdentityKey {
        &self.signer
    }

    /// `H(entry bytes)`.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The entry: what the log holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Payloads that carry the key they are signed with, so that they need nothing else to be verified.
pub trait SelfKeyed: Payload {
    /// The identity key in the payload.
    fn identity(&self) -> &IdentityKey;
}

impl<T: SelfKeyed> Signed<T> {
    /// Checks an entry against the identity key inside it. It proves possession of that key, nothing about who holds it.
    ///
    /// # Errors
    /// [`EntryError`], in the order of its variants.
    pub fn verify_self_keyed(bytes: &[u8]) -> Result<Self, EntryError> {
        let envelope = Envelope::parse(bytes)?;
        let value = envelope.payload::<T>()?;
        let signer = value.identity().clone();
        envelope.finish(value, &signer)
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What an entry claims to be, for sorting entries before they are verified. Nothing here is checked against a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The `typ`.
    pub entry_type: EntryType,
    /// The `kid`.
    pub provider_id: ProviderId,
}

/// Reads type and provider of an entry without verifying it.
///
/// # Errors
/// [`EntryError::TooLong`], [`EntryError::NotCoseSign1`], [`EntryError::Headers`].
pub fn peek(bytes: &[u8]) -> Result<Claimed, EntryError> {
    Envelope::parse(bytes).map(|envelope| envelope.claimed)
}

/// A decoded COSE_Sign1 with our headers; payload and signature not yet judged.
struct Envelope<'a> {
    bytes: &'a [u8],
    claimed: Claimed,
    cose: CoseSign1,
}

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_LEN {
            return Err(EntryError::TooLong);
        }
        let cose = CoseSign1::from_tagged_slice(bytes).map_err(|_| EntryError::NotCoseSign1)?;
        if cose.payload.is_none() {
            return Err(EntryError::NotCoseSign1);
        }
        let claimed = claimed(&cose).ok_or(EntryError::Headers)?;
        Ok(Self { bytes, claimed, cose })
    }

    fn payload<T: Payload>(&self) -> Result<T, EntryError> {
        if self.claimed.entry_type != T::TYPE {
            return Err(EntryError::WrongType);
        }
        T::from_cbor(self.cose.payload.as_deref().unwrap_or_default())
    }

    fn finish<T: Payload>(self, value: T, signer: &IdentityKey) -> Result<Signed<T>, EntryError> {
        let Claimed { entry_type, provider_id } = self.claimed;
        let mut canonical = unsigned(entry_type, &provider_id, value.to_cbor());
        let tbs = canonical.tbs_data(&[]);
        canonical.signature = self.cose.signature;
        // Comparing whole encodings also settles header order, key order, integer length and everything unknown.
        if canonical.clone().to_tagged_vec().ok().as_deref() != Some(self.bytes) {
            return Err(EntryError::NotDeterministic);
        }
        if provider_id != signer.provider_id() {
            return Err(EntryError::WrongKey);
        }
        let signature = Signature::from_slice(&canonical.signature).map_err(|_| EntryError::BadSignature)?;
        if signature.normalize_s() != signature {
            return Err(EntryError::BadSignature);
        }
        signer.verifying_key().verify(&tbs, &signature).map_err(|_| EntryError::BadSignature)?;
        let digest = Digest::of(self.bytes);
        Ok(Signed { value, signer: signer.clone(), digest, bytes: self.bytes.to_vec() })
    }
}

fn unsigned(entry_type: EntryType, provider_id: &ProviderId, payload: Vec<u8>) -> CoseSign1 {
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .key_id(provider_id.0.to_vec())
        .value(TYP, entry_type.as_str().into())
        .build();
    coset::CoseSign1Builder::new().protected(protected).payload(payload).build()
}

fn claimed(cose: &CoseSign1) -> Option<Claimed> {
    let header = &cose.protected.header;
    let [(Label::Int(TYP), typ)] = header.rest.as_slice() else { return None };
    let entry_type = EntryType::from_text(typ.as_text()?)?;
    let provider_id = ProviderId(header.key_id.as_slice().try_into().ok()?);
    let bare = unsigned(entry_type, &provider_id, Vec::new());
    let exact = header.clone() == bare.protected.header && cose.unprotected == Header::default();
    // The bytes as they came, not only their meaning: they are what was signed.
    let same_bytes = cose.protected.original_data == bare.protected.header.to_vec().ok();
    (exact && same_bytes).then_some(Claimed { entry_type, provider_id })
}
