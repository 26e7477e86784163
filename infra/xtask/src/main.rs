//! Tests, benches and set-up, in one place.
//!
//! `cargo xtask test` runs every check; its last line is `N passed, N failed, N skipped`. `cargo xtask bench` measures.
//! What they install lies under `target/xtask`, and nowhere else.
#![expect(clippy::print_stdout, reason = "a command that reports on its standard output")]

mod bench;
mod command;
mod fuzz;
mod set_up;
mod steps;
mod tally;
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
        /// Run this bench alone.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
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
        Task::Bench { only } => bench::bench(&workspace, only.as_deref()),
    };
    finished.unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::FAILURE
    })
}
