//! The client: verified directory, sealing, one retry.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fanlight_auditlog::Policy;
use fanlight_auditlog::policy::PolicyError;
use fanlight_protocol::problem::ProblemCode;
use fanlight_protocol::request::{CHAT_COMPLETIONS, MAX_VALIDITY_SECS};
use fanlight_protocol::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, RequestId, UnixTime};
use fanlight_sealing::{RequestParams, SealError, Sender};
use fanlight_verifier::ProviderPolicy;
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::directory::{DirectoryCache, DirectoryError, Snapshot};
use crate::event::Event;
use crate::exchange::{Exchange, ExchangeError};
use crate::gateway::{Gateway, GatewayError, Hint, TransportError};
use crate::request::ChatRequest;
use crate::sampling::{least_context_tokens, sample};
use crate::settlement;
use crate::store::{ReceiptStore, StoreError};

/// Events that a slow watcher may fall behind.
const EVENT_CAPACITY: usize = 256;

/// Why a client could not be set up. The configuration is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// The gateway's URL.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The policy text.
    #[error("policy is not valid")]
    Policy(#[source] PolicyError),
    /// The state directory.
    #[error("failed to open the state directory {}", .path.display())]
    State {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Without a verified directory nothing is sealed.
    #[error("no verified directory")]
    Directory(#[from] DirectoryError),
    /// An answer began and is not to be relied on.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// An outer error: unauthenticated, whoever made it.
    #[error("gateway answered {}", .0.status)]
    Hint(Hint),
    /// The request cannot be sealed; the caller is at fault.
    #[error("request cannot be sealed")]
    Seal(#[source] SealError),
    /// The network or the gateway failed.
    #[error("request was not delivered")]
    Transport(#[from] TransportError),
    /// No provider whose listing verified offers the model.
    #[error("no verified provider offers the model")]
    UnknownModel {
        /// How many providers are verified.
        verified: usize,
        /// How many listings the policy refused; the model may be among them.
        refused: usize,
    },
}

/// Sends sealed requests. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What exchanges need after `send` has returned.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) policy: Arc<ProviderPolicy>,
    pub(crate) gateway: Gateway,
    pub(crate) store: Arc<ReceiptStore>,
    // Settlements under way.
    pub(crate) tasks: TaskTracker,
    directory: DirectoryCache,
    events: broadcast::Sender<Event>,
}

impl Shared {
    /// Nobody has to listen.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

impl Client {
    /// Checks the configuration and opens the state directory; asks nothing of the gateway yet.
    ///
    /// # Errors
    /// [`SetUpError`], by setting.
    pub fn new(config: Config) -> Result<Self, SetUpError> {
        let log = Policy::parse(config.policy.as_bytes()).map_err(SetUpError::Policy)?;
        let policy = Arc::new(ProviderPolicy { log, minimum_grade: config.minimum_grade });
        let gateway = Gateway::new(&config.gateway, config.timeouts)?;
        let store = ReceiptStore::open(&config.state_dir, config.policy.as_bytes());
        let store = store.map_err(|source| SetUpError::State { path: config.state_dir.clone(), source })?;
        let events = broadcast::Sender::new(EVENT_CAPACITY);
        let directory = DirectoryCache::new(Arc::clone(&policy), config.clock.clone(), events.clone());
        let store = Arc::new(store);
        Ok(Self { shared: Arc::new(Shared { config, policy, gateway, store, tasks: TaskTracker::new(), directory, events }) })
    }

    /// Every provider that the gateway lists, verified or refused; at most five minutes old.
    ///
    /// # Errors
    /// [`DirectoryError`], when it had to be fetched and could not be.
    pub async fn directory(&self) -> Result<Arc<Snapshot>, DirectoryError> {
        self.shared.directory.fresh(&self.shared.gateway).await
    }

    /// Seals a request to up to `max_recipients` random providers of its model and waits for the first content.
    ///
    /// On an outer `unknown_key` or `no_provider` the key statements are fetched and verified anew, and the request is sealed
    /// again, once, under the same id: providers that restarted have new keys. Nothing else is retried: a request may have
    /// been served although its answer was lost.
    ///
    /// # Errors
    /// [`SendError`], by the party at fault.
    pub async fn send(&self, request: &ChatRequest) -> Result<Exchange, SendError> {
        let Shared { directory, gateway, .. } = &*self.shared;
        let mut receipt_id = RequestId([0; 16]);
        rng().fill_bytes(&mut receipt_id.0);
        let snapshot = directory.for_model(gateway, request.model()).await?;
        let outcome = self.attempt(request, receipt_id, &snapshot, 1).await;
        let outcome = match outcome {
            Err(SendError::Hint(Hint { code: Some(ProblemCode::UnknownKey | ProblemCode::NoProvider), .. })) => {
                let snapshot = directory.refresh(gateway, &snapshot).await?;
                self.attempt(request, receipt_id, &snapshot, 2).await
            }
            outcome => outcome,
        };
        if let Err(SendError::Hint(Hint { code: Some(ProblemCode::ModelNotFound | ProblemCode::NoProvider), .. })) = outcome {
            // They may have left; the next request shall see who has come.
            directory.current().set_outdated();
        }
        outcome
    }

    /// The receipts of this client's state directory.
    pub fn receipts(&self) -> &ReceiptStore {
        &self.shared.store
    }

    /// From now on, what happens.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// The time by this client's clock.
    pub fn now(&self) -> UnixTime {
        self.shared.config.clock.now()
    }

    /// The most receipts that [`Client::settle_stored`] tries: each that the log refuses costs a request, at every start.
    pub const MAX_SETTLED_AT_ONCE: usize = 64;

    /// Tries once more to get the tlog proofs of stored receipts that lack one, of the newest
    /// [`Client::MAX_SETTLED_AT_ONCE`]; says how many of those still do.
    ///
    /// # Errors
    /// [`StoreError`], when receipts cannot be read.
    pub async fn settle_stored(&self) -> Result<usize, StoreError> {
        const NO_PANIC: &str = "reading does not panic, and is not cancelled";
        let store = Arc::clone(&self.shared.store);
        let mut ids = tokio::task::spawn_blocking(move || store.ids()).await.expect(NO_PANIC)?.into_iter();
        let mut left = 0;
        for _ in 0..Self::MAX_SETTLED_AT_ONCE {
            let store = Arc::clone(&self.shared.store);
            let next = tokio::task::spawn_blocking(move || {
                let unlogged = ids.find_map(|id| store.load(id).ok().flatten().filter(|bundle| !bundle.logged));
                (unlogged, ids)
            });
            let (unlogged, rest) = next.await.expect(NO_PANIC);
            let Some(bundle) = unlogged else { break };
            ids = rest;
            left += usize::from(!settlement::settle(&self.shared, bundle, None, &[Duration::ZERO]).await);
        }
        Ok(left)
    }

    /// Waits until every receipt of this client's exchanges is logged, or was given up for now.
    pub async fn settled(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn attempt(
        &self,
        request: &ChatRequest,
        receipt_id: RequestId,
        snapshot: &Snapshot,
        attempt: u8,
    ) -> Result<Exchange, SendError> {
        let config = &self.shared.config;
        let (model, now) = (request.model(), config.clock.now());
        let mut rng = rng();
        let n = config.recipients();
        let recipients = sample(snapshot, model, request.max_output_tokens(), now, n, || rng.next_u64());
        if recipients.is_empty() {
            return Err(SendError::UnknownModel { verified: snapshot.providers.len(), refused: snapshot.refused.len() });
        }
        let least_context = least_context_tokens(&recipients, model);
        let params = RequestParams {
            request_id: receipt_id,
            created: now,
            expires: UnixTime::from_secs(now.as_secs() + MAX_VALIDITY_SECS),
            operation: CHAT_COMPLETIONS.to_owned(),
            model: model.to_owned(),
            input_tokens_min: 0,
            input_tokens_max: request.input_tokens_bound(),
            max_output_tokens: request.max_output_tokens().unwrap_or(least_context).max(1),
            stream: request.stream(),
            padding: config.padding,
        };
        let keys: Vec<_> = recipients.iter().map(|provider| provider.recipient().clone()).collect();
        let sealed = Sender::new(params, &keys).and_then(|sender| sender.seal(request.body(), &mut rng));
        let (sealed, opener) = sealed.map_err(SendError::Seal)?;
        self.shared.tell(Event::Sealed {
            receipt_id,
            recipients: recipients.iter().map(|provider| provider.verified().provider_id()).collect(),
            request_len: sealed.len(),
            attempt,
        });
        let reply = self.shared.gateway.post("v1/chat/completions", REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, sealed.into());
        let reply = reply.await?;
        if !reply.is(RESPONSE_MEDIA_TYPE) {
            return Err(SendError::Hint(reply.into_hint().await));
        }
        let shared = Arc::clone(&self.shared);
        Ok(Exchange::start(shared, receipt_id, model.to_owned(), &recipients, opener, reply).await?)
    }
}

/// The system's generator; without it nothing could be sealed, and nothing would be safe.
const fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
