//! What the network leaves behind, judged by others' code and by our verifier from the public log alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::fsck::{Options, fsck};
use fanlight_auditlog::reader::latest_checkpoint;
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{DirStore, Reader, VerifierKey};
use fanlight_devnet::Network;
use fanlight_protocol::entry::{EntryType, KeyStatement, Signed, peek};
use fanlight_protocol::{ProviderId, UnixTime};
use fanlight_verifier::{HistoryReport, ProviderHistory};
use futures_util::TryStreamExt;
use serde_json::json;

use crate::chat::{ask, demo};
use crate::sdks::{interop, passes, python};

/// Every entry of a network's log, read from its directory and checked against its checkpoint.
pub(crate) struct LogEntries {
    pub(crate) entries: Vec<Vec<u8>>,
}

pub(crate) async fn log_of(network: &Network) -> LogEntries {
    let store = DirStore::open_reader(log_dir(network));
    let reader = Reader::latest(store, &log_key(network)).await.unwrap();
    let size = reader.checkpoint().tree_size();
    let entries: Vec<_> = reader.entries(0..size).map_ok(|(_, entry)| entry.to_vec()).try_collect().await.unwrap();
    LogEntries { entries }
}

pub(crate) async fn receipts_of(network: &Network, provider: ProviderId) -> HistoryReport {
    let mut history = ProviderHistory::new(provider);
    for entry in log_of(network).await.entries {
        history.push(&entry);
    }
    history.finish(UnixTime::from(std::time::SystemTime::now()))
}

fn log_dir(network: &Network) -> std::path::PathBuf {
    network.client_state().join("../gateway/log")
}

fn log_key(network: &Network) -> VerifierKey {
    VerifierKey::parse(network.gateway.log_vkey()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_whole_and_every_entry_is_good_cose_to_a_library_that_is_not_ours() {
    let (network, dir) = demo().await;
    for question in ["What is 12 + 7?", "What is the capital of Norway?"] {
        ask(&network, "fanlight-tiny", question).await;
    }
    let provider = network.providers[0].provider_id();
    let key = log_key(&network);
    let client = network.proxy.client().clone();
    client.settled().await;

    let report = receipts_of(&network, provider).await;
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!((report.statements.len(), report.receipts.len()), (1, 2));

    let entries = log_of(&network).await.entries;
    let spki = entries.iter().find_map(|entry| Signed::<KeyStatement>::verify_self_keyed(entry).ok()).unwrap();
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let entry_type = peek(entry).unwrap().entry_type;
            assert_ne!(entry_type, EntryType::Link, "link entries are never logged");
            json!({"cose": STANDARD.encode(entry), "spki": STANDARD.encode(spki.signer().spki()), "typ": entry_type.as_str()})
        })
        .collect();
    let file = dir.path().join("entries.json");
    std::fs::write(&file, json!({"entries": rows}).to_string()).unwrap();
    let mut check = python();
    check.arg(interop("cose_check.py")).arg(&file);
    passes(check).await;

    let log_dir = log_dir(&network);
    network.shutdown().await;
    let store = DirStore::open_reader(log_dir);
    let checkpoint = latest_checkpoint(&store, &key).await.unwrap();
    let checked = fsck(&store, &checkpoint, Options::default(), &Inline, |_| {}).await.unwrap();
    assert!(checked.is_good(), "{:?}", checked.damage());
    assert_eq!(checked.checkpoint().tree_size(), entries.len() as u64);
}
