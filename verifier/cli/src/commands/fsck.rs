//! `fsck`: every byte of a log.

use std::fs;
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use fanlight_auditlog::VerifiedCheckpoint;
use fanlight_auditlog::fsck::{Damage, FsckError, FsckReport, Leftovers, MAX_RESUME_POINT_LEN, Options, ResumePoint, fsck};
use fanlight_auditlog::workers::Threads;
use serde_json::{Value, json};

use crate::commands::{OpenLog, advance, progress_bar};
use crate::durable;
use crate::outcome::{Outcome, Refused, Verdict, chain};
use crate::policy::{LogKeyArgs, read_bounded};
use crate::source::StoreArgs;
use crate::text::push_line;

/// Time between two writes of the resume file.
const SAVE_PERIOD: Duration = Duration::from_secs(2);

/// Damaged objects that are shown to people; programs and the evidence get more of them.
const MAX_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Store of the log, a directory or `s3://bucket/prefix`, or its http(s) URL prefix
    #[arg(value_name = "STORE-OR-URL")]
    log: String,
    #[command(flatten)]
    stores: StoreArgs,
    #[command(flatten)]
    trust: LogKeyArgs,
    /// Go on where an earlier check stopped, and note here how far this one comes; without the file, from the start
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Threads that hash; all that the machine has if not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

pub(crate) async fn run(args: &FsckArgs) -> anyhow::Result<Outcome> {
    let log = OpenLog::open(&args.log, &args.stores, &args.trust).await?;
    let resume = args.resume.as_deref().map(read_resume_point).transpose()?.flatten();
    let earlier = resume.as_ref().map(|point| verify_earlier(&log, point)).transpose()?;
    let leftovers = match log.source().store() {
        Some(store) => Leftovers::list(store).await.with_context(|| format!("{} was not listed", log.name()))?,
        None => Leftovers::unknown(),
    };
    let threads = args.threads.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let bar = progress_bar(log.checkpoint().tree_size());
    let mut saver = args.resume.as_deref().map(Saver::new);
    let options = Options { leftovers, resume };
    // Where the check begins, which is the first thing that it says: a resume point may turn out to be of no use.
    let mut first = None;
    let result = fsck(log.source(), log.checkpoint(), options, &Threads::new(threads), |progress| {
        first.get_or_insert_with(|| progress.n_entries());
        advance(&bar, progress.n_entries(), progress.tree_size(), progress.n_bytes());
        if let Some(saver) = &mut saver {
            saver.note(|| progress.resume_point());
        }
    })
    .await;
    let first = first.unwrap_or_default();
    bar.finish_and_clear();
    if let (Some(saver), Ok(report)) = (&mut saver, &result) {
        saver.save(report.resume_point());
    }
    if let Some(Saver { failure: Some(error), path, .. }) = saver {
        eprintln!("fanlight-verify: {} was not written: {error}; a later check will begin further back", path.display());
    }
    match (result, earlier) {
        (Ok(report), _) if report.is_good() => Ok(good(&report, first)),
        (Ok(report), _) => Ok(bad(&report, first).with_evidence(log.evidence_of(report.damage()))),
        (Err(FsckError::Fork | FsckError::Rollback), Some(earlier)) => log.not_grown(&earlier, "seen by the earlier check").await,
        (Err(error @ FsckError::OtherLog), _) => Err(anyhow!(error).context("give another --resume FILE")),
        (Err(error), _) => Err(anyhow!(error).context(format!("{} was not read", log.name()))),
    }
}

fn good(report: &FsckReport, first: u64) -> Outcome {
    let mut text = format!("GOOD: every byte of {} is what its checkpoint says\n", report.checkpoint().origin());
    push_counts(&mut text, report);
    if first > 0 {
        push_line(&mut text, format_args!("resumed     at entry {first}; what lies before was good in an earlier check"));
    }
    if report.n_beyond() > 0 {
        let n = report.n_beyond();
        push_line(&mut text, format_args!("not known   {n} objects that lie beyond the checkpoint, as during a round"));
    }
    Outcome::new(Verdict::Good, text, fields(report, first))
}

fn bad(report: &FsckReport, first: u64) -> Outcome {
    let (n, origin) = (report.n_damaged(), report.checkpoint().origin());
    let objects = if n == 1 { "1 object".to_owned() } else { format!("{n} objects") };
    let error = format!("{objects} of {origin} damaged");
    let mut text = format!("BAD: {error}\n");
    push_counts(&mut text, report);
    for Damage { key, problem, .. } in report.damage().iter().take(MAX_SHOWN) {
        push_line(&mut text, format_args!("damaged     {key} {}", chain(problem)));
        if let Some((expected, got)) = problem.hashes() {
            push_line(&mut text, format_args!("              expected  {expected}\n              got       {got}"));
        }
    }
    let shown = report.damage().len().min(MAX_SHOWN) as u64;
    if shown < n {
        push_line(&mut text, format_args!("            and {} more", n - shown));
    }
    let mut fields = fields(report, first);
    fields["error"] = error.into();
    Outcome::new(Verdict::Bad, text, fields)
}

fn push_counts(text: &mut String, report: &FsckReport) {
    let checkpoint = report.checkpoint();
    push_line(text, format_args!("entries     {}", checkpoint.tree_size()));
    push_line(text, format_args!("root        {}", checkpoint.root_hash()));
    let (n_tiles, n_bundles, n_bytes) = (report.n_tiles(), report.n_bundles(), report.n_bytes());
    push_line(text, format_args!("recomputed  {n_tiles} tiles, {n_bundles} bundles, {n_bytes} bytes"));
}

fn fields(report: &FsckReport, first: u64) -> Value {
    let checkpoint = report.checkpoint();
    let damage = report.damage().iter().map(|Damage { key, problem, .. }| {
        let (expected, got) = problem.hashes().map(|(expected, got)| (expected.to_string(), got.to_string())).unzip();
        json!({ "path": key, "problem": chain(problem), "expected": expected, "got": got })
    });
    json!({
        "origin": checkpoint.origin(), "tree_size": checkpoint.tree_size(), "root_hash": checkpoint.root_hash().to_string(),
        "n_tiles": report.n_tiles(), "n_bundles": report.n_bundles(), "n_bytes": report.n_bytes(),
        "n_beyond": report.n_beyond(), "n_resumed": first, "n_damaged": report.n_damaged(), "damage": damage.collect::<Vec<_>>(),
    })
}

/// The resume point in a file; `None` before there is one.
fn read_resume_point(path: &Path) -> anyhow::Result<Option<ResumePoint>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let what = || format!("{} is no resume point; remove it to check from the start", path.display());
    let text = String::from_utf8(read_bounded(path, MAX_RESUME_POINT_LEN)?).with_context(what)?;
    ResumePoint::parse(&text).map(Some).with_context(what)
}

/// The checkpoint of the earlier check, signed by a log that is trusted now.
fn verify_earlier(log: &OpenLog, point: &ResumePoint) -> anyhow::Result<VerifiedCheckpoint> {
    if point.checkpoint().origin() != log.checkpoint().origin() {
        let (other, origin) = (point.checkpoint().origin(), log.checkpoint().origin());
        bail!("the resume point is of {other}, but {} is {origin}; give another --resume FILE", log.name());
    }
    log.policy().verify_log_signature(point.note().as_bytes()).map_err(|error| {
        let evidence = log.evidence("checkpoint").checkpoint("in the resume point", point.note().as_bytes());
        Refused::from(Outcome::bad("the resume point's checkpoint was refused", &error).with_evidence(evidence)).into()
    })
}

/// Writes resume points now and then, each in place of the one before.
struct Saver<'a> {
    path: &'a Path,
    saved: Option<Instant>,
    failure: Option<io::Error>,
}

impl<'a> Saver<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, saved: None, failure: None }
    }

    fn note(&mut self, point: impl FnOnce() -> ResumePoint) {
        #[expect(clippy::disallowed_methods, reason = "how often a file is written is no result")]
        let now = Instant::now();
        if *self.saved.get_or_insert(now) + SAVE_PERIOD <= now {
            self.saved = Some(now);
            self.save(&point());
        }
    }

    fn save(&mut self, point: &ResumePoint) {
        if self.failure.is_none() {
            self.failure = durable::replace(self.path, point.to_string().as_bytes()).err();
        }
    }
}
