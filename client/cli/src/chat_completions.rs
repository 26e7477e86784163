//! `POST /v1/chat/completions`: sealed on the way out, opened and verified on the way back.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fanlight_client::{ChatRequest, Exchange, MAX_MESSAGE_LEN};
use fanlight_protocol::RequestId;
use futures_util::stream;

use crate::problems::{Failure, STREAM_TRUNCATED, too_large};
use crate::server::Shared;
use crate::sse::{ReceiptInserter, insert_receipt};

/// Longest answer that is not streamed, in bytes.
const MAX_ANSWER_LEN: usize = 32 << 20;

/// Most bytes of a request that are read. More than one may have: an answer that overtakes the body is lost with the
/// connection that breaks under it.
const MAX_READ: usize = MAX_MESSAGE_LEN + (1 << 20);

const RECEIPT_HEADER: HeaderName = HeaderName::from_static("x-fanlight-receipt");

/// The request's own headers, `Authorization` among them, end here.
pub(crate) async fn create(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answer(&shared, request.into_body()).await.unwrap_or_else(Into::into)
}

async fn answer(shared: &Shared, body: Body) -> Result<Response, Failure> {
    // Far too long, or broken off; nobody reads the answer to the latter.
    let body = to_bytes(body, MAX_READ).await.map_err(|_| too_large())?;
    if body.len() > MAX_MESSAGE_LEN {
        return Err(too_large());
    }
    let request = ChatRequest::parse(body)?;
    let exchange = shared.client.send(&request).await?;
    let receipt_id = exchange.receipt_id();
    let response = if request.stream() && exchange.status() == 200 {
        streamed(exchange)
    } else {
        whole(exchange).await.unwrap_or_else(Into::into)
    };
    Ok(with_receipt(response, receipt_id))
}

/// A JSON answer, or a sealed error with its own status. Nothing of it is shown before all of it is verified.
async fn whole(exchange: Exchange) -> Result<Response, Failure> {
    let receipt_id = exchange.receipt_id();
    let answer = exchange.into_answer(MAX_ANSWER_LEN).await?;
    let malformed = || {
        let message = "The provider answered, verifiably, with something that is not a JSON object.";
        Failure::new(StatusCode::BAD_GATEWAY, "provider_misbehaved", message)
    };
    let status = StatusCode::from_u16(answer.status).ok().filter(|status| *status == 200 || status.as_u16() >= 400);
    let json = insert_receipt(&answer.body, receipt_id).ok_or_else(malformed)?;
    let content_type = HeaderValue::from_static("application/json");
    Ok((status.ok_or_else(malformed)?, [(CONTENT_TYPE, content_type)], json).into_response())
}

/// The provider's server-sent events. The end, `[DONE]` with it, comes only after the receipt verified; otherwise an error
/// event, and the connection is cut. When the program at the SDK goes away, dropping the exchange aborts the request.
fn streamed(exchange: Exchange) -> Response {
    let inserter = ReceiptInserter::new(exchange.receipt_id());
    let events = stream::unfold(Stage::Open(Box::new((exchange, inserter))), async |mut stage| {
        loop {
            let (bytes, next) = match stage {
                Stage::Open(open) => advance(open).await,
                Stage::Broken => {
                    // The server writes out what it holds when a body has nothing ready; an error drops it.
                    tokio::task::yield_now().await;
                    return Some((Err(io::Error::other(STREAM_TRUNCATED)), Stage::Closed));
                }
                Stage::Closed => return None,
            };
            if !bytes.is_empty() {
                return Some((Ok(Bytes::from(bytes)), next));
            }
            stage = next;
        }
    });
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream")), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    (headers, Body::from_stream(events)).into_response()
}

enum Stage {
    Open(Box<(Exchange, ReceiptInserter)>),
    /// The error event was sent; the connection is cut next, so that no client takes it for a whole answer.
    Broken,
    Closed,
}

async fn advance(mut open: Box<(Exchange, ReceiptInserter)>) -> (Vec<u8>, Stage) {
    let not_events = |_| {
        let message = "Do not rely on this answer: it is not a stream of server-sent events.";
        Failure::new(StatusCode::BAD_GATEWAY, STREAM_TRUNCATED, message)
    };
    let (exchange, inserter) = &mut *open;
    let step = match exchange.next().await {
        Ok(Some(bytes)) => inserter.push(&bytes).map(Some).map_err(not_events),
        Ok(None) => Ok(None),
        Err(error) => Err(Failure::from(error)),
    };
    let step = match step {
        Ok(Some(shown)) => return (shown, Stage::Open(open)),
        Ok(None) => {
            let (_, inserter) = *open;
            inserter.finish().map_err(not_events)
        }
        Err(failure) => Err(failure),
    };
    match step {
        Ok(end) => (end, Stage::Closed),
        Err(failure) => (failure.into_event(), Stage::Broken),
    }
}

fn with_receipt(mut response: Response, receipt_id: RequestId) -> Response {
    let value = HeaderValue::try_from(receipt_id.to_string()).expect("hexadecimal digits");
    response.headers_mut().insert(RECEIPT_HEADER, value);
    response
}
