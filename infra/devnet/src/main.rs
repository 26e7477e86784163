//! `cargo run --release`: the embedded network, one real exchange, and an account of what was checked.

mod demo;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fanlight_devnet::{Config, Network};

/// Runs the whole of Fanlight on this machine: audit log, gateway, one provider with a small test model, and the local
/// OpenAI proxy. Makes one real sealed exchange, checks it, and stays up for yours.
#[derive(Debug, Parser)]
#[command(name = "fanlight-devnet", version)]
struct Cli {
    /// Where the log, keys and receipts are kept. Remove it to begin anew.
    #[arg(long, value_name = "DIR", default_value = ".fanlight")]
    data: PathBuf,
    /// The proxy listens on this port of 127.0.0.1, the gateway on the next.
    #[arg(long, value_name = "N", default_value_t = 8787, value_parser = clap::value_parser!(u16).range(1..=65534))]
    port_base: u16,
    /// Stop after the exchange; exit 0 only when everything about it verified.
    #[arg(long)]
    once: bool,
}

#[expect(unsafe_code, reason = "the environment is set before there are threads")]
fn main() -> ExitCode {
    // SAFETY: this is the first thing the process does.
    unsafe { fanlight_provider::sys::set_engine_threads() };
    start()
}

#[tokio::main]
async fn start() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanlight-devnet: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    demo::introduce(&cli.data);
    let network = Network::start(Config { port_base: Some(cli.port_base), ..Config::demo(&cli.data)? }).await?;
    let exchange = demo::run(&network).await;
    if let Ok(receipt_id) = exchange
        && !cli.once
    {
        demo::invite(&network, receipt_id);
        tokio::select! {
            signal = tokio::signal::ctrl_c() => signal?,
            () = network.gateway.failed() => anyhow::bail!("keep the log: it was changed by another; see above"),
        }
    }
    network.shutdown().await;
    exchange.map(drop)
}
