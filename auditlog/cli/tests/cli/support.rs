//! The command, a new log, and a server on a free port.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use fanlight_auditlog::fsck::{Leftovers, Options, fsck};
use fanlight_auditlog::reader::latest_checkpoint;
use fanlight_auditlog::workers::Inline;
use fanlight_auditlog::{DirStore, ObjectStore, Reader, VerifierKey};
use tempfile::TempDir;

pub(crate) const ORIGIN: &str = "log.example/cli";

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-log"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    command(args).output().expect("the command starts")
}

pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("the command reads all of its input");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

/// A new log: its directory and the key that `init` printed.
pub(crate) fn init() -> (TempDir, String, VerifierKey) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("log").to_str().expect("text").to_owned();
    let output = run(&["init", &store, "--origin", ORIGIN]);
    assert!(output.status.success(), "{}", stderr(&output));
    let vkey = stdout(&output).strip_suffix('\n').expect("one line").parse().expect("a vkey and nothing else");
    (dir, store, vkey)
}

pub(crate) fn check(store: &str, key: &VerifierKey) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(audited_size(store, key))
}

/// Recomputes the whole log; its size.
pub(crate) async fn audited_size(store: &str, key: &VerifierKey) -> u64 {
    audited_size_of(&DirStore::open_reader(store), key).await
}

pub(crate) async fn audited_size_of(store: &impl ObjectStore, key: &VerifierKey) -> u64 {
    let checkpoint = latest_checkpoint(store, key).await.expect("a published checkpoint");
    let options = Options { leftovers: Leftovers::list(store).await.expect("a store that lists"), resume: None };
    let report = fsck(store, &checkpoint, options, &Inline, |_| {}).await.expect("the log is read");
    assert!(report.is_good(), "{:?}", report.damage());
    report.checkpoint().tree_size()
}

pub(crate) fn entry(store: &str, key: &VerifierKey, index: u64) -> bytes::Bytes {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(entry_of(&DirStore::open_reader(store), key, index))
}

pub(crate) async fn entry_of(store: &impl ObjectStore, key: &VerifierKey, index: u64) -> bytes::Bytes {
    let reader = Reader::latest(store, key).await.expect("the log opens");
    reader.entry(index).await.expect("the entry is there")
}

/// `serve` on a free port; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    // Kept open: the server may still print.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    /// Serves with short rounds, unless `args` say otherwise.
    pub(crate) fn start(store: &str, args: &[&str]) -> Self {
        let pace: &[&str] = if args.contains(&"--max-delay") { &[] } else { &["--max-delay", "5"] };
        let args = [&["serve", store, "--listen", "127.0.0.1:0", "--min-period", "1"], pace, args].concat();
        let mut child = command(&args).stderr(Stdio::null()).spawn().expect("the command starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the server says where it listens");
        let url = line.trim_end().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, _stdout: stdout, url }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("plain HTTP")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child is ours")
    }

    /// The value of a metric without labels, or with the labels in its name.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = client().get(self.url("/metrics")).send().await.expect("metrics").text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(value.parse().expect("a number"))
    }

    /// Waits until a metric has the value.
    pub(crate) async fn until(&self, name: &str, value: f64) {
        let reached = async {
            while self.metric(name).await != Some(value) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the metric gets there");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    // Not used on loopback, but the client wants one to exist.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
