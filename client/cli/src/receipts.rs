//! `GET /v1/receipts`: the bundles of this machine's exchanges, as `fanlight-verify receipt` takes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fanlight_client::StoreError;
use fanlight_protocol::RequestId;
use serde::Serialize;

use crate::problems::Failure;
use crate::server::Shared;

/// Most ids of one list, newest first.
const MAX_LISTED: usize = 1_000;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    id: RequestId,
    object: &'static str,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let client = shared.client.clone();
    match blocking(move || client.receipts().ids()).await {
        Ok(ids) => {
            let data = ids.into_iter().take(MAX_LISTED).map(|id| Item { id, object: "fanlight.receipt" }).collect();
            Json(List { object: "list", data }).into_response()
        }
        Err(error) => unreadable(&error).into(),
    }
}

pub(crate) async fn retrieve(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let not_found = || {
        let message = "No receipt with this id is stored; an answer's id is in its x-fanlight-receipt header.";
        Failure::new(StatusCode::NOT_FOUND, "receipt_not_found", message).into()
    };
    let Ok(id) = id.parse::<RequestId>() else { return not_found() };
    let client = shared.client.clone();
    match blocking(move || client.receipts().load(id)).await {
        Ok(Some(bundle)) => Json(bundle).into_response(),
        Ok(None) => not_found(),
        Err(error) => unreadable(&error).into(),
    }
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(read).await.expect("reading does not panic, and is not cancelled")
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "receipt_unreadable", format!("The {error}."))
}
