//! OpenAI's API on loopback: unmodified SDKs talk to this proxy, and it talks to sealed machines.
//!
//! The proxy verifies, seals, opens and checks through `fanlight-client`; it runs beside the program that uses it, so the
//! plaintext stays on the user's machine. What it serves comes from verified key statements and verified answers alone:
//! `[DONE]` is written only after the receipt verified, and a stream that cannot be verified ends in an error.
//!
//! **In scope:** `POST /v1/chat/completions`, `GET /v1/models`, `GET /v1/receipts`, and the guard against browsers.
//! **Out of scope:** authentication (whoever reaches loopback may use it; an SDK's `Authorization` is ignored and never
//! forwarded) and TLS.

mod chat_completions;
mod guard;
mod models;
mod problems;
mod receipts;
mod server;
pub mod sse;

pub use server::{Config, Proxy, StartError, start};
