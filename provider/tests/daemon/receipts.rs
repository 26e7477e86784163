//! The journal and the chain over it: no gap, no fork, nothing lost (SPEC §7.3).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fanlight_protocol::entry::{Receipt, ReceiptDetails, Signed, Status, Usage};
use fanlight_protocol::{Digest, RequestId, UnixTime};
use fanlight_provider::enclave::{Enclave, SimulatedEnclave};
use fanlight_provider::receipts::{ChainError, Journal, JournalError, ReceiptChain, ReceiptDraft};

fn enclave(dir: &Path) -> SimulatedEnclave {
    SimulatedEnclave::open(&dir.join("identity.key")).expect("an identity key")
}

fn receipt(enclave: &SimulatedEnclave, counter: u64, previous: Digest) -> Signed<Receipt> {
    let receipt = Receipt {
        statement_digest: Digest([3; 32]),
        counter,
        previous,
        time: UnixTime::from_secs(1_790_000_040),
        commitment: Digest::of(&counter.to_be_bytes()),
    };
    Signed::sign(&receipt, enclave.identity(), |message| enclave.sign(message)).expect("a signature")
}

/// A journal of `n` receipts.
fn fill(path: &Path, enclave: &SimulatedEnclave, n: u64) -> Journal {
    let mut journal = Journal::open(path, enclave.identity()).expect("a journal");
    for _ in 0..n {
        let next = receipt(enclave, journal.next_counter(), journal.head());
        journal.append(&[&next]).expect("room");
    }
    journal
}

fn draft(n: u64) -> ReceiptDraft {
    let time = UnixTime::from_secs(1_790_000_000 + n);
    let details = ReceiptDetails {
        request_id: RequestId(u128::from(n).to_be_bytes()),
        request_hash: Digest([1; 32]),
        response_hash: Digest([2; 32]),
        model: "m".to_owned(),
        weights_digest: Digest([4; 32]),
        build_measurement: Digest([5; 32]),
        usage: Usage::default(),
        status: Status::Complete,
        finish_reason: "stop".to_owned(),
        started: time,
        ended: time,
    };
    ReceiptDraft { statement_digest: Digest([3; 32]), time, details }
}

#[test]
fn a_journal_that_is_opened_again_continues_its_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (path, enclave) = (dir.path().join("j"), enclave(dir.path()));
    let mut digests = Vec::new();
    for n in 0..4 {
        let journal = fill(&path, &enclave, 1);
        assert_eq!(journal.next_counter(), n + 1);
        digests.push(journal.head());
    }
    let journal = fill(&path, &enclave, 0);
    let digest_of = |bytes: &[u8]| Signed::<Receipt>::verify(bytes, enclave.identity()).unwrap().digest();
    assert_eq!(journal.recent().map(digest_of).collect::<Vec<_>>(), digests);
}

#[test]
fn a_torn_tail_is_cut_and_its_counter_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, enclave) = (dir.path().join("j"), enclave(dir.path()));
    let two = fill(&path, &enclave, 2);
    let (whole, head) = (fs::metadata(&path).unwrap().len(), two.head());
    drop(two);
    drop(fill(&path, &enclave, 1));
    let bytes = fs::read(&path).unwrap();
    for len in usize::try_from(whole).unwrap()..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        let journal = Journal::open(&path, enclave.identity()).unwrap();
        assert_eq!((journal.next_counter(), journal.head()), (2, head), "cut at {len}");
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
    }
    assert_eq!(fill(&path, &enclave, 1).next_counter(), 3);
}

#[test]
fn a_flipped_byte_is_damage_in_the_receipt_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, enclave) = (dir.path().join("j"), enclave(dir.path()));
    drop(fill(&path, &enclave, 3));
    let bytes = fs::read(&path).unwrap();
    let first_len = 4 + u64::from(u32::from_be_bytes(*bytes.first_chunk().unwrap()));
    for at in 0..bytes.len() {
        // A record's length at the end of the file cannot be told from a torn record.
        let record = at as u64 / first_len;
        if record == 2 && at as u64 % first_len < 4 {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        match Journal::open(&path, enclave.identity()) {
            Err(JournalError::Damaged { counter, .. }) => assert_eq!(counter, record, "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(fs::read(&path).unwrap(), damaged, "a damaged journal is left as it is");
    }
}

#[test]
fn missing_repeated_and_foreign_receipts_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ours) = (dir.path().join("j"), enclave(dir.path()));
    drop(fill(&path, &ours, 3));
    let bytes = fs::read(&path).unwrap();
    let len = bytes.len() / 3;
    for (what, journal, counter) in [
        ("the first is missing", bytes[len..].to_vec(), 0),
        ("the second is missing", [&bytes[..len], &bytes[2 * len..]].concat(), 1),
        ("the last is repeated", [&bytes[..], &bytes[2 * len..]].concat(), 3),
    ] {
        fs::write(&path, journal).unwrap();
        let opened = Journal::open(&path, ours.identity());
        assert!(matches!(opened, Err(JournalError::Damaged { counter: at, .. }) if at == counter), "{what}: {opened:?}");
    }

    // Also a journal of a single receipt: it must not pass for a torn tail.
    let another = tempfile::tempdir().unwrap();
    fs::write(&path, &bytes[..len]).unwrap();
    let opened = Journal::open(&path, enclave(another.path()).identity());
    assert!(matches!(opened, Err(JournalError::Damaged { counter: 0, .. })), "{opened:?}");
    assert_eq!(fs::read(&path).unwrap(), &bytes[..len]);
}

#[test]
fn a_journal_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, enclave) = (dir.path().join("j"), enclave(dir.path()));
    let journal = fill(&path, &enclave, 1);
    assert!(matches!(Journal::open(&path, enclave.identity()), Err(JournalError::Locked { .. })));
    drop(journal);
    assert_eq!(fill(&path, &enclave, 0).next_counter(), 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_receipt_that_cannot_be_stored_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let enclave = Arc::new(enclave(dir.path()));
    let path = dir.path().join("j");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let journal = Journal::open(&path, enclave.identity()).unwrap();
    let chain = ReceiptChain::start(journal, enclave).unwrap();
    for n in 0..2 {
        assert!(matches!(chain.sign(draft(n)).await, Err(ChainError::Journal(_))));
    }
    assert!(chain.recent().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn receipts_that_are_signed_together_form_one_chain() {
    const N: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let enclave = Arc::new(enclave(dir.path()));
    let journal = Journal::open(&dir.path().join("j"), enclave.identity()).unwrap();
    let chain = ReceiptChain::start(journal, Arc::clone(&enclave) as Arc<dyn Enclave>).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..N {
        let chain = chain.clone();
        tasks.spawn(async move { (n, chain.sign(draft(n)).await.unwrap()) });
    }
    let mut signed = tasks.join_all().await;
    signed.sort_by_key(|(_, signed)| signed.receipt.counter);
    let mut previous = Digest::ZERO;
    for (counter, (n, signed)) in (0..).zip(&signed) {
        let receipt = Signed::<Receipt>::verify(signed.receipt.bytes(), enclave.identity()).unwrap();
        assert_eq!((receipt.counter, receipt.previous), (counter, previous));
        assert_eq!(receipt.open(&signed.details, &signed.blind).unwrap(), draft(*n).details);
        assert_eq!(receipt.time.as_secs() % 60, 0);
        previous = receipt.digest();
    }
    let stored = chain.recent().await.unwrap();
    assert!(stored.iter().map(Vec::as_slice).eq(signed.iter().map(|(_, signed)| signed.receipt.bytes())));
}
