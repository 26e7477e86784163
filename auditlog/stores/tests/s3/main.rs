//! Logs in buckets of S3 servers that we did not write, reached over HTTP.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod contract;
mod faults;
mod log;
mod proxy;
mod server;
