//! What a monitor remembers between runs, and the one form in which it is kept.
//!
//! ```text
//! "fanlight-verify monitor state v1 " ‖ hex(SHA-256(JSON)) ‖ "\n" ‖ JSON
//! ```
//! The sum finds what a disk or an editor did to the file; it is no protection against who can write it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use fanlight_auditlog::hash::EMPTY_ROOT;
use fanlight_auditlog::policy::PolicyViolation;
use fanlight_auditlog::tree::RightEdge;
use fanlight_auditlog::{Hash, Policy, VerifiedCheckpoint};
use fanlight_protocol::{Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::alert::AlertBook;
use crate::history::Ledger;

/// Bytes of the longest state that is read: [`Limits::BOUNDED`](crate::history::Limits::BOUNDED) with every provider
/// as large as it can be.
pub const MAX_STATE_LEN: usize = 512 << 20;

/// Different checkpoints of one holder that wait at the same time.
pub const MAX_AHEAD: usize = 128;

/// Levels of hash tiles a tree can have.
const MAX_LEVELS: u8 = 8;

const HEADER: &str = "fanlight-verify monitor state v";
const VERSION: &str = "1";

/// What a monitor of one log remembers.
///
/// Invariant: the log only grew up to `checkpoint`, whose tree goes on from the one under `edge`, and `ledger` has
/// judged exactly the entries under `edge`.
#[derive(Clone, Debug)]
pub struct State {
    /// The latest checkpoint that was consistent with all before it; `None` before the first.
    pub checkpoint: Option<VerifiedCheckpoint>,
    /// The right edge of the tree over the entries that were read so far; it trails the checkpoint while a long log is
    /// read for the first time.
    pub edge: RightEdge,
    /// What those entries say of providers.
    pub ledger: Ledger,
    /// What is wrong.
    pub alerts: AlertBook,
    // Checkpoints that wait until the log shows as much, by who holds them; of one holder each is of another tree.
    pub(super) ahead: BTreeMap<String, Vec<Ahead>>,
    // Entries that must be in the log, by what the command line calls them.
    pub(super) expected: BTreeMap<String, Expected>,
    // Which of those are not found, by leaf.
    pub(super) awaited: HashMap<Hash, Vec<String>>,
    /// When the last run began.
    pub last_run: UnixTime,
    /// When the last run that could check everything began.
    pub last_success: Option<UnixTime>,
    // When much of the log was last read again for what the ledger no longer remembers.
    pub(super) last_search: Option<UnixTime>,
}

/// A checkpoint that waits until the log shows as much, to be compared then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The signed checkpoint.
    pub note: String,
    /// When it was seen first.
    pub since: UnixTime,
}

impl Ahead {
    /// How many entries its tree has.
    pub fn tree_size(&self) -> u64 {
        self.note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or_default()
    }

    /// Origin, size and root, which a cosignature does not change.
    fn tree(&self) -> &str {
        self.note.split_once("\n\n").map_or(&self.note, |(tree, _)| tree)
    }
}

/// An entry that waits until it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its leaf hash.
    #[serde(with = "hash_base64")]
    pub leaf: Hash,
    /// When it was first expected.
    pub since: UnixTime,
    /// How many entries of the log were searched for it.
    pub searched: u64,
    /// Where it is.
    pub found: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<'a> {
    checkpoint: Option<String>,
    edge: SavedEdge,
    ledger: Cow<'a, Ledger>,
    alerts: AlertBook,
    ahead: BTreeMap<String, Vec<Ahead>>,
    expected: BTreeMap<String, Expected>,
    last_run: UnixTime,
    last_success: Option<UnixTime>,
    last_search: Option<UnixTime>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEdge {
    size: u64,
    // Base64 hashes of the partial tiles, lowest level first.
    tiles: Vec<Vec<String>>,
}

impl State {
    /// The state before anything of a log was read.
    pub fn new(now: UnixTime) -> Self {
        Self {
            checkpoint: None,
            edge: RightEdge::empty(),
            ledger: Ledger::new(),
            alerts: AlertBook::default(),
            ahead: BTreeMap::new(),
            expected: BTreeMap::new(),
            awaited: HashMap::new(),
            last_run: now,
            last_success: None,
            last_search: None,
        }
    }

    /// Keeps a checkpoint until the log shows as much; one that waits already keeps its time. `false` when its holder has
    /// [`MAX_AHEAD`] others that wait, the oldest of which stay.
    #[must_use]
    pub fn wait_for(&mut self, holder: &str, ahead: Ahead) -> bool {
        let waiting = self.ahead.entry(holder.to_owned()).or_default();
        if waiting.iter().any(|known| known.tree() == ahead.tree()) {
            return true;
        }
        let fits = waiting.len() < MAX_AHEAD;
        if fits {
            waiting.push(ahead);
        }
        fits
    }

    /// Checkpoints that wait, by who holds them.
    pub const fn ahead(&self) -> &BTreeMap<String, Vec<Ahead>> {
        &self.ahead
    }

    /// Takes those with their holders that have waited long enough: a tree of `tree_size` entries is shown.
    pub fn due(&mut self, tree_size: u64) -> Vec<(String, Ahead)> {
        let mut due = Vec::new();
        for (holder, waiting) in &mut self.ahead {
            let ready = waiting.extract_if(.., |ahead| ahead.tree_size() <= tree_size);
            due.extend(ready.map(|ahead| (holder.clone(), ahead)));
        }
        self.ahead.retain(|_, waiting| !waiting.is_empty());
        due
    }

    /// What [`Self::parse`] parses.
    ///
    /// # Errors
    /// [`StateError::TooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let saved = Saved {
            checkpoint: self.checkpoint.as_ref().map(|checkpoint| checkpoint.note().to_owned()),
            edge: SavedEdge::of(&self.edge),
            ledger: Cow::Borrowed(&self.ledger),
            alerts: self.alerts.clone(),
            ahead: self.ahead.clone(),
            expected: self.expected.clone(),
            last_run: self.last_run,
            last_success: self.last_success,
            last_search: self.last_search,
        };
        let json = serde_json::to_vec(&saved).expect("maps have text keys and writing to memory succeeds");
        let mut bytes = format!("{HEADER}{VERSION} {}\n", Digest::of(&json)).into_bytes();
        bytes.extend_from_slice(&json);
        if bytes.len() > MAX_STATE_LEN { Err(StateError::TooLong) } else { Ok(bytes) }
    }

    /// Reads a state of a log that the policy trusts.
    ///
    /// # Errors
    /// [`StateError`], in the order of its variants.
    pub fn parse(bytes: &[u8], policy: &Policy) -> Result<Self, StateError> {
        if bytes.len() > MAX_STATE_LEN {
            return Err(StateError::TooLong);
        }
        let header_len = bytes.iter().position(|byte| *byte == b'\n').ok_or(StateError::NotAState)?;
        let (header, json) = bytes.split_at(header_len);
        let json = json.strip_prefix(b"\n").ok_or(StateError::NotAState)?;
        let header = std::str::from_utf8(header).ok().and_then(|header| header.strip_prefix(HEADER));
        let (version, sum) = header.and_then(|header| header.split_once(' ')).ok_or(StateError::NotAState)?;
        if version != VERSION {
            return Err(StateError::UnknownVersion);
        }
        if sum.parse() != Ok(Digest::of(json)) {
            return Err(StateError::Damaged);
        }
        let saved: Saved<'_> = serde_json::from_slice(json).map_err(StateError::Json)?;
        let edge = saved.edge.restore().ok_or(StateError::Contradiction)?;
        let checkpoint = saved.checkpoint.map(|note| verify(&note, policy)).transpose()?;
        let (size, root) = checkpoint.as_ref().map_or((0, EMPTY_ROOT), |seen| (seen.tree_size(), seen.root_hash()));
        let fits = edge.size() < size || (edge.size() == size && edge.root() == root);
        if edge.size() != saved.ledger.census().entries || !fits {
            return Err(StateError::Contradiction);
        }
        let mut state = Self {
            checkpoint,
            edge,
            ledger: saved.ledger.into_owned(),
            alerts: saved.alerts,
            ahead: saved.ahead,
            expected: BTreeMap::new(),
            awaited: HashMap::new(),
            last_run: saved.last_run,
            last_success: saved.last_success,
            last_search: saved.last_search,
        };
        state.expect(saved.expected);
        Ok(state)
    }
}

/// Any log of the policy: a quorum that was there when the checkpoint was saved may have been replaced since.
fn verify(note: &str, policy: &Policy) -> Result<VerifiedCheckpoint, StateError> {
    let origin = note.lines().next().unwrap_or_default();
    if !policy.log_keys().any(|key| key.name() == origin) {
        return Err(StateError::OtherLog);
    }
    policy.verify_log_signature(note.as_bytes()).map_err(StateError::Checkpoint)
}

impl SavedEdge {
    fn of(edge: &RightEdge) -> Self {
        let levels = (0..MAX_LEVELS).map(|level| edge.level(level)).filter(|hashes| !hashes.is_empty());
        let tiles = levels.map(|hashes| hashes.iter().map(Hash::to_string).collect());
        Self { size: edge.size(), tiles: tiles.collect() }
    }

    fn restore(self) -> Option<RightEdge> {
        let parse = |tile: Vec<String>| tile.iter().map(|hash| Hash::parse_base64(hash)).collect::<Option<Vec<Hash>>>();
        let tiles = self.tiles.into_iter().map(parse).collect::<Option<Vec<_>>>()?;
        RightEdge::from_tiles(self.size, tiles)
    }
}

/// A hash as checkpoints write it.
mod hash_base64 {
    use fanlight_auditlog::Hash;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        Hash::parse_base64(&text).ok_or_else(|| de::Error::custom("not a hash"))
    }
}

/// Why bytes are not the state of a monitor of this log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// More than [`MAX_STATE_LEN`] bytes.
    #[error("state is longer than 512 MiB")]
    TooLong,
    /// The first line is not that of a state.
    #[error("file is not a monitor's state")]
    NotAState,
    /// A later version wrote it.
    #[error("state is of a version that is not known here")]
    UnknownVersion,
    /// The sum does not fit.
    #[error("state is damaged: it is not what was written")]
    Damaged,
    /// The JSON is not that of a state.
    #[error("state is not readable")]
    Json(#[source] serde_json::Error),
    /// The parts do not belong to each other.
    #[error("state contradicts itself")]
    Contradiction,
    /// The policy does not name the log that the state is of.
    #[error("state is of another log than the given keys")]
    OtherLog,
    /// The checkpoint is not signed by any of the log's keys, which may have been replaced.
    #[error("state holds a checkpoint that the given key did not sign")]
    Checkpoint(#[source] PolicyViolation),
}
