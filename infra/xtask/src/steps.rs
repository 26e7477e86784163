//! The checks, in the order in which they run.

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use crate::{
    chaos,
    command::Command,
    fuzz::{self, FUZZ_CRATES},
    set_up::set_up,
    tally::Tally,
    wasm,
    workspace::Workspace,
};

/// One check, or one runner of many.
struct Step {
    name: &'static str,
    heading: &'static str,
    /// Whether it uses what set-up installs.
    needs_set_up: bool,
    /// Whether the steps after it say anything once it has failed.
    gate: bool,
    run: fn(&Session<'_>) -> Result<Outcome>,
}

/// What holds for one run of xtask.
struct Session<'w> {
    workspace: &'w Workspace,
    /// The state of the checkout at the start; see [`tree`].
    tree_before: Option<String>,
}

enum Outcome {
    Counted(Tally),
    /// With the reason.
    Skipped(String),
}

impl Step {
    const fn new(name: &'static str, heading: &'static str, run: fn(&Session<'_>) -> Result<Outcome>) -> Self {
        Self { name, heading, needs_set_up: false, gate: false, run }
    }

    const fn needs_set_up(mut self) -> Self {
        self.needs_set_up = true;
        self
    }

    const fn gate(mut self) -> Self {
        self.gate = true;
        self
    }
}

/// Seeds of each scenario of the step `chaos`; `cargo xtask chaos --seeds N` takes more.
const CHAOS_SEEDS: u64 = 40;

const SET_UP: Step = Step::new("set-up", "install what is missing under target/xtask", |session| {
    set_up(session.workspace)?;
    Ok(Outcome::Counted(Tally::PASSED))
});

const STEPS: [Step; 15] = [
    SET_UP,
    Step::new("fmt", "formatting of the workspace and the fuzz crates", fmt),
    Step::new("clippy", "lints, warnings denied", clippy),
    Step::new("features", "the log as hosts without files and without a standard library build it, warnings denied", features),
    Step::new("wasm", "what runs in a Worker or a browser builds for wasm32", wasm),
    Step::new("doc", "documentation, warnings denied", doc),
    Step::new("build", "programs and tests", build).needs_set_up().gate(),
    Step::new("tests", "unit, property, vector, end-to-end and interop tests", tests).needs_set_up(),
    Step::new("doctests", "examples in the documentation", doctests),
    Step::new("chaos", "writers of a log killed, crowded and starved, a few seeds each", chaos),
    Step::new("deny", "who may import whom, licences, sources", deny).needs_set_up(),
    Step::new("advisories", "known vulnerabilities of dependencies", advisories).needs_set_up(),
    Step::new("shear", "dependencies that nothing uses", shear).needs_set_up(),
    Step::new("fuzz", "every parser on hostile bytes, 10 s each", fuzz).needs_set_up(),
    Step::new("tree", "generated files are up to date", tree),
];

/// Prints the names that `--only` takes.
pub(crate) fn list() {
    for step in &STEPS {
        println!("{:<10}  {}", step.name, step.heading);
    }
}

/// Runs all steps, or those named, and prints the closing summary as the last line.
pub(crate) fn test(workspace: &Workspace, only: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        bail!("no step is called {unknown:?}; `cargo xtask test --list` names them");
    }
    let chosen: Vec<&Step> = STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)).collect();
    if chosen[0].name != SET_UP.name && chosen.iter().any(|step| step.needs_set_up) {
        set_up(workspace)?;
    }

    let session = Session { workspace, tree_before: tree_state(workspace) };
    let start = Instant::now();
    let mut total = Tally::default();
    let mut remarks = Vec::new();
    let mut closed = false;
    for step in chosen {
        if closed {
            total += Tally::SKIPPED;
            remarks.push(format!("skipped: {}: an earlier step had to pass first", step.name));
            continue;
        }
        let (tally, remark) = run(step, &session);
        total += tally;
        closed = step.gate && tally.failed > 0;
        remarks.extend(remark);
    }

    println!("\n== {:.0} s in all", start.elapsed().as_secs_f64());
    for remark in remarks {
        println!("{remark}");
    }
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one step; the remark is what the closing report repeats.
fn run(step: &Step, session: &Session<'_>) -> (Tally, Option<String>) {
    println!("\n== {}: {}", step.name, step.heading);
    let start = Instant::now();
    let (tally, word, remark) = match (step.run)(session) {
        Ok(Outcome::Counted(tally)) if tally.failed == 0 => (tally, "ok", None),
        Ok(Outcome::Counted(tally)) if tally == Tally::FAILED => (tally, "FAILED", Some(format!("failed: {}", step.name))),
        Ok(Outcome::Counted(tally)) => (tally, "FAILED", Some(format!("failed: {}: {tally}", step.name))),
        Ok(Outcome::Skipped(why)) => {
            println!("skipped: {why}");
            (Tally::SKIPPED, "skipped", Some(format!("skipped: {}: {why}", step.name)))
        }
        Err(error) => {
            println!("{error:#}");
            (Tally::FAILED, "FAILED", Some(format!("failed: {}: did not run to its end", step.name)))
        }
    };
    println!("== {}: {word}, {:.1} s", step.name, start.elapsed().as_secs_f64());
    (tally, remark)
}

/// A step that is one program.
fn one(command: Command) -> Result<Outcome> {
    Ok(Outcome::Counted(Tally::of_program(&command.run()?)))
}

/// A step of several programs that all have to succeed.
fn all(commands: impl IntoIterator<Item = Command>) -> Result<Outcome> {
    for command in commands {
        if !command.run()?.status.success() {
            return Ok(Outcome::Counted(Tally::FAILED));
        }
    }
    Ok(Outcome::Counted(Tally::PASSED))
}

fn fmt(session: &Session<'_>) -> Result<Outcome> {
    // The workspace ends where the fuzz crates begin.
    let workspace = "--all".to_owned();
    let fuzz_crates = FUZZ_CRATES.map(|dir| format!("--manifest-path={dir}/Cargo.toml"));
    all([workspace]
        .into_iter()
        .chain(fuzz_crates)
        .map(|crates| session.workspace.cargo().arg("fmt").arg(crates).args(["--check", "--", "--color=never"])))
}

// Warnings are denied behind the `--`: in RUSTFLAGS they would have every dependency built once more.
fn clippy(session: &Session<'_>) -> Result<Outcome> {
    one(session.workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn features(session: &Session<'_>) -> Result<Outcome> {
    all([&[][..], &["--features=std"]].map(|features: &[&str]| {
        let package = ["clippy", "--package=fanlight-auditlog", "--no-default-features"];
        session.workspace.cargo().args(package).args(features).args(["--", "-D", "warnings"])
    }))
}

fn wasm(session: &Session<'_>) -> Result<Outcome> {
    Ok(wasm::check(session.workspace)?.map_or_else(
        || Outcome::Skipped("no compiler for wasm32 here; `rustup target add wasm32-unknown-unknown wasm32v1-none`".to_owned()),
        Outcome::Counted,
    ))
}

fn doc(session: &Session<'_>) -> Result<Outcome> {
    one(session.workspace.cargo().env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps"]))
}

// Programs too, since end-to-end tests start those of other crates. All targets at once: without the tests, dependencies
// would be built first without the features that only tests turn on, then once more with them.
fn build(session: &Session<'_>) -> Result<Outcome> {
    one(session.workspace.cargo().args(["build", "--workspace", "--all-targets"]))
}

fn tests(session: &Session<'_>) -> Result<Outcome> {
    let workspace = session.workspace;
    let nextest = workspace
        .cargo()
        .env("FANLIGHT_PYTHON", workspace.python())
        .env("FANLIGHT_NODE", workspace.node())
        .env("FANLIGHT_NODE_DIR", workspace.node_dir())
        .args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    Ok(Outcome::Counted(Tally::of_nextest(&nextest.run()?)))
}

fn doctests(session: &Session<'_>) -> Result<Outcome> {
    let doctests = session.workspace.cargo().args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    Ok(Outcome::Counted(Tally::of_doctests(&doctests.run()?)))
}

fn chaos(session: &Session<'_>) -> Result<Outcome> {
    Ok(Outcome::Counted(Tally::of_program(&chaos::chaos(session.workspace, CHAOS_SEEDS)?)))
}

fn deny(session: &Session<'_>) -> Result<Outcome> {
    one(session.workspace.cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

fn advisories(session: &Session<'_>) -> Result<Outcome> {
    if !session.workspace.cargo().args(["deny", "fetch", "db"]).capture()?.status.success() {
        return Ok(Outcome::Skipped("the advisory database cannot be fetched from here".to_owned()));
    }
    one(session.workspace.cargo().args(["deny", "check", "--disable-fetch", "advisories"]))
}

fn shear(session: &Session<'_>) -> Result<Outcome> {
    one(session.workspace.cargo().arg("shear"))
}

fn fuzz(session: &Session<'_>) -> Result<Outcome> {
    fuzz::fuzz(session.workspace).map(Outcome::Counted)
}

/// Fails when the checks themselves changed the checkout: a generated file, a vector or a lock file was out of date.
fn tree(session: &Session<'_>) -> Result<Outcome> {
    let Some(before) = &session.tree_before else {
        return Ok(Outcome::Skipped("this is no git checkout".to_owned()));
    };
    if tree_state(session.workspace).as_ref() == Some(before) {
        return Ok(Outcome::Counted(Tally::PASSED));
    }
    println!("the checks changed files of the checkout; `git status` now says:");
    one(session.workspace.command("git").args(["status", "--short"]))?;
    Ok(Outcome::Counted(Tally::FAILED))
}

/// Every change against the index, and every file git does not know; absent outside a git checkout.
fn tree_state(workspace: &Workspace) -> Option<String> {
    let git = |args: [&str; 3]| {
        let finished = workspace.command("git").args(args).capture().ok()?;
        finished.status.success().then_some(finished.output)
    };
    let status = git(["status", "--porcelain", "--untracked-files=all"])?;
    let changes = git(["diff", "--no-color", "--no-ext-diff"])?;
    Some(status + &changes)
}
