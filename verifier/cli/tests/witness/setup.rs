//! Keys, command lines, start and end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use fanlight_auditlog::note::KeyType;
use fanlight_auditlog::{Checkpoint, CosignerKey, Policy};
use fanlight_protocol::Digest;

use crate::process::{Witness, client, command, init, run, text};
use crate::tree::Tree;

#[test]
fn init_makes_keys_once_and_keeps_them_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("witness");
    let args = ["witness", "init", "--data", text(&data), "--name", "witness.example/w1", "--url", "https://witness.example"];
    let output = run(&args);
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    // The printed lines are a policy as they are.
    let lines: String = shown.lines().filter(|line| line.starts_with("witness ")).map(|line| line.to_owned() + "\n").collect();
    let policy = format!("{lines}group w1 any witness.example/w1/ml-dsa-44 witness.example/w1/ed25519\nquorum w1\n");
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let kinds: Vec<_> = policy.witnesses().map(|(key, url)| (key.name(), key.key_type(), url)).collect();
    let url = Some("https://witness.example");
    assert_eq!(kinds, [("witness.example/w1", KeyType::MlDsa44, url), ("witness.example/w1", KeyType::Cosignature, url)]);

    let keys = data.join("private/witness-keys");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&data.join("private"))), (0o600, 0o700));
    }
    let before = fs::read(&keys).unwrap();
    let again = run(&args);
    assert_eq!((again.status.code(), again.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(again.stderr).unwrap().contains("holds the keys of a witness already"));
    assert_eq!(fs::read(&keys).unwrap(), before);
    for name in ["two words", "plus+", "", &"x".repeat(256)] {
        let output = run(&["witness", "init", "--data", text(&dir.path().join("other")), "--name", name]);
        assert_eq!(output.status.code(), Some(2), "{name:?}");
    }
}

#[test]
fn what_cannot_start_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("witness");
    let log = Tree::new("log.example/test", 1, 0).key().to_string();
    let refused = |args: &[&str], reason: &str| {
        let output = run(&[&["witness", "--listen", "127.0.0.1:0", "--data", text(&data)], args].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    };
    refused(&["--log", &log], "makes a new one");
    assert!(!data.exists(), "a witness without keys leaves nothing behind");
    let vkeys = init(&data, "witness.example/w1");
    refused(&[], "--log");
    refused(&["--log", "nonsense"], "not a verifier key");
    refused(&["--log", &vkeys[1].to_string()], "is the key of a witness, not of a log");
    refused(&["--log", &log, "init", "--data", text(&data), "--name", "x"], "either");
    let policy = dir.path().join("policy");
    fs::write(&policy, "quorum none\n").unwrap();
    refused(&["--logs", text(&policy)], "no log to witness");
    fs::write(&policy, "nonsense\n").unwrap();
    refused(&["--logs", text(&policy)], "is not a tlog-policy");
    fs::write(data.join("private/witness-keys"), "nonsense\n").unwrap();
    refused(&["--log", &log], "holds something else than keys of a witness");
    fs::write(data.join("private/witness-keys"), "").unwrap();
    refused(&["--log", &log], "is empty");
}

#[tokio::test]
async fn one_process_has_the_directory_and_ends_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new("log.example/test", 1, 9);
    init(dir.path(), "witness.example/w1");
    let witness = Witness::start(dir.path(), [&tree.key()]);
    assert_eq!(witness.add(tree.request(0, 5)).await.0, 200);
    let second = ["witness", "--listen", "127.0.0.1:0", "--data", text(dir.path()), "--log", &tree.key().to_string()];
    let output = run(&second);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("holds the lock"));
    assert_eq!(witness.stop(), Some(0));

    // The logs may also stand in a policy.
    let policy = dir.path().join("policy");
    fs::write(&policy, format!("log {}\nquorum none\n", tree.key())).unwrap();
    let witness = Witness::start_with(dir.path(), &["--logs", text(&policy)]);
    assert_eq!(witness.add(tree.request(5, 9)).await.0, 200);
}

/// After a clock that was far ahead nothing is cosigned, and both sides hear what can be done about it.
#[tokio::test]
async fn a_clock_that_was_far_ahead() {
    const REMEDY: &str =
        "set the clock right, or, if it was ahead then, wait until it gets there or make a witness with new keys";
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new("log.example/test", 1, 9);
    init(dir.path(), "witness.example/w1");
    let checkpoint = Checkpoint::parse(&tree.text(5)).unwrap();
    let keys = fs::read_to_string(dir.path().join("private/witness-keys")).unwrap();
    let lines = keys.lines().map(|key| CosignerKey::parse_private_key(key).unwrap().cosign(&checkpoint, 1 << 40).unwrap());
    let record = dir.path().join(Digest::of(tree.origin().as_bytes()).to_string());
    fs::create_dir(&record).unwrap();
    fs::write(record.join("checkpoint"), lines.fold(tree.note(5), |note, line| format!("{note}{line}\n"))).unwrap();

    let log = format!("--log={}", tree.key());
    let mut witness = command(&["--json", "witness", "--listen", "127.0.0.1:0", "--data", text(dir.path()), &log])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(witness.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let url = format!("{}/add-checkpoint", ready["url"].as_str().unwrap());
    let answer = client().post(url).body(tree.request(5, 9)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body = answer.text().await.unwrap();
    assert!(body.contains(REMEDY), "{body}");
    witness.kill().unwrap();
    let stderr = String::from_utf8(witness.wait_with_output().unwrap().stderr).unwrap();
    let (start, request) = stderr.split_once("goes on from what is recorded").unwrap();
    assert!(start.contains(tree.origin()) && start.contains(REMEDY) && request.contains(REMEDY), "{stderr}");
}
