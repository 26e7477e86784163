//! `POST /add`: one entry, or a batch.
//!
//! A body of type `application/x.tlog.entries` is a batch: `length (2, big-endian) ‖ entry`, up to 256 times, the bytes of
//! an entry bundle. Its answer has one line of JSON for each entry, in order. Any other body is one entry, and its answer
//! the `.tlog-proof`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanlight_auditlog::bundle::parse_bundle;
use fanlight_auditlog::{Appended, MAX_ENTRY_LEN};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::serve::body::{Received, receive};
use crate::serve::refusal::Refusal;
use crate::serve::{NOT_STORED, Server, TEXT};

/// The type of a batch.
const BATCH_TYPE: &str = "application/x.tlog.entries";

/// Bytes of the longest batch, lengths included.
const MAX_BATCH_LEN: usize = 4 * 1024 * 1024;

/// The index of the entry, which the proof says too.
const INDEX_HEADER: HeaderName = HeaderName::from_static("x-log-index");

pub(super) async fn add(State(server): State<Arc<Server>>, headers: HeaderMap, body: Body) -> Response {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Appends wait as long as the log does; they leave connections to those who only read.
    let Ok(_place) = server.adds.try_acquire() else {
        server.metrics.crowded();
        return Refusal::crowded(server.log.stats().retry_after).into_response();
    };
    let answer = match media_type.as_str() {
        BATCH_TYPE => add_batch(&server, &headers, body).await,
        // A form's framing would become part of the entry.
        "multipart/form-data" => Err(Refusal::FORM),
        _ => add_one(&server, &headers, body).await,
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn add_one(server: &Server, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let received = received(server, &server.held_entries, headers, body, MAX_ENTRY_LEN).await?;
    let appended = append(server, &received.bytes).await?;
    let headers = [TEXT, NOT_STORED];
    Ok(([(INDEX_HEADER, appended.index.to_string())], headers, appended.tlog_proof.to_string()).into_response())
}

async fn add_batch(server: &Server, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let received = received(server, &server.held_batches, headers, body, MAX_BATCH_LEN).await?;
    let entries = parse_bundle(&received.bytes).map_err(Refusal::bad_batch)?;
    if entries.is_empty() {
        return Err(Refusal::EMPTY_BATCH);
    }
    let outcomes = join_all(entries.iter().map(|entry| append(server, entry))).await;
    let mut lines = Vec::new();
    for outcome in &outcomes {
        serde_json::to_writer(&mut lines, &Line::from(outcome)).expect("plain fields, and memory takes every write");
        lines.push(b'\n');
    }
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), NOT_STORED];
    // A batch of which nothing was taken is refused as a whole, which whatever stands in between understands too.
    let taken = outcomes.iter().any(Result::is_ok);
    match outcomes.iter().find_map(|outcome| outcome.as_ref().err().filter(|_| !taken)) {
        Some(refusal) => Ok((refusal.status(), refusal.headers(), headers, lines).into_response()),
        None => Ok((headers, lines).into_response()),
    }
}

async fn received(
    server: &Server,
    held: &Arc<Semaphore>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Received, Refusal> {
    let received = receive(held, headers, body, limit).await;
    received.map_err(|error| Refusal::bad_body(error, server.log.stats().retry_after))
}

/// Appends a copy: a part of a batch would keep all of its memory.
async fn append(server: &Server, entry: &[u8]) -> Result<Appended, Refusal> {
    let waiting = server.metrics.wait();
    let Ok(appended) = timeout(server.patience, server.log.append(Bytes::copy_from_slice(entry))).await else {
        server.metrics.unanswered();
        return Err(Refusal::unanswered(server.log.stats().retry_after));
    };
    let appended = appended?;
    waiting.answered();
    Ok(appended)
}

/// What became of one entry of a batch: the first two fields, or the others.
#[derive(Default, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlog_proof: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl From<&Result<Appended, Refusal>> for Line {
    fn from(outcome: &Result<Appended, Refusal>) -> Self {
        match outcome {
            Ok(Appended { index, tlog_proof }) => {
                Self { index: Some(*index), tlog_proof: Some(tlog_proof.to_string()), ..Self::default() }
            }
            Err(refusal) => Self {
                status: Some(refusal.status().as_u16()),
                error: Some(refusal.to_string()),
                retry_after: refusal.retry_after(),
                ..Self::default()
            },
        }
    }
}
