//! `POST /v1/chat/completions`: read the header, admit, read the rest, ask recipients until one gives a first word.

use std::sync::Arc;

use bytes::Bytes;
use fanlight_protocol::ParseError;
use fanlight_protocol::problem::{Problem, ProblemCode};
use fanlight_protocol::request::RequestHeader;

use crate::admit::{Candidate, admit};
use crate::error::RequestError;
use crate::host::{Answer, Host, Outgoing};
use crate::metrics::Counter;
use crate::upload::{MAX_HEADER_LEN, Upload};

/// Relays one sealed request.
pub(crate) async fn chat<H: Host>(host: &H, mut body: H::Body) -> Result<Answer<H::Relay>, RequestError> {
    let mut upload = Upload::new(host.budget());
    let header = read_header(host, &mut body, &mut upload).await?;
    // Before the rest is read: a request that nobody can take costs its header only.
    admit(host.registry(), header.fields(), host.now())?;
    while let Some(piece) = host.next_piece(&mut body).await.map_err(RequestError::Body)? {
        upload.push(piece)?;
    }
    let upload = upload.finish();
    // Again, because a slow body takes time in which providers come and go.
    let candidates = admit(host.registry(), header.fields(), host.now())?;
    let (mut lost, mut asked) = (false, false);
    for Candidate { connection, statements } in candidates {
        let fields = header.fields();
        let Some(slot) = connection.try_slot(&fields.model) else { continue };
        if asked {
            host.metrics().add(Counter::Failovers, "", 1);
        }
        asked = true;
        let (request_id, model) = (fields.request_id, fields.model.clone());
        let outgoing = Outgoing { slot, upload: Arc::clone(&upload), request_id, model, statements };
        match host.forward(outgoing).await {
            Ok(Answer::Refused { status, problem }) if is_overloaded(status, &problem) => {}
            Ok(answer) => return Ok(answer),
            Err(_) => lost = true,
        }
    }
    Err(if lost { RequestError::ProviderFailed } else { RequestError::Overloaded })
}

async fn read_header<H: Host>(host: &H, body: &mut H::Body, upload: &mut Upload) -> Result<RequestHeader, RequestError> {
    loop {
        match RequestHeader::parse(upload.prefix()) {
            Ok((header, _)) => return Ok(header),
            Err(ParseError::Truncated(_)) if upload.prefix().len() < MAX_HEADER_LEN => {}
            Err(error) => return Err(RequestError::Malformed(error)),
        }
        let piece = host.next_piece(body).await.map_err(RequestError::Body)?;
        upload.push(piece.ok_or(RequestError::Malformed(ParseError::Truncated("header")))?)?;
    }
}

/// The only refusal after which another recipient is asked. All others are about the request, and `unknown_key` is for the
/// client to act on; they pass byte for byte.
fn is_overloaded(status: u16, problem: &Bytes) -> bool {
    status == ProblemCode::Overloaded.status()
        && serde_json::from_slice::<Problem>(problem).is_ok_and(|p| p.code() == Some(ProblemCode::Overloaded))
}
