//! Whole-system tests: real servers on real sockets, the real SDKs, files that outsiders check.

mod chat;
mod evidence;
mod failures;
mod sdks;
mod secrecy;
