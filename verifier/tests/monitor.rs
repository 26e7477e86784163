//! What a monitor remembers: alerts, and the one form in which state is kept.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use fanlight_auditlog::{Hash, Policy, leaf_hash};
use fanlight_protocol::UnixTime;
use fanlight_verifier::history::Limits;
use fanlight_verifier::monitor::{
    Ahead, Alert, AlertBook, AlertKind, AlertName, Expected, MAX_AHEAD, MAX_CLOSED, MAX_OPEN, Observation, Promise, PromiseError,
    State, StateError,
};
use proptest::prelude::*;
use world::{NOW, TestLog, World};

const LATER: UnixTime = UnixTime::from_secs(NOW.as_secs() + 60);

fn settle(book: &mut AlertBook, seen: &[(AlertName, &str, &str)], looked_for: &[AlertName], now: UnixTime) {
    let seen = seen.iter().map(|&(name, subject, detail)| Observation::of(name, subject, detail));
    book.settle(seen.collect(), |alert| looked_for.contains(&alert.name), now);
}

fn open(book: &AlertBook) -> Vec<String> {
    book.open().into_iter().map(Alert::id).collect()
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
fn a_crowd_of_alerts_keeps_out_nothing_worse() {
    let mut book = AlertBook::default();
    let subjects: Vec<String> = (0..MAX_OPEN).map(|n| n.to_string()).collect();
    let crowd: Vec<_> = subjects.iter().map(|subject| (AlertName::EvidenceRefused, subject.as_str(), "x")).collect();
    settle(&mut book, &crowd, &[], NOW);
    // Whatever is known of the log and its views, and what is worse than the crowd.
    let worse = [
        (AlertName::SplitView, "", "x"),
        (AlertName::SplitView, "a view", "x"),
        (AlertName::StateFull, "", "x"),
        (AlertName::ReceiptFork, "a", "x"),
    ];
    settle(&mut book, &worse, &[], NOW);
    assert!(worse.iter().all(|(name, subject, _)| book.is_open(*name, subject)));
    assert_eq!(book.n_dropped(), 0);
    settle(&mut book, &[(AlertName::ReceiptGap, "a", "x")], &[], NOW);
    assert_eq!(book.n_dropped(), 1);
    // What is over makes room for what is new, within one check.
    let promises: Vec<_> = subjects.iter().map(|subject| (AlertName::PromiseBroken, subject.as_str(), "x")).collect();
    settle(&mut book, &promises[1..], &[], NOW);
    assert_eq!(book.n_dropped(), 1);
    settle(&mut book, &[(AlertName::PromiseBroken, "new", "x")], &[AlertName::PromiseBroken], LATER);
    assert!(book.is_open(AlertName::PromiseBroken, "new") && book.n_dropped() == 1);
}

#[test]
fn a_condition_with_many_details_is_as_quiet_as_one_with_few() {
    let mut book = AlertBook::default();
    let texts: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let details = |of: &[usize]| of.iter().map(|n| (AlertName::ReceiptGap, "a", texts[*n].as_str())).collect::<Vec<_>>();
    settle(&mut book, &details(&[0, 1, 2, 3, 4, 5, 6, 7]), &[], NOW);
    // One changed, which is news once.
    let changed = details(&[0, 1, 2, 3, 4, 5, 6, 8]);
    settle(&mut book, &changed, &[], NOW);
    assert!(book.acknowledge("receipt_gap/a", NOW));
    for _ in 0..3 {
        settle(&mut book, &changed, &[], LATER);
        assert!(!book.open()[0].counts());
    }
    settle(&mut book, &details(&[0, 1, 2, 3, 4, 5, 6, 7]), &[], LATER);
    assert!(book.open()[0].counts());
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
    assert!(state.wait_for("a", Ahead { note, since: NOW }));
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

/// A log that took the key of another log of its name on.
fn policy_of(logs: [&TestLog; 2]) -> Policy {
    let lines: String = logs.map(|log| format!("log {}\n", log.vkey())).concat();
    Policy::parse(format!("{lines}quorum none\n").as_bytes()).expect("a policy")
}

#[tokio::test]
async fn a_log_with_two_keys_is_one_log() {
    let (old, new) = (TestLog::open(3).await, TestLog::open(4).await);
    let policy = policy_of([&old, &new]);
    for log in [&old, &new] {
        let state = full_state(log, &[b"one"]).await.to_bytes().unwrap();
        State::parse(&state, &policy).unwrap();
        let proof = log.append(b"mine").await;
        for entry in [Some(b"mine".as_slice()), None] {
            Promise::of_proof(proof.as_bytes(), entry, &policy).unwrap();
        }
    }
}

#[tokio::test]
async fn a_promise_binds_the_log_that_made_it() {
    let World { log, bundle, .. } = World::new().await;
    let other = TestLog::open_named("other.example", 5).await;
    let policy = policy_of([&log, &other]);
    let unlogged = fanlight_protocol::bundle::ReceiptBundle { logged: false, tlog_proof: None, ..bundle };
    let promises = Promise::of_bundle(&unlogged, &policy).unwrap();
    assert_eq!(Promise::of_origin(promises.clone(), "log.example/test"), promises);
    // The receipt will be in the log of its statement, and in no other.
    assert_eq!(Promise::of_origin(promises, "other.example"), []);
    let theirs = Promise::of_proof(other.append(b"x").await.as_bytes(), Some(b"x"), &policy).unwrap();
    assert_eq!(Promise::of_origin(vec![theirs], "log.example/test"), []);
    // A bare entry says nothing of where it was handed in; it is expected of the log that is followed.
    let bare = vec![Promise::of_entry(b"x")];
    assert_eq!(Promise::of_origin(bare.clone(), "other.example"), bare);
}

#[test]
fn what_is_ahead_waits_by_tree_and_not_without_end() {
    let ahead = |size: u64, root: u8| {
        let (root, signature) = (Hash::new([root; 32]), "— x y");
        Ahead { note: format!("log.example\n{size}\n{root}\n\n{signature}\n"), since: NOW }
    };
    let mut state = State::new(NOW);
    // Two trees of one holder are two, although of one size; a cosignature more makes no other tree.
    assert!(state.wait_for("a", ahead(5, 1)) && state.wait_for("a", ahead(5, 2)) && state.wait_for("b", ahead(9, 1)));
    let again = Ahead { note: ahead(5, 1).note + "— z z\n", since: LATER };
    assert!(state.wait_for("a", again));
    assert_eq!(state.ahead()["a"], [ahead(5, 1), ahead(5, 2)]);
    assert_eq!(state.due(4), []);
    assert_eq!(state.due(5), [("a".to_owned(), ahead(5, 1)), ("a".to_owned(), ahead(5, 2))]);
    assert_eq!(state.ahead().keys().collect::<Vec<_>>(), ["b"]);
    for size in 0..MAX_AHEAD as u64 {
        assert!(state.wait_for("a", ahead(size, 1)));
    }
    assert!(!state.wait_for("a", ahead(1_000, 1)) && state.wait_for("b", ahead(1_000, 1)));
}

#[test]
fn what_was_compared_as_it_came_is_not_searched_again() {
    let mut state = State::new(NOW);
    let expected = Expected { leaf: leaf_hash(b"x"), since: NOW, searched: 0, found: None };
    state.take(b"before", &Limits::BOUNDED, NOW);
    state.expect(BTreeMap::from([("x".to_owned(), expected)]));
    // It came after the first entry.
    state.take(b"new", &Limits::BOUNDED, NOW);
    state.searched_from(1);
    assert!(state.is_unsearched());
    state.searched();
    assert!(!state.is_unsearched());
    state.take(b"newer", &Limits::BOUNDED, NOW);
    state.searched_from(2);
    assert!(!state.is_unsearched());
}

#[test]
fn long_looks_back_are_rare() {
    let mut state = State::new(NOW);
    let (short, long) = (1_000_000..1_065_536, 0..65_537);
    for range in [&short, &long] {
        assert!(state.may_search(range, NOW));
        state.note_search(range, NOW);
    }
    assert!(state.may_search(&short, LATER) && !state.may_search(&long, LATER));
    assert!(state.may_search(&long, UnixTime::from_secs(NOW.as_secs() + 3_600)));
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
    assert_eq!(of_proof(&forged, Some(b"mine")), Err(PromiseError::NotSigned));
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
    assert_eq!(seen.len(), 8);
    let more = "and 5 more, the last of them: receipt number 22 is missing: withheld, or not logged yet";
    assert_eq!(seen[7].detail, more);
    assert_eq!(state.standing(0, LATER), seen);
    // An acknowledged gap does not hide those that come later.
    let looked_for = |_: &Alert| true;
    state.alerts.settle(seen.clone(), looked_for, LATER);
    assert!(state.alerts.acknowledge(&state.alerts.open()[0].id(), LATER));
    state.alerts.settle(seen, looked_for, LATER);
    assert!(!state.alerts.open()[0].counts());
    last = provider.receipt(&statement, &world::details(), Some(&last));
    state.take(last.bytes(), &Limits::BOUNDED, NOW);
    let standing = state.standing(0, LATER);
    state.alerts.settle(standing, looked_for, LATER);
    assert!(state.alerts.open()[0].counts());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[ -~]{0,80}") {
        let policy = Policy::parse(b"quorum none").unwrap();
        State::parse(&bytes, &policy).unwrap_err();
        let sum = fanlight_protocol::Digest::of(json.as_bytes());
        let summed = format!("fanlight-verify monitor state v1 {sum}\n{json}");
        State::parse(summed.as_bytes(), &policy).unwrap_err();
    }
}
