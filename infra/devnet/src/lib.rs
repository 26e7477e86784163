//! The whole network on loopback, in one process: log, gateway, providers, local OpenAI proxy.
//!
//! Real servers on real sockets; only the provider's enclave is simulated, and its grade says so. The demo runs one, and the
//! whole-system tests run as many as they like.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanlight_gateway_server::Gateway;
use fanlight_provider::engine::{Engine, Limits, builtin};
use fanlight_provider::{LinkState, Provider};
use fanlight_proxy::Proxy;
use tokio::net::TcpListener;

/// Origin of the demo's log.
pub const ORIGIN: &str = "fanlight.devnet/log";
/// Requests that one provider of the demo serves at once.
const CAPACITY: u32 = 16;
const ROTATION: Duration = Duration::from_hours(1);

/// What a network is made of.
#[derive(Debug)]
pub struct Config {
    /// Everything it stores: `gateway/`, `provider-N/`, `client/`.
    pub data: PathBuf,
    /// The proxy listens here, the gateway on the next port; `None` takes free ones.
    pub port_base: Option<u16>,
    /// One provider for each.
    pub engines: Vec<Arc<dyn Engine>>,
    /// The longest that an entry waits for a round of the log.
    pub max_delay: Duration,
}

impl Config {
    /// One provider with the built-in test model, on free ports.
    ///
    /// # Errors
    /// [`StartError::Engine`].
    pub fn demo(data: impl Into<PathBuf>) -> Result<Self, StartError> {
        let engine = builtin::start(Limits::default()).map_err(|error| StartError::Engine(Box::new(error)))?;
        Ok(Self {
            data: data.into(),
            port_base: None,
            engines: vec![Arc::new(engine)],
            max_delay: fanlight_gateway_server::Config::MAX_DELAY,
        })
    }
}

/// Why a network did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model did not load.
    #[error("start the engine")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gateway, its log or its key.
    #[error("start the gateway")]
    Gateway(#[from] fanlight_gateway_server::StartError),
    /// A port is taken.
    #[error("listen on {address}; is it in use? `--port-base N` takes other ports")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A provider's keys or journal.
    #[error("start a provider")]
    Provider(#[from] fanlight_provider::StartError),
    /// A provider stopped before it was listed.
    #[error("enrol a provider: it stopped")]
    ProviderStopped,
    /// The proxy or its client.
    #[error("start the local proxy")]
    Proxy(#[from] fanlight_proxy::StartError),
}

/// A running network.
#[derive(Debug)]
pub struct Network {
    /// Routes ciphertext and keeps the log.
    pub gateway: Gateway,
    /// Open, serve and sign.
    pub providers: Vec<Provider>,
    /// Speaks OpenAI's API on loopback.
    pub proxy: Proxy,
    /// What the client trusts: a C2SP tlog-policy, here the one log and no witnesses.
    pub policy: String,
    data: PathBuf,
}

impl Network {
    /// Starts everything, and returns once every provider is listed: its evidence and key statement are logged.
    ///
    /// # Errors
    /// [`StartError`] by variant.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let ports = config.port_base.map_or((0, 0), |base| (base, base + 1));
        let proxy_listener = listen(ports.0).await?;
        let gateway_config = fanlight_gateway_server::Config {
            data: config.data.join("gateway"),
            origin: ORIGIN.to_owned(),
            max_delay: config.max_delay,
            witnesses: None,
        };
        let gateway = fanlight_gateway_server::start(gateway_config, listen(ports.1).await?).await?;

        let mut providers = Vec::new();
        for (n, engine) in config.engines.into_iter().enumerate() {
            let provider = start_provider(&gateway.url(), &config.data.join(format!("provider-{n}")), engine)?;
            wait_until_listed(&provider).await?;
            providers.push(provider);
        }

        let policy = format!("log {}\nquorum none\n", gateway.log_vkey());
        let client = fanlight_client::Config::new(gateway.url(), policy.clone(), config.data.join("client"));
        let proxy = fanlight_proxy::start(fanlight_proxy::Config { client, allowed_hosts: Vec::new() }, proxy_listener)?;
        Ok(Self { gateway, providers, proxy, policy, data: config.data })
    }

    /// Base URL for OpenAI's SDKs.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.proxy.local_addr())
    }

    /// The client's state directory: `policy` and `receipts/`.
    pub fn client_state(&self) -> PathBuf {
        self.data.join("client")
    }

    /// Stops everything in the order in which nothing is lost: proxy, providers, gateway.
    pub async fn shutdown(self) {
        self.proxy.shutdown().await;
        for provider in self.providers {
            provider.shutdown().await;
        }
        self.gateway.shutdown().await;
    }
}

/// Starts a provider of a gateway, with its identity and journal in `data`.
///
/// # Errors
/// Those of [`Provider::start`].
pub fn start_provider(gateway: &str, data: &Path, engine: Arc<dyn Engine>) -> Result<Provider, fanlight_provider::StartError> {
    Provider::start(fanlight_provider::Config {
        gateway: gateway.to_owned(),
        data_dir: data.to_owned(),
        engine,
        capacity: CAPACITY,
        rotation: ROTATION,
    })
}

/// Waits until a provider's key is logged and listed.
///
/// # Errors
/// [`StartError::ProviderStopped`].
pub async fn wait_until_listed(provider: &Provider) -> Result<(), StartError> {
    let mut state = provider.link_state();
    let listed = state.wait_for(|state| matches!(state, LinkState::Listed | LinkState::Stopped)).await;
    match listed.as_deref() {
        Ok(LinkState::Listed) => Ok(()),
        _ => Err(StartError::ProviderStopped),
    }
}

async fn listen(port: u16) -> Result<TcpListener, StartError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}
