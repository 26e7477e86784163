//! A writer in a process of its own.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow, ensure};
use fanlight_auditlog::{Hash, leaf_hash};

/// Its number.
const SIGKILL: i32 = 9;

/// A process that appends what it is offered.
#[derive(Debug)]
pub(crate) struct Writer {
    child: Child,
    answers: Receiver<String>,
    /// Those read so far.
    answered: Vec<String>,
    complaints: Receiver<String>,
    /// Those read so far.
    said: Vec<String>,
    /// Ends with what was offered.
    feeding: JoinHandle<Vec<String>>,
}

/// What a writer left behind.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) status: ExitStatus,
    /// The leaf of each acknowledged entry, at the index that was answered.
    pub(crate) acknowledged: Vec<(u64, Hash)>,
    /// What it wrote to its standard error.
    pub(crate) said: String,
}

impl Writer {
    /// `fanlight-log append` on a log in `dir`. It goes on until `entries` end.
    pub(crate) fn append<E>(program: &Path, dir: &Path, entries: E) -> anyhow::Result<Self>
    where
        E: IntoIterator<Item = String, IntoIter: Send> + 'static,
    {
        let mut command = Command::new(program);
        command.arg("append").arg(dir).arg("--lines");
        Self::start(command, entries)
    }

    /// A program that reads entries as lines and answers each with a line: `<index>`, in order, or in any order
    /// `acked <index> <leaf hash>`.
    pub(crate) fn start<E>(mut command: Command, entries: E) -> anyhow::Result<Self>
    where
        E: IntoIterator<Item = String, IntoIter: Send> + 'static,
    {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("could not start {}", command.get_program().display()))?;
        let mut stdin = child.stdin.take().context("stdin")?;
        let entries = entries.into_iter();
        let feeding = std::thread::spawn(move || {
            let mut offered = Vec::new();
            for entry in entries {
                // The pipe breaks when the writer is gone.
                if writeln!(stdin, "{entry}").is_err() {
                    break;
                }
                offered.push(entry);
            }
            offered
        });
        let answers = lines(child.stdout.take().context("stdout")?);
        let complaints = lines(child.stderr.take().context("stderr")?);
        Ok(Self { child, answers, answered: Vec::new(), complaints, said: Vec::new(), feeding })
    }

    /// Returns once `n` entries in all are acknowledged, or the writer has ended.
    pub(crate) fn wait_for_answers(&mut self, n: usize) {
        while self.answered.len() < n {
            match self.answers.recv() {
                Ok(answer) => self.answered.push(answer),
                Err(_) => break,
            }
        }
    }

    /// Returns true once it has complained in these words `n` times in all, false when it has ended before.
    pub(crate) fn wait_for_complaints(&mut self, words: &str, n: usize) -> bool {
        while self.said.iter().filter(|line| line.contains(words)).count() < n {
            match self.complaints.recv() {
                Ok(line) => self.said.push(line),
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits for its end, which need not be a good one.
    pub(crate) fn ends_well(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.wait()?.success())
    }

    /// SIGKILL, wherever it is.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for its end, and for that of what it is offered.
    pub(crate) fn wait(mut self) -> anyhow::Result<Answers> {
        // What is still in the pipes was said too.
        self.answered.extend(self.answers.iter());
        self.said.extend(self.complaints.iter());
        let status = self.child.wait()?;
        let offered = self.feeding.join().map_err(|_| anyhow!("the thread that feeds a writer panicked"))?;
        ensure!(self.answered.len() <= offered.len(), "more answers than entries");
        let answers = self.answered.iter().zip(&offered);
        let acknowledged =
            answers.map(|(answer, entry)| parse_answer(answer, entry).with_context(|| format!("no answer: {answer:?}")));
        Ok(Answers { status, acknowledged: acknowledged.collect::<Result<_, _>>()?, said: self.said.join("\n") })
    }
}

/// The index and the leaf, which is that of `entry` when the answer does not say.
fn parse_answer(answer: &str, entry: &str) -> Option<(u64, Hash)> {
    let Some(answer) = answer.strip_prefix("acked ") else {
        return Some((answer.parse().ok()?, leaf_hash(entry.as_bytes())));
    };
    let (index, leaf) = answer.split_once(' ')?;
    Some((index.parse().ok()?, Hash::parse_base64(leaf)?))
}

/// Whole lines: a last one without its end may be half a number.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok() && line.ends_with('\n') {
            let _ = sender.send(line.trim_end().to_owned());
            line.clear();
        }
    });
    receiver
}

impl Answers {
    /// An error that shows what the writer said, unless it ended well.
    pub(crate) fn expect_success(&self) -> anyhow::Result<()> {
        ensure!(self.status.success(), "the writer failed ({}): {}", self.status, self.said);
        Ok(())
    }

    /// Whether SIGKILL ended it, and not a panic that aborts.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }
}
