//! Writers that are killed.

use std::cell::Cell;
use std::env;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::random::Random;
use crate::trial::Trial;
use crate::writer::Writer;
use crate::{Args, Counts};

/// Seeds that share a log: enough to grow it past a tile, few enough that checking every byte each time stays cheap.
const SEEDS_PER_LOG: u64 = 25;

/// Seeds after which one writer is left to end well, and the log has to be complete.
const SEEDS_PER_RESPITE: u64 = 5;

/// Entries are up to this long.
const LONGEST_ENTRY: u64 = 1500;

/// The longest that a writer lives: a start, and the two rounds that take all that it is offered.
const LONGEST_LIFE: Duration = Duration::from_millis(300);

/// Stops from one seed's to the next one's. Odd, so that it is before and after an operation in turn.
const STRIDE: u64 = 7;

pub(crate) fn at_every_operation(args: &Args) -> anyhow::Result<Option<Counts>> {
    // Stops 2n and 2n + 1 are before and after the operation n of a writer's life. Its end is reached in strides, and
    // then the next lap starts one stop further: few seeds see all of a life, and STRIDE laps every stop.
    let stop = Cell::new(0);
    repeatedly(args, |trial, random| {
        let entries = trial.offer(1 + random.below(300), LONGEST_ENTRY, random);
        let mut command = Command::new(env::current_exe()?);
        command.arg("--append-to").arg(trial.dir()).arg("--log").arg(&args.log);
        command.args(["--last", &(1 + stop.get() / 2).to_string()]).args((stop.get() % 2 == 1).then_some("--finish-last"));
        let mut writer = Writer::start(command, entries)?;
        stop.set(if writer.ends_well()? { (stop.get() + 1) % STRIDE } else { stop.get() + STRIDE });
        Ok(writer)
    })
}

pub(crate) fn at_random_moments(args: &Args) -> anyhow::Result<Option<Counts>> {
    repeatedly(args, |trial, random| {
        let entries = trial.offer(random.below(400), LONGEST_ENTRY, random);
        let writer = Writer::append(&args.log, trial.dir(), entries)?;
        let microseconds = u64::try_from(LONGEST_LIFE.as_micros()).context("longest life")?;
        thread::sleep(Duration::from_micros(random.below(microseconds)));
        Ok(writer)
    })
}

pub(crate) fn at_random_answers(args: &Args) -> anyhow::Result<Option<Counts>> {
    repeatedly(args, |trial, random| {
        let entries = trial.offer(400, LONGEST_ENTRY, random);
        let mut writer = Writer::append(&args.log, trial.dir(), entries)?;
        writer.wait_for_answers(usize::try_from(1 + random.below(399))?);
        Ok(writer)
    })
}

/// Kills, for each seed, the writer that `start` hands over.
fn repeatedly(args: &Args, start: impl Fn(&mut Trial, &mut Random) -> anyhow::Result<Writer>) -> anyhow::Result<Option<Counts>> {
    let mut counts = Counts::default();
    for first in (0..args.seeds).step_by(SEEDS_PER_LOG.try_into()?) {
        let dir = TempDir::new()?;
        let mut trial = Trial::new(&args.log, dir.path().join("log"))?;
        let end = args.seeds.min(first + SEEDS_PER_LOG);
        for seed in first..end {
            let mut one = || {
                let mut writer = start(&mut trial, &mut Random::new(seed))?;
                writer.kill()?;
                let answers = writer.wait()?;
                counts.starts += 1;
                if answers.was_killed() {
                    counts.blows += 1;
                } else {
                    answers.expect_success()?;
                }
                trial.record(&answers)?;
                trial.check()?;
                if (seed + 1).is_multiple_of(SEEDS_PER_RESPITE) || seed + 1 == end {
                    respite(args, &mut trial, &mut counts)?;
                }
                anyhow::Ok(())
            };
            one().with_context(|| format!("seed {seed}"))?;
        }
        counts.add(&trial);
    }
    ensure!(counts.blows > 0 || args.seeds < SEEDS_PER_RESPITE, "every writer came to its end");
    Ok(Some(counts))
}

/// A writer that nobody disturbs takes all that is left, and the log is complete.
pub(crate) fn respite(args: &Args, trial: &mut Trial, counts: &mut Counts) -> anyhow::Result<()> {
    let entries = trial.offer(0, 1, &mut Random::new(0));
    let answers = Writer::append(&args.log, trial.dir(), entries)?.wait()?;
    counts.starts += 1;
    answers.expect_success()?;
    trial.record(&answers)?;
    trial.check_complete()
}
