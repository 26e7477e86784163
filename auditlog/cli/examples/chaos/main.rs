//! Kills, crowds and starves real writers of a log, and checks after each blow that the log is whole.
//!
//! `cargo xtask chaos` builds and runs it. Each scenario is a row of the table that it prints; the exit code is 0 when
//! every scenario held. Moments are drawn from the seed, so a seed names a plan; what it meets depends on the machine.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod crowd;
mod full_disk;
mod kills;
mod mortal;
mod random;
mod trial;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser;

use crate::mortal::Death;
use crate::trial::Trial;

/// Reliability runs against real processes.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds of each scenario.
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// The fanlight-log program.
    #[arg(long, value_name = "PROGRAM")]
    log: PathBuf,
    /// Run in here, where file systems can be mounted; the program calls itself with this.
    #[arg(long, value_name = "DIR", hide = true)]
    full_disk_in: Option<PathBuf>,
    /// Be a writer of the log in this directory; the program calls itself with this and the next two.
    #[arg(long, value_name = "DIR", hide = true)]
    append_to: Option<PathBuf>,
    #[arg(long, value_name = "OPERATION", default_value_t = 0, hide = true)]
    last: u64,
    #[arg(long, hide = true)]
    finish_last: bool,
}

/// What a scenario did, all of it checked.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Processes started.
    starts: u64,
    /// Those that ended as the scenario meant them to: killed, refused, out of space.
    blows: u64,
    /// Entries acknowledged, each found at its index afterwards.
    acknowledged: u64,
    /// Times that every byte of the log was recomputed.
    checks: u64,
    /// Checkpoints seen, each found consistent with the last one.
    checkpoints: u64,
}

impl Counts {
    /// Adds what a trial has seen and checked.
    fn add(&mut self, trial: &Trial) {
        self.acknowledged += trial.n_acknowledged();
        self.checks += trial.n_checks();
        self.checkpoints += trial.n_checkpoints();
    }

    /// The counts as [`fmt::Display`] writes them.
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [starts, blows, acknowledged, checks, checkpoints] = numbers[..] else { return None };
        Some(Self { starts, blows, acknowledged, checks, checkpoints })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { starts, blows, acknowledged, checks, checkpoints } = self;
        write!(f, "{starts} {blows} {acknowledged} {checks} {checkpoints}")
    }
}

/// A scenario: its row's heading, and its work, `None` where this machine cannot do it.
type Scenario = (&'static str, fn(&Args) -> anyhow::Result<Option<Counts>>);

const SCENARIOS: [Scenario; 5] = [
    ("killed before and after every operation of its store", kills::at_every_operation),
    ("killed at a random moment", kills::at_random_moments),
    ("killed at a random answer", kills::at_random_answers),
    ("second writer on the directory", crowd::second_writer),
    ("disk full", full_disk::run),
];

fn main() -> ExitCode {
    let args = Args::parse();
    let played = match (&args.full_disk_in, &args.append_to) {
        (Some(dir), _) => full_disk::inside(&args, dir).map(|counts| println!("{counts}")),
        (None, Some(dir)) => mortal::append(dir, Death { operation: args.last, is_after: args.finish_last }),
        (None, None) => run(&args),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays every scenario and prints its row.
fn run(args: &Args) -> anyhow::Result<()> {
    println!("| writer | starts | blows | acknowledged entries | full checks | checkpoints | seconds | result |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut failures = Vec::new();
    // All at once: each spends most of its time waiting for a disk, or for a writer to end.
    let outcomes = thread::scope(|scope| {
        let playing = SCENARIOS.map(|(heading, scenario)| {
            scope.spawn(move || {
                let start = Instant::now();
                (scenario(args).with_context(|| heading.to_owned()), start.elapsed().as_secs_f64())
            })
        });
        playing.map(|scenario| scenario.join().unwrap_or_else(|_| (Err(anyhow!("panicked")), 0.0)))
    });
    for ((heading, _), (outcome, seconds)) in SCENARIOS.iter().zip(outcomes) {
        match outcome {
            Ok(Some(Counts { starts, blows, acknowledged, checks, checkpoints })) => {
                println!("| {heading} | {starts} | {blows} | {acknowledged} | {checks} | {checkpoints} | {seconds:.0} | held |");
            }
            Ok(None) => println!("| {heading} | - | - | - | - | - | - | cannot be done here |"),
            Err(error) => {
                println!("| {heading} | - | - | - | - | - | {seconds:.0} | FAILED |");
                failures.push(error);
            }
        }
    }
    for failure in &failures {
        println!("FAILED: {failure:#}");
    }
    ensure!(failures.is_empty(), "{} scenarios failed", failures.len());
    Ok(())
}
