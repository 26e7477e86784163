//! Submitting a checkpoint to one witness (C2SP tlog-witness, `add-checkpoint`).

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::{Note, NoteError, SignatureLine, VerifierKey};
use crate::reader::{ReadError, Reader};
use crate::store::TileSource;
use crate::witness::{ADD_CHECKPOINT, AddCheckpoint, SIZE_CONTENT_TYPE, parse_cosignatures, parse_size};

/// Submissions of one checkpoint to one witness: with the size that is remembered, with the one that the witness then
/// names, and once more in case that another submission came between.
const MAX_SUBMISSIONS: u32 = 3;

/// Seconds that the time of a new cosignature may differ from ours: a day. It is to notice a witness that answers with
/// something old, not to keep clocks.
const MAX_TIME_DIFFERENCE: u64 = 24 * 60 * 60;

/// The first pause after a witness failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Sends requests: what a host lends to those who submit checkpoints.
pub trait Post {
    /// Sends `body` with the method POST and returns the answer, whatever its status.
    ///
    /// Follows no redirects, since a witness is who its URL says, and reads no more than [`MAX_ANSWER_LEN`] bytes: a longer
    /// answer is an error. The caller stops polling when it takes too long.
    fn post(&self, url: &str, body: Bytes) -> impl Future<Output = Result<Answer, PostError>>;
}

/// Bytes of the longest answer that a witness has reason to send: a dozen cosignatures of ML-DSA-44, with room to spare.
pub const MAX_ANSWER_LEN: usize = 64 * 1024;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`, when there is one and it is text.
    pub content_type: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// A request without a usable answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer, or not a whole one")]
pub struct PostError(#[source] Box<dyn Error + Send + Sync>);

impl PostError {
    /// `source` says what went wrong.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// What became of the submissions to one witness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessReport {
    /// The name in the witness's key, in the first one of several.
    pub name: String,
    /// Checkpoints that it cosigned.
    pub cosigned: u64,
    /// Checkpoints that it refused.
    pub refused: u64,
    /// Submissions without an answer in time.
    pub timed_out: u64,
    /// Submissions that failed on the way or in the witness.
    pub failed: u64,
    /// Answers that a witness in order cannot give: a signature that does not verify, or is not new.
    pub lying: u64,
    /// Claims to have seen more of the log than there is.
    pub ahead: u64,
    /// The time of its latest cosignature by its own clock, in seconds since 1970.
    pub last_cosigned: Option<u64>,
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsigned {
    /// It has cosigned a larger tree under this log's key.
    #[error("the witness has seen {recorded} entries, which are more than this log has: is the log's key used twice?")]
    Ahead { recorded: u64 },
    #[error("the witness failed with status {status}")]
    Failed { status: u16 },
    #[error("the cosignature does not verify")]
    Forged(#[source] NoteError),
    #[error("no cosignature of the key that the policy names")]
    Keyless,
    /// Older witnesses cosign a size only once.
    #[error("the witness does not cosign the same size again")]
    OnlyOnce,
    #[error("the witness refused with status {status}")]
    Refused { status: u16 },
    #[error("the cosignature is of {time}, and this machine's clock says {clock}: one of the two clocks is wrong, or it is old")]
    Replayed { time: u64, clock: u64 },
    #[error("the tree's own tiles were not read")]
    Tiles(#[from] ReadError),
    #[error("no answer in time")]
    TimedOut,
    #[error(transparent)]
    Unreachable(#[from] PostError),
}

/// Cosignatures, at least one, or why there are none.
pub(super) type Answered = Result<Vec<SignatureLine>, Unsigned>;

/// One witness, and what is known of it.
#[derive(Debug)]
pub(super) struct Witness {
    // At least one: a witness can have one of each type, all of which sign what it is sent once.
    keys: Vec<VerifierKey>,
    // Where checkpoints are submitted, with the method's name at its end.
    url: String,
    // Never held across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    // The size of the last checkpoint that the witness cosigned, as far as it told us.
    size: u64,
    failures_in_a_row: u32,
    // The timer's time before which it is only asked when nothing goes without it.
    rests_until: Duration,
    report: WitnessReport,
}

impl Witness {
    /// A witness whose submission prefix is `url`.
    pub(super) fn new(key: VerifierKey, url: &str) -> Self {
        let report = WitnessReport { name: key.name().to_owned(), ..WitnessReport::default() };
        let state = State { size: 0, failures_in_a_row: 0, rests_until: Duration::ZERO, report };
        Self { keys: vec![key], url: submission_url(url), state: Mutex::new(state) }
    }

    pub(super) fn is_at(&self, url: &str) -> bool {
        self.url == submission_url(url)
    }

    pub(super) fn add_key(&mut self, key: VerifierKey) {
        self.keys.push(key);
    }

    pub(super) fn has_signed(&self, line: &SignatureLine) -> bool {
        self.keys.iter().any(|key| line.is_of(key))
    }

    pub(super) fn report(&self) -> WitnessReport {
        self.state().report.clone()
    }

    pub(super) fn rests(&self, now: Duration) -> bool {
        now < self.state().rests_until
    }

    /// Asks for cosignatures of the reader's checkpoint, made at about `time` (seconds since 1970), and returns their lines.
    pub(super) async fn ask(&self, post: &impl Post, reader: &Reader<impl TileSource>, time: u64) -> Answered {
        let checkpoint = reader.checkpoint();
        let size = checkpoint.tree_size();
        let mut old_size = self.state().size.min(size);
        for _ in 0..MAX_SUBMISSIONS {
            let proof = reader.consistency_proof(old_size).await?;
            let request = AddCheckpoint::new(old_size, proof, checkpoint.note().to_owned());
            let answer = post.post(&self.url, request.to_string().into()).await?;
            match answer.status {
                200 => {
                    let lines = self.verify(checkpoint, &answer.body, time)?;
                    self.state().size = size;
                    return Ok(lines);
                }
                400 | 409 if old_size == size && recorded_size(&answer).is_none_or(|recorded| recorded == size) => {
                    return Err(Unsigned::OnlyOnce);
                }
                409 => match recorded_size(&answer) {
                    Some(recorded) if recorded > size => return Err(Unsigned::Ahead { recorded }),
                    Some(recorded) if recorded != old_size => {
                        if recorded < old_size {
                            tracing::warn!(witness = self.name(), recorded, old_size, "the witness has forgotten what it saw");
                        }
                        self.state().size = recorded;
                        old_size = recorded;
                    }
                    _ => return Err(Unsigned::Refused { status: 409 }),
                },
                status @ (429 | 500..) => return Err(Unsigned::Failed { status }),
                status => return Err(Unsigned::Refused { status }),
            }
        }
        Err(Unsigned::Refused { status: 409 })
    }

    /// The lines of this witness's keys in an answer, once they are known to be new cosignatures of the checkpoint.
    fn verify(&self, checkpoint: &VerifiedCheckpoint, answer: &[u8], time: u64) -> Answered {
        let mut lines = parse_cosignatures(answer).map_err(|_| Unsigned::Keyless)?;
        let note = Note::parse(checkpoint.note().as_bytes()).map_err(Unsigned::Forged)?;
        lines.retain(|line| self.keys.iter().any(|key| line.is_of(key)));
        for line in &lines {
            let key = self.keys.iter().find(|key| line.is_of(key)).ok_or(Unsigned::Keyless)?;
            let new = line.verify_cosignature(key, checkpoint.checkpoint()).map_err(Unsigned::Forged)?;
            let is_older = note.verify_cosignature(key).is_ok_and(|before| new < before);
            if is_older || new.abs_diff(time) > MAX_TIME_DIFFERENCE {
                return Err(Unsigned::Replayed { time: new, clock: time });
            }
            self.state().report.last_cosigned = Some(new);
        }
        if lines.is_empty() { Err(Unsigned::Keyless) } else { Ok(lines) }
    }

    /// Counts what became of a submission, and rests a witness that failed. `now` is the timer's time.
    pub(super) fn count(&self, outcome: Result<(), &Unsigned>, now: Duration) {
        let mut state = self.state();
        let report = &mut state.report;
        let counter = match outcome {
            Ok(()) => &mut report.cosigned,
            Err(Unsigned::Ahead { .. }) => &mut report.ahead,
            Err(Unsigned::Failed { .. } | Unsigned::Unreachable(_) | Unsigned::Tiles(_)) => &mut report.failed,
            Err(Unsigned::Forged(_) | Unsigned::Keyless | Unsigned::Replayed { .. }) => &mut report.lying,
            Err(Unsigned::OnlyOnce | Unsigned::Refused { .. }) => &mut report.refused,
            Err(Unsigned::TimedOut) => &mut report.timed_out,
        };
        *counter += 1;
        match outcome {
            Ok(()) | Err(Unsigned::OnlyOnce | Unsigned::Tiles(_)) => state.failures_in_a_row = 0,
            Err(_) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << state.failures_in_a_row.min(6)).min(LONGEST_PAUSE);
                state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
                state.rests_until = now.saturating_add(pause);
            }
        }
    }

    /// Says what an operator can do something about.
    pub(super) fn log(&self, error: &Unsigned) {
        let (witness, cause) = (self.name(), error as &dyn Error);
        match error {
            Unsigned::Ahead { .. } | Unsigned::Forged(_) | Unsigned::Keyless | Unsigned::Replayed { .. } => {
                tracing::error!(witness, error = cause, "not cosigned");
            }
            Unsigned::OnlyOnce => tracing::debug!(witness, error = cause, "not cosigned"),
            _ => tracing::warn!(witness, error = cause, "not cosigned"),
        }
    }

    fn name(&self) -> &str {
        self.keys.first().map_or("", VerifierKey::name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn submission_url(url: &str) -> String {
    format!("{}/{ADD_CHECKPOINT}", url.trim_end_matches('/'))
}

/// The size that a 409 names.
fn recorded_size(answer: &Answer) -> Option<u64> {
    let media_type = answer.content_type.as_deref()?.split(';').next()?.trim_ascii();
    let names_size = answer.status == 409 && media_type == SIZE_CONTENT_TYPE;
    parse_size(&answer.body).filter(|_| names_size)
}
