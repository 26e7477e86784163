//! Which logs and which quorum of witnesses make a checkpoint trustworthy (C2SP tlog-policy).
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <member>...
//! quorum <name>|none
//! ```
//! URLs are for those who talk to a log or witness; verification has no use for them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::{mem, str};

use crate::checkpoint::{CheckpointError, VerifiedCheckpoint};
use crate::decimal::parse_decimal;
use crate::note::{KeyType, Note, NoteError, VerifierKey, VkeyError};

/// Bytes of the longest policy that is parsed.
pub const MAX_POLICY_LEN: usize = 256 * 1024;

/// A parsed policy.
#[derive(Clone, Debug)]
pub struct Policy {
    logs: Vec<Party>,
    // Witnesses and groups; a group refers to smaller indices only.
    cosigners: Vec<Cosigner>,
    // An index of `cosigners`.
    quorum: Option<usize>,
}

#[derive(Clone, Debug)]
struct Cosigner {
    name: Vec<u8>,
    rule: Rule,
    in_group: bool,
}

/// A log or a witness.
#[derive(Clone, Debug)]
struct Party {
    key: VerifierKey,
    url: Option<String>,
}

#[derive(Clone, Debug)]
enum Rule {
    Witness(Box<Party>),
    Group { threshold: usize, members: Vec<usize> },
}

impl Policy {
    /// Trusts one log without witnesses.
    pub fn for_log(log_key: VerifierKey) -> Self {
        Self { logs: vec![Party { key: log_key, url: None }], cosigners: Vec::new(), quorum: None }
    }

    /// Parses a policy file.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_LEN {
            return Err(PolicyError::TooLong);
        }
        if text.iter().any(|byte| matches!(byte, 0..=0x08 | 0x0b..=0x1f | 0x7f)) {
            return Err(PolicyError::ControlCharacter);
        }
        let mut policy = Self { logs: Vec::new(), cosigners: Vec::new(), quorum: None };
        let mut quorum_seen = false;
        for line in text.split(|byte| *byte == b'\n') {
            let words: Vec<&[u8]> = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with(b"#") => {}
                [b"log", vkey, url @ ..] if url.len() <= 1 => policy.add_log(vkey, url.first())?,
                [b"witness", name, vkey, url @ ..] if url.len() <= 1 => policy.add_witness(name, vkey, url.first())?,
                [b"group", name, threshold, members @ ..] => policy.add_group(name, threshold, members)?,
                [b"quorum", name] => {
                    if mem::replace(&mut quorum_seen, true) {
                        return Err(PolicyError::QuorumCount);
                    }
                    policy.quorum = if *name == b"none" { None } else { Some(policy.find(name)?) };
                }
                _ => return Err(PolicyError::Malformed),
            }
        }
        if quorum_seen { Ok(policy) } else { Err(PolicyError::QuorumCount) }
    }

    /// The keys of the trusted logs.
    pub fn log_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.logs.iter().map(|log| &log.key)
    }

    /// The trusted logs: key, and URL where the policy gives one.
    pub fn logs(&self) -> impl Iterator<Item = (&VerifierKey, Option<&str>)> {
        self.logs.iter().map(|log| (&log.key, log.url.as_deref()))
    }

    /// The trusted witnesses: key, and URL where the policy gives one.
    pub fn witnesses(&self) -> impl Iterator<Item = (&VerifierKey, Option<&str>)> {
        self.cosigners.iter().filter_map(|cosigner| match &cosigner.rule {
            Rule::Witness(witness) => Some((&witness.key, witness.url.as_deref())),
            Rule::Group { .. } => None,
        })
    }

    /// Whether the policy asks for any cosignature.
    pub fn has_quorum(&self) -> bool {
        self.quorum.is_some()
    }

    /// Whether enough witnesses cosigned a checkpoint, whichever log it is of. For the log, which gathers cosignatures;
    /// who relies on a checkpoint calls [`Self::verify_checkpoint`].
    pub fn quorum_met(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        Note::parse(checkpoint.note().as_bytes()).is_ok_and(|note| self.verify_quorum(&note).is_ok())
    }

    /// Verifies a checkpoint: signed by a trusted log, cosigned by the quorum.
    ///
    /// A bad signature of a trusted log or witness refuses the checkpoint, even where the quorum is met without it. A
    /// cosignature without time does not count, since only those with one speak of the latest checkpoint.
    pub fn verify_checkpoint(&self, note: &[u8]) -> Result<VerifiedCheckpoint, PolicyViolation> {
        let parsed = Note::parse(note).map_err(CheckpointError::from)?;
        let verified = self.verify_log(&parsed)?;
        self.verify_quorum(&parsed)?;
        Ok(verified)
    }

    /// Verifies that a trusted log signed a checkpoint, whoever witnessed it: what a log signed binds it.
    pub fn verify_log_signature(&self, note: &[u8]) -> Result<VerifiedCheckpoint, PolicyViolation> {
        self.verify_log(&Note::parse(note).map_err(CheckpointError::from)?)
    }

    fn verify_log(&self, note: &Note) -> Result<VerifiedCheckpoint, PolicyViolation> {
        let mut verified = Err(PolicyViolation::UnknownLog);
        for log_key in self.log_keys() {
            match VerifiedCheckpoint::verify_note(note, log_key) {
                Ok(checkpoint) => verified = Ok(checkpoint),
                Err(CheckpointError::Note(NoteError::NotSigned)) => {}
                // A log may sign another's checkpoint, which is no statement about a tree of its own.
                Err(error @ CheckpointError::OtherOrigin) => verified = verified.map_err(|_| error.into()),
                Err(error) => return Err(error.into()),
            }
        }
        verified
    }

    fn verify_quorum(&self, note: &Note) -> Result<(), PolicyViolation> {
        let mut cosigned = Vec::with_capacity(self.cosigners.len());
        for cosigner in &self.cosigners {
            cosigned.push(match &cosigner.rule {
                Rule::Witness(witness) => match note.verify_cosignature(&witness.key) {
                    Ok(time) => time > 0,
                    Err(NoteError::NotSigned) => false,
                    Err(_) => return Err(PolicyViolation::BadCosignature),
                },
                Rule::Group { threshold, members } => {
                    members.iter().filter(|&&member| cosigned.get(member) == Some(&true)).count() >= *threshold
                }
            });
        }
        match self.quorum {
            Some(quorum) if cosigned.get(quorum) != Some(&true) => Err(PolicyViolation::NoQuorum),
            _ => Ok(()),
        }
    }

    fn add_log(&mut self, vkey: &[u8], url: Option<&&[u8]>) -> Result<(), PolicyError> {
        let log = Party::parse(vkey, url, KeyType::is_for_logs)?;
        if self.log_keys().any(|key| key.public_key() == log.key.public_key()) {
            return Err(PolicyError::DuplicateKey);
        }
        self.logs.push(log);
        Ok(())
    }

    fn add_witness(&mut self, name: &[u8], vkey: &[u8], url: Option<&&[u8]>) -> Result<(), PolicyError> {
        let witness = Party::parse(vkey, url, KeyType::is_for_witnesses)?;
        if self.witnesses().any(|(key, _)| key.public_key() == witness.key.public_key()) {
            return Err(PolicyError::DuplicateKey);
        }
        self.define(name, Rule::Witness(Box::new(witness)))
    }

    fn add_group(&mut self, name: &[u8], threshold: &[u8], names: &[&[u8]]) -> Result<(), PolicyError> {
        let threshold = match threshold {
            b"all" => names.len(),
            b"any" => 1,
            k => str::from_utf8(k).ok().and_then(parse_decimal).ok_or(PolicyError::Malformed)?,
        };
        if !(1..=names.len()).contains(&threshold) {
            return Err(PolicyError::ThresholdOutOfRange);
        }
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let member = self.find(name)?;
            let cosigner = self.cosigners.get_mut(member).ok_or(PolicyError::UnknownName)?;
            if mem::replace(&mut cosigner.in_group, true) {
                return Err(PolicyError::MemberTwice);
            }
            members.push(member);
        }
        self.define(name, Rule::Group { threshold, members })
    }

    fn define(&mut self, name: &[u8], rule: Rule) -> Result<(), PolicyError> {
        if name == b"none" || self.find(name).is_ok() {
            return Err(PolicyError::DuplicateName);
        }
        self.cosigners.push(Cosigner { name: name.to_vec(), rule, in_group: false });
        Ok(())
    }

    fn find(&self, name: &[u8]) -> Result<usize, PolicyError> {
        self.cosigners.iter().position(|cosigner| cosigner.name == name).ok_or(PolicyError::UnknownName)
    }
}

impl Party {
    fn parse(vkey: &[u8], url: Option<&&[u8]>, is_for: fn(KeyType) -> bool) -> Result<Self, PolicyError> {
        let vkey = str::from_utf8(vkey).map_err(|_| VkeyError::Malformed)?;
        let key = VerifierKey::parse(vkey)?;
        if !is_for(key.key_type()) {
            return Err(PolicyError::WrongKeyType);
        }
        // A URL is ASCII, but one that is not must not make the policy useless to those who need none.
        let url = url.and_then(|url| str::from_utf8(url).ok()).map(String::from);
        Ok(Self { key, url })
    }
}

/// Why a policy file was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A control character other than tab and newline.
    #[error("control character in the policy")]
    ControlCharacter,
    /// Two logs or two witnesses with one public key.
    #[error("public key listed twice")]
    DuplicateKey,
    /// A name is defined twice, or is `none`.
    #[error("name defined twice")]
    DuplicateName,
    /// A line is none of the four, or lacks a part.
    #[error("not a policy line")]
    Malformed,
    /// A name is a member of two groups, or twice of one.
    #[error("name is a group member twice")]
    MemberTwice,
    /// Not exactly one quorum line.
    #[error("policy needs exactly one quorum line")]
    QuorumCount,
    /// A threshold outside of 1..=members.
    #[error("group threshold out of range")]
    ThresholdOutOfRange,
    /// More than [`MAX_POLICY_LEN`] bytes.
    #[error("policy too long")]
    TooLong,
    /// A name that no line above defines.
    #[error("name not defined above")]
    UnknownName,
    /// A vkey was not parsed.
    #[error(transparent)]
    Vkey(#[from] VkeyError),
    /// A log with a cosignature key, or a witness with a log key.
    #[error("wrong type of key for its role")]
    WrongKeyType,
}

/// Why a checkpoint does not satisfy a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyViolation {
    /// A cosignature of a trusted witness does not verify.
    #[error("bad cosignature of a trusted witness")]
    BadCosignature,
    /// The checkpoint itself was refused.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Too few witnesses cosigned.
    #[error("quorum of witnesses not reached")]
    NoQuorum,
    /// No trusted log signed.
    #[error("not signed by a trusted log")]
    UnknownLog,
}
