//! The command as a process.

mod append;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../../../stores/tests/s3/server.rs"]
mod bucket;
mod kill;
mod s3;
mod serve;
mod support;
mod witness;
mod witnesses;
