//! Who is connected: the directory, and the places that requests take at providers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fanlight_protocol::directory::{Directory, Listing};
use fanlight_protocol::entry::{Evidence, IdentityKey, KeyStatement, STATEMENT_GRACE_SECS, Signed};
use fanlight_protocol::{Digest, ProviderId, UnixTime};

use crate::enrol::LoggedEnrolment;

/// Most streams that one provider can offer to take.
pub const MAX_CAPACITY: u32 = 1_024;
/// Most key statements of one provider that are routable at once: a rotation every hour with 6 hours of validity, and grace.
pub const MAX_STATEMENTS: usize = 8;
/// Most listings in bytes of JSON, below the 16 MiB that every client reads; with more providers the latest are listed.
pub const MAX_LISTINGS_LEN: usize = 15 << 20;
/// Bytes of one listing's JSON besides its four values: names, quotes, commas.
const LISTING_FRAME_LEN: usize = 128;
/// Identities that are remembered after their provider left, so that their receipts can still be logged.
const MAX_REMEMBERED: usize = 65_536;

/// A key statement with its tlog proof.
#[derive(Debug)]
pub struct LoggedStatement {
    /// The entry.
    pub statement: Signed<KeyStatement>,
    /// Its tlog proof, text.
    pub proof: String,
}

impl LoggedStatement {
    /// Whether a request sealed under this statement is still opened.
    pub fn is_routable_at(&self, now: UnixTime) -> bool {
        now.as_secs() <= self.statement.not_after.as_secs().saturating_add(STATEMENT_GRACE_SECS)
    }
}

/// An enrolled provider on one connection; `L` is the shell's way to it.
#[derive(Debug)]
pub struct Connection<L> {
    evidence: Signed<Evidence>,
    evidence_proof: String,
    // Newest last.
    statements: RwLock<Vec<Arc<LoggedStatement>>>,
    capacity: AtomicU32,
    in_flight: AtomicU32,
    // What the provider has warm, as far as the gateway saw.
    last_model: Mutex<String>,
    // Its number in the order of enrolment.
    enrolled: AtomicU64,
    link: L,
}

impl<L> Connection<L> {
    /// From an enrolment whose entries are in the log.
    pub fn new(enrolment: LoggedEnrolment, link: L) -> Arc<Self> {
        let LoggedEnrolment { evidence, evidence_proof, statement, statement_proof, capacity } = enrolment;
        let logged = Arc::new(LoggedStatement { statement, proof: statement_proof });
        Arc::new(Self {
            evidence,
            evidence_proof,
            statements: RwLock::new(vec![logged]),
            capacity: AtomicU32::new(capacity.min(MAX_CAPACITY)),
            in_flight: AtomicU32::new(0),
            last_model: Mutex::default(),
            enrolled: AtomicU64::new(0),
            link,
        })
    }

    /// The provider's identity key.
    pub const fn identity(&self) -> &IdentityKey {
        self.evidence.signer()
    }

    /// The provider.
    pub fn provider_id(&self) -> ProviderId {
        self.identity().provider_id()
    }

    /// Its evidence and the proof of it.
    pub fn evidence(&self) -> (&Signed<Evidence>, &str) {
        (&self.evidence, &self.evidence_proof)
    }

    /// Its key statements, newest last.
    pub fn statements(&self) -> Vec<Arc<LoggedStatement>> {
        self.statements.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The shell's way to it.
    pub const fn link(&self) -> &L {
        &self.link
    }

    /// Streams it takes at once.
    pub fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Streams it has now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the last request it got was for `model`.
    pub fn is_warm(&self, model: &str) -> bool {
        *self.last_model.lock().unwrap_or_else(PoisonError::into_inner) == model
    }

    /// Takes a place at the provider, if one is free.
    pub fn try_slot(self: &Arc<Self>, model: &str) -> Option<Slot<L>> {
        let free = |n: u32| (n < self.capacity()).then_some(n + 1);
        self.in_flight.try_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        let mut last = self.last_model.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != model {
            model.clone_into(&mut last);
        }
        drop(last);
        Some(Slot { connection: Arc::clone(self) })
    }

    /// The newest statement that counts now: the one that is listed.
    fn listed(&self, now: UnixTime) -> Option<Arc<LoggedStatement>> {
        if self.capacity() == 0 {
            return None;
        }
        let statements = self.statements.read().unwrap_or_else(PoisonError::into_inner);
        statements.iter().rev().find(|s| s.statement.is_valid_at(now)).cloned()
    }
}

/// A place at a provider. Dropping it frees the place.
#[derive(Debug)]
pub struct Slot<L> {
    connection: Arc<Connection<L>>,
}

impl<L> Slot<L> {
    /// Where the place is.
    pub const fn connection(&self) -> &Arc<Connection<L>> {
        &self.connection
    }
}

impl<L> Drop for Slot<L> {
    fn drop(&mut self) {
        self.connection.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection's new key statement is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("provider has too many key statements that still count")]
pub struct TooManyStatements;

/// All connections of a gateway. Locks are held for a few map look-ups; nothing is awaited under them.
#[derive(Debug)]
pub struct Registry<L> {
    inner: RwLock<Inner<L>>,
}

#[derive(Debug)]
struct Inner<L> {
    connections: HashMap<ProviderId, Arc<Connection<L>>>,
    by_statement: HashMap<Digest, (Arc<Connection<L>>, Arc<LoggedStatement>)>,
    identities: Identities,
    enrolments: u64,
}

/// The identities that receipts are checked with.
#[derive(Debug, Default)]
struct Identities {
    keys: HashMap<ProviderId, IdentityKey>,
    // Order of first enrolment, for forgetting the oldest.
    order: VecDeque<ProviderId>,
}

impl Identities {
    /// Remembers a key. Above `limit` it forgets the oldest that is not `connected`, if there is one.
    fn remember(&mut self, key: &IdentityKey, limit: usize, connected: impl Fn(&ProviderId) -> bool) {
        let id = key.provider_id();
        if self.keys.insert(id, key.clone()).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > limit
            && let Some(oldest) = self.order.iter().position(|id| !connected(id))
            && let Some(oldest) = self.order.remove(oldest)
        {
            self.keys.remove(&oldest);
        }
    }
}

impl<L> Default for Registry<L> {
    fn default() -> Self {
        let (connections, by_statement, identities) = (HashMap::new(), HashMap::new(), Identities::default());
        Self { inner: RwLock::new(Inner { connections, by_statement, identities, enrolments: 0 }) }
    }
}

impl<L> Registry<L> {
    /// Lists a connection. Returns the older connection of the same provider, which is listed no longer.
    pub fn insert(&self, connection: &Arc<Connection<L>>) -> Option<Arc<Connection<L>>> {
        let id = connection.provider_id();
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.enrolments += 1;
        connection.enrolled.store(inner.enrolments, Ordering::Relaxed);
        let superseded = inner.connections.insert(id, Arc::clone(connection));
        if let Some(old) = &superseded {
            inner.by_statement.retain(|_, (owner, _)| !Arc::ptr_eq(owner, old));
        }
        for statement in connection.statements() {
            inner.by_statement.insert(statement.statement.digest(), (Arc::clone(connection), statement));
        }
        let Inner { connections, identities, .. } = &mut *inner;
        identities.remember(connection.identity(), MAX_REMEMBERED, |id| connections.contains_key(id));
        superseded
    }

    /// Adds a connection's new key statement and forgets those that no request can be under any more.
    ///
    /// # Errors
    /// [`TooManyStatements`] above [`MAX_STATEMENTS`].
    pub fn add_statement(
        &self,
        connection: &Arc<Connection<L>>,
        statement: Arc<LoggedStatement>,
        now: UnixTime,
    ) -> Result<(), TooManyStatements> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let mut statements = connection.statements.write().unwrap_or_else(PoisonError::into_inner);
        let digest = statement.statement.digest();
        statements.retain(|s| s.is_routable_at(now) && s.statement.digest() != digest);
        if statements.len() >= MAX_STATEMENTS {
            return Err(TooManyStatements);
        }
        statements.push(Arc::clone(&statement));
        // A superseded connection may still rotate its key; it is not listed again by that.
        let is_current = inner.connections.get(&connection.provider_id()).is_some_and(|c| Arc::ptr_eq(c, connection));
        if is_current {
            inner.by_statement.retain(|_, (owner, s)| !Arc::ptr_eq(owner, connection) || s.is_routable_at(now));
            inner.by_statement.insert(digest, (Arc::clone(connection), statement));
        }
        Ok(())
    }

    /// Sets how many streams a connection takes at once; 0 drains it.
    pub fn set_capacity(&self, connection: &Connection<L>, capacity: u32) {
        connection.capacity.store(capacity.min(MAX_CAPACITY), Ordering::Relaxed);
    }

    /// Forgets a connection that ended, unless a newer one of its provider has taken its place.
    pub fn remove(&self, connection: &Arc<Connection<L>>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let id = connection.provider_id();
        if inner.connections.get(&id).is_some_and(|current| Arc::ptr_eq(current, connection)) {
            inner.connections.remove(&id);
            inner.by_statement.retain(|_, (owner, _)| !Arc::ptr_eq(owner, connection));
        }
    }

    /// The connection that holds a key statement.
    pub fn find(&self, statement_digest: &Digest) -> Option<(Arc<Connection<L>>, Arc<LoggedStatement>)> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).by_statement.get(statement_digest).cloned()
    }

    /// The identity key of a provider that is, or lately was, enrolled.
    pub fn identity(&self, id: &ProviderId) -> Option<IdentityKey> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).identities.keys.get(id).cloned()
    }

    /// Every connection, in no particular order.
    pub fn connections(&self) -> Vec<Arc<Connection<L>>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).connections.values().cloned().collect()
    }

    /// The directory (SPEC §9.1): the newest statement of each connection that takes requests, of `model` if one is named.
    /// Of more than fit into [`MAX_LISTINGS_LEN`] it has those that enrolled last.
    pub fn directory(&self, model: Option<&str>, now: UnixTime) -> Directory {
        let mut connections = self.connections();
        connections.sort_unstable_by_key(|c| Reverse(c.enrolled.load(Ordering::Relaxed)));
        let listing = |connection: Arc<Connection<L>>| {
            let newest = connection.listed(now)?;
            model.is_none_or(|name| newest.statement.offer(name).is_some()).then(|| Listing {
                key_statement: newest.statement.bytes().to_vec(),
                key_statement_proof: newest.proof.clone(),
                evidence: connection.evidence.bytes().to_vec(),
                evidence_proof: connection.evidence_proof.clone(),
            })
        };
        let mut left = MAX_LISTINGS_LEN;
        let fits = |listing: &Listing| {
            let rest = left.checked_sub(json_len(listing));
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        Directory { providers: connections.into_iter().filter_map(listing).take_while(fits).collect() }
    }

    /// Names of listed models, each with the start of the earliest statement that offers it.
    pub fn models(&self, now: UnixTime) -> BTreeMap<String, UnixTime> {
        let mut models = BTreeMap::<String, UnixTime>::new();
        for statement in self.connections().iter().filter_map(|c| c.listed(now)) {
            let since = statement.statement.not_before;
            for offer in &statement.statement.models {
                models.entry(offer.name.clone()).and_modify(|t| *t = since.min(*t)).or_insert(since);
            }
        }
        models
    }
}

/// At least the bytes that a listing takes in JSON.
fn json_len(listing: &Listing) -> usize {
    let base64 = |entry: &[u8]| entry.len().div_ceil(3) * 4;
    // Text of several lines: each line end takes an escape, and a quote or backslash in the origin's name would.
    let text = |proof: &str| proof.len() + proof.bytes().filter(|b| matches!(b, b'\n' | b'"' | b'\\')).count();
    let entries = base64(&listing.key_statement) + base64(&listing.evidence);
    entries + text(&listing.key_statement_proof) + text(&listing.evidence_proof) + LISTING_FRAME_LEN
}

#[cfg(test)]
#[path = "../tests/support/entries.rs"]
#[expect(dead_code, reason = "shared with tests that need the rest")]
mod entries;

#[cfg(test)]
mod tests {
    use super::entries::Identity;
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn connection(seed: u8, proof_len: usize) -> Arc<Connection<()>> {
        let identity = Identity::new(seed);
        let statement = identity.sign(&identity.statement(100, NOW));
        // The worst case: every byte of a proof takes an escape.
        let (evidence_proof, statement_proof) = ("\n".repeat(proof_len), String::new());
        let evidence = identity.evidence;
        Connection::new(LoggedEnrolment { evidence, evidence_proof, statement, statement_proof, capacity: 1 }, ())
    }

    #[test]
    fn the_directory_is_bounded_and_has_the_latest() {
        const PROOF_LEN: usize = 1 << 20;
        let registry = Registry::default();
        for seed in 1..=10 {
            registry.insert(&connection(seed, PROOF_LEN));
        }
        // The first comes back, and is the latest then.
        registry.insert(&connection(1, PROOF_LEN));
        let directory = registry.directory(None, NOW);
        assert!(serde_json::to_vec(&directory).unwrap().len() <= MAX_LISTINGS_LEN + LISTING_FRAME_LEN);
        let listed: Vec<_> = directory.providers.into_iter().map(|p| p.evidence).collect();
        let latest = [1, 10, 9, 8, 7, 6, 5].map(|seed| Identity::new(seed).evidence.bytes().to_vec());
        assert_eq!(listed, latest);
    }

    #[test]
    fn identities_of_connected_providers_are_not_forgotten() {
        let keys = [1, 2, 3, 4].map(|seed| connection(seed, 0).identity().clone());
        let [first, second, third, fourth] = keys.each_ref().map(IdentityKey::provider_id);
        let mut identities = Identities::default();
        identities.remember(&keys[0], 2, |_| true);
        identities.remember(&keys[1], 2, |_| true);
        identities.remember(&keys[2], 2, |id| *id != second);
        assert!(!identities.keys.contains_key(&second), "the oldest that is not connected");
        assert!(identities.keys.contains_key(&first) && identities.keys.contains_key(&third));
        identities.remember(&keys[3], 2, |_| true);
        assert_eq!(identities.order, [first, third, fourth], "all are connected");
    }
}
