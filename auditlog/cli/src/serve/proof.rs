//! `GET /proof/<leaf hash>`: the proof of an entry by its leaf hash, in hexadecimal.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use fanlight_auditlog::Hash;
use fanlight_auditlog::reader::ReadError;

use crate::serve::refusal::Refusal;
use crate::serve::{Server, TEXT};

/// The proof stays true; only its checkpoint ages.
const SHORT: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=60");

pub(super) async fn proof(State(server): State<Arc<Server>>, Path(leaf): Path<String>) -> Response {
    let Some(leaf) = parse_leaf(&leaf) else { return Refusal::NOT_A_LEAF.into_response() };
    match find(&server, leaf).await {
        Ok(Some(proof)) => ([TEXT, SHORT], proof).into_response(),
        Ok(None) => Refusal::NOT_LOGGED.into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn find(server: &Server, leaf: Hash) -> Result<Option<String>, ReadError> {
    let Some(index) = server.log.position(&leaf).await? else { return Ok(None) };
    Ok(Some(server.log.prove(index).await?.tlog_proof.to_string()))
}

fn parse_leaf(text: &str) -> Option<Hash> {
    hex::decode(text).ok()?.try_into().ok()
}
