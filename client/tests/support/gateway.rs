//! The gateway's HTTP (SPEC §9), with faults on demand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fanlight_protocol::directory::Directory;
use fanlight_protocol::entry::{ReceiptDetails, Status};
use fanlight_protocol::problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemCode};
use fanlight_protocol::response::{Frame, FrameType, ReceiptPayload};
use fanlight_protocol::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE};
use futures_util::stream::{self, StreamExt};
use tokio::net::TcpListener;

use super::fault::Fault;
use super::provider::{TestProvider, logged};
use super::{State, lock};

/// Serves until the test ends; returns the base URL.
pub async fn serve(state: Arc<State>) -> String {
    let router = Router::new()
        .route("/v1/providers", get(providers))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/log/add", post(add))
        .with_state(state);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let addr = listener.local_addr().expect("a bound listener");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{addr}")
}

async fn providers(Shared(state): Shared<Arc<State>>) -> Json<Directory> {
    state.directory_fetches.fetch_add(1, Ordering::Relaxed);
    Json(Directory { providers: lock(&state.listings).clone() })
}

async fn add(Shared(state): Shared<Arc<State>>, entry: Bytes) -> String {
    state.adds.fetch_add(1, Ordering::Relaxed);
    logged(&state.log, &entry).await
}

async fn chat_completions(Shared(state): Shared<Arc<State>>, headers: HeaderMap, request: Bytes) -> Response {
    if headers.get("content-type").is_none_or(|value| value != REQUEST_MEDIA_TYPE) {
        return problem(ProblemCode::PlaintextRequest);
    }
    lock(&state.header_names).extend(headers.keys().map(ToString::to_string));
    lock(&state.requests).push(request.to_vec());
    let fault = {
        let mut faults = lock(&state.faults);
        if faults.is_empty() { Fault::None } else { faults.remove(0) }
    };
    match &fault {
        Fault::Problem(code) => return problem(*code),
        Fault::PlainJson => return Json("hello").into_response(),
        Fault::Redirect(to) => return (StatusCode::FOUND, [("location", to.clone())]).into_response(),
        _ => {}
    }
    let providers = lock(&state.providers).clone();
    let opened = providers.iter().find_map(|provider| Some((provider, provider.open(&request)?)));
    let Some((provider, opened)) = opened else { return problem(ProblemCode::UnknownKey) };
    let status = if matches!(fault, Fault::GivenUp) { Status::Failed } else { Status::Complete };
    let mut pieces = provider.answer(opened, status);
    if matches!(fault, Fault::OtherReceipt) {
        replace_receipt(&mut pieces, providers.iter().find(|other| other.id() != provider.id()).expect("two providers"));
    }
    pieces.push(inclusion(&state, pieces.last().expect("a receipt")).await);
    let before = std::mem::replace(&mut *lock(&state.last_response), pieces.clone());
    let stall_after = if let Fault::StallAfter(n) = fault { Some(n) } else { None };
    send(state, fault.apply(pieces, &before), stall_after)
}

/// The same details, honestly signed, by another.
fn replace_receipt(pieces: &mut Vec<Vec<u8>>, other: &TestProvider) {
    let frame = pieces.pop().expect("a receipt");
    let payload = ReceiptPayload::parse(Frame::parse(&frame).expect("a frame").payload).expect("a receipt");
    pieces.push(other.receipt_frame(&ReceiptDetails::from_bytes(payload.details).expect("details")));
}

async fn inclusion(state: &State, receipt_frame: &[u8]) -> Vec<u8> {
    let payload = ReceiptPayload::parse(Frame::parse(receipt_frame).expect("a frame").payload).expect("a receipt");
    let proof = logged(&state.log, payload.receipt).await;
    Frame { frame_type: FrameType::Inclusion, payload: proof.as_bytes() }.to_bytes()
}

/// Tells when the client is gone before the end.
struct Guard(Option<Arc<State>>);

impl Guard {
    fn dismiss(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.aborted.notify_one();
        }
    }
}

fn send(state: Arc<State>, mut pieces: Vec<Vec<u8>>, stall_after: Option<usize>) -> Response {
    let ping = Frame { frame_type: FrameType::Ping, payload: &[] }.to_bytes();
    if let Some(n) = stall_after {
        pieces.truncate(n);
    } else if pieces.len() > 1 {
        pieces.insert(1, ping);
    }
    let stalls = stall_after.is_some();
    let guard = Guard(Some(state));
    let body = stream::iter(pieces).then(async |piece| {
        // Every piece on its own, as a network might deliver it.
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    let end = stream::once(async move {
        if stalls {
            tokio::time::sleep(Duration::from_mins(10)).await;
        }
        guard.dismiss();
        Ok(Vec::new())
    });
    ([("content-type", RESPONSE_MEDIA_TYPE)], Body::from_stream(body.chain(end))).into_response()
}

fn problem(code: ProblemCode) -> Response {
    let status = StatusCode::from_u16(code.status()).expect("a status of SPEC §6");
    let headers = [("content-type", PROBLEM_MEDIA_TYPE), ("retry-after", "7")];
    (status, headers, serde_json::to_string(&Problem::new(code)).expect("texts serialize")).into_response()
}
