//! A witness in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use fanlight_auditlog::VerifierKey;
use fanlight_protocol::Digest;
use reqwest::Client;

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes the keys of a witness; its vkeys, that of ML-DSA-44 first.
pub(crate) fn init(data: &Path, name: &str) -> Vec<VerifierKey> {
    let output = run(&["--json", "witness", "init", "--data", text(data), "--name", name]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let vkeys = value["vkeys"].as_array().unwrap();
    vkeys.iter().map(|vkey| vkey.as_str().unwrap().parse().unwrap()).collect()
}

pub(crate) fn client() -> Client {
    // Fails when another test of the process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

/// A witness that serves; killed on drop.
pub(crate) struct Witness {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) url: String,
    client: Client,
}

impl Witness {
    /// Starts it on what [`init`] made, and waits until it serves.
    pub(crate) fn start<'a>(data: &Path, log_keys: impl IntoIterator<Item = &'a VerifierKey>) -> Self {
        let keys: Vec<String> = log_keys.into_iter().map(|key| format!("--log={key}")).collect();
        Self::start_with(data, &keys.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// [`Self::start`] with the logs as the command line has them.
    pub(crate) fn start_with(data: &Path, logs: &[&str]) -> Self {
        let mut command = command(&[&["witness", "--listen", "127.0.0.1:0", "--data", text(data)], logs].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let url = ready.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next()).expect("a ready line");
        Self { child, _stdout: stdout, url: url.to_owned(), client: client() }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Ends it as a power cut would; the process can do nothing about it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits for that; the exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code()
    }

    /// Submits a request: the status and the body.
    pub(crate) async fn try_add(&self, request: String) -> reqwest::Result<(u16, String)> {
        let answer = self.client.post(format!("{}/add-checkpoint", self.url)).body(request).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    pub(crate) async fn add(&self, request: String) -> (u16, String) {
        self.try_add(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The checkpoint that it serves to those who monitor a log; `None` when there is none.
    pub(crate) async fn checkpoint(&self, origin: &str) -> Option<String> {
        match self.get(&format!("/{}/checkpoint", Digest::of(origin.as_bytes()))).await {
            (200, note) => Some(note),
            (404, _) => None,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number from 1 to `max`.
    pub(crate) fn up_to(&mut self, max: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % max + 1
    }
}
