//! KEM keys: when they are current, how long they open, and that they open each request once (SPEC §3, §7.2).

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use fanlight_protocol::entry::{MAX_STATEMENT_SECS, ModelOffer};
use fanlight_protocol::{Digest, UnixTime};
use fanlight_provider::enclave::SimulatedEnclave;
use fanlight_provider::keys::{GRACE, KeyRing, StatementTerms};

const NOW: u64 = 1_790_000_000;

fn terms(rotation: Duration) -> StatementTerms {
    StatementTerms {
        models: vec![ModelOffer { name: "m".to_owned(), weights_digest: Digest([1; 32]), context_tokens: 8 }],
        build_measurement: Digest([2; 32]),
        evidence_digest: Digest([3; 32]),
        rotation,
    }
}

fn enclave(dir: &tempfile::TempDir) -> SimulatedEnclave {
    SimulatedEnclave::open(&dir.path().join("identity.key")).expect("an identity key")
}

fn at(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs)
}

#[test]
fn a_replaced_key_opens_to_the_end_of_its_grace_and_is_then_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (enclave, ring, terms) = (enclave(&dir), KeyRing::default(), terms(Duration::from_hours(1)));
    assert!(ring.current().is_none());
    let old = ring.rotate(&enclave, &terms, at(NOW)).unwrap();
    let new = ring.rotate(&enclave, &terms, at(NOW + 3600)).unwrap();
    assert_ne!(old.key_id(), new.key_id());
    assert_eq!(ring.current().unwrap().key_id(), new.key_id());
    assert!(old.statement().is_valid_at(at(NOW + 3600)), "no gap while the new one is logged");

    let end = old.statement().not_after.as_secs() + GRACE.as_secs();
    assert_eq!(ring.live(at(end)).len(), 2);
    assert_eq!(ring.live(at(end + 1)).len(), 1);

    // The ring holds the only handle to the private key, so this is its deletion.
    let private = Arc::downgrade(old.kem());
    drop(old);
    ring.delete_expired(at(end));
    assert!(private.upgrade().is_some());
    ring.delete_expired(at(end + 1));
    assert!(private.upgrade().is_none());
    assert_eq!(ring.current().unwrap().key_id(), new.key_id());
}

#[test]
fn a_statement_covers_its_rotation_and_never_more_than_six_hours() {
    let dir = tempfile::tempdir().unwrap();
    let enclave = enclave(&dir);
    for secs in [1, 60, 3600, 4 * 3600, 5 * 3600] {
        let key = KeyRing::default().rotate(&enclave, &terms(Duration::from_secs(secs)), at(NOW)).unwrap();
        let statement = key.statement();
        assert!(statement.is_valid_at(at(NOW)) && statement.is_valid_at(at(NOW + secs)), "{secs}");
        assert!(statement.not_after.as_secs() - statement.not_before.as_secs() <= MAX_STATEMENT_SECS, "{secs}");
        assert_eq!(statement.key_id(), *key.key_id());
        assert_eq!(statement.kem_key, *key.kem().public_key());
    }
}

#[test]
fn of_many_claims_to_one_request_exactly_one_holds() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyRing::default().rotate(&enclave(&dir), &terms(Duration::from_hours(1)), at(NOW)).unwrap();
    let (n_threads, n_requests) = (8, 100_u8);
    let barrier = Barrier::new(n_threads);
    let claimed = thread::scope(|scope| {
        let race = || {
            barrier.wait();
            (0..n_requests).filter(|n| key.claim(&[*n; 65])).count()
        };
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(race)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(claimed, usize::from(n_requests));
}
