//! Runs every fuzz target for a short while, from the bytes in the test vectors.
//!
//! libFuzzer needs its coverage instrumentation in the whole build, hence crates outside the workspace and a target
//! directory of their own. The flags are those of the stable compiler; our parsers are safe Rust, so no sanitizer is used.

use std::{
    fs,
    io::ErrorKind,
    num::NonZero,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::{tally::Tally, workspace::Workspace};

/// Every crate of fuzz targets, and beside it the `testdata` that seeds them.
pub(crate) const FUZZ_CRATES: [&str; 2] = ["protocol/fuzz", "auditlog/fuzz"];

const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";

const SECONDS_PER_TARGET: u32 = 10;
/// One input that takes longer is a finding.
const SECONDS_PER_INPUT: u32 = 5;
const MEGABYTES: u32 = 2048;

pub(crate) fn fuzz(workspace: &Workspace) -> Result<Tally> {
    let host = workspace.command("rustc").args(["--print", "host-tuple"]).expect_success()?;
    let mut total = Tally::default();
    for crate_dir in FUZZ_CRATES {
        let manifest = workspace.root().join(crate_dir).join("Cargo.toml");
        let targets = targets(workspace, &manifest)?;
        if targets.is_empty() {
            bail!("{crate_dir} has no target");
        }
        // With `--target`, build scripts and macros are built without the flags; they could not be linked with them.
        let build = workspace
            .cargo()
            .env("RUSTFLAGS", RUSTFLAGS)
            .args(["build", "--quiet", "--release", "--bins", "--target", host.trim(), "--target-dir"])
            .arg(fuzz_dir(workspace))
            .arg("--manifest-path")
            .arg(&manifest);
        if !build.run()?.status.success() {
            bail!("{crate_dir} does not build");
        }

        let seeds = seeds(&workspace.root().join(crate_dir).with_file_name("testdata"))?;
        let programs = fuzz_dir(workspace).join(host.trim()).join("release");
        total += run_all(workspace, &programs, &targets, &seeds)?;
    }
    Ok(total)
}

/// Runs as many at a time as there are processors: a target uses one.
fn run_all(workspace: &Workspace, programs: &Path, targets: &[String], seeds: &[Vec<u8>]) -> Result<Tally> {
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().ok()?.next();
    let work = || {
        let mut total = Tally::default();
        while let Some(target) = next() {
            total += run(workspace, programs, target, seeds)?;
        }
        Ok(total)
    };
    let n = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..n).map(|_| scope.spawn(work)).collect();
        let mut total = Tally::default();
        for worker in workers {
            total += worker.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))?;
        }
        Ok(total)
    })
}

fn run(workspace: &Workspace, programs: &Path, target: &str, seeds: &[Vec<u8>]) -> Result<Tally> {
    let corpus = fuzz_dir(workspace).join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    for (n, seed) in seeds.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{n}")), seed)?;
    }
    let artifacts = fuzz_dir(workspace).join("artifacts").join(target);
    fs::create_dir_all(&artifacts)?;

    let finished = workspace
        .command(programs.join(target))
        .args(["-print_final_stats=1".to_owned(), format!("-max_total_time={SECONDS_PER_TARGET}")])
        .args([format!("-timeout={SECONDS_PER_INPUT}"), format!("-rss_limit_mb={MEGABYTES}")])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .capture()?;
    let executed = executed_units(&finished.output);
    if finished.status.success() && executed > 0 {
        println!("ok {target}: {executed} inputs from {} seeds", seeds.len());
        return Ok(Tally::PASSED);
    }
    println!("{}", finished.output.trim_end());
    println!("FAILED {target}: {}; inputs that fail lie in {}", finished.status, artifacts.display());
    Ok(Tally::FAILED)
}

fn fuzz_dir(workspace: &Workspace) -> PathBuf {
    workspace.target().join("fuzz")
}

/// The names of the programs of a crate.
fn targets(workspace: &Workspace, manifest: &Path) -> Result<Vec<String>> {
    let metadata = workspace
        .cargo()
        .args(["metadata", "--quiet", "--no-deps", "--format-version=1", "--manifest-path"])
        .arg(manifest)
        .expect_success()?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let programs = metadata["packages"][0]["targets"].as_array().into_iter().flatten();
    Ok(programs
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

fn executed_units(output: &str) -> u64 {
    let number = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Every string of every JSON vector: as bytes where it is hexadecimal, as text otherwise.
fn seeds(testdata: &Path) -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    let mut files: Vec<PathBuf> = match fs::read_dir(testdata) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| testdata.display().to_string()),
    };
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let text = fs::read_to_string(file)?;
        let vectors = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        collect_strings(&vectors, &mut seeds);
    }
    seeds.sort();
    seeds.dedup();
    Ok(seeds)
}

fn collect_strings(value: &Value, seeds: &mut Vec<Vec<u8>>) {
    match value {
        Value::String(text) => seeds.push(bytes_of_hex(text).unwrap_or_else(|| text.as_bytes().to_vec())),
        Value::Array(values) => values.iter().for_each(|value| collect_strings(value, seeds)),
        Value::Object(fields) => fields.values().for_each(|value| collect_strings(value, seeds)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let pairs = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_the_strings_of_the_vectors() {
        let vectors = serde_json::json!({"tests": [{"id": 7, "entry": "00ff", "note": "odd"}], "hash": ""});
        let mut seeds = Vec::new();
        collect_strings(&vectors, &mut seeds);
        seeds.sort();
        assert_eq!(seeds, [b"".to_vec(), vec![0, 255], b"odd".to_vec()]);
    }

    #[test]
    fn a_run_that_executed_nothing_is_seen() {
        assert_eq!(executed_units("INFO: ...\nstat::number_of_executed_units: 812\n"), 812);
        assert_eq!(executed_units("INFO: ..."), 0);
    }
}
