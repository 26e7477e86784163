//! The account of one exchange: who enrolled, what that proves, whom the client sealed to, the answer, and the checks.
#![expect(clippy::print_stdout, reason = "the account is what the demo is for")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use fanlight_auditlog::Policy;
use fanlight_client::Event;
use fanlight_devnet::Network;
use fanlight_protocol::RequestId;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_provider::engine::builtin;
use fanlight_verifier::{ProviderPolicy, verify_receipt};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::timeout;

const QUESTION: &str = "Write a haiku.";
/// Longest wait for one event of the exchange. Everything is on this machine.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn introduce(data: &Path) {
    println!("Fanlight on one machine: log, gateway, provider and client in this process, talking over loopback.");
    println!("The model is a test model of 0.9 million parameters; its answers are really generated, and often silly.");
    println!("Everything is kept in {}\n", data.display());
}

/// Makes one streamed exchange through the local proxy and checks all that can be checked; returns its receipt's id.
pub(crate) async fn run(network: &Network) -> anyhow::Result<RequestId> {
    let gateway = &network.gateway;
    step("log", &format!("origin {}", gateway.origin()));
    more(&format!("key    {}", gateway.log_vkey()));
    step("gateway", &format!("{} routes ciphertext; it sees model, sizes and times, and no text", gateway.url()));
    step("proxy", &format!("{} speaks OpenAI's API; it runs on your side and seals", network.base_url()));

    let mut events = network.proxy.client().events();
    let http = reqwest::Client::new();
    let request = json!({
        "model": builtin::MODEL_NAME,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": true,
        "temperature": 0,
    });
    let response = http
        .post(format!("{}/chat/completions", network.base_url()))
        .json(&request)
        .send()
        .await
        .context("send the request to the local proxy")?;
    let status = response.status();
    ensure!(status.is_success(), "get an answer: {status} {}", response.text().await.unwrap_or_default());
    let header = response.headers().get("x-fanlight-receipt").and_then(|id| id.to_str().ok());
    let receipt_id: RequestId = header.context("find the receipt id in the answer")?.parse()?;

    tell_before_answer(&mut events, receipt_id).await?;
    step("answer", "");
    let text = print_answer(response).await?;
    ensure!(!text.trim().is_empty(), "get an answer: it is empty");

    tell_after_answer(&mut events, receipt_id).await?;
    verify(network, &http, receipt_id).await?;
    Ok(receipt_id)
}

/// What is to be tried while the network stays up.
pub(crate) fn invite(network: &Network, id: RequestId) {
    let state = network.client_state();
    println!("The network stays up; Ctrl-C stops it. In another terminal:\n");
    println!("  curl {}/chat/completions -H 'content-type: application/json' \\", network.base_url());
    println!(
        "    -d '{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is 12 + 7?\"}}]}}'",
        builtin::MODEL_NAME
    );
    println!("  cargo run --release --bin fanlight-verify -- receipt {}/receipts/{id}.json", state.display());
    println!(
        "  cargo run --release --bin fanlight-verify -- fsck {}/log --log-key {}",
        network.gateway.url(),
        network.gateway.log_vkey()
    );
    println!();
}

async fn tell_before_answer(events: &mut broadcast::Receiver<Event>, id: RequestId) -> anyhow::Result<()> {
    loop {
        match next(events).await? {
            Event::Directory(snapshot) => {
                for provider in &snapshot.providers {
                    let verified = provider.verified();
                    let leaves = (verified.evidence_leaf_index(), verified.statement_leaf_index());
                    step(
                        "provider",
                        &format!(
                            "{} is enrolled: evidence is leaf {}, key statement leaf {}",
                            verified.provider_id(),
                            leaves.0,
                            leaves.1
                        ),
                    );
                    more(&format!("grade {}", verified.grade()));
                    for proven in verified.grade().proves() {
                        more(&format!("  proven      {proven}"));
                    }
                    for unproven in verified.grade().does_not_prove() {
                        more(&format!("  NOT proven  {unproven}"));
                    }
                }
                ensure!(snapshot.refused.is_empty(), "verify every listed provider");
            }
            Event::Sealed { receipt_id, recipients, request_len, .. } if receipt_id == id => {
                let names: Vec<_> = recipients.iter().map(|id| format!("{}…", id.short())).collect();
                step("request", &format!("\"{QUESTION}\""));
                more(&format!("sealed to {} and nobody else, {request_len} bytes with padding", names.join(", ")));
            }
            Event::Answering { receipt_id, .. } if receipt_id == id => return Ok(()),
            _ => {}
        }
    }
}

async fn tell_after_answer(events: &mut broadcast::Receiver<Event>, id: RequestId) -> anyhow::Result<()> {
    loop {
        match next(events).await? {
            Event::Receipt { receipt_id, provider_id, counter } if receipt_id == id => {
                step(
                    "receipt",
                    &format!("number {counter} of {}…, signed over the hashes of what was sent and got", provider_id.short()),
                );
            }
            Event::Logged { receipt_id, leaf_index, tree_size, origin } if receipt_id == id => {
                step("inclusion", &format!("the receipt is leaf {leaf_index} of the {tree_size} in {origin}"));
                return Ok(());
            }
            Event::NotLogged { receipt_id } if receipt_id == id => anyhow::bail!("prove that the receipt is logged"),
            _ => {}
        }
    }
}

/// Checks the bundle as `fanlight-verify receipt` does: with the bytes, the policy, and nothing from the running network.
async fn verify(network: &Network, http: &reqwest::Client, id: RequestId) -> anyhow::Result<()> {
    let url = format!("{}/receipts/{id}", network.base_url());
    let bundle: ReceiptBundle = http.get(&url).send().await?.error_for_status()?.json().await.context("read the receipt")?;
    let policy = Policy::parse(network.policy.as_bytes()).context("read the policy")?;
    let verified = verify_receipt(&bundle, &ProviderPolicy::new(policy)).context("verify the receipt offline")?;
    let details = verified.details();
    step(
        "verified",
        &format!(
            "model {}, {} tokens in, {} out, {}",
            details.model,
            details.usage.input,
            details.usage.output,
            details.status.as_str()
        ),
    );
    for check in [
        "the provider signed this exchange, and no other request or answer fits the receipt",
        "its key statement and evidence were in the log before the request was sealed to it",
        "the receipt is in the log: its inclusion proof leads to the root that the log signed",
    ] {
        more(&format!("ok  {check}"));
    }
    more(&format!("file: {}/receipts/{id}.json", network.client_state().display()));
    println!();
    Ok(())
}

/// Prints the streamed text as it comes.
async fn print_answer(response: reqwest::Response) -> anyhow::Result<String> {
    let mut stream = response.bytes_stream();
    let (mut held, mut text, mut done) = (Vec::new(), String::new(), false);
    print!("            ");
    while let Some(bytes) = stream.next().await {
        held.extend_from_slice(&bytes.context("read the answer")?);
        while let Some(end) = held.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = held.drain(..end + 2).collect();
            let data = String::from_utf8(event)?;
            let data = data.trim().strip_prefix("data: ").unwrap_or_default();
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(data).context("read an event of the answer")?;
            ensure!(chunk.get("error").is_none(), "read the answer: {}", chunk["error"]["message"]);
            let piece = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            text.push_str(piece);
            print!("{}", piece.replace('\n', "\n            "));
            std::io::stdout().flush()?;
        }
    }
    println!();
    ensure!(done, "read the answer to its end");
    Ok(text)
}

async fn next(events: &mut broadcast::Receiver<Event>) -> anyhow::Result<Event> {
    let event = timeout(PATIENCE, events.recv()).await.context("go on: nothing happened for a minute")?;
    event.context("follow the exchange")
}

fn step(name: &str, text: &str) {
    println!("{name:<10}  {text}");
}

fn more(text: &str) {
    println!("{:<10}  {text}", "");
}
