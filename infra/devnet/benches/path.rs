//! What the sealed path costs: proxy, client, gateway, provider, receipt and log, beside the engine called directly.
//!
//! One engine serves both, in turns, with the same requests and so the same tokens. Prints one JSON object a line:
//! `{"name","value","unit","baseline","baseline_name","target"}`.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(unsafe_code, reason = "the environment is set before there are threads")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fanlight_devnet::{Config, Network};
use fanlight_provider::engine::{Engine, GenerationEvent, GenerationRequest, Limits, Role, Sampling, builtin};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// Each round measures every subject once; the median of the rounds counts.
const ROUNDS: usize = 15;
const LONG: u32 = 900;
const QUESTION: &str = "Hello";

fn main() -> anyhow::Result<()> {
    // SAFETY: this is the first thing the process does.
    unsafe { fanlight_provider::sys::set_engine_threads() };
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let engine: Arc<dyn Engine> = Arc::new(builtin::start(Limits::default())?);
    let config = Config {
        data: dir.path().to_owned(),
        port_base: None,
        engines: vec![Arc::clone(&engine)],
        max_delay: Duration::from_millis(250),
    };
    let network = Network::start(config).await?;
    let http = reqwest::Client::new();
    let seed = long_seed(&*engine).await?;

    let (mut direct, mut sealed, mut direct_one, mut sealed_one) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(run_direct(&*engine, seed, LONG).await?);
        sealed.push(run_sealed(&network, &http, seed, LONG).await?);
        direct_one.push(run_direct(&*engine, seed, 1).await?);
        sealed_one.push(run_sealed(&network, &http, seed, 1).await?);
    }
    let total = |runs: &[Run]| median(runs.iter().map(|run| run.total.as_secs_f64()).collect());
    let first = |runs: &[Run]| median(runs.iter().map(|run| run.first.as_secs_f64()).collect());
    let tokens = f64::from(LONG);
    let direct_name = "the engine called directly";
    report("path/tokens_per_second", tokens / total(&sealed), "tok/s", tokens / total(&direct), direct_name, Some(">= 0.95x"));
    report("path/first_token", first(&sealed) * 1e3, "ms", first(&direct) * 1e3, direct_name, None);
    report("path/one_token_request", total(&sealed_one) * 1e3, "ms", total(&direct_one) * 1e3, direct_name, None);
    let per_token = |runs: &[Run]| (total(runs) - first(runs)) / tokens * 1e6;
    report("path/each_further_token", per_token(&sealed), "us", per_token(&direct), direct_name, None);
    network.shutdown().await;
    Ok(())
}

struct Run {
    first: Duration,
    total: Duration,
}

/// A seed with which the model talks to the limit, so that both subjects generate the same many tokens.
async fn long_seed(engine: &dyn Engine) -> anyhow::Result<u64> {
    for seed in 0..200 {
        let mut stream = engine.submit(request(seed, LONG))?;
        while let Some(event) = stream.next().await {
            if let GenerationEvent::Finished { usage, .. } = event
                && usage.output == LONG
            {
                return Ok(seed);
            }
        }
    }
    anyhow::bail!("no seed below 200 makes the model talk for {LONG} tokens")
}

fn request(seed: u64, max_output_tokens: u32) -> GenerationRequest {
    let sampling = Sampling { temperature: 2.0, seed, ..Sampling::GREEDY };
    let chat = GenerationRequest::chat(builtin::MODEL_NAME, [(Role::User, QUESTION)]);
    GenerationRequest { sampling, max_output_tokens: Some(max_output_tokens), ..chat }
}

async fn run_direct(engine: &dyn Engine, seed: u64, tokens: u32) -> anyhow::Result<Run> {
    let start = Instant::now();
    let mut stream = engine.submit(request(seed, tokens))?;
    let mut first = None;
    while let Some(event) = stream.next().await {
        match event {
            GenerationEvent::Text { .. } => drop(first.get_or_insert_with(|| start.elapsed())),
            GenerationEvent::Finished { usage, .. } => ensure!(usage.output == tokens, "other tokens than before"),
            other => anyhow::bail!("generation failed: {other:?}"),
        }
    }
    let total = start.elapsed();
    Ok(Run { first: first.unwrap_or(total), total })
}

async fn run_sealed(network: &Network, http: &reqwest::Client, seed: u64, tokens: u32) -> anyhow::Result<Run> {
    let body = json!({
        "model": builtin::MODEL_NAME,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "temperature": 2.0,
        "seed": seed,
        "max_completion_tokens": tokens,
    });
    let start = Instant::now();
    let response = http.post(format!("{}/chat/completions", network.base_url())).json(&body).send().await?.error_for_status()?;
    let (mut stream, mut bytes, mut first) = (response.bytes_stream(), Vec::new(), None);
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
        first.get_or_insert_with(|| start.elapsed());
    }
    let total = start.elapsed();
    let text = String::from_utf8(bytes)?;
    ensure!(text.ends_with("data: [DONE]\n\n"), "the answer was cut");
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
    let usage = events.filter_map(|json| serde_json::from_str::<Value>(&format!("{{{json}")).ok());
    let output = usage.filter_map(|chunk| chunk["usage"]["completion_tokens"].as_u64()).last().context("find the usage")?;
    ensure!(output == u64::from(tokens), "other tokens than the engine generates directly");
    Ok(Run { first: first.unwrap_or(total), total })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(name: &str, value: f64, unit: &str, baseline: f64, baseline_name: &str, target: Option<&str>) {
    let mut line = json!({"name": name, "value": value, "unit": unit, "baseline": baseline, "baseline_name": baseline_name});
    if let Some(target) = target {
        line["target"] = target.into();
    }
    println!("{line}");
}
