//! The provider: the daemon that opens sealed requests inside one process, runs the model, seals the answer and signs for it.
//!
//! The data flow is one direction: [`link`](crate) brings a request, `exchange` opens it with a key of [`keys`], checks it
//! with [`api`], runs it on an [`engine`], seals the frames, and [`receipts`] signs for it.
//!
//! **In scope:** keys behind the enclave seam, the engine, the receipt chain, the link to one gateway.
//! **Out of scope:** listening sockets (a provider only connects out), the log (the gateway appends; the provider can send a
//! receipt again), prices.
//!
//! Plaintext lives in this process only: in no log line, error or file.

pub mod api;
mod counters;
mod daemon;
pub mod enclave;
pub mod engine;
mod exchange;
pub mod keys;
mod link;
pub mod receipts;
pub mod status;
pub mod sys;

pub use counters::Totals;
pub use daemon::{Config, DataDir, LinkState, Provider, StartError};
pub use link::LinkError;
