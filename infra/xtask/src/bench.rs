//! Runs the benches of the workspace and sets each figure beside its baseline and its target.
//!
//! A bench is any bench target of the workspace. It prints one JSON object per figure, a line each; see [`Figure`].

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workspace::Workspace;

/// One measured figure.
#[derive(Debug, Deserialize, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// The same measure of something to compare with, in the same unit.
    baseline: Option<f64>,
    baseline_name: Option<String>,
    target: Option<Target>,
}

/// What a figure is to reach: `>= 0.8x` and `<= 1.3x` of the baseline, or `<= 5` in its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
struct Target {
    at_least: bool,
    bound: f64,
    of_baseline: bool,
}

impl Figure {
    /// Value by baseline.
    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    /// Absent without a target, or where there is no baseline to compare with.
    fn meets_target(&self) -> Option<bool> {
        let target = self.target?;
        let reached = if target.of_baseline { self.ratio()? } else { self.value };
        Some(if target.at_least { reached >= target.bound } else { reached <= target.bound })
    }

    fn row(&self) -> [String; 5] {
        let number = |value: f64| format!("{} {}", significant(value), self.unit);
        let none = || "-".to_owned();
        let baseline = match (self.baseline, &self.baseline_name) {
            (Some(baseline), Some(name)) => format!("{} ({name})", number(baseline)),
            (Some(baseline), None) => number(baseline),
            (None, _) => none(),
        };
        let target = self.target.map_or_else(none, |target| {
            let verdict = match self.meets_target() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not comparable",
            };
            format!("{} {verdict}", String::from(target))
        });
        let ratio = self.ratio().map_or_else(none, |ratio| format!("{ratio:.2}x"));
        [self.name.clone(), number(self.value), baseline, ratio, target]
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (at_least, bound) = match text.split_at_checked(2)? {
                (">=", bound) => (true, bound),
                ("<=", bound) => (false, bound),
                _ => return None,
            };
            let of_baseline = bound.ends_with('x');
            let bound = bound.trim_end_matches('x').trim().parse().ok()?;
            Some(Self { at_least, bound, of_baseline })
        };
        parse().ok_or_else(|| format!("{text:?} is no target such as \">= 0.8x\" or \"<= 5\""))
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        let sign = if target.at_least { ">=" } else { "<=" };
        format!("{sign} {}{}", target.bound, if target.of_baseline { "x" } else { "" })
    }
}

/// A bench target, and the package that has it.
struct Bench {
    package: String,
    name: String,
}

/// Prints the benches that [`bench()`] would run.
pub(crate) fn list(workspace: &Workspace, only: &[String]) -> Result<()> {
    for Bench { package, name } in chosen(workspace, only)? {
        println!("{package}: {name}");
    }
    Ok(())
}

/// Runs all benches or those that `only` names; fails when one of them fails, not when a figure misses its target.
pub(crate) fn bench(workspace: &Workspace, only: &[String], print_only: bool) -> Result<ExitCode> {
    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for Bench { package, name } in chosen(workspace, only)? {
        println!("\n== {package}: {name}");
        let run = workspace.cargo().env("FANLIGHT_PYTHON", workspace.python()).args([
            "bench",
            "--quiet",
            "--package",
            &package,
            "--bench",
            &name,
        ]);
        let finished = run.run()?;
        match figures_in(&finished.output) {
            Ok(measured) if finished.status.success() && !measured.is_empty() => figures.extend(measured),
            Ok(_) => failed.push(format!("{name}: failed, or printed no figure")),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }

    print_table(&figures);
    if !print_only {
        let file = workspace.target().join("bench.json");
        fs::write(&file, serde_json::to_string_pretty(&figures)? + "\n").context("bench.json")?;
        println!("\nwritten to {}", file.display());
    }
    for failure in &failed {
        println!("FAILED {failure}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those of which `only` has a part of the name or the package; all without any.
fn chosen(workspace: &Workspace, only: &[String]) -> Result<Vec<Bench>> {
    let mut benches = benches(workspace)?;
    let named = |bench: &Bench| only.iter().any(|text| bench.name.contains(text) || bench.package.contains(text));
    benches.retain(|bench| only.is_empty() || named(bench));
    if benches.is_empty() {
        bail!("the workspace has no such bench");
    }
    Ok(benches)
}

fn benches(workspace: &Workspace) -> Result<Vec<Bench>> {
    let metadata = workspace.cargo().args(["metadata", "--quiet", "--no-deps", "--format-version=1"]).expect_success()?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let mut benches = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] != "bench" {
                continue;
            }
            if let (Some(package), Some(name)) = (package["name"].as_str(), target["name"].as_str()) {
                benches.push(Bench { package: package.to_owned(), name: name.to_owned() });
            }
        }
    }
    Ok(benches)
}

/// Reads every line that is a JSON object.
fn figures_in(output: &str) -> Result<Vec<Figure>> {
    let objects = output.lines().filter(|line| line.starts_with('{'));
    objects.map(|line| serde_json::from_str(line).with_context(|| format!("no figure: {line}"))).collect()
}

fn print_table(figures: &[Figure]) {
    let heading = ["figure", "value", "baseline", "ratio", "target"].map(str::to_owned);
    let rows: Vec<_> = [heading].into_iter().chain(figures.iter().map(Figure::row)).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    println!();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// Four significant digits or more, thousands set apart.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let plain = format!("{value:.decimals$}");
    let whole = plain.split('.').next().map_or(0, str::len);
    plain
        .char_indices()
        .flat_map(|(at, c)| {
            let apart = at > 0 && at < whole && (whole - at) % 3 == 0 && !plain[..at].ends_with('-');
            apart.then_some(',').into_iter().chain([c])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"
     Running benches/append.rs
{"name":"append","value":15000,"unit":"entries/s","baseline":10000,"baseline_name":"plain files","target":">= 2x"}
{"name":"seal","value":120.5,"unit":"us","baseline":100.0,"target":"<= 1.3x"}
{"name":"proof","value":812,"unit":"bytes","baseline":null,"baseline_name":null,"target":"<= 800"}
{"name":"open","value":0.5,"unit":"ms"}
"#;

    #[test]
    fn figures_are_set_beside_baseline_and_target() {
        let rows: Vec<_> = figures_in(LINES).unwrap().iter().map(Figure::row).collect();
        assert_eq!(rows[0], ["append", "15,000 entries/s", "10,000 entries/s (plain files)", "1.50x", ">= 2x MISSED"]);
        assert_eq!(rows[1], ["seal", "120.5 us", "100.0 us", "1.21x", "<= 1.3x met"]);
        assert_eq!(rows[2], ["proof", "812.0 bytes", "-", "-", "<= 800 MISSED"]);
        assert_eq!(rows[3], ["open", "0.5000 ms", "-", "-", "-"]);
    }

    #[test]
    fn a_line_that_is_no_figure_is_an_error() {
        figures_in(r#"{"value":1,"unit":"ms"}"#).unwrap_err();
        figures_in(r#"{"name":"seal","value":1,"unit":"ms","target":"fast"}"#).unwrap_err();
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(significant(1_234_567.0), "1,234,567");
        assert_eq!(significant(-123_456.0), "-123,456");
        assert_eq!(significant(999.0), "999.0");
    }
}
