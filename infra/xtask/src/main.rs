//! Tests, benches and set-up, in one place.
//!
//! `cargo xtask test` runs every check; its last line is `N passed, N failed, N skipped`. `cargo xtask bench` measures,
//! `cargo xtask chaos` kills writers of a log for as long as one cares to watch.
//! What they install lies under `target/xtask`, and nowhere else.
#![expect(clippy::print_stdout, reason = "a command that reports on its standard output")]

mod bench;
mod chaos;
mod command;
mod fuzz;
mod set_up;
mod steps;
mod tally;
mod wasm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Tests, benches and set-up of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, then run every check.
    Test {
        /// Run these steps alone; may be given several times.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// Print the steps and exit.
        #[arg(long, conflicts_with = "only")]
        list: bool,
    },
    /// Measure, print a table and write `target/bench.json`.
    Bench {
        /// Run the benches alone whose name or package contains this; may be given several times.
        #[arg(long, value_name = "TEXT")]
        only: Vec<String>,
        /// Print the table and write nothing.
        #[arg(long)]
        print_only: bool,
        /// Print the benches and exit.
        #[arg(long)]
        list: bool,
    },
    /// Kill, crowd and starve real writers of a log, and print what they withstood.
    Chaos {
        /// Seeds of each scenario.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let workspace = Workspace::locate();
    let finished = match Args::parse().task {
        Task::Test { list: true, .. } => {
            steps::list();
            Ok(ExitCode::SUCCESS)
        }
        Task::Test { only, .. } => steps::test(&workspace, &only),
        Task::Bench { only, list: true, .. } => bench::list(&workspace, &only).map(|()| ExitCode::SUCCESS),
        Task::Bench { only, print_only, list: false } => bench::bench(&workspace, &only, print_only),
        Task::Chaos { seeds } => chaos::chaos(&workspace, seeds).map(|finished| match finished.status.code() {
            Some(0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }),
    };
    finished.unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::FAILURE
    })
}
