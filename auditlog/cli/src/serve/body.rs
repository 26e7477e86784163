//! Reading a request's body, within bounds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Longest time for a whole body: the longest needs 1.1 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of single entries that are held at the same time: 512 of the longest.
pub(super) const MAX_HELD_ENTRIES: usize = 32 * 1024 * 1024;

/// Bytes of batches that are held at the same time: 16 of the longest. Apart from the entries, so that a few slow senders of
/// batches do not keep everybody else from appending.
pub(super) const MAX_HELD_BATCHES: usize = 64 * 1024 * 1024;

/// Bytes that are read of a body beyond its limit: an answer that overtakes the body is lost with the connection that
/// breaks under it.
const MAX_EXCESS: usize = 1024 * 1024;

/// A body that has arrived, and its share of what may be held.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) _held: OwnedSemaphorePermit,
}

/// Why a body was not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// A coding like gzip, which would make the entry other bytes than the client means.
    Encoded,
    /// It broke off. Seldom is anybody left who sees the answer.
    Incomplete,
    /// All bodies that may be held are held.
    NoRoom,
    TimedOut,
    TooLong,
}

/// Receives a body of at most `limit` bytes; `held` counts bytes that came, of all requests.
pub(super) async fn receive(held: &Arc<Semaphore>, headers: &HeaderMap, body: Body, limit: usize) -> Result<Received, BodyError> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(BodyError::Encoded);
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit + MAX_EXCESS) {
        return Err(BodyError::TooLong);
    }
    match timeout(BODY_TIMEOUT, collect(held, body, limit)).await {
        Ok(received) => received,
        Err(_) => Err(BodyError::TimedOut),
    }
}

async fn collect(held: &Arc<Semaphore>, body: Body, limit: usize) -> Result<Received, BodyError> {
    // What is only announced takes nothing from anybody.
    let mut share = Arc::clone(held).try_acquire_many_owned(0).map_err(|_| BodyError::NoRoom)?;
    let (mut received, mut length) = (BytesMut::new(), 0);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| BodyError::Incomplete)?;
        length += piece.len();
        if length > limit + MAX_EXCESS {
            break;
        }
        if length <= limit {
            let n = u32::try_from(piece.len()).expect("limits are far below 4 GiB");
            share.merge(Arc::clone(held).try_acquire_many_owned(n).map_err(|_| BodyError::NoRoom)?);
            received.extend_from_slice(&piece);
        }
    }
    if length <= limit { Ok(Received { bytes: received.freeze(), _held: share }) } else { Err(BodyError::TooLong) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;

    use super::*;

    async fn receive_pieces(held: &Arc<Semaphore>, pieces: Vec<io::Result<Bytes>>) -> Result<Bytes, BodyError> {
        let body = Body::from_stream(stream::iter(pieces));
        receive(held, &HeaderMap::new(), body, 10).await.map(|received| received.bytes)
    }

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        let held = Arc::new(Semaphore::new(10));
        let piece = |length: usize| Ok(Bytes::from(vec![7; length]));
        for _ in 0..2 {
            // It gives its share back in the end.
            assert_eq!(receive_pieces(&held, vec![piece(4), piece(6)]).await, Ok(Bytes::from(vec![7; 10])));
            assert_eq!(receive_pieces(&held, vec![piece(4), piece(7)]).await, Err(BodyError::TooLong));
            assert_eq!(receive_pieces(&held, vec![piece(11), piece(MAX_EXCESS)]).await, Err(BodyError::TooLong));
            let broken = Err(io::ErrorKind::ConnectionReset.into());
            assert_eq!(receive_pieces(&held, vec![piece(4), broken]).await, Err(BodyError::Incomplete));
        }
        let _taken = Arc::clone(&held).try_acquire_many_owned(5).unwrap();
        assert_eq!(receive_pieces(&held, vec![piece(5)]).await, Ok(Bytes::from(vec![7; 5])));
        assert_eq!(receive_pieces(&held, vec![piece(5), piece(1)]).await, Err(BodyError::NoRoom));
    }

    #[tokio::test]
    async fn the_head_alone_can_refuse_a_body() {
        let held = Arc::new(Semaphore::new(10));
        let never = || Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let refused = async |name, value: &str| {
            let headers = [(name, value.parse().unwrap())].into_iter().collect();
            receive(&held, &headers, never(), 10).await.map(|received| received.bytes)
        };
        assert_eq!(refused(CONTENT_ENCODING, "gzip").await, Err(BodyError::Encoded));
        assert_eq!(refused(CONTENT_LENGTH, "99999999").await, Err(BodyError::TooLong));
    }
}
