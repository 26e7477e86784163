//! What the provider counted since it started.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fanlight_protocol::entry::{Status, Usage};
use fanlight_protocol::problem::ProblemCode;
use serde::{Deserialize, Serialize};

/// Totals since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Exchanges whose answer was sealed to its end.
    pub complete: u64,
    /// Exchanges whose client or link went away.
    pub aborted: u64,
    /// Exchanges answered with a sealed error.
    pub failed: u64,
    /// Requests that were not opened, by code of SPEC §6.
    pub refused: BTreeMap<String, u64>,
    /// Receipts that could not be stored; the link was broken off each time.
    pub receipts_failed: u64,
    /// Tokens of input over all exchanges.
    pub input_tokens: u64,
    /// Tokens of output over all exchanges.
    pub output_tokens: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Totals>);

impl Counters {
    pub(crate) fn refused(&self, code: ProblemCode) {
        self.change(|totals| *totals.refused.entry(code.as_str().to_owned()).or_default() += 1);
    }

    pub(crate) fn receipt_failed(&self) {
        self.change(|totals| totals.receipts_failed += 1);
    }

    pub(crate) fn ended(&self, status: Status, usage: Usage) {
        self.change(|totals| {
            match status {
                Status::Complete => totals.complete += 1,
                Status::Aborted => totals.aborted += 1,
                Status::Failed => totals.failed += 1,
            }
            totals.input_tokens += u64::from(usage.input);
            totals.output_tokens += u64::from(usage.output);
        });
    }

    pub(crate) fn totals(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Totals)) {
        // Counters stay good after a panic elsewhere: each change is whole.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
