//! The binary as an operator meets it: `serve`, `status`, `doctor`, and signals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use fanlight_protocol::link::Message;
use fanlight_provider::engine::builtin;
use fanlight_provider::status::Status;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use crate::support::{Gateway, parse, within};

fn provider(command: &str, data: &Path) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_fanlight-provider"));
    process.arg(command).arg("--data").arg(data).env_remove("RUST_LOG").kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

fn serve(data: &Path, gateway: &str) -> Child {
    provider("serve", data).args(["--gateway", gateway]).stderr(Stdio::null()).spawn().expect("a process")
}

async fn doctor(data: &Path, gateway: &str, more: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } =
        within(provider("doctor", data).args(["--gateway", gateway]).args(more).output()).await.expect("a process");
    (status.code(), String::from_utf8(stdout).expect("text"))
}

/// Asks the daemon until its control socket is there.
async fn status(data: &Path) -> Status {
    let ask = async {
        loop {
            let output = provider("status", data).arg("--json").output().await.expect("a process");
            match output.status.code() {
                Some(0) => return serde_json::from_slice(&output.stdout).expect("a status"),
                Some(2) => {}
                other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
            }
        }
    };
    within(ask).await
}

async fn terminate(process: &Child) {
    let id = process.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs").success());
}

/// A port that is taken and where nobody answers.
fn nobody() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    socket
}

fn question() -> Value {
    json!({"model": builtin::MODEL_NAME, "messages": [{"role": "user", "content": "What is 12 + 7?"}], "temperature": 0})
}

#[tokio::test]
async fn serve_answers_status_and_ends_well_on_sigterm() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let data = dir.path().join("not/there/yet");
    let mut daemon = serve(&data, &gateway.url());
    let mut link = gateway.enrol().await;
    assert_eq!(link.chat(&question()).await.status, 200);

    let told = status(&data).await;
    assert_eq!(told.provider_id, link.statement.signer().provider_id());
    assert_eq!((told.link.as_str(), told.grade.as_str(), told.totals.complete), ("listed", "self-signed", 1));
    assert_eq!(told.models, [builtin::MODEL_NAME]);
    assert_eq!(told.key.unwrap().statement_digest, link.statement.digest());
    let for_people = provider("status", &data).output().await.unwrap();
    let for_people = String::from_utf8(for_people.stdout).unwrap();
    assert!(for_people.contains("(listed)") && for_people.contains("1 complete"), "{for_people}");
    let (code, findings) = doctor(&data, &gateway.url(), &[]).await;
    assert_eq!(code, Some(0), "{findings}");
    assert!(findings.contains("running and listed, 1 requests served"), "{findings}");

    terminate(&daemon).await;
    assert_eq!(parse(&link.recv(0).await).1, Message::Capacity(0));
    assert_eq!(within(daemon.wait()).await.unwrap().code(), Some(0));
    assert!(!data.join("control.sock").exists());
}

#[tokio::test]
async fn a_killed_daemon_comes_back_as_the_same_provider_with_its_receipts() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let mut daemon = serve(dir.path(), &gateway.url());
    let mut link = gateway.enrol().await;
    let before = link.chat(&question()).await;
    let told = status(dir.path()).await;
    daemon.kill().await.unwrap();
    assert!(dir.path().join("control.sock").exists(), "a killed daemon leaves its socket");

    let _daemon = serve(dir.path(), &gateway.url());
    let mut link = gateway.enrol().await;
    assert_eq!(link.statement.signer().provider_id(), told.provider_id);
    assert_eq!(parse(&link.recv(0).await).1, Message::Receipt(before.receipt.bytes()));
    let after = link.chat(&question()).await;
    assert_eq!((after.receipt.counter, after.receipt.previous), (1, before.receipt.digest()));
    assert_eq!(status(dir.path()).await.totals.complete, 1, "the new daemon's socket answers");
}

#[tokio::test]
async fn a_second_daemon_on_the_same_data_does_not_start() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let _daemon = serve(dir.path(), &gateway.url());
    let mut link = gateway.enrol().await;
    let second = within(provider("serve", dir.path()).args(["--gateway", &gateway.url()]).output()).await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another provider uses this data directory"), "{said}");
    assert_eq!(link.chat(&question()).await.status, 200);
    assert_eq!(status(dir.path()).await.totals.complete, 1, "the first daemon still has the socket");
}

#[tokio::test]
async fn without_a_gateway_serve_waits_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let mut daemon = serve(dir.path(), &url);
    let reason = loop {
        if let Some(reason) = status(dir.path()).await.reason {
            break reason;
        }
    };
    assert!(reason.contains("connect to the gateway") && reason.contains("refused"), "{reason}");
    terminate(&daemon).await;
    assert_eq!(within(daemon.wait()).await.unwrap().code(), Some(0));

    let refused = within(provider("serve", dir.path()).args(["--gateway", "gateway.example"]).output()).await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("must begin with http:// or https://"), "{said}");
}

#[tokio::test]
async fn status_without_a_daemon_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let asked = within(provider("status", dir.path()).output()).await.unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(2));
    assert!(said.contains("`fanlight-provider serve`"), "{said}");
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let (dir, gateway) = (tempfile::tempdir().unwrap(), Gateway::bind().await);
    let data = dir.path();
    // The doctor knocks and goes, so it gets a door of its own.
    let door = Gateway::bind().await;
    let url = door.url();
    let (code, findings) = doctor(&data.join("new"), &url, &[]).await;
    assert_eq!(code, Some(0), "{findings}");
    assert!(!data.join("new").exists(), "a check makes nothing");

    // A daemon that has served, and is gone.
    let mut daemon = serve(data, &gateway.url());
    gateway.enrol().await.chat(&question()).await;
    daemon.kill().await.unwrap();
    let (code, findings) = doctor(data, &url, &[]).await;
    assert_eq!(code, Some(0), "{findings}");
    assert!(findings.contains("1 receipts, chain unbroken"), "{findings}");

    let nobody = nobody();
    let unanswered = nobody.local_addr().unwrap();
    let bad = async |gateway: &str, more: &[&str], wanted: &str| {
        let (code, findings) = doctor(data, gateway, more).await;
        assert_eq!(code, Some(1), "{findings}");
        assert_eq!(findings.matches("BAD").count(), findings.matches("fix: ").count());
        assert!(findings.contains(wanted), "{wanted}: {findings}");
    };
    bad(&format!("http://{unanswered}"), &[], "check --gateway").await;
    bad(&unanswered.to_string(), &[], "http:// or https://").await;
    bad(&url, &["--model", "/nowhere/at-all"], "cannot load the model").await;

    let key = data.join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    bad(&url, &[], "others can read it").await;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    fs::set_permissions(data, fs::Permissions::from_mode(0o777)).unwrap();
    bad(&url, &[], "chmod go-w").await;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).unwrap();

    let journal = data.join("receipts.journal");
    let bytes = fs::read(&journal).unwrap();
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    fs::write(&journal, damaged).unwrap();
    bad(&url, &[], "receipt 0").await;
    fs::write(&journal, bytes).unwrap();
    assert_eq!(doctor(data, &url, &[]).await.0, Some(0), "all is mended");
}
