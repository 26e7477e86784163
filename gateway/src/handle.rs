//! Every HTTP request but the link's upgrade, for every shell (SPEC §9).

use bytes::Bytes;
use fanlight_protocol::problem::{PROBLEM_MEDIA_TYPE, ProblemCode};
use fanlight_protocol::{MAX_REQUEST_LEN, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::error::RequestError;
use crate::host::{Answer, Host};
use crate::log;
use crate::metrics::{Counter, Gauge};
use crate::registry::Connection;
use crate::relay;

/// When a client may try a busy or absent provider again, in seconds.
const RETRY_AFTER_SECS: &str = "2";

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Body of an answer.
#[derive(Debug)]
pub enum Reply<R> {
    /// The gateway's own bytes.
    Own(Bytes),
    /// A provider's, passed on as they come.
    Relayed(R),
}

/// Answers one request. It never fails: every error is a problem of SPEC §6.
pub async fn handle<H: Host>(host: &H, request: Request<H::Body>) -> Response<Reply<H::Relay>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    let result = match path {
        "/v1/chat/completions" if parts.method == Method::POST => chat(host, &parts.headers, body).await,
        "/log/add" if parts.method == Method::POST => log::add(host, body).await.map(|proof| own(TEXT, proof)),
        // An OpenAI client that was pointed here by mistake must learn what to do, whatever it asked for.
        "/v1/completions" | "/v1/responses" | "/v1/embeddings" => Err(RequestError::Plaintext),
        "/v1/providers" if is_read => Ok(directory(host, parts.uri.query())),
        "/v1/models" if is_read => Ok(models(host)),
        "/healthz" if is_read => Ok(own(TEXT, "ok")),
        "/metrics" if is_read => Ok(own(TEXT, host.metrics().render(&gauges(host)))),
        "/v1/chat/completions" | "/v1/providers" | "/v1/models" | "/v1/link" | "/log/add" | "/healthz" | "/metrics" => {
            Err(RequestError::MethodNotAllowed)
        }
        _ => match path.strip_prefix("/log/") {
            Some(path) if is_read => log_object(host, path).await,
            Some(_) => Err(RequestError::MethodNotAllowed),
            None => Err(RequestError::NotFound),
        },
    };
    let code = result.as_ref().map_or_else(|error| error.code().as_str(), |_| "ok");
    host.metrics().add(Counter::Requests, code, 1);
    result.unwrap_or_else(problem_response)
}

/// The answer that an error becomes.
pub fn problem_response<R>(error: RequestError) -> Response<Reply<R>> {
    let problem = error.problem();
    let body = serde_json::to_vec(&problem).expect("a problem is plain JSON");
    let mut response = own(PROBLEM_MEDIA_TYPE, body);
    *response.status_mut() = status(problem.status);
    if matches!(error.code(), ProblemCode::Overloaded | ProblemCode::NoProvider) {
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static(RETRY_AFTER_SECS));
    }
    response
}

async fn chat<H: Host>(host: &H, headers: &HeaderMap, body: H::Body) -> Result<Response<Reply<H::Relay>>, RequestError> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(REQUEST_MEDIA_TYPE) {
        return Err(RequestError::Plaintext);
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|len| len > MAX_REQUEST_LEN as u64) {
        return Err(RequestError::TooLarge);
    }
    let mut response = match relay::chat(host, body).await? {
        Answer::Streaming(relay) => respond(RESPONSE_MEDIA_TYPE, Reply::Relayed(relay)),
        Answer::Refused { status: code, problem } => {
            let mut response = own(PROBLEM_MEDIA_TYPE, problem);
            *response.status_mut() = status(code);
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}

fn directory<H: Host>(host: &H, query: Option<&str>) -> Response<Reply<H::Relay>> {
    let model = query.into_iter().flat_map(|q| q.split('&')).find_map(|pair| pair.strip_prefix("model="));
    let directory = host.registry().directory(model.map(percent_decode).as_deref(), host.now());
    own(JSON, serde_json::to_vec(&directory).expect("a directory is plain JSON"))
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

fn models<H: Host>(host: &H) -> Response<Reply<H::Relay>> {
    let models = host.registry().models(host.now()).into_iter();
    let data = models.map(|(id, since)| Model { id, object: "model", created: since.as_secs(), owned_by: "fanlight" });
    let list = ModelList { object: "list", data: data.collect() };
    own(JSON, serde_json::to_vec(&list).expect("a model list is plain JSON"))
}

async fn log_object<H: Host>(host: &H, path: &str) -> Result<Response<Reply<H::Relay>>, RequestError> {
    let (path, bytes) = log::read(host, path).await?;
    let mut response = own(path.content_type, bytes);
    response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static(path.cache_control));
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, http::HeaderValue::from_static("*"));
    Ok(response)
}

fn gauges<H: Host>(host: &H) -> [Gauge; 4] {
    let connections = host.registry().connections();
    let sum = |count: fn(&Connection<H::Link>) -> u32| connections.iter().map(|c| u64::from(count(c))).sum();
    let gauge = |name, help, value| Gauge { name, help, value };
    [
        gauge("fanlight_providers", "Providers connected.", connections.len() as u64),
        gauge("fanlight_capacity", "Streams that connected providers take at once.", sum(Connection::capacity)),
        gauge("fanlight_streams", "Streams in flight.", sum(Connection::in_flight)),
        gauge("fanlight_held_request_bytes", "Request bytes held in memory.", host.budget().used() as u64),
    ]
}

fn own<R>(media_type: &'static str, body: impl Into<Bytes>) -> Response<Reply<R>> {
    respond(media_type, Reply::Own(body.into()))
}

fn respond<R>(media_type: &'static str, reply: Reply<R>) -> Response<Reply<R>> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("codes are constants, and a refusal's is checked on its link")
}

/// Model names need it for `/`, `:` and `+` at most; what is no escape stays as it is, and names no model.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.split_at_checked(2).filter(|_| byte == b'%');
        let decoded = escape.and_then(|(hex, tail)| Some((u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?, tail)));
        let (byte, tail) = decoded.unwrap_or((byte, tail));
        out.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}
