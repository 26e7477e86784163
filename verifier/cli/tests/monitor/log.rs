//! What a log itself can do wrong.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::{Checkpoint, CosignerKey, Hash};
use futures_util::future::join_all;
use serde_json::Value;

use crate::world::TestLog;
use crate::{Monitor, Served, evidence, ids, text};

/// A log of `n` entries; `name` tells it from others under the same key.
async fn log_of(n: usize, name: &str) -> TestLog {
    let log = TestLog::open(1).await;
    grow(&log, 0..n, name).await;
    log
}

async fn grow(log: &TestLog, entries: std::ops::Range<usize>, name: &str) {
    let entries: Vec<String> = entries.map(|n| format!("{name} {n}")).collect();
    join_all(entries.iter().map(|entry| log.append(entry.as_bytes()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_read() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["new_entries"], &value["tree_size"]), (0, &3.into(), &3.into()), "{value}");
    assert_eq!((&value["entries"]["foreign"], &value["complete"]), (&3.into(), &true.into()));
    // The same again; then more, of which the bundle that was read before is not needed.
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["new_entries"], &value["checked_entries"]), (0, &0.into(), &3.into()));
    grow(&log, 3..270, "a").await;
    served.publish(&log);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["new_entries"], &value["checked_entries"]), (0, &267.into(), &270.into()));
    grow(&log, 270..275, "a").await;
    served.publish(&log);
    fs::remove_file(served.path("tile/entries/000")).unwrap();
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["new_entries"], &value["tree_size"]), (0, &5.into(), &275.into()));
    // A directory does as well as a server.
    let (code, value) = monitor.run(text(log.dir.path()));
    assert_eq!((code, &value["new_entries"]), (0, &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_entries() {
    let log = log_of(0, "").await;
    let monitor = Monitor::of(&log);
    for _ in 0..2 {
        let (code, value) = monitor.run(text(log.dir.path()));
        assert_eq!((code, &value["tree_size"]), (0, &0.into()));
    }
    grow(&log, 0..1, "a").await;
    assert_eq!(monitor.run(text(log.dir.path())).1["new_entries"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback() {
    let log = log_of(3, "a").await;
    let old = Served::of(&log).await;
    grow(&log, 3..5, "a").await;
    let new = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    assert_eq!(monitor.alerts(&new.url()), (0, vec![]));
    // Without the tiles of the larger tree nothing shows that the smaller one is its beginning.
    let (code, value) = monitor.run(&old.url());
    assert_eq!((code, ids(&value)), (1, vec!["rollback".to_owned()]), "{value}");
    assert_eq!(value["alerts"][0]["details"][0], "the log showed 5 entries before and shows 3 now");
    let proof = evidence(&value);
    assert_eq!((&proof["finding"], proof["checkpoints"].as_array().unwrap().len()), (&"rollback".into(), 2));
    assert_eq!(proof["checkpoints"][1]["note"], log.checkpoint());
    // What was seen stays seen, and the same evidence is kept once.
    assert_eq!(evidence(&monitor.run(&old.url()).1), proof);
    // Once the log is itself again, and the smaller tree turns out to be its beginning, the alert closes.
    let (code, value) = monitor.run(&new.url());
    assert_eq!((code, ids(&value)), (0, vec![]));
    assert_eq!((&value["closed"][0]["alert"], &value["closed"][0]["state"]), (&"rollback".into(), &"closed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_checkpoint_is_an_alert_once_it_is_old_for_long() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    let old = log.checkpoint();
    grow(&log, 3..5, "a").await;
    served.publish(&log);
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
    // As a cache shows it: the log still has what it had.
    served.set("checkpoint", &old);
    for _ in 0..2 {
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value), &value["complete"]), (0, vec![], &true.into()), "{value}");
        assert_eq!((&value["ahead"], &value["tree_size"]), (&serde_json::json!([served.url()]), &5.into()));
    }
    let (code, value) = monitor.run_with(&served.url(), &["--max-merge-delay", "0s"]);
    assert_eq!((code, ids(&value)), (1, vec!["checkpoint_withheld".to_owned()]), "{value}");
    let notes = evidence(&value)["checkpoints"].clone();
    assert_eq!((&notes[0]["note"], &notes[1]["note"]), (&old.into(), &log.checkpoint().into()));
    served.publish(&log);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value), &value["ahead"]), (0, vec![], &serde_json::json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_tree_can_be_a_fork() {
    for (seen, shown) in [(7, 3), (2, 1), (300, 280), (300, 7), (257, 256)] {
        let (log, fork) = (log_of(seen, "a").await, log_of(shown, "b").await);
        let served = Served::of(&log).await;
        // The tiles of the larger tree are there, and prove it at once.
        let monitor = Monitor::of(&log);
        assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
        served.set("checkpoint", fork.checkpoint());
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (1, vec!["split_view".to_owned()]), "{seen} {shown}: {value}");
        check_fork_evidence(&evidence(&value), [&log.checkpoint(), &fork.checkpoint()]);
        served.publish(&log);
        assert_eq!(monitor.alerts(&served.url()), (1, vec!["split_view".to_owned()]), "what was signed stays signed");
        // They are not, and the smaller tree waits for them.
        let monitor = Monitor::of(&log);
        assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
        served.publish(&fork);
        assert_eq!(monitor.alerts(&served.url()), (1, vec!["rollback".to_owned()]));
        served.publish(&log);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (1, vec!["split_view".to_owned()]), "{seen} {shown}: {value}");
        check_fork_evidence(&evidence(&value), [&log.checkpoint(), &fork.checkpoint()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_changed_its_key() {
    let (old, log) = (TestLog::open(2).await, log_of(3, "a").await);
    let served = Served::of(&log).await;
    let policy = served.path("policy");
    crate::write(&policy, format!("log {}\nlog {}\nquorum none\n", old.vkey(), log.vkey()));
    let monitor = Monitor::of(&log).with(&["--policy", text(&policy)]);
    for n in 3..5 {
        assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
        grow(&log, n..n + 1, "a").await;
        served.publish(&log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn split_view() {
    for (seen, shown) in [(3, 3), (3, 7), (4, 7), (1, 2), (6, 300), (256, 300)] {
        let log = log_of(seen, "a").await;
        let served = Served::of(&log).await;
        let monitor = Monitor::of(&log);
        assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
        let fork = log_of(shown, "b").await;
        served.publish(&fork);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (1, vec!["split_view".to_owned()]), "{seen} {shown}: {value}");
        assert_eq!((&value["checked_entries"], &value["complete"]), (&seen.into(), &false.into()));
        check_fork_evidence(&evidence(&value), [&log.checkpoint(), &fork.checkpoint()]);
        // What was signed stays signed, even if the log shows the first tree again.
        served.publish(&log);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (1, vec!["split_view".to_owned()]));
        let (code, value) = monitor.run_with(&served.url(), &["--acknowledge", "split_view"]);
        assert_eq!((code, ids(&value), &value["closed"][0]["alert"]), (0, vec![], &"split_view".into()));
        grow(&log, seen..seen + 2, "a").await;
        served.publish(&log);
        assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
    }
}

/// Evidence alone must prove the fork to somebody who never saw the log.
fn check_fork_evidence(evidence: &Value, notes: [&str; 2]) {
    let checkpoints: Vec<&str> = evidence["checkpoints"]
        .as_array()
        .expect("evidence is complete")
        .iter()
        .map(|checkpoint| checkpoint["note"].as_str().expect("evidence is complete"))
        .collect();
    assert!(notes.iter().all(|note| checkpoints.contains(note)), "{evidence}");
    let parse = |note: &str| {
        Checkpoint::parse(&format!("{}\n", note.split_once("\n\n").expect("evidence is complete").0))
            .expect("evidence is complete")
    };
    let [shown, seen] = [parse(checkpoints[0]), parse(checkpoints[1])];
    if seen.tree_size() == shown.tree_size() {
        assert_ne!(seen.root_hash(), shown.root_hash());
        return;
    }
    let proof = &evidence["consistency_proof"];
    let hash = |value: &Value| Hash::parse_base64(value.as_str().expect("evidence is complete")).expect("evidence is complete");
    let hashes: Vec<Hash> = proof["hashes"].as_array().expect("evidence is complete").iter().map(hash).collect();
    let (old_size, old_root) = (proof["old_size"].as_u64().expect("evidence is complete"), hash(&proof["old_root"]));
    verify_consistency(old_size, old_root, shown.tree_size(), shown.root_hash(), &hashes).expect("evidence is complete");
    assert_eq!(old_size, seen.tree_size());
    assert_ne!(old_root, seen.root_hash(), "the shown tree has another root for the size that was seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
    grow(&log, 3..6, "a").await;
    for name in ["tile/entries/000.p/6", "tile/0/000.p/6"] {
        served.publish(&log);
        let good = fs::read(served.path(name)).unwrap();
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        for bad in [Some(bytes.as_slice()), Some(&good[1..]), None] {
            match bad {
                Some(bytes) => served.set(name, bytes),
                None => fs::remove_file(served.path(name)).unwrap(),
            }
            let (code, value) = monitor.run(&served.url());
            assert_eq!((code, ids(&value)), (1, vec!["damaged".to_owned()]), "{name}: {value}");
            assert_eq!(value["checked_entries"], 3);
        }
    }
    // The entries that are new are good; that old ones are not is for fsck to say.
    served.publish(&log);
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value), &value["checked_entries"]), (0, vec![], &6.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_failure_is_not_read_again() {
    let log = log_of(600, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    fs::remove_file(served.path("tile/entries/001")).unwrap();
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["checked_entries"], &value["tree_size"]), (1, &256.into(), &600.into()), "{value}");
    // The checkpoint was seen, so that from here on it binds, although not all under it was read.
    let fork = log_of(600, "b").await;
    served.publish(&fork);
    assert_eq!(monitor.alerts(&served.url()), (1, vec!["split_view".to_owned(), "damaged".to_owned()]));
    grow(&log, 600..610, "a").await;
    served.publish(&log);
    fs::remove_file(served.path("tile/entries/000")).unwrap();
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, &value["new_entries"], &value["checked_entries"]), (1, &354.into(), &610.into()), "{value}");
    assert_eq!(ids(&value), ["split_view"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_signature() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    // From the first look on.
    let stranger = TestLog::open(2).await;
    assert_eq!(Monitor::of(&stranger).alerts(&served.url()), (1, vec!["bad_signature".to_owned()]));
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
    let tampered = log.checkpoint().replacen("\n3\n", "\n4\n", 1);
    for note in [tampered.as_str(), "", "not a note", stranger.checkpoint().as_str()] {
        served.set("checkpoint", note);
        assert_eq!(monitor.alerts(&served.url()), (1, vec!["bad_signature".to_owned()]), "{note}");
    }
    served.publish(&log);
    assert_eq!(monitor.alerts(&served.url()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_and_age() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let keys = [1, 2].map(|seed| CosignerKey::ed25519(&format!("witness{seed}.example"), &[seed; 32]).unwrap());
    let [one, two] = keys.each_ref().map(CosignerKey::verifier_key);
    let policy = served.path("policy");
    let text = format!("log {}\nwitness one {one}\nwitness two {two}\ngroup any any one two\nquorum any\n", log.vkey());
    crate::write(&policy, text);
    let monitor = Monitor::of(&log).with(&["--policy", crate::text(&policy), "--max-age", "1h"]);
    #[expect(clippy::disallowed_methods, reason = "the command under test reads the clock as well")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // Cosigned by each witness at its time.
    let cosign = |times: &[(usize, u64)]| {
        let note = log.checkpoint();
        let checkpoint = Checkpoint::parse(&format!("{}\n", note.split_once("\n\n").unwrap().0)).unwrap();
        let line = |(key, time): &(usize, u64)| format!("{}\n", keys[*key].cosign(&checkpoint, *time).unwrap());
        served.set("checkpoint", note + &times.iter().map(line).collect::<Vec<_>>().concat());
    };
    let (fresh, old, ahead) = (now - 60, now - 7_200, now + 7_200);
    let alert = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (times, expected) in [
        (&[(0, fresh)][..], &[][..]),
        (&[], &["quorum_lost", "stale"]),
        // The entries of a log that lost its quorum are read all the same.
        (&[(0, old)], &["stale"]),
        // One of them is enough.
        (&[(0, old), (1, fresh)], &[]),
        (&[(0, ahead)], &["clock_wrong"]),
        (&[(0, fresh), (1, now)], &[]),
    ] {
        cosign(times);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, ids(&value)), (i32::from(!expected.is_empty()), alert(expected)), "{times:?}: {value}");
        assert_eq!((&value["checked_entries"], &value["complete"]), (&3.into(), &true.into()));
    }
    cosign(&[(0, fresh)]);
    assert_eq!(monitor.run(&served.url()).1["cosigned"], fresh);
    // The signature of a witness that the policy names, over something else.
    let forged = log.checkpoint()
        + &format!("{}\n", keys[0].cosign(&Checkpoint::new("other.example", 3, Hash::new([1; 32])), now).unwrap());
    served.set("checkpoint", forged);
    assert_eq!(monitor.alerts(&served.url()), (1, alert(&["bad_signature", "stale"])));

    // With one key and no witness, nothing says how old a checkpoint is, and nothing is said.
    served.publish(&log);
    let (code, value) = Monitor::of(&log).with(&["--max-age", "1s"]).run(&served.url());
    assert_eq!((code, &value["cosigned"]), (0, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable() {
    let log = log_of(3, "a").await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    for prefix in ["/nowhere", "/broken", "/cut"] {
        let (code, value) = monitor.run(&served.server.url(prefix));
        assert_eq!((code, ids(&value)), (2, vec!["unreadable".to_owned()]), "{prefix}: {value}");
    }
    let (code, value) = monitor.run(&served.url());
    assert_eq!((code, ids(&value)), (0, vec![]));
    // What was known to be wrong still is, when nothing can be read.
    served.publish(&log_of(3, "b").await);
    assert_eq!(monitor.run(&served.url()).0, 1);
    assert_eq!(monitor.alerts(&served.server.url("/broken")), (1, vec!["split_view".to_owned(), "unreadable".to_owned()]));
}
