//! `fanlight-verify`: checks a log, and what providers signed, without trusting whoever serves it.
//!
//! Exit status: 0 good, 1 checked and bad, 2 could not check. Standard output holds the result and nothing else.

mod args;
mod commands;
mod outcome;
mod policy;
mod source;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use fanlight_protocol::UnixTime;

use crate::args::{Cli, Command};
use crate::outcome::{Outcome, Verdict};

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let outcome = run(&command).unwrap_or_else(|error| {
        eprintln!("fanlight-verify: {error:#}");
        Outcome::unchecked(&error)
    });
    let written = if json {
        writeln!(io::stdout(), "{}", outcome.to_json(command.name()))
    } else {
        write!(io::stdout(), "{}", outcome.text)
    };
    match written {
        Ok(()) => outcome.verdict.into(),
        // Whoever reads a cut result must not take it for a good one.
        Err(_) => Verdict::Unchecked.into(),
    }
}

fn run(command: &Command) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    #[expect(clippy::disallowed_methods, reason = "the command reads the clock once and passes the time in")]
    let now = UnixTime::from(SystemTime::now());
    runtime.block_on(async {
        match command {
            Command::Consistency(args) => commands::consistency::run(args).await,
            Command::Fsck(args) => commands::fsck::run(args).await,
            Command::Proof(args) => commands::proof::run(args),
            Command::Provider(args) => commands::provider::run(args, now).await,
            Command::Receipt(args) => commands::receipt::run(args),
        }
    })
}
