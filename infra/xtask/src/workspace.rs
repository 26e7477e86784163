//! Where things lie: the checkout, and what set-up keeps under `target/xtask`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::command::Command;

/// The checkout this xtask was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    pub(crate) fn locate() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
        Self { root: root.expect("the manifest lies in infra/xtask").to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Python and node programs of others, and their pins.
    pub(crate) fn interop(&self) -> PathBuf {
        self.root.join("infra/interop")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Everything that set-up installs.
    pub(crate) fn installed(&self) -> PathBuf {
        self.target().join("xtask")
    }

    /// The root that `cargo install` fills with `bin/cargo-deny` and the like.
    pub(crate) fn cargo_tools(&self) -> PathBuf {
        self.installed().join("cargo-tools")
    }

    pub(crate) fn venv(&self) -> PathBuf {
        self.installed().join("venv")
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.venv().join("bin/python")
    }

    /// Holds `bin/node` and `node_modules`.
    pub(crate) fn node_dir(&self) -> PathBuf {
        self.installed().join("node")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.node_dir().join("bin/node")
    }

    /// A program run at the root, with our tools found first.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let ours = [self.cargo_tools().join("bin"), self.node_dir().join("bin")];
        let path = env::join_paths(ours.into_iter().chain(env::split_paths(&inherited)));
        Command::new(program)
            .dir(&self.root)
            .env("PATH", path.expect("no colon in the path of the checkout"))
            .env("CARGO_TERM_COLOR", "never")
    }

    pub(crate) fn cargo(&self) -> Command {
        self.command("cargo")
    }
}
