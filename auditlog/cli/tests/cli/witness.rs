//! A witness on a free port: one that keeps to C2SP tlog-witness, and one for each way not to.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use fanlight_auditlog::checkpoint::Checkpoint;
use fanlight_auditlog::hash::{EMPTY_ROOT, Hash};
use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::witness::{AddCheckpoint, write_cosignatures, write_size};
use fanlight_auditlog::{CosignerKey, VerifiedCheckpoint, VerifierKey, leaf_hash};
use tokio::net::TcpListener;

/// What a witness does with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Claims to have cosigned this size.
    Ahead(u64),
    /// Answers 200 with these bytes.
    Body(Vec<u8>),
    /// Says 409 whatever it is sent, each time with another size.
    Fickle,
    Honest,
    /// Cosigns each size once, as before the specification was clear about that.
    HonestOnce,
    /// Cosigns this many seconds ago.
    HonestInThePast(u64),
    /// Never answers.
    Mute,
    /// Cosigns the same checkpoint under another root.
    OtherTree,
    Redirect(String),
    Status(u16),
}

#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) name: String,
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log_key: VerifierKey,
    // Ed25519 and ML-DSA-44.
    keys: [CosignerKey; 2],
    state: Mutex<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    behaviour: Behaviour,
    n_requests: u64,
    size: u64,
    root: Hash,
}

impl Witness {
    pub(crate) async fn start(name: &str, log_key: &VerifierKey, behaviour: Behaviour) -> Self {
        let name = format!("witness.example/{name}");
        let seed = leaf_hash(name.as_bytes());
        let keys = [CosignerKey::ed25519(&name, seed.as_bytes()), CosignerKey::ml_dsa_44(&name, seed.as_bytes())];
        let keys = keys.map(|key| key.expect("a good name"));
        let state = Mutex::new(Recorded { behaviour, n_requests: 0, size: 0, root: EMPTY_ROOT });
        let shared = Arc::new(Shared { log_key: log_key.clone(), keys, state });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/prefix", listener.local_addr().expect("an address"));
        let router = Router::new().route("/prefix/add-checkpoint", post(add_checkpoint)).with_state(Arc::clone(&shared));
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { name, url, shared }
    }

    /// The line of a policy, under the last part of its name.
    pub(crate) fn policy_line(&self) -> String {
        let [ed25519, _] = &self.shared.keys;
        format!("witness {} {} {}\n", self.short_name(), ed25519.verifier_key(), self.url)
    }

    /// The lines of a policy for both of its keys: the short name and `-pq`.
    pub(crate) fn policy_lines(&self) -> String {
        let [_, ml_dsa_44] = &self.shared.keys;
        format!("{}witness {}-pq {} {}/\n", self.policy_line(), self.short_name(), ml_dsa_44.verifier_key(), self.url)
    }

    fn short_name(&self) -> &str {
        self.name.rsplit('/').next().expect("a part")
    }

    pub(crate) fn now_does(&self, behaviour: Behaviour) {
        self.shared.state().behaviour = behaviour;
    }

    pub(crate) fn n_requests(&self) -> u64 {
        self.shared.state().n_requests
    }

    /// The size of the last checkpoint that it cosigned.
    pub(crate) fn size(&self) -> u64 {
        self.shared.state().size
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().expect("nothing panics with it")
    }

    fn cosign(&self, checkpoint: &Checkpoint, seconds_ago: u64) -> Response {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let lines = self.keys.each_ref().map(|key| key.cosign(checkpoint, now - seconds_ago).expect("a good time"));
        write_cosignatures(&lines).into_response()
    }

    /// The specification's checks, in its order.
    fn honest(&self, request: &AddCheckpoint, seconds_ago: u64) -> Response {
        let Ok(checkpoint) = VerifiedCheckpoint::verify(request.note().as_bytes(), &self.log_key) else {
            return StatusCode::FORBIDDEN.into_response();
        };
        let (old_size, size, root) = (request.old_size(), checkpoint.tree_size(), checkpoint.root_hash());
        let mut state = self.state();
        if old_size > size {
            return StatusCode::BAD_REQUEST.into_response();
        }
        if old_size != state.size {
            return conflict(state.size);
        }
        if state.behaviour == Behaviour::HonestOnce && old_size == size {
            return conflict(state.size);
        }
        if verify_consistency(old_size, state.root, size, root, request.proof()).is_err() {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        (state.size, state.root) = (size, root);
        drop(state);
        self.cosign(checkpoint.checkpoint(), seconds_ago)
    }
}

async fn add_checkpoint(State(witness): State<Arc<Shared>>, body: Bytes) -> Response {
    let (behaviour, n_requests) = {
        let mut state = witness.state();
        state.n_requests += 1;
        (state.behaviour.clone(), state.n_requests)
    };
    let request = AddCheckpoint::parse(&body).expect("the log sends what the specification says");
    match behaviour {
        Behaviour::Ahead(size) => conflict(size),
        Behaviour::Body(body) => body.into_response(),
        Behaviour::Fickle => conflict(n_requests % 2 + 1),
        Behaviour::Honest | Behaviour::HonestOnce => witness.honest(&request, 0),
        Behaviour::HonestInThePast(seconds) => witness.honest(&request, seconds),
        Behaviour::Mute => std::future::pending().await,
        Behaviour::OtherTree => {
            let checkpoint = VerifiedCheckpoint::verify(request.note().as_bytes(), &witness.log_key).expect("of the log");
            witness.cosign(&Checkpoint::new(checkpoint.origin(), checkpoint.tree_size(), leaf_hash(b"other")), 0)
        }
        Behaviour::Redirect(url) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, url)]).into_response(),
        Behaviour::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
    }
}

fn conflict(size: u64) -> Response {
    (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], write_size(size)).into_response()
}
