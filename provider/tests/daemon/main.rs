//! The provider through its public API, its link and its command line: against a gateway that speaks SPEC §8 by hand.

mod credit;
mod exchange;
mod keys;
mod link;
mod process;
mod receipts;
mod stream;
mod support;
