//! The witness on the public API: every status of C2SP tlog-witness, its records, and what attacks on them get.

mod running;
#[path = "../tree/mod.rs"]
mod tree;

mod cosigning;
mod properties;
mod races;
mod records;
mod statuses;
