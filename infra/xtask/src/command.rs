//! Child processes whose output a person reads as it comes and we read afterwards.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{self, ExitStatus},
};

use anyhow::{Context, Result, bail};

/// A child process to be; standard output and standard error go into one pipe, so their order is kept.
#[derive(Debug)]
pub(crate) struct Command {
    program: OsString,
    inner: process::Command,
}

/// What a child process left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

impl Command {
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        let mut inner = process::Command::new(&program);
        inner.stdin(process::Stdio::null());
        Self { program, inner }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    pub(crate) fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Runs to the end and passes every line on.
    pub(crate) fn run(self) -> Result<Finished> {
        self.finish(|line| io::stdout().lock().write_all(line))
    }

    /// Runs to the end in silence.
    pub(crate) fn capture(self) -> Result<Finished> {
        self.finish(|_| Ok(()))
    }

    /// Runs in silence; on failure the error shows what the program said.
    pub(crate) fn expect_success(self) -> Result<String> {
        let program = self.program.clone();
        let Finished { status, output } = self.capture()?;
        if !status.success() {
            bail!("{} failed ({status}):\n{}", program.display(), output.trim_end());
        }
        Ok(output)
    }

    fn finish(self, mut pass: impl FnMut(&[u8]) -> io::Result<()>) -> Result<Finished> {
        let Self { program, mut inner } = self;
        let (reader, writer) = io::pipe()?;
        inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = inner.spawn().with_context(|| format!("could not start {}", program.display()))?;
        // The command holds the writing ends, and the pipe ends only when they are gone.
        drop(inner);

        let mut output = Vec::new();
        let mut reader = BufReader::new(reader);
        loop {
            let before = output.len();
            if reader.read_until(b'\n', &mut output)? == 0 {
                break;
            }
            pass(&output[before..])?;
        }
        Ok(Finished { status: child.wait()?, output: String::from_utf8_lossy(&output).into_owned() })
    }
}
