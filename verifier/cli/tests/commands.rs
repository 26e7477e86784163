//! The command on real files and over real HTTP: what it says, and its exit status.

mod server;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::path::Path;
use std::process::{Command, Output};

use fanlight_protocol::Digest;
use fanlight_protocol::bundle::ReceiptBundle;
use serde_json::Value;
use server::Server;
use world::{Identity, TestLog, World, details};

/// Runs the command with `--json`: its exit status and what it printed.
fn json(args: &[&str]) -> (i32, Value) {
    let output = run(&[&["--json"], args].concat());
    let code = output.status.code().expect("the command exits");
    let value: Value = serde_json::from_slice(&output.stdout).expect("standard output is one JSON value");
    assert_eq!(value["command"], args[0]);
    assert_eq!(value["verdict"], ["good", "bad", "unchecked"][usize::try_from(code).expect("not negative")]);
    (code, value)
}

fn run(args: &[&str]) -> Output {
    // Evidence goes to the current directory unless the command line says otherwise.
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
    command.args(args).current_dir(scratch.path()).env_remove("FANLIGHT_POLICY").output().expect("the command starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Writes a file into a directory of its own making and returns its path.
fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory is made");
    std::fs::write(&path, bytes).expect("a file is written");
    text(&path).to_owned()
}

fn write_bundle(directory: &Path, name: &str, bundle: &ReceiptBundle) -> String {
    write(directory, name, serde_json::to_vec(bundle).expect("a bundle is JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_of_a_directory() {
    let World { log, .. } = World::new().await;
    let (store, vkey) = (text(log.dir.path()), log.vkey());
    let (code, value) = json(&["fsck", store, "--log-key", &vkey]);
    assert_eq!((code, &value["tree_size"], &value["origin"]), (0, &4.into(), &"log.example/test".into()));
    let output = run(&["fsck", store, "--log-key", &vkey]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("GOOD: "));
    assert!(output.stderr.is_empty(), "no progress is drawn without a terminal");

    let (code, value) = json(&["fsck", store, "--log-key", &TestLog::open(2).await.vkey()]);
    assert_eq!((code, value["error"].as_str()), (1, Some("not signed by a trusted log")));

    let bundle = log.dir.path().join("tile/entries/000.p/4");
    let mut bytes = std::fs::read(&bundle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&bundle).unwrap();
    std::fs::write(&bundle, bytes).unwrap();
    assert_eq!(json(&["fsck", store, "--log-key", &vkey]).0, 1);
    std::fs::remove_file(&bundle).unwrap();
    assert_eq!(json(&["fsck", store, "--log-key", &vkey]).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_checked() {
    let World { log, bundle, .. } = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let (store, vkey) = (text(log.dir.path()), log.vkey());
    let empty = text(directory.path());
    let file = write_bundle(directory.path(), "alone/receipt.json", &bundle);
    let entry = write(directory.path(), "entry", &bundle.receipt);
    let garbled = write(directory.path(), "garbled", "log nonsense\nquorum none\n");
    let missing = text(&directory.path().join("missing")).to_owned();
    let id = Identity::new(7).id().to_string();
    for args in [
        &["fsck", &missing, "--log-key", &vkey][..],
        &["fsck", empty, "--log-key", &vkey],
        &["consistency", &missing, store, "--log-key", &vkey],
        &["proof", &missing, "--entry", &entry, "--policy", &garbled],
        &["receipt", &file],
        &["receipt", &file, "--policy", &missing],
        &["receipt", &file, "--policy", &garbled],
        &["receipt", &missing],
        &["provider", &id, "--log", store],
        &["provider", &id, "--log", "http://127.0.0.1:9/log", "--log-key", &vkey],
    ] {
        let (code, value) = json(args);
        assert!(code == 2 && !value["error"].as_str().unwrap().is_empty(), "{args:?}: {value}");
        let output = run(args);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    // Usage is refused before there is a result.
    for args in [&["fsck", store, "--log-key", "nonsense"][..], &["provider", "12", "--log", store], &["receipt"], &[]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    let help = String::from_utf8(run(&["receipt", &file]).stderr).unwrap();
    assert!(help.contains("--policy FILE") && help.contains("a bundle cannot say that about itself"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_offline_with_nothing_but_a_policy() {
    let World { log, bundle, provider, .. } = World::new().await;
    let client = tempfile::tempdir().unwrap();
    let file = write_bundle(client.path(), "receipts/1.json", &bundle);
    let policy = write(client.path(), "policy", log.policy_text());
    let other_policy = write(client.path(), "other", TestLog::open(2).await.policy_text());
    // From here on there is no log to ask.
    drop(log);

    let (code, value) = json(&["receipt", &file]);
    assert_eq!(code, 0, "{value}");
    assert_eq!(value["provider_id"], provider.id().to_string());
    assert_eq!(value["grade"], "self-signed");
    assert!(!value["does_not_prove"].as_array().unwrap().is_empty());
    assert_eq!((&value["model"], &value["usage"]["output"]), (&"tiny".into(), &30.into()));
    assert_eq!((&value["leaf_index"], &value["tree_size"]), (&3.into(), &4.into()));
    assert!(value["checks"].as_array().unwrap().iter().all(|check| check["passed"] == true));
    let shown = String::from_utf8(run(&["receipt", &file]).stdout).unwrap();
    for part in ["GOOD", "[ok] the receipt is in the log", "NOT proven", "2023-11-14T22:23:24Z", "3 of 4 in log.example/test"] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }

    assert_eq!(json(&["receipt", &file, "--policy", &policy]).0, 0);
    let (code, value) = json(&["receipt", &file, "--policy", &other_policy]);
    assert_eq!(code, 1);
    assert!(value["error"].as_str().unwrap().ends_with("not signed by a trusted log"), "{value}");
    let named = |policy: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
        command.args(["receipt", &file]).env("FANLIGHT_POLICY", policy).output().unwrap().status.code()
    };
    assert_eq!((named(&policy), named(&other_policy), named("")), (Some(0), Some(1), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_do_not_hold() {
    let World { log, bundle, .. } = World::new().await;
    let client = tempfile::tempdir().unwrap();
    write(client.path(), "policy", log.policy_text());
    let check = |bundle: &ReceiptBundle| json(&["receipt", &write_bundle(client.path(), "receipts/1.json", bundle)]);

    let mut other_details = details();
    other_details.usage.output = 300;
    let (code, value) = check(&ReceiptBundle { details: other_details.to_bytes(), ..bundle.clone() });
    assert_eq!(code, 1);
    let passed: Vec<_> = value["checks"].as_array().unwrap().iter().map(|check| check["passed"].as_bool()).collect();
    assert_eq!(passed, [Some(true), Some(true), Some(false), None, None, None, None]);

    let (code, value) = check(&ReceiptBundle { logged: false, tlog_proof: None, ..bundle });
    assert_eq!((code, &value["error"]), (2, &"receipt is not logged yet".into()));

    let garbled = write(client.path(), "receipts/2.json", "{\"format\":\"fanlight.receipt-bundle.v1\"}");
    assert_eq!(json(&["receipt", &garbled]).0, 1);
    let endless = write(client.path(), "receipts/3.json", vec![b' '; (1 << 20) + 1]);
    assert_eq!(json(&["receipt", &endless]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_offline() {
    let log = TestLog::open(1).await;
    log.append(b"first").await;
    let proof = log.append(b"second").await;
    let directory = tempfile::tempdir().unwrap();
    let policy = write(directory.path(), "policy", log.policy_text());
    let entry = write(directory.path(), "entry", "second");
    let proof_file = write(directory.path(), "second.tlog-proof", &proof);
    drop(log);
    let (code, value) = json(&["proof", &proof_file, "--entry", &entry, "--policy", &policy]);
    assert_eq!((code, &value["leaf_index"], &value["tree_size"]), (0, &1.into(), &2.into()));

    let other_entry = write(directory.path(), "other", "second\n");
    assert_eq!(json(&["proof", &proof_file, "--entry", &other_entry, "--policy", &policy]).0, 1);
    let moved = write(directory.path(), "moved", proof.replace("index 1", "index 0"));
    assert_eq!(json(&["proof", &moved, "--entry", &entry, "--policy", &policy]).0, 1);
    assert_eq!(json(&["proof", &entry, "--entry", &entry, "--policy", &policy]).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn consistency_with_an_older_checkpoint() {
    let log = TestLog::open(1).await;
    let directory = tempfile::tempdir().unwrap();
    let empty = write(directory.path(), "empty", log.checkpoint());
    log.append(b"first").await;
    let old = write(directory.path(), "old", log.checkpoint());
    for n in 0..5_u8 {
        log.append(&[n]).await;
    }
    let (store, vkey) = (text(log.dir.path()), log.vkey());
    for old in [&empty, &old] {
        let (code, value) = json(&["consistency", old, store, "--log-key", &vkey]);
        assert_eq!((code, &value["new_tree_size"]), (0, &6.into()));
    }
    // The same key on a tree with another first entry.
    let fork = TestLog::open(1).await;
    fork.append(b"other").await;
    let forked = write(directory.path(), "forked", fork.checkpoint());
    assert_eq!(json(&["consistency", &forked, store, "--log-key", &vkey]).0, 1);
    // The newer checkpoint against the younger store: rolled back.
    let newer = write(directory.path(), "newer", log.checkpoint());
    let (code, value) = json(&["consistency", &newer, text(fork.dir.path()), "--log-key", &vkey]);
    assert_eq!((code, &value["old_tree_size"], &value["new_tree_size"]), (1, &6.into(), &1.into()));
    assert_eq!(json(&["consistency", &newer, store, "--log-key", &TestLog::open(2).await.vkey()]).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_provider() {
    let World { log, provider, statement, receipt, .. } = World::new().await;
    let (store, vkey, id) = (text(log.dir.path()), log.vkey(), provider.id().to_string());
    let second = provider.receipt(&statement, &details(), Some(&receipt));
    log.append(second.bytes()).await;
    let (code, value) = json(&["provider", &id, "--log", store, "--log-key", &vkey]);
    assert_eq!(code, 0, "{value}");
    assert_eq!((&value["receipts"], &value["newest_counter"], &value["tree_size"]), (&2.into(), &1.into(), &5.into()));
    assert_eq!((&value["evidence"][0]["grade"], &value["statements"][0]["receipts"]), (&"self-signed".into(), &2.into()));
    let directory = tempfile::tempdir().unwrap();
    let policy = write(directory.path(), "policy", log.policy_text());
    assert_eq!(json(&["provider", &id, "--log", store, "--policy", &policy]).0, 0);

    // Anybody can have an entry in its name logged.
    let forged = Identity::new(9).sign_as(&provider, &second);
    log.append(&forged).await;
    let (code, value) = json(&["provider", &id, "--log", store, "--log-key", &vkey]);
    assert_eq!((code, &value["notes"][0]["note"]), (0, &"unverifiable".into()));
    let shown = String::from_utf8(run(&["provider", &id, "--log", store, "--log-key", &vkey]).stdout).unwrap();
    assert!(shown.contains("note        entry at leaf 5 names this provider"), "{shown}");

    let mut fork = (*second).clone();
    fork.commitment = Digest([9; 32]);
    log.append(provider.sign(&fork).bytes()).await;
    let (code, value) = json(&["provider", &id, "--log", store, "--log-key", &vkey]);
    assert_eq!((code, &value["findings"][0]["finding"]), (1, &"fork".into()));
    let shown = String::from_utf8(run(&["provider", &id, "--log", store, "--log-key", &vkey]).stdout).unwrap();
    assert!(shown.contains("FINDING     two different receipts number 1, at leaves 4 and 6"), "{shown}");

    let stranger = Identity::new(9).id().to_string();
    let (code, value) = json(&["provider", &stranger, "--log", store, "--log-key", &vkey]);
    assert_eq!((code, &value["findings"][0]["finding"]), (1, &"no_evidence".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_http() {
    let World { log, provider, .. } = World::new().await;
    let server = Server::start(log.dir.path()).await;
    let (url, vkey, id) = (server.url("/log"), log.vkey(), provider.id().to_string());
    let (code, value) = json(&["fsck", &url, "--log-key", &vkey]);
    assert_eq!(code, 0, "{value}");
    assert_eq!(json(&["fsck", &format!("{url}/"), "--log-key", &vkey]).0, 0);
    assert_eq!(json(&["provider", &id, "--log", &url, "--log-key", &vkey]).0, 0);
    let directory = tempfile::tempdir().unwrap();
    let old = write(directory.path(), "old", log.checkpoint());
    assert_eq!(json(&["consistency", &old, &url, "--log-key", &vkey]).0, 0);
    // A redirect on the same host is followed.
    assert_eq!(json(&["fsck", &server.url("/moved"), "--log-key", &vkey]).0, 0);

    for (prefix, reason) in [
        ("/nowhere", "has no checkpoint"),
        ("/broken", "the server answered 503"),
        ("/elsewhere", "the server answered 302"),
        ("/cut", "the server was not reached, or broke off"),
    ] {
        let (code, value) = json(&["fsck", &server.url(prefix), "--log-key", &vkey]);
        assert!(code == 2 && value["error"].as_str().unwrap().contains(reason), "{prefix}: {value}");
    }
    // A server that answers with nonsense was checked, and is bad.
    let (code, value) = json(&["fsck", &server.url("/endless"), "--log-key", &vkey]);
    assert_eq!((code, value["error"].as_str()), (1, Some("note too long")));
    assert!(value["evidence"].is_string(), "{value}");
}
