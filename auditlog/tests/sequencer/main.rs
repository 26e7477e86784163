//! Rounds, what they answer, and what is left of them when the store fails or the process dies.
//!
//! Clocks are paused: time passes only while everything waits for it, so that these tests are quick and always the same.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod append;
mod chaos;
mod cosign;
mod damage;
mod faults;
mod gather;
mod index;
mod pacing;
mod partials;
mod recovery;
mod rivals;
#[path = "../support/mod.rs"]
mod support;
