//! Whole-system tests: real servers on real sockets, the real SDKs, files that outsiders check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chat;
mod evidence;
mod failures;
mod sdks;
mod secrecy;
