//! The read path: the public objects of the log, straight from its store, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use fanlight_auditlog::http::{ReadPath, bytes_with, read_path};
use fanlight_auditlog::note::MAX_NOTE_LEN;
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::{TileSource as _, leaf_hash};
use tokio::time::timeout;

use crate::serve::Server;
use crate::serve::refusal::Refusal;

/// Bytes of long answers, bundles, that are held at the same time: 8 of the longest, 512 where entries have 1 KiB.
pub(super) const MAX_SENDING: usize = 128 * 1024 * 1024;

/// Bytes of an answer that connections hold without asking: all but bundles.
const SHORT_LEN: usize = MAX_NOTE_LEN;

/// Longest wait for a share of what may be held.
const SHARE_WAIT: Duration = Duration::from_secs(10);

pub(super) async fn read(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(path) = read_path(uri.path()) else { return Refusal::NO_SUCH_PATH.into_response() };
    let bytes = match get(&server, &path).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal.into_response(),
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

/// The object; a long one keeps its share of what may be held until its last byte is on its way.
async fn get(server: &Server, path: &ReadPath) -> Result<Bytes, Refusal> {
    let mut share = None;
    if path.max_len > SHORT_LEN {
        // Its length is known only when it is here.
        let longest = u32::try_from(path.max_len).expect("objects are far below 4 GiB");
        let wait = timeout(SHARE_WAIT, Arc::clone(&server.sending).acquire_many_owned(longest));
        share = Some(wait.await.map_err(|_| Refusal::sending())?.expect("the semaphore is never closed"));
    }
    let bytes = server.log.store().get(&path.key).await?.ok_or(Refusal::NOT_LOGGED)?;
    let share = share.and_then(|mut share| share.split(bytes.len()));
    Ok(bytes_with(bytes, share))
}

/// Whether an `If-None-Match` names the tag. A proxy may have made it weak, which is no difference here.
fn names(tags: &[u8], tag: &[u8]) -> bool {
    tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|given| {
        let given = given.strip_prefix(b"W/").unwrap_or(given);
        given == tag || given == b"*"
    })
}
