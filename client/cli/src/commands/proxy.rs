//! `fanlight proxy`.

use std::net::SocketAddr;

use anyhow::Context as _;
use fanlight_proxy::Config;
use tokio::net::TcpListener;

use super::{chain, note};
use crate::{Network, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; whoever can connect can use it
    #[arg(long, default_value = "127.0.0.1:8787", value_name = "ADDR")]
    listen: SocketAddr,
    /// A host name by which the proxy may be addressed, besides localhost; may be given again
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
}

pub(crate) async fn run(network: &Network, args: Args) -> anyhow::Result<Outcome> {
    let client = network.client_config()?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("failed to listen on {}; choose another with --listen", args.listen))?;
    let proxy = fanlight_proxy::start(Config { client, allowed_hosts: args.allowed_host }, listener)?;
    note(&format!("fanlight: OpenAI's API is at http://{}/v1; any API key will do", proxy.local_addr()));
    if !args.listen.ip().is_loopback() {
        note("fanlight: this address is not loopback: your prompts travel to it in clear, and others may use it");
    }
    match proxy.client().directory().await {
        Ok(snapshot) => {
            let (verified, refused) = (snapshot.providers.len(), snapshot.refused.len());
            note(&format!("fanlight: {verified} providers verified, {refused} listings refused"));
        }
        // The gateway may come later; requests say so until then.
        Err(error) => note(&format!("fanlight: {}", chain(&error))),
    }
    tokio::signal::ctrl_c().await.context("failed to wait for an interrupt")?;
    note("fanlight: stopping");
    proxy.shutdown().await;
    Ok(Outcome::Good)
}
