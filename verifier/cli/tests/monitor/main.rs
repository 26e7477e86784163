//! `monitor` on real logs, over real HTTP: each alert with what raises it and what nearly does.

mod log;
mod others;
mod providers;
#[path = "../server/mod.rs"]
mod server;
mod state;
#[path = "../../../tests/world/mod.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use server::Server;
use tempfile::TempDir;
use world::TestLog;

/// What the public sees of a log, which need not be what its writer has.
struct Served {
    dir: TempDir,
    server: Server,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(dir.path()).await;
        Self { dir, server }
    }

    async fn of(log: &TestLog) -> Self {
        let served = Self::start().await;
        served.publish(log);
        served
    }

    fn url(&self) -> String {
        self.server.url("/log")
    }

    /// Shows the log as it is now, and nothing else.
    fn publish(&self, log: &TestLog) {
        let tiles = self.path("tile");
        if tiles.exists() {
            fs::remove_dir_all(&tiles).expect("tiles are removed");
        }
        copy(&log.dir.path().join("tile"), &tiles);
        self.set("checkpoint", log.checkpoint());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write(&self.path(name), bytes);
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        if from.exists() {
            write(to, fs::read(from).expect("a file is read"));
        }
        return;
    }
    for entry in fs::read_dir(from).expect("a directory is read") {
        let entry = entry.expect("an entry is read");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Writes a file and the directories above it.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory is made");
    fs::write(path, bytes).expect("a file is written");
}

/// A monitor with a state of its own, run once at a time.
struct Monitor {
    state: TempDir,
    vkey: String,
    options: Vec<String>,
}

impl Monitor {
    fn of(log: &TestLog) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        Self { state, vkey: log.vkey(), options: Vec::new() }
    }

    fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    fn command(&self, log: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
        command.args(["--json", "monitor", log, "--state", text(self.state.path())]).args(&self.options);
        if !self.options.iter().any(|option| option == "--policy") {
            command.args(["--log-key", &self.vkey]);
        }
        command.env_remove("FANLIGHT_POLICY");
        command
    }

    /// The exit status, and what was printed.
    fn run(&self, log: &str) -> (i32, Value) {
        self.run_with(log, &[])
    }

    fn run_with(&self, log: &str, options: &[&str]) -> (i32, Value) {
        let output = self.command(log).args(options).output().expect("the command starts");
        let code = output.status.code().expect("the command exits");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        let verdict = ["good", "bad", "unchecked"][usize::try_from(code).expect("not negative")];
        assert_eq!((&value["command"], &value["verdict"]), (&"monitor".into(), &verdict.into()), "{value}");
        (code, value)
    }

    /// Exit status and ids of the open alerts.
    fn alerts(&self, log: &str) -> (i32, Vec<String>) {
        let (code, value) = self.run(log);
        (code, ids(&value))
    }
}

fn ids(value: &Value) -> Vec<String> {
    let alerts = value["alerts"].as_array().expect("alerts are an array");
    alerts.iter().map(|alert| alert["id"].as_str().expect("an id is text").to_owned()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// The one evidence file of the one alert.
fn evidence(value: &Value) -> Value {
    let files = value["alerts"][0]["evidence"].as_array().expect("evidence is an array");
    let [file] = files.as_slice() else { panic!("one evidence file: {value}") };
    let bytes = fs::read(file.as_str().expect("a path is text")).expect("evidence is a file");
    serde_json::from_slice(&bytes).expect("evidence is JSON")
}
