//! `fanlight-log`: create a transparency log, append to it, serve it.

mod append;
mod input;
mod serve;
mod signals;
mod witnesses;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use fanlight_auditlog::store::CHECKPOINT_KEY;
use fanlight_auditlog::store::key_file::{create_key_file, read_key_file};
use fanlight_auditlog::{Config, DirStore, LeafIndex as _, Log, Sequencer, TileSource as _, create};
use fanlight_stores::{AnyStore, Location, open_writer};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::witnesses::{LogWitnesses, WitnessArgs};

/// How long an entry waits at most where every write takes longer, and costs.
const MAX_DELAY_IN_BUCKET: Duration = Duration::from_secs(1);

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
        #[command(flatten)]
        witnesses: WitnessArgs,
        #[command(flatten)]
        entries: append::EntryArgs,
    },
    /// Serve appending (POST /add), proofs (GET /proof/LEAF-HASH), the read path, /healthz and /metrics.
    Serve {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        pace: PaceArgs,
        #[command(flatten)]
        witnesses: WitnessArgs,
        #[command(flatten)]
        listen: serve::ListenArgs,
    },
}

/// When rounds start, and what may wait for them.
#[derive(Debug, clap::Args)]
struct PaceArgs {
    /// Longest time that an entry waits for a round to start. Longer, a quiet log writes less, and pays less where writes
    /// are paid for [default: 250 in a directory, 1000 in a bucket].
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    max_delay: Option<u64>,
    /// Shortest time from the start of one round to that of the next. A store that takes one write of an object in a second,
    /// as Cloudflare R2, needs 1000.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    min_period: u64,
    /// Bytes of entries that may wait for a round; more are refused until there is room. A round under way holds as much
    /// again.
    #[arg(long, value_name = "BYTES", default_value_t = 32 * 1024 * 1024)]
    #[arg(value_parser = clap::value_parser!(u64).range(65_535..=256 * 1024 * 1024))]
    max_pool_bytes: u64,
}

impl PaceArgs {
    fn config(&self, store: &Location) -> anyhow::Result<Config> {
        let max_delay = match (self.max_delay, store) {
            (Some(millis), _) => Duration::from_millis(millis),
            (None, Location::Dir(_)) => Config::default().max_delay,
            (None, _) => MAX_DELAY_IN_BUCKET,
        };
        Ok(Config {
            max_delay,
            min_period: Duration::from_millis(self.min_period),
            max_pool_bytes: self.max_pool_bytes.try_into().context("--max-pool-bytes is more than this machine can address")?,
            ..Config::default()
        })
    }
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// Where the log is: a directory on a local file system, or a bucket as in `s3://bucket/prefix`.
    store: Location,
    /// Private key of the log [default: private/key in the directory; a log in a bucket needs one].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// S3 server, where it is not AWS [default: `AWS_ENDPOINT_URL`].
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Directory for the index of a log in a bucket, which makes appending idempotent; keep it, for building it anew reads the whole log's tiles [default: below
    /// the user's directory for caches].
    #[arg(long, value_name = "DIR")]
    index: Option<PathBuf>,
}

impl StoreArgs {
    async fn open(&self) -> anyhow::Result<AnyStore> {
        if matches!(&self.store, Location::Dir(dir) if !dir.join("private").is_dir()) {
            bail!("no log in {}; `fanlight-log init` creates one", self.store);
        }
        Ok(open_writer(&self.store, self.endpoint_url.as_deref(), self.index.as_deref()).await?)
    }

    /// The key file: a bucket is no place for one.
    fn key(&self) -> anyhow::Result<PathBuf> {
        match (&self.key, &self.store) {
            (Some(key), _) => Ok(key.clone()),
            (None, Location::Dir(dir)) => Ok(DirStore::key_file_in(dir)),
            (None, _) => bail!("the private key of a log in {} is a file here; --key FILE names it", self.store),
        }
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
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        let done = runtime.block_on(run(args.command));
        // A read of standard input may never return, and nothing waits for it any more.
        runtime.shutdown_background();
        done
    });
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
        Command::Append { store, witnesses, entries } => {
            // Rounds follow closely: whoever runs this waits for it, and an idle log has none.
            let (min_period, max_delay) = (Duration::from_millis(20), Duration::ZERO);
            let (log, sequencer, _) = open(&store, Config { min_period, max_delay, ..Config::default() }, &witnesses).await?;
            append::run(log, sequencer, entries).await
        }
        Command::Serve { store, pace, witnesses, listen } => {
            let config = pace.config(&store.store)?;
            let max_delay = config.max_delay;
            let (log, sequencer, witnesses) = open(&store, config, &witnesses).await?;
            serve::run(log, sequencer, witnesses, max_delay, listen).await
        }
    }
}

async fn init(args: &StoreArgs, origin: &str) -> anyhow::Result<()> {
    let key = args.key()?;
    let store = open_writer(&args.store, args.endpoint_url.as_deref(), args.index.as_deref()).await?;
    if store.get(CHECKPOINT_KEY).await?.is_some() {
        bail!("{} holds a log already", args.store);
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).context("cannot get random bytes")?;
    if key.exists() {
        tracing::warn!(key = %key.display(), "the key is there already and is used; two logs of one origin and key would be a fork");
    }
    let signer = create_key_file(&key, origin, &seed)?;
    create(&store, &signer).await?;
    // What a log had here that is gone now.
    store.clear().await?;
    writeln!(io::stdout(), "{}", signer.verifier_key())?;
    Ok(())
}

type Opened = (Log<AnyStore>, Sequencer<AnyStore, Option<LogWitnesses>>, Option<LogWitnesses>);

async fn open(store: &StoreArgs, config: Config, witnesses: &WitnessArgs) -> anyhow::Result<Opened> {
    let key = store.key()?;
    let any = store.open().await?;
    let signer = read_key_file(&key)?;
    let witnesses = witnesses.open(&signer.verifier_key())?;
    let opened = Log::open_witnessed(any, signer, config, witnesses.clone()).await;
    let (log, sequencer) = opened.with_context(|| format!("cannot open the log in {}", store.store))?;
    Ok((log, sequencer, witnesses))
}
