//! Two writers on one directory.

use std::sync::mpsc::channel;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::kills::respite;
use crate::random::Random;
use crate::trial::Trial;
use crate::writer::Writer;
use crate::{Args, Counts};

/// A second writer is refused while the first one lives, whose work it does not disturb, and let in once it is killed.
pub(crate) fn second_writer(args: &Args) -> anyhow::Result<Option<Counts>> {
    let mut counts = Counts::default();
    let dir = TempDir::new()?;
    let mut trial = Trial::new(&args.log, dir.path().join("log"))?;
    for seed in 0..args.seeds {
        one(args, &mut trial, &mut counts, &mut Random::new(seed)).with_context(|| format!("seed {seed}"))?;
    }
    counts.add(&trial);
    Ok(Some(counts))
}

fn one(args: &Args, trial: &mut Trial, counts: &mut Counts, random: &mut Random) -> anyhow::Result<()> {
    let entries = trial.offer(1 + random.below(20), 200, random);
    let (half, rest) = entries.split_at(1 + entries.len() / 2);
    let (offer, offered) = channel();
    let mut first = Writer::append(&args.log, trial.dir(), offered)?;
    half.iter().try_for_each(|entry| offer.send(entry.clone()))?;
    first.wait_for_answers(1);

    let second = Writer::append(&args.log, trial.dir(), ["from the second writer".to_owned()])?.wait()?;
    counts.starts += 2;
    ensure!(!second.status.success() && second.acknowledged.is_empty(), "a second writer got in: {}", second.said);
    ensure!(second.said.contains("another writer"), "a second writer was refused without the reason: {}", second.said);
    counts.blows += 1;

    rest.iter().try_for_each(|entry| offer.send(entry.clone()))?;
    first.wait_for_answers(half.len());
    let is_killed = random.below(2) == 0;
    if is_killed {
        first.kill()?;
    }
    // The end of its input is the end of its work.
    drop(offer);
    let answers = first.wait()?;
    if !is_killed {
        answers.expect_success()?;
    }
    trial.record(&answers)?;
    respite(args, trial, counts)
}
