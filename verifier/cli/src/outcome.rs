//! What a command found, for people and for programs.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use fanlight_protocol::UnixTime;
use serde_json::{Map, Value};

use crate::evidence::Evidence;
use crate::text::push_line;

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
    /// What proves a bad verdict to others.
    pub(crate) evidence: Option<Box<Evidence>>,
}

impl Outcome {
    /// `fields` is a JSON object.
    pub(crate) fn new(verdict: Verdict, text: String, fields: Value) -> Self {
        let Value::Object(fields) = fields else { unreachable!("commands report JSON objects") };
        Self { verdict, text, fields, evidence: None }
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

    /// The same outcome, with evidence.
    pub(crate) fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(Box::new(evidence));
        self
    }

    /// Writes the evidence, if there is any, and adds to the result where it lies. A result without its evidence stays
    /// what it is.
    pub(crate) fn write_evidence(&mut self, path: &Path, now: UnixTime) {
        let Some(evidence) = self.evidence.take() else { return };
        let error = self.fields.get("error").and_then(Value::as_str).unwrap_or_default();
        match evidence.write(path, error, now) {
            Ok(path) => {
                push_line(&mut self.text, format_args!("evidence    {}", path.display()));
                self.fields.insert("evidence".to_owned(), path.display().to_string().into());
            }
            Err(error) => {
                let path = path.display();
                eprintln!("fanlight-verify: the evidence was not written to {path}: {error}; give --evidence PATH");
                self.fields.insert("evidence".to_owned(), Value::Null);
            }
        }
    }

    pub(crate) fn to_json(&self, command: &str) -> Value {
        let mut object = Map::new();
        object.insert("command".to_owned(), command.into());
        object.insert("verdict".to_owned(), self.verdict.as_str().into());
        object.extend(self.fields.clone());
        object.into()
    }
}

/// A bad outcome on its way up: `?` ends the command with it.
#[derive(Debug, thiserror::Error)]
#[error("a check failed")]
pub(crate) struct Refused(pub(crate) Box<Outcome>);

impl From<Outcome> for Refused {
    fn from(outcome: Outcome) -> Self {
        Self(Box::new(outcome))
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
