//! Receipts as they arrive, against what the client itself saw.

mod world;

use fanlight_protocol::entry::{EntryError, ReceiptDetails};
use fanlight_protocol::response::ReceiptPayload;
use fanlight_protocol::{Digest, KeyId, RequestId};
use fanlight_verifier::{Exchange, ProviderPolicy, ReceiptError, check_receipt, verify_listing};
use world::{BLIND, Identity, MODEL, NOW, World, details, list};

fn exchange(key_id: KeyId) -> Exchange<'static> {
    let ReceiptDetails { request_id, request_hash, response_hash, .. } = details();
    Exchange { request_id, key_id, model: MODEL, request_hash, response_hash }
}

#[tokio::test]
async fn a_receipt_of_this_exchange_and_of_no_other() {
    let World { log, statement, listing, receipt, .. } = World::new().await;
    let provider = verify_listing(&listing, &ProviderPolicy::new(log.policy()), NOW).unwrap();
    let details = details().to_bytes();
    let payload = ReceiptPayload { receipt: receipt.bytes(), details: &details, blind: BLIND };
    let good = exchange(statement.key_id());
    let checked = check_receipt(&payload, &provider, &good).unwrap();
    assert_eq!((checked.provider_id(), checked.details().usage.output), (provider.provider_id(), 30));

    for (exchange, expected) in [
        (Exchange { key_id: KeyId([0; 16]), ..good }, ReceiptError::OtherKey),
        (Exchange { request_id: RequestId([2; 16]), ..good }, ReceiptError::OtherRequest),
        (Exchange { request_hash: Digest([0; 32]), ..good }, ReceiptError::OtherRequest),
        (Exchange { model: "huge", ..good }, ReceiptError::OtherModel),
        (Exchange { response_hash: Digest([0; 32]), ..good }, ReceiptError::OtherResponse),
    ] {
        assert_eq!(check_receipt(&payload, &provider, &exchange).unwrap_err(), expected);
    }
    let wrong_blind = ReceiptPayload { blind: [0; 32], ..payload };
    assert!(matches!(check_receipt(&wrong_blind, &provider, &good), Err(ReceiptError::Details(_))));
}

#[tokio::test]
async fn answer_attributed_to_another() {
    let World { log, statement, receipt, .. } = World::new().await;
    // Both serve the same KEM key, so nothing but the receipt's signature tells them apart.
    let other = Identity::new(8);
    let other_statement = other.statement(|_| ());
    let listing = list(&log, other.evidence().bytes(), other_statement.bytes()).await;
    let provider = verify_listing(&listing, &ProviderPolicy::new(log.policy()), NOW).unwrap();
    let details = details().to_bytes();
    let payload = ReceiptPayload { receipt: receipt.bytes(), details: &details, blind: BLIND };
    let refused = check_receipt(&payload, &provider, &exchange(statement.key_id())).unwrap_err();
    assert_eq!(refused, ReceiptError::Receipt(EntryError::WrongKey));
}
