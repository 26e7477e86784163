//! What a monitor remembers: alerts, and the one form in which state is kept.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use fanlight_auditlog::{Hash, leaf_hash};
use fanlight_protocol::UnixTime;
use fanlight_verifier::history::Limits;
use fanlight_verifier::monitor::{
    Ahead, AlertBook, AlertKind, AlertName, Expected, MAX_CLOSED, MAX_OPEN, Observation, Promise, PromiseError, State, StateError,
};
use proptest::prelude::*;
use world::{NOW, TestLog, World};

const LATER: UnixTime = UnixTime::from_secs(NOW.as_secs() + 60);

fn settle(book: &mut AlertBook, seen: &[(AlertName, &str, &str)], looked_for: &[AlertName], now: UnixTime) {
    let seen = seen.iter().map(|&(name, subject, detail)| Observation::of(name, subject, detail));
    book.settle(seen.collect(), &looked_for.iter().copied().collect(), now);
}

fn open(book: &AlertBook) -> Vec<String> {
    book.open().into_iter().map(fanlight_verifier::monitor::Alert::id).collect()
}

#[test]
fn conditions_close_once_they_are_looked_for_and_not_seen() {
    let mut book = AlertBook::default();
    let looked_for = [AlertName::Stale, AlertName::ReceiptGap];
    settle(&mut book, &[(AlertName::ReceiptGap, "a", "1"), (AlertName::Stale, "", "old")], &looked_for, NOW);
    assert_eq!(open(&book), ["stale", "receipt_gap/a"]);
    // Of another subject; and one that nobody could look for.
    settle(&mut book, &[(AlertName::ReceiptGap, "b", "2")], &[AlertName::ReceiptGap], LATER);
    assert_eq!(open(&book), ["stale", "receipt_gap/b"]);
    settle(&mut book, &[], &[], LATER);
    assert_eq!(open(&book).len(), 2);
    settle(&mut book, &[], &looked_for, LATER);
    assert_eq!(open(&book), [""; 0]);
    let closed: Vec<_> = book.closed().map(|alert| (alert.id(), alert.since, alert.last_seen, alert.closed)).collect();
    assert_eq!(closed[0], ("receipt_gap/a".to_owned(), NOW, NOW, Some(LATER)));
    assert_eq!(closed.len(), 3);
}

#[test]
fn incidents_stay_until_somebody_knows_of_them() {
    let mut book = AlertBook::default();
    settle(&mut book, &[(AlertName::ReceiptFork, "a", "1")], &[AlertName::ReceiptFork], NOW);
    settle(&mut book, &[], &[AlertName::ReceiptFork], LATER);
    assert_eq!(open(&book), ["receipt_fork/a"]);
    assert!(!book.acknowledge("receipt_fork", LATER) && book.acknowledge("receipt_fork/a", LATER));
    assert_eq!(open(&book), [""; 0]);
    settle(&mut book, &[(AlertName::ReceiptFork, "a", "2")], &[], LATER);
    assert_eq!(book.open()[0].since, LATER);
}

#[test]
fn an_acknowledged_condition_counts_again_when_there_is_more_of_it() {
    let mut book = AlertBook::default();
    let gap = |detail| [(AlertName::ReceiptGap, "a", detail)];
    settle(&mut book, &gap("1"), &[], NOW);
    assert!(book.acknowledge("receipt_gap/a", NOW));
    settle(&mut book, &gap("1"), &[], LATER);
    assert!(!book.open()[0].counts());
    settle(&mut book, &gap("2"), &[], LATER);
    assert!(book.open()[0].counts());
    assert_eq!((book.open()[0].count, &book.open()[0].details), (3, &["1".to_owned(), "2".to_owned()].into()));
}

#[test]
fn alerts_are_bounded_and_told_worst_first() {
    let mut book = AlertBook::default();
    for n in 0..MAX_OPEN + 5 {
        settle(&mut book, &[(AlertName::ReceiptGap, &n.to_string(), "x")], &[], NOW);
    }
    assert_eq!((open(&book).len(), book.n_dropped()), (MAX_OPEN, 5));
    settle(&mut book, &[], &[AlertName::ReceiptGap], LATER);
    assert_eq!(book.closed().count(), MAX_CLOSED);
    for n in 0..100 {
        settle(&mut book, &[(AlertName::ReceiptFork, "a", &n.to_string())], &[], NOW);
    }
    assert_eq!((book.open()[0].count, book.open()[0].details.len()), (100, 8));
    settle(&mut book, &[(AlertName::Stale, "", ""), (AlertName::SplitView, "", "")], &[], NOW);
    assert_eq!(open(&book), ["split_view", "receipt_fork/a", "stale"]);
}

#[test]
fn names_are_one_to_one_and_the_same_everywhere() {
    let names: BTreeSet<&str> = AlertName::ALL.iter().map(|name| name.as_str()).collect();
    assert_eq!(names.len(), AlertName::ALL.len());
    for name in AlertName::ALL {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(plain(name.as_str()) && !name.meaning().is_empty());
    }
    // What was signed does not become unsigned.
    assert_eq!(AlertName::SplitView.kind(), AlertKind::Incident);
}

/// A state with something of everything in it.
async fn full_state(log: &TestLog, entries: &[&[u8]]) -> State {
    let mut state = State::new(NOW);
    for entry in entries {
        log.append(entry).await;
        state.take(entry, &Limits::BOUNDED, NOW);
    }
    let note = log.checkpoint();
    state.checkpoint = Some(log.policy().verify_checkpoint(note.as_bytes()).expect("the log's own checkpoint"));
    state.alerts.observe(Observation::of(AlertName::SplitView, "s", "d").with_evidence("e"), NOW);
    state.ahead.insert("a".to_owned(), Ahead { note, since: NOW });
    let expected = |found| Expected { leaf: leaf_hash(b"x"), since: NOW, searched: 1, found };
    state.expect(BTreeMap::from([("x".to_owned(), expected(None)), ("y".to_owned(), expected(Some(3)))]));
    state.last_success = Some(LATER);
    state
}

#[tokio::test]
async fn state_is_read_as_it_was_written_and_no_other_way() {
    let World { provider, statement, receipt, .. } = World::new().await;
    let log = TestLog::open(3).await;
    let (evidence, early) = (provider.evidence(), world::Identity::new(9).sign_as(&provider, &receipt));
    let state = full_state(&log, &[b"foreign", evidence.bytes(), statement.bytes(), receipt.bytes(), &early]).await;
    let bytes = state.to_bytes().unwrap();
    let mut restored = State::parse(&bytes, &log.policy()).unwrap();
    assert_eq!(restored.to_bytes().unwrap(), bytes);
    assert!(!restored.is_all_found());
    restored.find(leaf_hash(b"x"), 7);
    assert_eq!((restored.expected()["x"].found, restored.expected()["y"].found), (Some(7), Some(3)));
    assert!(restored.is_all_found());

    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        State::parse(&flipped, &log.policy()).unwrap_err();
    }
    for end in 0..bytes.len() {
        State::parse(&bytes[..end], &log.policy()).unwrap_err();
    }
    let other = TestLog::open_named("other.example", 3).await;
    assert!(matches!(State::parse(&bytes, &other.policy()), Err(StateError::OtherLog)));
    let other_key = TestLog::open(4).await;
    assert!(matches!(State::parse(&bytes, &other_key.policy()), Err(StateError::Checkpoint(_))));
    // Parts that are each well formed, of two moments.
    let mut torn = state.clone();
    torn.take(b"one more", &Limits::BOUNDED, NOW);
    assert!(matches!(State::parse(&torn.to_bytes().unwrap(), &log.policy()), Err(StateError::Contradiction)));
    let mut other_edge = state;
    other_edge.edge = fanlight_auditlog::tree::RightEdge::empty();
    (0..5).for_each(|n| other_edge.edge.push(Hash::new([n; 32]), |_, _| ()));
    assert!(matches!(State::parse(&other_edge.to_bytes().unwrap(), &log.policy()), Err(StateError::Contradiction)));
    let new = State::new(NOW).to_bytes().unwrap();
    assert!(State::parse(&new, &log.policy()).unwrap().checkpoint.is_none());
}

#[tokio::test]
async fn what_promises_something() {
    let World { log, bundle, receipt, .. } = World::new().await;
    let policy = log.policy();
    let promises = Promise::of_bundle(&bundle, &policy).unwrap();
    assert!(promises.iter().all(|promise| matches!(promise, Promise::Signed(_))) && promises.len() == 3);
    let unlogged = fanlight_protocol::bundle::ReceiptBundle { logged: false, tlog_proof: None, ..bundle.clone() };
    let promises = Promise::of_bundle(&unlogged, &policy).unwrap();
    assert_eq!(promises[0], Promise::Awaited(leaf_hash(receipt.bytes())));

    let proof = log.append(b"mine").await;
    let of_proof = |proof: &str, entry| Promise::of_proof(proof.as_bytes(), entry, &policy);
    of_proof(&proof, Some(b"mine")).unwrap();
    of_proof(&proof, None).unwrap();
    assert!(matches!(of_proof(&proof, Some(b"other")), Err(PromiseError::Refused(_))));
    assert!(matches!(of_proof("", None), Err(PromiseError::Malformed(_))));
    let (stranger, imposter) = (TestLog::open_named("other.example", 1).await, TestLog::open(2).await);
    let theirs = stranger.append(b"mine").await;
    let forged = imposter.append(b"mine").await;
    assert_eq!(of_proof(&theirs, None), Err(PromiseError::OtherLog));
    assert_eq!(of_proof(&forged, None), Err(PromiseError::NotSigned));
    assert!(matches!(of_proof(&forged, Some(b"mine")), Err(PromiseError::Refused(_))));
}

#[test]
fn more_gaps_than_an_alert_keeps_are_always_told_the_same() {
    let provider = world::Identity::new(7);
    let statement = provider.statement(|_| ());
    let mut state = State::new(NOW);
    state.take(provider.evidence().bytes(), &Limits::BOUNDED, NOW);
    state.take(statement.bytes(), &Limits::BOUNDED, NOW);
    let mut last = provider.receipt(&statement, &world::details(), None);
    for n in 0..24 {
        if n % 2 == 1 {
            state.take(last.bytes(), &Limits::BOUNDED, NOW);
        }
        last = provider.receipt(&statement, &world::details(), Some(&last));
    }
    assert_eq!(state.standing(u64::MAX, LATER), []);
    let seen = state.standing(0, LATER);
    assert_eq!(seen.len(), 7);
    assert_eq!(state.standing(0, LATER), seen);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[ -~]{0,80}") {
        let policy = fanlight_auditlog::Policy::parse(b"quorum none").unwrap();
        State::parse(&bytes, &policy).unwrap_err();
        let sum = fanlight_protocol::Digest::of(json.as_bytes());
        let summed = format!("fanlight-verify monitor state v1 {sum}\n{json}");
        State::parse(summed.as_bytes(), &policy).unwrap_err();
    }
}
