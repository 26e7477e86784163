//! The commands, and how they write.

pub(crate) mod chat;
pub(crate) mod providers;
pub(crate) mod proxy;
pub(crate) mod receipts;

use std::io::{self, Write};
use std::time::SystemTime;

use fanlight_protocol::UnixTime;
use serde::Serialize;

/// One line for people, on standard error; standard output is for results.
pub(crate) fn note(line: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "{line}");
}

pub(crate) fn write_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Foreign text for a terminal: without the control characters that move the cursor or hide what was written.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

/// How long from one time to a later one, for people.
pub(crate) fn span(from: UnixTime, to: UnixTime) -> String {
    match to.as_secs().saturating_sub(from.as_secs()) {
        secs @ ..120 => format!("{secs} s"),
        secs @ ..7_200 => format!("{} min", secs / 60),
        secs @ ..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

pub(crate) fn now() -> UnixTime {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{7}\n\tc\u{9b}31m"), "a[2Jb\n\tc31m");
    }

    #[test]
    fn times_read_well() {
        let now = UnixTime::from_secs(1_000);
        for (then, text) in [(900, "0 s"), (1_090, "90 s"), (1_180, "3 min"), (22_000, "5 h"), (300_000, "3 d")] {
            assert_eq!(span(now, UnixTime::from_secs(then)), text);
        }
    }
}
