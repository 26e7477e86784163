//! The `fanlight` command: a local OpenAI endpoint, a terminal chat, and what they leave behind.
//!
//! Exit status: 0 good, 1 checked and bad, 2 could not be done.

mod commands;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fanlight_verifier::Grade;
use tracing_subscriber::EnvFilter;

/// Longest policy file that is read, in bytes.
const MAX_POLICY_LEN: u64 = 256 * 1024;

/// Private inference on other people's machines: sealed to keys in a public log, answered with receipts.
#[derive(Debug, Parser)]
#[command(name = "fanlight", version, about)]
struct Cli {
    #[command(flatten)]
    network: Network,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Network {
    /// Base URL of the gateway; it is trusted with delivery only
    #[arg(long, env = "FANLIGHT_GATEWAY", value_name = "URL", global = true)]
    gateway: Option<String>,
    /// C2SP tlog-policy file: the log and the witnesses that you trust
    #[arg(long, env = "FANLIGHT_POLICY", value_name = "FILE", global = true)]
    policy: Option<PathBuf>,
    /// Directory of receipts [default: fanlight in the user's data directory]
    #[arg(long, env = "FANLIGHT_STATE", value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// Refuse providers of a lower grade: self-signed, device-bound or app-attested
    #[arg(long, env = "FANLIGHT_MIN_GRADE", value_name = "GRADE", default_value = "self-signed", global = true)]
    min_grade: Grade,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve OpenAI's API on loopback
    Proxy(commands::proxy::Args),
    /// Chat in the terminal, or answer what is piped in
    Chat(commands::chat::Args),
    /// List providers: grade, models, validity, and why others are refused
    Providers(commands::providers::Args),
    /// List stored receipts, or show and verify one
    Receipts(commands::receipts::Args),
}

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    /// Something was checked and found bad; the command has said what.
    Bad,
}

impl Network {
    fn state_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let data = data.or_else(|| Some(std::env::home_dir()?.join(".local/share")));
        Ok(data.context("there is no home directory; give one with --state DIR or FANLIGHT_STATE")?.join("fanlight"))
    }

    fn client_config(&self) -> anyhow::Result<fanlight_client::Config> {
        let gateway = self.gateway.as_deref().context("no gateway; give one with --gateway URL or FANLIGHT_GATEWAY")?;
        let policy = self.policy.as_deref().context(
            "no policy; give a C2SP tlog-policy with --policy FILE or FANLIGHT_POLICY (whoever runs the log publishes its key)",
        )?;
        let text = read_policy(policy).with_context(|| format!("failed to read the policy {}", policy.display()))?;
        let mut config = fanlight_client::Config::new(gateway, text, self.state_dir()?);
        config.minimum_grade = self.min_grade;
        Ok(config)
    }

    fn client(&self) -> anyhow::Result<fanlight_client::Client> {
        Ok(fanlight_client::Client::new(self.client_config()?)?)
    }
}

fn read_policy(path: &std::path::Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_POLICY_LEN + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_POLICY_LEN { Err(io::Error::other("longer than any policy")) } else { Ok(text) }
}

async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let Cli { network, command } = cli;
    match command {
        Command::Proxy(args) => commands::proxy::run(&network, args).await,
        Command::Chat(args) => commands::chat::run(&network, args).await,
        Command::Providers(args) => commands::providers::run(&network, &args).await,
        Command::Receipts(args) => commands::receipts::run(&network, &args),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("FANLIGHT_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    match run(Cli::parse()).await {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            commands::note(&format!("fanlight: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whoever read the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
