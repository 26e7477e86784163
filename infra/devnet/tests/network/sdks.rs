//! OpenAI's own SDKs, unmodified, with nothing but the base URL changed.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::chat::{PATIENCE, demo};

pub(crate) fn interop(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../interop").join(file)
}

/// A program that `cargo xtask test` installs and names in the environment.
pub(crate) fn tool(variable: &str, default: &str) -> PathBuf {
    let fallback = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(default);
    let path = std::env::var_os(variable).map_or(fallback, PathBuf::from);
    assert!(path.exists(), "{} is not there; run `cargo xtask test --only set-up` once", path.display());
    path
}

pub(crate) fn python() -> Command {
    Command::new(tool("FANLIGHT_PYTHON", "target/xtask/venv/bin/python"))
}

fn node() -> Command {
    let modules = tool("FANLIGHT_NODE_DIR", "target/xtask/node");
    let mut node = Command::new(std::env::var_os("FANLIGHT_NODE").unwrap_or_else(|| "node".into()));
    node.env("FANLIGHT_NODE_DIR", modules);
    node
}

/// Runs a suite to its end; its output is shown when it fails.
pub(crate) async fn passes(mut suite: Command) {
    let child = suite.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let output = timeout(PATIENCE * 3, child.wait_with_output()).await.expect("the suite hangs").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains(" 0 failed"), "the suite did not say how it went:\n{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_python() {
    let (network, _dir) = demo().await;
    let mut suite = python();
    suite.arg(interop("openai_python.py")).arg(network.base_url());
    passes(suite).await;
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node() {
    let (network, _dir) = demo().await;
    let mut suite = node();
    suite.arg(interop("openai_node.mjs")).arg(network.base_url());
    passes(suite).await;
    network.shutdown().await;
}
