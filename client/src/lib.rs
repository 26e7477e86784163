//! Client of Fanlight: seals chat completions to machines whose keys are in a public log, and believes only what it can check.
//!
//! The protocol is that of `protocol/SPEC.md`. [`Client::send`] fetches and verifies the directory, samples recipients at
//! random, seals, and opens the answer; an answer ends well only after its receipt verified. The gateway in between is
//! trusted with delivery alone: what it says without a signature is a [`Hint`].
//!
//! **In scope:** who is sealed to, the exchange, receipts on disk and their tlog proofs.
//! **Out of scope:** the sealing itself (`fanlight-sealing`), appraisal (`fanlight-verifier`), OpenAI's HTTP surface
//! (`fanlight-cli`).
//!
//! ```no_run
//! use fanlight_client::{ChatRequest, Client, Config};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = std::fs::read_to_string("fanlight.policy")?;
//! let client = Client::new(Config::new("https://gateway.example", policy, "/var/lib/fanlight"))?;
//! let request = ChatRequest::parse(r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}"#)?;
//! let answer = client.send(&request).await?.into_answer(1 << 20).await?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod directory;
mod event;
mod exchange;
mod frames;
mod gateway;
mod request;
mod sampling;
mod settlement;
mod store;

pub use client::{Client, SendError, SetUpError};
pub use config::{Clock, Config, Timeouts};
pub use directory::{DirectoryError, ListedProvider, RefusedListing, Snapshot};
pub use event::Event;
pub use exchange::{Answer, Exchange, ExchangeError};
pub use gateway::{GatewayError, Hint, TransportError};
pub use request::{ChatRequest, MAX_MESSAGE_LEN, RequestError};
pub use store::{ReceiptStore, StoreError};

pub use fanlight_sealing::SealError;
