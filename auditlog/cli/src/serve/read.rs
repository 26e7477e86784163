//! The read path: the public objects of the log, straight from its store, and nothing else.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use fanlight_auditlog::http::read_path;
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::{TileSource as _, leaf_hash};

use crate::serve::Server;
use crate::serve::refusal::Refusal;

pub(super) async fn read(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(path) = read_path(uri.path()) else { return Refusal::NO_SUCH_PATH.into_response() };
    let bytes = match server.log.store().get(&path.key).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Refusal::NOT_LOGGED.into_response(),
        Err(error) => return Refusal::from(error).into_response(),
    };
    let caching = [(CONTENT_TYPE, path.content_type), (CACHE_CONTROL, path.cache_control)];
    if path.key != CHECKPOINT_KEY {
        return (caching, bytes).into_response();
    }
    // The one object that changes, which many ask for and few find changed. Any hash of it will do for a tag.
    let tag = format!("\"{}\"", leaf_hash(&bytes).to_hex());
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|tags| names(tags.as_bytes(), tag.as_bytes()));
    let tag = [(ETAG, tag)];
    if known { (StatusCode::NOT_MODIFIED, caching, tag).into_response() } else { (caching, tag, bytes).into_response() }
}

/// Whether an `If-None-Match` names the tag. A proxy may have made it weak, which is no difference here.
fn names(tags: &[u8], tag: &[u8]) -> bool {
    tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|given| {
        let given = given.strip_prefix(b"W/").unwrap_or(given);
        given == tag || given == b"*"
    })
}
