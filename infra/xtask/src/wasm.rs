//! Checks that what runs in a Worker or a browser builds for wasm32, and that the log's pure core needs no standard library.

mod toolchain;

use anyhow::Result;

use crate::{tally::Tally, workspace::Workspace};
use toolchain::{NO_STD, Target, Toolchain, WASM};

/// Packages and features, and what they have to build for.
const CHECKS: [(&Target, &[&str]); 4] = [
    (&NO_STD, &["--package=fanlight-auditlog", "--no-default-features"]),
    (&WASM, &["--package=fanlight-auditlog", "--no-default-features"]),
    (&WASM, &["--package=fanlight-auditlog", "--no-default-features", "--features=std"]),
    (&WASM, &["--package=fanlight-gateway"]),
];

/// Where randomness comes from is the choice of the program that a host runs. Here is none, so none is linked.
const RUSTFLAGS: &str = "--cfg getrandom_backend=\"custom\"";

/// Absent where there is no compiler for wasm32.
pub(crate) fn check(workspace: &Workspace) -> Result<Option<Tally>> {
    let Some(toolchain) = Toolchain::find(workspace)? else {
        return Ok(None);
    };
    let mut total = Tally::default();
    for (target, selection) in CHECKS {
        let cargo = toolchain.cargo(workspace).env("RUSTFLAGS", RUSTFLAGS);
        // What only a build runs, macros above all, is used too briefly to be worth optimising.
        let quick = ["--config=profile.dev.package.'*'.opt-level=0", "--config=profile.dev.debug=false"];
        let finished = cargo.args(["check", "--quiet", "--target", target.name]).args(quick).args(selection).run()?;
        let verdict = if finished.status.success() { "ok" } else { "FAILED" };
        println!("{verdict} {}: {}", target.name, selection.join(" "));
        total += Tally::of_program(&finished);
    }
    Ok(Some(total))
}
