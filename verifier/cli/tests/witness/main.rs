//! `fanlight-verify witness` as processes, over real sockets and on a real disk.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod process;
#[path = "../../../tests/witness/tree.rs"]
mod tree;
#[path = "../../../tests/world/mod.rs"]
mod world;

mod crashes;
mod network;
mod setup;
mod witnessing;
