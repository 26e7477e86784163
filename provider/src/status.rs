//! `fanlight-provider status`: a running daemon answers each connection to its control socket with one JSON object.

use std::io;
use std::path::Path;
use std::time::Duration;

use fanlight_protocol::{Digest, KeyId, ProviderId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::counters::Totals;
use crate::daemon::{Core, LinkState};

/// Longest wait for the daemon's answer, and for a reader of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest status in bytes.
const MAX_STATUS_LEN: u64 = 1 << 20;

/// What a running provider says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Names the provider.
    pub provider_id: ProviderId,
    /// What stands behind its keys.
    pub grade: String,
    /// Its gateway.
    pub gateway: String,
    /// `connecting`, `listed`, `waiting` or `stopped`.
    pub link: String,
    /// Why it is waiting.
    pub reason: Option<String>,
    /// The KEM key in use.
    pub key: Option<KeyStatus>,
    /// Names of the models.
    pub models: Vec<String>,
    /// Requests served at once.
    pub capacity: u32,
    /// Requests that generate now.
    pub running: usize,
    /// Requests that wait for a slot.
    pub waiting: usize,
    /// `H` of the executable.
    pub build_measurement: Digest,
    /// Totals since the start.
    pub totals: Totals,
}

/// The KEM key in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// Its name.
    pub key_id: KeyId,
    /// Entry digest of its statement.
    pub statement_digest: Digest,
    /// Last second of validity, Unix time.
    pub not_after: u64,
}

impl Status {
    pub(crate) fn of(core: &Core, gateway: &str, link: &LinkState) -> Self {
        let (link, reason) = match link {
            LinkState::Connecting => ("connecting", None),
            LinkState::Listed => ("listed", None),
            LinkState::Waiting { reason } => ("waiting", Some(reason.clone())),
            LinkState::Stopped => ("stopped", None),
        };
        let key = core.keys.current().map(|key| KeyStatus {
            key_id: *key.key_id(),
            statement_digest: key.statement().digest(),
            not_after: key.statement().not_after.as_secs(),
        });
        let load = core.engine.stats();
        Self {
            provider_id: core.enclave.identity().provider_id(),
            grade: core.evidence.kind.as_str().to_owned(),
            gateway: gateway.to_owned(),
            link: link.to_owned(),
            reason,
            key,
            models: core.terms.models.iter().map(|model| model.name.clone()).collect(),
            capacity: core.capacity,
            running: load.running,
            waiting: load.waiting,
            build_measurement: core.terms.build_measurement,
            totals: core.counters.totals(),
        }
    }
}

/// Answers every connection to the socket at `path` with `status()`, until dropped.
///
/// # Errors
/// The system's, when the socket cannot be made.
pub async fn serve(path: &Path, status: impl Fn() -> Status) -> io::Result<()> {
    // The journal's lock is held, so a socket that is there belongs to a daemon that died.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For instance too many open files: it passes, and is no reason to stop serving.
                tracing::warn!(%error, "a status connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let json = serde_json::to_vec(&status()).expect("a status is plain data");
        // A reader that does not read must not keep the next one out.
        if timeout(PATIENCE, stream.write_all(&json)).await.is_err() {
            tracing::debug!("a status reader was too slow");
        }
    }
}

/// Asks the daemon behind the socket at `path`.
///
/// # Errors
/// The system's; `NotFound` or `ConnectionRefused` when no daemon runs there, `InvalidData` when it is something else.
pub async fn ask(path: &Path) -> io::Result<Status> {
    let asking = async {
        let mut json = Vec::new();
        UnixStream::connect(path).await?.take(MAX_STATUS_LEN).read_to_end(&mut json).await?;
        serde_json::from_slice(&json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    timeout(PATIENCE, asking).await.map_err(|_| io::ErrorKind::TimedOut)?
}
