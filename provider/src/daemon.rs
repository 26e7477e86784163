//! The daemon: keys, engine and receipts of one provider, and the loop that keeps it linked to its gateway.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanlight_protocol::entry::{Evidence, EvidenceKind, ModelOffer, Signed};
use fanlight_protocol::{Digest, ProviderId, UnixTime};
use rand_core::{Rng, UnwrapErr};
use sha2::Digest as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::enclave::{Enclave, SignError, SimulatedEnclave, SimulatedEnclaveError};
use crate::engine::Engine;
use crate::keys::{KeyRing, LiveKey, StatementTerms};
use crate::link::{self, LinkError};
use crate::receipts::{Journal, JournalError, ReceiptChain};

/// First wait before a new link is tried; it doubles to [`MAX_BACKOFF`], and each wait is a random part of it.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How often keys past their grace are looked for.
const KEY_EXPIRY_CHECK: Duration = Duration::from_secs(10);
/// How long running exchanges may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(30);

/// What a provider needs to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway, `http(s)://host[:port]`. It sees ciphertext and sizes; it is trusted with neither keys nor text.
    pub gateway: String,
    /// Identity key, receipt journal and control socket. Whoever reads it can sign as this provider.
    pub data_dir: PathBuf,
    /// Runs the models.
    pub engine: Arc<dyn Engine>,
    /// Requests served at once.
    pub capacity: u32,
    /// How often the KEM key is replaced.
    pub rotation: Duration,
}

/// Why a provider did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be made.
    #[error("make the data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The identity key.
    #[error(transparent)]
    Enclave(#[from] SimulatedEnclaveError),
    /// This executable could not be read to measure it.
    #[error("measure this executable")]
    Measure(#[source] io::Error),
    /// The receipt journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Not an http or https address.
    #[error("use the gateway address {0}: it must begin with http:// or https://")]
    Gateway(String),
    /// The enclave did not sign.
    #[error("sign the evidence")]
    Sign(#[from] SignError),
    /// The system gave no thread.
    #[error("start the receipt thread")]
    Thread(#[source] io::Error),
}

/// Where the link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Trying to connect or enrol.
    Connecting,
    /// Key statement logged and listed; requests come.
    Listed,
    /// The last try failed; another follows.
    Waiting {
        /// Why, in words for the operator.
        reason: String,
    },
    /// Shut down.
    Stopped,
}

/// Files of a data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Over `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The simulated enclave's identity key.
    pub fn identity_key(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// The receipt journal.
    pub fn journal(&self) -> PathBuf {
        self.0.join("receipts.journal")
    }

    /// The Unix socket that `fanlight-provider status` asks.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

/// What every part of a running provider shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) enclave: Arc<dyn Enclave>,
    pub(crate) keys: KeyRing,
    pub(crate) receipts: ReceiptChain,
    pub(crate) terms: StatementTerms,
    pub(crate) evidence: Signed<Evidence>,
    pub(crate) capacity: u32,
    pub(crate) counters: Counters,
    state: watch::Sender<LinkState>,
}

impl Core {
    #[expect(clippy::unused_self, reason = "the one place where the daemon reads the clock")]
    pub(crate) fn now(&self) -> UnixTime {
        std::time::SystemTime::now().into()
    }

    #[expect(clippy::unused_self, reason = "the one place where the daemon gets randomness")]
    pub(crate) fn rng(&self) -> UnwrapErr<getrandom::SysRng> {
        UnwrapErr(getrandom::SysRng)
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.rng().next_u64()
    }

    pub(crate) fn set_link_state(&self, state: LinkState) {
        self.state.send_if_modified(|old| {
            let changed = *old != state;
            *old = state;
            changed
        });
    }

    /// How long until the KEM key is due for replacement.
    pub(crate) fn until_rotation(&self) -> Duration {
        let Some(key) = self.keys.current().filter(|key| !key.is_full()) else { return Duration::ZERO };
        let due = (key.made() + self.terms.rotation).as_millis();
        Duration::from_millis(due.saturating_sub(self.now().as_millis()))
    }

    pub(crate) fn rotate_key(&self) -> Result<Arc<LiveKey>, SignError> {
        self.keys.rotate(&*self.enclave, &self.terms, self.now())
    }

    /// The KEM key to enrol with: the current one, or a new one when that is due.
    pub(crate) fn current_key(&self) -> Result<Arc<LiveKey>, SignError> {
        match self.keys.current() {
            Some(key) if !self.until_rotation().is_zero() => Ok(key),
            _ => self.rotate_key(),
        }
    }
}

/// A running provider. Dropping it stops it without waiting; [`Provider::shutdown`] waits.
#[derive(Debug)]
pub struct Provider {
    core: Arc<Core>,
    gateway: String,
    shutdown: CancellationToken,
    state: watch::Receiver<LinkState>,
    link: JoinHandle<()>,
}

impl Provider {
    /// Opens keys and journal, and starts to link up with the gateway.
    ///
    /// # Errors
    /// [`StartError`] by variant. An unreachable gateway is none: the provider keeps trying.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let url = link_url(&config.gateway)?;
        let data = DataDir::new(&config.data_dir);
        fs::create_dir_all(&config.data_dir).map_err(|source| StartError::DataDir { path: config.data_dir.clone(), source })?;
        let enclave: Arc<dyn Enclave> = Arc::new(SimulatedEnclave::open(&data.identity_key())?);
        let journal = Journal::open(&data.journal(), enclave.identity())?;
        let receipts = ReceiptChain::start(journal, Arc::clone(&enclave)).map_err(StartError::Thread)?;
        let now = UnixTime::from(std::time::SystemTime::now());
        let evidence = Evidence {
            identity: enclave.identity().clone(),
            kind: EvidenceKind::SelfSigned,
            created: UnixTime::from_secs(now.as_secs()),
            claims: enclave.claims(),
        };
        let evidence = Signed::sign(&evidence, enclave.identity(), |message| enclave.sign(message))?;
        let offer = |model: crate::engine::ModelInfo| ModelOffer {
            name: model.name,
            weights_digest: Digest(model.weights_digest),
            context_tokens: u32::try_from(model.context_tokens).unwrap_or(u32::MAX),
        };
        let terms = StatementTerms {
            models: config.engine.models().into_iter().map(offer).collect(),
            build_measurement: measure_executable().map_err(StartError::Measure)?,
            evidence_digest: evidence.digest(),
            rotation: config.rotation,
        };
        let (state, watcher) = watch::channel(LinkState::Connecting);
        let core = Arc::new(Core {
            engine: config.engine,
            enclave,
            keys: KeyRing::default(),
            receipts,
            terms,
            evidence,
            capacity: config.capacity,
            counters: Counters::default(),
            state,
        });
        let shutdown = CancellationToken::new();
        let link = tokio::spawn({
            let (core, shutdown) = (Arc::clone(&core), shutdown.clone());
            async move {
                tokio::select! {
                    () = keep_linked(&core, url, shutdown) => {}
                    () = delete_expired_keys(&core) => {}
                }
            }
        });
        Ok(Self { core, gateway: config.gateway, shutdown, state: watcher, link })
    }

    /// Names this provider.
    pub fn provider_id(&self) -> ProviderId {
        self.core.enclave.identity().provider_id()
    }

    /// Where the link stands, and every change of it.
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// A snapshot for `fanlight-provider status`.
    pub fn status(&self) -> crate::status::Status {
        crate::status::Status::of(&self.core, &self.gateway, &self.state.borrow())
    }

    /// Breaks the link off without a word, as a killed process or a lost network does, and stays away.
    pub fn kill(&self) {
        self.link.abort();
    }

    /// Takes no new requests, ends the running ones (30 s at most), and closes the link.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        if tokio::time::timeout(DRAIN, &mut self.link).await.is_err() {
            tracing::warn!("exchanges were cut off at shutdown");
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.link.abort();
    }
}

/// Keys end on time, whether the link is up or not.
async fn delete_expired_keys(core: &Core) {
    let mut checks = tokio::time::interval(KEY_EXPIRY_CHECK);
    loop {
        checks.tick().await;
        core.keys.delete_expired(core.now());
    }
}

async fn keep_linked(core: &Arc<Core>, url: String, shutdown: CancellationToken) {
    let mut backoff = MIN_BACKOFF;
    while !shutdown.is_cancelled() {
        core.set_link_state(LinkState::Connecting);
        let Err(error) = link::run(core, &url, &shutdown).await else { break };
        // A link that worked begins a new series of waits.
        if *core.state.borrow() == LinkState::Listed {
            backoff = MIN_BACKOFF;
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "the link ended");
        core.set_link_state(LinkState::Waiting { reason: reason(&error) });
        // Full jitter: providers that lost one gateway together do not come back together.
        let wait = backoff.mul_f64(f64::from(core.rng().next_u32()) / f64::from(u32::MAX));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
    core.set_link_state(LinkState::Stopped);
}

/// An error with its sources, as one line for the operator.
fn reason(error: &LinkError) -> String {
    let mut line = format!("failed to {error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

fn link_url(gateway: &str) -> Result<String, StartError> {
    let base = gateway.trim_end_matches('/');
    let ws = base.strip_prefix("http").filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
    ws.map(|rest| format!("ws{rest}/v1/link")).ok_or_else(|| StartError::Gateway(gateway.to_owned()))
}

/// `H` of the running executable: what a key statement calls the build measurement.
fn measure_executable() -> io::Result<Digest> {
    let mut reader = io::BufReader::with_capacity(1 << 20, fs::File::open(std::env::current_exe()?)?);
    let mut hash = sha2::Sha256::new();
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(Digest(hash.finalize().into()));
        }
        hash.update(piece);
        let len = piece.len();
        reader.consume(len);
    }
}
