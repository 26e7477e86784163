//! Reliability runs against real processes, played by an example of the log's own command.

use anyhow::{Result, bail};

use crate::{
    command::{Command, Finished},
    workspace::Workspace,
};

/// Builds what is needed and runs every scenario with this many seeds; the output is a table.
pub(crate) fn chaos(workspace: &Workspace, seeds: u64) -> Result<Finished> {
    // The same selection as that of the step `build`, so that after it nothing is left to do here.
    let build = workspace.cargo().args(["build", "--quiet", "--workspace", "--all-targets"]);
    if !build.run()?.status.success() {
        bail!("the writer does not build");
    }
    let programs = workspace.target().join("debug");
    Command::new(programs.join("examples/chaos"))
        .args(["--seeds", &seeds.to_string(), "--log"])
        .arg(programs.join("fanlight-log"))
        .run()
}
