//! `witness`: cosigns the checkpoints of logs, over HTTP.

mod init;
mod keys;
mod metrics;
mod server;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fanlight_auditlog::{DirStore, VerifierKey};
use fanlight_protocol::UnixTime;
use fanlight_verifier::witness::{AnswerError, Witness, WitnessState};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use crate::commands::witness::init::InitArgs;
use crate::commands::witness::server::{Server, serve};
use crate::outcome::{Outcome, Verdict};
use crate::policy;

/// Requests under way at shutdown wait for one write to the disk; only a client that does not read takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct WitnessArgs {
    #[command(subcommand)]
    command: Option<WitnessCommand>,
    #[command(flatten)]
    serve: Option<ServeArgs>,
}

#[derive(Debug, Subcommand)]
enum WitnessCommand {
    /// Make the keys of a new witness and print what others need to trust it
    Init(InitArgs),
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// Address to listen on; port 0 takes a free one. Plain HTTP: put a TLS proxy in front of anything but loopback
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Directory of the witness, made by `witness init`. Never put a backup of it in its place: a witness that forgets
    /// what it cosigned signs forks
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A key of a log to witness; again for each log, and for each key that a log signs with
    #[arg(long = "log", value_name = "VKEY", required_unless_present = "logs")]
    log_keys: Vec<VerifierKey>,
    /// File with `log VKEY` lines (C2SP tlog-policy); its witnesses and quorum are not used
    #[arg(long, value_name = "POLICY-FILE")]
    logs: Option<PathBuf>,
}

pub(crate) async fn run(args: &WitnessArgs, json: bool, clock: fn() -> UnixTime) -> anyhow::Result<Outcome> {
    match (&args.command, &args.serve) {
        (Some(WitnessCommand::Init(args)), None) => init::run(args),
        (None, Some(args)) => run_server(args, json, clock).await,
        _ => bail!("either `witness init --data DIR --name NAME`, or `witness --listen ADDR --data DIR --log VKEY`"),
    }
}

async fn run_server(args: &ServeArgs, json: bool, clock: fn() -> UnixTime) -> anyhow::Result<Outcome> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    let mut log_keys = args.log_keys.clone();
    if let Some(path) = &args.logs {
        log_keys.extend(policy::read(path)?.log_keys().cloned());
    }
    if log_keys.is_empty() {
        bail!("no log to witness: the policy has no `log` line, and there is no --log VKEY");
    }
    // Before the directory is opened, which would create it.
    let cosigners = keys::read(&args.data)?;
    let store = DirStore::open_writer(&args.data).with_context(|| format!("cannot use {}", args.data.display()))?;
    let witness = Witness::new(cosigners, log_keys)?;
    let vkeys: Vec<String> = witness.verifier_keys().map(ToString::to_string).collect();
    let state = WitnessState::new(witness, store);
    report_records(&state, clock().as_secs()).await;

    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    let fields = json!({ "url": url, "vkeys": vkeys });
    let ready = if json { fields.to_string() } else { format!("listening on {url} vkeys {}", vkeys.join(" ")) };
    writeln!(io::stdout(), "{ready}")?;

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut serving = tokio::spawn(serve(listener, Arc::new(Server::new(state, clock)), stopping));
    tokio::select! {
        () = signals.next() => tracing::info!("stopping"),
        ended = &mut serving => ended?,
    }
    stop.send_replace(true);
    if timeout(DRAIN_TIMEOUT, &mut serving).await.is_err() {
        tracing::warn!("clients that do not finish are cut off");
    }
    Ok(Outcome::new(Verdict::Good, String::new(), fields))
}

/// Says at the start which logs cannot be witnessed, and what to do about it, not only when they ask.
async fn report_records(state: &WitnessState<DirStore>, now: u64) {
    let (mut logs, mut recorded) = (0, 0);
    for origin in state.witness().origins() {
        logs += 1;
        match state.record(origin).await {
            Ok(record) => {
                recorded += u64::from(record.is_some());
                if let Err(refusal) = Witness::cosigning_time(record.as_ref(), now) {
                    tracing::error!(origin, %refusal, "cannot cosign");
                }
            }
            Err(error) => report(&error),
        }
    }
    tracing::info!(logs, recorded, "goes on from what is recorded");
}

/// Tells the operator about what is theirs to look after.
fn report(error: &AnswerError) {
    match error {
        AnswerError::Refused(refusal) if refusal.status() < 500 => tracing::debug!(%refusal, "refused"),
        AnswerError::Busy => tracing::warn!(%error, "refused"),
        error => tracing::error!(error = error as &dyn std::error::Error, "not cosigned"),
    }
}

/// SIGINT and SIGTERM; elsewhere, the console's interrupt.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
