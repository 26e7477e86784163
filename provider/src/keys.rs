//! The KEM keys that are alive: the current one, and retired ones in their grace (SPEC §3, §7.2).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use fanlight_protocol::entry::{KeyStatement, MAX_STATEMENT_SECS, ModelOffer, STATEMENT_GRACE_SECS, Signed};
use fanlight_protocol::time::CLOCK_TOLERANCE_SECS;
use fanlight_protocol::{Digest, KeyId, UnixTime};

use crate::enclave::{Enclave, KemKey, SignError};

/// How long requests that were sealed in time are still opened after a key statement ends.
pub const GRACE: Duration = Duration::from_secs(STATEMENT_GRACE_SECS);
/// Most requests that one KEM key opens: what is remembered against replays stays below 64 MiB. A key that reaches it is
/// treated as gone, so clients refresh and find its successor.
const MAX_OPENED: usize = 1 << 20;

/// A KEM key with the statement that announced it, and every `enc` it has opened.
pub struct LiveKey {
    made: UnixTime,
    key_id: KeyId,
    kem: KemKey,
    statement: Signed<KeyStatement>,
    opened: Mutex<HashSet<Digest>>,
}

impl LiveKey {
    /// When it was made.
    pub const fn made(&self) -> UnixTime {
        self.made
    }

    /// Its name.
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The key itself.
    pub fn kem(&self) -> &KemKey {
        &self.kem
    }

    /// Its statement.
    pub const fn statement(&self) -> &Signed<KeyStatement> {
        &self.statement
    }

    /// Remembers `enc`; false when it was there already. Two callers with one `enc`: exactly one gets true.
    pub fn claim(&self, enc: &[u8; 65]) -> bool {
        // A panic cannot leave a set of digests half changed, so a poisoned lock is as good as any.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(Digest::of(enc))
    }

    /// Whether it has opened as many requests as are remembered.
    pub fn is_full(&self) -> bool {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).len() >= MAX_OPENED
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// All live keys, newest last.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: RwLock<Vec<Arc<LiveKey>>>,
}

/// What every key statement of one run of the provider repeats.
#[derive(Clone, Debug)]
pub struct StatementTerms {
    /// Models served.
    pub models: Vec<ModelOffer>,
    /// `H` of the running executable.
    pub build_measurement: Digest,
    /// Entry digest of the evidence.
    pub evidence_digest: Digest,
    /// How often the KEM key is replaced; 1 s to 5 h. A statement outlives it by a tenth, at most to the 6 h of SPEC §7.2.
    pub rotation: Duration,
}

impl KeyRing {
    /// Makes a new KEM key, states it, and makes it current.
    ///
    /// # Errors
    /// [`SignError`] when the enclave refuses; the ring is as before.
    pub fn rotate(&self, enclave: &dyn Enclave, terms: &StatementTerms, now: UnixTime) -> Result<Arc<LiveKey>, SignError> {
        let kem = enclave.new_kem_key()?;
        let secs = terms.rotation.as_secs();
        // Clients whose clocks run behind must not find the statement too young.
        let not_before = now.as_secs().saturating_sub(CLOCK_TOLERANCE_SECS);
        // A statement that ended with its rotation would leave a gap while the next one is being logged.
        let not_after = (now.as_secs() + secs + (secs / 10).max(60)).min(not_before + MAX_STATEMENT_SECS);
        let statement = KeyStatement {
            identity: enclave.identity().clone(),
            kem_key: *kem.public_key(),
            not_before: UnixTime::from_secs(not_before),
            not_after: UnixTime::from_secs(not_after),
            models: terms.models.clone(),
            build_measurement: terms.build_measurement,
            evidence_digest: terms.evidence_digest,
        };
        let statement = Signed::sign(&statement, enclave.identity(), |message| enclave.sign(message))?;
        let key = Arc::new(LiveKey { made: now, key_id: statement.key_id(), kem, statement, opened: Mutex::default() });
        self.delete_expired(now);
        self.keys.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&key));
        Ok(key)
    }

    /// Deletes the keys whose grace is over (SPEC §3): what was sealed to them stays sealed, whoever takes this machine.
    pub fn delete_expired(&self, now: UnixTime) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| now <= key.statement.not_after + GRACE);
    }

    /// Every key that still opens: in its validity or its grace, and not full. A handful at most.
    pub fn live(&self, now: UnixTime) -> Vec<Arc<LiveKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().filter(|key| now <= key.statement.not_after + GRACE && !key.is_full()).cloned().collect()
    }

    /// The newest key.
    pub fn current(&self) -> Option<Arc<LiveKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }
}
