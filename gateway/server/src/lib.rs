//! The gateway on axum and tokio: one process with its log in a local directory.
//!
//! **In scope:** what a runtime lends to the core: sockets ([`start`]), timers, tasks, the log's store and key.
//! **Out of scope:** every decision about a request or a provider; those are made in `fanlight-gateway`.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use fanlight_gateway_server::{Config, start};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let config = Config { data: "data".into(), origin: "log.example/demo".to_owned(), max_delay: Config::MAX_DELAY, witnesses: None };
//! let gateway = start(config, listener).await?;
//! println!("{} with log {}", gateway.url(), gateway.log_vkey());
//! gateway.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod app;
mod append;
mod link;
mod relay;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanlight_auditlog::store::dir::OpenDirError;
use fanlight_auditlog::store::key_file::{KeyFileError, create_key_file, read_key_file};
use fanlight_auditlog::witness::{HttpPost, PostError, Settings, Witnesses, WitnessesError};
use fanlight_auditlog::{DirStore, Log, Policy, Signer, TileSource, TokioTimer, VerifierKey, sequencer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::app::App;

/// How long requests in flight may go on once the gateway shuts down.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(20);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for the log: `log`, with its key in `log/private/key`, which is never served. Whoever can write here can
    /// replace the log.
    pub data: PathBuf,
    /// Origin of the log: the name in its checkpoints and its vkey. It cannot change once the log exists.
    pub origin: String,
    /// The longest that an entry waits for a round of the log; an answer's inclusion proof waits with it.
    pub max_delay: Duration,
    /// Whose witnesses must cosign each checkpoint of the log before it is published. While their quorum is away, nothing is
    /// logged: providers cannot enrol, and answers come without inclusion proofs.
    pub witnesses: Option<Policy>,
}

impl Config {
    /// A good delay where nothing speaks for another.
    pub const MAX_DELAY: Duration = Duration::from_millis(250);
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log does not exist and was not created.
    #[error("log was not created")]
    CreateLog(#[source] sequencer::CreateError),
    /// The listener has no address.
    #[error("listener has no address")]
    Listener(#[source] io::Error),
    /// The log's key was neither read nor made, or is of another origin.
    #[error("log key is not usable")]
    LogKey(#[source] KeyFileError),
    /// The log was not opened; with another key than before, its checkpoints do not verify.
    #[error("log was not opened")]
    OpenLog(#[source] sequencer::OpenError),
    /// The system gives no randomness for the log's key.
    #[error("system gives no randomness")]
    Randomness(#[source] getrandom::Error),
    /// The log's store failed.
    #[error("log store failed")]
    Store(#[source] fanlight_auditlog::store::StoreError),
    /// The log's directory was not opened; another process may hold it.
    #[error("log directory was not opened")]
    StoreDir(#[source] OpenDirError),
    /// There is no client to ask witnesses with.
    #[error("witnesses cannot be asked")]
    WitnessClient(#[source] PostError),
    /// The policy does not say from whom to gather cosignatures.
    #[error("policy of the witnesses is not usable")]
    Witnesses(#[source] WitnessesError),
}

/// A running gateway. Dropping it leaves it running; end it with [`Gateway::shutdown`].
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    local_addr: SocketAddr,
    log_vkey: String,
    origin: String,
    server: JoinHandle<()>,
    sequencer: JoinHandle<()>,
}

/// Opens the log, creating it and its key the first time, and serves on `listener`.
///
/// # Errors
/// [`StartError`] by variant.
pub async fn start(config: Config, listener: TcpListener) -> Result<Gateway, StartError> {
    let local_addr = listener.local_addr().map_err(StartError::Listener)?;
    let store = DirStore::open_writer(config.data.join("log")).map_err(StartError::StoreDir)?;
    let is_new = store.get(fanlight_auditlog::store::CHECKPOINT_KEY).await.map_err(StartError::Store)?.is_none();
    let signer = signer(&store, &config.origin, is_new)?;
    let log_vkey = signer.verifier_key().to_string();
    if is_new {
        // A crash between the lock and the first checkpoint leaves a log without one; opening it makes that good.
        match fanlight_auditlog::create(&store, &signer).await {
            Ok(()) | Err(sequencer::CreateError::Exists) => {}
            Err(error) => return Err(StartError::CreateLog(error)),
        }
    }
    let pace = fanlight_auditlog::Config { max_delay: config.max_delay, ..fanlight_auditlog::Config::default() };
    let witnesses = config.witnesses.map(|policy| witnesses(policy, &signer.verifier_key())).transpose()?;
    let (log, sequencer) = Log::open_witnessed(store, signer, pace, witnesses).await.map_err(StartError::OpenLog)?;
    let failed = CancellationToken::new();
    let app = Arc::new(App::new(log, failed.clone()));
    let sequencer = tokio::spawn(tell_failure(sequencer.run(TokioTimer::new()), failed));
    let server = tokio::spawn(serve::serve(Arc::clone(&app), listener));
    Ok(Gateway { app, local_addr, log_vkey, origin: config.origin, server, sequencer })
}

/// Runs the sequencer, and cancels `failed` when it ends in any other way than by the log's closing, be it a panic.
async fn tell_failure(running: impl Future<Output = Result<(), sequencer::SequencerError>>, failed: CancellationToken) {
    let failing = failed.drop_guard();
    match running.await {
        Ok(()) => drop(failing.disarm()),
        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "log stopped"),
    }
}

/// Reads the log's key; makes it for a log that is new. Any other key would sign nothing that verifies.
fn signer(store: &DirStore, origin: &str, is_new: bool) -> Result<Signer, StartError> {
    if !is_new {
        read_key_file(&store.key_file()).map_err(StartError::LogKey)?;
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(StartError::Randomness)?;
    create_key_file(&store.key_file(), origin, &seed).map_err(StartError::LogKey)
}

fn witnesses(policy: Policy, log_key: &VerifierKey) -> Result<Witnesses<HttpPost, TokioTimer>, StartError> {
    let post = HttpPost::new().map_err(StartError::WitnessClient)?;
    Witnesses::new(policy, log_key, Settings::default(), post, TokioTimer::new(), unix_seconds).map_err(StartError::Witnesses)
}

#[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Gateway {
    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// `http://ADDRESS`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr)
    }

    /// The verifier key of the log, as C2SP signed-note writes it.
    pub fn log_vkey(&self) -> &str {
        &self.log_vkey
    }

    /// The origin of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns when the log has stopped for good, for instance because its store was changed by another: nothing can be
    /// enrolled or logged any more, and the process should end.
    pub async fn failed(&self) {
        self.app.failed().await;
    }

    /// Takes no new connections, lets requests in flight go on for at most [`SHUTDOWN_WAIT`], logs the receipts that
    /// came, and finishes the log's round.
    pub async fn shutdown(self) {
        self.app.stop().await;
        // Both ended, or hang in a store that does not answer; a panic in them was reported when it happened.
        self.server.abort();
        self.sequencer.abort();
        let _ = self.server.await;
        let _ = self.sequencer.await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn a_sequencer_that_panics_has_failed() {
        let failed = CancellationToken::new();
        tell_failure(ready(Ok(())), failed.clone()).await;
        assert!(!failed.is_cancelled());
        let panics = async { panic!("what no sequencer should do") };
        assert!(tokio::spawn(tell_failure(panics, failed.clone())).await.is_err());
        assert!(failed.is_cancelled());
    }
}
