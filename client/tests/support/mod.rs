//! A network on loopback: a real log in a directory, providers that really open and seal, and a gateway that does what a
//! dishonest or broken one might.

// Every test binary uses its own part of this.
#![expect(dead_code, unreachable_pub, reason = "shared by several test binaries")]

mod fault;
mod gateway;
mod provider;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanlight_auditlog::{DirStore, Log, Signer, create};
use fanlight_client::{Client, Clock, Config, Timeouts};
use fanlight_protocol::UnixTime;
use fanlight_protocol::directory::Listing;
use tempfile::TempDir;

pub use fault::Fault;
pub use provider::TestProvider;

/// When the tests take place, in Unix seconds.
const START: u64 = 1_800_000_000;

/// A clock that every party of a test shares.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn now(&self) -> UnixTime {
        UnixTime::from_secs(self.0.load(Ordering::Relaxed))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

/// What the gateway has and does.
pub struct State {
    pub clock: TestClock,
    pub log: Log<DirStore>,
    /// Those that answer.
    pub providers: Mutex<Vec<Arc<TestProvider>>>,
    /// What the directory lists.
    pub listings: Mutex<Vec<Listing>>,
    /// What goes wrong with the next requests, one each; after that nothing does.
    pub faults: Mutex<Vec<Fault>>,
    /// Sealed requests that arrived.
    pub requests: Mutex<Vec<Vec<u8>>>,
    /// Headers by name that arrived with them.
    pub header_names: Mutex<Vec<String>>,
    /// How often the directory was fetched.
    pub directory_fetches: AtomicU64,
    /// Receipts that came by `POST /log/add`.
    pub adds: AtomicU64,
    /// Answers whose client went away before their end.
    pub aborted: tokio::sync::Notify,
    /// What was answered to the request before, for splicing.
    pub last_response: Mutex<Vec<Vec<u8>>>,
}

/// A running test network.
pub struct Network {
    pub url: String,
    pub policy: String,
    pub state: Arc<State>,
    dir: TempDir,
}

impl Network {
    /// A log, a gateway and providers of the model `tiny`, each listed and logged.
    pub async fn start(n_providers: usize) -> Self {
        Self::start_at(n_providers, START).await
    }

    /// The same at another time than [`START`], in Unix seconds.
    pub async fn start_at(n_providers: usize, start: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = start_log(dir.path().join("log"), "test.example/log").await;
        let policy = format!("log {}\nquorum none\n", log.log_key());
        let state = Arc::new(State {
            clock: TestClock(Arc::new(AtomicU64::new(start))),
            log,
            providers: Mutex::default(),
            listings: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            header_names: Mutex::default(),
            directory_fetches: AtomicU64::new(0),
            adds: AtomicU64::new(0),
            aborted: tokio::sync::Notify::new(),
            last_response: Mutex::default(),
        });
        let url = gateway::serve(Arc::clone(&state)).await;
        let network = Self { url, policy, state, dir };
        for _ in 0..n_providers {
            network.add_provider(TestProvider::new(&network.state.clock, &[("tiny", 2_048)])).await;
        }
        network
    }

    /// Logs and lists a provider, and lets it answer.
    pub async fn add_provider(&self, provider: TestProvider) -> Arc<TestProvider> {
        let listing = provider.listing(&self.state.log).await;
        let provider = Arc::new(provider);
        lock(&self.state.listings).push(listing);
        lock(&self.state.providers).push(Arc::clone(&provider));
        provider
    }

    /// A second log, whose key the policy does not name.
    pub async fn other_log(&self) -> Log<DirStore> {
        start_log(self.dir.path().join("other-log"), "other.example/log").await
    }

    /// What the next requests meet, in order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state.faults).extend(faults);
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(&self.url, &self.policy, self.dir.path().join("state"));
        let clock = self.state.clock.clone();
        config.clock = Clock::new(move || clock.now());
        config.timeouts = Timeouts { silence: Duration::from_millis(300), ..Timeouts::default() };
        config
    }

    pub fn client(&self) -> Client {
        Client::new(self.config()).expect("a good configuration")
    }

    pub fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }
}

async fn start_log(path: std::path::PathBuf, origin: &str) -> Log<DirStore> {
    let store = DirStore::open_writer(path).expect("a directory for the log");
    let seed: [u8; 32] = random();
    let signer = Signer::new(origin, &seed).expect("a log key");
    create(&store, &signer).await.expect("a new log");
    let config = fanlight_auditlog::Config { max_delay: Duration::from_millis(1), ..fanlight_auditlog::Config::default() };
    let (log, sequencer) = Log::open(store, signer, config).await.expect("an open log");
    tokio::spawn(sequencer.run(fanlight_auditlog::TokioTimer::new()));
    log
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's generator");
    bytes
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

/// A chat completion for the model `tiny`.
pub fn chat(stream: bool) -> fanlight_client::ChatRequest {
    let body = format!(r#"{{"model":"tiny","stream":{stream},"messages":[{{"role":"user","content":"a secret prompt"}}]}}"#);
    fanlight_client::ChatRequest::parse(body).expect("a chat request")
}
