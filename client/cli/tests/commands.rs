//! The `fanlight` command against a running network.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use support::{Fault, Network};

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The command keeps the system's time, so the network has to.
async fn network() -> Network {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    Network::start_at(2, now).await
}

async fn fanlight(network: &Network, args: &[&str], stdin: &str) -> Ran {
    let policy = network.state_dir().with_extension("policy");
    std::fs::write(&policy, &network.policy).expect("a policy file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight"));
    command.env_clear().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("FANLIGHT_GATEWAY", &network.url).env("FANLIGHT_POLICY", &policy).env("FANLIGHT_STATE", network.state_dir());
    run(command, stdin).await
}

async fn run(mut command: Command, stdin: &str) -> Ran {
    let mut child = command.spawn().expect("the command starts");
    let mut input = child.stdin.take().expect("a pipe");
    // A command that reads nothing may be gone already.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.expect("the command ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn chat_answers_what_is_piped_in_and_leaves_a_receipt() {
    let network = network().await;
    let ran = fanlight(&network, &["chat"], "Say\nsomething.\n").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "The answer is sealed.\n"), "{}", ran.stderr);
    let id = ran.stderr.split_once("[receipt ").and_then(|(_, rest)| rest.get(..32)).expect("a receipt id on standard error");

    let shown = fanlight(&network, &["receipts", id], "").await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("verified     yes\n") && shown.stdout.contains("self-signed"), "{}", shown.stdout);
    let list = fanlight(&network, &["receipts", "--json"], "").await;
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&list[0]["receipt_id"], &list[0]["logged"]), (&Value::from(id), &Value::from(true)));
    let bundle = fanlight(&network, &["receipts", id, "--json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&bundle.stdout).unwrap()["format"], "fanlight.receipt-bundle.v1");
    let unknown = fanlight(&network, &["receipts", &"0".repeat(32)], "").await;
    assert_eq!(unknown.code, Some(2));
}

#[tokio::test]
async fn a_stored_receipt_that_was_changed_is_found_out() {
    let network = network().await;
    let ran = fanlight(&network, &["chat", "Hello"], "").await;
    let id = ran.stderr.split_once("[receipt ").and_then(|(_, rest)| rest.get(..32)).expect("a receipt id").to_owned();
    let path = network.state_dir().join("receipts").join(format!("{id}.json"));
    let mut bundle: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    bundle["blind"] = Value::from("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    std::fs::write(&path, bundle.to_string()).unwrap();
    let shown = fanlight(&network, &["receipts", &id], "").await;
    assert_eq!(shown.code, Some(1));
    assert!(shown.stdout.contains("verified     NO"), "{}", shown.stdout);
}

#[tokio::test]
async fn chat_says_when_an_answer_is_not_to_be_relied_on() {
    let network = network().await;
    network.inject([Fault::CutAfter(4)]);
    let ran = fanlight(&network, &["chat", "Hello"], "").await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("do not rely on this: answer is truncated"), "{}", ran.stderr);
    let refused = fanlight(&network, &["chat", "please fail"], "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("provider answered 400: No."), "{}", refused.stderr);
}

#[tokio::test]
async fn providers_shows_grades_and_what_they_do_not_prove() {
    let network = network().await;
    let ran = fanlight(&network, &["providers"], "").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("self-signed") && ran.stdout.contains("does not prove:"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "a provider's claim reached the terminal as it was");
    let json: Value = serde_json::from_str(&fanlight(&network, &["providers", "--json"], "").await.stdout).unwrap();
    assert_eq!(json["providers"].as_array().unwrap().len(), 2);
    assert_eq!(json["providers"][0]["models"][0]["name"], "tiny");

    let strict = fanlight(&network, &["providers", "--min-grade", "app-attested"], "").await;
    assert_eq!(strict.code, Some(1), "nobody is good enough");
    assert!(strict.stdout.contains("grade is below the policy's minimum"), "{}", strict.stdout);
}

#[tokio::test]
async fn what_is_missing_is_said_with_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight"));
    command.env_clear().arg("providers").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = run(command, "").await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--gateway URL or FANLIGHT_GATEWAY"), "{}", ran.stderr);
    let network = network().await;
    let ran = fanlight(&network, &["chat", "--model", "other", "Hello"], "").await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no verified provider offers the model"), "{}", ran.stderr);
    let ran = fanlight(&network, &["--gateway", "gateway.example", "providers"], "").await;
    assert_eq!(ran.code, Some(2));
}
