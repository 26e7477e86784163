//! The servers, each started for one test and ended with it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fanlight_stores::{AnyStore, Location, open_writer};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Servers start in seconds, on a busy machine in many.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Ministack,
    Moto,
}

/// A running server with one empty bucket.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    // Killed when dropped.
    _child: Child,
}

/// A program that `cargo xtask test` installs and names in the environment.
fn python() -> PathBuf {
    let fallback = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask/venv/bin/python");
    let path = std::env::var_os("FANLIGHT_PYTHON").map_or(fallback, PathBuf::from);
    assert!(path.exists(), "{} is not there; run `cargo xtask test --only set-up` once", path.display());
    path
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Self {
        let mut command = Command::new(python());
        match kind {
            Kind::Moto => command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]),
            Kind::Ministack => command.args(["-m", "ministack"]),
        };
        let settings = [("BIND_HOST", "127.0.0.1"), ("GATEWAY_PORT", "0"), ("SERVICES", "s3"), ("IOT_MTLS_ENABLED", "0")];
        command.envs(settings).env("PYTHONUNBUFFERED", "1");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python runs");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = String::new();
        let endpoint = timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.expect("it says text") {
                if let Some((_, address)) = line.split_once("Running on ") {
                    return address.split_whitespace().next().expect("an address").to_owned();
                }
                said = format!("{said}{line}\n");
            }
            panic!("{kind:?} ended; if it is not installed, run `cargo xtask test --only set-up`:\n{said}");
        });
        let endpoint = endpoint.await.expect("the server hangs");
        // Or it would stop once the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let server = Self { endpoint, _child: child };
        let created = reqwest::Client::new().put(format!("{}/bucket", server.endpoint)).send().await;
        assert!(created.expect("the server answers").status().is_success(), "a new bucket");
        server
    }

    /// The store under `prefix`, through this server or what stands before it at `endpoint`.
    pub(crate) async fn store(&self, prefix: &str, index: &tempfile::TempDir) -> AnyStore {
        store(&self.endpoint, prefix, index).await
    }
}

pub(crate) fn location(prefix: &str) -> Location {
    format!("s3://bucket/{prefix}").parse().expect("a location")
}

pub(crate) async fn store(endpoint: &str, prefix: &str, index: &tempfile::TempDir) -> AnyStore {
    open_writer(&location(prefix), Some(endpoint), Some(index.path())).await.expect("the store opens")
}

/// Runs a test with credentials in the environment, from where programs take them as well.
pub(crate) fn run(test: impl Future<Output = ()>) {
    for (name, value) in [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")] {
        // SAFETY: tests run in processes of their own, and this one has no other thread that reads the environment yet.
        #[expect(unsafe_code, reason = "the environment is set before there are threads")]
        unsafe {
            std::env::set_var(name, value);
        }
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}
