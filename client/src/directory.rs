//! The verified directory: fetched whole, every listing judged, kept until it is old (SPEC §9.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanlight_protocol::directory::{Directory, Listing, MAX_DIRECTORY_LEN};
use fanlight_protocol::entry::peek;
use fanlight_protocol::{ProviderId, UnixTime};
use fanlight_sealing::Recipient;
use fanlight_verifier::{ListingError, ProviderPolicy, VerifiedProvider, verify_listing};
use tokio::sync::{Mutex, broadcast, watch};

use crate::config::Clock;
use crate::event::Event;
use crate::gateway::{Gateway, Hint, TransportError};

/// Age at which a snapshot is fetched anew: providers come and go long before their statements end.
const MAX_AGE: Duration = Duration::from_mins(5);
/// Age below which a snapshot is not fetched anew for a model that it lacks: each unknown name would cost a directory.
const MIN_AGE: Duration = Duration::from_secs(5);
/// A statement that ends sooner than this is near its end: its provider has, or will soon have, another.
const NEAR_END: Duration = Duration::from_mins(1);

/// Why there is no current directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The gateway refused; a hint.
    #[error("gateway answered {} to the directory", .0.status)]
    Hint(Hint),
    /// Not the JSON of SPEC §9.1.
    #[error("directory is malformed")]
    Malformed,
    /// The network or the gateway failed.
    #[error("directory cannot be fetched")]
    Transport(#[from] TransportError),
}

/// Everything that one fetch of the directory gave.
#[derive(Debug)]
pub struct Snapshot {
    /// Providers whose listing verified under the client's policy; one listing each, the one that ends last.
    pub providers: Vec<Arc<ListedProvider>>,
    /// Listings that did not verify, and why.
    pub refused: Vec<RefusedListing>,
    /// When it was fetched.
    pub fetched: UnixTime,
    // Counts fetches, so that those who wait for the same one can tell.
    generation: u64,
    // Set when an answer of the gateway shows that things have changed.
    outdated: AtomicBool,
}

/// A provider that may be sealed to, with the bytes that prove it.
#[derive(Debug)]
pub struct ListedProvider {
    verified: VerifiedProvider,
    listing: Listing,
    recipient: Recipient,
}

/// A listing that was refused.
#[derive(Debug)]
pub struct RefusedListing {
    /// Whom it claims to be of; unverified. `None` when it is no entry at all.
    pub claimed: Option<ProviderId>,
    /// Why it was refused.
    pub reason: ListingError,
}

impl ListedProvider {
    /// What was verified.
    pub const fn verified(&self) -> &VerifiedProvider {
        &self.verified
    }

    /// Entries and proofs, as the gateway listed them.
    pub const fn listing(&self) -> &Listing {
        &self.listing
    }

    pub(crate) const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// Whether it offers `model` at `now`.
    pub fn offers(&self, model: &str, now: UnixTime) -> bool {
        let statement = self.verified.key_statement();
        statement.is_valid_at(now) && statement.offer(model).is_some()
    }
}

impl Snapshot {
    fn empty() -> Self {
        Self {
            providers: Vec::new(),
            refused: Vec::new(),
            fetched: UnixTime::from_secs(0),
            generation: 0,
            outdated: AtomicBool::new(true),
        }
    }

    /// Judges every listing. A pure function of its arguments.
    fn judge(listings: Vec<Listing>, policy: &ProviderPolicy, now: UnixTime, generation: u64) -> Self {
        let mut providers: HashMap<ProviderId, Arc<ListedProvider>> = HashMap::new();
        let mut refused = Vec::new();
        for listing in listings {
            let verified = match verify_listing(&listing, policy, now) {
                Ok(verified) => verified,
                Err(reason) => {
                    let claimed = peek(&listing.key_statement).ok().map(|claimed| claimed.provider_id);
                    refused.push(RefusedListing { claimed, reason });
                    continue;
                }
            };
            let statement = verified.key_statement();
            let recipient = Recipient::new(&statement.kem_key, statement.digest()).expect("statements hold points of the curve");
            let provider = Arc::new(ListedProvider { verified, listing, recipient });
            // Listing one provider often must not make it likelier to be sampled.
            let ends = |provider: &ListedProvider| provider.verified.key_statement().not_after;
            providers
                .entry(provider.verified.provider_id())
                .and_modify(|known| {
                    if ends(&provider) > ends(known) {
                        known.clone_from(&provider);
                    }
                })
                .or_insert(provider);
        }
        let mut providers: Vec<_> = providers.into_values().collect();
        providers.sort_unstable_by_key(|provider| provider.verified.provider_id());
        Self { providers, refused, fetched: now, generation, outdated: AtomicBool::new(false) }
    }

    /// The providers of `model` at `now`.
    pub fn offering<'a>(&'a self, model: &'a str, now: UnixTime) -> impl Iterator<Item = &'a Arc<ListedProvider>> {
        self.providers.iter().filter(move |provider| provider.offers(model, now))
    }

    /// Makes the next request fetch anew.
    pub(crate) fn set_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    fn is_old(&self, now: UnixTime) -> bool {
        self.outdated.load(Ordering::Relaxed) || now < self.fetched || now > self.fetched + MAX_AGE
    }
}

/// The cache. Any number of callers; one fetch at a time, whose outcome all of them share.
#[derive(Debug)]
pub(crate) struct DirectoryCache {
    current: watch::Sender<Arc<Snapshot>>,
    // Held by whoever fetches.
    fetching: Mutex<()>,
    policy: Arc<ProviderPolicy>,
    clock: Clock,
    events: broadcast::Sender<Event>,
}

impl DirectoryCache {
    pub(crate) fn new(policy: Arc<ProviderPolicy>, clock: Clock, events: broadcast::Sender<Event>) -> Self {
        Self { current: watch::Sender::new(Arc::new(Snapshot::empty())), fetching: Mutex::new(()), policy, clock, events }
    }

    /// The last snapshot, however old.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// A snapshot that is not old.
    pub(crate) async fn fresh(&self, gateway: &Gateway) -> Result<Arc<Snapshot>, DirectoryError> {
        let current = self.current();
        if current.is_old(self.clock.now()) { self.refresh(gateway, &current).await } else { Ok(current) }
    }

    /// A snapshot that is good for a request of `model`: not old, and with a provider whose statement is not near its
    /// end, unless it was fetched a moment ago. While the gateway cannot be asked, a snapshot with a valid provider will do.
    pub(crate) async fn for_model(&self, gateway: &Gateway, model: &str) -> Result<Arc<Snapshot>, DirectoryError> {
        let current = self.current();
        let now = self.clock.now();
        let is_young = now < current.fetched + MIN_AGE;
        if !current.is_old(now) && (is_young || current.offering(model, now + NEAR_END).next().is_some()) {
            return Ok(current);
        }
        match self.refresh(gateway, &current).await {
            Err(_) if current.offering(model, now).next().is_some() => Ok(current),
            refreshed => refreshed,
        }
    }

    /// Fetches anew, unless somebody has since `seen`.
    pub(crate) async fn refresh(&self, gateway: &Gateway, seen: &Snapshot) -> Result<Arc<Snapshot>, DirectoryError> {
        let _fetching = self.fetching.lock().await;
        let current = self.current();
        if current.generation > seen.generation {
            return Ok(current);
        }
        let reply = gateway.get("v1/providers").await?;
        if !reply.is_ok() {
            return Err(DirectoryError::Hint(reply.into_hint().await));
        }
        let json = reply.read(MAX_DIRECTORY_LEN).await?;
        let (policy, now, generation) = (Arc::clone(&self.policy), self.clock.now(), current.generation + 1);
        // Thousands of signatures are work for a thread, not for the reactor.
        let judged = tokio::task::spawn_blocking(move || {
            let directory: Directory = serde_json::from_slice(&json).map_err(|_| DirectoryError::Malformed)?;
            Ok::<_, DirectoryError>(Arc::new(Snapshot::judge(directory.providers, &policy, now, generation)))
        });
        let snapshot = judged.await.expect("judging does not panic, and is not cancelled")?;
        tracing::debug!(verified = snapshot.providers.len(), refused = snapshot.refused.len(), "directory fetched");
        self.current.send_replace(Arc::clone(&snapshot));
        // Nobody has to listen.
        let _ = self.events.send(Event::Directory(Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}
