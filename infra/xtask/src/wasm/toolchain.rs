//! A compiler for wasm32, under `target/xtask/wasm`.
//!
//! A compiler that has the targets already is used as it is. On Debian, the one that its browsers are built with is
//! downloaded and unpacked, and the libraries for the targets are built from the source beside it. Nothing is installed in
//! the system, and the package lists used are our own, so that neither root nor a fresh `apt-get update` is needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::Command,
    set_up::{Stamp, remove_dir_if_any, works},
    workspace::Workspace,
};

/// What a host such as a browser or a Worker runs.
pub(super) const WASM: Target = Target {
    name: "wasm32-unknown-unknown",
    build: &["build", "-Zbuild-std=std,panic_abort", "-Zbuild-std-features="],
    product: "rlib",
};

/// It has no standard library at all. Nothing is linked for it, so the metadata of its libraries is enough.
pub(super) const NO_STD: Target = Target { name: "wasm32v1-none", build: &["check", "-Zbuild-std=core,alloc"], product: "rmeta" };

/// What they depend on comes along, as far as the system lacks it.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Finds the shared libraries that came along, in whichever architecture's folder.
const WRAPPER: &str = r#"#!/bin/sh
root=$(dirname "$0")/usr
for dir in "$root"/lib/*-linux-gnu; do LD_LIBRARY_PATH=$dir:$LD_LIBRARY_PATH; done
export LD_LIBRARY_PATH
exec "$root/bin/rustc" "$@"
"#;

const MANIFEST: &str = r#"[package]
name = "seed"
version = "0.0.0"
edition = "2024"

[lib]
path = "lib.rs"

[workspace]
"#;

/// A target, and how its libraries are built: by which cargo command, and which of its products a sysroot takes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: &'static str,
    build: &'static [&'static str],
    product: &'static str,
}

/// A compiler that has [`WASM`] and [`NO_STD`].
#[derive(Debug)]
pub(super) struct Toolchain {
    /// Absent where it is the workspace's own.
    rustc: Option<PathBuf>,
}

impl Toolchain {
    /// Finds or makes one; absent where there is none and Debian's packages cannot be had either.
    pub(super) fn find(workspace: &Workspace) -> Result<Option<Self>> {
        if [WASM, NO_STD].iter().all(|target| has_libraries(workspace, target)) {
            return Ok(Some(Self { rustc: None }));
        }
        let dir = workspace.installed().join("wasm");
        let rustc = dir.join("rustc");
        let stamp = Stamp::new(&dir, format!("{PACKAGES:?} {:?} {WRAPPER}", [WASM, NO_STD]));
        if !stamp.stands() || !works(Command::new(&rustc).arg("--version")) {
            if !works(Command::new("apt-get").arg("--version")) {
                return Ok(None);
            }
            remove_dir_if_any(&dir)?;
            fs::create_dir_all(&dir)?;
            unpack(&dir).context("compiler for wasm32")?;
            for target in [WASM, NO_STD] {
                build_libraries(workspace, &dir, &rustc, &target).context(target.name)?;
            }
            remove_dir_if_any(&dir.join("seed"))?;
            remove_dir_if_any(&dir.join("usr/src"))?;
            remove_dir_if_any(&dir.join("usr/share"))?;
            stamp.set()?;
        }
        Ok(Some(Self { rustc: Some(rustc) }))
    }

    /// Cargo with this compiler, and a target directory of its own: in the common one, two compilers would take turns at
    /// discarding each other's work.
    pub(super) fn cargo(&self, workspace: &Workspace) -> Command {
        let cargo = workspace.cargo().env("CARGO_TARGET_DIR", workspace.target().join("wasm"));
        match &self.rustc {
            Some(rustc) => cargo.env("RUSTC", rustc),
            None => cargo,
        }
    }
}

fn has_libraries(workspace: &Workspace, target: &Target) -> bool {
    let libraries = workspace.command("rustc").args(["--print", "target-libdir", "--target", target.name]).expect_success();
    libraries.is_ok_and(|libraries| Path::new(libraries.trim()).exists())
}

/// Downloads the packages and unpacks them into `dir/usr`.
fn unpack(dir: &Path) -> Result<()> {
    let lists = dir.join("apt/lists");
    let cache = dir.join("apt/cache");
    let archives = cache.join("archives");
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(archives.join("partial"))?;
    let apt_get = || {
        Command::new("apt-get")
            .arg(format!("--option=Dir::State::Lists={}", lists.display()))
            .arg(format!("--option=Dir::Cache={}", cache.display()))
            // The lock is the system's, and the folder may be closed to the user that apt would download as.
            .args(["--option=Debug::NoLocking=true", "--option=APT::Sandbox::User=", "--quiet"])
    };
    println!("downloading {} and what they need", PACKAGES.join(" "));
    apt_get().arg("update").expect_success()?;
    apt_get().args(["--yes", "--download-only", "--no-install-recommends", "install"]).args(PACKAGES).expect_success()?;

    let mut unpacked = false;
    for entry in fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(dir).expect_success()?;
            unpacked = true;
        }
    }
    if !unpacked {
        bail!("{} are installed in the system; remove them, or add the targets to the compiler in use", PACKAGES.join(" and "));
    }
    remove_dir_if_any(&dir.join("apt"))?;

    let wrapper = dir.join("rustc");
    fs::write(&wrapper, WRAPPER)?;
    Ok(fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?)
}

/// Builds the libraries as dependencies of an empty crate and moves them to where the compiler looks for them.
fn build_libraries(workspace: &Workspace, dir: &Path, rustc: &Path, target: &Target) -> Result<()> {
    println!("building the libraries of {}", target.name);
    let seed = dir.join("seed");
    fs::create_dir_all(&seed)?;
    fs::write(seed.join("Cargo.toml"), MANIFEST)?;
    fs::write(seed.join("lib.rs"), "#![no_std]\n")?;
    workspace
        .cargo()
        .dir(&seed)
        .env("RUSTC", rustc)
        // The library's own source uses what only a nightly compiler admits to.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "")
        .env("CARGO_TARGET_DIR", seed.join("target"))
        .args(target.build)
        .args(["--release", "--target", target.name])
        .expect_success()?;

    let products = seed.join("target").join(target.name).join("release/deps");
    let libraries = dir.join("usr/lib/rustlib").join(target.name).join("lib");
    fs::create_dir_all(&libraries)?;
    for entry in fs::read_dir(&products)? {
        let product = entry?.path();
        let name = product.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if product.extension().is_some_and(|extension| extension == target.product) && !name.starts_with("libseed-") {
            fs::rename(&product, libraries.join(name))?;
        }
    }
    Ok(())
}
