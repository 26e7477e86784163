//! What a shell lends to the core. No `Send` bound and no runtime: the concrete types of a shell decide.

use std::sync::Arc;

use bytes::Bytes;
use fanlight_auditlog::http::ReadPath;
use fanlight_protocol::{RequestId, UnixTime};

use crate::error::LogError;
use crate::metrics::Metrics;
use crate::registry::{LoggedStatement, Registry, Slot};
use crate::upload::{Budget, Upload};

/// The runtime around the core: clock, bodies, provider links, log.
pub trait Host {
    /// A request body; the core asks for its pieces and keeps them unread, but for the header.
    type Body;
    /// The shell's way to a connected provider.
    type Link;
    /// An answer on its way to the client.
    type Relay;

    /// The current time.
    fn now(&self) -> UnixTime;

    /// Who is connected.
    fn registry(&self) -> &Registry<Self::Link>;

    /// The counters.
    fn metrics(&self) -> &Metrics;

    /// How many request bytes may be held.
    fn budget(&self) -> Arc<Budget>;

    /// The next piece of a body, `None` at its end. Bounded in time by the shell.
    ///
    /// # Errors
    /// [`BodyError`] by variant.
    fn next_piece(&self, body: &mut Self::Body) -> impl Future<Output = Result<Option<Bytes>, BodyError>>;

    /// Sends a sealed request to the provider whose slot is taken, and waits for its first word.
    ///
    /// Dropping the future cancels the stream, and only that stream.
    ///
    /// # Errors
    /// [`ProviderLost`] when no word came: the connection or the stream ended, or time ran out.
    fn forward(&self, request: Outgoing<Self::Link>) -> impl Future<Output = Result<Answer<Self::Relay>, ProviderLost>>;

    /// Appends an entry to the log; answers once it is in a published checkpoint, with its tlog proof. Idempotent.
    ///
    /// # Errors
    /// [`LogError`] by variant.
    fn append(&self, entry: Bytes) -> impl Future<Output = Result<String, LogError>>;

    /// Reads a public object of the log; `None` when there is none yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when its store failed.
    fn log_object(&self, path: &ReadPath) -> impl Future<Output = Result<Option<Bytes>, LogError>>;
}

/// Why a body did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client stopped in the middle.
    #[error("the body is incomplete")]
    Incomplete,
    /// It took longer than the shell allows.
    #[error("the body took too long")]
    TimedOut,
}

/// A request for one provider.
#[derive(Debug)]
pub struct Outgoing<L> {
    /// The place it takes at the provider; freed when the provider ends the stream.
    pub slot: Slot<L>,
    /// The sealed bytes.
    pub upload: Arc<Upload>,
    /// From the header; a receipt must name it.
    pub request_id: RequestId,
    /// From the header; a receipt must name it.
    pub model: String,
    /// This provider's key statements among the recipients; its answer and receipt must be under one of them.
    pub statements: Vec<Arc<LoggedStatement>>,
}

/// A provider's first word.
#[derive(Debug)]
pub enum Answer<R> {
    /// It did not open the request. Status and problem pass untouched.
    Refused {
        /// HTTP status, 400 to 599.
        status: u16,
        /// Problem JSON.
        problem: Bytes,
    },
    /// It answers; the bytes begin with the prefix.
    Streaming(R),
}

/// The provider gave no first word; another recipient may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("provider gave no answer")]
pub struct ProviderLost;
