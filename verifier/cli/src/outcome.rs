//! What a command found, for people and for programs.

use std::error::Error;
use std::process::ExitCode;

use serde_json::{Map, Value};

/// The one answer that counts; also the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything was checked and holds.
    Good,
    /// Checked, and something does not hold.
    Bad,
    /// Not everything could be checked.
    Unchecked,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unchecked => "unchecked",
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::Bad => Self::from(1),
            Verdict::Unchecked => Self::from(2),
        }
    }
}

/// A verdict with its grounds.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// For people; ends in a newline or is empty.
    pub(crate) text: String,
    /// For programs, beside `command` and `verdict`.
    pub(crate) fields: Map<String, Value>,
}

impl Outcome {
    /// `fields` is a JSON object.
    pub(crate) fn new(verdict: Verdict, text: String, fields: Value) -> Self {
        let Value::Object(fields) = fields else { unreachable!("commands report JSON objects") };
        Self { verdict, text, fields }
    }

    /// Something that was checked and does not hold.
    pub(crate) fn bad(what: &str, error: &(dyn Error + 'static)) -> Self {
        let error = chain(error);
        let text = format!("BAD: {what}: {error}\n");
        Self::new(Verdict::Bad, text, serde_json::json!({ "error": error }))
    }

    /// Nothing was checked; the reason is on standard error already.
    pub(crate) fn unchecked(error: &anyhow::Error) -> Self {
        Self::new(Verdict::Unchecked, String::new(), serde_json::json!({ "error": format!("{error:#}") }))
    }

    pub(crate) fn to_json(&self, command: &str) -> Value {
        let mut object = Map::new();
        object.insert("command".to_owned(), command.into());
        object.insert("verdict".to_owned(), self.verdict.as_str().into());
        object.extend(self.fields.clone());
        object.into()
    }
}

/// An error with its sources, joined by colons.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    // A transparent error and its source read the same.
    texts.dedup();
    texts.join(": ")
}
