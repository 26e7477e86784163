//! `fanlight-verify`: checks a log, and what providers signed, without trusting whoever serves it.
//!
//! Exit status: 0 good, 1 checked and bad, 2 could not check. Standard output holds the result and nothing else.

mod args;
mod commands;
mod durable;
mod evidence;
mod http;
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
use crate::outcome::{Outcome, Refused, Verdict};

fn main() -> ExitCode {
    let Cli { json, evidence, command } = Cli::parse();
    let now = clock();
    let mut outcome = run(&command, json, now).unwrap_or_else(|error| match error.downcast::<Refused>() {
        Ok(Refused(outcome)) => *outcome,
        Err(error) => {
            eprintln!("fanlight-verify: {error:#}");
            Outcome::unchecked(&error)
        }
    });
    outcome.write_evidence(&evidence, now);
    match print(&outcome, json, &command) {
        Ok(()) => outcome.verdict.into(),
        // Whoever reads a cut result must not take it for a good one.
        Err(_) => Verdict::Unchecked.into(),
    }
}

fn print(outcome: &Outcome, json: bool, command: &Command) -> io::Result<()> {
    if json { writeln!(io::stdout(), "{}", outcome.to_json(command.name())) } else { write!(io::stdout(), "{}", outcome.text) }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock; commands are given the time")]
fn clock() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn run(command: &Command, json: bool, now: UnixTime) -> anyhow::Result<Outcome> {
    let mut builder = match command {
        // The one command that serves others.
        Command::Witness(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Consistency(args) => commands::consistency::run(args).await,
            Command::Fsck(args) => commands::fsck::run(args).await,
            Command::Mirror(args) => commands::mirror::run(args).await,
            Command::Monitor(args) => {
                let print = |outcome: &Outcome| Ok(print(outcome, json, command)?);
                commands::monitor::run(args, clock, print).await
            }
            Command::Proof(args) => commands::proof::run(args),
            Command::Provider(args) => commands::provider::run(args, now).await,
            Command::Receipt(args) => commands::receipt::run(args),
            Command::Witness(args) => commands::witness::run(args, json, clock).await,
        }
    })
}
