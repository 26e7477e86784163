//! Routes, start and end of the proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use fanlight_client::{Client, SetUpError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use crate::problems::Failure;
use crate::{chat_completions, guard, models, receipts};

/// How long answers in progress may go on after [`Proxy::shutdown`].
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Settings of a proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the client behind it.
    pub client: fanlight_client::Config,
    /// Host names by which it may be addressed, besides `localhost` and loopback addresses. A name that anybody else can
    /// point at this machine lets web pages reach the proxy.
    pub allowed_hosts: Vec<String>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The client's configuration was refused.
    #[error(transparent)]
    Client(#[from] SetUpError),
    /// The listener has no address.
    #[error("listener cannot be used")]
    Io(#[from] io::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    local_addr: SocketAddr,
    client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
    settling: AbortHandle,
}

/// What every handler has.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) allowed_hosts: Vec<String>,
}

/// Serves on a listener until [`Proxy::shutdown`].
///
/// # Errors
/// [`StartError`], before anything is served.
pub fn start(config: Config, listener: TcpListener) -> Result<Proxy, StartError> {
    let client = Client::new(config.client)?;
    let local_addr = listener.local_addr()?;
    let shared = Arc::new(Shared { client: client.clone(), allowed_hosts: config.allowed_hosts });
    let (stop, stopped) = oneshot::channel::<()>();
    // The end of a stream is a small write after another; without the option it waits for the client's delayed ACK, 40 ms.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let serve = axum::serve(listener, router(shared)).with_graceful_shutdown(async {
        // A handle that was dropped without a word also ends it.
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serve.into_future());
    let earlier = client.clone();
    let settling = tokio::spawn(async move {
        match earlier.settle_stored().await {
            Ok(0) => {}
            Ok(left) => tracing::warn!(left, "stored receipts that are not logged yet"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to read stored receipts"),
        }
    });
    Ok(Proxy { local_addr, client, stop, serving, settling: settling.abort_handle() })
}

impl Proxy {
    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The client behind it: its events, its directory, its receipts.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Stops listening, gives answers in progress five seconds, and waits as long for receipts to be logged.
    pub async fn shutdown(self) {
        self.settling.abort();
        // Fails only when serving has already ended.
        let _ = self.stop.send(());
        let mut serving = self.serving;
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await.is_err() {
            serving.abort();
        }
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, self.client.settled()).await;
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/v1/chat/completions", post(chat_completions::create))
        .route("/v1/receipts", get(receipts::list))
        .route("/v1/receipts/{id}", get(receipts::retrieve))
        .fallback(not_served)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::check))
        .with_state(shared)
}

/// Other paths of OpenAI's API: says which, so that a user does not look for a typing error.
async fn not_served(State(_): State<Arc<Shared>>, uri: Uri) -> Response {
    const KNOWN: [(&str, &str); 12] = [
        ("/v1/assistants", "Assistants"),
        ("/v1/audio", "Audio"),
        ("/v1/batches", "Batches"),
        ("/v1/completions", "Legacy completions"),
        ("/v1/embeddings", "Embeddings"),
        ("/v1/files", "Files"),
        ("/v1/fine_tuning", "Fine-tuning"),
        ("/v1/images", "Images"),
        ("/v1/messages", "Anthropic's Messages API"),
        ("/v1/moderations", "Moderations"),
        ("/v1/realtime", "Realtime"),
        ("/v1/responses", "The Responses API"),
    ];
    let known = KNOWN.iter().find(|(prefix, _)| uri.path().starts_with(prefix));
    let what = known.map_or("This path", |(_, name)| name);
    Failure::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!(
            "{what}: not served here. This proxy serves POST /v1/chat/completions, GET /v1/models and GET /v1/receipts; \
             set the base URL of your SDK to the one that ends in /v1."
        ),
    )
    .into()
}

async fn method_not_allowed(method: Method) -> Response {
    let message = format!("This path does not take {method}.");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into()
}
