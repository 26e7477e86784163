//! What a witness remembers, kept where a crash cannot take it back.
//!
//! ```text
//! <hex(SHA-256(origin))>/checkpoint   the record of a log, as those who monitor it may read it
//! <hex(SHA-256(origin))>/fork         two checkpoints of one size that the log signed, if it ever did
//! ```
//! A record is read for each request, since what the store says is what holds, and written by one request of a log at a
//! time. Nobody is told of the cosignatures on it before the write has returned: what a store shows meanwhile, or after a
//! write that failed, or what another process has left there, may be gone after a crash.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{self, PoisonError};

use bytes::Bytes;
use fanlight_auditlog::ObjectStore;
use fanlight_auditlog::store::StoreError;
use fanlight_auditlog::witness::SIZE_CONTENT_TYPE;
use fanlight_protocol::Digest;
use tokio::sync::{Mutex, Semaphore};

use super::{Record, RecordError, Refusal, Submission, Witness};

/// Requests of one log that may wait for their turn to be recorded; more are told to come back.
pub const MAX_WAITING: usize = 32;

/// The content type of all answers but one.
const TEXT: &str = "text/plain; charset=utf-8";

/// A witness and its records, in a store that nobody else writes to.
#[derive(Debug)]
pub struct WitnessState<S> {
    witness: Witness,
    store: S,
    // By the first segment of their keys.
    logs: HashMap<String, KnownLog>,
}

#[derive(Debug)]
struct KnownLog {
    origin: String,
    places: Semaphore,
    // Held from reading a record to having written the next.
    turn: Mutex<()>,
    // The last record of which this process knows that no crash takes it back.
    durable: sync::Mutex<Option<Record>>,
}

impl KnownLog {
    fn new(origin: &str) -> Self {
        let (turn, durable) = Default::default();
        Self { origin: origin.to_owned(), places: Semaphore::new(MAX_WAITING), turn, durable }
    }

    fn durable(&self) -> sync::MutexGuard<'_, Option<Record>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read, unless a crash may still take it back.
    fn if_durable<'r>(&self, recorded: Option<&'r Record>) -> Option<&'r Record> {
        recorded.filter(|recorded| self.durable().as_ref() == Some(recorded))
    }
}

impl<S: ObjectStore> WitnessState<S> {
    /// The witness with its records in `store`.
    pub fn new(witness: Witness, store: S) -> Self {
        let logs = witness.origins().map(|origin| (directory(origin), KnownLog::new(origin))).collect();
        Self { witness, store, logs }
    }

    /// The witness.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Answers `POST /add-checkpoint`: with signature lines, once the checkpoint is recorded.
    ///
    /// `now` gives seconds since 1970. **The future must be polled to its end**, whatever becomes of the client: a store
    /// may finish a write of which nobody waits for the result, and by then the next request would have had its turn.
    pub async fn add_checkpoint(&self, request: &[u8], now: impl Fn() -> u64) -> Result<String, AnswerError> {
        let submission = self.witness.parse(request)?;
        let directory = directory(submission.origin());
        let log = self.logs.get(&directory).ok_or(Refusal::UnknownLog)?;
        // Whoever repeats what is public must not keep the log from its turn.
        let recorded = self.read(&directory, &log.origin).await?;
        let checked = self.witness.check(&submission, recorded.as_ref());
        self.keep_fork(&directory, &submission, recorded.as_ref(), checked).await?;
        if let Some(lines) = self.witness.repeat(&submission, log.if_durable(recorded.as_ref()), now()) {
            return Ok(lines);
        }

        let _place = log.places.try_acquire().map_err(|_| AnswerError::Busy)?;
        let _turn = log.turn.lock().await;
        let recorded = self.read(&directory, &log.origin).await?;
        let now = now();
        let checked = self.witness.check(&submission, recorded.as_ref());
        self.keep_fork(&directory, &submission, recorded.as_ref(), checked).await?;
        if let Some(lines) = self.witness.repeat(&submission, log.if_durable(recorded.as_ref()), now) {
            return Ok(lines);
        }
        let record = self.witness.cosign(&submission, recorded.as_ref(), now)?;
        self.write(&directory, log, &record).await?;
        Ok(record.cosignatures())
    }

    /// Answers `GET /<hex(SHA-256(origin))>/checkpoint`: the last record of a log that no crash takes back; `None` before
    /// there is one.
    ///
    /// What an earlier process has left is first written once more, since that process may not have synced it. **The future
    /// must be polled to its end**, as that of [`Self::add_checkpoint`].
    pub async fn checkpoint(&self, origin_hash: &str) -> Result<Option<String>, AnswerError> {
        let Some(log) = self.logs.get(origin_hash) else { return Ok(None) };
        let durable = || log.durable().as_ref().map(|record| record.note().to_owned());
        if let Some(note) = durable() {
            return Ok(Some(note));
        }
        if self.read(origin_hash, &log.origin).await?.is_none() {
            return Ok(None);
        }

        let _place = log.places.try_acquire().map_err(|_| AnswerError::Busy)?;
        let _turn = log.turn.lock().await;
        if let Some(note) = durable() {
            return Ok(Some(note));
        }
        let Some(record) = self.read(origin_hash, &log.origin).await? else { return Ok(None) };
        self.write(origin_hash, log, &record).await?;
        Ok(Some(record.note().to_owned()))
    }

    /// The record of a known log by its origin, as the store has it: what counts, though a crash may still take it back.
    pub async fn record(&self, origin: &str) -> Result<Option<Record>, AnswerError> {
        self.read(&directory(origin), origin).await
    }

    async fn read(&self, directory: &str, origin: &str) -> Result<Option<Record>, AnswerError> {
        let key = record_key(directory);
        let Some(bytes) = self.store.get(&key).await.map_err(AnswerError::NotRead)? else { return Ok(None) };
        let record = Record::parse(&bytes, origin, self.witness.verifier_keys());
        record.map(Some).map_err(|source| AnswerError::Damaged { origin: origin.to_owned(), key, source })
    }

    /// Writes the record of a log whose turn the caller has.
    async fn write(&self, directory: &str, log: &KnownLog, record: &Record) -> Result<(), AnswerError> {
        let written = self.store.put(&record_key(directory), Bytes::copy_from_slice(record.note().as_bytes())).await;
        written.map_err(AnswerError::NotRecorded)?;
        log.durable().replace(record.clone());
        Ok(())
    }

    /// Passes on the result of a check; keeps the evidence if it is one that nobody but the log can have caused.
    async fn keep_fork(
        &self,
        directory: &str,
        submission: &Submission,
        recorded: Option<&Record>,
        checked: Result<(), Refusal>,
    ) -> Result<(), AnswerError> {
        let (Err(Refusal::Fork), Some(recorded)) = (checked, recorded) else { return Ok(checked?) };
        let evidence = format!("{}\n{}", recorded.note(), submission.note());
        let key = format!("{directory}/fork");
        // One is enough: a log that forks at every size must not fill the disk.
        let source = self.store.put_new(&key, evidence.into()).await.err();
        Err(AnswerError::Fork { origin: submission.origin().to_owned(), key, source })
    }
}

/// Where what is known of a log lies, and the path under which it is monitored.
fn directory(origin: &str) -> String {
    Digest::of(origin.as_bytes()).to_string()
}

fn record_key(directory: &str) -> String {
    format!("{directory}/checkpoint")
}

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// As many requests of this log as may are waiting.
    #[error("too many requests for this log at once")]
    Busy,
    /// The record of the log is not one that this witness wrote. It is never started anew: that would be to forget what
    /// was cosigned.
    #[error("the record of {origin} in {key} is damaged; replace it by the last checkpoint that this witness cosigned")]
    Damaged {
        /// The log.
        origin: String,
        /// The key in the store.
        key: String,
        /// What is wrong with the record.
        #[source]
        source: RecordError,
    },
    /// The log signed two trees of one size.
    #[error("{origin} forked: it signed two trees of one size, see {key}")]
    Fork {
        /// The log.
        origin: String,
        /// The key of the evidence in the store: both checkpoints, one after the other.
        key: String,
        /// Why the evidence could not be kept, if so.
        #[source]
        source: Option<StoreError>,
    },
    /// The store did not say what is recorded.
    #[error("the record of the log was not read")]
    NotRead(#[source] StoreError),
    /// The store did not take the record, or did not say so; whatever it holds now is what counts.
    #[error("the checkpoint was not recorded")]
    NotRecorded(#[source] StoreError),
    /// The request was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A body of text with status 200.
    pub fn ok(body: String) -> Self {
        Self { status: 200, content_type: TEXT, body }
    }
}

impl From<&AnswerError> for Answer {
    /// What a client is told: nothing of the witness's own troubles but that it has some.
    fn from(error: &AnswerError) -> Self {
        let (status, body) = match error {
            AnswerError::Refused(Refusal::OtherOldSize { recorded }) => {
                return Self { status: 409, content_type: SIZE_CONTENT_TYPE, body: format!("{recorded}\n") };
            }
            AnswerError::Refused(refusal) => (refusal.status(), detailed(refusal)),
            AnswerError::Fork { .. } => (Refusal::Fork.status(), detailed(&Refusal::Fork)),
            AnswerError::Damaged { .. } => (500, "the record of this log is damaged\n".to_owned()),
            AnswerError::Busy | AnswerError::NotRead(_) | AnswerError::NotRecorded(_) => (503, format!("{error}\n")),
        };
        Self { status, content_type: TEXT, body }
    }
}

fn detailed(refusal: &Refusal) -> String {
    refusal.source().map_or_else(|| format!("{refusal}\n"), |source| format!("{refusal}: {source}\n"))
}
