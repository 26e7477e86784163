//! What others hold: mirrors, witnesses, and whoever was promised something.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fanlight_auditlog::TlogProof;
use fanlight_protocol::Digest;
use fanlight_verifier::monitor::MAX_OPEN;
use futures_util::future::join_all;

use crate::world::{TestLog, World};
use crate::{Monitor, Served, evidence, ids, text, write};

/// As if the file had been there for an hour.
#[expect(clippy::disallowed_methods, reason = "the command under test reads the clock as well")]
fn age(path: &Path) {
    let file = File::options().write(true).open(path).expect("a file opens");
    file.set_modified(SystemTime::now() - Duration::from_hours(1)).expect("its time is set");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_views_of_the_log() {
    let log = TestLog::open(1).await;
    log.append(b"first").await;
    let (served, mirror) = (Served::of(&log).await, Served::of(&log).await);
    // A witness has a checkpoint under the hash of the origin, and no tiles.
    let witness = Served::start().await;
    let monitored = format!("{}/checkpoint", Digest::of(b"log.example/test"));
    witness.set(&monitored, log.checkpoint());
    let (mirror_url, witness_url) = (mirror.url(), witness.url());
    let options = ["--also", &mirror_url, "--witness-url", &witness_url, "--max-merge-delay", "0s"];
    let monitor = Monitor::of(&log).with(&options);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["compared"]), (0, &2.into()), "{value}");
    // Others may be behind.
    log.append(b"second").await;
    served.publish(&log);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["compared"]), (0, &2.into()));

    // They are ahead for longer than is allowed, here not at all.
    log.append(b"third").await;
    witness.set(&monitored, log.checkpoint());
    let held = format!("checkpoint_withheld/{witness_url}/{}", Digest::of(b"log.example/test"));
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value)), (1, vec![held]), "{value}");
    assert_eq!(evidence(&value)["checkpoints"][1]["note"], log.checkpoint());
    assert_eq!(monitor.run_with(&served.url(), &["--ignore", "checkpoint_withheld"]).0, 0);
    served.publish(&log);
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));

    // A mirror of another tree: smaller, larger, or of the same size.
    for n in [1, 3, 5] {
        let fork = TestLog::open(1).await;
        for n in 0..n {
            fork.append(&[n]).await;
        }
        let other = Served::of(&fork).await;
        let url = other.url();
        let monitor = Monitor::of(&log).with(&["--also", &url]);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (1, vec![format!("split_view/{url}")]), "{n}: {value}");
        assert_eq!(evidence(&value)["checkpoints"].as_array().unwrap().len(), 2);
        // The log as it is shown here was read all the same.
        assert_eq!((&value["checked_entries"], &value["complete"]), (&3.into(), &true.into()));
    }
    // The larger tree of one without tiles waits until the log shows as much.
    let fork = TestLog::open(1).await;
    for n in 0..4 {
        fork.append(&[n]).await;
    }
    witness.set(&monitored, fork.checkpoint());
    let monitor = Monitor::of(&log).with(&["--witness-url", &witness_url]);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, value["ahead"].as_array().unwrap().len()), (0, 1));
    log.append(b"fourth").await;
    served.publish(&log);
    // Even if the witness has gone by then.
    std::fs::remove_file(witness.path(&monitored)).unwrap();
    let (code, value) = monitor.run(&served.url());
    let alerts = ids(&value);
    assert!(code == 1 && alerts[0].starts_with("split_view/") && alerts[1].starts_with("unreadable/"), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_not_readable_leave_the_log_checked() {
    let log = TestLog::open(1).await;
    let served = Served::of(&log).await;
    let broken = served.server.url("/broken");
    let monitor = Monitor::of(&log).with(&["--also", &broken]);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value), &value["complete"]), (2, vec![format!("unreadable/{broken}")], &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_that_are_kept() {
    let World { log, bundle, receipt, .. } = World::new().await;
    let store = text(log.dir.path());
    let held = tempfile::tempdir().unwrap();
    write(&held.path().join("receipts/1.json"), serde_json::to_vec(&bundle).unwrap());
    let proof = log.append(b"mine").await;
    write(&held.path().join("mine.tlog-proof"), &proof);
    write(&held.path().join("mine"), b"mine");
    write(&held.path().join("r.entry"), receipt.bytes());
    write(&held.path().join("policy"), "what does not promise anything is not read");
    let monitor = Monitor::of(&log).with(&["--expect", text(held.path()), "--max-merge-delay", "0s"]);
    let (code, value) = monitor.run(store);
    assert_eq!((code, ids(&value), &value["unusable"]), (0, vec![], &serde_json::json!([])), "{value}");
    assert_eq!(value["expected"], serde_json::json!({ "entries": 1, "missing": [] }));
    assert!(value["compared"].as_u64().unwrap() >= 2, "{value}");
    // One that was there before anybody waited for it is found as well.
    write(&held.path().join("s.entry"), b"before");
    assert_eq!(monitor.run(store).1["expected"]["entries"], 2);
    assert_eq!(monitor.run(store).0, 0);

    // What promises nothing cannot be checked, and is not passed over.
    write(&held.path().join("broken.json"), "{}");
    write(&held.path().join("other.tlog-proof"), proof.replace("index 4", "index 3"));
    write(&held.path().join("other"), b"mine");
    let (code, value) = monitor.run(store);
    assert_eq!((code, value["unusable"].as_array().unwrap().len(), &value["complete"]), (2, 2, &false.into()), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_broken() {
    let log = TestLog::open(1).await;
    log.append(b"other").await;
    let store = text(log.dir.path());
    let held = tempfile::tempdir().unwrap();
    let file = held.path().join("mine.entry");
    write(&file, b"mine");
    age(&file);
    let expect = text(&file);
    // There is time left; then there is not.
    let monitor = Monitor::of(&log).with(&["--expect", expect]);
    let (code, value) = monitor.run_with(store, &["--max-merge-delay", "2h"]);
    assert_eq!((code, ids(&value), &value["expected"]["missing"][0]), (0, vec![], &expect.into()), "{value}");
    let (code, value) = monitor.run_with(store, &["--max-merge-delay", "30m"]);
    assert_eq!((code, ids(&value)), (1, vec![format!("promise_broken/{expect}")]));
    log.append(b"mine").await;
    let (code, value) = monitor.run_with(store, &["--max-merge-delay", "30m"]);
    assert_eq!((code, ids(&value), &value["closed"][0]["alert"]), (0, vec![], &"promise_broken".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_another_tree_is_evidence() {
    let (log, fork) = (TestLog::open(1).await, TestLog::open(1).await);
    log.append(b"theirs").await;
    let proof = fork.append(b"mine").await;
    let held = tempfile::tempdir().unwrap();
    let file = held.path().join("mine.tlog-proof");
    write(&file, &proof);
    write(&held.path().join("mine"), b"mine");
    let monitor = Monitor::of(&log).with(&["--expect", text(held.path())]);
    let (code, value) = monitor.run(text(log.dir.path()));
    assert_eq!((code, ids(&value)), (1, vec![format!("split_view/{}", text(&file))]), "{value}");
    let signed = TlogProof::parse(proof.as_bytes()).unwrap();
    assert_eq!(evidence(&value)["checkpoints"][1]["note"], signed.checkpoint());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_another_log_says_nothing() {
    let (log, other) = (TestLog::open(1).await, TestLog::open_named("other.example", 2).await);
    log.append(b"ours").await;
    let proof = other.append(b"theirs").await;
    let held = tempfile::tempdir().unwrap();
    write(&held.path().join("theirs.tlog-proof"), &proof);
    write(&held.path().join("theirs"), b"theirs");
    let policy = held.path().join("policy");
    write(&policy, format!("log {}\nlog {}\nquorum none\n", log.vkey(), other.vkey()));
    let monitor = Monitor::of(&log).with(&["--policy", text(&policy), "--expect", text(held.path())]);
    let (code, value) = monitor.run(text(log.dir.path()));
    assert_eq!((code, ids(&value), &value["compared"]), (0, vec![], &0.into()), "{value}");
    // It is held against the log that made it.
    let monitor = Monitor::of(&other).with(&["--policy", text(&policy), "--expect", text(held.path())]);
    assert_eq!(monitor.run(text(other.dir.path())).1["compared"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_broken_promises_does_not_hide_a_fork() {
    let (log, fork) = (TestLog::open(1).await, TestLog::open(1).await);
    log.append(b"ours").await;
    fork.append(b"theirs").await;
    let held = tempfile::tempdir().unwrap();
    for n in 0..=MAX_OPEN {
        write(&held.path().join(format!("{n}.entry")), n.to_string());
    }
    let store = text(log.dir.path());
    let monitor = Monitor::of(&log).with(&["--expect", text(held.path()), "--max-merge-delay", "0s"]);
    let alerts =
        |value: &serde_json::Value| ids(value).into_iter().filter(|id| !id.starts_with("promise_broken/")).collect::<Vec<_>>();
    let (code, value) = monitor.run(store);
    assert_eq!((code, alerts(&value)), (1, vec!["state_full".to_owned()]));
    let view = text(fork.dir.path());
    let (code, value) = monitor.run_with(store, &["--also", view]);
    assert_eq!((code, alerts(&value)), (1, vec![format!("split_view/{view}"), "state_full".to_owned()]));
    assert_eq!(ids(&value).len(), MAX_OPEN + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_gone_hides_nothing_of_another() {
    let (log, fork) = (TestLog::open(1).await, TestLog::open(1).await);
    log.append(b"ours").await;
    fork.append(b"theirs").await;
    let (store, view) = (text(log.dir.path()), text(fork.dir.path()));
    let monitor = Monitor::of(&log);
    let (code, value) = monitor.run_with(store, &["--also", "/nowhere", "--also", view, "--expect", "/nowhere/either"]);
    let expected = vec![format!("split_view/{view}"), "unreadable//nowhere".to_owned()];
    assert_eq!((code, ids(&value), value["unusable"].as_array().unwrap().len()), (1, expected, 1), "{value}");
    assert_eq!(monitor.alerts(store), (1, vec![format!("split_view/{view}")]), "it was saved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_is_not_over_because_the_view_is_gone() {
    let log = TestLog::open(1).await;
    log.append(b"one").await;
    let (view, store) = (Served::of(&log).await, text(log.dir.path()));
    let url = view.url();
    let monitor = Monitor::of(&log).with(&["--also", &url]);
    let bad = format!("bad_signature/{url}");
    view.set("checkpoint", "not a note");
    assert_eq!(monitor.alerts(store), (1, vec![bad.clone()]));
    std::fs::remove_file(view.path("checkpoint")).unwrap();
    assert_eq!(monitor.alerts(store), (1, vec![bad, format!("unreadable/{url}")]));
    view.publish(&log);
    assert_eq!(monitor.alerts(store), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_awaited_does_not_make_the_log_be_read_again() {
    let log = TestLog::open(1).await;
    let grow = async |n: std::ops::Range<usize>| {
        let entries: Vec<String> = n.map(|n| n.to_string()).collect();
        join_all(entries.iter().map(|entry| log.append(entry.as_bytes()))).await;
    };
    grow(0..300).await;
    let served = Served::of(&log).await;
    let held = tempfile::tempdir().unwrap();
    write(&held.path().join("mine.entry"), b"mine");
    let monitor = Monitor::of(&log).with(&["--expect", text(held.path())]);
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
    grow(300..310).await;
    log.append(b"mine").await;
    served.publish(&log);
    std::fs::remove_file(served.path("tile/entries/000")).unwrap();
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value), &value["expected"]["missing"]), (0, vec![], &serde_json::json!([])), "{value}");
}
