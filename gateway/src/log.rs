//! `/log`: the read path of the log, and appending to it (SPEC §9).

use bytes::Bytes;
use fanlight_auditlog::http::{ReadPath, read_path};
use fanlight_protocol::entry::{EntryError, EntryType, Evidence, KeyStatement, MAX_ENTRY_LEN, Receipt, Signed, peek};

use crate::error::RequestError;
use crate::host::Host;

/// The object at a path under `/log`.
pub(crate) async fn read<H: Host>(host: &H, path: &str) -> Result<(ReadPath, Bytes), RequestError> {
    let path = read_path(path).ok_or(RequestError::NotFound)?;
    match host.log_object(&path).await.map_err(RequestError::Log)? {
        Some(bytes) => Ok((path, bytes)),
        None => Err(RequestError::NotFound),
    }
}

/// Most bytes that are read after a body was refused.
const MAX_DISCARDED: usize = 1 << 20;

/// Reads on for a while: an answer that overtakes the body is lost with the connection that breaks under it.
async fn discard<H: Host>(host: &H, body: &mut H::Body) {
    let mut left = MAX_DISCARDED;
    while let Ok(Some(piece)) = host.next_piece(body).await
        && piece.len() <= left
    {
        left -= piece.len();
    }
}

/// Appends the entry in a body, if it is valid and of a provider that enrolled here; anyone may bring it.
pub(crate) async fn add<H: Host>(host: &H, mut body: H::Body) -> Result<String, RequestError> {
    let mut entry = Vec::new();
    while let Some(piece) = host.next_piece(&mut body).await.map_err(RequestError::Body)? {
        if piece.len() > MAX_ENTRY_LEN - entry.len() {
            discard(host, &mut body).await;
            return Err(RequestError::TooLarge);
        }
        entry.extend_from_slice(&piece);
    }
    let claimed = peek(&entry).map_err(RequestError::Entry)?;
    let identity = host.registry().identity(&claimed.provider_id).ok_or(RequestError::NotEnrolled)?;
    match claimed.entry_type {
        EntryType::Evidence => Signed::<Evidence>::verify(&entry, &identity).map(drop),
        EntryType::KeyStatement => Signed::<KeyStatement>::verify(&entry, &identity).map(drop),
        EntryType::Receipt => Signed::<Receipt>::verify(&entry, &identity).map(drop),
        EntryType::Link => Err(EntryError::WrongType),
    }
    .map_err(RequestError::Entry)?;
    host.append(Bytes::from(entry)).await.map_err(RequestError::Log)
}
