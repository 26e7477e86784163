//! A witness in a directory, and what there is to say of its answers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use fanlight_auditlog::note::Note;
use fanlight_auditlog::{CosignerKey, DirStore, VerifierKey};
use fanlight_protocol::Digest;
use fanlight_verifier::witness::{Answer, AnswerError, Witness, WitnessState};
use tempfile::TempDir;

use crate::tree::Tree;

pub(crate) const ORIGIN: &str = "log.example/test";
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn cosigners() -> Vec<CosignerKey> {
    let name = "witness.example/w1";
    [CosignerKey::ml_dsa_44(name, &[0xa1; 32]), CosignerKey::ed25519(name, &[0xa2; 32])]
        .map(|key| key.expect("a good name"))
        .into()
}

pub(crate) fn witness(logs: impl IntoIterator<Item = VerifierKey>) -> Witness {
    Witness::new(cosigners(), logs).expect("keys of their kind")
}

/// A witness in a directory, with a clock of its own.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) state: WitnessState<DirStore>,
    pub(crate) clock: AtomicU64,
}

impl Running {
    pub(crate) fn new(logs: impl IntoIterator<Item = VerifierKey>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = DirStore::open_writer(dir.path()).expect("an empty directory opens");
        Self { dir, state: WitnessState::new(witness(logs), store), clock: AtomicU64::new(NOW) }
    }

    /// The same directory, in a new process so to say.
    pub(crate) fn restarted(self, logs: impl IntoIterator<Item = VerifierKey>) -> Self {
        let Self { dir, state, clock } = self;
        drop(state);
        let store = DirStore::open_writer(dir.path()).expect("the lock is free again");
        Self { dir, state: WitnessState::new(witness(logs), store), clock }
    }

    pub(crate) fn set_clock(&self, time: u64) {
        self.clock.store(time, Ordering::SeqCst);
    }

    pub(crate) async fn try_add(&self, request: impl AsRef<[u8]>) -> Result<String, AnswerError> {
        self.state.add_checkpoint(request.as_ref(), || self.clock.load(Ordering::SeqCst)).await
    }

    pub(crate) async fn add(&self, request: impl AsRef<[u8]>) -> Answer {
        self.try_add(request).await.map_or_else(|error| Answer::from(&error), Answer::ok)
    }

    pub(crate) async fn status(&self, request: impl AsRef<[u8]>) -> u16 {
        self.add(request).await.status
    }

    pub(crate) async fn size(&self) -> Option<u64> {
        self.state.record(ORIGIN).await.expect("the record is read").map(|record| record.tree_size())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(hash(ORIGIN)).join(name)
    }
}

pub(crate) fn hash(origin: &str) -> String {
    Digest::of(origin.as_bytes()).to_string()
}

/// The times of the cosignatures in an answer, one for each key, each verified.
pub(crate) fn times(note: &str, lines: &str) -> Vec<u64> {
    let note = Note::parse(format!("{note}{lines}").as_bytes()).expect("the answer completes the note");
    let keys = cosigners().into_iter().map(|key| key.verifier_key());
    keys.map(|key| note.verify_cosignature(&key).expect("every key of the witness cosigned")).collect()
}

/// Flips a bit of the signature in the last line of a note.
pub(crate) fn with_bad_signature(note: &str) -> String {
    let (head, tail) = note.split_at(note.len() - 20);
    let flipped = if tail.starts_with('A') { 'B' } else { 'A' };
    format!("{head}{flipped}{}", &tail[1..])
}

/// A signature line of the tree's key that does not verify.
pub(crate) fn bad_line(tree: &Tree, size: usize) -> String {
    let note = with_bad_signature(&tree.note(size));
    note.rsplit_once("\n\n").expect("a signed note").1.to_owned()
}
