//! `fsck`, `mirror` and `consistency` on logs that are damaged, forked or behind a hostile server; and their evidence.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod server;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_auditlog::bundle::{parse_bundle, write_entry};
use fanlight_auditlog::proof::verify_consistency;
use fanlight_auditlog::{Hash, VerifiedCheckpoint, leaf_hash};
use serde_json::Value;
use server::Server;
use world::TestLog;

fn run(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
    command.args(args).current_dir(directory).env_remove("FANLIGHT_POLICY").output().expect("the command starts")
}

/// Runs the command with `--json` in a directory of its own: exit status, result, and the evidence that it wrote.
fn json(args: &[&str]) -> (i32, Value, Option<Value>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = run(directory.path(), &[&["--json"], args].concat());
    let code = output.status.code().expect("the command exits");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    let evidence = value["evidence"].as_str().map(|path| {
        let bytes = std::fs::read(directory.path().join(path)).expect("the evidence lies where the result says");
        serde_json::from_slice(&bytes).expect("evidence is JSON")
    });
    assert_eq!(evidence.is_some(), code == 1, "evidence exactly of what is bad: {value}");
    (code, value, evidence)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A log of `n` entries in two checkpoints.
async fn log_of(seed: u8, n: usize) -> TestLog {
    let log = TestLog::open(seed).await;
    log.append(b"first").await;
    let entries: Vec<Vec<u8>> = (1..n).map(|i| format!("entry {i} of {seed}").into_bytes()).collect();
    futures_util::future::join_all(entries.iter().map(|entry| log.append(entry))).await;
    log
}

fn damage(log: &TestLog, key: &str) {
    let path = log.dir.path().join(key);
    let mut bytes = std::fs::read(&path).expect("the object is there");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::remove_file(&path).expect("it is a file");
    std::fs::write(path, bytes).expect("it is written");
}

/// Replaces the first entry, with its leaf. Returns the files as they were.
fn replace_first_entry(log: &TestLog) -> [(PathBuf, Vec<u8>); 2] {
    let [bundle, tile] = ["tile/entries/000", "tile/0/000"].map(|key| {
        let path = log.dir.path().join(key);
        let bytes = std::fs::read(&path).expect("the object is there");
        (path, bytes)
    });
    let entries = parse_bundle(&bundle.1.clone().into()).expect("a bundle");
    let mut forged = Vec::new();
    write_entry(&mut forged, b"forged").expect("a short entry");
    entries[1..].iter().for_each(|entry| write_entry(&mut forged, entry).expect("it came out of a bundle"));
    let leaf = leaf_hash(b"forged");
    let forged_tile = [leaf.as_bytes(), &tile.1[32..]].concat();
    for (path, bytes) in [(&bundle.0, forged), (&tile.0, forged_tile)] {
        std::fs::write(path, bytes).expect("it is written");
    }
    [bundle, tile]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_damage_is_named_and_kept() {
    let log = log_of(1, 600).await;
    let (store, vkey) = (text(log.dir.path()), log.vkey());
    let (code, value, _) = json(&["fsck", store, "--log-key", &vkey, "--threads", "2"]);
    assert_eq!((code, &value["n_damaged"]), (0, &0.into()));

    damage(&log, "tile/entries/001");
    damage(&log, "tile/0/000");
    let (code, value, evidence) = json(&["fsck", store, "--log-key", &vkey]);
    let evidence = evidence.unwrap();
    assert_eq!((code, &value["n_damaged"]), (1, &2.into()));
    assert_eq!(value["error"], "2 objects of log.example/test damaged");
    for found in [&value["damage"], &evidence["objects"]] {
        assert_eq!((&found[0]["path"], &found[1]["path"]), (&"tile/0/000".into(), &"tile/entries/001".into()));
        assert_ne!(found[0]["expected"], found[0]["got"]);
    }
    let entry = STANDARD.decode(evidence["objects"][1]["bytes"].as_str().unwrap()).unwrap();
    assert_eq!(leaf_hash(&entry).to_string(), evidence["objects"][1]["got"]);
    assert_eq!((&evidence["finding"], &evidence["checkpoints"][0]["note"]), (&"damage".into(), &log.checkpoint().into()));

    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["fsck", store, "--log-key", &vkey, "--evidence", "mine.json"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    for part in [
        "BAD: 2 objects of log.example/test damaged",
        "damaged     tile/entries/001 entry 511 has another leaf hash than the tree",
        "damaged     tile/0/000 hash 255 is not the one that the entries make",
        "evidence    mine.json",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert!(directory.path().join("mine.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_file() {
    let log = log_of(1, 600).await;
    let directory = tempfile::tempdir().unwrap();
    let (store, vkey) = (text(log.dir.path()), log.vkey());
    let file = directory.path().join("resume");
    let args = ["fsck", store, "--log-key", &vkey, "--resume", text(&file)];
    let (_, whole, _) = json(&args);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("fanlight-fsck-resume v1\n512 "));
    let (code, mut resumed, _) = json(&args);
    assert_eq!((code, std::mem::replace(&mut resumed["n_resumed"], 0.into())), (0, 512.into()));
    assert_eq!(resumed, whole);
    let shown = String::from_utf8(run(directory.path(), &args).stdout).unwrap();
    assert!(shown.contains("resumed     at entry 512"), "{shown}");

    // The log goes back behind what was checked, with a checkpoint of its own.
    let smaller = log_of(1, 300).await;
    let (code, value, evidence) = json(&["fsck", text(smaller.dir.path()), "--log-key", &vkey, "--resume", text(&file)]);
    assert_eq!((code, &value["finding"]), (1, &"rollback".into()));
    assert_eq!(evidence.unwrap()["checkpoints"].as_array().unwrap().len(), 2);
    let other = TestLog::open_named("other.example/log", 1).await;
    let (code, value, _) = json(&["fsck", text(other.dir.path()), "--log-key", &other.vkey(), "--resume", text(&file)]);
    assert!(code == 2 && value["error"].as_str().unwrap().contains("give another --resume FILE"), "{value}");

    // A bundle and its tile are replaced together, which only the tile above shows, when all is read.
    std::fs::remove_file(&file).unwrap();
    let good = replace_first_entry(&log);
    let (code, value, _) = json(&args);
    assert_eq!((code, &value["n_damaged"]), (1, &2.into()));
    for (path, bytes) in good {
        std::fs::write(path, bytes).unwrap();
    }
    let (code, value, _) = json(&args);
    assert_eq!((code, &value["n_resumed"]), (0, &0.into()), "{value}");

    std::fs::write(&file, "nonsense").unwrap();
    let (code, value, _) = json(&args);
    assert!(code == 2 && value["error"].as_str().unwrap().contains("remove it to check from the start"), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_proven_by_its_evidence_alone() {
    let (log, directory) = (log_of(1, 5).await, tempfile::tempdir().unwrap());
    let old = directory.path().join("old");
    std::fs::write(&old, log.checkpoint()).unwrap();
    let fork = TestLog::open(1).await;
    for n in 0..9_u8 {
        fork.append(&[n]).await;
    }
    let (code, value, evidence) = json(&["consistency", text(&old), text(fork.dir.path()), "--log-key", &log.vkey()]);
    assert_eq!((code, &value["finding"]), (1, &"fork".into()));
    // From here on, only the evidence.
    assert_eq!(proven_fork(&evidence.unwrap(), &log.vkey()), (5, 9));

    // The other way round the log shrank.
    let newer = directory.path().join("newer");
    std::fs::write(&newer, fork.checkpoint()).unwrap();
    let (code, value, evidence) = json(&["consistency", text(&newer), text(log.dir.path()), "--log-key", &log.vkey()]);
    assert_eq!((code, &value["finding"], &evidence.unwrap()["finding"]), (1, &"rollback".into(), &"rollback".into()));
}

/// An old checkpoint of an honest log says nothing against it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_checkpoint_is_no_accusation() {
    let (log, directory) = (log_of(1, 300).await, tempfile::tempdir().unwrap());
    let vkey = log.vkey();
    std::fs::write(log.dir.path().join("old-checkpoint"), log.checkpoint()).unwrap();
    for n in 0..300_u32 {
        log.append(&n.to_be_bytes()).await;
    }
    let (newer, copy, resume) = (directory.path().join("newer"), directory.path().join("copy"), directory.path().join("resume"));
    std::fs::write(&newer, log.checkpoint()).unwrap();
    let server = Server::start(log.dir.path()).await;
    let check = |prefix: &str| {
        let url = server.url(prefix);
        [
            json(&["consistency", text(&newer), &url, "--log-key", &vkey]),
            json(&["mirror", &url, text(&copy), "--log-key", &vkey]),
            json(&["fsck", &url, "--log-key", &vkey, "--resume", text(&resume)]),
        ]
    };
    // A cache on the way is asked for a fresh one.
    for (code, value, _) in check("/cached") {
        assert_eq!((code, value.get("finding")), (0, None), "{value}");
    }
    for (code, value, _) in check("/replayed") {
        assert_eq!((code, &value["finding"], &value["new_tree_size"]), (2, &"stale".into(), &300.into()), "{value}");
        assert!(value["error"].as_str().unwrap().contains("shows 300 entries, fewer than the 600"), "{value}");
    }
    let shown = run(directory.path(), &["consistency", text(&newer), &server.url("/replayed"), "--log-key", &vkey]);
    assert!(shown.stdout.starts_with(b"NOT CHECKED: "), "{shown:?}");

    // A smaller tree that is not the beginning of the larger one is a fork, which the tiles prove.
    let fork = log_of(1, 2).await;
    fork.append(b"another entry").await;
    std::fs::write(log.dir.path().join("old-checkpoint"), fork.checkpoint()).unwrap();
    for (code, value, evidence) in check("/replayed") {
        assert_eq!((code, &value["finding"]), (1, &"fork".into()), "{value}");
        assert_eq!(proven_fork(&evidence.unwrap(), &vkey), (3, 600));
    }
}

/// Checks the evidence of a fork by itself. Returns the two sizes.
fn proven_fork(evidence: &Value, vkey: &str) -> (u64, u64) {
    let key = vkey.parse().unwrap();
    let notes = evidence["checkpoints"].as_array().unwrap().iter().map(|checkpoint| checkpoint["note"].as_str().unwrap());
    let mut trees: Vec<_> = notes.map(|note| VerifiedCheckpoint::verify(note.as_bytes(), &key).unwrap()).collect();
    trees.sort_by_key(VerifiedCheckpoint::tree_size);
    let [smaller, larger] = &trees[..] else { panic!("two checkpoints in {evidence}") };
    let hash = |value: &Value| Hash::parse_base64(value.as_str().unwrap()).unwrap();
    let proof: Vec<Hash> = evidence["consistency_proof"]["hashes"].as_array().unwrap().iter().map(hash).collect();
    let old_root = hash(&evidence["consistency_proof"]["old_root"]);
    verify_consistency(smaller.tree_size(), old_root, larger.tree_size(), larger.root_hash(), &proof).unwrap();
    assert_eq!(evidence["consistency_proof"]["old_size"], smaller.tree_size());
    assert_ne!(old_root, smaller.root_hash(), "two trees of the same size, both the log's own");
    (smaller.tree_size(), larger.tree_size())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_a_growing_log() {
    let (log, directory) = (log_of(1, 300).await, tempfile::tempdir().unwrap());
    let server = Server::start(log.dir.path()).await;
    let copy = directory.path().join("copy");
    let (url, vkey, copy) = (server.url("/log"), log.vkey(), text(&copy));
    let (code, value, _) = json(&["mirror", &url, copy, "--log-key", &vkey]);
    assert_eq!((code, &value["tree_size"], &value["old_tree_size"]), (0, &300.into(), &0.into()), "{value}");
    assert_eq!(json(&["fsck", copy, "--log-key", &vkey]).0, 0);
    log.append(b"one more").await;
    let (code, value, _) = json(&["mirror", &url, copy, "--log-key", &vkey]);
    assert_eq!((code, &value["tree_size"], &value["old_tree_size"]), (0, &301.into(), &300.into()), "{value}");
    assert_eq!(json(&["fsck", copy, "--log-key", &vkey]).0, 0);
    let shown = String::from_utf8(run(directory.path(), &["mirror", &url, copy, "--log-key", &vkey]).stdout).unwrap();
    assert!(shown.contains("is a copy of log.example/test") && shown.contains("written     0 objects"), "{shown}");
    assert!(shown.contains(&format!("not read    what was there before; `fanlight-verify fsck {copy}` checks it")), "{shown}");

    // A source that forked, shrank or is damaged leaves the copy as it is.
    let before = std::fs::read(Path::new(copy).join("checkpoint")).unwrap();
    let fork = log_of(1, 200).await;
    let (code, value, evidence) = json(&["mirror", text(fork.dir.path()), copy, "--log-key", &vkey]);
    assert_eq!((code, &value["finding"]), (1, &"rollback".into()));
    assert_eq!(evidence.unwrap()["checkpoints"][0]["role"], "held by the copy");
    for n in 0..200_u8 {
        fork.append(&[n, n]).await;
    }
    let (code, value, _) = json(&["mirror", text(fork.dir.path()), copy, "--log-key", &vkey]);
    assert_eq!((code, &value["finding"]), (1, &"fork".into()));
    log.append(b"and another").await;
    damage(&log, "tile/entries/001.p/46");
    let (code, _, evidence) = json(&["mirror", &url, copy, "--log-key", &vkey]);
    assert_eq!((code, &evidence.unwrap()["objects"][0]["path"]), (1, &"tile/entries/001.p/46".into()));
    assert_eq!(std::fs::read(Path::new(copy).join("checkpoint")).unwrap(), before);
    assert_eq!(json(&["fsck", copy, "--log-key", &vkey]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_odd_or_hostile() {
    let log = log_of(1, 300).await;
    let server = Server::start(log.dir.path()).await;
    let vkey = log.vkey();
    let fsck = |prefix: &str| json(&["fsck", &server.url(prefix), "--log-key", &vkey]);
    for prefix in ["/log", "/gzip", "/slow", "/flaky", "/moved"] {
        let (code, value, _) = fsck(prefix);
        assert_eq!((code, &value["tree_size"]), (0, &300.into()), "{prefix}: {value}");
    }
    for (prefix, error) in [
        ("/html", "not a signed note"),
        ("/endless", "note too long"),
        ("/forever", "note too long"),
        ("/bomb", "2 objects of log.example/test damaged"),
        ("/no-tiles", "5 objects of log.example/test damaged"),
        ("/swapped", "damaged"),
    ] {
        let (code, value, _) = fsck(prefix);
        assert!(code == 1 && value["error"].as_str().unwrap().contains(error), "{prefix}: {value}");
    }
    let (code, value, _) = fsck("/busy");
    assert!(code == 2 && value["error"].as_str().unwrap().contains("429"), "{value}");
    // The same servers, and a copy: nothing of it arrives.
    for prefix in ["/bomb", "/no-tiles", "/swapped", "/html"] {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let (code, value, _) = json(&["mirror", &server.url(prefix), text(&copy), "--log-key", &vkey]);
        assert_eq!((code, copy.join("checkpoint").exists()), (1, false), "{prefix}: {value}");
    }
}
