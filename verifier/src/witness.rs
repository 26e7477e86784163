//! A witness of logs (C2SP tlog-witness): it cosigns a checkpoint only when it goes on from the last one that it cosigned.
//!
//! ```text
//! request   "old " ‖ size ‖ "\n" ‖ (base64(hash) ‖ "\n")* ‖ "\n" ‖ checkpoint
//! answer    signature lines, one for each key of the witness
//! ```
//! [`Witness`] decides: what it answers is a function of the request, the [`Record`] of the log and the time.
//! [`WitnessState`] keeps the records where a crash cannot take them back.
//!
//! What a cosignature states is that this tree is consistent with every other that the witness cosigned, and the largest
//! of them at its time. Lines after the root are signed where the signature covers them (Ed25519), and vouched for by
//! none. `sign-subtree`, which is optional, is not offered.

mod record;
mod refusal;
mod state;

use std::collections::BTreeMap;

use fanlight_auditlog::checkpoint::CheckpointError;
use fanlight_auditlog::hash::EMPTY_ROOT;
use fanlight_auditlog::note::{CosignerKey, KeyType, Note, NoteError, SignatureLine};
use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::witness::{AddCheckpoint, write_cosignatures};
use fanlight_auditlog::{Checkpoint, Hash, VerifierKey};

pub use record::{Record, RecordError};
pub use refusal::Refusal;
pub use state::{Answer, AnswerError, MAX_WAITING, WitnessState};

/// The earliest time of a cosignature, 2026-01-01T00:00:00Z: a clock that shows less was never set, and to sign with it
/// would be the first of two statements that contradict each other.
pub const EARLIEST_TIME: u64 = 1_767_225_600;

/// Seconds by which the clock may stand behind the last cosignature. So far the new one gets the time of the last; beyond
/// that, its time would be more wrong than a reader of cosignatures should be told, and nothing is signed.
pub const MAX_CLOCK_STEP: u64 = 60;

/// What a witness is: its keys, and the logs that it knows.
#[derive(Debug)]
pub struct Witness {
    cosigners: Vec<Cosigner>,
    // By origin, which is what a log's keys are named after.
    logs: BTreeMap<String, Vec<VerifierKey>>,
}

#[derive(Debug)]
struct Cosigner {
    key: CosignerKey,
    public: VerifierKey,
}

impl Witness {
    /// The witness with these keys for the logs of these, of which several may belong to one origin.
    pub fn new(cosigners: Vec<CosignerKey>, log_keys: impl IntoIterator<Item = VerifierKey>) -> Result<Self, NewWitnessError> {
        let cosigners: Vec<_> = cosigners.into_iter().map(|key| Cosigner { public: key.verifier_key(), key }).collect();
        if cosigners.is_empty() {
            return Err(NewWitnessError::NoKey);
        }
        let mut logs: BTreeMap<String, Vec<VerifierKey>> = BTreeMap::new();
        for key in log_keys {
            if !key.key_type().is_for_logs() {
                return Err(NewWitnessError::NotALogKey { vkey: key.to_string() });
            }
            let keys = logs.entry(key.name().to_owned()).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(Self { cosigners, logs })
    }

    /// The public halves of its keys.
    pub fn verifier_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.cosigners.iter().map(|cosigner| &cosigner.public)
    }

    /// The logs that it knows.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// Parses a request as far as no record is needed: the log is known, it signed, and sizes are in order.
    ///
    /// # Errors
    /// [`Refusal`] of status 400, 403 or 404; where several apply, the specification's first.
    pub fn parse(&self, request: &[u8]) -> Result<Submission, Refusal> {
        let request = AddCheckpoint::parse(request).map_err(Refusal::Malformed)?;
        let note = Note::parse(request.note().as_bytes()).map_err(Refusal::MalformedNote)?;
        // Before the rest of the text: of a log that is not known, or did not sign, nothing else matters.
        let origin = note.text().split('\n').next().unwrap_or_default();
        let (origin, log_keys) = self.logs.get_key_value(origin).ok_or(Refusal::UnknownLog)?;
        let has_extensions = note.text().matches('\n').count() > 3;
        let signatures = log_signatures(&note, log_keys, has_extensions)?;
        let tree = match Checkpoint::parse(note.text()) {
            Ok(checkpoint) => Tree::Checkpoint(checkpoint),
            // Well formed and wrong, which has its turn only after the sizes.
            Err(CheckpointError::EmptyTreeRoot) => Tree::EmptyWithOtherRoot,
            Err(error) => return Err(Refusal::MalformedCheckpoint(error)),
        };
        let (old_size, proof) = (request.old_size(), request.proof().to_vec());
        let submission = Submission { origin: origin.clone(), old_size, proof, text: note.text().to_owned(), tree, signatures };
        if old_size > submission.tree_size() { Err(Refusal::OldSizeAboveTreeSize) } else { Ok(submission) }
    }

    /// Checks a submission against the record of its log; `None` stands for a log of which nothing was ever cosigned.
    ///
    /// # Errors
    /// [`Refusal`] of status 409 or 422; where several apply, the specification's first.
    pub fn check(&self, submission: &Submission, recorded: Option<&Record>) -> Result<(), Refusal> {
        let (recorded_size, recorded_root) = recorded.map_or((0, EMPTY_ROOT), |r| (r.tree_size(), r.root_hash()));
        if submission.old_size != recorded_size {
            return Err(Refusal::OtherOldSize { recorded: recorded_size });
        }
        let Tree::Checkpoint(checkpoint) = &submission.tree else { return Err(Refusal::EmptyTreeRoot) };
        let (size, root) = (checkpoint.tree_size(), checkpoint.root_hash());
        // Before the proof: a fork must not pass for a slip of whoever submits it.
        if size == recorded_size && root != recorded_root {
            return Err(Refusal::Fork);
        }
        verify_consistency(recorded_size, recorded_root, size, root, &submission.proof).map_err(Refusal::Inconsistent)
    }

    /// The cosignatures that answer a submission although nothing new is recorded: the recorded ones, if they are of this
    /// very checkpoint and second. So nobody makes a witness write more than once a second without a larger tree.
    ///
    /// The caller has checked the submission, and knows that no crash can take `durable` back any more.
    pub fn repeat(&self, submission: &Submission, durable: Option<&Record>, now: u64) -> Option<String> {
        let record = durable.filter(|record| record.text() == submission.text && record.time() == now)?;
        // A witness that got another key since has a line to add.
        (record.n_cosignatures() == self.cosigners.len()).then(|| record.cosignatures())
    }

    /// Decides on a submission: what is to be recorded, before any of it is told to anyone.
    ///
    /// `now` is in seconds since 1970. A cosignature is never older than the one before it: its time says that no larger
    /// tree was cosigned until then, and a later one with an earlier time would make that a lie.
    pub fn cosign(&self, submission: &Submission, recorded: Option<&Record>, now: u64) -> Result<Record, Refusal> {
        self.check(submission, recorded)?;
        let Tree::Checkpoint(checkpoint) = &submission.tree else { return Err(Refusal::EmptyTreeRoot) };
        let time = Self::cosigning_time(recorded, now)?;
        let cosign = |cosigner: &Cosigner| cosigner.key.cosign(checkpoint, time).map_err(Refusal::NotCosignable);
        let cosignatures = self.cosigners.iter().map(cosign).collect::<Result<Vec<_>, _>>()?;
        Record::new(checkpoint.clone(), time, submission, cosignatures)
    }

    /// The time for which a cosignature made `now` states that it was made.
    ///
    /// # Errors
    /// [`Refusal::Clock`].
    pub fn cosigning_time(recorded: Option<&Record>, now: u64) -> Result<u64, Refusal> {
        let earliest = recorded.map_or(EARLIEST_TIME, |record| record.time().max(EARLIEST_TIME));
        let behind = earliest.saturating_sub(now);
        if now < EARLIEST_TIME || behind > MAX_CLOCK_STEP { Err(Refusal::Clock { behind }) } else { Ok(now.max(earliest)) }
    }
}

/// A request whose log is known and signed it.
#[derive(Clone, Debug)]
pub struct Submission {
    origin: String,
    old_size: u64,
    proof: Vec<Hash>,
    // What was signed, with its last newline.
    text: String,
    tree: Tree,
    // One line for each of the log's keys that signed.
    signatures: Vec<SignatureLine>,
}

#[derive(Clone, Debug)]
enum Tree {
    Checkpoint(Checkpoint),
    EmptyWithOtherRoot,
}

impl Submission {
    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries in the tree that is to be cosigned.
    pub fn tree_size(&self) -> u64 {
        match &self.tree {
            Tree::Checkpoint(checkpoint) => checkpoint.tree_size(),
            Tree::EmptyWithOtherRoot => 0,
        }
    }

    /// The checkpoint as the log signed it, without the signatures of others.
    pub fn note(&self) -> String {
        format!("{}\n{}", self.text, write_cosignatures(&self.signatures))
    }
}

/// Why there is no such witness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NewWitnessError {
    /// No key to cosign with.
    #[error("a witness needs a key")]
    NoKey,
    /// The key is one that witnesses sign with.
    #[error("{vkey} is the key of a witness, not of a log")]
    NotALogKey {
        /// The key.
        vkey: String,
    },
}

/// One signature line for each of a log's keys that signed a note, and at least one. Every line of these keys is verified.
///
/// A key can sign a text in as many ways as it likes, and a note holds only so many lines: to keep them all would leave no
/// room for the witness's own.
fn log_signatures(note: &Note, keys: &[VerifierKey], has_extensions: bool) -> Result<Vec<SignatureLine>, Refusal> {
    let mut lines = Vec::new();
    let mut signed = false;
    for key in keys {
        let ml_dsa_44 = key.key_type() == KeyType::MlDsa44;
        match if ml_dsa_44 { note.verify_cosignature(key).map(drop) } else { note.verify(key) } {
            Ok(()) => {
                lines.extend(note.signatures().iter().find(|line| line.is_of(key)).cloned());
                // What ML-DSA-44 does not sign, anybody may have added.
                signed |= !(ml_dsa_44 && has_extensions);
            }
            Err(NoteError::NotSigned) => {}
            Err(_) => return Err(Refusal::BadSignature),
        }
    }
    if signed { Ok(lines) } else { Err(Refusal::NotSigned) }
}
