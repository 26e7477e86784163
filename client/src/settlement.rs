//! From a receipt to its tlog proof: from the INCLUSION frame, or else by adding the receipt to the log ourselves.

use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::tlog_proof::MAX_TLOG_PROOF_LEN;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::response::{Frame, FrameType, ResponseItem};
use fanlight_verifier::verify_receipt;

use crate::client::Shared;
use crate::event::Event;
use crate::frames::FrameReader;
use crate::store::StoreError;

/// Longest wait for the INCLUSION frame after the receipt: a log publishes about once a second.
const INCLUSION_WAIT: Duration = Duration::from_secs(20);
/// Pauses before the attempts to add the receipt of an exchange that has just ended to the log.
pub(crate) const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(8)];

/// A bundle whose tlog proof verified under the client's policy.
struct Logged {
    bundle: ReceiptBundle,
    event: Event,
}

/// Sees to it that the log has the receipt, and stores the proof. Without success the receipt stays as it is stored.
pub(crate) async fn settle(shared: &Shared, bundle: ReceiptBundle, rest: Option<FrameReader>, pauses: &[Duration]) -> bool {
    let receipt_id = bundle.receipt_id;
    let offered = match rest {
        Some(mut frames) => tokio::time::timeout(INCLUSION_WAIT, inclusion(&mut frames)).await.unwrap_or_default(),
        None => None,
    };
    let mut logged = offered.and_then(|proof| verify(shared, &bundle, proof));
    for pause in pauses {
        if logged.is_some() {
            break;
        }
        tokio::time::sleep(*pause).await;
        logged = add(shared, &bundle).await;
    }
    let Some(Logged { bundle, event }) = logged else {
        tracing::warn!(%receipt_id, "receipt is not logged yet");
        shared.tell(Event::NotLogged { receipt_id });
        return false;
    };
    match shared.save(bundle).await {
        Ok(()) => {
            shared.tell(event);
            true
        }
        Err(error) => {
            tracing::error!(%receipt_id, error = &error as &dyn std::error::Error, "failed to store a tlog proof");
            shared.tell(Event::NotLogged { receipt_id });
            false
        }
    }
}

/// The payload of the INCLUSION frame, if one comes. Whatever else happens, the answer was verified before.
async fn inclusion(frames: &mut FrameReader) -> Option<Vec<u8>> {
    while let Ok(Some(ResponseItem::Frame(bytes))) = frames.next().await {
        match Frame::parse(&bytes) {
            Ok(Frame { frame_type: FrameType::Inclusion, payload }) => return Some(payload.to_vec()),
            Ok(Frame { frame_type: FrameType::Ping, .. }) => {}
            _ => return None,
        }
    }
    None
}

/// `POST /log/add`: idempotent, so it is harmless if the gateway has added the receipt already.
async fn add(shared: &Shared, bundle: &ReceiptBundle) -> Option<Logged> {
    let entry = Bytes::from(bundle.receipt.clone());
    let reply = shared.gateway.post("log/add", "application/octet-stream", "text/plain", entry).await.ok()?;
    if !reply.is_ok() {
        return None;
    }
    let proof = reply.read(MAX_TLOG_PROOF_LEN).await.ok()?;
    verify(shared, bundle, proof)
}

/// The bundle with the proof, if the whole of it verifies under the client's policy: what is stored as logged convinces
/// `fanlight-verify` too.
fn verify(shared: &Shared, bundle: &ReceiptBundle, proof: Vec<u8>) -> Option<Logged> {
    let proof = String::from_utf8(proof).ok()?;
    let bundle = ReceiptBundle { logged: true, tlog_proof: Some(proof), ..bundle.clone() };
    let receipt_id = bundle.receipt_id;
    match verify_receipt(&bundle, &shared.policy) {
        Ok(verified) => {
            let inclusion = verified.inclusion();
            let checkpoint = inclusion.checkpoint();
            let (tree_size, origin) = (checkpoint.tree_size(), checkpoint.origin().to_owned());
            let event = Event::Logged { receipt_id, leaf_index: inclusion.index(), tree_size, origin };
            Some(Logged { bundle, event })
        }
        Err(error) => {
            tracing::warn!(%receipt_id, error = &error as &dyn std::error::Error, "refused a tlog proof of a receipt");
            None
        }
    }
}

impl Shared {
    /// [`ReceiptStore::save`](crate::ReceiptStore::save), on a thread that may wait for the disk.
    pub(crate) async fn save(&self, bundle: ReceiptBundle) -> Result<(), StoreError> {
        let store = std::sync::Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.save(&bundle)).await.expect("saving does not panic, and is not cancelled")
    }
}
