//! `fanlight-log`: create a transparency log, append to it, serve it.

mod append;
mod input;
mod metrics;
mod serve;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use fanlight_auditlog::{Config, DirStore, Log, Sequencer, create};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// A transparency log in tiles (C2SP tlog-tiles).
#[derive(Debug, Parser)]
#[command(name = "fanlight-log", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an empty log and print the verifier key of its checkpoints.
    Init {
        #[command(flatten)]
        store: StoreArgs,
        /// Unique name of the log, usually the URL it is read at without the scheme.
        #[arg(long)]
        origin: String,
    },
    /// Append entries, and print the index of each once it is in a published checkpoint.
    Append {
        #[command(flatten)]
        store: StoreArgs,
        /// Make every line an entry, without its line break.
        #[arg(long)]
        lines: bool,
        /// Entries; standard input without any.
        files: Vec<PathBuf>,
    },
    /// Serve appending (POST /add), the read path, /healthz and /metrics.
    Serve {
        #[command(flatten)]
        store: StoreArgs,
        /// Address to listen on; port 0 takes a free one.
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// Shortest time between two rounds.
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 250)]
        round_period_ms: u64,
    },
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// Directory of the log.
    store: PathBuf,
    /// Private key of the log [default: private/key in the directory].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl StoreArgs {
    fn open(&self) -> anyhow::Result<DirStore> {
        self.check()?;
        if !self.store.join("private").is_dir() {
            bail!("no log in {}; `fanlight-log init` creates one", self.store.display());
        }
        Ok(DirStore::open_writer(&self.store)?)
    }

    /// Refuses what is no directory, before one of that name is created.
    fn check(&self) -> anyhow::Result<()> {
        let store = self.store.to_string_lossy();
        match store.split_once("://") {
            Some((scheme, _)) => bail!("cannot keep a log at {scheme}://: this build's stores are directories"),
            None => Ok(()),
        }
    }

    fn key(&self) -> Option<&Path> {
        self.key.as_deref()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run(args.command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that says what to do; a backtrace helps nobody who runs a log.
            eprintln!("fanlight-log: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { store, origin } => init(&store, &origin).await,
        Command::Append { store, lines, files } => {
            // Rounds follow closely: whoever runs this waits for it, and an idle log has none.
            let (log, sequencer) = open(&store, Duration::from_millis(20)).await?;
            append::run(log, sequencer, files, lines).await
        }
        Command::Serve { store, listen, round_period_ms } => {
            let (log, sequencer) = open(&store, Duration::from_millis(round_period_ms)).await?;
            serve::run(log, sequencer, listen).await
        }
    }
}

async fn init(store: &StoreArgs, origin: &str) -> anyhow::Result<()> {
    store.check()?;
    if store.store.join("checkpoint").exists() {
        bail!("{} holds a log already", store.store.display());
    }
    let dir = DirStore::open_writer(&store.store)?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).context("cannot get random bytes")?;
    let signer = dir.signer(store.key(), origin, &seed)?;
    create(&dir, &signer).await?;
    writeln!(io::stdout(), "{}", signer.verifier_key())?;
    Ok(())
}

async fn open(store: &StoreArgs, round_period: Duration) -> anyhow::Result<(Log<DirStore>, Sequencer<DirStore>)> {
    let dir = store.open()?;
    let signer = dir.existing_signer(store.key())?;
    let config = Config { round_period, ..Config::default() };
    Log::open(dir, signer, config).await.with_context(|| format!("cannot open the log in {}", store.store.display()))
}
