//! The gateway: relays sealed requests to providers and keeps the public log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fanlight_auditlog::Policy;
use fanlight_gateway_server::{Config, start};
use tokio::net::TcpListener;

/// Relays sealed requests to providers and keeps the public log of what they sign.
#[derive(Debug, Parser)]
#[command(name = "fanlight-gateway", version)]
struct Args {
    /// Address to listen on. Plain HTTP: put a TLS proxy in front of anything but loopback
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8788")]
    listen: SocketAddr,

    /// Directory for the log and its key; made at the first start
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Origin of the log, the name that its checkpoints carry; cannot change later
    #[arg(long, value_name = "ORIGIN")]
    origin: String,

    /// Milliseconds that an entry waits at most for a round of the log
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    max_delay: u64,

    /// Policy (C2SP tlog-policy) whose witnesses must cosign each checkpoint of the log before it is published; each witness
    /// line needs the URL that checkpoints are sent to
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanlight-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, data, origin, max_delay, witness_policy } = args;
    let witnesses = witness_policy.as_deref().map(read_policy).transpose()?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("failed to listen on {listen}"))?;
    let config = Config { data, origin, max_delay: Duration::from_millis(max_delay), witnesses };
    let gateway = start(config, listener).await.context("failed to start")?;
    #[expect(clippy::print_stdout, reason = "what scripts read")]
    {
        println!("url {}", gateway.url());
        println!("log {}/log", gateway.url());
        println!("vkey {}", gateway.log_vkey());
    }
    let log_failed = tokio::select! {
        signal = stop_signal() => signal.map(|()| false)?,
        () = gateway.failed() => true,
    };
    tracing::info!("stopping");
    gateway.shutdown().await;
    anyhow::ensure!(!log_failed, "the log stopped");
    Ok(())
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = std::fs::read(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
    Policy::parse(&text).with_context(|| format!("cannot use the policy {}", path.display()))
}

#[cfg(unix)]
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
