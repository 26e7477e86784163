//! The command as a process.

mod append;
mod kill;
mod serve;
mod support;
mod witness;
mod witnesses;
