//! `fanlight chat`: through the SDK, without a proxy in between.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context as _, bail};
use fanlight_client::{ChatRequest, Client, Exchange, SendError};
use fanlight_protocol::problem::ApiError;
use fanlight_proxy::sse::{EventSplitter, data};
use serde::{Deserialize, Serialize};

use super::{chain, note, printable};
use crate::{Network, Outcome};

/// Longest prompt that is read from a pipe, in bytes.
const MAX_PROMPT_LEN: u64 = fanlight_client::MAX_MESSAGE_LEN as u64;
/// Longest sealed error that is read, in bytes.
const MAX_ERROR_LEN: usize = 64 * 1024;
/// How long to wait at the end for receipts to be logged.
const SETTLE_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say this and end with the answer; without it, read lines from the terminal, or all of what is piped in
    prompt: Option<String>,
    /// Model to ask; needed where several are offered
    #[arg(long, short)]
    model: Option<String>,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

/// One conversation.
struct Chat {
    client: Client,
    model: String,
    max_tokens: Option<u32>,
    messages: Vec<Message>,
    // Control characters are kept out of a terminal, and left alone in a pipe.
    to_terminal: bool,
}

/// Why a turn gave no answer.
enum Failed {
    /// Of the answer itself: it was refused, or did not verify.
    Answer(String),
    Other(anyhow::Error),
}

pub(crate) async fn run(network: &Network, args: Args) -> anyhow::Result<Outcome> {
    let client = network.client()?;
    let model = choose_model(&client, args.model).await?;
    let messages = args.system.map(|content| Message { role: "system", content }).into_iter().collect();
    let to_terminal = io::stdout().is_terminal();
    let mut chat = Chat { client, model, max_tokens: args.max_tokens, messages, to_terminal };
    let outcome = match args.prompt {
        Some(prompt) => chat.say(prompt).await,
        None if io::stdin().is_terminal() => chat.converse().await,
        None => chat.say(tokio::task::spawn_blocking(read_all).await??).await,
    };
    // Proofs that are not there by then are fetched by the next proxy.
    let _ = tokio::time::timeout(SETTLE_WAIT, chat.client.settled()).await;
    outcome
}

async fn choose_model(client: &Client, wanted: Option<String>) -> anyhow::Result<String> {
    if let Some(model) = wanted {
        return Ok(model);
    }
    let snapshot = client.directory().await.context("failed to get the directory; is the gateway up?")?;
    let mut models: Vec<_> = snapshot.providers.iter().flat_map(|provider| &provider.verified().key_statement().models).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models.dedup_by(|a, b| a.name == b.name);
    match models.as_slice() {
        [] => bail!("no model is offered by a provider that verifies under your policy; see `fanlight providers`"),
        [only] => Ok(only.name.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|model| model.name.as_str()).collect();
            bail!("choose a model with --model: {}", names.join(", "))
        }
    }
}

fn read_all() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_PROMPT_LEN + 1).read_to_string(&mut text).context("failed to read standard input")?;
    if read as u64 > MAX_PROMPT_LEN {
        bail!("what was piped in is longer than a request may be ({MAX_PROMPT_LEN} bytes)");
    }
    Ok(text)
}

impl Chat {
    /// Lines from the terminal until its end. A failed turn is taken back, and the conversation goes on.
    async fn converse(&mut self) -> anyhow::Result<Outcome> {
        note(&format!("fanlight: {}; end with Ctrl-D", self.model));
        loop {
            write!(io::stderr(), "> ")?;
            io::stderr().flush()?;
            let line = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(|read| (read > 0).then_some(line))
            });
            let Some(line) = line.await?? else { return Ok(Outcome::Good) };
            if line.trim().is_empty() {
                continue;
            }
            match self.turn(line).await {
                Ok(()) => {}
                Err(Failed::Answer(reason)) => note(&format!("fanlight: {reason}")),
                Err(Failed::Other(error)) => note(&format!("fanlight: {error:#}")),
            }
        }
    }

    /// One turn, whose failure is that of the command.
    async fn say(&mut self, prompt: String) -> anyhow::Result<Outcome> {
        if prompt.trim().is_empty() {
            bail!("there is nothing to say; give a prompt, or pipe one in");
        }
        match self.turn(prompt).await {
            Ok(()) => Ok(Outcome::Good),
            Err(Failed::Answer(reason)) => {
                note(&format!("fanlight: {reason}"));
                Ok(Outcome::Bad)
            }
            Err(Failed::Other(error)) => Err(error),
        }
    }

    async fn turn(&mut self, prompt: String) -> Result<(), Failed> {
        let said = self.messages.len();
        self.messages.push(Message { role: "user", content: prompt.trim_end().to_owned() });
        let answer = self.exchange().await;
        match answer {
            Ok(content) => {
                self.messages.push(Message { role: "assistant", content });
                Ok(())
            }
            Err(failed) => {
                self.messages.truncate(said);
                Err(failed)
            }
        }
    }

    async fn exchange(&self) -> Result<String, Failed> {
        let body = Body { model: &self.model, messages: &self.messages, stream: true, max_completion_tokens: self.max_tokens };
        let body = serde_json::to_vec(&body).map_err(|error| Failed::Other(error.into()))?;
        let request = ChatRequest::parse(body).map_err(|error| Failed::Other(error.into()))?;
        let exchange = self.client.send(&request).await.map_err(|error| match error {
            SendError::Exchange(error) => Failed::Answer(chain(&error)),
            other => Failed::Other(other.into()),
        })?;
        if exchange.status() != 200 {
            return Err(refusal(exchange).await);
        }
        let (receipt_id, provider) = (exchange.receipt_id(), exchange.provider().verified());
        let signed = format!("receipt {receipt_id}, {}, {}", provider.provider_id().short(), provider.grade());
        let content = self.print(exchange).await?;
        note(&format!("[{signed}]"));
        Ok(content)
    }

    /// Shows content as it comes; an error at the end says that what was shown is not the answer.
    async fn print(&self, mut exchange: Exchange) -> Result<String, Failed> {
        let mut events = EventSplitter::default();
        let mut content = String::new();
        let outcome = loop {
            match exchange.next().await {
                Ok(Some(bytes)) => events.push(&bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(Failed::Answer(format!("do not rely on this: {}", chain(&error)))),
            }
            while let Some(event) = events.next_event().map_err(|error| Failed::Answer(error.to_string()))? {
                let Some(delta) = data(&event).and_then(delta) else { continue };
                let shown = if self.to_terminal { printable(&delta) } else { delta.clone() };
                show(&shown).map_err(|error| Failed::Other(error.into()))?;
                content += &delta;
            }
        };
        if !content.ends_with('\n') {
            show("\n").map_err(|error| Failed::Other(error.into()))?;
        }
        outcome.map(|()| content)
    }
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The content of a chunk, if it has any.
fn delta(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        delta: Delta,
    }
    #[derive(Deserialize)]
    struct Delta {
        content: Option<String>,
    }
    serde_json::from_slice::<Chunk>(json).ok()?.choices.into_iter().next()?.delta.content
}

/// A sealed error: the provider's own word, once its receipt has verified.
async fn refusal(exchange: Exchange) -> Failed {
    #[derive(Deserialize)]
    struct Sealed {
        error: ApiError,
    }
    let status = exchange.status();
    match exchange.into_answer(MAX_ERROR_LEN).await {
        Ok(answer) => {
            let message = serde_json::from_slice::<Sealed>(&answer.body).map(|sealed| sealed.error.message);
            Failed::Answer(format!("provider answered {status}: {}", printable(&message.unwrap_or_default())))
        }
        Err(error) => Failed::Answer(chain(&error)),
    }
}
