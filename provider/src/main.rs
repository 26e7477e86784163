//! `fanlight-provider`: serves a model from this machine, and tells how that goes.

mod doctor;
mod model_source;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use fanlight_provider::{Config, DataDir, LinkState, Provider, status};

use self::model_source::ModelSource;

/// Serves AI models from this machine: requests arrive sealed, are opened in this process only, and every answer is signed.
#[derive(Debug, Parser)]
#[command(name = "fanlight-provider", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that this machine can serve; each finding says what to do.
    Doctor(ServeArgs),
    /// Enrol with the gateway and serve until stopped.
    Serve(ServeArgs),
    /// Ask the running daemon how it goes.
    Status {
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct DataArgs {
    /// Identity key, receipt journal and control socket. Whoever reads it can sign as this provider.
    #[arg(long, value_name = "DIR", env = "FANLIGHT_PROVIDER_DATA", default_value_os_t = default_data_dir())]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The gateway's address. It is trusted with neither keys nor text.
    #[arg(long, value_name = "URL", env = "FANLIGHT_GATEWAY", default_value = "http://127.0.0.1:8788")]
    gateway: String,
    /// A model in Hugging Face layout: config.json, tokenizer.json, *.safetensors. Without it the built-in test model is served.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Name under which --model is offered. [default: the directory's name]
    #[arg(long, value_name = "NAME", requires = "model")]
    model_name: Option<String>,
    /// Requests served at once; others wait or go to another provider.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    capacity: u32,
    /// Minutes after which the key that opens requests is replaced.
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=300))]
    rotate: u64,
}

impl ServeArgs {
    fn model_source(&self) -> ModelSource {
        ModelSource::new(self.model.clone(), self.model_name.clone())
    }
}

#[expect(unsafe_code, reason = "the environment is set before there are threads")]
fn main() -> ExitCode {
    // SAFETY: this is the first thing the process does.
    unsafe { fanlight_provider::sys::set_engine_threads() };
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let done = match Cli::parse().command {
        Command::Doctor(args) => Ok(doctor::run(&args.data.data, &args.gateway, &args.model_source()).await),
        Command::Serve(args) => serve(args).await.map(|()| ExitCode::SUCCESS),
        Command::Status { data, json } => print_status(data, json).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("fanlight-provider: {error:#}");
        ExitCode::FAILURE
    })
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    // Installed once for the process; a second install would only be refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let engine = args.model_source().start()?;
    let socket = DataDir::new(&args.data.data).control_socket();
    let provider = Provider::start(Config {
        gateway: args.gateway,
        data_dir: args.data.data,
        engine: Arc::from(engine),
        capacity: args.capacity,
        rotation: Duration::from_secs(args.rotate * 60),
    })
    .map_err(|error| anyhow::anyhow!(error).context("cannot start"))?;
    tracing::info!(provider = %provider.provider_id(), grade = "self-signed", "starting; nothing but its own key vouches for this machine");

    let mut link = provider.link_state();
    tokio::select! {
        served = status::serve(&socket, || provider.status()) => served.context("the control socket failed")?,
        () = log_link(&mut link) => {}
        signal = stop_signal() => signal?,
    }
    tracing::info!("stopping: running requests are finished first");
    provider.shutdown().await;
    // A socket that is left behind says "not running" all the same.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

async fn log_link(link: &mut tokio::sync::watch::Receiver<LinkState>) {
    while link.changed().await.is_ok() {
        if *link.borrow_and_update() == LinkState::Listed {
            tracing::info!("listed: key and evidence are in the audit log, requests can come");
        }
    }
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the status is this command's output")]
async fn print_status(data: DataArgs, json: bool) -> anyhow::Result<ExitCode> {
    let socket = DataDir::new(&data.data).control_socket();
    let status = match status::ask(&socket).await {
        Ok(status) => status,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            eprintln!("fanlight-provider: no provider runs on {}; start one with `fanlight-provider serve`", data.data.display());
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot ask {}", socket.display())),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("provider   {}", status.provider_id);
    println!("grade      {} (nothing but its own key vouches for this machine)", status.grade);
    println!("gateway    {} ({})", status.gateway, status.link);
    if let Some(reason) = &status.reason {
        // The reason may quote a gateway, which must not reach the terminal's control codes.
        println!("           {}", reason.replace(char::is_control, " "));
    }
    println!("models     {}", status.models.join(", "));
    println!("requests   {} running, {} waiting, capacity {}", status.running, status.waiting, status.capacity);
    let totals = &status.totals;
    let refused: u64 = totals.refused.values().sum();
    println!("served     {} complete, {} aborted, {} failed, {refused} refused", totals.complete, totals.aborted, totals.failed);
    for (code, n) in &totals.refused {
        println!("           {n} x {code}");
    }
    println!("tokens     {} in, {} out", totals.input_tokens, totals.output_tokens);
    Ok(ExitCode::SUCCESS)
}

fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    base.join("fanlight/provider")
}
