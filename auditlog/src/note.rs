//! Signed notes (C2SP signed-note) and Ed25519 cosignatures (C2SP tlog-cosignature).
//!
//! ```text
//! note      text ‖ "\n" ‖ signature line, at least one
//! line      "— " ‖ name ‖ " " ‖ base64(key id (4) ‖ signature) ‖ "\n"
//! vkey      name ‖ "+" ‖ hex(key id) ‖ "+" ‖ base64(type (1) ‖ public key)
//! key id    SHA-256(name ‖ "\n" ‖ type ‖ public key)[..4]
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::hash::sha256;

/// Bytes of the longest note that is parsed: 100 signatures of ML-DSA-44 (2,420 bytes, 3,300 in base64) fit well.
pub const MAX_NOTE_LEN: usize = 512 * 1024;

/// Signature lines that are parsed; the specification asks for 16.
pub const MAX_SIGNATURES: usize = 100;

/// Bytes of the longest key name.
const MAX_NAME_LEN: usize = 255;

/// Bytes of the longest key in a vkey, in base64: the type and an ML-DSA-44 key are 1,313 bytes.
const MAX_KEY_TEXT_LEN: usize = 2048;

/// What a key signs, the type byte of its vkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// 0x01: Ed25519 over the text.
    Ed25519,
    /// 0x04: timestamped Ed25519 cosignature of a checkpoint.
    Cosignature,
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key with the name that it signs under; its text form is the vkey.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Parses a vkey. The key id in it must be the one of the name and key.
    pub fn parse(vkey: &str) -> Result<Self, VkeyError> {
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Malformed);
        };
        check_name(name).map_err(|_| VkeyError::BadName)?;
        let canonical_id = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = u32::from_str_radix(id, 16).ok().filter(|_| canonical_id).ok_or(VkeyError::Malformed)?;
        if key.len() > MAX_KEY_TEXT_LEN {
            return Err(VkeyError::Malformed);
        }
        let key = STANDARD.decode(key).map_err(|_| VkeyError::Malformed)?;
        let key_type = match key.first() {
            Some(0x01) => KeyType::Ed25519,
            Some(0x04) => KeyType::Cosignature,
            Some(_) => return Err(VkeyError::UnsupportedType),
            None => return Err(VkeyError::Malformed),
        };
        let public: &[u8; 32] = key.get(1..).and_then(|key| key.try_into().ok()).ok_or(VkeyError::BadKey)?;
        let key = VerifyingKey::from_bytes(public).map_err(|_| VkeyError::BadKey)?;
        let parsed = Self { name: name.to_owned(), key_type, key };
        if parsed.id() == id { Ok(parsed) } else { Err(VkeyError::WrongId) }
    }

    /// The name that the key signs under; a log's key is named like its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the key signs.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The 32 bytes of the Ed25519 key.
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The first four bytes of SHA-256(name ‖ "\n" ‖ type ‖ public key), big-endian.
    pub fn id(&self) -> u32 {
        let sum = sha256(&[self.name.as_bytes(), b"\n", &[self.key_type.byte()], self.key.as_bytes()]);
        u32::from_be_bytes(*sum.first_chunk().expect("a hash is 32 bytes"))
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = std::iter::once(self.key_type.byte()).chain(*self.key.as_bytes()).collect();
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = VkeyError;

    fn from_str(vkey: &str) -> Result<Self, VkeyError> {
        Self::parse(vkey)
    }
}

/// Why a vkey was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VkeyError {
    /// The key has the wrong length or is no point of the curve.
    #[error("not an Ed25519 public key")]
    BadKey,
    /// The name is empty, too long, or contains a space or a plus sign.
    #[error("bad key name")]
    BadName,
    /// The text is not `name+id+key`.
    #[error("not a verifier key")]
    Malformed,
    /// The key is neither 0x01 (Ed25519) nor 0x04 (Ed25519 cosignature).
    #[error("unsupported key type")]
    UnsupportedType,
    /// The key id is not the one of the name and key.
    #[error("key id does not belong to the key")]
    WrongId,
}

/// The private key of a log: Ed25519 (0x01) under a name.
pub struct Signer {
    name: String,
    key: SigningKey,
}

impl Signer {
    /// The signer with this 32-byte Ed25519 seed (RFC 8032 §5.1.5), which must be secret and random.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, VkeyError> {
        check_name(name).map_err(|_| VkeyError::BadName)?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// Parses a private key in the form that note tools share: `PRIVATE+KEY+<name>+<key id>+<base64(0x01 ‖ seed)>`.
    pub fn parse_private_key(text: &str) -> Result<Self, VkeyError> {
        let mut parts = text.strip_prefix("PRIVATE+KEY+").ok_or(VkeyError::Malformed)?.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Malformed);
        };
        if key.len() > MAX_KEY_TEXT_LEN {
            return Err(VkeyError::Malformed);
        }
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| VkeyError::Malformed)?);
        let seed = match key.split_first() {
            Some((0x01, seed)) => seed.try_into().map_err(|_| VkeyError::BadKey)?,
            Some(_) => return Err(VkeyError::UnsupportedType),
            None => return Err(VkeyError::Malformed),
        };
        let signer = Self::new(name, seed)?;
        if format!("{:08x}", signer.verifier_key().id()) == id { Ok(signer) } else { Err(VkeyError::WrongId) }
    }

    /// What [`Self::parse_private_key`] parses.
    pub fn write_private_key(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new(vec![KeyType::Ed25519.byte()]);
        key.extend_from_slice(&*Zeroizing::new(self.key.to_bytes()));
        let key = Zeroizing::new(STANDARD.encode(&*key));
        Zeroizing::new(format!("PRIVATE+KEY+{}+{:08x}+{}", self.name, self.verifier_key().id(), *key))
    }

    /// The public half.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key_type: KeyType::Ed25519, key: self.key.verifying_key() }
    }

    /// The note with this text and one signature. The text must be one that [`Note::parse`] takes: it ends in a newline
    /// and holds no other control character.
    pub fn sign(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n') && is_plain(text), "only well-formed text is signed");
        let id = self.verifier_key().id().to_be_bytes();
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let line = STANDARD.encode([id.as_slice(), &signature].concat());
        format!("{text}\n— {} {line}\n", self.name)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A parsed note: nothing about its signatures is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    key_id: u32,
    body: Vec<u8>,
}

impl Note {
    /// Parses a note of at most [`MAX_NOTE_LEN`] bytes.
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_LEN {
            return Err(NoteError::TooLong);
        }
        let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
        if !is_plain(note) {
            return Err(NoteError::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        if signatures.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::TooLong);
        }
        let signatures = signatures.split('\n').map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// What is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks the signature of `key` over the text.
    ///
    /// Signatures of other keys are ignored; a signature under the key's name and id that does not verify refuses the
    /// whole note, even beside one that does.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        self.check(key, |body| (key.key_type == KeyType::Ed25519).then_some(((), self.text.clone(), body)))
    }

    /// Checks the cosignature of `key` and returns its time in seconds since 1970.
    ///
    /// The signed message is `"cosignature/v1\ntime " ‖ seconds ‖ "\n" ‖ text`, the line's body
    /// `seconds (8) ‖ signature`.
    pub fn verify_cosignature(&self, key: &VerifierKey) -> Result<u64, NoteError> {
        self.check(key, |body| {
            let (time, signature) = body.split_first_chunk()?;
            let time = u64::from_be_bytes(*time);
            let message = format!("cosignature/v1\ntime {time}\n{}", self.text);
            (key.key_type == KeyType::Cosignature).then_some((time, message, signature))
        })
    }

    /// Applies `split` (value, message, signature) to every line of `key` and returns the first value.
    fn check<'a, T>(
        &'a self,
        key: &VerifierKey,
        split: impl Fn(&'a [u8]) -> Option<(T, String, &'a [u8])>,
    ) -> Result<T, NoteError> {
        let id = key.id();
        let mut verified = None;
        for line in self.signatures.iter().filter(|line| line.name == key.name && line.key_id == id) {
            let (value, message, signature) = split(&line.body).ok_or(NoteError::BadSignature)?;
            if !key.verify(message.as_bytes(), signature) {
                return Err(NoteError::BadSignature);
            }
            verified.get_or_insert(value);
        }
        verified.ok_or(NoteError::NotSigned)
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let (name, body) = line.strip_prefix("— ").and_then(|line| line.split_once(' ')).ok_or(NoteError::Malformed)?;
        check_name(name)?;
        let body = STANDARD.decode(body).map_err(|_| NoteError::Malformed)?;
        let (id, body) = body.split_first_chunk().filter(|(_, body)| !body.is_empty()).ok_or(NoteError::Malformed)?;
        Ok(Self { name: name.to_owned(), key_id: u32::from_be_bytes(*id), body: body.to_vec() })
    }
}

/// Why a note was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// A signature of a trusted key does not verify.
    #[error("bad signature of a trusted key")]
    BadSignature,
    /// The bytes are not a signed note.
    #[error("not a signed note")]
    Malformed,
    /// No signature of the trusted key.
    #[error("not signed by the trusted key")]
    NotSigned,
    /// More than [`MAX_NOTE_LEN`] bytes or [`MAX_SIGNATURES`] signatures.
    #[error("note too long")]
    TooLong,
}

/// Whether the text holds no control character but newlines.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let refused = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    let ok = !name.is_empty() && name.len() <= MAX_NAME_LEN && !name.chars().any(refused);
    if ok { Ok(()) } else { Err(NoteError::Malformed) }
}
